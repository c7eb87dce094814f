//! What the node tells of, on its way into the audit trail.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tenantry_node::{Incident, IncidentKind};
use tenantry_store::{AuditActor, AuditEntry};
use tenantry_types::{DataOwner, ServiceError, TenantId, VersionId};

use crate::Server;
use crate::routing::Routing;
use crate::server::{storage, unix_ms};

/// The pause after incidents that could not be written.
const RETRY: Duration = Duration::from_secs(1);

impl Server {
    /// Writes what the node has told of since the last time. What cannot be written is kept for the next time.
    pub(crate) async fn record_incidents(&self) -> Result<(), ServiceError> {
        let mut pending = self.incidents.lock().await;
        let routing = self.routing.load_full();
        let names = names(&routing);
        let (now, now_ms) = (self.node.now(), unix_ms());
        for incident in self.node.take_incidents() {
            let ago_ms = now.saturating_since(incident.at).as_millis();
            let at_ms = now_ms.saturating_sub(i64::try_from(ago_ms).unwrap_or(i64::MAX));
            pending.entries.extend(entries_of(&incident, &names, at_ms));
        }
        let dropped = self.node.dropped_incidents();
        if dropped > pending.dropped_told {
            let detail = format!("{} incidents came faster than they could be kept", dropped - pending.dropped_told);
            pending.entries.push(by_server(None, "incident.dropped", "node", "lost", detail, now_ms));
            pending.dropped_told = dropped;
        }
        if !pending.entries.is_empty() {
            self.store.append_audit(&pending.entries).await.map_err(storage)?;
            pending.entries.clear();
        }
        Ok(())
    }
}

/// What waits to be written.
#[derive(Debug, Default)]
pub(crate) struct PendingIncidents {
    entries: Vec<AuditEntry>,
    /// How many of the node's lost incidents were told of.
    dropped_told: u64,
}

/// Writes the node's incidents for as long as the server runs. While the store does not take them, the node's own list,
/// which is bounded, fills.
pub(crate) async fn run(server: Arc<Server>) {
    loop {
        match server.record_incidents().await {
            Ok(()) => server.node.incident_added().await,
            // The error is in the log already.
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

/// The models' names and versions' numbers.
fn names(routing: &Routing) -> HashMap<VersionId, String> {
    let versions = routing.models().flat_map(|model| {
        model.versions.values().map(|version| (version.id, format!("{}:{}", model.full_name, version.number)))
    });
    versions.collect()
}

/// A record for the owner of the model, and one for the owner of the data if he is another.
fn entries_of(incident: &Incident, names: &HashMap<VersionId, String>, at_ms: i64) -> Vec<AuditEntry> {
    let object = match incident.version {
        Some(version) => names.get(&version).cloned().unwrap_or_else(|| version.to_string()),
        None => "worker".to_owned(),
    };
    let action = format!("incident.{}", incident.kind.as_str());
    let outcome = outcome_of(incident.kind);
    let owner = incident.domain.model_owner;
    let data_owner = match incident.domain.data_owner {
        DataOwner::Tenant(tenant) if tenant != owner => Some(tenant),
        DataOwner::Tenant(_) | DataOwner::Any => None,
    };
    let concerned = std::iter::once(owner).chain(data_owner);
    let entry = |tenant| by_server(Some(tenant), &action, &object, outcome, incident.reason.clone(), at_ms);
    concerned.map(entry).collect()
}

fn by_server(
    tenant: Option<TenantId>,
    action: &str,
    object: &str,
    outcome: &str,
    detail: String,
    at_ms: i64,
) -> AuditEntry {
    AuditEntry {
        at_ms,
        actor: AuditActor::Server,
        source: None,
        tenant,
        action: action.to_owned(),
        object: object.to_owned(),
        outcome: outcome.to_owned(),
        detail,
    }
}

const fn outcome_of(kind: IncidentKind) -> &'static str {
    match kind {
        IncidentKind::ForbiddenCall | IncidentKind::OutOfMemory | IncidentKind::Violation | IncidentKind::Deadline => {
            "ended"
        }
        IncidentKind::Died => "died",
        IncidentKind::Quarantined | IncidentKind::PoisonClosed => "closed",
        IncidentKind::PoisonRefused => "refused",
    }
}
