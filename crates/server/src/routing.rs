//! The routing table: an immutable snapshot of everything a request needs to know, swapped whole after each change.
//!
//! It is built from one consistent read of the store. What outlives a swap, such as counters of what is in flight, hangs
//! on shared parts that the next table takes over; so do versions that did not change, whose identity the node relies on.

mod build;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::RwLock;
use smallvec::SmallVec;
use tenantry_node::VersionSpec;
use tenantry_policy::Grants;
use tenantry_sched::{Share, Subject};
use tenantry_store::{Key, Optimised, Organisation, Role, ShareRecord, Sharing, StoredFile, TenantMinimum};
use tenantry_types::error::sanitise;
use tenantry_types::model::{Chain, EngineOptions, PipelineFacts};
use tenantry_types::name::MAX_NAME_BYTES;
use tenantry_types::share::WorkerLimits;
use tenantry_types::{
    ActionSet, CustomRole, DataOwner, DeploymentId, Digest, ErrorCode, KeyId, Level, ModelId, ModelName, ModelRef,
    OrganisationId, PlacementId, Scope, ServiceError, ShareSettings, Signature, TenantId, TenantName, TrustDomain,
    VersionId,
};

use crate::limits::{Gate, TenantGate};
use crate::metrics::FlowMetrics;
use crate::statistics::Statistics;

/// When a caller may ask again for a version that is being registered.
const REGISTERING_RETRY: Duration = Duration::from_secs(1);
/// Characters of a version or alias that an error shows.
const SHOWN_VERSION_CHARS: usize = 64;

/// How exactly it is known when a key was last used, milliseconds.
const USED_STEP_MS: i64 = 1_000;

/// The metrics of each tenant that calls a model. Bounded by the tenants there are.
pub(crate) type Flows = RwLock<HashMap<TenantId, Arc<FlowMetrics>>>;

/// A snapshot.
#[derive(Debug, Default)]
pub(crate) struct Routing {
    /// The store's revision it was read at.
    pub(crate) revision: u64,
    /// Keys that are not revoked.
    pub(crate) keys: HashMap<KeyId, RoutedKey>,
    /// Those that are proved by a client's certificate, by what it must say.
    pub(crate) certificates: HashMap<Box<str>, KeyId>,
    pub(crate) tenants: HashMap<TenantId, Arc<RoutedTenant>>,
    /// The roles that tenants made.
    pub(crate) roles: HashMap<TenantId, Vec<CustomRole>>,
    pub(crate) tenants_by_name: HashMap<TenantName, TenantId>,
    pub(crate) organisations: HashMap<OrganisationId, RoutedOrganisation>,
    /// The share tree as the scheduler is told of it.
    pub(crate) shares: BTreeMap<Subject, Share>,
    /// By `owner/name`.
    models: HashMap<Box<[u8]>, Arc<RoutedModel>>,
}

/// A key.
#[derive(Debug)]
pub(crate) struct RoutedKey {
    pub(crate) key: Key,
    pub(crate) tenant: Arc<RoutedTenant>,
    /// Its role.
    pub(crate) roles: Arc<[Role]>,
    /// What that allows.
    pub(crate) grants: Arc<Grants>,
    /// The actions it is confined to.
    pub(crate) actions: ActionSet,
    pub(crate) scope: Arc<Scope>,
    /// When it was last used, milliseconds since the Unix epoch; outlives a table.
    pub(crate) used_ms: Arc<AtomicI64>,
}

impl RoutedKey {
    /// Takes note that it was used. Mostly a look: it is written down to the second.
    pub(crate) fn note_used(&self, now_ms: i64) {
        if now_ms.saturating_sub(self.used_ms.load(Ordering::Relaxed)) >= USED_STEP_MS {
            self.used_ms.store(now_ms, Ordering::Relaxed);
        }
    }
}

/// A tenant, with what it has in flight.
#[derive(Debug)]
pub(crate) struct RoutedTenant {
    pub(crate) id: TenantId,
    pub(crate) name: Arc<TenantName>,
    pub(crate) operator: bool,
    pub(crate) created_ms: i64,
    /// How well its workers must be kept apart.
    pub(crate) minimum: TenantMinimum,
    /// What it was given, and how often that changed.
    pub(crate) share: Option<ShareRecord>,
    pub(crate) gate: Arc<TenantGate>,
    /// Whether its requests may run in one worker with other tenants'.
    pub(crate) batches_with_others: bool,
    /// The deployments it calls that have settings of their own; mostly none.
    pub(crate) deployments: BTreeMap<DeploymentId, RoutedShare>,
    /// Its keys that have settings of their own; mostly none.
    pub(crate) keys: BTreeMap<KeyId, RoutedShare>,
}

/// A deployment or key with settings of its own.
#[derive(Debug)]
pub(crate) struct RoutedShare {
    pub(crate) record: ShareRecord,
    pub(crate) gate: Arc<Gate>,
}

