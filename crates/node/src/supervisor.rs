//! Workers and replicas: started, loaded, watched, ended.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tenantry_jail::{Exit, GroupLimits, Layer, Spawner, WorkerSpec};
use tenantry_sched::{AbortCause, Event, Place, Scheduler, Task, TaskKind};
use tenantry_types::model::EngineOptions;
use tenantry_types::{MonotonicTime, PlacementId, Priority, ReplicaId, TaskId, TrustDomain, WorkerId};
use tenantry_wire::{Channel, FromWorker, ModelForm, RecvError, Terminator, ToWorker};
use tokio::io::unix::AsyncFd;

use crate::config::READY_LIMIT;
use crate::data_plane::{Entry, Node, batching};
use crate::death::{Death, death_reason};
use crate::fleet::{ReplicaRecord, Stage};
use crate::incident::{Incident, IncidentKind};
use crate::meter::LoadFor;
use crate::minimum::Shortfall;
use crate::placement::Placement;
use crate::readable::watch;
use crate::register::RegisterError;
use crate::submission::ServeError;
use crate::worker::{ChannelFd, Kill, Load, Purpose, Running, Work, Worker};

/// Added to the nice value of a worker that registers: serving goes first.
const REGISTRATION_NICE: i8 = 15;
/// What a load is taken to cost before one of this version was measured.
const UNKNOWN_LOAD: Duration = Duration::from_millis(100);
/// Exits relayed before their worker was filed; more than this never happen at once.
const MAX_EARLY_EXITS: usize = 1024;

/// A file of a model, open for reading.
#[derive(Debug)]
pub struct ModelFile {
    /// The name inside the model; the first file of a model is the model itself.
    pub name: String,
    /// Read-only. Held as long as a worker uses the bytes in place, so that another that loads the same file shares them.
    pub file: Arc<File>,
    /// Its length.
    pub bytes: u64,
}

/// What a worker needs to load a version.
#[derive(Debug)]
pub struct ModelFiles {
    /// As uploaded, or as optimised at registration.
    pub form: ModelForm,
    /// The model first, then its external data.
    pub files: Vec<ModelFile>,
    /// How to run it.
    pub options: EngineOptions,
}

/// The files that a worker keeps mapped once it has loaded them: all of an optimised form, and the external data of a model as
/// uploaded, which itself is read and let go.
pub(crate) fn in_place(model: &ModelFiles) -> impl Iterator<Item = &ModelFile> {
    let read = match model.form {
        ModelForm::Source => 1,
        ModelForm::Optimised => 0,
    };
    model.files.iter().skip(read)
}

impl Node {
    /// Starts a worker for a trust domain. It is `Starting` until it says it is ready; where workers of this domain
    /// failed to start before, it waits a while first.
    pub fn start_worker(self: &Arc<Self>, domain: TrustDomain) -> WorkerId {
        let worker = self.new_worker(domain, Purpose::Serving);
        let id = worker.id;
        tokio::spawn(Arc::clone(self).run_worker(worker));
        self.changed();
        id
    }

    pub(crate) fn new_worker(&self, domain: TrustDomain, purpose: Purpose) -> Arc<Worker> {
        let worker = Arc::new(Worker::new(WorkerId(self.next_id()), domain, purpose, self.config.suspend_by));
        self.fleet.lock().file_worker(Arc::clone(&worker), self.now());
        worker
    }

    /// Ends a worker. Its replicas are gone at once; what it runs is lost, so stop idle ones.
    pub fn stop_worker(self: &Arc<Self>, worker: WorkerId) {
        let found = {
            let mut fleet = self.fleet.lock();
            let record = fleet.workers.get_mut(&worker);
            record.map(|record| {
                record.state = Stage::Going;
                Arc::clone(&record.worker)
            })
        };
        let Some(found) = found else { return };
        self.push(Event::WorkerDown { worker });
        self.pump();
        found.kill(Kill::Stopped);
        self.changed();
    }

