//! The JSON of shares, limits, organisations and the scheduler's policy.

use serde::{Deserialize, Serialize};
use tenantry_types::{KeyId, OrganisationId, OrganisationName, TenantName};
use utoipa::ToSchema;

/// What a new organisation is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewOrganisation {
    /// Unique on the server: 1 to 63 characters of a-z, 0-9, `-`, `_`, `.`.
    #[schema(value_type = String)]
    pub name: OrganisationName,
}

/// An organisation: tenants under one share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Organisation {
    /// Its id, for ever.
    #[schema(value_type = String)]
    pub id: OrganisationId,
    /// Its name.
    #[schema(value_type = String)]
    pub name: OrganisationName,
    /// Its tenants, by name.
    #[schema(value_type = Vec<String>)]
    pub tenants: Vec<TenantName>,
    /// When it was created.
    pub created_ms: i64,
}

/// All organisations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Organisations {
    /// By name.
    pub organisations: Vec<Organisation>,
}

/// Which parts of a share are promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Its reservation is kept whatever others send: their work is suspended for it.
    Guaranteed,
    /// Its weight's share; a reservation, if it has one, is kept at the boundaries of batches.
    Burstable,
    /// What is left; its batches may be ended and run again.
    BestEffort,
}

/// Device time per time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceTime {
    /// The long run: seconds of device time per second, so 0.25 is a quarter of one slot.
    pub slots: f64,
    /// Device time that may be used at once, milliseconds; absent: 100 for a reservation, 1000 for a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst_ms: Option<u64>,
}

/// Requests per time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestRate {
    /// The long run.
    pub per_second: f64,
    /// Requests that may come at once; absent: a tenth of a second's, at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

/// What a node of the share tree (organisation, tenant, deployment as one tenant calls it, key) was given. What is absent
/// has the default, or its parent's bound.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ShareSettings {
    /// Under which organisation; tenants only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub organisation: Option<OrganisationName>,
    /// The tier; a deployment or key has its tenant's unless it names its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// The part of its parent's time while its siblings have work, too; absent: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// Device time kept free for it. All reservations of a slot group must fit its slots. A request counts for the nearest
    /// reservation on its way up: a deployment's and its tenant's add up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservation: Option<DeviceTime>,
    /// Device time beyond which its requests are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_time: Option<DeviceTime>,
    /// Requests beyond which they are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_rate: Option<RequestRate>,
    /// Requests in flight at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u32>,
    /// Requests waiting for a slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_queued_tasks: Option<u32>,
    /// Bytes of tensor data waiting for a slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_queued_bytes: Option<u64>,
    /// The largest body; never more than the server's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body_bytes: Option<u64>,
    /// Bytes of bodies and answers in flight; tenants only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bodies_bytes: Option<u64>,
    /// Bytes of answers kept to be given again, 0 for none; tenants only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cache_bytes: Option<u64>,
    /// The name of the slots it runs on, as configured; tenants only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot_group: Option<String>,
    /// Whether its requests may share batches and workers with other tenants' where a model allows that; absent: yes, but
    /// not for a guaranteed tenant nor for one with a slot group. Tenants only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_with_others: Option<bool>,
    /// What each of its workers may use, where that is less than the server's; from its next worker on. Tenants only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerLimits>,
}

/// What a worker may use. What is absent is the server's.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerLimits {
    /// Memory, bytes: at least 64 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processes and threads: at least 16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_processes: Option<u32>,
    /// Processor time, in processors: 1.5 is one and a half.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cpus: Option<f64>,
}

/// What settings are to become, as a whole.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ShareChange {
    /// The generation the caller read; 409 if it moved on. Absent: whatever it is at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// All of them: what is absent goes back to its default.
    pub settings: ShareSettings,
}

/// A kind of node of the share tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ShareKind {
    /// Tenants under one share.
    Organisation,
    /// A tenant.
    Tenant,
    /// A deployment as one tenant calls it.
    Deployment,
    /// A key.
    Key,
}

/// A node of the share tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShareSubject {
    /// What it is.
    pub kind: ShareKind,
    /// The organisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub organisation: Option<OrganisationName>,
    /// The tenant it is or belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub tenant: Option<TenantName>,
    /// The model of the deployment, `owner/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub key: Option<KeyId>,
}

/// What holds for a node in the end: the configuration's defaults, its settings, and for a deployment or key its tenant's
/// bounds where they are tighter. What is absent is not bounded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EffectiveShare {
    /// The tier.
    pub tier: Tier,
    /// The weight among its siblings.
    pub weight: f64,
    /// Device time kept free for it itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<DeviceTime>,
    /// Device time it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_time: Option<DeviceTime>,
    /// Requests it may send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_rate: Option<RequestRate>,
    /// Requests in flight at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u32>,
    /// Requests waiting for a slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_queued_tasks: Option<u32>,
    /// Bytes of tensor data waiting for a slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_queued_bytes: Option<u64>,
    /// The largest body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body_bytes: Option<u64>,
    /// Bytes of bodies and answers in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bodies_bytes: Option<u64>,
    /// Bytes of answers kept to be given again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cache_bytes: Option<u64>,
    /// The slots it runs on; absent: those everybody shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot_group: Option<String>,
    /// Whether its requests may share batches and workers with other tenants'.
    pub batch_with_others: bool,
    /// What each of its workers may use, where that is less than the server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerLimits>,
}

/// The settings of a node of the share tree, and what holds in the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Share {
    /// Which node.
    pub subject: ShareSubject,
    /// Grows with each change; 0 for a node that was never given any.
    pub generation: u64,
    /// What it was given.
    pub settings: ShareSettings,
    /// What holds in the end.
    pub effective: EffectiveShare,
}

/// A tenant's settings and those of its deployments and keys that have some.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Shares {
    /// The tenant first, then its deployments, then its keys.
    pub shares: Vec<Share>,
}

/// How it is chosen what runs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// By reservation, then by weight in measured device time.
    Fair,
    /// The oldest request first.
    Fifo,
    /// One batch a tenant in turn.
    RoundRobin,
    /// The higher tier first, the oldest of a tier first.
    StrictPriority,
}

/// The scheduler's policy. A change holds until the server ends; the configuration says with which it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SchedulerPolicy {
    /// The policy.
    pub policy: Policy,
}
