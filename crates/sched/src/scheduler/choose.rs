//! What runs next on a free slot, and with whom.

use smallvec::SmallVec;
use tenantry_types::{SlotId, WorkerId};

use crate::admission::Policy;
use crate::event::{Decision, Phase};
use crate::queue::{Line, LineId, Member, Order, Sequence, Turn};
use crate::reserve::{Reserve, ReserveId};
use crate::scheduler::queues::MOST_EXPECTED_NS;
use crate::scheduler::{Scheduler, Waiting, nanos};
use crate::share::SlotGroup;
use crate::task::Place;
use crate::tree::{Key, NodeId, virtual_time};

/// Waiting tasks of one reservation at one place that are looked at for one that could start: those before it wait for
/// company.
pub(super) const LOOKAHEAD: usize = 8;
/// Places with waiting tasks of one reservation that are looked at for one with an idle worker. Those that nobody serves do
/// not count.
pub(super) const PLACES_AHEAD: usize = 64;
/// Heads that are urgent which are looked at for one that may go first: those before it wait for a busy worker, or belong to
/// who is too far ahead.
const URGENT_AHEAD: usize = 64;
/// Reservations that are looked at for one that may use its burst.
pub(super) const EARLY_AHEAD: usize = 8;
/// Tasks of a line that are looked at for each that a batch could still take.
const FILL_LOOKAHEAD: usize = 4;
/// Tasks of a flow that may be given up for a larger batch of those behind them.
const SKIPS: usize = 4;

/// What was chosen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pick {
    pub(super) sequence: Sequence,
    pub(super) line: LineId,
    pub(super) flow: NodeId,
    pub(super) worker: WorkerId,
    pub(super) phase: Phase,
}

/// How many seats each flow has had in a batch.
#[derive(Default)]
struct Seats(SmallVec<[(NodeId, usize); 8]>);

impl Seats {
    /// The flow's next task by turn.
    fn next(&mut self, line: &Line, flow: NodeId) -> Option<(Order, Member)> {
        let known = self.0.iter().position(|(known, _)| *known == flow).unwrap_or_else(|| {
            self.0.push((flow, 0));
            self.0.len() - 1
        });
        let (_, taken) = self.0.get_mut(known)?;
        let (turn, member) = line.nth_of(flow, *taken)?;
        *taken += 1;
        Some((turn.order, member))
    }
}

/// The tasks of a batch, the one it is made for first.
pub(super) type Chosen = SmallVec<[Sequence; 8]>;

impl Scheduler {
    /// Fills the free slots, then suspends for what is reserved and found none.
    pub(super) fn dispatch(&mut self, decisions: &mut Vec<Decision>) {
        let mut from = (SlotGroup::default(), SlotId(0));
        while let Some((group, slot)) = self.slots.free_from(from) {
            let next = (group, SlotId(slot.0.saturating_add(1)));
            if self.slots.get(slot).is_some_and(|slot| slot.suspended.is_some()) {
                match self.pick_reserved(group, slot, true) {
                    Some(pick) => decisions.extend(self.start(pick, slot)),
                    None => decisions.extend(self.resume(slot)),
                }
                from = next;
                continue;
            }
            match self.pick(group, slot) {
                Some(pick) => {
                    // A worker's memory is warm where it ran last.
                    let warm = self.workers.get(&pick.worker).and_then(|worker| worker.slot);
                    let warm = warm.filter(|&warm| {
                        pick.phase == Phase::Shared && self.slots.is_free(group, warm) && self.has_room(warm, pick)
                    });
                    let started = self.start(pick, warm.unwrap_or(slot));
                    // The same slot may still be free.
                    from = if started.is_some() { (group, slot) } else { next };
                    decisions.extend(started);
                }
                None => from = next,
            }
        }
        self.preempt(decisions);
    }

    fn pick(&mut self, group: SlotGroup, slot: SlotId) -> Option<Pick> {
        match self.policy {
            Policy::Fifo | Policy::StrictPriority => self.pick_ranked(group, usize::MAX, u64::MAX, |_| true),
            Policy::RoundRobin => {
                let root = self.tree.root(group);
                self.descend(root)
            }
            Policy::Fair => self.pick_fair(group, slot),
        }
    }

