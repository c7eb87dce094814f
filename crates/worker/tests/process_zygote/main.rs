//! The tests of `process` again, with workers that are forked from a zygote: nothing may be different but what is said
//! there.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails where it stands")]

#[path = "../process/confinement.rs"]
mod confinement;
#[path = "../process/frames.rs"]
mod frames;
#[path = "../process/harness.rs"]
mod harness;
#[path = "../process/life.rs"]
mod life;

const START: tenantry_jail::WorkerStart = tenantry_jail::WorkerStart::Zygote;
