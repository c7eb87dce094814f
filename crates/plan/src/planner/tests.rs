use super::*;
use crate::state::{ObservedDemand, Quarantine};
use tenantry_types::{DeploymentId, TenantId};

const IDLE_AFTER: Duration = Duration::from_secs(60);
const WORKER_IDLE: Duration = Duration::from_secs(10);

fn seconds(number: u64) -> MonotonicTime {
    MonotonicTime::ZERO.saturating_add(Duration::from_secs(number))
}

fn tenant(number: u8) -> TenantId {
    TenantId::from_parts(1, [number; 10])
}

fn version(number: u8) -> VersionId {
    VersionId::from_parts(1, [number; 10])
}

/// The domain of a model owner and the tenant who sends the data.
fn domain(owner: u8, data: u8) -> TrustDomain {
    TrustDomain { model_owner: tenant(owner), data_owner: DataOwner::Tenant(tenant(data)) }
}

fn any(owner: u8) -> TrustDomain {
    TrustDomain { model_owner: tenant(owner), data_owner: DataOwner::Any }
}

/// Version `number` of owner 1, up to two replicas, none kept.
fn deployment(number: u8) -> DesiredDeployment {
    DesiredDeployment {
        deployment: DeploymentId::from_parts(1, [number; 10]),
        generation: 1,
        version: version(number),
        owner: tenant(1),
        any_data: false,
        min_replicas: 0,
        max_replicas: 2,
        idle_after: Some(IDLE_AFTER),
    }
}

fn desired(deployments: impl IntoIterator<Item = DesiredDeployment>) -> Desired {
    Desired { generation: 7, deployments: deployments.into_iter().collect(), let_go: Vec::new() }
}

fn worker(id: u64, domain: TrustDomain, state: WorkerState, idle_since: Option<u64>) -> ObservedWorker {
    ObservedWorker { id: WorkerId(id), domain, state, idle_since: idle_since.map(seconds) }
}

fn replica(
    id: u64,
    number: u8,
    worker: &ObservedWorker,
    state: ReplicaState,
    idle_since: Option<u64>,
) -> ObservedReplica {
    let idle_since = idle_since.map(seconds);
    ObservedReplica {
        id: ReplicaId(id),
        version: version(number),
        domain: worker.domain,
        worker: worker.id,
        state,
        idle_since,
    }
}

fn demand(number: u8, domain: TrustDomain) -> ObservedDemand {
    ObservedDemand { version: version(number), domain, waiting: 3 }
}

fn plan_at(now: u64, max_workers: u32, desired: &Desired, observed: &Observed) -> Plan {
    plan(seconds(now), desired, observed, &PlanLimits { max_workers, worker_idle: WORKER_IDLE })
}

#[test]
fn nothing_wanted_and_nothing_there_is_nothing_to_do() {
    let plan = plan_at(0, 4, &desired([deployment(1)]), &Observed::default());
    assert_eq!(plan, Plan { generation: 7, ..Plan::default() });
}

#[test]
fn demand_starts_a_worker_then_loads_then_rests() {
    let desired = desired([deployment(1)]);
    let mut observed = Observed { demand: vec![demand(1, domain(1, 1))], ..Observed::default() };
    assert_eq!(plan_at(0, 4, &desired, &observed).steps, [Step::StartWorker { domain: domain(1, 1) }]);

    observed.workers = vec![worker(1, domain(1, 1), WorkerState::Starting, None)];
    assert_eq!(plan_at(1, 4, &desired, &observed).steps, []);

    observed.workers = vec![worker(1, domain(1, 1), WorkerState::Ready, Some(1))];
    let load = Step::Load { worker: WorkerId(1), version: version(1), domain: domain(1, 1) };
    assert_eq!(plan_at(2, 4, &desired, &observed).steps, [load]);

    observed.replicas = vec![replica(1, 1, &observed.workers[0], ReplicaState::Loading, None)];
    assert_eq!(plan_at(3, 4, &desired, &observed).steps, []);
}

#[test]
fn one_worker_of_a_domain_holds_many_versions() {
    let desired = desired([deployment(1), deployment(2), deployment(3)]);
    let home = domain(1, 1);
    let demand = vec![demand(1, home), demand(2, home), demand(3, home)];
    let mut observed = Observed { demand, ..Observed::default() };
    assert_eq!(plan_at(0, 4, &desired, &observed).steps, [Step::StartWorker { domain: home }]);
    observed.workers = vec![worker(1, home, WorkerState::Ready, None)];
    let loads = [1, 2, 3].map(|number| Step::Load { worker: WorkerId(1), version: version(number), domain: home });
    assert_eq!(plan_at(0, 4, &desired, &observed).steps, loads);
}

