//! The Open Inference Protocol's edge under `/v2`, with those of Triton's extensions that are there.

mod config;
mod generate;
pub(crate) mod repository;

use http::{Method, Request, StatusCode};
use serde::Serialize;
use tenantry_server::Principal;
use tenantry_types::{ErrorCode, ModelRef, RequestId, ServiceError, TensorSpec};

use crate::caller::{Caller, model_ref};
use crate::document;
use crate::flow::Call;
use crate::infer::infer;
use crate::path::{self, ModelAction, V2Path};
use crate::reply::{self, JSON, Reply, json, with_type};
use crate::request_body::RequestBody;
use crate::route::Edge;
use generate::Answer;

/// The extensions of the protocol that are there.
const EXTENSIONS: [&str; 5] =
    ["binary_tensor_data", "generate", "model_configuration", "model_repository", "schedule_policy"];

const GET: &str = "GET, HEAD";
const POST: &str = "POST";

#[derive(Serialize)]
struct ServerMetadata {
    name: &'static str,
    version: &'static str,
    extensions: [&'static str; EXTENSIONS.len()],
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
pub(crate) async fn serve(edge: &Edge, request: Request<RequestBody>, id: RequestId) -> Reply {
    // The path outlives the request's own parts: an infer call gives those away.
    let uri = request.uri().clone();
    let Some(path) = path::parse(uri.path()) else { return reply::not_found(&id) };
    let allowed = match &path {
        V2Path::Index => POST,
        V2Path::Model(model) if model.action.is_posted() => POST,
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
        path => match Caller::of(edge, &request, id).await {
            Ok((caller, principal)) => {
                let served = serve_caller(edge, path, principal, request, id).await;
                return caller.finish(served, uri.path(), reply::error);
            }
            Err(error) => Err(error),
        },
    };
    served.unwrap_or_else(|error| reply::error(&error, &id))
}

async fn serve_caller(
    edge: &Edge,
    path: V2Path<'_>,
    principal: Principal,
    request: Request<RequestBody>,
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
        V2Path::Document => Ok(with_type(StatusCode::OK, JSON, document::served())),
        V2Path::Index => repository::index(edge, principal, id, request).await,
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
                ModelAction::Generate | ModelAction::GenerateStream => {
                    let is_whole = path.action == ModelAction::Generate;
                    let answer = if is_whole { Answer::Whole } else { Answer::Events };
                    let version = path.version.map(std::borrow::Cow::into_owned);
                    generate::generate(edge, Call { principal, id, model, version }, answer, request).await
                }
                ModelAction::Config => config::config(edge, &principal, &model, path.version.as_deref()),
                ModelAction::Load => repository::load(edge, principal, id, model, request).await,
                ModelAction::Unload => repository::unload(edge, principal, id, model, request).await,
                ModelAction::Unimplemented => Err(unimplemented()),
            }
        }
    }
}

pub(crate) fn unimplemented() -> ServiceError {
    ServiceError::new(ErrorCode::Unimplemented, "this server does not offer this part of the protocol")
}

fn ready(edge: &Edge) -> Reply {
    let ready = edge.is_ready();
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
