use std::sync::Barrier;

use super::*;

struct Setup {
    tenant: Arc<TenantGate>,
    narrow: NarrowGates,
    server: Arc<ServerLoad>,
    limits: Limits,
}

impl Setup {
    fn new(change: impl FnOnce(&mut Limits)) -> Self {
        Self::with(change, &ShareSettings::default())
    }

    fn with(change: impl FnOnce(&mut Limits), settings: &ShareSettings) -> Self {
        let mut limits = Limits::defaults();
        change(&mut limits);
        let tenant = Arc::new(TenantGate::new(settings, &limits, Arc::default()));
        Self { tenant, narrow: NarrowGates::new(), server: Arc::default(), limits }
    }

    fn take(&self, content_length: Option<u64>) -> Result<Permit, ServiceError> {
        self.take_at(content_length, 0)
    }

    fn take_at(&self, content_length: Option<u64>, now_ms: u64) -> Result<Permit, ServiceError> {
        let now = MonotonicTime::from_nanos(now_ms * 1_000_000);
        Permit::take(&self.tenant, self.narrow.clone(), &self.server, self.limits.max_bodies_bytes, content_length, now)
    }

    fn is_empty(&self) -> bool {
        self.tenant.load.requests() == 0
            && self.narrow.iter().all(|gate| gate.load.requests.load(Ordering::Relaxed) == 0)
            && self.tenant.load.body_bytes.load(Ordering::Relaxed) == 0
            && self.server.body_bytes.load(Ordering::Relaxed) == 0
    }
}

#[test]
fn a_body_larger_than_the_limit_is_refused_before_it_is_counted() {
    let setup = Setup::new(|limits| limits.max_body_bytes = 100);
    assert_eq!(setup.take(Some(101)).unwrap_err().code, ErrorCode::TooLarge);
    assert_eq!(setup.take(Some(u64::MAX)).unwrap_err().code, ErrorCode::TooLarge);
    assert!(setup.is_empty());
    assert!(setup.take(Some(100)).is_ok());
}

#[test]
fn a_body_of_unknown_length_counts_as_it_comes() {
    let setup = Setup::new(|limits| limits.max_body_bytes = 100);
    let mut permit = setup.take(None).unwrap();
    permit.grow(60).unwrap();
    permit.grow(40).unwrap();
    assert_eq!(permit.grow(1).unwrap_err().code, ErrorCode::TooLarge);
    assert_eq!(permit.grow(u64::MAX).unwrap_err().code, ErrorCode::TooLarge);
    drop(permit);
    assert!(setup.is_empty());
}

#[test]
fn own_limits_are_429_and_the_servers_is_503_and_both_say_when_to_try_again() {
    let setup = Setup::new(|limits| {
        limits.tenant_max_bodies_bytes = 100;
        limits.max_bodies_bytes = 150;
        limits.tenant_max_requests = 3;
    });
    let first = setup.take(Some(60)).unwrap();
    let refused = setup.take(Some(60)).unwrap_err();
    assert_eq!(refused.code, ErrorCode::ResourceExhausted);
    assert!(refused.retry_after.is_some());
    let other = Setup { server: Arc::clone(&setup.server), ..Setup::new(|limits| limits.max_bodies_bytes = 150) };
    let refused = other.take(Some(91)).unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unavailable);
    assert!(refused.retry_after.is_some());
    assert_eq!(other.tenant.load.body_bytes.load(Ordering::Relaxed), 0, "a refusal gives back what it took");
    let second = setup.take(Some(0)).unwrap();
    let third = setup.take(Some(0)).unwrap();
    assert_eq!(setup.take(Some(0)).unwrap_err().code, ErrorCode::ResourceExhausted);
    drop((first, second, third));
    assert!(setup.is_empty());
}

