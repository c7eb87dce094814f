//! What the node reports about itself: to the reconciler, to metrics and to operators.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tenantry_jail::Barriers;
use tenantry_plan::{
    Observed, ObservedDemand, ObservedReplica, ObservedWorker, Quarantine, ReplicaState, WorkerState as PlanWorkerState,
};
use tenantry_types::{TrustDomain, VersionId, WorkerId};
use tokio::sync::watch;

use crate::data_plane::Node;
use crate::fleet::{ReplicaRecord, Stage};
use crate::worker::Purpose;

/// The engine library in use and this machine's features: part of an optimised form's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// The library's version.
    pub version: String,
    /// The processor's features as the worker names them.
    pub cpu: String,
}

/// A version's state on this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VersionStatus {
    /// Replicas that serve.
    pub replicas_ready: u32,
    /// Replicas being loaded.
    pub replicas_loading: u32,
    /// The longest quarantine in force in any trust domain.
    pub quarantined: Option<Quarantined>,
    /// What went wrong last.
    pub last_failure: Option<String>,
    /// Deaths on record, in all trust domains.
    pub deaths: u32,
    /// The slowest load among its replicas.
    pub load_time: Option<Duration>,
    /// The largest growth of a worker's memory by it, bytes, as the worker measured.
    pub resident_bytes: Option<u64>,
}

/// A quarantine in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Why.
    pub reason: String,
    /// How long it still lasts.
    pub remaining: Duration,
}

/// Where a worker is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// Its process is coming up.
    Starting,
    /// It takes work.
    Ready,
    /// It was told to end.
    Stopping,
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerStats {
    /// Its id.
    pub worker: WorkerId,
    /// Its trust domain.
    pub domain: TrustDomain,
    /// Its process, once there is one.
    pub pid: Option<i32>,
    /// Where it is in its life.
    pub state: WorkerState,
    /// Replicas in it.
    pub replicas: u32,
    /// Whether something runs in it now.
    pub busy: bool,
    /// Whether what runs in it stands still for somebody's reservation.
    pub suspended: bool,
    /// True for a worker that exists for one registration.
    pub registration: bool,
}

/// The node in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeStats {
    /// Slots configured.
    pub slots: u16,
    /// Tasks waiting.
    pub queued_tasks: u64,
    /// Bytes of tensor data waiting.
    pub queued_bytes: u64,
    /// Batches running.
    pub running_batches: u64,
    /// Workers that died since the start, but for those that were stopped.
    pub worker_deaths: u64,
    /// Times a batch was stopped in its middle for a reservation.
    pub suspensions: u64,
    /// Batches that were ended before their end.
    pub aborted_batches: u64,
    /// Records that were lost because the disk did not keep up.
    pub dropped_records: u64,
    /// All workers.
    pub workers: Vec<WorkerStats>,
}

impl Node {
    /// The observed state, as `plan` takes it. Registration workers are not in it.
    pub fn observe(self: &Arc<Self>) -> Observed {
        let demand = self.with_scheduler(tenantry_sched::Scheduler::demand);
        let now = self.now();
        let fleet = self.fleet.lock();
        let workers = fleet.workers.iter().filter(|(_, record)| record.worker.purpose == Purpose::Serving);
        let workers = workers
            .map(|(id, record)| ObservedWorker {
                id: *id,
                domain: record.worker.domain,
                state: match record.state {
                    Stage::Coming => PlanWorkerState::Starting,
                    Stage::Ready => PlanWorkerState::Ready,
                    Stage::Going => PlanWorkerState::Stopping,
                },
                idle_since: fleet.worker_idle_since(*id),
            })
            .collect();
        let replicas = fleet
            .replicas
            .iter()
            .map(|(id, record)| ObservedReplica {
                id: *id,
                version: record.placement.spec.version,
                domain: record.placement.domain,
                worker: record.worker,
                state: match record.state {
                    Stage::Coming => ReplicaState::Loading,
                    Stage::Ready => ReplicaState::Ready,
                    Stage::Going => ReplicaState::Unloading,
                },
                idle_since: record.placement.counters.idle_since(),
            })
            .collect();
        let quarantined = fleet
            .all_health()
            .filter_map(|(version, domain, health)| {
                let in_force = health.quarantined(now)?;
                Some(Quarantine { version, domain: Some(domain), until: in_force.until })
            })
            .collect();
        drop(fleet);
        let of_tasks = demand.into_iter().filter_map(|demand| {
            let placement = self.placements.get(demand.placement)?;
            Some(ObservedDemand { version: placement.spec.version, domain: placement.domain, waiting: demand.waiting })
        });
        let demand = of_tasks.chain(self.demand_without_tasks()).collect();
        Observed { workers, replicas, demand, quarantined }
    }

