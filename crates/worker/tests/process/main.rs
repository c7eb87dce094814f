//! The worker as the process it is: started by a real spawner, spoken to over its real socket, killed for real.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails where it stands")]

mod confinement;
mod frames;
mod harness;
mod life;

/// How the workers of these tests are made; `process_zygote` runs the same ones made otherwise.
const START: tenantry_jail::WorkerStart = tenantry_jail::WorkerStart::Exec;
