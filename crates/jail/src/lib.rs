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
//! The spawner dies with the server and the workers die with the spawner. Today a worker gets its own session, no core
//! dumps, an empty environment, no descriptors but its own, and the limits of its [`WorkerSpec`]; namespaces, seccomp,
//! Landlock and cgroups have their place in `child`.

mod child;
mod exits;
mod message;
mod packet;
mod spawner;
mod worker;

pub use exits::{Exit, ExitKind, Exits, ExitsError};
pub use message::WorkerSpec;
pub use spawner::server_side::{SpawnError, Spawner, StartError};
pub use spawner::{inherited_channel, spawner_main};
pub use worker::WorkerProcess;

/// The descriptor a worker finds its socket at.
pub const WORKER_CHANNEL_FD: i32 = 3;
