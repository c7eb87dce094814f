//! The one owner of queues: events change the books, then what can run is dispatched.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tenantry_types::{BatchId, MonotonicTime, PlacementId, ReplicaId, SlotId, TaskId, WorkerId};

use crate::admission::{Backlog, SchedulerConfig};
use crate::event::{BatchTasks, Decision, Event, RejectReason, Running};
use crate::fleet::{Slots, Workers};
use crate::queue::{Entry, PlaceQueue, Sequence};
use crate::stats::{Demand, Stats};
use crate::task::{Batching, Place, Task};

/// Decides which task runs where and when.
#[derive(Debug)]
pub struct Scheduler {
    /// The latest time seen: time never runs backwards here.
    now: MonotonicTime,
    backlog: Backlog,
    /// The tasks that wait, by arrival. INVARIANT: each is in the queue of its place and in `tasks`.
    waiting: BTreeMap<Sequence, Waiting>,
    /// Every task that waits or runs.
    tasks: BTreeMap<TaskId, Whereabouts>,
    /// Everything that is up and can have a queue: each placement, and each worker for what is pinned to it.
    places: BTreeMap<Place, PlaceState>,
    replicas: BTreeMap<ReplicaId, (PlacementId, WorkerId)>,
    slots: Slots,
    workers: Workers,
    running: BTreeMap<BatchId, Running>,
    timers: BTreeSet<(MonotonicTime, Timer)>,
    /// Placements with tasks and without a replica.
    starved: BTreeSet<PlacementId>,
    next_sequence: Sequence,
    next_batch: u64,
    stats: Stats,
}

/// A task that waits.
#[derive(Debug)]
struct Waiting {
    task: Task,
    arrival: MonotonicTime,
}

#[derive(Debug, Clone, Copy)]
enum Whereabouts {
    Waiting(Sequence),
    /// In a batch; and whether somebody still waits for it.
    Running {
        cancelled: bool,
    },
}

/// What is to happen by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A deadline passes.
    Expire(Sequence),
    /// A batch of this place waits for company no longer.
    Release(Place),
    /// A batch runs past its limit.
    Abort(BatchId),
}

#[derive(Debug)]
struct PlaceState {
    queue: PlaceQueue,
    /// Who serves it. For a worker's own place: nobody but that worker, so this stays empty.
    replicas: BTreeSet<(WorkerId, ReplicaId)>,
    /// INVARIANT: the head as the workers that serve this place know it.
    head: Option<Sequence>,
    /// INVARIANT: the instant of this place's `Timer::Release`, if there is one.
    release: Option<MonotonicTime>,
}

impl PlaceState {
    fn new(batching: Batching) -> Self {
        Self { queue: PlaceQueue::new(batching), replicas: BTreeSet::new(), head: None, release: None }
    }

    fn replica_in(&self, worker: WorkerId) -> Option<ReplicaId> {
        let first = (worker, ReplicaId(0));
        self.replicas.range(first..).next().filter(|&&(of, _)| of == worker).map(|&(_, replica)| replica)
    }

    /// The workers that serve it, each once, in order.
    fn workers(&self) -> impl Iterator<Item = WorkerId> {
        let mut last = None;
        self.replicas.iter().map(|&(worker, _)| worker).filter(move |&worker| last.replace(worker) != Some(worker))
    }
}

impl Scheduler {
    /// A scheduler with nothing to run and nothing to run it on.
    pub fn new(config: SchedulerConfig) -> Self {
        Self {
            now: MonotonicTime::ZERO,
            backlog: Backlog::new(config),
            waiting: BTreeMap::new(),
            tasks: BTreeMap::new(),
            places: BTreeMap::new(),
            replicas: BTreeMap::new(),
            slots: Slots::default(),
            workers: Workers::default(),
            running: BTreeMap::new(),
            timers: BTreeSet::new(),
            starved: BTreeSet::new(),
            next_sequence: 0,
            next_batch: 1,
            stats: Stats::default(),
        }
    }

    /// Takes in what happened, in order, and appends what is to be done, in order.
    ///
    /// Returns when to poll again at the latest, even if nothing happens. A time before that of an earlier call counts
    /// as that earlier time. Tasks that become ready in one call may share a batch.
    pub fn poll(
        &mut self,
        now: MonotonicTime,
        events: impl IntoIterator<Item = Event>,
        decisions: &mut Vec<Decision>,
    ) -> Option<MonotonicTime> {
        self.now = self.now.max(now);
        self.fire_timers(decisions);
        for event in events {
            self.apply(event, decisions);
        }
        self.dispatch(decisions);
        self.timers.first().map(|&(at, _)| at)
    }

