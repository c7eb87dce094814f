//! What tasks run on: slots and workers, free and busy, and which idle worker has the oldest work.

use std::collections::{BTreeMap, BTreeSet};

use tenantry_types::{BatchId, ReplicaId, SlotId, WorkerId};

use crate::queue::Sequence;
use crate::task::Place;

/// The slots. A slot that goes down while a batch holds it leaves when the batch is done.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    free: BTreeSet<SlotId>,
    /// Held slots, and whether they come back.
    held: BTreeMap<SlotId, bool>,
}

impl Slots {
    pub(crate) fn up(&mut self, slot: SlotId) {
        match self.held.get_mut(&slot) {
            Some(comes_back) => *comes_back = true,
            None => {
                self.free.insert(slot);
            }
        }
    }

    pub(crate) fn down(&mut self, slot: SlotId) {
        self.free.remove(&slot);
        if let Some(comes_back) = self.held.get_mut(&slot) {
            *comes_back = false;
        }
    }

    pub(crate) fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// Takes the free slot with the lowest id.
    pub(crate) fn take(&mut self) -> Option<SlotId> {
        let slot = self.free.pop_first()?;
        self.held.insert(slot, true);
        Some(slot)
    }

    pub(crate) fn give_back(&mut self, slot: SlotId) {
        if self.held.remove(&slot) == Some(true) {
            self.free.insert(slot);
        }
    }

    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// Slots that are up, held ones included.
    pub(crate) fn len(&self) -> usize {
        self.free.len() + self.held.values().filter(|&&comes_back| comes_back).count()
    }
}

/// A worker that is up.
#[derive(Debug, Default)]
pub(crate) struct Worker {
    pub(crate) running: Option<BatchId>,
    pub(crate) replicas: BTreeSet<ReplicaId>,
    /// The oldest task that may start of each place this worker serves.
    heads: BTreeSet<(Sequence, Place)>,
    /// INVARIANT: the sequence of this worker in `Workers::ready`, if it is there.
    ready: Option<Sequence>,
}

/// The workers that are up.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    workers: BTreeMap<WorkerId, Worker>,
    /// Idle workers that have work, by the oldest of it.
    ready: BTreeSet<(Sequence, WorkerId)>,
}

impl Workers {
    pub(crate) fn len(&self) -> usize {
        self.workers.len()
    }

    pub(crate) fn get_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.workers.get_mut(&id)
    }

    pub(crate) fn contains(&self, id: WorkerId) -> bool {
        self.workers.contains_key(&id)
    }

    pub(crate) fn insert(&mut self, id: WorkerId) {
        self.workers.entry(id).or_default();
    }

    pub(crate) fn remove(&mut self, id: WorkerId) -> Option<Worker> {
        let worker = self.workers.remove(&id)?;
        if let Some(sequence) = worker.ready {
            self.ready.remove(&(sequence, id));
        }
        Some(worker)
    }

    /// Tells a worker that the head of a place it serves changed.
    pub(crate) fn offer(&mut self, id: WorkerId, place: Place, old: Option<Sequence>, new: Option<Sequence>) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        if let Some(sequence) = old {
            worker.heads.remove(&(sequence, place));
        }
        if let Some(sequence) = new {
            worker.heads.insert((sequence, place));
        }
        self.settle(id);
    }

    /// The idle worker with the oldest task that may start, and that task's place.
    pub(crate) fn next(&self) -> Option<(WorkerId, Place)> {
        let &(_, id) = self.ready.first()?;
        let &(_, place) = self.workers.get(&id)?.heads.first()?;
        Some((id, place))
    }

    pub(crate) fn start(&mut self, id: WorkerId, batch: BatchId) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.running = Some(batch);
            self.settle(id);
        }
    }

    pub(crate) fn finish(&mut self, id: WorkerId, batch: BatchId) {
        if let Some(worker) = self.workers.get_mut(&id)
            && worker.running == Some(batch)
        {
            worker.running = None;
            self.settle(id);
        }
    }

    /// Brings `ready` in line with one worker.
    fn settle(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let ready = worker.heads.first().map(|&(sequence, _)| sequence).filter(|_| worker.running.is_none());
        if ready == worker.ready {
            return;
        }
        if let Some(sequence) = worker.ready {
            self.ready.remove(&(sequence, id));
        }
        if let Some(sequence) = ready {
            self.ready.insert((sequence, id));
        }
        worker.ready = ready;
    }
}
