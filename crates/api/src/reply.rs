//! Responses: their body, and the one form errors have.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use hyper::body::{Body, Frame, SizeHint};
use serde::Serialize;
use smallvec::SmallVec;
use tenantry_server::Permit;
use tenantry_types::{ErrorCode, Payload, RequestId, ServiceError};

/// The response header with the request's id.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// When to try again, milliseconds.
pub(crate) const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A response.
pub(crate) type Reply = Response<ReplyBody>;

/// A response's body.
pub(crate) enum ReplyBody {
    /// Buffers, all here.
    Chain { parts: smallvec::IntoIter<[Bytes; 2]>, left: u64, permit: Option<Permit> },
    /// What the admin router made.
    Admin(axum::body::Body),
}

impl ReplyBody {
    /// Keeps a request's permit until the body is sent or given up.
    pub(crate) fn keep(&mut self, kept: Permit) {
        if let Self::Chain { permit, .. } = self {
            *permit = Some(kept);
        }
    }
}

impl From<Bytes> for ReplyBody {
    fn from(bytes: Bytes) -> Self {
        Payload::from(bytes).into()
    }
}

impl From<Payload> for ReplyBody {
    fn from(payload: Payload) -> Self {
        let parts: SmallVec<[Bytes; 2]> = payload.parts().iter().cloned().collect();
        Self::Chain { parts: parts.into_iter(), left: payload.len() as u64, permit: None }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match &mut *self {
            Self::Chain { parts, left, .. } => {
                let part = parts.next();
                *left -= part.as_ref().map_or(0, |part| part.len() as u64);
                Poll::Ready(part.map(|part| Ok(Frame::data(part))))
            }
            Self::Admin(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Chain { left, .. } => *left == 0,
            Self::Admin(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Chain { left, .. } => SizeHint::with_exact(*left),
            Self::Admin(body) => body.size_hint(),
        }
    }
}

/// What every error's body is.
#[derive(Debug, Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    code: &'static str,
    /// Which limit refused it, for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    request_id: &'a RequestId,
}

/// A response with a JSON body.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Reply {
    match serde_json::to_vec(body) {
        Ok(text) => with_type(status, JSON, text.into()),
        // Our own types always have a JSON form.
        Err(_) => {
            with_type(StatusCode::INTERNAL_SERVER_ERROR, JSON, Bytes::from_static(b"{\"error\":\"internal error\"}"))
        }
    }
}

/// A response with a body of a given type.
pub(crate) fn with_type(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Reply {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// The response for an error: the one place where codes become statuses and headers.
pub(crate) fn error(error: &ServiceError, request: &RequestId) -> Reply {
    let status = StatusCode::from_u16(error.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body =
        ErrorBody { error: &error.message, code: error.code.as_str(), reason: error.reason, request_id: request };
    let mut response = json(status, &body);
    error_headers(&mut response, error);
    response
}

/// Puts on a reply what every form of an error has: when to try again, and how to say who calls.
pub(crate) fn error_headers(response: &mut Reply, error: &ServiceError) {
    let headers = response.headers_mut();
    if let Some(after) = error.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
        headers.insert(RETRY_AFTER_MS, HeaderValue::from(whole_millis(after)));
    }
    if error.code == ErrorCode::Unauthenticated {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
}

/// The response for a path that names nothing.
pub(crate) fn not_found(request: &RequestId) -> Reply {
    error(
        &ServiceError::new(ErrorCode::NotFound, "no such path; the API is under /v2, /v1, /predictions and /admin/v1"),
        request,
    )
}

/// The response for a method that the path does not have.
pub(crate) fn method_not_allowed(allow: &'static str, request: &RequestId) -> Reply {
    let message = format!("this path takes {allow} only");
    let mut response = error(&ServiceError::invalid(message), request);
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

/// Rounded up, at least one: a client that waits so long does not come too early.
fn whole_seconds(after: Duration) -> u64 {
    after.as_secs().saturating_add(u64::from(after.subsec_nanos() > 0)).max(1)
}

pub(crate) fn whole_millis(after: Duration) -> u64 {
    u64::try_from(after.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1)
}

/// Puts the request's id on a response.
pub(crate) fn identify(mut response: Reply, request: &RequestId) -> Result<Reply, Infallible> {
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(request.to_string())) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn an_error_has_the_form_of_the_contract() {
        let request = RequestId::from_parts(1, [2; 10]);
        let refusal = ServiceError::new(ErrorCode::ResourceExhausted, "queue \"full\"")
            .because("tenant_queue_full")
            .retry_after(Duration::from_micros(1_500_001));
        let response = error(&refusal, &request);
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["retry-after-ms"], "1501");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let expected = format!(
            r#"{{"error":"queue \"full\"","code":"resource_exhausted","reason":"tenant_queue_full","request_id":"{request}"}}"#
        );
        assert_eq!(body, expected);
    }

    #[test]
    fn waits_are_rounded_up() {
        assert_eq!((whole_seconds(Duration::ZERO), whole_millis(Duration::ZERO)), (1, 1));
        assert_eq!(whole_seconds(Duration::from_secs(3)), 3);
        assert_eq!(whole_seconds(Duration::from_nanos(3_000_000_001)), 4);
        assert_eq!(whole_millis(Duration::MAX), u64::MAX);
    }

    #[tokio::test]
    async fn a_chain_is_sent_in_order_and_knows_its_length() {
        let mut payload = Payload::new();
        for part in ["ab", "c", "def"] {
            payload.push(Bytes::from_static(part.as_bytes()));
        }
        let body = ReplyBody::from(payload);
        assert_eq!(body.size_hint().exact(), Some(6));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abcdef");
        assert!(ReplyBody::from(Bytes::new()).is_end_stream());
    }
}
