//! Batches begin and end, and are paid for.

use std::time::Duration;

use smallvec::SmallVec;
use tenantry_types::{BatchId, SlotId};

use crate::admission::Policy;
use crate::event::{AbortCause, BatchTasks, Decision, Outcome, Phase, Weights};
use crate::reserve::Tag;
use crate::scheduler::choose::Pick;
use crate::scheduler::{Account, Members, Running, RunningMember, Scheduler, Timer, Whereabouts, nanos};
use crate::share::Tier;
use crate::split::split;
use crate::task::{Place, TaskKind};
use crate::tree::{NodeId, TURN, virtual_time};

/// What the tasks of a batch owe, by flow.
#[derive(Debug, Default)]
struct Owed {
    /// (flow, by weight, device time, tasks)
    flows: SmallVec<[(NodeId, bool, i64, u32); 8]>,
}

impl Owed {
    fn add(&mut self, flow: NodeId, by_weight: bool, device_ns: i64) {
        match self.flows.iter_mut().find(|(of, weighs, ..)| (*of, *weighs) == (flow, by_weight)) {
            Some((_, _, sum, tasks)) => {
                *sum = sum.saturating_add(device_ns);
                *tasks += 1;
            }
            None => self.flows.push((flow, by_weight, device_ns, 1)),
        }
    }
}

impl Scheduler {
    /// What runs by a reservation is picked in the order of its tags, which is that of arrival. Where its flow has something
    /// more urgent in the same line, the two exchange their tags: as if they had come in each other's place. What it puts in
    /// front has no more rows of the same shape than what was there, so nothing that is reserved is later for it but that
    /// task.
    fn in_turn(&mut self, pick: Pick) -> Pick {
        let of_line = self.lines.get(pick.line).filter(|line| pick.phase == Phase::Reserved && line.has_priorities());
        let Some((turn, _)) = of_line.and_then(|line| line.head_of(pick.flow)) else { return pick };
        let sequence = turn.order.sequence;
        let (Some(first), Some(picked)) = (self.waiting.get(&sequence), self.waiting.get(&pick.sequence)) else {
            return pick;
        };
        let (Some(tag), Some(earlier)) = (first.tag, picked.tag) else { return pick };
        let is_urgent = first.task.priority < picked.task.priority;
        if !is_urgent || tag.reserve != earlier.reserve || first.task.rows > picked.task.rows {
            return pick;
        }
        let place = first.task.place;
        let is_served = self.is_served(place);
        for (sequence, old, new) in [(sequence, tag, earlier), (pick.sequence, earlier, tag)] {
            self.reserves.take(old, sequence, place);
            self.reserves.push(new, sequence, place, is_served);
            if let Some(waiting) = self.waiting.get_mut(&sequence) {
                waiting.tag = Some(new);
            }
        }
        Pick { sequence, ..pick }
    }

