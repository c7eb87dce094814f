//! How well workers must be kept apart for whom: what is demanded, what the node is told of it, what callers are told.

use tenantry_node::{Minimums, Shortfall};
use tenantry_plan::Quarantine;
use tenantry_types::{ErrorCode, Level, ModelRef, MonotonicTime, ServiceError};

use crate::limits::reason;
use crate::routing::{RoutedModel, RoutedTenant, Routing};
use crate::{Principal, Server};

impl RoutedTenant {
    /// What it and the platform demand for it.
    pub(crate) fn demanded(&self) -> Level {
        self.minimum.level()
    }
}

impl RoutedModel {
    /// What its owner demands for it, whoever calls it.
    pub(crate) fn demanded(&self) -> Level {
        self.min_isolation.max(self.owner.demanded())
    }

    /// What is demanded for a caller's requests to it, as the table has it now: his credential may be older.
    pub(crate) fn demanded_by(&self, routing: &Routing, caller: &Principal) -> Level {
        self.demanded_for(routing.tenants.get(&caller.tenant).unwrap_or(caller.routed()))
    }

    /// What is demanded for this caller's requests to it.
    pub(crate) fn demanded_for(&self, caller: &RoutedTenant) -> Level {
        self.demanded().max(caller.demanded())
    }
}

impl Routing {
    /// Who demands what, as the node is told.
    pub(crate) fn minimums(&self) -> Minimums {
        let demands = |level: &Level| *level > Level::None;
        let tenants = self.tenants.values().map(|tenant| (tenant.id, tenant.demanded()));
        let versions =
            self.models().flat_map(|model| model.versions.values().map(|version| (version.id, model.min_isolation)));
        Minimums {
            tenants: tenants.filter(|(_, level)| demands(level)).collect(),
            versions: versions.filter(|(_, level)| demands(level)).collect(),
        }
    }
}

impl Server {
    /// What is demanded for a tenant whatever it calls, the configuration's minimum included.
    pub(crate) fn effective_minimum(&self, demanded: Level) -> Level {
        demanded.max(self.node.configured_minimum())
    }

    /// Refuses what would run below its minimum. `shown` is the model as the caller named it.
    ///
    /// # Errors
    /// [`ErrorCode::IsolationBelowMinimum`].
    pub(crate) fn check_minimum(&self, demanded: Level, shown: &ModelRef) -> Result<(), ServiceError> {
        self.node.shortfall(demanded).map_or(Ok(()), |shortfall| Err(below_minimum(shortfall, shown)))
    }

    /// How many models are not run because they or their owners demand more than is in force.
    pub(crate) fn models_below_minimum(&self, routing: &Routing) -> usize {
        routing.models().filter(|model| self.node.shortfall(model.demanded()).is_some()).count()
    }

    /// The versions that may not be loaded for anybody, for as long as nothing changes.
    pub(crate) fn held_back<'a>(&'a self, routing: &'a Routing) -> impl Iterator<Item = Quarantine> + 'a {
        let models = routing.models().filter(|model| self.node.shortfall(model.demanded()).is_some());
        models.flat_map(|model| {
            let hold = |version| Quarantine { version, domain: None, until: MonotonicTime::MAX };
            model.versions.values().map(move |version| hold(version.id))
        })
    }
}

/// The refusal: what is in force, what is demanded, what to do.
pub(crate) fn below_minimum(shortfall: Shortfall, shown: &ModelRef) -> ServiceError {
    let text = format!(
        "model `{shown}` is not run: {shortfall}; its owner or the calling tenant can lower the demand, or the operator \
         can put up the barriers that `tenantry doctor` names"
    );
    ServiceError::new(ErrorCode::IsolationBelowMinimum, text).because(reason::ISOLATION)
}

#[cfg(test)]
mod tests;
