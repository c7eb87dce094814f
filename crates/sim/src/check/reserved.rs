//! P4 and P5: every reserved task ends by `F + Q`, and none within its reservation is refused.
//!
//! `F` is computed here from what is promised, not taken from the scheduler: `E = max(tail, arrival)`,
//! `F = E + u / rate`, where `u` is what the scheduler takes the task to cost at the most when it arrives. Two things make
//! the promise later: batches that take longer than that, which a learned tail cannot exclude, and, where batches are
//! suspended, `suspend_after`, for which a batch that is nearly done is not.

use std::collections::BTreeMap;

use tenantry_sched::{Decision, Event, Phase, Place, Policy, RejectReason, SchedulerConfig, Subject, Task, Tier};
use tenantry_types::{BatchId, MonotonicTime, TaskId};

use super::books::{Books, Part};
use super::{Findings, Shares};
use crate::world::Poll;

#[derive(Debug, Default)]
struct Tail {
    tail_ns: u64,
    asked_up_to_ns: u64,
}

#[derive(Debug, Clone, Copy)]
struct Promise {
    finish_ns: u64,
    is_within: bool,
    deadline: Option<MonotonicTime>,
}

#[derive(Debug)]
struct Late {
    at: MonotonicTime,
    task: TaskId,
    by_ns: i128,
}

#[derive(Debug, Default)]
pub(crate) struct Reserved {
    tails: BTreeMap<Subject, Tail>,
    promised: BTreeMap<TaskId, Promise>,
    /// The upper estimate and the start of what runs.
    running: BTreeMap<BatchId, u64>,
    /// The longest single task that can stand in a reserved one's way, nanoseconds.
    longest_ns: u64,
    /// The most by which a batch took longer than its upper estimate.
    pub(crate) overshoot_ns: u64,
    quantum_ns: u64,
    /// What it may cost that a batch that is nearly done is not suspended; zero where nothing is.
    suspend_after_ns: u64,
    worst: Option<Late>,
    /// Promises broken in the queue: found at once.
    missed: Vec<(MonotonicTime, String)>,
    looked_at: u64,
}

impl Reserved {
    pub(crate) fn poll(
        &mut self,
        poll: &Poll<'_>,
        config: &SchedulerConfig,
        shares: &Shares,
        books: &Books,
        parts: &[Part],
        counts: bool,
    ) {
        if config.policy != Policy::Fair {
            return;
        }
        self.quantum_ns = u64::try_from(config.tuning.quantum.as_nanos()).unwrap_or(u64::MAX);
        if books.any_suspendable() {
            self.suspend_after_ns = u64::try_from(config.tuning.suspend_after.as_nanos()).unwrap_or(0);
        }
        let used: BTreeMap<BatchId, u64> = parts.iter().fold(BTreeMap::new(), |mut used, part| {
            *used.entry(part.batch).or_default() += part.charged_ns;
            used
        });
        for (batch, used_ns) in used {
            let upper_ns = self.running.remove(&batch);
            if counts && let Some(upper_ns) = upper_ns {
                self.overshoot_ns = self.overshoot_ns.max(used_ns.saturating_sub(upper_ns));
            }
        }
        for part in parts {
            if let Some(promise) = self.promised.remove(&part.task) {
                let by_ns =
                    i128::from(poll.at.as_nanos()) - i128::from(promise.finish_ns) - i128::from(self.quantum_ns);
                self.looked_at += 1;
                if self.worst.as_ref().is_none_or(|worst| by_ns > worst.by_ns) {
                    self.worst = Some(Late { at: poll.at, task: part.task, by_ns });
                }
            }
        }
        for event in poll.events {
            if let Event::Ready { task } = event {
                self.arrives(task, poll, shares, books, counts);
            }
            if let Event::Cancel { task } = event {
                self.promised.remove(task);
            }
        }
        for decision in poll.decisions {
            self.decided(decision, poll, books);
        }
    }

