//! The one flow of an inference, whatever its dialect: admit from headers alone, read the body, decode it, run it, encode
//! the answer. The edges differ in how they decode and encode, and in nothing else.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use hyper::body::Body;
use tenantry_oip::compression::{Coding, deflate, inflate};
use tenantry_server::{Permit, Principal, Resolved};
use tenantry_types::{InferRequest, InferResponse, ModelRef, Payload, RequestId, ServiceError};

use crate::body::collect;
use crate::budget;
use crate::encoding::{self, MIN_COMPRESSED_BYTES};
use crate::explain;
use crate::pool::LONG_JSON_BYTES;
use crate::reply::{JSON, Reply, ReplyBody};
use crate::request_body::RequestBody;
use crate::route::Edge;

/// How long the client will wait, milliseconds from arrival.
const TIMEOUT_MS: HeaderName = HeaderName::from_static("x-request-timeout-ms");

/// How much longer a tensor is as JSON than in memory, at most, for the types that are common.
const JSON_GROWTH: usize = 4;

/// What an inference needs besides its request.
pub(crate) struct Call {
    pub(crate) principal: Principal,
    pub(crate) id: RequestId,
    pub(crate) model: ModelRef,
    pub(crate) version: Option<String>,
}

/// How an answer is written, as its request decided.
pub(crate) trait Encode: Send + 'static {
    /// Bytes of the tensors that become text.
    fn text_bytes(&self, response: &InferResponse) -> usize {
        response.outputs.iter().map(|tensor| tensor.data.len()).sum()
    }

    /// Writes it; `accepted` is how the client takes it compressed. Runs in the pool where the text is long.
    fn encode(self, response: &InferResponse, accepted: Option<Coding>) -> Result<Reply, Unencodable>;
}

/// Why an answer cannot be written.
#[derive(Debug)]
pub(crate) enum Unencodable {
    /// Asked for in another form it could be: what to ask for.
    AsAsked(String),
    /// It is not what its model's signature says: for the log.
    Broken(String),
}

/// An admitted request on its way.
pub(crate) struct Flow<'a> {
    edge: &'a Edge,
    principal: Principal,
    id: RequestId,
    permit: Permit,
    body: RequestBody,
    coding: Option<Coding>,
    accepted: Option<Coding>,
    timeout: Option<Duration>,
    explains: bool,
}

impl<'a> Flow<'a> {
    /// Takes a place for the request, from its headers alone: a refusal reads no body.
    pub(crate) fn admit(
        edge: &'a Edge,
        principal: Principal,
        id: RequestId,
        model: &ModelRef,
        request: Request<RequestBody>,
    ) -> Result<Self, ServiceError> {
        let permit = edge.server.admit(&principal, model, request.body().size_hint().exact())?;
        Self::begin(edge, principal, id, permit, request)
    }

    /// The same for a call whose model, if it is for one, is named in the body: see [`Decoded::narrow`].
    pub(crate) fn admit_unnamed(
        edge: &'a Edge,
        principal: Principal,
        id: RequestId,
        request: Request<RequestBody>,
    ) -> Result<Self, ServiceError> {
        let permit = edge.server.admit_unnamed(&principal, request.body().size_hint().exact())?;
        Self::begin(edge, principal, id, permit, request)
    }

    fn begin(
        edge: &'a Edge,
        principal: Principal,
        id: RequestId,
        permit: Permit,
        request: Request<RequestBody>,
    ) -> Result<Self, ServiceError> {
        let (head, body) = request.into_parts();
        let coding = encoding::of_content(&head.headers)?;
        let accepted = encoding::accepted(&head.headers);
        let timeout = timeout_of(&head.headers)?;
        let explains = explain::is_wanted(&head.headers);
        Ok(Self { edge, principal, id, permit, body, coding, accepted, timeout, explains })
    }

    /// The version the caller means, before the body is read.
    pub(crate) fn resolve(&self, model: &ModelRef, version: Option<&str>) -> Result<Resolved, ServiceError> {
        self.edge.server.resolve(&self.principal, model, version)
    }

    /// Reads the body and decodes it: in the pool if it is longer than `long_bytes` or compressed.
    pub(crate) async fn decode<T: Send + 'static>(
        self,
        long_bytes: usize,
        decode: impl FnOnce(Payload) -> Result<T, ServiceError> + Send + 'static,
    ) -> Result<(Decoded<'a>, T), ServiceError> {
        let Self { edge, principal, id, mut permit, body, coding, accepted, timeout, explains } = self;
        let body = collect(body, &mut permit, edge.settings.body_timeout).await?;
        let limit_bytes = usize::try_from(edge.settings.max_body_bytes).unwrap_or(usize::MAX);
        let is_long = coding.is_some() || body.len() > long_bytes;
        let work = move || {
            let (body, grown) = inflated(coding, body, limit_bytes)?;
            Ok::<_, ServiceError>((decode(body)?, grown))
        };
        let (decoded, grown) = edge.pool.run(is_long, work).await??;
        permit.grow(grown)?;
        Ok((Decoded { edge, principal, id, permit, accepted, timeout, explains }, decoded))
    }
}

