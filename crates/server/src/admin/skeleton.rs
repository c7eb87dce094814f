//! Signatures first.
use std::time::Duration;

use bytes::Bytes;
use tenantry_types::{KeyId, ModelName, ServiceError, TenantName};

use super::info::*;
use crate::server::later;
use crate::{Principal, Server};

/// An upload in progress. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct Upload {}

impl Upload {
    /// Adds bytes at the end.
    ///
    /// # Errors
    /// 413 beyond the limit; 500 when the disk refuses.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), ServiceError> {
        let _ = chunk;
        Err(later())
    }

    /// Makes the artefact visible to its owner, whole.
    ///
    /// # Errors
    /// 500 when the disk refuses.
    pub async fn finish(self) -> Result<ArtefactInfo, ServiceError> {
        Err(later())
    }
}

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),*) -> $out:ty;)*) => {
        /// Admin operations: `owner` is the tenant of the path. Errors: 403 for a role that may not, 404 for another tenant's things,
        /// 400, 409 as documented at each.
        impl Server {
            $($(#[$doc])* #[doc = ""] #[doc = "# Errors"] #[doc = "See the module."]
            pub async fn $name(&self, principal: &Principal, $($arg: $ty),*) -> Result<$out, ServiceError> {
                let _ = (principal, $($arg),*);
                Err(later())
            })*
        }
    };
}

operations! {
    /// Creates a tenant (platform admin).
    create_tenant(name: &TenantName) -> TenantInfo;
    /// All tenants (platform admin), or the caller's own.
    tenants() -> Vec<TenantInfo>;
    /// One tenant.
    tenant(name: &TenantName) -> TenantInfo;
    /// Deletes a tenant with everything of it (platform admin).
    delete_tenant(name: &TenantName) -> ();
    /// Makes a key.
    create_key(owner: &TenantName, new: NewKey) -> CreatedKey;
    /// A tenant's keys.
    keys(owner: &TenantName) -> Vec<KeyInfo>;
    /// Revokes a key, effective at once.
    revoke_key(owner: &TenantName, key: KeyId) -> ();
    /// Starts an upload; `content_length` as announced, if it was.
    begin_upload(owner: &TenantName, content_length: Option<u64>) -> Upload;
    /// Creates a version from an uploaded artefact and starts its registration.
    create_version(owner: &TenantName, model: &ModelName, new: NewVersion) -> VersionInfo;
    /// One version; with `wait`, answers once it left `registering` or the time is over.
    version(owner: &TenantName, model: &ModelName, number: u32, wait: Option<Duration>) -> VersionInfo;
    /// A model's versions, by number.
    versions(owner: &TenantName, model: &ModelName) -> Vec<VersionInfo>;
    /// Deletes a version; 409 while the deployment points to it.
    delete_version(owner: &TenantName, model: &ModelName, number: u32) -> ();
    /// One model.
    model(owner: &TenantName, model: &ModelName) -> ModelInfo;
    /// A tenant's models, by name.
    search_models(owner: &TenantName, query: ModelQuery) -> Vec<ModelInfo>;
    /// Changes a model.
    update_model(owner: &TenantName, model: &ModelName, change: ModelChange) -> ModelInfo;
    /// Deletes a model with its versions.
    delete_model(owner: &TenantName, model: &ModelName) -> ();
    /// Points an alias to a version.
    set_alias(owner: &TenantName, model: &ModelName, alias: &ModelName, version: u32) -> AliasInfo;
    /// Removes an alias.
    delete_alias(owner: &TenantName, model: &ModelName, alias: &ModelName) -> ();
    /// A model's deployment.
    deployment(owner: &TenantName, model: &ModelName) -> DeploymentInfo;
    /// Changes a deployment; 409 if its generation moved on.
    set_deployment(owner: &TenantName, model: &ModelName, change: DeploymentChange) -> DeploymentInfo;
    /// The server at a glance (platform admin).
    status() -> ServerStatus;
}
