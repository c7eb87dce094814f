//! ONNX Runtime behind a small interface. Runs only inside a worker (and in benchmarks).
//!
//! Everything goes through the runtime's C API as the crate `ort` binds it: the safe layer of `ort` wants `&mut` and
//! typed arrays where a worker has bytes in shared memory, and knows neither half of the data types.
//!
//! Not protected against, by design: a model that never returns, takes the memory or kills the process. That is what
//! worker processes, their limits and the node's deadlines are for.

mod cpu;
mod elf;
mod handle;
mod inspect;
mod memory;
mod model;
mod options;
mod outputs;
mod registration;
mod runtime;
mod signature;
mod strings;
mod termination;

pub use elf::ElfError;
pub use inspect::{InspectError, inspect};
pub use memory::{anonymous_bytes, trim};
pub use model::{InputTensor, Model, RunError};
pub use outputs::{Output, Outputs};
pub use registration::register;
pub use runtime::{Form, LoadError, Runtime, RuntimeError, SharedBytes, Source};
pub use termination::Termination;

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request's inputs.
    Input,
    /// The model file's.
    Model,
    /// Memory or another resource ran out.
    Resource,
}
