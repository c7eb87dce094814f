//! The books of the node's workers and replicas: who is there, and in which part of its life.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tenantry_jail::Exit;
use tenantry_types::{MonotonicTime, ReplicaId, TrustDomain, VersionId, WorkerId};

use crate::health::Health;
use crate::meter::Residence;
use crate::placement::Placement;
use crate::worker::Worker;

/// The longest wait before a worker of a domain whose workers keep failing to start is started again.
const LONGEST_START_DELAY: Duration = Duration::from_secs(30);

/// All workers and replicas of the node, and the versions' records.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    pub(crate) workers: HashMap<WorkerId, WorkerRecord>,
    pub(crate) replicas: HashMap<ReplicaId, ReplicaRecord>,
    /// By placement, so that what one caller's inputs do to a shared model in his own domain stays there.
    pub(crate) health: HashMap<(VersionId, TrustDomain), Health>,
    pub(crate) by_serial: HashMap<(u64, u64), WorkerId>,
    pub(crate) early_exits: HashMap<(u64, u64), Exit>,
    pub(crate) start_failures: HashMap<TrustDomain, u32>,
    /// How long each version took to load the last time.
    pub(crate) load_times: HashMap<VersionId, Duration>,
    pub(crate) deaths: u64,
    /// Counts the spawners that died.
    pub(crate) spawner_generation: u64,
}

#[derive(Debug)]
pub(crate) struct WorkerRecord {
    pub(crate) worker: Arc<Worker>,
    pub(crate) state: Stage,
    /// Since when it holds no replica.
    pub(crate) empty_since: Option<MonotonicTime>,
}

/// Where a worker or replica is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Coming,
    Ready,
    Going,
}

#[derive(Debug)]
pub(crate) struct ReplicaRecord {
    pub(crate) placement: Arc<Placement>,
    pub(crate) worker: WorkerId,
    pub(crate) state: Stage,
    pub(crate) load_time: Option<Duration>,
    pub(crate) resident_bytes: u64,
    /// Held from when it is loaded.
    pub(crate) residence: Option<Box<dyn Residence>>,
    /// What its worker uses in place, where that is memory: whoever loads the same while it is held gets the same memory.
    #[expect(dead_code, reason = "held, not read")]
    pub(crate) files: Vec<Arc<File>>,
}

impl Fleet {
    pub(crate) fn worker(&self, id: WorkerId) -> Option<Arc<Worker>> {
        self.workers.get(&id).map(|record| Arc::clone(&record.worker))
    }

    /// Whether a worker has not said yet that it is ready.
    pub(crate) fn is_coming(&self, id: WorkerId) -> bool {
        self.workers.get(&id).is_some_and(|record| record.state == Stage::Coming)
    }

    /// False if the worker is not waiting to become ready.
    pub(crate) fn mark_ready(&mut self, id: WorkerId) -> bool {
        let Some(record) = self.workers.get_mut(&id) else { return false };
        let domain = record.worker.domain;
        match record.state {
            Stage::Coming => record.state = Stage::Ready,
            // Stopped while it started: it may still say so once.
            Stage::Going => return true,
            Stage::Ready => return false,
        }
        self.start_failures.remove(&domain);
        true
    }

    /// False if the replica was unloaded meanwhile.
    pub(crate) fn replica_ready(
        &mut self,
        id: ReplicaId,
        load_time: Duration,
        resident_bytes: u64,
        residence: Option<Box<dyn Residence>>,
    ) -> bool {
        let Some(record) = self.replicas.get_mut(&id) else { return false };
        record.residence = residence;
        record.state = Stage::Ready;
        record.load_time = Some(load_time);
        self.load_times.insert(record.placement.spec.version, load_time);
        record.resident_bytes = resident_bytes;
        true
    }

    pub(crate) fn remove_replica(&mut self, id: ReplicaId, now: MonotonicTime) -> Option<ReplicaRecord> {
        let record = self.replicas.remove(&id)?;
        record.placement.counters.replicas.fetch_sub(1, Ordering::AcqRel);
        let emptied = !self.replicas.values().any(|other| other.worker == record.worker);
        if emptied && let Some(worker) = self.workers.get_mut(&record.worker) {
            worker.empty_since = Some(now);
        }
        Some(record)
    }

    /// Since when a worker has had nothing to do; `None` while it has.
    pub(crate) fn worker_idle_since(&self, id: WorkerId) -> Option<MonotonicTime> {
        let record = self.workers.get(&id)?;
        let mut since = record.empty_since;
        for replica in self.replicas.values().filter(|replica| replica.worker == id) {
            if replica.state != Stage::Ready {
                return None;
            }
            since = since.max(Some(replica.placement.counters.idle_since()?));
        }
        since
    }

    pub(crate) fn health(&self, placement: &Placement) -> Option<&Health> {
        self.health.get(&(placement.spec.version, placement.domain))
    }

    pub(crate) fn all_health(&self) -> impl Iterator<Item = (VersionId, TrustDomain, &Health)> {
        self.health.iter().map(|((version, domain), health)| (*version, *domain, health))
    }

    pub(crate) fn health_mut(&mut self, placement: &Placement) -> &mut Health {
        self.health.entry((placement.spec.version, placement.domain)).or_default()
    }

    pub(crate) fn forget_version(&mut self, version: VersionId) {
        self.health.retain(|(known, _), _| *known != version);
        self.load_times.remove(&version);
    }

    pub(crate) fn all_workers(&self) -> Vec<Arc<Worker>> {
        self.workers.values().map(|record| Arc::clone(&record.worker)).collect()
    }

    pub(crate) fn start_delay(&self, domain: TrustDomain) -> Duration {
        match self.start_failures.get(&domain) {
            None => Duration::ZERO,
            Some(failures) => {
                Duration::from_millis(100).saturating_mul(1 << (*failures).min(12)).min(LONGEST_START_DELAY)
            }
        }
    }

    pub(crate) fn file_worker(&mut self, worker: Arc<Worker>, now: MonotonicTime) {
        let record = WorkerRecord { worker, state: Stage::Coming, empty_since: Some(now) };
        self.workers.insert(record.worker.id, record);
    }
}
