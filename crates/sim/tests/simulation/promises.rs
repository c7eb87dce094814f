//! P4, P5, P7 and P9: what is promised to reserved tenants and to deadlines.

use std::time::Duration;

use proptest::prelude::*;
use tenantry_sched::{Policy, Rate, Reservation, Share, Tier};
use tenantry_sim::adversary::{Adversary, VICTIM, VICTIM_BURST, VICTIM_RATE, overload, scenario};
use tenantry_sim::random::Random;
use tenantry_sim::scenario::{Arrivals, ModelPlan, Scenario, Source};

use crate::worlds::{assert_clean, audit, cases};

/// A random world of the theorem: so many slots (it is proved for one), suspendable or not, one to eight reservations of 0.3
/// to 0.8 of the slots, whose owners ask for less, as much or far more; up to thirty others; costs that do not vary. Reserved
/// tenants share workers with each other and with strangers.
fn theorem(seed: u64, slots: usize, may_suspend: bool) -> Scenario {
    let mut random = Random::new(seed);
    // What was drawn here is given now; seeds that were found keep their meaning.
    let _ = random.number();
    let mut world = Scenario::new(Policy::Fair, slots);
    world.seed = seed;
    world.warm_up = Duration::from_secs(2);
    world.duration = Duration::from_secs(6);
    let quantum_ms = [10, 20, 50][usize::try_from(random.below(3)).unwrap()];
    world.config.tuning.quantum = Duration::from_millis(quantum_ms);
    world.config.tuning.window = Duration::from_millis([0, 10, 100][usize::try_from(random.below(3)).unwrap()]);
    let suspendable = random.below(2) == 0;
    for slot in &mut world.slots {
        slot.suspendable = suspendable && may_suspend;
    }
    let models = usize::try_from(random.between(1, 12)).unwrap();
    for number in 0..models {
        let fixed = Duration::from_micros(random.between(100, quantum_ms * 300));
        let per_row = Duration::from_micros(random.between(10, quantum_ms * 80));
        world.model(ModelPlan::new(
            format!("m{number}"),
            fixed,
            per_row,
            u32::try_from(random.between(1, 32)).unwrap(),
        ));
    }
    let reserved = random.between(1, 8);
    let total = random.between(300, 780) * 1000;
    for number in 0..reserved {
        let rate = Rate::from_ppm(u32::try_from(total / reserved).unwrap());
        let burst = Duration::from_millis(random.below(60));
        let tier = if random.below(3) > 0 { Tier::Guaranteed } else { Tier::Burstable };
        let share = Share { tier: Some(tier), reservation: Some(Reservation { rate, burst }), ..Share::default() };
        let tenant = world.tenant(format!("reserved-{number}"), share);
        let arrivals = match random.below(3) {
            0 => Arrivals::Poisson { rate: random.between(2, 200) as f64 },
            1 => Arrivals::Bursts {
                every: Duration::from_millis(random.between(50, 500)),
                count: u32::try_from(random.between(1, 30)).unwrap(),
            },
            _ => Arrivals::ClosedLoop { clients: u32::try_from(random.between(1, 16)).unwrap(), think: Duration::ZERO },
        };
        let model = usize::try_from(random.below(models as u64)).unwrap();
        world.sources.push(Source { rows: (1, 4), ..Source::new(tenant, model, arrivals) });
    }
    for number in 0..random.below(30) {
        let tier = if random.below(4) == 0 { Tier::BestEffort } else { Tier::Burstable };
        let tenant = world.tenant(format!("other-{number}"), Share { tier: Some(tier), ..Share::default() });
        let arrivals = if random.below(2) == 0 {
            Arrivals::Poisson { rate: random.between(5, 300) as f64 }
        } else {
            Arrivals::ClosedLoop { clients: u32::try_from(random.between(1, 16)).unwrap(), think: Duration::ZERO }
        };
        let model = usize::try_from(random.below(models as u64)).unwrap();
        world.sources.push(Source { rows: (1, 8), ..Source::new(tenant, model, arrivals) });
    }
    world
}

proptest! {
    #![proptest_config(cases(48))]

    /// P4: every reserved task ends by `F + Q`, whatever the others do. With suspension it is proved where reserved tenants have
    /// workers of their own (`sched` tests that); here they share workers with strangers, and some worlds are late: see below.
    #[test]
    fn every_reserved_task_ends_by_its_promise(seed in any::<u64>()) {
        let (report, mut auditor) = audit(&theorem(seed, 1, false));
        auditor.check_reservations();
        assert_clean(&report, &auditor);
    }
}

