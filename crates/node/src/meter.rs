//! Whoever keeps the books is told here what attempts use, by those who measure it.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;
use tenantry_sched::split;
use tenantry_types::usage::SlotTime;
use tenantry_types::{DataOwner, DeploymentId, KeyId, MonotonicTime, TenantId, VersionId};

use crate::data_plane::Node;
use crate::supervisor::in_place;
use crate::worker::{Load, Request, Running, Work, Worker};

/// What time on a slot was spent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A run that reached its end.
    Compute,
    /// A model's load that reached its end.
    Load,
    /// What did not reach its end, whoever's fault that was.
    Aborted,
    /// A registration, whatever its end: beside the slots, so that only its processor time counts.
    Registration,
}

/// Is told what one attempt uses. What it is told is final when it is dropped.
pub trait Meter: Any + Debug + Send + Sync {
    /// The attempt is about to be given to a worker, and not always for the first time. False: it must not be, because
    /// what it uses could not be recorded.
    fn open(&self) -> bool;

    /// It held a slot for this long, suspensions excluded, and its worker computed for `cpu` meanwhile; both are its part of
    /// its batch.
    fn used(&self, cause: Cause, time: Duration, cpu: Duration);
}

/// A loaded model in memory, for as long as this is held.
pub trait Residence: Debug + Send + Sync {}

/// Makes meters for what the node does for tenants by itself.
pub trait LoadMeters: Debug + Send + Sync {
    /// [`Meter::open`] of some that are given to a worker together. False: none of them must be.
    fn open(&self, together: &[&dyn Meter]) -> bool {
        together.iter().all(|meter| meter.open())
    }

    /// For a load.
    fn load(&self, load: LoadFor) -> Option<Arc<dyn Meter>>;

    /// For what is loaded from now on, with the memory it takes.
    fn residence(&self, load: LoadFor, bytes: u64) -> Option<Box<dyn Residence>>;
}

/// For whom a model is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadFor {
    /// Who pays.
    pub tenant: TenantId,
    /// For a request to this deployment; none: ahead of need.
    pub deployment: Option<DeploymentId>,
    /// With this key.
    pub key: Option<KeyId>,
    /// What is loaded.
    pub version: VersionId,
}

/// What the slots have done, but for the wall's time.
#[derive(Debug, Default)]
pub(crate) struct SlotMeter(Mutex<Held>);

#[derive(Debug, Clone, Copy, Default)]
struct Held {
    busy_ns: u64,
    system_ns: u64,
}

impl SlotMeter {
    fn held(&self, busy_ns: u64, attributed_ns: u64) {
        let mut held = self.0.lock();
        held.busy_ns = held.busy_ns.saturating_add(busy_ns);
        held.system_ns = held.system_ns.saturating_add(busy_ns.saturating_sub(attributed_ns));
    }
}

impl Node {
    /// Tells everybody in a batch that ends what he has used. Called once for each, before its requests go anywhere.
    pub(crate) fn charge(&self, running: &Running, finished: bool, now: MonotonicTime) {
        let used = running.used(now);
        let used_ns = u64::try_from(used.as_nanos()).unwrap_or(u64::MAX);
        let attributed_ns = match &running.work {
            Work::Infer { members, .. } => {
                let cause = if finished { Cause::Compute } else { Cause::Aborted };
                // The same numbers as the scheduler charges.
                let times = split(used_ns, &running.weights);
                let cpus = split(u64::try_from(running.cpu.as_nanos()).unwrap_or(u64::MAX), &running.weights);
                let mut attributed_ns = 0_u64;
                for member in members {
                    let Some(meter) = &member.meter else { continue };
                    let position = usize::try_from(member.position).unwrap_or(usize::MAX);
                    let part = |parts: &[u64]| Duration::from_nanos(parts.get(position).copied().unwrap_or(0));
                    let time = part(&times);
                    attributed_ns = attributed_ns.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
                    meter.used(cause, time, part(&cpus));
                }
                attributed_ns
            }
            Work::Load(load) => match &load.meter {
                Some(meter) => {
                    meter.used(if finished { Cause::Load } else { Cause::Aborted }, used, running.cpu);
                    used_ns
                }
                None => 0,
            },
            Work::Register(register) => {
                if let Some(meter) = &register.meter {
                    meter.used(Cause::Registration, used, running.cpu);
                }
                return;
            }
        };
        self.slot_meter.held(used_ns, attributed_ns);
    }

    /// What the slots have done since the start.
    pub fn slot_time(&self) -> SlotTime {
        let held = *self.slot_meter.0.lock();
        SlotTime {
            // Read after: what is held is never more than there was.
            wall_ns: self.now().as_nanos(),
            slots: u32::from(self.config.slots),
            busy_ns: held.busy_ns,
            system_ns: held.system_ns,
        }
    }

    /// From now on these meters are told of loads.
    pub fn set_load_meters(&self, meters: Arc<dyn LoadMeters>) {
        *self.load_meters.write() = Some(meters);
    }

    /// Opens the meters of requests that are given to a worker together; false where none of them must be.
    pub(crate) fn open_meters(&self, requests: &[Request]) -> bool {
        let meters: SmallVec<[&dyn Meter; 32]> =
            requests.iter().filter_map(|request| request.meter.as_deref()).collect();
        match self.load_meters.read().as_ref() {
            Some(all) => all.open(&meters),
            None => meters.iter().all(|meter| meter.open()),
        }
    }

    pub(crate) fn load_meter(&self, load: LoadFor) -> Option<Arc<dyn Meter>> {
        self.load_meters.read().as_ref()?.load(load)
    }

    /// A model that was loaded is in memory from now on. A published one that serves everybody is its owner's.
    pub(crate) fn residence(&self, load: &Load, worker: &Worker) -> Option<Box<dyn Residence>> {
        let payer = match load.placement.domain.data_owner {
            DataOwner::Tenant(tenant) if tenant == load.payer.tenant => load.payer,
            // Whoever asked has gone, and the load was the owner's; what is loaded is not.
            DataOwner::Tenant(tenant) => LoadFor { tenant, deployment: None, key: None, ..load.payer },
            DataOwner::Any => {
                LoadFor { tenant: load.placement.domain.model_owner, deployment: None, key: None, ..load.payer }
            }
        };
        // Not what the worker says: what the system says of it, and the files it keeps mapped.
        let grown = worker.own_memory_bytes().unwrap_or(0).saturating_sub(load.memory_before);
        let files = in_place(&load.model).map(|file| file.bytes).fold(0, u64::saturating_add);
        self.load_meters.read().as_ref()?.residence(payer, grown.saturating_add(files))
    }
}
