//! The one path: resolve, check, submit, wait, answer, count.

use std::sync::Arc;
use std::time::Duration;

use tenantry_node::{ServeError, Timing};
use tenantry_sched::{Phase, RejectReason};
use tenantry_types::model::Task;
use tenantry_types::usage::Outcome;
use tenantry_types::{
    Action, ErrorCode, InferRequest, InferResponse, Level, ModelRef, PlacementId, RequestId, ServiceError, Signature,
    TenantName, Tensor,
};

use crate::cache::{CacheUse, NO_TIME, Parts};
use crate::inputs;
use crate::limits::reason;
use crate::meter::{self, Account, Bill};
use crate::metrics::FlowMetrics;
use crate::minimum;
use crate::routing::{RoutedModel, RoutedVersion, Servable};
use crate::run::{Call, Subject};
use crate::sequences::SequenceCall;
use crate::statistics::{Ran, VersionStatistics};
use crate::{BudgetView, Permit, Principal, Server, auth, budget};

/// The protocol's word for what computes and from which format.
pub(crate) const PLATFORM: &str = "onnxruntime_onnx";
/// When a server that is shutting down, or its replacement, may be asked again.
const DRAINING_RETRY: Duration = Duration::from_secs(1);
/// When a version that was taken away while a request waited may be there again, or another in its place.
const GONE_RETRY: Duration = Duration::from_secs(1);

/// An answer with what it took.
#[derive(Debug)]
pub struct Inferred {
    /// The answer.
    pub response: InferResponse,
    /// Where the time went.
    pub timing: Timing,
    /// From the request's arrival until it waited for a slot.
    pub admission: Duration,
    /// The request's id, as given to [`Server::infer`].
    pub request: RequestId,
    /// Whether it was computed for this request.
    pub cache: CacheUse,
    /// Its usage record, to be settled before the answer leaves.
    pub bill: Bill,
    /// The budgets it was held to, if there are some: what is left is known once the record is settled.
    pub budget: Option<BudgetView>,
}

/// Where an answered request's time went, for whoever sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explanation {
    /// From its arrival until it waited for a slot: reading, decoding, checking.
    pub admission: Duration,
    /// Waiting for a slot, and for others to join its batch.
    pub queue: Duration,
    /// Its batch mates' part of the batch's time.
    pub batch_wait: Duration,
    /// Its own part of the batch's time: what is charged for it.
    pub device: Duration,
    /// How long its batch was stopped for somebody's reservation.
    pub suspended: Duration,
    /// Rows of its batch.
    pub batch_rows: u32,
    /// Under which promise it ran: `reserved` or `shared`; `none` if it did not run.
    pub phase: &'static str,
    /// `hit` or `miss`, where answers are kept.
    pub cache: Option<&'static str>,
}

impl Inferred {
    /// Where the time went.
    pub fn explanation(&self) -> Explanation {
        let Timing { queue_wait, device_time, batch_wait, suspended, batch_rows, phase, .. } = self.timing;
        Explanation {
            admission: self.admission,
            queue: queue_wait,
            batch_wait,
            device: device_time,
            suspended,
            batch_rows,
            phase: match (self.cache, phase) {
                (CacheUse::Hit, _) => "none",
                (_, Phase::Reserved) => "reserved",
                (_, Phase::Shared) => "shared",
            },
            cache: match self.cache {
                CacheUse::Off => None,
                CacheUse::Miss => Some("miss"),
                CacheUse::Hit => Some("hit"),
            },
        }
    }
}

/// What a client may know of a model before it calls it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelMetadata {
    /// As the caller named it.
    pub name: ModelRef,
    /// The numbers of the versions that can be served, ascending.
    pub versions: Vec<String>,
    /// The protocol's word for engine and format.
    pub platform: &'static str,
    /// Inputs and outputs of the version asked for.
    pub signature: Arc<Signature>,
    /// The most rows of one batch; 1: requests are not joined.
    pub max_batch: u32,
    /// What the version is for, where its manifest says so.
    pub task: Option<Task>,
}

