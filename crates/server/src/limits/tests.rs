use std::sync::Barrier;

use super::*;

struct Setup {
    tenant: Arc<TenantLoad>,
    server: Arc<ServerLoad>,
    limits: Arc<Limits>,
}

impl Setup {
    fn new(change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits::defaults();
        change(&mut limits);
        Self { tenant: Arc::default(), server: Arc::default(), limits: Arc::new(limits) }
    }

    fn take(&self, content_length: Option<u64>) -> Result<Permit, ServiceError> {
        Permit::take(&self.tenant, &self.server, &self.limits, content_length, MonotonicTime::ZERO)
    }

    fn is_empty(&self) -> bool {
        self.tenant.requests() == 0
            && self.tenant.body_bytes.load(Ordering::Relaxed) == 0
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
    let other = Setup { tenant: Arc::default(), server: Arc::clone(&setup.server), limits: Arc::clone(&setup.limits) };
    let refused = other.take(Some(91)).unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unavailable);
    assert!(refused.retry_after.is_some());
    assert_eq!(other.tenant.body_bytes.load(Ordering::Relaxed), 0, "a refusal gives back what it took");
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
    setup.tenant.took(Duration::from_secs(8));
    assert_eq!(setup.take(None).unwrap_err().retry_after, Some(Duration::from_secs(4)));
    for _ in 0..200 {
        setup.tenant.took(Duration::from_nanos(10));
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
                    assert!(setup.tenant.requests() <= 5);
                    assert!(setup.tenant.body_bytes.load(Ordering::Relaxed) <= 40);
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
    let running = setup.tenant.begin_upload(&setup.limits).unwrap();
    assert_eq!(setup.tenant.begin_upload(&setup.limits).unwrap_err().code, ErrorCode::ResourceExhausted);
    drop(running);
    assert!(setup.tenant.begin_upload(&setup.limits).is_ok());
}
