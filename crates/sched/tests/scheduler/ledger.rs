//! An auditor that sees only what goes in and what comes out, and checks what is promised of it.

use std::collections::{BTreeMap, BTreeSet};

use tenantry_sched::{Decision, Event, Place, SchedulerConfig, Stats, Task};
use tenantry_types::{BatchId, MonotonicTime, SlotId, TaskId, WorkerId};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running(BatchId),
}

#[derive(Debug)]
pub(crate) struct Ledger {
    config: SchedulerConfig,
    /// Tasks that became ready and have not come to their end.
    open: BTreeMap<TaskId, (Task, u64, State)>,
    arrivals: u64,
    ended: BTreeSet<TaskId>,
    running: BTreeMap<BatchId, (SlotId, WorkerId, Vec<TaskId>)>,
    aborted: BTreeSet<BatchId>,
}

impl Ledger {
    pub(crate) fn new(config: SchedulerConfig) -> Self {
        Self {
            config,
            open: BTreeMap::new(),
            arrivals: 0,
            ended: BTreeSet::new(),
            running: BTreeMap::new(),
            aborted: BTreeSet::new(),
        }
    }

    pub(crate) fn running(&self) -> Vec<BatchId> {
        self.running.keys().copied().collect()
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
        // Time passes before events are heard, so what expired or ran too long comes first and never later.
        let timed = |decision: &&Decision| matches!(decision, Decision::Expire { .. } | Decision::Abort { .. });
        let (by_time, by_event) = decisions.split_at(decisions.iter().take_while(timed).count());
        for decision in by_time {
            match decision {
                Decision::Expire { task } => {
                    let deadline = self.open.get(task).and_then(|(task, ..)| task.deadline);
                    assert!(deadline.is_some_and(|at| at <= now), "{task} expired before its deadline");
                    self.end_waiting(*task);
                }
                Decision::Abort { batch, .. } => {
                    assert!(self.running.contains_key(batch), "{batch} aborted though it does not run");
                    assert!(self.aborted.insert(*batch), "{batch} aborted twice");
                }
                other => panic!("{other:?} is not a matter of time"),
            }
        }
        let mut cancelled = Vec::new();
        for event in events {
            match event {
                // An id may come again once its task has ended; the tests avoid that within one poll.
                Event::Ready { task } if !self.open.contains_key(&task.id) => {
                    self.ended.remove(&task.id);
                    self.open.insert(task.id, (task.clone(), self.arrivals, State::Waiting));
                    self.arrivals += 1;
                }
                Event::Cancel { task } => cancelled.push(*task),
                Event::Done { batch, .. } => {
                    if let Some((_, _, tasks)) = self.running.remove(batch) {
                        for task in tasks {
                            self.end(task);
                        }
                    }
                }
                _ => {}
            }
        }
        let before: BTreeMap<TaskId, (Task, u64, State)> = self.open.clone();
        for decision in by_event {
            match decision {
                Decision::Dispatch { batch, slot, worker, tasks, .. } => {
                    self.started(*batch, *slot, *worker, tasks, &before);
                }
                Decision::Reject { task, .. } | Decision::Drop { task } => self.end_waiting(*task),
                other => panic!("{other:?} comes after what the events brought about"),
            }
        }
        for task in cancelled {
            // One that was dispatched or refused before the cancellation reached it is no longer waiting.
            if self.open.get(&task).is_some_and(|&(_, _, state)| state == State::Waiting) {
                self.end(task);
            }
        }
        assert!(wake.is_none_or(|wake| wake > now), "wake {wake:?} is not after {now:?}");
        self.check_bounds(stats);
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
        before: &BTreeMap<TaskId, (Task, u64, State)>,
    ) {
        assert!(!tasks.is_empty(), "{batch} is empty");
        for (held_slot, busy_worker, _) in self.running.values() {
            assert!(*held_slot != slot, "{slot} holds two batches");
            assert!(*busy_worker != worker, "{worker} runs two batches");
        }
        let mut last = None;
        for task in tasks {
            let Some((known, arrival, state)) = self.open.get_mut(task) else {
                panic!("{task} runs without being open")
            };
            assert_eq!(*state, State::Waiting, "{task} runs twice");
            assert!(last < Some(*arrival), "{batch} is not in arrival order");
            last = Some(*arrival);
            *state = State::Running(batch);
            if let Place::Worker(pinned) = known.place {
                assert_eq!(pinned, worker, "{task} runs in a worker it is not pinned to");
                assert_eq!(tasks.len(), 1, "pinned {task} was joined");
            }
        }
        // FIFO: whatever of the same place and shape still waits is younger than all of the batch.
        let (place, shape) = before.get(&tasks[0]).map(|(task, ..)| (task.place, task.shape)).unwrap();
        for task in tasks {
            let (of, ..) = &before[task];
            assert_eq!((of.place, of.shape), (place, shape), "{batch} joins what may not be joined");
        }
        let overtaken = self.open.values().find(|(other, arrival, state)| {
            *state == State::Waiting && (other.place, other.shape) == (place, shape) && Some(*arrival) < last
        });
        assert!(overtaken.is_none(), "{batch} overtakes {overtaken:?}");
        self.running.insert(batch, (slot, worker, tasks.to_vec()));
    }

    fn check_bounds(&self, stats: &Stats) {
        let waiting: Vec<&Task> =
            self.open.values().filter(|(.., state)| *state == State::Waiting).map(|(task, ..)| task).collect();
        assert_eq!(stats.queued_tasks as usize, waiting.len(), "the books and the ledger differ");
        assert_eq!(stats.running_batches as usize, self.running.len());
        assert_eq!(stats.running_tasks as usize, self.open.len() - waiting.len());
        assert_eq!(stats.queued_bytes, waiting.iter().map(|task| task.bytes).sum::<u64>());
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
