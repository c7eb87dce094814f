//! What a worker's frames mean, and what they may not say.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;
use tenantry_sched::{Event, Outcome, split};
use tenantry_types::error::sanitise;
use tenantry_types::limits::MAX_ENGINE_MESSAGE_CHARS;
use tenantry_types::model::Registration;
use tenantry_types::{MonotonicTime, ReplicaId, TaskId, Tensor};
use tenantry_wire::{FailureKind, FromWorker, PROTOCOL, TensorDescriptor};

use crate::data_plane::Node;
use crate::gather::{self, Division};
use crate::observe::RuntimeInfo;
use crate::register::{RegisterError, Registered};
use crate::submission::{Answer, ServeError, Timing};
use crate::worker::{ArenaError, Exec, Request, Running, Work, Worker};

/// A worker said something the protocol does not allow. The text is the node's, never the worker's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ProtocolViolation(String);

impl ProtocolViolation {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl From<gather::Violation> for ProtocolViolation {
    fn from(violation: gather::Violation) -> Self {
        Self(violation.to_string())
    }
}

impl Node {
    /// Takes one frame of a worker. An error means the worker must die.
    pub(crate) fn take_frame(
        self: &Arc<Self>,
        worker: &Arc<Worker>,
        frame: FromWorker,
    ) -> Result<(), ProtocolViolation> {
        let now = self.now();
        match frame {
            FromWorker::Ready { protocol, runtime, cpu, layers } => {
                self.worker_said_ready(worker, protocol, runtime, cpu, layers)
            }
            FromWorker::Finished { task, outputs, .. } => self.run_finished(worker, task, &outputs, now),
            FromWorker::NeedOutput { task, bytes } => self.grow_output(worker, task, bytes, now),
            FromWorker::Failed { task, kind, message } => self.task_failed(worker, task, kind, &message, now),
            FromWorker::Loaded { task, replica, load_ns: _, resident_bytes } => {
                self.load_finished(worker, task, replica, resident_bytes, now)
            }
            FromWorker::Registered { task, registration, optimised_bytes } => {
                self.registration_finished(worker, task, *registration, optimised_bytes, now)
            }
        }
    }

    fn registration_finished(
        &self,
        worker: &Worker,
        task: TaskId,
        registration: Registration,
        optimised_bytes: u64,
        now: MonotonicTime,
    ) -> Result<(), ProtocolViolation> {
        let Running { started, work, .. } = take_running(worker, &mut worker.exec(), task, now)?;
        let Work::Register(register) = work else {
            return Err(ProtocolViolation::new("it answered a request with a registration"));
        };
        let written = register.optimised.metadata().map_or(0, |metadata| metadata.len());
        let outcome = if optimised_bytes > written {
            Err(RegisterError::Ended("the worker broke its protocol".to_owned()))
        } else {
            let device_time = now.saturating_since(started);
            Ok(Registered { registration, optimised: register.optimised, optimised_bytes, device_time })
        };
        // Whoever asked may be gone.
        let _ = register.reply.send(outcome);
        Ok(())
    }

    fn worker_said_ready(
        self: &Arc<Self>,
        worker: &Arc<Worker>,
        protocol: u32,
        runtime: String,
        cpu: String,
        layers: u32,
    ) -> Result<(), ProtocolViolation> {
        if protocol != PROTOCOL {
            return Err(ProtocolViolation::new(format!(
                "it speaks protocol {protocol}; this server speaks {PROTOCOL}"
            )));
        }
        let asked = worker.layers.load(Ordering::Acquire);
        if layers != asked {
            return Err(ProtocolViolation::new(format!("it has the barriers {layers:#x}, and was to have {asked:#x}")));
        }
        {
            let mut fleet = self.fleet.lock();
            if !fleet.mark_ready(worker.id) {
                return Err(ProtocolViolation::new("it said it was ready a second time"));
            }
            // Under the lock: whoever sees a ready worker may load into it, and the scheduler must know it by then.
            self.push(Event::WorkerUp { worker: worker.id });
        }
        // A label in keys and metrics: the alphabet is ours, whatever the worker says.
        let plain = |text: &str| -> String {
            text.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+' | '_')).take(64).collect()
        };
        let info = RuntimeInfo { version: plain(&runtime), cpu: plain(&cpu) };
        self.runtime.lock().get_or_insert(info);
        self.pump();
        self.changed();
        Ok(())
    }

