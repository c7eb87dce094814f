//! What the fair policy promises by weight: a bounded gap (P2), no starvation (P3), no banked credit (P8), more for more
//! weight (P10), the same again for the same (P11); and that the baselines promise none of it.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use tenantry_sched::{Outcome, Policy, Scheduler, Tier, Tuning};
use tenantry_types::{BatchId, MonotonicTime, TenantId};

use crate::naive::{Measure, Naive};
use crate::stage::{
    Client, Decides, Dice, Ended, How, Stage, as_said, cases, config, millis, reserved, task, tenant, weight,
};

/// Tenants that always have something waiting.
#[derive(Debug, Clone)]
struct Crowd {
    seed: u64,
    weights: Vec<u32>,
    clients: Vec<Client>,
    max_rows: u32,
    window: Duration,
    /// What a batch takes beside its rows, and by how much it may be off, in percent.
    fixed: Duration,
    noise: u64,
}

fn ms(range: std::ops::RangeInclusive<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

fn crowd() -> impl Strategy<Value = Crowd> {
    let weight = prop::sample::select(vec![250_u32, 500, 1000, 2000, 4000]);
    let deadline = prop::option::of(ms(300..=2000));
    let client = (1..=3_u64, 1..=4_u32, ms(1..=5), deadline, weight);
    let window = prop::sample::select(vec![0_u64, 10, 100]).prop_map(Duration::from_millis);
    let max_rows = prop::sample::select(vec![1_u32, 8]);
    let noise = prop::sample::select(vec![0_u64, 30, 90]);
    (any::<u64>(), prop::collection::vec(client, 2..7), max_rows, window, ms(0..=4), noise).prop_map(
        |(seed, members, max_rows, window, fixed, noise)| {
            let weights = members.iter().map(|member| member.4).collect();
            let clients = (1..)
                .zip(members)
                .map(|(number, (placement, rows, row_cost, deadline, _))| Client {
                    depth: 24,
                    rows: (1, rows),
                    row_cost,
                    deadline,
                    ..Client::new(number, placement)
                })
                .collect();
            Crowd { seed, weights, clients, max_rows, window, fixed, noise }
        },
    )
}

impl Crowd {
    fn stage<S: Decides + 'static>(&self, scheduler: S) -> Stage<S> {
        let (mut dice, noise, fixed) = (Dice(self.seed), self.noise, self.fixed);
        let mut stage = Stage::new(scheduler, self.seed, move |_: &S, tasks| {
            let exact: Duration = fixed + tasks.iter().map(|task| task.cost).sum::<Duration>();
            exact * (100 - noise.min(99) + dice.below(2 * noise + 1)) as u32 / 100
        });
        stage.build(1, false, 3, self.max_rows);
        for (number, &milli) in (1..).zip(&self.weights) {
            stage.share(number, weight(milli));
        }
        stage.clients.clone_from(&self.clients);
        stage
    }

    fn fair(&self) -> Stage<Scheduler> {
        self.stage(Scheduler::new(config(
            Policy::Fair,
            Tuning { window: self.window, fill_window: self.window, ..Tuning::CPU },
        )))
    }

    fn weight(&self, of: TenantId) -> u32 {
        (1..).zip(&self.weights).find(|&(number, _)| tenant(number) == of).map_or(1000, |(_, &milli)| milli)
    }

    /// For the pair that was treated most unequally from `from` on: by how much, beyond what `leads` windows and a batch
    /// of each allow; device time at weight 1.
    fn worst_gap(&self, ended: &[Ended], from: MonotonicTime, leads: u32) -> i64 {
        let (all, batches) = (by_batch(ended, MonotonicTime::ZERO), by_batch(ended, from));
        let mut worst = i64::MIN;
        let tenants: Vec<TenantId> = self.clients.iter().map(|client| client.tenant).collect();
        for (index, &one) in tenants.iter().enumerate() {
            for &other in &tenants[index + 1..] {
                let at_weight = |of: TenantId, batch: &BTreeMap<TenantId, u64>| {
                    (u128::from(batch.get(&of).copied().unwrap_or(0)) * 1000 / u128::from(self.weight(of))) as i64
                };
                let (mut lead, mut low, mut high) = (0, 0, 0);
                for batch in &batches {
                    lead += at_weight(one, batch) - at_weight(other, batch);
                    (low, high) = (lead.min(low), lead.max(high));
                }
                // What began before may have put either of them ahead.
                let largest = |of| all.iter().map(|batch| at_weight(of, batch)).max().unwrap_or(0);
                // Divisions are rounded down, once a batch.
                let rounding = batches.len() as i64;
                let bound = (leads * self.window).as_nanos() as i64 + largest(one) + largest(other) + rounding;
                worst = worst.max(high - low - bound);
            }
        }
        worst
    }
}

