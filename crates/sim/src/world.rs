//! Virtual time around the real scheduler.
//!
//! A world has an agenda of what happens when. It takes what is next, tells the scheduler, carries out what that decides
//! (batches take as long as their model truly costs, times noise), and puts what follows from it on the agenda. No clock,
//! no thread, no dice but the seed's: a world runs the same way every time.

mod clients;
mod close;
mod machine;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use tenantry_sched::{AbortCause, Decision, Event, Outcome, Scheduler, Task, TaskKind};
use tenantry_types::{BatchId, MonotonicTime, PlacementId, SlotId, TaskId, TenantId, WorkerId};

use crate::divide::divide;
use crate::random::Random;
use crate::report::{Report, SERVICE_BINS, TenantReport};
use crate::scenario::{Scenario, tenant_id};
use clients::SourceState;
use machine::Machine;

/// How long after the end everything must have ended.
const DRAIN: Duration = Duration::from_secs(3600);
/// Polls at one instant; more means that world and scheduler send each other in circles.
const MAX_POLLS_AT_ONCE: u32 = 100_000;

/// One call of the scheduler, as those see it who watch.
#[derive(Debug, Clone, Copy)]
pub struct Poll<'a> {
    /// When.
    pub at: MonotonicTime,
    /// What it was told.
    pub events: &'a [Event],
    /// What it decided.
    pub decisions: &'a [Decision],
    /// Itself, afterwards.
    pub scheduler: &'a Scheduler,
    /// What batches truly used, where that is not what it was told.
    pub truly_used: &'a [(BatchId, Duration)],
}

impl Poll<'_> {
    /// What a batch used.
    pub fn used(&self, batch: BatchId, told: Duration) -> Duration {
        self.truly_used.iter().find(|(of, _)| *of == batch).map_or(told, |&(_, used)| used)
    }
}

/// Somebody who watches a world.
pub trait Observer {
    /// After each call of the scheduler.
    fn poll(&mut self, poll: &Poll<'_>);
}

/// What is on the agenda.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Ends { batch: BatchId, generation: u32 },
    AbortEnds(BatchId),
    Breaks(usize),
    Heals(usize),
    Arrives { source: usize },
    Sends { source: usize },
    Leaves(TaskId),
    Plans,
    Wakes,
}

#[derive(Debug)]
struct Request {
    tenant: usize,
    source: usize,
    sent_ns: u64,
    work_ns: u64,
    task: Task,
    is_counted: bool,
    client_waits: bool,
}

/// A load on its way: of what, and for whom.
#[derive(Debug, Clone, Copy)]
struct Load {
    placement: PlacementId,
    tenant: usize,
}

#[derive(Debug)]
struct Batch {
    slot: SlotId,
    worker: WorkerId,
    tasks: Vec<TaskId>,
    weights: Vec<u64>,
    /// What it takes in all.
    total_ns: u64,
    /// What the scheduler took to be its upper bound.
    upper_ns: Option<u64>,
    ran_ns: u64,
    began_ns: u64,
    resumed_ns: u64,
    is_suspended: bool,
    generation: u32,
    aborted: Option<AbortCause>,
    /// Whose batch runs above it, or did last; or who needs its memory.
    wanted_by: Option<usize>,
}

/// A world on its way.
#[derive(Debug)]
pub struct World<'a> {
    scenario: &'a Scenario,
    scheduler: Scheduler,
    now_ns: u64,
    end_ns: u64,
    agenda: BinaryHeap<Reverse<(u64, u64, What)>>,
    agenda_entries: u64,
    wake_ns: Option<u64>,
    /// When it is looked next for what is not loaded, and when it was looked last.
    plans_ns: Option<u64>,
    planned_ns: Option<u64>,
    /// For the next poll: batches that ended, then everything else.
    ended: Vec<Event>,
    happened: Vec<Event>,
    truly_used: Vec<(BatchId, Duration)>,
    requests: BTreeMap<TaskId, Request>,
    loads: BTreeMap<TaskId, Load>,
    batches: BTreeMap<BatchId, Batch>,
    tasks: u64,
    sources: Vec<SourceState>,
    machine: Machine,
    noise: Random,
    numbers: BTreeMap<TenantId, usize>,
    /// Device time of each tenant since the beginning, to be compared with the scheduler's books.
    charged_ns: Vec<u128>,
    /// Who needs memory, of the scheduler's last poll.
    memory_needed_by: Option<usize>,
    /// Device time that was wasted for each, and for nobody.
    wasted_ns: Vec<u128>,
    wasted_by_machine_ns: u128,
    used_ns: u128,
    report: Report,
}

