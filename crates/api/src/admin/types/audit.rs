//! The JSON of the audit trail.

use serde::{Deserialize, Serialize};
use tenantry_types::KeyId;
use utoipa::ToSchema;

use super::Role;

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
    /// What the key allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
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
}

/// Records of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Audit {
    /// The newest first.
    pub records: Vec<AuditRecord>,
}
