//! Reading the audit trail.

use std::time::Duration;

use tenantry_store::{AuditActor, AuditQuery as StoredQuery, AuditRecord, AuditVerification};
use tenantry_types::{Action, ErrorCode, ServiceError, TenantId, TenantName};

use super::{AuditActorInfo, AuditIds, AuditInfo, AuditQuery};
use crate::routing::Routing;
use crate::server::storage;
use crate::{Principal, Server, auth};

/// What a tenant reads in the place of a key of the platform's.
const PLATFORM: &str = "platform";
/// When a check of the trail that met another one may be tried again.
const VERIFY_RETRY: Duration = Duration::from_secs(5);

impl Server {
    /// What was done to a tenant and its things, and what happened to them, the newest first unless the query says after
    /// which. For its admins; what a key of
    /// another tenant did is the platform's to them.
    ///
    /// # Errors
    /// 403 for a role that may not, 404 for another tenant.
    pub async fn audit(
        &self,
        principal: &Principal,
        tenant: &TenantName,
        query: AuditQuery,
    ) -> Result<Vec<AuditInfo>, ServiceError> {
        let id = auth::tenant(&self.routing.load(), principal, tenant, Action::AuditRead)?.id;
        self.audit_of(principal, Some(id), query).await
    }

    /// Everybody's, and what concerns nobody but the platform. For platform admins.
    ///
    /// # Errors
    /// 403 for other roles.
    pub async fn audit_of_all(&self, principal: &Principal, query: AuditQuery) -> Result<Vec<AuditInfo>, ServiceError> {
        auth::platform(principal, Action::PlatformRead)?;
        self.audit_of(principal, None, query).await
    }

    /// Whether the trail is what was written. For platform admins.
    ///
    /// # Errors
    /// 403 for other roles, 503 while somebody else's check runs.
    pub async fn verify_audit(&self, principal: &Principal) -> Result<AuditVerification, ServiceError> {
        auth::platform(principal, Action::PlatformRead)?;
        // It reads everything, on one of the store's few connections.
        let _alone = self.verifying.try_lock().map_err(|_| {
            ServiceError::new(ErrorCode::Unavailable, "the audit trail is being verified already; try again shortly")
                .retry_after(VERIFY_RETRY)
        })?;
        self.store.verify_audit().await.map_err(storage)
    }

    async fn audit_of(
        &self,
        principal: &Principal,
        tenant: Option<TenantId>,
        query: AuditQuery,
    ) -> Result<Vec<AuditInfo>, ServiceError> {
        let AuditQuery { since_ms, before, after, limit } = query;
        let query = StoredQuery { tenant, since_ms, before, after, limit: limit.unwrap_or(0) };
        let records = self.store.audit(&query).await.map_err(storage)?;
        let routing = self.routing.load();
        Ok(records.into_iter().map(|record| info(record, principal, &routing)).collect())
    }
}

fn info(record: AuditRecord, reader: &Principal, routing: &Routing) -> AuditInfo {
    let AuditRecord { sequence, entry, generation, previous, hash } = record;
    // A tenant that is gone leaves its id.
    let name = |tenant: TenantId| match routing.tenants.get(&tenant) {
        Some(tenant) => tenant.name.to_string(),
        None => tenant.to_string(),
    };
    let is_platform = reader.is_platform_admin();
    let mut source = entry.source;
    let actor_id = match &entry.actor {
        AuditActor::Key { tenant, .. } => Some(*tenant),
        AuditActor::Server | AuditActor::Unknown { .. } => None,
    };
    let actor = match entry.actor {
        AuditActor::Server => AuditActorInfo::Server,
        AuditActor::Key { tenant, .. } if !is_platform && tenant != reader.tenant => {
            source = None;
            AuditActorInfo::Key { tenant: PLATFORM.to_owned(), key: None, role: None }
        }
        AuditActor::Unknown { key } => AuditActorInfo::Unknown { key },
        AuditActor::Key { tenant, key, role } => {
            AuditActorInfo::Key { tenant: name(tenant), key: Some(key), role: Some(role.into()) }
        }
    };
    AuditInfo {
        sequence,
        at_ms: entry.at_ms,
        actor,
        tenant: entry.tenant.map(name),
        action: entry.action,
        object: entry.object,
        outcome: entry.outcome,
        detail: entry.detail,
        source,
        generation,
        previous,
        hash,
        ids: is_platform.then_some(AuditIds { actor: actor_id, tenant: entry.tenant }),
    }
}
