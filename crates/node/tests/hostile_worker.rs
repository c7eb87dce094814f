//! A worker is the node's enemy: whatever it says or does, the node lives, blames the right model and goes on.
//!
//! The program is started three times over: as the test, as the spawner (`spawner`) and as a worker (`work --runtime
//! BEHAVIOUR`) that misbehaves in the way its "runtime library" names. The node, the spawner, the sockets and the shared
//! memory are the real ones.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test with its own main")]

#[path = "hostile_worker/minimum.rs"]
mod minimum;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use smallvec::smallvec;
use tenantry_jail::{Layer, Layers};
use tenantry_node::{IncidentKind, ModelFiles, Node, NodeConfig, ServeError, Submission, VersionSpec, WorkerState};
use tenantry_types::model::EngineOptions;
use tenantry_types::{
    DataOwner, DataType, DeploymentId, Dim, PlacementId, Priority, ReplicaId, RequestId, Signature, TaskId, TenantId,
    Tensor, TensorSpec, TrustDomain, VersionId, WorkerId,
};
use tenantry_wire::{Channel, FailureKind, FromWorker, ModelForm, PROTOCOL, TensorDescriptor, ToWorker};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("spawner") => tenantry_jail::spawner_main(),
        // work --runtime BEHAVIOUR --layers BITS
        Some("work") => misbehave(&arguments[3], arguments[5].parse().unwrap()),
        _ => run_tests(),
    }
}

// ---- the hostile worker ----

fn misbehave(behaviour: &str, asked: u32) -> ExitCode {
    let channel = Channel::new(tenantry_jail::inherited_channel().unwrap());
    let protocol = if behaviour == "wrong-protocol" { 99 } else { PROTOCOL };
    // It puts up none; most of these lie about it.
    let layers = if behaviour == "no-barriers" { 0 } else { asked };
    let ready = FromWorker::Ready { protocol, runtime: "1.0\n<evil>".to_owned(), cpu: "none".to_owned(), layers };
    channel.send(&ready, &[]).unwrap();
    while let Ok((frame, _files)) = channel.recv_with_fds::<ToWorker>(8) {
        match frame {
            ToWorker::Load { task, replica, .. } => {
                let answer = if behaviour == "load-fails" {
                    let message = "bad\nmagic \u{1b}[31mnumber".to_owned();
                    FromWorker::Failed { task, kind: FailureKind::Model, message }
                } else {
                    FromWorker::Loaded { task, replica, load_ns: 1, resident_bytes: u64::MAX }
                };
                channel.send(&answer, &[]).unwrap();
            }
            ToWorker::Run { task, inputs, .. } => run(behaviour, &channel, task, &inputs, asked),
            _ => {}
        }
    }
    ExitCode::SUCCESS
}

fn run(behaviour: &str, channel: &Channel, task: TaskId, inputs: &[TensorDescriptor], layers: u32) {
    let honest = inputs[0].clone();
    let finished = |outputs| FromWorker::Finished { task, outputs, compute_ns: 0 };
    let failed = |message: &str| FromWorker::Failed { task, kind: FailureKind::Input, message: message.to_owned() };
    let frame = match behaviour {
        "dies" => std::process::exit(3),
        "dies-of-five" if inputs[0].shape[0] >= 5 => std::process::exit(3),
        // The one barrier it has is the real one; who its parent is is not a worker's to ask.
        "forbidden-call" => {
            tenantry_jail::lock_down(Layers::NONE.with(Layer::Seccomp)).unwrap();
            panic!("{:?}", rustix::process::getppid());
        }
        "hangs" => loop {
            std::thread::park();
        },
        "other-task" => FromWorker::Finished { task: TaskId(u64::MAX), outputs: vec![honest], compute_ns: 0 },
        "outside" => finished(vec![TensorDescriptor { offset: u64::MAX - 3, ..honest }]),
        "wrong-shape" => finished(vec![TensorDescriptor { shape: smallvec![7, 2], ..honest }]),
        "wrong-type" => finished(vec![TensorDescriptor { datatype: DataType::Int32, ..honest }]),
        "too-many" => finished(vec![honest.clone(), honest]),
        "loads-instead" => FromWorker::Loaded { task, replica: ReplicaId(1), load_ns: 1, resident_bytes: 1 },
        "wants-everything" => FromWorker::NeedOutput { task, bytes: 1 << 60 },
        "wants-nothing" => FromWorker::NeedOutput { task, bytes: 0 },
        "ready-again" => FromWorker::Ready { protocol: PROTOCOL, runtime: String::new(), cpu: String::new(), layers },
        "ends-unasked" => {
            FromWorker::Failed { task, kind: FailureKind::Terminated, message: "as you wished".to_owned() }
        }
        "not-a-frame" => {
            channel.send(&[0xff_u8; 300].as_slice(), &[]).unwrap();
            return;
        }
        // Fails any batch of several rows and any row that starts with a negative number, like a model whose kernel
        // refuses one request's data.
        "picky" if inputs[0].shape[0] > 1 => failed("one of the rows is bad"),
        _ => finished(vec![honest]),
    };
    channel.send(&frame, &[]).unwrap();
}