/// Runs a scenario to its end.
pub fn run(scenario: &Scenario, observers: &mut [&mut dyn Observer]) -> Report {
    let mut world = World::new(scenario);
    world.begin();
    world.play(observers);
    world.close()
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let tenants = scenario.tenants.iter().map(|tenant| TenantReport {
            name: tenant.name.clone(),
            service_ns: vec![0; SERVICE_BINS],
            ..TenantReport::default()
        });
        Self {
            scenario,
            scheduler: Scheduler::new(scenario.config.clone()),
            now_ns: 0,
            end_ns: nanos(scenario.duration),
            agenda: BinaryHeap::new(),
            agenda_entries: 0,
            wake_ns: None,
            plans_ns: None,
            planned_ns: None,
            ended: Vec::new(),
            happened: Vec::new(),
            truly_used: Vec::new(),
            requests: BTreeMap::new(),
            loads: BTreeMap::new(),
            batches: BTreeMap::new(),
            tasks: 0,
            sources: (0..scenario.sources.len()).map(|source| SourceState::new(scenario.seed, source)).collect(),
            machine: Machine::new(scenario),
            noise: Random::fork(scenario.seed, u64::MAX),
            numbers: (0..scenario.tenants.len()).map(|number| (tenant_id(number), number)).collect(),
            charged_ns: vec![0; scenario.tenants.len()],
            wasted_ns: vec![0; scenario.tenants.len()],
            wasted_by_machine_ns: 0,
            memory_needed_by: None,
            used_ns: 0,
            report: Report {
                slots: scenario.slots.len(),
                counted: scenario.duration.saturating_sub(scenario.warm_up),
                tenants: tenants.collect(),
                ..Report::default()
            },
        }
    }

    fn at(&mut self, at_ns: u64, what: What) {
        self.agenda.push(Reverse((at_ns, self.agenda_entries, what)));
        self.agenda_entries += 1;
    }

    fn begin(&mut self) {
        for (number, slot) in self.scenario.slots.iter().enumerate() {
            self.happened.push(Event::SlotUp {
                slot: SlotId(number as u64),
                group: slot.group,
                suspendable: slot.suspendable,
            });
        }
        for (number, tenant) in self.scenario.tenants.iter().enumerate() {
            let subject = tenantry_sched::Subject::Tenant(tenant_id(number));
            self.happened.push(Event::Share { subject, share: Some(tenant.share) });
        }
        self.begin_sources();
        self.begin_faults();
    }

    fn play(&mut self, observers: &mut [&mut dyn Observer]) {
        let give_up_ns = self.end_ns.saturating_add(nanos(DRAIN));
        self.poll_until_quiet(observers);
        while let Some(&Reverse((at_ns, ..))) = self.agenda.peek() {
            if at_ns > give_up_ns {
                self.report.faults.push("the world does not come to its end".to_owned());
                break;
            }
            self.now_ns = at_ns;
            let mut is_asked = false;
            while let Some(&Reverse((next_ns, _, what))) = self.agenda.peek()
                && next_ns == at_ns
            {
                self.agenda.pop();
                if what == What::Wakes {
                    is_asked |= self.wake_ns == Some(at_ns);
                } else {
                    self.happen(what);
                }
            }
            if is_asked || !self.ended.is_empty() || !self.happened.is_empty() {
                self.poll_until_quiet(observers);
            } else {
                self.plan();
                if !self.happened.is_empty() {
                    self.poll_until_quiet(observers);
                }
            }
        }
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Ends { batch, generation } => {
                if self.batches.get(&batch).is_some_and(|known| known.generation == generation && !known.is_suspended) {
                    self.end(batch, Outcome::Finished);
                }
            }
            What::AbortEnds(batch) => {
                let for_others =
                    self.batches.get(&batch).and_then(|known| known.aborted).is_some_and(AbortCause::is_for_others);
                self.end(batch, if for_others { Outcome::Interrupted } else { Outcome::Failed });
            }
            What::Breaks(fault) => self.breaks(fault),
            What::Heals(fault) => self.heals(fault),
            What::Arrives { source } => self.arrives(source),
            What::Sends { source } => self.send(source, None),
            What::Leaves(task) => self.leaves(task),
            What::Plans => self.plans_ns = None,
            What::Wakes => {}
        }
    }

    fn poll_until_quiet(&mut self, observers: &mut [&mut dyn Observer]) {
        for _ in 0..MAX_POLLS_AT_ONCE {
            self.poll(observers);
            self.plan();
            if self.ended.is_empty() && self.happened.is_empty() {
                return;
            }
        }
        self.report.faults.push(format!("no end of decisions at {} ns", self.now_ns));
        self.happened.clear();
    }

    fn poll(&mut self, observers: &mut [&mut dyn Observer]) {
        // Ends first: what they teach the scheduler holds for what arrives with them.
        let mut events = std::mem::take(&mut self.ended);
        events.append(&mut self.happened);
        let truly_used = std::mem::take(&mut self.truly_used);
        let mut decisions = Vec::new();
        let now = MonotonicTime::from_nanos(self.now_ns);
        let wake = self.scheduler.poll(now, events.iter().cloned(), &mut decisions);
        if wake.is_some_and(|wake| wake <= now) {
            self.report.faults.push(format!("asked to poll again at {wake:?}, which is not after {now:?}"));
        }
        self.wake_ns = wake.map(MonotonicTime::as_nanos).filter(|&wake| wake > self.now_ns);
        if let Some(wake_ns) = self.wake_ns {
            self.at(wake_ns, What::Wakes);
        }
        for event in &events {
            if let Event::MemoryShort { needed_by } = event {
                self.memory_needed_by = needed_by.and_then(|tenant| self.numbers.get(&tenant).copied());
            }
        }
        let poll = Poll {
            at: now,
            events: &events,
            decisions: &decisions,
            scheduler: &self.scheduler,
            truly_used: &truly_used,
        };
        for observer in observers.iter_mut() {
            observer.poll(&poll);
        }
        for decision in decisions {
            self.carry_out(decision);
        }
    }

    fn carry_out(&mut self, decision: Decision) {
        match decision {
            Decision::Reject { task, reason, .. } => {
                self.loads.remove(&task);
                self.answer(task, |tenant| *tenant.refused.entry(reason.as_str()).or_default() += 1, true);
            }
            Decision::Expire { task } => self.answer(task, |tenant| tenant.expired += 1, false),
            Decision::Drop { task } => {
                self.loads.remove(&task);
                self.answer(task, |tenant| tenant.failed += 1, true);
            }
            Decision::Dispatch { batch, slot, worker, tasks, weights, .. } => {
                self.start(batch, slot, worker, tasks.to_vec(), weights.to_vec());
            }
            Decision::Suspend { batch, .. } => {
                self.report.suspensions += 1;
                if let Some(known) = self.batches.get_mut(&batch) {
                    known.ran_ns += self.now_ns - known.resumed_ns;
                    known.is_suspended = true;
                    if known.aborted.is_none() {
                        known.wanted_by = None;
                    }
                    known.generation += 1;
                }
            }
            Decision::Resume { batch, .. } => {
                if let Some(known) = self.batches.get_mut(&batch) {
                    known.resumed_ns = self.now_ns;
                    known.is_suspended = false;
                    known.generation += 1;
                    let ends_ns = self.now_ns + known.total_ns.saturating_sub(known.ran_ns);
                    let generation = known.generation;
                    self.at(ends_ns, What::Ends { batch, generation });
                }
            }
            Decision::Abort { batch, cause } => {
                if let Some(known) = self.batches.get_mut(&batch) {
                    known.aborted = Some(cause);
                    if cause == AbortCause::Memory {
                        known.wanted_by = self.memory_needed_by;
                    }
                    self.at(self.now_ns + nanos(self.scenario.abort_takes), What::AbortEnds(batch));
                }
            }
        }
    }

    fn start(&mut self, batch: BatchId, slot: SlotId, worker: WorkerId, tasks: Vec<TaskId>, weights: Vec<u64>) {
        let known = |task: &TaskId| self.requests.get(task);
        let work_ns: u64 = tasks.iter().filter_map(known).map(|request| request.work_ns).sum();
        let upper_ns = tasks.first().and_then(known).and_then(|first| {
            let rows = tasks.iter().filter_map(known).map(|request| u64::from(request.task.rows)).sum();
            self.upper_ns(&first.task, rows)
        });
        let placement = tasks.first().and_then(|task| self.placement_of(*task));
        let is_load = tasks.first().is_some_and(|task| self.loads.contains_key(task));
        let plain_ns = self.machine.cost_ns(self.scenario, placement, is_load, work_ns);
        let slow = self.machine.slowness(slot);
        let total_ns = ((plain_ns as f64 * slow * self.noise.noise(self.scenario.noise)) as u64).max(1);
        self.machine.touch(placement, worker, self.now_ns);
        self.at(self.now_ns + total_ns, What::Ends { batch, generation: 0 });
        let first = tasks.first();
        let wanted_by = first.and_then(|task| {
            self.requests.get(task).map(|request| request.tenant).or(self.loads.get(task).map(|load| load.tenant))
        });
        let is_below = |below: &&mut Batch| below.slot == slot && below.is_suspended && below.aborted.is_none();
        for below in self.batches.values_mut().filter(is_below) {
            // It was suspended for the first that runs above it.
            below.wanted_by = below.wanted_by.or(wanted_by);
        }
        let started = Batch {
            slot,
            worker,
            tasks,
            weights,
            total_ns,
            upper_ns,
            ran_ns: 0,
            began_ns: self.now_ns,
            resumed_ns: self.now_ns,
            is_suspended: false,
            generation: 0,
            aborted: None,
            wanted_by: None,
        };
        self.batches.insert(batch, started);
    }

    /// A batch has ended, one way or another.
    fn end(&mut self, id: BatchId, outcome: Outcome) {
        let Some(batch) = self.batches.remove(&id) else { return };
        let ran_ns = batch.ran_ns + if batch.is_suspended { 0 } else { self.now_ns - batch.resumed_ns };
        let used = Duration::from_nanos(ran_ns);
        let told = if self.scenario.count_not_time {
            self.truly_used.push((id, used));
            Duration::from_millis(batch.tasks.len() as u64)
        } else {
            used
        };
        // Only of several it is not known which one is to blame.
        let outcome = if outcome == Outcome::Split && batch.tasks.len() < 2 { Outcome::Failed } else { outcome };
        let is_lost = outcome == Outcome::Interrupted;
        let comes_back = is_lost || outcome == Outcome::Split;
        if comes_back {
            let gone = |task: &&TaskId| self.requests.get(task).is_some_and(|request| !request.client_waits);
            self.ended.extend(batch.tasks.iter().filter(gone).map(|&task| Event::Cancel { task }));
        }
        self.ended.push(Event::Done { batch: id, used: told, outcome });
        if is_lost {
            self.waste(&batch, ran_ns);
        }
        let is_counted = self.now_ns > nanos(self.scenario.warm_up) && self.now_ns <= self.end_ns;
        if is_counted {
            self.report.used_ns += ran_ns;
            self.report.lost_ns += if is_lost { ran_ns } else { 0 };
            self.report.batches += 1;
            self.report.batched_tasks += batch.tasks.len() as u64;
            if let Some(upper_ns) = batch.upper_ns {
                self.report.overshoot_ns = self.report.overshoot_ns.max(ran_ns.saturating_sub(upper_ns));
            }
        }
        self.used_ns += u128::from(ran_ns);
        let shares = divide(if is_lost { 0 } else { ran_ns }, &batch.weights);
        for (task, share) in batch.tasks.into_iter().zip(shares) {
            if let Some(load) = self.loads.remove(&task) {
                self.charge(load.tenant, share, batch.began_ns, is_counted);
                self.loaded(load.placement, batch.worker, outcome);
                continue;
            }
            let Some(request) = self.requests.get(&task) else { continue };
            let (tenant, deadline, sent_ns) = (request.tenant, request.task.deadline, request.sent_ns);
            self.charge(tenant, share, batch.began_ns, is_counted);
            let is_late = deadline.is_some_and(|deadline| deadline.as_nanos() < self.now_ns);
            if is_counted && (is_late || batch.aborted == Some(AbortCause::Deadline)) {
                self.report.late_ns += share;
            }
            if comes_back {
                // Who waits, waits on.
                if self.requests.get(&task).is_some_and(|request| !request.client_waits) {
                    self.requests.remove(&task);
                }
                continue;
            }
            let latency_ns = self.now_ns - sent_ns;
            self.answer(
                task,
                |tenant| {
                    if outcome == Outcome::Finished {
                        tenant.answered += 1;
                        tenant.late += u64::from(is_late);
                        tenant.latencies_ns.push(latency_ns);
                    } else {
                        tenant.failed += 1;
                    }
                },
                false,
            );
        }
    }

    /// What was used for nothing is on whom it was ended for.
    fn waste(&mut self, batch: &Batch, ran_ns: u64) {
        let wanted_by = batch.wanted_by.filter(|_| batch.aborted.is_some_and(AbortCause::is_for_others));
        match wanted_by.and_then(|tenant| self.wasted_ns.get_mut(tenant)) {
            Some(wasted_ns) => *wasted_ns += u128::from(ran_ns),
            None => self.wasted_by_machine_ns += u128::from(ran_ns),
        }
    }

    /// Charges a tenant its part of a batch that began at `since_ns` and has just ended.
    fn charge(&mut self, tenant: usize, share_ns: u64, since_ns: u64, is_counted: bool) {
        if let Some(charged) = self.charged_ns.get_mut(tenant) {
            *charged += u128::from(share_ns);
        }
        let Some(report) = self.report.tenants.get_mut(tenant) else { return };
        if is_counted {
            report.charged_ns += share_ns;
        }
        // Spread over the time it ran, so that a long batch does not look like more slots than there are.
        let bin_ns = (self.end_ns as f64 / SERVICE_BINS as f64).max(1.0);
        let (from, to) = (since_ns as f64 / bin_ns, (self.now_ns as f64 / bin_ns).max(since_ns as f64 / bin_ns + 1e-9));
        for (bin, service_ns) in report.service_ns.iter_mut().enumerate().skip(from as usize) {
            let overlap = (to.min(bin as f64 + 1.0) - from.max(bin as f64)).max(0.0);
            if overlap == 0.0 {
                break;
            }
            *service_ns += (share_ns as f64 * overlap / (to - from)) as u64;
        }
    }

    /// The client hears how its request ended.
    fn answer(&mut self, task: TaskId, note: impl FnOnce(&mut TenantReport), was_refused: bool) {
        let Some(request) = self.requests.remove(&task) else { return };
        if !request.client_waits {
            return;
        }
        if request.is_counted
            && let Some(tenant) = self.report.tenants.get_mut(request.tenant)
        {
            note(tenant);
        }
        self.answered(request.source, was_refused);
    }

    fn placement_of(&self, task: TaskId) -> Option<PlacementId> {
        if let Some(load) = self.loads.get(&task) {
            return Some(load.placement);
        }
        match self.requests.get(&task)?.task.place {
            tenantry_sched::Place::Placement(placement) => Some(placement),
            tenantry_sched::Place::Worker(_) => None,
        }
    }

    /// What the scheduler takes a task of so many rows to cost at the most.
    fn upper_ns(&self, task: &Task, rows: u64) -> Option<u64> {
        let tenantry_sched::Place::Placement(placement) = task.place else { return None };
        if task.kind != TaskKind::Infer {
            return None;
        }
        self.scheduler.estimate(placement, task.bucket, rows).map(|estimate| nanos(estimate.upper))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
