//! API keys.

use std::sync::Arc;

use tenantry_store::{Key, Store};
use tenantry_types::{ErrorCode, KeyId, ServiceError, TenantId, TenantName};

use super::{CreatedKey, KeyInfo, NewKey};
use crate::audit::Deed;
use crate::server::{storage, unix_ms};
use crate::{Principal, Role, Server, auth};

impl Server {
    /// Makes a key for a tenant. Only a platform admin makes platform keys, and only for the operator's tenant.
    ///
    /// # Errors
    /// 403 for a role that may not, 404 for another tenant, 400 for an impossible expiry or label.
    pub async fn create_key(
        self: &Arc<Self>,
        principal: &Principal,
        owner: &TenantName,
        new: NewKey,
    ) -> Result<CreatedKey, ServiceError> {
        let (tenant, deed) = {
            let routing = self.routing.load();
            let tenant = auth::administered(&routing, principal, owner)?;
            (tenant.id, Deed::of(tenant, "key.create", "key").with(new.role.as_str()))
        };
        if new.role == Role::PlatformAdmin {
            auth::platform_admin(principal)?;
        }
        let now_ms = unix_ms();
        let expires_ms = match new.expires_in {
            None => None,
            Some(expires_in) => {
                let after_ms = i64::try_from(expires_in.as_millis()).ok().filter(|after_ms| *after_ms > 0);
                let expires_ms = after_ms.and_then(|after_ms| now_ms.checked_add(after_ms));
                Some(expires_ms.ok_or_else(|| {
                    ServiceError::invalid("a key expires at least a millisecond from now, or never: leave it out")
                })?)
            }
        };
        let create = async move |store: Store| {
            store.create_key(tenant, new.role, &new.label, expires_ms, now_ms).await.map_err(storage)
        };
        let (key, secret) = self.write_audited(principal, deed, create).await?;
        Ok(CreatedKey { key: info(key), secret })
    }

    /// A tenant's keys, oldest first, without their secrets; revoked and expired ones too.
    ///
    /// # Errors
    /// 403 for a role that may not, 404 for another tenant.
    pub async fn keys(&self, principal: &Principal, owner: &TenantName) -> Result<Vec<KeyInfo>, ServiceError> {
        let tenant = auth::administered(&self.routing.load(), principal, owner)?.id;
        let keys = self.store.keys(tenant).await.map_err(storage)?;
        Ok(keys.into_iter().map(info).collect())
    }

    /// Revokes a key. No request that arrives after this returns gets in with it.
    ///
    /// # Errors
    /// 403 for a role that may not, 404 for another tenant or a key it has not, 409 for the last platform key.
    pub async fn revoke_key(
        self: &Arc<Self>,
        principal: &Principal,
        owner: &TenantName,
        key: KeyId,
    ) -> Result<KeyInfo, ServiceError> {
        let (tenant, deed) = {
            let routing = self.routing.load();
            let tenant = auth::administered(&routing, principal, owner)?;
            (tenant.id, Deed::of(tenant, "key.revoke", key))
        };
        let caller = principal.clone();
        let revoke = async move |store: Store| revoke(&store, &caller, tenant, key).await;
        let revoked = self.write_audited(principal, deed, revoke).await?;
        Ok(info(revoked))
    }
}

async fn revoke(store: &Store, principal: &Principal, tenant: TenantId, key: KeyId) -> Result<Key, ServiceError> {
    let keys = store.keys(tenant).await.map_err(storage)?;
    let now_ms = unix_ms();
    let is_platform = |known: &&Key| known.role == Role::PlatformAdmin && known.is_live(now_ms);
    let mut platform = keys.iter().filter(is_platform);
    if let (Some(only), None) = (platform.next(), platform.next())
        && only.id == key
    {
        return Err(ServiceError::new(
            ErrorCode::Conflict,
            "this is the last platform key; make another one first, or nobody could administer the server",
        ));
    }
    if keys.iter().any(|known| known.id == key && known.role == Role::PlatformAdmin) {
        auth::platform_admin(principal)?;
    }
    store.revoke_key(tenant, key, now_ms).await.map_err(storage)
}

fn info(key: Key) -> KeyInfo {
    KeyInfo {
        id: key.id,
        role: key.role,
        label: key.label,
        created_ms: key.created_ms,
        expires_ms: key.expires_ms,
        revoked_ms: key.revoked_ms,
    }
}
