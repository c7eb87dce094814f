use tenantry_node::Shortfall;
use tenantry_store::Sharing;

use super::*;
use crate::testing::World;

/// The refusal table of the design: own backlog 429, machine 503, expired 504; and every text names the model as the caller
/// did, or nothing.
#[test]
fn refusals_follow_the_table() {
    let routing = World::new().model(1, 2, "own", Sharing::Private, "r").routing();
    let model = routing.models().next().unwrap();
    let version = &model.versions[&1];
    let shown: ModelRef = "own".parse().unwrap();
    let after = Duration::from_millis(7);
    let shortfall = Shortfall { in_force: Level::Confined, demanded: Level::Full };
    let table = [
        (ServeError::Refused { reason: RejectReason::QueueFull, retry_after: after }, 503, Some(after)),
        (ServeError::Refused { reason: RejectReason::TenantQueueFull, retry_after: after }, 429, Some(after)),
        (ServeError::Refused { reason: RejectReason::WontMeetDeadline, retry_after: after }, 504, Some(after)),
        (ServeError::Expired, 504, None),
        (ServeError::Draining, 503, Some(DRAINING_RETRY)),
        (ServeError::InvalidInput("bad shape".to_owned()), 400, None),
        (ServeError::ModelFailed("it hung".to_owned()), 500, None),
        (ServeError::Quarantined { reason: "died 3 times".to_owned(), retry_after: after }, 503, Some(after)),
        (ServeError::PoisonInput { reason: "died 2 times".to_owned(), retry_after: after }, 422, Some(after)),
        (ServeError::Gone, 503, Some(GONE_RETRY)),
        (ServeError::BelowMinimum(shortfall), 503, None),
        (ServeError::Cancelled, 499, None),
    ];
    for (error, status, retry_after) in table {
        let names_reason = match &error {
            ServeError::InvalidInput(text) | ServeError::ModelFailed(text) => Some(text.clone()),
            ServeError::Quarantined { reason, .. } | ServeError::PoisonInput { reason, .. } => Some(reason.clone()),
            ServeError::BelowMinimum(shortfall) => Some(shortfall.to_string()),
            _ => None,
        };
        let refused = refusal(error, &shown, version);
        assert_eq!((refused.code.http_status(), refused.retry_after), (status, retry_after), "{refused}");
        assert!(!refused.message.contains("acme"), "{refused}");
        if let Some(reason) = names_reason {
            assert!(refused.message.contains("`own`") && refused.message.contains(&reason), "{refused}");
        }
    }
}