    fn pick_fair(&mut self, group: SlotGroup, slot: SlotId) -> Option<Pick> {
        let reserved = self.pick_reserved(group, slot, false);
        let pick = match reserved {
            Some(pick) => Some(pick),
            None => self.pick_shared(group),
        }?;
        if self.has_room(slot, pick) { Some(pick) } else { self.first_reserved_at(slot).or(Some(pick)) }
    }

    /// Whether all that is reserved on a slot will still be in time when the batch of what was picked is over; otherwise
    /// what is reserved goes first.
    fn has_room(&self, slot: SlotId, pick: Pick) -> bool {
        let upper_ns = || self.waiting.get(&pick.sequence).map_or(0, |waiting| i128::from(waiting.upper_ns));
        let is_bound = self.policy == Policy::Fair && self.needs_room(slot, pick);
        !is_bound || upper_ns() <= self.room(slot, &[pick.sequence])
    }

    fn pick_shared(&mut self, group: SlotGroup) -> Option<Pick> {
        let window = virtual_time(self.tuning.window);
        // Urgent is what would be late if it waited until everything that waits now is done, or for a batch or two.
        let slots = u64::from(self.slots.len_of(group).max(1));
        let drain_ns = self.backlog.joined_ns(nanos(self.backlog.cost())) / slots;
        let drain_ns = drain_ns.saturating_add(nanos(self.tuning.quantum));
        let horizon = self.now.as_nanos().saturating_add(drain_ns.min(2 * nanos(self.tuning.quantum)));
        let urgent = self.pick_ranked(group, URGENT_AHEAD, horizon, |flow| self.tree.is_within(flow, window));
        urgent.or_else(|| {
            let root = self.tree.find(&Key::Root(group))?;
            self.descend(root)
        })
    }

    /// The first head by rank that could start, of the first `most` that rank below `until`.
    fn pick_ranked(&self, group: SlotGroup, most: usize, until: u64, may: impl Fn(NodeId) -> bool) -> Option<Pick> {
        let first = (group, 0, crate::queue::Order { key: 0, sequence: 0 }, 0, 0);
        self.ranked
            .range(first..)
            .take_while(|(of, rank, ..)| *of == group && *rank < until)
            .take(most)
            .filter(|(_, _, _, line, flow)| self.is_due(*line) && may(*flow))
            .find_map(|&(_, _, order, line, flow)| {
                let worker = self.idle_worker(line)?;
                Some(Pick { sequence: order.sequence, line, flow, worker, phase: Phase::Shared })
            })
    }

    /// The next by virtual time, from a node down: the first whose worker is idle.
    fn descend(&self, id: NodeId) -> Option<Pick> {
        let node = self.tree.get(id)?;
        let own = node.heads.iter().find_map(|&(turn, line)| {
            let worker = self.is_due(line).then(|| self.idle_worker(line))??;
            Some(Pick { sequence: turn.order.sequence, line, flow: id, worker, phase: Phase::Shared })
        });
        own.or_else(|| node.next_children().find_map(|child| self.descend(child)))
    }

    fn is_due(&self, line: LineId) -> bool {
        self.lines.get(line).is_some_and(|line| line.due)
    }

    /// A worker that could take a line's next batch now.
    pub(super) fn idle_worker(&self, line: LineId) -> Option<WorkerId> {
        self.idle_worker_at(self.lines.get(line)?.place)
    }

    fn idle_worker_at(&self, place: Place) -> Option<WorkerId> {
        let is_idle = |worker: &WorkerId| self.workers.get(worker).is_some_and(|worker| worker.running.is_none());
        match place {
            Place::Worker(worker) => Some(worker).filter(is_idle),
            Place::Placement(_) => self.places.get(&place)?.replicas.iter().map(|&(worker, _)| worker).find(is_idle),
        }
    }

