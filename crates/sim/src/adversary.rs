//! Those who would take what is not theirs: the suite of P7.

use std::sync::Arc;
use std::time::Duration;

use tenantry_sched::{Policy, Rate, Reservation, Share, Tier};

use crate::random::zipf;
use crate::scenario::{Arrivals, ModelPlan, Models, Scenario, Source};

/// The victim's number among the tenants.
pub const VICTIM: usize = 0;
/// Its reservation: device time per time.
pub const VICTIM_RATE: f64 = 0.2;
/// Its burst.
pub const VICTIM_BURST: Duration = Duration::from_millis(12);
/// What it sends a second.
pub const VICTIM_REQUESTS: f64 = 20.0;

const FIXED: Duration = Duration::from_millis(4);
const PER_ROW: Duration = Duration::from_micros(500);
const CLIENTS: u32 = 64;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adversary {
    /// Nobody.
    None,
    /// 64 clients, small requests to a model of their own.
    FloodSmall,
    /// 64 clients, small requests to the victim's model, in other workers.
    FloodSameModel,
    /// The same in the same workers and batches: the victim chose to batch with others.
    FloodSameBatches,
    /// 64 clients, each batch as long as batches may be.
    FloodBig,
    /// 64 clients of a model of which each run takes two seconds.
    FloodHuge,
    /// 50 tenants like any other, each asking for more than all there is.
    ManyEqual,
    /// One tenant calls 200 models that are not loaded, in turn.
    ModelScan,
    /// 20 tenants send 20 requests each at the same instant, twice a second.
    Bursts,
    /// Every request has another shape, so that none can share a batch.
    ShapeChurn,
    /// Whatever it sends is urgent.
    DeadlineLiar,
    /// 2,000 requests a second whose clients leave after a millisecond.
    CancelStorm,
    /// Cheap and dear inputs that look alike, in turn.
    EstimatorPoison,
    /// One that comes as 200 tenants.
    Sybils,
    /// Another tenant of the victim's tier asks for far more than its own reservation.
    SameTier,
    /// Four others with reservations, which with the victim's are all that can be reserved, all asking for more.
    FullyReserved,
}

impl Adversary {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::None,
        Self::FloodSmall,
        Self::FloodSameModel,
        Self::FloodSameBatches,
        Self::FloodBig,
        Self::FloodHuge,
        Self::ManyEqual,
        Self::ModelScan,
        Self::Bursts,
        Self::ShapeChurn,
        Self::DeadlineLiar,
        Self::CancelStorm,
        Self::EstimatorPoison,
        Self::Sybils,
        Self::SameTier,
        Self::FullyReserved,
    ];

    /// As tables name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::FloodSmall => "flood small",
            Self::FloodSameModel => "flood same model",
            Self::FloodSameBatches => "flood same batches",
            Self::FloodBig => "flood big",
            Self::FloodHuge => "flood huge (2 s runs)",
            Self::ManyEqual => "50 equal tenants",
            Self::ModelScan => "200-model scan",
            Self::Bursts => "synchronised bursts",
            Self::ShapeChurn => "shape churn",
            Self::DeadlineLiar => "deadline liar",
            Self::CancelStorm => "cancel storm",
            Self::EstimatorPoison => "estimator poison",
            Self::Sybils => "200 sybils",
            Self::SameTier => "same tier flood",
            Self::FullyReserved => "0.76 reserved + flood",
        }
    }
}

/// A victim that keeps within its reservation, and one adversary.
pub fn scenario(adversary: Adversary, policy: Policy, slots: usize, suspendable: bool, duration: Duration) -> Scenario {
    let mut world = Scenario::new(policy, slots);
    for slot in &mut world.slots {
        slot.suspendable = suspendable;
    }
    world.duration = duration;
    // Costs are learned first: the promise is one about upper estimates, and at the beginning these are guesses.
    world.warm_up = Duration::from_secs(2);
    world.config.max_queued_tasks_per_tenant = 1000;
    world.loaded_per_worker = 40;
    let shared = world.model(ModelPlan::new("shared", FIXED, PER_ROW, 32));
    let own = world.model(ModelPlan::new("own", FIXED, PER_ROW, 32));
    let victim = guaranteed(&mut world, "victim", VICTIM_RATE, VICTIM_BURST);
    if adversary == Adversary::FloodSameBatches
        && let Some(victim) = world.tenants.get_mut(victim)
    {
        victim.batch_with_others = true;
    }
    let shaped = Arrivals::Shaped { rate: VICTIM_REQUESTS, burst: VICTIM_BURST, share: VICTIM_RATE };
    world.sources.push(Source::new(victim, shared, shaped));
    add(&mut world, adversary, shared, own);
    world
}

fn guaranteed(world: &mut Scenario, name: &str, rate: f64, burst: Duration) -> usize {
    let reservation = Some(Reservation { rate: Rate::from_ppm((rate * 1e6) as u32), burst });
    world.tenant(name, Share { tier: Some(Tier::Guaranteed), reservation, ..Share::default() })
}

fn flood(tenant: usize, model: usize) -> Source {
    Source::new(tenant, model, Arrivals::ClosedLoop { clients: CLIENTS, think: Duration::ZERO })
}

