//! The node and its data path: submit, poll in place, carry out.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;
use tenantry_jail::Spawner;
use tenantry_sched::{
    Batching, Decision, Event, Place, Policy, RejectReason, Scheduler, SchedulerConfig, Task, TaskKind,
};
use tenantry_types::share::WorkerLimits;
use tenantry_types::{MonotonicTime, PlacementId, Signature, TaskId, TenantId, Tensor, TrustDomain, VersionId};
use tokio::sync::{Notify, oneshot, watch};

use crate::clock::Clock;
use crate::config::NodeConfig;
use crate::cpu_weight::CpuWeights;
use crate::dispatch::Dispatched;
use crate::fleet::Fleet;
use crate::incident::Incidents;
use crate::interrupt::Orders;
use crate::meter::{LoadMeters, SlotMeter};
use crate::minimum::Minimums;
use crate::observe::RuntimeInfo;
use crate::placement::{Interned, Placements, VersionSpec};
use crate::poison::Poison;
use crate::recording::{RecordError, Recorder};
use crate::slots::SlotCores;
use crate::submission::{Reply, ServeError, Submission};
use crate::timer::Timer;
use crate::warm::Wanted;
use crate::worker::{Load, Request};
use crate::worker_memory;

/// One machine's data plane. Made by [`Node::start`].
#[derive(Debug)]
pub struct Node {
    pub(crate) config: NodeConfig,
    pub(crate) clock: Clock,
    /// With its generation: process serials are unique within one.
    pub(crate) spawner: RwLock<(u64, Arc<Spawner>)>,
    pub(crate) fleet: Mutex<Fleet>,
    pub(crate) placements: Placements,
    /// How well workers must be kept apart for whom.
    pub(crate) minimums: RwLock<Arc<Minimums>>,
    pub(crate) inflight: Mutex<HashMap<TaskId, Entry>>,
    /// What is to be loaded for somebody who sent no request, under the number of his wait. Bounded by the permits there are.
    pub(crate) wanted: Mutex<Vec<(u64, Wanted)>>,
    pub(crate) timer: Timer,
    pub(crate) changes: watch::Sender<u64>,
    pub(crate) runtime: Mutex<Option<RuntimeInfo>>,
    pub(crate) draining: AtomicBool,
    /// Told whenever an entry leaves `inflight` or a worker falls idle; `drain` waits on it.
    pub(crate) quiet: Notify,
    /// What the scheduler said about batches after it had dispatched them.
    pub(crate) orders: Orders,
    pub(crate) slot_cores: SlotCores,
    /// What workers weigh on the processors. Locked before the fleet is.
    pub(crate) cpu_weights: Mutex<CpuWeights>,
    /// What the workers of tenants may use.
    pub(crate) worker_limits: Mutex<HashMap<TenantId, WorkerLimits>>,
    /// The limit on a worker's memory where the configuration names none.
    pub(crate) default_worker_memory_bytes: Option<u64>,
    pub(crate) incidents: Incidents,
    pub(crate) poison: Poison,
    pub(crate) slot_meter: SlotMeter,
    /// Who is told of loads.
    pub(crate) load_meters: RwLock<Option<Arc<dyn LoadMeters>>>,
    pub(crate) recorder: Option<Arc<Recorder>>,
    /// Decisions may be carried out on a thread outside the runtime.
    pub(crate) tokio: tokio::runtime::Handle,
    /// As the scheduler was last told.
    pub(crate) policy: Mutex<Policy>,
    inbox: Mutex<Vec<Event>>,
    core: Mutex<Core>,
    next_id: AtomicU64,
    shape_hasher: RandomState,
}

/// The scheduler and the buffers it is polled with.
#[derive(Debug)]
struct Core {
    scheduler: Scheduler,
    events: Vec<Event>,
}

/// A task the scheduler knows and no worker runs yet.
#[derive(Debug)]
pub(crate) enum Entry {
    Request(Box<Request>),
    Load(Box<Load>),
}