/// An organisation.
#[derive(Debug)]
pub(crate) struct RoutedOrganisation {
    pub(crate) organisation: Organisation,
    pub(crate) share: Option<ShareRecord>,
}

/// A model.
#[derive(Debug)]
pub(crate) struct RoutedModel {
    pub(crate) id: ModelId,
    /// `owner/name`.
    pub(crate) full_name: Arc<str>,
    pub(crate) owner: Arc<RoutedTenant>,
    pub(crate) reference: ModelRef,
    pub(crate) shared: Sharing,
    /// The tenants it is shared with by name, those of them that there are.
    pub(crate) shared_with: HashSet<TenantId>,
    pub(crate) created_ms: i64,
    /// How well the workers that run it must be kept apart, as its owner says for this model.
    pub(crate) min_isolation: Level,
    pub(crate) deployment: RoutedDeployment,
    pub(crate) versions: BTreeMap<u32, Arc<RoutedVersion>>,
    /// By name.
    pub(crate) aliases: Vec<(ModelName, u32)>,
    /// The metrics of each calling tenant, from its first request on.
    pub(crate) flows: Arc<Flows>,
    /// What each calling tenant's requests came to.
    pub(crate) statistics: Arc<Statistics>,
}

/// The desired state of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoutedDeployment {
    pub(crate) id: DeploymentId,
    pub(crate) generation: u64,
    pub(crate) version: Option<u32>,
    pub(crate) previous: Option<u32>,
    pub(crate) min_replicas: u32,
    pub(crate) max_replicas: u32,
    pub(crate) idle_after: Option<Duration>,
    pub(crate) default_timeout: Option<Duration>,
    /// How long answers are kept to be given again.
    pub(crate) cache_ttl: Option<Duration>,
}

/// A version.
#[derive(Debug)]
pub(crate) struct RoutedVersion {
    pub(crate) id: VersionId,
    pub(crate) number: u32,
    pub(crate) state: RoutedState,
}

/// Where a version is on its way.
#[derive(Debug)]
pub(crate) enum RoutedState {
    Registering,
    Refused,
    Ready(Box<Servable>),
}

/// What serving a version takes.
#[derive(Debug)]
pub(crate) struct Servable {
    pub(crate) spec: Arc<VersionSpec>,
    /// Inputs and outputs as clients see them: without what is carried from request to request of a sequence.
    pub(crate) outward: Arc<Signature>,
    /// What is done before and behind the model.
    pub(crate) pipeline: Option<Arc<PipelineFacts>>,
    pub(crate) digest: Digest,
    pub(crate) files: Vec<StoredFile>,
    pub(crate) optimised: Option<Optimised>,
    pub(crate) options: EngineOptions,
    /// The domain in which most requests run: the owner's own, or that of any data for the operator's published models.
    pub(crate) home: TrustDomain,
    /// The placement in that domain, from the first request on.
    pub(crate) home_placement: OnceLock<PlacementId>,
}

impl Servable {
    /// The files that are needed beside a model's optimised form.
    pub(crate) fn pipeline_files(&self) -> Vec<StoredFile> {
        let named =
            |file: &&StoredFile| self.pipeline.as_ref().is_some_and(|pipeline| pipeline.files.contains(&file.name));
        self.files.iter().filter(named).cloned().collect()
    }

    /// The stages, if it is a chain.
    pub(crate) fn chain(&self) -> Option<&Chain> {
        self.pipeline.as_ref()?.chain.as_ref()
    }
}

impl Routing {
    /// What the workers of each tenant may use, as the node is told; those without bounds of their own are left out.
    pub(crate) fn worker_limits(&self) -> HashMap<TenantId, WorkerLimits> {
        let of = |tenant: &Arc<RoutedTenant>| Some((tenant.id, tenant.share.as_ref()?.settings.worker));
        self.tenants.values().filter_map(of).filter(|(_, limits)| !limits.is_empty()).collect()
    }

    /// The model a caller means: `name` in his own tenant, `owner/name` if the owner is he or shares it with him.
    ///
    /// # Errors
    /// 404 with one text, whether the model does not exist or may not be known to exist.
    pub(crate) fn model(
        &self,
        caller: TenantId,
        caller_name: &TenantName,
        model: &ModelRef,
    ) -> Result<&Arc<RoutedModel>, ServiceError> {
        let owner = model.owner.as_ref().unwrap_or(caller_name);
        self.models
            .get(key(owner.as_str(), model.name.as_str()).as_slice())
            .filter(|found| found.is_visible_to(caller))
            .ok_or_else(|| unknown_model(model))
    }

    /// Every model, in no order.
    pub(crate) fn models(&self) -> impl Iterator<Item = &Arc<RoutedModel>> {
        self.models.values()
    }

    /// A tenant by its name.
    pub(crate) fn tenant(&self, name: &TenantName) -> Option<&Arc<RoutedTenant>> {
        self.tenants.get(self.tenants_by_name.get(name)?)
    }
}

