//! Arenas: shared memory for one worker's batches, inputs in one area, outputs in the other.
//!
//! The node makes both, seals them and hands their descriptors to the worker. They are kept from batch to batch (a
//! fresh memory file a batch costs up to a millisecond in page faults) and replaced, under a new generation, when they
//! are too small or when a burst has left them too large.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::SealFlags;
use rustix::mm::ProtFlags;

use crate::memory::{Mapping, memfd, seal};

/// Tensors start at multiples of this many bytes: a cache line, and enough for any vector load.
pub const ARENA_ALIGN: u64 = 64;

/// The next multiple of [`ARENA_ALIGN`]; `None` on overflow.
pub const fn align_up(offset: u64) -> Option<u64> {
    match offset.checked_add(ARENA_ALIGN - 1) {
        Some(sum) => Some(sum & !(ARENA_ALIGN - 1)),
        None => None,
    }
}

/// A range that does not lie inside an arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes at {offset} do not lie inside an arena of {capacity} bytes")]
pub struct OutOfRange {
    /// Where the range starts.
    pub offset: u64,
    /// How long it is.
    pub len: u64,
    /// How long the arena is.
    pub capacity: u64,
}

/// Why received descriptors are not an arena.
#[derive(Debug, thiserror::Error)]
pub enum ArenaError {
    /// Not as long as announced.
    #[error("an arena has not the announced size")]
    Size,
    /// Its size could still change.
    #[error("an arena is not sealed")]
    NotSealed,
    /// The kernel refused.
    #[error("an arena cannot be mapped")]
    Io(#[from] io::Error),
}

/// The node's end of the input area: written by the node, read by the worker.
#[derive(Debug)]
pub struct InputArena {
    fd: OwnedFd,
    mapping: Mapping,
}

impl InputArena {
    /// Makes an area of `bytes`, zeroed, of fixed size. Pages take memory only once they are written.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn create(bytes: u64) -> io::Result<Self> {
        let fd = memfd("inputs", bytes)?;
        let mapping = Mapping::new(fd.as_fd(), bytes, ProtFlags::READ | ProtFlags::WRITE)?;
        // After the node's own mapping, which stays writable; nobody can make another writable one, or `write`.
        seal(fd.as_fd(), SealFlags::FUTURE_WRITE)?;
        Ok(Self { fd, mapping })
    }

    /// Bytes there are.
    pub fn capacity(&self) -> u64 {
        self.mapping.bytes() as u64
    }

    /// Copies `data` to `offset`.
    ///
    /// # Errors
    /// [`OutOfRange`], and nothing is written.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), OutOfRange> {
        let len = data.len() as u64;
        let destination =
            self.mapping.range(offset, len).ok_or(OutOfRange { offset, len, capacity: self.capacity() })?;
        // SAFETY: `range` checked that the bytes lie inside this writable mapping; `data` is a Rust slice and cannot
        // overlap it, because the mapping never leaves this type. The worker may read at the same time, which at worst
        // spoils its own computation.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), destination.as_ptr(), data.len()) };
        Ok(())
    }
}

impl AsFd for InputArena {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The node's end of the output area: written by the worker, copied out by the node.
#[derive(Debug)]
pub struct OutputArena {
    fd: OwnedFd,
    mapping: Mapping,
}

impl OutputArena {
    /// Makes an area of `bytes`, zeroed, of fixed size. Pages take memory only once they are written.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn create(bytes: u64) -> io::Result<Self> {
        let fd = memfd("outputs", bytes)?;
        seal(fd.as_fd(), SealFlags::empty())?;
        let mapping = Mapping::new(fd.as_fd(), bytes, ProtFlags::READ)?;
        Ok(Self { fd, mapping })
    }

    /// Bytes there are.
    pub fn capacity(&self) -> u64 {
        self.mapping.bytes() as u64
    }

    /// Copies `len` bytes at `offset` out. Check the copy, never the arena: a hostile worker still writes to it.
    ///
    /// # Errors
    /// [`OutOfRange`], before anything is allocated.
    pub fn copy_out(&self, offset: u64, len: u64) -> Result<Vec<u8>, OutOfRange> {
        let error = OutOfRange { offset, len, capacity: self.capacity() };
        let source = self.mapping.range(offset, len).ok_or(error)?;
        let len = usize::try_from(len).map_err(|_| error)?;
        let mut copy: Vec<u8> = Vec::with_capacity(len);
        // SAFETY: `range` checked that the bytes lie inside this readable mapping, whose size is sealed; `copy` has room
        // for `len` bytes, is fresh and cannot overlap. Another process may write meanwhile: any byte values are valid
        // `u8`s, and no reference to the shared memory is ever made.
        unsafe {
            std::ptr::copy_nonoverlapping(source.as_ptr(), copy.as_mut_ptr(), len);
            copy.set_len(len);
        }
        Ok(copy)
    }
}

impl AsFd for OutputArena {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The worker's end of both areas.
#[derive(Debug)]
pub struct WorkerArena {
    input: Mapping,
    output: Mapping,
}

impl WorkerArena {
    /// Maps received descriptors, the input for reading only.
    ///
    /// # Errors
    /// When a size is not as announced, a seal is missing or the kernel refuses.
    pub fn map(
        input: BorrowedFd<'_>,
        input_bytes: u64,
        output: BorrowedFd<'_>,
        output_bytes: u64,
    ) -> Result<Self, ArenaError> {
        for (fd, bytes) in [(input, input_bytes), (output, output_bytes)] {
            if u64::try_from(rustix::fs::fstat(fd).map_err(io::Error::from)?.st_size).ok() != Some(bytes) {
                return Err(ArenaError::Size);
            }
            let seals = rustix::fs::fcntl_get_seals(fd).map_err(|_| ArenaError::NotSealed)?;
            if !seals.contains(SealFlags::SHRINK | SealFlags::GROW) {
                return Err(ArenaError::NotSealed);
            }
        }
        Ok(Self {
            input: Mapping::new(input, input_bytes, ProtFlags::READ)?,
            output: Mapping::new(output, output_bytes, ProtFlags::READ | ProtFlags::WRITE)?,
        })
    }

    /// Bytes of the output area.
    pub fn output_capacity(&self) -> u64 {
        self.output.bytes() as u64
    }

    /// The bytes of an input.
    pub fn input(&self, offset: u64, len: u64) -> Option<&[u8]> {
        let start = self.input.range(offset, len)?;
        // SAFETY: `range` checked that the bytes lie inside this readable mapping, whose size is sealed, and the slice
        // borrows it. The node, whom the worker trusts, writes only while no run is under way.
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), usize::try_from(len).ok()?) })
    }

    /// Room for an output.
    pub fn output_mut(&mut self, offset: u64, len: u64) -> Option<&mut [u8]> {
        let start = self.output.range(offset, len)?;
        // SAFETY: `range` checked that the bytes lie inside this writable mapping, whose size is sealed, and the slice
        // borrows it exclusively. The node only reads, and only after this worker said `Finished`.
        Some(unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), usize::try_from(len).ok()?) })
    }
}

#[cfg(test)]
mod tests;
