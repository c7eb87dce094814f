//! The reservation theorem (P4), over random configurations: every reserved task ends by F + Q, whatever others send.

use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tenantry_sched::{MAX_RESERVED_PER_SLOT, Outcome, Policy, Rate, Scheduler, Share, Tier, Tuning, pack};
use tenantry_types::MonotonicTime;

use crate::stage::{Client, Dice, How, Stage, cases, config, millis, reserved, task, tenant};

/// Where the reserved tenants' numbers begin.
const RESERVED: u64 = 100;
const SECONDS: u64 = 3;

#[derive(Debug, Clone)]
struct Reserve {
    ppm: u32,
    guaranteed: bool,
    /// What a row of its tasks takes, in hundredths of the quantum; tasks have one to four.
    percent: u64,
    /// Sends no more than this at once beyond its rate, in percent of the quantum; or without end.
    burst: Option<u64>,
    /// The burst of the reservation itself: what it may have before its turn, in percent of the quantum.
    sigma: u64,
}

#[derive(Debug, Clone)]
struct World {
    seed: u64,
    quantum: Duration,
    window: Duration,
    reserves: Vec<Reserve>,
    /// Depth, percent of the quantum a row takes, rows, and whether it uses the first reserved tenant's model.
    adversaries: Vec<(u32, u64, u32, bool)>,
    max_rows: u32,
    suspendable: bool,
    slots: u64,
    /// Of each model.
    workers: u64,
}

fn world(suspendable: bool, slots: u64, workers: u64) -> impl Strategy<Value = World> {
    let reserve = (10_000_u32..500_000, any::<bool>(), 1_u64..=25, prop::option::of(50_u64..300), 0_u64..500)
        .prop_map(|(ppm, guaranteed, percent, burst, sigma)| Reserve { ppm, guaranteed, percent, burst, sigma });
    let adversary = (1_u32..30, 1_u64..=25, 1_u32..=4, any::<bool>());
    let quantum = prop::sample::select(vec![10_u64, 20, 50]).prop_map(Duration::from_millis);
    let window = prop::sample::select(vec![0_u64, 10, 100]).prop_map(Duration::from_millis);
    (
        any::<u64>(),
        quantum,
        window,
        prop::collection::vec(reserve, 1..=8),
        prop::collection::vec(adversary, 0..6),
        prop::sample::select(vec![1_u32, 8, 32]),
    )
        .prop_map(move |(seed, quantum, window, mut reserves, adversaries, max_rows)| {
            // No slot keeps more than 0.8; the largest share is no smaller than half of that.
            let total: u32 = reserves.iter().map(|reserve| reserve.ppm).sum();
            for reserve in &mut reserves {
                reserve.ppm = (u64::from(reserve.ppm) * 800_000 * slots / u64::from(total)).min(800_000) as u32;
                reserve.guaranteed |= suspendable;
            }
            World { seed, quantum, window, reserves, adversaries, max_rows, suspendable, slots, workers }
        })
}

impl World {
    fn is_packed(&self) -> bool {
        let rates: Vec<Rate> = self.reserves.iter().map(|reserve| Rate::from_ppm(reserve.ppm)).collect();
        pack(&rates, self.slots as u32, MAX_RESERVED_PER_SLOT).is_ok()
    }