    fn arrives(&mut self, task: &Task, poll: &Poll<'_>, shares: &Shares, books: &Books, counts: bool) {
        let upper_ns = upper_ns(task, u64::from(task.rows.max(1)), poll);
        let subjects = [
            task.key.map(|key| Subject::Key(task.tenant, key)),
            task.deployment.map(|deployment| Subject::Deployment(task.tenant, deployment)),
            Some(Subject::Tenant(task.tenant)),
        ];
        let own = subjects.into_iter().flatten().find_map(|of| Some((of, shares.get(of).reservation?)));
        // Where what runs can be suspended, only what is reserved itself stands in the way of what is reserved.
        if counts && (own.is_some() || !books.all_suspendable()) {
            self.longest_ns = self.longest_ns.max(upper_ns);
        }
        let Some((subject, reservation)) = own else { return };
        let is_refused = poll
            .decisions
            .iter()
            .any(|decision| matches!(decision, Decision::Reject { task: of, .. } if *of == task.id));
        let time_for = |device_ns: u64| {
            let time = reservation.rate.time_for(std::time::Duration::from_nanos(device_ns)).unwrap_or_default();
            u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4)
        };
        let now_ns = poll.at.as_nanos();
        let tail = self.tails.entry(subject).or_default();
        let needs_ns = time_for(upper_ns);
        let burst_ns = time_for(u64::try_from(reservation.burst.as_nanos()).unwrap_or(u64::MAX / 4)).max(needs_ns);
        let asked_ns = tail.asked_up_to_ns.max(now_ns) + needs_ns;
        let is_within = asked_ns - now_ns <= burst_ns;
        if is_refused {
            let guaranteed = shares.tenant(task.tenant).tier == Some(Tier::Guaranteed);
            let by_machine = poll.decisions.iter().any(|decision| {
                matches!(decision, Decision::Reject { task: of, reason, .. } if *of == task.id
                    && matches!(reason, RejectReason::QueueFull | RejectReason::Overloaded | RejectReason::TenantBacklog))
            });
            if is_within && guaranteed && by_machine && counts {
                self.missed.push((poll.at, format!("{} is within its reservation and was refused", task.id)));
            }
            return;
        }
        if is_within {
            tail.asked_up_to_ns = asked_ns;
        }
        let finish_ns = tail.tail_ns.max(now_ns) + needs_ns;
        tail.tail_ns = finish_ns;
        if counts {
            self.promised.insert(task.id, Promise { finish_ns, is_within, deadline: task.deadline });
        }
    }

    fn decided(&mut self, decision: &Decision, poll: &Poll<'_>, books: &Books) {
        match decision {
            Decision::Dispatch { batch, tasks, phase, .. } => {
                let Some(first) = tasks.first().and_then(|task| books.task(*task)) else { return };
                let members = tasks.iter().filter_map(|task| books.task(*task));
                let rows = members.map(|task| u64::from(task.rows.max(1))).sum();
                // Where it can be suspended, what runs by weight stands in nobody's way however long it takes.
                if *phase == Phase::Reserved || !books.all_suspendable() {
                    self.running.insert(*batch, upper_ns(first, rows, poll));
                }
            }
            Decision::Expire { task } | Decision::Drop { task } => {
                let Some(promise) = self.promised.remove(task) else { return };
                let in_time_ns = promise.finish_ns.saturating_add(self.quantum_ns);
                let deadline_ns = promise.deadline.map_or(u64::MAX, |deadline| deadline.as_nanos());
                if matches!(decision, Decision::Expire { .. }) && promise.is_within && in_time_ns <= deadline_ns {
                    self.missed.push((poll.at, format!("{task} was promised to end in time and was given up")));
                }
            }
            _ => {}
        }
    }

    /// By how much the worst one came after `F + Q`, seconds, where Q is at least the longest single task.
    pub(crate) fn worst(&self) -> (f64, u64) {
        let by_ns = self.worst.as_ref().map_or(0, |worst| worst.by_ns - i128::from(self.more_ns()));
        (by_ns as f64 / 1e9, self.looked_at)
    }

    pub(crate) fn more_ns(&self) -> u64 {
        self.longest_ns.saturating_sub(self.quantum_ns) + self.suspend_after_ns
    }

    pub(crate) fn check(&mut self, findings: &mut Findings) {
        for (at, what) in self.missed.drain(..) {
            findings.add(at, "P5", what);
        }
        if let Some(Late { at, task, by_ns }) = self.worst {
            let allowed_ns = i128::from(self.more_ns()) + i128::from(self.overshoot_ns);
            if by_ns > allowed_ns {
                let what = format!("{task} ended {by_ns} ns after F + Q; {allowed_ns} ns are allowed for");
                findings.add(at, "P4", what);
            }
        }
    }
}

fn upper_ns(task: &Task, rows: u64, poll: &Poll<'_>) -> u64 {
    let learned = match task.place {
        Place::Placement(placement) => poll.scheduler.estimate(placement, task.bucket, rows),
        Place::Worker(_) => None,
    };
    let upper = learned.map_or(task.cost, |estimate| estimate.upper);
    u64::try_from(upper.as_nanos()).unwrap_or(u64::MAX)
}
