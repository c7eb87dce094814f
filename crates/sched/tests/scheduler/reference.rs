//! The same policy written without any index: one list of what waits, searched from the front every time.
//!
//! It is as slow as it is plain, and that is its worth: where it and the scheduler differ, one of them is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tenantry_sched::{
    AbortCause, BatchTasks, Batching, Decision, Event, MAX_PINNED_TASKS_PER_WORKER, MIN_RETRY_AFTER, Outcome, Phase,
    Place, RejectReason, SchedulerConfig, Task,
};
use tenantry_types::{BatchId, MonotonicTime, PlacementId, ReplicaId, SlotId, TaskId, WorkerId};

#[derive(Debug, Clone)]
struct Waiting {
    task: Task,
    arrival: MonotonicTime,
    /// Its place among all that ever came.
    number: u64,
    /// It must run alone.
    is_alone: bool,
}

#[derive(Debug, Clone)]
struct Running {
    batch: BatchId,
    slot: SlotId,
    slot_comes_back: bool,
    worker: WorkerId,
    tasks: BatchTasks,
    /// Those somebody waits for.
    members: Vec<Waiting>,
    abort_at: Option<MonotonicTime>,
}

/// See the module. Rejections carry [`MIN_RETRY_AFTER`], whatever the backlog.
#[derive(Debug)]
pub(crate) struct Reference {
    config: SchedulerConfig,
    now: MonotonicTime,
    waiting: Vec<Waiting>,
    running: Vec<Running>,
    free_slots: BTreeSet<SlotId>,
    workers: BTreeSet<WorkerId>,
    replicas: Vec<(ReplicaId, PlacementId, WorkerId)>,
    placements: Vec<(PlacementId, Batching)>,
    batches: u64,
    arrivals: u64,
    /// Where each worker ran last.
    warm: BTreeMap<WorkerId, SlotId>,
}

impl Reference {
    pub(crate) fn new(config: SchedulerConfig) -> Self {
        Self {
            config,
            now: MonotonicTime::ZERO,
            waiting: Vec::new(),
            running: Vec::new(),
            free_slots: BTreeSet::new(),
            workers: BTreeSet::new(),
            replicas: Vec::new(),
            placements: Vec::new(),
            batches: 0,
            arrivals: 0,
            warm: BTreeMap::new(),
        }
    }

    pub(crate) fn poll(
        &mut self,
        now: MonotonicTime,
        events: &[Event],
        out: &mut Vec<Decision>,
    ) -> Option<MonotonicTime> {
        self.now = self.now.max(now);
        self.fire(out);
        for event in events {
            self.apply(event, out);
        }
        self.dispatch(out);
        self.wake()
    }

    pub(crate) fn running(&self) -> Vec<BatchId> {
        self.running.iter().map(|running| running.batch).collect()
    }

    pub(crate) fn queued(&self, placement: PlacementId) -> u32 {
        self.waiting.iter().filter(|waiting| waiting.task.place == Place::Placement(placement)).count() as u32
    }

    pub(crate) fn queued_tasks(&self) -> u32 {
        self.waiting.len() as u32
    }

    pub(crate) fn queued_bytes(&self) -> u64 {
        self.waiting.iter().map(|waiting| waiting.task.bytes).sum()
    }

    pub(crate) fn demand(&self) -> Vec<(PlacementId, u32, MonotonicTime)> {
        let mut placements: Vec<PlacementId> = self.placements.iter().map(|&(id, _)| id).collect();
        placements.sort();
        placements.retain(|&id| !self.replicas.iter().any(|&(_, of, _)| of == id));
        let demand = |id: PlacementId| {
            let oldest = self.waiting.iter().find(|waiting| waiting.task.place == Place::Placement(id))?;
            Some((id, self.queued(id), oldest.arrival))
        };
        placements.into_iter().filter_map(demand).collect()
    }

