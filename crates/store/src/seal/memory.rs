//! Files that lie in memory and nowhere else: what decrypted bytes go to.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags};
use sha2::{Digest as _, Sha256};
use tenantry_types::Digest;

use super::SealError;

/// How much of a file that is not sealed is read at a time, bytes.
const COPY_BYTES: usize = 1 << 20;

/// A file of a tenant, open for reading. It is the same for whoever opened the same file meanwhile, so that a decrypted one
/// is in memory once; each reads it from a position of its own.
#[derive(Debug, Clone)]
pub struct OpenFile {
    file: Arc<File>,
    at: u64,
}

impl OpenFile {
    pub(crate) const fn new(file: Arc<File>) -> Self {
        Self { file, at: 0 }
    }

    /// The file itself, for handing on its descriptor. Its bytes stay readable through it even if the file is deleted, and
    /// stay in memory for as long as somebody holds it.
    pub fn into_shared(self) -> Arc<File> {
        self.file
    }

    /// The length of the content in bytes.
    pub fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

impl Read for OpenFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl std::os::fd::AsFd for OpenFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A file in memory that is written once and then sealed.
struct Memory {
    fd: OwnedFd,
    hasher: Sha256,
}

impl Memory {
    fn new(bytes: u64) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = match rustix::fs::memfd_create("model", flags | MemfdFlags::NOEXEC_SEAL) {
            // Kernels before 6.3 do not know the flag.
            Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create("model", flags)?,
            other => other?,
        };
        rustix::fs::ftruncate(&fd, bytes)?;
        Ok(Self { fd, hasher: Sha256::new() })
    }

    fn write(&mut self, mut content: &[u8], mut at: u64) -> io::Result<()> {
        self.hasher.update(content);
        while !content.is_empty() {
            let written = rustix::io::pwrite(&self.fd, content, at)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            content = content.get(written..).unwrap_or_default();
            at += written as u64;
        }
        Ok(())
    }

    /// Nobody writes to it or changes its length any more, not even through a descriptor from before. What is handed out is
    /// a descriptor for reading only: kernels before 6.7 do not map a sealed file shared through one that may write.
    fn seal(self, digest: Digest) -> Result<File, SealError> {
        if Digest::from_bytes(self.hasher.finalize().into()) != digest {
            return Err(SealError::Digest);
        }
        let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&self.fd, seals).map_err(io::Error::from)?;
        Ok(File::open(format!("/proc/self/fd/{}", self.fd.as_fd().as_raw_fd()))?)
    }
}

/// Decrypts a whole file into memory, if it has the digest its address says.
pub(crate) fn decrypt(mut reader: super::Reader, bytes: u64, digest: Digest) -> Result<File, SealError> {
    let mut memory = Memory::new(bytes)?;
    let mut at = 0;
    while let Some(chunk) = reader.chunk()? {
        memory.write(chunk, at)?;
        at += chunk.len() as u64;
    }
    memory.seal(digest)
}

/// Copies a file from before there was encryption into memory, if it has the digest its address says: so nobody puts other
/// bytes in the place of a sealed file.
pub(crate) fn copy(file: &File, digest: Digest) -> Result<File, SealError> {
    let bytes = file.metadata()?.len();
    let mut memory = Memory::new(bytes)?;
    let mut buffer = vec![0; COPY_BYTES.min(usize::try_from(bytes).unwrap_or(COPY_BYTES))];
    let mut at = 0;
    while at < bytes {
        let count = file.read_at(&mut buffer, at)?;
        if count == 0 {
            return Err(SealError::Digest);
        }
        memory.write(buffer.get(..count).unwrap_or_default(), at)?;
        at += count as u64;
    }
    memory.seal(digest)
}
