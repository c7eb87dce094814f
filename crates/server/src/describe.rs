//! What the edges of other protocols ask of a model before and beside running it.

use std::sync::Arc;
use std::time::Duration;

use tenantry_types::model::Task;
use tenantry_types::{Action, Dim, ModelRef, ServiceError, Signature, TenantName, TensorSpec};

use crate::infer::PLATFORM;
use crate::routing::{RoutedModel, RoutedState, RoutedVersion};
use crate::{Principal, Server, auth};

/// The version that a request without tensor types means, and how it is to be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// Its number: a request to this version is the same whatever is deployed meanwhile.
    pub version: String,
    /// Its inputs and outputs.
    pub signature: Arc<Signature>,
    /// What it is for, where its manifest says so.
    pub task: Option<Task>,
}

/// How a version is run, as far as clients prepare their requests by it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// As the caller named it.
    pub name: ModelRef,
    /// The protocol's word for engine and format.
    pub platform: &'static str,
    /// The most rows of one batch; 0 where requests are not joined.
    pub max_batch: u32,
    /// How long a batch may wait to fill.
    pub max_batch_delay: Duration,
    /// The most replicas in a trust domain.
    pub max_replicas: u32,
    /// Inputs and outputs, with the dimension for rows.
    pub signature: Arc<Signature>,
}

impl ModelConfig {
    /// A tensor's extents as the protocol's configuration shows them: without the dimension for rows where there is one.
    pub fn dims(&self, spec: &TensorSpec) -> Vec<i64> {
        let rows = usize::from(self.max_batch > 0);
        spec.dims.iter().skip(rows).map(Dim::as_protocol).collect()
    }
}

/// A model and its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelStatus {
    /// As the caller named it.
    pub name: ModelRef,
    /// Whose it is.
    pub owner: Arc<TenantName>,
    /// When it was created, milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// Whether the version asked for, or the deployed one, would be served now.
    pub ready: bool,
    /// Why not.
    pub reason: Option<String>,
    /// The versions asked for, ascending.
    pub versions: Vec<VersionStatus>,
}

/// One version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionStatus {
    /// Its number inside the model.
    pub number: u32,
    /// Where it is on its way.
    pub state: VersionState,
    /// Why it would not be served now, if so.
    pub reason: Option<String>,
}

/// Where a version is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionState {
    /// On its way to be usable.
    Loading,
    /// Loaded, or loadable on demand.
    Available,
    /// Not usable: refused at registration, or held back for now.
    Unavailable,
}

impl VersionStatus {
    pub(crate) fn new(version: &RoutedVersion, obstacle: Option<String>) -> Self {
        let state = match version.state {
            RoutedState::Registering => VersionState::Loading,
            RoutedState::Ready(_) if obstacle.is_none() => VersionState::Available,
            RoutedState::Ready(_) | RoutedState::Refused => VersionState::Unavailable,
        };
        Self { number: version.number, state, reason: obstacle }
    }
}

impl Server {
    /// The version a caller means, before the body of his request is read. `version`: a number, an alias, or absent for
    /// the deployed one.
    ///
    /// # Errors
    /// 404 for what does not exist or is not the caller's; 503 when the version cannot be served yet.
    pub fn resolve(
        &self,
        principal: &Principal,
        model: &ModelRef,
        version: Option<&str>,
    ) -> Result<Resolved, ServiceError> {
        let routing = self.routing.load();
        let resolve = || {
            let routed = auth::model(&routing, principal, model, Action::ModelRead)?;
            let version = routed.version(version, model)?;
            let servable = version.servable(model)?;
            Ok(Resolved {
                version: version.number.to_string(),
                signature: Arc::clone(&servable.outward),
                task: servable.pipeline.as_ref().and_then(|pipeline| pipeline.task),
            })
        };
        resolve().inspect_err(|error: &ServiceError| self.count_refusal(principal, error))
    }

    /// How a version is run.
    ///
    /// # Errors
    /// 404 for what does not exist or is not the caller's; 503 when the version cannot be served yet.
    pub fn model_config(
        &self,
        principal: &Principal,
        model: &ModelRef,
        version: Option<&str>,
    ) -> Result<ModelConfig, ServiceError> {
        let routing = self.routing.load();
        let routed = auth::model(&routing, principal, model, Action::ModelRead)?;
        let servable = routed.version(version, model)?.servable(model)?;
        let spec = &servable.spec;
        Ok(ModelConfig {
            name: model.clone(),
            platform: PLATFORM,
            max_batch: if spec.can_batch { spec.max_batch } else { 0 },
            max_batch_delay: spec.max_batch_delay,
            max_replicas: routed.deployment.max_replicas,
            signature: Arc::clone(&servable.outward),
        })
    }

    /// A model and its versions, or the one asked for: a number or an alias.
    ///
    /// # Errors
    /// 404 for what does not exist or is not the caller's.
    pub fn model_status(
        &self,
        principal: &Principal,
        model: &ModelRef,
        version: Option<&str>,
    ) -> Result<ModelStatus, ServiceError> {
        let routing = self.routing.load();
        let routed = auth::model(&routing, principal, model, Action::ModelRead)?;
        let demanded = routed.demanded_by(&routing, principal);
        let obstacle = |version: &RoutedVersion| self.obstacle(demanded, principal, routed, model, version);
        let status = |version: &Arc<RoutedVersion>| VersionStatus::new(version, obstacle(version));
        let asked = routed.version(version, model);
        let (versions, reason) = match (version, asked) {
            (Some(_), Ok(asked)) => (vec![status(asked)], obstacle(asked)),
            (Some(_), Err(error)) => return Err(error),
            (None, Ok(deployed)) => (routed.versions.values().map(status).collect(), obstacle(deployed)),
            (None, Err(error)) => (routed.versions.values().map(status).collect(), Some(error.message)),
        };
        let RoutedModel { owner, created_ms, .. } = &**routed;
        Ok(ModelStatus {
            name: model.clone(),
            owner: Arc::clone(&owner.name),
            created_ms: *created_ms,
            ready: reason.is_none() && self.is_ready(),
            reason,
            versions,
        })
    }

    /// Counts a request that was refused before it was known what to ask the node.
    pub(crate) fn count_refusal(&self, principal: &Principal, error: &ServiceError) {
        let tenant = (principal.tenant, principal.tenant_name.as_str());
        let flow = self.metrics.unresolved(Some(tenant));
        flow.ended(Some(error.code), Duration::ZERO);
        if let Some(reason) = error.reason {
            flow.rejected(reason);
        }
    }
}
