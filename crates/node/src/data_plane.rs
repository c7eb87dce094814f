//! The node and its data path: submit, poll in place, dispatch.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;
use tenantry_jail::Spawner;
use tenantry_sched::{Batching, Decision, Event, Outcome, Place, RejectReason, Scheduler, Task, TaskKind};
use tenantry_types::{
    BatchId, MonotonicTime, PlacementId, ReplicaId, Signature, TaskId, Tensor, TrustDomain, VersionId, WorkerId,
};
use tenantry_wire::{FileEntry, SendError, ToWorker};
use tokio::sync::{Notify, oneshot, watch};

use crate::clock::Clock;
use crate::config::NodeConfig;
use crate::gather;
use crate::observe::RuntimeInfo;
use crate::placement::{Interned, Placement, Placements, VersionSpec};
use crate::submission::{Reply, ServeError, Submission};
use crate::supervisor::{Fleet, ModelFile};
use crate::timer::Timer;
use crate::worker::{ArenaError, Exec, Kill, Load, Request, Running, Work, Worker};

/// One machine's data plane. Made by [`Node::start`].
#[derive(Debug)]
pub struct Node {
    pub(crate) config: NodeConfig,
    pub(crate) clock: Clock,
    /// With its generation: process serials are unique within one.
    pub(crate) spawner: RwLock<(u64, Arc<Spawner>)>,
    pub(crate) fleet: Mutex<Fleet>,
    pub(crate) placements: Placements,
    pub(crate) inflight: Mutex<HashMap<TaskId, Entry>>,
    pub(crate) timer: Timer,
    pub(crate) changes: watch::Sender<u64>,
    pub(crate) runtime: Mutex<Option<RuntimeInfo>>,
    pub(crate) draining: AtomicBool,
    /// Told whenever an entry leaves `inflight` or a worker falls idle; `drain` waits on it.
    pub(crate) quiet: Notify,
    /// Batches the scheduler gave up on and that have not ended yet.
    pub(crate) overdue: Mutex<HashSet<BatchId>>,
    inbox: Mutex<Vec<Event>>,
    core: Mutex<Core>,
    next_id: AtomicU64,
    shape_hasher: RandomState,
}

/// The scheduler and the buffers it is polled with.
#[derive(Debug)]
struct Core {
    scheduler: Scheduler,
    events: Vec<Event>,
}

/// A task the scheduler knows and no worker runs yet.
#[derive(Debug)]
pub(crate) enum Entry {
    Request(Box<Request>),
    Load(Box<Load>),
}

impl Node {
    pub(crate) fn new(config: NodeConfig, spawner: Spawner) -> Self {
        let scheduler = Scheduler::new(tenantry_sched::SchedulerConfig {
            policy: tenantry_sched::Policy::Fifo,
            tuning: tenantry_sched::Tuning::CPU,
            max_queued_tasks: config.max_queued_tasks,
            max_queued_bytes: config.max_queued_bytes,
            max_queued_tasks_per_tenant: config.max_queued_tasks_per_tenant,
        });
        Self {
            config,
            clock: Clock::start(),
            spawner: RwLock::new((0, Arc::new(spawner))),
            fleet: Mutex::default(),
            placements: Placements::default(),
            inflight: Mutex::default(),
            timer: Timer::new(),
            changes: watch::Sender::new(0),
            runtime: Mutex::new(None),
            draining: AtomicBool::new(false),
            quiet: Notify::new(),
            overdue: Mutex::default(),
            inbox: Mutex::default(),
            core: Mutex::new(Core { scheduler, events: Vec::new() }),
            next_id: AtomicU64::new(1),
            shape_hasher: RandomState::new(),
        }
    }

