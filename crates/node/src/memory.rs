//! Watches how much memory the machine has left, and lets the scheduler end what may be ended before the kernel ends
//! something that may not.
//!
//! What counts is `MemAvailable` of `/proc/meminfo`: what could be used without swapping, caches that can be dropped
//! included. It is the machine's, whatever control group the server is in.

use std::sync::Arc;
use std::time::Duration;

use tenantry_sched::Event;
use tenantry_types::{MonotonicTime, TenantId};

use crate::data_plane::Node;
use crate::worker::Work;

const MEMINFO: &str = "/proc/meminfo";
/// How often the machine's memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long the end of one batch is given to show before the next one is asked for: longer than a run may take to end
/// when it is asked to.
const PATIENCE: Duration = Duration::from_millis(500);

/// What is available, and when something was last ended for it.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    asked: Option<MonotonicTime>,
}

impl Watch {
    /// Whether to ask for the end of a batch now.
    fn is_due(&mut self, available_bytes: u64, floor_bytes: u64, now: MonotonicTime) -> bool {
        let is_short = available_bytes < floor_bytes;
        let is_due = is_short && self.asked.is_none_or(|asked| now.saturating_since(asked) >= PATIENCE);
        if is_due {
            self.asked = Some(now);
        }
        is_due
    }
}

impl Node {
    /// Looks at the machine's memory for as long as the node lives.
    pub(crate) async fn watch_memory(self: Arc<Self>) {
        if self.config.memory_floor_bytes == 0 {
            return;
        }
        let mut watch = Watch::default();
        let mut interval = tokio::time::interval(LOOK_EVERY);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            match std::fs::read_to_string(MEMINFO).ok().as_deref().and_then(available_bytes) {
                Some(available) => self.note_memory(&mut watch, available),
                None => {
                    tracing::warn!("this machine does not say how much memory it has left; it is not watched");
                    return;
                }
            }
        }
    }

    /// So much is available now.
    pub(crate) fn note_memory(self: &Arc<Self>, watch: &mut Watch, available_bytes: u64) {
        let floor_bytes = self.config.memory_floor_bytes;
        if watch.is_due(available_bytes, floor_bytes, self.now()) {
            tracing::warn!(
                available_bytes,
                floor_bytes,
                "the machine is short of memory; a batch that may be is ended"
            );
            self.push(Event::MemoryShort { needed_by: self.loading_for() });
            self.pump();
        }
    }

    /// For whom a model is being loaded, if that is one tenant: it is who needs the memory.
    fn loading_for(&self) -> Option<TenantId> {
        let workers = self.fleet.lock().all_workers();
        let mut tenants = workers.iter().filter_map(|worker| match &worker.exec().running.as_ref()?.work {
            Work::Load(load) => Some(load.payer.tenant),
            Work::Infer { .. } | Work::Register(_) => None,
        });
        let first = tenants.next()?;
        tenants.all(|tenant| tenant == first).then_some(first)
    }
}

/// `MemAvailable`, bytes.
fn available_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_understood() {
        let text = "MemTotal:       16384000 kB\nMemFree:          123456 kB\nMemAvailable:    2048000 kB\n";
        assert_eq!(available_bytes(text), Some(2_048_000 * 1024));
        for text in [
            "",
            "MemFree: 1 kB\n",
            "MemAvailable: x kB\n",
            "MemAvailable: 7\n",
            "MemAvailable: 99999999999999999999 kB",
        ] {
            assert_eq!(available_bytes(text), None, "{text}");
        }
        let here = std::fs::read_to_string(MEMINFO).unwrap();
        assert!(available_bytes(&here).is_some_and(|bytes| bytes > 0));
    }

    #[test]
    fn one_batch_at_a_time_is_given_time_to_end() {
        let at = |millis: u64| MonotonicTime::from_nanos(millis * 1_000_000);
        let mut watch = Watch::default();
        assert!(!watch.is_due(100, 100, at(0)));
        assert!(watch.is_due(99, 100, at(1)));
        assert!(!watch.is_due(98, 100, at(500)));
        assert!(watch.is_due(98, 100, at(501)));
        assert!(!watch.is_due(200, 100, at(2000)));
        assert!(watch.is_due(0, 100, at(2001)));
    }
}
