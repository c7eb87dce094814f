//! The JSON of the admin API, for its server and its clients. Times are milliseconds since the Unix epoch.

mod audit;
mod billing;
mod encryption;
mod isolation;
mod share;
mod usage;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
pub use tenantry_types::Role;
use tenantry_types::{
    Action, DeploymentId, Digest, KeyId, ModelId, ModelName, RoleName, TenantId, TenantName, VersionId,
};
use utoipa::ToSchema;

pub use audit::{Audit, AuditActor, AuditFault, AuditRecord, AuditVerification};
pub use billing::{
    Budget, BudgetEnforcement, BudgetMeter, BudgetPeriod, Budgets, Invoice, InvoiceLine, NewBudget, NewPricePlan,
    Price, PricePlan, PricePlans,
};
pub use encryption::{
    Encryption, EncryptionJob, EncryptionJobKind, EncryptionJobState, KeyGeneration, RekeyRequest, TenantEncryption,
};
pub use isolation::{Isolation, IsolationLevel, MissingBarrier, TenantChange, TenantIsolation};
pub use share::{
    DeviceTime, EffectiveShare, NewOrganisation, Organisation, Organisations, Policy, RequestRate, SchedulerPolicy,
    Share, ShareChange, ShareKind, ShareSettings, ShareSubject, Shares, Tier, WorkerLimits,
};
pub use usage::{
    Amounts, BootState, Usage, UsageAccount, UsageAccounts, UsageKind, UsageLine, UsageOutcome, UsageRecord,
    UsageRecords,
};

/// Every error's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What was wrong, what was expected, what to do next: for people.
    pub error: String,
    /// What a program may act on, such as `not_found`.
    pub code: String,
    /// Which limit refused it, such as `request_rate`; absent where no limit did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The request, as the server's log names it.
    pub request_id: String,
}

/// What a new tenant is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTenant {
    /// Unique on the server: 1 to 63 characters of a-z, 0-9, `-`, `_`, `.`.
    #[schema(value_type = String)]
    pub name: TenantName,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tenant {
    /// Its id, for ever.
    #[schema(value_type = String)]
    pub id: TenantId,
    /// Its name.
    #[schema(value_type = String)]
    pub name: TenantName,
    /// Whether it is the operator's own tenant, whose shared models serve any tenant's data.
    pub operator: bool,
    /// When it was created.
    pub created_ms: i64,
    /// How well its workers are kept apart, and must be.
    pub isolation: TenantIsolation,
}

/// All tenants the caller may see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tenants {
    /// By name.
    pub tenants: Vec<Tenant>,
}

/// What a new key is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// Free text for people.
    #[serde(default)]
    pub label: String,
    /// What it may do: `platform_admin`, `admin`, `deployer`, `invoker`, `viewer`, `auditor`, or a role that the tenant made.
    #[schema(value_type = String)]
    pub role: Role,
    /// How long it is valid; absent: until revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<u64>,
    /// The models it is confined to, `name` or `owner/name`; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<BTreeSet<String>>,
    /// The actions it is confined to, such as `model.infer`; absent: all that its role allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub actions: Option<BTreeSet<Action>>,
    /// Who a client's certificate must say he is, `URI:`, `DNS:` (subject alternative names) or `CN:` and the name: then the key
    /// has no secret, and whoever connects with such a certificate holds it. For platform administrators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

impl NewKey {
    /// A key of a role, confined to nothing, without an end.
    pub fn of(role: Role) -> Self {
        Self { label: String::new(), role, expires_in_seconds: None, models: None, actions: None, certificate: None }
    }
}

/// How a key is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KeyRotation {
    /// How long the old key is accepted beside the new one; absent: a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlap_seconds: Option<u64>,
    /// How long the new one is valid; absent: until revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<u64>,
}

/// What a tenant's own role is to be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleContent {
    /// What it allows, such as `model.infer`.
    #[schema(value_type = Vec<String>)]
    pub actions: BTreeSet<Action>,
    /// On which of the tenant's own models, where an action is about a model; absent: on all, and on what others share with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub models: Option<BTreeSet<ModelName>>,
    /// What it is for.
    #[serde(default)]
    pub description: String,
}

