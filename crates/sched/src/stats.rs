//! What the scheduler can tell about itself, for metrics, status pages and the planner.

use std::time::Duration;

use tenantry_types::{DeploymentId, KeyId, MonotonicTime, PlacementId, TenantId};

use crate::Subject;

/// Tasks that wait for a placement which has no replica: what the planner acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// The placement without a replica.
    pub placement: PlacementId,
    /// Tasks that wait for it.
    pub waiting: u32,
    /// When the oldest of them arrived.
    pub oldest: MonotonicTime,
    /// Whose it is: a load is charged to whom it is made for.
    pub tenant: TenantId,
    /// The deployment it was sent to.
    pub deployment: Option<DeploymentId>,
    /// The key it was sent with.
    pub key: Option<KeyId>,
}

/// What a tenant, or a deployment as it calls it, was charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Who.
    pub subject: Subject,
    /// Device time since the start, running batches by their estimate.
    pub charged: Duration,
    /// Device time of others' batches that were ended for it; not in `charged`.
    pub wasted: Duration,
    /// Tasks that wait.
    pub queued_tasks: u32,
    /// Tasks that run.
    pub running: u32,
}

/// Gauges of now and counters since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Slots that are up, busy ones included.
    pub slots: u32,
    /// Slots that are up and free.
    pub free_slots: u32,
    /// Workers that are up.
    pub workers: u32,
    /// Replicas that are up.
    pub replicas: u32,
    /// Placements that are up.
    pub placements: u32,
    /// Tasks that wait, pinned ones included.
    pub queued_tasks: u32,
    /// Payload bytes of the tasks that wait.
    pub queued_bytes: u64,
    /// Sum of the estimates of the tasks that wait.
    pub queued_cost: Duration,
    /// Batches that run.
    pub running_batches: u32,
    /// Tasks in the batches that run.
    pub running_tasks: u32,
    /// Tasks that were taken into the queue.
    pub admitted_tasks: u64,
    /// Tasks that were refused.
    pub rejected_tasks: u64,
    /// Tasks that started.
    pub dispatched_tasks: u64,
    /// Batches that started.
    pub dispatched_batches: u64,
    /// Tasks whose deadline passed while they waited.
    pub expired_tasks: u64,
    /// Tasks whose placement or worker went away.
    pub dropped_tasks: u64,
    /// Tasks cancelled while they waited.
    pub cancelled_tasks: u64,
    /// Tasks cancelled while they ran.
    pub cancelled_running_tasks: u64,
    /// Batches that were told to end.
    pub aborted_batches: u64,
    /// Time slots were held by batches that are done, suspensions excluded.
    pub used: Duration,
    /// The part of it that was used by batches which were interrupted: charged to none of their tasks.
    pub wasted: Duration,
    /// The part of `wasted` that nobody asked for: a worker was stopped or lost. The rest is in [`Usage::wasted`].
    pub wasted_by_machine: Duration,
    /// Batches that were suspended for a reservation, each time counted.
    pub suspensions: u64,
    /// Batches that are suspended now.
    pub suspended_batches: u32,
    /// Events that break the contract: an id used twice, a replica of an unknown worker or placement. Anything but 0 is a
    /// fault of the owner.
    pub misuses: u64,
}
