//! The one path's edge: an infer call from its headers to its encoded answer.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use hyper::body::{Body, Incoming};
use tenantry_oip::compression::{Coding, deflate, inflate};
use tenantry_oip::{DecodedRequest, Encoded, Form, ReplyFormat, decode_request, encode_response};
use tenantry_server::Principal;
use tenantry_types::{InferResponse, ModelRef, Payload, RequestId, ServiceError};

use crate::body::collect;
use crate::encoding::{self, MIN_COMPRESSED_BYTES};
use crate::explain;
use crate::pool::{LONG_BINARY_BYTES, LONG_JSON_BYTES};
use crate::reply::{Reply, ReplyBody};
use crate::route::Edge;

/// How long the JSON part is, in front of binary tensors.
const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
/// How long the client will wait, milliseconds from arrival.
const TIMEOUT_MS: HeaderName = HeaderName::from_static("x-request-timeout-ms");

/// How much longer a tensor is as JSON than in memory, at most, for the types that are common.
const JSON_GROWTH: usize = 4;

/// What an infer call needs besides its request.
pub(crate) struct Call {
    pub(crate) principal: Principal,
    pub(crate) id: RequestId,
    pub(crate) model: ModelRef,
    pub(crate) version: Option<String>,
}

/// Serves an infer call of an authenticated caller.
pub(crate) async fn infer(edge: &Edge, call: Call, request: Request<Incoming>) -> Result<Reply, ServiceError> {
    // From headers alone: a refusal reads no body.
    let mut permit = edge.server.admit(&call.principal, &call.model, request.body().size_hint().exact())?;
    let (head, body) = request.into_parts();
    let coding = encoding::of_content(&head.headers)?;
    let accepted = encoding::accepted(&head.headers);
    let header_length = text_of(&head.headers, &HEADER_LENGTH)?;
    let timeout = timeout_of(&head.headers)?;
    let explains = explain::is_wanted(&head.headers);
    drop(head);

    let body = collect(body, &mut permit, edge.settings.body_timeout).await?;
    let limit_bytes = usize::try_from(edge.settings.max_body_bytes).unwrap_or(usize::MAX);
    let long_bytes = if header_length.is_some() { LONG_BINARY_BYTES } else { LONG_JSON_BYTES };
    let is_long = coding.is_some() || body.len() > long_bytes;
    let work = Decoding { coding, header_length, model: call.model, version: call.version, body, limit_bytes };
    let (decoded, grown) = edge.pool.run(is_long, move || work.run()).await??;
    permit.grow(grown)?;

    let DecodedRequest { request: mut infer, reply } = decoded;
    infer.timeout = match (infer.timeout, timeout) {
        (Some(parameter), Some(header)) => Some(parameter.min(header)),
        (parameter, header) => parameter.or(header),
    };
    let inferred = edge.server.infer(&call.principal, &permit, call.id, infer).await?;

    let explanation = explains.then(|| inferred.explanation());
    let response = inferred.response;
    let json_bytes = json_bytes(&response, &reply);
    let is_long = json_bytes > LONG_JSON_BYTES;
    let output_bytes: usize = response.outputs.iter().map(|tensor| tensor.data.len()).sum();
    // The outputs and what they become are held until the client has read them, and count until then.
    permit.hold(output_bytes.saturating_add(json_bytes.saturating_mul(JSON_GROWTH)) as u64)?;
    let id = call.id;
    let mut reply = edge.pool.run(is_long, move || encode(&response, &reply, accepted, id)).await??;
    reply.body_mut().keep(permit);
    if let Some(explanation) = explanation {
        explain::answered(&mut reply, &explanation);
    }
    Ok(reply)
}

/// The part of the work that may be long: inflating and decoding.
struct Decoding {
    coding: Option<Coding>,
    header_length: Option<String>,
    model: ModelRef,
    version: Option<String>,
    body: Payload,
    limit_bytes: usize,
}

impl Decoding {
    /// The request, and by how many bytes the body grew.
    fn run(self) -> Result<(DecodedRequest, u64), ServiceError> {
        let Self { coding, header_length, model, version, body, limit_bytes } = self;
        let (body, grown) = match coding {
            None => (body, 0),
            Some(coding) => {
                let inflated = inflate(coding, &body, limit_bytes).map_err(|error| encoding::refuse(&error))?;
                let grown = inflated.len().saturating_sub(body.len());
                (inflated, grown as u64)
            }
        };
        let decoded = decode_request(model, version, header_length.as_deref(), body);
        decoded.map(|decoded| (decoded, grown)).map_err(|error| ServiceError::invalid(error.to_string()))
    }
}

