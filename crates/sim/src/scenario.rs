//! What is simulated: a machine, models with their true costs, tenants with their shares, what they send, what breaks.

use std::sync::Arc;
use std::time::Duration;

use tenantry_sched::{Batching, Event, Outcome, Policy, SchedulerConfig, Share, SlotGroup, Tier, Tuning};
use tenantry_types::{DeploymentId, TenantId};

/// Requests that may wait in a simulated machine unless a scenario says otherwise: more than any of them sends.
const QUEUED_TASKS: usize = 1 << 20;

/// A whole world before its first instant.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The scheduler's own settings.
    pub config: SchedulerConfig,
    /// The slots, numbered as they stand here.
    pub slots: Vec<SlotPlan>,
    /// The models.
    pub models: Vec<ModelPlan>,
    /// The tenants.
    pub tenants: Vec<TenantPlan>,
    /// What they send.
    pub sources: Vec<Source>,
    /// What breaks, and what an operator changes.
    pub faults: Vec<Fault>,
    /// Workers of each trust domain; 0: one for each slot.
    pub workers_per_domain: usize,
    /// Models that fit into the memory of one worker.
    pub loaded_per_worker: usize,
    /// How far a batch's time is from the model's cost, relative standard deviation.
    pub noise: f64,
    /// The scheduler is told that every task took the same time: fair by the number of requests.
    pub count_not_time: bool,
    /// How long it takes until a batch that is aborted has ended.
    pub abort_takes: Duration,
    /// Requests before this do not count in the report.
    pub warm_up: Duration,
    /// When everybody stops sending and everything is healed.
    pub duration: Duration,
    /// What the dice start from.
    pub seed: u64,
}

/// A slot.
#[derive(Debug, Clone, Copy)]
pub struct SlotPlan {
    /// Who may use it.
    pub group: SlotGroup,
    /// Whether what runs on it can be suspended.
    pub suspendable: bool,
}

/// A model and what its runs truly cost.
#[derive(Debug, Clone)]
pub struct ModelPlan {
    /// Its name.
    pub name: String,
    /// The tenant who pushed it; none: the operator did, for all.
    pub owner: Option<usize>,
    /// How its tasks are joined.
    pub batching: Batching,
    /// The part of a batch's time that does not grow with its rows.
    pub fixed: Duration,
    /// The time of each row of bucket 0; it doubles with every two buckets.
    pub per_row: Duration,
    /// What its registration measured for one row: where the scheduler starts.
    pub prior: Duration,
    /// How long loading it holds a slot.
    pub load: Duration,
    /// Whether it is loaded from the start.
    pub loaded: bool,
    /// The longest a batch may run.
    pub run_limit: Duration,
}

/// A tenant.
#[derive(Debug, Clone)]
pub struct TenantPlan {
    /// Its name.
    pub name: String,
    /// Its settings.
    pub share: Share,
    /// Whether its requests to the operator's models run in the same workers as others'.
    pub batch_with_others: bool,
}

/// A stream of requests of one tenant.
#[derive(Debug, Clone)]
pub struct Source {
    /// Who sends.
    pub tenant: usize,
    /// When.
    pub arrivals: Arrivals,
    /// To which models.
    pub models: Models,
    /// Rows of a request: the least and the most.
    pub rows: (u32, u32),
    /// Sizes of rows: each request takes the next.
    pub buckets: Vec<u32>,
    /// Different shapes: 1 batches best, many never.
    pub shapes: u64,
    /// What the rows of a request truly cost, as a factor nobody can see: each request takes the next.
    pub factors: Vec<f64>,
    /// How long the client waits for an answer.
    pub timeout: Option<Duration>,
    /// The client leaves after this.
    pub leaves_after: Option<Duration>,
    /// When it begins.
    pub from: Duration,
    /// When it ends; at the latest with the world.
    pub until: Duration,
}

/// When requests come.
#[derive(Debug, Clone)]
pub enum Arrivals {
    /// At random, so many a second.
    Poisson {
        /// Requests a second.
        rate: f64,
    },
    /// At random while on, silent while off; all sources with equal times are on at the same time.
    OnOff {
        /// How long it sends.
        on: Duration,
        /// How long it is silent.
        off: Duration,
        /// Requests a second while on.
        rate: f64,
    },
    /// So many at once, again and again.
    Bursts {
        /// From burst to burst.
        every: Duration,
        /// Requests of a burst.
        count: u32,
    },
    /// Clients that send the next request when the last one is answered.
    ClosedLoop {
        /// How many.
        clients: u32,
        /// How long one waits before the next request.
        think: Duration,
    },
    /// At random, held back so that no more than `burst + rate * time` of device time is asked for, in the scheduler's own
    /// upper estimates.
    Shaped {
        /// Requests a second.
        rate: f64,
        /// Device time at once.
        burst: Duration,
        /// Device time per time.
        share: f64,
    },
    /// As recorded.
    Replay(Arc<Vec<Recorded>>),
}

