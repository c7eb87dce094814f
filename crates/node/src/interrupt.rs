//! Runs that are stopped in their middle, and runs that are ended before theirs.
//!
//! Decisions are carried out by whoever polled, so two about the same batch may be carried out in the wrong order, or
//! before the batch has begun. Hence stops are counted and not toggled (a batch stands while it was stopped more often
//! than resumed), and what is said of a batch that has not begun is filed until it does.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tenantry_sched::{AbortCause, Outcome};
use tenantry_types::{BatchId, MonotonicTime, WorkerId};

use crate::data_plane::Node;
use crate::incident::IncidentKind;
use crate::submission::ServeError;
use crate::worker::{Kill, Running, Work, Worker};

/// How long a run that makes room for others may take to end before its worker is killed.
const PREEMPTION_GRACE: Duration = Duration::from_millis(100);
/// The same for a run that took too long: nobody waits for its place that urgently, and a death costs all its neighbours
/// in the worker.
const TERMINATION_GRACE: Duration = Duration::from_millis(250);
/// How long an order for a batch that has not begun is kept. Between the decision and the beginning lie microseconds.
const ORDER_LIFE: Duration = Duration::from_secs(5);

/// What was said about batches that have not begun, or have ended already.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    filed: Mutex<HashMap<BatchId, Order>>,
    pub(crate) suspensions: AtomicU64,
    pub(crate) aborts: AtomicU64,
}

/// What was said about one batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    stops: i32,
    abort: Option<AbortCause>,
    at: MonotonicTime,
}

impl Orders {
    /// What was said about a batch before it began.
    pub(crate) fn take(&self, batch: BatchId) -> Option<Order> {
        self.filed.lock().remove(&batch)
    }

    /// Forgets what came too late.
    pub(crate) fn forget_old(&self, now: MonotonicTime) {
        self.filed.lock().retain(|_, order| now.saturating_since(order.at) < ORDER_LIFE);
    }

    fn file(&self, batch: BatchId, now: MonotonicTime, change: impl FnOnce(&mut Order)) {
        change(self.filed.lock().entry(batch).or_insert(Order { stops: 0, abort: None, at: now }));
    }
}

impl Node {
    /// Stops a batch where it is.
    pub(crate) fn suspend(&self, batch: BatchId, worker: WorkerId) {
        self.orders.suspensions.fetch_add(1, Ordering::Relaxed);
        self.count_stop(batch, worker, 1);
    }

    /// Lets it run on.
    pub(crate) fn resume(&self, batch: BatchId, worker: WorkerId) {
        self.count_stop(batch, worker, -1);
    }

    fn count_stop(&self, batch: BatchId, worker: WorkerId, change: i32) {
        // A worker that is gone has no batch.
        let Some(worker) = self.fleet.lock().worker(worker) else { return };
        let mut exec = worker.exec();
        match exec.running.as_mut().filter(|running| running.batch == batch) {
            Some(running) => {
                running.stops += change;
                self.stop_or_go(&worker, running);
            }
            // Under the lock of its worker, so that it cannot begin meanwhile.
            None => self.orders.file(batch, self.now(), |order| order.stops += change),
        }
    }

    /// Brings the process in line with what was said; what is ending already stands, too, and hears of its end when it goes
    /// on. INVARIANT: the worker's lock is held, so the process runs this batch.
    fn stop_or_go(&self, worker: &Worker, running: &mut Running) {
        let stand = running.stops > 0;
        if stand && running.suspended_at.is_none() {
            worker.suspend();
            // Read afterwards: until then it ran.
            running.suspended_at = Some(self.now());
        } else if !stand && running.count_suspension(self.now()) {
            worker.resume();
        }
    }

    /// Ends a batch: politely, and after a grace by ending its worker.
    pub(crate) fn abort(self: &Arc<Self>, batch: BatchId, cause: AbortCause) {
        // Filed first: a batch that is still being gathered on another thread finds it when it begins.
        self.orders.file(batch, self.now(), |order| order.abort = Some(cause));
        let workers = self.fleet.lock().all_workers();
        for worker in workers {
            let mut exec = worker.exec();
            if let Some(running) = exec.running.as_mut().filter(|running| running.batch == batch) {
                // Under the lock, so that the batch cannot end and the next one be hit in its place.
                self.end_early(&worker, running, cause);
                self.orders.take(batch);
                return;
            }
        }
    }

