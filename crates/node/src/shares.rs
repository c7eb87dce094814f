//! Who is promised what, as the scheduler is told and as it tells.

use std::collections::BTreeMap;
use std::sync::Arc;

use tenantry_sched::{Event, Policy, Scheduler, Share, SlotGroup, Subject, Usage};

use crate::data_plane::Node;

impl Node {
    /// What recordings call the tenants; those without a name are called by their ids.
    pub fn set_tenant_names(&self, names: impl FnOnce() -> Vec<(tenantry_types::TenantId, String)>) {
        if let Some(recorder) = &self.recorder {
            recorder.set_names(names());
        }
    }

    /// Changes the settings of nodes of the share tree, all in one step; absent: the default ones again.
    pub fn set_shares(self: &Arc<Self>, shares: Vec<(Subject, Option<Share>)>) {
        let mut weights = self.cpu_weights.lock();
        let mut reweigh = false;
        for (subject, share) in shares {
            reweigh |= weights.change(subject, share);
            self.push(Event::Share { subject, share });
        }
        if reweigh {
            // With the weights still locked, so that a worker that starts meanwhile gets the new one by either way.
            for worker in self.fleet.lock().all_workers() {
                worker.set_cpu_weight(weights.of(worker.domain, worker.purpose));
            }
        }
        drop(weights);
        self.pump();
    }

    /// How many slots each group has; what reservations are checked against.
    pub fn slot_groups(&self) -> BTreeMap<SlotGroup, u32> {
        let mut groups = BTreeMap::new();
        for slot in 0..self.config.slots.max(1) {
            *groups.entry(self.config.group_of(slot)).or_insert(0) += 1;
        }
        groups
    }

    /// Changes how it is chosen what runs next.
    pub fn set_policy(self: &Arc<Self>, policy: Policy) {
        // Under the lock, so that two switches reach the scheduler in the order in which they are remembered.
        let mut known = self.policy.lock();
        *known = policy;
        self.push(Event::Policy { policy });
        drop(known);
        self.pump();
    }

    /// How it is chosen what runs next.
    pub fn policy(&self) -> Policy {
        *self.policy.lock()
    }

    /// What each tenant, and each deployment as it calls it, has been charged, and what of it waits and runs.
    pub fn usage(self: &Arc<Self>) -> Vec<Usage> {
        self.with_scheduler(Scheduler::usage)
    }
}
