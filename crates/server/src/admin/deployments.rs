//! Deployments: the desired state of models. The reconciler does the rest.

use std::sync::Arc;

use tenantry_store::Store;
use tenantry_types::{Action, ModelName, ServiceError, TenantName};

use super::{DeploymentChange, DeploymentInfo};
use crate::audit::Deed;
use crate::routing::RoutedDeployment;
use crate::server::storage;
use crate::{Principal, Server};

impl Server {
    /// A model's deployment.
    ///
    /// # Errors
    /// 404 for what does not exist or is not visible to the caller.
    pub fn deployment(
        &self,
        principal: &Principal,
        owner: &TenantName,
        model: &ModelName,
    ) -> Result<DeploymentInfo, ServiceError> {
        Ok((&self.readable_model(principal, owner, model)?.deployment).into())
    }

    /// Changes a deployment if it still is at the generation the caller read.
    ///
    /// # Errors
    /// 403 for a role that may not, 404 for what there is not, 409 if it changed meanwhile or the version is not ready,
    /// 400 for bounds that cannot be.
    pub async fn set_deployment(
        self: &Arc<Self>,
        principal: &Principal,
        owner: &TenantName,
        model: &ModelName,
        change: DeploymentChange,
    ) -> Result<DeploymentInfo, ServiceError> {
        let routed = self.managed_model(principal, owner, model, Action::DeploymentWrite)?;
        let idle_after_ms = match change.idle_after {
            None => None,
            Some(idle_after) => Some(
                u64::try_from(idle_after.as_millis())
                    .map_err(|_| ServiceError::invalid("the idle time is too long; leave it out for no limit"))?,
            ),
        };
        let default_timeout_ms = match change.default_timeout {
            None => None,
            Some(timeout) => Some(
                u64::try_from(timeout.as_millis())
                    .map_err(|_| ServiceError::invalid("the timeout is too long; leave it out for the server's"))?,
            ),
        };
        let cache_ttl_ms = match change.cache_ttl {
            None => None,
            Some(ttl) => Some(
                u64::try_from(ttl.as_millis())
                    .map_err(|_| ServiceError::invalid("answers are kept for a day at most"))?,
            ),
        };
        let stored = tenantry_store::DeploymentChange {
            version: change.version,
            min_replicas: change.min_replicas,
            max_replicas: change.max_replicas,
            idle_after_ms,
            default_timeout_ms,
            cache_ttl_ms,
        };
        let told = match stored.version {
            Some(version) => format!("version {version}"),
            None => "no version".to_owned(),
        };
        let mut told = format!("{told}, {} to {} replicas", stored.min_replicas, stored.max_replicas);
        if let Some(ttl) = change.cache_ttl {
            told = format!("{told}, answers kept for {}", humantime::format_duration(ttl));
        }
        let deed = Deed::of_model(&routed, "deployment.set", "").with(told);
        let set =
            async move |store: Store| store.set_deployment(routed.id, change.generation, stored).await.map_err(storage);
        let deployment = self.write_audited(principal, deed, set).await?;
        Ok((&RoutedDeployment::from(&deployment)).into())
    }
}

impl From<&RoutedDeployment> for DeploymentInfo {
    fn from(deployment: &RoutedDeployment) -> Self {
        Self {
            id: deployment.id,
            generation: deployment.generation,
            version: deployment.version,
            previous: deployment.previous,
            min_replicas: deployment.min_replicas,
            max_replicas: deployment.max_replicas,
            idle_after: deployment.idle_after,
            default_timeout: deployment.default_timeout,
            cache_ttl: deployment.cache_ttl,
        }
    }
}