/// Whether a model would be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelReadiness {
    /// As the caller named it.
    pub name: ModelRef,
    /// Whether it would be served now: loaded, or loadable on demand.
    pub ready: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// One model the caller may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSummary {
    /// The name that works for this caller: `name` for his own, `owner/name` for shared ones.
    pub name: ModelRef,
    /// Whose it is.
    pub owner: Arc<TenantName>,
    /// When it was created, milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// Whether its deployed version could be served.
    pub ready: bool,
}

/// One request's count. Whatever becomes of the request, it is counted exactly once: a future that is dropped before its
/// end was cancelled by its client.
struct Attempt<'a> {
    server: &'a Server,
    permit: &'a Permit,
    flow: Option<Arc<FlowMetrics>>,
    statistics: Option<Arc<VersionStatistics>>,
    /// Its usage record.
    account: Option<Arc<Account>>,
    /// Of an answered request, where the time went.
    ran: Option<Ran>,
    ended: bool,
}

impl Attempt<'_> {
    fn end(mut self, error: Option<&ServiceError>) {
        if let (Some(flow), Some(reason)) = (&self.flow, error.and_then(|error| error.reason)) {
            flow.rejected(reason);
        }
        self.count(error.map(|error| error.code));
    }

    fn count(&mut self, code: Option<ErrorCode>) {
        if !std::mem::replace(&mut self.ended, true) {
            let duration = self.server.node.now().saturating_since(self.permit.arrived());
            if let Some(flow) = &self.flow {
                flow.ended(code, duration);
            }
            match (&self.statistics, &self.ran) {
                (Some(statistics), Some(ran)) => statistics.answered(ran, duration),
                (Some(statistics), None) => statistics.failed(duration),
                (None, _) => {}
            }
            // What was refused says nothing of when the next one will have ended.
            if code.is_none() {
                self.permit.tenant().took(duration);
            }
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.count(Some(ErrorCode::Cancelled));
    }
}

impl Server {
    /// Runs one inference. Dropping the future cancels it.
    ///
    /// # Errors
    /// 400 for inputs that do not fit, 404 for a model or version there is not, 429 for the tenant's own backlog, 503 for
    /// the server's, 504 past the deadline, 500 `model_failed` when the model's worker ended. Texts name the model as the
    /// caller did.
    pub async fn infer(
        &self,
        principal: &Principal,
        permit: &Permit,
        request: RequestId,
        infer: InferRequest,
    ) -> Result<Inferred, ServiceError> {
        let mut attempt =
            Attempt { server: self, permit, flow: None, statistics: None, account: None, ran: None, ended: false };
        let outcome = self.attempt(principal, &mut attempt, request, infer).await;
        if attempt.flow.is_none() {
            attempt.flow = Some(self.metrics.unresolved(Some((principal.tenant, principal.tenant_name.as_str()))));
        }
        if let (Err(error), Some(account)) = (&outcome, &attempt.account) {
            account.ended(Outcome::of_error(error.code));
        }
        attempt.end(outcome.as_ref().err());
        outcome
    }