    /// Does to a batch that begins what was said before.
    pub(crate) fn obey(self: &Arc<Self>, worker: &Arc<Worker>, running: &mut Running, order: Order) {
        running.stops += order.stops;
        self.stop_or_go(worker, running);
        if let Some(cause) = order.abort {
            self.end_early(worker, running, cause);
        }
    }

    fn end_early(self: &Arc<Self>, worker: &Arc<Worker>, running: &mut Running, cause: AbortCause) {
        if running.abort.is_some() {
            return;
        }
        self.orders.aborts.fetch_add(1, Ordering::Relaxed);
        running.abort = Some(cause);
        let (grace, kill) = match cause {
            AbortCause::Preempted | AbortCause::Memory => (PREEMPTION_GRACE, Kill::Preempted),
            AbortCause::Deadline => (TERMINATION_GRACE, Kill::Overdue),
            AbortCause::RunLimit => (TERMINATION_GRACE, Kill::Overran(self.limit_of(&running.work))),
        };
        // Nothing ends a load but the end of its process. Nor does what stands hear that it is to end, and to let it go on
        // would be to let it run beside what it was stopped for.
        let hears = matches!(running.work, Work::Infer { .. }) && running.suspended_at.is_none();
        if !hears || worker.terminate(running.task).is_err() {
            worker.kill(kill);
            return;
        }
        let (worker, batch) = (Arc::clone(worker), running.batch);
        self.tokio.spawn(async move {
            loop {
                tokio::time::sleep(grace).await;
                let exec = worker.exec();
                let Some(running) = exec.running.as_ref().filter(|running| running.batch == batch) else { return };
                // While it stands it cannot hear, and is in nobody's way but that of who is short of memory.
                if running.suspended_at.is_none() || cause.is_for_others() {
                    worker.kill(kill);
                    return;
                }
            }
        });
    }

    /// Frees the slot of a run that did not reach its end. One that was `interrupted` is nobody's fault: its requests are
    /// waiting again.
    pub(crate) fn batch_ended(&self, running: &mut Running, interrupted: bool, now: MonotonicTime) {
        self.charge(running, false, now);
        if interrupted && let Work::Infer { members, .. } = &mut running.work {
            self.bring_back(std::mem::take(members));
        }
        self.batch_done(running, if interrupted { Outcome::Interrupted } else { Outcome::Failed }, now);
    }

    fn limit_of(&self, work: &Work) -> Duration {
        match work {
            Work::Infer { placement, .. } => placement.spec.run_limit,
            Work::Load(_) => self.config.load_limit,
            Work::Register(_) => self.config.register_limit,
        }
    }

    /// A worker ended a run because it was asked to.
    pub(crate) fn run_ended_early(self: &Arc<Self>, mut running: Running, cause: AbortCause, now: MonotonicTime) {
        if cause == AbortCause::RunLimit {
            let text = overran(self.limit_of(&running.work));
            if let Work::Infer { placement, .. } = &running.work {
                tracing::warn!(model = %placement.spec.name, reason = text, "a run was ended");
                self.report(placement, IncidentKind::Deadline, now, text.clone());
            }
            self.run_died(&mut running, now, &text);
        } else {
            self.batch_ended(&mut running, cause.is_for_others(), now);
        }
        let Work::Infer { placement, members, .. } = running.work else { return };
        match cause {
            // Nobody's fault: its requests are in the queue again. Or the run's own, and they were told.
            AbortCause::Preempted | AbortCause::Memory | AbortCause::RunLimit => {}
            AbortCause::Deadline => {
                // On the model's record, but no step towards a quarantine: whoever sets very short deadlines could close
                // a model that others use as well.
                self.note_failure(&placement, now, "a run went on long after every deadline of its requests");
                for member in members {
                    member.answer(Err(ServeError::Expired), now);
                }
            }
        }
        self.pump();
        self.quiet.notify_waiters();
        self.changed();
    }
}

/// What the owner of a model reads about a run without end.
pub(crate) fn overran(limit: Duration) -> String {
    format!("it ran longer than its limit of {limit:?} and was ended")
}

#[cfg(test)]
mod tests;