    /// Deadlines and limits that have passed, in the order in which they did.
    fn fire(&mut self, out: &mut Vec<Decision>) {
        let mut fired = Vec::new();
        for (position, waiting) in self.waiting.iter().enumerate() {
            if let Some(deadline) = waiting.task.deadline.filter(|&at| at <= self.now) {
                fired.push((deadline, 0, position as u64, Decision::Expire { task: waiting.task.id }));
            }
        }
        for running in &mut self.running {
            if let Some(at) = running.abort_at.take_if(|at| *at <= self.now) {
                fired.push((
                    at,
                    1,
                    running.batch.0,
                    Decision::Abort { batch: running.batch, cause: AbortCause::RunLimit },
                ));
            }
        }
        fired.sort_by_key(|&(at, kind, number, _)| (at, kind, number));
        out.extend(fired.into_iter().map(|(.., decision)| decision));
        self.waiting.retain(|waiting| waiting.task.deadline.is_none_or(|at| at > self.now));
    }

    fn batching(&self, place: Place) -> Option<Batching> {
        match place {
            Place::Worker(worker) => self.workers.contains(&worker).then_some(Batching::NONE),
            Place::Placement(id) => self.placements.iter().find(|&&(of, _)| of == id).map(|&(_, batching)| batching),
        }
    }

    fn release(&self, waiting: &Waiting, batching: Batching) -> MonotonicTime {
        let latest = waiting.arrival.saturating_add(batching.max_delay);
        match waiting.task.deadline {
            Some(deadline) if !batching.max_delay.is_zero() => {
                let start = deadline.as_nanos().saturating_sub(waiting.task.cost.as_nanos() as u64);
                latest.min(MonotonicTime::from_nanos(start))
            }
            _ => latest,
        }
    }

    /// Everything that waits with this task for the same place in the same shape.
    fn line(&self, of: &Waiting) -> Vec<&Waiting> {
        let kin = |waiting: &Waiting| {
            let alone = waiting.is_alone.then_some(waiting.task.id);
            (waiting.task.place, alone.is_none().then_some(waiting.task.shape), alone)
        };
        self.waiting.iter().filter(|other| kin(other) == kin(of)).collect()
    }

    /// When the line of this task may start, if not now.
    fn held_until(&self, of: &Waiting) -> Option<MonotonicTime> {
        let batching = self.batching(of.task.place).filter(|_| !of.is_alone)?;
        let line = self.line(of);
        let rows: u64 = line.iter().map(|waiting| u64::from(waiting.task.rows.max(1))).sum();
        let release = line.iter().map(|waiting| self.release(waiting, batching)).min()?;
        (rows < u64::from(batching.max_rows) && release > self.now).then_some(release)
    }

    fn wake(&self) -> Option<MonotonicTime> {
        let deadlines = self.waiting.iter().filter_map(|waiting| waiting.task.deadline);
        let aborts = self.running.iter().filter_map(|running| running.abort_at);
        let releases = self.waiting.iter().filter_map(|waiting| self.held_until(waiting));
        deadlines.chain(aborts).chain(releases).min()
    }

    fn serves(&self, worker: WorkerId, place: Place) -> bool {
        match place {
            Place::Worker(pinned) => pinned == worker,
            Place::Placement(id) => self.replicas.iter().any(|&(_, of, home)| (of, home) == (id, worker)),
        }
    }

    fn dispatch(&mut self, out: &mut Vec<Decision>) {
        while let Some(decision) = self.next_batch() {
            out.push(decision);
        }
    }