    async fn attempt(
        &self,
        principal: &Principal,
        attempt: &mut Attempt<'_>,
        request: RequestId,
        infer: InferRequest,
    ) -> Result<Inferred, ServiceError> {
        let shown = &infer.model;
        let (model, version) = {
            // The guard is let go before anything waits.
            let routing = self.routing.load();
            let model = auth::model(&routing, principal, shown, Action::ModelInfer)?;
            (Arc::clone(model), Arc::clone(model.version(infer.version.as_deref(), shown)?))
        };
        let flow = Arc::clone(attempt.flow.insert(self.flow(principal, &model)));
        attempt.statistics = Some(model.statistics.of(principal.tenant, version.number));
        let servable = version.servable(shown)?;
        let bytes_in = attempt.permit.body_bytes();
        let deployment = model.deployment.id;
        let tier = || meter::tier(principal.routed(), Some(deployment), principal.share_key());
        // Before there is a record: what the budget refuses has used nothing, and a flood of it fills no ledger.
        let held = self.hold(principal, deployment, tier, || budget::estimate(&infer.inputs, servable, bytes_in))?;
        let caller = tenantry_bill::Subject { deployment: Some(deployment), key: Some(principal.key) };
        let budget = held.as_ref().map(|held| held.view(caller));
        attempt.account = self.account(principal, &model, &version, request, bytes_in, held);
        let signature = &servable.outward;
        let in_model =
            |error: ServiceError| ServiceError { message: format!("model `{shown}`: {}", error.message), ..error };
        let outputs = inputs::wanted(&infer, signature).map_err(in_model)?;
        let sequence = SequenceCall::read(&infer.parameters).map_err(in_model)?;
        let timeout = infer.timeout.or(model.deployment.default_timeout).unwrap_or(self.limits.default_timeout);
        let timeout = timeout.min(self.limits.max_timeout);
        let inputs = inputs::checked(infer.inputs, signature).map_err(in_model)?;
        let parts = Parts {
            tenant: principal.tenant,
            version: version.id,
            generation: model.deployment.generation,
            inputs: &inputs,
            parameters: &infer.parameters,
            outputs: &infer.outputs,
        };
        let before = self.node.now();
        let place = self.cache_place(principal, &model.deployment, parts).await;
        let kept = place.as_ref().and_then(|place| self.cached(place, &flow));
        let lookup = self.node.now().saturating_since(before);
        let admission = self.node.now().saturating_since(attempt.permit.arrived());
        if let Some(outputs) = kept {
            let (timing, cache) = (NO_TIME, CacheUse::Hit);
            attempt.ran = Some(Ran { timing, cache, lookup });
            let response = response(infer.model, infer.id, &version, outputs);
            let bill = Bill::of(attempt.account.take(), Outcome::Cached, &response, timing.queue_wait);
            return Ok(Inferred { response, timing, admission, request, cache, bill, budget });
        }
        let call = Call {
            principal,
            request,
            deployment: model.deployment.id,
            deadline: attempt.permit.arrived().saturating_add(timeout),
            priority: infer.priority,
            sequence,
            account: attempt.account.clone(),
        };
        let subject = Subject { model: &model, version: &version, servable, shown };
        let answer = self.run(&call, subject, inputs, outputs).await?;
        let Timing { queue_wait, device_time, batch_rows, .. } = answer.timing;
        flow.ran(queue_wait, device_time, batch_rows);
        let cache = match place {
            None => CacheUse::Off,
            Some(place) => {
                self.keep_answer(principal, &place, &answer.outputs);
                CacheUse::Miss
            }
        };
        attempt.ran = Some(Ran { timing: answer.timing, cache, lookup });
        let response = response(infer.model, infer.id, &version, answer.outputs);
        let bill = Bill::of(attempt.account.take(), Outcome::Ok, &response, queue_wait);
        Ok(Inferred { response, timing: answer.timing, admission, request, cache, bill, budget })
    }

    /// The metrics of a caller's requests to a model.
    fn flow(&self, principal: &Principal, model: &RoutedModel) -> Arc<FlowMetrics> {
        if let Some(known) = model.flows.read().get(&principal.tenant) {
            return Arc::clone(known);
        }
        let flow = self.metrics.flow(principal.tenant, principal.tenant_name.as_str(), &model.full_name);
        Arc::clone(model.flows.write().entry(principal.tenant).or_insert(flow))
    }

