//! What tasks run on: slots and workers, free and busy.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;
use tenantry_types::{BatchId, ReplicaId, SlotId, WorkerId};

use crate::share::SlotGroup;

/// The right to run one batch; a second one may lie suspended beneath it.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) group: SlotGroup,
    pub(crate) suspendable: bool,
    /// A slot that goes down while a batch holds it leaves when the batch is done.
    up: bool,
    pub(crate) running: Option<BatchId>,
    pub(crate) suspended: Option<BatchId>,
}

/// The slots.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    slots: BTreeMap<SlotId, Slot>,
    /// Slots on which nothing runs: those that are up, and those with something to resume.
    free: BTreeSet<(SlotGroup, SlotId)>,
    /// The groups with slots that are up, and how many.
    groups: BTreeMap<SlotGroup, u32>,
}

impl Slots {
    pub(crate) fn up(&mut self, id: SlotId, group: SlotGroup, suspendable: bool) {
        let slot =
            self.slots.entry(id).or_insert(Slot { group, suspendable, up: true, running: None, suspended: None });
        self.free.remove(&(slot.group, id));
        (slot.group, slot.suspendable, slot.up) = (group, suspendable, true);
        self.settle(id);
        self.count();
    }

    pub(crate) fn down(&mut self, id: SlotId) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.up = false;
            self.settle(id);
            self.count();
        }
    }

    pub(crate) fn get(&self, id: SlotId) -> Option<&Slot> {
        self.slots.get(&id)
    }

    /// Changes what a slot holds.
    pub(crate) fn hold(&mut self, id: SlotId, change: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.slots.get_mut(&id) {
            change(slot);
            self.settle(id);
        }
    }

    fn settle(&mut self, id: SlotId) {
        let Some(slot) = self.slots.get(&id) else { return };
        let key = (slot.group, id);
        if slot.running.is_none() && (slot.up || slot.suspended.is_some()) {
            self.free.insert(key);
        } else {
            self.free.remove(&key);
        }
        if !slot.up && slot.running.is_none() && slot.suspended.is_none() {
            self.slots.remove(&id);
        }
    }

    /// The first free slot not before `from`.
    pub(crate) fn free_from(&self, from: (SlotGroup, SlotId)) -> Option<(SlotGroup, SlotId)> {
        self.free.range(from..).next().copied()
    }

    pub(crate) fn is_free(&self, group: SlotGroup, id: SlotId) -> bool {
        self.free.contains(&(group, id)) && self.slots.get(&id).is_some_and(|slot| slot.suspended.is_none())
    }

    /// Slots that are up and hold nothing.
    pub(crate) fn free(&self) -> usize {
        self.slots.values().filter(|slot| slot.up && slot.running.is_none() && slot.suspended.is_none()).count()
    }

    /// Slots that are up, held ones included.
    pub(crate) fn len(&self) -> usize {
        self.slots.values().filter(|slot| slot.up).count()
    }

    pub(crate) fn len_of(&self, group: SlotGroup) -> u32 {
        self.groups.get(&group).copied().unwrap_or(0)
    }

    /// The groups that have slots.
    pub(crate) fn groups(&self) -> impl Iterator<Item = SlotGroup> {
        self.groups.keys().copied()
    }

    fn count(&mut self) {
        self.groups.clear();
        for slot in self.slots.values().filter(|slot| slot.up) {
            *self.groups.entry(slot.group).or_default() += 1;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SlotId, &Slot)> {
        self.slots.iter().map(|(&id, slot)| (id, slot))
    }

    /// The slots that are up, by group.
    pub(crate) fn by_group(&self) -> BTreeMap<SlotGroup, Vec<SlotId>> {
        let mut groups = BTreeMap::<SlotGroup, Vec<SlotId>>::new();
        for (&id, slot) in self.slots.iter().filter(|(_, slot)| slot.up) {
            groups.entry(slot.group).or_default().push(id);
        }
        groups
    }
}

/// A worker that is up.
#[derive(Debug, Default)]
pub(crate) struct Worker {
    pub(crate) running: Option<BatchId>,
    pub(crate) replicas: BTreeSet<ReplicaId>,
    /// Where it ran last: its memory is warm there.
    pub(crate) slot: Option<SlotId>,
}

/// The workers that are up.
pub(crate) type Workers = FxHashMap<WorkerId, Worker>;
