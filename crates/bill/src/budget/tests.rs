use proptest::prelude::*;

use super::*;
use crate::period::DAY_MS;

const HOUR_MS: i64 = 3_600_000;

fn limit(scope: BudgetScope, meter: BudgetMeter, period: BudgetPeriod, amount: u64) -> BudgetLimit {
    BudgetLimit {
        key: LimitKey { scope, meter, period },
        amount,
        enforcement: Enforcement::Hard,
        currency: (meter == BudgetMeter::Money).then(|| "EUR".parse().unwrap()),
        thresholds_percent: default_thresholds(),
        platform: false,
    }
}

fn requests(amount: u64) -> BudgetLimit {
    limit(BudgetScope::Tenant, BudgetMeter::Requests, BudgetPeriod::Day, amount)
}

fn device(amount: u64) -> BudgetLimit {
    limit(BudgetScope::Tenant, BudgetMeter::DeviceTime, BudgetPeriod::Hour, amount)
}

fn budgets(limits: Vec<BudgetLimit>) -> Budgets {
    let mut budgets = Budgets::new();
    budgets.set_limits(limits).unwrap();
    budgets
}

const ANY: Subject = Subject { deployment: None, key: None };

const fn amounts(requests: u64, device_ns: u64) -> Amounts {
    Amounts { requests, device_ns, tokens: 0, money_nano: 0 }
}

fn percents(crossed: &[Crossed]) -> Vec<u16> {
    crossed.iter().map(|crossed| crossed.percent).collect()
}

#[test]
fn a_refusal_says_why_and_until_when() {
    let mut budgets = budgets(vec![requests(10), device(100)]);
    let first = budgets.reserve(5, &ANY, amounts(1, 60)).unwrap();
    let refused = budgets.reserve(6, &ANY, amounts(1, 50)).unwrap_err();
    assert_eq!(
        refused,
        Refused {
            key: device(0).key,
            cause: RefusedFor::Running,
            limit: 100,
            used: 0,
            reserved: 60,
            estimate: 50,
            reset_at_ms: HOUR_MS,
        }
    );
    assert_eq!(refused.to_string(), "the device_time limit of the hour is reached");
    // It used less than it had reserved: now there is room.
    assert_eq!(percents(&budgets.settle(first, amounts(1, 50))), [50]);
    let second = budgets.reserve(7, &ANY, amounts(1, 50)).unwrap();
    // It used more: the overrun is what it used beyond its estimate.
    assert_eq!(percents(&budgets.settle(second, amounts(1, 70))), [80, 100]);
    let refused = budgets.reserve(8, &ANY, amounts(1, 1)).unwrap_err();
    assert_eq!((refused.cause, refused.used), (RefusedFor::UsedUp, 120));
    let refused = budgets.reserve(8, &ANY, amounts(1, 101)).unwrap_err();
    assert_eq!(refused.cause, RefusedFor::TooLarge);
    // What uses none of it is not held up by it.
    let third = budgets.reserve(8, &ANY, amounts(1, 0)).unwrap();
    budgets.release(third);
    let left = budgets.nearest(9, &ANY, BudgetMeter::Requests).1.unwrap();
    assert_eq!((left.used, left.remaining, left.reset_at_ms), (2, 8, DAY_MS));
    // The next hour is a new one, of the same day.
    let fourth = budgets.reserve(HOUR_MS, &ANY, amounts(1, 100)).unwrap();
    budgets.release(fourth);
}

#[test]
fn the_limit_that_stands_longest_in_the_way_is_named() {
    let month = limit(BudgetScope::Tenant, BudgetMeter::Requests, BudgetPeriod::Month, 1);
    let mut budgets = budgets(vec![requests(1), month.clone()]);
    let first = budgets.reserve(0, &ANY, amounts(1, 0)).unwrap();
    assert_eq!(budgets.reserve(0, &ANY, amounts(1, 0)).unwrap_err().cause, RefusedFor::Running);
    let _ = budgets.settle(first, amounts(1, 0));
    let refused = budgets.reserve(0, &ANY, amounts(1, 0)).unwrap_err();
    assert_eq!((refused.key, refused.cause, refused.reset_at_ms), (month.key, RefusedFor::UsedUp, 31 * DAY_MS));
}

