//! A batch's way to its worker, and back into the queue where that is barred or interrupted.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tenantry_sched::{Event, Outcome, Phase, Weights};
use tenantry_types::{BatchId, MonotonicTime, ReplicaId, SlotId, TaskId, WorkerId};
use tenantry_wire::{FileEntry, SendError, ToWorker};

use crate::data_plane::{Entry, Node};
use crate::gather;
use crate::placement::Placement;
use crate::submission::ServeError;
use crate::supervisor::ModelFile;
use crate::worker::{ArenaError, Exec, Kill, Load, Request, Running, Work, Worker};

/// A decision to run something, but for its tasks.
#[derive(Debug)]
pub(crate) struct Dispatched {
    pub(crate) batch: BatchId,
    pub(crate) slot: SlotId,
    pub(crate) worker: WorkerId,
    pub(crate) replica: Option<ReplicaId>,
    pub(crate) weights: Weights,
    pub(crate) phase: Phase,
}

impl Node {
    pub(crate) fn dispatch(self: &Arc<Self>, tasks: &[TaskId], dispatched: Dispatched) {
        let (batch, worker_id) = (dispatched.batch, dispatched.worker);
        let entries: SmallVec<[(u32, Entry); 8]> = {
            let mut inflight = self.inflight.lock();
            let mut take = |(position, task): (u32, &TaskId)| {
                let entry = inflight.remove(task);
                if entry.is_none() {
                    // Whoever gave it up says so, but perhaps only after this batch has come back with it.
                    self.push(Event::Cancel { task: *task });
                }
                Some((position, entry?))
            };
            (0..).zip(tasks).filter_map(&mut take).collect()
        };
        let worker = self.fleet.lock().worker(worker_id);
        let mut requests = Vec::with_capacity(entries.len());
        let mut load = None;
        for (position, entry) in entries {
            match entry {
                Entry::Request(request) => {
                    let now = self.now();
                    match self.refusal_of_input(&request.placement, &request.inputs, now) {
                        // It waited while the same input ended workers.
                        Some(refusal) => self.give_up(vec![*request], &refusal),
                        None => requests.push(Request { position, ..*request }),
                    }
                }
                Entry::Load(found) => load = Some(*found),
            }
        }
        if !self.open_meters(&requests) {
            self.give_up(std::mem::take(&mut requests), &ServeError::Unrecorded);
        }
        if let Some(worker) = &worker {
            requests = self.fit_to_run(worker, requests);
        }
        let outcome = match (worker, load) {
            (Some(worker), Some(load)) => self.dispatch_load(&worker, dispatched, load, tasks),
            (None, Some(load)) => {
                self.give_up_load(tasks, load.replica);
                Err(Unsent::worker_lost(requests))
            }
            // Everybody in the batch was cancelled.
            (_, None) if requests.is_empty() => Err(Unsent { members: requests, alone: false, worker_lost: false }),
            (Some(worker), None) => self.dispatch_requests(&worker, dispatched, requests),
            (None, None) => Err(Unsent::worker_lost(requests)),
        };
        let Err(Unsent { members, alone, worker_lost }) = outcome else { return };
        if worker_lost {
            // Before `Done`: otherwise the scheduler, which has not heard of the death yet, would give the same
            // tasks to the same dead worker again and again.
            self.push(Event::WorkerDown { worker: worker_id });
        }
        // The slot is free again, nothing was used.
        self.orders.take(batch);
        self.bring_back(members);
        let outcome = if alone { Outcome::Split } else { Outcome::Interrupted };
        self.push(Event::Done { batch, used: Duration::ZERO, outcome });
    }

