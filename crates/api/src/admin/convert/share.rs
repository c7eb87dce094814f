//! Shares: slots and rates as numbers with a point outside, as whole thousandths and millionths inside.

use tenantry_server::Policy;
use tenantry_server::admin as values;
use tenantry_types::share::{DeviceRate, RequestRate, ShareTier, WorkerLimits};
use tenantry_types::{ServiceError, ShareSettings};

use super::super::types;

/// A reservation's burst where none is named, milliseconds.
const DEFAULT_RESERVATION_BURST_MS: u64 = 100;
/// A device-time limit's burst where none is named, milliseconds.
const DEFAULT_LIMIT_BURST_MS: u64 = 1_000;
/// How many seconds of requests may come at once where no burst is named.
const DEFAULT_BURST_SECONDS: f64 = 0.1;

/// `value` in parts of `1 / per`, rounded; 400 for what is no amount.
fn parts(field: &str, value: f64, per: f64, most: u64) -> Result<u64, ServiceError> {
    let parts = (value * per).round();
    // Exact up to 2^53, far above every bound used here.
    if value.is_finite() && parts >= 1.0 && parts <= most as f64 {
        return Ok(parts as u64);
    }
    Err(ServiceError::invalid(format!("`{field}` must be a number from {} to {}", 1.0 / per, most as f64 / per)))
}

fn device(field: &str, time: types::DeviceTime, default_burst_ms: u64) -> Result<DeviceRate, ServiceError> {
    let ppm = parts(field, time.slots, 1e6, u32::MAX.into())?;
    Ok(DeviceRate { ppm: u32::try_from(ppm).unwrap_or(u32::MAX), burst_ms: time.burst_ms.unwrap_or(default_burst_ms) })
}

fn rate(rate: types::RequestRate) -> Result<RequestRate, ServiceError> {
    let milli_per_second = parts("request_rate", rate.per_second, 1e3, 1_000_000_000_000)?;
    let burst = rate.burst.unwrap_or_else(|| (rate.per_second * DEFAULT_BURST_SECONDS).ceil().clamp(1.0, 1e9) as u32);
    Ok(RequestRate { milli_per_second, burst })
}

fn worker_limits(limits: types::WorkerLimits) -> Result<WorkerLimits, ServiceError> {
    let types::WorkerLimits { memory_bytes, max_processes, max_cpus } = limits;
    let milli = max_cpus.map(|cpus| parts("worker.max_cpus", cpus, 1e3, 1_000_000)).transpose()?;
    let max_cpu_milli = milli.map(|milli| u32::try_from(milli).unwrap_or(u32::MAX));
    Ok(WorkerLimits { memory_bytes, max_processes, max_cpu_milli })
}

fn shown(limits: WorkerLimits) -> Option<types::WorkerLimits> {
    let WorkerLimits { memory_bytes, max_processes, max_cpu_milli } = limits;
    let max_cpus = max_cpu_milli.map(|milli| f64::from(milli) / 1e3);
    (!limits.is_empty()).then_some(types::WorkerLimits { memory_bytes, max_processes, max_cpus })
}

impl TryFrom<types::ShareChange> for values::ShareChange {
    type Error = ServiceError;
    fn try_from(change: types::ShareChange) -> Result<Self, ServiceError> {
        let types::ShareChange { generation, settings } = change;
        let weight = settings.weight.map(|weight| parts("weight", weight, 1e3, 1_000_000)).transpose()?;
        let reservation = settings.reservation.map(|time| device("reservation", time, DEFAULT_RESERVATION_BURST_MS));
        let device_time = settings.device_time.map(|time| device("device_time", time, DEFAULT_LIMIT_BURST_MS));
        Ok(Self {
            generation,
            organisation: settings.organisation,
            settings: ShareSettings {
                organisation: None,
                tier: settings.tier.map(Into::into),
                weight_milli: weight.map(|weight| u32::try_from(weight).unwrap_or(u32::MAX)),
                reservation: reservation.transpose()?,
                device_time: device_time.transpose()?,
                request_rate: settings.request_rate.map(rate).transpose()?,
                max_requests: settings.max_requests,
                max_queued_tasks: settings.max_queued_tasks,
                max_queued_bytes: settings.max_queued_bytes,
                max_body_bytes: settings.max_body_bytes,
                max_bodies_bytes: settings.max_bodies_bytes,
                max_cache_bytes: settings.max_cache_bytes,
                slot_group: settings.slot_group,
                batch_with_others: settings.batch_with_others,
                worker: settings.worker.map(worker_limits).transpose()?.unwrap_or_default(),
            },
        })
    }
}

