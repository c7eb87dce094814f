//! The planner: how many replicas each (version, domain) should have, and the steps that bring that about.
//!
//! 1. **Aim.** Each version a deployment names should have `min_replicas` in its owner's own domain, and one where
//!    tasks wait for it; nowhere more than `max_replicas`.
//! 2. **Load** what is missing into ready workers of the domain that do not hold the version yet; where workers are
//!    too few, start some, counting those that start already.
//! 3. **Make room.** If there may be no more workers, stop the longest idle one that holds nothing the aim needs.
//! 4. **Shrink.** Unload idle replicas that no deployment names, that exceed the bounds, that were idle too long or let go;
//!    stop workers that were empty and idle too long.
//!
//! It cannot swing back and forth: steps 3 and 4 take only what exceeds the aim, and steps 1 and 2 add only what falls
//! short of it, so nothing that one of them does is undone by the other while the aim stays.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tenantry_types::{DataOwner, MonotonicTime, ReplicaId, TrustDomain, VersionId, WorkerId};

use crate::state::{
    Blocked, BlockedReason, Desired, DesiredDeployment, Observed, ObservedReplica, ObservedWorker, Plan, PlanLimits,
    ReplicaState, Step, WorkerState,
};

/// When a replica that is to go but has work is looked at again, at the soonest.
const BUSY_RECHECK: Duration = Duration::from_secs(1);

/// A version in a domain: the unit that has replicas.
type Pair = (TrustDomain, VersionId);

/// Compares what is wanted with what is there at `now`.
pub fn plan(now: MonotonicTime, desired: &Desired, observed: &Observed, limits: &PlanLimits) -> Plan {
    let mut planner = Planner::new(now, desired, observed, limits);
    planner.load();
    planner.start_workers();
    planner.unload();
    planner.watch_busy();
    planner.stop_idle_workers();
    planner.finish(desired.generation)
}

/// What the deployments say about a version, joined.
#[derive(Debug, Clone, Copy)]
struct Wish {
    /// The domain in which the minimum is kept.
    home: TrustDomain,
    any_data: bool,
    min: u32,
    max: u32,
    idle_after: Option<Duration>,
}

impl Wish {
    fn of(deployment: &DesiredDeployment) -> Self {
        let data_owner = if deployment.any_data { DataOwner::Any } else { DataOwner::Tenant(deployment.owner) };
        Self {
            home: TrustDomain { model_owner: deployment.owner, data_owner },
            any_data: deployment.any_data,
            min: deployment.min_replicas.min(deployment.max_replicas),
            max: deployment.max_replicas,
            idle_after: deployment.idle_after,
        }
    }

    fn join(&mut self, other: Self) {
        if self.any_data != other.any_data {
            // They contradict each other; then the stricter isolation holds.
            self.any_data = false;
            self.home.data_owner = DataOwner::Tenant(self.home.model_owner);
        }
        self.min = self.min.max(other.min);
        self.max = self.max.max(other.max);
        // `None` means for ever, which is the longest.
        self.idle_after = self.idle_after.zip(other.idle_after).map(|(one, another)| one.max(another));
    }

    /// Whether the version may run in `domain` at all. Data of many tenants meet only in models published for that.
    fn allows(&self, domain: &TrustDomain) -> bool {
        domain.model_owner == self.home.model_owner && (self.any_data || domain.data_owner != DataOwner::Any)
    }
}

/// The replicas a pair has and should have.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    /// Loading or ready, in workers that stay.
    present: u32,
    /// What they should be at least.
    aim: u32,
}

struct Planner<'a> {
    now: MonotonicTime,
    limits: &'a PlanLimits,
    wishes: BTreeMap<VersionId, Wish>,
    counts: BTreeMap<Pair, Count>,
    let_go: BTreeSet<ReplicaId>,
    /// Versions that tasks wait for, by domain.
    waited_for: BTreeSet<Pair>,
    quarantined: BTreeMap<(VersionId, Option<TrustDomain>), MonotonicTime>,
    /// By id, so that plans do not depend on the order of observation.
    workers: BTreeMap<WorkerId, &'a ObservedWorker>,
    /// Replicas in workers that stay, by id.
    replicas: BTreeMap<ReplicaId, &'a ObservedReplica>,
    /// The versions each worker holds, and whether more than a replica on its way out: it holds a version at most once.
    held: BTreeMap<WorkerId, BTreeMap<VersionId, bool>>,
    shortages: BTreeMap<TrustDomain, Shortage>,
    /// Workers that got a load in this plan.
    loading: BTreeSet<WorkerId>,
    /// Workers to stop in this plan.
    stopping: BTreeSet<WorkerId>,
    unloads: Vec<Step>,
    loads: Vec<Step>,
    starts: Vec<Step>,
    blocked: Vec<Blocked>,
    wake: Option<MonotonicTime>,
}