    /// Bumped whenever [`Node::observe`] would answer differently in a way that matters to a plan.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The barriers around the workers that are started now, and why not the others.
    pub fn isolation(&self) -> Barriers {
        self.config.isolation(self.spawner.read().1.barriers())
    }

    /// The runtime, once a worker has told.
    pub fn runtime(&self) -> Option<RuntimeInfo> {
        self.runtime.lock().clone()
    }

    /// A version's state on this node.
    pub fn status_of(&self, version: VersionId) -> VersionStatus {
        let now = self.now();
        let fleet = self.fleet.lock();
        let mut status = VersionStatus::default();
        for record in fleet.replicas.values().filter(|record| record.placement.spec.version == version) {
            match record.state {
                Stage::Ready => status.replicas_ready += 1,
                Stage::Coming => status.replicas_loading += 1,
                Stage::Going => {}
            }
            status.load_time = status.load_time.max(record.load_time);
            if record.state == Stage::Ready {
                status.resident_bytes = status.resident_bytes.max(Some(record.resident_bytes));
            }
        }
        let records = fleet.all_health().filter(|(known, _, _)| *known == version);
        for (_, _, health) in records {
            status.deaths += health.deaths();
            status.last_failure = health.last_failure(now).map(str::to_owned).or(status.last_failure);
            if let Some(in_force) = health.quarantined(now) {
                let remaining = in_force.until.saturating_since(now);
                if status.quarantined.as_ref().is_none_or(|known| known.remaining < remaining) {
                    status.quarantined = Some(Quarantined { reason: in_force.reason, remaining });
                }
            }
        }
        status
    }

    /// The quarantine that keeps a version from serving requests of this trust domain; `None` while it serves them.
    pub fn quarantine_in(&self, version: VersionId, domain: TrustDomain) -> Option<Quarantined> {
        let now = self.now();
        let fleet = self.fleet.lock();
        let serves = |record: &ReplicaRecord| {
            let placement = &record.placement;
            record.state == Stage::Ready && placement.spec.version == version && placement.domain == domain
        };
        if fleet.replicas.values().any(serves) {
            return None;
        }
        let in_force = fleet.health.get(&(version, domain))?.quarantined(now)?;
        Some(Quarantined { reason: in_force.reason, remaining: in_force.until.saturating_since(now) })
    }

    /// The node in numbers.
    pub fn stats(self: &Arc<Self>) -> NodeStats {
        let scheduler = self.with_scheduler(tenantry_sched::Scheduler::stats);
        let fleet = self.fleet.lock();
        let mut replicas = std::collections::HashMap::<WorkerId, u32>::new();
        for record in fleet.replicas.values() {
            *replicas.entry(record.worker).or_default() += 1;
        }
        let mut workers: Vec<(WorkerStats, Arc<crate::worker::Worker>)> = fleet
            .workers
            .iter()
            .map(|(id, record)| {
                let stats = WorkerStats {
                    worker: *id,
                    domain: record.worker.domain,
                    pid: record.worker.pid(),
                    state: match record.state {
                        Stage::Coming => WorkerState::Starting,
                        Stage::Ready => WorkerState::Ready,
                        Stage::Going => WorkerState::Stopping,
                    },
                    replicas: replicas.get(id).copied().unwrap_or(0),
                    busy: false,
                    suspended: false,
                    registration: record.worker.purpose == Purpose::Registration,
                };
                (stats, Arc::clone(&record.worker))
            })
            .collect();
        let worker_deaths = fleet.deaths;
        drop(fleet);
        workers.sort_by_key(|(stats, _)| stats.worker);
        let busy = |(stats, worker): (WorkerStats, Arc<crate::worker::Worker>)| {
            let exec = worker.exec();
            let suspended = exec.running.as_ref().is_some_and(|running| running.suspended_at.is_some());
            WorkerStats { busy: exec.running.is_some(), suspended, ..stats }
        };
        NodeStats {
            slots: self.config.slots,
            queued_tasks: scheduler.queued_tasks as u64,
            queued_bytes: scheduler.queued_bytes,
            running_batches: scheduler.running_batches as u64,
            worker_deaths,
            suspensions: self.orders.suspensions.load(Ordering::Relaxed),
            aborted_batches: self.orders.aborts.load(Ordering::Relaxed),
            dropped_records: self.recorder.as_ref().map_or(0, |recorder| recorder.dropped()),
            workers: workers.into_iter().map(busy).collect(),
        }
    }
}
