//! Into the queue and out of it: every structure a waiting task is in, changed in one place.

use tenantry_types::{MonotonicTime, TaskId};

use crate::admission::Policy;
use crate::queue::{LineId, Member, Order, Sequence, release};
use crate::reserve::Tag;
use crate::scheduler::{Head, Scheduler, Timer, Waiting, Whereabouts, nanos};
use crate::share::Tier;
use crate::task::{Place, Task};
use crate::tree::{Key, NodeId};

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
        let prior = nanos(task.cost);
        if self.policy != Policy::Fair {
            return Expected { median: prior, upper: prior, certain: prior };
        }
        let cell = match task.place {
            Place::Placement(placement) => self.costs.get(placement, task.bucket),
            Place::Worker(_) => None,
        };
        let Some(cell) = cell else { return Expected { median: prior, upper: prior, certain: 0 } };
        let rows = u64::from(task.rows.max(1));
        let upper = cell.upper_ns(rows);
        Expected { median: cell.median_ns(rows), upper, certain: if cell.is_stale(self.now) { 0 } else { upper } }
    }

    /// Puts a task that was admitted into the queue.
    pub(super) fn enqueue(
        &mut self,
        task: Task,
        sequence: Sequence,
        arrival: MonotonicTime,
        tag: Option<Tag>,
        was_aborted: bool,
    ) {
        let id = task.id;
        let order = Order { key: 0, sequence };
        let waiting = Waiting {
            task,
            arrival,
            order,
            flow: 0,
            line: 0,
            cost_ns: 0,
            upper_ns: 0,
            give_up: None,
            tag,
            was_aborted,
        };
        self.waiting.insert(sequence, waiting);
        self.tasks.insert(id, Whereabouts::Waiting(sequence));
        self.attach(sequence);
    }

    /// Enters a waiting task into every book but `waiting` and `tasks`.
    pub(super) fn attach(&mut self, sequence: Sequence) {
        let Some(waiting) = self.waiting.get(&sequence) else { return };
        let expected = self.expected(&waiting.task);
        let flow = self.tree.flow(waiting.task.tenant, waiting.task.deployment, waiting.task.key);
        self.ensure_floor(waiting.task.tenant);
        let Some(waiting) = self.waiting.get_mut(&sequence) else { return };
        let task = &waiting.task;
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
        waiting.order = order;
        waiting.flow = flow;
        waiting.cost_ns = expected.median;
        waiting.upper_ns = expected.upper;
        let certain = if self.policy == Policy::Fair { expected.certain } else { 0 };
        waiting.give_up = deadline_ns.map(|deadline| {
            // A task that can start at the very last instant may: it is given up after it.
            let latest = deadline.saturating_sub(certain);
            MonotonicTime::from_nanos(if certain == 0 { latest } else { latest.saturating_add(1) })
        });
        let (place, shape, bytes) = (task.place, task.shape, task.bytes);
        let (give_up, tag, cost) = (waiting.give_up, waiting.tag, std::time::Duration::from_nanos(expected.median));
        self.backlog.enter(task, cost);
        let batching = self.places.get(&place).map_or(crate::Batching::NONE, |state| state.batching);
        let member = Member {
            flow,
            rows: task.rows.max(1),
            release: release(task, expected.upper, waiting.arrival, batching),
            rank,
        };
        let line = self.lines.push(place, shape, order, member, batching);
        waiting.line = line;
        if let Some(at) = give_up {
            self.timers.insert((at, Timer::Expire(sequence)));
        }
        if let Some(tag) = tag {
            self.reserves.push(tag, sequence);
        }
        self.tree.count_queued(flow, bytes, expected.median, true);
        if let Some(state) = self.places.get_mut(&place) {
            state.tasks += 1;
            state.lines.insert(line);
        }
        self.settle_line(line);
        self.publish(line, flow);
        self.settle_starved(place);
    }

    /// Takes a waiting task out of every book but `waiting` and `tasks`.
    pub(super) fn detach(&mut self, sequence: Sequence) {
        let Some(waiting) = self.waiting.get(&sequence) else { return };
        let (line, order, flow, place) = (waiting.line, waiting.order, waiting.flow, waiting.task.place);
        if let Some(at) = waiting.give_up {
            self.timers.remove(&(at, Timer::Expire(sequence)));
        }
        if let Some(tag) = waiting.tag {
            self.reserves.take(tag, sequence);
        }
        self.backlog.leave(&waiting.task, std::time::Duration::from_nanos(waiting.cost_ns));
        self.tree.count_queued(flow, waiting.task.bytes, waiting.cost_ns, false);
        self.lines.remove(line, order);
        if let Some(state) = self.places.get_mut(&place) {
            state.tasks = state.tasks.saturating_sub(1);
        }
        self.settle_line(line);
        self.publish(line, flow);
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

    /// Takes a waiting task out of every book.
    pub(super) fn strike(&mut self, sequence: Sequence) -> Option<Waiting> {
        self.detach(sequence);
        self.waiting.remove(&sequence)
    }

    /// The same for a task that ends here.
    pub(super) fn withdraw(&mut self, sequence: Sequence) -> Option<TaskId> {
        let waiting = self.strike(sequence)?;
        self.tasks.remove(&waiting.task.id);
        if let Some(tag) = waiting.tag {
            self.forgive(tag);
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
        if known.map(|known| (known.order, known.rank)) == head.map(|(order, member)| (order, member.rank)) {
            return;
        }
        if let Some(Head { group, rank, order }) = known {
            self.ranked.remove(&(group, rank, order, line, flow));
            if let Some(node) = self.tree.get_mut(flow) {
                node.heads.remove(&(order, line));
            }
        }
        match head {
            Some((order, member)) => {
                let group = match self.tree.get(flow).map(|node| node.key) {
                    Some(Key::Flow(tenant, ..)) => self.tree.group_of(tenant),
                    _ => return,
                };
                let head = Head { group, rank: member.rank, order };
                self.ranked.insert((group, head.rank, order, line, flow));
                self.heads.insert((line, flow), head);
                if let Some(node) = self.tree.get_mut(flow) {
                    node.heads.insert((order, line));
                }
                self.tree.activate(flow);
            }
            None => {
                self.heads.remove(&(line, flow));
                self.tree.deactivate(flow);
            }
        }
    }

    /// The same for all lines of a place, after somebody began or ceased to serve it.
    pub(super) fn publish_place(&mut self, place: Place) {
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
