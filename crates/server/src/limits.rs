//! What a caller may send and have in flight: counted at admission, from headers alone.
//!
//! A refusal reads no body, walks no table and takes nothing: what an earlier check took is given back. The caller's own
//! limits are 429, the server's are 503; both say when trying again makes sense and name the limit in a word for programs.

mod rate;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use smallvec::SmallVec;
use tenantry_sched::RejectReason;
use tenantry_types::share::RequestRate;
use tenantry_types::{ErrorCode, MonotonicTime, ServiceError, ShareSettings};

use crate::config::Limits;
use rate::Pace;

/// A hint is never shorter: a client that retries at once only adds load.
const MIN_RETRY: Duration = Duration::from_millis(1);
/// A hint is never longer: it is a guess.
const MAX_RETRY: Duration = Duration::from_secs(30);
/// What a request is taken to last before any has been seen.
const FIRST_GUESS: Duration = Duration::from_millis(100);

/// The words for limits at the door, in answers and metrics. The scheduler has its own.
pub(crate) mod reason {
    pub(crate) const BODY_BYTES: &str = "body_bytes";
    pub(crate) const BODIES_BYTES: &str = "bodies_bytes";
    pub(crate) const CONCURRENCY: &str = "concurrency";
    pub(crate) const REQUEST_RATE: &str = "request_rate";
    pub(crate) const SERVER_BODIES_BYTES: &str = "server_bodies_bytes";
    pub(crate) const DRAINING: &str = "draining";
    pub(crate) const DEADLINE: &str = "deadline";
    pub(crate) const QUARANTINED: &str = "quarantined";
    pub(crate) const MEMORY: &str = "memory";
    pub(crate) const ISOLATION: &str = "isolation";
    pub(crate) const POISON_INPUT: &str = "poison_input";
    pub(crate) const SEQUENCES: &str = "sequences";
    pub(crate) const LEDGER: &str = "ledger";
    pub(crate) const BUDGET_REQUESTS: &str = "budget_requests";
    pub(crate) const BUDGET_DEVICE_TIME: &str = "budget_device_time";
    pub(crate) const BUDGET_TOKENS: &str = "budget_tokens";
    pub(crate) const BUDGET_MONEY: &str = "budget_money";
}

/// Every word that says which limit refused a request, the scheduler's included.
pub(crate) const REASONS: [&str; 25] = [
    reason::BODY_BYTES,
    reason::BODIES_BYTES,
    reason::CONCURRENCY,
    reason::REQUEST_RATE,
    reason::SERVER_BODIES_BYTES,
    reason::DRAINING,
    reason::DEADLINE,
    reason::QUARANTINED,
    reason::MEMORY,
    reason::ISOLATION,
    reason::POISON_INPUT,
    reason::SEQUENCES,
    reason::LEDGER,
    reason::BUDGET_REQUESTS,
    reason::BUDGET_DEVICE_TIME,
    reason::BUDGET_TOKENS,
    reason::BUDGET_MONEY,
    RejectReason::QueueFull.as_str(),
    RejectReason::TenantQueueFull.as_str(),
    RejectReason::ShareQueueFull.as_str(),
    RejectReason::DeviceTimeLimit.as_str(),
    RejectReason::TenantBacklog.as_str(),
    RejectReason::Overloaded.as_str(),
    RejectReason::UnknownPlace.as_str(),
    RejectReason::WontMeetDeadline.as_str(),
];

/// What is counted for a tenant, a deployment or a key. Outlives every routing table that mentions it.
#[derive(Debug, Default)]
pub(crate) struct Load {
    requests: AtomicU32,
    /// When the next request is due by the rate, nanoseconds: see [`Pace`].
    due_ns: AtomicU64,
}

/// How much of a request rate is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateState {
    /// Requests that may come at once.
    pub limit: u64,
    /// How many of them may come now.
    pub remaining: u64,
    /// Until so many may come again.
    pub until_whole: Duration,
    /// As it was set.
    pub rate: RequestRate,
}

/// What one tenant has in flight besides.
#[derive(Debug, Default)]
pub(crate) struct TenantLoad {
    load: Arc<Load>,
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

/// The bounds of a tenant, a deployment or a key, and what it has taken of them.
#[derive(Debug)]
pub(crate) struct Gate {
    /// For messages.
    whose: &'static str,
    max_requests: u32,
    max_body_bytes: u64,
    pace: Option<(Pace, RequestRate)>,
    pub(crate) load: Arc<Load>,
}

/// A tenant's.
#[derive(Debug)]
pub(crate) struct TenantGate {
    gate: Gate,
    max_bodies_bytes: u64,
    max_uploads: u32,
    pub(crate) load: Arc<TenantLoad>,
}

impl Gate {
    /// The gate of a deployment or key; what its settings leave open is its tenant's to bound.
    pub(crate) fn new(whose: &'static str, settings: &ShareSettings, load: Arc<Load>) -> Self {
        Self {
            whose,
            max_requests: settings.max_requests.unwrap_or(u32::MAX),
            max_body_bytes: settings.max_body_bytes.unwrap_or(u64::MAX),
            pace: settings.request_rate.map(|rate| (Pace::new(rate), rate)),
            load,
        }
    }

