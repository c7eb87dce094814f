//! Into the queue and out of it: every structure a waiting task is in, changed in one place.

use smallvec::SmallVec;
use tenantry_types::{MonotonicTime, Priority, TaskId};

use crate::admission::Policy;
use crate::queue::{Kin, LineId, Member, Order, Sequence, release};
use crate::reserve::Tag;
use crate::scheduler::{Head, Members, Scheduler, Timer, Waiting, Whereabouts, nanos};
use crate::share::Tier;
use crate::task::{Place, Task};
use crate::tree::{Key, NodeId};

/// The most a task is taken to cost, an hour: sums over all that can wait stay far from their ends, whatever is claimed.
pub(super) const MOST_EXPECTED_NS: u64 = 3_600_000_000_000;

/// The time a task without a deadline is taken to have when its priority is weighed, a minute.
const UNDATED_SPAN_NS: u64 = 60_000_000_000;

/// What a task is expected to take alone, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// The middle of what is likely.
    pub(super) median: u64,
    /// What it will hardly exceed.
    pub(super) upper: u64,
    /// What is certain enough to refuse or drop a task for; zero where nothing is.
    pub(super) certain: u64,
}

impl Scheduler {
    pub(super) fn expected(&self, task: &Task) -> Expected {
        let prior = nanos(task.cost).min(MOST_EXPECTED_NS);
        if self.policy != Policy::Fair {
            return Expected { median: prior, upper: prior, certain: prior };
        }
        let cell = match task.place {
            Place::Placement(placement) => self.costs.get(placement, task.bucket),
            Place::Worker(_) => None,
        };
        let Some(cell) = cell else { return Expected { median: prior, upper: prior, certain: 0 } };
        let rows = u64::from(task.rows.max(1));
        let upper = cell.upper_ns(rows).min(MOST_EXPECTED_NS);
        Expected {
            median: cell.median_ns(rows).min(MOST_EXPECTED_NS),
            upper,
            certain: if cell.is_stale(self.now) { 0 } else { upper },
        }
    }

    /// Puts a task that was admitted into the queue.
    pub(super) fn enqueue(&mut self, task: Task, sequence: Sequence, tag: Option<Tag>) {
        self.put(Box::new(Waiting {
            task,
            arrival: self.now,
            order: Order { key: 0, sequence },
            turn_key: 0,
            flow: 0,
            line: 0,
            cost_ns: 0,
            upper_ns: 0,
            give_up: None,
            tag,
            was_aborted: false,
            is_alone: false,
        }));
    }

    /// By what a task's turn in its flow is found; `key` is the key of its order.
    ///
    /// A task takes its turn as if it had been given so many fifths of its time as its priority says: five by default, one
    /// where it is most urgent. So it passes those of its flow that came up to four fifths of that time before it, and
    /// nobody is passed for ever: what comes when most of a task's time is over goes behind it.
    fn turn_key(&self, task: &Task, arrival: MonotonicTime, key: u64) -> u64 {
        if self.policy != Policy::Fair || task.priority.is_default() {
            return key;
        }
        let (level, middle) = (u64::from(task.priority.level()), u64::from(Priority::default().level()));
        let is_dated = key != u64::MAX;
        if !is_dated && level > middle {
            return key;
        }
        let span_ns = if is_dated { key.saturating_sub(arrival.as_nanos()) } else { UNDATED_SPAN_NS };
        arrival.as_nanos().saturating_add((span_ns / middle).saturating_mul(level))
    }

    /// Into the queue, by its sequence.
    pub(super) fn put(&mut self, mut waiting: Box<Waiting>) {
        let sequence = waiting.order.sequence;
        self.tasks.insert(waiting.task.id, Whereabouts::Waiting(sequence));
        self.book(&mut waiting);
        self.waiting.insert(sequence, waiting);
    }

    /// Enters a waiting task into every book but `waiting` and `tasks`.
    pub(super) fn attach(&mut self, sequence: Sequence) {
        if let Some(mut waiting) = self.waiting.remove(&sequence) {
            self.book(&mut waiting);
            self.waiting.insert(sequence, waiting);
        }
    }

