//! TorchServe's inference API: `POST /predictions/{model}` with the bytes of the only input, or one instance as JSON.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, StatusCode};
use serde::Serialize;
use tenantry_oip::predict::PredictFormat;
use tenantry_server::Resolved;
use tenantry_types::{Inputs, ServiceError};

use super::predict::{instance, request_to};
use crate::flow::{Call, Flow};
use crate::pool::LONG_BINARY_BYTES;
use crate::reply::{Reply, json};
use crate::request_body::RequestBody;
use crate::route::Edge;

#[derive(Serialize)]
struct Ping {
    status: &'static str,
}

/// TorchServe's word for readiness. Like the v2 protocol's, it needs no key.
pub(super) fn ping(edge: &Edge) -> Reply {
    if edge.is_ready() {
        json(StatusCode::OK, &Ping { status: "Healthy" })
    } else {
        json(StatusCode::SERVICE_UNAVAILABLE, &Ping { status: "Unhealthy" })
    }
}

/// Serves a prediction. The answer is the outputs as JSON: the only one without its name, the only row without its
/// dimension.
pub(super) async fn predictions(edge: &Edge, call: Call, request: Request<RequestBody>) -> Result<Reply, ServiceError> {
    match kind(request.headers()) {
        Kind::Json => instance(edge, call, request).await,
        Kind::Form => Err(ServiceError::invalid(
            "forms are not read here; send the bytes of the input as the body (curl: `-T FILE` or `--data-binary @FILE`)",
        )),
        Kind::Bytes => {
            let Call { principal, id, model, version } = call;
            let flow = Flow::admit(edge, principal, id, &model, request)?;
            let Resolved { version, signature, .. } = flow.resolve(&model, version.as_deref())?;
            let format = PredictFormat::instance_of(&signature);
            let (decoded, body) = flow.decode(LONG_BINARY_BYTES, Ok).await?;
            decoded.answer(request_to(model, version, Inputs::Raw(body)), format).await
        }
    }
}

/// How a body is to be read.
enum Kind {
    Json,
    Form,
    Bytes,
}

fn kind(headers: &HeaderMap) -> Kind {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Kind::Json
    } else if essence.eq_ignore_ascii_case("multipart/form-data") {
        Kind::Form
    } else {
        // What curl calls a form it was told nothing of is bytes, as a rule.
        Kind::Bytes
    }
}
