//! Versions.

use std::sync::Arc;
use std::time::Duration;

use tenantry_store::{NewModel, Store, StoredFile, Version, VersionState as StoredState};
use tenantry_types::{Action, Level, ModelName, ModelRef, ServiceError, TenantId, TenantName};
use tokio::time::Instant;

use super::{FileInfo, NewVersion, Residency, VersionInfo, VersionState};
use crate::audit::Deed;
use crate::routing::{RoutedModel, RoutedState, RoutedTenant, Routing};
use crate::server::{storage, unix_ms};
use crate::{Principal, Server, auth};

/// The longest a caller may wait for a registration in one call.
const MAX_WAIT: Duration = Duration::from_secs(300);

impl Server {
    /// Creates the next version of a model, the model too if there is none of that name, and starts its registration.
    /// Answers at once, with the version in the state `registering`.
    ///
    /// # Errors
    /// 403 for a role that may not, 404 for another tenant or an artefact it did not upload, 400 for an archive or text
    /// that is not accepted, 503 where the worker that registers it would be kept apart less well than is demanded.
    pub async fn create_version(
        self: &Arc<Self>,
        principal: &Principal,
        owner: &TenantName,
        model: &ModelName,
        new: NewVersion,
    ) -> Result<VersionInfo, ServiceError> {
        let (tenant, permit, deed) = {
            let routing = self.routing.load();
            let tenant = auth::owner(&routing, principal, owner, model, Action::VersionWrite)?;
            let demanded = registered_at(&routing, tenant, model, new.min_isolation);
            self.check_minimum(demanded, &ModelRef { owner: Some(owner.clone()), name: model.clone() })?;
            let object = format!("{}/{model}", tenant.name);
            let deed = Deed::of(tenant, "version.create", object).with(new.artefact.to_string());
            (tenant.id, tenant.gate.begin_upload()?, deed)
        };
        let files = self.files_of(tenant, new.artefact, &new.filename, permit).await?;
        let (plain, name) = (self.store.clone(), model.clone());
        let create = async move |store: Store| create(&plain, &store, tenant, &name, files, new).await;
        let version = self.write_audited(principal, deed, create).await?;
        let routed = self.managed_model(principal, owner, model, Action::VersionWrite)?;
        Ok(self.version_info(&routed, version))
    }

    /// One version. With `wait`, answers once it has left `registering` or the time is over.
    ///
    /// # Errors
    /// 404 for what does not exist or is not visible to the caller.
    pub async fn version(
        &self,
        principal: &Principal,
        owner: &TenantName,
        model: &ModelName,
        number: u32,
        wait: Option<Duration>,
    ) -> Result<VersionInfo, ServiceError> {
        let give_up = Instant::now() + wait.unwrap_or_default().min(MAX_WAIT);
        let mut routed_changes = self.routed.subscribe();
        loop {
            routed_changes.mark_unchanged();
            let routed = self.readable_model(principal, owner, model)?;
            let is_registering =
                routed.versions.get(&number).is_some_and(|version| matches!(version.state, RoutedState::Registering));
            if is_registering && tokio::time::timeout_at(give_up, routed_changes.changed()).await.is_ok() {
                continue;
            }
            let version = self.store.version_by_number(routed.id, number).await.map_err(storage)?;
            return Ok(self.version_info(&routed, version));
        }
    }

    /// A model's versions, by number.
    ///
    /// # Errors
    /// 404 for what does not exist or is not visible to the caller.
    pub async fn versions(
        &self,
        principal: &Principal,
        owner: &TenantName,
        model: &ModelName,
    ) -> Result<Vec<VersionInfo>, ServiceError> {
        let routed = self.readable_model(principal, owner, model)?;
        let versions = self.store.versions(routed.id).await.map_err(storage)?;
        Ok(versions.into_iter().map(|version| self.version_info(&routed, version)).collect())
    }