/// A role that a tenant made for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CustomRole {
    /// Its name.
    #[schema(value_type = String)]
    pub name: RoleName,
    /// What it allows.
    #[schema(value_type = Vec<String>)]
    pub actions: BTreeSet<Action>,
    /// On which of the tenant's own models; absent: on all, and on what others share with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub models: Option<BTreeSet<ModelName>>,
    /// What it is for.
    pub description: String,
}

/// The roles of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Roles {
    /// Those there are in every tenant.
    pub built_in: Vec<String>,
    /// Its own, by name.
    pub roles: Vec<CustomRole>,
}

/// A key without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Key {
    /// Its id.
    #[schema(value_type = String)]
    pub id: KeyId,
    /// What it may do.
    #[schema(value_type = String)]
    pub role: Role,
    /// The models it is confined to; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<BTreeSet<String>>,
    /// The actions it is confined to; absent: all that its role allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub actions: Option<BTreeSet<Action>>,
    /// Who a client's certificate must say he is, where the key has no secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Free text for people.
    pub label: String,
    /// When it was created.
    pub created_ms: i64,
    /// When it stops working.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<i64>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_ms: Option<i64>,
    /// When it was last used; after a restart of the server to the minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_ms: Option<i64>,
}

/// A key just made, with its secret: shown now and never again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedKey {
    /// What goes after `Authorization: Bearer`; absent where a certificate proves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The rest of it.
    #[serde(flatten)]
    pub info: Key,
}

impl std::fmt::Debug for CreatedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The secret belongs in no log.
        f.debug_struct("CreatedKey").field("info", &self.info).finish_non_exhaustive()
    }
}

/// A tenant's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Keys {
    /// By time of creation.
    pub keys: Vec<Key>,
}

/// An uploaded file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Artefact {
    /// SHA-256 of its bytes, 64 hexadecimal digits: how a version refers to it.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
}

/// How far the engine may rewrite a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Optimization {
    /// Not at all.
    Disabled,
    /// Semantics-preserving rewrites.
    Basic,
    /// Also fused kernels.
    Extended,
    /// Also layouts of this processor.
    All,
}

/// How a version is to be run. Absent values are measured or defaulted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VersionSettings {
    /// The most rows of one batch; absent: the best batch the profile measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_batch: Option<u32>,
    /// How long a batch may wait to fill, milliseconds; absent: not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_batch_delay_ms: Option<u32>,
    /// The longest one run may take before its worker is killed, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_run_ms: Option<u32>,
    /// Threads of one run; absent: measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u16>,
    /// How far the graph is rewritten; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimization: Option<Optimization>,
    /// Rewrites of the engine to leave out, by the engine's name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disabled_optimizers: Vec<String>,
    /// Whether weights are copied into the processor's preferred layout; absent: measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prepack: Option<bool>,
}

/// What a new version is to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewVersion {
    /// The digest of an artefact this tenant uploaded.
    #[schema(value_type = String)]
    pub artefact: Digest,
    /// The name the file had; `.tar`, `.tar.gz` and `.tgz` are unpacked.
    pub filename: String,
    /// How it is to be run.
    #[serde(default)]
    pub settings: VersionSettings,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Free pairs.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Figures the owner gives (accuracy and the like).
    #[serde(default)]
    pub quality: BTreeMap<String, f64>,
    /// What the model was made with; sets the model's when given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub framework: Option<String>,
    /// What the model needs besides itself; sets the model's when given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependencies: Option<Vec<String>>,
    /// How well the workers that run the model must be kept apart, this registration's included; sets the model's when given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_isolation: Option<IsolationLevel>,
    /// Whether the model's deployment moves to this version as soon as it is ready.
    #[serde(default = "yes")]
    pub deploy: bool,
}

fn yes() -> bool {
    true
}

/// Where a version is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VersionState {
    /// A worker is looking at it.
    Registering,
    /// It can be served.
    Ready,
    /// It cannot be served; `reason` says why.
    Refused,
}

