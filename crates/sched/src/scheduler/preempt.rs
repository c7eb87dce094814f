//! Suspending what runs for what is reserved, so that no batch, however long, voids a reservation; and ending it, where
//! memory is short.

use std::cmp::Reverse;
use std::time::Duration;

use smallvec::SmallVec;
use tenantry_types::{MonotonicTime, SlotId, TenantId, WorkerId};

use crate::admission::Policy;
use crate::event::{AbortCause, Decision, Phase};
use crate::reserve::Reserve;
use crate::scheduler::choose::{Chosen, EARLY_AHEAD, LOOKAHEAD, PLACES_AHEAD, Pick};
use crate::scheduler::{Account, Running, Scheduler, Timer, nanos};
use crate::share::SlotGroup;

impl Scheduler {
    /// Gives each guaranteed task that is within its rate and has an idle worker a slot at once, if one runs something
    /// that can wait.
    pub(super) fn preempt(&mut self, decisions: &mut Vec<Decision>) {
        if self.policy != Policy::Fair || !self.reserves.any_pending() {
            return;
        }
        let groups: SmallVec<[SlotGroup; 4]> = self.slots.groups().collect();
        for group in groups {
            while let Some((pick, slot)) = self.preemption(group) {
                let wanted_by = self.waiting.get(&pick.sequence).map(|waiting| Account::of(&waiting.task));
                let Some(suspended) = self.suspend(slot, wanted_by) else { break };
                decisions.push(suspended);
                match self.start(pick, slot) {
                    Some(started) => decisions.push(started),
                    None => break,
                }
            }
        }
    }

    /// The next guaranteed task to suspend something for, and where.
    fn preemption(&self, group: SlotGroup) -> Option<(Pick, SlotId)> {
        let guaranteed = |reserve: &&Reserve| reserve.guaranteed && reserve.home.is_some();
        let pending = || self.reserves.pending(group).filter_map(|id| self.reserves.get(id)).filter(guaranteed);
        let eligible = pending().find_map(|reserve| {
            let pick = self.first_of(reserve, self.now.as_nanos())?;
            let can = |slot: &SlotId| self.can_suspend(*slot, pick.worker);
            let home = reserve.home.filter(can);
            let elsewhere = || self.slots.iter().filter(|(_, slot)| slot.group == group).map(|(id, _)| id).find(can);
            Some((pick, home.or_else(elsewhere)?))
        });
        // A burst is served at home only: elsewhere it would be in the way of promises that are kept there.
        eligible.or_else(|| {
            pending().take(EARLY_AHEAD).find_map(|reserve| {
                let home = reserve.home?;
                let pick = self.early_of(reserve, home)?;
                self.can_suspend(home, pick.worker).then_some((pick, home))
            })
        })
    }

    /// Whether what runs on a slot can be suspended for a batch in `worker`, and is worth it.
    fn can_suspend(&self, slot: SlotId, worker: WorkerId) -> bool {
        let Some(slot) = self.slots.get(slot) else { return false };
        let Some(running) = slot.running.and_then(|batch| self.running.get(&batch)) else { return false };
        let ends_soon = running.rest(self.now).is_some_and(|rest| rest <= self.tuning.suspend_after);
        slot.suspendable
            && slot.suspended.is_none()
            && running.worker != worker
            && self.workers.contains_key(&running.worker)
            && !ends_soon
            && !(running.is_kept && nanos(running.ran_by(self.now)) <= running.upper_ns)
    }

    /// Whether a batch that begins is left alone as long as it takes no longer than expected: one of a guarantee that is no
    /// longer than a quantum; and one that is short enough for all that is reserved on its slot, if a reservation would
    /// lose by its suspension, because it runs by it or needs its worker back.
    pub(super) fn is_kept(&self, pick: Pick, slot: SlotId, chosen: &Chosen) -> bool {
        let Some(anchor) = self.waiting.get(&pick.sequence) else { return false };
        let rows = chosen.iter().filter_map(|sequence| self.waiting.get(sequence));
        let rows: u64 = rows.map(|waiting| u64::from(waiting.task.rows.max(1))).sum();
        let (_, upper_ns) = self.batch_cost(&anchor.task, rows);
        let own = anchor.tag.filter(|_| pick.phase == Phase::Reserved).and_then(|tag| self.reserves.get(tag.reserve));
        match own {
            Some(own) if own.guaranteed => upper_ns <= nanos(self.tuning.quantum),
            // The floor of a class is nobody's promise in particular.
            Some(own) => own.home.is_some() && i128::from(upper_ns) <= self.room(slot, chosen),
            None => {
                let needs_worker = |reserve: &Reserve| reserve.guaranteed && reserve.worker == Some(pick.worker);
                let at = self.reserves.at(slot);
                at.iter().filter_map(|&id| self.reserves.get(id)).any(needs_worker)
                    && i128::from(upper_ns) <= self.room(slot, chosen)
            }
        }
    }