    fn check_body(&self, body_bytes: u64) -> Result<(), ServiceError> {
        if body_bytes <= self.max_body_bytes {
            return Ok(());
        }
        let text = format!("the body is larger than {}'s limit of {} bytes", self.whose, self.max_body_bytes);
        Err(ServiceError::new(ErrorCode::TooLarge, text).because(reason::BODY_BYTES))
    }

    fn enter(&self, tenant: &TenantLoad) -> Result<(), ServiceError> {
        if take(&self.load.requests, self.max_requests) {
            return Ok(());
        }
        let text = format!("{} has {} requests in flight, which is its limit", self.whose, self.max_requests);
        Err(ServiceError::new(ErrorCode::ResourceExhausted, text)
            .because(reason::CONCURRENCY)
            .retry_after(tenant.retry_after()))
    }

    fn leave(&self) {
        self.load.requests.fetch_sub(1, Ordering::Relaxed);
    }

    fn keep_pace(&self, now: MonotonicTime) -> Result<(), ServiceError> {
        let Some((pace, rate)) = self.pace else { return Ok(()) };
        let mut wait = Duration::ZERO;
        let taken = self.load.due_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |due_ns| {
            pace.take(due_ns, now).map_err(|early| wait = early).ok()
        });
        if taken.is_ok() {
            return Ok(());
        }
        let per_second = rate.milli_per_second as f64 / 1e3;
        let text = format!("{} may send {per_second} requests a second, {} at once", self.whose, rate.burst);
        Err(ServiceError::new(ErrorCode::ResourceExhausted, text).because(reason::REQUEST_RATE).retry_after(wait))
    }

    /// The state of its request rate, if it has one.
    fn rate(&self, now: MonotonicTime) -> Option<RateState> {
        let (pace, rate) = self.pace?;
        let (remaining, until_whole) = pace.room(self.load.due_ns.load(Ordering::Relaxed), now);
        Some(RateState { limit: rate.burst.max(1).into(), remaining, until_whole, rate })
    }

    fn give_back_pace(&self) {
        if let Some((pace, _)) = self.pace {
            let back = |due_ns| Some(pace.give_back(due_ns));
            // Never fails: the function always has an answer.
            let _ = self.load.due_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, back);
        }
    }
}

impl TenantGate {
    /// The request rate with the least left, of the tenant's and of a narrower gate's.
    pub(crate) fn rate(&self, narrow: &NarrowGates, now: MonotonicTime) -> Option<RateState> {
        let gates = std::iter::once(&self.gate).chain(narrow.iter().map(|gate| &**gate));
        gates.filter_map(|gate| gate.rate(now)).min_by_key(|state| state.remaining)
    }

    /// A tenant's gate: its settings over the configuration's defaults, never beyond what the server can take at all.
    pub(crate) fn new(settings: &ShareSettings, limits: &Limits, load: Arc<TenantLoad>) -> Self {
        let mut gate = Gate::new("this tenant", settings, Arc::clone(&load.load));
        gate.max_requests = settings.max_requests.unwrap_or(limits.tenant_max_requests);
        gate.max_body_bytes = gate.max_body_bytes.min(limits.max_body_bytes);
        let max_bodies_bytes = settings.max_bodies_bytes.unwrap_or(limits.tenant_max_bodies_bytes);
        Self { gate, max_bodies_bytes, max_uploads: limits.tenant_max_uploads, load }
    }

    pub(crate) fn begin_upload(&self) -> Result<UploadPermit, ServiceError> {
        if !take(&self.load.uploads, self.max_uploads) {
            let text =
                format!("{} uploads are running, which is this tenant's limit; wait for one to end", self.max_uploads);
            return Err(ServiceError::new(ErrorCode::ResourceExhausted, text)
                .because(reason::CONCURRENCY)
                .retry_after(Duration::from_secs(1)));
        }
        Ok(UploadPermit { tenant: Arc::clone(&self.load) })
    }
}

/// The gates of a deployment and of a key, where they have some.
pub(crate) type NarrowGates = SmallVec<[Arc<Gate>; 2]>;

/// The right to have one request in flight, until dropped.
#[derive(Debug)]
pub struct Permit {
    tenant: Arc<TenantGate>,
    /// Those entered so far.
    narrow: NarrowGates,
    server: Arc<ServerLoad>,
    server_max_bodies_bytes: u64,
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
        self.load.requests.load(Ordering::Relaxed)
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
}