impl From<types::Tier> for ShareTier {
    fn from(tier: types::Tier) -> Self {
        match tier {
            types::Tier::Guaranteed => Self::Guaranteed,
            types::Tier::Burstable => Self::Burstable,
            types::Tier::BestEffort => Self::BestEffort,
        }
    }
}

impl From<ShareTier> for types::Tier {
    fn from(tier: ShareTier) -> Self {
        match tier {
            ShareTier::Guaranteed => Self::Guaranteed,
            ShareTier::Burstable => Self::Burstable,
            ShareTier::BestEffort => Self::BestEffort,
        }
    }
}

impl From<DeviceRate> for types::DeviceTime {
    fn from(rate: DeviceRate) -> Self {
        Self { slots: f64::from(rate.ppm) / 1e6, burst_ms: Some(rate.burst_ms) }
    }
}

impl From<RequestRate> for types::RequestRate {
    fn from(rate: RequestRate) -> Self {
        Self { per_second: rate.milli_per_second as f64 / 1e3, burst: Some(rate.burst) }
    }
}

fn weight(milli: u32) -> f64 {
    f64::from(milli) / 1e3
}

impl From<values::ShareInfo> for types::Share {
    fn from(share: values::ShareInfo) -> Self {
        let values::ShareInfo { place, generation, organisation, settings, effective } = share;
        Self {
            subject: place.into(),
            generation,
            settings: types::ShareSettings {
                organisation,
                tier: settings.tier.map(Into::into),
                weight: settings.weight_milli.map(weight),
                reservation: settings.reservation.map(Into::into),
                device_time: settings.device_time.map(Into::into),
                request_rate: settings.request_rate.map(Into::into),
                max_requests: settings.max_requests,
                max_queued_tasks: settings.max_queued_tasks,
                max_queued_bytes: settings.max_queued_bytes,
                max_body_bytes: settings.max_body_bytes,
                max_bodies_bytes: settings.max_bodies_bytes,
                max_cache_bytes: settings.max_cache_bytes,
                slot_group: settings.slot_group,
                batch_with_others: settings.batch_with_others,
                worker: shown(settings.worker),
            },
            effective: types::EffectiveShare {
                batch_with_others: effective.batches_with_others(),
                tier: effective.tier.unwrap_or_default().into(),
                weight: weight(effective.weight_milli.unwrap_or(1_000)),
                reservation: effective.reservation.map(Into::into),
                device_time: effective.device_time.map(Into::into),
                request_rate: effective.request_rate.map(Into::into),
                max_requests: effective.max_requests,
                max_queued_tasks: effective.max_queued_tasks,
                max_queued_bytes: effective.max_queued_bytes,
                max_body_bytes: effective.max_body_bytes,
                max_bodies_bytes: effective.max_bodies_bytes,
                max_cache_bytes: effective.max_cache_bytes,
                slot_group: effective.slot_group,
                worker: shown(effective.worker),
            },
        }
    }
}

impl From<values::SharePlace> for types::ShareSubject {
    fn from(place: values::SharePlace) -> Self {
        let none = |kind| Self { kind, organisation: None, tenant: None, model: None, key: None };
        match place {
            values::SharePlace::Organisation(organisation) => {
                Self { organisation: Some(organisation), ..none(types::ShareKind::Organisation) }
            }
            values::SharePlace::Tenant(tenant) => Self { tenant: Some(tenant), ..none(types::ShareKind::Tenant) },
            values::SharePlace::Deployment { tenant, model } => {
                Self { tenant: Some(tenant), model: Some(model.to_string()), ..none(types::ShareKind::Deployment) }
            }
            values::SharePlace::Key { tenant, key } => {
                Self { tenant: Some(tenant), key: Some(key), ..none(types::ShareKind::Key) }
            }
        }
    }
}

