//! The planner in a loop with a toy machine: whatever it starts from, it comes to rest, within its bounds.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use tenantry_plan::{
    Blocked, Desired, DesiredDeployment, Observed, ObservedDemand, ObservedReplica, ObservedWorker, Plan, PlanLimits,
    Quarantine, ReplicaState, Step, WorkerState, plan,
};
use tenantry_types::{DataOwner, DeploymentId, MonotonicTime, ReplicaId, TenantId, TrustDomain, VersionId, WorkerId};

const TENANTS: u8 = 3;
const VERSIONS: u8 = 4;

fn tenant(number: u8) -> TenantId {
    TenantId::from_parts(1, [number; 10])
}

fn version(number: u8) -> VersionId {
    VersionId::from_parts(1, [number; 10])
}

/// Every version has one owner.
fn owner(number: u8) -> TenantId {
    tenant(number % TENANTS)
}

fn domain() -> impl Strategy<Value = TrustDomain> {
    let data_owner = prop_oneof![
        3 => (0..TENANTS).prop_map(|number| DataOwner::Tenant(tenant(number))),
        1 => Just(DataOwner::Any),
    ];
    (0..TENANTS, data_owner).prop_map(|(number, data_owner)| TrustDomain { model_owner: tenant(number), data_owner })
}

fn pause() -> impl Strategy<Value = Duration> {
    (0u64..20).prop_map(Duration::from_secs)
}

fn instant() -> impl Strategy<Value = MonotonicTime> {
    pause().prop_map(|after| MonotonicTime::ZERO.saturating_add(after))
}

fn deployment() -> impl Strategy<Value = DesiredDeployment> {
    (0..VERSIONS, any::<bool>(), 0u32..4, 0u32..4, prop::option::of(pause())).prop_map(
        |(number, any_data, min_replicas, max_replicas, idle_after)| DesiredDeployment {
            deployment: DeploymentId::from_parts(1, [number; 10]),
            generation: 1,
            version: version(number),
            owner: owner(number),
            any_data,
            min_replicas,
            max_replicas,
            idle_after,
        },
    )
}

fn desired() -> impl Strategy<Value = Desired> {
    prop::collection::vec(deployment(), 0..5).prop_map(|deployments| Desired {
        generation: 1,
        deployments,
        let_go: Vec::new(),
    })
}

fn limits() -> impl Strategy<Value = PlanLimits> {
    (0u32..6, pause()).prop_map(|(max_workers, worker_idle)| PlanLimits { max_workers, worker_idle })
}

/// A machine in any state whatever, the bounds it must keep included or not.
fn observed() -> impl Strategy<Value = Observed> {
    let worker_state = prop_oneof![Just(WorkerState::Starting), Just(WorkerState::Ready), Just(WorkerState::Stopping)];
    let replica_state =
        prop_oneof![Just(ReplicaState::Loading), Just(ReplicaState::Ready), Just(ReplicaState::Unloading)];
    let workers = prop::collection::vec((domain(), worker_state, prop::option::of(instant())), 0..5);
    let replicas = prop::collection::vec(
        (any::<prop::sample::Index>(), 0..VERSIONS, replica_state, prop::option::of(instant())),
        0..6,
    );
    let demand = prop::collection::vec((0..VERSIONS, domain(), 0u32..3), 0..4);
    let quarantined = prop::collection::vec((0..VERSIONS, instant()), 0..2);
    (workers, replicas, demand, quarantined).prop_map(|(workers, replicas, demand, quarantined)| {
        let workers: Vec<ObservedWorker> = (1..)
            .zip(workers)
            .map(|(id, (domain, state, idle_since))| ObservedWorker { id: WorkerId(id), domain, state, idle_since })
            .collect();
        let replica = |(id, (home, number, state, idle_since)): (u64, (prop::sample::Index, u8, _, Option<_>))| {
            let home: &ObservedWorker = workers.get(home.index(workers.len().max(1)))?;
            let idle_since = idle_since.filter(|_| state == ReplicaState::Ready);
            Some(ObservedReplica {
                id: ReplicaId(id),
                version: version(number),
                domain: home.domain,
                worker: home.id,
                state,
                idle_since,
            })
        };
        let mut held = BTreeSet::new();
        let replicas = (1..)
            .zip(replicas)
            .filter_map(replica)
            // A worker holds a version once, and one that is not ready holds nothing.
            .filter(|replica| held.insert((replica.worker, replica.version)))
            .filter(|replica| workers.iter().any(|home| home.id == replica.worker && home.state == WorkerState::Ready))
            .collect();
        let demand = demand
            .into_iter()
            .map(|(number, domain, waiting)| ObservedDemand { version: version(number), domain, waiting })
            .collect();
        let quarantined = quarantined
            .into_iter()
            .map(|(number, until)| Quarantine { version: version(number), domain: None, until })
            .collect();
        Observed { workers, replicas, demand, quarantined }
    })
}

