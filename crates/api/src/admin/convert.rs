//! Between the server's values and the JSON of the API. Nothing is decided here.

pub(super) mod billing;
mod encryption;
mod isolation;
mod share;
pub(super) mod usage;

use std::collections::BTreeSet;
use std::time::Duration;

use tenantry_server as server;
use tenantry_server::admin as values;
use tenantry_types::model as facts;
use tenantry_types::tensor;
use tenantry_types::{CustomRole, Scope, ServiceError, TenantName};

use super::types;

impl From<values::TenantInfo> for types::Tenant {
    fn from(tenant: values::TenantInfo) -> Self {
        let values::TenantInfo { id, name, operator, created_ms, isolation } = tenant;
        Self { id, name, operator, created_ms, isolation: isolation.into() }
    }
}

impl From<types::NewKey> for values::NewKey {
    fn from(key: types::NewKey) -> Self {
        let types::NewKey { label, role, expires_in_seconds, models, actions, certificate } = key;
        let expires_in = expires_in_seconds.map(Duration::from_secs);
        Self { role, scope: Scope { models, actions }, label, expires_in, certificate }
    }
}

impl From<values::KeyInfo> for types::Key {
    fn from(key: values::KeyInfo) -> Self {
        let values::KeyInfo { id, role, scope, certificate, label, created_ms, expires_ms, revoked_ms, last_used_ms } =
            key;
        let Scope { models, actions } = scope;
        Self { id, role, models, actions, certificate, label, created_ms, expires_ms, revoked_ms, last_used_ms }
    }
}

impl From<CustomRole> for types::CustomRole {
    fn from(role: CustomRole) -> Self {
        let CustomRole { name, actions, models, description } = role;
        Self { name, actions, models, description }
    }
}

impl From<values::CreatedKey> for types::CreatedKey {
    fn from(created: values::CreatedKey) -> Self {
        Self { key: created.secret, info: created.key.into() }
    }
}

impl From<values::ArtefactInfo> for types::Artefact {
    fn from(artefact: values::ArtefactInfo) -> Self {
        Self { digest: artefact.digest, bytes: artefact.bytes }
    }
}

impl From<types::Optimization> for facts::Optimization {
    fn from(optimization: types::Optimization) -> Self {
        match optimization {
            types::Optimization::Disabled => Self::Disabled,
            types::Optimization::Basic => Self::Basic,
            types::Optimization::Extended => Self::Extended,
            types::Optimization::All => Self::All,
        }
    }
}

impl From<facts::Optimization> for types::Optimization {
    fn from(optimization: facts::Optimization) -> Self {
        match optimization {
            facts::Optimization::Disabled => Self::Disabled,
            facts::Optimization::Basic => Self::Basic,
            facts::Optimization::Extended => Self::Extended,
            facts::Optimization::All => Self::All,
        }
    }
}

impl From<types::VersionSettings> for facts::VersionSettings {
    fn from(settings: types::VersionSettings) -> Self {
        Self {
            max_batch: settings.max_batch,
            max_batch_delay_ms: settings.max_batch_delay_ms,
            max_run_ms: settings.max_run_ms,
            threads: settings.threads,
            optimization: settings.optimization.map(Into::into),
            disabled_optimizers: settings.disabled_optimizers,
            prepack: settings.prepack,
        }
    }
}

impl From<facts::VersionSettings> for types::VersionSettings {
    fn from(settings: facts::VersionSettings) -> Self {
        Self {
            max_batch: settings.max_batch,
            max_batch_delay_ms: settings.max_batch_delay_ms,
            max_run_ms: settings.max_run_ms,
            threads: settings.threads,
            optimization: settings.optimization.map(Into::into),
            disabled_optimizers: settings.disabled_optimizers,
            prepack: settings.prepack,
        }
    }
}

impl From<types::NewVersion> for values::NewVersion {
    fn from(version: types::NewVersion) -> Self {
        Self {
            artefact: version.artefact,
            filename: version.filename,
            settings: version.settings.into(),
            description: version.description,
            tags: version.tags,
            quality: version.quality,
            framework: version.framework,
            dependencies: version.dependencies,
            min_isolation: version.min_isolation.map(Into::into),
            deploy: version.deploy,
        }
    }
}

impl From<tensor::TensorSpec> for types::Tensor {
    fn from(spec: tensor::TensorSpec) -> Self {
        Self {
            datatype: spec.datatype.as_str().to_owned(),
            shape: spec.dims.iter().map(tensor::Dim::as_protocol).collect(),
            dims: spec.dims.iter().map(tensor::Dim::to_string).collect(),
            name: spec.name,
        }
    }
}

