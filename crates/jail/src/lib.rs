//! Makes worker processes.
//!
//! A worker is not a child of the server but of a small single-threaded *spawner* process, started first thing in
//! `main`, for two measured reasons: forking a server of a gigabyte costs 46 ms, and the kernel's "kill me when my
//! parent dies" is tied to the *thread* that forked, so that a worker started from a pool thread dies with that thread.
//!
//! ```text
//! server ──control──► spawner ──fork, exec──► worker (fd 3: its one socket)
//!        ◄──exits────
//! ```
//!
//! Or the spawner is a *zygote*: it loads the engine's library itself and forks workers that need not load it again
//! ([`WorkerStart`]).
//!
//! The spawner dies with the server and the workers die with the spawner. A worker gets namespaces, a session of its own,
//! no core dumps, an empty environment, no descriptors but its own, a control group and the limits of its [`WorkerSpec`]
//! from the spawner (`clone`, `cgroup`, `child`); the rest it does to itself once its library is loaded ([`lock_down`]). Which barriers a
//! machine allows is found by putting them up (`probe`), and what they amount to is a [`Level`].

mod cgroup;
mod child;
mod clone;
mod dumps;
mod exits;
mod layers;
mod lockdown;
mod memory;
mod message;
mod packet;
mod probe;
mod seccomp;
mod spawner;
mod worker;

pub use cgroup::{DEFAULT_CPU_WEIGHT, GroupLimits};
pub use dumps::forbid_core_dumps;
pub use exits::{Exit, ExitKind, Exits, ExitsError};
pub use layers::{Barriers, Layer, Layers};
pub use lockdown::{LockdownError, lock_down};
pub use memory::available_memory_bytes;
pub use message::{WorkerSpec, WorkerStart};
pub use seccomp::{SystemCall, system_calls};
pub use spawner::server_side::{SpawnError, Spawner, StartError};
pub use spawner::{Zygote, inherited_channel, spawner_main, zygote_main};
pub use tenantry_types::Level;
pub use worker::{SuspendBy, WorkerProcess};

/// The descriptor a worker finds its socket at.
pub const WORKER_CHANNEL_FD: i32 = 3;