impl From<values::OrganisationInfo> for types::Organisation {
    fn from(organisation: values::OrganisationInfo) -> Self {
        let values::OrganisationInfo { id, name, tenants, created_ms } = organisation;
        Self { id, name, tenants, created_ms }
    }
}

impl From<types::Policy> for Policy {
    fn from(policy: types::Policy) -> Self {
        match policy {
            types::Policy::Fair => Self::Fair,
            types::Policy::Fifo => Self::Fifo,
            types::Policy::RoundRobin => Self::RoundRobin,
            types::Policy::StrictPriority => Self::StrictPriority,
        }
    }
}

impl From<Policy> for types::SchedulerPolicy {
    fn from(policy: Policy) -> Self {
        let policy = match policy {
            Policy::Fair => types::Policy::Fair,
            Policy::Fifo => types::Policy::Fifo,
            Policy::RoundRobin => types::Policy::RoundRobin,
            Policy::StrictPriority => types::Policy::StrictPriority,
        };
        Self { policy }
    }
}

#[cfg(test)]
mod tests {
    use tenantry_types::TenantName;

    use super::*;

    fn change(json: &str) -> Result<values::ShareChange, ServiceError> {
        serde_json::from_str::<types::ShareChange>(json).unwrap().try_into()
    }

    #[test]
    fn settings_come_back_as_they_were_given() {
        let json = r#"{"generation":3,"settings":{"organisation":"group","tier":"best_effort","weight":2.5,
            "reservation":{"slots":0.25},"device_time":{"slots":1.5,"burst_ms":7},"request_rate":{"per_second":12.5},
            "max_requests":1,"max_queued_tasks":2,"max_queued_bytes":3,"max_body_bytes":4,"max_bodies_bytes":5,"max_cache_bytes":6,
            "slot_group":"gold","batch_with_others":true,
            "worker":{"memory_bytes":268435456,"max_processes":64,"max_cpus":1.5}}}"#;
        let given = change(json).unwrap();
        assert_eq!(given.settings.reservation, Some(DeviceRate { ppm: 250_000, burst_ms: 100 }));
        assert_eq!(given.settings.request_rate, Some(RequestRate { milli_per_second: 12_500, burst: 2 }));
        let place: TenantName = "acme".parse().unwrap();
        let shown = types::Share::from(values::ShareInfo {
            place: values::SharePlace::Tenant(place),
            generation: 4,
            organisation: given.organisation.clone(),
            settings: given.settings.clone(),
            effective: given.settings.clone(),
        });
        let again = types::ShareChange { generation: Some(3), settings: shown.settings };
        assert_eq!(values::ShareChange::try_from(again).unwrap(), given);
    }

    #[test]
    fn what_is_no_amount_is_refused_and_named() {
        for (json, field) in [
            (r#"{"settings":{"weight":0}}"#, "weight"),
            (r#"{"settings":{"weight":-1}}"#, "weight"),
            (r#"{"settings":{"weight":1e9}}"#, "weight"),
            (r#"{"settings":{"reservation":{"slots":0}}}"#, "reservation"),
            (r#"{"settings":{"device_time":{"slots":1e300}}}"#, "device_time"),
            (r#"{"settings":{"request_rate":{"per_second":0.0001}}}"#, "request_rate"),
            (r#"{"settings":{"worker":{"max_cpus":0}}}"#, "worker.max_cpus"),
        ] {
            let refused = change(json).unwrap_err();
            assert!(refused.message.contains(field), "{refused}");
        }
        assert!(serde_json::from_str::<types::ShareChange>(r#"{"settings":{"wieght":1}}"#).is_err());
    }
}