/// A request whose body is read.
pub(crate) struct Decoded<'a> {
    edge: &'a Edge,
    principal: Principal,
    id: RequestId,
    permit: Permit,
    accepted: Option<Coding>,
    timeout: Option<Duration>,
    explains: bool,
}

impl Decoded<'_> {
    /// Who calls.
    pub(crate) fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Holds a request that was admitted without its model to what is bounded for that model.
    pub(crate) fn narrow(&mut self, model: &ModelRef) -> Result<(), ServiceError> {
        self.edge.server.narrow(&self.principal, &mut self.permit, model)
    }

    /// The version the caller means.
    pub(crate) fn resolve(&self, model: &ModelRef, version: Option<&str>) -> Result<Resolved, ServiceError> {
        self.edge.server.resolve(&self.principal, model, version)
    }

    /// Has a model loaded, in the time the request has.
    pub(crate) async fn load(&self, model: &ModelRef) -> Result<(), ServiceError> {
        self.edge.server.repository_load(&self.principal, &self.permit, model, self.timeout).await
    }

    /// Runs the inference and writes its answer.
    pub(crate) async fn answer(self, mut infer: InferRequest, encoder: impl Encode) -> Result<Reply, ServiceError> {
        let Self { edge, principal, id, mut permit, accepted, timeout, explains } = self;
        infer.timeout = match (infer.timeout, timeout) {
            (Some(parameter), Some(header)) => Some(parameter.min(header)),
            (parameter, header) => parameter.or(header),
        };
        let inferred = edge.server.infer(&principal, &permit, id, infer).await?;

        let explanation = explains.then(|| inferred.explanation());
        let (response, bill, budget) = (inferred.response, inferred.bill, inferred.budget);
        let text_bytes = encoder.text_bytes(&response);
        let is_long = text_bytes > LONG_JSON_BYTES;
        let output_bytes: usize = response.outputs.iter().map(|tensor| tensor.data.len()).sum();
        // The outputs and what they become are held until the client has read them, and count until then.
        permit.hold(output_bytes.saturating_add(text_bytes.saturating_mul(JSON_GROWTH)) as u64)?;
        let work = move || {
            encoder.encode(&response, accepted).map_err(|error| match error {
                Unencodable::AsAsked(text) => ServiceError::invalid(text),
                Unencodable::Broken(error) => {
                    tracing::error!(request_id = %id, model = %response.model, %error, "an answer cannot be encoded");
                    ServiceError::internal()
                }
            })
        };
        let mut reply = edge.pool.run(is_long, work).await??;
        bill.settle(reply.body().size_hint().exact().unwrap_or(0))?;
        reply.body_mut().keep(permit);
        if let Some(left) = budget.and_then(|budget| budget.left()) {
            budget::tell(&mut reply, left);
        }
        if let Some(explanation) = explanation {
            explain::answered(&mut reply, &explanation);
        }
        Ok(reply)
    }
}

/// The body as it was before it was compressed, and by how many bytes it grew.
fn inflated(coding: Option<Coding>, body: Payload, limit_bytes: usize) -> Result<(Payload, u64), ServiceError> {
    let Some(coding) = coding else { return Ok((body, 0)) };
    let inflated = inflate(coding, &body, limit_bytes).map_err(|error| encoding::refuse(&error))?;
    let grown = inflated.len().saturating_sub(body.len()) as u64;
    Ok((inflated, grown))
}

/// A reply of JSON, compressed where the client takes that and it pays: tensor bytes hardly shrink, JSON does.
pub(crate) fn json_reply(body: Payload, accepted: Option<Coding>) -> Reply {
    let coding = accepted.filter(|_| body.len() >= MIN_COMPRESSED_BYTES);
    let compressed: Option<(Coding, Bytes)> = coding.and_then(|coding| Some((coding, deflate(coding, &body)?)));
    let (body, coding) = match compressed {
        Some((coding, bytes)) => (Payload::from(bytes), Some(coding)),
        None => (body, None),
    };
    let mut response = Response::new(ReplyBody::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    if let Some(coding) = coding {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    }
    response
}

/// The value of a header that may be given once.
pub(crate) fn text_of(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, ServiceError> {
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
        assert!(text_of(&headers(&[(&TIMEOUT_MS, "1"), (&TIMEOUT_MS, "2")]), &TIMEOUT_MS).is_err());
    }

    #[test]
    fn only_json_of_some_size_is_compressed() {
        let reply = json_reply(vec![b' '; MIN_COMPRESSED_BYTES].into(), Some(Coding::Gzip));
        assert_eq!(reply.headers()[CONTENT_ENCODING], "gzip");
        assert!(reply.body().size_hint().exact().unwrap() < 100);
        for (bytes, accepted) in [(10, Some(Coding::Gzip)), (5000, None)] {
            let reply = json_reply(vec![b' '; bytes].into(), accepted);
            assert!(!reply.headers().contains_key(CONTENT_ENCODING));
            assert_eq!(reply.headers()[CONTENT_TYPE], "application/json");
        }
    }
}