impl RoutedTenant {
    /// What it was given.
    pub(crate) fn settings(&self) -> ShareSettings {
        self.share.as_ref().map(|share| share.settings.clone()).unwrap_or_default()
    }
}

impl RoutedModel {
    /// Whether a tenant may know of this model and use it.
    pub(crate) fn is_visible_to(&self, caller: TenantId) -> bool {
        self.owner.id == caller
            || match &self.shared {
                Sharing::Private => false,
                Sharing::Everyone => true,
                Sharing::Tenants(_) => self.shared_with.contains(&caller),
            }
    }

    /// The name that works for a caller: `name` for his own models, `owner/name` for shared ones.
    pub(crate) fn name_for(&self, caller: TenantId) -> ModelRef {
        let own = self.owner.id == caller;
        ModelRef { owner: self.reference.owner.clone().filter(|_| !own), name: self.reference.name.clone() }
    }

    /// Whether one worker may serve every tenant's data with it.
    pub(crate) fn serves_any_data(&self) -> bool {
        self.owner.operator && self.shared == Sharing::Everyone
    }

    /// The trust domain in which a caller's requests run.
    ///
    /// Those of a tenant that does not batch with others run in a domain of its own even for the operator's published
    /// models. A worker runs one batch at a time and is suspended as a whole, so only in a worker of its own can its
    /// batch be stopped, or another's be stopped for it, without stopping what it was to run beside.
    pub(crate) fn domain(&self, caller: &RoutedTenant) -> TrustDomain {
        let any = self.serves_any_data() && caller.batches_with_others;
        let data_owner = if any { DataOwner::Any } else { DataOwner::Tenant(caller.id) };
        TrustDomain { model_owner: self.owner.id, data_owner }
    }

    /// The version that serves when none is named.
    pub(crate) fn deployed(&self) -> Option<&Arc<RoutedVersion>> {
        self.versions.get(&self.deployment.version?)
    }

    /// The version a caller means: a number, an alias, or the deployed one. `shown` is the model as he named it.
    ///
    /// # Errors
    /// 404 for a version or alias there is not, 503 where nothing is deployed.
    pub(crate) fn version(&self, wanted: Option<&str>, shown: &ModelRef) -> Result<&Arc<RoutedVersion>, ServiceError> {
        let Some(wanted) = wanted else {
            return self.deployed().ok_or_else(|| {
                ServiceError::new(ErrorCode::Unavailable, format!("model `{shown}` has no deployed version yet"))
                    .retry_after(REGISTERING_RETRY)
            });
        };
        let number = if wanted.bytes().all(|c| c.is_ascii_digit()) {
            wanted.parse().ok()
        } else {
            let position = self.aliases.binary_search_by(|(name, _)| name.as_str().cmp(wanted)).ok();
            position.and_then(|position| self.aliases.get(position)).map(|(_, number)| *number)
        };
        number.and_then(|number| self.versions.get(&number)).ok_or_else(|| {
            let wanted = sanitise(wanted, SHOWN_VERSION_CHARS);
            ServiceError::new(ErrorCode::NotFound, format!("model `{shown}` has no version or alias `{wanted}`"))
        })
    }
}

impl RoutedVersion {
    /// Whether a worker can load it: a chain has nothing to load but its stages, each of which is a version of its own.
    pub(crate) fn is_loadable(&self) -> bool {
        matches!(&self.state, RoutedState::Ready(servable) if servable.chain().is_none())
    }

    /// What serving it takes. `shown` is the model as the caller named it.
    ///
    /// # Errors
    /// 503 while it is being registered, 404 when it was refused.
    pub(crate) fn servable(&self, shown: &ModelRef) -> Result<&Servable, ServiceError> {
        match &self.state {
            RoutedState::Ready(servable) => Ok(servable),
            RoutedState::Registering => Err(ServiceError::new(
                ErrorCode::Unavailable,
                format!("version {} of model `{shown}` is being registered; try again shortly", self.number),
            )
            .retry_after(REGISTERING_RETRY)),
            RoutedState::Refused => Err(ServiceError::new(
                ErrorCode::NotFound,
                format!("version {} of model `{shown}` was refused at registration and cannot be served", self.number),
            )),
        }
    }
}

/// The one text for a model that does not exist and for one the caller may not know of.
pub(crate) fn unknown_model(model: &ModelRef) -> ServiceError {
    ServiceError::new(ErrorCode::NotFound, format!("model `{model}` does not exist or you may not use it"))
}

/// `owner/name` without a heap allocation: both names are bounded.
fn key(owner: &str, name: &str) -> SmallVec<[u8; 2 * MAX_NAME_BYTES + 1]> {
    let mut key = SmallVec::new();
    key.extend_from_slice(owner.as_bytes());
    key.push(b'/');
    key.extend_from_slice(name.as_bytes());
    key
}

#[cfg(test)]
mod tests;
