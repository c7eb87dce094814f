//! Price plans.

use tenantry_bill::{Meter, Price, PricePlan, Unit};
use tenantry_store::{PlanRecord, Thing, WriteError};
use tenantry_types::TenantId;
use tenantry_types::share::ShareTier;

use crate::support::{Shared, tenant};

/// A plan with a price for everybody and a higher one for guaranteed tenants.
pub(crate) fn plan(name: &str, valid_from_ms: i64) -> PricePlan {
    let price = |tier, amount| Price::new(Meter::DeviceCompute, tier, None, amount, Unit::Second).unwrap();
    let prices = vec![
        price(None, "1"),
        price(Some(ShareTier::Guaranteed), "3"),
        Price::new(Meter::Requests, None, None, "0.5", Unit::One).unwrap(),
    ];
    PricePlan::new(name, "EUR".parse().unwrap(), valid_from_ms, None, prices).unwrap()
}

fn names(records: &[PlanRecord]) -> Vec<(Option<TenantId>, &str)> {
    records.iter().map(|record| (record.tenant, record.plan.name())).collect()
}

pub(crate) async fn plans_are_added_and_found_and_never_changed(backend: Shared) {
    let (_place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await.id;
    let globex = tenant(&store, "globex").await.id;
    // The first may reach back, as nothing had a price before it.
    let first = store.add_price_plan(None, &plan("list", 10), 100).await.unwrap();
    assert_eq!(first, PlanRecord { tenant: None, plan: plan("list", 10), created_ms: 100 });
    store.add_price_plan(None, &plan("list-2", 200), 100).await.unwrap();
    store.add_price_plan(Some(acme), &plan("own", 150), 100).await.unwrap();

    let taken = store.add_price_plan(None, &plan("other", 200), 100).await.unwrap_err();
    assert!(matches!(taken, WriteError::AlreadyExists(Thing::PricePlan)), "{taken:?}");
    let late = store.add_price_plan(None, &plan("late", 50), 100).await.unwrap_err();
    assert!(matches!(&late, WriteError::WrongState(text) if text.contains("`list`")), "{late:?}");
    let nobody = store.add_price_plan(Some(TenantId::from_parts(1, [0; 10])), &plan("p", 0), 1).await.unwrap_err();
    assert!(matches!(nobody, WriteError::NotFound(Thing::Tenant)), "{nobody:?}");

    let all = store.price_plans().await.unwrap();
    assert_eq!(names(&all), [(None, "list"), (None, "list-2"), (Some(acme), "own")]);
    assert_eq!(all[2].plan, plan("own", 150), "prices, tiers and all");
    let (mine, theirs) = (store.price_book(acme).await.unwrap(), store.price_book(globex).await.unwrap());
    let named = |at| [&mine, &theirs].map(|book| book.in_force(at).map(|plan| plan.name().to_owned()));
    let both = |one: &str, other: &str| [Some(one.to_owned()), Some(other.to_owned())];
    assert_eq!(named(9), [None, None]);
    assert_eq!(named(149), both("list", "list"));
    assert_eq!(named(150), both("own", "list"));
    assert_eq!(named(200), both("own", "list-2"));
}

pub(crate) async fn a_plan_ends_or_is_taken_back_before_it_begins(backend: Shared) {
    let (_place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await.id;
    store.add_price_plan(None, &plan("list", 0), 1).await.unwrap();
    store.add_price_plan(Some(acme), &plan("own", 10), 1).await.unwrap();
    store.add_price_plan(Some(acme), &plan("own-2", 50), 1).await.unwrap();

    store.withdraw_price_plan(Some(acme), 50, 40).await.unwrap();
    let begun = store.withdraw_price_plan(Some(acme), 10, 10).await.unwrap_err();
    assert!(matches!(begun, WriteError::WrongState(_)), "{begun:?}");
    let gone = store.withdraw_price_plan(Some(acme), 50, 40).await.unwrap_err();
    assert!(matches!(gone, WriteError::NotFound(Thing::PricePlan)), "{gone:?}");

    let past = store.end_price_plan(Some(acme), 10, 39, 40).await.unwrap_err();
    assert!(matches!(past, WriteError::WrongState(_)), "{past:?}");
    let before = store.end_price_plan(Some(acme), 10, 10, 5).await.unwrap_err();
    assert!(matches!(before, WriteError::Invalid(_)), "{before:?}");
    let ended = store.end_price_plan(Some(acme), 10, 60, 40).await.unwrap();
    assert_eq!((ended.plan.valid_until_ms(), ended.created_ms), (Some(60), 1));
    let twice = store.end_price_plan(Some(acme), 10, 70, 40).await.unwrap_err();
    assert!(matches!(twice, WriteError::WrongState(_)), "{twice:?}");
    let book = store.price_book(acme).await.unwrap();
    assert_eq!([59, 60].map(|at| book.in_force(at).map(PricePlan::name)), [Some("own"), Some("list")]);
}

pub(crate) async fn of_a_tenant_that_has_gone_are_kept(backend: Shared) {
    let (_place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await.id;
    store.add_price_plan(Some(acme), &plan("own", 0), 1).await.unwrap();
    store.delete_tenant(acme).await.unwrap();
    let book = store.price_book(acme).await.unwrap();
    assert_eq!(book.in_force(5).map(PricePlan::name), Some("own"), "its last month is yet to be billed");
}
