//! Random histories: the scheduler against the reference and under the auditor's eyes, then healed until all has ended.

use std::time::Duration;

use proptest::prelude::*;
use tenantry_sched::{
    Batching, Decision, Event, Outcome, Place, Policy, Scheduler, SchedulerConfig, SlotGroup, Task, TaskKind, Tuning,
};
use tenantry_types::{BatchId, MonotonicTime, PlacementId, Priority, ReplicaId, SlotId, TaskId, TenantId, WorkerId};

use crate::ledger::Ledger;
use crate::reference::{Reference, without_advice};

/// How many of each thing a history knows: few, so that they meet.
const SLOTS: u64 = 3;
const WORKERS: u64 = 3;
const PLACEMENTS: u64 = 3;
const REPLICAS: u64 = 6;

/// An event before it is known what runs and which tasks exist.
#[derive(Debug, Clone)]
enum Happening {
    Plain(Event),
    /// A new task; its id is given when it happens. Times are relative to then.
    Ready {
        task: Task,
        deadline_after: Option<Duration>,
    },
    /// A task id that was used before comes again: most often a mistake of the owner.
    Again {
        back: u64,
        task: Task,
    },
    Cancel {
        back: u64,
    },
    Done {
        pick: usize,
        used: Duration,
        outcome: Outcome,
    },
}

#[derive(Debug, Clone)]
struct Step {
    after: Duration,
    happenings: Vec<Happening>,
}

pub(crate) fn microseconds(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    // The smallest is where comparisons go wrong, so it comes more often than it would.
    prop_oneof![1 => Just(Duration::from_micros(range.start)), 8 => range.prop_map(Duration::from_micros)]
}

pub(crate) fn task() -> impl Strategy<Value = Task> {
    let place = prop_oneof![
        6 => (1..=PLACEMENTS).prop_map(|id| Place::Placement(PlacementId(id))),
        1 => (1..=WORKERS).prop_map(|id| Place::Worker(WorkerId(id))),
    ];
    let size = (0u32..6, 0u64..2, 0u64..40);
    (place, 0u8..3, size, microseconds(0..2000), microseconds(1..4000)).prop_map(
        |(place, tenant, (rows, shape, bytes), cost, run_limit)| Task {
            id: TaskId(0),
            tenant: TenantId::from_parts(0, [tenant; 10]),
            deployment: None,
            key: None,
            bucket: 0,
            abortable: false,
            priority: Priority::from_client(bytes % 12),
            place,
            rows,
            shape,
            bytes,
            cost,
            run_limit,
            deadline: None,
            kind: TaskKind::Infer,
        },
    )
}

pub(crate) fn batching() -> impl Strategy<Value = Batching> {
    let max_delay = prop_oneof![Just(Duration::ZERO), microseconds(1..3000)];
    (0u32..6, max_delay).prop_map(|(max_rows, max_delay)| Batching { max_rows, max_delay })
}

