//! Building the next routing table from the catalogue and the table before it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tenantry_node::VersionSpec;
use tenantry_store::{Alias, Catalogue, Deployment, Model, ShareRecord, Sharing, Tenant, Version, VersionState};
use tenantry_types::model::{PipelineFacts, Registration};
use tenantry_types::share::ShareTier;
use tenantry_types::{
    CustomRole, DataOwner, KeyId, ModelId, ModelName, ModelRef, OrganisationId, ShareSubject, Signature, TenantId,
    TenantName, TrustDomain, VersionId,
};

use super::{
    RoutedDeployment, RoutedKey, RoutedModel, RoutedOrganisation, RoutedShare, RoutedState, RoutedTenant,
    RoutedVersion, Routing, Servable, key,
};
use crate::auth::Access;
use crate::config::Limits;
use crate::limits::{Gate, TenantGate};
use crate::shares::{self, SlotGroups};

/// What one row is taken to cost where registration measured nothing.
const UNMEASURED_COST: Duration = Duration::from_millis(10);
/// The most rows of one batch, whatever a version's settings say.
const MAX_BATCH_ROWS: u32 = 4096;
/// The longest a batch may wait to fill, whatever a version's settings say.
const MAX_BATCH_DELAY: Duration = Duration::from_secs(1);

impl Routing {
    /// The table of a catalogue. `previous` gives on what outlives a table; `limits` are the configuration's; `access` says what
    /// roles come to.
    pub(crate) fn build(catalogue: Catalogue, previous: &Self, limits: &Limits, access: &Access) -> Self {
        let run_limit = limits.run_limit;
        let tree = shares::tree(&catalogue.shares, &SlotGroups::new(&limits.slot_groups));
        let mut by_tenant: HashMap<Option<TenantId>, Vec<ShareRecord>> = HashMap::new();
        for record in catalogue.shares {
            by_tenant.entry(record.subject.tenant()).or_default().push(record);
        }
        let mut of_organisations: HashMap<OrganisationId, ShareRecord> = by_tenant
            .remove(&None)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|record| match record.subject {
                ShareSubject::Organisation(organisation) => Some((organisation, record)),
                _ => None,
            })
            .collect();
        let organisations = catalogue
            .organisations
            .into_iter()
            .map(|organisation| {
                let share = of_organisations.remove(&organisation.id);
                (organisation.id, RoutedOrganisation { organisation, share })
            })
            .collect();
        let tenants: HashMap<TenantId, Arc<RoutedTenant>> = catalogue
            .tenants
            .into_iter()
            .map(|tenant| {
                let records = by_tenant.remove(&Some(tenant.id)).unwrap_or_default();
                (tenant.id, routed_tenant(tenant, records, previous, limits))
            })
            .collect();
        let mut roles: HashMap<TenantId, Vec<CustomRole>> = HashMap::new();
        for (tenant, role) in catalogue.roles {
            roles.entry(tenant).or_default().push(role);
        }
        let tenants_by_name: HashMap<TenantName, TenantId> =
            tenants.values().map(|tenant| ((*tenant.name).clone(), tenant.id)).collect();
        let live = catalogue.keys.into_iter().filter(|key| key.revoked_ms.is_none());
        let keys: HashMap<KeyId, RoutedKey> = live
            .filter_map(|key| {
                let tenant = Arc::clone(tenants.get(&key.tenant)?);
                let custom = roles.get(&tenant.id).map_or(&[][..], Vec::as_slice);
                let grants = access.grants(std::slice::from_ref(&key.role), tenant.operator, custom);
                let actions = key.scope.action_set();
                let used_ms = match previous.keys.get(&key.id) {
                    Some(known) => Arc::clone(&known.used_ms),
                    None => Arc::new(AtomicI64::new(key.last_used_ms.unwrap_or(0))),
                };
                let roles = Arc::from([key.role.clone()]);
                let scope = Arc::new(key.scope.clone());
                Some((key.id, RoutedKey { key, tenant, roles, grants, actions, scope, used_ms }))
            })
            .collect();
        let certificates = keys
            .values()
            .filter_map(|routed| Some((routed.key.certificate.as_deref()?.into(), routed.key.id)))
            .collect();