/// What each batch that began at or after `from` took of each tenant's account, in order.
fn by_batch(ended: &[Ended], from: MonotonicTime) -> Vec<BTreeMap<TenantId, u64>> {
    let mut batches: Vec<(BatchId, BTreeMap<TenantId, u64>)> = Vec::new();
    for one in ended {
        let How::Ran { batch, charged_ns, started, .. } = one.how else { continue };
        if started < from {
            continue;
        }
        if batches.last().is_none_or(|&(last, _)| last != batch) {
            batches.push((batch, BTreeMap::new()));
        }
        if let Some((_, charges)) = batches.last_mut() {
            *charges.entry(one.task.tenant).or_insert(0) += charged_ns;
        }
    }
    batches.into_iter().map(|(_, charges)| charges).collect()
}

proptest! {
    #![proptest_config(cases(192))]

    /// P2: between two that always have work, the gap stays within two windows and a batch of each, however long it goes
    /// on, however wrong the estimates, whatever the deadlines. P8: and that from the first moment on for who comes later,
    /// however long it was silent.
    #[test]
    fn the_gap_between_those_with_work_is_bounded(crowd in crowd(), silent in 0_u64..5000) {
        let mut crowd = crowd;
        crowd.clients[0].from = millis(silent);
        let mut stage = crowd.fair();
        stage.run(millis(silent + 5000));
        let excess = crowd.worst_gap(&stage.ended, millis(silent), 2);
        prop_assert!(excess <= 0, "{} us beyond the bound", excess / 1000);
    }

    /// P2 with nothing that needs the window: start-time fair queueing's own bound.
    #[test]
    fn without_company_and_deadlines_the_gap_is_a_task_of_each(crowd in crowd()) {
        let mut crowd = Crowd { max_rows: 1, ..crowd };
        for client in &mut crowd.clients {
            client.deadline = None;
        }
        let mut stage = crowd.fair();
        stage.run(millis(5000));
        let excess = crowd.worst_gap(&stage.ended, MonotonicTime::ZERO, 0);
        prop_assert!(excess <= 0, "{} us beyond the bound", excess / 1000);
    }

    /// P3: a newcomer's first task starts within what everybody else may take before they are out of turn.
    #[test]
    fn nobody_starves(
        crowd in crowd(),
        reserves in prop::collection::vec((20_000_u32..250_000, 1_u32..6, any::<bool>()), 0..4),
        arrives in 100_u64..3000,
        suspendable: bool,
    ) {
        let mut crowd = Crowd { noise: 0, fixed: Duration::ZERO, ..crowd };
        for client in &mut crowd.clients {
            client.deadline = None;
        }
        let newcomer = crowd.clients.len() as u64 + 1;
        let mut stage = Stage::new(
            Scheduler::new(config(Policy::Fair, Tuning { window: crowd.window, fill_window: crowd.window, ..Tuning::CPU })), crowd.seed, as_said);
        stage.outcome = Outcome::Failed;
        stage.build(1, suspendable, 3 + reserves.len() as u64 + 1, crowd.max_rows);
        for (number, &milli) in (1..).zip(&crowd.weights) {
            stage.share(number, weight(milli));
        }
        let mut rates = 0;
        for (number, &(ppm, depth, guaranteed)) in (1..).zip(&reserves) {
            rates += ppm;
            let tier = if guaranteed { Tier::Guaranteed } else { Tier::Burstable };
            stage.share(100 + number, reserved(tier, ppm, Duration::from_millis(20)));
            // They take all they can get: one after the other, or always more than that.
            let row_cost = Duration::from_millis(2 * u64::from(depth));
            crowd.clients.push(Client { depth, row_cost, ..Client::new(100 + number, 3 + number) });
        }
        prop_assume!(rates <= 800_000);
        stage.clients.clone_from(&crowd.clients);
        let last = 3 + reserves.len() as u64 + 1;
        stage.arrivals.push_back((millis(arrives), task(tenant(newcomer), last, 1, Duration::from_millis(5))));
        let (largest, quantum) = (0.020, 0.020);
        let everybody = crowd.clients.len() as f64 + 1.0;
        let weights = crowd.weights.iter().sum::<u32>() as f64 / 1000.0 + reserves.len() as f64 + 1.0;
        let taken = weights * crowd.window.as_secs_f64() + everybody * largest + reserves.len() as f64 * (quantum + largest);
        let bound = taken / (1.0 - f64::from(rates) / 1e6) + quantum;
        stage.run(millis(arrives).saturating_add(Duration::from_secs_f64(bound + 0.1)));
        let ended = stage.ended.iter().find(|ended| ended.task.tenant == tenant(newcomer));
        let Some(How::Ran { started, .. }) = ended.map(|ended| ended.how) else {
            return Err(TestCaseError::fail("it never ran"));
        };
        let waited = started.saturating_since(millis(arrives)).as_secs_f64();
        prop_assert!(waited <= bound, "waited {waited} s, bound {bound} s");
    }

    /// P10: more weight, or a larger reservation, is never less service for the same arrivals.
    #[test]
    fn more_weight_is_not_less_service(
        crowd in crowd(),
        factor in 2_u32..6,
        by_reservation: bool,
    ) {
        let crowd = Crowd { noise: 0, fixed: Duration::ZERO, max_rows: 1, ..crowd };
        let served = |milli: u32, ppm: u32| {
            let mut stage = crowd.fair();
            stage.clients.clear();
            stage.outcome = Outcome::Failed;
            let share = if by_reservation { reserved(Tier::Burstable, ppm, Duration::from_millis(50)) } else { weight(milli) };
            stage.share(1, share);
            let mut dice = Dice(crowd.seed);
            let mut at = MonotonicTime::ZERO;
            for _ in 0..1500 {
                at = at.saturating_add(Duration::from_micros(dice.below(4000)));
                let client = &crowd.clients[dice.below(crowd.clients.len() as u64) as usize];
                let rows = dice.between(1, u64::from(client.rows.1)) as u32;
                let one = task(client.tenant, client.placements[0], rows, client.row_cost * rows);
                stage.arrivals.push_back((at, one));
            }
            stage.run(millis(3000));
            stage.served().get(&tenant(1)).copied().unwrap_or(0)
        };
        let (less, more) = (served(1000, 50_000), served(1000 * factor, 50_000 * factor));
        // One task of each either way, which may just have begun.
        let tolerance = 40_000_000;
        prop_assert!(more + tolerance >= less, "{less} ns of service became {more} ns");
    }

    /// P11: the same arrivals and costs give the same decisions.
    #[test]
    fn the_same_crowd_is_served_the_same(crowd in crowd()) {
        let decisions = || {
            let mut stage = crowd.fair();
            stage.run(millis(1000));
            stage.decisions
        };
        prop_assert_eq!(decisions(), decisions());
    }
}

