//! What is scheduled: a task, where it may run, and with what it may share a batch.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tenantry_types::{DeploymentId, KeyId, MonotonicTime, PlacementId, Priority, TaskId, TenantId, WorkerId};

/// One schedulable piece of work. The scheduler sees its size, never its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Unique among all tasks the scheduler currently knows.
    pub id: TaskId,
    /// Who is charged for it.
    pub tenant: TenantId,
    /// The deployment it was sent to; none for work nobody's request asked for.
    pub deployment: Option<DeploymentId>,
    /// The key it was sent with; none for work nobody's request asked for.
    pub key: Option<KeyId>,
    /// Where it may run.
    pub place: Place,
    /// Rows of its batch dimension; 0 counts as 1.
    pub rows: u32,
    /// A digest of everything but the batch dimension: only equal shapes share a batch.
    pub shape: u64,
    /// Payload bytes held for it elsewhere while it waits.
    pub bytes: u64,
    /// The size of one row, coarsely: tasks of one bucket are taken to cost the same per row. See [`bucket_of`].
    pub bucket: u32,
    /// How long it is expected to run alone on a slot, as long as nothing better has been learned.
    pub cost: Duration,
    /// The longest its batch may run before [`Decision::Abort`](crate::Decision::Abort).
    pub run_limit: Duration,
    /// When its answer is worth nothing any more.
    pub deadline: Option<MonotonicTime>,
    /// What kind of work it is.
    pub kind: TaskKind,
    /// Whether it may be ended and run again when a reservation needs its place. Heeded for best-effort work only.
    pub abortable: bool,
    /// Its place in its flow. Heeded by the fair policy.
    #[serde(default, skip_serializing_if = "Priority::is_default")]
    pub priority: Priority,
}

/// Where a task may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Place {
    /// On any replica of this placement; it waits if there is none yet.
    Placement(PlacementId),
    /// On this worker and no other: loads and registrations. Such tasks run alone.
    Worker(WorkerId),
}

/// What kind of work a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaskKind {
    /// An inference request.
    Infer,
    /// Loading a version into a worker.
    Load,
    /// Loading, checking and measuring a new version.
    Register,
}

/// How the tasks of a placement are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batching {
    /// The most rows of one batch; 1 (or 0) means tasks are never joined. A task with more rows runs alone.
    pub max_rows: u32,
    /// How long a batch short of `max_rows` may wait for more after its oldest task arrived. Zero joins only what queued
    /// while everything was busy.
    pub max_delay: Duration,
}

impl Batching {
    /// Every task for itself, at once.
    pub const NONE: Self = Self { max_rows: 1, max_delay: Duration::ZERO };
}

/// The bucket of rows of `elements` elements each: powers of the square root of two.
pub fn bucket_of(elements: u64) -> u32 {
    // Twice the binary logarithm, rounded down: the square tells apart the two halves of an octave.
    let elements = u128::from(elements.max(1));
    (elements * elements).ilog2()
}
