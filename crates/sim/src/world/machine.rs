//! Workers, what is loaded in them, and what breaks.

use std::collections::BTreeMap;
use std::time::Duration;

use tenantry_sched::{Event, Outcome, Place, Task, TaskKind};
use tenantry_types::{PlacementId, Priority, ReplicaId, SlotId, TaskId, WorkerId};

use super::{Load, What, World, nanos};
use crate::scenario::{Fault, Scenario};

/// What a load is expected to take before one was measured, as on the server.
const UNKNOWN_LOAD: Duration = Duration::from_millis(100);

/// How often it is looked for models that are asked for and not loaded, as a server's reconciler does.
const PLAN_EVERY: Duration = Duration::from_millis(1);
/// Loads that wait for one worker.
const MAX_LOADS_ON_THEIR_WAY: usize = 8;

/// Whose model, and whose data.
type Domain = (Option<usize>, Option<usize>);

#[derive(Debug)]
struct SimWorker {
    id: WorkerId,
    is_up: bool,
    /// What is loaded, and when it was last used.
    loaded: BTreeMap<PlacementId, (ReplicaId, u64)>,
}

#[derive(Debug)]
pub(super) struct Machine {
    placements: BTreeMap<(usize, Domain), PlacementId>,
    models: BTreeMap<PlacementId, (usize, Domain)>,
    workers: Vec<SimWorker>,
    domains: BTreeMap<Domain, Vec<usize>>,
    /// Loads on their way: the task, and the worker's number.
    loading: BTreeMap<PlacementId, (TaskId, usize)>,
    slow: BTreeMap<SlotId, f64>,
    next_worker: u64,
    next_replica: u64,
    /// Whether a placement can be without a replica at all.
    may_miss: bool,
}

impl Machine {
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self {
            placements: BTreeMap::new(),
            models: BTreeMap::new(),
            workers: Vec::new(),
            domains: BTreeMap::new(),
            loading: BTreeMap::new(),
            slow: BTreeMap::new(),
            next_worker: 1,
            next_replica: 1,
            may_miss: !scenario.faults.is_empty()
                || scenario.loaded_per_worker < scenario.models.len()
                || scenario.models.iter().any(|model| !model.loaded),
        }
    }

    fn domain(scenario: &Scenario, model: usize, tenant: usize) -> Option<Domain> {
        let owner = scenario.models.get(model)?.owner;
        let is_shared = owner.is_none() && scenario.tenants.get(tenant)?.batch_with_others;
        Some((owner, (!is_shared).then_some(tenant)))
    }

    /// Where a tenant's requests to a model run, if any came yet.
    pub(super) fn placement(&self, scenario: &Scenario, model: usize, tenant: usize) -> Option<PlacementId> {
        self.placements.get(&(model, Self::domain(scenario, model, tenant)?)).copied()
    }

    /// What a batch costs.
    pub(super) fn cost_ns(
        &self,
        scenario: &Scenario,
        placement: Option<PlacementId>,
        is_load: bool,
        work_ns: u64,
    ) -> u64 {
        let model = placement.and_then(|placement| self.models.get(&placement)).map(|&(model, _)| model);
        let Some(model) = model.and_then(|model| scenario.models.get(model)) else { return work_ns };
        if is_load { nanos(model.load) } else { nanos(model.fixed) + work_ns }
    }

    pub(super) fn slowness(&self, slot: SlotId) -> f64 {
        self.slow.get(&slot).copied().unwrap_or(1.0)
    }

    pub(super) fn touch(&mut self, placement: Option<PlacementId>, worker: WorkerId, now_ns: u64) {
        let used = placement
            .and_then(|placement| self.workers.iter_mut().find(|known| known.id == worker)?.loaded.get_mut(&placement));
        if let Some((_, used_ns)) = used {
            *used_ns = now_ns;
        }
    }

    fn take_worker_id(&mut self) -> WorkerId {
        self.next_worker += 1;
        WorkerId(self.next_worker - 1)
    }

    fn take_replica_id(&mut self) -> ReplicaId {
        self.next_replica += 1;
        ReplicaId(self.next_replica - 1)
    }
}

