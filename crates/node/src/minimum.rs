//! How well workers must be kept apart before they may load or run something, and what happens to those that are not.
//!
//! A tenant and a model each may demand a level. What counts for a replica is the highest of what the configuration, the
//! model, its owner and the owner of the data demand; what counts for one request is the highest of that and of what its
//! own tenant demands, which differs where one worker serves everybody's data. It is looked at when a request arrives, when
//! a worker is started, when a load is sent, when a batch is sent, and again whenever the demands or the barriers change:
//! what is below its minimum then is ended, and what waits for it is refused.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tenantry_jail::{Layers, Level};
use tenantry_sched::Event;
use tenantry_types::{DataOwner, TenantId, TrustDomain, VersionId, WorkerId};

use crate::data_plane::{Node, batching};
use crate::placement::Placement;
use crate::submission::ServeError;
use crate::worker::{Request, Work, Worker};

/// Who demands what. Who is not in it demands nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Minimums {
    /// For whatever a tenant owns, models and data.
    pub tenants: HashMap<TenantId, Level>,
    /// For versions, as their models' owners say.
    pub versions: HashMap<VersionId, Level>,
}

impl Minimums {
    fn of_tenant(&self, tenant: TenantId) -> Level {
        self.tenants.get(&tenant).copied().unwrap_or_default()
    }

    fn of_version(&self, version: VersionId) -> Level {
        self.versions.get(&version).copied().unwrap_or_default()
    }

    fn of_domain(&self, domain: TrustDomain) -> Level {
        let data = match domain.data_owner {
            DataOwner::Tenant(tenant) => self.of_tenant(tenant),
            DataOwner::Any => Level::None,
        };
        data.max(self.of_tenant(domain.model_owner))
    }

    /// The least level at which a placement may be loaded.
    fn of_placement(&self, placement: &Placement) -> Level {
        self.of_domain(placement.domain).max(self.of_version(placement.spec.version))
    }
}

/// Workers are kept apart less well than is demanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortfall {
    /// What the barriers around them amount to.
    pub in_force: Level,
    /// What they would have to amount to.
    pub demanded: Level,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { in_force, demanded } = self;
        write!(f, "workers here are isolated to the level `{in_force}`, and at least `{demanded}` is demanded")
    }
}

impl Node {
    /// Whoever holds a lock may ask: this one is let go of at once.
    fn minimums(&self) -> Arc<Minimums> {
        Arc::clone(&self.minimums.read())
    }

    /// What the barriers around workers that are started now amount to.
    pub fn level(&self) -> Level {
        self.spawner.read().1.barriers().in_force.and(self.config.layers).level()
    }

    /// The least level the configuration lets a worker be started at.
    pub fn configured_minimum(&self) -> Level {
        self.config.min_isolation
    }

    /// Why something for which at least `demanded` is demanded cannot be run here, if so.
    pub fn shortfall(&self, demanded: Level) -> Option<Shortfall> {
        self.shortfall_of(self.level(), demanded)
    }

    fn shortfall_of(&self, in_force: Level, demanded: Level) -> Option<Shortfall> {
        let demanded = demanded.max(self.config.min_isolation);
        (in_force < demanded).then_some(Shortfall { in_force, demanded })
    }

    /// Why a tenant's request to a placement cannot be run here, if so.
    pub(crate) fn shortfall_for(&self, placement: &Placement, tenant: TenantId) -> Option<Shortfall> {
        let minimums = self.minimums();
        self.shortfall(minimums.of_placement(placement).max(minimums.of_tenant(tenant)))
    }

    /// Why no worker may be started for this trust domain, if so. `version`: the one it is started for, where that is known.
    pub(crate) fn shortfall_in(
        &self,
        in_force: Level,
        domain: TrustDomain,
        version: Option<VersionId>,
    ) -> Option<Shortfall> {
        let minimums = self.minimums();
        let of_version = version.map_or(Level::None, |version| minimums.of_version(version));
        self.shortfall_of(in_force, minimums.of_domain(domain).max(of_version))
    }

    /// Why a placement may not be loaded into this worker, if so.
    pub(crate) fn load_shortfall(&self, worker: &Worker, placement: &Placement) -> Option<Shortfall> {
        let demanded = self.minimums().of_placement(placement);
        self.shortfall_of(self.level_of(worker), demanded)
    }