    fn next_batch(&mut self) -> Option<Decision> {
        let first = *self.free_slots.first()?;
        let idle = |worker: &&WorkerId| self.running.iter().all(|running| running.worker != **worker);
        let (head, worker) = self.waiting.iter().find_map(|waiting| {
            let is_head = self.line(waiting).first().is_some_and(|first| first.task.id == waiting.task.id);
            if !is_head || self.held_until(waiting).is_some() {
                return None;
            }
            let worker = self.workers.iter().filter(idle).find(|&&worker| self.serves(worker, waiting.task.place))?;
            Some((waiting.clone(), *worker))
        })?;
        let place = head.task.place;
        let slot = self.warm.get(&worker).copied().filter(|warm| self.free_slots.contains(warm)).unwrap_or(first);
        self.warm.insert(worker, slot);
        let replica = match place {
            Place::Worker(_) => None,
            Place::Placement(id) => {
                self.replicas.iter().filter(|&&(_, of, home)| (of, home) == (id, worker)).map(|&(id, ..)| id).min()
            }
        };
        let max_rows = u64::from(self.batching(place)?.max_rows);
        let mut rows = 0;
        let mut members = Vec::new();
        for waiting in self.line(&head) {
            rows += u64::from(waiting.task.rows.max(1));
            if !members.is_empty() && rows > max_rows {
                break;
            }
            members.push(waiting.clone());
        }
        let tasks: BatchTasks = members.iter().map(|member| member.task.id).collect();
        let run_limit = members.iter().map(|member| member.task.run_limit).max()?;
        let weights = members.iter().map(|member| u64::from(member.task.rows.max(1))).collect();
        self.waiting.retain(|waiting| !tasks.contains(&waiting.task.id));
        self.free_slots.remove(&slot);
        self.batches += 1;
        let batch = BatchId(self.batches);
        let abort_at = Some(self.now.saturating_add(run_limit));
        let running = Running { batch, slot, slot_comes_back: true, worker, tasks: tasks.clone(), members, abort_at };
        self.running.push(running);
        Some(Decision::Dispatch { batch, slot, worker, replica, tasks, weights, run_limit, phase: Phase::Shared })
    }

    fn admit(&self, task: &Task) -> Result<(), RejectReason> {
        self.batching(task.place).ok_or(RejectReason::UnknownPlace)?;
        if task.deadline.is_some_and(|at| at <= self.now || at < self.now.saturating_add(task.cost)) {
            return Err(RejectReason::WontMeetDeadline);
        }
        if let Place::Worker(_) = task.place {
            let pinned = self.waiting.iter().filter(|waiting| waiting.task.place == task.place).count();
            return if pinned < MAX_PINNED_TASKS_PER_WORKER { Ok(()) } else { Err(RejectReason::QueueFull) };
        }
        let queued: Vec<&Task> = self.waiting.iter().map(|waiting| &waiting.task).collect();
        let queued: Vec<&Task> = queued.into_iter().filter(|task| matches!(task.place, Place::Placement(_))).collect();
        let bytes: u64 = queued.iter().map(|task| task.bytes).sum();
        if queued.iter().filter(|other| other.tenant == task.tenant).count() >= self.config.max_queued_tasks_per_tenant
        {
            Err(RejectReason::TenantQueueFull)
        } else if queued.len() >= self.config.max_queued_tasks || bytes + task.bytes > self.config.max_queued_bytes {
            Err(RejectReason::QueueFull)
        } else {
            Ok(())
        }
    }

    fn drop_place(&mut self, place: Place, out: &mut Vec<Decision>) {
        let dropped = self.waiting.iter().filter(|waiting| waiting.task.place == place);
        out.extend(dropped.map(|waiting| Decision::Drop { task: waiting.task.id }));
        self.waiting.retain(|waiting| waiting.task.place != place);
    }

    /// Where they were before; who cannot be served or is too late ends.
    fn come_back(&mut self, members: Vec<Waiting>, outcome: Outcome, out: &mut Vec<Decision>) {
        for member in members {
            let task = member.task.id;
            if self.batching(member.task.place).is_none() || (outcome == Outcome::Split && member.is_alone) {
                out.push(Decision::Drop { task });
            } else if member.task.deadline.is_some_and(|at| at <= self.now) {
                out.push(Decision::Expire { task });
            } else {
                let at = self.waiting.partition_point(|other| other.number < member.number);
                let is_alone = member.is_alone || outcome == Outcome::Split;
                self.waiting.insert(at, Waiting { is_alone, ..member });
            }
        }
    }

