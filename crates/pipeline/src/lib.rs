//! What is done before and behind a model: `tenantry.toml`, its steps, and a program made of both.
//!
//! Plain functions: bytes of a client's media in, tensors out, and back; no IO, no clock, no thread. They read what
//! tenants send and upload, so in production they run only inside a worker. Where a step does for a family of models
//! what its authors' own package does, its tests compare with what that package says (`tests/golden/generate.py`).
#![forbid(unsafe_code)]

mod array;
pub mod file_type;
pub mod manifest;
pub mod picture;
mod program;
pub mod sentence;
mod sound;
pub mod speech;
mod step;
mod text_lines;
mod value;

#[cfg(test)]
mod testing;

pub use array::Array;
pub use manifest::{Manifest, ManifestError};
pub use program::{Engine, Program, RunError};
pub use step::{Files, StepConfig};
pub use value::PlanError;
