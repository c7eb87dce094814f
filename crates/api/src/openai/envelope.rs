//! Errors as OpenAI's clients read them: `{"error": {"message", "type", "param", "code"}}`, and whether to try again.

use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use tenantry_server::RateState;
use tenantry_types::{ErrorCode, ServiceError};

use super::go_duration;
use crate::budget;
use crate::reply::{self, Reply, json};

/// Heeded by the clients over their own rule, which would try every 5xx again.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Characters of a key that are shown to who sent it, at its front and at its end.
const SHOWN_FRONT: usize = 5;
const SHOWN_END: usize = 4;

/// What the envelope says beyond a service error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Detail {
    /// Which field of the request is wrong.
    pub(super) param: Option<&'static str>,
    /// A word for programs.
    pub(super) code: Option<&'static str>,
}

/// An error with its detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenAiError {
    pub(super) error: ServiceError,
    pub(super) detail: Detail,
}

impl OpenAiError {
    /// 400 for a field of the request.
    pub(super) fn invalid(param: &'static str, message: impl Into<String>) -> Self {
        let detail = Detail { param: Some(param), code: Some("invalid_value") };
        Self { error: ServiceError::invalid(message), detail }
    }
}

impl From<ServiceError> for OpenAiError {
    fn from(error: ServiceError) -> Self {
        Self { error, detail: Detail::default() }
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: Body<'a>,
}

#[derive(Serialize)]
struct Body<'a> {
    message: &'a str,
    r#type: &'static str,
    param: Option<&'static str>,
    code: Option<&'static str>,
}

/// What texts name.
pub(super) struct Shown<'a> {
    /// The key that came, masked.
    pub(super) key: Option<&'a str>,
    pub(super) organization: Option<&'a str>,
    pub(super) rate: Option<RateState>,
}

/// The reply to an error.
pub(super) fn reply(error: &ServiceError, detail: Detail, shown: &Shown<'_>) -> Reply {
    let (kind, code) = words(error);
    let message = message(error, shown).unwrap_or_else(|| error.message.clone());
    let body = Body { message: &message, r#type: kind, param: detail.param, code: detail.code.or(code) };
    let status = StatusCode::from_u16(error.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut reply = json(status, &Envelope { error: body });
    // Whoever tries again before its period ends is refused again.
    let should_retry = if error.code.is_retryable() && !budget::is_used_up(error) { "true" } else { "false" };
    reply.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static(should_retry));
    reply::error_headers(&mut reply, error);
    reply
}

/// `type` and `code`.
fn words(error: &ServiceError) -> (&'static str, Option<&'static str>) {
    const INVALID: &str = "invalid_request_error";
    const QUOTA: &str = "insufficient_quota";
    if budget::is_used_up(error) {
        return (QUOTA, Some(QUOTA));
    }
    match error.code {
        ErrorCode::Unauthenticated => (INVALID, Some("invalid_api_key")),
        ErrorCode::NotFound => (INVALID, Some("model_not_found")),
        ErrorCode::ResourceExhausted => ("requests", Some("rate_limit_exceeded")),
        ErrorCode::Unavailable
        | ErrorCode::DeadlineExceeded
        | ErrorCode::IsolationBelowMinimum
        | ErrorCode::ModelFailed
        | ErrorCode::Internal => ("server_error", None),
        ErrorCode::Unimplemented => (INVALID, Some("unsupported")),
        ErrorCode::InvalidArgument
        | ErrorCode::PermissionDenied
        | ErrorCode::AlreadyExists
        | ErrorCode::Conflict
        | ErrorCode::TooLarge
        | ErrorCode::Cancelled
        | ErrorCode::PoisonInput => (INVALID, None),
    }
}

/// The text that clients know, where ours would be another.
fn message(error: &ServiceError, shown: &Shown<'_>) -> Option<String> {
    match error.code {
        ErrorCode::Unauthenticated => Some(match shown.key {
            Some(key) => format!(
                "Incorrect API key provided: {key}. Send a key of this server that is neither revoked nor expired."
            ),
            None => "You didn't provide an API key. You need to provide your API key in an Authorization header using \
                     Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
                .to_owned(),
        }),
        ErrorCode::Internal => Some("The server had an error while processing your request.".to_owned()),
        ErrorCode::ResourceExhausted => {
            let after = error.retry_after.map(go_duration)?;
            match (error.reason, shown.rate, shown.organization) {
                (Some("request_rate"), Some(RateState { limit, remaining, .. }), Some(organization)) => Some(format!(
                    "Rate limit reached in organization {organization} on requests: Limit {limit}, Used {}, Requested 1. \
                     Please try again in {after}.",
                    limit.saturating_sub(remaining)
                )),
                _ => Some(format!("{}. Please try again in {after}.", error.message)),
            }
        }
        _ => None,
    }
}

/// A key as it may be shown to who sent it.
pub(super) fn masked(authorization: &str) -> String {
    let key = authorization.split_once(' ').map_or(authorization, |(_, key)| key).trim();
    let shown = SHOWN_FRONT + SHOWN_END;
    let count = key.chars().count();
    if count < 2 * shown || !key.is_ascii() {
        return "*****".to_owned();
    }
    let (front, end) = (key.get(..SHOWN_FRONT), key.get(count - SHOWN_END..));
    format!("{}*****{}", front.unwrap_or_default(), end.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_masked() {
        assert_eq!(masked("Bearer sk-not-a-very-long-key"), "sk-no*****-key");
        assert_eq!(masked("Bearer short"), "*****");
        assert_eq!(masked(""), "*****");
        assert_eq!(masked("Bearer ééééééééééééééééééé"), "*****");
    }

    #[test]
    fn every_code_has_its_words() {
        for code in ErrorCode::ALL {
            let (kind, _) = words(&ServiceError::new(code, "text"));
            assert!(["invalid_request_error", "server_error", "requests"].contains(&kind));
            assert_eq!(kind == "requests", code == ErrorCode::ResourceExhausted);
        }
    }
}