/// Two with equal weights who always have work: one sends many small tasks, the other few large ones.
fn unequal() -> Crowd {
    let many = Client { depth: 62, ..Client::new(1, 1) };
    let few = Client { depth: 2, rows: (4, 4), ..Client::new(2, 2) };
    Crowd {
        seed: 1,
        weights: vec![1000, 1000],
        clients: vec![many, few],
        max_rows: 1,
        window: Duration::from_millis(100),
        fixed: Duration::ZERO,
        noise: 0,
    }
}

fn gap_after(crowd: &Crowd, scheduler: impl Decides + 'static, seconds: u64) -> i64 {
    let mut stage = crowd.stage(scheduler);
    stage.run(millis(1000 * seconds));
    crowd.worst_gap(&stage.ended, MonotonicTime::ZERO, 2)
}

#[test]
fn the_baselines_and_fairness_by_count_fail_the_bound() {
    let crowd = unequal();
    let scheduler = |policy| Scheduler::new(config(policy, Tuning::CPU));
    assert!(gap_after(&crowd, scheduler(Policy::Fair), 60) <= 0);
    assert!(gap_after(&crowd, Naive::new(Measure::Time), 60) <= 0);
    for policy in [Policy::Fifo, Policy::RoundRobin, Policy::StrictPriority] {
        let (early, late) = (gap_after(&crowd, scheduler(policy), 10), gap_after(&crowd, scheduler(policy), 60));
        assert!(late > 5_000_000_000 && late > 4 * early, "{policy:?}: {early} ns beyond the bound, then {late} ns");
    }
    let by_count = gap_after(&crowd, Naive::new(Measure::Count), 60);
    assert!(by_count > 5_000_000_000, "{by_count}");
}

