//! The scheduler: events in, decisions out, no clock and no IO.
//!
//! [`Scheduler::poll`] is a plain function over values. Whoever owns it tells it what happened since the last call and
//! what time it is, and carries out what it decides; it says when it wants to be asked again at the latest. The same
//! events at the same times give the same decisions, always, so the code that runs in production is the code that the
//! golden scripts and the property tests exercise. It knows ids, rows, costs and deadlines, never a payload.
//!
//! The README beside this crate says what it promises and what it does not.
#![forbid(unsafe_code)]

mod admission;
mod cost;
mod event;
mod fleet;
mod queue;
mod reserve;
mod scheduler;
mod share;
mod split;
mod stats;
mod task;
mod tree;

pub use admission::{MAX_PINNED_TASKS_PER_WORKER, MAX_RETRY_AFTER, MIN_RETRY_AFTER, Policy, SchedulerConfig, Tuning};
pub use cost::Estimate;
pub use event::{AbortCause, BatchTasks, Decision, Event, Outcome, Phase, RejectReason, Weights};
pub use scheduler::Scheduler;
pub use share::{
    DeviceTimeLimit, MAX_RESERVED_PER_SLOT, Overcommitted, Rate, Reservation, Share, SlotGroup, Subject, Tier, Weight,
    pack,
};
pub use split::split;
pub use stats::{Demand, Stats, Usage};
pub use task::{Batching, Place, Task, TaskKind, bucket_of};
