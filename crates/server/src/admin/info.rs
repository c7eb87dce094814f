//! What the admin operations take and give: plain values with names instead of ids where people read them.
//!
//! The edges convert these to their own wire types; the records of `store` do not leave the service.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use tenantry_types::model::{Registration, VersionSettings};
use tenantry_types::{
    DeploymentId, Digest, KeyId, Level, ModelId, ModelName, ModelRef, OrganisationId, OrganisationName, Scope,
    ShareSettings, TenantId, TenantName, VersionId,
};

use crate::{Role, Sharing};

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantInfo {
    /// Its id.
    pub id: TenantId,
    /// Its name.
    pub name: TenantName,
    /// Whether it is the operator's own tenant, whose shared models serve any data owner.
    pub operator: bool,
    /// When it was created, milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// How well its workers are kept apart, and must be.
    pub isolation: TenantIsolation,
}

/// How well a tenant's workers are kept apart, and must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantIsolation {
    /// What the barriers around workers amount to.
    pub in_force: Level,
    /// The least at which anything of it is run: the highest of the configuration's, the platform's and its own minimum.
    pub minimum: Level,
    /// The platform's minimum for it.
    pub platform_minimum: Level,
    /// Its own.
    pub own_minimum: Level,
}

/// What a tenant is to become; absent fields stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TenantChange {
    /// The tenant's own minimum.
    pub min_isolation: Option<Level>,
    /// The platform's minimum for it.
    pub platform_min_isolation: Option<Level>,
}

/// An organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrganisationInfo {
    /// Its id.
    pub id: OrganisationId,
    /// Its name.
    pub name: OrganisationName,
    /// Its tenants, by name.
    pub tenants: Vec<TenantName>,
    /// When it was created, milliseconds since the Unix epoch.
    pub created_ms: i64,
}

/// A node of the share tree, by names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SharePlace {
    /// Tenants under one share.
    Organisation(OrganisationName),
    /// A tenant.
    Tenant(TenantName),
    /// A deployment as this tenant calls it.
    Deployment {
        /// Who calls it.
        tenant: TenantName,
        /// Its model, with its owner.
        model: ModelRef,
    },
    /// A key of this tenant.
    Key {
        /// Whose key.
        tenant: TenantName,
        /// The key.
        key: KeyId,
    },
}

/// What a node of the share tree was given and what holds in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareInfo {
    /// Which node.
    pub place: SharePlace,
    /// Grows with each change; 0 for one that was never given any.
    pub generation: u64,
    /// The organisation it belongs to.
    pub organisation: Option<OrganisationName>,
    /// What it was given.
    pub settings: ShareSettings,
    /// What holds in the end: with the defaults, and no wider than its tenant's.
    pub effective: ShareSettings,
}

/// What the settings of a node are to become, as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShareChange {
    /// The generation the caller read; `None`: whatever it is at.
    pub generation: Option<u64>,
    /// Under which organisation, by name.
    pub organisation: Option<OrganisationName>,
    /// All the rest; what it says of an organisation is not read.
    pub settings: ShareSettings,
}

/// What a new key is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// What it may do.
    pub role: Role,
    /// What it is confined to besides.
    pub scope: Scope,
    /// Free text for people.
    pub label: String,
    /// How long it is valid; `None`: until revoked.
    pub expires_in: Option<Duration>,
    /// Who a client's certificate must say he is, for a key that has no secret. For platform admins.
    pub certificate: Option<String>,
}

impl NewKey {
    /// A key of a role, confined to nothing, without an end.
    pub fn of(role: Role) -> Self {
        Self { role, scope: Scope::default(), label: String::new(), expires_in: None, certificate: None }
    }
}

/// A key without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its id.
    pub id: KeyId,
    /// What it may do.
    pub role: Role,
    /// What it is confined to besides.
    pub scope: Scope,
    /// Who a client's certificate must say he is, where it has no secret.
    pub certificate: Option<String>,
    /// Free text for people.
    pub label: String,
    /// When it was created, milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// When it stops working, milliseconds since the Unix epoch.
    pub expires_ms: Option<i64>,
    /// When it was revoked, milliseconds since the Unix epoch.
    pub revoked_ms: Option<i64>,
    /// When it was last used, milliseconds since the Unix epoch; to the minute where the server was started since.
    pub last_used_ms: Option<i64>,
}

/// A key just made. The secret is nowhere else and cannot be shown again.
#[derive(Clone, PartialEq, Eq)]
pub struct CreatedKey {
    /// The key.
    pub key: KeyInfo,
    /// What goes after `Authorization: Bearer`; none where a certificate proves it.
    pub secret: Option<String>,
}

impl std::fmt::Debug for CreatedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedKey").field("key", &self.key).finish_non_exhaustive()
    }
}

/// An uploaded file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArtefactInfo {
    /// SHA-256 of its bytes: how a version refers to it.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
}