/// Bytes of the tensors that will be written as JSON.
fn json_bytes(response: &InferResponse, reply: &ReplyFormat) -> usize {
    let outputs = response.outputs.iter().enumerate();
    outputs.filter(|(index, _)| reply.form(*index) == Form::Json).map(|(_, tensor)| tensor.data.len()).sum()
}

fn encode(
    response: &InferResponse,
    reply: &ReplyFormat,
    accepted: Option<Coding>,
    id: RequestId,
) -> Result<Reply, ServiceError> {
    let encoded = encode_response(response, reply).map_err(|error| {
        if error.is_choice_of_form() {
            return ServiceError::invalid(error.to_string());
        }
        tracing::error!(request_id = %id, model = %response.model, %error, "an answer cannot be encoded");
        ServiceError::internal()
    })?;
    Ok(reply_of(encoded, accepted))
}

fn reply_of(encoded: Encoded, accepted: Option<Coding>) -> Reply {
    let Encoded { json_length, body } = encoded;
    let Some(json_length) = json_length else { return json_reply(body, accepted) };
    let mut response = Response::new(ReplyBody::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(HEADER_LENGTH, HeaderValue::from(json_length));
    response
}

/// Tensor bytes hardly shrink; JSON does.
fn json_reply(body: Payload, accepted: Option<Coding>) -> Reply {
    let coding = accepted.filter(|_| body.len() >= MIN_COMPRESSED_BYTES);
    let compressed: Option<(Coding, Bytes)> = coding.and_then(|coding| Some((coding, deflate(coding, &body)?)));
    let (body, coding) = match compressed {
        Some((coding, bytes)) => (Payload::from(bytes), Some(coding)),
        None => (body, None),
    };
    let mut response = Response::new(ReplyBody::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(coding) = coding {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    }
    response
}

fn text_of(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, ServiceError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match value.to_str() {
        Ok(text) if values.next().is_none() => Ok(Some(text.to_owned())),
        _ => Err(ServiceError::invalid(format!("the header {name} must be given once, as plain text"))),
    }
}

fn timeout_of(headers: &HeaderMap) -> Result<Option<Duration>, ServiceError> {
    let Some(text) = text_of(headers, &TIMEOUT_MS)? else { return Ok(None) };
    match text.trim().parse::<u64>() {
        Ok(timeout_ms) if timeout_ms > 0 => Ok(Some(Duration::from_millis(timeout_ms))),
        _ => Err(ServiceError::invalid(format!(
            "the header {TIMEOUT_MS} must be a whole number of milliseconds above zero"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| ((*name).clone(), HeaderValue::from_static(value))).fold(
            HeaderMap::new(),
            |mut map, (name, value)| {
                map.append(name, value);
                map
            },
        )
    }

    #[test]
    fn a_timeout_is_milliseconds_above_zero() {
        assert_eq!(timeout_of(&headers(&[])), Ok(None));
        assert_eq!(timeout_of(&headers(&[(&TIMEOUT_MS, "1500")])), Ok(Some(Duration::from_millis(1500))));
        for wrong in ["0", "-1", "1.5", "", "18446744073709551616", "soon"] {
            assert!(timeout_of(&headers(&[(&TIMEOUT_MS, wrong)])).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_header_given_twice_is_refused() {
        assert!(text_of(&headers(&[(&HEADER_LENGTH, "1"), (&HEADER_LENGTH, "2")]), &HEADER_LENGTH).is_err());
    }

    #[test]
    fn only_json_of_some_size_is_compressed() {
        let encoded = |bytes: usize, json_length| Encoded { json_length, body: vec![b' '; bytes].into() };
        let reply = reply_of(encoded(MIN_COMPRESSED_BYTES, None), Some(Coding::Gzip));
        assert_eq!(reply.headers()[CONTENT_ENCODING], "gzip");
        assert!(reply.body().size_hint().exact().unwrap() < 100);
        assert!(!reply_of(encoded(10, None), Some(Coding::Gzip)).headers().contains_key(CONTENT_ENCODING));
        assert!(!reply_of(encoded(5000, None), None).headers().contains_key(CONTENT_ENCODING));
        let binary = reply_of(encoded(5000, Some(20)), Some(Coding::Gzip));
        assert!(!binary.headers().contains_key(CONTENT_ENCODING));
        assert_eq!(binary.headers()[HEADER_LENGTH], "20");
    }
}