#[test]
fn the_hint_follows_how_long_requests_take() {
    let setup = Setup::new(|limits| limits.tenant_max_requests = 2);
    let held = [setup.take(None).unwrap(), setup.take(None).unwrap()];
    assert_eq!(setup.take(None).unwrap_err().retry_after, Some(FIRST_GUESS / 2));
    setup.tenant.load.took(Duration::from_secs(8));
    assert_eq!(setup.take(None).unwrap_err().retry_after, Some(Duration::from_secs(4)));
    for _ in 0..200 {
        setup.tenant.load.took(Duration::from_nanos(10));
    }
    assert_eq!(setup.take(None).unwrap_err().retry_after, Some(MIN_RETRY));
    drop(held);
}

#[test]
fn limits_hold_under_concurrency_and_everything_comes_back() {
    const THREADS: usize = 8;
    let setup = Setup::new(|limits| {
        limits.tenant_max_requests = 5;
        limits.tenant_max_bodies_bytes = 40;
    });
    let barrier = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                barrier.wait();
                for round in 0..2_000_u64 {
                    let permit = setup.take(Some(round % 17));
                    assert!(setup.tenant.load.requests() <= 5);
                    assert!(setup.tenant.load.body_bytes.load(Ordering::Relaxed) <= 40);
                    drop(permit);
                }
            });
        }
    });
    assert!(setup.is_empty());
}

#[test]
fn uploads_are_bounded() {
    let setup = Setup::new(|limits| limits.tenant_max_uploads = 1);
    let running = setup.tenant.begin_upload().unwrap();
    assert_eq!(setup.tenant.begin_upload().unwrap_err().code, ErrorCode::ResourceExhausted);
    drop(running);
    assert!(setup.tenant.begin_upload().is_ok());
}

fn settings(change: impl FnOnce(&mut ShareSettings)) -> ShareSettings {
    let mut settings = ShareSettings::default();
    change(&mut settings);
    settings
}

#[test]
fn a_tenants_settings_take_the_place_of_the_defaults() {
    let own = settings(|own| {
        own.max_requests = Some(2);
        own.max_body_bytes = Some(50);
        own.max_bodies_bytes = Some(60);
    });
    let setup = Setup::with(|_| {}, &own);
    assert_eq!(setup.take(Some(51)).unwrap_err().reason, Some(reason::BODY_BYTES));
    let first = setup.take(Some(50)).unwrap();
    assert_eq!(setup.take(Some(11)).unwrap_err().reason, Some(reason::BODIES_BYTES));
    let second = setup.take(Some(10)).unwrap();
    assert_eq!(setup.take(Some(0)).unwrap_err().reason, Some(reason::CONCURRENCY));
    drop((first, second));
    assert!(setup.is_empty());
    // The server's own bound holds whatever a tenant was given.
    let large = Setup::with(|limits| limits.max_body_bytes = 100, &settings(|own| own.max_body_bytes = Some(1_000)));
    assert_eq!(large.take(Some(101)).unwrap_err().code, ErrorCode::TooLarge);
}

#[test]
fn requests_per_second_are_bounded_and_the_hint_is_exact() {
    let rate = |own: &mut ShareSettings| own.request_rate = Some(RequestRate { milli_per_second: 10_000, burst: 2 });
    let setup = Setup::with(|_| {}, &settings(rate));
    drop((setup.take(None).unwrap(), setup.take(None).unwrap()));
    let refused = setup.take(None).unwrap_err();
    assert_eq!((refused.code, refused.reason), (ErrorCode::ResourceExhausted, Some(reason::REQUEST_RATE)));
    assert_eq!(refused.retry_after, Some(Duration::from_millis(100)));
    assert!(refused.message.contains("10 requests a second, 2 at once"), "{refused}");
    assert!(setup.take_at(None, 99).is_err());
    assert!(setup.take_at(None, 100).is_ok());
    assert!(setup.is_empty());
}

