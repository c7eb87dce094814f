//! What the settings of the share tree mean: for the scheduler, for the door, and together for the slots.
//!
//! Plain functions over what the store lists. Nothing here knows who asks; `admin::shares` does.

use std::collections::BTreeMap;
use std::time::Duration;

use tenantry_sched::{
    DeviceTimeLimit, MAX_RESERVED_PER_SLOT, Rate, Reservation, Share, SlotGroup, Subject, Tier, Tuning, Weight, pack,
};
use tenantry_store::ShareRecord;
use tenantry_types::share::{DeviceRate, RequestRate, ShareTier};
use tenantry_types::{ShareSettings, ShareSubject};

use crate::config::Limits;

/// The slot groups of the configuration by name; the first one is group 1, because group 0 is everybody's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SlotGroups(BTreeMap<String, SlotGroup>);

impl SlotGroups {
    pub(crate) fn new(names: &[String]) -> Self {
        Self(names.iter().cloned().zip((1..).map(SlotGroup)).collect())
    }

    /// The group of that name; everybody's for a name that is not configured (any more).
    pub(crate) fn get(&self, name: Option<&str>) -> SlotGroup {
        name.and_then(|name| self.0.get(name)).copied().unwrap_or_default()
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    fn name(&self, group: SlotGroup) -> String {
        let named = self.0.iter().find(|(_, known)| **known == group);
        named.map_or_else(|| "the slots everybody shares".to_owned(), |(name, _)| format!("slot group `{name}`"))
    }
}

/// The share tree as the scheduler is told of it.
pub(crate) fn tree(records: &[ShareRecord], groups: &SlotGroups) -> BTreeMap<Subject, Share> {
    records.iter().map(|record| (subject(record.subject), share(&record.settings, groups))).collect()
}

/// What turns one tree into the next; a node that is gone has the default settings again.
pub(crate) fn changes(
    before: &BTreeMap<Subject, Share>,
    after: &BTreeMap<Subject, Share>,
) -> Vec<(Subject, Option<Share>)> {
    let new = after.iter().filter(|(subject, share)| before.get(subject) != Some(share));
    let gone = before.keys().filter(|subject| !after.contains_key(subject));
    new.map(|(subject, share)| (*subject, Some(*share))).chain(gone.map(|subject| (*subject, None))).collect()
}

fn subject(subject: ShareSubject) -> Subject {
    match subject {
        ShareSubject::Organisation(organisation) => Subject::Organisation(organisation),
        ShareSubject::Tenant(tenant) => Subject::Tenant(tenant),
        ShareSubject::Deployment(tenant, deployment) => Subject::Deployment(tenant, deployment),
        ShareSubject::Key(tenant, key) => Subject::Key(tenant, key),
    }
}

fn share(settings: &ShareSettings, groups: &SlotGroups) -> Share {
    let parts = |rate: DeviceRate| (Rate::from_ppm(rate.ppm), Duration::from_millis(rate.burst_ms));
    Share {
        organisation: settings.organisation,
        weight: settings.weight_milli.map_or(Weight::DEFAULT, Weight::from_milli),
        tier: settings.tier.map(|tier| match tier {
            ShareTier::Guaranteed => Tier::Guaranteed,
            ShareTier::Burstable => Tier::Burstable,
            ShareTier::BestEffort => Tier::BestEffort,
        }),
        reservation: settings.reservation.map(parts).map(|(rate, burst)| Reservation { rate, burst }),
        limit: settings.device_time.map(parts).map(|(rate, burst)| DeviceTimeLimit { rate, burst }),
        max_queued_tasks: settings.max_queued_tasks,
        max_queued_bytes: settings.max_queued_bytes,
        group: groups.get(settings.slot_group.as_deref()),
    }
}

/// What one slot can keep for reservations: the rest is for full batches, and for the best-effort class as a whole.
fn most_per_slot() -> Rate {
    Rate::from_ppm(MAX_RESERVED_PER_SLOT.ppm().saturating_sub(Tuning::CPU.best_effort_floor.ppm()))
}

/// Whether a change can be kept: in the groups where it reserves more than before. What no longer fits, because slots are
/// gone, can still be lowered, and stands in nobody else's way. `records`: all, with the change.
///
/// # Errors
/// The arithmetic, in words for whoever asks. It names nobody.
pub(crate) fn check_change(
    records: &[ShareRecord],
    changed: ShareSubject,
    before: Option<&ShareRecord>,
    groups: &SlotGroups,
    slots: &BTreeMap<SlotGroup, u32>,
) -> Result<(), String> {
    let others = records.iter().filter(|record| record.subject != changed).chain(before).cloned();
    let old = by_group(&others.collect::<Vec<_>>(), groups);
    let asked = |rates: &[Rate]| rates.iter().map(|rate| u64::from(rate.ppm())).sum::<u64>();
    let mut more = by_group(records, groups);
    more.retain(|group, rates| asked(rates) > old.get(group).map_or(0, |rates| asked(rates)));
    check_groups(&more, groups, slots)
}

/// Whether all reservations together can be kept, group by group.
///
/// # Errors
/// The arithmetic. It names nobody.
pub(crate) fn check_reservations(
    records: &[ShareRecord],
    groups: &SlotGroups,
    slots: &BTreeMap<SlotGroup, u32>,
) -> Result<(), String> {
    check_groups(&by_group(records, groups), groups, slots)
}

/// The rates that are reserved on the slots of each group.
fn by_group(records: &[ShareRecord], groups: &SlotGroups) -> BTreeMap<SlotGroup, Vec<Rate>> {
    let group_of_tenant: BTreeMap<_, SlotGroup> = records
        .iter()
        .filter_map(|record| match record.subject {
            ShareSubject::Tenant(tenant) => Some((tenant, groups.get(record.settings.slot_group.as_deref()))),
            _ => None,
        })
        .collect();
    let mut by_group: BTreeMap<SlotGroup, Vec<Rate>> = BTreeMap::new();
    for record in records {
        let (Some(tenant), Some(reservation)) = (record.subject.tenant(), record.settings.reservation) else {
            continue;
        };
        let group = group_of_tenant.get(&tenant).copied().unwrap_or_default();
        by_group.entry(group).or_default().push(Rate::from_ppm(reservation.ppm));
    }
    by_group
}

fn check_groups(
    reserved: &BTreeMap<SlotGroup, Vec<Rate>>,
    groups: &SlotGroups,
    slots: &BTreeMap<SlotGroup, u32>,
) -> Result<(), String> {
    for (&group, rates) in reserved {
        let there = slots.get(&group).copied().unwrap_or(0);
        pack(rates, there, most_per_slot()).map_err(|error| {
            format!(
                "{}: {error} (of each slot {} is left for full batches and {} for best-effort work)",
                groups.name(group),
                Rate::from_ppm(1_000_000 - MAX_RESERVED_PER_SLOT.ppm()),
                Tuning::CPU.best_effort_floor,
            )
        })?;
    }
    Ok(())
}

/// What holds for a tenant: the configuration's defaults with its settings over them.
pub(crate) fn of_tenant(settings: &ShareSettings, limits: &Limits, groups: &SlotGroups) -> ShareSettings {
    ShareSettings {
        organisation: settings.organisation,
        tier: Some(settings.tier.unwrap_or_default()),
        weight_milli: Some(settings.weight_milli.unwrap_or(Weight::DEFAULT.milli())),
        reservation: settings.reservation,
        device_time: settings.device_time,
        request_rate: settings.request_rate,
        max_requests: Some(settings.max_requests.unwrap_or(limits.tenant_max_requests)),
        max_queued_tasks: Some(settings.max_queued_tasks.unwrap_or(limits.tenant_max_queued_tasks)),
        max_queued_bytes: settings.max_queued_bytes,
        max_body_bytes: Some(settings.max_body_bytes.unwrap_or(u64::MAX).min(limits.max_body_bytes)),
        max_bodies_bytes: Some(settings.max_bodies_bytes.unwrap_or(limits.tenant_max_bodies_bytes)),
        max_cache_bytes: Some(settings.max_cache_bytes.unwrap_or(limits.tenant_max_cache_bytes)),
        slot_group: settings.slot_group.clone().filter(|name| groups.contains(name)),
        batch_with_others: Some(settings.batches_with_others()),
        worker: settings.worker,
    }
}

/// What holds for a deployment or key of a tenant whose bounds are `tenant`: its own, where they are not wider.
pub(crate) fn within(own: &ShareSettings, tenant: &ShareSettings) -> ShareSettings {
    fn tighter<T: Ord + Copy>(own: Option<T>, outer: Option<T>) -> Option<T> {
        own.into_iter().chain(outer).min()
    }
    let slower = |own: Option<DeviceRate>, outer: Option<DeviceRate>| {
        own.into_iter().chain(outer).min_by_key(|rate| (rate.ppm, rate.burst_ms))
    };
    let rarer = |own: Option<RequestRate>, outer: Option<RequestRate>| {
        own.into_iter().chain(outer).min_by_key(|rate| (rate.milli_per_second, rate.burst))
    };
    ShareSettings {
        organisation: None,
        tier: own.tier.or(tenant.tier),
        weight_milli: Some(own.weight_milli.unwrap_or(Weight::DEFAULT.milli())),
        reservation: own.reservation,
        device_time: slower(own.device_time, tenant.device_time),
        request_rate: rarer(own.request_rate, tenant.request_rate),
        max_requests: tighter(own.max_requests, tenant.max_requests),
        max_queued_tasks: tighter(own.max_queued_tasks, tenant.max_queued_tasks),
        max_queued_bytes: tighter(own.max_queued_bytes, tenant.max_queued_bytes),
        max_body_bytes: tighter(own.max_body_bytes, tenant.max_body_bytes),
        max_bodies_bytes: tenant.max_bodies_bytes,
        max_cache_bytes: tenant.max_cache_bytes,
        slot_group: tenant.slot_group.clone(),
        batch_with_others: tenant.batch_with_others,
        worker: tenant.worker,
    }
}

/// Whether `asked` promises or allows more than `tenant` has, and what: a tenant divides its share, it does not raise it.
///
/// `stored` is what the node has already, given by somebody who may: it may stay.
pub(crate) fn raise(asked: &ShareSettings, stored: &ShareSettings, tenant: &ShareSettings) -> Option<&'static str> {
    fn beyond<T: Ord + Copy>(asked: Option<T>, stored: Option<T>, tenant: Option<T>) -> bool {
        let wider = |bound: Option<T>| bound.is_none_or(|bound| asked.is_some_and(|asked| asked <= bound));
        asked.is_some() && asked != stored && !wider(tenant)
    }
    let device = |rate: Option<DeviceRate>| rate.map(|rate| (rate.ppm, rate.burst_ms));
    let requests = |rate: Option<RequestRate>| rate.map(|rate| (rate.milli_per_second, rate.burst));
    let reserved_more = asked.reservation.is_some_and(|asked| {
        stored.reservation.is_none_or(|stored| asked.ppm > stored.ppm || asked.burst_ms > stored.burst_ms)
    });
    let checks = [
        ("tier", beyond(asked.tier, stored.tier, tenant.tier)),
        ("reservation", reserved_more),
        ("device_time", beyond(device(asked.device_time), device(stored.device_time), device(tenant.device_time))),
        (
            "request_rate",
            beyond(requests(asked.request_rate), requests(stored.request_rate), requests(tenant.request_rate)),
        ),
        ("max_requests", beyond(asked.max_requests, stored.max_requests, tenant.max_requests)),
        ("max_queued_tasks", beyond(asked.max_queued_tasks, stored.max_queued_tasks, tenant.max_queued_tasks)),
        ("max_queued_bytes", beyond(asked.max_queued_bytes, stored.max_queued_bytes, tenant.max_queued_bytes)),
        ("max_body_bytes", beyond(asked.max_body_bytes, stored.max_body_bytes, tenant.max_body_bytes)),
    ];
    checks.into_iter().find(|(_, is_raise)| *is_raise).map(|(field, _)| field)
}

#[cfg(test)]
mod tests;
