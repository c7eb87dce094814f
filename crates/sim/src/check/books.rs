//! Who waits, what runs where, and what each batch cost whom.
//!
//! Checks that a slot and a worker run one batch at a time, that each task ends once, that only what may be joined is
//! joined, that what is suspended or ended may be, that nothing waits while it could run (P1), and that the parts of a
//! batch add up to it (P0).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tenantry_sched::{
    AbortCause, Batching, Decision, Event, Outcome, Phase, Place, Policy, SchedulerConfig, SlotGroup, Subject, Task,
    TaskKind, Tier,
};
use tenantry_types::{BatchId, MonotonicTime, PlacementId, ReplicaId, SlotId, TaskId, TenantId, WorkerId};

use super::{Findings, Shares};
use crate::divide::divide;
use crate::world::Poll;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
}

#[derive(Debug)]
struct Known {
    task: Task,
    state: State,
    is_cancelled: bool,
    /// It was ended for somebody else once.
    was_ended: bool,
    /// A batch with it failed: it must run alone.
    is_alone: bool,
}

#[derive(Debug)]
struct Slot {
    group: SlotGroup,
    suspendable: bool,
    is_up: bool,
    running: Option<BatchId>,
    suspended: Option<BatchId>,
}

#[derive(Debug)]
struct Batch {
    slot: SlotId,
    worker: WorkerId,
    tasks: Vec<TaskId>,
    weights: Vec<u64>,
    aborted: Option<AbortCause>,
    /// Whose batch runs above it, or did last; or who needs its memory.
    wanted_by: Option<TenantId>,
}

/// The part of a task in a batch that is done.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) batch: BatchId,
    pub(crate) task: TaskId,
    pub(crate) tenant: TenantId,
    pub(crate) charged_ns: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Books {
    tasks: BTreeMap<TaskId, Known>,
    slots: BTreeMap<SlotId, Slot>,
    /// Each worker with the batch it holds.
    workers: BTreeMap<WorkerId, Option<BatchId>>,
    replicas: BTreeMap<ReplicaId, (PlacementId, WorkerId)>,
    batching: BTreeMap<PlacementId, Batching>,
    batches: BTreeMap<BatchId, Batch>,
    /// Waiting tasks by place, group and tenant; no zeros.
    waiting: BTreeMap<(Place, SlotGroup, TenantId), u32>,
    /// What was used for nothing, by who wanted it, if anybody did; nanoseconds as the scheduler was told.
    wasted_ns: BTreeMap<Option<TenantId>, u64>,
    /// Who needed memory last.
    memory_needed_by: Option<TenantId>,
}

impl Books {
    /// Slots of a group that are up.
    pub(crate) fn slots_of(&self, group: SlotGroup) -> u32 {
        u32::try_from(self.slots.values().filter(|slot| slot.is_up && slot.group == group).count()).unwrap_or(1)
    }

    /// Tenants with a waiting task that some loaded replica could run.
    pub(crate) fn backlogged(&self) -> BTreeSet<TenantId> {
        let served: BTreeSet<PlacementId> = self.replicas.values().map(|&(placement, _)| placement).collect();
        let is_served = |place: &Place| matches!(place, Place::Placement(placement) if served.contains(placement));
        self.waiting.keys().filter(|(place, ..)| is_served(place)).map(|&(_, _, tenant)| tenant).collect()
    }

    pub(crate) fn task(&self, id: TaskId) -> Option<&Task> {
        self.tasks.get(&id).map(|known| &known.task)
    }

    /// Whether every slot can be suspended.
    pub(crate) fn all_suspendable(&self) -> bool {
        self.slots.values().all(|slot| slot.suspendable)
    }

    /// Whether any slot can be.
    pub(crate) fn any_suspendable(&self) -> bool {
        self.slots.values().any(|slot| slot.suspendable)
    }

    /// Takes in one poll; answers the parts of the batches that ended.
    pub(crate) fn poll(
        &mut self,
        poll: &Poll<'_>,
        config: &SchedulerConfig,
        shares: &Shares,
        findings: &mut Findings,
    ) -> Vec<Part> {
        let at = poll.at;
        let mut parts = Vec::new();
        let mut ended_now = BTreeSet::new();
        let mut cancelled = Vec::new();
        let mut is_waste = false;
        for event in poll.events {
            match event {
                Event::Share { .. } => self.recount(shares),
                Event::Done { batch, used, outcome } => {
                    ended_now.insert(*batch);
                    self.done((*batch, *used, *outcome), poll, shares, &mut parts, findings);
                    is_waste |= *outcome == Outcome::Interrupted;
                }
                Event::Ready { task } => self.comes(task, shares),
                Event::MemoryShort { needed_by } => self.memory_needed_by = *needed_by,
                Event::Cancel { task } => match self.tasks.get_mut(task) {
                    Some(known) if known.state == State::Running => known.is_cancelled = true,
                    _ => cancelled.push(*task),
                },
                other => self.change(other),
            }
        }
        for decision in poll.decisions {
            self.decide(decision, at, config, shares, &ended_now, findings);
        }
        for task in cancelled {
            match self.tasks.get_mut(&task) {
                Some(known) if known.state == State::Running => known.is_cancelled = true,
                Some(_) => self.leave(task, shares),
                None => {}
            }
        }
        self.check_idle(at, findings);
        if is_waste {
            self.check_waste(poll, findings);
        }
        parts
    }

