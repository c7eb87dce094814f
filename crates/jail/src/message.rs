//! What server and spawner say to each other.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cgroup::{Group, GroupLimits};
use crate::layers::{Barriers, Layers};

/// How a worker is to be started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerSpec {
    /// The engine's library, which the worker loads before it reads a tenant's byte.
    pub runtime_library: PathBuf,
    /// The processors it may run on; empty: the server's own.
    pub cpus: Vec<usize>,
    /// Added to the nice value.
    pub nice: i8,
    /// The most address space, bytes; `None`: unlimited. Beyond it an allocation fails instead of the machine.
    pub address_space_bytes: Option<u64>,
    /// The largest file it may write, bytes; `None`: unlimited. The optimised form is one.
    pub file_bytes: Option<u64>,
    /// What its control group bounds, where `layers` has it.
    pub group: GroupLimits,
    /// The barriers around it: of those that [`crate::Spawner::barriers`] found in force.
    pub layers: Layers,
    /// How its process is made.
    pub start: WorkerStart,
}

/// How a worker's process is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerStart {
    /// By executing the worker binary, which then loads the engine's library: each worker has an address space of its
    /// own making.
    #[default]
    Exec,
    /// By forking the spawner, which has loaded the library: sooner ready, in less memory, but all workers have their
    /// code and their secrets (stack protector, pointer guard) at the same addresses and of the same values.
    Zygote,
}

/// The most processors a spec may name.
pub(crate) const MAX_CPUS: usize = 1024;

/// The first frame on the control socket says that the binary is the right one.
pub(crate) const GREETING: u32 = 0x7e4a_0003;

/// From the server. Descriptors: the worker's channel and its stderr.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SpawnRequest {
    pub(crate) serial: u64,
    pub(crate) spec: WorkerSpec,
}

/// From the spawner. Descriptor of a success: the pidfd.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Once, at the start; also whether workers can be frozen.
    Greeting(u32, Barriers, bool),
    Spawned {
        pid: i32,
        group: Option<Group>,
    },
    Refused {
        reason: String,
    },
}
