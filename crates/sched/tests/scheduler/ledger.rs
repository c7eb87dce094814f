//! An auditor that sees only what goes in and what comes out, and checks what is promised of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tenantry_sched::{
    AbortCause, Decision, Event, Outcome, Place, Policy, Scheduler, SchedulerConfig, SlotGroup, Stats, Subject, Task,
};
use tenantry_types::{BatchId, MonotonicTime, SlotId, TaskId, TenantId, WorkerId};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running(BatchId),
}

/// A batch that is not done.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub(crate) slot: SlotId,
    pub(crate) worker: WorkerId,
    pub(crate) tasks: Vec<Task>,
    weights: Vec<u64>,
    pub(crate) is_suspended: bool,
    pub(crate) aborted: Option<AbortCause>,
    /// Whose batch runs above it, or did last; or who needs its memory.
    wanted_by: Option<TenantId>,
}

/// Divides a batch's time, in the plainest way: the whole parts, then a nanosecond each to those with the largest rest.
pub(crate) fn divide(whole: u64, weights: &[u64]) -> Vec<u64> {
    let weights: Vec<u128> = match weights.iter().any(|&weight| weight > 0) {
        true => weights.iter().map(|&weight| u128::from(weight)).collect(),
        false => vec![1; weights.len()],
    };
    let total: u128 = weights.iter().sum();
    let mut parts: Vec<u64> = weights.iter().map(|weight| (u128::from(whole) * weight / total) as u64).collect();
    let mut by_rest: Vec<usize> = (0..parts.len()).collect();
    by_rest.sort_by_key(|&index| std::cmp::Reverse(u128::from(whole) * weights[index] % total));
    let missing = whole - parts.iter().sum::<u64>();
    for &index in by_rest.iter().take(missing as usize) {
        parts[index] += 1;
    }
    parts
}

#[derive(Debug)]
pub(crate) struct Ledger {
    config: SchedulerConfig,
    /// Under fifo everything is known that is decided; under another policy, or several, what all of them promise.
    is_fifo: bool,
    /// Tasks that became ready and have not come to their end.
    open: BTreeMap<TaskId, (Task, u64, State)>,
    arrivals: u64,
    ended: BTreeSet<TaskId>,
    /// Running tasks nobody waits for; tasks that must run alone; tasks that were ended for somebody once.
    abandoned: BTreeSet<TaskId>,
    alone: BTreeSet<TaskId>,
    were_ended: BTreeSet<TaskId>,
    /// Tasks that came back.
    came_back: BTreeSet<TaskId>,
    running: BTreeMap<BatchId, Batch>,
    slots: BTreeMap<SlotId, SlotGroup>,
    groups: BTreeMap<TenantId, SlotGroup>,
    /// Device time by whose tasks used it; what was used for nothing, by who wanted it, if anybody did.
    charged_ns: BTreeMap<TenantId, u64>,
    wasted_ns: BTreeMap<Option<TenantId>, u64>,
    used: Duration,
    /// Who needed memory in this poll: the tests say that once a poll.
    memory_needed_by: Option<TenantId>,
}

impl Ledger {
    pub(crate) fn new(config: SchedulerConfig) -> Self {
        Self {
            is_fifo: config.policy == Policy::Fifo,
            config,
            open: BTreeMap::new(),
            arrivals: 0,
            ended: BTreeSet::new(),
            abandoned: BTreeSet::new(),
            alone: BTreeSet::new(),
            were_ended: BTreeSet::new(),
            came_back: BTreeSet::new(),
            running: BTreeMap::new(),
            slots: BTreeMap::new(),
            groups: BTreeMap::new(),
            charged_ns: BTreeMap::new(),
            wasted_ns: BTreeMap::new(),
            used: Duration::ZERO,
            memory_needed_by: None,
        }
    }

    /// Promises of all policies, whichever is in force.
    pub(crate) fn of_any_policy(config: SchedulerConfig) -> Self {
        Self { is_fifo: false, ..Self::new(config) }
    }

    pub(crate) fn running(&self) -> Vec<BatchId> {
        self.running.keys().copied().collect()
    }

