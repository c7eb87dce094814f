//! What every call goes through: its path, its caller, its deadline, its line in the log.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{Extensions, HeaderMap, HeaderName, Method, Request, StatusCode};
use hyper::body::Incoming;
use tenantry_oip::compression::Coding;
use tenantry_oip::grpc::framed;
use tenantry_server::Principal;
use tenantry_types::error::sanitise;
use tenantry_types::{ErrorCode, RequestId, ServiceError};

use super::body::GrpcBody;
use super::messages::{Message, Messages};
use super::reply::{self, Reply};
use super::service;
use crate::caller::{MAX_LOGGED_CHARS, presented};
use crate::connection::Requests;
use crate::route::Edge;

/// How long the client will wait ("gRPC over HTTP2", Timeout).
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// How the call's compressed messages are compressed.
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// The encodings there are, said where another one came.
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
/// The service's path, in front of a call's name.
const SERVICE: &str = "/inference.GRPCInferenceService/";
/// The longest message of a call that is no inference, bytes.
const MAX_SMALL_BYTES: u64 = 64 << 10;

/// A call of the inference service.
pub(crate) struct Call {
    pub(crate) edge: Arc<Edge>,
    pub(crate) id: RequestId,
    pub(crate) headers: HeaderMap,
    /// Who is at the other end of its connection.
    pub(crate) extensions: Extensions,
    pub(crate) requests: Arc<Requests>,
}

/// Answers one call.
pub(crate) async fn answer(
    edge: Arc<Edge>,
    requests: Arc<Requests>,
    request: Request<Incoming>,
) -> Result<Reply, Infallible> {
    let id = edge.server.new_request_id();
    let is_grpc = request.method() == Method::POST
        && request.headers().get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    let mut reply = if !is_grpc {
        // What the specification of gRPC over HTTP/2 asks for: a client of something else shall not read a status there.
        let mut reply = Reply::new(GrpcBody::Empty);
        *reply.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        reply
    } else if request.uri().path().starts_with(SERVICE) {
        let (head, body) = request.into_parts();
        let messages = Messages::new(body, edge.settings.body_timeout);
        let call = Call { edge, id, headers: head.headers, extensions: head.extensions, requests };
        let method = head.uri.path().strip_prefix(SERVICE).unwrap_or_default();
        serve(call, messages, method).await
    } else {
        edge.standard.serve(request).await
    };
    reply::identify(&mut reply, &id);
    Ok(reply)
}

async fn serve(call: Call, messages: Messages, method: &str) -> Reply {
    let id = call.id;
    let principal = match method {
        // The two calls without a key: a probe holds none, and they say nothing of any tenant.
        "ServerLive" | "ServerReady" => None,
        _ => match call.authenticate().await {
            Ok(principal) => Some(principal),
            Err(error) => return reply::refused(&error),
        },
    };
    let tenant = principal.as_ref().map(|principal| Arc::clone(&principal.tenant_name));
    let served = match principal {
        None => service::probe(call, messages, method).await,
        Some(principal) => service::serve(call, messages, principal, method).await,
    };
    let shown = || sanitise(method, MAX_LOGGED_CHARS);
    let tenant = tenant.as_ref().map(tracing::field::display);
    match served {
        Ok(reply) => {
            tracing::debug!(request_id = %id, tenant, method = %shown(), "answered");
            reply
        }
        Err(error) => {
            let code = error.code.as_str();
            if matches!(error.code, ErrorCode::Internal | ErrorCode::ModelFailed | ErrorCode::Unavailable) {
                tracing::warn!(request_id = %id, tenant, method = %shown(), code, %error, "failed");
            } else {
                tracing::debug!(request_id = %id, tenant, method = %shown(), code, %error, "refused");
            }
            let mut reply = reply::refused(&error);
            if error.code == ErrorCode::Unimplemented {
                let encodings = http::HeaderValue::from_static("identity,deflate,gzip");
                reply.headers_mut().insert(GRPC_ACCEPT_ENCODING, encodings);
            }
            reply
        }
    }
}

impl Call {
    /// Who is calling.
    pub(crate) async fn authenticate(&self) -> Result<Principal, ServiceError> {
        self.edge.server.authenticate(&presented(&self.headers, &self.extensions)).await
    }

    /// The same in the middle of a call: whoever began it is known.
    pub(crate) fn authenticate_again(&self) -> Result<Principal, ServiceError> {
        self.edge.server.authenticate_now(&presented(&self.headers, &self.extensions))
    }

    /// The message of a call that is no inference.
    pub(crate) async fn small<M: prost::Message + Default>(&self, messages: &mut Messages) -> Result<M, ServiceError> {
        let announced = |bytes| {
            if bytes <= MAX_SMALL_BYTES {
                return Ok(());
            }
            Err(ServiceError::new(
                ErrorCode::TooLarge,
                format!("this call's message has at most {MAX_SMALL_BYTES} bytes"),
            ))
        };
        let Message { is_compressed, mut data } = messages.only(announced).await?;
        if is_compressed {
            let coding = self.coding()?;
            data = super::infer::inflated(coding, &data, MAX_SMALL_BYTES)?;
        }
        M::decode(data.to_contiguous()).map_err(|error| {
            ServiceError::invalid(format!(
                "the call's message is not what it takes: {}",
                sanitise(&error.to_string(), 200)
            ))
        })
    }

    /// An answer of one message.
    pub(crate) fn reply<M: prost::Message>(&self, message: &M) -> Result<Reply, ServiceError> {
        let message = message.encode_to_vec();
        let framed = framed(message.len(), |out| out.extend_from_slice(&message));
        Ok(reply::message(&framed.ok_or_else(ServiceError::internal)?.into(), None, &self.requests))
    }

    /// How compressed messages of this call are compressed.
    pub(crate) fn coding(&self) -> Result<Coding, ServiceError> {
        let encoding = self.headers.get(GRPC_ENCODING).and_then(|value| value.to_str().ok());
        let coding = encoding.and_then(|encoding| Coding::of_content(encoding).ok().flatten());
        coding.ok_or_else(|| {
            ServiceError::new(
                ErrorCode::Unimplemented,
                "a message is compressed, but the call's `grpc-encoding` is none of gzip and deflate",
            )
        })
    }

    /// How long the client will wait, from arrival.
    pub(crate) fn timeout(&self) -> Result<Option<Duration>, ServiceError> {
        let Some(value) = self.headers.get(GRPC_TIMEOUT) else { return Ok(None) };
        let timeout = value.to_str().ok().and_then(timeout);
        timeout.map(Some).ok_or_else(|| {
            ServiceError::invalid(
                "the header grpc-timeout must be at most 8 digits and one of the units H, M, S, m, u, n",
            )
        })
    }
}

/// The value of `grpc-timeout`.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_eight_digits_and_a_unit() {
        for (text, expected) in [
            ("1S", Duration::from_secs(1)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
            ("2M", Duration::from_secs(120)),
            ("0m", Duration::ZERO),
            ("1500u", Duration::from_micros(1500)),
            ("7n", Duration::from_nanos(7)),
        ] {
            assert_eq!(timeout(text), Some(expected), "{text}");
        }
        for wrong in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789n", "1 S", "1ü"] {
            assert_eq!(timeout(wrong), None, "{wrong}");
        }
    }
}
