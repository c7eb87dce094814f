//! Settings that change while the scheduler runs.

use tenantry_types::{DeploymentId, KeyId, TenantId};

use crate::admission::Policy;
use crate::queue::Sequence;
use crate::reserve::Tag;
use crate::scheduler::{Scheduler, nanos};
use crate::share::{MAX_RESERVED_PER_SLOT, Rate, Reservation, Share, Subject, Tier};
use crate::tree::Key;

/// Under which key a subject's reservation is kept. Organisations have none of their own.
pub(super) fn reserve_key(subject: Subject) -> Option<Key> {
    match subject {
        Subject::Organisation(_) => None,
        Subject::Tenant(tenant) => Some(Key::Tenant(tenant)),
        Subject::Deployment(tenant, deployment) => Some(Key::Deployment(tenant, Some(deployment))),
        // One for all deployments the key calls.
        Subject::Key(tenant, key) => Some(Key::Flow(tenant, None, Some(key))),
    }
}

/// The keys of the reservations a task may belong to, the nearest first.
pub(super) fn reserve_key_of(
    tenant: TenantId,
    deployment: Option<DeploymentId>,
    key: Option<KeyId>,
) -> [Option<Key>; 3] {
    [
        key.map(|key| Key::Flow(tenant, None, Some(key))),
        deployment.map(|deployment| Key::Deployment(tenant, Some(deployment))),
        Some(Key::Tenant(tenant)),
    ]
}

impl Scheduler {
    pub(super) fn set_policy(&mut self, policy: Policy) {
        if self.policy != policy {
            let waiting = self.detach_all();
            self.policy = policy;
            self.tree.restart();
            for member in self.running.values_mut().flat_map(|running| &mut running.members) {
                member.by_weight = false;
            }
            self.attach_all(&waiting);
        }
    }

    pub(super) fn set_share(&mut self, subject: Subject, share: Option<Share>) {
        let moves = {
            // Nodes move only while nothing hangs on them, and whether they will is known only after the change.
            let was = self.tree.settings(&subject).copied();
            let is_keyed = matches!(subject, Subject::Key(..)) && was.is_none() != share.is_none();
            let place = |share: Option<Share>| {
                let share = share.unwrap_or_default();
                (share.organisation, share.group, share.tier == Some(Tier::BestEffort))
            };
            is_keyed || (matches!(subject, Subject::Tenant(_)) && place(was) != place(share))
        };
        let waiting = if moves { self.detach_all() } else { Vec::new() };
        self.tree.set(subject, share);
        if moves {
            self.tree.rehang();
            if let Subject::Tenant(tenant) = subject {
                let reserves = &self.reserves;
                for waiting in self.waiting.values_mut().filter(|waiting| waiting.task.tenant == tenant) {
                    waiting.tag = waiting.tag.filter(|tag| !reserves.is_floor(tag.reserve));
                }
            }
        }
        self.set_reservation(subject, share.and_then(|share| share.reservation));
        if let Subject::Tenant(tenant) = subject {
            self.refresh_reserves_of(tenant);
        }
        self.rehome();
        if moves {
            self.attach_all(&waiting);
        }
    }

    fn set_reservation(&mut self, subject: Subject, reservation: Option<Reservation>) {
        let Some(key) = reserve_key(subject) else { return };
        match reservation.filter(|reservation| reservation.rate.ppm() > 0) {
            Some(reservation) => {
                let (group, guaranteed) = self.standing(key);
                self.reserves.set(key, group, reservation, guaranteed);
            }
            None => {
                self.reserves.remove(&key);
                self.forget_tags();
            }
        }
    }

    /// The group and the guarantee of a reservation, which follow its tenant's settings.
    fn standing(&self, key: Key) -> (crate::SlotGroup, bool) {
        let (tenant, deployment, key) = match key {
            Key::Tenant(tenant) => (tenant, None, None),
            Key::Deployment(tenant, deployment) => (tenant, deployment, None),
            Key::Flow(tenant, deployment, key) => (tenant, deployment, key),
            Key::Root(group) | Key::BestEffort(group) | Key::Organisation(group, _) => return (group, false),
        };
        (self.tree.group_of(tenant), self.tree.tier(tenant, deployment, key) == Tier::Guaranteed)
    }

