//! What an attempt to use a device came to: the words of the ledger. Integers only: nanoseconds, bytes, counts.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::share::ShareTier;
use crate::{BootId, DeploymentId, ErrorCode, KeyId, NodeId, RequestId, TenantId, VersionId};

/// The name of a usage record: unique for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UsageKey {
    /// Whose ledger.
    pub node: NodeId,
    /// Which start of it.
    pub boot: BootId,
    /// Which record of that start, from one.
    pub sequence: u64,
}

/// What an attempt was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageKind {
    /// A request to a model.
    Inference,
    /// A model loaded into a worker.
    Load,
    /// A model looked at and measured before it serves.
    Registration,
    /// A loaded model in memory: some minutes of it, or what it had of them.
    Residency,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was answered.
    Ok,
    /// It was answered from the response cache.
    Cached,
    /// It ended with an error that is its own.
    Failed,
    /// It was refused by a limit or for want of time before it ran.
    Rejected,
    /// Its time ran out.
    Expired,
    /// Its client left.
    Cancelled,
    /// The server ended before it did. Not billed: nobody got anything for it.
    Interrupted,
}

/// What device time was spent on, nanoseconds of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DeviceTime {
    /// Runs that reached their end.
    pub compute_ns: u64,
    /// The part of such runs that was spent on rows and elements nobody sent.
    pub padding_ns: u64,
    /// Loads of models.
    pub load_ns: u64,
    /// Runs that did not reach their end, whoever's fault that was.
    pub aborted_ns: u64,
}

/// Who attempts what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempted {
    /// What it is about.
    pub kind: UsageKind,
    /// Who pays.
    pub tenant: TenantId,
    /// The principal: the key it came with; none for what the server does for a tenant by itself.
    pub key: Option<KeyId>,
    /// The model's deployment.
    pub deployment: Option<DeploymentId>,
    /// The model, `owner/name`.
    pub model: Arc<str>,
    /// The version.
    pub version: VersionId,
    /// Its number.
    pub version_number: u32,
    /// What the tenant was promised then.
    pub tier: ShareTier,
    /// The request's name in logs and answers.
    pub request: Option<RequestId>,
    /// When it came, milliseconds since the Unix epoch.
    pub admitted_ms: i64,
}

/// What an attempt used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// How it ended.
    pub outcome: Outcome,
    /// From arrival to its end, nanoseconds.
    pub duration_ns: u64,
    /// Of that, waiting for a slot.
    pub queue_ns: u64,
    /// Time on slots, by cause.
    pub device: DeviceTime,
    /// Processor time of the worker's process while it ran, divided within the batch as the device time is.
    pub cpu_ns: u64,
    /// The request's body as it came.
    pub bytes_in: u64,
    /// The answer's body as it left.
    pub bytes_out: u64,
    /// Tokens of text models; 0 for others.
    pub tokens: u64,
    /// Memory that a model was kept in, times how long; 0 for attempts.
    pub resident_byte_seconds: u64,
}

/// What the slots of a node did since its start, as far as it is known: cumulative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SlotTime {
    /// Time since the start, nanoseconds.
    pub wall_ns: u64,
    /// Slots there are.
    pub slots: u32,
    /// Time slots were held by batches and loads that have ended, suspensions excluded.
    pub busy_ns: u64,
    /// The part of it that is in no tenant's record: shares of requests that were given up between their batch's making and
    /// its beginning.
    pub system_ns: u64,
}

impl Used {
    /// An attempt of which nothing is known but how it ended.
    pub fn nothing(outcome: Outcome) -> Self {
        Self {
            outcome,
            duration_ns: 0,
            queue_ns: 0,
            device: DeviceTime::default(),
            cpu_ns: 0,
            bytes_in: 0,
            bytes_out: 0,
            tokens: 0,
            resident_byte_seconds: 0,
        }
    }
}

impl DeviceTime {
    /// All causes together.
    pub fn total_ns(&self) -> u64 {
        [self.compute_ns, self.padding_ns, self.load_ns, self.aborted_ns].into_iter().fold(0, u64::saturating_add)
    }
}

impl SlotTime {
    /// What the slots could have done.
    pub fn capacity_ns(&self) -> u64 {
        self.wall_ns.saturating_mul(u64::from(self.slots))
    }
}

impl Outcome {
    /// What an error says of how its attempt ended.
    pub fn of_error(code: ErrorCode) -> Self {
        match code {
            ErrorCode::Cancelled => Self::Cancelled,
            ErrorCode::DeadlineExceeded => Self::Expired,
            ErrorCode::ResourceExhausted | ErrorCode::Unavailable => Self::Rejected,
            _ => Self::Failed,
        }
    }
}

/// The words of an enum, one for each variant, both ways.
macro_rules! words {
    ($name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl $name {
            /// Its word.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;
            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownWord),
                }
            }
        }
    };
}

/// A word that is none of those expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not one of the words that may stand here")]
pub struct UnknownWord;

words!(UsageKind { Inference = "inference", Load = "load", Registration = "registration", Residency = "residency" });
words!(Outcome {
    Ok = "ok",
    Cached = "cached",
    Failed = "failed",
    Rejected = "rejected",
    Expired = "expired",
    Cancelled = "cancelled",
    Interrupted = "interrupted",
});
