//! Roles that tenants make for themselves.

use std::sync::Arc;

use tenantry_store::Store;
use tenantry_types::{Action, CustomRole, RoleName, Scope, ServiceError, TenantName};

use crate::audit::Deed;
use crate::server::{storage, unix_ms};
use crate::{Principal, Role, Server, auth};

impl Server {
    /// A tenant's own roles, by name.
    ///
    /// # Errors
    /// 403 for a role that may not, 404 for another tenant.
    pub async fn roles(&self, principal: &Principal, owner: &TenantName) -> Result<Vec<CustomRole>, ServiceError> {
        let tenant = auth::tenant(&self.routing.load(), principal, owner, Action::RoleRead)?.id;
        self.store.roles(tenant).await.map_err(storage)
    }

    /// Makes a role, or gives one of that name this content: whoever has it may do this from now on.
    ///
    /// # Errors
    /// 403 for a role that may not or for more than the caller may do himself, 404 for another tenant, 400 for actions that
    /// are the platform's.
    pub async fn set_role(
        self: &Arc<Self>,
        principal: &Principal,
        owner: &TenantName,
        role: CustomRole,
    ) -> Result<CustomRole, ServiceError> {
        let (tenant, deed) = {
            let routing = self.routing.load();
            let tenant = auth::tenant(&routing, principal, owner, Action::RoleWrite)?;
            if let Some(action) = role.actions.iter().find(|action| action.is_the_platforms()) {
                return Err(ServiceError::invalid(format!("`{action}` is the platform's; no role of a tenant has it")));
            }
            let grants = self.access.grants(&[Role::Custom(role.name.clone())], false, std::slice::from_ref(&role));
            if !principal.is_platform_admin() && !principal.covers(&grants, &Scope::default()) {
                let text = "a role cannot be given more than the key that makes it may do";
                return Err(ServiceError::new(tenantry_types::ErrorCode::PermissionDenied, text));
            }
            let actions: Vec<&str> = role.actions.iter().map(|action| action.as_str()).collect();
            let on = role.models.as_ref().map_or(String::new(), |models| format!(" on {} models", models.len()));
            let told = format!("{}{on}", actions.join(" "));
            (tenant.id, Deed::of(tenant, "role.set", &role.name).with(told))
        };
        let made = role.clone();
        let set = async move |store: Store| store.set_role(tenant, &role, unix_ms()).await.map_err(storage);
        self.write_audited(principal, deed, set).await?;
        Ok(made)
    }

    /// Deletes a role.
    ///
    /// # Errors
    /// 403 for a role that may not, 404 for another tenant or a role there is not, 409 while a key has it.
    pub async fn delete_role(
        self: &Arc<Self>,
        principal: &Principal,
        owner: &TenantName,
        role: &RoleName,
    ) -> Result<(), ServiceError> {
        let (tenant, deed) = {
            let routing = self.routing.load();
            let tenant = auth::tenant(&routing, principal, owner, Action::RoleWrite)?;
            (tenant.id, Deed::of(tenant, "role.delete", role))
        };
        let role = role.clone();
        let delete = async move |store: Store| store.delete_role(tenant, &role, unix_ms()).await.map_err(storage);
        self.write_audited(principal, deed, delete).await
    }
}
