//! Frames, descriptors and shared memory between node and worker.
//!
//! A worker is born with one socket. Control travels over it as small frames ([`ToWorker`], [`FromWorker`]), one a
//! packet; tensors lie in two shared memory areas, the arenas, of which frames carry offsets only. The two directions
//! are not alike, because the node trusts nothing a worker says:
//!
//! - Descriptors travel only from node to worker. The node receives with a plain `recv`, so that descriptors a hostile
//!   worker sends are dropped by the kernel.
//! - Sizes of arenas are sealed: no `ftruncate` by a worker can turn the node's next access into a SIGBUS. The input
//!   arena can be mapped for reading only by whoever is not the node.
//! - Descriptors of outputs arrive in a frame, which is a private copy: they are checked once and cannot change
//!   afterwards. Output bytes are copied out first and looked at then.

mod arena;
mod channel;
mod frame;
mod memory;
mod terminate;

pub use arena::{ARENA_ALIGN, ArenaError, InputArena, OutOfRange, OutputArena, WorkerArena, align_up};
pub use channel::{Channel, MAX_FDS, MAX_FRAME_BYTES, RecvError, SendError};
pub use frame::{
    FailureKind, FileEntry, FromWorker, MAX_FAILURE_MESSAGE_CHARS, ModelForm, PROTOCOL, TensorDescriptor, ToWorker,
};
pub use memory::{FileMap, scratch_file};
pub use terminate::{Terminations, Terminator};
