//! Reservations: virtual-clock tags at arrival, and how long a batch may be so that every reserved task is in time.
//!
//! A task of a reservation of rate `rho` that is expected to take `u` gets, when it arrives, `E = max(tail, now)` and
//! `F = E + u / rho`, and `tail = F`. Served in the order of `F` from `E` on, by batches no longer than [`Reserves::room`]
//! allows, it ends by `F + Q` whatever others send, as long as the rates of a slot add up to at most 1 and no batch takes
//! longer than expected: the proof is in the README beside this crate (after Zhang, "VirtualClock", 1990).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rustc_hash::FxHashMap;
use slab::Slab;
use tenantry_types::{MonotonicTime, SlotId, WorkerId};

use crate::queue::Sequence;
use crate::share::{Rate, Reservation, SlotGroup};
use crate::task::Place;
use crate::tree::Key;

/// A reservation, as it is numbered.
pub(crate) type ReserveId = usize;

/// A task's place in its reservation; fixed when it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) reserve: ReserveId,
    /// E: from when on it counts as within the rate.
    pub(crate) eligible_ns: u64,
    /// F: by when the rate alone would have served it.
    pub(crate) finish_ns: u64,
}

#[derive(Debug)]
pub(crate) struct Reserve {
    pub(crate) key: Key,
    pub(crate) group: SlotGroup,
    pub(crate) settings: Reservation,
    /// Whether other work is suspended for it.
    pub(crate) guaranteed: bool,
    /// sigma / rho: by how much a task may be served before its E, where all that is reserved on the slot has room.
    pub(crate) lead_ns: u64,
    /// The slot on which its rate was found room. None for a class's floor, and where slots are missing.
    pub(crate) home: Option<SlotId>,
    tail_ns: u64,
    /// Of the time up to `tail_ns` what was not used by the reservation: its tasks were served by weight, or went away.
    spare_ns: u64,
    /// What was asked for, as the instant by which the rate will have served it: who asks for no more than the burst ahead
    /// of now is within the reservation.
    asked_up_to_ns: u64,
    /// Its waiting tasks by F, with E.
    queue: BTreeMap<(u64, Sequence), u64>,
    /// The same by where they are to run.
    places: FxHashMap<Place, AtPlace>,
    /// The first task of each place that somebody serves: what waits for a model that is not loaded hides nothing.
    heads: BTreeSet<(u64, Sequence, Place)>,
    /// INVARIANT: the F of its entry in `Reserves::pending`, if it has one.
    pending: Option<u64>,
    /// The E of its first waiting task; the end of time where none waits.
    pub(crate) eligible_ns: u64,
    /// Where its tasks ran last.
    pub(crate) worker: Option<WorkerId>,
}

/// What waits of a reservation at one place; never empty.
#[derive(Debug, Default)]
struct AtPlace {
    tasks: BTreeMap<(u64, Sequence), u64>,
    is_served: bool,
}

impl AtPlace {
    fn head(&self, place: Place) -> Option<(u64, Sequence, Place)> {
        let first = self.tasks.keys().next().filter(|_| self.is_served);
        first.map(|&(finish, sequence)| (finish, sequence, place))
    }
}

impl Reserve {
    /// Changes what waits at a place, and keeps its head in step.
    fn change(&mut self, place: Place, change: impl FnOnce(&mut AtPlace)) {
        let at = self.places.entry(place).or_default();
        let was = at.head(place);
        change(at);
        let is = at.head(place);
        if at.tasks.is_empty() {
            self.places.remove(&place);
        }
        if was != is {
            if let Some(was) = was {
                self.heads.remove(&was);
            }
            self.heads.extend(is);
        }
    }

    /// The places that somebody serves and its tasks wait for, by the F of the first: (F, sequence, place).
    pub(crate) fn heads(&self) -> impl Iterator<Item = (u64, Sequence, Place)> {
        self.heads.iter().copied()
    }

    /// Its waiting tasks at a place by F: (F, sequence, E).
    pub(crate) fn tasks_at(&self, place: Place) -> impl Iterator<Item = (u64, Sequence, u64)> {
        let tasks = self.places.get(&place).into_iter().flat_map(|at| &at.tasks);
        tasks.map(|(&(finish, sequence), &eligible)| (finish, sequence, eligible))
    }

    pub(crate) fn head(&self) -> Option<(u64, Sequence, u64)> {
        self.queue.first_key_value().map(|(&(finish, sequence), &eligible)| (finish, sequence, eligible))
    }

    /// Its waiting tasks by F: (F, sequence, E).
    pub(crate) fn tasks(&self) -> impl Iterator<Item = (u64, Sequence, u64)> {
        self.queue.iter().map(|(&(finish, sequence), &eligible)| (finish, sequence, eligible))
    }

