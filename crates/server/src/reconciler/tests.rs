use tenantry_plan::{ObservedDemand, ObservedReplica, ReplicaState};
use tenantry_store::Sharing;
use tenantry_types::{DataOwner, ReplicaId};

use super::*;
use crate::testing::{World, tenant_id, version_id};

fn world() -> World {
    let mut world = World::new()
        .model(1, 1, "magika", Sharing::Everyone, "r")
        .model(2, 2, "own", Sharing::Private, "rrxg")
        .model(3, 2, "new", Sharing::Private, "g");
    world.catalogue.deployments[0].min_replicas = 1;
    world
}

fn of(routing: &Routing, observed: &Observed, keep_minimum: bool) -> Vec<DesiredDeployment> {
    let mut deployments = desired(routing, &index(routing), observed, keep_minimum, Vec::new()).deployments;
    deployments.sort_by_key(|deployment| deployment.version);
    deployments
}

#[test]
fn deployed_versions_are_desired_as_their_deployments_say() {
    let routing = world().routing();
    let all = of(&routing, &Observed::default(), true);
    let versions: Vec<_> = all.iter().map(|deployment| deployment.version).collect();
    assert_eq!(versions, [version_id(1, 1), version_id(2, 1)], "what is not ready or not deployed is not desired");
    assert!(all[0].any_data && all[0].min_replicas == 1 && all[0].owner == tenant_id(1));
    assert!(!all[1].any_data && all[1].idle_after == Some(Duration::from_secs(60)));
}

#[test]
fn a_server_that_drains_keeps_nothing_for_its_own_sake() {
    let routing = world().routing();
    assert!(of(&routing, &Observed::default(), false).iter().all(|deployment| deployment.min_replicas == 0));
}

#[test]
fn other_ready_versions_are_desired_while_somebody_asks_for_them() {
    let routing = world().routing();
    let domain = TrustDomain { model_owner: tenant_id(2), data_owner: DataOwner::Tenant(tenant_id(2)) };
    let demand = |number| ObservedDemand { version: version_id(2, number), domain, waiting: 1 };
    let mut observed = Observed { demand: vec![demand(2), demand(3), demand(4), demand(77)], ..Observed::default() };
    let asked = of(&routing, &observed, true);
    assert_eq!(asked.len(), 3);
    assert_eq!((asked[2].version, asked[2].min_replicas), (version_id(2, 2), 0));
    // And once loaded, until it has been idle for a while.
    observed.demand.clear();
    observed.replicas.push(ObservedReplica {
        id: ReplicaId(1),
        version: version_id(2, 2),
        domain,
        worker: WorkerId(1),
        state: ReplicaState::Ready,
        idle_since: Some(MonotonicTime::ZERO),
    });
    let loaded = of(&routing, &observed, true);
    assert_eq!(loaded[2].idle_after, Some(UNDEPLOYED_IDLE));
}

#[test]
fn files_that_cannot_be_opened_are_tried_again_later_and_later() {
    let mut unopened = Unopened::default();
    let version = version_id(1, 1);
    let at = |seconds: u64| MonotonicTime::from_nanos(seconds * 1_000_000_000);
    assert_eq!(unopened.failed(version, at(0)), Duration::from_secs(1));
    assert_eq!(unopened.in_force(at(0)).map(|quarantine| quarantine.until).collect::<Vec<_>>(), [at(1)]);
    assert_eq!(unopened.in_force(at(1)).count(), 0);
    assert_eq!(unopened.failed(version, at(1)), Duration::from_secs(2));
    let longest = (0..20).map(|_| unopened.failed(version, at(2))).max();
    assert_eq!(longest, Some(MAX_FILES_RETRY));
    unopened.succeeded(version);
    assert_eq!(unopened.failed(version, at(3)), Duration::from_secs(1));
}

#[test]
fn an_optimised_form_is_keyed_by_all_it_depends_on() {
    let runtime = |version: &str, cpu: &str| RuntimeInfo { version: version.to_owned(), cpu: cpu.to_owned() };
    let options = EngineOptions::default();
    let base = optimised_key(&Digest::of(b"a"), &runtime("1.31.1", "avx2"), &options);
    assert_eq!(base, optimised_key(&Digest::of(b"a"), &runtime("1.31.1", "avx2"), &options));
    // What only its runs depend on is not in it.
    let other_runs = EngineOptions { prepack: false, threads: 4, ..options.clone() };
    assert_eq!(base, optimised_key(&Digest::of(b"a"), &runtime("1.31.1", "avx2"), &other_runs));
    for other in [
        optimised_key(&Digest::of(b"b"), &runtime("1.31.1", "avx2"), &options),
        optimised_key(&Digest::of(b"a"), &runtime("1.32.0", "avx2"), &options),
        optimised_key(&Digest::of(b"a"), &runtime("1.31.1", "avx512"), &options),
        optimised_key(
            &Digest::of(b"a"),
            &runtime("1.31.1", "avx2"),
            &EngineOptions { disabled_optimizers: vec!["GeluFusion".to_owned()], ..options.clone() },
        ),
    ] {
        assert_ne!(base, other);
    }
}