/// Carries out steps, each as slow or as fast as the test wants.
struct Machine {
    now: MonotonicTime,
    observed: Observed,
    next_id: u64,
}

impl Machine {
    /// What the owner does at once with a step: the thing is on its way and seen as such.
    fn begin(&mut self, step: Step) {
        match step {
            Step::StartWorker { domain } => {
                self.next_id += 1;
                let id = WorkerId(self.next_id);
                self.observed.workers.push(ObservedWorker {
                    id,
                    domain,
                    state: WorkerState::Starting,
                    idle_since: None,
                });
            }
            Step::StopWorker { worker } => {
                let home = self.observed.workers.iter_mut().find(|home| home.id == worker).unwrap();
                assert_eq!(home.state, WorkerState::Ready, "{worker} is stopped twice or too early");
                assert!(home.idle_since.is_some(), "{worker} is stopped while it works");
                home.state = WorkerState::Stopping;
            }
            Step::Load { worker, version, domain } => {
                let home = self.observed.workers.iter().find(|home| home.id == worker).unwrap();
                assert_eq!((home.state, home.domain), (WorkerState::Ready, domain), "a load into the wrong worker");
                let twice = self.observed.replicas.iter().any(|held| (held.worker, held.version) == (worker, version));
                assert!(!twice, "{worker} would hold {version} twice");
                self.next_id += 1;
                self.observed.replicas.push(ObservedReplica {
                    id: ReplicaId(self.next_id),
                    version,
                    domain,
                    worker,
                    state: ReplicaState::Loading,
                    idle_since: None,
                });
            }
            Step::Unload { replica } => {
                let held = self.observed.replicas.iter_mut().find(|held| held.id == replica).unwrap();
                assert_eq!(held.state, ReplicaState::Ready, "{replica} is unloaded twice or too early");
                assert!(held.idle_since.is_some(), "{replica} is unloaded while it works");
                held.state = ReplicaState::Unloading;
                held.idle_since = None;
            }
        }
    }

    /// Everything on its way arrives, and who waited for a replica that is there now is answered.
    fn settle(&mut self) {
        let now = self.now;
        let observed = &mut self.observed;
        observed.workers.retain(|worker| worker.state != WorkerState::Stopping);
        observed.replicas.retain(|replica| replica.state != ReplicaState::Unloading);
        observed.replicas.retain(|replica| observed.workers.iter().any(|worker| worker.id == replica.worker));
        for replica in &mut observed.replicas {
            replica.state = ReplicaState::Ready;
            replica.idle_since = replica.idle_since.or(Some(now));
        }
        let served = |demand: &ObservedDemand| {
            observed.replicas.iter().any(|held| (held.version, held.domain) == (demand.version, demand.domain))
        };
        observed.demand.retain(|demand| !served(demand));
        for worker in &mut observed.workers {
            worker.state = WorkerState::Ready;
            worker.idle_since = worker.idle_since.or(Some(now));
        }
    }
}

/// What holds of every plan.
fn check(now: MonotonicTime, desired: &Desired, observed: &Observed, limits: &PlanLimits, plan: &Plan) {
    assert_eq!(plan.generation, desired.generation);
    assert!(plan.wake.is_none_or(|wake| wake > now), "a wake-up in the past");
    let starts = plan.steps.iter().filter(|step| matches!(step, Step::StartWorker { .. })).count();
    assert!(starts == 0 || observed.workers.len() + starts <= limits.max_workers as usize, "too many workers");
    let mut seen = BTreeSet::new();
    for step in &plan.steps {
        let repeatable = matches!(step, Step::StartWorker { .. });
        assert!(seen.insert(*step) || repeatable, "{step:?} twice");
        let Step::Load { version, domain, .. } = *step else { continue };
        let quarantined = observed.quarantined.iter().any(|entry| entry.version == version && entry.until > now);
        assert!(!quarantined, "{version} is loaded in quarantine");
        let named: Vec<_> =
            desired.deployments.iter().filter(|wish| wish.version == version && wish.max_replicas > 0).collect();
        assert!(named.iter().any(|wish| wish.owner == domain.model_owner));
        let mixes = domain.data_owner == DataOwner::Any;
        assert!(!mixes || named.iter().all(|wish| wish.any_data), "data of many tenants would meet in a private model");
        let present = observed.replicas.iter().filter(|held| {
            let stays =
                observed.workers.iter().any(|home| home.id == held.worker && home.state != WorkerState::Stopping);
            (held.version, held.domain) == (version, domain) && held.state != ReplicaState::Unloading && stays
        });
        let loads = plan.steps.iter().filter(
            |step| matches!(step, Step::Load { version: of, domain: at, .. } if (*of, *at) == (version, domain)),
        );
        let most = named.iter().map(|wish| wish.max_replicas).max().unwrap_or(0) as usize;
        assert!(present.count() + loads.count() <= most, "more replicas of {version} than allowed");
    }
}