#[test]
fn a_soft_limit_does_not_hold_reservations_against_anybody() {
    let mut budgets = budgets(vec![BudgetLimit { enforcement: Enforcement::Soft, ..device(100) }]);
    let first = budgets.reserve(0, &ANY, amounts(1, 80)).unwrap();
    let second = budgets.reserve(0, &ANY, amounts(1, 80)).unwrap();
    let _ = budgets.settle(first, amounts(1, 80));
    assert_eq!(budgets.reserve(0, &ANY, amounts(1, 21)).unwrap_err().cause, RefusedFor::UsedUp);
    let _ = budgets.settle(second, amounts(1, 80));
    assert_eq!(budgets.remaining(0, &ANY).first().map(|left| (left.used, left.remaining)), Some((160, 0)));
}

#[test]
fn what_is_only_watched_never_refuses() {
    let watch = BudgetLimit { enforcement: Enforcement::Watch, thresholds_percent: vec![100, 200], ..requests(1) };
    let mut budgets = budgets(vec![watch]);
    let mut told = Vec::new();
    for _ in 0..3 {
        let reservation = budgets.reserve(0, &ANY, amounts(1, 0)).unwrap();
        told.extend(percents(&budgets.settle(reservation, amounts(1, 0))));
    }
    assert_eq!(told, [100, 200]);
    assert_eq!(budgets.nearest(0, &ANY, BudgetMeter::Requests).1, None, "it limits nothing");
}

#[test]
fn a_period_pays_for_what_began_in_it() {
    let mut budgets = budgets(vec![device(100)]);
    let before = budgets.reserve(HOUR_MS - 1, &ANY, amounts(1, 90)).unwrap();
    let after = budgets.reserve(HOUR_MS, &ANY, amounts(1, 90)).unwrap();
    let crossed = budgets.settle(before, amounts(1, 95));
    assert_eq!(
        crossed.iter().map(|crossed| (crossed.window_ms, crossed.percent)).collect::<Vec<_>>(),
        [(0, 50), (0, 80)]
    );
    let left = |budgets: &Budgets, at| budgets.remaining(at, &ANY).first().map(|left| (left.used, left.reserved));
    assert_eq!(left(&budgets, HOUR_MS), Some((0, 90)));
    // The past hour is forgotten, and a clock that goes back does not open it again.
    assert_eq!(left(&budgets, 0), Some((0, 90)));
    assert_eq!(budgets.reserve(0, &ANY, amounts(1, 20)).unwrap_err().reset_at_ms, 2 * HOUR_MS);
    let crossed = budgets.settle(after, amounts(1, 50));
    assert_eq!(crossed.iter().map(|crossed| (crossed.window_ms, crossed.percent)).collect::<Vec<_>>(), [(HOUR_MS, 50)]);
    // Nobody has asked in the third hour: it is new all the same.
    assert_eq!(left(&budgets, 2 * HOUR_MS), Some((0, 0)));
}

#[test]
fn what_is_debited_is_used_at_once_and_counted_once() {
    let mut budgets = budgets(vec![device(100)]);
    let mut reservation = budgets.reserve(0, &ANY, amounts(1, 40)).unwrap();
    let left = |budgets: &Budgets| budgets.remaining(0, &ANY).first().map(|left| (left.used, left.reserved));
    assert!(budgets.debit(&mut reservation, amounts(0, 30)).is_empty());
    assert_eq!(left(&budgets), Some((30, 10)));
    assert_eq!(percents(&budgets.debit(&mut reservation, amounts(0, 30))), [50]);
    assert_eq!(left(&budgets), Some((60, 0)));
    assert!(budgets.settle(reservation, amounts(1, 55)).is_empty());
    assert_eq!(left(&budgets), Some((55, 0)), "the truth, also when it is less");
    let mut reservation = budgets.reserve(0, &ANY, amounts(1, 40)).unwrap();
    let _ = budgets.debit(&mut reservation, amounts(0, 5));
    budgets.release(reservation);
    assert_eq!(left(&budgets), Some((60, 0)));
}

