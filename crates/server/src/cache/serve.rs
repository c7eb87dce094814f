//! The cache on the path of a request, and what empties it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tenantry_sched::Phase;
use tenantry_types::{Digest, TenantId, Tensor, VersionId};

use super::Origin;
use super::key::Parts;
use crate::config::Limits;
use crate::metrics::FlowMetrics;
use crate::routing::{RoutedDeployment, RoutedTenant, Routing};
use crate::{Principal, Server, Timing};

/// How often what is too old is looked for, besides at each look-up.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// What the cache did for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheUse {
    /// Its deployment keeps no answers, or this request's may not be kept.
    Off,
    /// It was computed.
    Miss,
    /// It was answered with what was computed before: no device time.
    Hit,
}

/// Where a request's answer is looked up, and kept.
#[derive(Debug)]
pub(crate) struct Place {
    tenant: TenantId,
    key: Digest,
    ttl: Duration,
    quota_bytes: u64,
    version: VersionId,
    generation: u64,
}

/// The time of an answer that took none.
pub(crate) const NO_TIME: Timing = Timing {
    queue_wait: Duration::ZERO,
    device_time: Duration::ZERO,
    batch_wait: Duration::ZERO,
    batch_time: Duration::ZERO,
    suspended: Duration::ZERO,
    rows: 0,
    batch_rows: 0,
    phase: Phase::Shared,
};

impl Server {
    /// The place of a request's answer in the cache; `None` where it is not to be kept.
    pub(crate) async fn cache_place(
        &self,
        principal: &Principal,
        deployment: &RoutedDeployment,
        parts: Parts<'_>,
    ) -> Option<Place> {
        let ttl = deployment.cache_ttl?;
        let quota_bytes = quota_bytes(principal.routed(), &self.limits);
        if quota_bytes == 0 || !parts.are_all() {
            return None;
        }
        let Parts { tenant, version, generation, .. } = parts;
        Some(Place { tenant, key: parts.key().await, ttl, quota_bytes, version, generation })
    }

    /// The outputs kept there.
    pub(crate) fn cached(&self, place: &Place, flow: &FlowMetrics) -> Option<Vec<Tensor>> {
        let found = self.cache.get(place.tenant, &place.key, place.ttl, self.node.now());
        flow.looked_up(found.is_some());
        found.map(|outputs| outputs.to_vec())
    }

    /// Keeps the outputs of a request that was answered.
    pub(crate) fn keep_answer(&self, principal: &Principal, place: &Place, outputs: &[Tensor]) {
        let Place { tenant, key, quota_bytes, version, generation, .. } = *place;
        let origin = Origin { version, generation, at: self.node.now() };
        let evicted_bytes = self.cache.put(tenant, key, origin, outputs, quota_bytes);
        if evicted_bytes > 0 {
            self.metrics.cache_evicted(principal.tenant_name.as_str(), evicted_bytes);
        }
    }

    /// Drops what the routing table in force does not let be given again, and what is too old.
    pub(crate) fn sweep_cache(&self, routing: &Routing) {
        let kept = kept_by(routing);
        let now = self.node.now();
        self.cache.retain(
            |tenant| Some(quota_bytes(routing.tenants.get(&tenant)?, &self.limits)),
            |origin| {
                kept.get(&origin.version).is_some_and(|(generation, ttl)| {
                    *generation == origin.generation && now.saturating_since(origin.at) < *ttl
                })
            },
        );
    }
}

/// The bytes of answers a tenant may keep.
fn quota_bytes(tenant: &RoutedTenant, limits: &Limits) -> u64 {
    let own = tenant.share.as_ref().and_then(|share| share.settings.max_cache_bytes);
    own.unwrap_or(limits.tenant_max_cache_bytes)
}

/// The versions whose answers are kept: since which generation of the deployment, and for how long.
fn kept_by(routing: &Routing) -> HashMap<VersionId, (u64, Duration)> {
    let keeping = routing.models().filter_map(|model| Some((model, model.deployment.cache_ttl?)));
    let versions = keeping.flat_map(|(model, ttl)| {
        model.versions.values().map(move |version| (version.id, (model.deployment.generation, ttl)))
    });
    versions.collect()
}

/// Whether a change of the table takes something away that may be kept: a tenant, a version, or a generation.
pub(crate) fn takes_away(previous: &Routing, next: &Routing) -> bool {
    let kept = kept_by(next);
    previous.tenants.keys().any(|tenant| !next.tenants.contains_key(tenant))
        || kept_by(previous).iter().any(|(version, before)| kept.get(version) != Some(before))
}

/// Removes what is too old, and what came after its place was gone, now and then.
pub(crate) async fn sweep(server: Arc<Server>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        if server.cache.bytes() > 0 {
            server.sweep_cache(&server.routing.load_full());
        }
    }
}
