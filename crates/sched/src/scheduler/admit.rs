//! Who gets into the queue, and what a refused caller is told.

use std::time::Duration;

use tenantry_types::TaskId;

use crate::admission::{MAX_RETRY_AFTER, MIN_RETRY_AFTER, Policy};
use crate::event::{Decision, Phase, RejectReason};
use crate::queue::Sequence;
use crate::reserve::{ReserveId, Tag};
use crate::scheduler::queues::Expected;
use crate::scheduler::shares::reserve_key_of;
use crate::scheduler::{Scheduler, Waiting, Whereabouts, nanos};
use crate::share::Subject;
use crate::task::{Place, Task};
use crate::tree::{Key, NodeId};

/// While everything that waits takes no more than this part of a task's time, in percent, it is let in whoever sent it:
/// refusing by share starves batches of company long before the machine is full.
const CALM_PERCENT: u64 = 60;

type Refusal = (RejectReason, Duration);

impl Scheduler {
    pub(super) fn ready(&mut self, task: Task, decisions: &mut Vec<Decision>) {
        if self.tasks.contains_key(&task.id) {
            self.stats.misuses += 1;
            return;
        }
        self.ensure_floor(task.tenant);
        let mut admission = self.admit(&task);
        if let Err((RejectReason::QueueFull | RejectReason::TenantQueueFull | RejectReason::ShareQueueFull, _)) =
            admission
        {
            // What can start at once makes room, so a burst is refused only for what really has to wait.
            self.dispatch(decisions);
            admission = self.admit(&task);
        }
        let (reserve, expected) = match admission {
            Ok(admitted) => admitted,
            Err((reason, retry_after)) => {
                self.stats.rejected_tasks += 1;
                let retry_after = retry_after.clamp(MIN_RETRY_AFTER, MAX_RETRY_AFTER);
                decisions.push(Decision::Reject { task: task.id, reason, retry_after });
                return;
            }
        };
        self.stats.admitted_tasks += 1;
        let sequence = self.take_sequence();
        let tag = reserve.and_then(|reserve| self.reserves.tag(reserve, expected.upper, self.now)).map(|(tag, _)| tag);
        self.enqueue(task, sequence, tag);
    }

    /// A task of a batch that is done waits again, where it was: what was done to it is not held against it. It was
    /// admitted once, so a full queue does not refuse it, only a place that is gone or a deadline that passed.
    pub(super) fn come_back(&mut self, mut waiting: Box<Waiting>, phase: Phase, decisions: &mut Vec<Decision>) {
        let task = &waiting.task;
        let belongs =
            |tag: &Tag| !self.reserves.is_floor(tag.reserve) || self.reserve_of_task(task) == Some(tag.reserve);
        let tag = waiting.tag.filter(belongs);
        let ended = if !self.places.contains_key(&task.place) {
            self.stats.dropped_tasks += 1;
            Some(Decision::Drop { task: task.id })
        } else if task.deadline.is_some_and(|deadline| deadline <= self.now) {
            self.stats.expired_tasks += 1;
            Some(Decision::Expire { task: task.id })
        } else {
            None
        };
        waiting.tag = tag;
        // What runs by weight has given its reserved time back.
        match (ended, phase) {
            (None, Phase::Shared) => {
                if let Some(tag) = tag {
                    self.reserves.reclaim(tag, self.now);
                }
                self.put(waiting);
            }
            (None, Phase::Reserved) => self.put(waiting),
            (Some(decision), phase) => {
                decisions.push(decision);
                if let Some(tag) = tag.filter(|_| phase == Phase::Reserved) {
                    self.forgive(tag, 0);
                }
            }
        }
    }

    fn take_sequence(&mut self) -> Sequence {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        sequence
    }

    pub(super) fn cancel(&mut self, id: TaskId) {
        match self.tasks.get_mut(&id) {
            Some(&mut Whereabouts::Waiting(sequence)) => {
                self.withdraw(sequence);
                self.stats.cancelled_tasks += 1;
            }
            Some(Whereabouts::Running { cancelled }) if !*cancelled => {
                *cancelled = true;
                self.stats.cancelled_running_tasks += 1;
            }
            Some(Whereabouts::Running { .. }) | None => {}
        }
    }

