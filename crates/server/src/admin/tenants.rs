//! Tenants.

use std::sync::Arc;

use tenantry_store::TenantMinimumChange;
use tenantry_types::{ErrorCode, ServiceError, TenantName};

use super::{TenantChange, TenantInfo, TenantIsolation};
use crate::routing::RoutedTenant;
use crate::server::{storage, unix_ms};
use crate::{Principal, Role, Server, auth};

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
        auth::platform_admin(principal)?;
        let (store, name) = (self.store.clone(), name.clone());
        let create = async move { store.create_tenant(&name, false, unix_ms()).await.map_err(storage) };
        let tenant = self.write(create).await?;
        self.tenant(principal, &tenant.name)
    }

    /// All tenants by name for a platform admin; the caller's own for everybody else.
    pub fn tenants(&self, principal: &Principal) -> Vec<TenantInfo> {
        let routing = self.routing.load();
        let is_shown =
            |tenant: &&Arc<RoutedTenant>| principal.role == Role::PlatformAdmin || tenant.id == principal.tenant;
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
        auth::readable(&self.routing.load(), principal, name).map(|tenant| self.tenant_info(tenant))
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
        let id = auth::administered(&self.routing.load(), principal, name)?.id;
        if change.platform_min_isolation.is_some() {
            auth::platform_admin(principal)?;
        }
        let store = self.store.clone();
        let change = TenantMinimumChange { platform: change.platform_min_isolation, own: change.min_isolation };
        self.write(async move { store.set_tenant_minimum(id, change).await.map_err(storage) }).await?;
        self.tenant(principal, name)
    }

    /// Deletes a tenant with its keys, models and files. For platform admins.
    ///
    /// # Errors
    /// 403 for other roles, 404 for a tenant there is not, 409 for the operator's own.
    pub async fn delete_tenant(self: &Arc<Self>, principal: &Principal, name: &TenantName) -> Result<(), ServiceError> {
        auth::platform_admin(principal)?;
        let tenant = auth::administered(&self.routing.load(), principal, name).map(Arc::clone)?;
        if tenant.operator {
            return Err(ServiceError::new(ErrorCode::Conflict, "the operator's own tenant cannot be deleted"));
        }
        let store = self.store.clone();
        self.write(async move { store.delete_tenant(tenant.id).await.map_err(storage) }).await
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