    pub(crate) fn batch(&self, batch: BatchId) -> Option<&Batch> {
        self.running.get(&batch)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Audits one poll.
    pub(crate) fn audit(
        &mut self,
        now: MonotonicTime,
        events: &[Event],
        decisions: &[Decision],
        wake: Option<MonotonicTime>,
        stats: &Stats,
    ) {
        // Time passes before events are heard, so what expired or ran too long comes first; under fifo never later.
        let timed = |decision: &&Decision| match decision {
            Decision::Expire { task } => matches!(self.open.get(task), Some((.., State::Waiting))),
            Decision::Abort { batch, cause } => *cause != AbortCause::Memory && self.running.contains_key(batch),
            _ => false,
        };
        let (by_time, by_event) = decisions.split_at(decisions.iter().take_while(timed).count());
        for decision in by_time {
            self.ends_by_time(decision, now);
        }
        let (mut cancelled, mut came_back) = (Vec::new(), BTreeSet::new());
        for event in events {
            self.hear(event, &mut cancelled, &mut came_back);
        }
        // Whom a batch may not overtake: nobody waits for what is cancelled in the same poll.
        let mut before = if self.is_fifo { self.open.clone() } else { BTreeMap::new() };
        before.retain(|task, _| !cancelled.contains(task));
        for decision in by_event {
            match decision {
                Decision::Dispatch { batch, slot, worker, tasks, weights, .. } => {
                    assert_eq!(tasks.len(), weights.len());
                    self.started(*batch, *slot, *worker, tasks, weights, &before);
                }
                Decision::Suspend { batch, worker } => self.suspended(*batch, *worker, true),
                Decision::Resume { batch, worker } => self.suspended(*batch, *worker, false),
                Decision::Reject { task, .. } | Decision::Drop { task } => self.end_waiting(*task),
                Decision::Expire { .. } | Decision::Abort { .. } => {
                    // A task that comes back may be too late; elsewhere one that moves, too, by what was learned since.
                    let comes_back = matches!(decision, Decision::Expire { task } if came_back.contains(task));
                    assert!(!self.is_fifo || comes_back, "{decision:?} comes after what the events brought about");
                    self.ends_by_time(decision, now);
                }
            }
        }
        for task in cancelled {
            // One that was dispatched or refused before the cancellation reached it is no longer waiting.
            if self.open.get(&task).is_some_and(|&(_, _, state)| state == State::Waiting) {
                self.end(task);
            }
        }
        assert!(wake.is_none_or(|wake| wake > now), "wake {wake:?} is not after {now:?}");
        self.check_slots();
        self.check_bounds(stats);
    }

    fn ends_by_time(&mut self, decision: &Decision, now: MonotonicTime) {
        match decision {
            Decision::Expire { task } => {
                let deadline = self.open.get(task).and_then(|(task, ..)| task.deadline);
                // The fair policy gives a task up when it is too late to begin.
                let passed = deadline.is_some_and(|at| at <= now || !self.is_fifo);
                assert!(passed, "{task} expired before its deadline");
                self.end_waiting(*task);
            }
            Decision::Abort { batch, cause } => {
                let running = self.running.get_mut(batch).unwrap();
                assert!(running.aborted.replace(*cause).is_none(), "{batch} aborted twice");
                if cause.is_for_others() {
                    let may_end = |task: &Task| task.abortable && !self.were_ended.contains(&task.id);
                    assert!(running.tasks.iter().all(may_end), "{batch} is ended though not all of it may be");
                    if *cause == AbortCause::Memory {
                        running.wanted_by = self.memory_needed_by;
                    }
                }
            }
            other => panic!("{other:?} is not a matter of time"),
        }
    }

    fn hear(&mut self, event: &Event, cancelled: &mut Vec<TaskId>, came_back: &mut BTreeSet<TaskId>) {
        match event {
            // An id may come again once its task has ended; the tests avoid that within one poll.
            Event::Ready { task } if !self.open.contains_key(&task.id) => {
                self.ended.remove(&task.id);
                self.open.insert(task.id, (task.clone(), self.arrivals, State::Waiting));
                self.arrivals += 1;
            }
            Event::MemoryShort { needed_by } => self.memory_needed_by = *needed_by,
            Event::Cancel { task } => match self.open.get(task) {
                Some((.., State::Running(_))) => {
                    self.abandoned.insert(*task);
                }
                _ => cancelled.push(*task),
            },
            Event::Done { batch, used, outcome } => {
                let Some(running) = self.running.remove(batch) else { return };
                self.used += *used;
                let used_ns = used.as_nanos() as u64;
                if *outcome == Outcome::Interrupted {
                    let is_for_others = running.aborted.is_some_and(AbortCause::is_for_others);
                    let wanted_by = running.wanted_by.filter(|_| is_for_others);
                    *self.wasted_ns.entry(wanted_by).or_insert(0) += used_ns;
                } else {
                    for (task, ns) in running.tasks.iter().zip(divide(used_ns, &running.weights)) {
                        *self.charged_ns.entry(task.tenant).or_insert(0) += ns;
                    }
                }
                for task in running.tasks {
                    let comes_back = matches!(outcome, Outcome::Split | Outcome::Interrupted);
                    if !comes_back || self.abandoned.contains(&task.id) {
                        self.end(task.id);
                        continue;
                    }
                    came_back.insert(task.id);
                    self.came_back.insert(task.id);
                    if *outcome == Outcome::Split {
                        self.alone.insert(task.id);
                    } else if running.aborted.is_some() {
                        self.were_ended.insert(task.id);
                    }
                    self.open.get_mut(&task.id).unwrap().2 = State::Waiting;
                }
            }
            Event::SlotUp { slot, group, .. } => {
                self.slots.insert(*slot, *group);
            }
            Event::Share { subject: Subject::Tenant(tenant), share } => {
                self.groups.insert(*tenant, share.unwrap_or_default().group);
            }
            _ => {}
        }
    }

    fn suspended(&mut self, batch: BatchId, worker: WorkerId, is_suspended: bool) {
        let running = self.running.get_mut(&batch).unwrap();
        assert_eq!(running.worker, worker);
        assert!(running.is_suspended != is_suspended, "{batch} is suspended or resumed twice");
        running.is_suspended = is_suspended;
        if is_suspended && running.aborted.is_none() {
            running.wanted_by = None;
        }
    }

    /// One batch a worker; one a slot, and one more suspended beneath it.
    fn check_slots(&self) {
        let mut seen = BTreeSet::new();
        let mut workers = BTreeSet::new();
        for (id, batch) in &self.running {
            assert!(seen.insert((batch.slot, batch.is_suspended)), "{id}: {:?} holds too many", batch.slot);
            assert!(workers.insert(batch.worker), "{id}: {:?} runs two batches", batch.worker);
        }
    }

    /// P0: what tenants were charged is what their tasks used, what was wasted is charged to whoever wanted it, and both
    /// together are all that was used. Nothing may be running.
    pub(crate) fn check_conservation(&self, scheduler: &Scheduler) {
        let stats = scheduler.stats();
        assert_eq!(stats.used, self.used);
        let mut charged = BTreeMap::new();
        let mut wasted = BTreeMap::from([(None, stats.wasted_by_machine.as_nanos() as u64)]);
        for usage in scheduler.usage() {
            assert_eq!((usage.queued_tasks, usage.running), (0, 0), "{usage:?} is not idle");
            if let Subject::Tenant(tenant) = usage.subject {
                charged.insert(tenant, usage.charged.as_nanos() as u64);
                wasted.insert(Some(tenant), usage.wasted.as_nanos() as u64);
            }
        }
        charged.retain(|_, ns| *ns > 0);
        let mut expected = self.charged_ns.clone();
        expected.retain(|_, ns| *ns > 0);
        assert_eq!(charged, expected);
        wasted.retain(|_, ns| *ns > 0);
        let mut expected = self.wasted_ns.clone();
        expected.retain(|_, ns| *ns > 0);
        assert_eq!(wasted, expected);
        let wasted_ns: u64 = wasted.values().sum();
        assert_eq!(stats.wasted, Duration::from_nanos(wasted_ns));
        let charged_ns: u64 = charged.values().sum();
        assert_eq!(Duration::from_nanos(charged_ns + wasted_ns), self.used);
    }

    fn end(&mut self, task: TaskId) {
        for of in [&mut self.abandoned, &mut self.alone, &mut self.were_ended, &mut self.came_back] {
            of.remove(&task);
        }
        assert!(self.open.remove(&task).is_some(), "{task} ended twice or never began");
        self.ended.insert(task);
    }

    fn end_waiting(&mut self, task: TaskId) {
        let state = self.open.get(&task).map(|&(_, _, state)| state);
        assert_eq!(state, Some(State::Waiting), "{task} ended in the queue without being there");
        self.end(task);
    }

    fn started(
        &mut self,
        batch: BatchId,
        slot: SlotId,
        worker: WorkerId,
        tasks: &[TaskId],
        weights: &[u64],
        before: &BTreeMap<TaskId, (Task, u64, State)>,
    ) {
        assert!(!tasks.is_empty(), "{batch} is empty");
        let mut last = None;
        let mut members = Vec::new();
        for task in tasks {
            let Some((known, arrival, state)) = self.open.get_mut(task) else {
                panic!("{task} runs without being open")
            };
            assert_eq!(*state, State::Waiting, "{task} runs twice");
            if self.is_fifo {
                assert!(last < Some(*arrival), "{batch} is not in arrival order");
            }
            last = Some(*arrival);
            *state = State::Running(batch);
            if let Place::Worker(pinned) = known.place {
                assert_eq!(pinned, worker, "{task} runs in a worker it is not pinned to");
                assert_eq!(tasks.len(), 1, "pinned {task} was joined");
            }
            let group = self.groups.get(&known.tenant).copied().unwrap_or_default();
            assert_eq!(self.slots.get(&slot), Some(&group), "{task} runs on somebody else's slot");
            members.push(known.clone());
        }
        let (place, shape) = (members[0].place, members[0].shape);
        for of in &members {
            assert_eq!((of.place, of.shape), (place, shape), "{batch} joins what may not be joined");
            assert!(members.len() == 1 || !self.alone.contains(&of.id), "{batch} joins what is to run alone");
        }
        if self.is_fifo && !self.alone.contains(&members[0].id) {
            // Whatever of the same place and shape still waits is younger than all of the batch.
            let waited = |task: &TaskId| before.contains_key(task) && !self.alone.contains(task);
            let overtaken = self.open.iter().find(|(id, (other, arrival, state))| {
                waited(id)
                    && *state == State::Waiting
                    && (other.place, other.shape) == (place, shape)
                    && Some(*arrival) < last
            });
            assert!(overtaken.is_none(), "{batch} overtakes {overtaken:?}");
        }
        let weights = weights.to_vec();
        let wanted_by = members[0].tenant;
        let is_below = |below: &&mut Batch| below.slot == slot && below.is_suspended && below.aborted.is_none();
        for below in self.running.values_mut().filter(is_below) {
            // It was suspended for the first that runs above it.
            below.wanted_by.get_or_insert(wanted_by);
        }
        let batch_of =
            Batch { slot, worker, tasks: members, weights, is_suspended: false, aborted: None, wanted_by: None };
        self.running.insert(batch, batch_of);
        self.check_slots();
    }

    fn check_bounds(&self, stats: &Stats) {
        let waiting: Vec<&Task> =
            self.open.values().filter(|(.., state)| *state == State::Waiting).map(|(task, ..)| task).collect();
        assert_eq!(stats.queued_tasks as usize, waiting.len(), "the books and the ledger differ");
        assert_eq!(stats.running_batches as usize, self.running.len());
        assert_eq!(stats.running_tasks as usize, self.open.len() - waiting.len());
        assert_eq!(stats.queued_bytes, waiting.iter().map(|task| task.bytes).sum::<u64>());
        let suspended = self.running.values().filter(|batch| batch.is_suspended).count();
        assert_eq!(stats.suspended_batches as usize, suspended);
        if !self.is_fifo {
            // What comes back was admitted once, and what is within a guarantee always is.
            return;
        }
        assert_eq!(stats.queued_cost, waiting.iter().map(|task| task.cost).sum());

        // What comes back was admitted once.
        let is_new = |task: &&&Task| !self.came_back.contains(&task.id) && matches!(task.place, Place::Placement(_));
        let queued: Vec<&&Task> = waiting.iter().filter(is_new).collect();
        assert!(queued.len() <= self.config.max_queued_tasks);
        assert!(queued.iter().map(|task| task.bytes).sum::<u64>() <= self.config.max_queued_bytes);
        for task in &queued {
            let of_tenant = queued.iter().filter(|other| other.tenant == task.tenant).count();
            assert!(of_tenant <= self.config.max_queued_tasks_per_tenant);
        }
    }
}
