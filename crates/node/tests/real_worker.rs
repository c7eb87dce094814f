//! The node with the real worker and the real engine: register, load, answer, survive.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use smallvec::{SmallVec, smallvec};
use tenantry_node::{
    Answer, ModelFile, ModelFiles, Node, NodeConfig, RegisterError, RegisterRequest, Reply, ServeError, Submission,
    VersionSpec, WorkerState,
};
use tenantry_sched::{
    Decision, Event, Phase, Policy, Rate, Reservation, Scheduler, SchedulerConfig, Share, Subject, Tier, Weight,
};
use tenantry_types::model::{ModelLimits, Registration, VersionSettings};
use tenantry_types::testing::onnx;
use tenantry_types::{
    DataOwner, DataType, DeploymentId, PlacementId, Priority, RequestId, TenantId, Tensor, TrustDomain, VersionId,
    WorkerId,
};
use tenantry_wire::ModelForm;

/// Turns a hang into a failure; nothing here waits for a duration to pass.
const PATIENCE: Duration = Duration::from_secs(60);

fn tenant() -> TenantId {
    TenantId::from_parts(1, [1; 10])
}

fn domain_of(caller: TenantId) -> TrustDomain {
    TrustDomain { model_owner: tenant(), data_owner: DataOwner::Tenant(caller) }
}

fn worker_binary() -> PathBuf {
    let binary = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("tenantry-worker");
    assert!(binary.exists(), "build the worker first: cargo build --release -p tenantry-worker");
    binary
}

fn runtime_library() -> PathBuf {
    if let Some(path) = std::env::var_os("TENANTRY_ONNXRUNTIME") {
        return path.into();
    }
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let library = root.join("../../.cache/onnxruntime/1.31.1/libonnxruntime.so.1.31.1");
    assert!(library.exists(), "fetch the runtime first: make fetch");
    library
}

fn start(slots: u16) -> Arc<Node> {
    start_with(slots, Duration::from_secs(20))
}

fn start_with(slots: u16, register_limit: Duration) -> Arc<Node> {
    start_changed(|config| NodeConfig { slots, register_limit, ..config })
}

fn start_changed(change: impl FnOnce(NodeConfig) -> NodeConfig) -> Arc<Node> {
    let (spawner, exits) = tenantry_jail::Spawner::start(&worker_binary()).unwrap();
    let config = change(NodeConfig::small(worker_binary(), runtime_library()));
    Node::start(config, spawner, exits).unwrap()
}

fn file(bytes: &[u8]) -> ModelFile {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    ModelFile { name: "model.onnx".to_owned(), file: Arc::new(file), bytes: bytes.len() as u64 }
}

