//! What the store keeps, as plain values. Times are milliseconds since the Unix epoch.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use tenantry_types::model::{Registration, VersionSettings};
use tenantry_types::{
    CustomRole, DeploymentId, Digest, KeyId, Level, ModelId, ModelName, OrganisationId, OrganisationName, Role, Scope,
    ShareSettings, ShareSubject, TenantId, TenantName, VersionId,
};

/// A tenant: the boundary of isolation and limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Who it is, for ever.
    pub id: TenantId,
    /// What people call it; unique on the server.
    pub name: TenantName,
    /// Whether it is the operator's own: what it shares may serve everybody's data, and platform keys belong to it.
    pub operator: bool,
    /// When it was created.
    pub created_ms: i64,
    /// How well its workers must be kept apart.
    pub minimum: TenantMinimum,
}

/// How well the workers of a tenant must be kept apart: the higher of the two counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TenantMinimum {
    /// As the platform demands, which the tenant cannot lower.
    pub platform: Level,
    /// As the tenant itself demands.
    pub own: Level,
}

impl TenantMinimum {
    /// What counts.
    pub fn level(self) -> Level {
        self.platform.max(self.own)
    }
}

/// A change of a tenant's minimum; absent ones stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TenantMinimumChange {
    /// As the platform demands.
    pub platform: Option<Level>,
    /// As the tenant itself demands.
    pub own: Option<Level>,
}

/// An organisation: tenants under one share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Organisation {
    /// Who it is, for ever.
    pub id: OrganisationId,
    /// What people call it; unique on the server.
    pub name: OrganisationName,
    /// When it was created.
    pub created_ms: i64,
}

/// The settings of a node of the share tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareRecord {
    /// Which node.
    pub subject: ShareSubject,
    /// How often they changed. A change may name the generation it was made from.
    pub generation: u64,
    /// What they are.
    pub settings: ShareSettings,
}

/// An API key without its secret, of which only the hash is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The public half, part of the secret's text.
    pub id: KeyId,
    /// Whose key it is.
    pub tenant: TenantId,
    /// What it allows.
    pub role: Role,
    /// What it is confined to besides.
    pub scope: Scope,
    /// Who a client's certificate must say he is, where the key has no secret.
    pub certificate: Option<String>,
    /// What its owner calls it.
    pub label: String,
    /// SHA-256 of the whole secret text. Never leaves the server.
    pub secret_sha256: Digest,
    /// When it was created.
    pub created_ms: i64,
    /// From when on it is refused; absent: never.
    pub expires_ms: Option<i64>,
    /// When it was revoked.
    pub revoked_ms: Option<i64>,
    /// When it was last used, as far as that was written down: to the minute.
    pub last_used_ms: Option<i64>,
}

/// What a key is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// What it allows.
    pub role: Role,
    /// What it is confined to besides.
    pub scope: Scope,
    /// What its owner calls it.
    pub label: String,
    /// From when on it is refused; absent: never.
    pub expires_ms: Option<i64>,
    /// Who a client's certificate must say he is; then the key has no secret.
    pub certificate: Option<String>,
}

impl NewKey {
    /// A key of a role, confined to nothing, without an end.
    pub fn of(role: Role) -> Self {
        Self { role, scope: Scope::default(), label: String::new(), expires_ms: None, certificate: None }
    }
}

impl Key {
    /// Whether `presented` is the hash of this key's secret, in time that does not depend on where they differ. One that is
    /// proved by a certificate has none.
    pub fn matches(&self, presented: &Digest) -> bool {
        self.certificate.is_none() && self.secret_sha256.as_bytes().ct_eq(presented.as_bytes()).into()
    }

    /// Whether the key is neither revoked nor expired at `now_ms`.
    pub fn is_live(&self, now_ms: i64) -> bool {
        self.revoked_ms.is_none() && self.expires_ms.is_none_or(|expires_ms| now_ms < expires_ms)
    }
}