/// Whoever waits is served in the end, or it is said why not.
fn check_rest(desired: &Desired, observed: &Observed, blocked: &[Blocked]) {
    for demand in observed.demand.iter().filter(|demand| demand.waiting > 0) {
        let named: Vec<_> =
            desired.deployments.iter().filter(|wish| wish.version == demand.version && wish.max_replicas > 0).collect();
        let allowed = demand.domain.data_owner != DataOwner::Any || named.iter().all(|wish| wish.any_data);
        let may_be_served = allowed && named.iter().any(|wish| wish.owner == demand.domain.model_owner);
        let said = blocked.iter().any(|entry| (entry.version, entry.domain) == (demand.version, demand.domain));
        assert!(!may_be_served || said, "{demand:?} waits and nobody says why");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// From any state the machine comes to rest in a few rounds, and stays there however much time passes.
    #[test]
    fn planning_comes_to_rest(desired in desired(), observed in observed(), limits in limits(), start in instant()) {
        let mut machine = Machine { now: start, observed, next_id: 100 };
        let mut rounds = 0;
        loop {
            let plan = plan(machine.now, &desired, &machine.observed, &limits);
            check(machine.now, &desired, &machine.observed, &limits, &plan);
            for step in &plan.steps {
                machine.begin(*step);
            }
            // Under way is as good as done: planning again adds nothing.
            let again = tenantry_plan::plan(machine.now, &desired, &machine.observed, &limits);
            prop_assert_eq!(&again.steps, &Vec::<Step>::new(), "not idempotent after {:?}", plan.steps);
            let before = machine.observed.clone();
            machine.settle();
            if plan.steps.is_empty() && machine.observed == before {
                match plan.wake {
                    Some(wake) => machine.now = wake,
                    None => {
                        check_rest(&desired, &machine.observed, &plan.blocked);
                        break;
                    }
                }
            }
            rounds += 1;
            prop_assert!(rounds < 60, "it does not come to rest: {:?}", plan);
        }
        machine.now = machine.now.saturating_add(Duration::from_secs(1_000_000));
        let later = tenantry_plan::plan(machine.now, &desired, &machine.observed, &limits);
        prop_assert_eq!(later.steps, Vec::<Step>::new());
    }

    /// Things on their way may arrive in any order and number between two plans; the bounds hold all the same.
    #[test]
    fn bounds_hold_at_every_moment(
        desired in prop::collection::vec(desired(), 1..4),
        observed in observed(),
        limits in limits(),
        waits in prop::collection::vec((pause(), any::<bool>()), 1..30),
    ) {
        let mut machine = Machine { now: MonotonicTime::ZERO, observed, next_id: 100 };
        for (round, (wait, arrives)) in waits.into_iter().enumerate() {
            let wishes = &desired[round % desired.len()];
            let plan = plan(machine.now, wishes, &machine.observed, &limits);
            check(machine.now, wishes, &machine.observed, &limits, &plan);
            for step in plan.steps {
                machine.begin(step);
            }
            if arrives {
                machine.settle();
            }
            machine.now = machine.now.saturating_add(wait);
        }
    }

    /// A plan does not depend on the order in which things are listed.
    #[test]
    fn order_of_observation_does_not_matter(desired in desired(), observed in observed(), limits in limits(), now in instant()) {
        let mut backwards = observed.clone();
        backwards.workers.reverse();
        backwards.replicas.reverse();
        backwards.demand.reverse();
        backwards.quarantined.reverse();
        prop_assert_eq!(plan(now, &desired, &observed, &limits), plan(now, &desired, &backwards, &limits));
    }
}