/// One file of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct File {
    /// Its name inside the version.
    pub name: String,
    /// SHA-256 of its bytes.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
}

/// An input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tensor {
    /// The name in the model.
    pub name: String,
    /// The protocol's name of the element type.
    pub datatype: String,
    /// The extents; -1 where the request chooses.
    pub shape: Vec<i64>,
    /// The extents as the file has them: a number, a name, or `?`.
    pub dims: Vec<String>,
}

/// What goes into a model and what comes out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Signature {
    /// In the model's order.
    pub inputs: Vec<Tensor>,
    /// In the model's order.
    pub outputs: Vec<Tensor>,
}

/// One measured batch size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BatchPoint {
    /// Rows in the batch.
    pub rows: u32,
    /// The median run, nanoseconds.
    pub run_ns: u64,
}

/// What registration measured on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Profile {
    /// The engine library's version.
    pub runtime: String,
    /// Whether requests can be joined.
    pub can_batch: bool,
    /// The batch size with the best throughput.
    pub best_batch: u32,
    /// Threads of one run.
    pub threads: u16,
    /// Whether weights are copied into the processor's preferred layout.
    pub prepack: bool,
    /// Loading the file as uploaded, nanoseconds.
    pub load_ns: u64,
    /// Loading the optimised form, nanoseconds.
    pub optimised_load_ns: u64,
    /// Memory of one loaded copy, bytes.
    pub resident_bytes: u64,
    /// Bytes of the optimised form.
    pub optimised_bytes: u64,
    /// Run time per batch size, ascending by rows.
    pub points: Vec<BatchPoint>,
}

/// Free text the model file carries about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileMetadata {
    /// The tool that wrote it.
    pub producer: String,
    /// The graph's description.
    pub description: String,
    /// The graph's name.
    pub graph_name: String,
    /// Custom pairs.
    pub custom: Vec<(String, String)>,
}

/// What the machine knows of a version right now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Residency {
    /// Loaded copies that can serve.
    pub replicas_ready: u32,
    /// Copies being loaded.
    pub replicas_loading: u32,
    /// Why nothing is started for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine_reason: Option<String>,
    /// For how much longer, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine_ms: Option<u64>,
    /// The last thing that went wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
    /// How long the last load took, nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_load_ns: Option<u64>,
    /// Memory of one loaded copy, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resident_bytes: Option<u64>,
}

/// One immutable version of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// Its id, for ever.
    #[schema(value_type = String)]
    pub id: VersionId,
    /// The owning tenant.
    #[schema(value_type = String)]
    pub owner: TenantName,
    /// The model.
    #[schema(value_type = String)]
    pub model: ModelName,
    /// Its number inside the model.
    pub number: u32,
    /// SHA-256 of its canonical list of files.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Its files; the first is the model.
    pub files: Vec<File>,
    /// Bytes of all files.
    pub bytes: u64,
    /// Where it is on its way.
    pub state: VersionState,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether the model's deployment points to it.
    pub deployed: bool,
    /// Free text.
    pub description: String,
    /// Free pairs.
    pub tags: BTreeMap<String, String>,
    /// Figures the owner gave.
    pub quality: BTreeMap<String, f64>,
    /// How it is to be run, as the owner said.
    pub settings: VersionSettings,
    /// Inputs and outputs, once ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
    /// What was measured, once ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// Free text of the file, once ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<FileMetadata>,
    /// What the machine knows of it right now.
    pub residency: Residency,
    /// When it was created.
    pub created_ms: i64,
}

/// A model's versions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Versions {
    /// By number.
    pub versions: Vec<Version>,
}

/// Who besides its owner may use a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// Nobody.
    Private,
    /// Every tenant, by `owner/name`.
    Everyone,
    /// The tenants named in `shared_with`, by `owner/name`.
    Tenants,
}

/// A movable name of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Alias {
    /// The name.
    #[schema(value_type = String)]
    pub name: ModelName,
    /// The version's number.
    pub version: u32,
}

/// Where an alias is to point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AliasChange {
    /// The version's number.
    pub version: u32,
}

