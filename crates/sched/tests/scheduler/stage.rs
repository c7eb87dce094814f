//! A small world in virtual time: clients send, batches take what the test says, and every end is written down.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proptest::test_runner::Config as ProptestConfig;
use tenantry_sched::{
    AbortCause, Batching, Decision, Event, Outcome, Phase, Place, Policy, Rate, RejectReason, Reservation, Scheduler,
    SchedulerConfig, Share, SlotGroup, Subject, Task, TaskKind, Tier, Tuning, Weight, split,
};
use tenantry_types::{BatchId, MonotonicTime, PlacementId, Priority, ReplicaId, SlotId, TaskId, TenantId, WorkerId};

/// Something that decides: the scheduler, or what it is compared with.
pub(crate) trait Decides {
    fn decide(&mut self, now: MonotonicTime, events: Vec<Event>, out: &mut Vec<Decision>) -> Option<MonotonicTime>;
}

impl Decides for Scheduler {
    fn decide(&mut self, now: MonotonicTime, events: Vec<Event>, out: &mut Vec<Decision>) -> Option<MonotonicTime> {
        self.poll(now, events, out)
    }
}

/// Numbers from a seed (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % most.max(1)
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }
}

/// Keeps so many tasks waiting or running.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) tenant: TenantId,
    pub(crate) placements: Vec<u64>,
    pub(crate) depth: u32,
    /// Rows of its tasks, and what a row takes.
    pub(crate) rows: (u32, u32),
    pub(crate) row_cost: Duration,
    /// Every second task has a deadline this far ahead.
    pub(crate) deadline: Option<Duration>,
    pub(crate) abortable: bool,
    pub(crate) from: MonotonicTime,
    pub(crate) until: MonotonicTime,
}

impl Client {
    pub(crate) fn new(number: u64, placement: u64) -> Self {
        Self {
            tenant: tenant(number),
            placements: vec![placement],
            depth: 4,
            rows: (1, 1),
            row_cost: Duration::from_millis(5),
            deadline: None,
            abortable: false,
            from: MonotonicTime::ZERO,
            until: MonotonicTime::from_nanos(u64::MAX),
        }
    }
}

/// How a task came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Ran { batch: BatchId, charged_ns: u64, started: MonotonicTime, phase: Phase },
    Rejected(RejectReason),
    Expired,
    Dropped,
    Ended(AbortCause),
}

#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) task: Task,
    pub(crate) arrived: MonotonicTime,
    pub(crate) at: MonotonicTime,
    pub(crate) how: How,
}

struct Run {
    tasks: Vec<(Task, MonotonicTime)>,
    weights: Vec<u64>,
    started: MonotonicTime,
    phase: Phase,
    used: Duration,
    left: Duration,
    /// None while it is suspended.
    since: Option<MonotonicTime>,
}

type Cost<S> = Box<dyn FnMut(&S, &[Task]) -> Duration>;

pub(crate) struct Stage<S> {
    pub(crate) scheduler: S,
    pub(crate) now: MonotonicTime,
    wake: Option<MonotonicTime>,
    open: BTreeMap<TaskId, (Task, MonotonicTime)>,
    running: BTreeMap<BatchId, Run>,
    /// How many tasks of each tenant wait or run.
    held: BTreeMap<TenantId, usize>,
    /// What a batch takes.
    cost: Cost<S>,
    /// How batches end: failed ones teach the scheduler nothing, so its expectations stay what the tasks say.
    pub(crate) outcome: Outcome,
    pub(crate) clients: Vec<Client>,
    pub(crate) arrivals: VecDeque<(MonotonicTime, Task)>,
    pub(crate) settings: VecDeque<(MonotonicTime, Event)>,
    pub(crate) ended: Vec<Ended>,
    pub(crate) decisions: Vec<Decision>,
    pub(crate) busy: Duration,
    next_task: u64,
    dice: Dice,
}

impl<S: Decides> Stage<S> {
    pub(crate) fn new(scheduler: S, seed: u64, cost: impl FnMut(&S, &[Task]) -> Duration + 'static) -> Self {
        Self {
            scheduler,
            now: MonotonicTime::ZERO,
            wake: None,
            open: BTreeMap::new(),
            running: BTreeMap::new(),
            held: BTreeMap::new(),
            cost: Box::new(cost),
            outcome: Outcome::Finished,
            clients: Vec::new(),
            arrivals: VecDeque::new(),
            settings: VecDeque::new(),
            ended: Vec::new(),
            decisions: Vec::new(),
            busy: Duration::ZERO,
            next_task: 1,
            dice: Dice(seed),
        }
    }

    /// Slots in group 0, and placements with a worker each, numbered from one.
    pub(crate) fn build(&mut self, slots: u64, suspendable: bool, placements: u64, max_rows: u32) {
        self.build_with(slots, suspendable, placements, max_rows, 1);
    }