    /// Deletes a version with the files nothing else refers to.
    ///
    /// # Errors
    /// 403 for a role that may not, 404 for what there is not, 409 while the deployment or an alias names it.
    pub async fn delete_version(
        self: &Arc<Self>,
        principal: &Principal,
        owner: &TenantName,
        model: &ModelName,
        number: u32,
    ) -> Result<(), ServiceError> {
        let routed = self.managed_model(principal, owner, model, Action::VersionWrite)?;
        let deed = Deed::of_model(&routed, "version.delete", &format!(":{number}"));
        let delete = async move |store: Store| {
            let version = store.version_by_number(routed.id, number).await.map_err(storage)?;
            store.delete_version(version.id).await.map_err(storage)
        };
        self.write_audited(principal, deed, delete).await
    }

    fn version_info(&self, model: &RoutedModel, version: Version) -> VersionInfo {
        let status = self.node.status_of(version.id);
        let is_wanted = !matches!(version.state, StoredState::Refused { .. });
        let held_back = is_wanted.then(|| self.check_minimum(model.demanded(), &model.reference).err()).flatten();
        let file = |file: StoredFile| FileInfo { name: file.name, digest: file.digest, bytes: file.bytes };
        VersionInfo {
            id: version.id,
            owner: (*model.owner.name).clone(),
            model: model.reference.name.clone(),
            number: version.number,
            digest: version.digest,
            bytes: version.files.iter().map(|file| file.bytes).sum(),
            files: version.files.into_iter().map(file).collect(),
            description: version.description,
            tags: version.tags,
            quality: version.quality,
            settings: version.settings,
            state: match version.state {
                StoredState::Registering => VersionState::Registering,
                StoredState::Ready => VersionState::Ready,
                StoredState::Refused { reason } => VersionState::Refused { reason },
            },
            registration: version.registration,
            created_ms: version.created_ms,
            deployed: model.deployment.version == Some(version.number),
            residency: Residency {
                replicas_ready: status.replicas_ready,
                replicas_loading: status.replicas_loading,
                quarantine: status.quarantined.map(|in_force| (in_force.reason, in_force.remaining)),
                last_failure: held_back.map(|below| below.message).or(status.last_failure),
                last_load: status.load_time,
                resident_bytes: status.resident_bytes,
            },
        }
    }
}

/// How well the worker must be kept apart that registers a version of a model there may be already.
fn registered_at(routing: &Routing, owner: &RoutedTenant, model: &ModelName, new: Option<Level>) -> Level {
    let there = super::find(routing, &owner.name, model).map(|model| model.min_isolation);
    owner.demanded().max(new.or(there).unwrap_or_default())
}

/// The model, where there is none of that name, and its next version, which `audited` tells of.
async fn create(
    store: &Store,
    audited: &Store,
    owner: TenantId,
    model: &ModelName,
    files: Vec<StoredFile>,
    new: NewVersion,
) -> Result<Version, ServiceError> {
    let now_ms = unix_ms();
    let fresh = NewModel {
        framework: new.framework.clone().unwrap_or_default(),
        dependencies: new.dependencies.clone().unwrap_or_default(),
        min_isolation: new.min_isolation.unwrap_or_default(),
        ..NewModel::default()
    };
    let stored = store.create_model(owner, model, fresh, now_ms).await.map_err(storage)?;
    let update = tenantry_store::ModelUpdate {
        framework: new.framework.filter(|framework| *framework != stored.framework),
        dependencies: new.dependencies.filter(|dependencies| *dependencies != stored.dependencies),
        min_isolation: new.min_isolation.filter(|level| *level != stored.min_isolation),
        ..Default::default()
    };
    if update != tenantry_store::ModelUpdate::default() {
        store.update_model(stored.id, update, now_ms).await.map_err(storage)?;
    }
    let version = tenantry_store::NewVersion {
        files,
        description: new.description,
        tags: new.tags,
        quality: new.quality,
        settings: new.settings,
        deploy: new.deploy,
    };
    audited.create_version(stored.id, version, now_ms).await.map_err(storage)
}
