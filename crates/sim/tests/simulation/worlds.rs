//! Random worlds.

use std::time::Duration;

use proptest::prelude::*;
use tenantry_sched::{Batching, Event, Outcome, Policy, Rate, Reservation, Share, SlotGroup, Subject, Tier, Weight};
use tenantry_sim::check::Auditor;
use tenantry_sim::random::Random;
use tenantry_sim::report::Report;
use tenantry_sim::scenario::{Arrivals, Fault, ModelPlan, Models, Scenario, Source, deployment_id, tenant_id};
use tenantry_sim::world::{Observer, run};

fn milliseconds(random: &mut Random, low: u64, high: u64) -> Duration {
    Duration::from_millis(random.between(low, high))
}

fn share(random: &mut Random) -> Share {
    let tier = [None, Some(Tier::Guaranteed), Some(Tier::Burstable), Some(Tier::BestEffort)]
        [usize::try_from(random.below(4)).unwrap()];
    let reservation = (random.below(3) == 0 && tier != Some(Tier::BestEffort)).then(|| Reservation {
        rate: Rate::from_ppm(u32::try_from(random.between(20_000, 150_000)).unwrap()),
        burst: milliseconds(random, 0, 100),
    });
    Share {
        weight: Weight::from_milli(u32::try_from(random.between(200, 4000)).unwrap()),
        tier,
        reservation,
        max_queued_tasks: (random.below(4) == 0).then(|| u32::try_from(random.between(1, 50)).unwrap()),
        ..Share::default()
    }
}

fn arrivals(random: &mut Random) -> Arrivals {
    match random.below(5) {
        0 => Arrivals::Poisson { rate: random.between(5, 400) as f64 },
        1 => Arrivals::OnOff {
            on: milliseconds(random, 10, 300),
            off: milliseconds(random, 10, 500),
            rate: random.between(20, 800) as f64,
        },
        2 => Arrivals::Bursts {
            every: milliseconds(random, 20, 400),
            count: u32::try_from(random.between(1, 60)).unwrap(),
        },
        _ => Arrivals::ClosedLoop {
            clients: u32::try_from(random.between(1, 40)).unwrap(),
            think: Duration::from_micros(random.below(3000)),
        },
    }
}

fn source(random: &mut Random, tenant: usize, models: usize) -> Source {
    let most = u32::try_from(random.between(1, 12)).unwrap();
    let wait = random.below(3) == 0;
    Source {
        models: if random.below(2) == 0 {
            Models::One(usize::try_from(random.below(models as u64)).unwrap())
        } else {
            Models::Scan(0..models)
        },
        rows: (1, most),
        buckets: (0..=random.below(3)).map(|bucket| u32::try_from(bucket).unwrap()).collect(),
        shapes: random.between(1, 4),
        factors: if random.below(4) == 0 { vec![0.1, 1.0, 10.0] } else { vec![1.0] },
        timeout: wait.then(|| milliseconds(random, 5, 400)),
        leaves_after: (random.below(6) == 0).then(|| milliseconds(random, 1, 80)),
        ..Source::new(tenant, 0, arrivals(random))
    }
}

fn fault(random: &mut Random, slots: usize, tenants: usize, end: Duration) -> Fault {
    let from = end.mul_f64(random.unit());
    let until = from + milliseconds(random, 1, 800);
    let slot = usize::try_from(random.below(slots as u64)).unwrap();
    match random.below(7) {
        0 => Fault::SlotAway { slot, from, until },
        1 | 2 => {
            let worker = usize::try_from(random.below(16)).unwrap();
            let outcome = [Outcome::Failed, Outcome::Split, Outcome::Interrupted][worker % 3];
            Fault::WorkerDies { outcome, worker, from, until }
        }
        3 => Fault::SlowSlot { slot, from, until, factor: random.between(2, 10) as f64 },
        4 => {
            let tenant = usize::try_from(random.below(tenants as u64)).unwrap();
            let subject = match random.below(3) {
                0 => Subject::Deployment(tenant_id(tenant), deployment_id(0)),
                _ => Subject::Tenant(tenant_id(tenant)),
            };
            let share = (random.below(4) > 0).then(|| share(random));
            Fault::Told { at: from, event: Event::Share { subject, share } }
        }
        5 => {
            let needed_by = random.below(2) == 0;
            let tenant = tenant_id(usize::try_from(random.below(tenants as u64)).unwrap());
            Fault::Told { at: from, event: Event::MemoryShort { needed_by: needed_by.then_some(tenant) } }
        }
        _ => {
            let policy = Policy::ALL[usize::try_from(random.below(4)).unwrap()];
            Fault::Told { at: from, event: Event::Policy { policy } }
        }
    }
}