    /// The time in which the rate serves the burst.
    fn burst_ns(&self) -> u64 {
        self.time_for(u64::try_from(self.settings.burst.as_nanos()).unwrap_or(u64::MAX))
    }

    fn time_for(&self, device_ns: u64) -> u64 {
        let time = self.settings.rate.time_for(Duration::from_nanos(device_ns));
        time.map_or(u64::MAX / 4, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4))
    }
}

/// All reservations.
#[derive(Debug, Default)]
pub(crate) struct Reserves {
    reserves: Slab<Reserve>,
    index: FxHashMap<Key, ReserveId>,
    /// Those with waiting tasks, by the F of the first.
    pending: BTreeSet<(SlotGroup, u64, ReserveId)>,
    /// By home.
    homes: BTreeMap<SlotId, Vec<ReserveId>>,
}

impl Reserves {
    pub(crate) fn is_empty(&self) -> bool {
        self.reserves.is_empty()
    }

    pub(crate) fn get(&self, id: ReserveId) -> Option<&Reserve> {
        self.reserves.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: ReserveId) -> Option<&mut Reserve> {
        self.reserves.get_mut(id)
    }

    /// Whether it is the floor of a class.
    pub(crate) fn is_floor(&self, id: ReserveId) -> bool {
        self.reserves.get(id).is_some_and(|reserve| matches!(reserve.key, Key::BestEffort(_)))
    }

    pub(crate) fn find(&self, key: &Key) -> Option<ReserveId> {
        self.index.get(key).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ReserveId, &Reserve)> {
        self.reserves.iter()
    }

    /// Adds a reservation or changes one; what waits keeps its tags.
    pub(crate) fn set(&mut self, key: Key, group: SlotGroup, settings: Reservation, guaranteed: bool) -> ReserveId {
        let id = *self.index.entry(key).or_insert_with(|| {
            self.reserves.insert(Reserve {
                key,
                group,
                settings,
                guaranteed,
                lead_ns: 0,
                home: None,
                tail_ns: 0,
                spare_ns: 0,
                asked_up_to_ns: 0,
                queue: BTreeMap::new(),
                places: FxHashMap::default(),
                heads: BTreeSet::new(),
                pending: None,
                eligible_ns: u64::MAX,
                worker: None,
            })
        });
        if let Some(reserve) = self.reserves.get_mut(id) {
            if let Some(finish) = reserve.pending {
                self.pending.remove(&(reserve.group, finish, id));
                self.pending.insert((group, finish, id));
            }
            reserve.group = group;
            reserve.settings = settings;
            reserve.guaranteed = guaranteed;
            reserve.lead_ns = reserve.burst_ns();
        }
        id
    }

    /// Drops a reservation. No task may keep a tag of it.
    pub(crate) fn remove(&mut self, key: &Key) {
        let Some(id) = self.index.remove(key) else { return };
        let Some(reserve) = self.reserves.try_remove(id) else { return };
        if let Some(finish) = reserve.pending {
            self.pending.remove(&(reserve.group, finish, id));
        }
        if let Some(home) = reserve.home.and_then(|home| self.homes.get_mut(&home)) {
            home.retain(|&known| known != id);
        }
    }

    /// Finds each reservation a home among the slots of its group: largest first, where it was if there is room.
    pub(crate) fn rehome(&mut self, slots: &BTreeMap<SlotGroup, Vec<SlotId>>, most: Rate) {
        let mut order: Vec<(std::cmp::Reverse<Rate>, Key, ReserveId)> = self
            .reserves
            .iter()
            .filter(|(_, reserve)| !matches!(reserve.key, Key::BestEffort(_)))
            .map(|(id, reserve)| (std::cmp::Reverse(reserve.settings.rate), reserve.key, id))
            .collect();
        order.sort_unstable();
        let mut room: BTreeMap<SlotId, u32> = BTreeMap::new();
        for &slot in slots.values().flatten() {
            room.insert(slot, most.ppm());
        }
        self.homes.clear();
        for (std::cmp::Reverse(rate), _, id) in order {
            let Some(reserve) = self.reserves.get_mut(id) else { continue };
            let of_group = slots.get(&reserve.group).map(Vec::as_slice).unwrap_or_default();
            let fits = |slot: &&SlotId| room.get(slot).is_some_and(|&room| room >= rate.ppm());
            let old = reserve.home.filter(|home| of_group.contains(home) && fits(&home));
            reserve.home = old.or_else(|| of_group.iter().find(fits).copied());
            if let Some(home) = reserve.home {
                if let Some(room) = room.get_mut(&home) {
                    *room -= rate.ppm();
                }
                self.homes.entry(home).or_default().push(id);
            }
        }
    }