    fn run_finished(
        self: &Arc<Self>,
        worker: &Arc<Worker>,
        task: TaskId,
        outputs: &[TensorDescriptor],
        now: MonotonicTime,
    ) -> Result<(), ProtocolViolation> {
        let mut exec = worker.exec();
        let tensors = match &exec.running {
            Some(Running { task: known, work: Work::Infer { placement, members, wanted }, .. }) if *known == task => {
                let rows: SmallVec<[u64; 8]> = members.iter().map(Request::rows).collect();
                let joint = (members.len() > 1).then(|| rows.iter().sum());
                let division = gather::check_outputs(&placement.spec.signature, wanted, outputs, joint)?;
                let rows = if division == Division::ByRows { rows.as_slice() } else { &[] };
                let arena = exec.output().ok_or_else(|| ProtocolViolation::new("it has no output arena"))?;
                let mut per_output = Vec::with_capacity(outputs.len());
                for output in outputs {
                    let name = placement.spec.signature.outputs.get(usize::from(output.index));
                    let name = name.map_or("", |spec| spec.name.as_str());
                    let data = arena
                        .copy_out(output.offset, output.bytes)
                        .map_err(|_| ProtocolViolation::new("an output lies outside its memory"))?;
                    per_output.push(gather::divide(name, output, Bytes::from(data), rows)?.into_iter());
                }
                per_output
            }
            _ => return Err(ProtocolViolation::new("it finished a task it was not given")),
        };
        let running = exec.end(worker, now);
        drop(exec);
        let Some(running) = running else {
            return Err(ProtocolViolation::new("it finished a task it was not given"));
        };
        // The worker is free and its arena empty: the next batch goes first, the answers after it.
        let batch_time = self.batch_done(&running, Outcome::Finished, now);
        self.pump();
        self.answer(running, tensors, batch_time, now);
        Ok(())
    }

    /// Hands each member its slice and its share of the slot time.
    fn answer(
        &self,
        running: Running,
        mut per_output: Vec<std::vec::IntoIter<Tensor>>,
        batch_time: Duration,
        now: MonotonicTime,
    ) {
        let Running { started, suspended, phase, weights, work: Work::Infer { members, .. }, .. } = running else {
            return;
        };
        // The same numbers as the scheduler charges.
        let shares = split(u64::try_from(batch_time.as_nanos()).unwrap_or(u64::MAX), &weights);
        let batch_rows = u32::try_from(members.iter().map(Request::rows).sum::<u64>()).unwrap_or(u32::MAX);
        for member in members {
            let share = usize::try_from(member.position).ok().and_then(|position| shares.get(position));
            let device_time = Duration::from_nanos(share.copied().unwrap_or(0));
            let timing = Timing {
                queue_wait: started.saturating_since(member.submitted),
                device_time,
                batch_wait: batch_time.saturating_sub(device_time),
                batch_time,
                suspended,
                batch_rows,
                phase,
            };
            let outputs = per_output.iter_mut().filter_map(Iterator::next).collect();
            member.answer(Ok(Answer { outputs, timing }), now);
        }
        self.quiet.notify_waiters();
    }

    fn grow_output(
        self: &Arc<Self>,
        worker: &Worker,
        task: TaskId,
        bytes: u64,
        now: MonotonicTime,
    ) -> Result<(), ProtocolViolation> {
        let mut exec = worker.exec();
        let known = exec.running.as_ref().is_some_and(|running| running.task == task);
        if !known || bytes <= exec.output_capacity() {
            return Err(ProtocolViolation::new("it asked for memory it does not need"));
        }
        let input_bytes = exec.input_capacity();
        let error = match exec.ensure_arenas(worker, input_bytes, bytes, self.config.max_arena_bytes) {
            Ok(()) => return Ok(()),
            Err(ArenaError::Send(error)) => return Err(ProtocolViolation::new(error.to_string())),
            Err(error) => error,
        };
        // The run itself was good: its outputs are what does not fit. The worker forgets them at its next run.
        let running = take_running(worker, &mut exec, task, now)?;
        drop(exec);
        self.batch_done(&running, Outcome::Failed, now);
        if let Work::Infer { members, .. } = running.work {
            if members.len() > 1 {
                self.requeue(members, true);
            } else {
                for member in members {
                    let error = match &error {
                        ArenaError::TooLarge { needed, limit } => ServeError::InvalidInput(format!(
                            "the outputs take {needed} bytes; at most {limit} are allowed"
                        )),
                        _ => ServeError::Overloaded,
                    };
                    member.answer(Err(error), now);
                }
                self.quiet.notify_waiters();
            }
        }
        self.pump();
        Ok(())
    }

