//! The repository extension of the protocol, as policy: what a caller may use, and what is kept loaded for him.
//!
//! Nothing here adds or removes a model: that is the admin API's. To load is to ask for a replica before the first request
//! does; to unload is to let go of idle ones before their time.

use std::sync::Arc;
use std::time::Duration;

use tenantry_node::Wanted;
use tenantry_types::{Action, ErrorCode, ModelRef, ReplicaId, ServiceError, TrustDomain};

use crate::describe::VersionStatus;
use crate::infer::refusal;
use crate::limits::reason;
use crate::routing::{RoutedModel, RoutedVersion};
use crate::{Permit, Principal, Server, auth};

/// A version in the list of what a caller may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryEntry {
    /// The name that works for this caller.
    pub name: ModelRef,
    /// The version.
    pub version: VersionStatus,
}

impl Server {
    /// The versions of the models the caller may use, or those that would be served now.
    pub fn repository_index(&self, principal: &Principal, ready_only: bool) -> Vec<RepositoryEntry> {
        let routing = self.routing.load();
        let mut entries: Vec<RepositoryEntry> = routing
            .models()
            .filter(|model| principal.may(Action::ModelRead, model))
            .flat_map(|model| {
                let name = model.name_for(principal.tenant);
                let demanded = model.demanded_by(&routing, principal);
                model.versions.values().map(move |version| {
                    let obstacle = self.obstacle(demanded, principal, model, &name, version);
                    RepositoryEntry { name: name.clone(), version: VersionStatus::new(version, obstacle) }
                })
            })
            .filter(|entry| !ready_only || entry.version.reason.is_none())
            .collect();
        entries.sort_unstable_by(|a, b| (&a.name, a.version.number).cmp(&(&b.name, b.version.number)));
        entries
    }

    /// Has a model's deployed version loaded for the caller, or the stages of a chain, and waits until it is. The load is charged to him, like the one
    /// that a first request waits for. `timeout`: from the request's arrival; absent: as for inferences.
    ///
    /// # Errors
    /// What a request to this model would be refused with, and 504 when it is not loaded in time.
    pub async fn repository_load(
        &self,
        principal: &Principal,
        permit: &Permit,
        model: &ModelRef,
        timeout: Option<Duration>,
    ) -> Result<(), ServiceError> {
        let (routed, version) = self.deployed(principal, model)?;
        let servable = version.servable(model)?;
        let stages = match servable.chain() {
            None => vec![(Arc::clone(&routed), Arc::clone(&version))],
            Some(chain) => chain.stages.iter().map(|stage| self.stage(&routed, stage)).collect::<Result<_, _>>()?,
        };
        let load = async {
            for (of, stage) in &stages {
                let servable = stage.servable(model)?;
                let wanted = Wanted {
                    placement: self.placement(principal, of, servable),
                    tenant: principal.tenant,
                    deployment: routed.deployment.id,
                    key: principal.share_key(),
                };
                self.node.warm(wanted).await.map_err(|error| refusal(error, model, &version))?;
            }
            Ok(())
        };
        let timeout = timeout.unwrap_or(self.limits.max_timeout).min(self.limits.max_timeout);
        let left = permit.arrived().saturating_add(timeout).saturating_since(self.node.now());
        match tokio::time::timeout(left, load).await {
            Ok(loaded) => loaded,
            Err(_) => {
                let text = format!("model `{model}` was not loaded before the request's time ran out; it may be still");
                Err(ServiceError::new(ErrorCode::DeadlineExceeded, text).because(reason::DEADLINE))
            }
        }
    }

    /// Unloads the idle replicas of one of the caller's own models in his own trust domain, and waits until they are gone.
    /// The next request loads it again.
    ///
    /// # Errors
    /// 404 for what does not exist or is not the caller's, 403 for a model of somebody else or without the role to manage
    /// one, 409 while it has work or its deployment keeps replicas.
    pub async fn repository_unload(&self, principal: &Principal, model: &ModelRef) -> Result<(), ServiceError> {
        let routed = {
            let routing = self.routing.load();
            Arc::clone(auth::model(&routing, principal, model, Action::ModelWrite)?)
        };
        if routed.owner.id != principal.tenant {
            let text = format!("model `{model}` is not this tenant's; only its owner may unload it");
            return Err(ServiceError::new(ErrorCode::PermissionDenied, text));
        }
        let conflict = |text: String| Err(ServiceError::new(ErrorCode::Conflict, text));
        if routed.deployment.min_replicas > 0 {
            let kept = routed.deployment.min_replicas;
            return conflict(format!("the deployment of model `{model}` keeps {kept} replicas; set min_replicas to 0"));
        }
        let domain = routed.domain(principal.routed());
        let mut changes = self.node.changes();
        changes.mark_unchanged();
        let Some(replicas) = self.idle_replicas(&routed, domain) else {
            return conflict(format!("model `{model}` has work; unload it when it is idle"));
        };
        let letting_go = LettingGo::new(self, &replicas);
        let gone = async {
            loop {
                let observed = self.node.observe();
                let is_left = |replica: &ReplicaId| observed.replicas.iter().any(|known| known.id == *replica);
                if !replicas.iter().any(is_left) {
                    return Ok(());
                }
                if self.idle_replicas(&routed, domain).is_none() {
                    return conflict(format!("model `{model}` has work again; it stays loaded"));
                }
                if changes.changed().await.is_err() {
                    return Ok(());
                }
            }
        };
        let outcome = tokio::time::timeout(self.limits.default_timeout, gone).await;
        drop(letting_go);
        outcome.unwrap_or_else(|_| conflict(format!("model `{model}` is still loaded; it may have work again")))
    }

    /// The version that serves when none is named, and its model.
    fn deployed(
        &self,
        principal: &Principal,
        model: &ModelRef,
    ) -> Result<(Arc<RoutedModel>, Arc<RoutedVersion>), ServiceError> {
        let routing = self.routing.load();
        let routed = auth::model(&routing, principal, model, Action::ModelInfer)?;
        Ok((Arc::clone(routed), Arc::clone(routed.version(None, model)?)))
    }

    /// The replicas of a model in a trust domain; none where one of them has work.
    fn idle_replicas(&self, model: &RoutedModel, domain: TrustDomain) -> Option<Vec<ReplicaId>> {
        let is_of_model = |version| model.versions.values().any(|known| known.id == version);
        let observed = self.node.observe();
        let replicas = observed.replicas.iter();
        let there = replicas.filter(|replica| replica.domain == domain && is_of_model(replica.version));
        there.map(|replica| replica.idle_since.map(|_| replica.id)).collect()
    }
}

/// Somebody waits for replicas to be unloaded; until dropped, the planner knows.
struct LettingGo<'a> {
    server: &'a Server,
    replicas: &'a [ReplicaId],
}

impl<'a> LettingGo<'a> {
    fn new(server: &'a Server, replicas: &'a [ReplicaId]) -> Self {
        server.let_go.lock().extend_from_slice(replicas);
        server.routed.send_modify(|_| {});
        Self { server, replicas }
    }
}

impl Drop for LettingGo<'_> {
    fn drop(&mut self) {
        let mut let_go = self.server.let_go.lock();
        for replica in self.replicas {
            // Somebody else may wait for the same one.
            if let Some(position) = let_go.iter().position(|known| known == replica) {
                let_go.swap_remove(position);
            }
        }
    }
}