    /// The same with so many workers for each placement.
    pub(crate) fn build_with(&mut self, slots: u64, suspendable: bool, placements: u64, max_rows: u32, workers: u64) {
        let mut events: Vec<Event> = (1..=slots)
            .map(|slot| Event::SlotUp { slot: SlotId(slot), group: SlotGroup::default(), suspendable })
            .collect();
        for number in 1..=placements {
            let placement = PlacementId(number);
            events.push(Event::PlacementUp { placement, batching: Batching { max_rows, max_delay: Duration::ZERO } });
            for copy in 0..workers {
                let (worker, replica) = (WorkerId(number + 1000 * copy), ReplicaId(number + 1000 * copy));
                events.push(Event::WorkerUp { worker });
                events.push(Event::ReplicaUp { replica, placement, worker });
            }
        }
        self.tell(events);
    }

    pub(crate) fn share(&mut self, number: u64, share: Share) {
        self.tell(vec![Event::Share { subject: Subject::Tenant(tenant(number)), share: Some(share) }]);
    }

    /// One poll, and what follows from it at once.
    pub(crate) fn tell(&mut self, events: Vec<Event>) {
        let mut events = events;
        loop {
            let mut decisions = Vec::new();
            self.wake = self.scheduler.decide(self.now, events, &mut decisions);
            assert!(
                self.wake.is_none_or(|wake| wake > self.now),
                "a wake-up at {:?} is planned at {:?}",
                self.wake,
                self.now
            );
            events = Vec::new();
            for decision in &decisions {
                self.carry_out(decision, &mut events);
            }
            self.decisions.append(&mut decisions);
            if events.is_empty() {
                return;
            }
        }
    }

    fn carry_out(&mut self, decision: &Decision, events: &mut Vec<Event>) {
        match decision {
            Decision::Dispatch { batch, tasks, weights, phase, .. } => {
                let tasks: Vec<(Task, MonotonicTime)> = tasks.iter().map(|id| self.open.remove(id).unwrap()).collect();
                let members: Vec<Task> = tasks.iter().map(|(task, _)| task.clone()).collect();
                let left = (self.cost)(&self.scheduler, &members);
                let run = Run {
                    tasks,
                    weights: weights.to_vec(),
                    started: self.now,
                    phase: *phase,
                    used: Duration::ZERO,
                    left,
                    since: Some(self.now),
                };
                assert!(self.running.insert(*batch, run).is_none());
            }
            Decision::Suspend { batch, .. } => {
                let run = self.running.get_mut(batch).unwrap();
                let ran = self.now.saturating_since(run.since.take().unwrap());
                run.used += ran;
                run.left = run.left.saturating_sub(ran);
            }
            Decision::Resume { batch, .. } => {
                let run = self.running.get_mut(batch).unwrap();
                assert!(run.since.replace(self.now).is_none(), "{batch} is resumed and was not suspended");
            }
            Decision::Abort { batch, cause } => {
                let run = self.finish(*batch);
                let comes_back = cause.is_for_others();
                let outcome = if comes_back { Outcome::Interrupted } else { Outcome::Failed };
                events.push(Event::Done { batch: *batch, used: run.used, outcome });
                for (task, arrived) in run.tasks {
                    if comes_back {
                        self.open.insert(task.id, (task, arrived));
                    } else {
                        self.note(Ended { task, arrived, at: self.now, how: How::Ended(*cause) });
                    }
                }
            }
            Decision::Reject { task, reason, .. } => self.end(*task, How::Rejected(*reason)),
            Decision::Expire { task } => self.end(*task, How::Expired),
            Decision::Drop { task } => self.end(*task, How::Dropped),
        }
    }

    fn end(&mut self, task: TaskId, how: How) {
        let (task, arrived) = self.open.remove(&task).unwrap();
        self.note(Ended { task, arrived, at: self.now, how });
    }

    fn note(&mut self, ended: Ended) {
        if let Some(held) = self.held.get_mut(&ended.task.tenant) {
            *held -= 1;
        }
        self.ended.push(ended);
    }

    fn finish(&mut self, batch: BatchId) -> Run {
        let mut run = self.running.remove(&batch).unwrap();
        if let Some(since) = run.since {
            run.used += self.now.saturating_since(since);
        }
        self.busy += run.used;
        run
    }