    /// The reserved task that is to run on a slot now: eligible, in the order of F, the slot's own reservations first.
    /// `is_above`: something lies suspended there, so that what begins cannot be suspended itself. Only a guarantee may
    /// take as long as it likes then, and what the slot keeps if it leaves all the others in time.
    fn pick_reserved(&self, group: SlotGroup, slot: SlotId, is_above: bool) -> Option<Pick> {
        let mut elsewhere = None;
        for id in self.reserves.pending(group) {
            let Some(reserve) = self.reserves.get(id) else { continue };
            let is_home = reserve.home == Some(slot);
            if !is_home && elsewhere.is_some() {
                continue;
            }
            let is_allowed = |pick: &Pick| !is_above || reserve.guaranteed || (is_home && self.has_room(slot, *pick));
            let found = self.first_of(reserve, self.now.as_nanos()).filter(is_allowed);
            if is_home && found.is_some() {
                return found;
            }
            elsewhere = elsewhere.or(found);
        }
        elsewhere.or_else(|| {
            let guaranteed = |reserve: &&Reserve| !is_above || reserve.guaranteed;
            let pending = self.reserves.pending(group).filter_map(|id| self.reserves.get(id)).filter(guaranteed);
            pending.take(EARLY_AHEAD).find_map(|reserve| self.early_of(reserve, slot))
        })
    }

    /// The first task of a reservation that its burst lets start on a slot before its E: as every batch that is not to be
    /// interrupted, it has to leave all that others have reserved there in time.
    pub(super) fn early_of(&self, reserve: &Reserve, slot: SlotId) -> Option<Pick> {
        let until = self.now.as_nanos().saturating_add(reserve.lead_ns);
        let pick = self.first_of(reserve, until)?;
        let waiting = self.waiting.get(&pick.sequence)?;
        let own = waiting.tag.map(|tag| tag.reserve);
        let is_alone = self.reserves.at(slot).iter().all(|&id| Some(id) == own);
        (is_alone || i128::from(waiting.upper_ns) <= self.room(slot, &[pick.sequence])).then_some(pick)
    }

    /// Whether a task that runs by its reservation does so before its E.
    fn is_early(&self, pick: Pick) -> bool {
        let tag = self.waiting.get(&pick.sequence).and_then(|waiting| waiting.tag);
        pick.phase == Phase::Reserved && tag.is_some_and(|tag| tag.eligible_ns > self.now.as_nanos())
    }

    /// The reserved task of a slot that must go before anything else, eligible or not.
    fn first_reserved_at(&self, slot: SlotId) -> Option<Pick> {
        let mut reserves: SmallVec<[(u64, ReserveId); 8]> = self
            .reserves
            .at(slot)
            .iter()
            .filter_map(|&id| self.reserves.get(id)?.head().map(|(finish, ..)| (finish, id)))
            .collect();
        reserves.sort_unstable();
        reserves.iter().find_map(|&(_, id)| self.first_of(self.reserves.get(id)?, u64::MAX))
    }

    /// The first task of a reservation with E at most `until` that could start now.
    pub(super) fn first_of(&self, reserve: &Reserve, until: u64) -> Option<Pick> {
        if reserve.eligible_ns > until {
            return None;
        }
        let mut first: Option<(u64, Pick)> = None;
        for (head, _, place) in reserve.heads().take(PLACES_AHEAD) {
            if first.as_ref().is_some_and(|(finish, _)| *finish <= head) {
                break;
            }
            let Some(worker) = self.idle_worker_at(place) else { continue };
            let tasks = reserve.tasks_at(place).take(LOOKAHEAD).take_while(|&(_, _, e)| e <= until);
            let due = tasks.map(|(finish, sequence, _)| (finish, sequence)).find_map(|(finish, sequence)| {
                let Waiting { line, flow, .. } = **self.waiting.get(&sequence)?;
                let pick = Pick { sequence, line, flow, worker, phase: Phase::Reserved };
                self.is_due(line).then_some((finish, pick))
            });
            if let Some((finish, pick)) = due.filter(|(due, _)| first.as_ref().is_none_or(|(known, _)| due < known)) {
                first = Some((finish, pick));
            }
        }
        first.map(|(_, pick)| pick)
    }