/// Who besides its owner may use a model.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// Nobody.
    #[default]
    Private,
    /// Every tenant of the server, by `owner/name`.
    Everyone,
    /// These tenants, by `owner/name`. One of them need not exist.
    Tenants(BTreeSet<TenantName>),
}

impl Sharing {
    /// The value as text, the same as in JSON.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Everyone => "everyone",
            Self::Tenants(_) => "tenants",
        }
    }
}

/// A model: a name with versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Who it is, for ever.
    pub id: ModelId,
    /// The tenant it belongs to.
    pub owner: TenantId,
    /// What people call it; unique inside its owner.
    pub name: ModelName,
    /// Free text.
    pub description: String,
    /// The framework it was trained with, as its owner says.
    pub framework: String,
    /// Searchable key and value pairs.
    pub tags: BTreeMap<String, String>,
    /// What it needs around it, as its owner says: other models, data sets, libraries.
    pub dependencies: Vec<String>,
    /// Who else may use it.
    pub shared: Sharing,
    /// When it was created.
    pub created_ms: i64,
    /// When its own fields last changed.
    pub updated_ms: i64,
    /// How well the workers that run it must be kept apart.
    pub min_isolation: Level,
    /// The number of the next version. Numbers are never given twice, not even after a deletion.
    pub next_version: u32,
}

/// What a model is created with.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NewModel {
    /// Free text.
    pub description: String,
    /// The framework it was trained with.
    pub framework: String,
    /// Searchable key and value pairs.
    pub tags: BTreeMap<String, String>,
    /// What it needs around it.
    pub dependencies: Vec<String>,
    /// Who else may use it.
    pub shared: Sharing,
    /// How well the workers that run it must be kept apart.
    pub min_isolation: Level,
}

/// A change of a model's own fields; absent ones stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ModelUpdate {
    /// Free text.
    pub description: Option<String>,
    /// The framework it was trained with.
    pub framework: Option<String>,
    /// Replaces all tags.
    pub tags: Option<BTreeMap<String, String>>,
    /// Replaces all dependencies.
    pub dependencies: Option<Vec<String>>,
    /// Who else may use it.
    pub shared: Option<Sharing>,
    /// How well the workers that run it must be kept apart.
    pub min_isolation: Option<Level>,
}

/// What to look for among one owner's models.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ModelSearch {
    /// Words, each of which occurs in the model's name, description, framework, dependencies or tags or in one of its
    /// versions' descriptions, tags, file names or tensor names, whatever the case. Empty: every model.
    pub text: String,
    /// A tag the model carries, exactly.
    pub tag: Option<(String, String)>,
    /// Continue after this model of an earlier answer.
    pub after: Option<ModelId>,
    /// The most models of one answer; zero and more than [`crate::limits::MAX_SEARCH_RESULTS`] mean that many.
    pub limit: u32,
}

/// One file of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Its name, relative, as the model refers to it.
    pub name: String,
    /// SHA-256 of its bytes, under which the artefact is kept.
    pub digest: Digest,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Where a version is on its way to serving.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum VersionState {
    /// Its file is being checked, optimised and measured.
    Registering,
    /// It can be deployed.
    Ready,
    /// The engine would not have it.
    Refused {
        /// The engine's reason, fit to show.
        reason: String,
    },
}

/// The form of a version that loads fast on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Optimised {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Its length in bytes.
    pub bytes: u64,
    /// What it was made from and for: model digest, engine version, processor, options.
    pub key: String,
}

/// One immutable version of a model. Only its state and what registration found out are ever added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// Who it is, for ever.
    pub id: VersionId,
    /// Of which model.
    pub model: ModelId,
    /// Its number in that model, from 1.
    pub number: u32,
    /// Digest of the file list: names, digests and lengths in order.
    pub digest: Digest,
    /// Its files; the first one is the model.
    pub files: Vec<StoredFile>,
    /// Free text.
    pub description: String,
    /// Key and value pairs.
    pub tags: BTreeMap<String, String>,
    /// Quality measures its owner gives, by name.
    pub quality: BTreeMap<String, f64>,
    /// How its owner wants it run.
    pub settings: VersionSettings,
    /// Whether its owner wants it deployed as soon as it is ready.
    pub deploy: bool,
    /// Where it is on its way to serving.
    pub state: VersionState,
    /// What registration found out; present when ready.
    pub registration: Option<Registration>,
    /// The optimised form, where one was made.
    pub optimised: Option<Optimised>,
    /// When it was created.
    pub created_ms: i64,
}

