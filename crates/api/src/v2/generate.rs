//! Triton's generate extension: one JSON object in, one out, or one event.

use bytes::{BufMut, BytesMut};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Request, Response};
use tenantry_oip::compression::Coding;
use tenantry_oip::generate::{Generate, decode_generate, encode_generate};
use tenantry_server::Resolved;
use tenantry_types::{InferRequest, InferResponse, Inputs, ServiceError};

use crate::flow::{Call, Encode, Flow, Unencodable, json_reply};
use crate::pool::LONG_JSON_BYTES;
use crate::reply::{Reply, ReplyBody};
use crate::request_body::RequestBody;
use crate::route::Edge;

/// How the answer travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// As JSON.
    Whole,
    /// As server-sent events. A model here answers a request once, so there is one.
    Events,
}

/// Serves a generate call.
pub(super) async fn generate(
    edge: &Edge,
    call: Call,
    answer: Answer,
    request: Request<RequestBody>,
) -> Result<Reply, ServiceError> {
    let Call { principal, id, model, version } = call;
    let flow = Flow::admit(edge, principal, id, &model, request)?;
    let Resolved { version, signature, .. } = flow.resolve(&model, version.as_deref())?;
    let decode = move |body: tenantry_types::Payload| {
        decode_generate(&signature, &body.to_contiguous()).map_err(|error| ServiceError::invalid(error.to_string()))
    };
    let (decoded, Generate { id, inputs, parameters, timeout, priority }) =
        flow.decode(LONG_JSON_BYTES, decode).await?;
    let infer = InferRequest {
        version: Some(version),
        id,
        parameters,
        timeout,
        priority,
        ..InferRequest::new(model, Inputs::Named(inputs))
    };
    decoded.answer(infer, answer).await
}

impl Encode for Answer {
    fn encode(self, response: &InferResponse, accepted: Option<Coding>) -> Result<Reply, Unencodable> {
        let json = encode_generate(response).map_err(|error| {
            if error.is_senders() {
                Unencodable::AsAsked(error.to_string())
            } else {
                Unencodable::Broken(error.to_string())
            }
        })?;
        Ok(match self {
            Self::Whole => json_reply(json.into(), accepted),
            Self::Events => events(&json),
        })
    }
}

/// One event ("Server-sent events", WHATWG HTML); JSON without line breaks is one line of data.
fn events(json: &[u8]) -> Reply {
    let mut event = BytesMut::with_capacity(json.len() + 8);
    event.put_slice(b"data: ");
    event.put_slice(json);
    event.put_slice(b"\n\n");
    let mut response = Response::new(ReplyBody::from(event.freeze()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