    /// Its reservation, if it has one, and what it is expected to take.
    fn admit(&mut self, task: &Task) -> Result<(Option<ReserveId>, Expected), Refusal> {
        let Some(queued_here) = self.places.get(&task.place).map(|state| state.tasks) else {
            return Err((RejectReason::UnknownPlace, self.machine_wait()));
        };
        let fair = self.policy == Policy::Fair;
        let expected = self.expected(task);
        let reserve = self.reserve_of_task(task);
        // Within its reservation, a task is let in however full the machine is: its burst bounds how many there can be.
        let within = reserve.and_then(|reserve| {
            let guaranteed = self.reserves.get(reserve)?.guaranteed;
            let (within, _) = self.reserves.would_be_within(reserve, expected.upper, self.now)?;
            Some(within && guaranteed)
        });
        let within = within.unwrap_or(false);
        if let Some(deadline) = task.deadline {
            // Nor is one refused for an expectation, which is no certainty.
            let least_ns = if within { 0 } else { expected.certain };
            if deadline <= self.now || deadline < self.now.saturating_add(Duration::from_nanos(least_ns)) {
                return Err((RejectReason::WontMeetDeadline, self.machine_wait()));
            }
        }
        // Work nobody's request asked for, such as a load that would serve the queue, is not kept out by the queue.
        let pinned = matches!(task.place, Place::Worker(_));
        let own_most = self.tree.settings(&Subject::Tenant(task.tenant)).and_then(|share| share.max_queued_tasks);
        let room = self.backlog.room_for(task, queued_here, own_most);
        if pinned {
            return room.map(|()| (reserve, expected)).map_err(|reason| (reason, self.machine_wait()));
        }
        // Whatever the policy: limits are limits.
        let flow = self.tree.flow(task.tenant, task.deployment, task.key);
        self.check_shares(task, flow, expected)?;
        if !fair {
            return room.map(|()| (reserve, expected)).map_err(|reason| (reason, self.machine_wait()));
        }
        match room {
            Err(RejectReason::QueueFull) if within => {}
            Err(RejectReason::TenantQueueFull) => {
                let of_tenant = self.tree.find(&Key::Tenant(task.tenant)).unwrap_or(flow);
                return Err((RejectReason::TenantQueueFull, self.own_wait(of_tenant)));
            }
            Err(reason) => return Err((reason, self.machine_wait())),
            Ok(()) => {}
        }
        if !within {
            self.check_deadline(task, flow, reserve, expected)?;
        }
        Ok((reserve, expected))
    }

    /// The settings of everything between the flow and the root.
    fn check_shares(&self, task: &Task, flow: NodeId, expected: Expected) -> Result<(), Refusal> {
        let mut next = Some(flow);
        while let Some((id, node)) = next.and_then(|id| Some((id, self.tree.get(id)?))) {
            let subject = match node.key {
                Key::Flow(tenant, _, Some(key)) => Some(Subject::Key(tenant, key)),
                Key::Deployment(tenant, Some(deployment)) => Some(Subject::Deployment(tenant, deployment)),
                Key::Tenant(tenant) => Some(Subject::Tenant(tenant)),
                Key::Organisation(_, organisation) => Some(Subject::Organisation(organisation)),
                _ => None,
            };
            if let Some(share) = subject.and_then(|subject| self.tree.settings(&subject)) {
                let tasks = share.max_queued_tasks.is_some_and(|most| node.queued >= most);
                let bytes =
                    share.max_queued_bytes.is_some_and(|most| node.queued_bytes.saturating_add(task.bytes) > most);
                if tasks || bytes {
                    let reason = match node.key {
                        Key::Tenant(_) => RejectReason::TenantQueueFull,
                        _ => RejectReason::ShareQueueFull,
                    };
                    return Err((reason, self.own_wait(id)));
                }
            }
            next = node.parent;
        }
        let wait = self.tree.limit_wait(flow, expected.median, self.now);
        if wait.is_zero() { Ok(()) } else { Err((RejectReason::DeviceTimeLimit, wait)) }
    }