#[test]
fn round_robin_gives_a_newcomer_no_more_than_its_turn() {
    let mut stage = Stage::new(Scheduler::new(config(Policy::RoundRobin, Tuning::CPU)), 1, as_said);
    stage.build(1, false, 2, 1);
    let newcomer = Client { from: millis(10_000), ..Client::new(2, 2) };
    stage.clients = vec![Client::new(1, 1), newcomer];
    stage.run(millis(11_000));
    let since: BTreeMap<TenantId, u64> =
        by_batch(&stage.ended, millis(10_000)).into_iter().flatten().fold(BTreeMap::new(), |mut all, (tenant, ns)| {
            *all.entry(tenant).or_insert(0) += ns;
            all
        });
    assert!(since[&tenant(1)].abs_diff(since[&tenant(2)]) <= 10_000_000, "{since:?}");
}

/// Changing the policy while the server runs is not an occasion to gain or lose anything.
#[test]
fn a_live_change_of_policy_leaves_no_debts() {
    for first in Policy::ALL {
        let crowd = unequal();
        let mut stage = crowd.stage(Scheduler::new(config(first, Tuning::CPU)));
        stage.run(millis(10_000));
        stage.tell(vec![tenantry_sched::Event::Policy { policy: Policy::RoundRobin }]);
        stage.run(millis(20_000));
        let turns = by_batch(&stage.ended, millis(10_050)).len();
        let of_first =
            by_batch(&stage.ended, millis(10_050)).iter().filter(|batch| batch.contains_key(&tenant(1))).count();
        assert!(of_first.abs_diff(turns - of_first) <= 2, "{first:?}: {of_first} of {turns} turns");
        stage.tell(vec![tenantry_sched::Event::Policy { policy: Policy::Fair }]);
        stage.run(millis(30_000));
        let excess = crowd.worst_gap(&stage.ended, millis(20_050), 2);
        assert!(excess <= 0, "{first:?}: {excess} ns beyond the bound");
    }
}

/// P3 for the best-effort class: its floor, whatever the others do.
#[test]
fn best_effort_gets_its_floor() {
    let mut stage = Stage::new(Scheduler::new(config(Policy::Fair, Tuning::CPU)), 1, as_said);
    stage.outcome = Outcome::Failed;
    stage.build(1, true, 4, 1);
    stage.share(1, weight(1_000_000));
    stage.share(2, reserved(Tier::Guaranteed, 700_000, Duration::from_millis(50)));
    stage.share(3, tenantry_sched::Share { tier: Some(Tier::BestEffort), ..Default::default() });
    stage.clients = (1..=3).map(|number| Client { depth: 3, ..Client::new(number, number) }).collect();
    stage.run(millis(20_000));
    let served = stage.served();
    let floor = 20_000_000_000 / 50;
    assert!(served[&tenant(3)] + 10_000_000 >= floor, "{served:?}");
    assert!(served[&tenant(2)] >= 13_900_000_000, "{served:?}");
}

/// Whatever a client claims to send, and a worker claims it took: sums stay sums, and others are served.
#[test]
fn claims_of_any_size_overflow_nothing() {
    let mut stage = Stage::new(Scheduler::new(config(Policy::Fair, Tuning::CPU)), 1, |_: &Scheduler, tasks| {
        if tasks.iter().any(|task| task.tenant == tenant(1)) {
            Duration::from_secs(900)
        } else {
            Duration::from_millis(1)
        }
    });
    stage.build(1, false, 2, 4);
    let claims = (0..200).map(|number| {
        let mut claim = task(tenant(1), 1, u32::MAX, Duration::MAX);
        claim.deadline = (number % 2 == 0).then_some(MonotonicTime::MAX);
        claim.bytes = 0;
        (millis(1), claim)
    });
    stage.arrivals = claims.collect();
    stage.clients = vec![Client { depth: 2, ..Client::new(2, 2) }];
    stage.run(millis(950_000));
    assert!(stage.served()[&tenant(2)] > 0);
}

