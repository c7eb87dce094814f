//! The JSON of usage.

use serde::{Deserialize, Serialize};
use tenantry_types::{BootId, DeploymentId, KeyId, NodeId, RequestId, VersionId};
use utoipa::ToSchema;

use super::Tier;

/// What an attempt was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UsageKind {
    /// A request to a model.
    Inference,
    /// A model loaded into a worker.
    Load,
    /// A model looked at and measured before it serves; beside the slots, so that it has no device time.
    Registration,
    /// A loaded model in memory, for some minutes.
    Residency,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UsageOutcome {
    /// Answered.
    Ok,
    /// Answered from the response cache.
    Cached,
    /// It ended with an error of its own.
    Failed,
    /// Refused by a limit or for want of time.
    Rejected,
    /// Its time ran out.
    Expired,
    /// Its client left.
    Cancelled,
    /// The server ended before it did; not billed.
    Interrupted,
}

/// What was used. Device time is time on slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Amounts {
    /// Device time of runs that reached their end, nanoseconds.
    pub compute_ns: u64,
    /// Of runs that reached their end, for rows and elements nobody sent.
    pub padding_ns: u64,
    /// Of loads.
    pub load_ns: u64,
    /// Of runs that did not reach their end.
    pub aborted_ns: u64,
    /// Processor time of the workers, nanoseconds.
    pub cpu_ns: u64,
    /// From arrival to the end, nanoseconds.
    pub duration_ns: u64,
    /// Of that, waiting for a slot.
    pub queue_ns: u64,
    /// Bytes of requests' bodies.
    pub bytes_in: u64,
    /// Bytes of answers' bodies.
    pub bytes_out: u64,
    /// Tokens of text models.
    pub tokens: u64,
    /// Memory that loaded models took, times how long.
    #[serde(default)]
    pub resident_byte_seconds: u64,
}

/// A sum. What it is not divided by is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageLine {
    /// The day it ended, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "2026-11-30")]
    pub day: Option<String>,
    /// Who pays; the id of a tenant that is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The deployment; also absent for what was for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub deployment: Option<DeploymentId>,
    /// The model, `owner/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The version's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// What was promised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// What it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<UsageKind>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<UsageOutcome>,
    /// How many attempts.
    pub attempts: u64,
    /// What they used.
    #[serde(flatten)]
    pub used: Amounts,
}

/// Sums of usage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// The first day, UTC.
    #[schema(example = "2026-11-01")]
    pub from: String,
    /// The last day.
    #[schema(example = "2026-11-30")]
    pub to: String,
    /// In the order of what they are divided by.
    pub lines: Vec<UsageLine>,
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageRecord {
    /// Its name, unique for ever: node, start of the node, number, with a slash between.
    #[schema(example = "nod_0190f0a0b0c070008000000000000001/boo_0190f0a0b0c070008000000000000002/17")]
    pub id: String,
    /// Who pays; the id of a tenant that is gone.
    pub tenant: String,
    /// The key it came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub key: Option<KeyId>,
    /// The deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub deployment: Option<DeploymentId>,
    /// The model, `owner/name`.
    pub model: String,
    /// The version.
    #[schema(value_type = String)]
    pub version_id: VersionId,
    /// Its number.
    pub version: u32,
    /// What was promised.
    pub tier: Tier,
    /// What it was about.
    pub kind: UsageKind,
    /// The request, as its answer named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub request_id: Option<RequestId>,
    /// When it came, milliseconds since the Unix epoch.
    pub admitted_ms: i64,
    /// When it ended.
    pub ended_ms: i64,
    /// How it ended.
    pub outcome: UsageOutcome,
    /// What it used.
    #[serde(flatten)]
    pub used: Amounts,
}

/// Attempts one by one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageRecords {
    /// In the order of their names. Go on with `after` set to the last one's.
    pub records: Vec<UsageRecord>,
}

/// What the slots of one start of a node did, beside what its records add up to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageAccount {
    /// The node.
    #[schema(value_type = String)]
    pub node: NodeId,
    /// The start.
    #[schema(value_type = String)]
    pub boot: BootId,
    /// When it was last heard of, milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Whether it goes on, ended in order, or was killed.
    pub state: BootState,
    /// Slots.
    pub slots: u32,
    /// Time since its start, nanoseconds.
    pub wall_ns: u64,
    /// What was used of wall times slots.
    pub busy_ns: u64,
    /// Of that, what is in no record, for a reason that is known.
    pub system_ns: u64,
    /// Device time of all records.
    pub charged_ns: u64,
    /// Wall times slots, less what was used.
    pub idle_ns: u64,
    /// Used, less system, less charged: 0 where everything adds up. As long as a start goes on, what ends now may be missing;
    /// of one that was killed, what ended after it last told of its slots.
    pub unaccounted_ns: i64,
    /// Records.
    pub records: u64,
    /// Of them, interrupted ones.
    pub interrupted: u64,
}

/// What became of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BootState {
    /// It goes on.
    Running,
    /// It ended in order: everything must add up.
    Ended,
    /// It was killed, or the machine lost power.
    Killed,
}

/// The accounts of all starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageAccounts {
    /// The latest first.
    pub accounts: Vec<UsageAccount>,
}