    /// Refuses what its own share cannot serve in time, once the machine as a whole is full.
    fn check_deadline(
        &self,
        task: &Task,
        flow: NodeId,
        reserve: Option<ReserveId>,
        expected: Expected,
    ) -> Result<(), Refusal> {
        // Without an expectation there is nothing to compute with.
        let Some(deadline) = task.deadline.filter(|_| expected.certain > 0) else { return Ok(()) };
        let time_ns = nanos(deadline.saturating_since(self.now));
        let group = self.tree.group_of(task.tenant);
        let slots = self.slots.len_of(group).max(1);
        let quantum_ns = nanos(self.tuning.quantum);
        let all_ns = self.backlog.joined_ns(nanos(self.backlog.cost())) / u64::from(slots);
        if all_ns.saturating_add(quantum_ns).saturating_add(expected.upper) <= time_ns / 100 * CALM_PERCENT {
            return Ok(());
        }
        let ahead_ns = self.ahead_ns(flow, reserve, slots);
        let needs_ns = ahead_ns.saturating_add(quantum_ns / 2).saturating_add(expected.upper);
        if needs_ns <= time_ns {
            return Ok(());
        }
        let queued = self.tree.get(flow).map_or(0, |node| node.queued);
        let reason = if queued > 0 { RejectReason::TenantBacklog } else { RejectReason::Overloaded };
        // By then enough of this caller's own backlog is gone for a task with the same time.
        Err((reason, Duration::from_nanos(needs_ns - time_ns)))
    }

    /// How long a node's own share needs for what it has waiting.
    fn ahead_ns(&self, flow: NodeId, reserve: Option<ReserveId>, slots: u32) -> u64 {
        let queued_ns = self.tree.get(flow).map_or(0, |node| node.queued_cost_ns);
        let reserved =
            reserve.and_then(|reserve| self.reserves.get(reserve)).map_or(0, |reserve| reserve.settings.rate.ppm());
        let share = self.tree.share_ppm(flow, slots).max(u64::from(reserved)).max(1);
        let ahead = u128::from(self.backlog.joined_ns(queued_ns)) * 1_000_000 / u128::from(share);
        u64::try_from(ahead).unwrap_or(u64::MAX)
    }

    /// When one of a node's own tasks will have begun: the advice where its own bound is reached.
    fn own_wait(&self, id: NodeId) -> Duration {
        let Some(node) = self.tree.get(id) else { return MIN_RETRY_AFTER };
        let (group, reserve) = match node.key {
            Key::Flow(tenant, deployment, key) => {
                (self.tree.group_of(tenant), self.reserve_of(tenant, deployment, key))
            }
            Key::Deployment(tenant, deployment) => {
                (self.tree.group_of(tenant), self.reserve_of(tenant, deployment, None))
            }
            Key::Tenant(tenant) => (self.tree.group_of(tenant), self.reserve_of(tenant, None, None)),
            Key::Organisation(group, _) | Key::BestEffort(group) | Key::Root(group) => (group, None),
        };
        let slots = self.slots.len_of(group).max(1);
        Duration::from_nanos(self.ahead_ns(id, reserve, slots) / u64::from(node.queued.max(1)))
    }

    /// When the machine will have worked off what waits and runs.
    fn machine_wait(&self) -> Duration {
        let rest = |running: &super::Running| {
            running.resumed.saturating_add(running.cost.saturating_sub(running.ran)).saturating_since(self.now)
        };
        let running = self.running.values().map(rest).fold(Duration::ZERO, Duration::saturating_add);
        self.backlog.drain_time(running, self.slots.len())
    }

    fn reserve_of_task(&self, task: &Task) -> Option<ReserveId> {
        if self.policy != Policy::Fair || self.reserves.is_empty() {
            return None;
        }
        self.reserve_of(task.tenant, task.deployment, task.key)
    }

    /// The reservation nearest to a flow: its key's, its deployment's, its tenant's, its class's.
    fn reserve_of(
        &self,
        tenant: tenantry_types::TenantId,
        deployment: Option<tenantry_types::DeploymentId>,
        key: Option<tenantry_types::KeyId>,
    ) -> Option<ReserveId> {
        if self.reserves.is_empty() {
            return None;
        }
        reserve_key_of(tenant, deployment, key).into_iter().flatten().find_map(|key| self.reserves.find(&key)).or_else(
            || {
                let class = Key::BestEffort(self.tree.group_of(tenant));
                let of_class = self.tree.tier(tenant, None, None) == crate::Tier::BestEffort;
                of_class.then(|| self.reserves.find(&class)).flatten()
            },
        )
    }
}