        let known_models: HashMap<ModelId, &Arc<RoutedModel>> =
            previous.models.values().map(|model| (model.id, model)).collect();
        let mut deployments: HashMap<ModelId, Deployment> =
            catalogue.deployments.into_iter().map(|deployment| (deployment.model, deployment)).collect();
        let mut versions: HashMap<ModelId, Vec<Version>> = HashMap::new();
        for version in catalogue.versions {
            versions.entry(version.model).or_default().push(version);
        }
        let mut aliases: HashMap<ModelId, Vec<Alias>> = HashMap::new();
        for alias in catalogue.aliases {
            aliases.entry(alias.model).or_default().push(alias);
        }
        let models = catalogue.models.into_iter().filter_map(|model| {
            let owner = Arc::clone(tenants.get(&model.owner)?);
            let deployment = deployments.remove(&model.id)?;
            let previous = known_models.get(&model.id).copied();
            let versions = versions.remove(&model.id).unwrap_or_default();
            let aliases = aliases.remove(&model.id).unwrap_or_default();
            let name = key(owner.name.as_str(), model.name.as_str()).into_boxed_slice();
            let mut routed = routed_model(&model, owner, deployment, versions, aliases, previous, run_limit);
            if let Sharing::Tenants(names) = &model.shared {
                routed.shared_with = names.iter().filter_map(|name| tenants_by_name.get(name).copied()).collect();
            }
            Some((name, Arc::new(routed)))
        });
        let models = models.collect();
        Self {
            revision: catalogue.revision,
            keys,
            certificates,
            tenants,
            roles,
            tenants_by_name,
            organisations,
            shares: tree,
            models,
        }
    }

    /// Versions this table had and `next` has not: the node may forget them.
    pub(crate) fn gone_in(&self, next: &Self) -> Vec<VersionId> {
        let kept: HashMap<ModelId, &Arc<RoutedModel>> = next.models.values().map(|model| (model.id, model)).collect();
        let is_kept =
            |model: ModelId, number: u32| kept.get(&model).is_some_and(|model| model.versions.contains_key(&number));
        let all = self.models.values().flat_map(|model| model.versions.values().map(|version| (model.id, version)));
        all.filter(|(model, version)| !is_kept(*model, version.number)).map(|(_, version)| version.id).collect()
    }
}

fn routed_tenant(tenant: Tenant, records: Vec<ShareRecord>, previous: &Routing, limits: &Limits) -> Arc<RoutedTenant> {
    let known = previous.tenants.get(&tenant.id);
    // Names and the operator's mark never change, so a tenant whose settings did not is taken as it is.
    if let Some(known) = known
        && known.minimum == tenant.minimum
        && known.has_settings(&records)
    {
        return Arc::clone(known);
    }
    let (mut share, mut deployments, mut keys) = (None, BTreeMap::new(), BTreeMap::new());
    // What is counted goes on being counted, under the new bounds.
    let routed = |whose, record: ShareRecord, before: Option<&RoutedShare>| {
        let load = before.map(|before| Arc::clone(&before.gate.load)).unwrap_or_default();
        RoutedShare { gate: Arc::new(Gate::new(whose, &record.settings, load)), record }
    };
    for record in records {
        match record.subject {
            ShareSubject::Organisation(_) => {}
            ShareSubject::Tenant(_) => share = Some(record),
            ShareSubject::Deployment(_, id) => {
                let before = known.and_then(|known| known.deployments.get(&id));
                deployments.insert(id, routed("this tenant for this model", record, before));
            }
            ShareSubject::Key(_, id) => {
                let before = known.and_then(|known| known.keys.get(&id));
                keys.insert(id, routed("this key", record, before));
            }
        }
    }
    let nodes = || deployments.values().chain(keys.values()).map(|share: &RoutedShare| &share.record.settings);
    let has_guarantees = nodes().any(|settings| settings.tier == Some(ShareTier::Guaranteed));
    let load = known.map(|known| Arc::clone(&known.gate.load)).unwrap_or_default();
    let settings = share.as_ref().map(|share| share.settings.clone()).unwrap_or_default();
    Arc::new(RoutedTenant {
        id: tenant.id,
        name: known.map_or_else(|| Arc::new(tenant.name), |known| Arc::clone(&known.name)),
        operator: tenant.operator,
        created_ms: tenant.created_ms,
        minimum: tenant.minimum,
        share,
        gate: Arc::new(TenantGate::new(&settings, limits, load)),
        // A guarantee of one of its deployments or keys is kept like its own: by suspending others, who must be elsewhere.
        batches_with_others: settings.batches_with_others()
            && (settings.batch_with_others.is_some() || !has_guarantees),
        deployments,
        keys,
    })
}

impl RoutedTenant {
    /// Whether these are the settings it has.
    fn has_settings(&self, records: &[ShareRecord]) -> bool {
        let own =
            self.share.iter().chain(self.deployments.values().chain(self.keys.values()).map(|share| &share.record));
        own.count() == records.len()
            && records.iter().all(|record| match record.subject {
                ShareSubject::Organisation(_) => false,
                ShareSubject::Tenant(_) => self.share.as_ref() == Some(record),
                ShareSubject::Deployment(_, id) => {
                    self.deployments.get(&id).is_some_and(|known| known.record == *record)
                }
                ShareSubject::Key(_, id) => self.keys.get(&id).is_some_and(|known| known.record == *record),
            })
    }
}