    /// Takes their tags from the tasks of reservations that are gone: their numbers come again.
    fn forget_tags(&mut self) {
        let reserves = &self.reserves;
        let is_known = |tag: &Tag| reserves.get(tag.reserve).is_some();
        for waiting in self.waiting.values_mut() {
            waiting.tag = waiting.tag.filter(is_known);
        }
        for member in self.running.values_mut().flat_map(|running| &mut running.members) {
            member.waiting.tag = member.waiting.tag.filter(is_known);
        }
    }

    fn refresh_reserves_of(&mut self, tenant: TenantId) {
        let of_tenant: Vec<(Key, Reservation)> = self
            .reserves
            .iter()
            .filter(|(_, reserve)| match reserve.key {
                Key::Tenant(of) | Key::Deployment(of, _) | Key::Flow(of, ..) => of == tenant,
                _ => false,
            })
            .map(|(_, reserve)| (reserve.key, reserve.settings))
            .collect();
        for (key, settings) in of_tenant {
            let (group, guaranteed) = self.standing(key);
            self.reserves.set(key, group, settings, guaranteed);
        }
    }

    pub(super) fn rehome(&mut self) {
        if !self.reserves.is_empty() {
            let floors: Vec<Key> = self.reserves.iter().map(|(_, reserve)| reserve.key).collect();
            for key in floors {
                if let Key::BestEffort(group) = key {
                    self.set_floor(key, group);
                }
            }
            self.reserves.rehome(&self.slots.by_group(), MAX_RESERVED_PER_SLOT);
        }
    }

    /// A reserved task waits no more, or is done, and its reservation served it with so much device time.
    pub(super) fn forgive(&mut self, tag: Tag, used_ns: u64) {
        self.reserves.spare(tag, used_ns);
        let home = self.reserves.get(tag.reserve).and_then(|reserve| self.slots.get(reserve.home?));
        // What lies suspended there has to go on first, if its worker is needed.
        let there = home.map(|slot| [slot.running, slot.suspended]).into_iter().flatten().flatten();
        let rest_ns = |running: &super::Running| running.upper_ns.saturating_sub(nanos(running.ran_by(self.now)));
        let busy_ns = there.filter_map(|batch| self.running.get(&batch)).map(rest_ns).fold(0, u64::saturating_add);
        let at = self.now.saturating_add(std::time::Duration::from_nanos(busy_ns));
        self.reserves.forgive(tag.reserve, self.now, at, self.tuning.quantum);
    }

    /// The best-effort class has its floor from its first task on.
    pub(super) fn ensure_floor(&mut self, tenant: TenantId) {
        if self.policy != Policy::Fair || self.tree.tier(tenant, None, None) != Tier::BestEffort {
            return;
        }
        let group = self.tree.group_of(tenant);
        let key = Key::BestEffort(group);
        if self.reserves.find(&key).is_none() {
            self.set_floor(key, group);
        }
    }

    /// As much of each slot there is.
    fn set_floor(&mut self, key: Key, group: crate::SlotGroup) {
        let slots = self.slots.len_of(group).max(1);
        let rate = Rate::from_ppm(self.tuning.best_effort_floor.ppm().saturating_mul(slots));
        if rate.ppm() > 0 {
            self.reserves.set(key, group, Reservation { rate, burst: std::time::Duration::ZERO }, false);
        }
    }

    fn detach_all(&mut self) -> Vec<Sequence> {
        let mut waiting: Vec<Sequence> = self.waiting.keys().copied().collect();
        waiting.sort_unstable();
        for &sequence in &waiting {
            self.detach(sequence);
        }
        waiting
    }

    fn attach_all(&mut self, waiting: &[Sequence]) {
        for &sequence in waiting {
            self.attach(sequence);
        }
    }
}
