//! What the composition root decides for this node.

use std::path::PathBuf;
use std::time::Duration;

/// The size of a fresh arena, bytes: large enough for most requests, free until touched (pages appear on first use).
pub(crate) const INITIAL_ARENA_BYTES: u64 = 256 << 10;
/// How long a grown arena may stay idle before it is replaced by a fresh one, so that a burst's peak does not stay.
pub(crate) const ARENA_IDLE: Duration = Duration::from_secs(10);
/// How long a new worker may take to say it is ready.
pub(crate) const READY_LIMIT: Duration = Duration::from_secs(20);

/// Settings of a node. Durations are limits, not targets.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Batches that may run at the same time.
    pub slots: u16,
    /// The program `tenantry-worker`.
    pub worker_binary: PathBuf,
    /// The ONNX Runtime library that workers load.
    pub runtime_library: PathBuf,
    /// The processors workers may use; empty: those of the server.
    pub worker_cpus: Vec<usize>,
    /// Address space of one worker, bytes; absent: unlimited.
    pub worker_memory_bytes: Option<u64>,
    /// Tasks waiting on the whole node.
    pub max_queued_tasks: usize,
    /// Bytes of tensor data waiting on the whole node.
    pub max_queued_bytes: u64,
    /// Tasks one tenant may have waiting.
    pub max_queued_tasks_per_tenant: usize,
    /// The largest input or output arena of a worker, bytes.
    pub max_arena_bytes: u64,
    /// The longest a model may take to load before its worker is killed.
    pub load_limit: Duration,
    /// The longest a registration may take before its worker is killed.
    pub register_limit: Duration,
}