    fn change(&mut self, event: &Event) {
        match event {
            Event::SlotUp { slot, group, suspendable } => {
                let fresh =
                    Slot { group: *group, suspendable: *suspendable, is_up: true, running: None, suspended: None };
                let known = self.slots.entry(*slot).or_insert(fresh);
                (known.group, known.suspendable, known.is_up) = (*group, *suspendable, true);
            }
            Event::SlotDown { slot } => {
                if let Some(slot) = self.slots.get_mut(slot) {
                    slot.is_up = false;
                }
            }
            Event::WorkerUp { worker } => {
                self.workers.entry(*worker).or_default();
            }
            Event::WorkerDown { worker } => {
                self.workers.remove(worker);
                self.replicas.retain(|_, (_, of)| of != worker);
            }
            Event::ReplicaUp { replica, placement, worker } => {
                self.replicas.insert(*replica, (*placement, *worker));
            }
            Event::ReplicaDown { replica } => {
                self.replicas.remove(replica);
            }
            Event::PlacementUp { placement, batching } => {
                self.batching.insert(*placement, *batching);
            }
            Event::PlacementDown { placement } => {
                self.batching.remove(placement);
                self.replicas.retain(|_, (of, _)| of != placement);
            }
            _ => {}
        }
    }

    fn count(&mut self, task: &Task, shares: &Shares, more: bool) {
        let key = (task.place, shares.group(task.tenant), task.tenant);
        let count = self.waiting.entry(key).or_default();
        *count = if more { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            self.waiting.remove(&key);
        }
    }

    fn recount(&mut self, shares: &Shares) {
        self.waiting.clear();
        for known in self.tasks.values().filter(|known| known.state == State::Waiting) {
            let key = (known.task.place, shares.group(known.task.tenant), known.task.tenant);
            *self.waiting.entry(key).or_default() += 1;
        }
    }

    fn comes(&mut self, task: &Task, shares: &Shares) {
        if self.tasks.contains_key(&task.id) {
            return;
        }
        self.count(task, shares, true);
        let known =
            Known { task: task.clone(), state: State::Waiting, is_cancelled: false, was_ended: false, is_alone: false };
        self.tasks.insert(task.id, known);
    }

    /// A task is gone for good.
    fn leave(&mut self, id: TaskId, shares: &Shares) {
        if let Some(known) = self.tasks.remove(&id)
            && known.state == State::Waiting
        {
            self.count(&known.task, shares, false);
        }
    }

    fn done(
        &mut self,
        (id, told, outcome): (BatchId, Duration, Outcome),
        poll: &Poll<'_>,
        shares: &Shares,
        parts: &mut Vec<Part>,
        findings: &mut Findings,
    ) {
        let at = poll.at;
        let Some(batch) = self.batches.remove(&id) else {
            findings.add(at, "ends", format!("{id} is done and was not running"));
            return;
        };
        if let Some(slot) = self.slots.get_mut(&batch.slot) {
            slot.running = slot.running.filter(|&of| of != id);
            slot.suspended = slot.suspended.filter(|&of| of != id);
        }
        if let Some(held) = self.workers.get_mut(&batch.worker) {
            *held = held.filter(|&of| of != id);
        }
        // Timers fire before events are heard: a batch may be told to end in the very poll in which it ends.
        let told_now = poll.decisions.iter().find_map(|decision| match decision {
            Decision::Abort { batch, cause } if *batch == id => Some(*cause),
            _ => None,
        });
        let aborted = batch.aborted.or(told_now);
        let is_lost = outcome == Outcome::Interrupted;
        let nanos = |used: Duration| u64::try_from(used.as_nanos()).unwrap_or(u64::MAX);
        if is_lost {
            let wanted_by = batch.wanted_by.filter(|_| aborted.is_some_and(AbortCause::is_for_others));
            *self.wasted_ns.entry(wanted_by).or_default() += nanos(told);
        }
        let used_ns = nanos(poll.used(id, told));
        let divided = divide(used_ns, &batch.weights);
        if divided.iter().sum::<u64>() != used_ns || divided.len() != batch.tasks.len() {
            findings.add(at, "P0", format!("{id} used {used_ns} ns, its parts are {divided:?}"));
        }
        for (task, part) in batch.tasks.iter().zip(divided) {
            let Some(known) = self.tasks.get_mut(task) else { continue };
            let charged_ns = if is_lost { 0 } else { part };
            parts.push(Part { batch: id, task: *task, tenant: known.task.tenant, charged_ns });
            if (is_lost || outcome == Outcome::Split) && !known.is_cancelled {
                known.state = State::Waiting;
                known.was_ended |= is_lost && aborted.is_some();
                known.is_alone |= outcome == Outcome::Split;
                let task = known.task.clone();
                self.count(&task, shares, true);
            } else {
                self.tasks.remove(task);
            }
        }
    }

