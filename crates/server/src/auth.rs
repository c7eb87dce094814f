//! Who is calling, and what he may do. One 401 text for everything that can be wrong with a credential.

use std::net::IpAddr;
use std::sync::Arc;

use tenantry_store::{KeySecret, Role};
use tenantry_types::{ErrorCode, KeyId, ServiceError, TenantId, TenantName};

use crate::routing::{RoutedKey, RoutedTenant, Routing};

/// An authenticated caller. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Principal {
    /// The tenant the key belongs to.
    pub tenant: TenantId,
    /// Its name.
    pub tenant_name: Arc<TenantName>,
    /// The key.
    pub key: KeyId,
    /// What the key may do.
    pub role: Role,
    /// Where the call came from, if that is known.
    pub source: Option<IpAddr>,
    routed: Arc<RoutedTenant>,
}

impl Principal {
    /// The same, calling from there.
    pub(crate) fn at(self, source: Option<IpAddr>) -> Self {
        Self { source, ..self }
    }

    /// The tenant, as the routing table had it when the key was looked up.
    pub(crate) fn routed(&self) -> &Arc<RoutedTenant> {
        &self.routed
    }
}

/// Who presents this `Authorization` header at `now_ms`.
///
/// The secret carries 256 random bits, so one SHA-256 of it is enough, and it is compared in constant time. A key that
/// was revoked is not in the table any more.
pub(crate) fn authenticate(
    routing: &Routing,
    authorization: Option<&str>,
    now_ms: i64,
) -> Result<Principal, ServiceError> {
    authorization
        .and_then(bearer)
        .and_then(KeySecret::parse)
        .and_then(|(id, presented)| {
            let RoutedKey { key, tenant } = routing.keys.get(&id)?;
            (key.matches(&presented) && key.is_live(now_ms)).then(|| Principal {
                tenant: tenant.id,
                tenant_name: Arc::clone(&tenant.name),
                key: id,
                role: key.role,
                source: None,
                routed: Arc::clone(tenant),
            })
        })
        .ok_or_else(|| {
            ServiceError::new(
                ErrorCode::Unauthenticated,
                "missing or invalid key; send `Authorization: Bearer KEY` with a key that is neither revoked nor expired",
            )
        })
}

/// The key that a header which was not accepted names, if it looks like one.
pub(crate) fn named_key(authorization: Option<&str>) -> Option<KeyId> {
    authorization.and_then(bearer).and_then(KeySecret::parse).map(|(id, _)| id)
}

/// The token of a bearer header (RFC 6750, section 2.1); the scheme's case does not matter.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

/// The tenant an admin operation is about, if the caller may administer it.
///
/// A platform admin administers every tenant, an admin his own. For everybody else another tenant does not exist.
///
/// # Errors
/// 404 for a tenant that does not exist or is not the caller's, 403 where his role does not suffice in his own.
pub(crate) fn administered<'a>(
    routing: &'a Routing,
    principal: &Principal,
    tenant: &TenantName,
) -> Result<&'a Arc<RoutedTenant>, ServiceError> {
    let found = readable(routing, principal, tenant)?;
    any_admin(principal).map(|()| found)
}

/// The tenant a read is about, if the caller may look into it: any role in its own tenant.
///
/// # Errors
/// 404 for a tenant that does not exist or is not the caller's.
pub(crate) fn readable<'a>(
    routing: &'a Routing,
    principal: &Principal,
    tenant: &TenantName,
) -> Result<&'a Arc<RoutedTenant>, ServiceError> {
    routing
        .tenant(tenant)
        .filter(|found| principal.role == Role::PlatformAdmin || found.id == principal.tenant)
        .ok_or_else(|| unknown_tenant(tenant))
}

/// # Errors
/// 403 for everybody but a platform admin.
pub(crate) fn platform_admin(principal: &Principal) -> Result<(), ServiceError> {
    match principal.role {
        Role::PlatformAdmin => Ok(()),
        Role::Admin | Role::Invoker => Err(denied("a key of role `platform_admin`")),
    }
}

/// # Errors
/// 403 for whoever may only use his tenant's models.
pub(crate) fn any_admin(principal: &Principal) -> Result<(), ServiceError> {
    match principal.role {
        Role::PlatformAdmin | Role::Admin => Ok(()),
        Role::Invoker => Err(denied("a key of role `admin`")),
    }
}

/// The one text for a tenant that does not exist and for one that is not the caller's.
pub(crate) fn unknown_tenant(tenant: &TenantName) -> ServiceError {
    ServiceError::new(ErrorCode::NotFound, format!("tenant `{tenant}` does not exist or you may not manage it"))
}

fn denied(needed: &str) -> ServiceError {
    ServiceError::new(ErrorCode::PermissionDenied, format!("this needs {needed}"))
}

#[cfg(test)]
mod tests;
