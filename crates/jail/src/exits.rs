//! The ends of workers, as the spawner relays them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use serde::{Deserialize, Serialize};

use crate::packet::{self, RecvError};

/// A worker that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its process id. Another worker may have it by now: use `serial` to tell which ended.
    pub pid: i32,
    /// [`crate::WorkerProcess::serial`].
    pub serial: u64,
    /// How.
    pub status: ExitKind,
    /// How many of its processes the kernel ended because its group had used its memory up; it counts some twice.
    pub oom_kills: u64,
    /// The most memory its group ever used, bytes; `None` where there is no group, or the kernel does not count it.
    pub memory_peak_bytes: Option<u64>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitKind {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// Why no exit was received.
#[derive(Debug, thiserror::Error)]
pub enum ExitsError {
    /// The spawner is gone, and every worker with it.
    #[error("the spawner is gone")]
    Closed,
    /// Anything else the kernel says.
    #[error("cannot hear of workers' ends")]
    Io(#[source] io::Error),
}

/// Where exits arrive: a nonblocking socket, to be waited for with whatever the caller waits with.
#[derive(Debug)]
pub struct Exits {
    pub(crate) socket: OwnedFd,
}

impl Exits {
    /// The next exit; `None` if there is none yet. Each worker's comes exactly once.
    ///
    /// # Errors
    /// [`ExitsError::Closed`] when the spawner is gone.
    pub fn next(&self) -> Result<Option<Exit>, ExitsError> {
        match packet::recv(self.socket.as_fd(), 0) {
            Ok((exit, _)) => Ok(Some(exit)),
            Err(RecvError::WouldBlock) => Ok(None),
            Err(RecvError::Closed) => Err(ExitsError::Closed),
            Err(RecvError::Io(error)) => Err(ExitsError::Io(error)),
        }
    }
}

impl AsFd for Exits {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Exits {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
