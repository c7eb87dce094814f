//! API keys.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tenantry_store::{Key, Store};
use tenantry_types::{Action, ErrorCode, KeyId, Scope, ServiceError, TenantId, TenantName};

use super::{CreatedKey, KeyInfo, NewKey};
use crate::audit::Deed;
use crate::routing::{RoutedTenant, Routing};
use crate::server::{storage, unix_ms};
use crate::{Principal, Role, Server, auth};

/// How many keys' last uses are written in one transaction.
const KEYS_AT_A_TIME: usize = 100;
/// The longest a key that was replaced is accepted beside the new one.
const MAX_OVERLAP: Duration = Duration::from_secs(90 * 24 * 3_600);

impl Server {
    /// Makes a key for a tenant. Nobody gives a key more than he may do himself; only a platform admin makes platform keys, and
    /// only for the operator's tenant, and binds keys to clients' certificates.
    ///
    /// # Errors
    /// 403 for a role that may not, 404 for another tenant, 400 for an impossible expiry, label, scope or role, 409 for a
    /// certificate's subject that has a key.
    pub async fn create_key(
        self: &Arc<Self>,
        principal: &Principal,
        owner: &TenantName,
        new: NewKey,
    ) -> Result<CreatedKey, ServiceError> {
        let (tenant, deed) = {
            let routing = self.routing.load();
            let tenant = auth::tenant(&routing, principal, owner, Action::KeyWrite)?;
            if new.certificate.is_some() {
                // Whoever presents it becomes this tenant's: which certificates there are is the platform's to know.
                auth::platform(principal, Action::TenantManage)?;
            }
            self.check_given(&routing, principal, tenant, &new.role, &new.scope)?;
            (tenant.id, Deed::of(tenant, "key.create", "key").with(told(&new)))
        };
        let now_ms = unix_ms();
        let expires_ms = expiry(new.expires_in, now_ms)?;
        let NewKey { role, scope, label, certificate, .. } = new;
        let new = tenantry_store::NewKey { role, scope, label, expires_ms, certificate };
        let create = async move |store: Store| store.create_key(tenant, new, now_ms).await.map_err(storage);
        let (key, secret) = self.write_audited(principal, deed, create).await?;
        Ok(CreatedKey { key: info(key), secret })
    }

    /// Makes a new key in the place of one, with the same role, scope, label and settings; the old one is accepted for
    /// `overlap` more.
    ///
    /// # Errors
    /// 403 for a role that may not, 404 for another tenant or a key it has not or that is not valid any more, 400 for an
    /// impossible expiry or overlap.
    pub async fn rotate_key(
        self: &Arc<Self>,
        principal: &Principal,
        owner: &TenantName,
        key: KeyId,
        overlap: Duration,
        expires_in: Option<Duration>,
    ) -> Result<CreatedKey, ServiceError> {
        let (tenant, deed) = {
            let routing = self.routing.load();
            let tenant = auth::tenant(&routing, principal, owner, Action::KeyWrite)?;
            if let Some(known) = routing.keys.get(&key).filter(|known| known.tenant.id == tenant.id) {
                self.check_given(&routing, principal, tenant, &known.key.role, &known.key.scope)?;
            }
            let overlap = humantime::format_duration(overlap);
            (tenant.id, Deed::of(tenant, "key.rotate", key).with(format!("the old one ends in {overlap}")))
        };
        if overlap > MAX_OVERLAP {
            return Err(ServiceError::invalid("the old key is accepted for 90 days more at most"));
        }
        let now_ms = unix_ms();
        let expires_ms = expiry(expires_in, now_ms)?;
        let overlap_ms = i64::try_from(overlap.as_millis()).unwrap_or(i64::MAX);
        let rotate = async move |store: Store| {
            store.rotate_key(tenant, key, overlap_ms, expires_ms, now_ms).await.map_err(storage)
        };
        let (key, secret) = self.write_audited(principal, deed, rotate).await?;
        Ok(CreatedKey { key: info(key), secret })
    }