    /// P0: what was used for nothing is charged to whoever wanted it.
    fn check_waste(&self, poll: &Poll<'_>, findings: &mut Findings) {
        let nanos = |used: Duration| u64::try_from(used.as_nanos()).unwrap_or(u64::MAX);
        let mut said = BTreeMap::from([(None, nanos(poll.scheduler.stats().wasted_by_machine))]);
        for usage in poll.scheduler.usage() {
            if let Subject::Tenant(tenant) = usage.subject {
                said.insert(Some(tenant), nanos(usage.wasted));
            }
        }
        said.retain(|_, ns| *ns > 0);
        let is = self.wasted_ns.iter().filter(|(_, ns)| **ns > 0);
        if !said.iter().eq(is) {
            let what = format!("wasted for whom, it says: {said:?}, it was: {:?}", self.wasted_ns);
            findings.add(poll.at, "P0", what);
        }
    }

    fn decide(
        &mut self,
        decision: &Decision,
        at: MonotonicTime,
        config: &SchedulerConfig,
        shares: &Shares,
        ended_now: &BTreeSet<BatchId>,
        findings: &mut Findings,
    ) {
        match decision {
            Decision::Reject { task, .. } | Decision::Expire { task } | Decision::Drop { task } => {
                if self.tasks.get(task).is_none_or(|known| known.state != State::Waiting) {
                    findings.add(at, "ends", format!("{decision:?} of a task that does not wait"));
                }
                if let (Decision::Expire { .. }, Some(known)) = (decision, self.tasks.get(task))
                    && known.task.deadline.is_none()
                {
                    findings.add(at, "ends", format!("{task} expired without a deadline"));
                }
                self.leave(*task, shares);
            }
            Decision::Dispatch { .. } => self.dispatch(decision, at, config, shares, findings),
            Decision::Suspend { batch, worker } => {
                let known = self.batches.get(batch);
                let slot = known.and_then(|known| self.slots.get_mut(&known.slot));
                match (known, slot) {
                    (Some(known), Some(slot))
                        if slot.suspendable
                            && slot.running == Some(*batch)
                            && slot.suspended.is_none()
                            && known.worker == *worker =>
                    {
                        slot.suspended = slot.running.take();
                        if let Some(known) = self.batches.get_mut(batch).filter(|known| known.aborted.is_none()) {
                            known.wanted_by = None;
                        }
                    }
                    _ => findings.add(at, "slots", format!("{batch} may not be suspended: {known:?}")),
                }
            }
            Decision::Resume { batch, .. } => {
                let slot = self.batches.get(batch).and_then(|known| self.slots.get_mut(&known.slot));
                match slot {
                    Some(slot) if slot.suspended == Some(*batch) && slot.running.is_none() => {
                        slot.running = slot.suspended.take();
                    }
                    slot => findings.add(at, "slots", format!("{batch} may not be resumed: {slot:?}")),
                }
            }
            Decision::Abort { batch, cause } => {
                let tasks = &self.tasks;
                let may_be_preempted = |task: &TaskId| {
                    tasks.get(task).is_some_and(|known| {
                        let tier = shares.tenant(known.task.tenant).tier;
                        known.task.abortable && !known.was_ended && tier == Some(Tier::BestEffort)
                    })
                };
                match self.batches.get_mut(batch) {
                    Some(known) if known.aborted.is_none() => {
                        if cause.is_for_others() && !known.tasks.iter().all(may_be_preempted) {
                            findings.add(at, "ends", format!("{batch} was ended though not all of it may be"));
                        }
                        if *cause == AbortCause::Memory {
                            known.wanted_by = self.memory_needed_by;
                        }
                        known.aborted = Some(*cause);
                    }
                    None if ended_now.contains(batch) => {}
                    known => findings.add(at, "ends", format!("{batch} may not be ended: {known:?}")),
                }
            }
        }
    }

