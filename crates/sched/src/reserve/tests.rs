use tenantry_types::TenantId;

use super::*;

const QUANTUM: Duration = Duration::from_millis(20);

fn at(millis: u64) -> MonotonicTime {
    MonotonicTime::from_nanos(millis * 1_000_000)
}

/// Three reservations on one slot, of 0.4, 0.2 and 0.2; the first was not served what it was promised up to 100 ms, the
/// other two wait for what they are promised until then.
fn three() -> (Reserves, ReserveId) {
    let mut reserves = Reserves::default();
    let ids: Vec<ReserveId> = [400_000, 200_000, 200_000]
        .iter()
        .zip(1..)
        .map(|(&ppm, number)| {
            let settings = Reservation { rate: Rate::from_ppm(ppm), burst: Duration::from_millis(100) };
            reserves.set(Key::Tenant(TenantId::from_parts(number, [0; 10])), SlotGroup::default(), settings, true)
        })
        .collect();
    let slots = BTreeMap::from([(SlotGroup::default(), vec![SlotId(1)])]);
    reserves.rehome(&slots, Rate::from_ppm(800_000));
    let (spared, _) = reserves.tag(ids[0], 40_000_000, at(0)).unwrap();
    assert_eq!(spared.finish_ns, 100_000_000);
    reserves.spare(spared, 0);
    for (&id, sequence) in ids[1..].iter().zip(1..) {
        let (tag, _) = reserves.tag(id, 20_000_000, at(0)).unwrap();
        assert_eq!(tag.finish_ns, 100_000_000);
        reserves.push(tag, sequence, Place::Worker(WorkerId(1)), true);
    }
    (reserves, ids[0])
}

/// The others' 40 ms are due by 120 ms, and the first's next 0.4 of the time until 100 ms would be, too.
#[test]
fn time_is_given_back_only_where_the_others_can_spare_it() {
    let next = |now| {
        let (mut reserves, first) = three();
        reserves.forgive(first, at(now), at(now), QUANTUM);
        reserves.tag(first, 1_000_000, at(now)).unwrap().0.eligible_ns / 1_000_000
    };
    // 40 + 0.4 x 60 of 80 ms.
    assert_eq!(next(40), 40);
    // 40 + 0.4 x 25 of 45 ms.
    assert_eq!(next(75), 100);
}

/// A task that its weight served gives its time back; one that has to run again takes it again, whether it was used or not.
#[test]
fn time_that_was_given_back_is_taken_again() {
    let next = |forgiven_first: bool| {
        let mut reserves = Reserves::default();
        let settings = Reservation { rate: Rate::from_ppm(500_000), burst: Duration::from_millis(100) };
        let key = Key::Tenant(TenantId::from_parts(1, [0; 10]));
        let id = reserves.set(key, SlotGroup::default(), settings, true);
        let (tag, _) = reserves.tag(id, 10_000_000, at(0)).unwrap();
        reserves.spare(tag, 0);
        if forgiven_first {
            reserves.forgive(id, at(1), at(1), QUANTUM);
        }
        reserves.reclaim(tag, at(1));
        reserves.forgive(id, at(1), at(1), QUANTUM);
        reserves.tag(id, 1_000_000, at(1)).unwrap().0.eligible_ns / 1_000_000
    };
    assert_eq!(next(false), 20);
    assert_eq!(next(true), 21);
}