/// The desired state of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deployment {
    /// Its id, for ever.
    #[schema(value_type = String)]
    pub id: DeploymentId,
    /// Grows with each change; a change must name the one it read.
    pub generation: u64,
    /// The version that gets all traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The version that had it before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<u32>,
    /// Copies kept loaded without traffic.
    pub min_replicas: u32,
    /// The most copies per trust domain.
    pub max_replicas: u32,
    /// How long a copy above the minimum may idle, seconds; absent: the server's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_after_seconds: Option<u64>,
    /// How long a request may take when its client names no timeout, milliseconds; absent: the server's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_timeout_ms: Option<u64>,
    /// How long an answer is kept and given again for the same request of the same tenant, milliseconds, at most a day;
    /// absent: answers are not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_ttl_ms: Option<u64>,
}

/// What a deployment is to become.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeploymentChange {
    /// The generation the caller read; 409 if it moved on.
    pub generation: u64,
    /// The version that shall get all traffic; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Copies to keep loaded without traffic.
    #[serde(default)]
    pub min_replicas: u32,
    /// The most copies per trust domain.
    pub max_replicas: u32,
    /// How long a copy above the minimum may idle, seconds; absent: the server's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_after_seconds: Option<u64>,
    /// How long a request may take when its client names no timeout, milliseconds; absent: the server's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_timeout_ms: Option<u64>,
    /// How long an answer is kept and given again for the same request of the same tenant, milliseconds, at most a day;
    /// absent: answers are not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_ttl_ms: Option<u64>,
}

/// A model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Model {
    /// Its id, for ever.
    #[schema(value_type = String)]
    pub id: ModelId,
    /// The owning tenant.
    #[schema(value_type = String)]
    pub owner: TenantName,
    /// Its name.
    #[schema(value_type = String)]
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
    /// The tenants that may, where it is shared with some; only for those who may change it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub shared_with: BTreeSet<TenantName>,
    /// How well the workers that run it must be kept apart, as its owner says.
    pub min_isolation: IsolationLevel,
    /// The least at which it is run for the caller: with the minimums of the configuration, its owner and the caller.
    pub effective_min_isolation: IsolationLevel,
    /// Its desired state.
    pub deployment: Deployment,
    /// Its aliases, by name.
    pub aliases: Vec<Alias>,
    /// The numbers of its versions, ascending.
    pub versions: Vec<u32>,
    /// When it was created.
    pub created_ms: i64,
    /// When it last changed.
    pub updated_ms: i64,
}

/// A tenant's models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Models {
    /// By name.
    pub models: Vec<Model>,
}

/// What a model is to become; absent fields stay.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelChange {
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What it was made with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub framework: Option<String>,
    /// Free pairs, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
    /// What it needs besides itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dependencies: Option<Vec<String>>,
    /// Who besides its owner may use it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<Sharing>,
    /// All the tenants that may use it, where it is `shared` with `tenants`. A name that no tenant has says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub shared_with: Option<BTreeSet<TenantName>>,
    /// How well the workers that run it must be kept apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_isolation: Option<IsolationLevel>,
}

/// One worker process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    /// Its number in this run of the server.
    pub id: u64,
    /// Owner of the models in it.
    pub model_owner: String,
    /// Owner of the data in it, `any` for the operator's published models.
    pub data_owner: String,
    /// `starting`, `ready` or `stopping`.
    pub state: String,
    /// The process, when it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Whether it takes requests.
    pub ready: bool,
    /// The server's version.
    pub version: String,
    /// The engine library's version, once a worker has said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Tenants.
    pub tenants: u64,
    /// Models.
    pub models: u64,
    /// Versions being registered.
    pub registering: u64,
    /// Batches that may run at the same time.
    pub slots: u16,
    /// Tasks waiting for a slot.
    pub queued_tasks: u64,
    /// Bytes of tensor data waiting for a slot.
    pub queued_bytes: u64,
    /// Batches running.
    pub running_batches: u64,
    /// How well workers are kept apart from everything else.
    pub isolation: Isolation,
    /// Workers that ended without being asked to, since the start.
    pub worker_deaths: u64,
    /// Worker processes.
    pub workers: Vec<Worker>,
}
