//! Random histories under every policy, with shares, reservations, suspension and every way a batch can end: what is
//! promised of all of them, under the auditor's eyes, then healed until all has ended.

use std::time::Duration;

use proptest::prelude::*;
use tenantry_sched::{
    AbortCause, Batching, Decision, DeviceTimeLimit, Event, Outcome, Policy, Rate, Reservation, Scheduler,
    SchedulerConfig, Share, SlotGroup, Subject, Task, Tier, Tuning, Weight,
};
use tenantry_types::{
    BatchId, DeploymentId, KeyId, MonotonicTime, OrganisationId, PlacementId, ReplicaId, SlotId, TaskId, TenantId,
    WorkerId,
};

use crate::ledger::Ledger;
use crate::random::{batching, microseconds, task};
use crate::stage::cases;

const SLOTS: u64 = 3;
const WORKERS: u64 = 4;
const PLACEMENTS: u64 = 3;
const TENANTS: u8 = 4;
const GROUPS: u32 = 2;

#[derive(Debug, Clone)]
enum Happening {
    Plain(Event),
    /// A new task; its id is given when it happens. Times are relative to then.
    Ready {
        task: Task,
        deadline_after: Option<Duration>,
    },
    /// A mistake of the owner: an id that was used before.
    Twice {
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

fn tenant(number: u8) -> TenantId {
    TenantId::from_parts(0, [number; 10])
}

fn deployment(number: u8) -> DeploymentId {
    DeploymentId::from_parts(0, [number; 10])
}

fn key(number: u8) -> KeyId {
    KeyId::from_parts(0, [number; 10])
}

fn any_task() -> impl Strategy<Value = Task> {
    let flow = (0..TENANTS, prop::option::of(0..2_u8), prop::option::of(0..2_u8));
    (task(), flow, 0..2_u32, any::<bool>()).prop_map(|(task, (of, to, with), bucket, abortable)| Task {
        tenant: tenant(of),
        deployment: to.map(deployment),
        key: with.map(key),
        bucket,
        abortable,
        run_limit: task.run_limit * 20,
        // Loads are some tenant's, too, and longer.
        cost: if matches!(task.place, tenantry_sched::Place::Worker(_)) { task.cost * 20 } else { task.cost },
        ..task
    })
}

fn share() -> impl Strategy<Value = Option<Share>> {
    let tier = prop::sample::select(vec![None, Some(Tier::Guaranteed), Some(Tier::Burstable), Some(Tier::BestEffort)]);
    let reservation = prop::option::of((0_u32..800_000, microseconds(0..5000)));
    let limit = prop::option::weighted(0.1, (0_u32..2_000_000, microseconds(0..5000)));
    let queued = prop::option::weighted(0.1, 0_u32..6);
    let organisation = prop::option::of(0_u8..2);
    (1_u32..8000, tier, reservation, limit, queued, organisation, 0..GROUPS).prop_map(
        |(weight, tier, reservation, limit, max_queued_tasks, organisation, group)| {
            Some(Share {
                organisation: organisation.map(|number| OrganisationId::from_parts(0, [number; 10])),
                weight: Weight::from_milli(weight),
                tier,
                reservation: reservation.map(|(ppm, burst)| Reservation { rate: Rate::from_ppm(ppm), burst }),
                limit: limit.map(|(ppm, burst)| DeviceTimeLimit { rate: Rate::from_ppm(ppm), burst }),
                max_queued_tasks,
                max_queued_bytes: None,
                group: SlotGroup(group),
            })
            .filter(|share| share.weight.milli() > 500)
        },
    )
}

fn subject() -> impl Strategy<Value = Subject> {
    prop_oneof![
        4 => (0..TENANTS).prop_map(|of| Subject::Tenant(tenant(of))),
        1 => (0..TENANTS, 0..2_u8).prop_map(|(of, to)| Subject::Deployment(tenant(of), deployment(to))),
        1 => (0..TENANTS, 0..2_u8).prop_map(|(of, with)| Subject::Key(tenant(of), key(with))),
        1 => (0..2_u8).prop_map(|number| Subject::Organisation(OrganisationId::from_parts(0, [number; 10]))),
    ]
}

fn happening() -> impl Strategy<Value = Happening> {
    let slot = || (1..=SLOTS).prop_map(SlotId);
    let worker = || (1..=WORKERS).prop_map(WorkerId);
    let replica = || (1..=8_u64).prop_map(ReplicaId);
    let placement = || (1..=PLACEMENTS).prop_map(PlacementId);
    let plain = prop_oneof![
        // A slot keeps its group: what runs there was begun under it.
        8 => (slot(), any::<bool>()).prop_map(|(slot, suspendable)| Event::SlotUp {
            slot,
            group: SlotGroup(u32::from(slot.0 == SLOTS)),
            suspendable,
        }),
        1 => slot().prop_map(|slot| Event::SlotDown { slot }),
        6 => worker().prop_map(|worker| Event::WorkerUp { worker }),
        1 => worker().prop_map(|worker| Event::WorkerDown { worker }),
        10 => (replica(), placement(), worker())
            .prop_map(|(replica, placement, worker)| Event::ReplicaUp { replica, placement, worker }),
        1 => replica().prop_map(|replica| Event::ReplicaDown { replica }),
        5 => (placement(), batching()).prop_map(|(placement, batching)| Event::PlacementUp { placement, batching }),
        1 => placement().prop_map(|placement| Event::PlacementDown { placement }),
        3 => (subject(), share()).prop_map(|(subject, share)| Event::Share { subject, share }),
        1 => prop::sample::select(Policy::ALL.to_vec()).prop_map(|policy| Event::Policy { policy }),
        1 => prop::option::of((0..TENANTS).prop_map(tenant)).prop_map(|needed_by| Event::MemoryShort { needed_by }),
    ];
    let outcome = prop::sample::select(vec![
        Outcome::Finished,
        Outcome::Finished,
        Outcome::Failed,
        Outcome::Split,
        Outcome::Interrupted,
    ]);
    prop_oneof![
        4 => plain.prop_map(Happening::Plain),
        12 => (any_task(), prop::option::of(microseconds(0..9000)))
            .prop_map(|(task, deadline_after)| Happening::Ready { task, deadline_after }),
        1 => (0u64..20, any_task()).prop_map(|(back, task)| Happening::Twice { back, task }),
        2 => (0u64..20).prop_map(|back| Happening::Cancel { back }),
        6 => (any::<usize>(), microseconds(0..5000), outcome)
            .prop_map(|(pick, used, outcome)| Happening::Done { pick, used, outcome }),
    ]
}

/// What is there at the beginning, so that most of what follows meets something.
fn foundation() -> Vec<Event> {
    let mut events = Vec::new();
    for number in 1..=SLOTS {
        let group = SlotGroup(u32::from(number == SLOTS));
        events.push(Event::SlotUp { slot: SlotId(number), group, suspendable: true });
    }
    for number in 1..=PLACEMENTS {
        let (worker, placement) = (WorkerId(number), PlacementId(number));
        events.push(Event::WorkerUp { worker });
        events.push(Event::PlacementUp { placement, batching: Batching { max_rows: 4, max_delay: Duration::ZERO } });
        events.push(Event::ReplicaUp { replica: ReplicaId(number), placement, worker });
    }
    let reservation = Some(Reservation { rate: Rate::from_ppm(400_000), burst: Duration::from_millis(3) });
    let guaranteed = Share { tier: Some(Tier::Guaranteed), reservation, ..Share::default() };
    let best_effort = Share { tier: Some(Tier::BestEffort), ..Share::default() };
    for (of, share) in [(0, guaranteed), (1, best_effort)] {
        events.push(Event::Share { subject: Subject::Tenant(tenant(of)), share: Some(share) });
    }
    events
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    let step = (microseconds(0..3000), prop::collection::vec(happening(), 0..6))
        .prop_map(|(after, happenings)| Step { after, happenings });
    prop::collection::vec(step, 1..80)
}

fn config() -> impl Strategy<Value = SchedulerConfig> {
    let policy = prop_oneof![
        4 => Just(Policy::Fair),
        1 => prop::sample::select(Policy::ALL.to_vec()),
    ];
    let tuning = (1_u64..20, 0_u64..50, 0_u64..1000, 1_u64..10, 1_u64..10, 0_u32..50_000).prop_map(
        |(quantum, window, after, limit, grace, floor)| Tuning {
            quantum: Duration::from_millis(quantum),
            window: Duration::from_millis(window),
            fill_window: Duration::from_millis(window * 3),
            suspend_after: Duration::from_micros(after),
            suspend_limit: Duration::from_millis(limit),
            deadline_grace: Duration::from_millis(grace),
            best_effort_floor: Rate::from_ppm(floor),
        },
    );
    (policy, tuning, 1usize..40, 20u64..400, 1usize..20).prop_map(|(policy, tuning, tasks, bytes, per_tenant)| {
        SchedulerConfig {
            policy,
            tuning,
            max_queued_tasks: tasks,
            max_queued_bytes: bytes,
            max_queued_tasks_per_tenant: per_tenant,
        }
    })
}

struct World {
    scheduler: Scheduler,
    ledger: Ledger,
    now: MonotonicTime,
    wake: Option<MonotonicTime>,
    tasks: u64,
    decisions: Vec<Decision>,
}

impl World {
    fn new(config: &SchedulerConfig) -> Self {
        let mut world = Self {
            scheduler: Scheduler::new(config.clone()),
            ledger: Ledger::of_any_policy(config.clone()),
            now: MonotonicTime::ZERO,
            wake: None,
            tasks: 0,
            decisions: Vec::new(),
        };
        world.poll(&foundation());
        world
    }

    fn event(&mut self, happening: &Happening, running: &mut Vec<BatchId>) -> Option<Event> {
        let earlier = |back: u64| TaskId(self.tasks.saturating_sub(back));
        Some(match happening {
            Happening::Plain(event) => event.clone(),
            Happening::Ready { task, deadline_after } => {
                self.tasks += 1;
                let deadline = deadline_after.map(|after| self.now.saturating_add(after));
                Event::Ready { task: Task { id: TaskId(self.tasks), deadline, ..task.clone() } }
            }
            Happening::Twice { back, task } => Event::Ready { task: Task { id: earlier(*back), ..task.clone() } },
            Happening::Cancel { back } => Event::Cancel { task: earlier(*back) },
            Happening::Done { pick, used, outcome } => {
                let batch = *running.get(pick.checked_rem(running.len())?)?;
                running.retain(|&other| other != batch);
                self.done(batch, *used, *outcome)
            }
        })
    }

    fn done(&mut self, batch: BatchId, used: Duration, outcome: Outcome) -> Event {
        let known = self.ledger.batch(batch).unwrap();
        // Now and then it finishes before the abort reaches it.
        let is_aborted = known.aborted.is_some() && outcome != Outcome::Finished;
        let outcome = match known.aborted {
            Some(cause) if is_aborted && cause.is_for_others() => Outcome::Interrupted,
            Some(_) if is_aborted => Outcome::Failed,
            _ => outcome,
        };
        Event::Done { batch, used, outcome }
    }

    fn poll(&mut self, events: &[Event]) {
        let mut decisions = Vec::new();
        let wake = self.scheduler.poll(self.now, events.iter().cloned(), &mut decisions);
        self.wake = wake;
        self.ledger.audit(self.now, events, &decisions, wake, &self.scheduler.stats());
        self.decisions.extend(decisions);
    }

    /// A poll that comes before it was asked for, with nothing to tell, decides nothing.
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
                let alone = matches!(
                    happening,
                    Happening::Twice { .. }
                        | Happening::Cancel { .. }
                        | Happening::Plain(Event::Share { .. } | Event::Policy { .. } | Event::MemoryShort { .. })
                );
                // What ends, ends before something else is decided about it in the same poll.
                let ends = matches!(happening, Happening::Done { .. });
                let only_ends = events.iter().all(|event| matches!(event, Event::Done { .. }));
                if (alone && !events.is_empty()) || (ends && !only_ends) {
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
        let mut repairs = Vec::new();
        for group in 0..GROUPS {
            let slot = SlotId(100 + u64::from(group));
            repairs.push(Event::SlotUp { slot, group: SlotGroup(group), suspendable: true });
        }
        repairs.extend((1..=WORKERS).map(|id| Event::WorkerUp { worker: WorkerId(id) }));
        for id in 1..=PLACEMENTS {
            let (placement, worker) = (PlacementId(id), WorkerId(100 + id));
            let batching = Batching { max_rows: 3, max_delay: Duration::from_millis(1) };
            repairs.push(Event::PlacementUp { placement, batching });
            repairs.push(Event::WorkerUp { worker });
            repairs.push(Event::ReplicaUp { replica: ReplicaId(100 + id), placement, worker });
        }
        self.poll(&repairs);
        let rounds = 4 * self.tasks + 50;
        for _ in 0..rounds {
            if self.ledger.is_empty() {
                break;
            }
            self.now = self.now.saturating_add(Duration::from_millis(1));
            let used = Duration::from_millis(1);
            let free: Vec<BatchId> = self
                .ledger
                .running()
                .into_iter()
                .filter(|&batch| {
                    self.ledger
                        .batch(batch)
                        .is_some_and(|batch| !batch.is_suspended || batch.aborted.is_some() || batch.worker.0 < 100)
                })
                .collect();
            let done: Vec<Event> = free.into_iter().map(|batch| self.done(batch, used, Outcome::Failed)).collect();
            self.poll(&done);
        }
        assert!(self.ledger.is_empty(), "tasks are left over: {:?}", self.ledger);
        assert_eq!(self.scheduler.poll(self.now, [], &mut Vec::new()), None, "a timer is left over");
        let stats = self.scheduler.stats();
        assert_eq!((stats.queued_tasks, stats.queued_bytes, stats.queued_cost), (0, 0, Duration::ZERO));
        assert_eq!((stats.running_batches, stats.running_tasks, stats.suspended_batches), (0, 0, 0));
        assert_eq!(self.scheduler.demand(), []);
        self.ledger.check_conservation(&self.scheduler);
    }
}

proptest! {
    #![proptest_config(cases(512))]

    /// Each task ends exactly once; a slot runs one batch, with at most one suspended beneath it, and a worker one; nobody
    /// runs on somebody else's slots; every nanosecond is charged once; a wake-up is never planned for now; and once all is
    /// well again, everything ends and nothing is left.
    #[test]
    fn any_history_keeps_the_books(config in config(), history in history()) {
        let mut world = World::new(&config);
        world.play(&history);
        world.heal();
    }

    /// P11 under everything that can happen.
    #[test]
    fn any_history_repeats_itself(config in config(), history in history()) {
        let decisions = || {
            let mut world = World::new(&config);
            world.play(&history);
            world.decisions
        };
        prop_assert_eq!(decisions(), decisions());
    }
}

#[test]
fn histories_meet_what_they_are_made_for() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = std::collections::BTreeMap::<&str, u32>::new();
    for _ in 0..400 {
        let (config, history) = (config(), history()).new_tree(&mut runner).unwrap().current();
        let mut world = World::new(&config);
        world.play(&history);
        world.heal();
        for decision in &world.decisions {
            let name = match decision {
                Decision::Dispatch { phase: tenantry_sched::Phase::Reserved, .. } => "reserved",
                Decision::Suspend { .. } => "suspend",
                Decision::Resume { .. } => "resume",
                Decision::Abort { cause: AbortCause::Preempted, .. } => "preempted",
                Decision::Abort { cause: AbortCause::Memory, .. } => "memory",
                Decision::Abort { cause: AbortCause::Deadline, .. } => "deadline",
                Decision::Abort { cause: AbortCause::RunLimit, .. } => "run limit",
                Decision::Expire { .. } => "expire",
                Decision::Drop { .. } => "drop",
                Decision::Reject { reason, .. } => reason.as_str(),
                Decision::Dispatch { .. } => "shared",
            };
            *seen.entry(name).or_insert(0) += 1;
        }
    }
    for name in [
        "reserved",
        "shared",
        "suspend",
        "resume",
        "preempted",
        "memory",
        "deadline",
        "run limit",
        "expire",
        "drop",
        "queue_full",
        "tenant_queue_full",
        "share_queue_full",
        "device_time_limit",
        "tenant_backlog",
        "cannot_meet_deadline",
        "unknown_place",
    ] {
        assert!(seen.get(name).is_some_and(|&count| count >= 3), "{name} is hardly ever met: {seen:?}");
    }
}