impl Node {
    pub(crate) fn new(config: NodeConfig, spawner: Spawner) -> Result<Self, RecordError> {
        let scheduling = SchedulerConfig {
            policy: config.policy,
            tuning: config.tuning,
            max_queued_tasks: config.max_queued_tasks,
            max_queued_bytes: config.max_queued_bytes,
            max_queued_tasks_per_tenant: config.max_queued_tasks_per_tenant,
        };
        let recorder = Recorder::start(&config, &scheduling)?;
        Ok(Self {
            policy: Mutex::new(config.policy),
            slot_cores: SlotCores::of(&config),
            cpu_weights: Mutex::default(),
            worker_limits: Mutex::default(),
            default_worker_memory_bytes: worker_memory::default_limit(tenantry_jail::available_memory_bytes()),
            incidents: Incidents::default(),
            poison: Poison::new(config.refuse_poison_for),
            slot_meter: SlotMeter::default(),
            load_meters: RwLock::default(),
            recorder,
            tokio: tokio::runtime::Handle::current(),
            config,
            clock: Clock::start(),
            spawner: RwLock::new((0, Arc::new(spawner))),
            fleet: Mutex::default(),
            placements: Placements::default(),
            minimums: RwLock::default(),
            inflight: Mutex::default(),
            wanted: Mutex::default(),
            timer: Timer::new(),
            changes: watch::Sender::new(0),
            runtime: Mutex::new(None),
            draining: AtomicBool::new(false),
            quiet: Notify::new(),
            orders: Orders::default(),
            inbox: Mutex::default(),
            core: Mutex::new(Core { scheduler: Scheduler::new(scheduling), events: Vec::new() }),
            next_id: AtomicU64::new(1),
            shape_hasher: RandomState::new(),
        })
    }

