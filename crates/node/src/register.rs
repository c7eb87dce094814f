//! Registration: a model file is loaded, optimised and measured for the first time, in a worker of its own.
//!
//! It runs beside the slots, in a worker with a raised nice value, and not on one: a file that never finishes loading
//! would otherwise hold a slot for as long as `register_limit`, and two such files both slots of a small machine
//! (`docs/adr/0005-registrations-beside-the-slots.md`). How many run at the same time is the caller's to bound.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tenantry_types::model::{Registration, VersionSettings};
use tenantry_types::{BatchId, DataOwner, TaskId, TenantId, TrustDomain, VersionId, WorkerId};
use tenantry_wire::ToWorker;
use tokio::sync::oneshot;

use crate::data_plane::Node;
use crate::dispatch::file_entries;
use crate::fleet::Stage;
use crate::meter::Meter;
use crate::minimum::Shortfall;
use crate::observe::RuntimeInfo;
use crate::supervisor::ModelFile;
use crate::worker::{Kill, Purpose, Register, Running, Work, Worker};

/// A registration is no batch of the scheduler's; its batches count from 1.
const NO_BATCH: BatchId = BatchId(0);

/// A version to be looked at for the first time.
#[derive(Debug)]
pub struct RegisterRequest {
    /// Whose file it is.
    pub owner: TenantId,
    /// What it is going to be.
    pub version: VersionId,
    /// The model first, then its external data.
    pub files: Vec<ModelFile>,
    /// The owner's wishes.
    pub settings: VersionSettings,
    /// Is told what it uses.
    pub meter: Option<Arc<dyn Meter>>,
}

/// What came of it.
#[derive(Debug)]
pub struct Registered {
    /// Signature, metadata and measurements: the worker's claims.
    pub registration: Registration,
    /// The optimised form, in memory; read it from position 0.
    pub optimised: File,
    /// Its length.
    pub optimised_bytes: u64,
    /// How long the registration ran.
    pub device_time: Duration,
}

/// Why there is no registration. Texts are sanitised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// The engine refused the file: its owner's fault.
    #[error("{0}")]
    Refused(String),
    /// The worker died or hung over it: the file's fault as far as anybody can tell.
    #[error("{0}")]
    Ended(String),
    /// Workers are kept apart less well than its owner demands; nothing is wrong with the file.
    #[error("{0}")]
    BelowMinimum(Shortfall),
    /// The node could not run it now; nothing is wrong with the file.
    #[error("the server cannot register a model now; try again")]
    Busy,
}

/// Why the runtime could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The worker did not come up; the log and `tenantry doctor` say why.
    #[error("no worker could be started; run `tenantry doctor` to see why")]
    NoWorker,
}

/// Ends a worker of a single purpose when its user is done or gone.
struct Stop<'a> {
    node: &'a Arc<Node>,
    worker: WorkerId,
}

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.node.stop_worker(self.worker);
    }
}

impl Node {
    /// Registers a version: load under a deadline that ends in SIGKILL, optimise, warm up, measure.
    ///
    /// # Errors
    /// [`RegisterError`]; `Busy` is worth another try, `BelowMinimum` once demands or barriers have changed.
    pub async fn register(self: &Arc<Self>, request: RegisterRequest) -> Result<Registered, RegisterError> {
        let domain = TrustDomain { model_owner: request.owner, data_owner: DataOwner::Tenant(request.owner) };
        self.check_register(domain, request.version)?;
        let stop = self.single_purpose_worker(domain).await.ok_or(RegisterError::Busy)?;
        let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
        let optimised = rustix::fs::memfd_create("optimised", flags).map_err(|error| {
            tracing::error!(%error, "no memory file for an optimised form");
            RegisterError::Busy
        })?;
        let (reply, mut receiver) = oneshot::channel();
        let meter = request.meter.clone();
        let register = Register { version: request.version, meter, optimised: File::from(optimised), reply };
        let worker = self.fleet.lock().worker(stop.worker).ok_or(RegisterError::Busy)?;
        self.send_register(&worker, register, &request)?;
        match tokio::time::timeout(self.config.register_limit, &mut receiver).await {
            Ok(outcome) => outcome.unwrap_or(Err(RegisterError::Busy)),
            Err(_) => {
                worker.kill(Kill::Overran(self.config.register_limit));
                // Its exit answers, with the reason.
                receiver.await.unwrap_or(Err(RegisterError::Busy))
            }
        }
    }

    fn check_register(&self, domain: TrustDomain, version: VersionId) -> Result<(), RegisterError> {
        match self.shortfall_in(self.level(), domain, Some(version)) {
            None => Ok(()),
            Some(shortfall) => Err(RegisterError::BelowMinimum(shortfall)),
        }
    }

    fn send_register(
        &self,
        worker: &Worker,
        register: Register,
        request: &RegisterRequest,
    ) -> Result<(), RegisterError> {
        let task = TaskId(self.next_id());
        let mut settings = request.settings.clone();
        // Measured with as many threads as it will run with.
        settings.threads = settings.threads.or_else(|| self.slot_cores.narrowest());
        let limits = self.config.model_limits;
        let frame = ToWorker::Register { task, files: file_entries(&request.files), settings, limits };
        let mut files: Vec<_> = request.files.iter().map(|file| file.file.as_fd()).collect();
        files.push(register.optimised.as_fd());
        let mut exec = worker.exec();
        let is_recorded = register.meter.as_ref().is_none_or(|meter| meter.open());
        let cpu = worker.cpu_time().unwrap_or_default();
        if exec.gone || !is_recorded || worker.send(&frame, &files).is_err() {
            return Err(RegisterError::Busy);
        }
        let (domain, version) = (worker.domain, register.version);
        exec.begin(Running { cpu, ..Running::new(NO_BATCH, task, self.now(), Work::Register(register)) });
        drop(exec);
        // Whoever raised a minimum meanwhile did not see this one run.
        self.check_register(domain, version)
    }

    /// The runtime's version and this machine's features, from the first worker that told; starts one if none did.
    ///
    /// # Errors
    /// [`ProbeError`] if no worker comes up.
    pub async fn probe(self: &Arc<Self>) -> Result<RuntimeInfo, ProbeError> {
        if let Some(info) = self.runtime() {
            return Ok(info);
        }
        let nobody = TenantId::from_parts(0, [0; 10]);
        let domain = TrustDomain { model_owner: nobody, data_owner: DataOwner::Tenant(nobody) };
        let stop = self.single_purpose_worker(domain).await;
        drop(stop);
        self.runtime().ok_or(ProbeError::NoWorker)
    }

    /// Starts a worker outside the reconciler's view and waits until it is ready.
    async fn single_purpose_worker(self: &Arc<Self>, domain: TrustDomain) -> Option<Stop<'_>> {
        let mut changes = self.changes.subscribe();
        let worker = self.new_worker(domain, Purpose::Registration);
        let stop = Stop { node: self, worker: worker.id };
        tokio::spawn(Arc::clone(self).run_worker(worker));
        loop {
            changes.mark_unchanged();
            let state = self.fleet.lock().workers.get(&stop.worker).map(|record| record.state);
            match state {
                Some(Stage::Ready) => return Some(stop),
                Some(Stage::Coming) => changes.changed().await.ok()?,
                Some(Stage::Going) | None => return None,
            }
        }
    }
}