#[test]
fn a_deployments_and_a_keys_gates_hold_beside_the_tenants_and_a_refusal_takes_nothing() {
    let rate = |own: &mut ShareSettings| own.request_rate = Some(RequestRate { milli_per_second: 1_000, burst: 1 });
    let mut setup = Setup::with(
        |_| {},
        &settings(|own| own.request_rate = Some(RequestRate { milli_per_second: 1_000, burst: 2 })),
    );
    let narrow = |change: fn(&mut ShareSettings)| Arc::new(Gate::new("this key", &settings(change), Arc::default()));
    setup.narrow = [narrow(|own| own.max_requests = Some(1)), narrow(rate)].into_iter().collect();
    let first = setup.take(None).unwrap();
    let refused = setup.take(None).unwrap_err();
    assert_eq!(refused.reason, Some(reason::CONCURRENCY));
    assert!(refused.message.starts_with("this key"), "{refused}");
    drop(first);
    assert_eq!(setup.take(None).unwrap_err().reason, Some(reason::REQUEST_RATE));
    assert!(setup.is_empty());
    // What the key's rate refused did not count against the tenant's: its second request of the burst still passes.
    setup.narrow.clear();
    assert!(setup.take(None).is_ok());
    assert_eq!(setup.take(None).unwrap_err().reason, Some(reason::REQUEST_RATE));
    setup.narrow.push(narrow(|own| own.max_body_bytes = Some(5)));
    assert_eq!(setup.take(Some(6)).unwrap_err().reason, Some(reason::BODY_BYTES));
    let mut growing = setup.take_at(None, 5_000).unwrap();
    growing.grow(5).unwrap();
    assert_eq!(growing.grow(1).unwrap_err().code, ErrorCode::TooLarge);
}

#[test]
fn a_gate_found_late_bounds_like_one_known_at_admission() {
    let setup = Setup::with(
        |_| {},
        &ShareSettings {
            request_rate: Some(RequestRate { milli_per_second: 1000, burst: 2 }),
            ..ShareSettings::default()
        },
    );
    let now = MonotonicTime::from_nanos(0);
    let settings = ShareSettings {
        max_requests: Some(1),
        max_body_bytes: Some(50),
        request_rate: Some(RequestRate { milli_per_second: 1000, burst: 1 }),
        ..ShareSettings::default()
    };
    let gate = Arc::new(Gate::new("this tenant for this model", &settings, Arc::default()));
    let mut large = setup.take(Some(51)).unwrap();
    assert_eq!(large.enter(Arc::clone(&gate), now).unwrap_err().reason, Some(reason::BODY_BYTES));
    drop(large);
    let mut first = setup.take(Some(10)).unwrap();
    first.enter(Arc::clone(&gate), now).unwrap();
    assert_eq!(first.grow(41).unwrap_err().reason, Some(reason::BODY_BYTES));
    // The rate of the tenant had room for two; both were used.
    let state = setup.tenant.rate(&NarrowGates::new(), now).unwrap();
    assert_eq!((state.limit, state.remaining, state.until_whole), (2, 0, Duration::from_secs(2)));
    let later = MonotonicTime::from_nanos(1_000_000_000);
    let mut second = setup.take_at(Some(10), 1000).unwrap();
    assert_eq!(second.enter(Arc::clone(&gate), later).unwrap_err().reason, Some(reason::CONCURRENCY));
    drop(first);
    // Refused for the gate's rate, a request does not count for its tenant's.
    let mut third = setup.take_at(Some(10), 2000).unwrap();
    let refused = third.enter(Arc::clone(&gate), MonotonicTime::from_nanos(500_000_000)).unwrap_err();
    assert_eq!(refused.reason, Some(reason::REQUEST_RATE));
    let state = setup.tenant.rate(&NarrowGates::new(), MonotonicTime::from_nanos(2_000_000_000)).unwrap();
    assert_eq!(state.remaining, 1);
    drop((second, third));
    assert!(setup.is_empty() && gate.load.requests.load(Ordering::Relaxed) == 0);
}
