//! The one owner of queues: events change the books, then what can run is dispatched.

mod admit;
mod batches;
mod choose;
mod places;
mod preempt;
mod queues;
mod shares;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use tenantry_types::{
    BatchId, DeploymentId, KeyId, MonotonicTime, PlacementId, ReplicaId, SlotId, TaskId, TenantId, WorkerId,
};

use crate::admission::{Backlog, Policy, SchedulerConfig, Tuning};
use crate::cost::{Costs, Estimate};
use crate::event::{AbortCause, Decision, Event, Phase, Weights};
use crate::fleet::{Slots, Workers};
use crate::queue::{LineId, Lines, Order, Sequence, Turn};
use crate::reserve::{Reserves, Tag};
use crate::share::{SlotGroup, Subject};
use crate::stats::{Demand, Stats, Usage};
use crate::task::{Batching, Place, Task};
use crate::tree::{Key, NodeId, Tree};

/// Decides which task runs where and when.
#[derive(Debug)]
pub struct Scheduler {
    /// The latest time seen: time never runs backwards here.
    now: MonotonicTime,
    policy: Policy,
    tuning: Tuning,
    backlog: Backlog,
    /// The tasks that wait, by arrival. INVARIANT: each is in its line, in `tasks` and counted at its flow.
    waiting: FxHashMap<Sequence, Box<Waiting>>,
    /// Every task that waits or runs.
    tasks: FxHashMap<TaskId, Whereabouts>,
    /// Everything that is up and can have a queue: each placement, and each worker for what is pinned to it.
    places: FxHashMap<Place, PlaceState>,
    replicas: FxHashMap<ReplicaId, (PlacementId, WorkerId)>,
    slots: Slots,
    workers: Workers,
    running: BTreeMap<BatchId, Running>,
    timers: BTreeSet<(MonotonicTime, Timer)>,
    /// Placements with tasks and without a replica.
    starved: BTreeSet<PlacementId>,
    tree: Tree,
    lines: Lines,
    /// Heads whose place somebody serves, as they are in `ranked` and at their flow.
    heads: FxHashMap<(LineId, NodeId), Head>,
    /// The heads of each slot group by rank: the latest start under the fair policy (of those that have a deadline), the
    /// baseline's order otherwise.
    ranked: BTreeSet<(SlotGroup, u64, Order, LineId, NodeId)>,
    reserves: Reserves,
    costs: Costs,
    next_sequence: Sequence,
    next_batch: u64,
    stats: Stats,
}

/// A task that waits.
#[derive(Debug)]
struct Waiting {
    task: Task,
    arrival: MonotonicTime,
    order: Order,
    /// The key of its turn in its flow.
    turn_key: u64,
    flow: NodeId,
    line: LineId,
    /// What it is expected to take alone.
    cost_ns: u64,
    /// The same for its tail.
    upper_ns: u64,
    /// When it can be given up: its deadline, or the last instant at which it could start in time.
    give_up: Option<MonotonicTime>,
    tag: Option<Tag>,
    /// It ran once and was ended for somebody else.
    was_aborted: bool,
    /// It runs without company: a batch with it failed.
    is_alone: bool,
}

/// The tasks of a batch that begins.
type Members = SmallVec<[Box<Waiting>; 8]>;

#[derive(Debug, Clone, Copy)]
struct Head {
    group: SlotGroup,
    rank: u64,
    turn: Turn,
}

#[derive(Debug, Clone, Copy)]
enum Whereabouts {
    Waiting(Sequence),
    /// In a batch; and whether somebody still waits for it.
    Running {
        cancelled: bool,
    },
}

/// What is to happen by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A task can be given up.
    Expire(Sequence),
    /// A line waits for company no longer.
    Release(LineId),
    /// A batch runs past its limit.
    Overrun(BatchId),
    /// The deadlines of all tasks of a batch, and the grace after them, have passed.
    Deadline(BatchId),
    /// A batch has been suspended for long.
    Suspended(BatchId),
}

/// Where a batch runs and what it was made of, until it is done.
#[derive(Debug)]
struct Running {
    slot: SlotId,
    worker: WorkerId,
    phase: Phase,
    members: SmallVec<[RunningMember; 8]>,
    weights: Weights,
    /// Sum of the members' estimates: what the batch would cost if joining saved nothing.
    cost: Duration,
    /// What it is expected to take.
    estimate_ns: u64,
    /// What it will hardly exceed.
    upper_ns: u64,
    /// It is not suspended while it takes no longer than that.
    is_kept: bool,
    /// For learning: where its cost belongs, its rows and what its owner expected. None for work that is not learned.
    cell: Option<(PlacementId, u32)>,
    rows: u64,
    prior_ns: u64,
    /// When it began, or was resumed last.
    resumed: MonotonicTime,
    /// How long it ran before that.
    ran: Duration,
    is_suspended: bool,
    run_limit: Duration,
    /// When each timer is due, if it is set.
    overrun_at: Option<MonotonicTime>,
    deadline_at: Option<MonotonicTime>,
    suspended_until: Option<MonotonicTime>,
    /// All its tasks are best-effort, may be ended, and have not been before.
    is_abortable: bool,
    aborted: Option<AbortCause>,
    /// For whom it was suspended last, or is ended.
    wanted_by: Option<Account>,
}

