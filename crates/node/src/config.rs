//! What the composition root decides for this node.

use std::path::PathBuf;
use std::time::Duration;

use tenantry_jail::{Barriers, Layer, Layers, Level, SuspendBy, WorkerStart};
use tenantry_sched::{Policy, SlotGroup, Tuning};
use tenantry_types::model::ModelLimits;

/// The size of a fresh arena, bytes: large enough for most requests, free until touched (pages appear on first use).
pub(crate) const INITIAL_ARENA_BYTES: u64 = 256 << 10;
/// How long a grown arena may stay idle before it is replaced by a fresh one, so that a burst's peak does not stay.
pub(crate) const ARENA_IDLE: Duration = Duration::from_secs(10);
/// How long a new worker may take to say it is ready.
pub(crate) const READY_LIMIT: Duration = Duration::from_secs(20);

/// Threads of a worker: as many as a run has processors, and a few.
const DEFAULT_MAX_PROCESSES: u32 = 512;
/// What workers that serve add to the nice value by default.
const DEFAULT_WORKER_NICE: i8 = 5;

/// Settings of a node. Durations are limits, not targets.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Batches that may run at the same time.
    pub slots: u16,
    /// The group of each slot, the first slot's first; slots beyond the end are everybody's.
    pub slot_groups: Vec<SlotGroup>,
    /// The processors of each slot, the first slot's first; a slot without an entry, or with an empty one, is not pinned.
    pub slot_cores: Vec<Vec<usize>>,
    /// How it is chosen what runs next, until [`Node::set_policy`](crate::Node::set_policy) changes it.
    pub policy: Policy,
    /// The constants of the fair policy.
    pub tuning: Tuning,
    /// Whether workers may be stopped in the middle of a run for work that has a reservation.
    pub suspend: bool,
    /// The program `tenantry-worker`.
    pub worker_binary: PathBuf,
    /// The ONNX Runtime library that workers load.
    pub runtime_library: PathBuf,
    /// The processors workers may use; empty: those of the server.
    pub worker_cpus: Vec<usize>,
    /// Added to the nice value of workers that serve. Above zero the server goes first where it shares processors with
    /// them, because every answer of every worker passes through it.
    pub worker_nice: i8,
    /// How workers are made.
    pub worker_start: WorkerStart,
    /// The barriers wanted around workers; those this machine cannot put up are left out.
    pub layers: Layers,
    /// The least they must amount to: below it no worker is started.
    pub min_isolation: Level,
    /// Memory of one worker, bytes; absent: three quarters of what there is. Where there is no control group to bound it,
    /// and it is given, its address space.
    pub worker_memory_bytes: Option<u64>,
    /// Memory the machine is to keep available, bytes: below it, best-effort batches that may be are ended. 0: not watched.
    pub memory_floor_bytes: u64,
    /// Processes and threads of one worker, where there are control groups.
    pub worker_max_processes: u32,
    /// Processor time of one worker, thousandths of a processor, where there are control groups; absent: no ceiling.
    pub worker_max_cpu_milli: Option<u32>,
    /// How a worker is stopped in the middle of a run.
    pub suspend_by: SuspendBy,
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
    /// What an uploaded model file may be.
    pub model_limits: ModelLimits,
    /// How long an input that workers died over twice is refused; zero: it never is.
    pub refuse_poison_for: Duration,
    /// Where to record each request's arrival, size and time, without its data; absent: nowhere.
    pub record_arrivals: Option<PathBuf>,
    /// Where to record the scheduler's events and decisions; absent: nowhere.
    pub record_decisions: Option<PathBuf>,
}

impl NodeConfig {
    /// One slot, one gigabyte, limits of seconds: what tests start from and real configurations overwrite.
    pub fn small(worker_binary: PathBuf, runtime_library: PathBuf) -> Self {
        Self {
            slots: 1,
            slot_groups: Vec::new(),
            slot_cores: Vec::new(),
            policy: Policy::Fair,
            tuning: Tuning::CPU,
            suspend: true,
            worker_binary,
            runtime_library,
            worker_cpus: Vec::new(),
            worker_nice: DEFAULT_WORKER_NICE,
            worker_start: WorkerStart::Exec,
            layers: Layer::ALL.into_iter().collect(),
            min_isolation: Level::None,
            worker_memory_bytes: None,
            memory_floor_bytes: 0,
            worker_max_processes: DEFAULT_MAX_PROCESSES,
            worker_max_cpu_milli: None,
            suspend_by: SuspendBy::Auto,
            max_queued_tasks: 1_000,
            max_queued_bytes: 1 << 30,
            max_queued_tasks_per_tenant: 1_000,
            max_arena_bytes: 1 << 28,
            load_limit: Duration::from_secs(20),
            register_limit: Duration::from_secs(60),
            model_limits: ModelLimits::default(),
            refuse_poison_for: Duration::from_secs(600),
            record_arrivals: None,
            record_decisions: None,
        }
    }

    /// The barriers that workers get where `barriers` can be put up, and why not the others.
    pub(crate) fn isolation(&self, barriers: &Barriers) -> Barriers {
        let switched_off = barriers.in_force.iter().filter(|layer| !self.layers.has(*layer));
        let switched_off = switched_off.map(|layer| (layer, "switched off in the settings".to_owned()));
        Barriers {
            in_force: barriers.in_force.and(self.layers),
            not_in_force: switched_off.chain(barriers.not_in_force.iter().cloned()).collect(),
        }
    }

    /// The group of a slot, by its number.
    pub(crate) fn group_of(&self, slot: u16) -> SlotGroup {
        self.slot_groups.get(usize::from(slot)).copied().unwrap_or_default()
    }
}
