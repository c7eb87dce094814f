//! The JSON of the audit trail.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use tenantry_types::{KeyId, TenantId};
use utoipa::ToSchema;

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditActor {
    /// The tenant of the key it was done with, `platform` for what the platform's administrators did; absent: the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The key; only the tenant's own, and for platform administrators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub key: Option<KeyId>,
    /// What it was to its tenant then: its role, or its roles with a `+` between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Whether it was somebody who could not prove who he is; `key` is the one he named, if any. Absent: no.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unknown: bool,
    /// The id of `tenant`, which the record's hash covers; for platform administrators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub tenant_id: Option<TenantId>,
}

/// Something that was done or happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditRecord {
    /// Its place in the trail of the whole server.
    pub sequence: u64,
    /// When.
    pub at_ms: i64,
    /// Who did it.
    pub actor: AuditActor,
    /// Whom it concerns; absent: the platform only. The id of a tenant that is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// What was done or happened, such as `key.revoke` or `incident.forbidden_call`.
    #[schema(example = "key.revoke")]
    pub action: String,
    /// To what.
    pub object: String,
    /// What came of it: `ok`, the code of the error, or what became of the worker.
    pub outcome: String,
    /// What else there is to say.
    pub detail: String,
    /// The address it came from; absent for what the server did, and in a tenant's records for what the platform's
    /// administrators did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub source: Option<IpAddr>,
    /// The store's revision that the write made; absent for what was no write, or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// The id of `tenant`, which the hash covers; for platform administrators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub tenant_id: Option<TenantId>,
    /// The hash of the record before it in the trail of the whole server.
    pub previous: String,
    /// SHA-256 over all the record's fields as they are kept, and `previous`.
    pub hash: String,
}

/// Records of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Audit {
    /// The newest first; with `after`, the oldest first.
    pub records: Vec<AuditRecord>,
}

/// What was found when the audit trail was verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditVerification {
    /// How many records are what was written, from the oldest on.
    pub verified: u64,
    /// The oldest of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
    /// The newest of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// The hash of that one: kept elsewhere, it fixes the whole trail up to there.
    pub hash: String,
    /// The first that is not, if there is one. What comes after it was not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<AuditFault>,
}

/// A record that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditFault {
    /// Which.
    pub sequence: u64,
    /// What is wrong: `unreadable`, `hash_differs` (it was changed), `link_broken` (it follows another record than the one
    /// that is there), `missing` or `head_differs` (it is not the one that was written last).
    #[schema(example = "hash_differs")]
    pub problem: String,
}
