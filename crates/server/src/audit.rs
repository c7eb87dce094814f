//! The audit trail: what admin operations leave in it; `incidents` has what the node does, `refusals` who was refused.

mod incidents;
mod refusals;

use std::sync::Arc;

use tenantry_store::{AuditActor, AuditEntry, Store, WriteError};
use tenantry_types::{ServiceError, TenantId};

pub(crate) use incidents::{PendingIncidents, run};
pub(crate) use refusals::{Refusals, run as run_refusals};

use crate::routing::{RoutedModel, RoutedTenant};
use crate::server::{storage, unix_ms};
use crate::{Principal, Server};

/// What an admin operation is about to do.
#[derive(Debug, Clone)]
pub(crate) struct Deed {
    action: &'static str,
    tenant: Option<TenantId>,
    object: String,
    detail: String,
}

impl Deed {
    /// Something done to a tenant or what is its.
    pub(crate) fn of(tenant: &RoutedTenant, action: &'static str, object: impl ToString) -> Self {
        Self { action, tenant: Some(tenant.id), object: object.to_string(), detail: String::new() }
    }

    /// Something done to a model; what is given after its name is a part of it.
    pub(crate) fn of_model(model: &RoutedModel, action: &'static str, part: &str) -> Self {
        Self::of(&model.owner, action, format!("{}{part}", model.full_name))
    }

    /// Something that concerns the platform only.
    pub(crate) fn of_platform(action: &'static str, object: impl ToString) -> Self {
        Self { action, tenant: None, object: object.to_string(), detail: String::new() }
    }

    /// With more to say.
    #[must_use]
    pub(crate) fn with(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// As a record, done by this caller.
    pub(crate) fn by(self, principal: &Principal, outcome: &str) -> AuditEntry {
        // An id of ours says nothing of somebody whom an issuer knows.
        let detail = match (&principal.subject, self.detail.is_empty()) {
            (None, _) => self.detail,
            (Some(subject), true) => format!("by {subject}"),
            (Some(subject), false) => format!("{}; by {subject}", self.detail),
        };
        AuditEntry {
            at_ms: unix_ms(),
            actor: AuditActor::Key { tenant: principal.tenant, key: principal.key, role: principal.role_text() },
            source: principal.source,
            tenant: self.tenant,
            action: self.action.to_owned(),
            object: self.object,
            outcome: outcome.to_owned(),
            detail,
        }
    }
}

impl Server {
    /// An admin write ([`Server::write`]) that leaves a record. `write` gets a store whose commits carry it; a write whose
    /// record cannot be written fails. One that fails of itself leaves a record with its error's code, where that can be
    /// written.
    ///
    /// # Errors
    /// As [`Server::write`].
    pub(crate) async fn write_audited<T, F>(
        self: &Arc<Self>,
        principal: &Principal,
        deed: Deed,
        write: impl FnOnce(Store) -> F + Send + 'static,
    ) -> Result<T, ServiceError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ServiceError>> + Send + 'static,
    {
        let (store, done) = (self.store.clone(), deed.by(principal, "ok"));
        self.write(async move {
            let outcome = write(store.audited(done.clone())).await;
            if let Err(error) = &outcome {
                let failed = AuditEntry { outcome: error.code.as_str().to_owned(), ..done };
                if let Err(error) = store.append_audit(&[failed]).await {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "a failed admin write is not in the audit"
                    );
                }
            }
            outcome
        })
        .await
    }

    /// Removes records that are older than is kept, or too many.
    pub(crate) async fn prune_audit(&self) -> Result<(), WriteError> {
        let keep_ms = i64::try_from(self.limits.audit_keep.as_millis()).unwrap_or(i64::MAX);
        let gone = self.store.prune_audit(unix_ms().saturating_sub(keep_ms), self.limits.audit_max_records).await?;
        if gone > 0 {
            tracing::info!(records = gone, "removed old audit records");
        }
        Ok(())
    }

    /// Leaves a record of something that is no write of the store, before it is done.
    ///
    /// # Errors
    /// 503 when it cannot be written; then it must not be done.
    pub(crate) async fn audit_first(&self, principal: &Principal, deed: Deed) -> Result<(), ServiceError> {
        self.store.append_audit(&[deed.by(principal, "ok")]).await.map_err(storage)
    }
}