/// Anything that can be on one machine for two seconds.
pub(crate) fn any_world(seed: u64) -> Scenario {
    let mut random = Random::new(seed);
    let slots = usize::try_from(random.between(1, 4)).unwrap();
    let policy =
        if random.below(3) > 0 { Policy::Fair } else { Policy::ALL[usize::try_from(random.below(4)).unwrap()] };
    let mut world = Scenario::new(policy, slots);
    world.seed = seed;
    world.duration = milliseconds(&mut random, 500, 2000);
    world.noise = if random.below(2) == 0 { 0.0 } else { 0.2 };
    world.config.max_queued_tasks = usize::try_from(random.between(10, 2000)).unwrap();
    world.config.max_queued_tasks_per_tenant = usize::try_from(random.between(5, 1000)).unwrap();
    world.config.tuning.window = milliseconds(&mut random, 0, 200);
    world.config.tuning.fill_window = milliseconds(&mut random, 0, 1000);
    world.config.tuning.suspend_limit = milliseconds(&mut random, 20, 2000);
    world.workers_per_domain = usize::try_from(random.below(3)).unwrap();
    for slot in &mut world.slots {
        slot.suspendable = random.below(3) > 0;
    }
    if slots > 1 && random.below(3) == 0 {
        world.slots[slots - 1].group = SlotGroup(1);
    }
    let models = usize::try_from(random.between(1, 6)).unwrap();
    let tenants = usize::try_from(random.between(1, 8)).unwrap();
    for number in 0..models {
        let fixed = Duration::from_micros(random.below(6000));
        let per_row = Duration::from_micros(random.between(10, 2000));
        let mut model =
            ModelPlan::new(format!("m{number}"), fixed, per_row, u32::try_from(random.between(1, 32)).unwrap());
        model.loaded = random.below(4) > 0;
        model.prior = Duration::from_micros(random.between(100, 20_000));
        if random.below(8) == 0 {
            model.run_limit = milliseconds(&mut random, 5, 50);
        }
        if random.below(4) == 0 {
            let max_delay = milliseconds(&mut random, 1, 10);
            model.batching = Batching { max_delay, ..model.batching };
        }
        if random.below(4) == 0 {
            model.owner = Some(usize::try_from(random.below(tenants as u64)).unwrap());
        }
        world.model(model);
    }
    if random.below(3) == 0 {
        world.loaded_per_worker = usize::try_from(random.between(1, 3)).unwrap();
    }
    for number in 0..tenants {
        let mut share = share(&mut random);
        if world.slots[slots - 1].group == SlotGroup(1) && number == 0 {
            share.group = SlotGroup(1);
        }
        let tenant = world.tenant(format!("t{number}"), share);
        for _ in 0..random.between(1, 2) {
            let source = source(&mut random, tenant, models);
            world.sources.push(source);
        }
    }
    for _ in 0..random.below(5) {
        let fault = fault(&mut random, slots, tenants, world.duration);
        // Settings that change keep the group, or its tasks would wait for slots that are not there.
        let fault = match fault {
            Fault::Told { at, event: Event::Share { subject: Subject::Tenant(tenant), share } } => {
                let number = (0..tenants).find(|&number| tenant_id(number) == tenant).unwrap();
                let group = world.tenants[number].share.group;
                let share = Some(Share { group, ..share.unwrap_or_default() });
                Fault::Told { at, event: Event::Share { subject: Subject::Tenant(tenant), share } }
            }
            other => other,
        };
        world.faults.push(fault);
    }
    world
}

pub(crate) fn audit(world: &Scenario) -> (Report, Auditor) {
    let mut auditor = Auditor::from(&world.config, world.warm_up);
    let report = run(world, &mut [&mut auditor as &mut dyn Observer]);
    (report, auditor)
}

/// Nothing that should not be.
pub(crate) fn assert_clean(report: &Report, auditor: &Auditor) {
    let (violations, count) = auditor.violations();
    assert!(violations.is_empty(), "{count} violations, the first: {}", violations[0]);
    assert!(report.faults.is_empty(), "{:?}", report.faults);
}

/// So many cases, unless the environment asks for another number.
pub(crate) fn cases(usual: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(usual), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(96))]

    /// Faults, then healing: one batch a slot and a worker, each task ends once, nothing waits that could run (P1), charges
    /// add up to the nanosecond (P0), and in the end nothing is left.
    #[test]
    fn any_world_keeps_the_books_and_comes_to_its_end(seed in any::<u64>()) {
        let (report, auditor) = audit(&any_world(seed));
        assert_clean(&report, &auditor);
    }
}

/// Worlds in which something was found once.
#[test]
fn worlds_that_once_went_wrong() {
    // A wake-up in the past.
    for seed in [3_698_592_658_961_040_963, 10_612_554_028_416_065_450, 10_612_594_551_786_478_861] {
        let (report, auditor) = audit(&any_world(seed));
        assert_clean(&report, &auditor);
    }
}