// ---- the tests ----

struct Bed {
    node: Arc<Node>,
    placement: PlacementId,
    version: VersionId,
    /// Where the next request's values start.
    first: AtomicU64,
}

fn tenant() -> TenantId {
    TenantId::from_parts(1, [1; 10])
}

fn spec() -> Arc<VersionSpec> {
    spec_with(Duration::from_millis(200))
}

fn spec_with(run_limit: Duration) -> Arc<VersionSpec> {
    let tensor = |name: &str| TensorSpec {
        name: name.to_owned(),
        datatype: DataType::Fp32,
        dims: vec![Dim::Named("n".to_owned()), Dim::Fixed(2)],
    };
    Arc::new(VersionSpec {
        version: VersionId::from_parts(2, [2; 10]),
        name: "acme/echo:1".to_owned(),
        signature: Arc::new(Signature { inputs: vec![tensor("x")], outputs: vec![tensor("y")] }),
        can_batch: true,
        max_batch: 8,
        max_batch_delay: Duration::ZERO,
        run_limit,
        cost: Duration::from_micros(10),
    })
}

impl Bed {
    fn start(behaviour: &str) -> Self {
        Self::start_with(behaviour, |config| config)
    }

    fn start_with(behaviour: &str, change: impl FnOnce(NodeConfig) -> NodeConfig) -> Self {
        let program = std::env::current_exe().unwrap();
        // Started on this thread, which outlives the node.
        let (spawner, exits) = tenantry_jail::Spawner::start(&program).unwrap();
        let config = NodeConfig {
            max_queued_tasks: 100,
            max_queued_bytes: 1 << 20,
            max_queued_tasks_per_tenant: 100,
            max_arena_bytes: 1 << 20,
            load_limit: Duration::from_secs(5),
            register_limit: Duration::from_secs(5),
            ..NodeConfig::small(program, PathBuf::from(behaviour))
        };
        let node = Node::start(change(config), spawner, exits).unwrap();
        let spec = spec();
        let placement = node.placement(&spec, Self::domain());
        Self { node, placement, version: spec.version, first: AtomicU64::new(1_000) }
    }

    fn domain() -> TrustDomain {
        TrustDomain { model_owner: tenant(), data_owner: DataOwner::Tenant(tenant()) }
    }

    /// Sends rows that nobody has sent before.
    fn submit(&self, rows: u64) -> tenantry_node::Reply {
        self.submit_to(self.placement, rows)
    }

    fn submit_to(&self, placement: PlacementId, rows: u64) -> tenantry_node::Reply {
        self.submit_as(tenant(), placement, rows)
    }

    fn submit_as(&self, tenant: TenantId, placement: PlacementId, rows: u64) -> tenantry_node::Reply {
        self.send(tenant, placement, rows, self.first.fetch_add(1, Ordering::Relaxed))
    }

    /// Sends rows that count up from `first`.
    fn submit_from(&self, placement: PlacementId, rows: u64, first: u64) -> tenantry_node::Reply {
        self.send(tenant(), placement, rows, first)
    }