    /// Monotonic time since this node started.
    pub fn now(&self) -> MonotonicTime {
        self.clock.now()
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// The placement of a version in a trust domain; made on first use. Cheap when it is known.
    pub fn placement(self: &Arc<Self>, spec: &Arc<VersionSpec>, domain: TrustDomain) -> PlacementId {
        let (placement, interned) = self.placements.intern(spec, domain, self.now(), || PlacementId(self.next_id()));
        if interned != Interned::Known {
            self.push(Event::PlacementUp { placement: placement.id, batching: batching(spec) });
            self.pump();
        }
        placement.id
    }

    /// Forgets a deleted version: its waiting requests end with [`ServeError::Gone`].
    pub fn retire(self: &Arc<Self>, version: VersionId) {
        for placement in self.placements.retire(version) {
            self.push(Event::PlacementDown { placement: placement.id });
        }
        self.fleet.lock().forget_version(version);
        self.poison.forget_version(version);
        self.pump();
        self.changed();
    }

    /// Queues a request. It may be refused at once; the reply says so. Dropping the reply cancels.
    pub fn submit(self: &Arc<Self>, submission: Submission) -> Reply {
        if self.draining.load(Ordering::Acquire) {
            return Reply::refused(ServeError::Draining);
        }
        let Some(placement) = self.placements.get(submission.placement) else {
            return Reply::refused(ServeError::Gone);
        };
        if let Some(shortfall) = self.shortfall_for(&placement, submission.tenant) {
            return Reply::refused(ServeError::BelowMinimum(shortfall));
        }
        let now = self.now();
        let cold = placement.counters.replicas.load(Ordering::Acquire) == 0;
        if cold && let Some(refusal) = self.quarantine_of(&placement, now) {
            return Reply::refused(refusal);
        }
        let spec = &placement.spec;
        let Some(inputs) = in_signature_order(submission.inputs, &spec.signature) else {
            return Reply::refused(ServeError::InvalidInput("the inputs do not match the model's".to_owned()));
        };
        if let Some(refusal) = self.refusal_of_input(&placement, &inputs, now) {
            return Reply::refused(refusal);
        }
        let wanted = if submission.outputs.is_empty() {
            (0..spec.signature.outputs.len()).filter_map(|index| u16::try_from(index).ok()).collect()
        } else {
            submission.outputs
        };
        let task_id = TaskId(self.next_id());
        let joint_rows = spec.can_batch.then(|| joint_rows(&inputs)).flatten();
        let shape = match joint_rows {
            Some(_) => self.shape_key(&inputs, &wanted),
            // Alone in its shape: never joined with anything.
            None => task_id.0,
        };
        let rows = joint_rows.unwrap_or(1);
        let task = Task {
            id: task_id,
            tenant: submission.tenant,
            deployment: Some(submission.deployment),
            key: submission.key,
            place: Place::Placement(placement.id),
            rows,
            shape,
            bytes: inputs.iter().map(|tensor| tensor.data.len() as u64).sum(),
            bucket: tenantry_sched::bucket_of(elements_per_row(&inputs, rows)),
            // A worker measured the one and a client says the other: no run takes longer than it may.
            cost: spec.cost.saturating_mul(rows.max(1)).min(spec.run_limit),
            run_limit: spec.run_limit,
            deadline: submission.deadline,
            kind: TaskKind::Infer,
            abortable: submission.abortable,
            priority: submission.priority,
        };
        let (sender, receiver) = oneshot::channel();
        placement.counters.submitted(now);
        let request = Request {
            task: task.clone(),
            placement,
            request: submission.request,
            meter: submission.meter,
            inputs,
            wanted,
            submitted: now,
            position: 0,
            deaths_in_company: 0,
            reply: sender,
            recorder: self.recorder.clone(),
        };
        let deadline = submission.deadline;
        self.enqueue(task, Entry::Request(Box::new(request)));
        if cold {
            self.changed();
        }
        Reply::waiting(Arc::clone(self), task_id, receiver, deadline)
    }

    /// The caller stopped waiting. A running task runs on; its answer goes nowhere.
    pub(crate) fn cancel(self: &Arc<Self>, task: TaskId) {
        let entry = self.inflight.lock().remove(&task);
        if let Some(Entry::Request(request)) = entry {
            request.answer(Err(ServeError::Cancelled), self.now());
            self.quiet.notify_waiters();
        }
        self.push(Event::Cancel { task });
        self.pump();
        // It may have come back meanwhile, from a batch that did not reach its end.
        if let Some(Entry::Request(request)) = self.inflight.lock().remove(&task) {
            request.answer(Err(ServeError::Cancelled), self.now());
            self.quiet.notify_waiters();
        }
    }

    /// Files a task's entry and tells the scheduler.
    pub(crate) fn enqueue(self: &Arc<Self>, task: Task, entry: Entry) {
        self.inflight.lock().insert(task.id, entry);
        self.push(Event::Ready { task });
        self.pump();
    }

    /// Puts an event into the inbox; a `pump` must follow.
    pub(crate) fn push(&self, event: Event) {
        self.inbox.lock().push(event);
    }

    /// Tells whoever reconciles that `observe` would answer differently.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Reads the scheduler without changing it.
    pub(crate) fn with_scheduler<T>(self: &Arc<Self>, read: impl FnOnce(&Scheduler) -> T) -> T {
        let value = read(&self.core.lock().scheduler);
        // Whoever came meanwhile found the lock taken and left: with an event, or because it was time.
        self.pump();
        value
    }

    /// Runs the scheduler in place and carries its decisions out.
    ///
    /// Whoever holds the lock looks into the inbox once more after letting go of it, so an event pushed while the lock
    /// was taken is never left behind: its pusher may return at once.
    pub(crate) fn pump(self: &Arc<Self>) {
        loop {
            let mut decisions = Vec::new();
            loop {
                let Some(mut core) = self.core.try_lock() else { break };
                let Core { scheduler, events } = &mut *core;
                std::mem::swap(events, &mut *self.inbox.lock());
                let now = self.now();
                let wake = match &self.recorder {
                    Some(recorder) => recorder.poll(scheduler, now, events, &mut decisions),
                    None => scheduler.poll(now, events.drain(..), &mut decisions),
                };
                drop(core);
                self.timer.arm(wake);
                if self.inbox.lock().is_empty() {
                    break;
                }
            }
            if decisions.is_empty() {
                return;
            }
            for decision in decisions {
                self.act(decision);
            }
            // Carrying decisions out may itself have produced events.
            if self.inbox.lock().is_empty() {
                return;
            }
        }
    }

    fn act(self: &Arc<Self>, decision: Decision) {
        match decision {
            Decision::Dispatch { batch, slot, worker, replica, tasks, weights, phase, .. } => {
                self.dispatch(&tasks, Dispatched { batch, slot, worker, replica, weights, phase });
            }
            Decision::Reject { task, reason, retry_after } => self.end_waiting(task, || match reason {
                RejectReason::UnknownPlace => ServeError::Gone,
                reason => ServeError::Refused { reason, retry_after },
            }),
            Decision::Expire { task } => self.end_waiting(task, || ServeError::Expired),
            Decision::Drop { task } => self.end_waiting(task, || ServeError::Gone),
            Decision::Suspend { batch, worker } => self.suspend(batch, worker),
            Decision::Resume { batch, worker } => self.resume(batch, worker),
            Decision::Abort { batch, cause } => self.abort(batch, cause),
        }
    }

    /// Ends a task that never ran.
    fn end_waiting(self: &Arc<Self>, task: TaskId, error: impl FnOnce() -> ServeError) {
        let Some(entry) = self.inflight.lock().remove(&task) else { return };
        let now = self.now();
        match entry {
            Entry::Request(request) => {
                let error = match error() {
                    ServeError::Gone => {
                        let below = self.shortfall_for(&request.placement, request.task.tenant);
                        let below = below.map(ServeError::BelowMinimum);
                        below.or_else(|| self.quarantine_of(&request.placement, now)).unwrap_or(ServeError::Gone)
                    }
                    other => other,
                };
                request.answer(Err(error), now);
            }
            Entry::Load(load) => self.load_dropped(load.replica),
        }
        self.quiet.notify_waiters();
    }

    /// What must be equal for requests to share a batch: every extent but the first, and the outputs asked for.
    ///
    /// The hash is keyed per process, so nobody outside can make two shapes collide; `gather::layout` checks anyway.
    fn shape_key(&self, inputs: &[Tensor], wanted: &[u16]) -> u64 {
        let rest: SmallVec<[&[u64]; 4]> =
            inputs.iter().map(|tensor| tensor.shape.get(1..).unwrap_or_default()).collect();
        self.shape_hasher.hash_one((rest, wanted))
    }
}

pub(crate) fn batching(spec: &VersionSpec) -> Batching {
    let max_rows = if spec.can_batch { spec.max_batch.max(1) } else { 1 };
    Batching { max_rows, max_delay: spec.max_batch_delay }
}

/// The inputs in the signature's order; `None` unless each is there exactly once.
fn in_signature_order(mut inputs: Vec<Tensor>, signature: &Signature) -> Option<Vec<Tensor>> {
    if inputs.len() != signature.inputs.len() {
        return None;
    }
    for (index, spec) in signature.inputs.iter().enumerate() {
        let found = inputs.iter().skip(index).position(|tensor| tensor.name == spec.name)?;
        inputs.swap(index, index + found);
    }
    Some(inputs)
}

/// The common first extent; `None` where the inputs disagree about it, so that the request must run alone.
fn joint_rows(inputs: &[Tensor]) -> Option<u32> {
    let rows = *inputs.first()?.shape.first()?;
    let agree = inputs.iter().all(|tensor| tensor.shape.first() == Some(&rows));
    agree.then(|| u32::try_from(rows).ok()).flatten()
}

/// Elements in one row of all inputs together.
fn elements_per_row(inputs: &[Tensor], rows: u32) -> u64 {
    let elements = |tensor: &Tensor| tensor.shape.iter().copied().fold(1_u64, u64::saturating_mul);
    inputs.iter().map(elements).fold(0, u64::saturating_add) / u64::from(rows.max(1))
}
