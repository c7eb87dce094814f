//! What nodes of the share tree are given: plain values as they are kept and shown. What they mean for the order of work
//! is the scheduler's; what they mean at the door is the server's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::ParseIdError;
use crate::{DeploymentId, KeyId, OrganisationId, TenantId};

/// A node of the share tree: organisation, tenant, deployment as one tenant calls it, key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShareSubject {
    /// Tenants under one share.
    Organisation(OrganisationId),
    /// A tenant.
    Tenant(TenantId),
    /// A deployment as this tenant calls it, its own or a shared one.
    Deployment(TenantId, DeploymentId),
    /// A key of this tenant.
    Key(TenantId, KeyId),
}

impl ShareSubject {
    /// The tenant it is or belongs to; none for an organisation.
    pub const fn tenant(self) -> Option<TenantId> {
        match self {
            Self::Organisation(_) => None,
            Self::Tenant(tenant) | Self::Deployment(tenant, _) | Self::Key(tenant, _) => Some(tenant),
        }
    }
}

impl fmt::Display for ShareSubject {
    /// The ids on the way to it; their prefixes say what each names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Organisation(organisation) => organisation.fmt(f),
            Self::Tenant(tenant) => tenant.fmt(f),
            Self::Deployment(tenant, deployment) => write!(f, "{tenant}/{deployment}"),
            Self::Key(tenant, key) => write!(f, "{tenant}/{key}"),
        }
    }
}

impl FromStr for ShareSubject {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        match text.split_once('/') {
            Some((tenant, key)) if key.starts_with(KeyId::PREFIX) => Ok(Self::Key(tenant.parse()?, key.parse()?)),
            Some((tenant, deployment)) => Ok(Self::Deployment(tenant.parse()?, deployment.parse()?)),
            None if text.starts_with(OrganisationId::PREFIX) => text.parse().map(Self::Organisation),
            None => text.parse().map(Self::Tenant),
        }
    }
}

/// Which of a share's parts are promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShareTier {
    /// What is left, and a small floor for all of them together.
    BestEffort,
    /// Its weight's share.
    #[default]
    Burstable,
    /// Its reservation, whatever others send.
    Guaranteed,
}

impl ShareTier {
    /// The tier as text, the same as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BestEffort => "best_effort",
            Self::Burstable => "burstable",
            Self::Guaranteed => "guaranteed",
        }
    }
}

impl FromStr for ShareTier {
    type Err = UnknownTier;
    fn from_str(text: &str) -> Result<Self, UnknownTier> {
        [Self::BestEffort, Self::Burstable, Self::Guaranteed]
            .into_iter()
            .find(|tier| tier.as_str() == text)
            .ok_or(UnknownTier)
    }
}

/// A word that is no tier's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no tier: expected `best_effort`, `burstable` or `guaranteed`")]
pub struct UnknownTier;

/// An amount of device time per time: a reservation, or a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceRate {
    /// The long run: millionths of one slot.
    pub ppm: u32,
    /// Device time that may be used at once, milliseconds.
    pub burst_ms: u64,
}

/// Requests per time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RequestRate {
    /// The long run: thousandths of a request per second.
    pub milli_per_second: u64,
    /// Requests that may come at once.
    pub burst: u32,
}

/// What each worker of a tenant may use. What is absent is the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerLimits {
    /// Memory, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_processes: Option<u32>,
    /// Processor time, thousandths of a processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cpu_milli: Option<u32>,
}

impl WorkerLimits {
    /// Whether nothing is bounded.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The tighter of each.
    #[must_use]
    pub fn tighter(self, other: Self) -> Self {
        fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
            one.into_iter().chain(other).min()
        }
        Self {
            memory_bytes: least(self.memory_bytes, other.memory_bytes),
            max_processes: least(self.max_processes, other.max_processes),
            max_cpu_milli: least(self.max_cpu_milli, other.max_cpu_milli),
        }
    }
}

/// The settings of one node of the share tree. What is absent has its default, or its parent's bound.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ShareSettings {
    /// Under which organisation; tenants only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organisation: Option<OrganisationId>,
    /// The tier; a deployment or key has its tenant's unless it names its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<ShareTier>,
    /// The part of its parent's time while its siblings have work, too, in thousandths; absent: 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_milli: Option<u32>,
    /// Device time kept free for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservation: Option<DeviceRate>,
    /// Device time beyond which its requests are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_time: Option<DeviceRate>,
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
    /// The largest body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body_bytes: Option<u64>,
    /// Bytes of bodies and answers in flight; tenants only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bodies_bytes: Option<u64>,
    /// Bytes of answers kept to be given again; tenants only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cache_bytes: Option<u64>,
    /// The name of the slots it runs on; tenants only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot_group: Option<String>,
    /// Whether its requests may share batches, and so workers, with other tenants' where a model allows that; tenants only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_with_others: Option<bool>,
    /// What each of its workers may use; tenants only.
    #[serde(skip_serializing_if = "WorkerLimits::is_empty")]
    pub worker: WorkerLimits,
}

impl ShareSettings {
    /// Whether a tenant's requests may run in one worker with other tenants'.
    ///
    /// Unless it is said, not those of a tenant whose reservation is kept by suspending others' work: what runs in one
    /// process with it cannot be suspended without suspending it, too. Nor those on slots of their own.
    pub fn batches_with_others(&self) -> bool {
        let default = self.tier != Some(ShareTier::Guaranteed) && self.slot_group.is_none();
        self.batch_with_others.unwrap_or(default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tighter_bound_of_a_worker_counts() {
        let one = WorkerLimits { memory_bytes: Some(3), max_processes: None, max_cpu_milli: Some(1) };
        let other = WorkerLimits { memory_bytes: Some(2), max_processes: Some(5), max_cpu_milli: Some(4) };
        let both = WorkerLimits { memory_bytes: Some(2), max_processes: Some(5), max_cpu_milli: Some(1) };
        assert_eq!((one.tighter(other), other.tighter(one)), (both, both));
        assert_eq!(WorkerLimits::default().tighter(one), one);
        assert!(WorkerLimits::default().is_empty() && !one.is_empty());
    }

    #[test]
    fn subjects_print_and_parse_back() {
        let tenant = TenantId::from_parts(1, [1; 10]);
        let subjects = [
            ShareSubject::Organisation(OrganisationId::from_parts(2, [2; 10])),
            ShareSubject::Tenant(tenant),
            ShareSubject::Deployment(tenant, DeploymentId::from_parts(3, [3; 10])),
            ShareSubject::Key(tenant, KeyId::from_parts(4, [4; 10])),
        ];
        for subject in subjects {
            assert_eq!(subject.to_string().parse(), Ok(subject));
        }
        assert!("ten_1".parse::<ShareSubject>().is_err());
        assert!("".parse::<ShareSubject>().is_err());
    }

    #[test]
    fn whoever_must_not_wait_for_others_runs_alone_unless_told() {
        let settings = ShareSettings::default();
        assert!(settings.batches_with_others());
        let guaranteed = ShareSettings { tier: Some(ShareTier::Guaranteed), ..settings.clone() };
        assert!(!guaranteed.batches_with_others());
        assert!(ShareSettings { batch_with_others: Some(true), ..guaranteed }.batches_with_others());
        let dedicated = ShareSettings { slot_group: Some("gold".to_owned()), ..settings.clone() };
        assert!(!dedicated.batches_with_others());
        assert!(!ShareSettings { batch_with_others: Some(false), ..settings }.batches_with_others());
    }
}