    /// Starts the batch of what was picked on a slot.
    pub(super) fn start(&mut self, pick: Pick, slot: SlotId) -> Option<Decision> {
        let pick = self.in_turn(pick);
        let chosen = self.fill(pick, slot);
        let is_kept = self.policy == Policy::Fair && self.is_kept(pick, slot, &chosen);
        match self.policy {
            Policy::Fair if pick.phase == Phase::Shared => {
                self.tree.advance_clocks(pick.flow, virtual_time(self.tuning.window));
            }
            // Nobody saves up turns while it has nothing to send.
            Policy::RoundRobin => self.tree.advance_clocks(pick.flow, TURN),
            _ => {}
        }
        let members = self.strike_batch(&chosen);
        let first = &members.first()?.task;
        let place = first.place;
        let replica = self.places.get(&place)?.replica_in(pick.worker);
        let rows: u64 = members.iter().map(|member| u64::from(member.task.rows.max(1))).sum();
        let (estimate_ns, upper_ns) = self.batch_cost(first, rows);
        let cell = match place {
            Place::Placement(placement) if first.kind == TaskKind::Infer => Some((placement, first.bucket)),
            _ => None,
        };
        let weights = self.weights(&members);
        let charges = split(estimate_ns, &weights);

        let batch = BatchId(self.next_batch);
        self.next_batch += 1;
        let mut running = Running {
            slot,
            worker: pick.worker,
            phase: pick.phase,
            members: smallvec::SmallVec::with_capacity(members.len()),
            weights: weights.clone(),
            cost: Duration::ZERO,
            estimate_ns,
            upper_ns,
            is_kept,
            cell,
            rows,
            prior_ns: members.iter().map(|member| nanos(member.task.cost)).fold(0, u64::saturating_add),
            resumed: self.now,
            ran: Duration::ZERO,
            is_suspended: false,
            run_limit: Duration::ZERO,
            overrun_at: None,
            deadline_at: None,
            suspended_until: None,
            is_abortable: true,
            aborted: None,
            wanted_by: None,
        };
        let mut tasks = BatchTasks::with_capacity(members.len());
        let mut owed = Owed::default();
        let mut last_deadline = Some(tenantry_types::MonotonicTime::ZERO);
        let mut tags = SmallVec::<[Tag; 8]>::new();
        for (waiting, charged_ns) in members.into_iter().zip(charges) {
            let task = &waiting.task;
            // Company in a reserved batch that has no reservation itself pays by weight.
            let by_weight = pick.phase == Phase::Shared || waiting.tag.is_none();
            self.tasks.insert(task.id, Whereabouts::Running { cancelled: false });
            owed.add(waiting.flow, by_weight, i64::try_from(charged_ns).unwrap_or(i64::MAX));
            running.cost = running.cost.saturating_add(Duration::from_nanos(waiting.cost_ns));
            running.run_limit = running.run_limit.max(task.run_limit);
            let may_end = task.abortable
                && !waiting.was_aborted
                && self.tree.tier(task.tenant, task.deployment, task.key) == Tier::BestEffort;
            running.is_abortable &= may_end;
            last_deadline =
                last_deadline.max(task.deadline).filter(|_| task.deadline.is_some() && last_deadline.is_some());
            tasks.push(task.id);
            if let Some(tag) = waiting.tag {
                tags.push(tag);
                if let Some(reserve) = self.reserves.get_mut(tag.reserve) {
                    reserve.worker = Some(pick.worker);
                }
            }
            running.members.push(RunningMember { waiting, charged_ns, by_weight });
        }
        for (flow, by_weight, device_ns, _) in owed.flows {
            self.charge(flow, device_ns, by_weight);
        }
        if self.policy == Policy::RoundRobin {
            self.tree.charge_turn(pick.flow);
        }
        let overrun_at = self.now.saturating_add(running.run_limit);
        running.overrun_at = Some(overrun_at);
        self.timers.insert((overrun_at, Timer::Overrun(batch)));
        if self.policy == Policy::Fair
            && let Some(deadline) = last_deadline
        {
            let at = deadline.saturating_add(self.tuning.deadline_grace);
            running.deadline_at = Some(at);
            self.timers.insert((at, Timer::Deadline(batch)));
        }
        if let Some(worker) = self.workers.get_mut(&pick.worker) {
            worker.running = Some(batch);
            worker.slot = Some(slot);
        }
        self.slots.hold(slot, |slot| slot.running = Some(batch));
        self.stats.dispatched_batches += 1;
        self.stats.dispatched_tasks += tasks.len() as u64;
        let (worker, phase, run_limit) = (pick.worker, pick.phase, running.run_limit);
        self.running.insert(batch, running);
        if phase == Phase::Shared {
            for tag in tags {
                self.forgive(tag, 0);
            }
        }
        self.tree.sweep();
        Some(Decision::Dispatch { batch, slot, worker, replica, tasks, weights, run_limit, phase })
    }

    /// By what a batch divides its time: the part that does not grow with the rows in equal shares, the rest by rows. So
    /// nobody pays more than what it would have cost alone, as long as joining saves anything.
    fn weights(&self, members: &Members) -> Weights {
        let Some(first) = members.first() else { return Weights::new() };
        let cell = match first.task.place {
            Place::Placement(placement) if self.policy == Policy::Fair => self.costs.get(placement, first.task.bucket),
            _ => None,
        };
        let (fixed, per_row) = cell.map_or((0, 1), |cell| cell.parts_ns());
        let shares = split(fixed, &smallvec::SmallVec::<[u64; 8]>::from_elem(1, members.len()));
        members
            .iter()
            .zip(shares)
            .map(|(member, share)| share.saturating_add(per_row.saturating_mul(u64::from(member.task.rows.max(1)))))
            .collect()
    }

    fn charge(&mut self, flow: usize, device_ns: i64, by_weight: bool) {
        match self.policy {
            Policy::Fair => self.tree.charge(flow, device_ns, by_weight, self.now),
            _ => self.tree.count_charge(flow, device_ns, self.now),
        }
    }

