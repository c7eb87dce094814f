//! Mappings: the only place of this crate that holds raw addresses.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// A mapping of a whole descriptor, unmapped on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread; this type adds no interior mutability of its own, and
// every access below goes through `&self` for reads and `&mut self` for writes.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `bytes` of `fd`; shared with whoever else maps it.
    ///
    /// The caller knows that the descriptor is that long and that nobody can shorten it: touching a page beyond its end
    /// is a SIGBUS.
    pub(crate) fn new(fd: BorrowedFd<'_>, bytes: u64, protection: ProtFlags) -> io::Result<Self> {
        let bytes = usize::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        if bytes == 0 {
            return Ok(Self { start: NonNull::dangling(), bytes });
        }
        // SAFETY: no address is asked for, so no existing mapping is replaced.
        let start = unsafe { rustix::mm::mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, fd, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, bytes })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The address of a range that lies inside the mapping.
    pub(crate) fn range(&self, offset: u64, len: u64) -> Option<NonNull<u8>> {
        let end = offset.checked_add(len)?;
        if end > self.bytes as u64 {
            return None;
        }
        // SAFETY: `offset <= end <= bytes`, so the result is inside the mapping or one past its end.
        Some(unsafe { self.start.add(usize::try_from(offset).ok()?) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: `start` and `bytes` are what `mmap` returned, and borrows of the memory borrow `self`.
            // There is nothing to do about a failure, which for a valid mapping does not occur.
            let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.bytes) };
        }
    }
}

/// A memory file that can be sealed and, where the kernel knows how, never executed.
pub(crate) fn memfd(name: &str, bytes: u64) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        // Kernels before 6.3 do not know the flag.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(name, flags)?,
        other => other?,
    };
    rustix::fs::ftruncate(&fd, bytes)?;
    Ok(fd)
}

/// Forbids resizing `fd`, what else `more` says, and any further seal.
pub(crate) fn seal(fd: BorrowedFd<'_>, more: SealFlags) -> io::Result<()> {
    // NOEXEC_SEAL already set F_SEAL_EXEC; sealing the seals comes last and includes it.
    Ok(rustix::fs::fcntl_add_seals(fd, SealFlags::SHRINK | SealFlags::GROW | more | SealFlags::SEAL)?)
}

/// An empty memory file for a worker to write an optimised form into.
///
/// # Errors
/// When the kernel refuses.
pub fn scratch_file() -> io::Result<OwnedFd> {
    memfd("optimised", 0)
}

/// A whole file mapped for reading: a model as its replicas share it.
#[derive(Debug)]
pub struct FileMap {
    mapping: Mapping,
}

impl FileMap {
    /// Maps `fd`, which must be exactly `bytes` long.
    ///
    /// The file must not shrink while it is mapped. The node hands out artefacts, which are immutable, and memory files
    /// of its own.
    ///
    /// # Errors
    /// `InvalidData` if the length is another; else what the kernel says.
    pub fn map(fd: BorrowedFd<'_>, bytes: u64) -> io::Result<Self> {
        let found = rustix::fs::fstat(fd)?.st_size;
        if u64::try_from(found).ok() != Some(bytes) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file has not the announced size"));
        }
        Ok(Self { mapping: Mapping::new(fd.as_fd(), bytes, ProtFlags::READ)? })
    }
}

impl AsRef<[u8]> for FileMap {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the mapping is readable, `bytes` long and lives as long as `self`; the file behind it is not written
        // to or shortened by contract of `map`.
        unsafe { std::slice::from_raw_parts(self.mapping.start.as_ptr(), self.mapping.bytes) }
    }
}