#[test]
fn deployments_and_keys_have_limits_of_their_own() {
    let deployment = DeploymentId::from_parts(1, [1; 10]);
    let key = KeyId::from_parts(2, [2; 10]);
    let of = |scope, amount| limit(scope, BudgetMeter::Requests, BudgetPeriod::Day, amount);
    let mut budgets =
        budgets(vec![requests(10), of(BudgetScope::Deployment(deployment), 2), of(BudgetScope::Key(key), 1)]);
    let to = |deployment, key| Subject { deployment, key };
    let _ = budgets.reserve(0, &to(Some(deployment), Some(key)), amounts(1, 0)).unwrap();
    let refused = budgets.reserve(0, &to(None, Some(key)), amounts(1, 0)).unwrap_err();
    assert_eq!(refused.key.scope, BudgetScope::Key(key));
    let _ = budgets.reserve(0, &to(Some(deployment), None), amounts(1, 0)).unwrap();
    let refused = budgets.reserve(0, &to(Some(deployment), None), amounts(1, 0)).unwrap_err();
    assert_eq!(refused.key.scope, BudgetScope::Deployment(deployment));
    let left: Vec<_> =
        budgets.remaining(0, &to(Some(deployment), Some(key))).iter().map(|left| left.remaining).collect();
    assert_eq!(left, [8, 0, 0], "a refusal reserves nothing anywhere");
}

#[test]
fn a_restart_takes_over_the_ledger_and_tells_nothing_twice() {
    let mut budgets = budgets(vec![device(100)]);
    let key = device(0).key;
    assert_eq!(percents(&budgets.restore(7, key, 85, 50)), [80], "the other was told before");
    assert_eq!(budgets.reserve(8, &ANY, amounts(1, 20)).unwrap_err().cause, RefusedFor::UsedUp);
    let reservation = budgets.reserve(8, &ANY, amounts(1, 15)).unwrap();
    assert_eq!(percents(&budgets.settle(reservation, amounts(1, 15))), [100]);
    let gone = limit(BudgetScope::Tenant, BudgetMeter::Tokens, BudgetPeriod::Hour, 1).key;
    assert!(budgets.restore(7, gone, 9, 0).is_empty());
}

#[test]
fn limits_change_while_requests_run() {
    let mut budgets = budgets(vec![device(100)]);
    let first = budgets.reserve(0, &ANY, amounts(1, 60)).unwrap();
    assert_eq!(budgets.set_limits(vec![device(50), requests(1)]), Ok(vec![requests(0).key]));
    assert_eq!(budgets.reserve(0, &ANY, amounts(1, 10)).unwrap_err().cause, RefusedFor::Running);
    budgets.set_limits(Vec::new()).unwrap();
    let second = budgets.reserve(0, &ANY, amounts(1, 1_000)).unwrap();
    assert!(second.is_empty());
    assert_eq!(budgets.set_limits(vec![device(100)]), Ok(vec![device(0).key]));
    let third = budgets.reserve(0, &ANY, amounts(1, 30)).unwrap();
    // The first one's reservation was another limit's; what it used is counted here, what it reserved is not given back here.
    let _ = budgets.settle(first, amounts(1, 40));
    budgets.release(second);
    let left = budgets.remaining(0, &ANY);
    assert_eq!(left.first().map(|left| (left.used, left.reserved)), Some((40, 30)));
    budgets.release(third);
}