    pub(super) fn done(&mut self, batch: BatchId, used: Duration, outcome: Outcome, decisions: &mut Vec<Decision>) {
        let Some(mut running) = self.running.remove(&batch) else {
            self.stats.misuses += 1;
            return;
        };
        let timers = [
            (running.overrun_at, Timer::Overrun(batch)),
            (running.deadline_at, Timer::Deadline(batch)),
            (running.suspended_until, Timer::Suspended(batch)),
        ];
        for (at, timer) in timers {
            if let Some(at) = at {
                self.timers.remove(&(at, timer));
            }
        }
        self.slots.hold(running.slot, |slot| {
            if slot.running == Some(batch) {
                slot.running = None;
            }
            if slot.suspended == Some(batch) {
                slot.suspended = None;
            }
        });
        if let Some(worker) = self.workers.get_mut(&running.worker)
            && worker.running == Some(batch)
        {
            worker.running = None;
        }
        let used_ns = nanos(used);
        let is_waste = outcome == Outcome::Interrupted;
        let comes_back = is_waste || outcome == Outcome::Split;
        let shares = split(if is_waste { 0 } else { used_ns }, &running.weights);
        let members = std::mem::take(&mut running.members);
        let mut owed = Owed::default();
        for (member, &share) in members.iter().zip(&shares) {
            let correction = i64::try_from(i128::from(share) - i128::from(member.charged_ns)).unwrap_or(i64::MAX);
            owed.add(member.waiting.flow, member.by_weight, correction);
        }
        for (flow, by_weight, device_ns, tasks) in owed.flows {
            self.charge(flow, device_ns, by_weight);
            self.tree.count_done(flow, tasks);
        }
        if is_waste {
            self.waste(&running, used_ns);
        }
        for (RunningMember { mut waiting, .. }, share) in members.into_iter().zip(shares) {
            let cancelled =
                matches!(self.tasks.remove(&waiting.task.id), Some(Whereabouts::Running { cancelled: true }));
            if comes_back && !cancelled && !(outcome == Outcome::Split && waiting.is_alone) {
                waiting.is_alone |= outcome == Outcome::Split;
                // Once: who is ended again and again would never come to an end.
                waiting.was_aborted |= is_waste && running.aborted.is_some();
                self.come_back(waiting, running.phase, decisions);
                continue;
            }
            if comes_back && !cancelled {
                // It ran alone already; another time would not be the last.
                self.stats.misuses += 1;
                self.stats.dropped_tasks += 1;
                decisions.push(Decision::Drop { task: waiting.task.id });
            }
            // Set aside was what it would hardly exceed.
            if let Some(tag) = waiting.tag.filter(|_| running.phase == Phase::Reserved) {
                self.forgive(tag, share);
            }
        }
        if outcome == Outcome::Finished {
            self.backlog.learn(running.cost, used);
            if let Some(cell) =
                running.cell.filter(|(placement, _)| self.places.contains_key(&Place::Placement(*placement)))
            {
                self.costs.observe(cell, running.rows, running.prior_ns, used, self.now);
            }
        }
        self.stats.used = self.stats.used.saturating_add(used);
    }

    /// What a batch used for nothing is charged to whoever wanted it ended: to the machine, if nobody did.
    fn waste(&mut self, running: &Running, used_ns: u64) {
        let used = Duration::from_nanos(used_ns);
        self.stats.wasted = self.stats.wasted.saturating_add(used);
        let is_for_others = running.aborted.is_some_and(AbortCause::is_for_others);
        match running.wanted_by.filter(|_| is_for_others) {
            Some(Account { tenant, deployment, key }) => {
                let flow = self.tree.flow(tenant, deployment, key);
                self.tree.charge_waste(flow, used_ns, self.policy == Policy::Fair);
            }
            None => self.stats.wasted_by_machine = self.stats.wasted_by_machine.saturating_add(used),
        }
    }

    /// Ends a batch, once.
    pub(super) fn abort(&mut self, batch: BatchId, cause: AbortCause) -> Option<Decision> {
        let running = self.running.get_mut(&batch).filter(|running| running.aborted.is_none())?;
        running.aborted = Some(cause);
        self.stats.aborted_batches += 1;
        Some(Decision::Abort { batch, cause })
    }
}
