//! The only place in the data plane that reads the clock.

use std::time::Instant;

use tenantry_types::MonotonicTime;

/// Monotonic time since this node started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose origin is now.
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// Nanoseconds since the origin.
    pub(crate) fn now(&self) -> MonotonicTime {
        MonotonicTime::ZERO.saturating_add(self.origin.elapsed())
    }

    /// The same instant as the runtime's timers understand it.
    pub(crate) fn instant(&self, time: MonotonicTime) -> tokio::time::Instant {
        let offset = time.saturating_since(MonotonicTime::ZERO);
        // Timers that lie beyond what the platform can express simply never fire within the process's life.
        let far = std::time::Duration::from_secs(365 * 24 * 3600);
        tokio::time::Instant::from_std(self.origin + offset.min(far))
    }
}