/// What a version is created from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct NewVersion {
    /// Its files, all uploaded before; the first one is the model.
    pub files: Vec<StoredFile>,
    /// Free text.
    pub description: String,
    /// Key and value pairs.
    pub tags: BTreeMap<String, String>,
    /// Quality measures, by name.
    pub quality: BTreeMap<String, f64>,
    /// How it is to be run.
    pub settings: VersionSettings,
    /// Whether it is to be deployed as soon as it is ready, unless a newer one is by then.
    pub deploy: bool,
}

/// A movable name of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// Of which model.
    pub model: ModelId,
    /// The name; never all digits, so that it cannot be taken for a version's number.
    pub name: ModelName,
    /// The number of the version it names.
    pub version: u32,
}

/// The desired state of a model. Every model has one from its first moment, naming no version yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Who it is, for ever.
    pub id: DeploymentId,
    /// Of which model.
    pub model: ModelId,
    /// How often it changed. A change names the generation it was made from.
    pub generation: u64,
    /// The number of the version that serves; absent: none.
    pub version: Option<u32>,
    /// The version that served before, for the way back.
    pub previous: Option<u32>,
    /// Replicas kept loaded even when idle.
    pub min_replicas: u32,
    /// The most replicas in one trust domain.
    pub max_replicas: u32,
    /// How long an idle replica stays loaded, milliseconds; absent: for good.
    pub idle_after_ms: Option<u64>,
    /// How long a request may take when its client names no timeout, milliseconds; absent: the server's default.
    pub default_timeout_ms: Option<u64>,
    /// How long an answer is kept and given again for the same request, milliseconds; absent: answers are not kept.
    pub cache_ttl_ms: Option<u64>,
}

/// What a deployment becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentChange {
    /// The number of the version that is to serve; absent: none.
    pub version: Option<u32>,
    /// Replicas kept loaded even when idle.
    pub min_replicas: u32,
    /// The most replicas in one trust domain, at least 1.
    pub max_replicas: u32,
    /// How long an idle replica stays loaded, milliseconds; absent: for good.
    pub idle_after_ms: Option<u64>,
    /// How long a request may take when its client names no timeout, milliseconds; absent: the server's default.
    pub default_timeout_ms: Option<u64>,
    /// How long an answer is kept and given again for the same request, milliseconds; absent: answers are not kept.
    pub cache_ttl_ms: Option<u64>,
}

/// Uploaded bytes at their address, which is their owner and digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artefact {
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// How many there are.
    pub bytes: u64,
}

/// Everything a routing table is made from, as it was at one moment. Lists are in the order of creation but where they say otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Catalogue {
    /// Which moment: the number of changes committed before it.
    pub revision: u64,
    /// Every organisation.
    pub organisations: Vec<Organisation>,
    /// The settings of every node of the share tree that has some.
    pub shares: Vec<ShareRecord>,
    /// Every tenant.
    pub tenants: Vec<Tenant>,
    /// Every key, revoked and expired ones too.
    pub keys: Vec<Key>,
    /// Every role that a tenant made for itself, with the tenant's id.
    pub roles: Vec<(TenantId, CustomRole)>,
    /// Every model.
    pub models: Vec<Model>,
    /// Every version, by model and number.
    pub versions: Vec<Version>,
    /// Every alias, by model and name.
    pub aliases: Vec<Alias>,
    /// The deployment of every model.
    pub deployments: Vec<Deployment>,
}

/// What a sweep removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Swept {
    /// Artefacts and optimised forms nothing refers to.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}
