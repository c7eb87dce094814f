//! What was seen, by stream.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use serde::ser::SerializeMap as _;

/// The range of the histograms, in nanoseconds: what is outside counts as its end. Three digits within it.
const SHORTEST_NS: u64 = 1_000;
const LONGEST_NS: u64 = 600_000_000_000;
/// The most reasons that are told apart; a server with more of them makes up reasons.
const MAX_REASONS: usize = 64;
/// What further reasons are counted under.
const OTHER_REASONS: &str = "other";

/// What all streams of a run saw.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// In the order of the plan.
    pub tenants: Vec<StreamReport>,
}

/// What one stream saw in its measured time.
///
/// Open streams: of the requests due in it, however late they were answered; each is one of `answered` (`late` being some
/// of them), `refused`, `failed`, `unsent` and `lost`. Closed loops: of the answers that came in it.
#[derive(Debug, Clone, Serialize)]
pub struct StreamReport {
    /// The stream's name.
    pub name: String,
    /// How long it was measured.
    #[serde(rename = "measured_seconds", serialize_with = "seconds")]
    pub measured: Duration,
    /// Requests that were due.
    pub due: u64,
    /// Successful answers.
    pub answered: u64,
    /// Those of them that came after the timeout.
    pub late: u64,
    /// Refusals by reason.
    pub refused: BTreeMap<String, u64>,
    /// Calls without an answer, by what happened.
    pub failed: BTreeMap<String, u64>,
    /// Requests given up before they were sent, all connections being busy.
    pub unsent: u64,
    /// Requests without an answer when the patience of the run was over.
    pub lost: u64,
    /// Of successful answers, from when the request was due to the answer's last byte.
    #[serde(rename = "latency_us")]
    pub latency: Latency,
}

/// A distribution of latencies.
#[derive(Debug, Clone)]
pub struct Latency(Histogram<u64>);

/// What happened to one request.
#[derive(Debug)]
pub(crate) enum Fate {
    Answered { latency: Duration, late: bool },
    Refused(String),
    Failed(&'static str),
    Unsent,
    Lost,
}

impl StreamReport {
    /// Nothing seen yet.
    pub fn new(name: String) -> Self {
        Self {
            name,
            measured: Duration::ZERO,
            due: 0,
            answered: 0,
            late: 0,
            refused: BTreeMap::new(),
            failed: BTreeMap::new(),
            unsent: 0,
            lost: 0,
            latency: Latency::new(),
        }
    }

    /// Adds what another run of the same stream saw.
    pub fn merge(&mut self, other: &Self) {
        self.measured += other.measured;
        self.due += other.due;
        self.answered += other.answered;
        self.late += other.late;
        self.unsent += other.unsent;
        self.lost += other.lost;
        for (all, more) in [(&mut self.refused, &other.refused), (&mut self.failed, &other.failed)] {
            more.iter().for_each(|(reason, count)| add(all, reason, *count));
        }
        self.latency.merge(&other.latency);
    }

    /// Answers a second.
    pub fn per_second(&self) -> f64 {
        rate(self.answered, self.measured)
    }

    /// Answers in time a second.
    pub fn goodput_per_second(&self) -> f64 {
        rate(self.answered.saturating_sub(self.late), self.measured)
    }

    /// The part of the due requests that was answered in time; 1 where nothing was due.
    pub fn in_time(&self) -> f64 {
        if self.due == 0 { 1.0 } else { self.answered.saturating_sub(self.late) as f64 / self.due as f64 }
    }

    /// All refusals.
    pub fn refusals(&self) -> u64 {
        self.refused.values().sum()
    }

    /// Everything that got no answer at all.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum::<u64>() + self.unsent + self.lost
    }

    pub(crate) fn count(&mut self, fate: Fate) {
        self.due += 1;
        match fate {
            Fate::Answered { latency, late } => {
                self.answered += 1;
                self.late += u64::from(late);
                self.latency.record(latency);
            }
            Fate::Refused(reason) => add(&mut self.refused, &reason, 1),
            Fate::Failed(what) => add(&mut self.failed, what, 1),
            Fate::Unsent => self.unsent += 1,
            Fate::Lost => self.lost += 1,
        }
    }
}

fn add(counts: &mut BTreeMap<String, u64>, reason: &str, more: u64) {
    if let Some(count) = counts.get_mut(reason) {
        *count += more;
    } else {
        let known = if counts.len() < MAX_REASONS { reason } else { OTHER_REASONS };
        *counts.entry(known.to_owned()).or_insert(0) += more;
    }
}

fn rate(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { count as f64 / time.as_secs_f64() }
}

fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

impl Latency {
    /// Nothing recorded yet.
    #[expect(clippy::expect_used, reason = "the bounds are constants, and every test makes one")]
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(SHORTEST_NS, LONGEST_NS, 3).expect("a range and digits the histogram takes"))
    }

    /// Records one.
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds another distribution.
    pub fn merge(&mut self, other: &Self) {
        // Both have the same range, so this cannot fail.
        let _ = self.0.add(&other.0);
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that this part of all stays within; zero where there are none.
    pub fn quantile(&self, part: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(part))
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }

    /// The mean.
    pub fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.0.mean() / 1e9)
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self::new()
    }
}

impl Serialize for Latency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let micros = |time: Duration| time.as_nanos() as f64 / 1e3;
        let mut map = serializer.serialize_map(Some(6))?;
        map.serialize_entry("mean", &micros(self.mean()))?;
        for (name, part) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)] {
            map.serialize_entry(name, &micros(self.quantile(part)))?;
        }
        map.serialize_entry("max", &micros(self.max()))?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_counted_once() {
        let mut report = StreamReport::new("acme".to_owned());
        report.measured = Duration::from_secs(2);
        for (latency, late) in [(1, false), (2, false), (900, true)] {
            report.count(Fate::Answered { latency: Duration::from_millis(latency), late });
        }
        report.count(Fate::Refused("request_rate".to_owned()));
        report.count(Fate::Failed("broken"));
        report.count(Fate::Unsent);
        report.count(Fate::Lost);
        assert_eq!(report.due, 7);
        assert_eq!(report.answered + report.refusals() + report.failures(), 7);
        assert!((report.goodput_per_second() - 1.0).abs() < 1e-9 && (report.per_second() - 1.5).abs() < 1e-9);
        let again = report.clone();
        report.merge(&again);
        assert_eq!((report.due, report.latency.count(), report.refusals()), (14, 6, 2));
        assert!((report.per_second() - 1.5).abs() < 1e-9);
        let json = serde_json::to_value(&report).unwrap();
        let p50 = json["latency_us"]["p50"].as_f64().unwrap();
        assert!((1_990.0..2_010.0).contains(&p50), "{json}");
    }

    #[test]
    fn reasons_are_bounded() {
        let mut report = StreamReport::new(String::new());
        (0..1_000).for_each(|index| report.count(Fate::Refused(index.to_string())));
        assert_eq!((report.refused.len(), report.refusals()), (MAX_REASONS + 1, 1_000));
    }
}