    /// The reservations that are kept on a slot.
    pub(crate) fn at(&self, slot: SlotId) -> &[ReserveId] {
        self.homes.get(&slot).map(Vec::as_slice).unwrap_or_default()
    }

    /// Gives a task that arrives its tag. The second answer: whether it is within the reservation.
    pub(crate) fn tag(&mut self, id: ReserveId, cost_ns: u64, now: MonotonicTime) -> Option<(Tag, bool)> {
        let now_ns = now.as_nanos();
        let reserve = self.reserves.get_mut(id)?;
        let needs_ns = reserve.time_for(cost_ns);
        if reserve.tail_ns <= now_ns {
            // All of it is past: nothing is left to be forgiven.
            reserve.spare_ns = 0;
        }
        let eligible_ns = reserve.tail_ns.max(now_ns);
        let finish_ns = eligible_ns.saturating_add(needs_ns);
        reserve.tail_ns = finish_ns;
        let asked = reserve.asked_up_to_ns.max(now_ns).saturating_add(needs_ns);
        // A single task is always within, or a burst shorter than a task would promise nothing at all.
        let within = asked - now_ns <= reserve.lead_ns.max(needs_ns);
        if within {
            reserve.asked_up_to_ns = asked;
        }
        Some((Tag { reserve: id, eligible_ns, finish_ns }, within))
    }

    /// What `tag` would say about being within the reservation, without a tag.
    pub(crate) fn would_be_within(&self, id: ReserveId, cost_ns: u64, now: MonotonicTime) -> Option<(bool, u64)> {
        let now_ns = now.as_nanos();
        let reserve = self.reserves.get(id)?;
        let needs_ns = reserve.time_for(cost_ns);
        let asked = reserve.asked_up_to_ns.max(now_ns).saturating_add(needs_ns);
        let finish_ns = reserve.tail_ns.max(now_ns).saturating_add(needs_ns);
        Some((asked - now_ns <= reserve.lead_ns.max(needs_ns), finish_ns))
    }

    /// A task waits; `is_served`: for a place that somebody serves.
    pub(crate) fn push(&mut self, tag: Tag, sequence: Sequence, place: Place, is_served: bool) {
        if let Some(reserve) = self.reserves.get_mut(tag.reserve) {
            reserve.queue.insert((tag.finish_ns, sequence), tag.eligible_ns);
            reserve.change(place, |at| {
                at.tasks.insert((tag.finish_ns, sequence), tag.eligible_ns);
                at.is_served = is_served;
            });
        }
        self.settle(tag.reserve);
    }

    /// A task waits no more. Its time stays asked for, whichever way it went.
    pub(crate) fn take(&mut self, tag: Tag, sequence: Sequence, place: Place) {
        if let Some(reserve) = self.reserves.get_mut(tag.reserve) {
            reserve.queue.remove(&(tag.finish_ns, sequence));
            reserve.change(place, |at| {
                at.tasks.remove(&(tag.finish_ns, sequence));
            });
        }
        self.settle(tag.reserve);
    }

    /// Somebody begins or ceases to serve a place.
    pub(crate) fn set_served(&mut self, place: Place, is_served: bool) {
        for (_, reserve) in &mut self.reserves {
            if reserve.places.contains_key(&place) {
                reserve.change(place, |at| at.is_served = is_served);
            }
        }
    }

    fn settle(&mut self, id: ReserveId) {
        let Some(reserve) = self.reserves.get_mut(id) else { return };
        let first = reserve.head();
        reserve.eligible_ns = first.map_or(u64::MAX, |(_, _, eligible_ns)| eligible_ns);
        let head = first.map(|(finish, ..)| finish);
        if head == reserve.pending {
            return;
        }
        if let Some(old) = std::mem::replace(&mut reserve.pending, head) {
            self.pending.remove(&(reserve.group, old, id));
        }
        if let Some(new) = head {
            self.pending.insert((reserve.group, new, id));
        }
    }

    /// Reservations of a group with waiting tasks, by the F of the first.
    pub(crate) fn pending(&self, group: SlotGroup) -> impl Iterator<Item = ReserveId> {
        self.pending.range((group, 0, 0)..=(group, u64::MAX, usize::MAX)).map(|&(_, _, id)| id)
    }

