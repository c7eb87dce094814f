use tenantry_types::{DeploymentId, OrganisationId, TenantId};

use super::*;
use crate::testing::{key_id, tenant_id};

fn reserved(ppm: u32) -> ShareSettings {
    ShareSettings { reservation: Some(DeviceRate { ppm, burst_ms: 100 }), ..ShareSettings::default() }
}

fn record(subject: ShareSubject, settings: ShareSettings) -> ShareRecord {
    ShareRecord { subject, generation: 1, settings }
}

fn deployment(tenant: TenantId) -> ShareSubject {
    ShareSubject::Deployment(tenant, DeploymentId::from_parts(9, [9; 10]))
}

fn check(records: &[ShareRecord]) -> Result<(), String> {
    let groups = SlotGroups::new(&["gold".to_owned()]);
    let slots = [(SlotGroup(0), 1), (SlotGroup(1), 2)].into();
    check_reservations(records, &groups, &slots)
}

#[test]
fn reservations_of_tenants_deployments_and_keys_add_up_by_group() {
    let (one, two) = (tenant_id(1), tenant_id(2));
    let mut records = vec![
        record(ShareSubject::Tenant(one), reserved(300_000)),
        record(deployment(one), reserved(300_000)),
        record(ShareSubject::Key(one, key_id(8)), reserved(180_000)),
        record(ShareSubject::Organisation(OrganisationId::from_parts(1, [1; 10])), ShareSettings::default()),
    ];
    assert_eq!(check(&records), Ok(()));
    records.push(record(ShareSubject::Tenant(two), reserved(10_000)));
    let refused = check(&records).unwrap_err();
    assert!(refused.contains("the slots everybody shares: reservations of 0.79 slots do not fit"), "{refused}");
    assert!(refused.contains("1 slots x 0.78 = 0.78") && refused.contains("0.02 for best-effort"), "{refused}");
    // The tenant's group is where its deployments' reservations are kept.
    records[0].settings.slot_group = Some("gold".to_owned());
    assert_eq!(check(&records), Ok(()));
    records[0].settings.reservation = Some(DeviceRate { ppm: 790_000, burst_ms: 1 });
    let refused = check(&records).unwrap_err();
    assert!(refused.starts_with("slot group `gold`: a reservation of 0.79 slots does not fit"), "{refused}");
    // A group that is not configured any more has no slots of its own.
    records[0].settings.slot_group = Some("silver".to_owned());
    assert!(check(&records).unwrap_err().starts_with("the slots everybody shares"));
}

/// What no longer fits can be lowered in steps, and is nobody else's obstacle; it cannot be raised.
#[test]
fn only_what_reserves_more_is_refused() {
    let subject = |number| ShareSubject::Tenant(tenant_id(number));
    let all = |first: u32| vec![record(subject(1), reserved(first)), record(subject(2), reserved(500_000))];
    let change = |records: &[ShareRecord], changed, before: Option<&ShareRecord>| {
        let groups = SlotGroups::new(&[]);
        check_change(records, changed, before, &groups, &[(SlotGroup(0), 1)].into())
    };
    assert!(check(&all(400_000)).is_err());
    let before = record(subject(1), reserved(400_000));
    assert_eq!(change(&all(300_000), subject(1), Some(&before)), Ok(()));
    assert_eq!(change(&all(400_000), subject(1), Some(&before)), Ok(()));
    assert!(change(&all(410_000), subject(1), Some(&before)).is_err());
    assert!(change(&all(300_000), subject(1), None).is_err());
    let mut others = all(400_000);
    others.push(record(deployment(tenant_id(3)), ShareSettings::default()));
    assert_eq!(change(&others, deployment(tenant_id(3)), None), Ok(()));
}