    /// Monotonic time since this node started.
    pub fn now(&self) -> MonotonicTime {
        self.clock.now()
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// The placement of a version in a trust domain; made on first use. Cheap when it is known.
    pub fn placement(self: &Arc<Self>, spec: &Arc<VersionSpec>, domain: TrustDomain) -> PlacementId {
        let (placement, interned) = self.placements.intern(spec, domain, self.now(), || PlacementId(self.next_id()));
        if interned != Interned::Known {
            self.push(Event::PlacementUp { placement: placement.id, batching: batching(spec) });
            self.pump();
        }
        placement.id
    }

    /// Forgets a deleted version: its waiting requests end with [`ServeError::Gone`].
    pub fn retire(self: &Arc<Self>, version: VersionId) {
        for placement in self.placements.retire(version) {
            self.push(Event::PlacementDown { placement: placement.id });
        }
        self.fleet.lock().forget_version(version);
        self.pump();
        self.changed();
    }

    /// Queues a request. It may be refused at once; the reply says so. Dropping the reply cancels.
    pub fn submit(self: &Arc<Self>, submission: Submission) -> Reply {
        if self.draining.load(Ordering::Acquire) {
            return Reply::refused(ServeError::Draining);
        }
        let Some(placement) = self.placements.get(submission.placement) else {
            return Reply::refused(ServeError::Gone);
        };
        let now = self.now();
        let cold = placement.counters.replicas.load(Ordering::Acquire) == 0;
        if cold && let Some(refusal) = self.quarantine_of(&placement, now) {
            return Reply::refused(refusal);
        }
        let spec = &placement.spec;
        let Some(inputs) = in_signature_order(submission.inputs, &spec.signature) else {
            return Reply::refused(ServeError::InvalidInput("the inputs do not match the model's".to_owned()));
        };
        let wanted = if submission.outputs.is_empty() {
            (0..spec.signature.outputs.len()).filter_map(|index| u16::try_from(index).ok()).collect()
        } else {
            submission.outputs
        };
        let task_id = TaskId(self.next_id());
        let joint_rows = spec.can_batch.then(|| joint_rows(&inputs)).flatten();
        let shape = match joint_rows {
            Some(_) => self.shape_key(&inputs, &wanted),
            // Alone in its shape: never joined with anything.
            None => task_id.0,
        };
        let rows = joint_rows.unwrap_or(1);
        let task = Task {
            id: task_id,
            tenant: submission.tenant,
            deployment: Some(submission.deployment),
            key: None,
            place: Place::Placement(placement.id),
            rows,
            shape,
            bytes: inputs.iter().map(|tensor| tensor.data.len() as u64).sum(),
            bucket: tenantry_sched::bucket_of(elements_per_row(&inputs, rows)),
            cost: spec.cost.saturating_mul(rows.max(1)),
            run_limit: spec.run_limit,
            deadline: submission.deadline,
            kind: TaskKind::Infer,
            abortable: false,
        };
        let (sender, receiver) = oneshot::channel();
        placement.counters.submitted(now);
        let request = Request {
            task: task.clone(),
            placement,
            request: submission.request,
            inputs,
            wanted,
            submitted: now,
            reply: sender,
        };
        let deadline = submission.deadline;
        self.enqueue(task, Entry::Request(Box::new(request)));
        if cold {
            self.changed();
        }
        Reply::waiting(Arc::clone(self), task_id, receiver, deadline)
    }

    /// The caller stopped waiting. A running task runs on; its answer goes nowhere.
    pub(crate) fn cancel(self: &Arc<Self>, task: TaskId) {
        let entry = self.inflight.lock().remove(&task);
        if let Some(Entry::Request(request)) = entry {
            request.answer(Err(ServeError::Cancelled), self.now());
            self.quiet.notify_waiters();
        }
        self.push(Event::Cancel { task });
        self.pump();
    }

    /// Files a task's entry and tells the scheduler.
    pub(crate) fn enqueue(self: &Arc<Self>, task: Task, entry: Entry) {
        self.inflight.lock().insert(task.id, entry);
        self.push(Event::Ready { task });
        self.pump();
    }

    /// Puts an event into the inbox; a `pump` must follow.
    pub(crate) fn push(&self, event: Event) {
        self.inbox.lock().push(event);
    }

    /// Tells whoever reconciles that `observe` would answer differently.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Reads the scheduler without changing it.
    pub(crate) fn with_scheduler<T>(self: &Arc<Self>, read: impl FnOnce(&Scheduler) -> T) -> T {
        let value = read(&self.core.lock().scheduler);
        // Whoever held the lock looks into the inbox after letting go of it: see `pump`.
        if !self.inbox.lock().is_empty() {
            self.pump();
        }
        value
    }

    /// Runs the scheduler in place and carries its decisions out.
    ///
    /// Whoever holds the lock looks into the inbox once more after letting go of it, so an event pushed while the lock
    /// was taken is never left behind: its pusher may return at once.
    pub(crate) fn pump(self: &Arc<Self>) {
        loop {
            let mut decisions = Vec::new();
            loop {
                let Some(mut core) = self.core.try_lock() else { break };
                let Core { scheduler, events } = &mut *core;
                std::mem::swap(events, &mut *self.inbox.lock());
                let wake = scheduler.poll(self.now(), events.drain(..), &mut decisions);
                drop(core);
                self.timer.arm(wake);
                if self.inbox.lock().is_empty() {
                    break;
                }
            }
            if decisions.is_empty() {
                return;
            }
            for decision in decisions {
                self.act(decision);
            }
            // Carrying decisions out may itself have produced events.
            if self.inbox.lock().is_empty() {
                return;
            }
        }
    }

    fn act(self: &Arc<Self>, decision: Decision) {
        match decision {
            Decision::Dispatch { batch, worker, replica, tasks, .. } => self.dispatch(batch, worker, replica, &tasks),
            Decision::Reject { task, reason, retry_after } => self.end_waiting(task, || match reason {
                RejectReason::QueueFull => ServeError::QueueFull { retry_after },
                RejectReason::Overloaded => ServeError::QueueFull { retry_after },
                RejectReason::ShareQueueFull
                | RejectReason::DeviceTimeLimit
                | RejectReason::TenantBacklog
                | RejectReason::TenantQueueFull => ServeError::TenantQueueFull { retry_after },
                RejectReason::WontMeetDeadline => ServeError::Expired,
                RejectReason::UnknownPlace => ServeError::Gone,
            }),
            Decision::Expire { task } => self.end_waiting(task, || ServeError::Expired),
            Decision::Drop { task } => self.end_waiting(task, || ServeError::Gone),
            Decision::Suspend { .. } | Decision::Resume { .. } => {}
            Decision::Abort { batch, .. } => self.abort(batch),
        }
    }

    /// Ends a task that never ran.
    fn end_waiting(self: &Arc<Self>, task: TaskId, error: impl FnOnce() -> ServeError) {
        let Some(entry) = self.inflight.lock().remove(&task) else { return };
        let now = self.now();
        match entry {
            Entry::Request(request) => {
                let error = match error() {
                    ServeError::Gone => self.quarantine_of(&request.placement, now).unwrap_or(ServeError::Gone),
                    other => other,
                };
                request.answer(Err(error), now);
            }
            Entry::Load(load) => self.load_dropped(load.replica),
        }
        self.quiet.notify_waiters();
    }

    /// A run outlasted its limit: its worker is ended, and its exit ends the batch.
    fn abort(&self, batch: BatchId) {
        // Filed first: a batch that is still being gathered on another thread finds itself here when it begins.
        self.overdue.lock().insert(batch);
        let workers = self.fleet.lock().all_workers();
        for worker in workers {
            let exec = worker.exec();
            if let Some(running) = exec.running.as_ref().filter(|running| running.batch == batch) {
                // Under the lock, so that the batch cannot end and the next one be killed in its place.
                worker.kill(Kill::Overran(self.limit_of(&running.work)));
                return;
            }
        }
    }

    fn limit_of(&self, work: &Work) -> Duration {
        match work {
            Work::Infer { placement, .. } => placement.spec.run_limit,
            Work::Load(_) => self.config.load_limit,
            Work::Register(_) => self.config.register_limit,
        }
    }

    fn dispatch(self: &Arc<Self>, batch: BatchId, worker_id: WorkerId, replica: Option<ReplicaId>, tasks: &[TaskId]) {
        let entries: SmallVec<[Entry; 8]> = {
            let mut inflight = self.inflight.lock();
            tasks.iter().filter_map(|task| inflight.remove(task)).collect()
        };
        let worker = self.fleet.lock().worker(worker_id);
        let mut requests = Vec::with_capacity(entries.len());
        let mut sent = false;
        for entry in entries {
            match (entry, &worker) {
                (Entry::Request(request), _) => requests.push(*request),
                (Entry::Load(load), Some(worker)) => sent |= self.dispatch_load(batch, worker, *load),
                (Entry::Load(load), None) => self.load_dropped(load.replica),
            }
        }
        let mut unsent = None;
        if !requests.is_empty() {
            let outcome = match (&worker, replica) {
                (Some(worker), Some(replica)) => self.dispatch_requests(batch, worker, replica, requests),
                _ => Err(Unsent { members: requests, alone: false, worker_lost: true }),
            };
            sent = outcome.is_ok();
            unsent = outcome.err();
        }
        if !sent {
            if unsent.as_ref().is_some_and(|unsent| unsent.worker_lost) {
                // Before `Done`: otherwise the scheduler, which has not heard of the death yet, would give the same
                // tasks to the same dead worker again and again.
                self.push(Event::WorkerDown { worker: worker_id });
            }
            // Everybody in the batch was cancelled, or the worker is gone: the slot is free again, nothing was used.
            self.overdue.lock().remove(&batch);
            self.push(Event::Done { batch, used: Duration::ZERO, outcome: Outcome::NotRun });
        }
        // After `Done`: the scheduler takes a task back only once its batch has ended.
        if let Some(Unsent { members, alone, .. }) = unsent {
            self.requeue(members, alone);
        }
    }

    /// Gathers a batch into the worker's arena and rings its socket. What does not run comes back, to be queued again.
    fn dispatch_requests(
        &self,
        batch: BatchId,
        worker: &Arc<Worker>,
        replica: ReplicaId,
        members: Vec<Request>,
    ) -> Result<(), Unsent> {
        let mut exec = worker.exec();
        if exec.gone {
            return Err(Unsent { members, alone: false, worker_lost: true });
        }
        let problem = match self.send_run(&mut exec, worker, replica, &members) {
            Ok(Sent { task, started, wanted, placement }) => {
                exec.begin(Running { batch, task, started, work: Work::Infer { placement, members, wanted } });
                if self.overdue.lock().contains(&batch) {
                    worker.kill(Kill::Overran(Duration::ZERO));
                }
                return Ok(());
            }
            Err(problem) => problem,
        };
        drop(exec);
        match problem {
            // Alone each may fit; one that does not gets its own answer then.
            SendRunError::Member(_) if members.len() > 1 => Err(Unsent { members, alone: true, worker_lost: false }),
            SendRunError::Member(text) => {
                for member in members {
                    member.answer(Err(ServeError::InvalidInput(text.clone())), self.now());
                }
                Err(Unsent { members: Vec::new(), alone: false, worker_lost: false })
            }
            SendRunError::Memory(text) => {
                tracing::error!(worker = %worker.id, reason = text, "no shared memory for a batch");
                for member in members {
                    member.answer(Err(ServeError::Overloaded), self.now());
                }
                Err(Unsent { members: Vec::new(), alone: false, worker_lost: false })
            }
            SendRunError::Worker(kill) => {
                worker.kill(kill);
                Err(Unsent { members, alone: false, worker_lost: true })
            }
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
        let frame = ToWorker::Run {
            task: first.task.id,
            replica,
            arena: exec.generation(),
            inputs: layout.descriptors,
            outputs: wanted.clone(),
        };
        worker.send(&frame, &[]).map_err(|error| SendRunError::Worker(send_failed(&error)))?;
        Ok(Sent { task: first.task.id, started, wanted, placement: Arc::clone(&first.placement) })
    }

    /// Back into the queue: these requests did not run, or must run without company (`alone`).
    pub(crate) fn requeue(self: &Arc<Self>, members: Vec<Request>, alone: bool) {
        for mut member in members {
            if member.reply.is_closed() {
                member.answer(Err(ServeError::Cancelled), self.now());
                continue;
            }
            if alone {
                member.task.shape = member.task.id.0;
            }
            let task = member.task.clone();
            self.inflight.lock().insert(task.id, Entry::Request(Box::new(member)));
            self.push(Event::Again { task });
        }
    }

    fn dispatch_load(self: &Arc<Self>, batch: BatchId, worker: &Arc<Worker>, load: Load) -> bool {
        let task = TaskId(self.next_id());
        let mut exec = worker.exec();
        let frame = ToWorker::Load {
            task,
            replica: load.replica,
            form: load.model.form,
            files: file_entries(&load.model.files),
            options: load.model.options.clone(),
        };
        let files: Vec<_> = load.model.files.iter().map(|file| file.file.as_fd()).collect();
        if exec.gone || worker.send(&frame, &files).is_err() {
            drop(exec);
            self.load_dropped(load.replica);
            return false;
        }
        exec.begin(Running { batch, task, started: self.now(), work: Work::Load(load) });
        true
    }

    /// What must be equal for requests to share a batch: every extent but the first, and the outputs asked for.
    ///
    /// The hash is keyed per process, so nobody outside can make two shapes collide; `gather::layout` checks anyway.
    fn shape_key(&self, inputs: &[Tensor], wanted: &[u16]) -> u64 {
        let rest: SmallVec<[&[u64]; 4]> =
            inputs.iter().map(|tensor| tensor.shape.get(1..).unwrap_or_default()).collect();
        self.shape_hasher.hash_one((rest, wanted))
    }
}

pub(crate) fn batching(spec: &VersionSpec) -> Batching {
    let max_rows = if spec.can_batch { spec.max_batch.max(1) } else { 1 };
    Batching { max_rows, max_delay: spec.max_batch_delay }
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

/// The inputs in the signature's order; `None` unless each is there exactly once.
fn in_signature_order(mut inputs: Vec<Tensor>, signature: &Signature) -> Option<Vec<Tensor>> {
    if inputs.len() != signature.inputs.len() {
        return None;
    }
    for (index, spec) in signature.inputs.iter().enumerate() {
        let found = inputs.iter().skip(index).position(|tensor| tensor.name == spec.name)?;
        inputs.swap(index, index + found);
    }
    Some(inputs)
}

/// The common first extent; `None` where the inputs disagree about it, so that the request must run alone.
fn joint_rows(inputs: &[Tensor]) -> Option<u32> {
    let rows = *inputs.first()?.shape.first()?;
    let agree = inputs.iter().all(|tensor| tensor.shape.first() == Some(&rows));
    agree.then(|| u32::try_from(rows).ok()).flatten()
}

/// Elements in one row of all inputs together.
fn elements_per_row(inputs: &[Tensor], rows: u32) -> u64 {
    let elements = |tensor: &Tensor| tensor.shape.iter().copied().fold(1_u64, u64::saturating_mul);
    inputs.iter().map(elements).fold(0, u64::saturating_add) / u64::from(rows.max(1))
}