async fn until<T>(node: &Arc<Node>, what: &str, mut done: impl FnMut(&Arc<Node>) -> Option<T>) -> T {
    let mut changes = node.changes();
    let wait = async {
        loop {
            changes.mark_unchanged();
            if let Some(value) = done(node) {
                return value;
            }
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("no {what}"))
}

struct Served {
    node: Arc<Node>,
    spec: Arc<VersionSpec>,
    placement: PlacementId,
    caller: TenantId,
    registration: Registration,
    optimised: Vec<u8>,
    model: Vec<u8>,
}

async fn register(
    node: &Arc<Node>,
    model: &[u8],
    settings: VersionSettings,
) -> Result<(Registration, Vec<u8>), RegisterError> {
    let request = RegisterRequest {
        owner: tenant(),
        version: VersionId::from_parts(9, [9; 10]),
        files: vec![file(model)],
        settings,
        meter: None,
    };
    let registered = tokio::time::timeout(PATIENCE, node.register(request)).await.expect("no registration")?;
    let mut optimised = Vec::new();
    let mut source: File = registered.optimised;
    source.rewind().unwrap();
    source.read_to_end(&mut optimised).unwrap();
    optimised.truncate(registered.optimised_bytes as usize);
    Ok((registered.registration, optimised))
}

impl Served {
    async fn start(node: &Arc<Node>, number: u8, model: Vec<u8>, run_limit: Duration) -> Self {
        Self::start_for(node, number, model, run_limit, tenant()).await
    }

    async fn start_for(node: &Arc<Node>, number: u8, model: Vec<u8>, run_limit: Duration, caller: TenantId) -> Self {
        let (registration, optimised) = register(node, &model, VersionSettings::default()).await.unwrap();
        let spec = Arc::new(VersionSpec {
            version: VersionId::from_parts(2, [number; 10]),
            name: format!("acme/model-{number}:1"),
            signature: Arc::new(registration.signature.clone()),
            can_batch: registration.can_batch,
            max_batch: 8,
            max_batch_delay: Duration::ZERO,
            run_limit,
            cost: Duration::from_micros(50),
        });
        let placement = node.placement(&spec, domain_of(caller));
        let served = Self { node: Arc::clone(node), spec, placement, caller, registration, optimised, model };
        served.load(ModelForm::Optimised).await;
        served
    }

    async fn load(&self, form: ModelForm) -> WorkerId {
        let worker = self.node.start_worker(domain_of(self.caller));
        until(&self.node, "ready worker", |node| {
            let ready =
                |stats: &tenantry_node::WorkerStats| stats.worker == worker && stats.state == WorkerState::Ready;
            node.stats().workers.iter().any(ready).then_some(())
        })
        .await;
        let bytes = if form == ModelForm::Optimised { &self.optimised } else { &self.model };
        let options = self.registration.profile.options.clone();
        let replica = self.node.load(worker, self.placement, ModelFiles { form, files: vec![file(bytes)], options });
        until(&self.node, "loaded replica", |node| {
            let found = node.observe().replicas.into_iter().find(|known| known.id == replica)?;
            (found.state == tenantry_plan::ReplicaState::Ready).then_some(())
        })
        .await;
        worker
    }

    fn submit(&self, inputs: Vec<Tensor>) -> Reply {
        self.node.submit(Submission {
            placement: self.placement,
            tenant: self.caller,
            deployment: DeploymentId::from_parts(3, [3; 10]),
            key: None,
            request: RequestId::from_parts(4, [4; 10]),
            meter: None,
            inputs,
            outputs: SmallVec::new(),
            deadline: None,
            abortable: false,
            priority: Priority::default(),
        })
    }

    fn count_to(&self, count: i64) -> Reply {
        self.submit(vec![Tensor { shape: smallvec![], ..integers("count", &[count]) }])
    }

    fn matmul(&self, value: f32) -> Reply {
        let data: Vec<u8> = std::iter::repeat_n(value.to_le_bytes(), 16).flatten().collect();
        let name = self.spec.signature.inputs[0].name.clone();
        self.submit(vec![Tensor { name, datatype: DataType::Fp32, shape: smallvec![1, 16], data: data.into() }])
    }

    fn pid(&self, worker: WorkerId) -> rustix::process::Pid {
        let stats = self.node.stats();
        let pid = stats.workers.iter().find(|stats| stats.worker == worker).unwrap().pid.unwrap();
        rustix::process::Pid::from_raw(pid).unwrap()
    }
}

fn floats(answer: &Answer) -> Vec<f32> {
    let bytes = answer.outputs[0].data.to_contiguous();
    bytes.chunks_exact(4).map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap())).collect()
}