    pub(crate) fn placement(&self, principal: &Principal, model: &RoutedModel, servable: &Servable) -> PlacementId {
        let domain = model.domain(principal.routed());
        if domain == servable.home {
            return *servable.home_placement.get_or_init(|| self.node.placement(&servable.spec, domain));
        }
        self.node.placement(&servable.spec, domain)
    }

    /// What a client may know of a model. `version`: a number, an alias, or absent for the deployed one.
    ///
    /// # Errors
    /// 404 for what does not exist or is not the caller's; 503 when the version cannot be served yet.
    pub fn model_metadata(
        &self,
        principal: &Principal,
        model: &ModelRef,
        version: Option<&str>,
    ) -> Result<ModelMetadata, ServiceError> {
        let routing = self.routing.load();
        let routed = auth::model(&routing, principal, model, Action::ModelRead)?;
        let found = routed.version(version, model)?.servable(model)?;
        let servable = routed.versions.values().filter(|version| version.servable(model).is_ok());
        Ok(ModelMetadata {
            name: model.clone(),
            versions: servable.map(|version| version.number.to_string()).collect(),
            platform: PLATFORM,
            signature: Arc::clone(&found.outward),
            max_batch: found.spec.max_batch,
            task: found.pipeline.as_ref().and_then(|pipeline| pipeline.task),
        })
    }

    /// Whether a model would be served: it is loaded or can be loaded on demand, and is not quarantined.
    ///
    /// # Errors
    /// 404 for what does not exist or is not the caller's.
    pub fn model_ready(
        &self,
        principal: &Principal,
        model: &ModelRef,
        version: Option<&str>,
    ) -> Result<ModelReadiness, ServiceError> {
        let routing = self.routing.load();
        let routed = auth::model(&routing, principal, model, Action::ModelRead)?;
        let reason = match routed.version(version, model) {
            Err(error) if error.code == ErrorCode::NotFound => return Err(error),
            Err(error) => Some(error.message),
            Ok(version) => self.obstacle(routed.demanded_by(&routing, principal), principal, routed, model, version),
        };
        Ok(ModelReadiness { name: model.clone(), ready: reason.is_none() && self.is_ready(), reason })
    }

    /// The models the caller may use: his own by name, then those shared with him by `owner/name`.
    pub fn models(&self, principal: &Principal) -> Vec<ModelSummary> {
        let routing = self.routing.load();
        let visible = routing.models().filter(|model| principal.may(Action::ModelRead, model));
        let mut models: Vec<ModelSummary> = visible
            .map(|model| {
                let name = model.name_for(principal.tenant);
                let demanded = model.demanded_by(&routing, principal);
                let obstacle = |version| self.obstacle(demanded, principal, model, &name, version);
                let ready = model.deployed().is_some_and(|version| obstacle(version).is_none());
                ModelSummary { name, owner: Arc::clone(&model.owner.name), created_ms: model.created_ms, ready }
            })
            .collect();
        models.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        models
    }

    /// Why a version would not be served to this caller, if so. What other callers did to a shared model is no obstacle,
    /// and its reason not for this one's eyes.
    pub(crate) fn obstacle(
        &self,
        demanded: Level,
        principal: &Principal,
        routed: &RoutedModel,
        name: &ModelRef,
        version: &RoutedVersion,
    ) -> Option<String> {
        let below = self.check_minimum(demanded, name);
        if let Err(error) = version.servable(name).and(below) {
            return Some(error.message);
        }
        let in_force = self.node.quarantine_in(version.id, routed.domain(principal.routed()))?;
        Some(format!("model `{name}` is not started for now: {}", in_force.reason))
    }
}

fn response(model: ModelRef, id: Option<String>, version: &RoutedVersion, outputs: Vec<Tensor>) -> InferResponse {
    InferResponse { model, version: version.number.to_string(), id, outputs }
}