#[test]
fn the_nearest_limit_is_the_one_with_the_least_left_in_proportion() {
    let mut budgets = budgets(vec![requests(10), device(1_000)]);
    let held = budgets.reserve(0, &ANY, amounts(1, 1)).unwrap();
    let _ = budgets.settle(held, amounts(2, 500));
    assert_eq!(
        budgets.nearest(0, &ANY, BudgetMeter::Money).0.map(|left| left.key.meter),
        Some(BudgetMeter::DeviceTime)
    );
    assert_eq!(
        budgets.all(0).map(|(limit, left)| (limit.amount, left.remaining)).collect::<Vec<_>>(),
        [(10, 8), (1_000, 500)]
    );
    let watched = BudgetLimit { enforcement: Enforcement::Watch, ..device(1_000) };
    assert_eq!(budgets.set_limits(vec![requests(10), watched]), Ok(Vec::new()));
    assert_eq!(budgets.nearest(0, &ANY, BudgetMeter::Money).0.map(|left| left.key.meter), Some(BudgetMeter::Requests));
}

#[test]
fn limits_have_names() {
    let key = KeyId::from_parts(1, [2; 10]);
    let deployment = DeploymentId::from_parts(1, [2; 10]);
    for scope in [BudgetScope::Tenant, BudgetScope::Key(key), BudgetScope::Deployment(deployment)] {
        let named = limit(scope, BudgetMeter::DeviceTime, BudgetPeriod::Month, 1).key;
        assert_eq!(named.to_string().parse(), Ok(named));
    }
    for wrong in ["", "requests", "requests.", "requests.year", "request.day", "requests.day.", "requests.day.ten_1"] {
        assert_eq!(wrong.parse::<LimitKey>(), Err(UnknownLimit), "{wrong}");
    }
}

#[test]
fn limits_are_checked() {
    let mut budgets = Budgets::new();
    let wrong = |limit: BudgetLimit| limit.check().is_err();
    assert!(wrong(BudgetLimit { currency: Some("EUR".parse().unwrap()), ..requests(1) }));
    assert!(wrong(BudgetLimit {
        currency: None,
        ..limit(BudgetScope::Tenant, BudgetMeter::Money, BudgetPeriod::Day, 1)
    }));
    for thresholds in [vec![0], vec![50, 50], vec![80, 50], vec![1_001], (1..=9).collect()] {
        assert!(wrong(BudgetLimit { thresholds_percent: thresholds, ..requests(1) }));
    }
    assert_eq!(budgets.set_limits(vec![requests(1), requests(2)]), Err(LimitError::Two(requests(1).key)));
    assert!(budgets.is_empty());
    let many = (0..=MAX_LIMITS as u64).map(|n| {
        let scope = BudgetScope::Key(KeyId::from_parts(n, [0; 10]));
        limit(scope, BudgetMeter::Requests, BudgetPeriod::Day, 1)
    });
    assert_eq!(budgets.set_limits(many.collect()), Err(LimitError::TooMany));
}

