//! What one decision of the scheduler costs: processor time of the thread over blocks of dispatched batches.
//!
//! 500 tenants, 5,000 deployments and four slots; 10, 1,000 or 10,000 flows (pairs of tenant and deployment) have tasks
//! waiting. Each step is what the node does when a batch has ended: one `poll` with its `Done`, a new `Ready` for every
//! task it had, and the `Dispatch` of the next batch. The events are made inside the measured blocks, so the figure is
//! an upper bound of what `poll` costs.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::time::{ClockId, clock_gettime};
use tenantry_sched::{
    BatchTasks, Batching, Decision, Event, Outcome, Place, Policy, Rate, Reservation, Scheduler, SchedulerConfig,
    Share, SlotGroup, Subject, Task, TaskKind, Tier, Tuning, Weight,
};
use tenantry_types::{
    BatchId, DeploymentId, KeyId, MonotonicTime, PlacementId, Priority, ReplicaId, SlotId, TaskId, TenantId, WorkerId,
};

use crate::figures::{Figures, at_most};

const TENANTS: u64 = 500;
const DEPLOYMENTS: u64 = 5_000;
const SLOTS: u64 = 4;
/// Rows of a full batch; a task has one row.
const BATCH_ROWS: u32 = 8;
/// How long each batch holds its slot.
const BATCH_TIME: Duration = Duration::from_millis(5);
/// Dispatched batches of one measured block.
const BLOCK_BATCHES: u32 = 100;
/// Batches before anything is measured: every map has its size, every cost is learned.
const WARMUP_BATCHES: u32 = 20_000;
/// Deadlines are kept in order like any others, and never met: what is measured is the deciding, not the refusing.
const FAR: Duration = Duration::from_secs(100_000);

pub(crate) fn measure(quick: bool, figures: &mut Figures) -> Result<()> {
    let blocks = if quick { 200 } else { 2_000 };
    let mut worst = 0.0_f64;
    for (name, flows) in [("poll_p99_10_flows", 10), ("poll_p99_1000_flows", 1_000), ("poll_p99_10000_flows", 10_000)] {
        let mut world = World::new(flows)?;
        world.run(WARMUP_BATCHES)?;
        let mut times = Vec::with_capacity(blocks);
        for _ in 0..blocks {
            let start = thread_time();
            let batches = world.run(BLOCK_BATCHES)?;
            times.push((thread_time() - start).as_secs_f64() * 1e6 / f64::from(batches));
        }
        times.sort_by(f64::total_cmp);
        let at = |part: f64| times.get(((times.len() - 1) as f64 * part).ceil() as usize).copied().unwrap_or(f64::NAN);
        eprintln!(
            "{flows} flows: p50 {:.2} us, p99 {:.2} us, worst block {:.2} us a batch",
            at(0.5),
            at(0.99),
            at(1.0)
        );
        world.summary();
        figures.add(name, at(0.99), "us", at_most(10.0));
        worst = worst.max(at(0.99));
    }
    figures.add("poll_p99", worst, "us", at_most(10.0));
    memory(quick, figures)
}

/// What the process grows by while a warm scheduler decides on and on.
fn memory(quick: bool, figures: &mut Figures) -> Result<()> {
    let mut world = World::new(1_000)?;
    let batches = if quick { 100_000 } else { 1_000_000 };
    world.run(batches / 5)?;
    let before = resident_kib()?;
    world.run(batches)?;
    let after = resident_kib()?;
    eprintln!("resident memory over {batches} batches: {before} KiB, then {after} KiB");
    figures.add("poll_memory_growth", after.saturating_sub(before) as f64, "KiB", at_most(256.0));
    Ok(())
}

/// A scheduler and the machine around it.
struct World {
    scheduler: Scheduler,
    now: MonotonicTime,
    flows: Vec<Task>,
    /// The task with id `n` is the `n / flows`th of flow `n % flows`.
    next: Vec<u64>,
    running: VecDeque<(BatchId, BatchTasks)>,
    suspended: Vec<(BatchId, BatchTasks)>,
    events: Vec<Event>,
    decisions: Vec<Decision>,
    dispatched_tasks: u64,
    dispatched: u64,
    suspensions: u64,
}

impl World {
    fn new(flows: u64) -> Result<Self> {
        let scheduler = Scheduler::new(SchedulerConfig {
            policy: Policy::Fair,
            tuning: Tuning::CPU,
            max_queued_tasks: 1_000_000,
            max_queued_bytes: u64::MAX,
            max_queued_tasks_per_tenant: 1_000_000,
        });
        let mut world = Self {
            scheduler,
            now: MonotonicTime::from_nanos(1),
            flows: (0..flows).map(flow).collect(),
            next: vec![0; flows as usize],
            running: VecDeque::new(),
            suspended: Vec::new(),
            events: Vec::new(),
            decisions: Vec::new(),
            dispatched_tasks: 0,
            dispatched: 0,
            suspensions: 0,
        };
        world.furnish();
        world.poll()?;
        // One to four tasks a flow: some empty with every batch, some never do.
        for index in 0..world.flows.len() {
            for _ in 0..=index % 4 {
                world.arrive(index);
            }
        }
        // Few flows have few tasks: enough to fill every batch.
        while (world.events.len() as u64) < u64::from(BATCH_ROWS) * SLOTS * 2 {
            (0..world.flows.len()).for_each(|index| world.arrive(index));
        }
        world.poll()?;
        anyhow::ensure!(world.running.len() == SLOTS as usize, "only {} slots are busy", world.running.len());
        Ok(world)
    }