    /// Tasks that wait for this placement.
    pub fn queued(&self, placement: PlacementId) -> u32 {
        self.places.get(&Place::Placement(placement)).map_or(0, |state| count(state.queue.len()))
    }

    /// Gauges and counters.
    pub fn stats(&self) -> Stats {
        Stats {
            slots: count(self.slots.len()),
            free_slots: count(self.slots.free()),
            workers: count(self.workers.len()),
            replicas: count(self.replicas.len()),
            placements: count(self.places.len() - self.workers.len()),
            queued_tasks: count(self.backlog.tasks()),
            queued_bytes: self.backlog.bytes(),
            queued_cost: self.backlog.cost(),
            running_batches: count(self.running.len()),
            running_tasks: count(self.tasks.len() - self.waiting.len()),
            ..self.stats
        }
    }

    /// The placements that have tasks and no replica, by id.
    pub fn demand(&self) -> Vec<Demand> {
        let demand_of = |&placement: &PlacementId| {
            let queue = &self.places.get(&Place::Placement(placement))?.queue;
            let oldest = self.waiting.get(&queue.oldest()?)?.arrival;
            Some(Demand { placement, waiting: count(queue.len()), oldest })
        };
        self.starved.iter().filter_map(demand_of).collect()
    }

    fn apply(&mut self, event: Event, decisions: &mut Vec<Decision>) {
        match event {
            Event::Policy { .. } | Event::Share { .. } => {}
            Event::SlotUp { slot, .. } => self.slots.up(slot),
            Event::SlotDown { slot } => self.slots.down(slot),
            Event::WorkerUp { worker } => self.worker_up(worker),
            Event::WorkerDown { worker } => self.worker_down(worker, decisions),
            Event::ReplicaUp { replica, placement, worker } => self.replica_up(replica, placement, worker),
            Event::ReplicaDown { replica } => self.replica_down(replica),
            Event::PlacementUp { placement, batching } => self.placement_up(placement, batching),
            Event::PlacementDown { placement } => self.placement_down(placement, decisions),
            Event::Ready { task } => self.ready(task, decisions),
            Event::Again { task } => self.again(task, decisions),
            Event::Cancel { task } => self.cancel(task),
            Event::Done { batch, used, .. } => self.done(batch, used),
        }
    }

    // Tasks.

    fn ready(&mut self, task: Task, decisions: &mut Vec<Decision>) {
        if self.tasks.contains_key(&task.id) {
            self.stats.misuses += 1;
            return;
        }
        let refusal = match self.admit(&task) {
            // What can start at once makes room, so a burst is refused only for what really has to wait.
            Err(RejectReason::QueueFull | RejectReason::TenantQueueFull) => {
                self.dispatch(decisions);
                self.admit(&task)
            }
            answer => answer,
        };
        if let Err(reason) = refusal {
            self.stats.rejected_tasks += 1;
            decisions.push(Decision::Reject { task: task.id, reason, retry_after: self.retry_after() });
            return;
        }
        self.stats.admitted_tasks += 1;
        self.enqueue(task);
    }

    fn again(&mut self, task: Task, decisions: &mut Vec<Decision>) {
        if self.tasks.contains_key(&task.id) {
            self.stats.misuses += 1;
        } else if !self.places.contains_key(&task.place) {
            decisions.push(Decision::Drop { task: task.id });
        } else if task.deadline.is_some_and(|deadline| deadline <= self.now) {
            self.stats.expired_tasks += 1;
            decisions.push(Decision::Expire { task: task.id });
        } else {
            self.enqueue(task);
        }
    }

    fn admit(&self, task: &Task) -> Result<(), RejectReason> {
        let state = self.places.get(&task.place).ok_or(RejectReason::UnknownPlace)?;
        if let Some(deadline) = task.deadline
            && (deadline <= self.now || deadline < self.now.saturating_add(task.cost))
        {
            return Err(RejectReason::WontMeetDeadline);
        }
        self.backlog.room_for(task, state.queue.len())
    }

    fn enqueue(&mut self, task: Task) {
        let Some(state) = self.places.get_mut(&task.place) else {
            return;
        };
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        state.queue.push(Entry::new(sequence, &task, self.now, state.queue.batching()), self.now);
        if let Some(deadline) = task.deadline {
            self.timers.insert((deadline, Timer::Expire(sequence)));
        }
        let place = task.place;
        self.backlog.enter(&task);
        self.tasks.insert(task.id, Whereabouts::Waiting(sequence));
        self.waiting.insert(sequence, Waiting { task, arrival: self.now });
        self.settle(place);
    }