    /// Whether any reservation has waiting tasks.
    pub(crate) fn any_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The longest batch that, begun at `at` on `slot`, leaves every reserved task of that slot in time; at most
    /// `quantum`, negative where even none does. `gone`: tasks that are in the batch itself; `keeps`: their F.
    /// `counts`: whether a reservation's waiting tasks could run at all.
    pub(crate) fn room(
        &self,
        slot: SlotId,
        at: MonotonicTime,
        quantum: Duration,
        gone: &[(ReserveId, Sequence, u64)],
        counts: &dyn Fn(&Reserve) -> bool,
    ) -> i128 {
        let at_ns = i128::from(at.as_nanos());
        let quantum_ns = i128::try_from(quantum.as_nanos()).unwrap_or(i128::MAX >> 40);
        // (rate, E, F) of those with work; (rate, from) of those without.
        let mut busy = Vec::new();
        let mut idle = Vec::new();
        let mut points: Vec<i128> = gone.iter().map(|&(_, _, finish)| i128::from(finish)).collect();
        for &id in self.at(slot) {
            let Some(reserve) = self.reserves.get(id) else { continue };
            let is_gone = |sequence: Sequence| gone.iter().any(|&(of, gone, _)| of == id && gone == sequence);
            let head = reserve.tasks().find(|&(_, sequence, _)| !is_gone(sequence)).filter(|_| counts(reserve));
            let rate = i128::from(reserve.settings.rate.ppm());
            match head {
                Some((finish, _, eligible)) => {
                    points.push(i128::from(finish));
                    busy.push((rate, i128::from(eligible), i128::from(finish)));
                }
                None => idle.push((rate, at_ns.max(i128::from(reserve.tail_ns)))),
            }
        }
        let mut room = quantum_ns;
        for &point in &points {
            let busy_demand: i128 =
                busy.iter().filter(|&&(_, _, f)| f <= point).map(|&(rate, e, _)| rate * (point - e)).sum();
            let idle_demand: i128 = idle.iter().map(|&(rate, from)| rate * (point - from).max(0)).sum();
            let demand = (busy_demand + idle_demand).div_euclid(1_000_000) + 1;
            room = room.min(point + quantum_ns - at_ns - demand);
        }
        room
    }

    /// The reservation served a task with so much device time, which is nothing if its weight did, or nobody: what was set
    /// aside for it beyond that is to spare. See [`Reserves::forgive`].
    pub(crate) fn spare(&mut self, tag: Tag, used_ns: u64) {
        if let Some(reserve) = self.reserves.get_mut(tag.reserve) {
            let used_ns = if used_ns == 0 { 0 } else { reserve.time_for(used_ns) };
            let spare_ns = (tag.finish_ns - tag.eligible_ns).saturating_sub(used_ns);
            reserve.spare_ns = reserve.spare_ns.saturating_add(spare_ns);
        }
    }

    /// A task waits again whose time was given back as if its weight had served it: taken out of what is to spare, or, where
    /// that was used already, out of what comes next.
    pub(crate) fn reclaim(&mut self, tag: Tag, now: MonotonicTime) {
        if let Some(reserve) = self.reserves.get_mut(tag.reserve) {
            let needs_ns = tag.finish_ns - tag.eligible_ns;
            let spare_ns = reserve.spare_ns.min(needs_ns);
            reserve.spare_ns -= spare_ns;
            if spare_ns < needs_ns {
                reserve.tail_ns = reserve.tail_ns.max(now.as_nanos()).saturating_add(needs_ns - spare_ns);
            }
        }
    }

    /// What the reservation did not serve is not held against it: when nothing of it waits, its next task is eligible by as
    /// much sooner, if every other reservation of the slot can still be kept. What it did serve stays counted, or a caller
    /// that sends one task after the other would have the machine for itself. `at`: when the slot will be free.
    pub(crate) fn forgive(&mut self, id: ReserveId, now: MonotonicTime, at: MonotonicTime, quantum: Duration) {
        let Some(reserve) = self.reserves.get_mut(id) else { return };
        if !reserve.queue.is_empty() {
            return;
        }
        let spare_ns = std::mem::take(&mut reserve.spare_ns);
        let old = reserve.tail_ns;
        reserve.tail_ns = old.saturating_sub(spare_ns).max(now.as_nanos()).min(old);
        if reserve.tail_ns == old {
            return;
        }
        let home = reserve.home;
        let alone = home.is_none_or(|home| self.at(home).len() <= 1);
        let kept = alone || home.is_some_and(|home| self.room(home, at, quantum, &[], &|_| true) >= 0);
        if !kept && let Some(reserve) = self.reserves.get_mut(id) {
            (reserve.tail_ns, reserve.spare_ns) = (old, spare_ns);
        }
    }
}

#[cfg(test)]
mod tests;