fn routed_model(
    model: &Model,
    owner: Arc<RoutedTenant>,
    deployment: Deployment,
    versions: Vec<Version>,
    aliases: Vec<Alias>,
    previous: Option<&Arc<RoutedModel>>,
    run_limit: Duration,
) -> RoutedModel {
    let full_name: Arc<str> = match previous {
        Some(previous) => Arc::clone(&previous.full_name),
        None => format!("{}/{}", owner.name, model.name).into(),
    };
    let data_owner =
        if owner.operator && model.shared == Sharing::Everyone { DataOwner::Any } else { DataOwner::Tenant(owner.id) };
    let home = TrustDomain { model_owner: owner.id, data_owner };
    let versions: BTreeMap<u32, Arc<RoutedVersion>> = versions
        .into_iter()
        .map(|version| {
            let known = previous.and_then(|previous| previous.versions.get(&version.number));
            (version.number, routed_version(version, known, &full_name, home, run_limit))
        })
        .collect();
    RoutedModel {
        id: model.id,
        full_name,
        reference: ModelRef { owner: Some((*owner.name).clone()), name: model.name.clone() },
        owner,
        shared: model.shared.clone(),
        shared_with: HashSet::new(),
        created_ms: model.created_ms,
        min_isolation: model.min_isolation,
        deployment: (&deployment).into(),
        versions,
        aliases: by_name(aliases),
        flows: previous.map(|previous| Arc::clone(&previous.flows)).unwrap_or_default(),
        statistics: previous.map(|previous| Arc::clone(&previous.statistics)).unwrap_or_default(),
    }
}

fn by_name(aliases: Vec<Alias>) -> Vec<(ModelName, u32)> {
    let mut aliases: Vec<_> = aliases.into_iter().map(|alias| (alias.name, alias.version)).collect();
    aliases.sort_unstable();
    aliases
}

impl From<&Deployment> for RoutedDeployment {
    fn from(deployment: &Deployment) -> Self {
        Self {
            id: deployment.id,
            generation: deployment.generation,
            version: deployment.version,
            previous: deployment.previous,
            min_replicas: deployment.min_replicas,
            max_replicas: deployment.max_replicas,
            idle_after: deployment.idle_after_ms.map(Duration::from_millis),
            default_timeout: deployment.default_timeout_ms.map(Duration::from_millis),
            cache_ttl: deployment.cache_ttl_ms.map(Duration::from_millis),
        }
    }
}

fn routed_version(
    version: Version,
    known: Option<&Arc<RoutedVersion>>,
    full_name: &str,
    home: TrustDomain,
    run_limit: Duration,
) -> Arc<RoutedVersion> {
    let (id, number) = (version.id, version.number);
    let state = match (version.state, version.registration) {
        (VersionState::Ready, Some(registration)) => {
            let known = known.filter(|known| known.id == id);
            let known_servable = known.and_then(|known| match &known.state {
                RoutedState::Ready(servable) => Some(servable),
                RoutedState::Registering | RoutedState::Refused => None,
            });
            if let (Some(known), Some(servable)) = (known, known_servable)
                && servable.home == home
                && servable.optimised == version.optimised
            {
                return Arc::clone(known);
            }
            // A ready version's registration never changes, so its spec does not either.
            let spec = match known_servable {
                Some(servable) => Arc::clone(&servable.spec),
                None => {
                    Arc::new(spec(id, format!("{full_name}:{number}"), &version.settings, &registration, run_limit))
                }
            };
            let (outward, pipeline) = match known_servable {
                Some(servable) => (Arc::clone(&servable.outward), servable.pipeline.clone()),
                None => (outward(&spec.signature, registration.pipeline.as_ref()), registration.pipeline.map(Arc::new)),
            };
            RoutedState::Ready(Box::new(Servable {
                spec,
                outward,
                pipeline,
                digest: version.digest,
                files: version.files,
                optimised: version.optimised,
                options: registration.profile.options,
                home,
                home_placement: OnceLock::new(),
            }))
        }
        (VersionState::Refused { .. }, _) => RoutedState::Refused,
        (VersionState::Registering | VersionState::Ready, _) => RoutedState::Registering,
    };
    Arc::new(RoutedVersion { id, number, state })
}

/// A signature as clients see it: the states are its last inputs and outputs.
fn outward(signature: &Arc<Signature>, pipeline: Option<&PipelineFacts>) -> Arc<Signature> {
    let states = pipeline.map_or(0, |pipeline| pipeline.states.len());
    if states == 0 {
        return Arc::clone(signature);
    }
    let mut outward = Signature::clone(signature);
    outward.inputs.truncate(outward.inputs.len().saturating_sub(states));
    outward.outputs.truncate(outward.outputs.len().saturating_sub(states));
    Arc::new(outward)
}

fn spec(
    version: VersionId,
    name: String,
    settings: &tenantry_types::model::VersionSettings,
    registration: &Registration,
    run_limit: Duration,
) -> VersionSpec {
    let profile = &registration.profile;
    let can_batch = registration.can_batch && registration.signature.has_batch_axis();
    let max_batch = settings.max_batch.unwrap_or(profile.best_batch).clamp(1, MAX_BATCH_ROWS);
    let delay = Duration::from_millis(settings.max_batch_delay_ms.unwrap_or(0).into());
    VersionSpec {
        version,
        name,
        signature: Arc::new(registration.signature.clone()),
        can_batch,
        max_batch: if can_batch { max_batch } else { 1 },
        max_batch_delay: delay.min(MAX_BATCH_DELAY),
        run_limit: settings.max_run_ms.map_or(run_limit, |limit| Duration::from_millis(limit.into()).min(run_limit)),
        cost: profile.single_run().unwrap_or(UNMEASURED_COST),
    }
}