#[test]
fn the_scheduler_is_told_what_changed_and_nothing_else() {
    let groups = SlotGroups::new(&["gold".to_owned(), "silver".to_owned()]);
    let settings = ShareSettings {
        tier: Some(ShareTier::Guaranteed),
        weight_milli: Some(2_000),
        device_time: Some(DeviceRate { ppm: 1_500_000, burst_ms: 7 }),
        max_queued_tasks: Some(5),
        slot_group: Some("silver".to_owned()),
        ..reserved(250_000)
    };
    let (one, two) = (ShareSubject::Tenant(tenant_id(1)), ShareSubject::Tenant(tenant_id(2)));
    let before = tree(&[record(one, ShareSettings::default()), record(two, settings.clone())], &groups);
    let after = tree(&[record(two, settings), record(deployment(tenant_id(2)), reserved(1))], &groups);
    let told = before[&Subject::Tenant(tenant_id(2))];
    assert_eq!((told.tier, told.weight, told.group), (Some(Tier::Guaranteed), Weight::from_milli(2_000), SlotGroup(2)));
    assert_eq!(told.reservation.map(|kept| (kept.rate.ppm(), kept.burst)), Some((250_000, Duration::from_millis(100))));
    assert_eq!(told.limit.map(|limit| (limit.rate.ppm(), limit.burst)), Some((1_500_000, Duration::from_millis(7))));
    let changed = changes(&before, &after);
    assert_eq!(changed.len(), 2, "{changed:?}");
    assert!(matches!(changed[0], (Subject::Deployment(..), Some(_))));
    assert_eq!(changed[1], (Subject::Tenant(tenant_id(1)), None));
    assert!(changes(&after, &after).is_empty());
}

#[test]
fn bounds_of_a_key_are_never_wider_than_its_tenants() {
    let limits = Limits::defaults();
    let groups = SlotGroups::default();
    let tenant = of_tenant(&ShareSettings { max_requests: Some(10), ..ShareSettings::default() }, &limits, &groups);
    assert_eq!((tenant.tier, tenant.weight_milli), (Some(ShareTier::Burstable), Some(1_000)));
    assert_eq!(tenant.max_body_bytes, Some(limits.max_body_bytes));
    let own = ShareSettings {
        max_requests: Some(20),
        max_body_bytes: Some(1),
        request_rate: Some(RequestRate { milli_per_second: 1, burst: 1 }),
        ..ShareSettings::default()
    };
    let effective = within(&own, &tenant);
    assert_eq!((effective.max_requests, effective.max_body_bytes), (Some(10), Some(1)));
    assert_eq!((effective.request_rate, effective.tier), (own.request_rate, tenant.tier));
}

#[test]
fn a_tenant_divides_its_share_and_does_not_raise_it() {
    let tenant = ShareSettings {
        tier: Some(ShareTier::Burstable),
        max_requests: Some(10),
        device_time: Some(DeviceRate { ppm: 500_000, burst_ms: 1_000 }),
        ..reserved(500_000)
    };
    let none = ShareSettings::default();
    let weight = ShareSettings { weight_milli: Some(9), ..ShareSettings::default() };
    assert_eq!(raise(&weight, &none, &tenant), None);
    // What its tenant reserved is the tenant's; a part of it would be kept twice.
    assert_eq!(raise(&reserved(1), &none, &tenant), Some("reservation"));
    assert_eq!(raise(&reserved(1), &reserved(2), &tenant), None, "less than it was given");
    let up = ShareSettings { tier: Some(ShareTier::Guaranteed), ..ShareSettings::default() };
    assert_eq!(raise(&up, &none, &tenant), Some("tier"));
    assert_eq!(raise(&up, &up, &tenant), None, "given by somebody who may");
    let down = ShareSettings { tier: Some(ShareTier::BestEffort), max_requests: Some(10), ..ShareSettings::default() };
    assert_eq!(raise(&down, &none, &tenant), None);
    let more = ShareSettings { max_requests: Some(11), ..ShareSettings::default() };
    assert_eq!(raise(&more, &none, &tenant), Some("max_requests"));
    let bound = ShareSettings { max_queued_bytes: Some(11), ..ShareSettings::default() };
    assert_eq!(raise(&bound, &none, &tenant), None, "the tenant has no bound");
}