    fn book(&mut self, waiting: &mut Waiting) {
        let task = &waiting.task;
        let sequence = waiting.order.sequence;
        let expected = self.expected(task);
        let flow = self.tree.flow(task.tenant, task.deployment, task.key);
        self.ensure_floor(task.tenant);
        let deadline_ns = task.deadline.map(MonotonicTime::as_nanos);
        let key = if self.policy == Policy::Fair { deadline_ns.unwrap_or(u64::MAX) } else { 0 };
        let order = Order { key, sequence };
        let rank = match self.policy {
            Policy::Fair => deadline_ns.map_or(u64::MAX, |deadline| deadline.saturating_sub(expected.upper)),
            Policy::Fifo | Policy::RoundRobin => 0,
            Policy::StrictPriority => match self.tree.tier(task.tenant, task.deployment, task.key) {
                Tier::Guaranteed => 0,
                Tier::Burstable => 1,
                Tier::BestEffort => 2,
            },
        };
        let certain = if self.policy == Policy::Fair { expected.certain } else { 0 };
        let give_up = deadline_ns.map(|deadline| {
            // A task that can start at the very last instant may: it is given up after it.
            let latest = deadline.saturating_sub(certain);
            MonotonicTime::from_nanos(if certain == 0 { latest } else { latest.saturating_add(1) })
        });
        let turn_key = self.turn_key(task, waiting.arrival, key);
        let (place, bytes) = (task.place, task.bytes);
        self.backlog.enter(task, std::time::Duration::from_nanos(expected.median));
        let kin = if waiting.is_alone { Kin::Alone(sequence) } else { Kin::Shape(task.shape) };
        let mut batching = crate::Batching::NONE;
        let state = self.places.get_mut(&place);
        if let Some(state) = &state {
            batching = kin.batching(state.batching);
        }
        let member = Member {
            flow,
            turn_key,
            rows: task.rows.max(1),
            release: release(task, expected.upper, waiting.arrival, batching),
            rank,
        };
        let line = self.lines.push(place, kin, order, member, batching);
        if let Some(state) = state {
            state.tasks += 1;
            state.lines.insert(line);
        }
        if let Some(at) = give_up {
            self.timers.insert((at, Timer::Expire(sequence)));
        }
        if let Some(tag) = waiting.tag {
            let is_served = self.is_served(place);
            self.reserves.push(tag, sequence, place, is_served);
        }
        self.tree.count_queued(flow, bytes, expected.median, true);
        (waiting.order, waiting.turn_key) = (order, member.turn_key);
        (waiting.flow, waiting.line) = (flow, line);
        (waiting.cost_ns, waiting.upper_ns, waiting.give_up) = (expected.median, expected.upper, give_up);
        self.settle_line(line);
        self.publish(line, flow);
        self.settle_starved(place);
    }

    /// Takes a waiting task out of every book but `waiting` and `tasks`.
    pub(super) fn detach(&mut self, sequence: Sequence) {
        if let Some(waiting) = self.waiting.remove(&sequence) {
            self.unbook(&waiting);
            self.tree.count_queued(waiting.flow, waiting.task.bytes, waiting.cost_ns, false);
            self.settle_place(waiting.line, waiting.task.place, &[waiting.flow]);
            self.waiting.insert(sequence, waiting);
        }
    }

    /// What concerns this task alone; what concerns its flow and its line is to be settled afterwards.
    fn unbook(&mut self, waiting: &Waiting) {
        if let Some(at) = waiting.give_up {
            self.timers.remove(&(at, Timer::Expire(waiting.order.sequence)));
        }
        if let Some(tag) = waiting.tag {
            self.reserves.take(tag, waiting.order.sequence, waiting.task.place);
        }
        self.backlog.leave(&waiting.task, std::time::Duration::from_nanos(waiting.cost_ns));
        self.lines.remove(waiting.line, waiting.order);
        if let Some(state) = self.places.get_mut(&waiting.task.place) {
            state.tasks = state.tasks.saturating_sub(1);
        }
    }

    fn settle_place(&mut self, line: LineId, place: Place, flows: &[NodeId]) {
        self.settle_line(line);
        for &flow in flows {
            self.publish(line, flow);
        }
        let timer = self.lines.get(line).and_then(|line| line.timer);
        if self.lines.forget_if_empty(line) {
            if let Some(at) = timer {
                self.timers.remove(&(at, Timer::Release(line)));
            }
            if let Some(state) = self.places.get_mut(&place) {
                state.lines.remove(&line);
            }
        }
        self.settle_starved(place);
    }

    /// Takes the tasks of a batch out of every book of waiting ones, and counts them as running.
    pub(super) fn strike_batch(&mut self, chosen: &[Sequence]) -> Members {
        let mut members = Members::with_capacity(chosen.len());
        // (tasks, bytes, cost) of each flow.
        let mut flows = SmallVec::<[NodeId; 8]>::new();
        let mut totals = SmallVec::<[(u32, u64, u64); 8]>::new();
        for sequence in chosen {
            let Some(waiting) = self.waiting.remove(sequence) else { continue };
            self.unbook(&waiting);
            let at = flows.iter().position(|&flow| flow == waiting.flow).unwrap_or_else(|| {
                flows.push(waiting.flow);
                totals.push((0, 0, 0));
                totals.len() - 1
            });
            if let Some((tasks, bytes, cost_ns)) = totals.get_mut(at) {
                *tasks += 1;
                *bytes = bytes.saturating_add(waiting.task.bytes);
                *cost_ns = cost_ns.saturating_add(waiting.cost_ns);
            }
            members.push(waiting);
        }
        for (&flow, &(tasks, bytes, cost_ns)) in flows.iter().zip(&totals) {
            self.tree.count_started(flow, tasks, bytes, cost_ns);
        }
        if let Some(first) = members.first() {
            self.settle_place(first.line, first.task.place, &flows);
        }
        members
    }

