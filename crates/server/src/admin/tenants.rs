//! Tenants.

use std::sync::Arc;

use tenantry_store::{Store, TenantMinimumChange};
use tenantry_types::{Action, ErrorCode, ServiceError, TenantName};

use super::{TenantChange, TenantInfo, TenantIsolation};
use crate::audit::Deed;
use crate::routing::RoutedTenant;
use crate::server::{storage, unix_ms};
use crate::{Principal, Server, auth};

impl Server {
    /// Creates a tenant. For platform admins.
    ///
    /// # Errors
    /// 403 for other roles, 409 if the name is taken.
    pub async fn create_tenant(
        self: &Arc<Self>,
        principal: &Principal,
        name: &TenantName,
    ) -> Result<TenantInfo, ServiceError> {
        auth::platform(principal, Action::TenantManage)?;
        let (name, deed) = (name.clone(), Deed::of_platform("tenant.create", name));
        let create = async move |store: Store| store.create_tenant(&name, false, unix_ms()).await.map_err(storage);
        let tenant = self.write_audited(principal, deed, create).await?;
        self.tenant(principal, &tenant.name)
    }

    /// All tenants by name for a platform admin; the caller's own for everybody else.
    pub fn tenants(&self, principal: &Principal) -> Vec<TenantInfo> {
        let routing = self.routing.load();
        let is_shown = |tenant: &&Arc<RoutedTenant>| principal.is_platform_admin() || tenant.id == principal.tenant;
        let mut tenants: Vec<TenantInfo> =
            routing.tenants.values().filter(is_shown).map(|tenant| self.tenant_info(tenant)).collect();
        tenants.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        tenants
    }

    /// One tenant.
    ///
    /// # Errors
    /// 404 for a tenant that does not exist or is not the caller's.
    pub fn tenant(&self, principal: &Principal, name: &TenantName) -> Result<TenantInfo, ServiceError> {
        auth::tenant(&self.routing.load(), principal, name, Action::TenantRead).map(|tenant| self.tenant_info(tenant))
    }

    /// Changes how well a tenant's workers must be kept apart. In force when this returns: what runs below the new minimum
    /// has been told to end. A tenant's admin sets its own minimum, which counts where it is higher than the platform's;
    /// a platform admin sets both.
    ///
    /// # Errors
    /// 404 for a tenant that does not exist or is not the caller's, 403 for a role that may not.
    pub async fn update_tenant(
        self: &Arc<Self>,
        principal: &Principal,
        name: &TenantName,
        change: TenantChange,
    ) -> Result<TenantInfo, ServiceError> {
        let tenant = auth::tenant(&self.routing.load(), principal, name, Action::TenantWrite).map(Arc::clone)?;
        if change.platform_min_isolation.is_some() {
            auth::platform(principal, Action::TenantManage)?;
        }
        let change = TenantMinimumChange { platform: change.platform_min_isolation, own: change.min_isolation };
        let platform = change.platform.map(|level| format!("platform {level}"));
        let told: Vec<String> = platform.into_iter().chain(change.own.map(|level| format!("own {level}"))).collect();
        let deed = Deed::of(&tenant, "tenant.min_isolation", name).with(told.join(", "));
        let set = async move |store: Store| store.set_tenant_minimum(tenant.id, change).await.map_err(storage);
        self.write_audited(principal, deed, set).await?;
        self.tenant(principal, name)
    }

    /// Deletes a tenant with its keys, models and files. For platform admins.
    ///
    /// # Errors
    /// 404 for a tenant there is not or another's, 403 for other roles, 409 for the operator's own.
    pub async fn delete_tenant(self: &Arc<Self>, principal: &Principal, name: &TenantName) -> Result<(), ServiceError> {
        let tenant = auth::tenant(&self.routing.load(), principal, name, Action::TenantRead).map(Arc::clone)?;
        auth::platform(principal, Action::TenantManage)?;
        if tenant.operator {
            return Err(ServiceError::new(ErrorCode::Conflict, "the operator's own tenant cannot be deleted"));
        }
        let deed = Deed::of(&tenant, "tenant.delete", name);
        let delete = async move |store: Store| store.delete_tenant(tenant.id).await.map_err(storage);
        self.write_audited(principal, deed, delete).await
    }

    fn tenant_info(&self, tenant: &RoutedTenant) -> TenantInfo {
        TenantInfo {
            id: tenant.id,
            name: (*tenant.name).clone(),
            operator: tenant.operator,
            created_ms: tenant.created_ms,
            isolation: TenantIsolation {
                in_force: self.node.level(),
                minimum: self.effective_minimum(tenant.demanded()),
                platform_minimum: tenant.minimum.platform,
                own_minimum: tenant.minimum.own,
            },
        }
    }
}