    /// Nobody gives what he has not. A platform admin has everything; he gives it in any tenant.
    pub(super) fn check_given(
        &self,
        routing: &Routing,
        principal: &Principal,
        tenant: &RoutedTenant,
        role: &Role,
        scope: &Scope,
    ) -> Result<(), ServiceError> {
        if principal.is_platform_admin() {
            return Ok(());
        }
        if *role == Role::PlatformAdmin {
            return Err(auth::denied(Action::TenantManage));
        }
        let custom = routing.roles.get(&tenant.id).map_or(&[][..], Vec::as_slice);
        let grants = self.access.grants(std::slice::from_ref(role), tenant.operator, custom);
        if principal.covers(&grants, scope) {
            return Ok(());
        }
        let text = "a key cannot be given more than the key that makes it may do; choose a narrower role or scope";
        Err(ServiceError::new(ErrorCode::PermissionDenied, text))
    }

    /// Writes down when keys were last used, where that is not written yet.
    pub(crate) async fn note_keys_used(&self) {
        let used: Vec<(KeyId, i64)> = {
            let routing = self.routing.load();
            let mut noted = self.noted_keys.lock();
            noted.retain(|key, _| routing.keys.contains_key(key));
            let newer = routing.keys.values().filter_map(|routed| {
                let used_ms = routed.used_ms.load(Ordering::Relaxed);
                let before = noted.get(&routed.key.id).copied().or(routed.key.last_used_ms).unwrap_or(0);
                (used_ms > before).then_some((routed.key.id, used_ms))
            });
            newer.collect()
        };
        for some in used.chunks(KEYS_AT_A_TIME) {
            match self.store.note_keys_used(some).await {
                Ok(()) => self.noted_keys.lock().extend(some.iter().copied()),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "when keys were used is not written yet");
                    return;
                }
            }
        }
    }

    /// A tenant's keys, oldest first, without their secrets; revoked and expired ones too.
    ///
    /// # Errors
    /// 403 for a role that may not, 404 for another tenant.
    pub async fn keys(&self, principal: &Principal, owner: &TenantName) -> Result<Vec<KeyInfo>, ServiceError> {
        let tenant = auth::tenant(&self.routing.load(), principal, owner, Action::KeyRead)?.id;
        let keys = self.store.keys(tenant).await.map_err(storage)?;
        let routing = self.routing.load();
        let with_use = |key: Key| {
            let used_ms = routing.keys.get(&key.id).map(|routed| routed.used_ms.load(Ordering::Relaxed));
            let last_used_ms = used_ms.filter(|used_ms| *used_ms > 0).or(key.last_used_ms);
            KeyInfo { last_used_ms, ..info(key) }
        };
        Ok(keys.into_iter().map(with_use).collect())
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
            let tenant = auth::tenant(&routing, principal, owner, Action::KeyWrite)?;
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
        auth::platform(principal, Action::TenantManage)?;
    }
    store.revoke_key(tenant, key, now_ms).await.map_err(storage)
}

fn expiry(expires_in: Option<Duration>, now_ms: i64) -> Result<Option<i64>, ServiceError> {
    let Some(expires_in) = expires_in else { return Ok(None) };
    let after_ms = i64::try_from(expires_in.as_millis()).ok().filter(|after_ms| *after_ms > 0);
    let expires_ms = after_ms.and_then(|after_ms| now_ms.checked_add(after_ms));
    let expires_ms = expires_ms.ok_or_else(|| {
        ServiceError::invalid("a key expires at least a millisecond from now, or never: leave it out")
    })?;
    Ok(Some(expires_ms))
}

/// What a new key is, for the audit.
fn told(new: &NewKey) -> String {
    let mut told = new.role.to_string();
    if !new.scope.is_everything() {
        // Plain values, which always have a text.
        told = format!("{told}, confined to {}", serde_json::to_string(&new.scope).unwrap_or_default());
    }
    match &new.certificate {
        Some(subject) => format!("{told}, proved by the certificate of {subject}"),
        None => told,
    }
}

fn info(key: Key) -> KeyInfo {
    KeyInfo {
        id: key.id,
        role: key.role,
        scope: key.scope,
        certificate: key.certificate,
        label: key.label,
        created_ms: key.created_ms,
        expires_ms: key.expires_ms,
        revoked_ms: key.revoked_ms,
        last_used_ms: key.last_used_ms,
    }
}
