//! What is wanted, what is there, and what to do about the difference.

use std::time::Duration;

use tenantry_types::{DeploymentId, MonotonicTime, ReplicaId, TenantId, TrustDomain, VersionId, WorkerId};

/// What the deployments ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    /// Of the catalogue this was read from; a plan carries it on.
    pub generation: u64,
    /// All of them. Where two name the same version, the larger bounds and the longer idle time hold.
    pub deployments: Vec<DesiredDeployment>,
    /// Replicas that need not wait to have been idle for long, because their owner asked for that.
    pub let_go: Vec<ReplicaId>,
}

/// One version a deployment wants served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredDeployment {
    /// The deployment.
    pub deployment: DeploymentId,
    /// Of the deployment.
    pub generation: u64,
    /// What it serves.
    pub version: VersionId,
    /// Who owns the model.
    pub owner: TenantId,
    /// Whether one worker may serve every tenant's data: models the operator publishes.
    pub any_data: bool,
    /// Replicas kept in the owner's own domain (the domain of any data, if `any_data`) even when nobody asks.
    pub min_replicas: u32,
    /// The most replicas in any one domain; 0 turns the deployment off.
    pub max_replicas: u32,
    /// How long a replica above the minimum may be idle before it is unloaded; none: as long as its place is not needed.
    pub idle_after: Option<Duration>,
}

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// Every worker, from the moment it was asked for to the moment it is gone.
    pub workers: Vec<ObservedWorker>,
    /// Every replica, from the moment its load was asked for to the moment it is gone.
    pub replicas: Vec<ObservedReplica>,
    /// Tasks that wait for a version that no replica in their domain serves.
    pub demand: Vec<ObservedDemand>,
    /// Versions that must not be loaded for now.
    pub quarantined: Vec<Quarantine>,
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedWorker {
    /// The worker.
    pub id: WorkerId,
    /// Whose models and data it may see.
    pub domain: TrustDomain,
    /// How far it is. A worker that died at its start and is to be replaced after a pause counts as starting.
    pub state: WorkerState,
    /// Since when it has had nothing to do; none while a task of it waits or runs.
    pub idle_since: Option<MonotonicTime>,
}

/// How far a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkerState {
    /// Asked for, not ready yet.
    Starting,
    /// Ready for loads.
    Ready,
    /// On its way out.
    Stopping,
}

/// One replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedReplica {
    /// The replica.
    pub id: ReplicaId,
    /// What it serves.
    pub version: VersionId,
    /// The domain of its worker.
    pub domain: TrustDomain,
    /// Where it is loaded.
    pub worker: WorkerId,
    /// How far it is.
    pub state: ReplicaState,
    /// Since when it has had no work; none while it loads or a task waits for it or runs on it.
    pub idle_since: Option<MonotonicTime>,
}

/// How far a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReplicaState {
    /// Asked for, not ready yet.
    Loading,
    /// Serving.
    Ready,
    /// On its way out.
    Unloading,
}

/// Tasks that wait for a version in a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedDemand {
    /// The version.
    pub version: VersionId,
    /// Where it may be served.
    pub domain: TrustDomain,
    /// How many tasks wait.
    pub waiting: u32,
}

/// A version that broke its workers too often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    /// The version.
    pub version: VersionId,
    /// Where it did; `None`: everywhere.
    pub domain: Option<TrustDomain>,
    /// When it may be tried again.
    pub until: MonotonicTime,
}

/// Bounds of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanLimits {
    /// Workers at one time, those on their way in or out included.
    pub max_workers: u32,
    /// How long a worker without replicas may be idle before it is stopped.
    pub worker_idle: Duration,
}

/// What to do next. Complete: carrying it out needs nothing else, and planning again on a state in which it is under way
/// adds nothing to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Of the desired state it was made from.
    pub generation: u64,
    /// What to do, in order.
    pub steps: Vec<Step>,
    /// When to plan again at the latest, if nothing changes before. Later than the time of this plan.
    pub wake: Option<MonotonicTime>,
    /// What is wanted and cannot be had for now.
    pub blocked: Vec<Blocked>,
}

/// One step. Each refers to things as they were observed; the one who carries it out skips what is gone by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Free what a replica holds.
    Unload {
        /// The replica; idle when the plan was made.
        replica: ReplicaId,
    },
    /// End a worker.
    StopWorker {
        /// The worker; idle when the plan was made.
        worker: WorkerId,
    },
    /// Load a version.
    Load {
        /// Where.
        worker: WorkerId,
        /// What.
        version: VersionId,
        /// The worker's domain.
        domain: TrustDomain,
    },
    /// Start a worker; what it is for is loaded once it is ready.
    StartWorker {
        /// Whose models and data it may see.
        domain: TrustDomain,
    },
}

/// A version that should have more replicas in a domain and cannot, for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// The version.
    pub version: VersionId,
    /// Where.
    pub domain: TrustDomain,
    /// What stands in the way.
    pub reason: BlockedReason,
}

/// Why a replica cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockedReason {
    /// The version broke its workers too often and may not be loaded yet.
    Quarantined,
    /// There are as many workers as there may be, and none can be spared yet.
    NoRoomForWorker,
}