/// A domain that has too few workers.
#[derive(Debug, Default)]
struct Shortage {
    /// Workers that would have to start.
    workers: u32,
    /// How many of them for tasks that wait rather than for a minimum.
    waited_for: u32,
    /// The versions that lack replicas, and how many workers each would need.
    versions: Vec<(VersionId, u32)>,
}

impl<'a> Planner<'a> {
    fn new(now: MonotonicTime, desired: &Desired, observed: &'a Observed, limits: &'a PlanLimits) -> Self {
        let mut wishes: BTreeMap<VersionId, Wish> = BTreeMap::new();
        for deployment in desired.deployments.iter().filter(|deployment| deployment.max_replicas > 0) {
            let wish = Wish::of(deployment);
            wishes.entry(deployment.version).and_modify(|known| known.join(wish)).or_insert(wish);
        }
        let workers: BTreeMap<_, _> = observed.workers.iter().map(|worker| (worker.id, worker)).collect();
        let stays = |replica: &&ObservedReplica| {
            workers.get(&replica.worker).is_some_and(|worker| worker.state != WorkerState::Stopping)
        };
        let replicas: BTreeMap<_, _> =
            observed.replicas.iter().filter(stays).map(|replica| (replica.id, replica)).collect();

        let mut counts: BTreeMap<Pair, Count> = BTreeMap::new();
        for replica in replicas.values().filter(|replica| replica.state != ReplicaState::Unloading) {
            counts.entry((replica.domain, replica.version)).or_default().present += 1;
        }
        for (&version, wish) in &wishes {
            counts.entry((wish.home, version)).or_default().aim = wish.min;
        }
        let served = |version, domain: &TrustDomain| wishes.get(&version).is_some_and(|wish| wish.allows(domain));
        let waited_for: BTreeSet<Pair> = observed
            .demand
            .iter()
            .filter(|demand| demand.waiting > 0 && served(demand.version, &demand.domain))
            .map(|demand| (demand.domain, demand.version))
            .collect();
        for &pair in &waited_for {
            let count = counts.entry(pair).or_default();
            count.aim = count.aim.max(1);
        }

        let mut held: BTreeMap<WorkerId, BTreeMap<VersionId, bool>> = BTreeMap::new();
        for replica in replicas.values() {
            *held.entry(replica.worker).or_default().entry(replica.version).or_default() |=
                replica.state != ReplicaState::Unloading;
        }
        let mut quarantined: BTreeMap<(VersionId, Option<TrustDomain>), MonotonicTime> = BTreeMap::new();
        for entry in observed.quarantined.iter().filter(|entry| entry.until > now) {
            let until = quarantined.entry((entry.version, entry.domain)).or_insert(entry.until);
            *until = entry.until.max(*until);
        }
        Self {
            now,
            limits,
            wishes,
            counts,
            let_go: desired.let_go.iter().copied().collect(),
            waited_for,
            quarantined,
            held,
            shortages: BTreeMap::new(),
            workers,
            replicas,
            loading: BTreeSet::new(),
            stopping: BTreeSet::new(),
            unloads: Vec::new(),
            loads: Vec::new(),
            starts: Vec::new(),
            blocked: Vec::new(),
            wake: None,
        }
    }