impl Permit {
    /// Takes a place for a request that arrived at `now` with a body of `content_length` bytes, or of unknown length.
    ///
    /// # Errors
    /// 413 beyond the largest body, 429 beyond a limit of the caller's, 503 beyond the server's.
    pub(crate) fn take(
        tenant: &Arc<TenantGate>,
        narrow: NarrowGates,
        server: &Arc<ServerLoad>,
        server_max_bodies_bytes: u64,
        content_length: Option<u64>,
        now: MonotonicTime,
    ) -> Result<Self, ServiceError> {
        let body_bytes = content_length.unwrap_or(0);
        tenant.gate.check_body(body_bytes)?;
        tenant.gate.enter(&tenant.load)?;
        // From here on, dropping the permit gives everything back.
        let mut permit = Self {
            tenant: Arc::clone(tenant),
            narrow: NarrowGates::new(),
            server: Arc::clone(server),
            server_max_bodies_bytes,
            body_bytes: 0,
            arrived: now,
        };
        permit.enter_all(narrow, body_bytes)?;
        permit.hold(body_bytes)?;
        permit.keep_pace(0, now)?;
        Ok(permit)
    }

    fn enter_all(&mut self, narrow: NarrowGates, body_bytes: u64) -> Result<(), ServiceError> {
        for gate in narrow {
            gate.check_body(body_bytes)?;
            gate.enter(&self.tenant.load)?;
            self.narrow.push(gate);
        }
        Ok(())
    }

    fn gates(&self) -> impl Iterator<Item = &Gate> {
        std::iter::once(&self.tenant.gate).chain(self.narrow.iter().map(|gate| &**gate))
    }

    /// Counts the request in the rates of all gates but the first `passed`, which have counted it. Last, because a rate alone
    /// is not given back when the request ends.
    fn keep_pace(&self, passed: usize, now: MonotonicTime) -> Result<(), ServiceError> {
        for (index, gate) in self.gates().enumerate().skip(passed) {
            if let Err(error) = gate.keep_pace(now) {
                self.gates().take(index).skip(passed).for_each(Gate::give_back_pace);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Enters a gate that was not known at admission.
    ///
    /// # Errors
    /// 413 beyond its largest body, 429 beyond its other limits.
    pub(crate) fn enter(&mut self, gate: Arc<Gate>, now: MonotonicTime) -> Result<(), ServiceError> {
        gate.check_body(self.body_bytes)?;
        gate.enter(&self.tenant.load)?;
        self.narrow.push(gate);
        let Some((last, before)) = self.narrow.split_last() else { return Ok(()) };
        last.keep_pace(now).inspect_err(|_| {
            self.tenant.gate.give_back_pace();
            before.iter().for_each(|gate| gate.give_back_pace());
        })
    }

    /// Counts more bytes of a body whose length was not announced, or that grew by decompression.
    ///
    /// # Errors
    /// 413 beyond the largest body, 429 beyond the tenant's bytes in flight, 503 beyond the server's.
    pub fn grow(&mut self, bytes: u64) -> Result<(), ServiceError> {
        let body_bytes = self.body_bytes.saturating_add(bytes);
        self.tenant.gate.check_body(body_bytes)?;
        self.narrow.iter().try_for_each(|gate| gate.check_body(body_bytes))?;
        self.hold(bytes)
    }

    /// Counts the bytes of an answer, which stay in memory until the client has read them, along with the body's.
    ///
    /// # Errors
    /// 429 beyond the tenant's bytes in flight, 503 beyond the server's.
    pub fn hold(&mut self, bytes: u64) -> Result<(), ServiceError> {
        let load = &self.tenant.load;
        if !take_bytes(&load.body_bytes, bytes, self.tenant.max_bodies_bytes) {
            return Err(ServiceError::new(
                ErrorCode::ResourceExhausted,
                format!(
                    "the bodies and answers of this tenant's requests in flight reach its limit of {} bytes; try again later",
                    self.tenant.max_bodies_bytes
                ),
            )
            .because(reason::BODIES_BYTES)
            .retry_after(load.retry_after()));
        }
        if !take_bytes(&self.server.body_bytes, bytes, self.server_max_bodies_bytes) {
            load.body_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(ServiceError::new(
                ErrorCode::Unavailable,
                "the server holds as many bodies and answers as it may; try again later",
            )
            .because(reason::SERVER_BODIES_BYTES)
            .retry_after(load.retry_after()));
        }
        self.body_bytes += bytes;
        Ok(())
    }

    /// When the request arrived: its timeout counts from here.
    pub(crate) fn arrived(&self) -> MonotonicTime {
        self.arrived
    }

    /// Bytes of its body, inflated, and of its answer once there is one.
    pub(crate) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    pub(crate) fn tenant(&self) -> &TenantLoad {
        &self.tenant.load
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.server.body_bytes.fetch_sub(self.body_bytes, Ordering::Relaxed);
        self.tenant.load.body_bytes.fetch_sub(self.body_bytes, Ordering::Relaxed);
        self.narrow.iter().for_each(|gate| gate.leave());
        self.tenant.gate.leave();
    }
}

impl Drop for UploadPermit {
    fn drop(&mut self) {
        self.tenant.uploads.fetch_sub(1, Ordering::Relaxed);
    }
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