#[derive(Debug)]
struct RunningMember {
    /// As it waited.
    waiting: Box<Waiting>,
    /// Charged at dispatch.
    charged_ns: u64,
    /// It was charged against its weight's share, too.
    by_weight: bool,
}

/// Who is charged for what nobody's task used. The node may be forgotten meanwhile, so its name is kept.
#[derive(Debug, Clone, Copy)]
struct Account {
    tenant: TenantId,
    deployment: Option<DeploymentId>,
    key: Option<KeyId>,
}

impl Account {
    fn of(task: &Task) -> Self {
        Self { tenant: task.tenant, deployment: task.deployment, key: task.key }
    }
}

impl Running {
    fn ran_by(&self, now: MonotonicTime) -> Duration {
        if self.is_suspended { self.ran } else { self.ran.saturating_add(now.saturating_since(self.resumed)) }
    }

    /// How much longer it is expected to run; none if it has run longer than expected.
    fn rest(&self, now: MonotonicTime) -> Option<Duration> {
        Duration::from_nanos(self.estimate_ns).checked_sub(self.ran_by(now))
    }
}

#[derive(Debug)]
struct PlaceState {
    batching: Batching,
    /// Who serves it. For a worker's own place: nobody but that worker, so this stays empty.
    replicas: BTreeSet<(WorkerId, ReplicaId)>,
    /// The lines of the tasks that wait here.
    lines: BTreeSet<LineId>,
    tasks: usize,
}

impl PlaceState {
    fn new(batching: Batching) -> Self {
        Self { batching, replicas: BTreeSet::new(), lines: BTreeSet::new(), tasks: 0 }
    }

    fn replica_in(&self, worker: WorkerId) -> Option<ReplicaId> {
        let first = (worker, ReplicaId(0));
        self.replicas.range(first..).next().filter(|&&(of, _)| of == worker).map(|&(_, replica)| replica)
    }
}

impl Scheduler {
    /// A scheduler with nothing to run and nothing to run it on.
    pub fn new(config: SchedulerConfig) -> Self {
        Self {
            now: MonotonicTime::ZERO,
            policy: config.policy,
            tuning: config.tuning,
            backlog: Backlog::new(config),
            waiting: FxHashMap::default(),
            tasks: FxHashMap::default(),
            places: FxHashMap::default(),
            replicas: FxHashMap::default(),
            slots: Slots::default(),
            workers: Workers::default(),
            running: BTreeMap::new(),
            timers: BTreeSet::new(),
            starved: BTreeSet::new(),
            tree: Tree::default(),
            lines: Lines::default(),
            heads: FxHashMap::default(),
            ranked: BTreeSet::new(),
            reserves: Reserves::default(),
            costs: Costs::default(),
            next_sequence: 0,
            next_batch: 1,
            stats: Stats::default(),
        }
    }

    /// Takes in what happened, in order, and appends what is to be done, in order.
    ///
    /// Returns when to poll again at the latest, even if nothing happens. A time before that of an earlier call counts
    /// as that earlier time. Tasks that become ready in one call may share a batch.
    pub fn poll(
        &mut self,
        now: MonotonicTime,
        events: impl IntoIterator<Item = Event>,
        decisions: &mut Vec<Decision>,
    ) -> Option<MonotonicTime> {
        self.now = self.now.max(now);
        self.fire_timers(decisions);
        for event in events {
            self.apply(event, decisions);
        }
        // What comes back, or is looked at by another policy, may be too late already.
        self.fire_timers(decisions);
        self.dispatch(decisions);
        let timer = self.timers.first().map(|&(at, _)| at);
        match (timer, self.next_preemption()) {
            (Some(timer), Some(preemption)) => Some(timer.min(preemption)),
            (timer, preemption) => timer.or(preemption),
        }
    }

    /// Tasks that wait for this placement.
    pub fn queued(&self, placement: PlacementId) -> u32 {
        self.places.get(&Place::Placement(placement)).map_or(0, |state| count(state.tasks))
    }

    /// The policy in force.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Gauges and counters.
    pub fn stats(&self) -> Stats {
        Stats {
            slots: count(self.slots.len()),
            free_slots: count(self.slots.free()),
            workers: count(self.workers.len()),
            replicas: count(self.replicas.len()),
            placements: count(self.places.len() - self.workers.len()),
            queued_tasks: count(self.backlog.tasks()),
            queued_bytes: self.backlog.bytes(),
            queued_cost: self.backlog.cost(),
            running_batches: count(self.running.len()),
            running_tasks: count(self.tasks.len() - self.waiting.len()),
            suspended_batches: count(self.running.values().filter(|running| running.is_suspended).count()),
            ..self.stats
        }
    }

