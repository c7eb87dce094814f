//! Slots as groups of processors: a worker runs where the slot of its batch is.

use tenantry_types::SlotId;

use crate::config::NodeConfig;
use crate::worker::{Exec, Worker};

/// The processors of each slot; none where no slot is pinned.
#[derive(Debug)]
pub(crate) struct SlotCores {
    of: Vec<Vec<usize>>,
}

impl SlotCores {
    /// As configured. As soon as one slot is pinned all are: a worker must not stay on the processors of the slot it was
    /// on before. A slot without processors of its own then has all that workers may use.
    pub(crate) fn of(config: &NodeConfig) -> Self {
        let configured = |slot: u16| config.slot_cores.get(usize::from(slot)).filter(|cores| !cores.is_empty());
        let slots = 0..config.slots.max(1);
        if slots.clone().all(|slot| configured(slot).is_none()) {
            return Self { of: Vec::new() };
        }
        let all = if config.worker_cpus.is_empty() { own_processors() } else { config.worker_cpus.clone() };
        Self { of: slots.map(|slot| configured(slot).unwrap_or(&all).clone()).collect() }
    }

    /// How many processors the slot has; `None` where nothing is pinned.
    pub(crate) fn width(&self, slot: SlotId) -> Option<u16> {
        u16::try_from(self.cores(slot)?.len()).ok()
    }

    /// The width of the narrowest slot: what a model is measured with. `None` where nothing is pinned.
    pub(crate) fn narrowest(&self) -> Option<u16> {
        self.of.iter().map(Vec::len).min().and_then(|width| u16::try_from(width).ok())
    }

    /// Moves the worker to the slot's processors, unless it is there. It must be idle, so that no run is split between the
    /// places. Where the kernel refuses it stays where it is, which is slower and still right.
    pub(crate) fn place(&self, worker: &Worker, exec: &mut Exec, slot: SlotId) {
        if self.of.is_empty() || exec.slot == Some(slot) {
            return;
        }
        let here = exec.slot.and_then(|slot| self.cores(slot));
        let there = self.cores(slot);
        if let Some(cores) = there.filter(|_| here != there)
            && let Err(error) = worker.pin(cores)
        {
            tracing::warn!(worker = %worker.id, %slot, %error, "a worker could not be moved to the processors of its slot");
        }
        exec.slot = Some(slot);
    }

    fn cores(&self, slot: SlotId) -> Option<&[usize]> {
        self.of.get(usize::try_from(slot.0).ok()?).map(Vec::as_slice)
    }
}

/// The processors this process may use.
fn own_processors() -> Vec<usize> {
    let set = rustix::thread::sched_getaffinity(None).unwrap_or_default();
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(slots: u16, slot_cores: &[&[usize]], worker_cpus: &[usize]) -> NodeConfig {
        NodeConfig {
            slots,
            slot_cores: slot_cores.iter().map(|cores| cores.to_vec()).collect(),
            worker_cpus: worker_cpus.to_vec(),
            ..NodeConfig::small("worker".into(), "library".into())
        }
    }

    #[test]
    fn one_pinned_slot_pins_all() {
        let none = SlotCores::of(&config(2, &[&[], &[]], &[4]));
        assert_eq!((none.width(SlotId(0)), none.narrowest()), (None, None));
        let some = SlotCores::of(&config(3, &[&[], &[1, 2]], &[4, 5, 6]));
        assert_eq!(some.of, [vec![4, 5, 6], vec![1, 2], vec![4, 5, 6]]);
        assert_eq!((some.width(SlotId(1)), some.narrowest()), (Some(2), Some(2)));
        assert!(!own_processors().is_empty());
    }
}