fn happening() -> impl Strategy<Value = Happening> {
    let slot = || (1..=SLOTS).prop_map(SlotId);
    let worker = || (1..=WORKERS).prop_map(WorkerId);
    let replica = || (1..=REPLICAS).prop_map(ReplicaId);
    let placement = || (1..=PLACEMENTS).prop_map(PlacementId);
    let plain = prop_oneof![
        4 => slot().prop_map(|slot| Event::SlotUp { slot, group: SlotGroup::default(), suspendable: false }),
        1 => slot().prop_map(|slot| Event::SlotDown { slot }),
        4 => worker().prop_map(|worker| Event::WorkerUp { worker }),
        1 => worker().prop_map(|worker| Event::WorkerDown { worker }),
        6 => (replica(), placement(), worker())
            .prop_map(|(replica, placement, worker)| Event::ReplicaUp { replica, placement, worker }),
        1 => replica().prop_map(|replica| Event::ReplicaDown { replica }),
        5 => (placement(), batching()).prop_map(|(placement, batching)| Event::PlacementUp { placement, batching }),
        1 => placement().prop_map(|placement| Event::PlacementDown { placement }),
    ];
    let outcomes = vec![Outcome::Finished, Outcome::Finished, Outcome::Failed, Outcome::Split, Outcome::Interrupted];
    let outcome = prop::sample::select(outcomes);
    prop_oneof![
        4 => plain.prop_map(Happening::Plain),
        10 => (task(), prop::option::of(microseconds(0..6000)))
            .prop_map(|(task, deadline_after)| Happening::Ready { task, deadline_after }),
        1 => (0u64..20, task()).prop_map(|(back, task)| Happening::Again { back, task }),
        2 => (0u64..20).prop_map(|back| Happening::Cancel { back }),
        6 => (any::<usize>(), microseconds(0..5000), outcome)
            .prop_map(|(pick, used, outcome)| Happening::Done { pick, used, outcome }),
    ]
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    let step = (microseconds(0..3000), prop::collection::vec(happening(), 0..6))
        .prop_map(|(after, happenings)| Step { after, happenings });
    prop::collection::vec(step, 1..60)
}

fn config() -> impl Strategy<Value = SchedulerConfig> {
    (0usize..12, 0u64..200, 0usize..8).prop_map(|(tasks, bytes, per_tenant)| SchedulerConfig {
        policy: Policy::Fifo,
        tuning: Tuning::CPU,
        max_queued_tasks: tasks,
        max_queued_bytes: bytes,
        max_queued_tasks_per_tenant: per_tenant,
    })
}

/// The scheduler, what it is held against, and the world around them.
struct World {
    scheduler: Scheduler,
    reference: Reference,
    ledger: Ledger,
    now: MonotonicTime,
    wake: Option<MonotonicTime>,
    tasks: u64,
    decisions: Vec<Decision>,
}

impl World {
    fn new(config: &SchedulerConfig) -> Self {
        Self {
            scheduler: Scheduler::new(config.clone()),
            reference: Reference::new(config.clone()),
            ledger: Ledger::new(config.clone()),
            now: MonotonicTime::ZERO,
            wake: None,
            tasks: 0,
            decisions: Vec::new(),
        }
    }

    /// Gives a happening its names. Ids come again only in a poll of their own, which keeps the auditor simple.
    fn event(&mut self, happening: &Happening, running: &mut Vec<BatchId>) -> Option<Event> {
        let earlier = |back: u64| TaskId(self.tasks.saturating_sub(back));
        Some(match happening {
            Happening::Plain(event) => event.clone(),
            Happening::Ready { task, deadline_after } => {
                self.tasks += 1;
                let deadline = deadline_after.map(|after| self.now.saturating_add(after));
                Event::Ready { task: Task { id: TaskId(self.tasks), deadline, ..task.clone() } }
            }
            Happening::Again { back, task } => Event::Ready { task: Task { id: earlier(*back), ..task.clone() } },
            Happening::Cancel { back } => Event::Cancel { task: earlier(*back) },
            Happening::Done { pick, used, outcome } => {
                let batch = *running.get(pick.checked_rem(running.len())?)?;
                running.retain(|&other| other != batch);
                Event::Done { batch, used: *used, outcome: *outcome }
            }
        })
    }

    fn poll(&mut self, events: &[Event]) {
        let mut decisions = Vec::new();
        let wake = self.scheduler.poll(self.now, events.iter().cloned(), &mut decisions);
        let mut expected = Vec::new();
        let expected_wake = self.reference.poll(self.now, events, &mut expected);
        assert_eq!(without_advice(&decisions), expected, "decisions at {:?} on {events:?}", self.now);
        assert_eq!(wake, expected_wake, "wake at {:?}", self.now);
        self.wake = wake;

        let stats = self.scheduler.stats();
        self.ledger.audit(self.now, events, &decisions, wake, &stats);
        assert_eq!(self.ledger.running(), self.reference.running());
        assert_eq!(
            (stats.queued_tasks, stats.queued_bytes),
            (self.reference.queued_tasks(), self.reference.queued_bytes())
        );
        for placement in (1..=PLACEMENTS).map(PlacementId) {
            assert_eq!(self.scheduler.queued(placement), self.reference.queued(placement));
        }
        let demand: Vec<_> = self
            .scheduler
            .demand()
            .into_iter()
            .map(|demand| (demand.placement, demand.waiting, demand.oldest))
            .collect();
        assert_eq!(demand, self.reference.demand());
        self.decisions.extend(decisions);
    }

