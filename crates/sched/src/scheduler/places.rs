//! Places, workers and replicas come and go.

use tenantry_types::{PlacementId, ReplicaId, WorkerId};

use crate::event::Decision;
use crate::fleet::Worker;
use crate::queue::{LineId, Sequence};
use crate::scheduler::{PlaceState, Scheduler, Timer};
use crate::task::{Batching, Place};

impl Scheduler {
    pub(super) fn worker_up(&mut self, worker: WorkerId) {
        // A reused id could put two batches on one worker while an old batch is not done yet.
        if self.workers.contains_key(&worker) || self.running.values().any(|running| running.worker == worker) {
            self.stats.misuses += 1;
            return;
        }
        self.workers.insert(worker, Worker::default());
        self.places.insert(Place::Worker(worker), PlaceState::new(Batching::NONE));
    }

    pub(super) fn worker_down(&mut self, id: WorkerId, decisions: &mut Vec<Decision>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        for replica in std::mem::take(&mut worker.replicas) {
            self.replica_down(replica);
        }
        self.drop_place(Place::Worker(id), decisions);
        let running = self.workers.remove(&id).and_then(|worker| worker.running);
        // There is nobody left to end.
        if let Some(batch) = running
            && let Some(running) = self.running.get_mut(&batch)
        {
            let timers = [
                (running.overrun_at.take(), Timer::Overrun(batch)),
                (running.deadline_at.take(), Timer::Deadline(batch)),
                (running.suspended_until.take(), Timer::Suspended(batch)),
            ];
            for (at, timer) in timers {
                if let Some(at) = at {
                    self.timers.remove(&(at, timer));
                }
            }
        }
    }

    pub(super) fn replica_up(&mut self, replica: ReplicaId, placement: PlacementId, worker: WorkerId) {
        let place = Place::Placement(placement);
        let (Some(state), Some(home), false) =
            (self.places.get_mut(&place), self.workers.get_mut(&worker), self.replicas.contains_key(&replica))
        else {
            self.stats.misuses += 1;
            return;
        };
        state.replicas.insert((worker, replica));
        home.replicas.insert(replica);
        self.replicas.insert(replica, (placement, worker));
        self.publish_place(place);
    }

    pub(super) fn replica_down(&mut self, replica: ReplicaId) {
        let Some((placement, worker)) = self.replicas.remove(&replica) else { return };
        if let Some(home) = self.workers.get_mut(&worker) {
            home.replicas.remove(&replica);
        }
        let place = Place::Placement(placement);
        let Some(state) = self.places.get_mut(&place) else { return };
        state.replicas.remove(&(worker, replica));
        self.publish_place(place);
    }

    pub(super) fn placement_up(&mut self, placement: PlacementId, batching: Batching) {
        let place = Place::Placement(placement);
        let state = self.places.entry(place).or_insert_with(|| PlaceState::new(batching));
        if state.batching == batching {
            return;
        }
        let waiting = self.waiting_at(place);
        for &sequence in &waiting {
            self.detach(sequence);
        }
        if let Some(state) = self.places.get_mut(&place) {
            state.batching = batching;
        }
        for sequence in waiting {
            self.attach(sequence);
        }
    }

    pub(super) fn placement_down(&mut self, placement: PlacementId, decisions: &mut Vec<Decision>) {
        let place = Place::Placement(placement);
        let Some(state) = self.places.get(&place) else { return };
        for (_, replica) in state.replicas.clone() {
            self.replica_down(replica);
        }
        self.drop_place(place, decisions);
        self.starved.remove(&placement);
        self.costs.forget(placement);
    }

    /// Drops everything that waits at a place, oldest first, and forgets the place.
    fn drop_place(&mut self, place: Place, decisions: &mut Vec<Decision>) {
        for sequence in self.waiting_at(place) {
            if let Some(task) = self.withdraw(sequence) {
                self.stats.dropped_tasks += 1;
                decisions.push(Decision::Drop { task });
            }
        }
        self.places.remove(&place);
    }

    /// What waits at a place, oldest first.
    fn waiting_at(&self, place: Place) -> Vec<Sequence> {
        let Some(state) = self.places.get(&place) else { return Vec::new() };
        let members = |&line: &LineId| self.lines.get(line).map(|line| line.members());
        let mut all: Vec<Sequence> =
            state.lines.iter().filter_map(members).flatten().map(|(order, _)| order.sequence).collect();
        all.sort_unstable();
        all
    }
}
