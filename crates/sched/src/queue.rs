//! What waits, by place and shape: only equal shapes share a batch, so each shape at a place is a *line*, and so is each
//! task that has to run alone.
//!
//! A line is *due* when its next batch may start: it is full, or may wait for company no longer. The tasks of a line belong
//! to many flows; each flow's first task of a line is a *head*, by which the flow is found when its turn comes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rustc_hash::FxHashMap;
use slab::Slab;
use tenantry_types::MonotonicTime;

use crate::task::{Batching, Place, Task};
use crate::tree::NodeId;

/// The order of arrival. Never used twice.
pub(crate) type Sequence = u64;

/// A line, as it is numbered.
pub(crate) type LineId = usize;

/// The order of tasks within a line: by deadline where the policy heeds it, then by arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Order {
    pub(crate) key: u64,
    pub(crate) sequence: Sequence,
}

/// The order of tasks within a flow: that of a line, but for what a flow's own priorities make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    pub(crate) key: u64,
    pub(crate) order: Order,
}

/// A task in a line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    pub(crate) flow: NodeId,
    /// The key of its turn; the key of its order where it has no priority.
    pub(crate) turn_key: u64,
    pub(crate) rows: u32,
    /// The last instant at which waiting for company is fine.
    pub(crate) release: MonotonicTime,
    /// Its flow's rank, if it is the flow's head: see `Ranked`.
    pub(crate) rank: u64,
}

/// Until when a task may be kept waiting for company.
pub(crate) fn release(task: &Task, cost_ns: u64, arrival: MonotonicTime, batching: Batching) -> MonotonicTime {
    if batching.max_delay.is_zero() {
        return arrival;
    }
    // Waiting for company is a courtesy: it must not cost the task its deadline.
    let latest = arrival.saturating_add(batching.max_delay);
    task.deadline
        .map_or(latest, |deadline| latest.min(MonotonicTime::from_nanos(deadline.as_nanos().saturating_sub(cost_ns))))
}

/// What of a place may share a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kin {
    /// Tasks of this shape.
    Shape(u64),
    /// Nobody but this task.
    Alone(Sequence),
}

/// Tasks of one kin at one place.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) place: Place,
    kin: Kin,
    members: BTreeMap<Order, Member>,
    /// Each flow's tasks, by turn.
    flows: BTreeMap<NodeId, VecDeque<Turn>>,
    /// How many members have another turn than their order.
    out_of_order: usize,
    /// Sum of the members' rows.
    rows: u64,
    /// The members by release. Empty while the place never waits for company.
    releases: BTreeSet<(MonotonicTime, Sequence)>,
    /// Whether its next batch may start.
    pub(crate) due: bool,
    /// INVARIANT: the instant of this line's timer in the scheduler, if there is one.
    pub(crate) timer: Option<MonotonicTime>,
}

impl Kin {
    /// How its tasks are joined at a place that joins them so.
    pub(crate) fn batching(self, of_place: Batching) -> Batching {
        match self {
            Self::Shape(_) => of_place,
            Self::Alone(_) => Batching::NONE,
        }
    }
}

impl Line {
    fn new(place: Place, kin: Kin) -> Self {
        Self {
            place,
            kin,
            members: BTreeMap::new(),
            flows: BTreeMap::new(),
            out_of_order: 0,
            rows: 0,
            releases: BTreeSet::new(),
            due: false,
            timer: None,
        }
    }

    /// A flow's first task here.
    pub(crate) fn head_of(&self, flow: NodeId) -> Option<(Turn, Member)> {
        self.nth_of(flow, 0)
    }

    /// A flow's task here at a place of its own order.
    pub(crate) fn nth_of(&self, flow: NodeId, place: usize) -> Option<(Turn, Member)> {
        let &turn = self.flows.get(&flow)?.get(place)?;
        self.members.get(&turn.order).map(|&member| (turn, member))
    }

    /// A flow's tasks here, by turn.
    pub(crate) fn members_of(&self, flow: NodeId) -> impl Iterator<Item = (Turn, Member)> {
        let turns = self.flows.get(&flow).into_iter().flatten();
        turns.filter_map(|turn| self.members.get(&turn.order).map(|&member| (*turn, member)))
    }

    /// Whether some flow's turns are not in the order of the line.
    pub(crate) fn has_priorities(&self) -> bool {
        self.out_of_order > 0
    }

    /// The flows with tasks here.
    pub(crate) fn flows(&self) -> impl Iterator<Item = NodeId> {
        self.flows.keys().copied()
    }

    /// Its tasks in order.
    pub(crate) fn members(&self) -> impl Iterator<Item = (Order, Member)> {
        self.members.iter().map(|(&order, &member)| (order, member))
    }

    /// Brings `due` up to date; answers when it becomes due by waiting.
    pub(crate) fn settle(&mut self, batching: Batching, now: MonotonicTime) -> Option<MonotonicTime> {
        let batching = self.kin.batching(batching);
        let full = self.rows >= u64::from(batching.max_rows);
        let release = self.releases.first().map(|&(at, _)| at);
        self.due = full || release.is_none_or(|at| at <= now);
        release.filter(|_| !self.due)
    }
}

/// All lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    lines: Slab<Line>,
    index: FxHashMap<(Place, Kin), LineId>,
}

impl Lines {
    pub(crate) fn get(&self, id: LineId) -> Option<&Line> {
        self.lines.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: LineId) -> Option<&mut Line> {
        self.lines.get_mut(id)
    }

    /// Adds a task; answers its line.
    pub(crate) fn push(&mut self, place: Place, kin: Kin, order: Order, member: Member, batching: Batching) -> LineId {
        let id = *self.index.entry((place, kin)).or_insert_with(|| self.lines.insert(Line::new(place, kin)));
        if let Some(line) = self.lines.get_mut(id) {
            line.rows += u64::from(member.rows);
            if !batching.max_delay.is_zero() {
                line.releases.insert((member.release, order.sequence));
            }
            line.out_of_order += usize::from(member.turn_key != order.key);
            let turn = Turn { key: member.turn_key, order };
            let turns = line.flows.entry(member.flow).or_default();
            // Nearly always the last one.
            let at = turns.partition_point(|&known| known < turn);
            turns.insert(at, turn);
            line.members.insert(order, member);
        }
        id
    }

    /// Takes a task out.
    pub(crate) fn remove(&mut self, id: LineId, order: Order) {
        let Some(line) = self.lines.get_mut(id) else { return };
        let Some(member) = line.members.remove(&order) else { return };
        line.rows -= u64::from(member.rows);
        line.releases.remove(&(member.release, order.sequence));
        line.out_of_order -= usize::from(member.turn_key != order.key);
        if let Some(turns) = line.flows.get_mut(&member.flow) {
            if let Ok(at) = turns.binary_search(&Turn { key: member.turn_key, order }) {
                turns.remove(at);
            }
            if turns.is_empty() {
                line.flows.remove(&member.flow);
            }
        }
    }

    /// Forgets a line that is empty; answers whether it did.
    pub(crate) fn forget_if_empty(&mut self, id: LineId) -> bool {
        let Some(line) = self.lines.get(id).filter(|line| line.members.is_empty()) else { return false };
        self.index.remove(&(line.place, line.kin));
        self.lines.remove(id);
        true
    }
}