    /// Takes a waiting task out of every book.
    fn strike(&mut self, sequence: Sequence) -> Option<Box<Waiting>> {
        let waiting = self.waiting.remove(&sequence)?;
        self.unbook(&waiting);
        self.tree.count_queued(waiting.flow, waiting.task.bytes, waiting.cost_ns, false);
        self.settle_place(waiting.line, waiting.task.place, &[waiting.flow]);
        Some(waiting)
    }

    /// The same for a task that ends here.
    pub(super) fn withdraw(&mut self, sequence: Sequence) -> Option<TaskId> {
        let waiting = self.strike(sequence)?;
        self.tasks.remove(&waiting.task.id);
        if let Some(tag) = waiting.tag {
            self.forgive(tag, 0);
        }
        Some(waiting.task.id)
    }

    /// Whether somebody serves a place.
    pub(super) fn is_served(&self, place: Place) -> bool {
        match place {
            Place::Worker(worker) => self.workers.contains_key(&worker),
            Place::Placement(_) => self.places.get(&place).is_some_and(|state| !state.replicas.is_empty()),
        }
    }

    /// Brings a line's release and its timer up to date.
    pub(super) fn settle_line(&mut self, id: LineId) {
        let Some(line) = self.lines.get_mut(id) else { return };
        let batching = self.places.get(&line.place).map_or(crate::Batching::NONE, |state| state.batching);
        let timer = line.settle(batching, self.now);
        if timer != line.timer {
            if let Some(at) = line.timer {
                self.timers.remove(&(at, Timer::Release(id)));
            }
            if let Some(at) = timer {
                self.timers.insert((at, Timer::Release(id)));
            }
            line.timer = timer;
        }
    }

    /// Shows a flow's first task of a line to the tree and the ranking, if somebody serves it.
    pub(super) fn publish(&mut self, line: LineId, flow: NodeId) {
        let head = self.lines.get(line).filter(|known| self.is_served(known.place)).and_then(|line| line.head_of(flow));
        let known = self.heads.get(&(line, flow)).copied();
        if known.map(|known| (known.turn, known.rank)) == head.map(|(turn, member)| (turn, member.rank)) {
            return;
        }
        if let Some(Head { group, rank, turn }) = known {
            if self.is_ranked(rank) {
                self.ranked.remove(&(group, rank, turn.order, line, flow));
            }
            if let Some(node) = self.tree.get_mut(flow) {
                node.heads.remove(&(turn, line));
            }
        }
        match head {
            Some((turn, member)) => {
                let group = match self.tree.get(flow).map(|node| node.key) {
                    Some(Key::Flow(tenant, ..)) => self.tree.group_of(tenant),
                    _ => return,
                };
                let head = Head { group, rank: member.rank, turn };
                if self.is_ranked(head.rank) {
                    self.ranked.insert((group, head.rank, turn.order, line, flow));
                }
                self.heads.insert((line, flow), head);
                if let Some(node) = self.tree.get_mut(flow) {
                    node.heads.insert((turn, line));
                }
                self.tree.activate(flow);
            }
            None => {
                self.heads.remove(&(line, flow));
                self.tree.deactivate(flow);
            }
        }
    }

    /// Without a deadline nothing is ever urgent.
    fn is_ranked(&self, rank: u64) -> bool {
        self.policy != Policy::Fair || rank != u64::MAX
    }

    /// The same for all lines of a place, after somebody began or ceased to serve it.
    pub(super) fn publish_place(&mut self, place: Place) {
        self.reserves.set_served(place, self.is_served(place));
        let Some(state) = self.places.get(&place) else { return };
        let lines: Vec<LineId> = state.lines.iter().copied().collect();
        for line in lines {
            let flows: Vec<NodeId> = self.lines.get(line).map(|line| line.flows().collect()).unwrap_or_default();
            for flow in flows {
                self.publish(line, flow);
            }
        }
        self.settle_starved(place);
    }

    fn settle_starved(&mut self, place: Place) {
        if let Place::Placement(placement) = place {
            if self.places.get(&place).is_some_and(|state| state.tasks > 0 && state.replicas.is_empty()) {
                self.starved.insert(placement);
            } else {
                self.starved.remove(&placement);
            }
        }
    }
}