    /// Gathers a batch into the worker's arena and rings its socket. What does not run comes back, to be queued again.
    fn dispatch_requests(
        self: &Arc<Self>,
        worker: &Arc<Worker>,
        dispatched: Dispatched,
        members: Vec<Request>,
    ) -> Result<(), Unsent> {
        let mut exec = worker.exec();
        let Some(replica) = dispatched.replica.filter(|_| !exec.gone) else {
            return Err(Unsent::worker_lost(members));
        };
        self.slot_cores.place(worker, &mut exec, dispatched.slot);
        let cpu = worker.cpu_time().unwrap_or_default();
        let problem = match self.send_run(&mut exec, worker, replica, &members) {
            Ok(Sent { task, started, wanted, placement }) => {
                let work = Work::Infer { placement, members, wanted };
                let running = Running { cpu, ..Running::new(dispatched.batch, task, started, work) };
                self.begin(worker, &mut exec, dispatched, running);
                return Ok(());
            }
            Err(problem) => problem,
        };
        drop(exec);
        let none = Unsent { members: Vec::new(), alone: false, worker_lost: false };
        match problem {
            // Alone each may fit; one that does not gets its own answer then.
            SendRunError::Member(_) if members.len() > 1 => Err(Unsent { members, alone: true, worker_lost: false }),
            SendRunError::Member(text) => {
                self.give_up(members, &ServeError::InvalidInput(text));
                Err(none)
            }
            SendRunError::Memory(text) => {
                tracing::error!(worker = %worker.id, reason = text, "no shared memory for a batch");
                self.give_up(members, &ServeError::Overloaded);
                Err(none)
            }
            SendRunError::Worker(kill) => {
                worker.kill(kill);
                Err(Unsent::worker_lost(members))
            }
        }
    }

    /// The worker has its frame: from now on the batch is its, with all that was said about it meanwhile.
    fn begin(self: &Arc<Self>, worker: &Arc<Worker>, exec: &mut Exec, dispatched: Dispatched, running: Running) {
        let Dispatched { batch, weights, phase, .. } = dispatched;
        let running = exec.begin(Running { weights, phase, ..running });
        if let Some(order) = self.orders.take(batch) {
            self.obey(worker, running, order);
        }
    }

    fn send_run(
        &self,
        exec: &mut Exec,
        worker: &Worker,
        replica: ReplicaId,
        members: &[Request],
    ) -> Result<Sent, SendRunError> {
        let Some(first) = members.first() else {
            return Err(SendRunError::Member("the batch is empty".to_owned()));
        };
        let inputs = first.placement.spec.signature.inputs.len();
        let layout = gather::layout(members.iter().map(|member| member.inputs.as_slice()), inputs)
            .map_err(|error| SendRunError::Member(error.to_string()))?;
        let output_bytes = exec.output_capacity();
        exec.ensure_arenas(worker, layout.bytes, output_bytes, self.config.max_arena_bytes).map_err(
            |error| match error {
                ArenaError::TooLarge { .. } => SendRunError::Member(error.to_string()),
                ArenaError::Memory(error) => SendRunError::Memory(error.to_string()),
                ArenaError::Send(error) => SendRunError::Worker(send_failed(&error)),
            },
        )?;
        let arena = exec.input().ok_or_else(|| SendRunError::Memory("the worker has no arena".to_owned()))?;
        for (index, descriptor) in layout.descriptors.iter().enumerate() {
            let mut offset = descriptor.offset;
            let tensors = members.iter().filter_map(|member| member.inputs.get(index));
            for part in tensors.flat_map(|tensor| tensor.data.parts()) {
                arena.write(offset, part).map_err(|error| SendRunError::Member(error.to_string()))?;
                offset += part.len() as u64;
            }
        }
        let wanted = first.wanted.to_vec();
        let started = self.now();
        // Fresh, because the same request may run again: a late word or answer must not be taken for its second run's.
        let task = TaskId(self.next_id());
        let frame = ToWorker::Run {
            task,
            replica,
            arena: exec.generation(),
            inputs: layout.descriptors,
            outputs: wanted.clone(),
        };
        worker.send(&frame, &[]).map_err(|error| SendRunError::Worker(send_failed(&error)))?;
        Ok(Sent { task, started, wanted, placement: Arc::clone(&first.placement) })
    }