#[test]
fn limits_are_read_as_they_are_written() {
    let text = r#"{"scope":"tenant","meter":"money","period":"month","amount":5,"enforcement":"soft","currency":"EUR","thresholds_percent":[90]}"#;
    let read: BudgetLimit = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
    let key = KeyId::from_parts(2, [2; 10]);
    let text = format!(r#"{{"scope":{{"key":"{key}"}},"meter":"requests","period":"hour","amount":5}}"#);
    let read: BudgetLimit = serde_json::from_str(&text).unwrap();
    assert_eq!(read, limit(BudgetScope::Key(key), BudgetMeter::Requests, BudgetPeriod::Hour, 5));
}

/// What may happen to budgets.
#[derive(Debug, Clone)]
enum Step {
    /// The clock goes on, or back.
    Wait(i64),
    Reserve {
        subject: usize,
        estimate: Amounts,
    },
    Debit {
        which: prop::sample::Index,
        used: Amounts,
    },
    Settle {
        which: prop::sample::Index,
        actual: Amounts,
    },
    Release {
        which: prop::sample::Index,
    },
    SetAmount {
        which: prop::sample::Index,
        amount: u64,
    },
}

fn subjects() -> [Subject; 4] {
    let deployment = Some(DeploymentId::from_parts(1, [1; 10]));
    let key = Some(KeyId::from_parts(2, [2; 10]));
    [ANY, Subject { deployment, key: None }, Subject { deployment: None, key }, Subject { deployment, key }]
}

fn any_amounts() -> impl Strategy<Value = Amounts> {
    let amount = || prop_oneof![3 => 1..40u64, 1 => Just(0), 1 => 0..200u64];
    (amount(), amount(), amount(), amount()).prop_map(|(requests, device_ns, tokens, money_nano)| Amounts {
        requests,
        device_ns,
        tokens,
        money_nano,
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = any::<prop::sample::Index>;
    let step = prop_oneof![
        2 => prop_oneof![Just(HOUR_MS / 3), Just(HOUR_MS), Just(DAY_MS), Just(-HOUR_MS), Just(31 * DAY_MS)].prop_map(Step::Wait),
        6 => (0..4usize, any_amounts()).prop_map(|(subject, estimate)| Step::Reserve { subject, estimate }),
        2 => (index(), any_amounts()).prop_map(|(which, used)| Step::Debit { which, used }),
        5 => (index(), any_amounts()).prop_map(|(which, actual)| Step::Settle { which, actual }),
        1 => index().prop_map(|which| Step::Release { which }),
        1 => (index(), 0..300u64).prop_map(|(which, amount)| Step::SetAmount { which, amount }),
    ];
    prop::collection::vec(step, 1..120)
}

fn any_limits() -> impl Strategy<Value = Vec<BudgetLimit>> {
    let scopes = vec![
        BudgetScope::Tenant,
        BudgetScope::Deployment(DeploymentId::from_parts(1, [1; 10])),
        BudgetScope::Key(KeyId::from_parts(2, [2; 10])),
    ];
    let key = (
        prop::sample::select(scopes),
        prop::sample::select(BudgetMeter::ALL.to_vec()),
        prop::sample::select(BudgetPeriod::ALL.to_vec()),
    );
    let enforcement =
        prop::sample::select(vec![Enforcement::Hard, Enforcement::Hard, Enforcement::Soft, Enforcement::Watch]);
    prop::collection::btree_map(key, (0..300u64, enforcement), 1..6).prop_map(|limits| {
        let made = |((scope, meter, period), (amount, enforcement))| BudgetLimit {
            enforcement,
            ..limit(scope, meter, period, amount)
        };
        limits.into_iter().map(made).collect()
    })
}

/// One attempt, as a plain account has it: in which windows, what it reserved, what was debited.
struct Attempt {
    reservation: Reservation,
    windows: Vec<(LimitKey, i64)>,
    estimate: Amounts,
    debited: Amounts,
}

/// What was used, by limit and window.
type Truth = BTreeMap<(LimitKey, i64), u128>;

/// The account: it keeps every attempt and adds up anew each time.
struct Account {
    budgets: Budgets,
    now_ms: i64,
    latest: BTreeMap<LimitKey, i64>,
    used: Truth,
    running: Vec<Attempt>,
    told: Vec<Crossed>,
}

impl Account {
    fn window(&mut self, key: LimitKey) -> i64 {
        let start_ms = key.period.window(self.now_ms).start_ms;
        let latest = self.latest.entry(key).or_insert(start_ms);
        *latest = (*latest).max(start_ms);
        *latest
    }

    fn applying(&self, subject: &Subject) -> Vec<BudgetLimit> {
        let scopes: Vec<BudgetScope> = subject.scopes().collect();
        self.budgets.limits().filter(|limit| scopes.contains(&limit.key.scope)).cloned().collect()
    }

    fn reserved(&self, at: (LimitKey, i64)) -> u128 {
        let meter = at.0.meter;
        let here = self.running.iter().filter(|attempt| attempt.windows.contains(&at));
        here.map(|attempt| u128::from(attempt.estimate.get(meter).saturating_sub(attempt.debited.get(meter)))).sum()
    }

    fn used(&self, at: (LimitKey, i64)) -> u128 {
        self.used.get(&at).copied().unwrap_or(0)
    }

    fn add(&mut self, windows: &[(LimitKey, i64)], amounts: impl Fn(BudgetMeter) -> i128) {
        for at in windows {
            let used = self.used.entry(*at).or_default();
            *used = used.saturating_add_signed(amounts(at.0.meter));
        }
    }

    fn reserve(&mut self, subject: &Subject, estimate: Amounts) -> Result<(), TestCaseError> {
        let limits = self.applying(subject);
        let windows: Vec<(LimitKey, i64)> = limits.iter().map(|limit| (limit.key, self.window(limit.key))).collect();
        let there: BTreeMap<LimitKey, (u128, u128)> =
            windows.iter().map(|at| (at.0, (self.used(*at), self.reserved(*at)))).collect();
        let fits = |limit: &BudgetLimit, beside_running: bool| {
            let (used, reserved) = there[&limit.key];
            let estimate = u128::from(estimate.get(limit.key.meter));
            let taken = if beside_running { used + reserved } else { used };
            estimate == 0 || taken + estimate <= u128::from(limit.amount)
        };
        match self.budgets.reserve(self.now_ms, subject, estimate) {
            Ok(reservation) => {
                for limit in &limits {
                    match limit.enforcement {
                        Enforcement::Hard => prop_assert!(fits(limit, true)),
                        Enforcement::Soft => prop_assert!(fits(limit, false)),
                        Enforcement::Watch => {}
                    }
                }
                self.running.push(Attempt { reservation, windows, estimate, debited: Amounts::ZERO });
            }
            Err(refused) => {
                // No false refusal: the limit it names has no room.
                let limit = limits.iter().find(|limit| limit.key == refused.key).unwrap();
                prop_assert!(!fits(limit, true));
                prop_assert_eq!(refused.cause == RefusedFor::Running, fits(limit, false));
                prop_assert!(limit.enforcement != Enforcement::Watch);
            }
        }
        Ok(())
    }

    fn end(&mut self, which: usize, actual: Option<Amounts>) {
        let attempt = self.running.swap_remove(which);
        match actual {
            Some(actual) => {
                let debited = attempt.debited;
                self.add(&attempt.windows, |meter| i128::from(actual.get(meter)) - i128::from(debited.get(meter)));
                let told = self.budgets.settle(attempt.reservation, actual);
                self.told.extend(told);
            }
            None => self.budgets.release(attempt.reservation),
        }
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        let count = self.running.len();
        match step {
            Step::Wait(time) => self.now_ms += time,
            Step::Reserve { subject, estimate } => self.reserve(&subjects()[subject], estimate)?,
            Step::SetAmount { which, amount } => {
                let mut limits: Vec<BudgetLimit> = self.budgets.limits().cloned().collect();
                let changed = which.index(limits.len());
                limits[changed].amount = amount;
                prop_assert_eq!(self.budgets.set_limits(limits), Ok(Vec::new()));
            }
            _ if count == 0 => {}
            Step::Debit { which, used } => {
                let which = which.index(count);
                let windows = self.running[which].windows.clone();
                self.add(&windows, |meter| i128::from(used.get(meter)));
                let attempt = &mut self.running[which];
                attempt.debited = attempt.debited.each(used, u64::saturating_add);
                let told = self.budgets.debit(&mut attempt.reservation, used);
                self.told.extend(told);
            }
            Step::Settle { which, actual } => self.end(which.index(count), Some(actual)),
            Step::Release { which } => self.end(which.index(count), None),
        }
        Ok(())
    }

    /// What the budgets say is what the account says.
    fn compare(&mut self) -> Result<(), TestCaseError> {
        for subject in subjects() {
            for left in self.budgets.remaining(self.now_ms, &subject) {
                let start_ms = left.key.period.window(self.now_ms).start_ms;
                let window = self.latest.get(&left.key).map_or(start_ms, |latest| (*latest).max(start_ms));
                let at = (left.key, window);
                prop_assert_eq!(u128::from(left.used), self.used(at));
                prop_assert_eq!(u128::from(left.reserved), self.reserved(at));
                let used = left.used.saturating_add(left.reserved);
                prop_assert_eq!(left.remaining, left.limit.saturating_sub(used));
            }
        }
        // Windows do not pile up.
        for counter in self.budgets.counters.values() {
            prop_assert!(counter.windows.len() <= 1 + self.running.len());
        }
        let mut told: Vec<_> =
            self.told.iter().map(|crossed| (crossed.key, crossed.window_ms, crossed.percent)).collect();
        let all = told.len();
        told.sort_unstable();
        told.dedup();
        prop_assert_eq!(told.len(), all, "told twice");
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn budgets_agree_with_a_plain_account(limits in any_limits(), steps in steps()) {
        let mut account = Account {
            budgets: budgets(limits),
            now_ms: 1_700_000_000_000,
            latest: BTreeMap::new(),
            used: Truth::new(),
            running: Vec::new(),
            told: Vec::new(),
        };
        for step in steps {
            account.step(step)?;
            account.compare()?;
        }
    }

    #[test]
    fn a_limit_is_passed_by_what_runs_at_most(
        enforcement in prop::sample::select(vec![Enforcement::Hard, Enforcement::Soft]),
        amount in 1..400u64,
        attempts in prop::collection::vec((1..60u64, 0..120u64, any::<prop::sample::Index>()), 1..200),
        most_running in 1..6usize,
    ) {
        let mut budgets = budgets(vec![BudgetLimit { enforcement, ..device(amount) }]);
        let mut running: Vec<(Reservation, u64, u64)> = Vec::new();
        let mut bound = 0u64;
        for (estimate, actual, which) in attempts {
            if running.len() == most_running {
                let (reservation, _, actual) = running.swap_remove(which.index(running.len()));
                let _ = budgets.settle(reservation, amounts(0, actual));
            }
            if let Ok(reservation) = budgets.reserve(0, &ANY, amounts(0, estimate)) {
                running.push((reservation, estimate, actual));
                // What may come on top of the limit is decided when something last begins.
                bound = running
                    .iter()
                    .map(|(_, estimate, actual)| match enforcement {
                        Enforcement::Hard => actual.saturating_sub(*estimate),
                        _ => *actual,
                    })
                    .sum();
            }
        }
        for (reservation, _, actual) in running {
            let _ = budgets.settle(reservation, amounts(0, actual));
        }
        let used = budgets.remaining(0, &ANY)[0].used;
        prop_assert!(used <= amount + bound, "{used} of {amount}, bound {bound}");
    }

    #[test]
    fn thresholds_are_told_once_in_order(
        amount in 1..500u64,
        uses in prop::collection::vec((1..50u64, 0..3i64), 1..100),
        thresholds in prop::collection::btree_set(1..300u16, 0..8),
    ) {
        let thresholds: Vec<u16> = thresholds.into_iter().collect();
        let watch = BudgetLimit { enforcement: Enforcement::Watch, thresholds_percent: thresholds.clone(), ..device(amount) };
        let mut budgets = budgets(vec![watch]);
        let (mut now_ms, mut told, mut used) = (0, Vec::new(), BTreeMap::<i64, u64>::new());
        for (actual, wait) in uses {
            now_ms += wait * HOUR_MS / 4;
            let reservation = budgets.reserve(now_ms, &ANY, amounts(0, 1)).unwrap();
            *used.entry(now_ms - now_ms % HOUR_MS).or_default() += actual;
            let crossed = budgets.settle(reservation, amounts(0, actual));
            told.extend(crossed.iter().map(|crossed| (crossed.window_ms, crossed.percent)));
        }
        let expected: Vec<(i64, u16)> = used
            .iter()
            .flat_map(|(window, used)| {
                let reached = move |percent: &&u16| used * 100 >= amount * u64::from(**percent);
                thresholds.iter().filter(reached).map(|percent| (*window, *percent))
            })
            .collect();
        prop_assert_eq!(told, expected);
    }
}