    /// What the barriers around a worker amount to; before it has any, what they are going to.
    fn level_of(&self, worker: &Worker) -> Level {
        match Layers::from_bits(worker.layers.load(Ordering::Acquire)) {
            Layers::NONE => self.level(),
            layers => layers.level(),
        }
    }

    /// The members of a batch that may run in this worker; the others are refused, and do not come back with the batch.
    pub(crate) fn fit_to_run(&self, worker: &Worker, requests: Vec<Request>) -> Vec<Request> {
        let (level, minimums) = (self.level_of(worker), self.minimums());
        let mut fit = Vec::with_capacity(requests.len());
        for request in requests {
            let demanded = minimums.of_placement(&request.placement).max(minimums.of_tenant(request.task.tenant));
            match self.shortfall_of(level, demanded) {
                None => fit.push(request),
                Some(shortfall) => self.give_up(vec![request], &ServeError::BelowMinimum(shortfall)),
            }
        }
        fit
    }

    /// Changes who demands what. When this returns, nothing is started any more below the new minimums, and what runs below
    /// them has been told to end.
    pub fn set_minimums(self: &Arc<Self>, minimums: Minimums) {
        {
            let mut known = self.minimums.write();
            if **known == minimums {
                return;
            }
            *known = Arc::new(minimums);
        }
        self.enforce_minimums();
    }

    /// Ends the workers that are below a minimum and refuses what waits for placements that are.
    pub(crate) fn enforce_minimums(self: &Arc<Self>) {
        for (worker, shortfall) in self.workers_below() {
            tracing::warn!(%worker, %shortfall, "a worker is ended");
            self.stop_worker(worker);
        }
        for placement in self.placements.all() {
            // Its own tenants' requests, or all of them: those of others to everybody's workers are looked at one by one.
            if self.shortfall(self.minimums().of_placement(&placement)).is_some() {
                self.push(Event::PlacementDown { placement: placement.id });
                self.push(Event::PlacementUp { placement: placement.id, batching: batching(&placement.spec) });
            }
        }
        self.pump();
        self.changed();
    }

    fn workers_below(&self) -> Vec<(WorkerId, Shortfall)> {
        let minimums = self.minimums();
        let mut demanded: HashMap<WorkerId, Level> = HashMap::new();
        let workers = {
            let fleet = self.fleet.lock();
            for record in fleet.replicas.values() {
                let level = demanded.entry(record.worker).or_default();
                *level = (*level).max(minimums.of_version(record.placement.spec.version));
            }
            fleet.all_workers()
        };
        let below = workers.into_iter().filter_map(|worker| {
            let registering = match worker.exec().running.as_ref().map(|running| &running.work) {
                Some(Work::Register(register)) => minimums.of_version(register.version),
                _ => Level::None,
            };
            let loaded = demanded.get(&worker.id).copied().unwrap_or_default();
            let demanded = minimums.of_domain(worker.domain).max(loaded).max(registering);
            Some((worker.id, self.shortfall_of(self.level_of(&worker), demanded)?))
        });
        below.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_demand_counts() {
        let tenant = |number: u8| TenantId::from_parts(u64::from(number), [number; 10]);
        let minimums = Minimums {
            tenants: [(tenant(1), Level::Confined), (tenant(2), Level::Isolated)].into(),
            versions: HashMap::new(),
        };
        let domain = |owner, data_owner| TrustDomain { model_owner: tenant(owner), data_owner };
        assert_eq!(minimums.of_domain(domain(1, DataOwner::Tenant(tenant(2)))), Level::Isolated);
        assert_eq!(minimums.of_domain(domain(2, DataOwner::Tenant(tenant(1)))), Level::Isolated);
        assert_eq!(minimums.of_domain(domain(1, DataOwner::Tenant(tenant(3)))), Level::Confined);
        assert_eq!(minimums.of_domain(domain(3, DataOwner::Tenant(tenant(3)))), Level::None);
        // Everybody's data: what a caller demands is looked at request by request.
        assert_eq!(minimums.of_domain(domain(1, DataOwner::Any)), Level::Confined);
    }

    #[test]
    fn a_shortfall_says_both_levels() {
        let text = Shortfall { in_force: Level::Confined, demanded: Level::Full }.to_string();
        assert!(text.contains("`confined`") && text.contains("`full`"), "{text}");
    }
}