    /// Slots, a worker for each tenant, a placement with a replica for each deployment, shares of every kind.
    fn furnish(&mut self) {
        let group = SlotGroup::default();
        self.events.extend((0..SLOTS).map(|slot| Event::SlotUp { slot: SlotId(slot), group, suspendable: true }));
        self.events.extend((0..TENANTS).map(|worker| Event::WorkerUp { worker: WorkerId(worker) }));
        let batching = Batching { max_rows: BATCH_ROWS, max_delay: Duration::ZERO };
        for deployment in 0..DEPLOYMENTS {
            let placement = PlacementId(deployment);
            let (replica, worker) = (ReplicaId(deployment), WorkerId(deployment % TENANTS));
            self.events.push(Event::PlacementUp { placement, batching });
            self.events.push(Event::ReplicaUp { replica, placement, worker });
        }
        for tenant in 0..TENANTS {
            let mut share = Share { weight: Weight::from_milli(1_000 * (1 + tenant as u32 % 4)), ..Share::default() };
            match tenant % 20 {
                0 => {
                    share.tier = Some(Tier::Guaranteed);
                    share.reservation =
                        Some(Reservation { rate: Rate::from_ppm(50_000), burst: Duration::from_millis(50) });
                }
                1 | 2 => share.tier = Some(Tier::BestEffort),
                _ => {}
            }
            self.events.push(Event::Share { subject: Subject::Tenant(tenant_id(tenant)), share: Some(share) });
        }
    }

    /// Lets this many batches end, one after the other; answers how many were dispatched meanwhile.
    fn run(&mut self, batches: u32) -> Result<u32> {
        let before = self.dispatched;
        for _ in 0..batches {
            let (batch, tasks) = self.running.pop_front().context("nothing runs; the scheduler stalled")?;
            self.events.push(Event::Done { batch, used: BATCH_TIME, outcome: Outcome::Finished });
            for task in &tasks {
                self.arrive((task.0 % self.flows.len() as u64) as usize);
            }
            self.now = self.now.saturating_add(BATCH_TIME / SLOTS as u32);
            self.poll()?;
        }
        Ok(u32::try_from(self.dispatched - before)?.max(1))
    }

    fn arrive(&mut self, flow: usize) {
        let (Some(like), Some(next)) = (self.flows.get(flow), self.next.get_mut(flow)) else { return };
        let mut task = like.clone();
        task.id = TaskId(*next * self.flows.len() as u64 + flow as u64);
        task.deadline = flow.is_multiple_of(2).then(|| self.now.saturating_add(FAR));
        *next += 1;
        self.events.push(Event::Ready { task });
    }

    fn poll(&mut self) -> Result<()> {
        self.scheduler.poll(self.now, self.events.drain(..), &mut self.decisions);
        for decision in self.decisions.drain(..) {
            match decision {
                Decision::Dispatch { batch, tasks, .. } => {
                    self.dispatched += 1;
                    self.dispatched_tasks += tasks.len() as u64;
                    self.running.push_back((batch, tasks));
                }
                Decision::Suspend { batch, .. } => {
                    self.suspensions += 1;
                    let at = self.running.iter().position(|(running, _)| *running == batch);
                    self.suspended.extend(at.and_then(|at| self.running.remove(at)));
                }
                Decision::Resume { batch, .. } => {
                    let at = self.suspended.iter().position(|(suspended, _)| *suspended == batch);
                    self.running.extend(at.map(|at| self.suspended.swap_remove(at)));
                }
                other => anyhow::bail!("the scheduler decided something this workload does not ask for: {other:?}"),
            }
        }
        Ok(())
    }

    fn summary(&self) {
        let rows = self.dispatched_tasks as f64 / self.dispatched.max(1) as f64;
        eprintln!("  {} batches of {rows:.1} tasks, {} suspensions", self.dispatched, self.suspensions);
    }
}

/// Flows are spread over tenants and deployments so that 10,000 of them have every tenant call shared deployments, too.
fn flow(index: u64) -> Task {
    let deployment = index * 7 % DEPLOYMENTS;
    // Beyond 5,000 flows a deployment has a second caller.
    let tenant = (deployment + index / DEPLOYMENTS * 13) % TENANTS;
    Task {
        id: TaskId(0),
        tenant: tenant_id(tenant),
        deployment: Some(DeploymentId::from_parts(1, random(deployment))),
        key: Some(KeyId::from_parts(1, random(tenant))),
        place: Place::Placement(PlacementId(deployment)),
        rows: 1,
        shape: 1,
        bytes: 1_000,
        bucket: 10,
        cost: Duration::from_millis(1),
        run_limit: Duration::from_secs(10),
        deadline: None,
        kind: TaskKind::Infer,
        abortable: false,
        priority: Priority::default(),
    }
}

fn tenant_id(index: u64) -> TenantId {
    TenantId::from_parts(1, random(index))
}

fn random(index: u64) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes.iter_mut().zip(index.to_be_bytes()).for_each(|(to, from)| *to = from);
    bytes
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn resident_kib() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split_whitespace().nth(1).context("no resident size")?.parse()?;
    Ok(pages * rustix::param::page_size() as u64 / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_distinct_and_cover_tenants_and_deployments() {
        use std::collections::BTreeSet;
        let flows: Vec<Task> = (0..10_000).map(flow).collect();
        let pairs: BTreeSet<_> = flows.iter().map(|task| (task.tenant, task.deployment)).collect();
        let tenants: BTreeSet<_> = flows.iter().map(|task| task.tenant).collect();
        let deployments: BTreeSet<_> = flows.iter().map(|task| task.deployment).collect();
        assert_eq!((pairs.len(), tenants.len(), deployments.len()), (10_000, 500, 5_000));
    }

    #[test]
    fn every_step_ends_a_batch_and_begins_one() {
        let mut world = World::new(10).unwrap();
        assert!(world.run(500).unwrap() >= 400);
    }
}
