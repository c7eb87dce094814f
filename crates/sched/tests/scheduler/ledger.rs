//! An auditor that sees only what goes in and what comes out, and checks what is promised of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tenantry_sched::{
    AbortCause, Decision, Event, Outcome, Place, Policy, Scheduler, SchedulerConfig, SlotGroup, Stats, Subject, Task,
    split,
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
    running: BTreeMap<BatchId, Batch>,
    slots: BTreeMap<SlotId, SlotGroup>,
    groups: BTreeMap<TenantId, SlotGroup>,
    /// Device time by whose tasks used it, and what was used for nothing.
    charged_ns: BTreeMap<TenantId, u64>,
    wasted: Duration,
    used: Duration,
}

impl Ledger {
    pub(crate) fn new(config: SchedulerConfig) -> Self {
        Self {
            is_fifo: config.policy == Policy::Fifo,
            config,
            open: BTreeMap::new(),
            arrivals: 0,
            ended: BTreeSet::new(),
            running: BTreeMap::new(),
            slots: BTreeMap::new(),
            groups: BTreeMap::new(),
            charged_ns: BTreeMap::new(),
            wasted: Duration::ZERO,
            used: Duration::ZERO,
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
            Decision::Abort { batch, .. } => self.running.contains_key(batch),
            _ => false,
        };
        let (by_time, by_event) = decisions.split_at(decisions.iter().take_while(timed).count());
        for decision in by_time {
            self.ends_by_time(decision, now);
        }
        let mut cancelled = Vec::new();
        for event in events {
            self.hear(event, &mut cancelled);
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
                    // Elsewhere a task that comes back, or moves, may be too late by what was learned since.
                    assert!(!self.is_fifo, "{decision:?} comes after what the events brought about");
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
            }
            other => panic!("{other:?} is not a matter of time"),
        }
    }

    fn hear(&mut self, event: &Event, cancelled: &mut Vec<TaskId>) {
        match event {
            // An id may come again once its task has ended; the tests avoid that within one poll.
            Event::Ready { task } | Event::Again { task } if !self.open.contains_key(&task.id) => {
                self.ended.remove(&task.id);
                self.open.insert(task.id, (task.clone(), self.arrivals, State::Waiting));
                self.arrivals += 1;
            }
            Event::Cancel { task } => cancelled.push(*task),
            Event::Done { batch, used, outcome } => {
                let Some(running) = self.running.remove(batch) else { return };
                self.used += *used;
                if *outcome == Outcome::Aborted && running.aborted == Some(AbortCause::Preempted) {
                    self.wasted += *used;
                } else {
                    for (task, ns) in running.tasks.iter().zip(split(used.as_nanos() as u64, &running.weights)) {
                        *self.charged_ns.entry(task.tenant).or_insert(0) += ns;
                    }
                }
                for task in running.tasks {
                    self.end(task.id);
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

    /// P0: what tenants were charged is what their tasks used, and with what was wasted it is all that was used. Nothing
    /// may be running.
    pub(crate) fn check_conservation(&self, scheduler: &Scheduler) {
        let stats = scheduler.stats();
        assert_eq!((stats.used, stats.wasted), (self.used, self.wasted));
        let mut charged = BTreeMap::new();
        for usage in scheduler.usage() {
            assert_eq!((usage.queued_tasks, usage.running), (0, 0), "{usage:?} is not idle");
            if let Subject::Tenant(tenant) = usage.subject {
                charged.insert(tenant, usage.charged.as_nanos() as u64);
            }
        }
        charged.retain(|_, ns| *ns > 0);
        let mut expected = self.charged_ns.clone();
        expected.retain(|_, ns| *ns > 0);
        assert_eq!(charged, expected);
        let sum: u64 = charged.values().sum();
        assert_eq!(Duration::from_nanos(sum) + self.wasted, self.used);
    }

    fn end(&mut self, task: TaskId) {
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
        }
        if self.is_fifo {
            // Whatever of the same place and shape still waits is younger than all of the batch.
            let waited = |task: &TaskId| before.contains_key(task);
            let overtaken = self.open.iter().find(|(id, (other, arrival, state))| {
                waited(id)
                    && *state == State::Waiting
                    && (other.place, other.shape) == (place, shape)
                    && Some(*arrival) < last
            });
            assert!(overtaken.is_none(), "{batch} overtakes {overtaken:?}");
        }
        let weights = weights.to_vec();
        let batch_of = Batch { slot, worker, tasks: members, weights, is_suspended: false, aborted: None };
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

        let queued: Vec<&&Task> = waiting.iter().filter(|task| matches!(task.place, Place::Placement(_))).collect();
        assert!(queued.len() <= self.config.max_queued_tasks);
        assert!(queued.iter().map(|task| task.bytes).sum::<u64>() <= self.config.max_queued_bytes);
        for task in &queued {
            let of_tenant = queued.iter().filter(|other| other.tenant == task.tenant).count();
            assert!(of_tenant <= self.config.max_queued_tasks_per_tenant);
        }
    }
}