    /// A poll that comes before it was asked for, with nothing to tell, decides nothing; the reference never hears of it.
    fn poll_unasked(&mut self, after: Duration) {
        let now = self.now.saturating_add(after);
        if self.wake.is_none_or(|wake| now < wake) {
            let mut decisions = Vec::new();
            let wake = self.scheduler.poll(now, [], &mut decisions);
            assert_eq!((decisions, wake), (Vec::new(), self.wake), "an unasked poll at {now:?}");
        }
    }

    fn play(&mut self, history: &[Step]) {
        for step in history {
            self.poll_unasked(step.after / 2);
            self.now = self.now.saturating_add(step.after);
            let mut running = self.ledger.running();
            let mut events = Vec::new();
            for happening in &step.happenings {
                let alone = matches!(happening, Happening::Again { .. } | Happening::Cancel { .. });
                if alone && !events.is_empty() {
                    self.poll(&std::mem::take(&mut events));
                    running = self.ledger.running();
                }
                events.extend(self.event(happening, &mut running));
                if alone {
                    self.poll(&std::mem::take(&mut events));
                    running = self.ledger.running();
                }
            }
            self.poll(&events);
        }
    }

    /// Repairs everything and finishes what runs, until nothing is left: no task may be forgotten.
    fn heal(&mut self) {
        let home = WorkerId(100);
        let mut repairs = vec![
            Event::SlotUp { slot: SlotId(100), group: SlotGroup::default(), suspendable: false },
            Event::WorkerUp { worker: home },
        ];
        repairs.extend((1..=WORKERS).map(|id| Event::WorkerUp { worker: WorkerId(id) }));
        for id in 1..=PLACEMENTS {
            let placement = PlacementId(id);
            repairs.push(Event::PlacementUp {
                placement,
                batching: Batching { max_rows: 3, max_delay: Duration::from_millis(1) },
            });
            repairs.push(Event::ReplicaUp { replica: ReplicaId(100 + id), placement, worker: home });
        }
        self.poll(&repairs);
        // Every round ends at least one task or lets at least one wait run out.
        let rounds = 2 * self.tasks + 10;
        for _ in 0..rounds {
            if self.ledger.is_empty() {
                break;
            }
            self.now = self.now.saturating_add(Duration::from_millis(1));
            let used = Duration::from_millis(1);
            let done: Vec<Event> = self
                .ledger
                .running()
                .into_iter()
                .map(|batch| Event::Done { batch, used, outcome: Outcome::Finished })
                .collect();
            self.poll(&done);
        }
        assert!(self.ledger.is_empty(), "tasks are left over: {:?}", self.ledger);
        assert_eq!(self.scheduler.poll(self.now, [], &mut Vec::new()), None, "a timer is left over");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Decisions equal the reference's; each task ends exactly once; no slot or worker is used twice at a time; order is
    /// by arrival; bounds hold; the wake-up is never late; and once all is well again, everything ends.
    #[test]
    fn any_history_is_scheduled_as_promised(config in config(), history in history()) {
        let mut world = World::new(&config);
        world.play(&history);
        world.heal();
    }

    /// The same history gives the same decisions.
    #[test]
    fn a_history_repeats_itself(config in config(), history in history()) {
        let mut first = World::new(&config);
        first.play(&history);
        let mut second = World::new(&config);
        second.play(&history);
        prop_assert_eq!(first.decisions, second.decisions);
    }
}
