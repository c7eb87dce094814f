//! Budgets, and what the ledger says for them and for invoices.

use std::sync::Arc;

use tenantry_bill::budget::{Enforcement, LimitKey};
use tenantry_bill::period::{DAY_MS, Window};
use tenantry_bill::{
    Amounts, Billed, BudgetLimit, BudgetMeter, BudgetPeriod, BudgetScope, Crossed, Invoice, Meter, Period,
};
use tenantry_store::{Bookkeeper, BudgetMark, Ledger, Thing, UsedIn, WriteError};
use tenantry_types::share::ShareTier;
use tenantry_types::usage::{Attempted, DeviceTime, Outcome, UsageKind, Used};
use tenantry_types::{DeploymentId, KeyId, TenantId, VersionId};

use super::prices::plan;
use crate::support::{Shared, tenant};

fn limit(scope: BudgetScope, meter: BudgetMeter, period: BudgetPeriod, amount: u64) -> BudgetLimit {
    BudgetLimit {
        key: LimitKey { scope, meter, period },
        amount,
        enforcement: Enforcement::Hard,
        currency: None,
        thresholds_percent: vec![50, 100],
        platform: false,
    }
}

pub(crate) async fn change_by_compare_and_set_and_go_with_their_tenant(backend: Shared) {
    let (_place, store) = backend.store().await;
    let (acme, globex) = (tenant(&store, "acme").await.id, tenant(&store, "globex").await.id);
    assert_eq!(store.budget(acme).await.unwrap().generation, 0);
    let key = KeyId::from_parts(1, [1; 10]);
    let limits = vec![
        limit(BudgetScope::Key(key), BudgetMeter::Tokens, BudgetPeriod::Hour, u64::MAX),
        BudgetLimit {
            currency: Some("EUR".parse().unwrap()),
            enforcement: Enforcement::Soft,
            ..limit(BudgetScope::Tenant, BudgetMeter::Money, BudgetPeriod::Month, 5)
        },
    ];
    let first = store.set_budget(acme, Some(0), limits.clone()).await.unwrap();
    assert_eq!(first.generation, 1);
    assert_eq!(first.limits, [limits[1].clone(), limits[0].clone()], "in their order");
    assert_eq!(store.budget(acme).await.unwrap(), first);

    let stale = store.set_budget(acme, Some(0), Vec::new()).await.unwrap_err();
    assert!(matches!(stale, WriteError::Conflict { thing: Thing::Budget, generation: 1 }), "{stale:?}");
    let twice = vec![limits[0].clone(), limits[0].clone()];
    let wrong = store.set_budget(acme, None, twice).await.unwrap_err();
    assert!(matches!(wrong, WriteError::Invalid(_)), "{wrong:?}");
    let nobody = store.set_budget(TenantId::from_parts(1, [0; 10]), None, limits.clone()).await.unwrap_err();
    assert!(matches!(nobody, WriteError::NotFound(Thing::Tenant)), "{nobody:?}");

    let second = store.set_budget(acme, Some(1), Vec::new()).await.unwrap();
    assert_eq!((second.generation, second.limits.len()), (2, 0));
    store.set_budget(globex, None, limits).await.unwrap();
    store.delete_tenant(acme).await.unwrap();
    let left: Vec<TenantId> = store.budgets().await.unwrap().iter().map(|record| record.tenant).collect();
    assert_eq!(left, [globex]);
}