impl From<tensor::Signature> for types::Signature {
    fn from(signature: tensor::Signature) -> Self {
        Self {
            inputs: signature.inputs.into_iter().map(Into::into).collect(),
            outputs: signature.outputs.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<facts::FileMetadata> for types::FileMetadata {
    fn from(metadata: facts::FileMetadata) -> Self {
        let facts::FileMetadata { producer, description, graph_name, custom } = metadata;
        Self { producer, description, graph_name, custom }
    }
}

fn profile(profile: facts::Profile, can_batch: bool) -> types::Profile {
    let point = |point: facts::BatchPoint| types::BatchPoint { rows: point.rows, run_ns: point.run_ns };
    types::Profile {
        runtime: profile.runtime,
        can_batch,
        best_batch: profile.best_batch,
        threads: profile.options.threads,
        prepack: profile.options.prepack,
        load_ns: profile.load_ns,
        optimised_load_ns: profile.optimised_load_ns,
        resident_bytes: profile.resident_bytes,
        optimised_bytes: profile.optimised_bytes,
        points: profile.points.into_iter().map(point).collect(),
    }
}

/// Durations in the API are whole numbers; these are far below the limit.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl From<values::Residency> for types::Residency {
    fn from(residency: values::Residency) -> Self {
        let (quarantine_reason, quarantine) = residency.quarantine.unzip();
        Self {
            replicas_ready: residency.replicas_ready,
            replicas_loading: residency.replicas_loading,
            quarantine_reason,
            quarantine_ms: quarantine.map(|left| nanos(left).div_ceil(1_000_000)),
            last_failure: residency.last_failure,
            last_load_ns: residency.last_load.map(nanos),
            resident_bytes: residency.resident_bytes,
        }
    }
}

impl From<values::VersionInfo> for types::Version {
    fn from(version: values::VersionInfo) -> Self {
        let file = |file: values::FileInfo| types::File { name: file.name, digest: file.digest, bytes: file.bytes };
        let (state, reason) = match version.state {
            values::VersionState::Registering => (types::VersionState::Registering, None),
            values::VersionState::Ready => (types::VersionState::Ready, None),
            values::VersionState::Refused { reason } => (types::VersionState::Refused, Some(reason)),
        };
        let (signature, profile, metadata) = match version.registration {
            Some(found) => {
                let profile = profile(found.profile, found.can_batch);
                (Some(found.signature.into()), Some(profile), Some(found.metadata.into()))
            }
            None => (None, None, None),
        };
        Self {
            id: version.id,
            owner: version.owner,
            model: version.model,
            number: version.number,
            digest: version.digest,
            files: version.files.into_iter().map(file).collect(),
            bytes: version.bytes,
            state,
            reason,
            deployed: version.deployed,
            description: version.description,
            tags: version.tags,
            quality: version.quality,
            settings: version.settings.into(),
            signature,
            profile,
            metadata,
            residency: version.residency.into(),
            created_ms: version.created_ms,
        }
    }
}

/// What a change says of sharing: names alone mean that it is shared with those.
fn sharing(
    shared: Option<types::Sharing>,
    with: Option<BTreeSet<TenantName>>,
) -> Result<Option<server::Sharing>, ServiceError> {
    Ok(Some(match (shared, with) {
        (None, None) => return Ok(None),
        (Some(types::Sharing::Private), None) => server::Sharing::Private,
        (Some(types::Sharing::Everyone), None) => server::Sharing::Everyone,
        (None | Some(types::Sharing::Tenants), Some(with)) => server::Sharing::Tenants(with),
        (Some(types::Sharing::Tenants), None) => {
            return Err(ServiceError::invalid("say in `shared_with` with which tenants it is shared"));
        }
        (Some(types::Sharing::Private | types::Sharing::Everyone), Some(_)) => {
            return Err(ServiceError::invalid("`shared_with` goes with `shared`: `tenants` only"));
        }
    }))
}

/// The kind, and the names.
fn shared(sharing: server::Sharing) -> (types::Sharing, BTreeSet<TenantName>) {
    match sharing {
        server::Sharing::Private => (types::Sharing::Private, BTreeSet::new()),
        server::Sharing::Everyone => (types::Sharing::Everyone, BTreeSet::new()),
        server::Sharing::Tenants(with) => (types::Sharing::Tenants, with),
    }
}

impl From<values::AliasInfo> for types::Alias {
    fn from(alias: values::AliasInfo) -> Self {
        Self { name: alias.name, version: alias.version }
    }
}

impl From<values::DeploymentInfo> for types::Deployment {
    fn from(deployment: values::DeploymentInfo) -> Self {
        let values::DeploymentInfo {
            id,
            generation,
            version,
            previous,
            min_replicas,
            max_replicas,
            idle_after,
            default_timeout,
            cache_ttl,
        } = deployment;
        let idle_after_seconds = idle_after.map(|after| after.as_secs());
        let millis = |span: Duration| nanos(span) / 1_000_000;
        Self {
            id,
            generation,
            version,
            previous,
            min_replicas,
            max_replicas,
            idle_after_seconds,
            default_timeout_ms: default_timeout.map(millis),
            cache_ttl_ms: cache_ttl.map(millis),
        }
    }
}

impl From<types::DeploymentChange> for values::DeploymentChange {
    fn from(change: types::DeploymentChange) -> Self {
        let types::DeploymentChange {
            generation,
            version,
            min_replicas,
            max_replicas,
            idle_after_seconds,
            default_timeout_ms,
            cache_ttl_ms,
        } = change;
        let idle_after = idle_after_seconds.map(Duration::from_secs);
        let default_timeout = default_timeout_ms.map(Duration::from_millis);
        let cache_ttl = cache_ttl_ms.map(Duration::from_millis);
        Self { generation, version, min_replicas, max_replicas, idle_after, default_timeout, cache_ttl }
    }
}

impl From<values::ModelInfo> for types::Model {
    fn from(model: values::ModelInfo) -> Self {
        let (shared, shared_with) = shared(model.shared);
        Self {
            id: model.id,
            owner: model.owner,
            name: model.name,
            description: model.description,
            framework: model.framework,
            tags: model.tags,
            dependencies: model.dependencies,
            shared,
            shared_with,
            min_isolation: model.min_isolation.into(),
            effective_min_isolation: model.effective_min_isolation.into(),
            deployment: model.deployment.into(),
            aliases: model.aliases.into_iter().map(Into::into).collect(),
            versions: model.versions,
            created_ms: model.created_ms,
            updated_ms: model.updated_ms,
        }
    }
}

impl TryFrom<types::ModelChange> for values::ModelChange {
    type Error = ServiceError;
    fn try_from(change: types::ModelChange) -> Result<Self, ServiceError> {
        let types::ModelChange { description, framework, tags, dependencies, shared, shared_with, min_isolation } =
            change;
        let (shared, min_isolation) = (sharing(shared, shared_with)?, min_isolation.map(Into::into));
        Ok(Self { description, framework, tags, dependencies, shared, min_isolation })
    }
}

impl From<values::AuditInfo> for types::AuditRecord {
    fn from(record: values::AuditInfo) -> Self {
        let values::AuditInfo { sequence, at_ms, actor, tenant, action, object, outcome, detail, .. } = record;
        let values::AuditInfo { source, generation, previous, hash, ids, .. } = record;
        let nobody = types::AuditActor { tenant: None, key: None, role: None, unknown: false, tenant_id: None };
        let actor = match actor {
            values::AuditActorInfo::Server => nobody,
            values::AuditActorInfo::Unknown { key } => types::AuditActor { key, unknown: true, ..nobody },
            values::AuditActorInfo::Key { tenant, key, role } => types::AuditActor {
                tenant: Some(tenant),
                key,
                role,
                tenant_id: ids.and_then(|ids| ids.actor),
                ..nobody
            },
        };
        let tenant_id = ids.and_then(|ids| ids.tenant);
        Self {
            sequence,
            at_ms,
            actor,
            tenant,
            action,
            object,
            outcome,
            detail,
            source,
            generation,
            tenant_id,
            previous,
            hash,
        }
    }
}

impl From<values::AuditVerification> for types::AuditVerification {
    fn from(found: values::AuditVerification) -> Self {
        let values::AuditVerification { verified, first, last, hash, broken } = found;
        let broken = broken.map(|values::AuditFault { sequence, kind }| types::AuditFault {
            sequence,
            problem: kind.as_str().to_owned(),
        });
        Self { verified, first, last, hash, broken }
    }
}

impl From<values::WorkerInfo> for types::Worker {
    fn from(worker: values::WorkerInfo) -> Self {
        let values::WorkerInfo { id, model_owner, data_owner, state, pid, replicas, busy, suspended, registration } =
            worker;
        let state = state.to_owned();
        Self { id, model_owner, data_owner, state, pid, replicas, busy, suspended, registration }
    }
}

impl From<values::ServerStatus> for types::Status {
    fn from(status: values::ServerStatus) -> Self {
        Self {
            ready: status.ready,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime: status.runtime,
            tenants: status.tenants as u64,
            models: status.models as u64,
            registering: status.registering as u64,
            slots: status.slots,
            queued_tasks: status.queued_tasks,
            queued_bytes: status.queued_bytes,
            running_batches: status.running_batches,
            isolation: types::Isolation {
                level: status.isolation.level().into(),
                minimum: status.min_isolation.into(),
                models_below_minimum: status.models_below_minimum as u64,
                in_force: status.isolation.in_force.iter().map(|layer| layer.name().to_owned()).collect(),
                not_in_force: status
                    .isolation
                    .not_in_force
                    .into_iter()
                    .map(|(layer, why)| types::MissingBarrier { barrier: layer.name().to_owned(), why })
                    .collect(),
            },
            worker_deaths: status.worker_deaths,
            workers: status.workers.into_iter().map(Into::into).collect(),
        }
    }
}

/// A list of one kind as a list of another.
pub(super) fn all<A, B: From<A>>(list: Vec<A>) -> Vec<B> {
    list.into_iter().map(Into::into).collect()
}
