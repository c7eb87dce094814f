//! The edge under `/v1`: TensorFlow Serving's REST API and KServe's v1 protocol, which share their paths and calls.
//!
//! Where they and OpenAI's API ask the same path for different things, one object answers all of them. What TensorFlow
//! Serving calls a label is an alias here.

mod predict;
pub(crate) mod status;
mod torchserve;

use http::{Method, Request};
use tenantry_server::Principal;
use tenantry_types::{ErrorCode, RequestId, ServiceError};

use crate::caller::{Caller, model_ref};
use crate::flow::Call;
use crate::openai;
use crate::path::{V1Action, V1ModelPath, V1Path, parse_predictions, parse_v1, without_openai_prefix};
use crate::reply::{self, Reply};
use crate::request_body::RequestBody;
use crate::route::Edge;

const GET: &str = "GET, HEAD";
const POST: &str = "POST";
/// `curl -T` puts, and that is how TorchServe's own examples send files.
const POST_OR_PUT: &str = "POST, PUT";

/// Serves a request whose path starts with `/v1`, or with KServe's prefix for OpenAI's API.
pub(crate) async fn serve(edge: &Edge, request: Request<RequestBody>, id: RequestId) -> Reply {
    // The path outlives the request's own parts: an infer call gives those away.
    let uri = request.uri().clone();
    let parsed = match without_openai_prefix(uri.path()) {
        Some(path) => parse_v1(path).filter(|path| matches!(path, V1Path::OpenAi(_))),
        None => parse_v1(uri.path()),
    };
    let Some(path) = parsed else { return reply::not_found(&id) };
    let is_posted = match &path {
        V1Path::Model(model) => !matches!(model.action, V1Action::Status | V1Action::Metadata),
        V1Path::OpenAi(call) => call.is_posted(),
    };
    let (allowed, fits) = if is_posted {
        (POST, *request.method() == Method::POST)
    } else {
        (GET, matches!(*request.method(), Method::GET | Method::HEAD))
    };
    if !fits {
        return reply::method_not_allowed(allowed, &id);
    }
    let path = match path {
        V1Path::OpenAi(call) => return openai::serve(edge, call, request, id).await,
        V1Path::Model(path) => path,
    };
    match Caller::of(edge, &request, id).await {
        Ok((caller, principal)) => {
            let served = serve_caller(edge, path, principal, request, id).await;
            caller.finish(served, uri.path(), reply::error)
        }
        Err(error) => reply::error(&error, &id),
    }
}

async fn serve_caller(
    edge: &Edge,
    path: V1ModelPath<'_>,
    principal: Principal,
    request: Request<RequestBody>,
    id: RequestId,
) -> Result<Reply, ServiceError> {
    let V1ModelPath { model, version, action } = path;
    let model = model_ref(&model)?;
    match action {
        V1Action::Status => status::model(edge, &principal, &model, version.as_deref()),
        V1Action::Metadata => status::metadata(edge, &principal, &model, version.as_deref()),
        V1Action::Predict => {
            let version = version.map(std::borrow::Cow::into_owned);
            predict::predict(edge, Call { principal, id, model, version }, request).await
        }
        V1Action::Refused(verb) => Err(ServiceError::new(
            ErrorCode::Unimplemented,
            format!(
                "`:{verb}` is not offered, because models here have tensors, not examples or explanations; use `:predict`"
            ),
        )),
    }
}

/// Answers `/`, where KServe's v1 clients ask whether the server is there. Needs no key.
pub(crate) fn serve_root(request: &Request<RequestBody>, id: &RequestId) -> Reply {
    match *request.method() {
        Method::GET | Method::HEAD => status::alive(),
        _ => reply::method_not_allowed(GET, id),
    }
}

/// Whether a path is TorchServe's.
pub(crate) fn is_torchserve(path: &str) -> bool {
    path == "/ping" || path.starts_with("/predictions/")
}

/// Serves a request of TorchServe's inference API.
pub(crate) async fn serve_torchserve(edge: &Edge, request: Request<RequestBody>, id: RequestId) -> Reply {
    let uri = request.uri().clone();
    if uri.path() == "/ping" {
        return match *request.method() {
            Method::GET | Method::HEAD => torchserve::ping(edge),
            _ => reply::method_not_allowed(GET, &id),
        };
    }
    let Some(path) = parse_predictions(uri.path()) else { return reply::not_found(&id) };
    if !matches!(*request.method(), Method::POST | Method::PUT) {
        return reply::method_not_allowed(POST_OR_PUT, &id);
    }
    match Caller::of(edge, &request, id).await {
        Ok((caller, principal)) => {
            let served = async {
                let model = model_ref(&path.model)?;
                let version = path.version.map(std::borrow::Cow::into_owned);
                torchserve::predictions(edge, Call { principal, id, model, version }, request).await
            };
            caller.finish(served.await, uri.path(), reply::error)
        }
        Err(error) => reply::error(&error, &id),
    }
}