#[test]
fn a_second_replica_of_a_version_takes_a_second_worker() {
    let desired = desired([DesiredDeployment { min_replicas: 2, ..deployment(1) }]);
    let home = domain(1, 1);
    let first = worker(1, home, WorkerState::Ready, Some(0));
    let replicas = vec![replica(1, 1, &first, ReplicaState::Ready, Some(0))];
    let observed = Observed { workers: vec![first], replicas, ..Observed::default() };
    assert_eq!(plan_at(0, 4, &desired, &observed).steps, [Step::StartWorker { domain: home }]);
}

#[test]
fn each_caller_of_a_shared_model_has_its_own_worker_unless_the_operator_published_it() {
    let shared = desired([DesiredDeployment { min_replicas: 1, ..deployment(1) }]);
    let observed = Observed { demand: vec![demand(1, domain(1, 2)), demand(1, any(1))], ..Observed::default() };
    // Its owner's minimum and the caller's demand; never one worker for the data of all.
    let starts = [Step::StartWorker { domain: domain(1, 2) }, Step::StartWorker { domain: domain(1, 1) }];
    assert_eq!(plan_at(0, 4, &shared, &observed).steps, starts);

    let published = desired([DesiredDeployment { min_replicas: 1, any_data: true, ..deployment(1) }]);
    let observed = Observed { demand: vec![demand(1, any(1))], ..Observed::default() };
    assert_eq!(plan_at(0, 4, &published, &observed).steps, [Step::StartWorker { domain: any(1) }]);
}

#[test]
fn demand_nobody_may_serve_is_left_alone() {
    let foreign = Observed { demand: vec![demand(1, domain(2, 2)), demand(9, domain(1, 1))], ..Observed::default() };
    assert_eq!(plan_at(0, 4, &desired([deployment(1)]), &foreign).steps, []);
    let off = desired([DesiredDeployment { min_replicas: 1, max_replicas: 0, ..deployment(1) }]);
    let observed = Observed { demand: vec![demand(1, domain(1, 1))], ..Observed::default() };
    assert_eq!(plan_at(0, 4, &off, &observed).steps, []);
}

#[test]
fn a_replica_idle_too_long_is_unloaded_down_to_the_minimum() {
    let home = domain(1, 1);
    let workers = vec![worker(1, home, WorkerState::Ready, Some(20)), worker(2, home, WorkerState::Ready, Some(10))];
    let replicas = vec![
        replica(1, 1, &workers[0], ReplicaState::Ready, Some(20)),
        replica(2, 1, &workers[1], ReplicaState::Ready, Some(10)),
    ];
    let observed = Observed { workers, replicas, ..Observed::default() };
    let keep_one = desired([DesiredDeployment { min_replicas: 1, ..deployment(1) }]);

    let early = plan_at(69, 4, &keep_one, &observed);
    assert_eq!((early.steps, early.wake), (vec![], Some(seconds(70))));
    // The one idle longest goes; the other is the minimum and needs no watching.
    let late = plan_at(80, 4, &keep_one, &observed);
    assert_eq!((late.steps, late.wake), (vec![Step::Unload { replica: ReplicaId(2) }], None));
    let both = [Step::Unload { replica: ReplicaId(1) }, Step::Unload { replica: ReplicaId(2) }];
    assert_eq!(plan_at(80, 4, &desired([deployment(1)]), &observed).steps, both);
    let forever = desired([DesiredDeployment { idle_after: None, ..deployment(1) }]);
    assert_eq!(plan_at(9000, 4, &forever, &observed).steps, []);
}

#[test]
fn what_no_deployment_names_is_unloaded_once_idle() {
    let home = domain(1, 1);
    let workers = vec![worker(1, home, WorkerState::Ready, None)];
    let replicas = vec![
        replica(1, 1, &workers[0], ReplicaState::Ready, Some(5)),
        replica(2, 2, &workers[0], ReplicaState::Ready, None),
        replica(3, 3, &workers[0], ReplicaState::Loading, None),
        replica(4, 4, &workers[0], ReplicaState::Ready, Some(5)),
    ];
    let observed = Observed { workers, replicas, ..Observed::default() };
    assert_eq!(plan_at(5, 4, &desired([deployment(4)]), &observed).steps, [Step::Unload { replica: ReplicaId(1) }]);
}

