//! One machine's data plane: the owner of the scheduler, the inflight requests, the workers and their supervision,
//! and the measured usage.
//!
//! The path of a request through this crate, top to bottom:
//!
//! 1. [`Node::submit`] files the payload under a task id (`inflight`) and puts an event into the inbox.
//! 2. `pump` (module `data_plane`) lets whoever holds the scheduler's lock run `poll` in place: no thread hop.
//! 3. A `Dispatch` decision gathers the batch into the worker's input arena (the one copy) and rings its socket (module
//!    `dispatch`); `Suspend`, `Resume` and `Abort` stop it, let it go on and end it (module `interrupt`).
//! 4. The worker's reader task takes the answer's frame, copies the outputs out once, checks them, tells the scheduler
//!    the slot is free, and only then hands each request its slice.
//!
//! The node trusts nothing a worker says: see [`claims`] for what it may say and `gather` for the
//! checks of outputs.
//! Desired state comes from outside: [`Node::observe`] reports, the reconciler decides, and nothing here starts, loads
//! or stops a worker for serving by itself.
//!
//! INVARIANT: `parking_lot` locks are never held across an `await`, and the scheduler's lock only during `poll`.

#![forbid(unsafe_code)]

pub mod claims;
mod clock;
mod config;
mod cpu_weight;
mod data_plane;
mod death;
mod dispatch;
mod fleet;
mod frames;
mod gather;
mod health;
mod incident;
mod interrupt;
mod memory;
mod meter;
mod minimum;
mod observe;
mod placement;
mod poison;
mod readable;
mod recording;
mod register;
mod shares;
mod slots;
mod start;
mod stderr;
mod submission;
mod supervisor;
mod timer;
mod warm;
mod worker;
mod worker_memory;

pub use config::NodeConfig;
pub use data_plane::Node;
pub use incident::{Incident, IncidentKind};
pub use meter::{Cause, LoadFor, LoadMeters, Meter, Residence};
pub use minimum::{Minimums, Shortfall};
pub use observe::{NodeStats, Quarantined, RuntimeInfo, VersionStatus, WorkerState, WorkerStats};
pub use placement::VersionSpec;
pub use recording::RecordError;
pub use register::{ProbeError, RegisterError, RegisterRequest, Registered};
pub use start::StartError;
pub use submission::{Answer, Reply, ServeError, Submission, Timing};
pub use supervisor::{ModelFile, ModelFiles};
pub use tenantry_jail::{Barriers, Layer, Layers, Level, SuspendBy, WorkerStart};
pub use warm::Wanted;