    /// Loads a version into a ready worker, as a task of its own on a slot.
    pub fn load(self: &Arc<Self>, worker: WorkerId, placement: PlacementId, model: ModelFiles) -> ReplicaId {
        let replica = ReplicaId(self.next_id());
        let Some(placement) = self.placements.get(placement) else { return replica };
        // Charged to whom it is made for; where nobody waits (a load ahead of need), to the model's owner.
        let demand = self.with_scheduler(Scheduler::demand);
        let demand = demand.into_iter().find(|demand| demand.placement == placement.id);
        let cost = {
            let mut fleet = self.fleet.lock();
            let Some(record) = fleet.workers.get_mut(&worker) else { return replica };
            if let Some(shortfall) = self.load_shortfall(&record.worker, &placement) {
                tracing::warn!(%worker, %shortfall, "a load is refused");
                return replica;
            }
            record.empty_since = None;
            let files = in_place(&model).map(|file| Arc::clone(&file.file)).collect();
            placement.counters.replicas.fetch_add(1, Ordering::AcqRel);
            let record = ReplicaRecord {
                placement: Arc::clone(&placement),
                worker,
                state: Stage::Coming,
                load_time: None,
                resident_bytes: 0,
                residence: None,
                files,
            };
            let known = fleet.load_times.get(&record.placement.spec.version).copied();
            fleet.replicas.insert(replica, record);
            known.unwrap_or(UNKNOWN_LOAD)
        };
        let (tenant, deployment, key) = match (demand, self.wanted(placement.id)) {
            (Some(demand), _) => (demand.tenant, demand.deployment, demand.key),
            (None, Some(wanted)) => (wanted.tenant, Some(wanted.deployment), wanted.key),
            (None, None) => (placement.domain.model_owner, None, None),
        };
        let task = Task {
            id: TaskId(self.next_id()),
            tenant,
            deployment,
            key,
            place: Place::Worker(worker),
            rows: 1,
            shape: 0,
            bytes: 0,
            bucket: 0,
            cost,
            run_limit: self.config.load_limit,
            deadline: None,
            kind: TaskKind::Load,
            abortable: false,
            priority: Priority::default(),
        };
        let version = placement.spec.version;
        let payer = LoadFor { tenant, deployment, key, version };
        let meter = self.load_meter(payer);
        self.enqueue(task, Entry::Load(Box::new(Load { replica, payer, meter, memory_before: 0, placement, model })));
        self.changed();
        replica
    }

    /// Takes a replica out of service. A batch it runs still ends.
    pub fn unload(self: &Arc<Self>, replica: ReplicaId) {
        let worker = {
            let mut fleet = self.fleet.lock();
            let record = fleet.remove_replica(replica, self.now());
            record.and_then(|record| fleet.worker(record.worker))
        };
        let Some(worker) = worker else { return };
        self.push(Event::ReplicaDown { replica });
        self.pump();
        if let Err(error) = worker.send(&ToWorker::Unload { replica }, &[]) {
            tracing::debug!(%replica, %error, "could not tell a worker to unload; its exit will do it");
        }
        self.changed();
    }