pub(crate) async fn a_threshold_is_news_once(backend: Shared) {
    let (_place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await.id;
    let key = limit(BudgetScope::Tenant, BudgetMeter::Requests, BudgetPeriod::Day, 1).key;
    let crossed = |window_ms, percent| Crossed { key, window_ms, percent, used: 1, limit: 1 };
    for (window_ms, percent, is_news) in
        [(0, 50, true), (0, 50, false), (0, 100, true), (0, 80, false), (DAY_MS, 50, true), (0, 150, true)]
    {
        let marked = store.mark_threshold(acme, &crossed(window_ms, percent)).await.unwrap();
        assert_eq!(marked, is_news, "{window_ms} {percent}");
    }
    let mark = |window_ms, percent| BudgetMark { key, window_ms, percent };
    assert_eq!(store.budget_marks(acme).await.unwrap(), [mark(0, 150), mark(DAY_MS, 50)]);
    // Old ones go with new ones.
    store.mark_threshold(acme, &crossed(90 * DAY_MS, 50)).await.unwrap();
    assert_eq!(store.budget_marks(acme).await.unwrap(), [mark(90 * DAY_MS, 50)]);
    let gone = TenantId::from_parts(1, [0; 10]);
    assert!(!store.mark_threshold(gone, &crossed(0, 50)).await.unwrap(), "nobody is there to be told");
}

/// An attempt of acme's, with one of two keys, to one of two deployments.
fn attempted(tenant: TenantId, key: u8, deployment: u8, admitted_ms: i64) -> Attempted {
    Attempted {
        kind: UsageKind::Inference,
        tenant,
        key: Some(KeyId::from_parts(1, [key; 10])),
        deployment: Some(DeploymentId::from_parts(1, [deployment; 10])),
        model: format!("acme/{deployment}").into(),
        version: VersionId::from_parts(1, [deployment; 10]),
        version_number: 1,
        tier: if deployment == 2 { ShareTier::Guaranteed } else { ShareTier::Burstable },
        request: None,
        admitted_ms,
    }
}

fn used(outcome: Outcome, seconds: u64) -> Used {
    let device = DeviceTime { compute_ns: seconds * 1_000_000_000, padding_ns: 1, ..DeviceTime::default() };
    Used { device, tokens: 7, ..Used::nothing(outcome) }
}

pub(crate) async fn days_become_invoices_whose_figures_are_the_records(backend: Shared) {
    let (place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await.id;
    store.add_price_plan(None, &plan("list", 0), 1).await.unwrap();
    let ledger = Arc::new(Ledger::open(&place.folder().join("ledger"), 1_000).unwrap());
    let mut books = Bookkeeper::new(Arc::clone(&ledger), store.clone());
    let other = TenantId::from_parts(9, [9; 10]);
    for (tenant, deployment, day, outcome, seconds) in [
        (acme, 1, 0, Outcome::Ok, 2),
        (acme, 1, 1, Outcome::Cached, 0),
        (acme, 1, 1, Outcome::Cancelled, 3),
        (acme, 2, 1, Outcome::Ok, 4),
        (acme, 2, 1, Outcome::Rejected, 0),
        (acme, 2, 1, Outcome::Interrupted, 100),
        (acme, 1, 2, Outcome::Ok, 1_000),
        (other, 1, 1, Outcome::Ok, 1_000),
    ] {
        let sequence = ledger.next_key().sequence;
        let at_ms = day * DAY_MS + 5;
        ledger
            .closed(sequence, None, &attempted(tenant, 1, deployment, at_ms), &used(outcome, seconds), at_ms)
            .unwrap();
    }
    books.carry().await.unwrap();
    let period = Period::days(0, 1).unwrap();
    let sums = store.day_sums(acme, period).await.unwrap();
    let billed = Billed { tenant: acme, tenant_name: "acme".to_owned(), organisation: None, organisation_name: None };
    let book = store.price_book(acme).await.unwrap();
    let invoice = Invoice::new(billed, period, &book, &sums).unwrap();
    let lines: Vec<_> = invoice
        .lines()
        .iter()
        .map(|line| (line.model.as_str(), line.meter, line.quantity.as_str(), line.cost.to_string()))
        .collect();
    let expected = [
        ("acme/1", Meter::DeviceCompute, "5", "5"),
        ("acme/1", Meter::Requests, "2", "1"),
        ("acme/2", Meter::DeviceCompute, "4", "12"),
        ("acme/2", Meter::Requests, "1", "0.5"),
    ];
    assert_eq!(lines, expected.map(|(model, meter, quantity, cost)| (model, meter, quantity, cost.to_owned())));
    assert_eq!(invoice.total().to_string(), "18.5");
}

pub(crate) async fn what_was_used_is_found_by_scope_and_period(backend: Shared) {
    const HOUR_MS: i64 = 60 * 60 * 1_000;
    let (place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await.id;
    store.add_price_plan(None, &plan("list", 0), 1).await.unwrap();
    let folder = place.folder().join("ledger");
    // Two starts of the node, in the second of which there are more records than a page has.
    for (start, count) in [(0_i64, 5_u64), (1, 1_300)] {
        let ledger = Arc::new(Ledger::open(&folder, DAY_MS + start * HOUR_MS).unwrap());
        let mut books = Bookkeeper::new(Arc::clone(&ledger), store.clone());
        for number in 0..count {
            let sequence = ledger.next_key().sequence;
            let at_ms = DAY_MS + start * HOUR_MS + i64::try_from(number).unwrap();
            let (key, deployment) = if number % 2 == 0 { (1, 1) } else { (2, 2) };
            ledger
                .closed(sequence, None, &attempted(acme, key, deployment, at_ms), &used(Outcome::Ok, 1), at_ms)
                .unwrap();
        }
        books.carry().await.unwrap();
    }
    let in_window = async |scope, start_ms, end_ms| {
        let found = store.used_in(acme, scope, Window { start_ms, end_ms }).await.unwrap();
        let UsedIn { amounts, is_complete } = found;
        assert!(is_complete);
        amounts
    };
    // The first deployment's seconds cost 1, the second's 3, and each request a half.
    let amounts = |first: u64, second: u64| Amounts {
        requests: first + second,
        device_ns: (first + second) * 1_000_000_001,
        tokens: (first + second) * 7,
        money_nano: first * 1_500_000_000 + second * 3_500_000_000,
    };
    let second = BudgetScope::Deployment(DeploymentId::from_parts(1, [2; 10]));
    let key = BudgetScope::Key(KeyId::from_parts(1, [1; 10]));
    assert_eq!(in_window(BudgetScope::Tenant, DAY_MS, 2 * DAY_MS).await, amounts(653, 652));
    assert_eq!(in_window(BudgetScope::Tenant, 0, DAY_MS).await, Amounts::ZERO);
    assert_eq!(in_window(second, DAY_MS, 2 * DAY_MS).await, amounts(0, 652));
    assert_eq!(in_window(key, DAY_MS, 2 * DAY_MS).await, amounts(653, 0));
    assert_eq!(in_window(BudgetScope::Tenant, DAY_MS, DAY_MS + HOUR_MS).await, amounts(3, 2));
    assert_eq!(in_window(second, DAY_MS + HOUR_MS, DAY_MS + 2 * HOUR_MS).await, amounts(0, 650));
    assert_eq!(in_window(key, DAY_MS + 2 * HOUR_MS, DAY_MS + 3 * HOUR_MS).await, Amounts::ZERO);
    let nobody = store.used_in(TenantId::from_parts(1, [0; 10]), key, Window { start_ms: 0, end_ms: 1 }).await.unwrap();
    assert_eq!(nobody, UsedIn { amounts: Amounts::ZERO, is_complete: true });
}