impl World<'_> {
    /// Makes sure that a tenant's requests to a model have a place to run.
    pub(super) fn prepare(&mut self, model: usize, tenant: usize) -> Option<PlacementId> {
        let domain = Machine::domain(self.scenario, model, tenant)?;
        if let Some(&known) = self.machine.placements.get(&(model, domain)) {
            return Some(known);
        }
        let about = self.scenario.models.get(model)?;
        if !self.machine.domains.contains_key(&domain) {
            let count = match self.scenario.workers_per_domain {
                0 => self.scenario.slots.len(),
                count => count,
            };
            for _ in 0..count {
                let id = self.machine.take_worker_id();
                self.machine.domains.entry(domain).or_default().push(self.machine.workers.len());
                self.machine.workers.push(SimWorker { id, is_up: true, loaded: BTreeMap::new() });
                self.happened.push(Event::WorkerUp { worker: id });
            }
        }
        let placement = PlacementId(self.machine.placements.len() as u64 + 1);
        self.machine.placements.insert((model, domain), placement);
        self.machine.models.insert(placement, (model, domain));
        self.happened.push(Event::PlacementUp { placement, batching: about.batching });
        if about.loaded {
            for number in self.machine.domains.get(&domain).cloned().unwrap_or_default() {
                let has_room = self
                    .machine
                    .workers
                    .get(number)
                    .is_some_and(|worker| worker.is_up && worker.loaded.len() < self.scenario.loaded_per_worker);
                if has_room {
                    self.put(placement, number);
                }
            }
        }
        Some(placement)
    }

    fn put(&mut self, placement: PlacementId, worker: usize) {
        let replica = self.machine.take_replica_id();
        let Some(worker) = self.machine.workers.get_mut(worker) else { return };
        worker.loaded.insert(placement, (replica, self.now_ns));
        self.happened.push(Event::ReplicaUp { replica, placement, worker: worker.id });
    }

    /// Looks for what is not loaded, unless that was just done; then it is done again soon.
    pub(super) fn plan(&mut self) {
        if !self.machine.may_miss || self.requests.is_empty() {
            return;
        }
        let due_ns = self.planned_ns.map_or(0, |planned_ns| planned_ns + nanos(PLAN_EVERY));
        if self.now_ns >= due_ns {
            self.planned_ns = Some(self.now_ns);
            self.load_what_is_missing();
        } else if self.plans_ns.is_none() {
            self.plans_ns = Some(due_ns);
            self.at(due_ns, What::Plans);
        }
    }

    /// What the planner and the reconciler do on a server: loads what is asked for, unloads what was not used for longest.
    fn load_what_is_missing(&mut self) {
        // A load that was refused or dropped is asked for again.
        let loads = &self.loads;
        self.machine.loading.retain(|_, (task, _)| loads.contains_key(task));
        for demand in self.scheduler.demand() {
            if self.machine.loading.contains_key(&demand.placement) {
                continue;
            }
            let Some(worker) = self.worker_for(demand.placement) else { continue };
            let Some(id) = self.machine.workers.get(worker).map(|worker| worker.id) else { continue };
            self.tasks += 1;
            let task = TaskId(self.tasks);
            let tenant = self.numbers.get(&demand.tenant).copied().unwrap_or(usize::MAX);
            self.loads.insert(task, Load { placement: demand.placement, tenant });
            self.machine.loading.insert(demand.placement, (task, worker));
            self.happened.push(Event::Ready {
                task: Task {
                    id: task,
                    tenant: demand.tenant,
                    deployment: demand.deployment,
                    key: demand.key,
                    place: Place::Worker(id),
                    rows: 1,
                    shape: 0,
                    bytes: 0,
                    bucket: 0,
                    cost: UNKNOWN_LOAD,
                    run_limit: Duration::from_secs(600),
                    deadline: None,
                    kind: TaskKind::Load,
                    abortable: false,
                    priority: Priority::default(),
                },
            });
        }
    }

    /// The worker of a placement's domain with the least in it, with room made if there is none.
    fn worker_for(&mut self, placement: PlacementId) -> Option<usize> {
        let &(_, domain) = self.machine.models.get(&placement)?;
        let of_domain = self.machine.domains.get(&domain)?.clone();
        let on_their_way = |of: usize| self.machine.loading.values().filter(|&&(_, worker)| worker == of).count();
        let filled =
            |&of: &usize| self.machine.workers.get(of).map_or(0, |worker| worker.loaded.len()) + on_their_way(of);
        let can_load = |&of: &usize| {
            self.machine.workers.get(of).is_some_and(|worker| worker.is_up) && on_their_way(of) < MAX_LOADS_ON_THEIR_WAY
        };
        let number = of_domain.into_iter().filter(can_load).min_by_key(filled)?;
        if filled(&number) < self.scenario.loaded_per_worker {
            return Some(number);
        }
        let id = self.machine.workers.get(number)?.id;
        let busy = self.batches.values().find(|batch| batch.worker == id);
        let runs = busy.and_then(|batch| batch.tasks.first()).and_then(|task| self.placement_of(*task));
        let worker = self.machine.workers.get(number)?;
        let idle = worker.loaded.iter().filter(|(of, _)| Some(**of) != runs && self.scheduler.queued(**of) == 0);
        let (&oldest, &(replica, _)) = idle.min_by_key(|(_, (_, used_ns))| *used_ns)?;
        self.machine.workers.get_mut(number)?.loaded.remove(&oldest);
        self.happened.push(Event::ReplicaDown { replica });
        Some(number)
    }

    pub(super) fn loaded(&mut self, placement: PlacementId, worker: WorkerId, outcome: Outcome) {
        let number = self.machine.workers.iter().position(|known| known.id == worker && known.is_up);
        self.machine.loading.remove(&placement);
        if let Some(number) = number.filter(|_| outcome == Outcome::Finished) {
            self.put(placement, number);
            self.report.loads += 1;
        }
    }

    pub(super) fn begin_faults(&mut self) {
        for (number, fault) in self.scenario.faults.iter().enumerate() {
            let (from, until) = match fault {
                Fault::SlotAway { from, until, .. }
                | Fault::WorkerDies { from, until, .. }
                | Fault::SlowSlot { from, until, .. } => (*from, Some(*until)),
                Fault::Told { at, .. } => (*at, None),
            };
            self.at(nanos(from).min(self.end_ns), What::Breaks(number));
            if let Some(until) = until {
                // Everything is well again before the end: then all must drain.
                self.at(nanos(until.max(from)).min(self.end_ns), What::Heals(number));
            }
        }
    }

    pub(super) fn breaks(&mut self, fault: usize) {
        match self.scenario.faults.get(fault) {
            Some(Fault::SlotAway { slot, .. }) => {
                self.happened.push(Event::SlotDown { slot: SlotId(*slot as u64) });
            }
            Some(Fault::SlowSlot { slot, factor, .. }) => {
                self.machine.slow.insert(SlotId(*slot as u64), *factor);
            }
            Some(Fault::WorkerDies { worker, outcome, .. }) => self.worker_dies(*worker, *outcome),
            Some(Fault::Told { event, .. }) => self.happened.push(event.clone()),
            None => {}
        }
    }

    pub(super) fn heals(&mut self, fault: usize) {
        match self.scenario.faults.get(fault) {
            Some(Fault::SlotAway { slot, .. }) => {
                let Some(plan) = self.scenario.slots.get(*slot) else { return };
                self.happened.push(Event::SlotUp {
                    slot: SlotId(*slot as u64),
                    group: plan.group,
                    suspendable: plan.suspendable,
                });
            }
            Some(Fault::SlowSlot { slot, .. }) => {
                self.machine.slow.remove(&SlotId(*slot as u64));
            }
            Some(Fault::WorkerDies { .. }) => self.workers_return(),
            Some(Fault::Told { .. }) | None => {}
        }
    }

    fn worker_dies(&mut self, number: usize, outcome: Outcome) {
        let count = self.machine.workers.len().max(1);
        let Some(worker) = self.machine.workers.get_mut(number % count).filter(|worker| worker.is_up) else { return };
        worker.is_up = false;
        let id = worker.id;
        self.happened.push(Event::WorkerDown { worker: id });
        let running: Vec<_> =
            self.batches.iter().filter(|(_, batch)| batch.worker == id).map(|(&batch, _)| batch).collect();
        for batch in running {
            self.end(batch, outcome);
        }
    }

    /// Every worker that is missing comes back as a new one, with what was loaded in it.
    fn workers_return(&mut self) {
        for number in 0..self.machine.workers.len() {
            let id = self.machine.take_worker_id();
            let Some(worker) = self.machine.workers.get_mut(number).filter(|worker| !worker.is_up) else { continue };
            worker.is_up = true;
            worker.id = id;
            let loaded: Vec<PlacementId> = std::mem::take(&mut worker.loaded).into_keys().collect();
            self.happened.push(Event::WorkerUp { worker: id });
            for placement in loaded {
                self.put(placement, number);
            }
        }
    }
}