/// What a new version is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct NewVersion {
    /// An artefact the same tenant uploaded.
    pub artefact: Digest,
    /// The name the file had; `.tar`, `.tar.gz` and `.tgz` are unpacked.
    pub filename: String,
    /// How it is to be run.
    pub settings: VersionSettings,
    /// Free text of the version.
    pub description: String,
    /// Free pairs of the version.
    pub tags: BTreeMap<String, String>,
    /// Figures the owner gives (accuracy and the like).
    pub quality: BTreeMap<String, f64>,
    /// What the model was made with; sets the model's when given.
    pub framework: Option<String>,
    /// What the model needs besides itself; sets the model's when given.
    pub dependencies: Option<Vec<String>>,
    /// How well the workers that run the model must be kept apart; sets the model's when given.
    pub min_isolation: Option<Level>,
    /// Whether the model's deployment moves to this version as soon as it is ready.
    pub deploy: bool,
}

/// Where a version is on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionState {
    /// A worker is looking at it.
    Registering,
    /// It can be served.
    Ready,
    /// It cannot be served.
    Refused {
        /// Why, in words fit for its owner.
        reason: String,
    },
}

impl VersionState {
    /// The word in the API.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Registering => "registering",
            Self::Ready => "ready",
            Self::Refused { .. } => "refused",
        }
    }

    /// Why it was refused.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Refused { reason } => Some(reason),
            Self::Registering | Self::Ready => None,
        }
    }
}

/// One file of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// Its name inside the version.
    pub name: String,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
}

/// What the machine knows of a version right now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Residency {
    /// Loaded copies that can serve.
    pub replicas_ready: u32,
    /// Copies being loaded.
    pub replicas_loading: u32,
    /// Why nothing is started for it, and for how much longer.
    pub quarantine: Option<(String, Duration)>,
    /// The last thing that went wrong with it.
    pub last_failure: Option<String>,
    /// How long the last load took.
    pub last_load: Option<Duration>,
    /// Memory of one loaded copy, bytes.
    pub resident_bytes: Option<u64>,
}

/// One immutable version of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionInfo {
    /// Its id.
    pub id: VersionId,
    /// The owning tenant.
    pub owner: TenantName,
    /// The model.
    pub model: ModelName,
    /// Its number inside the model.
    pub number: u32,
    /// SHA-256 of its canonical list of files.
    pub digest: Digest,
    /// Its files; the first is the model.
    pub files: Vec<FileInfo>,
    /// Bytes of all files.
    pub bytes: u64,
    /// Free text.
    pub description: String,
    /// Free pairs.
    pub tags: BTreeMap<String, String>,
    /// Figures the owner gave.
    pub quality: BTreeMap<String, f64>,
    /// How it is to be run, as the owner said.
    pub settings: VersionSettings,
    /// Where it is on its way.
    pub state: VersionState,
    /// What registration found and measured.
    pub registration: Option<Registration>,
    /// When it was created, milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// Whether the model's deployment points to it.
    pub deployed: bool,
    /// What the machine knows of it right now.
    pub residency: Residency,
}

/// A movable name of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliasInfo {
    /// The name.
    pub name: ModelName,
    /// The version's number.
    pub version: u32,
}

/// The desired state of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentInfo {
    /// Its id.
    pub id: DeploymentId,
    /// Grows with each change; a change must name the one it read.
    pub generation: u64,
    /// The version that gets all traffic.
    pub version: Option<u32>,
    /// The version that had it before.
    pub previous: Option<u32>,
    /// Copies kept loaded without traffic.
    pub min_replicas: u32,
    /// The most copies per trust domain.
    pub max_replicas: u32,
    /// How long a copy above the minimum may idle; `None`: for good.
    pub idle_after: Option<Duration>,
    /// How long a request may take when its client names no timeout; `None`: the server's default.
    pub default_timeout: Option<Duration>,
    /// How long an answer is kept and given again for the same request; `None`: answers are not kept.
    pub cache_ttl: Option<Duration>,
}

/// What a deployment is to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentChange {
    /// The generation the caller read.
    pub generation: u64,
    /// The version that shall get all traffic; `None`: none.
    pub version: Option<u32>,
    /// Copies to keep loaded without traffic.
    pub min_replicas: u32,
    /// The most copies per trust domain.
    pub max_replicas: u32,
    /// How long a copy above the minimum may idle; `None`: for good.
    pub idle_after: Option<Duration>,
    /// How long a request may take when its client names no timeout; `None`: the server's default.
    pub default_timeout: Option<Duration>,
    /// How long an answer is kept and given again for the same request; `None`: answers are not kept.
    pub cache_ttl: Option<Duration>,
}

