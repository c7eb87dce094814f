//! What came of a simulated world, tenant by tenant.

use std::collections::BTreeMap;
use std::time::Duration;

/// Bins of the service over time.
pub const SERVICE_BINS: usize = 200;

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Slots of the machine.
    pub slots: usize,
    /// What was counted: from the warm-up to when everybody stopped sending.
    pub counted: Duration,
    /// When everything had ended.
    pub ended: Duration,
    /// By tenant, as numbered in the scenario.
    pub tenants: Vec<TenantReport>,
    /// Device time of all batches that were counted.
    pub used_ns: u64,
    /// The part of it that went into answers after their deadline, or into tasks that were ended for theirs.
    pub late_ns: u64,
    /// The part of it that was lost to batches that were interrupted.
    pub lost_ns: u64,
    /// Batches that were counted.
    pub batches: u64,
    /// Tasks in them.
    pub batched_tasks: u64,
    /// Times a batch was suspended.
    pub suspensions: u64,
    /// Models that were loaded while the world ran.
    pub loads: u64,
    /// The most by which a batch exceeded what the scheduler took to be its upper bound when it began.
    pub overshoot_ns: u64,
    /// What must not be: a task that never ended, something left over, books that do not agree.
    pub faults: Vec<String>,
}

/// One tenant's part.
#[derive(Debug, Clone, Default)]
pub struct TenantReport {
    /// Its name.
    pub name: String,
    /// Requests sent.
    pub sent: u64,
    /// Answered.
    pub answered: u64,
    /// Answered after the deadline.
    pub late: u64,
    /// Given up in the queue.
    pub expired: u64,
    /// Refused, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Lost with a worker, ended at a limit, or with nowhere to run.
    pub failed: u64,
    /// The client left.
    pub left: u64,
    /// What its requests would have cost one by one.
    pub asked_ns: u64,
    /// Device time it was charged.
    pub charged_ns: u64,
    /// Device time it was charged in each of the bins of the world's duration.
    pub service_ns: Vec<u64>,
    /// How long answers took, sorted.
    pub latencies_ns: Vec<u64>,
}

impl Report {
    /// A tenant's part; an empty one if there is no such tenant.
    pub fn tenant(&self, number: usize) -> TenantReport {
        self.tenants.get(number).cloned().unwrap_or_default()
    }

    /// Answers in time of all tenants.
    pub fn in_time(&self) -> u64 {
        self.tenants.iter().map(TenantReport::in_time).sum()
    }

    /// The part of the device time that was spent for nobody, because it was late.
    pub fn late_part(&self) -> f64 {
        self.late_ns as f64 / self.used_ns.max(1) as f64
    }

    /// Device time over slots and time.
    pub fn utilisation(&self) -> f64 {
        self.used_ns as f64 / (self.counted.as_nanos() as f64 * self.slots.max(1) as f64).max(1.0)
    }

    /// Tasks of a batch, on average.
    pub fn mean_batch(&self) -> f64 {
        self.batched_tasks as f64 / self.batches.max(1) as f64
    }
}

impl TenantReport {
    /// Answers in time.
    pub fn in_time(&self) -> u64 {
        self.answered.saturating_sub(self.late)
    }

    /// Requests that were refused.
    pub fn refusals(&self) -> u64 {
        self.refused.values().sum()
    }

    /// Requests that had a deadline and no answer in time: answered late, given up, refused for it or for the backlog.
    pub fn missed(&self) -> u64 {
        self.late + self.expired
    }

    /// The latency that a part of the answers (0.99: all but one in a hundred) does not exceed; zero without answers.
    pub fn quantile(&self, part: f64) -> Duration {
        let rank = (part * self.latencies_ns.len() as f64).ceil() as usize;
        let index = rank.clamp(1, self.latencies_ns.len().max(1)) - 1;
        Duration::from_nanos(self.latencies_ns.get(index).copied().unwrap_or(0))
    }

    /// The longest latency.
    pub fn longest(&self) -> Duration {
        Duration::from_nanos(self.latencies_ns.last().copied().unwrap_or(0))
    }
}

/// Jain's index: 1 if all are equal, 1/n if one has all.
pub fn jain(values: &[f64]) -> f64 {
    let sum: f64 = values.iter().sum();
    let squares: f64 = values.iter().map(|value| value * value).sum();
    if squares == 0.0 { 1.0 } else { sum * sum / (values.len() as f64 * squares) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_nearest_rank() {
        let report = TenantReport { latencies_ns: (1..=100).collect(), ..TenantReport::default() };
        assert_eq!(report.quantile(0.5), Duration::from_nanos(50));
        assert_eq!(report.quantile(0.99), Duration::from_nanos(99));
        assert_eq!(report.quantile(1.0), report.longest());
        assert_eq!(TenantReport::default().quantile(0.5), Duration::ZERO);
    }

    #[test]
    fn jain_tells_equal_from_one_sided() {
        assert!((jain(&[2.0, 2.0, 2.0]) - 1.0).abs() < 1e-12);
        assert!((jain(&[1.0, 0.0]) - 0.5).abs() < 1e-12);
    }
}