    fn task_failed(
        self: &Arc<Self>,
        worker: &Arc<Worker>,
        task: TaskId,
        kind: FailureKind,
        message: &str,
        now: MonotonicTime,
    ) -> Result<(), ProtocolViolation> {
        let message = sanitise(message, MAX_ENGINE_MESSAGE_CHARS);
        let running = {
            let mut exec = worker.exec();
            let asked = exec.running.as_ref().is_some_and(|running| running.abort.is_some());
            if kind == FailureKind::Terminated && !asked {
                return Err(ProtocolViolation::new("it ended a run that nobody asked it to end"));
            }
            take_running(worker, &mut exec, task, now)?
        };
        match running.abort {
            // Whatever it calls it: the run was to end, and it has.
            Some(cause) if matches!(running.work, Work::Infer { .. }) => {
                self.run_ended_early(running, cause, now);
                return Ok(());
            }
            _ => {}
        }
        if !matches!(running.work, Work::Register(_)) {
            self.batch_done(&running, Outcome::Failed, now);
        }
        match running.work {
            // One bad input must not fail its batch mates: each runs again, alone.
            Work::Infer { members, .. } if members.len() > 1 => self.requeue(members, true),
            Work::Infer { members, .. } => {
                for member in members {
                    let error = match kind {
                        FailureKind::Input => ServeError::InvalidInput(message.clone()),
                        FailureKind::Model | FailureKind::Resource | FailureKind::Terminated => {
                            ServeError::ModelFailed(message.clone())
                        }
                    };
                    member.answer(Err(error), now);
                }
                self.quiet.notify_waiters();
            }
            Work::Load(load) => {
                tracing::warn!(model = %load.placement.spec.name, reason = %message, "a model failed to load");
                self.load_failed(load.replica, &load.placement, message, now);
            }
            Work::Register(register) => {
                let _ = register.reply.send(Err(RegisterError::Refused(message)));
            }
        }
        self.pump();
        Ok(())
    }

    fn load_finished(
        self: &Arc<Self>,
        worker: &Arc<Worker>,
        task: TaskId,
        replica: ReplicaId,
        resident_bytes: u64,
        now: MonotonicTime,
    ) -> Result<(), ProtocolViolation> {
        let mut exec = worker.exec();
        let running = take_running(worker, &mut exec, task, now)?;
        drop(exec);
        let Work::Load(load) = &running.work else {
            return Err(ProtocolViolation::new("it answered a request with a load"));
        };
        if load.replica != replica {
            return Err(ProtocolViolation::new("it loaded another replica than asked"));
        }
        let load_time = self.batch_done(&running, Outcome::Finished, now);
        if self.fleet.lock().replica_ready(replica, load_time, resident_bytes) {
            tracing::info!(model = %load.placement.spec.name, %replica, worker = %worker.id, load_ms = load_time.as_millis() as u64, "model loaded");
            self.push(Event::ReplicaUp { replica, placement: load.placement.id, worker: worker.id });
        }
        self.pump();
        self.changed();
        Ok(())
    }

    /// Frees the batch's slot; answers how long it was held.
    pub(crate) fn batch_done(&self, running: &Running, outcome: Outcome, now: MonotonicTime) -> Duration {
        let used = running.used(now);
        self.push(Event::Done { batch: running.batch, used, outcome });
        used
    }
}

/// Ends what the worker runs, if it is this task.
fn take_running(
    worker: &Worker,
    exec: &mut Exec,
    task: TaskId,
    now: MonotonicTime,
) -> Result<Running, ProtocolViolation> {
    let unknown = || ProtocolViolation::new("it answered a task it was not given");
    if exec.running.as_ref().is_none_or(|running| running.task != task) {
        return Err(unknown());
    }
    exec.end(worker, now).ok_or_else(unknown)
}