    /// Lets the world run until then; clients keep their depth.
    pub(crate) fn run(&mut self, until: MonotonicTime) {
        self.top_up();
        loop {
            let ends = self.running.values().filter_map(|run| Some(run.since?.saturating_add(run.left))).min();
            let arrival = self.arrivals.front().map(|&(at, _)| at);
            let setting = self.settings.front().map(|&(at, _)| at);
            let of_clients = self.clients.iter().flat_map(|client| [client.from]).filter(|&at| at > self.now).min();
            let next = [ends, self.wake, arrival, setting, of_clients].into_iter().flatten().min();
            let Some(next) = next.filter(|&next| next <= until) else {
                self.now = until;
                return;
            };
            self.now = next.max(self.now);
            let mut events = Vec::new();
            let done: Vec<BatchId> = self
                .running
                .iter()
                .filter(|(_, run)| run.since.is_some_and(|since| since.saturating_add(run.left) <= self.now))
                .map(|(&batch, _)| batch)
                .collect();
            for batch in done {
                let run = self.finish(batch);
                events.push(Event::Done { batch, used: run.used, outcome: self.outcome });
                let used_ns = run.used.as_nanos() as u64;
                for ((task, arrived), charged_ns) in run.tasks.into_iter().zip(split(used_ns, &run.weights)) {
                    let how = How::Ran { batch, charged_ns, started: run.started, phase: run.phase };
                    self.note(Ended { task, arrived, at: self.now, how });
                }
            }
            while let Some((_, event)) = self.settings.pop_front_if(|(at, _)| *at <= self.now) {
                events.push(event);
            }
            while let Some((_, task)) = self.arrivals.pop_front_if(|(at, _)| *at <= self.now) {
                events.push(self.ready(task));
            }
            events.extend(self.demanded());
            self.tell(events);
        }
    }

    fn ready(&mut self, task: Task) -> Event {
        let task = Task { id: TaskId(self.next_task), ..task };
        self.next_task += 1;
        self.open.insert(task.id, (task.clone(), self.now));
        *self.held.entry(task.tenant).or_insert(0) += 1;
        Event::Ready { task }
    }

    fn top_up(&mut self) {
        let events = self.demanded();
        if !events.is_empty() {
            self.tell(events);
        }
    }

    /// What the clients send now.
    fn demanded(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let clients = std::mem::take(&mut self.clients);
        for client in &clients {
            if self.now < client.from || self.now >= client.until {
                continue;
            }
            let held = self.held.get(&client.tenant).copied().unwrap_or(0);
            for number in held..client.depth as usize {
                let rows = self.dice.between(u64::from(client.rows.0), u64::from(client.rows.1)) as u32;
                let placement = client.placements[self.dice.below(client.placements.len() as u64) as usize];
                let deadline = client.deadline.filter(|_| number % 2 == 0).map(|after| self.now.saturating_add(after));
                let task = Task {
                    deadline,
                    abortable: client.abortable,
                    ..task(client.tenant, placement, rows, client.row_cost * rows)
                };
                events.push(self.ready(task));
            }
        }
        self.clients = clients;
        events
    }

    /// Device time that ended with each tenant's tasks, to the nanosecond.
    pub(crate) fn served(&self) -> BTreeMap<TenantId, u64> {
        let mut served = BTreeMap::new();
        for ended in &self.ended {
            if let How::Ran { charged_ns, .. } = ended.how {
                *served.entry(ended.task.tenant).or_insert(0) += charged_ns;
            }
        }
        served
    }
}

pub(crate) fn tenant(number: u64) -> TenantId {
    TenantId::from_parts(number, [0; 10])
}

pub(crate) fn task(tenant: TenantId, placement: u64, rows: u32, cost: Duration) -> Task {
    Task {
        id: TaskId(0),
        tenant,
        deployment: None,
        key: None,
        place: Place::Placement(PlacementId(placement)),
        rows,
        shape: 0,
        bytes: 1,
        bucket: 0,
        cost,
        run_limit: Duration::from_secs(1000),
        deadline: None,
        kind: TaskKind::Infer,
        abortable: false,
        priority: Priority::default(),
    }
}

pub(crate) fn config(policy: Policy, tuning: Tuning) -> SchedulerConfig {
    SchedulerConfig {
        policy,
        tuning,
        max_queued_tasks: 100_000,
        max_queued_bytes: u64::MAX,
        max_queued_tasks_per_tenant: 100_000,
    }
}

pub(crate) fn weight(milli: u32) -> Share {
    Share { weight: Weight::from_milli(milli), ..Share::default() }
}

pub(crate) fn reserved(tier: Tier, ppm: u32, burst: Duration) -> Share {
    let reservation = Some(Reservation { rate: Rate::from_ppm(ppm), burst });
    Share { tier: Some(tier), reservation, ..Share::default() }
}

pub(crate) fn millis(millis: u64) -> MonotonicTime {
    MonotonicTime::from_nanos(millis * 1_000_000)
}

/// What the tasks say, batched without any saving.
pub(crate) fn as_said<S>(_: &S, tasks: &[Task]) -> Duration {
    tasks.iter().map(|task| task.cost).sum()
}

/// So many random worlds, or as many as `PROPTEST_CASES` asks for.
pub(crate) fn cases(number: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(number), ..ProptestConfig::default() }
}