    fn send(&self, tenant: TenantId, placement: PlacementId, rows: u64, first: u64) -> tenantry_node::Reply {
        let data: Vec<u8> = (first..first + rows * 2).flat_map(|value| (value as f32).to_le_bytes()).collect();
        self.node.submit(Submission {
            placement,
            tenant,
            deployment: DeploymentId::from_parts(3, [3; 10]),
            key: None,
            request: RequestId::from_parts(4, [4; 10]),
            meter: None,
            inputs: vec![Tensor {
                name: "x".to_owned(),
                datatype: DataType::Fp32,
                shape: smallvec![rows, 2],
                data: data.into(),
            }],
            outputs: smallvec![],
            deadline: None,
            abortable: false,
            priority: Priority::default(),
        })
    }

    /// Waits for a change until `done` says so. The deadline only turns a hang into a failure.
    async fn until<T>(&self, what: &str, mut done: impl FnMut(&Arc<Node>) -> Option<T>) -> T {
        let mut changes = self.node.changes();
        let wait = async {
            loop {
                changes.mark_unchanged();
                if let Some(value) = done(&self.node) {
                    return value;
                }
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("no {what} in 20 s"))
    }

    /// What the reconciler would do: a worker, then the model in it.
    async fn serve(&self) -> WorkerId {
        self.serve_in(Self::domain(), self.placement).await
    }

    async fn serve_in(&self, domain: TrustDomain, placement: PlacementId) -> WorkerId {
        let worker = self.node.start_worker(domain);
        self.until("ready worker", |node| {
            let stats = node.stats();
            stats.workers.iter().any(|stats| stats.worker == worker && stats.state == WorkerState::Ready).then_some(())
        })
        .await;
        let files = ModelFiles { form: ModelForm::Source, files: Vec::new(), options: EngineOptions::default() };
        self.node.load(worker, placement, files);
        self.until("end of the load", |node| {
            (node.observe().replicas.iter().all(|replica| replica.state != tenantry_plan::ReplicaState::Loading))
                .then_some(())
        })
        .await;
        worker
    }

    async fn gone(&self, worker: WorkerId) {
        self.until("death", |node| node.stats().workers.iter().all(|stats| stats.worker != worker).then_some(())).await;
    }
}

async fn a_violation_ends_the_worker_and_blames_the_model(behaviour: &str, expected: &str) {
    let bed = Bed::start(behaviour);
    for death in 1..=3 {
        let worker = bed.serve().await;
        let error = bed.submit(1).await.unwrap_err();
        let ServeError::ModelFailed(text) = &error else { panic!("{behaviour}: {error:?}") };
        assert!(text.contains(expected), "{behaviour}: {text:?} does not say {expected:?}");
        bed.gone(worker).await;
        assert_eq!(bed.node.status_of(bed.version).deaths, death, "{behaviour}");
    }
    let refused = bed.submit(1).await.unwrap_err();
    assert!(matches!(&refused, ServeError::Quarantined { reason, .. } if reason.contains(expected)), "{refused:?}");
    assert_eq!(bed.node.observe().quarantined.len(), 1, "{behaviour}");
    incidents_tell(&bed, behaviour, expected).await;
}

/// Each death and the quarantine wait to be taken, once, with the version, the trust domain and the reason.
async fn incidents_tell(bed: &Bed, behaviour: &str, expected: &str) {
    bed.node.incident_added().await;
    let incidents = bed.node.take_incidents();
    let kind = match behaviour {
        "dies" => IncidentKind::Died,
        "hangs" => IncidentKind::Deadline,
        "forbidden-call" => IncidentKind::ForbiddenCall,
        _ => IncidentKind::Violation,
    };
    let kinds: Vec<IncidentKind> = incidents.iter().map(|incident| incident.kind).collect();
    assert_eq!(kinds, [kind, kind, kind, IncidentKind::Quarantined], "{behaviour}");
    for incident in &incidents {
        assert_eq!((incident.version, incident.domain), (Some(bed.version), Bed::domain()), "{behaviour}");
        assert!(incident.reason.contains(expected), "{behaviour}: {incident:?}");
    }
    assert!(bed.node.take_incidents().is_empty());
    assert_eq!(bed.node.dropped_incidents(), 0);
}

async fn outputs_that_do_not_fit_fail_their_request_and_nothing_else() {
    let bed = Bed::start("wants-everything");
    let worker = bed.serve().await;
    for _ in 0..4 {
        let error = bed.submit(1).await.unwrap_err();
        assert!(matches!(&error, ServeError::InvalidInput(text) if text.contains("at most 1048576")), "{error:?}");
    }
    assert_eq!(bed.node.status_of(bed.version).deaths, 0);
    assert!(bed.node.stats().workers.iter().any(|stats| stats.worker == worker));
}

/// Workers die while one thread does everything, so a dispatch meets a dead worker before its exit is relayed. Handing
/// the task to the same worker again in a loop would starve the relay for ever.
async fn a_dispatch_to_a_dead_worker_waits_for_the_next_one() {
    for _ in 0..5 {
        let bed = Bed::start("honest");
        let worker = bed.serve().await;
        let pid = bed.node.stats().workers[0].pid.unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL)
            .unwrap();
        // Submitted before this task yields: nobody has heard of the death yet.
        let waiting: Vec<_> = (0..20).map(|_| bed.submit(1)).collect();
        bed.gone(worker).await;
        bed.serve().await;
        for reply in waiting {
            // Those that the dying worker still took are lost with it; the others are answered.
            match reply.await {
                Ok(_) | Err(ServeError::ModelFailed(_)) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}

/// What one caller's requests do to a model in his own trust domain is no reason to refuse another.
async fn a_quarantine_stays_in_its_trust_domain() {
    let bed = Bed::start("dies");
    for _ in 0..3 {
        let worker = bed.serve().await;
        bed.submit(1).await.unwrap_err();
        bed.gone(worker).await;
    }
    assert!(matches!(bed.submit(1).await, Err(ServeError::Quarantined { .. })));
    let other = TenantId::from_parts(9, [9; 10]);
    let elsewhere = TrustDomain { model_owner: tenant(), data_owner: DataOwner::Tenant(other) };
    let placement = bed.node.placement(&spec(), elsewhere);
    let waiting = bed.submit_to(placement, 1);
    bed.until("demand", |node| (!node.observe().demand.is_empty()).then_some(())).await;
    assert!(bed.node.observe().quarantined.iter().all(|entry| entry.domain != Some(elsewhere)));
    drop(waiting);
}

/// A batch that ends its worker is run again one by one; only the input that ends one alone is refused, by its content,
/// and the model goes on for all others.
async fn a_poison_input_is_found_in_its_batch_and_refused() {
    let bed = Bed::start("dies-of-five");
    let poison = || bed.submit_from(bed.placement, 5, 0);
    let (before, poisoned, after) = (bed.submit(1), poison(), bed.submit(1));
    for _ in 0..2 {
        let worker = bed.serve().await;
        bed.gone(worker).await;
    }
    let worker = bed.serve().await;
    let error = poisoned.await.unwrap_err();
    assert!(matches!(&error, ServeError::ModelFailed(text) if text.contains("exit code 3")), "{error:?}");
    before.await.unwrap();
    after.await.unwrap();
    let error = poison().await.unwrap_err();
    let ServeError::PoisonInput { reason, retry_after } = &error else { panic!("{error:?}") };
    assert!(reason.contains("died 2 times over it: its process ended with exit code 3"), "{reason}");
    assert!(*retry_after > Duration::from_secs(500), "{retry_after:?}");
    // Refused without a worker's death, and others are still served by the same one.
    bed.submit(1).await.unwrap();
    assert!(bed.node.stats().workers.iter().any(|stats| stats.worker == worker));
    let status = bed.node.status_of(bed.version);
    assert_eq!((status.deaths, status.quarantined), (0, None));
    assert!(status.last_failure.unwrap().contains("exit code 3"));
    let kinds: Vec<_> = bed.node.take_incidents().into_iter().map(|incident| incident.kind).collect();
    let died = IncidentKind::Died;
    assert_eq!(kinds, [died, died, IncidentKind::PoisonClosed, IncidentKind::PoisonRefused]);
    // What one caller's input did closes nothing for another caller.
    let other = DataOwner::Tenant(TenantId::from_parts(9, [9; 10]));
    let elsewhere = bed.node.placement(&spec(), TrustDomain { data_owner: other, ..Bed::domain() });
    drop(bed.submit_from(elsewhere, 5, 0));
    assert_eq!(bed.node.take_incidents(), []);
}

/// Copies of a poison input that waited when it was found out do not cost a worker each.
async fn a_poison_input_that_waits_is_refused_before_it_runs() {
    let bed = Bed::start("dies-of-five");
    let copies: Vec<_> = (0..6).map(|_| bed.submit_from(bed.placement, 5, 0)).collect();
    for _ in 0..2 {
        let worker = bed.serve().await;
        bed.gone(worker).await;
    }
    bed.serve().await;
    let mut failed = 0;
    for copy in copies {
        match copy.await.unwrap_err() {
            ServeError::ModelFailed(_) => failed += 1,
            ServeError::PoisonInput { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((failed, bed.node.stats().worker_deaths), (2, 2));
}

async fn a_worker_with_only_idle_replicas_is_idle() {
    let bed = Bed::start("honest");
    bed.serve().await;
    bed.submit(1).await.unwrap();
    assert!(bed.node.observe().workers[0].idle_since.is_some());
}

async fn an_honest_worker_echoes_and_batches() {
    let bed = Bed::start("honest");
    bed.serve().await;
    let replies: Vec<_> = (1..=5).map(|rows| bed.submit(rows)).collect();
    for (rows, reply) in (1..=5).zip(replies) {
        let answer = reply.await.unwrap();
        // The output arena is fresh: whatever the worker claims to have written there is zeros.
        assert_eq!(answer.outputs[0].shape[..], [rows, 2]);
        assert_eq!(answer.outputs[0].data.to_contiguous(), vec![0; rows as usize * 8]);
        assert!(answer.timing.device_time <= answer.timing.batch_time);
        assert!(answer.timing.batch_rows <= 8, "{:?}", answer.timing);
    }
    // What the worker says of its runtime becomes a key and a label: only our alphabet is left of it.
    assert_eq!(bed.node.runtime().unwrap().version, "1.0evil");
}

async fn one_bad_request_does_not_fail_its_batch_mates() {
    let bed = Bed::start("picky");
    bed.serve().await;
    let replies: Vec<_> = (0..4).map(|_| bed.submit(1)).collect();
    for reply in replies {
        let answer = reply.await.unwrap();
        assert_eq!(answer.timing.batch_rows, 1);
    }
    assert_eq!(bed.node.status_of(bed.version).deaths, 0);
}

async fn a_failed_load_is_told_to_who_waits() {
    let bed = Bed::start("load-fails");
    let waiting = bed.submit(1);
    bed.serve().await;
    let error = waiting.await.unwrap_err();
    let ServeError::Quarantined { reason, retry_after } = error else { panic!("{error:?}") };
    assert_eq!(reason, "bad magic  [31mnumber");
    assert!(retry_after > Duration::ZERO);
}

async fn a_worker_that_never_gets_ready_is_not_the_models_fault() {
    for behaviour in ["wrong-protocol", "no-barriers"] {
        let bed = Bed::start(behaviour);
        let worker = bed.node.start_worker(Bed::domain());
        bed.gone(worker).await;
        assert_eq!(bed.node.status_of(bed.version).deaths, 0, "{behaviour}");
    }
}

async fn an_idle_worker_that_is_killed_harms_nobody_and_the_next_request_is_served() {
    let bed = Bed::start("honest");
    let worker = bed.serve().await;
    let pid = bed.node.stats().workers[0].pid.unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    bed.gone(worker).await;
    assert_eq!(bed.node.status_of(bed.version).deaths, 0);
    let waiting = bed.submit(1);
    bed.until("demand", |node| (!node.observe().demand.is_empty()).then_some(())).await;
    bed.serve().await;
    waiting.await.unwrap();
}

async fn a_dead_spawner_is_replaced_and_its_workers_with_it() {
    let bed = Bed::start("honest");
    let worker = bed.serve().await;
    let status = std::fs::read_to_string(format!("/proc/{}/stat", bed.node.stats().workers[0].pid.unwrap())).unwrap();
    let spawner: i32 = status.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(spawner).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    bed.gone(worker).await;
    bed.serve().await;
    bed.submit(1).await.unwrap();
    assert_eq!(bed.node.status_of(bed.version).deaths, 0);
}

async fn a_request_that_nobody_waits_for_is_cancelled_and_a_deadline_ends_the_wait() {
    let bed = Bed::start("hangs");
    drop(bed.submit(1));
    assert_eq!(bed.node.stats().queued_tasks, 0);
    let mut submission_with_deadline = bed.submit(1);
    // No worker at all: only the deadline can end this one.
    let deadline = bed.node.now().saturating_add(Duration::from_millis(5));
    let with_deadline = bed.node.submit(Submission {
        placement: bed.placement,
        tenant: tenant(),
        deployment: DeploymentId::from_parts(3, [3; 10]),
        key: None,
        request: RequestId::from_parts(4, [4; 10]),
        meter: None,
        inputs: vec![Tensor {
            name: "x".to_owned(),
            datatype: DataType::Fp32,
            shape: smallvec![0, 2],
            data: tenantry_types::Payload::new(),
        }],
        outputs: smallvec![],
        deadline: Some(deadline),
        abortable: false,
        priority: Priority::default(),
    });
    assert_eq!(with_deadline.await.unwrap_err(), ServeError::Expired);
    assert!(bed.node.now() >= deadline);
    bed.node.retire(bed.version);
    assert_eq!((&mut submission_with_deadline).await.unwrap_err(), ServeError::Gone);
}

async fn draining_refuses_the_new_and_ends_the_workers() {
    let bed = Bed::start("honest");
    let worker = bed.serve().await;
    bed.submit(1).await.unwrap();
    bed.node.drain(Duration::from_secs(5)).await;
    assert_eq!(bed.submit(1).await.unwrap_err(), ServeError::Draining);
    bed.gone(worker).await;
}

fn run_tests() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        for (behaviour, expected) in [
            ("dies", "exit code 3"),
            ("forbidden-call", "a system call that is not allowed (SIGSYS)"),
            ("hangs", "longer than its limit of 200ms"),
            ("other-task", "a task it was not given"),
            ("outside", "outside its memory"),
            ("wrong-type", "declared type and shape"),
            ("wrong-shape", "number of bytes"),
            ("too-many", "2 outputs instead of 1"),
            ("loads-instead", "answered a request with a load"),
            ("wants-nothing", "memory it does not need"),
            ("ready-again", "ready a second time"),
            ("ends-unasked", "nobody asked it to end"),
            ("not-a-frame", "broke the worker protocol"),
        ] {
            a_violation_ends_the_worker_and_blames_the_model(behaviour, expected).await;
            println!("test a_violation_ends_the_worker_and_blames_the_model ({behaviour}) ... ok");
        }
        outputs_that_do_not_fit_fail_their_request_and_nothing_else().await;
        a_quarantine_stays_in_its_trust_domain().await;
        a_poison_input_is_found_in_its_batch_and_refused().await;
        a_poison_input_that_waits_is_refused_before_it_runs().await;
        a_worker_with_only_idle_replicas_is_idle().await;
        an_honest_worker_echoes_and_batches().await;
        one_bad_request_does_not_fail_its_batch_mates().await;
        a_failed_load_is_told_to_who_waits().await;
        a_worker_that_never_gets_ready_is_not_the_models_fault().await;
        an_idle_worker_that_is_killed_harms_nobody_and_the_next_request_is_served().await;
        a_dead_spawner_is_replaced_and_its_workers_with_it().await;
        a_request_that_nobody_waits_for_is_cancelled_and_a_deadline_ends_the_wait().await;
        draining_refuses_the_new_and_ends_the_workers().await;
        minimum::all().await;
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(a_dispatch_to_a_dead_worker_waits_for_the_next_one());
    println!("hostile_worker: 33 passed, 0 failed");
    ExitCode::SUCCESS
}