fn add(world: &mut Scenario, adversary: Adversary, shared: usize, own: usize) {
    let plain = Share::default();
    match adversary {
        Adversary::None => {}
        Adversary::FloodSmall => {
            let tenant = world.tenant("flood", plain);
            world.sources.push(flood(tenant, own));
        }
        Adversary::FloodSameModel | Adversary::FloodSameBatches => {
            let tenant = world.tenant("flood", plain);
            world.sources.push(flood(tenant, shared));
        }
        Adversary::FloodBig => {
            let tenant = world.tenant("flood", plain);
            world.sources.push(Source { rows: (32, 32), ..flood(tenant, own) });
        }
        Adversary::FloodHuge => {
            let huge = world.model(ModelPlan::new("huge", Duration::ZERO, Duration::from_secs(2), 1));
            let tenant = world.tenant("flood", plain);
            world.sources.push(flood(tenant, huge));
        }
        Adversary::ManyEqual => {
            for number in 0..50 {
                let tenant = world.tenant(format!("equal-{number}"), plain);
                world.sources.push(Source { rows: (1, 8), ..flood(tenant, own) });
            }
        }
        Adversary::ModelScan => {
            let first = world.models.len();
            for number in 0..200 {
                let model = ModelPlan::new(format!("cold-{number}"), FIXED, PER_ROW, 32);
                world.model(ModelPlan { loaded: false, ..model });
            }
            let tenant = world.tenant("scan", plain);
            let scan = flood(tenant, own);
            world.sources.push(Source { models: Models::Scan(first..first + 200), ..scan });
        }
        Adversary::Bursts => {
            for number in 0..20 {
                let tenant = world.tenant(format!("burst-{number}"), plain);
                let bursts = Arrivals::Bursts { every: Duration::from_millis(500), count: 20 };
                world.sources.push(Source { rows: (1, 8), ..Source::new(tenant, own, bursts) });
            }
        }
        Adversary::ShapeChurn => {
            let tenant = world.tenant("churn", plain);
            world.sources.push(Source { shapes: 1 << 30, rows: (1, 16), ..flood(tenant, own) });
        }
        Adversary::DeadlineLiar => {
            let tenant = world.tenant("liar", plain);
            world.sources.push(Source { timeout: Some(Duration::from_millis(12)), ..flood(tenant, own) });
        }
        Adversary::CancelStorm => {
            let tenant = world.tenant("storm", plain);
            let storm = Source::new(tenant, own, Arrivals::Poisson { rate: 2000.0 });
            world.sources.push(Source { leaves_after: Some(Duration::from_millis(1)), ..storm });
        }
        Adversary::EstimatorPoison => {
            let tenant = world.tenant("poison", plain);
            // 300 cheap ones, so that the tail forgets, then dear ones.
            let factors = (0..320).map(|number| if number < 300 { 0.05 } else { 200.0 }).collect();
            world.sources.push(Source { factors, ..flood(tenant, own) });
        }
        Adversary::Sybils => {
            for number in 0..200 {
                let tenant = world.tenant(format!("sybil-{number}"), plain);
                let arrivals = Arrivals::ClosedLoop { clients: 2, think: Duration::ZERO };
                world.sources.push(Source { rows: (1, 8), ..Source::new(tenant, own, arrivals) });
            }
        }
        Adversary::SameTier => {
            let tenant = guaranteed(world, "greedy", 0.05, Duration::from_millis(10));
            world.sources.push(Source { rows: (1, 8), ..flood(tenant, own) });
        }
        Adversary::FullyReserved => {
            for number in 0..4 {
                let tenant = guaranteed(world, &format!("reserved-{number}"), 0.14, Duration::from_millis(20));
                world.sources.push(Source { rows: (1, 8), ..flood(tenant, own) });
            }
            let tenant = world.tenant("flood", plain);
            world.sources.push(flood(tenant, own));
        }
    }
}

/// 50 tenants by Zipf's law over 12 models, at a part of what the slots could serve one by one.
pub fn overload(policy: Policy, slots: usize, load: f64, duration: Duration) -> Scenario {
    let mut world = Scenario::new(policy, slots);
    world.duration = duration;
    world.warm_up = duration / 6;
    world.config.max_queued_tasks_per_tenant = 1000;
    world.config.max_queued_tasks = 10_000;
    for number in 0..12 {
        world.model(ModelPlan::new(format!("model-{number}"), FIXED, PER_ROW, 32));
    }
    let weights = Arc::new(zipf(12, 1.0));
    let tenants = zipf(50, 1.0);
    let total = tenants.last().copied().unwrap_or(1.0);
    // One to three rows: 5 ms alone.
    let solo = slots as f64 / (FIXED + PER_ROW * 2).as_secs_f64();
    let mut before = 0.0;
    for (number, sum) in tenants.iter().enumerate() {
        let rate = load * solo * (sum - before) / total;
        before = *sum;
        let tenant = world.tenant(format!("tenant-{number}"), Share::default());
        world.sources.push(Source {
            models: Models::Weighted { first: 0, running_sums: Arc::clone(&weights) },
            rows: (1, 3),
            timeout: Some(Duration::from_millis(200)),
            ..Source::new(tenant, 0, Arrivals::Poisson { rate })
        });
    }
    world
}

/// Tenants that always have work: weights 1, 2, 4 in turn, and requests of another size each.
pub fn backlogged(policy: Policy, slots: usize, tenants: usize, duration: Duration) -> Scenario {
    let mut world = Scenario::new(policy, slots);
    world.duration = duration;
    world.warm_up = Duration::from_secs(2).min(duration / 4);
    for number in 0..3 {
        world.model(ModelPlan::new(format!("model-{number}"), FIXED, PER_ROW, 32));
    }
    for number in 0..tenants {
        let weight = tenantry_sched::Weight::from_milli(1000 << (number % 3));
        let tenant = world.tenant(format!("tenant-{number}"), Share { weight, ..Share::default() });
        let size = 1 << (number % 6);
        // Enough clients that some of their requests wait however many batches run.
        let clients = u32::try_from(64 * slots.min(4)).unwrap_or(64);
        let arrivals = Arrivals::ClosedLoop { clients, think: Duration::ZERO };
        world.sources.push(Source { rows: (size, size), ..Source::new(tenant, number % 3, arrivals) });
    }
    world
}
