//! Requests per second by the generic cell rate algorithm (ITU-T I.371, annex A.2: virtual scheduling).
//!
//! One number is kept: when the next request would be due if all came evenly. A request that comes at most the tolerance
//! before it is due conforms and moves it on by one interval. So over any span of time no more pass than the rate's and one
//! burst, nothing is saved up beyond that burst, and a refused request changes nothing. The time is an argument.

use std::time::Duration;

use tenantry_types::MonotonicTime;
use tenantry_types::share::RequestRate;

/// By how much two requests may have read the clock apart before they get here.
const APART_NS: u64 = 1_000_000_000;

/// How fast requests may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    interval_ns: u64,
    tolerance_ns: u64,
}

impl Pace {
    /// A rate of zero counts as the smallest there is, a burst of zero as one.
    pub(crate) fn new(rate: RequestRate) -> Self {
        const SECOND_THOUSANDTHS_NS: u64 = 1_000_000_000 * 1_000;
        let interval_ns = (SECOND_THOUSANDTHS_NS / rate.milli_per_second.max(1)).max(1);
        let tolerance_ns = interval_ns.saturating_mul(u64::from(rate.burst.max(1) - 1));
        Self { interval_ns, tolerance_ns }
    }

    /// Whether a request at `now` conforms, if the next was due at `due_ns`: when the one after it is due.
    ///
    /// # Errors
    /// How long until one would conform.
    pub(crate) fn take(self, due_ns: u64, now: MonotonicTime) -> Result<u64, Duration> {
        let now_ns = now.as_nanos();
        // This pace leaves no request due later than that (but for clocks read a moment apart): it was a slower one, set
        // before, and what was due by that is not owed now.
        let latest_ns = now_ns.saturating_add(self.tolerance_ns).saturating_add(self.interval_ns);
        let is_owed = due_ns <= latest_ns.saturating_add(APART_NS);
        let due_ns = if is_owed { due_ns.max(now_ns) } else { now_ns };
        match due_ns.saturating_sub(self.tolerance_ns).checked_sub(now_ns) {
            None | Some(0) => Ok(due_ns.saturating_add(self.interval_ns)),
            Some(early_ns) => Err(Duration::from_nanos(early_ns)),
        }
    }

    /// How many requests would conform at `now`, one after the other, and how long until a whole burst would.
    pub(crate) fn room(self, due_ns: u64, now: MonotonicTime) -> (u64, Duration) {
        let ahead_ns = due_ns.saturating_sub(now.as_nanos());
        let burst_ns = self.tolerance_ns.saturating_add(self.interval_ns);
        if ahead_ns > burst_ns.saturating_add(APART_NS) {
            // Owed to a slower pace, which holds no more.
            return (burst_ns / self.interval_ns, Duration::ZERO);
        }
        (burst_ns.saturating_sub(ahead_ns) / self.interval_ns, Duration::from_nanos(ahead_ns))
    }

    /// When the next is due after a request that conformed was refused for another reason.
    pub(crate) fn give_back(self, due_ns: u64) -> u64 {
        due_ns.saturating_sub(self.interval_ns)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pace(milli_per_second: u64, burst: u32) -> Pace {
        Pace::new(RequestRate { milli_per_second, burst })
    }

    fn at(nanos: u64) -> MonotonicTime {
        MonotonicTime::from_nanos(nanos)
    }

    #[test]
    fn the_room_is_what_conforms_and_the_time_is_until_it_is_whole() {
        let pace = pace(10_000, 3);
        let start = at(5_000_000_000);
        let mut due = 0;
        for taken in 0..3 {
            let (room, until_whole) = pace.room(due, start);
            assert_eq!((room, until_whole), (3 - taken, Duration::from_millis(100 * taken)));
            due = pace.take(due, start).unwrap();
        }
        assert_eq!(pace.room(due, start), (0, Duration::from_millis(300)));
        let later = start.saturating_add(Duration::from_millis(150));
        assert_eq!(pace.room(due, later), (1, Duration::from_millis(150)));
        assert!(pace.take(due, later).is_ok());
    }

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let pace = pace(10_000, 3);
        let mut due = 0;
        let start = at(5_000_000_000);
        for _ in 0..3 {
            due = pace.take(due, start).unwrap();
        }
        let wait = pace.take(due, start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert!(pace.take(due, start.saturating_add(wait - Duration::from_nanos(1))).is_err());
        due = pace.take(due, start.saturating_add(wait)).unwrap();
        assert!(pace.take(due, start.saturating_add(wait)).is_err());
        due = pace.give_back(due);
        assert!(pace.take(due, start.saturating_add(wait)).is_ok());
    }

    #[test]
    fn a_faster_pace_holds_at_once() {
        let (slow, fast) = (pace(10, 2), pace(1_000_000, 100));
        let now = at(1_000_000_000);
        let due = slow.take(slow.take(0, now).unwrap(), now).unwrap();
        assert!(slow.take(due, now).unwrap_err() > Duration::from_secs(90));
        assert!(fast.take(due, now).is_ok());
        // The same pace forgets nothing.
        assert!(slow.take(due, now).is_err());
    }

    #[test]
    fn extremes_do_not_overflow() {
        for pace in [pace(0, 0), pace(u64::MAX, u32::MAX), pace(1, u32::MAX)] {
            let due = pace.take(0, MonotonicTime::MAX).unwrap();
            let _ = pace.take(due, MonotonicTime::ZERO);
            let _ = pace.take(u64::MAX, MonotonicTime::MAX);
            pace.give_back(0);
        }
    }

    proptest! {
        /// Over every span between two requests that passed: at most the burst and what the rate gives in it.
        #[test]
        fn no_span_gets_more_than_rate_and_burst(
            milli_per_second in 1_u64..10_000_000,
            burst in 1_u32..50,
            gaps_ns in prop::collection::vec(prop_oneof![Just(0), 0_u64..1_000_000, 0_u64..10_000_000_000], 1..200),
        ) {
            let pace = pace(milli_per_second, burst);
            let (mut now, mut due, mut passed) = (0_u64, 0, Vec::new());
            for gap_ns in gaps_ns {
                now += gap_ns;
                match pace.take(due, at(now)) {
                    Ok(next) => {
                        due = next;
                        passed.push(now);
                    }
                    // The advice is exact: not a nanosecond earlier, and then for sure.
                    Err(wait) => {
                        let then = at(now).saturating_add(wait);
                        prop_assert!(pace.take(due, then).is_ok());
                        prop_assert!(pace.take(due, at(then.as_nanos() - 1)).is_err());
                    }
                }
            }
            for (first, from) in passed.iter().enumerate() {
                for (count, to) in passed[first..].iter().enumerate() {
                    let by_rate = (to - from) / pace.interval_ns;
                    prop_assert!(count as u64 <= u64::from(burst) - 1 + by_rate + 1);
                    prop_assert!(count as u64 * pace.interval_ns <= pace.tolerance_ns + (to - from));
                }
            }
        }

        /// Whoever keeps to the rate is never refused.
        #[test]
        fn what_conforms_passes(milli_per_second in 1_u64..10_000_000, burst in 1_u32..5, slack in prop::collection::vec(0_u64..1_000_000, 1..100)) {
            let pace = pace(milli_per_second, burst);
            let (mut now, mut due) = (0_u64, 0);
            for extra in slack {
                due = pace.take(due, at(now)).unwrap();
                now += pace.interval_ns + extra;
            }
        }
    }
}
