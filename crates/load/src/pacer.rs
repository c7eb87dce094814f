//! Waiting until a request is due, to some tens of microseconds.
//!
//! The runtime's own timers count milliseconds, which is as long as a small model takes; a `timerfd` wakes when it is
//! told to. One pacer serves all connections of a stream: the idle one that holds it waits for the next arrival.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::{Arrival, Offsets};

/// The arrivals of a stream, each handed out when it is due.
#[derive(Debug)]
pub(crate) struct Pacer {
    timer: AsyncFd<OwnedFd>,
    offsets: Offsets,
    start: Instant,
    /// Nothing is due from here on.
    end: Duration,
}

impl Pacer {
    /// The arrivals before `end` after `start`. Needs a runtime with IO.
    pub(crate) fn new(offsets: Offsets, start: Instant, end: Duration) -> std::io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        #[expect(deprecated, reason = "its successor is unsafe; an OwnedFd always names the one descriptor it owns")]
        let timer = AsyncFd::new(timer)?;
        Ok(Self { timer, offsets, start, end })
    }

    /// The next arrival, once it is due; none after the end. One that is due already comes at once.
    pub(crate) async fn next(&mut self) -> std::io::Result<Option<Arrival>> {
        let Some(arrival) = self.offsets.next().filter(|arrival| arrival.at < self.end) else {
            // What ended stays ended.
            self.end = Duration::ZERO;
            return Ok(None);
        };
        let wait = arrival.at.saturating_sub(self.start.elapsed());
        if !wait.is_zero() {
            self.sleep(wait).await?;
        }
        Ok(Some(arrival))
    }

    async fn sleep(&self, wait: Duration) -> std::io::Result<()> {
        let wait = Timespec::try_from(wait).map_err(|_| std::io::ErrorKind::InvalidInput)?;
        let once = Itimerspec { it_interval: Timespec::default(), it_value: wait };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.timer.readable().await?;
            let mut expirations = [0; 8];
            // Readiness without an expiration: wait on.
            if let Ok(read) = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut expirations)?)) {
                return read.map(|_| ());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Arrivals;

    #[test]
    fn arrivals_come_when_due_and_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let start = Instant::now();
            let offsets = Arrivals::Constant { per_second: 500.0 }.offsets(1);
            let mut pacer = Pacer::new(offsets, start, Duration::from_millis(9)).unwrap();
            for count in 0..5_u32 {
                let arrival = pacer.next().await.unwrap().unwrap();
                assert_eq!(arrival.at, Duration::from_millis(2) * count);
                assert!(start.elapsed() >= arrival.at);
            }
            assert_eq!(pacer.next().await.unwrap(), None);
            assert_eq!(pacer.next().await.unwrap(), None);
        });
    }
}