fn integers(name: &str, values: &[i64]) -> Tensor {
    Tensor {
        name: name.to_owned(),
        datatype: DataType::Int64,
        shape: smallvec![values.len() as u64],
        data: values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_of_a_batch_gets_its_own_rows() {
    let node = start(1);
    let served = Served::start(&node, 1, onnx::matmul16(), PATIENCE).await;
    assert!(served.registration.can_batch);
    // The slot is taken while they come, so that they queue however slow this machine is.
    let other = Served::start(&node, 2, onnx::counting_loop(), PATIENCE).await;
    let long = other.count_to(300_000);
    until_busy(&node).await;
    let replies: Vec<Reply> = (0..40).map(|value| served.matmul(value as f32)).collect();
    assert_eq!(total(&long.await.unwrap()), 300_000);
    let mut largest = 0;
    let mut device_time = Duration::ZERO;
    for (value, reply) in replies.into_iter().enumerate() {
        let answer = reply.await.unwrap();
        assert_eq!(floats(&answer), vec![2.0 * value as f32; 16]);
        largest = largest.max(answer.timing.batch_rows);
        device_time += answer.timing.device_time;
    }
    // What queued while the slot was busy went together, up to the version's limit.
    assert_eq!(largest, 8);
    assert!(device_time > Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_loses_its_batch_and_nothing_else() {
    let node = start(2);
    let served = Served::start(&node, 1, onnx::counting_loop(), PATIENCE).await;
    let bystander = Served::start(&node, 2, onnx::matmul16(), PATIENCE).await;
    // As good as endless: a microsecond a step.
    let running = served.count_to(i64::MAX);
    let waiting = served.count_to(3);
    let busy = until_busy(&node).await;
    rustix::process::kill_process(served.pid(busy), rustix::process::Signal::KILL).unwrap();
    let error = running.await.unwrap_err();
    assert!(matches!(&error, ServeError::ModelFailed(text) if text.contains("signal 9")), "{error:?}");
    assert_eq!(floats(&bystander.matmul(3.0).await.unwrap()), vec![6.0; 16]);
    // The other request was in the queue, not in the worker: it still waits for a replica.
    assert_eq!(node.observe().demand.len(), 1);
    served.load(ModelForm::Optimised).await;
    assert_eq!(waiting.await.unwrap().outputs[0].data.to_contiguous(), 3_i64.to_le_bytes().to_vec());
}

/// The worker that runs something. Only a worker's own progress is awaited: the run never ends.
async fn until_busy(node: &Arc<Node>) -> WorkerId {
    let wait = async {
        loop {
            if let Some(busy) = node.stats().workers.into_iter().find(|stats| stats.busy) {
                return busy.worker;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_that_kills_the_engine_is_reported_and_the_next_request_is_served() {
    let node = start(1);
    let served = Served::start(&node, 1, onnx::div_i64(), PATIENCE).await;
    let names: Vec<String> = served.spec.signature.inputs.iter().map(|spec| spec.name.clone()).collect();
    let deadly = served.submit(vec![integers(&names[0], &[i64::MIN]), integers(&names[1], &[-1])]);
    let error = deadly.await.unwrap_err();
    assert!(matches!(&error, ServeError::ModelFailed(text) if text.contains("arithmetic error")), "{error:?}");
    until(&node, "death", |node| node.stats().workers.is_empty().then_some(())).await;
    served.load(ModelForm::Source).await;
    let answer = served.submit(vec![integers(&names[0], &[42]), integers(&names[1], &[6])]).await.unwrap();
    assert_eq!(answer.outputs[0].data.to_contiguous(), 7_i64.to_le_bytes().to_vec());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_without_end_is_ended_at_its_limit() {
    let node = start(1);
    let limit = Duration::from_millis(300);
    let served = Served::start(&node, 1, onnx::counting_loop(), limit).await;
    let before = node.now();
    let error = served.count_to(i64::MAX).await.unwrap_err();
    assert!(matches!(&error, ServeError::ModelFailed(text) if text.contains("longer than its limit")), "{error:?}");
    assert!(node.now().saturating_since(before) >= limit);
    // It ended when asked to, so its worker lives, and with it whatever else is loaded there; the record has it.
    assert_eq!(served.count_to(5).await.unwrap().outputs[0].data.to_contiguous(), 5_i64.to_le_bytes().to_vec());
    assert_eq!((node.stats().worker_deaths, node.stats().aborted_batches), (0, 1));
    assert_eq!(node.status_of(served.spec.version).deaths, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_never_ends_is_refused_at_registration() {
    let node = start_with(1, Duration::from_secs(2));
    let error = register(&node, &onnx::endless_loop(), VersionSettings::default()).await.unwrap_err();
    assert!(matches!(&error, RegisterError::Ended(text) if text.contains("limit of 2s")), "{error:?}");
}

/// What the engine would never return from, or could be talked into reading, it does not get to see.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_model_anybody_can_have_meant_is_refused_before_the_engine_sees_it() {
    let node = start_changed(|config| NodeConfig { model_limits: ModelLimits { max_nodes: 5_000 }, ..config });
    let memory = onnx::external_matmul16("*/_ORT_MEM_ADDR_/*").0;
    for (model, expected) in [
        (onnx::function_bomb(), "expand to more than 5000 nodes"),
        (onnx::recursive_functions(), "call each other in a circle"),
        (onnx::chain(5_001), "more than 5000 nodes"),
        (onnx::nested_graphs(17), "more than 16 deep"),
        (onnx::external_matmul16("/etc/passwd").0, "`/etc/passwd`, which is not among the version's files"),
        (memory, "which is not among the version's files"),
        (b"\x20\0\0\0ORTM and more".to_vec(), "the ORT format"),
        (b"\x80\x04\x95 pickled".to_vec(), "a Python pickle"),
    ] {
        let error = register(&node, &model, VersionSettings::default()).await.unwrap_err();
        assert!(matches!(&error, RegisterError::Refused(text) if text.contains(expected)), "{expected}: {error:?}");
    }
    // As many as are allowed are served.
    register(&node, &onnx::chain(5_000), VersionSettings::default()).await.unwrap();
    register(&node, &onnx::nested_graphs(3), VersionSettings::default()).await.unwrap();
    assert_eq!(node.stats().worker_deaths, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_no_models_are_refused_with_the_engines_reason() {
    let node = start(1);
    for garbage in [&b"not a model"[..], &[], &onnx::matmul16()[..40], &onnx::unknown_operator()] {
        let error = register(&node, garbage, VersionSettings::default()).await.unwrap_err();
        let RegisterError::Refused(reason) = &error else { panic!("{error:?}") };
        assert!(!reason.is_empty() && !reason.contains('\n') && !reason.contains('/'), "{reason:?}");
    }
    // The registration workers are gone again.
    until(&node, "end of the workers", |node| node.stats().workers.is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_outputs_grow_the_arena_and_idle_arenas_stay_small() {
    let node = start(1);
    let served = Served::start(&node, 1, onnx::expand(), PATIENCE).await;
    let name = served.spec.signature.inputs[0].name.clone();
    for extent in [1_i64, 300_000, 2] {
        let answer = served.submit(vec![integers(&name, &[extent])]).await;
        let answer = answer.unwrap();
        assert_eq!(answer.outputs[0].shape[0], extent as u64);
    }
    // More than the arena may become: this request fails, the server and the next request do not notice.
    let error = served.submit(vec![integers(&name, &[1 << 27])]).await.unwrap_err();
    assert!(matches!(&error, ServeError::InvalidInput(text) if text.contains("at most")), "{error:?}");
    served.submit(vec![integers(&name, &[3])]).await.unwrap();
}

fn total(answer: &Answer) -> i64 {
    i64::from_le_bytes(answer.outputs[0].data.to_contiguous()[..].try_into().unwrap())
}

/// The promise the whole issue is about, end to end: on the only slot runs somebody's run of seconds, and a request
/// with a reservation is answered before it ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reservation_is_kept_while_a_long_run_holds_the_slot() {
    let node = start(1);
    let victim = TenantId::from_parts(5, [5; 10]);
    let reserved = Served::start_for(&node, 1, onnx::counting_loop(), PATIENCE, victim).await;
    let other = Served::start(&node, 2, onnx::counting_loop(), PATIENCE).await;
    let reservation = Reservation { rate: Rate::from_ppm(300_000), burst: Duration::from_millis(100) };
    let share = Share { tier: Some(Tier::Guaranteed), reservation: Some(reservation), ..Share::default() };
    node.set_shares(vec![(Subject::Tenant(victim), Some(share))]);
    let steps = 3_000_000;
    let mut long = other.count_to(steps);
    until_busy(&node).await;
    for count in 1..=20 {
        let answer = tokio::select! {
            answer = reserved.count_to(count) => answer.unwrap(),
            _ = &mut long => panic!("the long run ended first"),
        };
        assert_eq!((total(&answer), answer.timing.phase), (count, Phase::Reserved));
    }
    let answer = long.await.unwrap();
    assert_eq!((total(&answer), answer.timing.phase), (steps, Phase::Shared));
    assert!(answer.timing.suspended > Duration::ZERO, "{:?}", answer.timing);
    let stats = node.stats();
    assert!(stats.suspensions >= 20 && stats.worker_deaths == 0, "{stats:?}");
    // What was charged is what was measured.
    let charged = node.usage().into_iter().find(|usage| usage.subject == Subject::Tenant(tenant())).unwrap();
    assert!(charged.charged >= answer.timing.device_time);
    // And without the reservation it waits like everybody.
    node.set_shares(vec![(Subject::Tenant(victim), None)]);
    node.set_policy(Policy::Fifo);
    assert_eq!(node.policy(), Policy::Fifo);
    assert_eq!(reserved.count_to(1).await.unwrap().timing.phase, Phase::Shared);
}

/// Somebody's first request is what the model is loaded for, so he pays, whoever owns the model.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_is_charged_to_whom_it_is_made_for() {
    let node = start(1);
    let caller = TenantId::from_parts(5, [5; 10]);
    let served = Served::start_for(&node, 1, onnx::matmul16(), PATIENCE, caller).await;
    let charged_to = |who: TenantId| {
        let usage = node.usage().into_iter().find(|usage| usage.subject == Subject::Tenant(who));
        usage.map_or(Duration::ZERO, |usage| usage.charged)
    };
    // Ahead of any need: the owner's.
    assert!(charged_to(tenant()) > Duration::ZERO);
    assert_eq!(charged_to(caller), Duration::ZERO);
    for worker in node.stats().workers {
        node.stop_worker(worker.worker);
    }
    let owner_before = charged_to(tenant());
    let waiting = served.matmul(1.0);
    served.load(ModelForm::Optimised).await;
    let load_time = node.status_of(served.spec.version).load_time.unwrap();
    let answer = waiting.await.unwrap();
    assert_eq!(charged_to(tenant()), owner_before);
    assert!(charged_to(caller) >= load_time + answer.timing.device_time);
}

/// What was recorded is enough to decide the same again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_replays_to_the_same_decisions() {
    let folder = tempfile::tempdir().unwrap();
    let (arrivals, decisions) = (folder.path().join("arrivals.csv"), folder.path().join("decisions.jsonl"));
    let node = start_changed(|config| NodeConfig {
        record_arrivals: Some(arrivals.clone()),
        record_decisions: Some(decisions.clone()),
        ..config
    });
    let served = Served::start(&node, 1, onnx::matmul16(), PATIENCE).await;
    node.set_shares(vec![(
        Subject::Tenant(tenant()),
        Some(Share { weight: Weight::from_milli(2_000), ..Share::default() }),
    )]);
    let replies: Vec<Reply> = (0..40).map(|value| served.matmul(value as f32)).collect();
    for reply in replies {
        reply.await.unwrap();
    }
    drop(served.matmul(1.0));
    node.drain(PATIENCE).await;

    let arrivals = std::fs::read_to_string(arrivals).unwrap();
    let mut lines = arrivals.lines();
    assert_eq!(lines.next(), Some("at_us,tenant,model,rows,bucket,bytes,timeout_ms,device_us"));
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 41);
    let device = |row: &&Vec<&str>| row.len() == 8 && row[2] == "acme/model-1" && row[5] == "64" && !row[7].is_empty();
    assert!(rows.iter().filter(device).count() >= 40, "{arrivals}");

    #[derive(serde::Deserialize)]
    struct Head {
        config: SchedulerConfig,
    }
    #[derive(serde::Deserialize)]
    struct Poll {
        at: u64,
        events: Vec<Event>,
        decisions: Vec<Decision>,
    }
    let log = std::fs::read_to_string(decisions).unwrap();
    let mut lines = log.lines();
    let head: Head = serde_json::from_str(lines.next().unwrap()).unwrap();
    let mut scheduler = Scheduler::new(head.config);
    let mut tasks = 0;
    for line in lines {
        let poll: Poll = serde_json::from_str(line).unwrap();
        let mut again = Vec::new();
        scheduler.poll(tenantry_types::MonotonicTime::from_nanos(poll.at), poll.events, &mut again);
        assert_eq!(again, poll.decisions);
        tasks += again.iter().filter(|decision| matches!(decision, Decision::Dispatch { .. })).count();
    }
    assert!(tasks > 2);
    assert_eq!(node.stats().dropped_records, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_that_cannot_be_written_stops_the_start() {
    let (spawner, exits) = tenantry_jail::Spawner::start(&worker_binary()).unwrap();
    let config = NodeConfig::small(worker_binary(), runtime_library());
    let config = NodeConfig { record_decisions: Some(PathBuf::from("/nowhere/at/all")), ..config };
    let error = Node::start(config, spawner, exits).unwrap_err();
    assert!(error.to_string().contains("decisions"), "{error}");
}

/// Every thread of a worker is on the processors of its slot, those included that a load made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_runs_on_the_processors_of_its_slot() {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let cpu = (0..rustix::thread::CpuSet::MAX_CPU).rfind(|cpu| allowed.is_set(*cpu)).unwrap();
    let node = start_changed(|config| NodeConfig { slot_cores: vec![vec![cpu]], ..config });
    let served = Served::start(&node, 1, onnx::matmul16(), PATIENCE).await;
    assert_eq!(served.registration.profile.options.threads, 1);
    served.matmul(1.0).await.unwrap();
    let worker = node.stats().workers.into_iter().find(|stats| !stats.registration).unwrap();
    let threads = std::fs::read_dir(format!("/proc/{}/task", worker.pid.unwrap())).unwrap();
    let mut seen = 0;
    for thread in threads {
        let status = std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        assert!(status.lines().any(|line| line == format!("Cpus_allowed_list:\t{cpu}")), "{status}");
        seen += 1;
    }
    assert!(seen >= 2, "the one that runs and the one that listens");
}
