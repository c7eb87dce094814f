//! Desired state and observed state in, the next steps out.
//!
//! [`plan`] is a plain function: it reads no clock and does no IO. The reconciler calls it whenever something changed
//! or [`Plan::wake`] came, and carries the steps out; nothing else starts, loads, unloads or stops anything. It keeps
//! no memory between calls, so a plan that was only half carried out is simply planned again from what is there.
#![forbid(unsafe_code)]

mod planner;
mod state;

pub use planner::plan;
pub use state::{
    Blocked, BlockedReason, Desired, DesiredDeployment, Observed, ObservedDemand, ObservedReplica, ObservedWorker,
    Plan, PlanLimits, Quarantine, ReplicaState, Step, WorkerState,
};
