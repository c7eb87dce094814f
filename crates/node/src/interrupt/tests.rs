//! With the real worker and the real engine, and without a scheduler's reasons: what is said is carried out.

use std::io::{Seek, Write};
use std::path::PathBuf;

use smallvec::{SmallVec, smallvec};
use tenantry_types::model::EngineOptions;
use tenantry_types::testing::{cache, onnx};
use tenantry_types::{
    DataOwner, DataType, DeploymentId, PlacementId, Priority, RequestId, Signature, TaskId, TenantId, Tensor,
    TensorSpec, TrustDomain, VersionId,
};
use tenantry_wire::ModelForm;

use super::*;
use crate::{ModelFile, ModelFiles, NodeConfig, Reply, Submission, VersionSpec, WorkerState, WorkerStats};

/// Turns a hang into a failure; nothing here waits for a duration to pass.
const PATIENCE: Duration = Duration::from_secs(60);
/// Some hundred milliseconds of counting.
const LONG: i64 = 300_000;

struct Bed {
    node: Arc<Node>,
    placement: PlacementId,
    version: VersionId,
}

fn tenant() -> TenantId {
    TenantId::from_parts(1, [1; 10])
}

fn domain() -> TrustDomain {
    TrustDomain { model_owner: tenant(), data_owner: DataOwner::Tenant(tenant()) }
}

fn spec() -> Arc<VersionSpec> {
    let scalar = |name: &str| TensorSpec { name: name.to_owned(), datatype: DataType::Int64, dims: Vec::new() };
    Arc::new(VersionSpec {
        version: VersionId::from_parts(2, [2; 10]),
        name: "acme/count:1".to_owned(),
        signature: Arc::new(Signature { inputs: vec![scalar("count")], outputs: vec![scalar("total")] }),
        can_batch: false,
        max_batch: 1,
        max_batch_delay: Duration::ZERO,
        run_limit: PATIENCE,
        cost: Duration::from_millis(1),
    })
}

impl Bed {
    async fn start(slots: u16) -> Self {
        Self::with(|config| config.slots = slots).await
    }

    async fn with(change: impl FnOnce(&mut NodeConfig)) -> Self {
        let binary = PathBuf::from(std::env::current_exe().unwrap().parent().unwrap().parent().unwrap());
        let binary = binary.join("tenantry-worker");
        assert!(binary.exists(), "build the worker first: cargo build --release -p tenantry-worker");
        let (spawner, exits) = tenantry_jail::Spawner::start(&binary).unwrap();
        let mut config = NodeConfig::small(binary, cache::runtime_library());
        change(&mut config);
        let node = Node::start(config, spawner, exits).unwrap();
        let spec = spec();
        let bed = Self { placement: node.placement(&spec, domain()), version: spec.version, node };
        bed.load().await;
        bed
    }

    async fn load(&self) -> WorkerId {
        let worker = self.node.start_worker(domain());
        self.until("ready worker", |node| {
            let stats = node.stats().workers;
            stats.iter().any(|stats| stats.worker == worker && stats.state == WorkerState::Ready).then_some(())
        })
        .await;
        let bytes = onnx::counting_loop();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file.rewind().unwrap();
        let file = ModelFile { name: "model.onnx".to_owned(), file: Arc::new(file), bytes: bytes.len() as u64 };
        let options = EngineOptions::default();
        let files = ModelFiles { form: ModelForm::Source, files: vec![file], options };
        let replica = self.node.load(worker, self.placement, files);
        self.until("loaded replica", |node| {
            let found = node.observe().replicas.into_iter().find(|known| known.id == replica)?;
            (found.state == tenantry_plan::ReplicaState::Ready).then_some(())
        })
        .await;
        worker
    }

    fn count_to(&self, count: i64) -> Reply {
        self.node.submit(Submission {
            placement: self.placement,
            tenant: tenant(),
            deployment: DeploymentId::from_parts(3, [3; 10]),
            key: None,
            request: RequestId::from_parts(4, [4; 10]),
            meter: None,
            inputs: vec![Tensor {
                name: "count".to_owned(),
                datatype: DataType::Int64,
                shape: smallvec![],
                data: count.to_le_bytes().to_vec().into(),
            }],
            outputs: SmallVec::new(),
            deadline: None,
            abortable: true,
            priority: Priority::default(),
        })
    }

