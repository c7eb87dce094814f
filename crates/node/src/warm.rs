//! Versions loaded on demand of somebody who sends no request: he waits for the load, and pays for it.

use std::sync::Arc;

use tenantry_plan::ObservedDemand;
use tenantry_types::{DeploymentId, KeyId, PlacementId, TenantId};

use crate::data_plane::Node;
use crate::fleet::Stage;
use crate::placement::Placement;
use crate::submission::ServeError;

/// Who wants a placement loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Which version in which trust domain, from [`Node::placement`].
    pub placement: PlacementId,
    /// Who pays.
    pub tenant: TenantId,
    /// The model's deployment.
    pub deployment: DeploymentId,
    /// The key it was asked for with.
    pub key: Option<KeyId>,
}

/// Somebody waits; until dropped, the placement is wanted and not idle.
struct Waiting<'a> {
    node: &'a Arc<Node>,
    placement: Arc<Placement>,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.node.wanted.lock().retain(|(id, _)| *id != self.id);
        // Its idle time starts here, whenever it was last used before.
        self.placement.counters.answered(self.node.now());
    }
}

impl Node {
    /// Has a version loaded in its trust domain, and waits until a replica serves. Dropping the future stops waiting; a load
    /// that has begun goes on.
    ///
    /// # Errors
    /// What a request would be refused with in its place.
    pub async fn warm(self: &Arc<Self>, wanted: Wanted) -> Result<(), ServeError> {
        let placement = self.placements.get(wanted.placement).ok_or(ServeError::Gone)?;
        if let Some(shortfall) = self.shortfall_for(&placement, wanted.tenant) {
            return Err(ServeError::BelowMinimum(shortfall));
        }
        let mut changes = self.changes();
        let waiting = Waiting { node: self, placement: Arc::clone(&placement), id: self.next_id() };
        placement.counters.submitted(self.now());
        self.wanted.lock().push((waiting.id, wanted));
        self.changed();
        loop {
            changes.mark_unchanged();
            if self.serves(&placement) {
                return Ok(());
            }
            if self.draining.load(std::sync::atomic::Ordering::Acquire) {
                return Err(ServeError::Draining);
            }
            if let Some(refusal) = self.quarantine_of(&placement, self.now()) {
                return Err(refusal);
            }
            if self.placements.get(wanted.placement).is_none() {
                return Err(ServeError::Gone);
            }
            changes.changed().await.map_err(|_| ServeError::Draining)?;
        }
    }

    fn serves(&self, placement: &Placement) -> bool {
        let fleet = self.fleet.lock();
        fleet.replicas.values().any(|record| record.state == Stage::Ready && record.placement.id == placement.id)
    }

    /// Whoever waits for this placement and sent no request.
    pub(crate) fn wanted(&self, placement: PlacementId) -> Option<Wanted> {
        self.wanted.lock().iter().map(|(_, wanted)| *wanted).find(|wanted| wanted.placement == placement)
    }

    /// What is wanted, as the planner takes it.
    pub(crate) fn demand_without_tasks(&self) -> Vec<ObservedDemand> {
        let wanted = self.wanted.lock();
        let demand = wanted.iter().filter_map(|(_, wanted)| {
            let placement = self.placements.get(wanted.placement)?;
            Some(ObservedDemand { version: placement.spec.version, domain: placement.domain, waiting: 1 })
        });
        demand.collect()
    }
}