/// To which models requests go.
#[derive(Debug, Clone)]
pub enum Models {
    /// One.
    One(usize),
    /// The next one each time, all of them.
    Scan(std::ops::Range<usize>),
    /// By weights given as running sums, the first for the first of these.
    Weighted {
        /// The first model.
        first: usize,
        /// Running sums of weights.
        running_sums: Arc<Vec<f64>>,
    },
}

/// A recorded request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recorded {
    /// When it came.
    pub at: Duration,
    /// To which model.
    pub model: usize,
    /// Its rows.
    pub rows: u32,
    /// The size of a row.
    pub bucket: u32,
    /// Its payload.
    pub bytes: u64,
    /// How long its client waits.
    pub timeout: Option<Duration>,
    /// What it costs beyond the model's fixed part, if that is known.
    pub work: Option<Duration>,
}

/// What breaks or is changed.
#[derive(Debug, Clone)]
pub enum Fault {
    /// A slot goes and comes back.
    SlotAway {
        /// Which.
        slot: usize,
        /// When it goes.
        from: Duration,
        /// When it comes back.
        until: Duration,
    },
    /// A worker dies; a new one with the same models comes.
    WorkerDies {
        /// How what it ran ends: failed, to be run again one by one, or interrupted.
        outcome: Outcome,
        /// Which, of all workers, modulo their number.
        worker: usize,
        /// When it dies.
        from: Duration,
        /// When the new one is ready.
        until: Duration,
    },
    /// Batches that begin on a slot take longer.
    SlowSlot {
        /// Which.
        slot: usize,
        /// From when.
        from: Duration,
        /// Until when.
        until: Duration,
        /// How much longer.
        factor: f64,
    },
    /// The scheduler is told something: new settings, another policy.
    Told {
        /// When.
        at: Duration,
        /// What.
        event: Event,
    },
}

impl Scenario {
    /// A machine with so many slots that can be suspended, and nobody on it.
    pub fn new(policy: Policy, slots: usize) -> Self {
        Self {
            config: SchedulerConfig {
                policy,
                tuning: Tuning::CPU,
                max_queued_tasks: QUEUED_TASKS,
                max_queued_bytes: u64::MAX,
                max_queued_tasks_per_tenant: QUEUED_TASKS,
            },
            slots: vec![SlotPlan { group: SlotGroup::default(), suspendable: true }; slots],
            models: Vec::new(),
            tenants: Vec::new(),
            sources: Vec::new(),
            faults: Vec::new(),
            workers_per_domain: 0,
            loaded_per_worker: usize::MAX,
            noise: 0.0,
            count_not_time: false,
            abort_takes: Duration::from_millis(1),
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(10),
            seed: 1,
        }
    }

    /// Adds a model; answers its number.
    pub fn model(&mut self, model: ModelPlan) -> usize {
        self.models.push(model);
        self.models.len() - 1
    }

    /// Adds a tenant; answers its number.
    pub fn tenant(&mut self, name: impl Into<String>, share: Share) -> usize {
        // As on the server: whoever is promised time of his own does not queue behind others in their worker.
        let batch_with_others = share.tier != Some(Tier::Guaranteed) && share.group == SlotGroup::default();
        self.tenants.push(TenantPlan { name: name.into(), share, batch_with_others });
        self.tenants.len() - 1
    }
}

impl ModelPlan {
    /// A model of the operator's that is loaded everywhere and whose registration measured it well.
    pub fn new(name: impl Into<String>, fixed: Duration, per_row: Duration, max_rows: u32) -> Self {
        Self {
            name: name.into(),
            owner: None,
            batching: Batching { max_rows, max_delay: Duration::ZERO },
            fixed,
            per_row,
            prior: fixed + per_row,
            load: Duration::from_millis(50),
            loaded: true,
            run_limit: Duration::from_secs(30),
        }
    }

    /// What a request truly costs beyond the fixed part.
    pub(crate) fn work_ns(&self, rows: u32, bucket: u32, factor: f64) -> u64 {
        let scale = 2.0_f64.powf(f64::from(bucket) / 2.0) * factor;
        (self.per_row.as_nanos() as f64 * f64::from(rows.max(1)) * scale) as u64
    }
}

impl Source {
    /// Requests of one row to one model, all alike, with no hurry.
    pub fn new(tenant: usize, model: usize, arrivals: Arrivals) -> Self {
        Self {
            tenant,
            arrivals,
            models: Models::One(model),
            rows: (1, 1),
            buckets: vec![0],
            shapes: 1,
            factors: vec![1.0],
            timeout: None,
            leaves_after: None,
            from: Duration::ZERO,
            until: Duration::MAX,
        }
    }
}

/// The id of a tenant by its number.
pub fn tenant_id(number: usize) -> TenantId {
    TenantId::from_parts(0, numbered(number))
}

/// The id of the deployment of a model by its number.
pub fn deployment_id(number: usize) -> DeploymentId {
    DeploymentId::from_parts(0, numbered(number))
}

fn numbered(number: usize) -> [u8; 10] {
    let mut bytes = [0; 10];
    for (to, from) in bytes.iter_mut().skip(2).zip((number as u64).to_be_bytes()) {
        *to = from;
    }
    bytes
}
