use tenantry_bill::{BudgetLimit, Enforcement, Meter, Price, PricePlan, Unit};
use tenantry_types::KeyId;

use super::*;

const NOW_MS: i64 = 1_796_000_000_000;

fn subject() -> Subject {
    Subject { deployment: None, key: Some(KeyId::from_parts(1, [1; 10])) }
}

fn limit(meter: BudgetMeter, period: BudgetPeriod, amount: u64) -> BudgetLimit {
    BudgetLimit {
        key: LimitKey { scope: BudgetScope::Tenant, meter, period },
        amount,
        enforcement: Enforcement::Hard,
        currency: (meter == BudgetMeter::Money).then(eur),
        thresholds_percent: vec![50, 100],
        platform: true,
    }
}

fn eur() -> Currency {
    "EUR".parse().unwrap()
}

fn budget(limits: Vec<BudgetLimit>) -> (Arc<TenantBudget>, Arc<Untold>) {
    let untold = Arc::new(Untold::default());
    let budget = TenantBudget::new(TenantId::from_parts(1, [0; 10]), &untold);
    budget.budgets.lock().set_limits(limits).unwrap();
    (Arc::new(budget), untold)
}

fn one_request() -> Quantities {
    Quantities { requests: 1, compute_ns: 1, ..Quantities::default() }
}

fn hold(budget: &Arc<TenantBudget>, estimate: &Quantities) -> Result<Held, Refused> {
    budget.hold(NOW_MS, &subject(), ShareTier::Burstable, estimate)
}

fn used(compute_ns: u64) -> Used {
    let mut used = Used::nothing(Outcome::Ok);
    used.device.compute_ns = compute_ns;
    used
}

#[test]
fn what_is_dropped_gives_back_and_what_is_settled_stays() {
    let (budget, untold) = budget(vec![limit(BudgetMeter::Requests, BudgetPeriod::Month, 2)]);
    let (first, second) = (hold(&budget, &one_request()).unwrap(), hold(&budget, &one_request()).unwrap());
    let refused = hold(&budget, &one_request()).unwrap_err();
    assert_eq!(refused.cause, RefusedFor::Running);
    drop(first);
    assert_eq!(budget.left(NOW_MS, &subject()).unwrap().nearest.remaining, 1);
    second.settle(UsageKind::Inference, Outcome::Ok, &used(7));
    // One that was refused by something else is no request.
    hold(&budget, &one_request()).unwrap().settle(UsageKind::Inference, Outcome::Rejected, &used(0));
    hold(&budget, &one_request()).unwrap().settle(UsageKind::Inference, Outcome::Cached, &used(0));
    let refused = hold(&budget, &one_request()).unwrap_err();
    assert_eq!((refused.cause, refused.used, refused.reserved), (RefusedFor::UsedUp, 2, 0));
    let told: Vec<u16> = untold.reached.lock().iter().map(|(_, crossed)| crossed.percent).collect();
    assert_eq!(told, [50, 100]);
}

#[test]
fn loads_are_counted_and_never_refused() {
    let (budget, _) = budget(vec![limit(BudgetMeter::DeviceTime, BudgetPeriod::Day, 10)]);
    let load = hold(&budget, &Quantities::default()).unwrap();
    let mut loaded = Used::nothing(Outcome::Ok);
    loaded.device.load_ns = 50;
    load.settle(UsageKind::Load, Outcome::Ok, &loaded);
    assert_eq!(hold(&budget, &one_request()).unwrap_err().cause, RefusedFor::UsedUp);
    assert!(hold(&budget, &Quantities::default()).is_ok());
}

#[test]
fn money_is_counted_by_the_plan_in_force_in_the_limits_currency() {
    let (budget, _) = budget(vec![limit(BudgetMeter::Money, BudgetPeriod::Month, 1_000)]);
    // Without a plan nothing costs anything, and nothing is refused.
    assert!(hold(&budget, &one_request()).is_ok());
    let price = Price::new(Meter::DeviceCompute, None, None, "0.36", Unit::Hour).unwrap();
    let plan = |currency: &str| PricePlan::new("p", currency.parse().unwrap(), 0, None, vec![price]).unwrap();
    let book = |plan| PriceBook::new(Vec::new(), vec![plan]).unwrap();
    let put = |plan| budget.priced.store(Some(Arc::new(Priced { currency: eur(), prices: book(plan) })));
    put(plan("USD"));
    assert!(budget.rates(NOW_MS, ShareTier::Burstable).is_none());
    put(plan("EUR"));
    // 10 ms at 0.36 an hour are 1000 nanos.
    hold(&budget, &one_request()).unwrap().settle(UsageKind::Inference, Outcome::Ok, &used(9_999_990));
    let left = budget.left(NOW_MS, &subject()).unwrap();
    assert_eq!((left.nearest.meter, left.nearest.remaining, left.tokens), (BudgetMeter::Money, 0, None));
    assert_eq!(hold(&budget, &one_request()).unwrap_err().cause, RefusedFor::UsedUp);
}

#[test]
fn a_refusal_says_which_budget_it_was_and_when_it_gives_way() {
    let refused = |cause| Refused {
        key: limit(BudgetMeter::DeviceTime, BudgetPeriod::Hour, 1).key,
        cause,
        limit: 1,
        used: 1,
        reserved: 0,
        estimate: 1,
        reset_at_ms: NOW_MS + 5_000,
    };
    let errors =
        [RefusedFor::UsedUp, RefusedFor::Running, RefusedFor::TooLarge].map(|cause| refusal(&refused(cause), NOW_MS));
    assert!(errors.iter().all(|error| error.code == ErrorCode::ResourceExhausted));
    assert!(errors.iter().all(|error| error.reason == Some("budget_device_time")));
    let after = errors.each_ref().map(|error| error.retry_after);
    assert_eq!(after, [Some(Duration::from_secs(5)), Some(RUNNING_RETRY), None]);
    let [used_up, ..] = &errors;
    assert!(used_up.message.contains("this tenant's budget of device time for the hour is used up"), "{used_up}");
}