    /// The placements that have tasks and no replica, by id.
    pub fn demand(&self) -> Vec<Demand> {
        let demand_of = |&placement: &PlacementId| {
            let state = self.places.get(&Place::Placement(placement))?;
            let members = state.lines.iter().filter_map(|&line| self.lines.get(line)).flat_map(|line| line.members());
            let oldest = members.map(|(order, _)| order.sequence).min()?;
            let Waiting { task, arrival, .. } = &**self.waiting.get(&oldest)?;
            Some(Demand {
                placement,
                waiting: count(state.tasks),
                oldest: *arrival,
                tenant: task.tenant,
                deployment: task.deployment,
                key: task.key,
            })
        };
        self.starved.iter().filter_map(demand_of).collect()
    }

    /// What each tenant, and each deployment as it calls it, was charged and made others waste since the start, and what of
    /// it waits and runs.
    pub fn usage(&self) -> Vec<Usage> {
        let of = |node: &crate::tree::Node| {
            let subject = match node.key {
                Key::Tenant(tenant) => Subject::Tenant(tenant),
                Key::Deployment(tenant, Some(deployment)) => Subject::Deployment(tenant, deployment),
                _ => return None,
            };
            let charged = Duration::from_nanos(u64::try_from(node.charged_ns).unwrap_or(0));
            let wasted = Duration::from_nanos(node.wasted_ns);
            Some(Usage { subject, charged, wasted, queued_tasks: node.queued, running: node.running })
        };
        let mut all: Vec<Usage> = self.tree.iter().filter_map(of).collect();
        all.sort_unstable_by_key(|usage| usage.subject);
        all
    }

    /// What a batch of so many rows is expected to take; none before one has run.
    pub fn estimate(&self, placement: PlacementId, bucket: u32, rows: u64) -> Option<Estimate> {
        let cell = self.costs.get(placement, bucket)?;
        Some(Estimate {
            median: Duration::from_nanos(cell.median_ns(rows)),
            upper: Duration::from_nanos(cell.upper_ns(rows)),
        })
    }

    /// The slot on which a reservation is kept, if there is one with room for it.
    pub fn home(&self, subject: &Subject) -> Option<SlotId> {
        let key = shares::reserve_key(*subject)?;
        self.reserves.get(self.reserves.find(&key)?)?.home
    }

    fn apply(&mut self, event: Event, decisions: &mut Vec<Decision>) {
        match event {
            Event::Policy { policy } => self.set_policy(policy),
            Event::Share { subject, share } => self.set_share(subject, share),
            Event::SlotUp { slot, group, suspendable } => {
                self.slots.up(slot, group, suspendable);
                self.rehome();
            }
            Event::SlotDown { slot } => {
                self.slots.down(slot);
                self.rehome();
            }
            Event::WorkerUp { worker } => self.worker_up(worker),
            Event::WorkerDown { worker } => self.worker_down(worker, decisions),
            Event::ReplicaUp { replica, placement, worker } => self.replica_up(replica, placement, worker),
            Event::ReplicaDown { replica } => self.replica_down(replica),
            Event::PlacementUp { placement, batching } => self.placement_up(placement, batching),
            Event::PlacementDown { placement } => self.placement_down(placement, decisions),
            Event::Ready { task } => self.ready(task, decisions),
            Event::Cancel { task } => self.cancel(task),
            Event::MemoryShort { needed_by } => decisions.extend(self.memory_short(needed_by)),
            Event::Done { batch, used, outcome } => self.done(batch, used, outcome, decisions),
        }
    }

    fn fire_timers(&mut self, decisions: &mut Vec<Decision>) {
        while let Some(&(at, timer)) = self.timers.first()
            && at <= self.now
        {
            self.timers.pop_first();
            match timer {
                Timer::Expire(sequence) => {
                    if let Some(task) = self.withdraw(sequence) {
                        self.stats.expired_tasks += 1;
                        decisions.push(Decision::Expire { task });
                    }
                }
                Timer::Release(line) => {
                    if let Some(line) = self.lines.get_mut(line) {
                        line.timer = None;
                    }
                    self.settle_line(line);
                }
                Timer::Overrun(batch) => {
                    if let Some(running) = self.running.get_mut(&batch) {
                        running.overrun_at = None;
                    }
                    decisions.extend(self.abort(batch, AbortCause::RunLimit));
                }
                Timer::Deadline(batch) => {
                    if let Some(running) = self.running.get_mut(&batch) {
                        running.deadline_at = None;
                    }
                    decisions.extend(self.abort(batch, AbortCause::Deadline));
                }
                Timer::Suspended(batch) => {
                    if let Some(running) = self.running.get_mut(&batch) {
                        running.suspended_until = None;
                    }
                    decisions.extend(self.abort(batch, AbortCause::Preempted));
                }
            }
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
