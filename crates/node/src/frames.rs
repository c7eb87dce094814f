//! What the node does with what its workers say. What they may say is `claims`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::MutexGuard;
use tenantry_sched::{Event, Outcome, split};
use tenantry_types::model::Registration;
use tenantry_types::{MonotonicTime, Tensor};
use tenantry_wire::{FailureKind, FromWorker};

use crate::claims::{Claim, ProtocolViolation};
use crate::data_plane::Node;
use crate::observe::RuntimeInfo;
use crate::register::{RegisterError, Registered};
use crate::submission::{Answer, ServeError, Timing};
use crate::worker::{ArenaError, Exec, Request, Running, Work, Worker};

impl Node {
    /// Takes one frame of a worker. An error means the worker must die; what it ran is then ended by its death.
    pub(crate) fn take_frame(
        self: &Arc<Self>,
        worker: &Arc<Worker>,
        frame: FromWorker,
    ) -> Result<(), ProtocolViolation> {
        let now = self.now();
        let exec = worker.exec();
        let claim = exec.check(worker.layers.load(Ordering::Acquire), frame)?;
        match claim {
            Claim::Ready { runtime, cpu } => {
                drop(exec);
                self.worker_said_ready(worker, RuntimeInfo { version: runtime, cpu })
            }
            Claim::NeedOutput(bytes) => self.grow_output(worker, exec, bytes, now),
            Claim::Finished(outputs) => {
                self.run_finished(end_running(worker, exec, now)?, outputs, now);
                Ok(())
            }
            Claim::Failed { kind, message } => {
                self.task_failed(end_running(worker, exec, now)?, kind, message, now);
                Ok(())
            }
            Claim::Loaded { resident_bytes } => {
                self.load_finished(worker, end_running(worker, exec, now)?, resident_bytes, now);
                Ok(())
            }
            Claim::Registered { registration, optimised_bytes } => {
                let running = end_running(worker, exec, now)?;
                self.charge(&running, true, now);
                registration_finished(running, *registration, optimised_bytes, now);
                Ok(())
            }
        }
    }

    fn worker_said_ready(
        self: &Arc<Self>,
        worker: &Arc<Worker>,
        runtime: RuntimeInfo,
    ) -> Result<(), ProtocolViolation> {
        {
            let mut fleet = self.fleet.lock();
            if !fleet.mark_ready(worker.id) {
                return Err(ProtocolViolation::new("it said it was ready a second time"));
            }
            // Under the lock: whoever sees a ready worker may load into it, and the scheduler must know it by then.
            self.push(Event::WorkerUp { worker: worker.id });
        }
        self.runtime.lock().get_or_insert(runtime);
        self.pump();
        self.changed();
        Ok(())
    }

    fn run_finished(self: &Arc<Self>, running: Running, outputs: Vec<Vec<Tensor>>, now: MonotonicTime) {
        // The worker is free and its arena empty: the next batch goes first, the answers after it.
        self.charge(&running, true, now);
        let batch_time = self.batch_done(&running, Outcome::Finished, now);
        self.pump();
        self.answer(running, outputs.into_iter().map(Vec::into_iter).collect(), batch_time, now);
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
                rows: u32::try_from(member.rows()).unwrap_or(u32::MAX),
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
        mut exec: MutexGuard<'_, Exec>,
        bytes: u64,
        now: MonotonicTime,
    ) -> Result<(), ProtocolViolation> {
        let input_bytes = exec.input_capacity();
        let error = match exec.ensure_arenas(worker, input_bytes, bytes, self.config.max_arena_bytes) {
            Ok(()) => return Ok(()),
            Err(ArenaError::Send(error)) => return Err(ProtocolViolation::new(error.to_string())),
            Err(error) => error,
        };
        // The run itself was good: its outputs are what does not fit. The worker forgets them at its next run.
        let mut running = end_running(worker, exec, now)?;
        self.batch_failed(&mut running, now);
        if let Work::Infer { members, .. } = running.work {
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
        self.pump();
        Ok(())
    }

    fn task_failed(self: &Arc<Self>, mut running: Running, kind: FailureKind, message: String, now: MonotonicTime) {
        match running.abort {
            // Whatever it calls it: the run was to end, and it has.
            Some(cause) if matches!(running.work, Work::Infer { .. }) => {
                self.run_ended_early(running, cause, now);
                return;
            }
            _ => {}
        }
        match running.work {
            Work::Register(_) => self.charge(&running, false, now),
            _ => self.batch_failed(&mut running, now),
        }
        match running.work {
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
    }

    fn load_finished(
        self: &Arc<Self>,
        worker: &Arc<Worker>,
        running: Running,
        resident_bytes: u64,
        now: MonotonicTime,
    ) {
        let Work::Load(load) = &running.work else { return };
        let replica = load.replica;
        self.charge(&running, true, now);
        let load_time = self.batch_done(&running, Outcome::Finished, now);
        let residence = self.residence(load, worker);
        if self.fleet.lock().replica_ready(replica, load_time, resident_bytes, residence) {
            tracing::info!(model = %load.placement.spec.name, %replica, worker = %worker.id, load_ms = load_time.as_millis() as u64, "model loaded");
            self.push(Event::ReplicaUp { replica, placement: load.placement.id, worker: worker.id });
        }
        self.pump();
        self.changed();
    }

    /// A batch of several requests failed: one bad input must not fail its batch mates, so each runs again, alone. What had
    /// the run for itself stays, to be told.
    fn batch_failed(&self, running: &mut Running, now: MonotonicTime) {
        self.charge(running, false, now);
        let outcome = match &mut running.work {
            Work::Infer { members, .. } if members.len() > 1 => {
                self.bring_back(std::mem::take(members));
                Outcome::Split
            }
            _ => Outcome::Failed,
        };
        self.batch_done(running, outcome, now);
    }

    /// Frees the batch's slot; answers how long it was held.
    pub(crate) fn batch_done(&self, running: &Running, outcome: Outcome, now: MonotonicTime) -> Duration {
        let used = running.used(now);
        self.push(Event::Done { batch: running.batch, used, outcome });
        used
    }
}

/// Ends what the worker runs; a claim about it was checked under the same lock.
fn end_running(
    worker: &Worker,
    mut exec: MutexGuard<'_, Exec>,
    now: MonotonicTime,
) -> Result<Running, ProtocolViolation> {
    exec.end(worker, now).ok_or_else(|| ProtocolViolation::new("it answered a task it was not given"))
}

fn registration_finished(running: Running, registration: Registration, optimised_bytes: u64, now: MonotonicTime) {
    let Running { started, work: Work::Register(register), .. } = running else { return };
    let device_time = now.saturating_since(started);
    // Whoever asked may be gone.
    let _ = register.reply.send(Ok(Registered {
        registration,
        optimised: register.optimised,
        optimised_bytes,
        device_time,
    }));
}
