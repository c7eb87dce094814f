//! Virtual time around the real scheduler: workloads, traces, faults, checkers and experiments.
//!
//! [`world::run`] plays a [`scenario::Scenario`] against the very scheduler that a server runs, and says what came of it.
//! [`check::Auditor`] watches, or reads a recorded decision log ([`log`]), and checks what the scheduler promises. The
//! program `tenantry-sim` runs the [`experiments`]; `tenantry what-if` asks [`what_if`].
#![forbid(unsafe_code)]

pub mod adversary;
pub mod check;
mod divide;
pub mod experiments;
pub mod log;
pub mod picture;
pub mod random;
pub mod report;
pub mod scenario;
pub mod trace;
pub mod what_if;
pub mod world;