    fn cancel(&mut self, id: TaskId) {
        match self.tasks.get_mut(&id) {
            Some(&mut Whereabouts::Waiting(sequence)) => {
                self.stats.cancelled_tasks += 1;
                self.withdraw(sequence);
            }
            Some(Whereabouts::Running { cancelled }) if !*cancelled => {
                *cancelled = true;
                self.stats.cancelled_running_tasks += 1;
            }
            // Already cancelled, or it ended while the news was on its way.
            Some(Whereabouts::Running { .. }) | None => {}
        }
    }

    /// Takes a waiting task out of every book.
    fn withdraw(&mut self, sequence: Sequence) -> Option<TaskId> {
        let task = self.strike(sequence)?;
        self.tasks.remove(&task.id);
        if let Some(state) = self.places.get_mut(&task.place) {
            state.queue.remove(sequence, task.shape, self.now);
            self.settle(task.place);
        }
        Some(task.id)
    }

    /// Takes a task off the books of those that wait, all but the queue of its place and `tasks`.
    fn strike(&mut self, sequence: Sequence) -> Option<Task> {
        let Waiting { task, .. } = self.waiting.remove(&sequence)?;
        if let Some(deadline) = task.deadline {
            self.timers.remove(&(deadline, Timer::Expire(sequence)));
        }
        self.backlog.leave(&task);
        Some(task)
    }

    // Batches.

    /// FIFO: while a slot is free, the oldest task that an idle worker can run gets it.
    fn dispatch(&mut self, decisions: &mut Vec<Decision>) {
        while self.slots.has_free()
            && let Some((worker, place)) = self.workers.next()
            && let Some(slot) = self.slots.take()
        {
            decisions.extend(self.start_batch(slot, worker, place));
        }
    }

    fn start_batch(&mut self, slot: SlotId, worker: WorkerId, place: Place) -> Option<Decision> {
        let state = self.places.get_mut(&place)?;
        let replica = state.replica_in(worker);
        let mut tasks = BatchTasks::new();
        let mut cost = Duration::ZERO;
        let mut run_limit = Duration::ZERO;
        for sequence in state.queue.take_batch(self.now) {
            let Some(task) = self.strike(sequence) else {
                continue;
            };
            self.tasks.insert(task.id, Whereabouts::Running { cancelled: false });
            cost = cost.saturating_add(task.cost);
            run_limit = run_limit.max(task.run_limit);
            tasks.push(task.id);
        }
        let batch = BatchId(self.next_batch);
        self.next_batch += 1;
        self.workers.start(worker, batch);
        self.settle(place);

        let abort_at = self.now.saturating_add(run_limit);
        self.timers.insert((abort_at, Timer::Abort(batch)));
        self.stats.dispatched_batches += 1;
        self.stats.dispatched_tasks += tasks.len() as u64;
        let running = Running { slot, worker, tasks: tasks.clone(), cost, started: self.now, abort_at: Some(abort_at) };
        self.running.insert(batch, running);
        let weights = tasks.iter().map(|_| 1).collect();
        let phase = crate::Phase::Shared;
        Some(Decision::Dispatch { batch, slot, worker, replica, tasks, weights, run_limit, phase })
    }

    fn done(&mut self, batch: BatchId, used: Duration) {
        let Some(running) = self.running.remove(&batch) else {
            self.stats.misuses += 1;
            return;
        };
        for task in &running.tasks {
            self.tasks.remove(task);
        }
        if let Some(at) = running.abort_at {
            self.timers.remove(&(at, Timer::Abort(batch)));
        }
        self.slots.give_back(running.slot);
        self.workers.finish(running.worker, batch);
        self.backlog.learn(running.cost, used);
        self.stats.used = self.stats.used.saturating_add(used);
    }

    fn retry_after(&self) -> Duration {
        let rest = |running: &Running| running.started.saturating_add(running.cost).saturating_since(self.now);
        let running = self.running.values().map(rest).fold(Duration::ZERO, Duration::saturating_add);
        self.backlog.drain_time(running, self.slots.len())
    }

    // Time.

    fn fire_timers(&mut self, decisions: &mut Vec<Decision>) {
        while let Some(&(at, timer)) = self.timers.first()
            && at <= self.now
        {
            self.timers.pop_first();
            match timer {
                Timer::Expire(sequence) => {
                    if let Some(task) = self.withdraw(sequence) {
                        self.stats.expired_tasks += 1;
                        decisions.push(Decision::Expire { task });
                    }
                }
                Timer::Release(place) => {
                    if let Some(state) = self.places.get_mut(&place) {
                        state.release = None;
                        state.queue.advance(self.now);
                        self.settle(place);
                    }
                }
                Timer::Abort(batch) => {
                    if let Some(running) = self.running.get_mut(&batch) {
                        running.abort_at = None;
                        self.stats.aborted_batches += 1;
                        decisions.push(Decision::Abort { batch, cause: crate::AbortCause::RunLimit });
                    }
                }
            }
        }
    }

