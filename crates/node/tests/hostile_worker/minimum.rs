//! Minimums of isolation. The barriers are switched off in these beds, so that the level in force is `none` everywhere.

use tenantry_jail::{Layers, Level};
use tenantry_node::{Minimums, RegisterError, RegisterRequest, Shortfall};

use super::*;

fn bed(behaviour: &str) -> Bed {
    Bed::start_with(behaviour, |config| NodeConfig { layers: Layers::NONE, ..config })
}

fn of_version(bed: &Bed, level: Level) -> Minimums {
    Minimums { versions: [(bed.version, level)].into(), ..Minimums::default() }
}

fn of_tenant(tenant: TenantId, level: Level) -> Minimums {
    Minimums { tenants: [(tenant, level)].into(), ..Minimums::default() }
}

const BELOW: ServeError = ServeError::BelowMinimum(Shortfall { in_force: Level::None, demanded: Level::Confined });

pub(super) async fn all() {
    what_is_below_is_not_run_and_once_lowered_is_served().await;
    a_worker_of_a_tenant_that_demands_more_is_never_made().await;
    what_runs_when_it_is_raised_is_ended_and_nobody_is_blamed().await;
    what_waits_when_it_is_raised_is_refused().await;
    a_caller_demands_for_his_own_requests_only().await;
    a_registration_below_is_refused().await;
}

async fn what_is_below_is_not_run_and_once_lowered_is_served() {
    let bed = bed("honest");
    let worker = bed.serve().await;
    bed.submit(1).await.unwrap();
    bed.node.set_minimums(of_version(&bed, Level::Confined));
    bed.gone(worker).await;
    assert_eq!(bed.submit(1).await.unwrap_err(), BELOW);
    // Another version of the owner could run in this one; ours is not loaded into it.
    bed.serve().await;
    assert!(bed.node.observe().replicas.is_empty());
    assert_eq!(bed.submit(1).await.unwrap_err(), BELOW);

    bed.node.set_minimums(Minimums::default());
    bed.serve().await;
    bed.submit(1).await.unwrap();
    assert_eq!(bed.node.status_of(bed.version).deaths, 0);
}

async fn a_worker_of_a_tenant_that_demands_more_is_never_made() {
    let bed = bed("honest");
    bed.node.set_minimums(of_tenant(tenant(), Level::Confined));
    let worker = bed.node.start_worker(Bed::domain());
    bed.gone(worker).await;
    // No worker has ever said what it is.
    assert_eq!(bed.node.runtime(), None);
    // As an owner of data, too.
    let other = TenantId::from_parts(9, [9; 10]);
    bed.node.set_minimums(of_tenant(other, Level::Confined));
    let lent = TrustDomain { model_owner: tenant(), data_owner: DataOwner::Tenant(other) };
    let worker = bed.node.start_worker(lent);
    bed.gone(worker).await;
    assert_eq!(bed.node.runtime(), None);
    bed.serve().await;
    bed.submit(1).await.unwrap();
}

async fn what_runs_when_it_is_raised_is_ended_and_nobody_is_blamed() {
    for raise_tenant in [true, false] {
        let bed = bed("hangs");
        // So that nothing but the minimum ends it: the same placement with another limit.
        assert_eq!(bed.node.placement(&spec_with(Duration::from_secs(60)), Bed::domain()), bed.placement);
        let worker = bed.serve().await;
        let running = bed.submit(1);
        let busy = |node: &Arc<Node>| node.stats().workers.iter().any(|stats| stats.busy).then_some(());
        bed.until("run", busy).await;
        let raised =
            if raise_tenant { of_tenant(tenant(), Level::Confined) } else { of_version(&bed, Level::Confined) };
        bed.node.set_minimums(raised);
        assert_eq!(running.await.unwrap_err(), BELOW);
        bed.gone(worker).await;
        let status = bed.node.status_of(bed.version);
        assert_eq!((status.deaths, status.quarantined), (0, None));
    }
}

async fn what_waits_when_it_is_raised_is_refused() {
    let bed = bed("honest");
    let waiting = bed.submit(1);
    bed.node.set_minimums(of_version(&bed, Level::Confined));
    assert_eq!(waiting.await.unwrap_err(), BELOW);
    assert_eq!(bed.node.stats().queued_tasks, 0);
}

async fn a_caller_demands_for_his_own_requests_only() {
    let bed = bed("honest");
    let strict = TenantId::from_parts(9, [9; 10]);
    let everybody = TrustDomain { model_owner: tenant(), data_owner: DataOwner::Any };
    let placement = bed.node.placement(&spec(), everybody);
    let waiting = [bed.submit_as(strict, placement, 1), bed.submit_as(tenant(), placement, 1)];
    bed.node.set_minimums(of_tenant(strict, Level::Confined));
    assert_eq!(bed.submit_as(strict, placement, 1).await.unwrap_err(), BELOW);
    let worker = bed.serve_in(everybody, placement).await;
    let [strict_one, other] = waiting;
    assert_eq!(strict_one.await.unwrap_err(), BELOW);
    other.await.unwrap();
    assert!(bed.node.stats().workers.iter().any(|stats| stats.worker == worker));
}

async fn a_registration_below_is_refused() {
    let bed = bed("honest");
    let request = || RegisterRequest {
        owner: tenant(),
        version: bed.version,
        files: Vec::new(),
        settings: Default::default(),
        meter: None,
    };
    for minimums in [of_version(&bed, Level::Full), of_tenant(tenant(), Level::Full)] {
        bed.node.set_minimums(minimums);
        let refused = bed.node.register(request()).await.unwrap_err();
        let shortfall = Shortfall { in_force: Level::None, demanded: Level::Full };
        assert_eq!(refused, RegisterError::BelowMinimum(shortfall));
        assert!(bed.node.stats().workers.is_empty());
    }
}
