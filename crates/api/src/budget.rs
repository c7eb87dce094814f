//! What is left of a caller's budgets, in the headers of an answer.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tenantry_server::{BudgetState, BudgetsLeft};
use tenantry_types::ServiceError;

use crate::reply::Reply;

/// How much may be used, of what, and in which time: of the budget of which the least is left in proportion. The units are those
/// of the admin API.
const LIMIT: HeaderName = HeaderName::from_static("x-tenantry-budget-limit");
/// How much of it is left.
const REMAINING: HeaderName = HeaderName::from_static("x-tenantry-budget-remaining");
/// Until it begins anew, seconds.
const RESET: HeaderName = HeaderName::from_static("x-tenantry-budget-reset");

/// What a budget's refusals are for begins with this.
const REASON: &str = "budget_";
/// What gives way so soon is held up by what runs, and not used up.
const SOON: Duration = Duration::from_secs(1);

/// Whether a budget refused it.
pub(crate) fn refused(error: &ServiceError) -> bool {
    error.reason.is_some_and(|reason| reason.starts_with(REASON))
}

/// Whether a budget refused it and trying again soon is in vain.
pub(crate) fn is_used_up(error: &ServiceError) -> bool {
    refused(error) && error.retry_after.is_none_or(|after| after > SOON)
}

/// Says on a reply what is left, and keeps it for an edge that says it in its own way, too.
pub(crate) fn tell(reply: &mut Reply, left: BudgetsLeft) {
    write(reply.headers_mut(), left);
    reply.extensions_mut().insert(left);
}

/// What is left, as headers or metadata.
pub(crate) fn write(headers: &mut HeaderMap, left: BudgetsLeft) {
    let BudgetState { meter, period, limit, remaining, reset } = left.nearest;
    let limit = format!("{limit};meter={};period={}", meter.as_str(), period.as_str());
    // Numbers and our own words are plain text.
    if let Ok(limit) = HeaderValue::from_maybe_shared(bytes::Bytes::from(limit)) {
        headers.insert(LIMIT, limit);
    }
    headers.insert(REMAINING, HeaderValue::from(remaining));
    headers.insert(RESET, HeaderValue::from(reset.as_secs().saturating_add(u64::from(reset.subsec_nanos() > 0))));
}

#[cfg(test)]
mod tests {
    use http::Response;
    use tenantry_bill::BudgetMeter;
    use tenantry_bill::period::BudgetPeriod;
    use tenantry_types::ErrorCode;

    use super::*;
    use crate::reply::ReplyBody;

    #[test]
    fn headers_name_the_nearest_budget() {
        let mut reply = Response::new(ReplyBody::from(bytes::Bytes::new()));
        let nearest = BudgetState {
            meter: BudgetMeter::DeviceTime,
            period: BudgetPeriod::Day,
            limit: 10,
            remaining: 3,
            reset: Duration::from_millis(1_500),
        };
        tell(&mut reply, BudgetsLeft { nearest, tokens: None });
        let texts = [LIMIT, REMAINING, RESET].map(|name| reply.headers()[name].to_str().unwrap().to_owned());
        assert_eq!(texts, ["10;meter=device_time;period=day", "3", "2"]);
    }

    #[test]
    fn what_runs_is_no_quota() {
        let error = ServiceError::new(ErrorCode::ResourceExhausted, "no").because("budget_tokens");
        assert!(is_used_up(&error));
        assert!(is_used_up(&error.clone().retry_after(Duration::from_secs(60))));
        assert!(!is_used_up(&error.clone().retry_after(Duration::from_secs(1))));
        assert!(!is_used_up(&error.because("request_rate")));
    }
}