/// A reservation is a promise of its rate, not of the machine: what it sends beyond goes by weight.
#[test]
fn a_reservation_is_not_a_way_to_starve_others() {
    for (depth, tier, suspendable) in [
        (1, Tier::Guaranteed, true),
        (1, Tier::Burstable, false),
        (2, Tier::Guaranteed, false),
        (8, Tier::Guaranteed, true),
    ] {
        let mut stage = Stage::new(Scheduler::new(config(Policy::Fair, Tuning::CPU)), 1, as_said);
        stage.outcome = Outcome::Failed;
        stage.build(1, suspendable, 2, 1);
        stage.share(1, reserved(tier, 200_000, Duration::from_millis(20)));
        stage.clients = vec![
            Client { depth, ..Client::new(1, 1) },
            Client { depth: 4, row_cost: Duration::from_millis(10), ..Client::new(2, 2) },
        ];
        stage.run(millis(20_000));
        let served = stage.served();
        // 0.2 by reservation, and half of the rest at equal weights.
        let most = 12_200_000_000;
        assert!(served[&tenant(1)] <= most, "depth {depth}, {tier:?}, suspendable {suspendable}: {served:?}");
        assert!(served[&tenant(1)] >= 4_000_000_000 - 50_000_000, "{served:?}");
    }
}

/// Company in somebody's reserved batch is not free.
#[test]
fn a_seat_in_a_reserved_batch_is_paid_for() {
    let mut stage = Stage::new(Scheduler::new(config(Policy::Fair, Tuning::CPU)), 1, as_said);
    stage.outcome = Outcome::Failed;
    stage.build(1, false, 2, 4);
    stage.share(1, reserved(Tier::Burstable, 600_000, Duration::from_millis(20)));
    // The second shares the model of the one with the reservation, the third has its own.
    let row_cost = Duration::from_millis(2);
    stage.clients = vec![
        // One at a time, so that three seats of its batches are free.
        Client { depth: 1, row_cost, ..Client::new(1, 1) },
        Client { depth: 16, row_cost, ..Client::new(2, 1) },
        Client { depth: 16, row_cost, ..Client::new(3, 2) },
    ];
    stage.run(millis(20_000));
    let served = stage.served();
    // As far ahead as company may be, and a batch.
    let gap = served[&tenant(2)].abs_diff(served[&tenant(3)]);
    assert!(gap <= 1_050_000_000, "{served:?}");
}

proptest! {
    #![proptest_config(cases(256))]

    /// On small worlds the scheduler decides what the plainest form of the policy decides.
    #[test]
    fn the_scheduler_decides_as_the_plainest_form_does(
        crowd in crowd(),
        windows in prop::collection::vec((0_u64..800, 0_u64..800, 1_u32..4), 7),
    ) {
        let mut crowd = Crowd { max_rows: 1, ..crowd };
        for (client, (from, lasts, depth)) in crowd.clients.iter_mut().zip(windows) {
            (client.deadline, client.depth) = (None, depth);
            (client.from, client.until) = (millis(from), millis(from + lasts));
        }
        let mut scheduler = crowd.fair();
        let mut naive = crowd.stage(Naive::new(Measure::Time));
        // What a failed batch took is charged and teaches nothing: estimates stay what the tasks say.
        (scheduler.outcome, naive.outcome) = (Outcome::Failed, Outcome::Failed);
        scheduler.run(millis(3000));
        naive.run(millis(3000));
        let same = scheduler.decisions.iter().zip(&naive.decisions).take_while(|(one, other)| one == other).count();
        prop_assert!(
            scheduler.decisions == naive.decisions,
            "decision {same}: {:?}, and plainly {:?}",
            scheduler.decisions.get(same),
            naive.decisions.get(same)
        );
    }
}