/// The refusal table: whose fault it is, which limit it was, and when to try again.
pub(crate) fn refusal(error: ServeError, model: &ModelRef, version: &RoutedVersion) -> ServiceError {
    let new = |code, text: String, reason: Option<&'static str>, retry_after: Option<Duration>| ServiceError {
        code,
        message: text,
        retry_after,
        reason,
    };
    match error {
        ServeError::Refused { reason, retry_after } => {
            let (code, text) = not_taken(reason, model);
            new(code, text, Some(reason.as_str()), Some(retry_after))
        }
        ServeError::Expired => {
            let text = format!("model `{model}` had no answer before the request's time ran out");
            new(ErrorCode::DeadlineExceeded, text, Some(reason::DEADLINE), None)
        }
        ServeError::Overloaded => {
            let text = "the server is short of memory; try again shortly".to_owned();
            new(ErrorCode::Unavailable, text, Some(reason::MEMORY), Some(DRAINING_RETRY))
        }
        ServeError::Draining => {
            let text = "the server is shutting down; try again shortly".to_owned();
            new(ErrorCode::Unavailable, text, Some(reason::DRAINING), Some(DRAINING_RETRY))
        }
        ServeError::Quarantined { reason: why, retry_after } => {
            let text = format!("model `{model}` is not started for now: {why}");
            new(ErrorCode::Unavailable, text, Some(reason::QUARANTINED), Some(retry_after))
        }
        ServeError::BelowMinimum(shortfall) => minimum::below_minimum(shortfall, model),
        ServeError::PoisonInput { reason: why, retry_after } => {
            let text = format!("model `{model}`: {why}; send another input, or a version that can compute this one");
            new(ErrorCode::PoisonInput, text, Some(reason::POISON_INPUT), Some(retry_after))
        }
        ServeError::Unrecorded => meter::unrecorded(),
        ServeError::Gone => {
            let text = format!("version {} of model `{model}` was taken away while the request waited", version.number);
            new(ErrorCode::Unavailable, text, None, Some(GONE_RETRY))
        }
        ServeError::InvalidInput(text) => {
            new(ErrorCode::InvalidArgument, format!("model `{model}`: {text}"), None, None)
        }
        ServeError::ModelFailed(text) => {
            new(ErrorCode::ModelFailed, format!("model `{model}` failed: {text}"), None, None)
        }
        ServeError::Cancelled => new(ErrorCode::Cancelled, "the request was cancelled".to_owned(), None, None),
    }
}

/// What the scheduler's reasons mean to a caller: his own limits are 429, the machine's 503, time that is too short 504.
fn not_taken(reason: RejectReason, model: &ModelRef) -> (ErrorCode, String) {
    let (code, text) = match reason {
        RejectReason::QueueFull => {
            (ErrorCode::Unavailable, "the server has as many requests waiting as it takes; try again later")
        }
        RejectReason::Overloaded => (
            ErrorCode::Unavailable,
            "the server cannot answer before the request's time runs out, for what others have waiting; try again later",
        ),
        RejectReason::UnknownPlace => (ErrorCode::Unavailable, "the model is being moved; try again shortly"),
        RejectReason::TenantQueueFull => {
            (ErrorCode::ResourceExhausted, "this tenant has as many requests waiting as it may; try again later")
        }
        RejectReason::ShareQueueFull => (
            ErrorCode::ResourceExhausted,
            "this deployment, key or organisation has as many requests waiting as it may; try again later",
        ),
        RejectReason::DeviceTimeLimit => {
            (ErrorCode::ResourceExhausted, "the device time this tenant, deployment or key may use is used up")
        }
        RejectReason::TenantBacklog => (
            ErrorCode::ResourceExhausted,
            "what this tenant has waiting takes its share until past the request's time; send less, or give it more time",
        ),
        RejectReason::WontMeetDeadline => {
            let text = format!("model `{model}` cannot answer before the request's time runs out");
            return (ErrorCode::DeadlineExceeded, text);
        }
    };
    (code, text.to_owned())
}

#[cfg(test)]
mod tests;
