//! What may be in flight at once, per tenant and on the whole server: counted at admission, from headers alone.
//!
//! A refusal reads no body. The tenant's own limit is 429, the server's is 503; both say when a place is likely to be
//! free, from how long this tenant's requests have been taking.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tenantry_types::{ErrorCode, MonotonicTime, ServiceError};

use crate::config::Limits;

/// A hint is never shorter: a client that retries at once only adds load.
const MIN_RETRY: Duration = Duration::from_millis(1);
/// A hint is never longer: it is a guess.
const MAX_RETRY: Duration = Duration::from_secs(30);
/// What a request is taken to last before any has been seen.
const FIRST_GUESS: Duration = Duration::from_millis(100);

/// What one tenant has in flight. Outlives every routing table that mentions the tenant.
#[derive(Debug, Default)]
pub(crate) struct TenantLoad {
    requests: AtomicU32,
    body_bytes: AtomicU64,
    uploads: AtomicU32,
    /// Moving average of how long a request takes, nanoseconds; 0 before the first.
    request_ns: AtomicU64,
}

/// What the whole server has in flight.
#[derive(Debug, Default)]
pub(crate) struct ServerLoad {
    body_bytes: AtomicU64,
}

/// The right to have one request in flight, until dropped.
#[derive(Debug)]
pub struct Permit {
    tenant: Arc<TenantLoad>,
    server: Arc<ServerLoad>,
    limits: Arc<Limits>,
    body_bytes: u64,
    arrived: MonotonicTime,
}

/// The right to have one upload in flight, until dropped.
#[derive(Debug)]
pub(crate) struct UploadPermit {
    tenant: Arc<TenantLoad>,
}

impl TenantLoad {
    /// Requests in flight.
    pub(crate) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Remembers how long a request took, as an exponential average over about eight of them.
    pub(crate) fn took(&self, duration: Duration) {
        let sample = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).max(1);
        // Two requests that end together may lose one sample; an average does not mind.
        let average = match self.request_ns.load(Ordering::Relaxed) {
            0 => sample,
            average => average - average / 8 + sample / 8,
        };
        self.request_ns.store(average, Ordering::Relaxed);
    }

    /// When one of the requests in flight has probably ended.
    fn retry_after(&self) -> Duration {
        let each = match self.request_ns.load(Ordering::Relaxed) {
            0 => FIRST_GUESS,
            nanos => Duration::from_nanos(nanos),
        };
        (each / self.requests().max(1)).clamp(MIN_RETRY, MAX_RETRY)
    }

    pub(crate) fn begin_upload(self: &Arc<Self>, limits: &Limits) -> Result<UploadPermit, ServiceError> {
        if !take(&self.uploads, limits.tenant_max_uploads) {
            return Err(ServiceError::new(
                ErrorCode::ResourceExhausted,
                format!(
                    "{} uploads are running, which is this tenant's limit; wait for one to end",
                    limits.tenant_max_uploads
                ),
            )
            .retry_after(Duration::from_secs(1)));
        }
        Ok(UploadPermit { tenant: Arc::clone(self) })
    }
}

impl Permit {
    /// Takes a place for a request that arrived at `now` with a body of `content_length` bytes, or of unknown length.
    pub(crate) fn take(
        tenant: &Arc<TenantLoad>,
        server: &Arc<ServerLoad>,
        limits: &Arc<Limits>,
        content_length: Option<u64>,
        now: MonotonicTime,
    ) -> Result<Self, ServiceError> {
        let body_bytes = content_length.unwrap_or(0);
        check_body(limits, body_bytes)?;
        if !take(&tenant.requests, limits.tenant_max_requests) {
            return Err(ServiceError::new(
                ErrorCode::ResourceExhausted,
                format!(
                    "{} requests of this tenant are in flight, which is its limit; try again later",
                    limits.tenant_max_requests
                ),
            )
            .retry_after(tenant.retry_after()));
        }
        // From here on, dropping the permit gives everything back.
        let mut permit = Self {
            tenant: Arc::clone(tenant),
            server: Arc::clone(server),
            limits: Arc::clone(limits),
            body_bytes: 0,
            arrived: now,
        };
        permit.grow(body_bytes)?;
        Ok(permit)
    }

    /// Counts more bytes of a body whose length was not announced, or that grew by decompression.
    ///
    /// # Errors
    /// 413 beyond the largest body, 429 beyond the tenant's bytes in flight, 503 beyond the server's.
    pub fn grow(&mut self, bytes: u64) -> Result<(), ServiceError> {
        check_body(&self.limits, self.body_bytes.saturating_add(bytes))?;
        self.hold(bytes)
    }

    /// Counts the bytes of an answer, which stay in memory until the client has read them, along with the body's.
    ///
    /// # Errors
    /// 429 beyond the tenant's bytes in flight, 503 beyond the server's.
    pub fn hold(&mut self, bytes: u64) -> Result<(), ServiceError> {
        if !take_bytes(&self.tenant.body_bytes, bytes, self.limits.tenant_max_bodies_bytes) {
            return Err(ServiceError::new(
                ErrorCode::ResourceExhausted,
                format!(
                    "the bodies and answers of this tenant's requests in flight reach its limit of {} bytes; try again later",
                    self.limits.tenant_max_bodies_bytes
                ),
            )
            .retry_after(self.tenant.retry_after()));
        }
        if !take_bytes(&self.server.body_bytes, bytes, self.limits.max_bodies_bytes) {
            self.tenant.body_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(ServiceError::new(
                ErrorCode::Unavailable,
                "the server holds as many bodies and answers as it may; try again later",
            )
            .retry_after(self.tenant.retry_after()));
        }
        self.body_bytes += bytes;
        Ok(())
    }

    /// When the request arrived: its timeout counts from here.
    pub(crate) fn arrived(&self) -> MonotonicTime {
        self.arrived
    }

    pub(crate) fn tenant(&self) -> &TenantLoad {
        &self.tenant
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.server.body_bytes.fetch_sub(self.body_bytes, Ordering::Relaxed);
        self.tenant.body_bytes.fetch_sub(self.body_bytes, Ordering::Relaxed);
        self.tenant.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for UploadPermit {
    fn drop(&mut self) {
        self.tenant.uploads.fetch_sub(1, Ordering::Relaxed);
    }
}

fn check_body(limits: &Limits, body_bytes: u64) -> Result<(), ServiceError> {
    if body_bytes <= limits.max_body_bytes {
        return Ok(());
    }
    Err(ServiceError::new(
        ErrorCode::TooLarge,
        format!("the body is larger than the limit of {} bytes", limits.max_body_bytes),
    ))
}

/// Counts one more unless that would exceed `max`. Relaxed: the counters order nothing but themselves.
fn take(counter: &AtomicU32, max: u32) -> bool {
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < max).then(|| count + 1)).is_ok()
}

fn take_bytes(counter: &AtomicU64, bytes: u64, max: u64) -> bool {
    let more = |count: u64| count.checked_add(bytes).filter(|sum| *sum <= max);
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}

#[cfg(test)]
mod tests;