    fn suspend(&mut self, slot: SlotId, wanted_by: Option<Account>) -> Option<Decision> {
        let batch = self.slots.get(slot)?.running?;
        let running = self.running.get_mut(&batch)?;
        running.ran = running.ran_by(self.now);
        running.is_suspended = true;
        // One that is ending already stands, too: whoever is guaranteed does not wait for its grace.
        if running.aborted.is_none() {
            running.wanted_by = wanted_by;
        }
        if let Some(at) = running.overrun_at.take() {
            self.timers.remove(&(at, Timer::Overrun(batch)));
        }
        // Only what is let go on can end politely: when it is, it is told.
        if let Some(at) = running.deadline_at {
            self.timers.remove(&(at, Timer::Deadline(batch)));
        }
        if running.is_abortable && running.aborted.is_none() {
            let until = self.now.saturating_add(self.tuning.suspend_limit);
            running.suspended_until = Some(until);
            self.timers.insert((until, Timer::Suspended(batch)));
        }
        let worker = running.worker;
        self.slots.hold(slot, |slot| {
            slot.suspended = slot.running.take();
        });
        self.stats.suspensions += 1;
        Some(Decision::Suspend { batch, worker })
    }

    /// Ends a batch that may be: one that lies suspended, which uses its memory least, then the one that has run for the
    /// shortest time, which wastes least.
    pub(super) fn memory_short(&mut self, needed_by: Option<TenantId>) -> Option<Decision> {
        let may_end = |running: &Running| {
            running.is_abortable && running.aborted.is_none() && self.workers.contains_key(&running.worker)
        };
        let all = self.running.iter().filter(|(_, running)| may_end(running));
        let (&batch, _) =
            all.min_by_key(|(batch, running)| (!running.is_suspended, running.ran_by(self.now), Reverse(**batch)))?;
        let running = self.running.get_mut(&batch)?;
        running.wanted_by = needed_by.map(|tenant| Account { tenant, deployment: None, key: None });
        self.abort(batch, AbortCause::Memory)
    }

    /// Lets what was suspended on a slot run on.
    pub(super) fn resume(&mut self, slot: SlotId) -> Option<Decision> {
        let batch = self.slots.get(slot)?.suspended?;
        let running = self.running.get_mut(&batch)?;
        running.is_suspended = false;
        running.resumed = self.now;
        if let Some(at) = running.suspended_until.take() {
            self.timers.remove(&(at, Timer::Suspended(batch)));
        }
        // Without a worker there is nobody left to end.
        if self.workers.contains_key(&running.worker) && running.aborted.is_none() {
            let at = self.now.saturating_add(running.run_limit.saturating_sub(running.ran));
            running.overrun_at = Some(at);
            self.timers.insert((at, Timer::Overrun(batch)));
            // The poll that resumes it has looked at its timers already.
            if let Some(at) = &mut running.deadline_at {
                *at = (*at).max(self.now.saturating_add(Duration::from_nanos(1)));
                self.timers.insert((*at, Timer::Deadline(batch)));
            }
        }
        let worker = running.worker;
        self.slots.hold(slot, |slot| {
            slot.running = slot.suspended.take();
        });
        Some(Decision::Resume { batch, worker })
    }

    /// When a guaranteed task becomes eligible while something runs that it could suspend, or something that was nearly
    /// done turns out not to be.
    pub(super) fn next_preemption(&self) -> Option<MonotonicTime> {
        if self.policy != Policy::Fair || !self.reserves.any_pending() {
            return None;
        }
        let mut next: Option<MonotonicTime> = None;
        let mut sooner = |at: MonotonicTime| next = Some(next.map_or(at, |known| known.min(at)));
        let now_ns = self.now.as_nanos();
        for group in self.slots.groups() {
            let preemptible: SmallVec<[&Running; 8]> = self
                .slots
                .iter()
                .filter(|(_, slot)| slot.group == group && slot.suspendable)
                .filter_map(|(_, slot)| self.running.get(&slot.running?))
                .filter(|running| !running.is_suspended)
                .collect();
            if preemptible.is_empty() {
                continue;
            }
            let mut waits = false;
            for id in self.reserves.pending(group) {
                let Some(reserve) = self.reserves.get(id).filter(|reserve| reserve.guaranteed) else { continue };
                // By its burst; and by its rate, where what else is reserved left it no room before.
                let early_ns = |eligible_ns: u64| eligible_ns.saturating_sub(reserve.lead_ns);
                if early_ns(reserve.eligible_ns) > now_ns {
                    sooner(MonotonicTime::from_nanos(early_ns(reserve.eligible_ns)));
                    continue;
                }
                waits = true;
                // Not only the first: the worker it needs may be busy, and another's be idle.
                for (_, _, place) in reserve.heads().take(PLACES_AHEAD) {
                    let eligible = || reserve.tasks_at(place).take(LOOKAHEAD).map(|(_, _, eligible_ns)| eligible_ns);
                    let by_rate = eligible().find(|&at| at > now_ns);
                    let by_burst = eligible().map(early_ns).find(|&at| at > now_ns);
                    for at in by_rate.into_iter().chain(by_burst) {
                        sooner(MonotonicTime::from_nanos(at));
                    }
                }
            }
            // It waits because what runs was expected to end soon: look again when that is over.
            for running in preemptible.iter().filter(|_| waits) {
                let upper = Duration::from_nanos(running.upper_ns);
                let kept = upper.checked_sub(running.ran_by(self.now)).filter(|_| running.is_kept);
                for rest in running.rest(self.now).into_iter().chain(kept) {
                    sooner(self.now.saturating_add(rest).saturating_add(Duration::from_nanos(1)));
                }
            }
        }
        next.filter(|&at| at > self.now)
    }
}