/// A model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// Its id.
    pub id: ModelId,
    /// The owning tenant.
    pub owner: TenantName,
    /// Its name.
    pub name: ModelName,
    /// Free text.
    pub description: String,
    /// What it was made with.
    pub framework: String,
    /// Free pairs.
    pub tags: BTreeMap<String, String>,
    /// What it needs besides itself.
    pub dependencies: Vec<String>,
    /// Who besides its owner may use it.
    pub shared: Sharing,
    /// How well the workers that run it must be kept apart, as its owner says.
    pub min_isolation: Level,
    /// The least at which it is run for whoever asked: with the minimums of the configuration, its owner and the caller.
    pub effective_min_isolation: Level,
    /// When it was created, milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// When it last changed, milliseconds since the Unix epoch.
    pub updated_ms: i64,
    /// Its desired state.
    pub deployment: DeploymentInfo,
    /// Its aliases, by name.
    pub aliases: Vec<AliasInfo>,
    /// The numbers of its versions, ascending.
    pub versions: Vec<u32>,
}

/// What a model is to become; absent fields stay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelChange {
    /// Free text.
    pub description: Option<String>,
    /// What it was made with.
    pub framework: Option<String>,
    /// Free pairs, all of them.
    pub tags: Option<BTreeMap<String, String>>,
    /// What it needs besides itself.
    pub dependencies: Option<Vec<String>>,
    /// Who besides its owner may use it.
    pub shared: Option<Sharing>,
    /// How well the workers that run it must be kept apart.
    pub min_isolation: Option<Level>,
}

/// What a search asks for; empty fields match everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelQuery {
    /// A piece of the name, the description or the framework.
    pub text: Option<String>,
    /// A pair among the tags.
    pub tag: Option<(String, String)>,
}

/// One worker process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerInfo {
    /// Its id in this process.
    pub id: u64,
    /// Owner of the models in it.
    pub model_owner: String,
    /// Owner of the data in it, `any` for the operator's published models.
    pub data_owner: String,
    /// What it is doing: `starting`, `ready`, `stopping`.
    pub state: &'static str,
    /// The process, when it runs.
    pub pid: Option<i32>,
    /// Loaded versions.
    pub replicas: u32,
    /// Whether a batch runs in it now.
    pub busy: bool,
    /// Whether that batch stands still for somebody's reservation.
    pub suspended: bool,
    /// Whether it exists for one registration.
    pub registration: bool,
}

/// The server at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerStatus {
    /// Whether it takes requests.
    pub ready: bool,
    /// The engine library's version, once a worker has said it.
    pub runtime: Option<String>,
    /// Tenants.
    pub tenants: usize,
    /// Models.
    pub models: usize,
    /// Versions being registered.
    pub registering: usize,
    /// Batches that may run at the same time.
    pub slots: u16,
    /// Tasks waiting for a slot.
    pub queued_tasks: u64,
    /// Bytes of tensor data waiting for a slot.
    pub queued_bytes: u64,
    /// Batches running.
    pub running_batches: u64,
    /// The barriers around workers.
    pub isolation: tenantry_node::Barriers,
    /// The least at which the configuration lets workers be started.
    pub min_isolation: Level,
    /// Models that are not run because they or their owners demand more than is in force.
    pub models_below_minimum: usize,
    /// Workers that ended without being asked to, since the start.
    pub worker_deaths: u64,
    /// Worker processes.
    pub workers: Vec<WorkerInfo>,
}

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditActorInfo {
    /// The server itself.
    Server,
    /// The holder of a key.
    Key {
        /// Whose key; `platform` for a reader of another tenant.
        tenant: String,
        /// The key, for those who may know it.
        key: Option<KeyId>,
        /// What it was to its tenant then: its role, or its roles with a `+` between them.
        role: Option<String>,
    },
    /// Somebody who could not prove who he is.
    Unknown {
        /// The key he named, if he named one.
        key: Option<KeyId>,
    },
}

/// A record of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditInfo {
    /// Its place in the trail.
    pub sequence: u64,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Who did it.
    pub actor: AuditActorInfo,
    /// Whom it concerns, by name, or by id where it is gone.
    pub tenant: Option<String>,
    /// What was done or happened.
    pub action: String,
    /// To what.
    pub object: String,
    /// What came of it.
    pub outcome: String,
    /// What else there is to say.
    pub detail: String,
    /// From which address; only of the tenant's own keys and of who was refused, and for platform administrators.
    pub source: Option<IpAddr>,
    /// The store's revision that the write made; none for what was no write.
    pub generation: Option<u64>,
    /// The hash of the record before it in the trail of the whole server.
    pub previous: String,
    /// Its own hash.
    pub hash: String,
    /// The ids of the actor's tenant and of whom it concerns, as the hash covers them; for platform administrators.
    pub ids: Option<AuditIds>,
}

/// The ids behind the names in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditIds {
    /// The tenant of the key it was done with.
    pub actor: Option<TenantId>,
    /// Whom it concerns.
    pub tenant: Option<TenantId>,
}

/// Which records of the audit trail to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuditQuery {
    /// Not those from before, milliseconds since the Unix epoch.
    pub since_ms: Option<i64>,
    /// Only those before this one.
    pub before: Option<u64>,
    /// Only those after this one, and the oldest first.
    pub after: Option<u64>,
    /// The most of one answer.
    pub limit: Option<u32>,
}
