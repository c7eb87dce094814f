//! Answers and refusals as HTTP/2 carries them.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use tenantry_server::Permit;
use tenantry_types::{Payload, RequestId, ServiceError};
use tonic::{Code, Status};

use super::body::GrpcBody;
use crate::connection::Requests;
use crate::reply::{RETRY_AFTER_MS, X_REQUEST_ID, whole_millis};

/// The status of a call, in its trailers.
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// The name of an error's code: several of ours share a status of gRPC's.
const ERROR_CODE: HeaderName = HeaderName::from_static("error-code");
/// The word for the limit that refused a call.
const ERROR_REASON: HeaderName = HeaderName::from_static("error-reason");
const OK: HeaderValue = HeaderValue::from_static("0");
const APPLICATION_GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// An answer.
pub(crate) type Reply = Response<GrpcBody>;

/// The one place where an error becomes a status: the code by the table of [`tenantry_types::ErrorCode`], the rest as
/// metadata.
pub(crate) fn status(error: &ServiceError) -> Status {
    let mut status = Status::new(Code::from_i32(error.code.grpc_code().into()), error.message.clone());
    let mut headers = HeaderMap::new();
    headers.insert(ERROR_CODE, HeaderValue::from_static(error.code.as_str()));
    if let Some(reason) = error.reason {
        headers.insert(ERROR_REASON, HeaderValue::from_static(reason));
    }
    if let Some(after) = error.retry_after {
        headers.insert(RETRY_AFTER_MS, HeaderValue::from(whole_millis(after)));
    }
    *status.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers);
    status
}

/// The headers of an answer whose status comes in trailers.
pub(crate) fn accepted(body: GrpcBody) -> Reply {
    let mut reply = Response::new(body);
    reply.headers_mut().insert(CONTENT_TYPE, APPLICATION_GRPC);
    reply
}

/// The trailers of a call that went well.
pub(crate) fn success() -> HeaderMap {
    HeaderMap::from_iter([(GRPC_STATUS, OK)])
}

/// The trailers of a call that ended with an error after its headers were sent.
pub(crate) fn failure(error: &ServiceError) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // Fails only for metadata no header can carry; ours is plain text.
    let _ = status(error).add_header(&mut trailers);
    trailers
}

/// An answer of one message, with its prefix.
pub(crate) fn message(data: &Payload, permit: Option<Permit>, requests: &Arc<Requests>) -> Reply {
    accepted(GrpcBody::message(data, success(), permit, requests))
}

/// A refusal: its status is in the headers, and there is no body.
pub(crate) fn refused(error: &ServiceError) -> Reply {
    status(error).into_http()
}

/// Puts the request's id on an answer.
pub(crate) fn identify(reply: &mut Reply, request: &RequestId) {
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(request.to_string())) {
        reply.headers_mut().insert(X_REQUEST_ID, value);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyper::body::Body as _;
    use tenantry_types::ErrorCode;

    use super::*;

    #[test]
    fn a_refusal_is_all_headers() {
        let error = ServiceError::new(ErrorCode::ResourceExhausted, "too much,\nsadly: ü")
            .because("concurrency")
            .retry_after(Duration::from_micros(1_500_001));
        let mut reply = refused(&error);
        identify(&mut reply, &RequestId::from_parts(1, [2; 10]));
        assert!(reply.body().is_end_stream());
        let headers = reply.headers();
        assert_eq!(headers["grpc-status"], "8");
        assert_eq!(headers["grpc-message"], "too%20much,%0Asadly:%20%C3%BC");
        assert_eq!(headers["retry-after-ms"], "1501");
        assert_eq!(
            (&headers["error-code"], &headers["error-reason"]),
            (&"resource_exhausted".parse().unwrap(), &"concurrency".parse().unwrap())
        );
        assert!(headers["x-request-id"].to_str().unwrap().starts_with("req_"));
    }

    #[test]
    fn every_code_has_a_status_that_is_an_error() {
        for code in ErrorCode::ALL {
            let status = status(&ServiceError::new(code, ""));
            assert!(!matches!(status.code(), Code::Ok | Code::Unknown), "{code:?}");
        }
    }
}
