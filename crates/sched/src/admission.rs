//! How much may wait, who may wait, and when a refused caller should come back.

use std::time::Duration;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use tenantry_types::TenantId;

use crate::task::{Place, Task};
use crate::{Rate, RejectReason};

/// Tasks that may wait for one worker. They do not count against the configured bounds, because the backlog of a model
/// that is not loaded must never keep out the load that would serve it.
pub const MAX_PINNED_TASKS_PER_WORKER: usize = 256;
/// The shortest advice to a refused caller.
pub const MIN_RETRY_AFTER: Duration = Duration::from_millis(1);
/// The longest advice to a refused caller: beyond it the estimate is worth nothing.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);
/// A finished batch moves the measured saving by one part in this many.
const SAVING_MEMORY_BATCHES: u64 = 16;

/// How it is chosen what runs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// By reservation, then by weight in measured device time.
    #[default]
    Fair,
    /// The oldest task first.
    Fifo,
    /// One batch a tenant in turn.
    RoundRobin,
    /// The higher tier first, the oldest of a tier first.
    StrictPriority,
}

impl Policy {
    /// Every policy, the default one first.
    pub const ALL: [Self; 4] = [Self::Fair, Self::Fifo, Self::RoundRobin, Self::StrictPriority];

    /// As configuration and figures name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fair => "fair",
            Self::Fifo => "fifo",
            Self::RoundRobin => "round-robin",
            Self::StrictPriority => "strict-priority",
        }
    }
}

/// The constants of the fair policy. The README beside this crate says what each one bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuning {
    /// Q: the longest batch that is formed of several tasks.
    pub quantum: Duration,
    /// T: how far ahead of the others, in device time at weight 1, somebody may be served for an urgent deadline.
    pub window: Duration,
    /// How far ahead somebody's tasks may still join a batch that has room: large, since small batches waste the machine
    /// for everybody.
    pub fill_window: Duration,
    /// A batch that is expected to end within this is not suspended.
    pub suspend_after: Duration,
    /// A best-effort batch that has been suspended for this long is ended, if that is allowed.
    pub suspend_limit: Duration,
    /// How long after the deadlines of all its tasks a batch is ended.
    pub deadline_grace: Duration,
    /// The reservation of the best-effort class on each slot.
    pub best_effort_floor: Rate,
}

impl Tuning {
    /// For slots on CPUs.
    pub const CPU: Self = Self {
        quantum: Duration::from_millis(20),
        window: Duration::from_millis(100),
        fill_window: Duration::from_secs(1),
        suspend_after: Duration::from_micros(250),
        suspend_limit: Duration::from_secs(2),
        deadline_grace: Duration::from_secs(1),
        best_effort_floor: Rate::from_ppm(20_000),
    };
}

impl Default for Tuning {
    fn default() -> Self {
        Self::CPU
    }
}

/// Bounds of everything that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerConfig {
    /// How it is chosen what runs next.
    pub policy: Policy,
    /// The constants of the fair policy.
    pub tuning: Tuning,
    /// Tasks that may wait for placements.
    pub max_queued_tasks: usize,
    /// Payload bytes that may wait for placements; at least one largest request, or that request is always refused.
    pub max_queued_bytes: u64,
    /// Tasks of one tenant that may wait for placements.
    pub max_queued_tasks_per_tenant: usize,
}

/// The books of what waits. Every queued task is entered once and taken off once.
#[derive(Debug)]
pub(crate) struct Backlog {
    config: SchedulerConfig,
    /// Tasks that wait for placements; INVARIANT: the sum of `tenants`.
    placement_tasks: usize,
    placement_bytes: u64,
    /// INVARIANT: no entry is zero, so the map is never larger than the queue.
    tenants: FxHashMap<TenantId, usize>,
    pinned_tasks: usize,
    pinned_bytes: u64,
    cost: Duration,
    /// Decayed sums over finished batches: what they took, and what their tasks were expected to take one by one.
    used_ns: u64,
    expected_ns: u64,
}

impl Backlog {
    pub(crate) fn new(config: SchedulerConfig) -> Self {
        Self {
            config,
            placement_tasks: 0,
            placement_bytes: 0,
            tenants: FxHashMap::default(),
            pinned_tasks: 0,
            pinned_bytes: 0,
            cost: Duration::ZERO,
            used_ns: 0,
            expected_ns: 0,
        }
    }

    pub(crate) fn tasks(&self) -> usize {
        self.placement_tasks + self.pinned_tasks
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.placement_bytes.saturating_add(self.pinned_bytes)
    }

    pub(crate) fn cost(&self) -> Duration {
        self.cost
    }

