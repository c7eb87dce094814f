use tenantry_store::Sharing;
use tenantry_types::DataType;

use super::serve::takes_away;
use super::*;
use crate::testing::{World, tenant_id, version_id};

const TTL: Duration = Duration::from_secs(10);
const QUOTA: u64 = 64 << 10;
/// Data with which an entry takes a kibibyte.
const DATA_BYTES: usize = (1024 - ENTRY_BYTES - TENSOR_BYTES - 1) as usize;
const KIB: u64 = 1024;

fn at(secs: u64) -> MonotonicTime {
    MonotonicTime::from_nanos(secs * 1_000_000_000)
}

fn key(number: u64) -> Digest {
    Digest::of(&number.to_le_bytes())
}

fn origin(at_secs: u64) -> Origin {
    Origin { version: version_id(1, 1), generation: 1, at: at(at_secs) }
}

fn outputs(data: &[u8]) -> Vec<Tensor> {
    let shape = [data.len() as u64].as_slice().into();
    vec![Tensor { name: "y".to_owned(), datatype: DataType::Uint8, shape, data: data.to_vec().into() }]
}

/// Puts an answer of a kibibyte.
fn put(cache: &ResponseCache, tenant: u8, number: u64, quota_bytes: u64) -> u64 {
    cache.put(tenant_id(tenant), key(number), origin(0), &outputs(&[number as u8; DATA_BYTES]), quota_bytes)
}

fn has(cache: &ResponseCache, tenant: u8, number: u64) -> bool {
    cache.get(tenant_id(tenant), &key(number), TTL, at(0)).is_some()
}

#[test]
fn what_was_put_is_found_by_its_tenant_alone_until_it_is_too_old() {
    let cache = ResponseCache::new(u64::MAX);
    let answer = outputs(b"answer");
    cache.put(tenant_id(1), key(1), origin(5), &answer, QUOTA);
    let get = |tenant: u8, number: u64, secs: u64| cache.get(tenant_id(tenant), &key(number), TTL, at(secs));
    assert_eq!(get(1, 1, 14).as_deref(), Some(answer.as_slice()));
    assert!(get(2, 1, 14).is_none() && get(1, 2, 14).is_none());
    assert!(cache.bytes() > 6);
    // A deployment whose time is made shorter means what is kept already, too.
    assert!(cache.get(tenant_id(1), &key(1), Duration::from_secs(2), at(7)).is_none());
    assert_eq!(cache.bytes(), 0);
    cache.put(tenant_id(1), key(1), origin(5), &answer, QUOTA);
    assert!(get(1, 1, 15).is_none(), "ten seconds are over");
    assert_eq!(cache.bytes(), 0);
}

#[test]
fn the_longest_unused_make_room_within_the_quota() {
    let cache = ResponseCache::new(u64::MAX);
    let quota_bytes = 10 * KIB;
    for number in 0..10 {
        assert_eq!(put(&cache, 1, number, quota_bytes), 0);
    }
    assert_eq!(cache.bytes(), 10 * KIB);
    assert!(has(&cache, 1, 0), "and is used by that");
    assert_eq!(put(&cache, 1, 10, quota_bytes), KIB);
    assert!(has(&cache, 1, 0) && !has(&cache, 1, 1) && has(&cache, 1, 2));
    // The same again takes no more.
    assert_eq!(put(&cache, 1, 10, quota_bytes), 0);
    assert_eq!(cache.bytes(), 10 * KIB);
    // Under a smaller quota, with the next answer.
    assert_eq!(put(&cache, 1, 11, 8 * KIB), 3 * KIB);
    assert_eq!(cache.bytes(), 8 * KIB);
}

#[test]
fn an_answer_over_its_part_of_the_quota_is_not_kept_and_costs_nothing() {
    let cache = ResponseCache::new(u64::MAX);
    put(&cache, 1, 1, 8 * KIB);
    let larger = outputs(&[0; DATA_BYTES + 1]);
    assert_eq!(cache.put(tenant_id(1), key(2), origin(0), &larger, 8 * KIB), 0);
    assert!(has(&cache, 1, 1) && !has(&cache, 1, 2));
    assert_eq!(put(&cache, 1, 2, 0), 0);
    assert_eq!(cache.bytes(), KIB);
}