    /// A load that never ran: the replica is gone, nobody is to blame.
    pub(crate) fn load_dropped(self: &Arc<Self>, replica: ReplicaId) {
        self.fleet.lock().remove_replica(replica, self.now());
        // Told a little later: whatever refused the load (a full queue) would refuse it again at once.
        let node = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            node.changed();
        });
    }

    /// A load that failed is the model's fault: quarantined, and who waits for it is told why.
    pub(crate) fn load_failed(
        self: &Arc<Self>,
        replica: ReplicaId,
        placement: &Arc<Placement>,
        reason: String,
        now: MonotonicTime,
    ) {
        {
            let mut fleet = self.fleet.lock();
            fleet.remove_replica(replica, now);
            fleet.health_mut(placement).load_failed(now, reason.clone());
        }
        self.report(placement, IncidentKind::Quarantined, now, reason);
        self.drop_waiting(placement);
        self.changed();
    }

    /// A version's worker died over it: on its record, and if that was once too often, who waits is told.
    pub(crate) fn version_died(&self, placement: &Placement, now: MonotonicTime, reason: String) {
        let in_force = {
            let mut fleet = self.fleet.lock();
            let health = fleet.health_mut(placement);
            health.died(now, reason.clone());
            health.quarantined(now).is_some()
        };
        if in_force {
            self.report(placement, IncidentKind::Quarantined, now, reason);
            self.drop_waiting(placement);
        }
    }

    /// Files an incident of a placement.
    pub(crate) fn report(&self, placement: &Placement, kind: IncidentKind, at: MonotonicTime, reason: String) {
        let Placement { spec, domain, .. } = placement;
        self.incidents.add(Incident { kind, at, domain: *domain, version: Some(spec.version), reason });
    }

    /// Something is remembered about a version that is no step towards a quarantine.
    pub(crate) fn note_failure(&self, placement: &Placement, now: MonotonicTime, reason: &str) {
        self.fleet.lock().health_mut(placement).noted(now, reason.to_owned());
    }

    /// Ends what waits for a placement, and opens it again. Where another replica is left, who waits is served by it.
    fn drop_waiting(&self, placement: &Placement) {
        if placement.counters.replicas.load(Ordering::Acquire) > 0 {
            return;
        }
        self.push(Event::PlacementDown { placement: placement.id });
        self.push(Event::PlacementUp { placement: placement.id, batching: batching(&placement.spec) });
    }

    /// The refusal for a placement in quarantine.
    pub(crate) fn quarantine_of(&self, placement: &Placement, now: MonotonicTime) -> Option<ServeError> {
        let in_force = self.fleet.lock().health(placement)?.quarantined(now)?;
        Some(ServeError::Quarantined { reason: in_force.reason, retry_after: in_force.until.saturating_since(now) })
    }

    /// A worker's life: made, listened to, and left to its exit.
    pub(crate) async fn run_worker(self: Arc<Self>, worker: Arc<Worker>) {
        let delay = self.fleet.lock().start_delay(worker.domain);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        match self.launch(&worker).await {
            Ok(socket) => self.listen(&worker, socket).await,
            Err(error) => {
                tracing::error!(worker = %worker.id, %error, "a worker could not be started");
                {
                    let mut fleet = self.fleet.lock();
                    fleet.workers.remove(&worker.id);
                    let failures = fleet.start_failures.entry(worker.domain).or_default();
                    *failures = failures.saturating_add(1);
                }
                let death = Death::new(IncidentKind::Died, "its process could not be started");
                self.end_work_of(&worker, Some(&death), None);
            }
        }
    }

    async fn launch(self: &Arc<Self>, worker: &Arc<Worker>) -> Result<AsyncFd<ChannelFd>, LaunchError> {
        let (ours, theirs) = Channel::pair()?;
        let (terminator, terminations) = Terminator::pair()?;
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let (generation, spawner) = self.living_spawner().await;
        let isolation = self.config.isolation(spawner.barriers());
        if let Some(shortfall) = self.shortfall_in(isolation.level(), worker.domain, None) {
            return Err(LaunchError::Isolation(shortfall));
        }
        worker.layers.store(isolation.in_force.bits(), Ordering::Release);
        let limits = self.worker_limits_of(worker.domain);
        let memory_bytes = self.worker_memory_limit(limits.memory_bytes);
        if let Some(bytes) = memory_bytes {
            // Only its launch sets it.
            let _ = worker.memory_limit.set(bytes);
        }
        let spec = WorkerSpec {
            layers: isolation.in_force,
            start: self.config.worker_start,
            runtime_library: self.config.runtime_library.clone(),
            cpus: self.config.worker_cpus.clone(),
            // Address space is not memory, but all that can be bounded without a group.
            address_space_bytes: limits.memory_bytes.filter(|_| !isolation.in_force.has(Layer::Cgroup)),
            group: GroupLimits {
                memory_bytes,
                max_processes: limits.max_processes,
                cpu_weight: Some(self.cpu_weights.lock().of(worker.domain, worker.purpose)),
                max_cpu_milli: limits.max_cpu_milli,
            },
            // Registrations run beside the slots: see `register`.
            nice: if worker.purpose == Purpose::Registration { REGISTRATION_NICE } else { self.config.worker_nice },
            ..WorkerSpec::default()
        };
        let process = tokio::task::spawn_blocking(move || spawner.spawn(&spec, theirs, writer))
            .await
            .map_err(|_| LaunchError::Interrupted)??;
        let serial = process.serial;
        let channel = Arc::new(Channel::new(ours));
        channel.set_nonblocking(true)?;
        {
            // Shares may have changed while it was being made; from here on such a change reaches it.
            let weights = self.cpu_weights.lock();
            worker.attach(process, Arc::clone(&channel), terminator);
            worker.set_cpu_weight(weights.of(worker.domain, worker.purpose));
        }
        // Fails only for a worker that has died already.
        let _ = worker.send(&ToWorker::Terminations, &[terminations.as_fd()]);
        crate::stderr::relay(Arc::clone(self), worker.id, reader);
        let early = {
            let mut fleet = self.fleet.lock();
            if fleet.spawner_generation == generation {
                fleet.by_serial.insert((generation, serial), worker.id);
                fleet.early_exits.remove(&(generation, serial))
            } else {
                // Its spawner died meanwhile, and it with it; nobody will relay that.
                return Err(LaunchError::Interrupted);
            }
        };
        if let Some(exit) = early {
            self.worker_ended(generation, &exit);
        }
        Ok(watch(ChannelFd(channel))?)
    }

    /// The spawner, once it is not one known to be dead.
    async fn living_spawner(&self) -> (u64, Arc<Spawner>) {
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            let current = self.spawner.read().clone();
            if current.0 == self.fleet.lock().spawner_generation || changes.changed().await.is_err() {
                return current;
            }
        }
    }

    /// Takes the worker's frames until its socket closes.
    async fn listen(self: &Arc<Self>, worker: &Arc<Worker>, socket: AsyncFd<ChannelFd>) {
        let ready = async {
            loop {
                match self.next_frames(worker, &socket).await {
                    Ok(0) => {}
                    Ok(_) => return Ok(()),
                    Err(kill) => return Err(kill),
                }
            }
        };
        let mut end = match tokio::time::timeout(READY_LIMIT, ready).await {
            Ok(Ok(())) => None,
            Ok(Err(kill)) => Some(kill),
            Err(_) => Some(Kill::NeverReady),
        };
        while end.is_none() {
            end = self.next_frames(worker, &socket).await.err();
        }
        if let Some(kill) = end {
            worker.kill(kill);
        }
    }

    /// Waits until the socket has something and takes all of it; answers how many frames.
    async fn next_frames(self: &Arc<Self>, worker: &Arc<Worker>, socket: &AsyncFd<ChannelFd>) -> Result<u32, Kill> {
        let mut guard = socket.readable().await.map_err(|_| Kill::Silent)?;
        let mut frames = 0;
        loop {
            match socket.get_ref().0.recv::<FromWorker>() {
                Ok(frame) => {
                    frames += 1;
                    self.take_frame(worker, frame).map_err(|violation| Kill::Violation(violation.to_string()))?;
                }
                Err(RecvError::WouldBlock) => {
                    guard.clear_ready();
                    return Ok(frames);
                }
                Err(RecvError::Closed) => return Err(Kill::Silent),
                Err(error) => return Err(Kill::Violation(error.to_string())),
            }
        }
    }

    /// A worker's process ended: its batch is lost, its version may be to blame, and nobody else notices.
    pub(crate) fn worker_ended(self: &Arc<Self>, generation: u64, exit: &Exit) {
        let record = {
            let mut fleet = self.fleet.lock();
            match fleet.by_serial.remove(&(generation, exit.serial)) {
                Some(id) => fleet.workers.remove(&id),
                None => {
                    // Relayed before the starter could file it, or never ours.
                    if fleet.early_exits.len() < MAX_EARLY_EXITS {
                        fleet.early_exits.insert((generation, exit.serial), *exit);
                    }
                    return;
                }
            }
        };
        let Some(record) = record else { return };
        if record.state == Stage::Coming && record.worker.kill_reason() != Some(Kill::Stopped) {
            let mut fleet = self.fleet.lock();
            let failures = fleet.start_failures.entry(record.worker.domain).or_default();
            *failures = failures.saturating_add(1);
        }
        let death = death_reason(record.worker.kill_reason().as_ref(), exit, record.worker.memory_limit.get().copied());
        self.end_work_of(&record.worker, death.as_ref(), Some(exit.pid));
    }

    /// Ends what a dead worker had: its run, its replicas, its slot. `death` is absent for a worker that was stopped.
    pub(crate) fn end_work_of(self: &Arc<Self>, worker: &Arc<Worker>, death: Option<&Death>, pid: Option<i32>) {
        let now = self.now();
        let running = {
            let mut exec = worker.exec();
            exec.gone = true;
            exec.end(worker, now)
        };
        if let Some(Death { kind, reason }) = death {
            self.fleet.lock().deaths += 1;
            let busy = running.is_some();
            tracing::warn!(worker = %worker.id, pid, reason, busy, "a worker died");
            let version = running.as_ref().and_then(|running| running.work.version());
            self.incidents.add(Incident {
                kind: *kind,
                at: now,
                domain: worker.domain,
                version,
                reason: reason.clone(),
            });
        }
        {
            let mut fleet = self.fleet.lock();
            let lost: Vec<ReplicaId> =
                fleet.replicas.iter().filter(|(_, record)| record.worker == worker.id).map(|(id, _)| *id).collect();
            for replica in lost {
                fleet.remove_replica(replica, now);
            }
        }
        self.push(Event::WorkerDown { worker: worker.id });
        if let Some(mut running) = running {
            // Whatever became of the worker: these requests' time was up.
            let overdue = running.abort == Some(AbortCause::Deadline);
            let text = death.map_or("it was stopped", |death| death.reason.as_str()).to_owned();
            match &running.work {
                Work::Register(_) => self.charge(&running, false, now),
                Work::Infer { .. } if death.is_some() && !overdue => self.run_died(&mut running, now, &text),
                // Stopped on purpose, or its spawner died: not the model's fault, so its requests run elsewhere.
                _ => self.batch_ended(&mut running, death.is_none(), now),
            }
            let Running { work, .. } = running;
            match work {
                Work::Infer { placement, members, .. } => {
                    // Who sets very short deadlines must not be able to close a model that others use as well.
                    if overdue && death.is_some() {
                        self.note_failure(&placement, now, &text);
                    }
                    for member in members {
                        member.answer(Err(ServeError::Expired), now);
                    }
                }
                Work::Load(load) if death.is_some() => {
                    // Ended by the node for what it did: loading again would end the same way. Ended by somebody else
                    // (an operator, the machine's memory): one death like any other, and who waits keeps waiting.
                    if worker.kill_reason().is_some_and(|kill| kill != Kill::Silent) {
                        self.load_failed(load.replica, &load.placement, text, now);
                    } else {
                        self.version_died(&load.placement, now, text);
                    }
                }
                Work::Load(_) => {}
                Work::Register(register) => {
                    let _ = register.reply.send(Err(RegisterError::Ended(text)));
                }
            }
        }
        self.pump();
        self.quiet.notify_waiters();
        self.changed();
    }

    /// The spawner is gone and every worker with it: nothing relays their exits any more.
    pub(crate) fn all_workers_ended(self: &Arc<Self>) {
        let workers: Vec<Arc<Worker>> = {
            let mut fleet = self.fleet.lock();
            fleet.spawner_generation += 1;
            fleet.by_serial.clear();
            fleet.early_exits.clear();
            // Workers that are only being made find out in `launch`.
            let dead: Vec<WorkerId> =
                fleet.workers.iter().filter(|(_, record)| record.worker.pid().is_some()).map(|(id, _)| *id).collect();
            dead.iter().filter_map(|id| fleet.workers.remove(id)).map(|record| record.worker).collect()
        };
        for worker in workers {
            worker.kill(Kill::Stopped);
            // Nobody's model is to blame for this.
            self.end_work_of(&worker, None, worker.pid());
        }
    }
}

/// Why a worker could not be made.
#[derive(Debug, thiserror::Error)]
enum LaunchError {
    #[error("no socket or pipe: {0}")]
    Io(#[from] std::io::Error),
    #[error("no pipe: {0}")]
    Pipe(#[from] rustix::io::Errno),
    #[error("the spawner refused: {0}")]
    Spawn(#[from] tenantry_jail::SpawnError),
    #[error("{0}")]
    Isolation(Shortfall),
    #[error("interrupted by the end of the spawner or the server")]
    Interrupted,
}

/// Opens the descriptors of a model's files for a frame.
impl AsFd for ModelFile {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}
