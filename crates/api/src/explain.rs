//! Explaining on request where a caller's own request spent its time, and what refused it.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use tenantry_server::Explanation;
use tenantry_types::ServiceError;

use crate::reply::Reply;

/// A request with the value `1` here asks for [`TIMING`].
const EXPLAIN: HeaderName = HeaderName::from_static("x-tenantry-explain");
/// The account, as JSON without line breaks.
pub(crate) const TIMING: HeaderName = HeaderName::from_static("x-tenantry-timing");

#[derive(Serialize)]
struct Answered {
    admission_us: u64,
    queue_us: u64,
    batch_wait_us: u64,
    device_us: u64,
    suspended_us: u64,
    batch_rows: u32,
    phase: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<&'static str>,
}

#[derive(Serialize)]
struct Refused {
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_us: Option<u64>,
}

/// Whether the caller asks for an account.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    headers.get(EXPLAIN).is_some_and(|value| value == "1")
}

/// Says where the time of an answered request went.
pub(crate) fn answered(reply: &mut Reply, explanation: &Explanation) {
    insert(reply, of_answered(explanation));
}

/// The account of an answered request.
pub(crate) fn of_answered(explanation: &Explanation) -> Option<HeaderValue> {
    let Explanation { admission, queue, batch_wait, device, suspended, batch_rows, phase, cache } = *explanation;
    value(&Answered {
        admission_us: micros(admission),
        queue_us: micros(queue),
        batch_wait_us: micros(batch_wait),
        device_us: micros(device),
        suspended_us: micros(suspended),
        batch_rows,
        phase,
        cache,
    })
}

/// Says what refused a request.
pub(crate) fn refused(reply: &mut Reply, error: &ServiceError) {
    insert(reply, of_refused(error));
}

/// The account of a refused request.
pub(crate) fn of_refused(error: &ServiceError) -> Option<HeaderValue> {
    let retry_after_us = error.retry_after.map(micros);
    value(&Refused { code: error.code.as_str(), reason: error.reason, retry_after_us })
}

fn value(account: &impl Serialize) -> Option<HeaderValue> {
    // Our own words and numbers always have a JSON form, and that is plain text.
    let text = serde_json::to_vec(account).ok()?;
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).ok()
}

fn insert(reply: &mut Reply, account: Option<HeaderValue>) {
    if let Some(account) = account {
        reply.headers_mut().insert(TIMING, account);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use http::Response;
    use tenantry_types::ErrorCode;

    use super::*;
    use crate::reply::ReplyBody;

    #[test]
    fn an_account_is_one_line_of_json() {
        let mut reply = Response::new(ReplyBody::from(bytes::Bytes::new()));
        let explanation = Explanation {
            admission: Duration::from_micros(1),
            queue: Duration::from_micros(2),
            batch_wait: Duration::from_micros(3),
            device: Duration::from_nanos(4_999),
            suspended: Duration::ZERO,
            batch_rows: 8,
            phase: "reserved",
            cache: None,
        };
        answered(&mut reply, &explanation);
        assert_eq!(
            reply.headers()[TIMING],
            r#"{"admission_us":1,"queue_us":2,"batch_wait_us":3,"device_us":4,"suspended_us":0,"batch_rows":8,"phase":"reserved"}"#
        );
        answered(&mut reply, &Explanation { cache: Some("hit"), ..explanation });
        assert!(reply.headers()[TIMING].to_str().unwrap().ends_with(r#""phase":"reserved","cache":"hit"}"#));
        let error = ServiceError::new(ErrorCode::ResourceExhausted, "no")
            .because("request_rate")
            .retry_after(Duration::from_millis(5));
        refused(&mut reply, &error);
        assert_eq!(
            reply.headers()[TIMING],
            r#"{"code":"resource_exhausted","reason":"request_rate","retry_after_us":5000}"#
        );
    }

    #[test]
    fn only_a_one_asks() {
        let mut headers = HeaderMap::new();
        assert!(!is_wanted(&headers));
        headers.insert(EXPLAIN, HeaderValue::from_static("0"));
        assert!(!is_wanted(&headers));
        headers.insert(EXPLAIN, HeaderValue::from_static("1"));
        assert!(is_wanted(&headers));
    }
}