    /// Whether the length of what starts on a slot matters to what is reserved there. It does not where it would be
    /// suspended: for a guaranteed reservation on a slot that can, unless both need the same worker.
    pub(super) fn needs_room(&self, slot: SlotId, pick: Pick) -> bool {
        let at = self.reserves.at(slot);
        if at.is_empty() {
            return false;
        }
        let suspendable = self.slots.get(slot).is_some_and(|slot| slot.suspendable);
        if !suspendable {
            return true;
        }
        // Its own tasks need its worker, which is not known before one has run.
        let own = self.waiting.get(&pick.sequence).and_then(|waiting| waiting.tag).map(|tag| tag.reserve);
        at.iter()
            .filter_map(|&id| Some((id, self.reserves.get(id)?)))
            .any(|(id, reserve)| !reserve.guaranteed || reserve.worker == Some(pick.worker) || own == Some(id))
    }

    /// How long a batch of these tasks may be on a slot, nanoseconds.
    pub(super) fn room(&self, slot: SlotId, batch: &[Sequence]) -> i128 {
        let gone: SmallVec<[(ReserveId, Sequence, u64); 8]> = batch
            .iter()
            .filter_map(|&sequence| {
                let tag = self.waiting.get(&sequence)?.tag?;
                // Those of another slot have to be in time here, too.
                let is_kept = self.reserves.get(tag.reserve)?.home.is_some();
                is_kept.then_some((tag.reserve, sequence, tag.finish_ns))
            })
            .collect();
        // What waits for a worker that is missing could not run whatever the length.
        let counts = |reserve: &Reserve| reserve.heads().next().is_some();
        self.reserves.room(slot, self.now, self.tuning.quantum, &gone, &counts)
    }

    /// The tasks that run with the one picked: its line's, in order, as far as rows, time, shares and deadlines allow.
    pub(super) fn fill(&self, pick: Pick, slot: SlotId) -> Chosen {
        let mut chosen = Chosen::new();
        chosen.push(pick.sequence);
        let (Some(line), Some(anchor)) = (self.lines.get(pick.line), self.waiting.get(&pick.sequence)) else {
            return chosen;
        };
        let Some(batching) = self.places.get(&line.place).map(|state| state.batching) else { return chosen };
        let max_rows = u64::from(batching.max_rows);
        let mut rows = u64::from(anchor.task.rows.max(1));
        if self.policy != Policy::Fair {
            let group = self.tree.group_of(anchor.task.tenant);
            let others = line.members().filter(|(order, _)| order.sequence != pick.sequence);
            for (order, member) in others.filter(|(_, member)| self.is_of(member.flow, group)) {
                rows += u64::from(member.rows);
                if rows > max_rows {
                    break;
                }
                chosen.push(order.sequence);
            }
            return chosen;
        }
        if rows >= max_rows {
            return chosen;
        }
        let is_bound = self.is_early(pick) || self.needs_room(slot, pick);
        let room_ns = if is_bound { self.room(slot, &chosen) } else { i128::MAX };
        let (mut best, mut limited) = self.company(pick, line, pick.sequence, max_rows, room_ns);
        // A flow that cannot keep up has its first tasks always at their last moment, and a batch that must be over by then
        // is small, which makes it keep up even less. One that gives such a task up for the many behind it serves more of
        // its own. It is only ever its own task that it gives up, and only of a caller without a promise.
        if pick.phase == Phase::Shared && anchor.tag.is_none() {
            let later = line.members_of(pick.flow).filter(|(turn, _)| turn.order.sequence != pick.sequence);
            for (turn, _) in later.take(SKIPS) {
                if !limited {
                    break;
                }
                let (other, still) = self.company(pick, line, turn.order.sequence, max_rows, room_ns);
                if other.len() >= best.len() * 2 {
                    best = other;
                }
                limited = still;
            }
        }
        best
    }

