//! The worker as the process it is: started by a real spawner, spoken to over its real socket, killed for real.

mod confinement;
mod frames;
mod harness;
mod life;