    /// Whether the bounds leave room for `task`. `pinned` is how many wait for its worker, if it is pinned to one;
    /// `own_most` is its tenant's own bound, if it has one.
    pub(crate) fn room_for(&self, task: &Task, pinned: usize, own_most: Option<u32>) -> Result<(), RejectReason> {
        match task.place {
            Place::Worker(_) if pinned >= MAX_PINNED_TASKS_PER_WORKER => Err(RejectReason::QueueFull),
            Place::Worker(_) => Ok(()),
            Place::Placement(_) => {
                let of_tenant = self.tenants.get(&task.tenant).copied().unwrap_or(0);
                let bytes_fit = self.placement_bytes.saturating_add(task.bytes) <= self.config.max_queued_bytes;
                // The tenant's own bound first: a caller over its share should hear so even when all is full.
                let most = own_most.map_or(self.config.max_queued_tasks_per_tenant, |most| most as usize);
                if of_tenant >= most {
                    Err(RejectReason::TenantQueueFull)
                } else if self.placement_tasks >= self.config.max_queued_tasks || !bytes_fit {
                    Err(RejectReason::QueueFull)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Enters a task that starts to wait and is expected to take `cost`.
    pub(crate) fn enter(&mut self, task: &Task, cost: Duration) {
        self.cost = self.cost.saturating_add(cost);
        match task.place {
            Place::Worker(_) => {
                self.pinned_tasks += 1;
                self.pinned_bytes = self.pinned_bytes.saturating_add(task.bytes);
            }
            Place::Placement(_) => {
                self.placement_tasks += 1;
                self.placement_bytes = self.placement_bytes.saturating_add(task.bytes);
                *self.tenants.entry(task.tenant).or_insert(0) += 1;
            }
        }
    }

    /// Takes off a task that waits no more; `cost` as when it was entered.
    pub(crate) fn leave(&mut self, task: &Task, cost: Duration) {
        self.cost = self.cost.saturating_sub(cost);
        match task.place {
            Place::Worker(_) => {
                self.pinned_tasks = self.pinned_tasks.saturating_sub(1);
                self.pinned_bytes = self.pinned_bytes.saturating_sub(task.bytes);
            }
            Place::Placement(_) => {
                self.placement_tasks = self.placement_tasks.saturating_sub(1);
                self.placement_bytes = self.placement_bytes.saturating_sub(task.bytes);
                if let Some(count) = self.tenants.get_mut(&task.tenant) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        self.tenants.remove(&task.tenant);
                    }
                }
            }
        }
    }

    /// Learns from a finished batch how estimates and reality relate: joining saves work, and estimates are off.
    pub(crate) fn learn(&mut self, expected: Duration, used: Duration) {
        let decay = |sum: u64, new: Duration| (sum - sum / SAVING_MEMORY_BATCHES).saturating_add(nanos(new));
        self.used_ns = decay(self.used_ns, used);
        self.expected_ns = decay(self.expected_ns, expected);
    }

    /// `cost` of tasks one by one, as joining them makes it.
    pub(crate) fn joined_ns(&self, cost_ns: u64) -> u64 {
        let joined = (u128::from(cost_ns) * u128::from(self.used_ns)).checked_div(u128::from(self.expected_ns));
        joined.map_or(cost_ns, |joined| u64::try_from(joined).unwrap_or(u64::MAX))
    }

    /// How long the machine needs to work off what waits and what runs: the advice to a refused caller.
    ///
    /// `running` is the expected rest of the running batches. Under FIFO the backlog as a whole is what stands between
    /// a new task and its turn, whoever sent it.
    pub(crate) fn drain_time(&self, running: Duration, slots: usize) -> Duration {
        let queued_ns = u128::from(nanos(self.cost));
        // Both factors fit in 64 bits, so the product fits in 128. Nothing learned yet: the estimates as they are.
        let corrected_ns =
            (queued_ns * u128::from(self.used_ns)).checked_div(u128::from(self.expected_ns)).unwrap_or(queued_ns);
        let total_ns = corrected_ns + u128::from(nanos(running));
        let per_slot_ns = u64::try_from(total_ns / slots.max(1) as u128).unwrap_or(u64::MAX);
        Duration::from_nanos(per_slot_ns).clamp(MIN_RETRY_AFTER, MAX_RETRY_AFTER)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backlog() -> Backlog {
        Backlog::new(SchedulerConfig {
            policy: Policy::Fifo,
            tuning: Tuning::CPU,
            max_queued_tasks: 1,
            max_queued_bytes: 1,
            max_queued_tasks_per_tenant: 1,
        })
    }

    #[test]
    fn the_advice_follows_the_backlog_over_the_slots_within_its_bounds() {
        let mut backlog = backlog();
        assert_eq!(backlog.drain_time(Duration::ZERO, 4), MIN_RETRY_AFTER);
        backlog.cost = Duration::from_millis(80);
        assert_eq!(backlog.drain_time(Duration::ZERO, 4), Duration::from_millis(20));
        assert_eq!(backlog.drain_time(Duration::from_millis(40), 4), Duration::from_millis(30));
        assert_eq!(backlog.drain_time(Duration::ZERO, 0), Duration::from_millis(80));
        backlog.cost = Duration::MAX;
        assert_eq!(backlog.drain_time(Duration::MAX, 1), MAX_RETRY_AFTER);
    }

    #[test]
    fn the_advice_learns_what_batching_saves() {
        let mut backlog = backlog();
        backlog.cost = Duration::from_millis(80);
        for _ in 0..100 {
            backlog.learn(Duration::from_millis(8), Duration::from_millis(2));
        }
        let advice = backlog.drain_time(Duration::ZERO, 1);
        assert!((19..=21).contains(&advice.as_millis()), "{advice:?}");
        backlog.learn(Duration::MAX, Duration::MAX);
        assert!(backlog.drain_time(Duration::ZERO, 1) <= MAX_RETRY_AFTER);
    }
}
