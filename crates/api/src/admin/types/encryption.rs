//! The JSON of encryption at rest.

use serde::{Deserialize, Serialize};
use tenantry_types::TenantName;
use utoipa::ToSchema;

/// How files are encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Encryption {
    /// Whether files that are written now are encrypted.
    pub enabled: bool,
    /// What keeps the master key: `file`, `environment` or `vault`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "file")]
    pub keeper: Option<String>,
    /// The master key that wraps now; absent: there is none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "file:5f0c7a1be2d94a36")]
    pub master_key: Option<String>,
    /// Keys of tenants.
    pub data_keys: u64,
    /// Those of them that an older master key wrapped: `rotate --master` wraps them anew.
    pub behind: u64,
    /// Tenants with keys of more than one generation: a rekey leaves them one.
    pub tenants_behind: u64,
    /// Decrypted files in memory, each once, for the workers that use them.
    pub clear_files: u64,
    /// Their bytes.
    pub clear_bytes: u64,
    /// The rotation or rekey that runs, or the last one since the server started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<EncryptionJob>,
}

/// One generation of a tenant's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyGeneration {
    /// Counted from 1; the newest encrypts what is written.
    pub generation: u32,
    /// Which master key wrapped it.
    pub master_key: String,
    /// When it was made.
    pub created_ms: i64,
}

/// How a tenant's files are encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TenantEncryption {
    /// Whose.
    #[schema(value_type = String)]
    pub tenant: TenantName,
    /// Its keys, oldest first; none before the first file is written.
    pub generations: Vec<KeyGeneration>,
    /// Its files.
    pub files: u64,
    /// The length of their contents.
    pub bytes: u64,
    /// Those that are not encrypted: from before, or written while it was off.
    pub plain: u64,
    /// Those that an older generation encrypted.
    pub behind: u64,
}

/// Whose files are written anew.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RekeyRequest {
    /// One tenant's; absent: everybody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub tenant: Option<TenantName>,
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EncryptionJobKind {
    /// Writes files anew under their tenants' newest keys.
    Rekey,
    /// Has the master key wrap the tenants' keys anew.
    Rewrap,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EncryptionJobState {
    /// It runs.
    Running,
    /// It is through.
    Done,
    /// It stopped; doing it again goes on.
    Failed,
}

/// A rotation of the master key or a rekey.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EncryptionJob {
    /// Counted from 1 since the server started.
    pub number: u64,
    /// What it does.
    pub kind: EncryptionJobKind,
    /// For whom; absent: for everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub tenant: Option<TenantName>,
    /// How far it is.
    pub state: EncryptionJobState,
    /// Why it stopped; the server's log says more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Tenants a rekey is through with, keys a rewrap is through with.
    pub done: u64,
    /// How many there are.
    pub total: u64,
    /// Files a rekey has looked at.
    pub files: u64,
    /// Files it wrote anew.
    pub rewritten: u64,
    /// The length of their contents.
    pub rewritten_bytes: u64,
    /// Files it could not decrypt, which stay as they are, and so do their keys.
    pub damaged: u64,
    /// Old generations that went.
    pub generations_gone: u32,
    /// Old generations that stay, because something is encrypted with them, or just being written; another rekey removes them.
    pub generations_left: u32,
    /// When it began.
    pub started_ms: i64,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<i64>,
}
