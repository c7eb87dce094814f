//! The server at a glance.

use tenantry_node::{WorkerState, WorkerStats};
use tenantry_types::{Action, DataOwner, ServiceError, TenantId};

use super::{ServerStatus, WorkerInfo};
use crate::routing::Routing;
use crate::{Principal, Server, auth, registration};

impl Server {
    /// The server at a glance. For platform admins.
    ///
    /// # Errors
    /// 403 for other roles.
    pub fn status(&self, principal: &Principal) -> Result<ServerStatus, ServiceError> {
        auth::platform(principal, Action::PlatformRead)?;
        let routing = self.routing.load();
        let stats = self.node.stats();
        Ok(ServerStatus {
            ready: self.is_ready(),
            runtime: self.node.runtime().map(|runtime| runtime.version),
            tenants: routing.tenants.len(),
            models: routing.models().count(),
            registering: registration::waiting(&routing).len(),
            slots: stats.slots,
            queued_tasks: stats.queued_tasks,
            queued_bytes: stats.queued_bytes,
            running_batches: stats.running_batches,
            isolation: self.node.isolation(),
            min_isolation: self.node.configured_minimum(),
            models_below_minimum: self.models_below_minimum(&routing),
            worker_deaths: stats.worker_deaths,
            workers: stats.workers.iter().map(|worker| info(worker, &routing)).collect(),
        })
    }

    /// The metrics, for platform admins.
    ///
    /// # Errors
    /// 403 for other roles.
    pub fn admin_metrics_text(&self, principal: &Principal) -> Result<String, ServiceError> {
        auth::platform(principal, Action::PlatformRead)?;
        Ok(self.metrics_text())
    }
}

fn info(worker: &WorkerStats, routing: &Routing) -> WorkerInfo {
    // A tenant that is gone leaves its id until its last worker is.
    let name = |tenant: TenantId| {
        routing.tenants.get(&tenant).map_or_else(|| tenant.to_string(), |tenant| tenant.name.to_string())
    };
    WorkerInfo {
        id: worker.worker.0,
        model_owner: name(worker.domain.model_owner),
        data_owner: match worker.domain.data_owner {
            DataOwner::Tenant(tenant) => name(tenant),
            DataOwner::Any => "any".to_owned(),
        },
        state: match worker.state {
            WorkerState::Starting => "starting",
            WorkerState::Ready => "ready",
            WorkerState::Stopping => "stopping",
        },
        pid: worker.pid,
        replicas: worker.replicas,
        busy: worker.busy,
        suspended: worker.suspended,
        registration: worker.registration,
    }
}