#[test]
fn no_tenants_answers_are_removed_for_anothers() {
    let cache = ResponseCache::new(10 * KIB);
    for number in 0..6 {
        put(&cache, 1, number, QUOTA);
    }
    for number in 0..100 {
        put(&cache, 2, number, QUOTA);
    }
    assert!((0..6).all(|number| has(&cache, 1, number)));
    assert!((96..100).all(|number| has(&cache, 2, number)), "its own newest are there");
    assert!(!has(&cache, 2, 95));
    // One who has none keeps none while there is no room.
    assert_eq!(put(&cache, 3, 1, QUOTA), 0);
    assert!(!has(&cache, 3, 1));
    assert_eq!(cache.bytes(), 10 * KIB);
}

#[test]
fn a_kept_answer_holds_no_larger_buffer() {
    let cache = ResponseCache::new(u64::MAX);
    let batch = bytes::Bytes::from(vec![7_u8; 1 << 20]);
    let mut answer = outputs(b"");
    answer[0].data = batch.slice(10..14).into();
    cache.put(tenant_id(1), key(1), origin(0), &answer, QUOTA);
    drop(answer);
    assert!(batch.is_unique());
    assert_eq!(cache.get(tenant_id(1), &key(1), TTL, at(0)).unwrap()[0].data.to_contiguous(), [7; 4].as_slice());
}

#[test]
fn what_is_no_longer_to_be_kept_goes_and_so_do_tenants() {
    let cache = ResponseCache::new(u64::MAX);
    for (number, generation) in [(1, 1), (2, 2), (3, 2)] {
        for tenant in [1, 2] {
            let origin = Origin { generation, ..origin(number) };
            cache.put(tenant_id(tenant), key(number), origin, &outputs(&[0; DATA_BYTES]), QUOTA);
        }
    }
    cache.retain(|tenant| (tenant == tenant_id(1)).then_some(QUOTA), |origin| origin.generation == 2);
    assert!(!has(&cache, 1, 1) && has(&cache, 1, 2) && has(&cache, 1, 3) && !has(&cache, 2, 2));
    assert_eq!(cache.bytes(), 2 * KIB);
    assert_eq!(cache.tenants.read().len(), 1);
    cache.retain(|_| Some(KIB), |_| true);
    assert!(!has(&cache, 1, 2) && has(&cache, 1, 3), "beyond a quota that was made smaller");
    assert_eq!(cache.bytes(), KIB);
}

#[test]
fn what_comes_for_a_tenant_that_is_gone_is_not_kept() {
    let cache = ResponseCache::new(u64::MAX);
    put(&cache, 1, 1, QUOTA);
    let late = Arc::clone(&cache.tenants.read()[&tenant_id(1)]);
    cache.retain(|_| None, |_| true);
    assert!(late.lock().closed && cache.bytes() == 0);
}

#[test]
fn only_changes_that_take_something_away_empty_the_cache() {
    let keeping = |ttl_ms: Option<u64>, generation: u64| {
        let mut world =
            World::new().model(1, 1, "magika", Sharing::Everyone, "rr").model(2, 2, "own", Sharing::Private, "r");
        world.catalogue.deployments[0].cache_ttl_ms = ttl_ms;
        world.catalogue.deployments[0].generation = generation;
        world
    };
    let before = keeping(Some(5), 1).routing();
    let after = |world: World| world.after(&before);
    assert!(!takes_away(&before, &after(keeping(Some(5), 1))));
    assert!(!takes_away(&keeping(None, 1).routing(), &before), "keeping answers from now on");
    assert!(takes_away(&before, &after(keeping(None, 1))));
    assert!(takes_away(&before, &after(keeping(Some(4), 1))));
    assert!(takes_away(&before, &after(keeping(Some(5), 2))));
    let mut fewer = keeping(Some(5), 1);
    fewer.catalogue.versions.retain(|version| version.id != version_id(1, 2));
    assert!(takes_away(&before, &after(fewer)));
    let mut fewer = keeping(Some(5), 1);
    fewer.catalogue.versions.retain(|version| version.id != version_id(2, 1));
    assert!(!takes_away(&before, &after(fewer)), "of a model that keeps none");
    let mut fewer = keeping(Some(5), 1);
    fewer.catalogue.tenants.retain(|tenant| tenant.id != tenant_id(3));
    assert!(takes_away(&before, &after(fewer)));
}