    /// Files requests whose batch did not reach its end as waiting ones again. An `Event::Done` must follow that brings
    /// them back in the scheduler, which may dispatch them the moment it hears of it.
    pub(crate) fn bring_back(&self, members: Vec<Request>) {
        for member in members {
            if let Some(shortfall) = self.shortfall_for(&member.placement, member.task.tenant) {
                self.give_up(vec![member], &ServeError::BelowMinimum(shortfall));
                continue;
            }
            let mut inflight = self.inflight.lock();
            // Whoever gives up closes the reply before it looks here: one of the two sees the other.
            if member.reply.is_closed() {
                drop(inflight);
                self.give_up(vec![member], &ServeError::Cancelled);
            } else {
                inflight.insert(member.task.id, Entry::Request(Box::new(member)));
            }
        }
    }

    /// Answers requests whose batch comes back without them.
    pub(crate) fn give_up(&self, members: Vec<Request>, error: &ServeError) {
        for member in members {
            self.push(Event::Cancel { task: member.task.id });
            member.answer(Err(error.clone()), self.now());
        }
        self.quiet.notify_waiters();
    }

    fn give_up_load(self: &Arc<Self>, tasks: &[TaskId], replica: ReplicaId) {
        for task in tasks {
            self.push(Event::Cancel { task: *task });
        }
        self.load_dropped(replica);
    }

    fn dispatch_load(
        self: &Arc<Self>,
        worker: &Arc<Worker>,
        dispatched: Dispatched,
        mut load: Load,
        tasks: &[TaskId],
    ) -> Result<(), Unsent> {
        if let Some(shortfall) = self.load_shortfall(worker, &load.placement) {
            tracing::warn!(worker = %worker.id, %shortfall, "a load is dropped");
            self.give_up_load(tasks, load.replica);
            return Err(Unsent { members: Vec::new(), alone: false, worker_lost: false });
        }
        if load.meter.as_ref().is_some_and(|meter| !meter.open()) {
            self.give_up_load(tasks, load.replica);
            return Err(Unsent { members: Vec::new(), alone: false, worker_lost: false });
        }
        load.memory_before = worker.own_memory_bytes().unwrap_or(u64::MAX);
        let task = TaskId(self.next_id());
        let mut exec = worker.exec();
        self.slot_cores.place(worker, &mut exec, dispatched.slot);
        let mut options = load.model.options.clone();
        if let Some(width) = self.slot_cores.width(dispatched.slot) {
            // More threads than processors would only take turns.
            options.threads = options.threads.min(width);
        }
        let frame = ToWorker::Load {
            task,
            replica: load.replica,
            form: load.model.form,
            files: file_entries(&load.model.files),
            options,
            limits: self.config.model_limits,
        };
        let files: Vec<_> = load.model.files.iter().map(|file| file.file.as_fd()).collect();
        let cpu = worker.cpu_time().unwrap_or_default();
        if exec.gone || worker.send(&frame, &files).is_err() {
            drop(exec);
            self.give_up_load(tasks, load.replica);
            return Err(Unsent { members: Vec::new(), alone: false, worker_lost: false });
        }
        let running = Running { cpu, ..Running::new(dispatched.batch, task, self.now(), Work::Load(load)) };
        self.begin(worker, &mut exec, dispatched, running);
        Ok(())
    }
}

pub(crate) fn file_entries(files: &[ModelFile]) -> Vec<FileEntry> {
    files.iter().map(|file| FileEntry { name: file.name.clone(), bytes: file.bytes }).collect()
}

/// Requests of a batch that does not run.
struct Unsent {
    members: Vec<Request>,
    /// Whether each must run without company now.
    alone: bool,
    /// Whether the worker cannot be used any more.
    worker_lost: bool,
}

impl Unsent {
    fn worker_lost(members: Vec<Request>) -> Self {
        Self { members, alone: false, worker_lost: true }
    }
}

/// A batch on its way to a worker.
struct Sent {
    task: TaskId,
    started: MonotonicTime,
    wanted: Vec<u16>,
    placement: Arc<Placement>,
}

enum SendRunError {
    /// The members are at fault, or too large together.
    Member(String),
    /// This machine has no memory for it.
    Memory(String),
    /// The worker cannot be talked to and must end.
    Worker(Kill),
}

/// How a worker ends that cannot be sent to: a closed socket is a death of its own, whose status says more.
fn send_failed(error: &SendError) -> Kill {
    match error {
        SendError::Closed => Kill::Silent,
        other => Kill::Violation(other.to_string()),
    }
}