    /// Loads what is missing into workers that are there, and notes where workers are missing.
    fn load(&mut self) {
        let mut homes: BTreeMap<TrustDomain, Vec<&ObservedWorker>> = BTreeMap::new();
        for worker in self.workers.values().filter(|worker| worker.state != WorkerState::Stopping) {
            homes.entry(worker.domain).or_default().push(worker);
        }
        let missing: Vec<(Pair, u32)> = self
            .counts
            .iter()
            .filter(|(_, count)| count.present < count.aim)
            .map(|(&pair, count)| (pair, count.aim - count.present))
            .collect();
        for ((domain, version), missing) in missing {
            let everywhere = self.quarantined.get(&(version, None));
            if let Some(&until) = everywhere.max(self.quarantined.get(&(version, Some(domain)))) {
                self.blocked.push(Blocked { version, domain, reason: BlockedReason::Quarantined });
                self.wake_at(until);
                continue;
            }
            let mut open = Vec::new();
            let mut coming = 0;
            for worker in homes.get(&domain).map(Vec::as_slice).unwrap_or_default() {
                let held = self.held.get(&worker.id);
                match (worker.state, held.and_then(|versions| versions.get(&version))) {
                    (WorkerState::Ready, None) => open.push((held.map_or(0, BTreeMap::len), worker.id)),
                    // It will be ready, or the old replica in it will be gone, without another step.
                    (WorkerState::Starting, _) | (WorkerState::Ready, Some(false)) => coming += 1,
                    (WorkerState::Ready, Some(true)) | (WorkerState::Stopping, _) => {}
                }
            }
            open.sort_unstable();
            open.truncate(missing as usize);
            for &(_, worker) in &open {
                self.loads.push(Step::Load { worker, version, domain });
                self.held.entry(worker).or_default().insert(version, true);
                self.loading.insert(worker);
            }
            let loaded = open.len() as u32;
            self.counts.entry((domain, version)).or_default().present += loaded;
            let workers = missing.saturating_sub(loaded).saturating_sub(coming).min(self.limits.max_workers.max(1));
            if workers > 0 {
                let shortage = self.shortages.entry(domain).or_default();
                shortage.workers = shortage.workers.max(workers);
                if self.waited_for.contains(&(domain, version)) {
                    // One replica is what tasks wait for; the rest of the aim is the minimum's.
                    shortage.waited_for = 1;
                }
                shortage.versions.push((version, workers));
            }
        }
    }

    /// Starts the workers that are missing, as far as there is room, and makes room where there is none.
    fn start_workers(&mut self) {
        // Those somebody waits for come first, then every domain its first worker, its second and so on.
        let mut requests: Vec<(bool, u32, TrustDomain)> = Vec::new();
        for (&domain, shortage) in &self.shortages {
            requests.extend((0..shortage.workers).map(|number| (number >= shortage.waited_for, number, domain)));
        }
        requests.sort_unstable();

        let total = self.workers.len();
        let leaving = self.workers.values().filter(|worker| worker.state == WorkerState::Stopping).count();
        let room = (self.limits.max_workers as usize).saturating_sub(total);
        let unmet = requests.len().saturating_sub(room);
        let freed = leaving + self.make_room(unmet.saturating_sub(leaving));

        let mut granted: BTreeMap<TrustDomain, u32> = BTreeMap::new();
        for (position, &(_, _, domain)) in requests.iter().enumerate() {
            if position < room {
                self.starts.push(Step::StartWorker { domain });
            }
            // What gets its turn once a worker on its way out is gone is late, not blocked.
            if position < room + freed {
                *granted.entry(domain).or_default() += 1;
            }
        }
        for (&domain, shortage) in &self.shortages {
            let granted = granted.get(&domain).copied().unwrap_or(0);
            for &(version, _) in shortage.versions.iter().filter(|&&(_, workers)| workers > granted) {
                self.blocked.push(Blocked { version, domain, reason: BlockedReason::NoRoomForWorker });
            }
        }
    }

    /// Stops up to `wanted` idle workers that the aim does not need, the longest idle first; returns how many.
    fn make_room(&mut self, wanted: usize) -> usize {
        if wanted == 0 {
            return 0;
        }
        let mut idle: Vec<(MonotonicTime, WorkerId)> = self
            .workers
            .values()
            .filter(|worker| worker.state == WorkerState::Ready && !self.loading.contains(&worker.id))
            .filter_map(|worker| Some((worker.idle_since?, worker.id)))
            .collect();
        idle.sort_unstable();
        let mut replicas_of: BTreeMap<WorkerId, Vec<&ObservedReplica>> = BTreeMap::new();
        for replica in self.replicas.values() {
            replicas_of.entry(replica.worker).or_default().push(replica);
        }
        let mut stopped = 0;
        for (_, worker) in idle {
            let replicas = replicas_of.get(&worker).map(Vec::as_slice).unwrap_or_default();
            // One that changes just now is counted on: what it unloads may be loaded into it again.
            let spare = replicas.iter().all(|replica| {
                let count = self.counts.get(&(replica.domain, replica.version)).copied().unwrap_or_default();
                replica.state == ReplicaState::Ready && replica.idle_since.is_some() && count.present > count.aim
            });
            if !spare {
                continue;
            }
            for replica in replicas {
                let count = self.counts.entry((replica.domain, replica.version)).or_default();
                count.present = count.present.saturating_sub(1);
            }
            self.stopping.insert(worker);
            stopped += 1;
            if stopped == wanted {
                break;
            }
        }
        stopped
    }

