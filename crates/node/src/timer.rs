//! Wakes the scheduler when it asked to be polled again.

use std::sync::atomic::{AtomicU64, Ordering};

use tenantry_types::MonotonicTime;
use tokio::sync::Notify;

/// The earliest instant anybody asked for. One task (see `start`) sleeps until it.
#[derive(Debug)]
pub(crate) struct Timer {
    target: AtomicU64,
    moved: Notify,
}

impl Timer {
    pub(crate) fn new() -> Self {
        Self { target: AtomicU64::new(u64::MAX), moved: Notify::new() }
    }

    /// Asks for a wake-up at `time`. Only an earlier instant than the current one disturbs the sleeper: one that fires
    /// too early costs a poll that does nothing, which is cheaper than re-arming for every request.
    pub(crate) fn arm(&self, time: Option<MonotonicTime>) {
        let Some(time) = time else { return };
        if self.target.fetch_min(time.as_nanos(), Ordering::AcqRel) > time.as_nanos() {
            self.moved.notify_one();
        }
    }

    /// Forgets the current instant; the poll that follows arms the next one.
    pub(crate) fn fire(&self) {
        self.target.store(u64::MAX, Ordering::Release);
    }

    /// The instant to sleep until.
    pub(crate) fn target(&self) -> MonotonicTime {
        MonotonicTime::from_nanos(self.target.load(Ordering::Acquire))
    }

    /// Resolves when the instant moved closer.
    pub(crate) async fn moved(&self) {
        self.moved.notified().await;
    }
}