/// On several slots, and where workers are shared and suspended, it is measured, not proved: how late the latest is.
#[test]
#[ignore = "prints a measurement"]
fn how_late_on_several_slots() {
    for slots in [1, 2, 3] {
        // The last seed is of a world that was found: with suspension a task of it is 1.6 ms late.
        let seeds = (0..200).chain([4_419_002_593_484_399_782]);
        let mut late: Vec<(f64, u64)> =
            seeds.map(|seed| (audit(&theorem(seed, slots, true)).1.worst_lateness().0, seed)).collect();
        late.sort_by(|one, other| other.0.total_cmp(&one.0));
        let after = late.iter().filter(|(late, _)| *late > 1e-6).count();
        println!(
            "{slots} slots: {after} of 200 worlds have a task after F + Q; the worst, s and seed: {:?}",
            &late[..5]
        );
    }
}

/// Seeds of worlds in which a promise was broken once; some of them on more than one slot.
#[test]
fn promises_that_were_once_broken() {
    for seed in
        [9_305_886_149_012_207_366, 16_604_533_286_683_563_949, 16_548_629_715_903_812_363, 17_608_983_980_248_463_139]
    {
        let (report, mut auditor) = audit(&theorem(seed, 1, true));
        auditor.check_reservations();
        assert_clean(&report, &auditor);
    }
}

/// P7: the bound of the tenant that keeps within its reservation, beside everybody who does not.
#[test]
fn no_adversary_reaches_a_tenant_within_its_reservation() {
    for adversary in Adversary::ALL {
        for (slots, suspendable) in [(1, true), (1, false), (3, true)] {
            let world = scenario(adversary, Policy::Fair, slots, suspendable, Duration::from_secs(8));
            let (report, mut auditor) = audit(&world);
            auditor.check_reservations();
            assert_clean(&report, &auditor);
            let bound = VICTIM_BURST.div_f64(VICTIM_RATE)
                + world.config.tuning.quantum
                + auditor.longest_over_quantum()
                + Duration::from_secs_f64(auditor.overshoot());
            let victim = report.tenant(VICTIM);
            assert!(victim.longest() <= bound, "{adversary:?} {slots} {suspendable}: {:?}", victim.longest());
            assert_eq!(victim.answered, victim.sent, "{adversary:?} {slots} {suspendable}");
        }
    }
}

/// A reservation is used up by what its tasks take, not by what they might: at six tenths of its rate a caller is served at
/// once, however much its costs vary.
#[test]
fn what_a_task_did_not_take_is_given_back() {
    let mut world = Scenario::new(Policy::Fair, 1);
    world.warm_up = Duration::from_secs(3);
    world.duration = Duration::from_secs(30);
    // The tail is nearly twice the middle.
    world.noise = 0.3;
    let each = Duration::from_millis(10);
    let own = world.model(ModelPlan::new("own", each, Duration::from_micros(1), 1));
    let other = world.model(ModelPlan::new("other", Duration::from_millis(30), Duration::from_micros(1), 1));
    let reservation = Reservation { rate: Rate::from_ppm(200_000), burst: Duration::from_millis(100) };
    let tier = Some(Tier::Guaranteed);
    let victim = world.tenant("victim", Share { tier, reservation: Some(reservation), ..Share::default() });
    let flood = world.tenant("flood", Share::default());
    let clients = |clients, think| Arrivals::ClosedLoop { clients, think };
    world.sources.push(Source::new(victim, own, clients(1, Duration::from_millis(73))));
    world.sources.push(Source::new(flood, other, clients(64, Duration::ZERO)));
    let (report, auditor) = audit(&world);
    assert_clean(&report, &auditor);
    let median = report.tenant(victim).quantile(0.5);
    assert!(median <= each.mul_f64(1.15), "{median:?}");
}

/// The baselines fail it, or the test above shows nothing.
#[test]
fn every_baseline_lets_some_adversary_through() {
    for policy in [Policy::Fifo, Policy::RoundRobin, Policy::StrictPriority] {
        let longest = Adversary::ALL.into_iter().map(|adversary| {
            let world = scenario(adversary, policy, 1, true, Duration::from_secs(8));
            audit(&world).0.tenant(VICTIM).longest()
        });
        assert!(longest.max().unwrap() > Duration::from_millis(500), "{policy:?}");
    }
}

/// P9: nothing is spent on what comes too late, and overload costs little of what is answered in time.
#[test]
fn overload_wastes_nothing_and_costs_little() {
    let mut peak: f64 = 0.0;
    for load in [0.8, 1.5, 3.0, 6.0] {
        let mut world = overload(Policy::Fair, 2, load, Duration::from_secs(12));
        world.noise = 0.05;
        let (report, auditor) = audit(&world);
        assert_clean(&report, &auditor);
        assert!(report.late_part() <= 0.01, "{load}: {}", report.late_part());
        let goodput = report.in_time() as f64 / report.counted.as_secs_f64();
        peak = peak.max(goodput);
        assert!(goodput >= 0.8 * peak, "{load}: {goodput} of {peak}");
    }
}