    /// A batch with `first` and the company it finds. The second answer: whether a deadline kept company out.
    fn company(&self, pick: Pick, line: &Line, first: Sequence, max_rows: u64, room_ns: i128) -> (Chosen, bool) {
        let mut chosen = Chosen::new();
        chosen.push(first);
        let Some(anchor) = self.waiting.get(&first) else { return (chosen, false) };
        let mut rows = u64::from(anchor.task.rows.max(1));
        let budget_ns = nanos(self.tuning.quantum);
        let now_ns = self.now.as_nanos();
        let mut end_by = anchor.task.deadline.map_or(u64::MAX, |deadline| deadline.as_nanos());
        let mut limited = false;
        // Whether more may join; once the batch would take too long, whoever comes later does not make it better.
        let mut join = |sequence: Sequence, more: u32, chosen: &mut Chosen| {
            let Some(waiting) = self.waiting.get(&sequence) else { return true };
            let with = rows + u64::from(more);
            if with > max_rows {
                return true;
            }
            let (median_ns, upper_ns) = self.batch_cost(&anchor.task, with);
            let end_ns = now_ns.saturating_add(upper_ns);
            limited = end_ns > end_by;
            if limited || median_ns > budget_ns || i128::from(upper_ns) > room_ns {
                return false;
            }
            let due = waiting.task.deadline.map_or(u64::MAX, |deadline| deadline.as_nanos());
            if end_ns > due {
                // Too late for this one; those behind it have more time.
                return true;
            }
            (rows, end_by) = (with, end_by.min(due));
            chosen.push(sequence);
            with < max_rows
        };
        // Whose turn it is fills the batch first; where that leaves room, the others in order of the line.
        let from = Turn { key: anchor.turn_key, order: anchor.order };
        for (turn, member) in line.members_of(pick.flow).filter(|&(turn, _)| turn > from) {
            if !join(turn.order.sequence, member.rows, &mut chosen) {
                return (chosen, limited);
            }
        }
        let window = virtual_time(self.tuning.fill_window);
        let lookahead = FILL_LOOKAHEAD.saturating_mul(usize::try_from(max_rows).unwrap_or(usize::MAX));
        // Each flow is looked up once, however many of its tasks come in a row.
        let mut last: Option<(NodeId, bool)> = None;
        let group = self.tree.group_of(anchor.task.tenant);
        let mut seats = Seats::default();
        for (order, member) in line.members().take(lookahead).filter(|(_, member)| member.flow != pick.flow) {
            // A flow's seats are where the line has its tasks; who takes them is by turn.
            let (order, member) =
                if line.has_priorities() { seats.next(line, member.flow) } else { Some((order, member)) }
                    .unwrap_or((order, member));
            let may = match last {
                Some((flow, may)) if flow == member.flow => may,
                _ => self.is_of(member.flow, group) && self.tree.is_within(member.flow, window),
            };
            last = Some((member.flow, may));
            if may && !join(order.sequence, member.rows, &mut chosen) {
                return (chosen, limited);
            }
        }
        (chosen, limited)
    }

    /// Whether a flow may use the slots of a group.
    fn is_of(&self, flow: NodeId, group: SlotGroup) -> bool {
        matches!(self.tree.get(flow).map(|node| node.key), Some(Key::Flow(tenant, ..)) if self.tree.group_of(tenant) == group)
    }

    /// What a batch of so many rows like `task` is expected to take: the middle, and the tail.
    pub(super) fn batch_cost(&self, task: &crate::Task, rows: u64) -> (u64, u64) {
        let prior = nanos(task.cost).clamp(1, MOST_EXPECTED_NS);
        let cell = match task.place {
            Place::Placement(placement) if self.policy == Policy::Fair => self.costs.get(placement, task.bucket),
            _ => None,
        };
        match cell {
            Some(cell) => (cell.median_ns(rows).min(MOST_EXPECTED_NS), cell.upper_ns(rows).min(MOST_EXPECTED_NS)),
            None => {
                let each = prior / u64::from(task.rows.max(1));
                let all = each.saturating_mul(rows).clamp(1, MOST_EXPECTED_NS);
                (all, all)
            }
        }
    }
}
