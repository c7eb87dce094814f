//! Deaths, back-off and quarantine of versions: plain arithmetic over instants.
//!
//! One death may be anybody's fault (an operator's `kill -9`, the machine's memory), so the replacement starts at once.
//! Repeated deaths are the model's: from the third within [`FORGET_AFTER`] on it is quarantined, each time twice as
//! long, and a failed load is quarantined from the first time on, since loading again would fail again.

use std::time::Duration;

use tenantry_types::MonotonicTime;

/// Deaths in a row before the version is quarantined.
const DEATHS_BEFORE_QUARANTINE: u32 = 3;
/// The first quarantine.
const FIRST_QUARANTINE: Duration = Duration::from_secs(5);
/// The longest quarantine.
const LONGEST_QUARANTINE: Duration = Duration::from_secs(300);
/// A version that behaved this long starts with a clean record.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// A version's record on this node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health {
    deaths: u32,
    quarantines: u32,
    last_failure: Option<(MonotonicTime, String)>,
    until: Option<MonotonicTime>,
}

/// A quarantine in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InForce {
    pub(crate) until: MonotonicTime,
    pub(crate) reason: String,
}

impl Health {
    /// The version's worker died, hung or broke the protocol while it ran it.
    pub(crate) fn died(&mut self, now: MonotonicTime, reason: String) {
        self.forget_old(now);
        self.deaths = self.deaths.saturating_add(1);
        self.last_failure = Some((now, reason));
        if self.deaths >= DEATHS_BEFORE_QUARANTINE {
            self.quarantine(now);
        }
    }

    /// What ended `deaths` workers, and the last one, was one input, which is refused from now on: no step towards a
    /// quarantine any more.
    pub(crate) fn input_to_blame(&mut self, now: MonotonicTime, deaths: u32, reason: String) {
        self.noted(now, reason);
        self.deaths = self.deaths.saturating_sub(deaths);
    }

    /// Something went wrong that is no reason to keep the version from running.
    pub(crate) fn noted(&mut self, now: MonotonicTime, reason: String) {
        self.forget_old(now);
        self.last_failure = Some((now, reason));
    }

    /// The version could not be loaded.
    pub(crate) fn load_failed(&mut self, now: MonotonicTime, reason: String) {
        self.forget_old(now);
        self.last_failure = Some((now, reason));
        self.quarantine(now);
    }

    /// The quarantine in force at `now`, if any.
    pub(crate) fn quarantined(&self, now: MonotonicTime) -> Option<InForce> {
        let until = self.until.filter(|until| *until > now)?;
        let reason = self.last_failure.as_ref().map(|(_, reason)| reason.clone()).unwrap_or_default();
        Some(InForce { until, reason })
    }

    /// What went wrong last, within the memory of [`FORGET_AFTER`].
    pub(crate) fn last_failure(&self, now: MonotonicTime) -> Option<&str> {
        let (at, reason) = self.last_failure.as_ref()?;
        (now.saturating_since(*at) < FORGET_AFTER).then_some(reason.as_str())
    }

    /// Deaths on record.
    pub(crate) fn deaths(&self) -> u32 {
        self.deaths
    }

    fn quarantine(&mut self, now: MonotonicTime) {
        let length = FIRST_QUARANTINE.saturating_mul(1 << self.quarantines.min(16)).min(LONGEST_QUARANTINE);
        self.quarantines = self.quarantines.saturating_add(1);
        self.until = Some(now.saturating_add(length));
    }

    fn forget_old(&mut self, now: MonotonicTime) {
        if self.last_failure.as_ref().is_some_and(|(at, _)| now.saturating_since(*at) >= FORGET_AFTER) {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> MonotonicTime {
        MonotonicTime::ZERO.saturating_add(Duration::from_secs(seconds))
    }

    #[test]
    fn two_deaths_are_forgiven_the_third_is_not() {
        let mut health = Health::default();
        health.died(at(1), "signal 11".to_owned());
        health.died(at(2), "signal 11".to_owned());
        assert_eq!(health.quarantined(at(2)), None);
        health.died(at(3), "signal 8".to_owned());
        let in_force = health.quarantined(at(3)).unwrap();
        assert_eq!((in_force.until, in_force.reason.as_str()), (at(8), "signal 8"));
        assert_eq!(health.quarantined(at(8)), None);
    }

    #[test]
    fn deaths_over_an_input_that_is_refused_are_taken_back() {
        let mut health = Health::default();
        health.died(at(1), "signal 11".to_owned());
        health.died(at(2), "signal 8".to_owned());
        health.input_to_blame(at(3), 1, "signal 8".to_owned());
        assert_eq!((health.deaths(), health.last_failure(at(3))), (1, Some("signal 8")));
        health.died(at(4), "signal 11".to_owned());
        assert_eq!(health.quarantined(at(4)), None);
    }

    #[test]
    fn quarantines_double_up_to_a_bound_and_are_forgotten() {
        let mut health = Health::default();
        let mut now = at(0);
        let mut lengths = Vec::new();
        for _ in 0..9 {
            health.load_failed(now, "corrupt".to_owned());
            let until = health.quarantined(now).unwrap().until;
            lengths.push(until.saturating_since(now).as_secs());
            now = until;
        }
        assert_eq!(lengths, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        let later = now.saturating_add(FORGET_AFTER);
        assert_eq!(health.last_failure(later), None);
        health.died(later, "signal 9".to_owned());
        assert_eq!((health.deaths(), health.quarantined(later)), (1, None));
    }
}
