//! The Open Inference Protocol's edge under `/v2`.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;
use tenantry_server::Principal;
use tenantry_types::error::sanitise;
use tenantry_types::name::MAX_NAME_BYTES;
use tenantry_types::{ErrorCode, ModelRef, RequestId, ServiceError, TenantName, TensorSpec};

use crate::explain;
use crate::infer::{Call, infer};
use crate::path::{self, ModelAction, V2Path};
use crate::reply::{self, Reply, json};
use crate::route::Edge;

/// The extensions of the protocol that are there.
const EXTENSIONS: [&str; 1] = ["binary_tensor_data"];

/// How much of a path a log line shows, characters.
pub(crate) const MAX_LOGGED_CHARS: usize = 200;

const GET: &str = "GET, HEAD";
const POST: &str = "POST";

#[derive(Serialize)]
struct ServerMetadata {
    name: &'static str,
    version: &'static str,
    extensions: [&'static str; 1],
}

#[derive(Serialize)]
struct Live {
    live: bool,
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
}

#[derive(Serialize)]
struct Models {
    models: Vec<String>,
}

#[derive(Serialize)]
struct ModelReady<'a> {
    name: String,
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    name: String,
    versions: &'a [String],
    platform: &'static str,
    inputs: Vec<TensorMetadata<'a>>,
    outputs: Vec<TensorMetadata<'a>>,
}

#[derive(Serialize)]
struct TensorMetadata<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: Vec<i64>,
}

impl<'a> From<&'a TensorSpec> for TensorMetadata<'a> {
    fn from(spec: &'a TensorSpec) -> Self {
        let shape = spec.dims.iter().map(|dim| dim.as_protocol()).collect();
        Self { name: &spec.name, datatype: spec.datatype.as_str(), shape }
    }
}

/// Serves a request whose path starts with `/v2`.
pub(crate) async fn serve(edge: &Edge, request: Request<Incoming>, id: RequestId) -> Reply {
    // The path outlives the request's own parts: an infer call gives those away.
    let uri = request.uri().clone();
    let Some(path) = path::parse(uri.path()) else { return reply::not_found(&id) };
    let allowed = match &path {
        V2Path::Model(model) if model.action == ModelAction::Infer => POST,
        V2Path::Unimplemented => "",
        V2Path::Model(model) if model.action == ModelAction::Unimplemented => "",
        _ => GET,
    };
    let fits = match allowed {
        POST => request.method() == Method::POST,
        GET => matches!(*request.method(), Method::GET | Method::HEAD),
        _ => true,
    };
    if !fits {
        return reply::method_not_allowed(allowed, &id);
    }
    let served = match path {
        // The two paths without a key: a probe holds none, and they say nothing of any tenant.
        V2Path::Live => Ok(json(StatusCode::OK, &Live { live: true })),
        V2Path::Ready => Ok(ready(edge)),
        path => match edge.server.authenticate(authorization(request.headers())) {
            Ok(principal) => {
                let tenant = Arc::clone(&principal.tenant_name);
                let explains = explain::is_wanted(request.headers());
                let served = serve_caller(edge, path, principal, request, id).await;
                if explains && let Err(error) = &served {
                    log(&served, &id, &tenant, uri.path());
                    let mut reply = reply::error(error, &id);
                    explain::refused(&mut reply, error);
                    return reply;
                }
                log(&served, &id, &tenant, uri.path());
                served
            }
            Err(error) => Err(error),
        },
    };
    served.unwrap_or_else(|error| reply::error(&error, &id))
}

/// One line a request: of those the server failed for everybody who reads the log, of the others for who asks for them.
fn log(served: &Result<Reply, ServiceError>, id: &RequestId, tenant: &TenantName, path: &str) {
    let shown = || sanitise(path, MAX_LOGGED_CHARS);
    match served {
        Ok(reply) => {
            tracing::debug!(request_id = %id, %tenant, path = %shown(), status = reply.status().as_u16(), "answered");
        }
        Err(error) if matches!(error.code, ErrorCode::Internal | ErrorCode::ModelFailed | ErrorCode::Unavailable) => {
            tracing::warn!(request_id = %id, %tenant, path = %shown(), code = error.code.as_str(), %error, "failed");
        }
        Err(error) => {
            tracing::debug!(request_id = %id, %tenant, path = %shown(), code = error.code.as_str(), %error, "refused");
        }
    }
}

async fn serve_caller(
    edge: &Edge,
    path: V2Path<'_>,
    principal: Principal,
    request: Request<Incoming>,
    id: RequestId,
) -> Result<Reply, ServiceError> {
    match path {
        V2Path::Live => Ok(json(StatusCode::OK, &Live { live: true })),
        V2Path::Ready => Ok(ready(edge)),
        V2Path::Server => {
            let (name, version) = ("tenantry", env!("CARGO_PKG_VERSION"));
            Ok(json(StatusCode::OK, &ServerMetadata { name, version, extensions: EXTENSIONS }))
        }
        V2Path::Models => {
            let models = edge.server.models(&principal).iter().map(|model| model.name.to_string()).collect();
            Ok(json(StatusCode::OK, &Models { models }))
        }
        V2Path::Unimplemented => Err(unimplemented()),
        V2Path::Model(path) => {
            let model = model_ref(&path.model)?;
            match path.action {
                ModelAction::Infer => {
                    let version = path.version.map(std::borrow::Cow::into_owned);
                    infer(edge, Call { principal, id, model, version }, request).await
                }
                ModelAction::Metadata => metadata(edge, &principal, &model, path.version.as_deref()),
                ModelAction::Ready => model_ready(edge, &principal, &model, path.version.as_deref()),
                ModelAction::Unimplemented => Err(unimplemented()),
            }
        }
    }
}

/// The value of the `Authorization` header, if it is one text.
pub(crate) fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()
}

/// A name that cannot be one names no model: the same text as for one that is not there.
fn model_ref(text: &str) -> Result<ModelRef, ServiceError> {
    text.parse().map_err(|_| {
        let name = sanitise(text, 2 * MAX_NAME_BYTES + 1);
        ServiceError::new(ErrorCode::NotFound, format!("model `{name}` does not exist or you may not use it"))
    })
}

fn unimplemented() -> ServiceError {
    ServiceError::new(ErrorCode::Unimplemented, "this server does not offer this part of the protocol")
}

fn ready(edge: &Edge) -> Reply {
    let ready = edge.server.is_ready() && !edge.is_draining();
    json(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &Ready { ready })
}

fn metadata(
    edge: &Edge,
    principal: &Principal,
    model: &ModelRef,
    version: Option<&str>,
) -> Result<Reply, ServiceError> {
    let metadata = edge.server.model_metadata(principal, model, version)?;
    Ok(json(
        StatusCode::OK,
        &Metadata {
            name: metadata.name.to_string(),
            versions: &metadata.versions,
            platform: metadata.platform,
            inputs: metadata.signature.inputs.iter().map(TensorMetadata::from).collect(),
            outputs: metadata.signature.outputs.iter().map(TensorMetadata::from).collect(),
        },
    ))
}

fn model_ready(
    edge: &Edge,
    principal: &Principal,
    model: &ModelRef,
    version: Option<&str>,
) -> Result<Reply, ServiceError> {
    let readiness = edge.server.model_ready(principal, model, version)?;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body =
        ModelReady { name: readiness.name.to_string(), ready: readiness.ready, reason: readiness.reason.as_deref() };
    Ok(json(status, &body))
}
