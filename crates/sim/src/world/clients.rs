//! Those who send.

use std::time::Duration;

use tenantry_sched::{Event, Place, Task, TaskKind, Tier};
use tenantry_types::{MonotonicTime, Priority, TaskId};

use super::{Request, What, World, nanos};
use crate::random::Random;
use crate::scenario::{Arrivals, Models, Recorded, deployment_id, tenant_id};

/// A client that was refused tries again after this, whatever it was advised.
const IMPATIENCE: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(super) struct SourceState {
    random: Random,
    /// Requests sent.
    sent: u64,
    /// How far a recording was played.
    position: usize,
    /// Shaped: until when the rate has to work for what was asked for.
    asked_up_to_ns: u64,
}

impl SourceState {
    pub(super) fn new(seed: u64, source: usize) -> Self {
        Self { random: Random::fork(seed, source as u64), sent: 0, position: 0, asked_up_to_ns: 0 }
    }
}

impl World<'_> {
    pub(super) fn begin_sources(&mut self) {
        for (number, source) in self.scenario.sources.iter().enumerate() {
            let from_ns = nanos(source.from);
            match &source.arrivals {
                Arrivals::ClosedLoop { clients, .. } => {
                    for _ in 0..*clients {
                        self.at(from_ns, What::Arrives { source: number });
                    }
                }
                Arrivals::Poisson { .. } | Arrivals::Shaped { .. } | Arrivals::OnOff { .. } => {
                    self.schedule_next(number, from_ns);
                }
                Arrivals::Bursts { .. } => self.at(from_ns, What::Arrives { source: number }),
                Arrivals::Replay(recorded) => {
                    if let Some(first) = recorded.first() {
                        self.at(nanos(first.at), What::Arrives { source: number });
                    }
                }
            }
        }
    }

    fn is_over(&self, source: usize) -> bool {
        let until = self.scenario.sources.get(source).map_or(Duration::ZERO, |source| source.until);
        self.now_ns >= self.end_ns.min(nanos(until))
    }

    fn schedule_next(&mut self, source: usize, after_ns: u64) {
        let (Some(plan), Some(state)) = (self.scenario.sources.get(source), self.sources.get_mut(source)) else {
            return;
        };
        let next_ns = match &plan.arrivals {
            Arrivals::Poisson { rate } | Arrivals::Shaped { rate, .. } => {
                after_ns + nanos(state.random.exponential(gap(*rate)))
            }
            Arrivals::OnOff { on, off, rate } => {
                let next_ns = after_ns + nanos(state.random.exponential(gap(*rate)));
                let period_ns = nanos(*on + *off).max(1);
                let phase_ns = next_ns.saturating_sub(nanos(plan.from)) % period_ns;
                if phase_ns < nanos(*on) { next_ns } else { next_ns + period_ns - phase_ns }
            }
            Arrivals::Bursts { every, .. } => after_ns + nanos(*every).max(1),
            Arrivals::ClosedLoop { .. } => return,
            Arrivals::Replay(recorded) => match recorded.get(state.position) {
                Some(next) => nanos(next.at),
                None => return,
            },
        };
        self.at(next_ns, What::Arrives { source });
    }

    pub(super) fn arrives(&mut self, source: usize) {
        if self.is_over(source) {
            return;
        }
        let Some(plan) = self.scenario.sources.get(source) else { return };
        match &plan.arrivals {
            Arrivals::Poisson { .. } | Arrivals::OnOff { .. } | Arrivals::ClosedLoop { .. } => self.send(source, None),
            Arrivals::Bursts { count, .. } => {
                for _ in 0..*count {
                    self.send(source, None);
                }
            }
            Arrivals::Shaped { burst, share, .. } => self.send_when_within(source, *burst, *share),
            Arrivals::Replay(recorded) => {
                let recorded = std::sync::Arc::clone(recorded);
                while let Some(position) = self.sources.get(source).map(|state| state.position)
                    && let Some(next) = recorded.get(position)
                    && nanos(next.at) <= self.now_ns
                {
                    if let Some(state) = self.sources.get_mut(source) {
                        state.position += 1;
                    }
                    self.send(source, Some(*next));
                }
            }
        }
        self.schedule_next(source, self.now_ns);
    }

    /// Holds a request back until its tenant has asked for no more than its burst and rate.
    fn send_when_within(&mut self, source: usize, burst: Duration, share: f64) {
        let Some(plan) = self.scenario.sources.get(source) else { return };
        let Models::One(model) = plan.models else { return };
        let Some(about) = self.scenario.models.get(model) else { return };
        let bucket = plan.buckets.first().copied().unwrap_or(0);
        let rows = u64::from(plan.rows.1);
        let known = self.machine.placement(self.scenario, model, plan.tenant);
        let known = known.and_then(|placement| self.scheduler.estimate(placement, bucket, rows));
        let upper_ns = known.map_or_else(|| nanos(about.prior) * rows, |estimate| nanos(estimate.upper));
        let Some(state) = self.sources.get_mut(source) else { return };
        let needs_ns = (upper_ns as f64 / share) as u64;
        let burst_ns = (nanos(burst) as f64 / share) as u64;
        let send_ns = self.now_ns.max((state.asked_up_to_ns + needs_ns).saturating_sub(burst_ns.max(needs_ns)));
        state.asked_up_to_ns = state.asked_up_to_ns.max(send_ns) + needs_ns;
        self.at(send_ns, What::Sends { source });
    }

    pub(super) fn send(&mut self, source: usize, recorded: Option<Recorded>) {
        if self.is_over(source) {
            return;
        }
        let (Some(plan), Some(state)) = (self.scenario.sources.get(source), self.sources.get_mut(source)) else {
            return;
        };
        let turn = state.sent;
        state.sent += 1;
        let nth = |length: usize| usize::try_from(turn % (length.max(1) as u64)).unwrap_or(0);
        let (model, rows, bucket, bytes, timeout) = match recorded {
            Some(Recorded { model, rows, bucket, bytes, timeout, .. }) => (model, rows, bucket, bytes, timeout),
            None => {
                let model = match &plan.models {
                    Models::One(model) => *model,
                    Models::Scan(range) => range.start + nth(range.len()),
                    Models::Weighted { first, running_sums } => first + state.random.pick(running_sums),
                };
                let rows = state.random.between(u64::from(plan.rows.0), u64::from(plan.rows.1));
                let bucket = plan.buckets.get(nth(plan.buckets.len())).copied().unwrap_or(0);
                (model, u32::try_from(rows).unwrap_or(1), bucket, 1024, plan.timeout)
            }
        };
        let factor = plan.factors.get(nth(plan.factors.len())).copied().unwrap_or(1.0);
        let shape = state.random.below(plan.shapes.max(1)) + (u64::from(bucket) << 32);
        let Some(about) = self.scenario.models.get(model) else { return };
        let Some(tenant) = self.scenario.tenants.get(plan.tenant) else { return };
        let Some(placement) = self.prepare(model, plan.tenant) else { return };
        let work_ns =
            recorded.and_then(|recorded| recorded.work).map_or_else(|| about.work_ns(rows, bucket, factor), nanos);
        self.tasks += 1;
        let id = TaskId(self.tasks);
        let task = Task {
            id,
            tenant: tenant_id(plan.tenant),
            deployment: Some(deployment_id(model)),
            key: None,
            place: Place::Placement(placement),
            rows,
            shape,
            bytes,
            bucket,
            cost: about.prior.saturating_mul(rows),
            run_limit: about.run_limit,
            deadline: timeout.map(|timeout| MonotonicTime::from_nanos(self.now_ns.saturating_add(nanos(timeout)))),
            kind: TaskKind::Infer,
            abortable: tenant.share.tier == Some(Tier::BestEffort),
            priority: Priority::default(),
        };
        self.happened.push(Event::Ready { task: task.clone() });
        if let Some(after) = plan.leaves_after {
            self.at(self.now_ns + nanos(after), What::Leaves(id));
        }
        let is_counted = self.now_ns >= nanos(self.scenario.warm_up);
        if is_counted && let Some(report) = self.report.tenants.get_mut(plan.tenant) {
            report.sent += 1;
            report.asked_ns += nanos(about.fixed) + work_ns;
        }
        let request = Request {
            tenant: plan.tenant,
            source,
            sent_ns: self.now_ns,
            work_ns,
            task,
            is_counted,
            client_waits: true,
        };
        self.requests.insert(id, request);
    }

    /// The client goes before it has its answer.
    pub(super) fn leaves(&mut self, task: TaskId) {
        let Some(request) = self.requests.get_mut(&task).filter(|request| request.client_waits) else { return };
        request.client_waits = false;
        let (tenant, source, is_counted) = (request.tenant, request.source, request.is_counted);
        self.happened.push(Event::Cancel { task });
        if is_counted && let Some(report) = self.report.tenants.get_mut(tenant) {
            report.left += 1;
        }
        // Until the scheduler says otherwise it may be running; one that waits is forgotten without a word.
        if !self.batches.values().any(|batch| batch.tasks.contains(&task)) {
            self.requests.remove(&task);
        }
        self.answered(source, false);
    }

    /// A client of a closed loop has its answer and goes on.
    pub(super) fn answered(&mut self, source: usize, was_refused: bool) {
        if let Some(Arrivals::ClosedLoop { think, .. }) =
            self.scenario.sources.get(source).map(|source| &source.arrivals)
        {
            let pause = if was_refused { IMPATIENCE.max(*think) } else { *think };
            self.at(self.now_ns + nanos(pause), What::Arrives { source });
        }
    }
}

fn gap(rate: f64) -> Duration {
    Duration::from_secs_f64(1.0 / rate.max(1e-6))
}