    fn dispatch(
        &mut self,
        decision: &Decision,
        at: MonotonicTime,
        config: &SchedulerConfig,
        shares: &Shares,
        findings: &mut Findings,
    ) {
        let Decision::Dispatch { batch, slot, worker, replica, tasks, weights, phase, .. } = decision else { return };
        let mut wrong = |what: &str| findings.add(at, "slots", format!("{batch}: {what}"));
        match self.slots.get_mut(slot) {
            Some(known) if known.running.is_none() => {
                known.running = Some(*batch);
                if known.suspended.is_some() && *phase != Phase::Reserved {
                    wrong("runs over something suspended without being reserved");
                }
            }
            _ => wrong("its slot is not free"),
        }
        match self.workers.get_mut(worker) {
            Some(held) if held.is_none() => *held = Some(*batch),
            _ => wrong("its worker is not idle"),
        }
        if tasks.len() != weights.len() || tasks.is_empty() {
            wrong("tasks and weights differ in number");
        }
        let members: Vec<&Known> = tasks.iter().filter_map(|task| self.tasks.get(task)).collect();
        if members.len() != tasks.len() || members.iter().any(|known| known.state != State::Waiting) {
            wrong("one of its tasks does not wait");
        }
        let Some(first) = members.first().map(|known| known.task.clone()) else { return };
        let fits = |known: &&Known| (known.task.place, known.task.shape) == (first.place, first.shape);
        if !members.iter().all(fits) {
            wrong("joins what may not be joined");
        }
        if members.len() > 1 && members.iter().any(|known| known.is_alone) {
            wrong("joins what is to run alone");
        }
        let rows: u64 = members.iter().map(|known| u64::from(known.task.rows.max(1))).sum();
        let group = self.slots.get(slot).map(|slot| slot.group);
        if members.iter().any(|known| Some(shares.group(known.task.tenant)) != group) {
            wrong("runs on slots of another group");
        }
        match first.place {
            Place::Placement(placement) => {
                let most = self.batching.get(&placement).map_or(1, |batching| u64::from(batching.max_rows));
                if members.len() > 1 && rows > most {
                    wrong("has more rows than its model takes");
                }
                if replica.and_then(|replica| self.replicas.get(&replica)) != Some(&(placement, *worker)) {
                    wrong("its replica is not of this model and worker");
                }
            }
            Place::Worker(pinned) => {
                if pinned != *worker || members.len() > 1 {
                    wrong("is pinned to another worker, or joined");
                }
            }
        }
        if config.policy == Policy::Fair
            && first.kind == TaskKind::Infer
            && members.iter().any(|known| known.task.deadline.is_some_and(|deadline| deadline < at))
        {
            findings.add(at, "P9", format!("{batch} runs a task whose deadline has passed"));
        }
        for task in tasks {
            if let Some(known) = self.tasks.get_mut(task) {
                known.state = State::Running;
                let task = known.task.clone();
                self.count(&task, shares, false);
            }
        }
        for below in self.batches.values_mut().filter(|below| below.slot == *slot && below.aborted.is_none()) {
            // It was suspended for the first that runs above it.
            below.wanted_by.get_or_insert(first.tenant);
        }
        let (tasks, weights) = (tasks.to_vec(), weights.to_vec());
        let started = Batch { slot: *slot, worker: *worker, tasks, weights, aborted: None, wanted_by: None };
        self.batches.insert(*batch, started);
    }

    /// P1: no slot is free while a task waits that an idle worker could take. What may wait for company is left out.
    fn check_idle(&self, at: MonotonicTime, findings: &mut Findings) {
        for (id, slot) in &self.slots {
            if !slot.is_up || slot.running.is_some() {
                continue;
            }
            if slot.suspended.is_some() {
                findings.add(at, "P1", format!("{id} is free and holds something suspended"));
                continue;
            }
            let is_idle = |worker: &WorkerId| self.workers.get(worker).is_some_and(Option::is_none);
            let could_run = |place: &Place| match place {
                Place::Worker(worker) => is_idle(worker),
                Place::Placement(placement) => {
                    self.batching.get(placement).is_some_and(|batching| batching.max_delay.is_zero())
                        && self.replicas.values().any(|(of, worker)| of == placement && is_idle(worker))
                }
            };
            let left = self.waiting.iter().find(|((place, group, _), _)| *group == slot.group && could_run(place));
            if let Some(((place, _, tenant), count)) = left {
                findings.add(at, "P1", format!("{id} is free while {count} tasks of {tenant} wait for {place:?}"));
            }
        }
    }
}