    fn knows(&self, task: TaskId) -> bool {
        self.waiting.iter().any(|waiting| waiting.task.id == task)
            || self.running.iter().any(|running| running.tasks.contains(&task))
    }

    fn apply(&mut self, event: &Event, out: &mut Vec<Decision>) {
        match event {
            // Nothing here may be ended for others.
            Event::Policy { .. } | Event::Share { .. } | Event::MemoryShort { .. } => {}
            Event::SlotUp { slot, .. } => match self.running.iter_mut().find(|running| running.slot == *slot) {
                Some(running) => running.slot_comes_back = true,
                None => {
                    self.free_slots.insert(*slot);
                }
            },
            Event::SlotDown { slot } => {
                self.free_slots.remove(slot);
                for running in self.running.iter_mut().filter(|running| running.slot == *slot) {
                    running.slot_comes_back = false;
                }
            }
            Event::WorkerUp { worker } => {
                if self.running.iter().all(|running| running.worker != *worker) {
                    self.workers.insert(*worker);
                }
            }
            Event::WorkerDown { worker } => {
                if self.workers.remove(worker) {
                    self.warm.remove(worker);
                    self.replicas.retain(|&(.., home)| home != *worker);
                    self.drop_place(Place::Worker(*worker), out);
                    for running in self.running.iter_mut().filter(|running| running.worker == *worker) {
                        running.abort_at = None;
                    }
                }
            }
            Event::ReplicaUp { replica, placement, worker } => {
                let known = self.replicas.iter().any(|&(id, ..)| id == *replica);
                if !known && self.workers.contains(worker) && self.batching(Place::Placement(*placement)).is_some() {
                    self.replicas.push((*replica, *placement, *worker));
                }
            }
            Event::ReplicaDown { replica } => self.replicas.retain(|&(id, ..)| id != *replica),
            Event::PlacementUp { placement, batching } => {
                self.placements.retain(|&(id, _)| id != *placement);
                self.placements.push((*placement, *batching));
            }
            Event::PlacementDown { placement } => {
                self.placements.retain(|&(id, _)| id != *placement);
                self.replicas.retain(|&(_, of, _)| of != *placement);
                self.drop_place(Place::Placement(*placement), out);
            }
            Event::Ready { task } => {
                if self.knows(task.id) {
                    return;
                }
                let mut answer = self.admit(task);
                if matches!(answer, Err(RejectReason::QueueFull | RejectReason::TenantQueueFull)) {
                    self.dispatch(out);
                    answer = self.admit(task);
                }
                match answer {
                    Ok(()) => {
                        let number = self.arrivals;
                        self.arrivals += 1;
                        let waiting = Waiting { task: task.clone(), arrival: self.now, number, is_alone: false };
                        self.waiting.push(waiting);
                    }
                    Err(reason) => {
                        out.push(Decision::Reject { task: task.id, reason, retry_after: MIN_RETRY_AFTER });
                    }
                }
            }
            Event::Cancel { task } => {
                self.waiting.retain(|waiting| waiting.task.id != *task);
                for running in &mut self.running {
                    running.members.retain(|member| member.task.id != *task);
                }
            }
            Event::Done { batch, outcome, .. } => {
                if let Some(position) = self.running.iter().position(|running| running.batch == *batch) {
                    let running = self.running.remove(position);
                    if running.slot_comes_back {
                        self.free_slots.insert(running.slot);
                    }
                    if matches!(outcome, Outcome::Split | Outcome::Interrupted) {
                        self.come_back(running.members, *outcome, out);
                    }
                }
            }
        }
    }
}

/// What a scheduler that knew nothing of the backlog would advise.
pub(crate) fn without_advice(decisions: &[Decision]) -> Vec<Decision> {
    let mut decisions = decisions.to_vec();
    for decision in &mut decisions {
        if let Decision::Reject { retry_after, .. } = decision {
            assert!((MIN_RETRY_AFTER..=Duration::from_secs(60)).contains(retry_after), "advice of {retry_after:?}");
            *retry_after = MIN_RETRY_AFTER;
        }
    }
    decisions
}
