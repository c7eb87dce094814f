//! The repository extension: what the caller may use, loads ahead of requests, and unloads before their time.

use http::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tenantry_server::{Principal, RepositoryEntry, VersionState};
use tenantry_types::error::sanitise;
use tenantry_types::{ErrorCode, ModelRef, Payload, RequestId, ServiceError};

use crate::flow::Flow;
use crate::reply::{Reply, json};
use crate::request_body::RequestBody;
use crate::route::Edge;

/// The longest body of these calls that has a meaning here, bytes; longer ones carry a model.
const MAX_BODY_BYTES: usize = 64 << 10;
/// Characters of a parameter's name that an error shows.
const SHOWN_NAME_CHARS: usize = 64;

#[derive(Serialize)]
struct Entry {
    name: String,
    version: String,
    state: &'static str,
    reason: String,
}

impl From<RepositoryEntry> for Entry {
    fn from(RepositoryEntry { name, version }: RepositoryEntry) -> Self {
        let state = state(version.state);
        let reason = version.reason.unwrap_or_default();
        Self { name: name.to_string(), version: version.number.to_string(), state, reason }
    }
}

/// The extension's word for where a version is on its way.
pub(crate) fn state(state: VersionState) -> &'static str {
    match state {
        VersionState::Loading => "LOADING",
        VersionState::Available => "READY",
        VersionState::Unavailable => "UNAVAILABLE",
    }
}

/// The bodies of all three calls.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Body {
    ready: bool,
    parameters: Map<String, Value>,
}

fn body(payload: &Payload) -> Result<Body, ServiceError> {
    if payload.is_empty() {
        return Ok(Body::default());
    }
    if payload.len() > MAX_BODY_BYTES {
        return Err(refused("a body of this size"));
    }
    serde_json::from_slice(&payload.to_contiguous())
        .map_err(|error| ServiceError::invalid(format!("the body is not valid: {}", sanitise(&error.to_string(), 200))))
}

/// Models come and go by the admin API, where they are registered, checked and recorded.
pub(crate) fn refused(what: &str) -> ServiceError {
    ServiceError::new(
        ErrorCode::Unimplemented,
        format!("{what} is not taken here: models and their settings are changed through /admin/v1 or `tenantry push`"),
    )
}

/// Lists the versions the caller may use.
pub(super) async fn index(
    edge: &Edge,
    principal: Principal,
    id: RequestId,
    request: Request<RequestBody>,
) -> Result<Reply, ServiceError> {
    let flow = Flow::admit_unnamed(edge, principal, id, request)?;
    let (decoded, body) = flow.decode(MAX_BODY_BYTES, |payload| body(&payload)).await?;
    let entries = edge.server.repository_index(decoded.principal(), body.ready);
    let entries: Vec<Entry> = entries.into_iter().map(Entry::from).collect();
    Ok(json(StatusCode::OK, &entries))
}

/// Has a model loaded and answers when it is.
pub(super) async fn load(
    edge: &Edge,
    principal: Principal,
    id: RequestId,
    model: ModelRef,
    request: Request<RequestBody>,
) -> Result<Reply, ServiceError> {
    let flow = Flow::admit(edge, principal, id, &model, request)?;
    let (decoded, Body { parameters, .. }) = flow.decode(MAX_BODY_BYTES, |payload| body(&payload)).await?;
    if let Some((name, _)) = parameters.iter().next() {
        return Err(refused(&format!("the parameter `{}`", sanitise(name, SHOWN_NAME_CHARS))));
    }
    decoded.load(&model).await?;
    Ok(json(StatusCode::OK, &Map::new()))
}

/// Lets go of a model's idle replicas and answers when they are gone.
pub(super) async fn unload(
    edge: &Edge,
    principal: Principal,
    id: RequestId,
    model: ModelRef,
    request: Request<RequestBody>,
) -> Result<Reply, ServiceError> {
    let flow = Flow::admit(edge, principal, id, &model, request)?;
    let (decoded, Body { parameters, .. }) = flow.decode(MAX_BODY_BYTES, |payload| body(&payload)).await?;
    // No model here has dependents, so their parameter asks for nothing.
    if let Some((name, _)) = parameters.iter().find(|(name, _)| *name != "unload_dependents") {
        return Err(refused(&format!("the parameter `{}`", sanitise(name, SHOWN_NAME_CHARS))));
    }
    edge.server.repository_unload(decoded.principal(), &model).await?;
    Ok(json(StatusCode::OK, &Map::new()))
}
