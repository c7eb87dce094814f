//! Reading the audit trail.

use tenantry_store::{AuditActor, AuditQuery as StoredQuery, AuditRecord};
use tenantry_types::{ServiceError, TenantId, TenantName};

use super::{AuditActorInfo, AuditInfo, AuditQuery};
use crate::routing::Routing;
use crate::server::storage;
use crate::{Principal, Role, Server, auth};

/// What a tenant reads in the place of a key of the platform's.
const PLATFORM: &str = "platform";

impl Server {
    /// What was done to a tenant and its things, and what happened to them, the newest first. For its admins; what a key of
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
        let id = auth::administered(&self.routing.load(), principal, tenant)?.id;
        self.audit_of(principal, Some(id), query).await
    }

    /// Everybody's, and what concerns nobody but the platform. For platform admins.
    ///
    /// # Errors
    /// 403 for other roles.
    pub async fn audit_of_all(&self, principal: &Principal, query: AuditQuery) -> Result<Vec<AuditInfo>, ServiceError> {
        auth::platform_admin(principal)?;
        self.audit_of(principal, None, query).await
    }

    async fn audit_of(
        &self,
        principal: &Principal,
        tenant: Option<TenantId>,
        query: AuditQuery,
    ) -> Result<Vec<AuditInfo>, ServiceError> {
        let AuditQuery { since_ms, before, limit } = query;
        let query = StoredQuery { tenant, since_ms, before, limit: limit.unwrap_or(0) };
        let records = self.store.audit(&query).await.map_err(storage)?;
        let routing = self.routing.load();
        Ok(records.into_iter().map(|record| info(record, principal, &routing)).collect())
    }
}

fn info(record: AuditRecord, reader: &Principal, routing: &Routing) -> AuditInfo {
    let AuditRecord { sequence, entry } = record;
    // A tenant that is gone leaves its id.
    let name = |tenant: TenantId| match routing.tenants.get(&tenant) {
        Some(tenant) => tenant.name.to_string(),
        None => tenant.to_string(),
    };
    let actor = match entry.actor {
        AuditActor::Server => AuditActorInfo::Server,
        AuditActor::Key { tenant, .. } if reader.role != Role::PlatformAdmin && tenant != reader.tenant => {
            AuditActorInfo::Key { tenant: PLATFORM.to_owned(), key: None, role: None }
        }
        AuditActor::Key { tenant, key, role } => {
            AuditActorInfo::Key { tenant: name(tenant), key: Some(key), role: Some(role) }
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
    }
}