    // Places, workers and replicas.

    /// Brings the workers, the timers and `starved` in line with the queue of a place.
    fn settle(&mut self, place: Place) {
        let Some(state) = self.places.get_mut(&place) else {
            return;
        };
        let head = state.queue.head();
        if head != state.head {
            match place {
                Place::Worker(worker) => self.workers.offer(worker, place, state.head, head),
                Place::Placement(_) => {
                    for worker in state.workers() {
                        self.workers.offer(worker, place, state.head, head);
                    }
                }
            }
            state.head = head;
        }
        let release = state.queue.next_release();
        if release != state.release {
            if let Some(at) = state.release {
                self.timers.remove(&(at, Timer::Release(place)));
            }
            if let Some(at) = release {
                self.timers.insert((at, Timer::Release(place)));
            }
            state.release = release;
        }
        if let Place::Placement(placement) = place {
            if state.queue.len() > 0 && state.replicas.is_empty() {
                self.starved.insert(placement);
            } else {
                self.starved.remove(&placement);
            }
        }
    }

    fn worker_up(&mut self, worker: WorkerId) {
        // A reused id could put two batches on one worker while an old batch is not done yet.
        if self.workers.contains(worker) || self.running.values().any(|running| running.worker == worker) {
            self.stats.misuses += 1;
            return;
        }
        self.workers.insert(worker);
        self.places.insert(Place::Worker(worker), PlaceState::new(Batching::NONE));
    }

    fn worker_down(&mut self, id: WorkerId, decisions: &mut Vec<Decision>) {
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        for replica in std::mem::take(&mut worker.replicas) {
            self.replica_down(replica);
        }
        self.drop_place(Place::Worker(id), decisions);
        let running = self.workers.remove(id).and_then(|worker| worker.running);
        // There is nobody left to end.
        if let Some(batch) = running
            && let Some(at) = self.running.get_mut(&batch).and_then(|running| running.abort_at.take())
        {
            self.timers.remove(&(at, Timer::Abort(batch)));
        }
    }

    fn replica_up(&mut self, replica: ReplicaId, placement: PlacementId, worker: WorkerId) {
        let place = Place::Placement(placement);
        let (Some(state), Some(home), false) =
            (self.places.get_mut(&place), self.workers.get_mut(worker), self.replicas.contains_key(&replica))
        else {
            self.stats.misuses += 1;
            return;
        };
        state.replicas.insert((worker, replica));
        home.replicas.insert(replica);
        let head = state.head;
        self.replicas.insert(replica, (placement, worker));
        self.workers.offer(worker, place, None, head);
        self.settle(place);
    }

    fn replica_down(&mut self, replica: ReplicaId) {
        let Some((placement, worker)) = self.replicas.remove(&replica) else {
            return;
        };
        if let Some(home) = self.workers.get_mut(worker) {
            home.replicas.remove(&replica);
        }
        let place = Place::Placement(placement);
        let Some(state) = self.places.get_mut(&place) else {
            return;
        };
        state.replicas.remove(&(worker, replica));
        if state.replica_in(worker).is_none() {
            let head = state.head;
            self.workers.offer(worker, place, head, None);
        }
        self.settle(place);
    }

    fn placement_up(&mut self, placement: PlacementId, batching: Batching) {
        let place = Place::Placement(placement);
        let state = self.places.entry(place).or_insert_with(|| PlaceState::new(batching));
        if state.queue.batching() == batching {
            return;
        }
        let mut queue = PlaceQueue::new(batching);
        for sequence in state.queue.sequences() {
            if let Some(Waiting { task, arrival }) = self.waiting.get(&sequence) {
                queue.push(Entry::new(sequence, task, *arrival, batching), self.now);
            }
        }
        state.queue = queue;
        self.settle(place);
    }

    fn placement_down(&mut self, placement: PlacementId, decisions: &mut Vec<Decision>) {
        let Some(state) = self.places.get(&Place::Placement(placement)) else {
            return;
        };
        for (_, replica) in state.replicas.clone() {
            self.replica_down(replica);
        }
        self.drop_place(Place::Placement(placement), decisions);
        self.starved.remove(&placement);
    }

    /// Drops everything that waits at a place, oldest first, and forgets the place.
    fn drop_place(&mut self, place: Place, decisions: &mut Vec<Decision>) {
        let Some(state) = self.places.remove(&place) else {
            return;
        };
        if let Some(at) = state.release {
            self.timers.remove(&(at, Timer::Release(place)));
        }
        for sequence in state.queue.sequences() {
            if let Some(task) = self.withdraw(sequence) {
                self.stats.dropped_tasks += 1;
                decisions.push(Decision::Drop { task });
            }
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
