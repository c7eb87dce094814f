//! The real scheduler in virtual time: random worlds with faults that must heal, the reservation theorem, fairness that the
//! baselines must fail, and what may be asked of any change of weight or time.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test says what is wrong by panicking")]

mod fairness;
mod logs;
mod promises;
mod worlds;
