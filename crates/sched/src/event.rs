//! The closed vocabulary between the scheduler and its owner.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use tenantry_types::{BatchId, PlacementId, ReplicaId, SlotId, TaskId, TenantId, WorkerId};

use crate::{Batching, Policy, Share, SlotGroup, Subject, Task};

/// The tasks of one batch, in arrival order.
pub type BatchTasks = SmallVec<[TaskId; 8]>;

/// By what the tasks of a batch divide its time: nanoseconds of predicted work, one for each task.
pub type Weights = SmallVec<[u64; 8]>;

/// What happened. An event that names something unknown is ignored, since events of a dying worker may cross.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// How to choose what runs next, from now on.
    Policy {
        /// The policy.
        policy: Policy,
    },
    /// The settings of a node of the share tree changed; absent: the default ones again.
    Share {
        /// The node.
        subject: Subject,
        /// Its settings.
        share: Option<Share>,
    },
    /// The right to run one batch exists.
    SlotUp {
        /// The new slot.
        slot: SlotId,
        /// Who may use it.
        group: SlotGroup,
        /// Whether a worker that runs on it can be suspended and resumed.
        suspendable: bool,
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
    /// Nobody waits for this task any more. A queued one is forgotten without a decision; a running one runs to its end,
    /// and does not come back if its batch does not reach its own.
    Cancel {
        /// The task.
        task: TaskId,
    },
    /// The machine has too little memory: one batch is ended whose tasks all may be, if there is one. Asked again as long
    /// as that does not help.
    MemoryShort {
        /// For whom it is needed: who is charged for what that wastes; none for nobody in particular.
        needed_by: Option<TenantId>,
    },
    /// A batch has ended, well or badly: its slot and worker are free again. Tasks that come back by its outcome wait again
    /// at once: an owner that keeps one from coming back says so by [`Event::Cancel`] before.
    Done {
        /// The batch.
        batch: BatchId,
        /// How long it held the slot, measured by the owner; time it was suspended is not in it.
        used: Duration,
        /// How it ended.
        outcome: Outcome,
    },
}

/// How a batch ended. Tasks that come back keep their place: the order of their arrival, and their reservation's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It ran to its end: what it used says what such batches cost.
    Finished,
    /// It failed for good, was ended for what it did itself, or its worker died of it; what it used says nothing.
    Failed,
    /// It failed, and one of its tasks may be to blame: each comes back, to run alone. What it used is theirs: it did run.
    Split,
    /// It did not come to its end through no fault of its tasks: it was ended for somebody else, its worker was stopped, or
    /// it never reached one. Its tasks come back. What it used is wasted: charged to whoever wanted it ended.
    Interrupted,
}

/// What to do. Every task that became ready, or came back, and is not cancelled while queued gets exactly one of
/// `Reject`, `Dispatch`, `Expire`, `Drop`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
        /// Its tasks; never empty. The first is the one it was made for.
        tasks: BatchTasks,
        /// By what the tasks divide the time it uses, one for each: see [`split`](crate::split).
        weights: Weights,
        /// The longest of its tasks' limits; after it comes `Abort`.
        run_limit: Duration,
        /// Under which promise it runs.
        phase: Phase,
    },
    /// Stop the worker's processes where they are; the batch keeps its worker, its slot goes to another batch.
    Suspend {
        /// The batch.
        batch: BatchId,
        /// Where it runs.
        worker: WorkerId,
    },
    /// Let a suspended worker run on. A suspended batch that is done needs no such word: its owner resumes the worker.
    Resume {
        /// The batch.
        batch: BatchId,
        /// Where it runs.
        worker: WorkerId,
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
    /// End the batch: politely if that works soon, by ending its worker if not. Said once for a batch; slot and worker
    /// stay taken until [`Event::Done`]. A suspended batch must not be let go on for it: what it is suspended for has its
    /// slot, so its worker is ended where it stands.
    Abort {
        /// The batch.
        batch: BatchId,
        /// Why.
        cause: AbortCause,
    },
}

/// Under which promise a batch runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// By weight, or by the baseline's rule.
    Shared,
    /// By reservation.
    Reserved,
}

/// Why a batch is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AbortCause {
    /// It ran past the limit of its tasks: its model is to blame.
    RunLimit,
    /// The deadlines of all its tasks passed, and the grace after them: nobody waits for it.
    Deadline,
    /// A reservation has needed its place for long; all its tasks are best-effort, and come back.
    Preempted,
    /// The machine has too little memory; all its tasks are best-effort, and come back.
    Memory,
}

impl AbortCause {
    /// Whether it is ended for somebody else: then its tasks come back.
    pub const fn is_for_others(self) -> bool {
        matches!(self, Self::Preempted | Self::Memory)
    }
}

/// Why a task was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectReason {
    /// The queue as a whole is full, by tasks or bytes; for a pinned task: the queue of its worker.
    QueueFull,
    /// The tenant has its share of the queue already.
    TenantQueueFull,
    /// The deployment or key has, by its own settings.
    ShareQueueFull,
    /// The device time the tenant, deployment or key may use is used up.
    DeviceTimeLimit,
    /// What the tenant has waiting already takes its share until past the deadline.
    TenantBacklog,
    /// The machine cannot meet the deadline, though this tenant has nothing waiting.
    Overloaded,
    /// The placement or worker is not up.
    UnknownPlace,
    /// It could not end before its deadline even if it started now.
    WontMeetDeadline,
}

impl RejectReason {
    /// A word for machines, as answers and metrics carry it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::TenantQueueFull => "tenant_queue_full",
            Self::ShareQueueFull => "share_queue_full",
            Self::DeviceTimeLimit => "device_time_limit",
            Self::TenantBacklog => "tenant_backlog",
            Self::Overloaded => "overloaded",
            Self::UnknownPlace => "unknown_place",
            Self::WontMeetDeadline => "cannot_meet_deadline",
        }
    }
}