#[test]
fn a_busy_replica_that_is_to_go_is_looked_at_again() {
    let home = domain(1, 1);
    let workers = vec![worker(1, home, WorkerState::Ready, None)];
    let replicas = vec![replica(1, 1, &workers[0], ReplicaState::Ready, None)];
    let observed = Observed { workers, replicas, ..Observed::default() };
    // Nobody reports the end of its work, so the soonest end of its idle time is the time to look.
    let kept = plan_at(5, 4, &desired([deployment(1)]), &observed);
    assert_eq!((kept.steps, kept.wake), (vec![], Some(seconds(5).saturating_add(IDLE_AFTER))));
    let unwanted = plan_at(5, 4, &desired([]), &observed);
    assert_eq!((unwanted.steps, unwanted.wake), (vec![], Some(seconds(6))));
    let minimum = desired([DesiredDeployment { min_replicas: 1, ..deployment(1) }]);
    assert_eq!(plan_at(5, 4, &minimum, &observed).wake, None);
}

#[test]
fn an_empty_worker_is_stopped_after_its_pause() {
    let observed =
        Observed { workers: vec![worker(1, domain(1, 1), WorkerState::Ready, Some(5))], ..Observed::default() };
    let early = plan_at(14, 4, &desired([]), &observed);
    assert_eq!((early.steps, early.wake), (vec![], Some(seconds(15))));
    let late = plan_at(15, 4, &desired([]), &observed);
    assert_eq!((late.steps, late.wake), (vec![Step::StopWorker { worker: WorkerId(1) }], None));
}

#[test]
fn a_quarantined_version_waits_for_its_release() {
    let observed = Observed {
        workers: vec![worker(1, domain(1, 1), WorkerState::Ready, None)],
        demand: vec![demand(1, domain(1, 1))],
        quarantined: vec![Quarantine { version: version(1), domain: None, until: seconds(30) }],
        ..Observed::default()
    };
    let desired = desired([deployment(1)]);
    let held = plan_at(29, 4, &desired, &observed);
    assert_eq!((held.steps, held.wake), (vec![], Some(seconds(30))));
    let blocked = Blocked { version: version(1), domain: domain(1, 1), reason: BlockedReason::Quarantined };
    assert_eq!(held.blocked, [blocked]);
    assert_eq!(plan_at(30, 4, &desired, &observed).steps.len(), 1);
}

#[test]
fn when_there_is_no_room_the_longest_idle_worker_that_nobody_needs_makes_some() {
    let others = [domain(1, 2), domain(1, 3), domain(1, 4), domain(1, 5)];
    let workers = vec![
        // Busy; kept by its deployment's minimum; idle; idle for longer.
        worker(1, domain(1, 2), WorkerState::Ready, None),
        worker(2, domain(1, 1), WorkerState::Ready, Some(1)),
        worker(3, domain(1, 4), WorkerState::Ready, Some(9)),
        worker(4, domain(1, 5), WorkerState::Ready, Some(8)),
    ];
    let replicas = vec![
        replica(1, 1, &workers[0], ReplicaState::Ready, None),
        replica(2, 1, &workers[1], ReplicaState::Ready, Some(1)),
        replica(3, 1, &workers[2], ReplicaState::Ready, Some(9)),
        replica(4, 1, &workers[3], ReplicaState::Ready, Some(8)),
    ];
    let desired = desired([DesiredDeployment { min_replicas: 1, ..deployment(1) }]);
    let mut observed = Observed { workers, replicas, demand: vec![demand(1, others[1])], ..Observed::default() };
    let making_room = plan_at(10, 4, &desired, &observed);
    assert_eq!(making_room.steps, [Step::StopWorker { worker: WorkerId(4) }]);
    assert_eq!(making_room.blocked, []);

    observed.workers[3].state = WorkerState::Stopping;
    assert_eq!(plan_at(10, 4, &desired, &observed).steps, [], "one worker on its way out is room enough");

    observed.workers.pop();
    observed.replicas.pop();
    assert_eq!(plan_at(10, 4, &desired, &observed).steps, [Step::StartWorker { domain: others[1] }]);

    // Nobody can be spared: said, not forced.
    observed.workers.truncate(2);
    observed.replicas.truncate(2);
    let full = plan_at(10, 2, &desired, &observed);
    assert_eq!(full.steps, []);
    let blocked = Blocked { version: version(1), domain: others[1], reason: BlockedReason::NoRoomForWorker };
    assert_eq!(full.blocked, [blocked]);
}

