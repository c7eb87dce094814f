//! Aliases: movable names of versions.

use std::sync::Arc;

use tenantry_store::Store;
use tenantry_types::{Action, ModelName, ServiceError, TenantName};

use super::AliasInfo;
use crate::audit::Deed;
use crate::server::storage;
use crate::{Principal, Server};

impl Server {
    /// Points an alias to a version, whatever it named before.
    ///
    /// # Errors
    /// 403 for a role that may not, 404 for a model or version there is not, 400 for a name of digits only.
    pub async fn set_alias(
        self: &Arc<Self>,
        principal: &Principal,
        owner: &TenantName,
        model: &ModelName,
        alias: &ModelName,
        version: u32,
    ) -> Result<AliasInfo, ServiceError> {
        let routed = self.managed_model(principal, owner, model, Action::VersionWrite)?;
        let deed = Deed::of_model(&routed, "alias.set", &format!("@{alias}")).with(format!("version {version}"));
        let alias = alias.clone();
        let set = async move |store: Store| store.set_alias(routed.id, &alias, version).await.map_err(storage);
        let alias = self.write_audited(principal, deed, set).await?;
        Ok(AliasInfo { name: alias.name, version: alias.version })
    }

    /// Removes an alias.
    ///
    /// # Errors
    /// 403 for a role that may not, 404 for what there is not.
    pub async fn delete_alias(
        self: &Arc<Self>,
        principal: &Principal,
        owner: &TenantName,
        model: &ModelName,
        alias: &ModelName,
    ) -> Result<(), ServiceError> {
        let routed = self.managed_model(principal, owner, model, Action::VersionWrite)?;
        let deed = Deed::of_model(&routed, "alias.delete", &format!("@{alias}"));
        let alias = alias.clone();
        let delete = async move |store: Store| store.delete_alias(routed.id, &alias).await.map_err(storage);
        self.write_audited(principal, deed, delete).await
    }
}