    /// The latest any reserved task was beyond its F, and how many there were.
    fn play(&self) -> (i64, usize) {
        let tuning = Tuning { quantum: self.quantum, window: self.window, ..Tuning::CPU };
        let mut truth = Dice(self.seed);
        let mut stage =
            Stage::new(Scheduler::new(config(Policy::Fair, tuning)), self.seed, move |_: &Scheduler, tasks| {
                // No more than expected, and often less.
                tasks.iter().map(|task| task.cost).sum::<Duration>() * truth.between(30, 100) as u32 / 100
            });
        stage.outcome = Outcome::Failed;
        let models = self.reserves.len() as u64 + self.adversaries.len() as u64;
        stage.build_with(self.slots, self.suspendable, models, self.max_rows, self.workers);
        let mut sent = Vec::new();
        let mut dice = Dice(self.seed ^ 1);
        for (number, reserve) in (1..).zip(&self.reserves) {
            let tier = if reserve.guaranteed { Tier::Guaranteed } else { Tier::Burstable };
            let sigma = self.quantum * reserve.sigma as u32 / 100;
            stage.share(RESERVED + number, reserved(tier, reserve.ppm, sigma));
            let row_cost = self.quantum * reserve.percent as u32 / 100;
            let mut now_ns = 0;
            let mut spent_ns = 0;
            while now_ns < SECONDS * 1_000_000_000 {
                let rows = dice.between(1, 4) as u32;
                let cost = row_cost * rows;
                let pace = dice.below(3);
                now_ns += dice.below(cost.as_nanos() as u64 * 2_000_000 / u64::from(reserve.ppm) * pace);
                spent_ns += cost.as_nanos() as u64;
                if let Some(percent) = reserve.burst {
                    let most_ns = (self.quantum.as_nanos() as u64 * percent / 100).max(cost.as_nanos() as u64);
                    now_ns = now_ns.max(spent_ns.saturating_sub(most_ns) * 1_000_000 / u64::from(reserve.ppm));
                }
                sent.push((MonotonicTime::from_nanos(now_ns), task(tenant(RESERVED + number), number, rows, cost)));
            }
        }
        sent.sort_by_key(|&(at, _)| at);
        stage.arrivals = sent.into();
        for (number, &(depth, percent, rows, same_model)) in (1..).zip(&self.adversaries) {
            let first = self.reserves[0].percent;
            let (placement, percent) = match same_model && !self.suspendable {
                true => (1, first),
                false => (self.reserves.len() as u64 + number, percent),
            };
            // Where they are suspended, theirs may take a second and more.
            let factor = if self.suspendable { 50 } else { 1 };
            let row_cost = self.quantum * percent as u32 / 100 * factor;
            // Half of them are best-effort, so that they run by the floor of their class, too.
            if number % 2 == 0 {
                stage.share(number, Share { tier: Some(Tier::BestEffort), ..Share::default() });
            }
            let abortable = number % 4 == 0;
            stage.clients.push(Client {
                depth,
                rows: (1, rows),
                row_cost,
                abortable,
                ..Client::new(number, placement)
            });
        }
        stage.run(millis(1000 * SECONDS));
        stage.clients.clear();
        stage.run(millis(10_000 * SECONDS));
        self.latest(&stage)
    }

    fn latest(&self, stage: &Stage<Scheduler>) -> (i64, usize) {
        let (mut latest, mut count) = (i64::MIN, 0);
        for (number, reserve) in (1..).zip(&self.reserves) {
            let mut own: Vec<_> =
                stage.ended.iter().filter(|ended| ended.task.tenant == tenant(RESERVED + number)).collect();
            own.sort_by_key(|ended| ended.task.id);
            let mut tail_ns = 0;
            for ended in own {
                assert!(matches!(ended.how, How::Ran { .. }), "{ended:?}");
                let needs_ns = ended.task.cost.as_nanos() as u64 * 1_000_000 / u64::from(reserve.ppm);
                tail_ns = ended.arrived.as_nanos().max(tail_ns) + needs_ns;
                latest = latest.max(ended.at.as_nanos() as i64 - tail_ns as i64);
                count += 1;
            }
        }
        (latest, count)
    }
}

proptest! {
    #![proptest_config(cases(300))]

    /// One slot where nothing can be suspended: batches keep their length to what is reserved.
    #[test]
    fn every_reserved_task_ends_within_a_quantum_of_its_turn(world in world(false, 1, 1)) {
        let (latest, _) = world.play();
        prop_assert!(latest <= world.quantum.as_nanos() as i64, "{} us late, quantum {:?}", latest / 1000, world.quantum);
    }

    /// One slot where others are suspended, for however long they would have run.
    #[test]
    fn and_whatever_others_run_where_they_can_be_suspended(world in world(true, 1, 1)) {
        let (latest, _) = world.play();
        let bound = world.quantum + Tuning::CPU.suspend_after;
        prop_assert!(latest <= bound.as_nanos() as i64, "{} us late, quantum {:?}", latest / 1000, world.quantum);
    }
}

/// `cargo test --release -p tenantry-sched -- --ignored --nocapture how_late` measures what the README states.
#[test]
#[ignore = "a measurement"]
fn how_late_at_the_worst() {
    for (name, suspendable, slots, workers) in [
        ("one slot", false, 1, 1),
        ("one suspendable slot", true, 1, 1),
        ("three slots, three workers a model", false, 3, 3),
        ("three slots, one worker a model", false, 3, 1),
    ] {
        let mut runner = TestRunner::deterministic();
        let (mut worst, mut beyond, mut tasks, mut worlds) = (f64::MIN, 0, 0, 0);
        while worlds < cases(300).cases {
            let world = world(suspendable, slots, workers).new_tree(&mut runner).unwrap().current();
            if !world.is_packed() {
                continue;
            }
            let (latest, count) = world.play();
            let quanta = latest as f64 / world.quantum.as_nanos() as f64;
            worst = worst.max(quanta);
            worlds += 1;
            beyond += u32::from(quanta > 1.0);
            tasks += count;
        }
        println!(
            "{name}: {tasks} reserved tasks in {worlds} worlds, at the worst F + {worst:.3} Q; beyond F + Q in {beyond} worlds"
        );
    }
}