#[test]
fn who_waits_comes_before_who_is_to_be_kept_ready() {
    let desired = desired([DesiredDeployment { min_replicas: 2, ..deployment(1) }]);
    let observed = Observed { demand: vec![demand(1, domain(1, 9))], ..Observed::default() };
    assert_eq!(plan_at(0, 1, &desired, &observed).steps, [Step::StartWorker { domain: domain(1, 9) }]);
}

#[test]
fn demand_during_an_unload_waits_for_its_end_instead_of_starting_a_worker() {
    let workers = vec![worker(1, domain(1, 1), WorkerState::Ready, None)];
    let replicas = vec![replica(1, 1, &workers[0], ReplicaState::Unloading, None)];
    let demand = vec![demand(1, domain(1, 1))];
    let mut observed = Observed { workers, replicas, demand, ..Observed::default() };
    let desired = desired([deployment(1)]);
    assert_eq!(plan_at(0, 4, &desired, &observed).steps, []);
    observed.replicas.clear();
    assert_eq!(plan_at(0, 4, &desired, &observed).steps.len(), 1);
}

#[test]
fn two_deployments_of_one_version_are_served_as_one_with_the_larger_bounds() {
    let long = DesiredDeployment { idle_after: None, ..deployment(1) };
    let kept = DesiredDeployment { min_replicas: 1, max_replicas: 1, ..deployment(1) };
    let observed = Observed::default();
    assert_eq!(plan_at(0, 4, &desired([long, kept]), &observed).steps, [Step::StartWorker { domain: domain(1, 1) }]);
}

#[test]
fn contradictory_deployments_of_one_version_keep_tenants_apart() {
    let published = DesiredDeployment { any_data: true, ..deployment(1) };
    for order in [[published.clone(), deployment(1)], [deployment(1), published]] {
        let observed = Observed { demand: vec![demand(1, any(1)), demand(1, domain(1, 2))], ..Observed::default() };
        assert_eq!(plan_at(0, 4, &desired(order), &observed).steps, [Step::StartWorker { domain: domain(1, 2) }]);
    }
}

#[test]
fn where_no_worker_may_run_who_waits_is_told() {
    let observed = Observed { demand: vec![demand(1, domain(1, 1))], ..Observed::default() };
    let plan = plan_at(0, 0, &desired([deployment(1)]), &observed);
    assert_eq!((plan.steps, plan.blocked.len()), (vec![], 1));
}

#[test]
fn a_worker_about_to_load_again_what_it_unloads_is_not_spared_for_others() {
    let workers = vec![worker(1, domain(1, 1), WorkerState::Ready, Some(0))];
    let replicas = vec![replica(1, 1, &workers[0], ReplicaState::Unloading, None)];
    let demand = vec![demand(1, domain(1, 1)), demand(1, domain(1, 2))];
    let observed = Observed { workers, replicas, demand, ..Observed::default() };
    let plan = plan_at(0, 1, &desired([deployment(1)]), &observed);
    assert_eq!(plan.steps, []);
    assert_eq!(plan.blocked.len(), 1, "only the one without a worker is blocked");
}

#[test]
fn what_is_let_go_leaves_before_it_was_idle_for_long_but_not_what_is_wanted_or_busy() {
    let home = domain(1, 1);
    let there = worker(1, home, WorkerState::Ready, None);
    let observed = |idle_since, demand| Observed {
        workers: vec![there.clone()],
        replicas: vec![replica(8, 1, &there, ReplicaState::Ready, idle_since)],
        demand,
        ..Observed::default()
    };
    let let_go = Desired { let_go: vec![ReplicaId(8)], ..desired([deployment(1)]) };
    let unload = [Step::Unload { replica: ReplicaId(8) }];
    assert_eq!(plan_at(1, 4, &let_go, &observed(Some(1), vec![])).steps, unload);
    assert_eq!(plan_at(1, 4, &desired([deployment(1)]), &observed(Some(1), vec![])).steps, []);
    assert_eq!(plan_at(1, 4, &let_go, &observed(None, vec![])).steps, []);
    assert_eq!(plan_at(1, 4, &let_go, &observed(Some(1), vec![demand(1, home)])).steps, []);
    let kept = DesiredDeployment { min_replicas: 1, ..deployment(1) };
    let let_go = Desired { let_go: vec![ReplicaId(8)], ..desired([kept]) };
    assert_eq!(plan_at(1, 4, &let_go, &observed(Some(1), vec![])).steps, []);
}