    /// Unloads idle replicas that are too many, or were idle too long, or that no deployment names any more.
    fn unload(&mut self) {
        let mut idle: BTreeMap<Pair, Vec<(MonotonicTime, ReplicaId)>> = BTreeMap::new();
        for replica in self.replicas.values() {
            if let (ReplicaState::Ready, Some(since), false) =
                (replica.state, replica.idle_since, self.stopping.contains(&replica.worker))
            {
                idle.entry((replica.domain, replica.version)).or_default().push((since, replica.id));
            }
        }
        for ((domain, version), mut replicas) in idle {
            replicas.sort_unstable();
            let Count { mut present, aim } = self.counts.get(&(domain, version)).copied().unwrap_or_default();
            let wish = self.wishes.get(&version).copied().filter(|wish| wish.allows(&domain));
            for (since, replica) in replicas {
                let leaves_at = match wish {
                    None => Some(self.now),
                    Some(wish) if present > wish.max => Some(self.now),
                    Some(_) if present > aim && self.let_go.contains(&replica) => Some(self.now),
                    Some(wish) if present > aim => wish.idle_after.map(|after| since.saturating_add(after)),
                    Some(_) => None,
                };
                match leaves_at {
                    Some(at) if at <= self.now => {
                        self.unloads.push(Step::Unload { replica });
                        present = present.saturating_sub(1);
                    }
                    Some(at) => self.wake_at(at),
                    None => {}
                }
            }
        }
    }

    /// Looks again at replicas that are to go but have work: nobody reports that one fell idle, since that happens after
    /// every request of a quiet model.
    fn watch_busy(&mut self) {
        let busy = self.replicas.values().filter(|replica| {
            replica.state == ReplicaState::Ready
                && replica.idle_since.is_none()
                && !self.stopping.contains(&replica.worker)
        });
        let wakes: Vec<MonotonicTime> = busy
            .filter_map(|replica| {
                let Count { present, aim } =
                    self.counts.get(&(replica.domain, replica.version)).copied().unwrap_or_default();
                let patience = match self.wishes.get(&replica.version).filter(|wish| wish.allows(&replica.domain)) {
                    Some(wish) if present <= wish.max && present > aim => wish.idle_after?.max(BUSY_RECHECK),
                    Some(wish) if present <= wish.max => return None,
                    Some(_) | None => BUSY_RECHECK,
                };
                Some(self.now.saturating_add(patience))
            })
            .collect();
        for at in wakes {
            self.wake_at(at);
        }
    }

    /// Stops workers that have been empty and idle for long enough.
    fn stop_idle_workers(&mut self) {
        let empty = |worker: &&&ObservedWorker| {
            worker.state == WorkerState::Ready
                && !self.held.contains_key(&worker.id)
                && !self.stopping.contains(&worker.id)
        };
        let idle: Vec<(WorkerId, MonotonicTime)> = self
            .workers
            .values()
            .filter(empty)
            .filter_map(|worker| Some((worker.id, worker.idle_since?.saturating_add(self.limits.worker_idle))))
            .collect();
        for (worker, at) in idle {
            if at <= self.now {
                self.stopping.insert(worker);
            } else {
                self.wake_at(at);
            }
        }
    }

    fn wake_at(&mut self, at: MonotonicTime) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// Room is made before it is used.
    fn finish(self, generation: u64) -> Plan {
        let mut steps = self.unloads;
        steps.sort_unstable();
        steps.extend(self.stopping.into_iter().map(|worker| Step::StopWorker { worker }));
        steps.extend(self.loads);
        steps.extend(self.starts);
        Plan { generation, steps, wake: self.wake, blocked: self.blocked }
    }
}

#[cfg(test)]
mod tests;