    async fn until<T>(&self, what: &str, done: impl Fn(&Arc<Node>) -> Option<T>) -> T {
        let wait = async {
            loop {
                if let Some(value) = done(&self.node) {
                    return value;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| {
            panic!(
                "no {what}: {:?}, {:?}",
                self.node.stats(),
                self.node.with_scheduler(tenantry_sched::Scheduler::stats)
            )
        })
    }

    /// The batch that runs, where it runs, and its task.
    async fn running(&self) -> (BatchId, WorkerId, TaskId) {
        self.until("running batch", |node| {
            let workers = node.fleet.lock().all_workers();
            workers.iter().find_map(|worker| {
                let exec = worker.exec();
                exec.running.as_ref().map(|running| (running.batch, worker.id, running.task))
            })
        })
        .await
    }

    fn stats_of(&self, worker: WorkerId) -> Option<WorkerStats> {
        self.node.stats().workers.into_iter().find(|stats| stats.worker == worker)
    }

    fn pid(&self, worker: WorkerId) -> rustix::process::Pid {
        rustix::process::Pid::from_raw(self.stats_of(worker).unwrap().pid.unwrap()).unwrap()
    }

    /// Whether no thread of the process runs or could, as the kernel says: stopped ones are in state T, frozen ones in D or S.
    fn stands(&self, worker: WorkerId) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid(worker).as_raw_nonzero())).unwrap();
        threads.into_iter().all(|thread| {
            let text = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap();
            text.rsplit(')').next().unwrap().trim_start().starts_with(['T', 'D', 'S'])
        })
    }
}

