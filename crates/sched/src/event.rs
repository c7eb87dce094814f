//! The closed vocabulary between the scheduler and its owner.

use std::time::Duration;

use smallvec::SmallVec;
use tenantry_types::{BatchId, MonotonicTime, PlacementId, ReplicaId, SlotId, TaskId, WorkerId};

use crate::{Batching, Task};

/// The tasks of one batch, in arrival order.
pub type BatchTasks = SmallVec<[TaskId; 8]>;

/// What happened. An event that names something unknown is ignored, since events of a dying worker may cross.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The right to run one batch exists.
    SlotUp {
        /// The new slot.
        slot: SlotId,
    },
    /// The slot goes away; a batch on it still runs to its end.
    SlotDown {
        /// The slot.
        slot: SlotId,
    },
    /// A worker is ready for work. Ids of workers are never used twice.
    WorkerUp {
        /// The new worker.
        worker: WorkerId,
    },
    /// The worker is gone, and its replicas with it; tasks pinned to it are dropped. A batch that ran on it still holds
    /// its slot until its [`Event::Done`].
    WorkerDown {
        /// The worker.
        worker: WorkerId,
    },
    /// A loaded version is ready for work, in a worker and for a placement that are both up.
    ReplicaUp {
        /// The new replica.
        replica: ReplicaId,
        /// Whose tasks it serves.
        placement: PlacementId,
        /// Where it is loaded.
        worker: WorkerId,
    },
    /// The replica takes no further batch; one that runs on it runs to its end.
    ReplicaDown {
        /// The replica.
        replica: ReplicaId,
    },
    /// Tasks for this placement may come. For a known placement: its batching changes.
    PlacementUp {
        /// The placement.
        placement: PlacementId,
        /// How its tasks are joined.
        batching: Batching,
    },
    /// No more tasks for this placement: queued ones are dropped, its replicas forgotten.
    PlacementDown {
        /// The placement.
        placement: PlacementId,
    },
    /// A task wants to run.
    Ready {
        /// The task.
        task: Task,
    },
    /// A task that was dispatched and did not run, or must run again without its batch mates, comes back. It was
    /// admitted once: a full queue does not refuse it, only a place that is gone or a deadline that passed.
    Again {
        /// The task.
        task: Task,
    },
    /// Nobody waits for this task any more. A queued one is forgotten without a decision; a running one runs to its end.
    Cancel {
        /// The task.
        task: TaskId,
    },
    /// A batch has ended, well or badly: its slot and worker are free again.
    Done {
        /// The batch.
        batch: BatchId,
        /// How long it held the slot, measured by the owner.
        used: Duration,
    },
}

/// What to do. Every task that became ready and is not cancelled while queued gets exactly one of
/// `Reject`, `Dispatch`, `Expire`, `Drop`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The task is not taken.
    Reject {
        /// The task.
        task: TaskId,
        /// Why.
        reason: RejectReason,
        /// When trying again makes sense, by the backlog as it stands; at least [`MIN_RETRY_AFTER`](crate::MIN_RETRY_AFTER).
        retry_after: Duration,
    },
    /// Run these tasks as one batch; the slot and the worker are taken until its [`Event::Done`].
    Dispatch {
        /// The new batch; ids count up.
        batch: BatchId,
        /// The slot it holds.
        slot: SlotId,
        /// The worker it runs in.
        worker: WorkerId,
        /// The replica it runs on; none for tasks pinned to the worker.
        replica: Option<ReplicaId>,
        /// Its tasks, oldest first; never empty.
        tasks: BatchTasks,
        /// The longest of its tasks' limits; after it comes `Abort`.
        run_limit: Duration,
    },
    /// The task's deadline passed while it was queued.
    Expire {
        /// The task.
        task: TaskId,
    },
    /// The task's placement or worker is gone.
    Drop {
        /// The task.
        task: TaskId,
    },
    /// The batch ran past its limit: end its worker. Said once; slot and worker stay taken until [`Event::Done`].
    Abort {
        /// The batch.
        batch: BatchId,
    },
}

/// Why a task was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectReason {
    /// The queue as a whole is full, by tasks or bytes; for a pinned task: the queue of its worker.
    QueueFull,
    /// The tenant has its share of the queue already.
    TenantQueueFull,
    /// The placement or worker is not up.
    UnknownPlace,
    /// It could not end before its deadline even if it started now.
    WontMeetDeadline,
}

/// Where a batch runs and what it was made of, as the scheduler remembers it until it is done.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub(crate) slot: SlotId,
    pub(crate) worker: WorkerId,
    pub(crate) tasks: BatchTasks,
    /// Sum of the tasks' estimates: what the batch would cost if joining saved nothing.
    pub(crate) cost: Duration,
    pub(crate) started: MonotonicTime,
    /// When [`Decision::Abort`] is due; none once said, or once the worker is gone.
    pub(crate) abort_at: Option<MonotonicTime>,
}
