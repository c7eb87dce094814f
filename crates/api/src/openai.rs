//! OpenAI's API, as far as there are models for it: the list of models and embeddings. Its clients read errors and limits in
//! a form of their own, which every reply under these paths has.

mod embeddings;
mod envelope;

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request};
use tenantry_server::{BudgetState, BudgetsLeft, Principal, RateState};
use tenantry_types::error::sanitise;
use tenantry_types::name::MAX_NAME_BYTES;
use tenantry_types::{ErrorCode, MonotonicTime, RequestId, ServiceError};

use crate::caller::{Caller, authorization, model_ref};
use crate::reply::Reply;
use crate::request_body::RequestBody;
use crate::route::Edge;
use crate::v1::status;
use envelope::{Detail, OpenAiError};

const LIMIT_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");
const LIMIT_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-limit-tokens");
const REMAINING_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-remaining-tokens");
const RESET_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-reset-tokens");
const PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");
const ORGANIZATION: HeaderName = HeaderName::from_static("openai-organization");
const VERSION: HeaderName = HeaderName::from_static("openai-version");

/// What OpenAI's clients call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OpenAiCall<'a> {
    /// `/v1/models`.
    Models,
    /// `/v1/models/{model}`, decoded but not checked.
    Model(Cow<'a, str>),
    /// `/v1/embeddings`.
    Embeddings,
    /// `/v1/chat/completions`, `/v1/completions`: their models need an engine that is not there.
    Completions,
}

impl OpenAiCall<'_> {
    /// Whether it is made with a body.
    pub(crate) fn is_posted(&self) -> bool {
        matches!(self, Self::Embeddings | Self::Completions)
    }
}

/// What the replies to one call say beside their body.
struct Context {
    arrived: MonotonicTime,
    /// The caller, once he is known.
    principal: Option<Principal>,
    /// The key that came, masked.
    key: Option<String>,
}

impl Context {
    fn new(edge: &Edge, request: &Request<RequestBody>) -> Self {
        let key = authorization(request.headers()).map(envelope::masked);
        Self { arrived: edge.server.now(), principal: None, key }
    }

    /// The reply to an error.
    fn error(&self, edge: &Edge, error: &ServiceError, detail: Detail) -> Reply {
        let organization = self.principal.as_ref().map(|principal| principal.tenant_name.as_str());
        envelope::reply(
            error,
            detail,
            &envelope::Shown { key: self.key.as_deref(), organization, rate: self.rate(edge) },
        )
    }

    /// Puts on a reply what every one has.
    fn finish(&self, edge: &Edge, reply: &mut Reply) {
        let took = edge.server.now().saturating_since(self.arrived);
        let headers = reply.headers_mut();
        headers.insert(VERSION, HeaderValue::from_static("2020-10-01"));
        headers.insert(PROCESSING_MS, HeaderValue::from(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)));
        let organization = self.principal.as_ref().map(|principal| principal.tenant_name.as_str());
        if let Some(Ok(organization)) = organization.map(HeaderValue::from_str) {
            headers.insert(ORGANIZATION, organization);
        }
        if let Some(RateState { limit, remaining, until_whole, .. }) = self.rate(edge) {
            headers.insert(LIMIT_REQUESTS, HeaderValue::from(limit));
            headers.insert(REMAINING_REQUESTS, HeaderValue::from(remaining));
            if let Ok(reset) = HeaderValue::from_str(&go_duration(until_whole)) {
                headers.insert(RESET_REQUESTS, reset);
            }
        }
        let tokens = reply.extensions().get().copied().and_then(|left: BudgetsLeft| left.tokens);
        if let Some(BudgetState { limit, remaining, reset, .. }) = tokens {
            let headers = reply.headers_mut();
            headers.insert(LIMIT_TOKENS, HeaderValue::from(limit));
            headers.insert(REMAINING_TOKENS, HeaderValue::from(remaining));
            if let Ok(reset) = HeaderValue::from_str(&go_duration(reset)) {
                headers.insert(RESET_TOKENS, reset);
            }
        }
    }

    fn rate(&self, edge: &Edge) -> Option<RateState> {
        edge.server.request_rate(self.principal.as_ref()?)
    }
}

/// Serves a call.
pub(crate) async fn serve(edge: &Edge, call: OpenAiCall<'_>, request: Request<RequestBody>, id: RequestId) -> Reply {
    let uri = request.uri().clone();
    let mut context = Context::new(edge, &request);
    let mut reply = match Caller::of(edge, &request, id).await {
        Ok((caller, principal)) => {
            context.principal = Some(principal.clone());
            let (served, detail) = match serve_caller(edge, call, principal, request, id).await {
                Ok(reply) => (Ok(reply), Detail::default()),
                Err(OpenAiError { error, detail }) => (Err(error), detail),
            };
            caller.finish(served, uri.path(), |error, _| context.error(edge, error, detail))
        }
        Err(error) => context.error(edge, &error, Detail::default()),
    };
    context.finish(edge, &mut reply);
    reply
}

async fn serve_caller(
    edge: &Edge,
    call: OpenAiCall<'_>,
    principal: Principal,
    request: Request<RequestBody>,
    id: RequestId,
) -> Result<Reply, OpenAiError> {
    match call {
        OpenAiCall::Models => Ok(status::models(edge, &principal)),
        OpenAiCall::Model(name) => model_ref(&name)
            .and_then(|model| status::model(edge, &principal, &model, None))
            .map_err(|error| unknown_model(error, &name)),
        OpenAiCall::Embeddings => embeddings::embeddings(edge, principal, id, request).await,
        OpenAiCall::Completions => Err(no_engine().into()),
    }
}

/// The same text for a model there is not and one the caller may not know of, as their clients know it.
fn unknown_model(error: ServiceError, name: &str) -> OpenAiError {
    if error.code != ErrorCode::NotFound {
        return error.into();
    }
    let name = sanitise(name, 2 * MAX_NAME_BYTES + 1);
    let message = format!("The model `{name}` does not exist or you do not have access to it.");
    ServiceError { message, ..error }.into()
}

fn no_engine() -> ServiceError {
    ServiceError::new(
        ErrorCode::Unimplemented,
        "chat and completions need a language model's engine, which this server does not have yet; it answers /v1/embeddings",
    )
}

/// A duration as Go prints it, to the millisecond, rounded up.
fn go_duration(duration: Duration) -> String {
    let total_ms = u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    if total_ms < 1000 {
        return if total_ms == 0 { "0s".to_owned() } else { format!("{total_ms}ms") };
    }
    let (seconds, ms) = (total_ms / 1000, total_ms % 1000);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let mut rest = format!("{}", seconds % 60);
    if ms > 0 {
        rest = format!("{rest}.{ms:03}").trim_end_matches('0').to_owned();
    }
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, minutes) => format!("{minutes}m{rest}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (ns, expected) in [
            (0, "0s"),
            (1, "1ms"),
            (12_000_000, "12ms"),
            (999_000_001, "1s"),
            (51_189_000_000, "51.189s"),
            (1_500_000_000, "1.5s"),
            (360_000_000_000, "6m0s"),
            (3_723_004_000_000, "1h2m3.004s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(ns)), expected);
        }
    }
}