fn total(answer: &crate::Answer) -> i64 {
    i64::from_le_bytes(answer.outputs[0].data.to_contiguous()[..].try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_run_stands_still_is_not_charged_and_ends_right() {
    let bed = Bed::start(2).await;
    let started = bed.node.now();
    let long = bed.count_to(LONG);
    let (batch, worker, _) = bed.running().await;
    bed.node.suspend(batch, worker);
    let since = bed.node.now();
    bed.until("standstill", |_| bed.stands(worker).then_some(())).await;
    assert!(bed.stats_of(worker).unwrap().suspended);
    // Meanwhile another one has its turn.
    let other = bed.load().await;
    assert_eq!(total(&bed.count_to(7).await.unwrap()), 7);
    assert_ne!(worker, other);
    let until = bed.node.now();
    bed.node.resume(batch, worker);
    let answer = long.await.unwrap();
    let all = bed.node.now().saturating_since(started);
    assert_eq!(total(&answer), LONG);
    let stood = until.saturating_since(since);
    assert!(answer.timing.suspended >= stood, "{:?} < {stood:?}", answer.timing);
    assert!(answer.timing.batch_time <= all - stood, "{:?}", answer.timing);
    assert_eq!(answer.timing.device_time, answer.timing.batch_time);
    assert_eq!((bed.node.stats().suspensions, bed.node.stats().worker_deaths), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_that_cross_or_come_early_or_late_do_no_harm() {
    let bed = Bed::start(1).await;
    let long = bed.count_to(LONG);
    let (batch, worker, _) = bed.running().await;
    bed.node.resume(batch, worker);
    bed.node.suspend(batch, worker);
    assert!(!bed.stats_of(worker).unwrap().suspended);
    assert_eq!(total(&long.await.unwrap()), LONG);
    // Too late: the worker must not stand for the next batch.
    bed.node.suspend(batch, worker);
    assert_eq!(total(&bed.count_to(1).await.unwrap()), 1);
    // Too early: said before the batch began.
    let next = BatchId(batch.0 + 2);
    bed.node.suspend(next, worker);
    // Long: a short one may be over before the word reaches its worker.
    let waiting = bed.count_to(LONG);
    assert_eq!(bed.running().await.0, next);
    bed.until("standstill", |_| bed.stands(worker).then_some(())).await;
    bed.node.resume(next, worker);
    assert_eq!(total(&waiting.await.unwrap()), LONG);
    bed.node.abort(BatchId(next.0 + 1), AbortCause::Deadline);
    assert_eq!(bed.count_to(i64::MAX).await.unwrap_err(), ServeError::Expired);
}

/// A run may end in the very moment in which it is suspended: its answer is in the socket, its process stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_worker_that_is_done_goes_on() {
    let bed = Bed::start(1).await;
    for _ in 0..200 {
        let short = bed.count_to(1);
        let found = bed
            .node
            .fleet
            .lock()
            .all_workers()
            .iter()
            .find_map(|worker| worker.exec().running.as_ref().map(|running| (running.batch, worker.id)));
        if let Some((batch, worker)) = found {
            bed.node.suspend(batch, worker);
            bed.node.resume(batch, worker);
        }
        assert_eq!(total(&short.await.unwrap()), 1);
    }
    let (one, two) = (bed.count_to(1).await, bed.count_to(2).await);
    assert_eq!((total(&one.unwrap()), total(&two.unwrap())), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preempted_run_is_run_again_and_nobody_is_blamed() {
    let bed = Bed::start(1).await;
    let long = bed.count_to(LONG);
    let (batch, worker, _) = bed.running().await;
    // At once, perhaps before the worker has read what it is to run: the word must not be lost.
    bed.node.abort(batch, AbortCause::Preempted);
    let answer = long.await.unwrap();
    assert_eq!((total(&answer), answer.timing.suspended), (LONG, Duration::ZERO));
    assert!(bed.stats_of(worker).is_some());
    assert_eq!((bed.node.stats().worker_deaths, bed.node.status_of(bed.version).deaths), (0, 0));
    let stats = bed.node.with_scheduler(tenantry_sched::Scheduler::stats);
    assert!(stats.wasted > Duration::ZERO, "{stats:?}");
    // The load, too.
    assert_eq!((stats.admitted_tasks, stats.dispatched_tasks, stats.misuses), (2, 3, 0));
}

/// Who is guaranteed does not wait for the grace of a run that outran its deadlines; and the grace is for when it can hear.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_ending_can_be_suspended_and_ends_when_it_goes_on() {
    let bed = Bed::start(2).await;
    let endless = bed.count_to(i64::MAX);
    let (batch, worker, _) = bed.running().await;
    // Stopped behind the node's back, it hears nothing before it is let go on.
    rustix::process::kill_process(bed.pid(worker), rustix::process::Signal::STOP).unwrap();
    bed.node.abort(batch, AbortCause::Deadline);
    bed.node.suspend(batch, worker);
    let other = bed.load().await;
    assert_ne!(worker, other);
    let since = bed.node.now();
    while bed.node.now().saturating_since(since) < 2 * TERMINATION_GRACE {
        assert_eq!(total(&bed.count_to(LONG).await.unwrap()), LONG);
    }
    assert!(bed.stats_of(worker).is_some_and(|stats| stats.suspended));
    bed.node.resume(batch, worker);
    assert_eq!(endless.await.unwrap_err(), ServeError::Expired);
    assert_eq!(bed.node.stats().worker_deaths, 0);
}

/// To let it go on in order to end it would let it run beside what it was stopped for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_run_that_is_ended_never_runs_on() {
    let bed = Bed::start(1).await;
    let long = bed.count_to(LONG);
    let (batch, worker, _) = bed.running().await;
    bed.node.suspend(batch, worker);
    bed.until("standstill", |_| bed.stands(worker).then_some(())).await;
    // User and system time in hundredths of a second.
    let cpu_time = |pid: rustix::process::Pid| -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
        let fields: Vec<&str> = text.rsplit(')').next()?.split_whitespace().collect();
        Some(fields.get(11..13)?.iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum())
    };
    let pid = bed.pid(worker);
    let before = cpu_time(pid).unwrap();
    bed.node.abort(batch, AbortCause::Preempted);
    bed.until("death", |_| {
        let now = cpu_time(pid);
        // Dying takes a little.
        assert!(now.is_none_or(|now| now <= before + 3), "it ran on: {before}, {now:?}");
        bed.stats_of(worker).is_none().then_some(())
    })
    .await;
    bed.load().await;
    assert_eq!(total(&long.await.unwrap()), LONG);
    assert_eq!((bed.node.stats().worker_deaths, bed.node.status_of(bed.version).deaths), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_given_up_while_its_batch_ends_does_not_come_back() {
    let bed = Bed::start(1).await;
    let (endless, next) = (bed.count_to(i64::MAX), bed.count_to(7));
    let (batch, _, _) = bed.running().await;
    drop(endless);
    bed.node.abort(batch, AbortCause::Preempted);
    assert_eq!(total(&next.await.unwrap()), 7);
    let stats = bed.node.with_scheduler(tenantry_sched::Scheduler::stats);
    assert_eq!((stats.queued_tasks, stats.running_tasks, stats.misuses), (0, 0, 0));
    assert!(bed.node.inflight.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_memory_is_short_best_effort_work_is_ended_and_run_again() {
    let bed = Bed::with(|config| config.memory_floor_bytes = 1 << 20).await;
    let tier = Some(tenantry_sched::Tier::BestEffort);
    let share = tenantry_sched::Share { tier, ..tenantry_sched::Share::default() };
    bed.node.set_shares(vec![(tenantry_sched::Subject::Tenant(tenant()), Some(share))]);
    let long = bed.count_to(LONG);
    bed.running().await;
    let mut watch = crate::memory::Watch::default();
    bed.node.note_memory(&mut watch, 1 << 20);
    assert_eq!(bed.node.stats().aborted_batches, 0);
    bed.node.note_memory(&mut watch, (1 << 20) - 1);
    assert_eq!(bed.node.stats().aborted_batches, 1);
    assert_eq!(total(&long.await.unwrap()), LONG);
    let stats = bed.node.with_scheduler(tenantry_sched::Scheduler::stats);
    assert!(!stats.wasted.is_zero() && stats.wasted == stats.wasted_by_machine, "{stats:?}");
    assert_eq!(bed.node.status_of(bed.version).deaths, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_does_not_end_its_run_when_asked_is_ended() {
    let bed = Bed::start(1).await;
    let long = bed.count_to(LONG);
    let (batch, worker, _) = bed.running().await;
    // Stopped behind the node's back, it hears nothing.
    rustix::process::kill_process(bed.pid(worker), rustix::process::Signal::STOP).unwrap();
    bed.node.abort(batch, AbortCause::Preempted);
    bed.until("death", |_| bed.stats_of(worker).is_none().then_some(())).await;
    bed.load().await;
    assert_eq!(total(&long.await.unwrap()), LONG);
    assert_eq!((bed.node.stats().worker_deaths, bed.node.status_of(bed.version).deaths), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_past_every_deadline_is_ended_and_its_worker_lives() {
    let bed = Bed::start(1).await;
    let endless = bed.count_to(i64::MAX);
    let (batch, worker, _) = bed.running().await;
    bed.node.abort(batch, AbortCause::Deadline);
    // Said twice, heard once.
    bed.node.abort(batch, AbortCause::Preempted);
    assert_eq!(endless.await.unwrap_err(), ServeError::Expired);
    let status = bed.node.status_of(bed.version);
    assert_eq!((status.deaths, status.quarantined), (0, None));
    assert!(status.last_failure.unwrap().contains("after every deadline"));
    assert_eq!(total(&bed.count_to(3).await.unwrap()), 3);
    assert!(bed.stats_of(worker).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_for_a_run_that_has_ended_does_not_end_the_next() {
    let bed = Bed::start(1).await;
    let long = bed.count_to(LONG);
    let (_, worker, task) = bed.running().await;
    assert_eq!(total(&long.await.unwrap()), LONG);
    let found = bed.node.fleet.lock().worker(worker).unwrap();
    let next = bed.count_to(LONG);
    found.terminate(task).unwrap();
    assert_eq!(total(&next.await.unwrap()), LONG);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_worker_can_be_killed() {
    let bed = Bed::start(1).await;
    let endless = bed.count_to(i64::MAX);
    let (batch, worker, _) = bed.running().await;
    bed.node.suspend(batch, worker);
    bed.until("standstill", |_| bed.stands(worker).then_some(())).await;
    rustix::process::kill_process(bed.pid(worker), rustix::process::Signal::KILL).unwrap();
    // Frozen by a control group of version 1 it dies when it is let go on.
    bed.node.resume(batch, worker);
    let error = endless.await.unwrap_err();
    assert!(matches!(&error, ServeError::ModelFailed(text) if text.contains("signal 9")), "{error:?}");
    bed.load().await;
    assert_eq!(total(&bed.count_to(3).await.unwrap()), 3);
}
