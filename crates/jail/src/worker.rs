//! The server's handle on one worker process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::Signal;

/// A started worker. Dropping the handle does not end the process; its exit arrives through [`crate::Exits`].
#[derive(Debug)]
pub struct WorkerProcess {
    /// The process id, for people: the kernel uses it again later.
    pub pid: i32,
    /// Unique among this spawner's workers, and what [`crate::Exit`] names.
    pub serial: u64,
    pub(crate) pidfd: OwnedFd,
}

impl WorkerProcess {
    /// Ends the process now. A process that has ended already is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&self) -> io::Result<()> {
        self.signal(Signal::KILL)
    }

    /// Stops the process where it is.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn suspend(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a suspended process go on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        // Through the pidfd, which can never mean another process.
        match rustix::process::pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Readable when the process has ended.
impl AsFd for WorkerProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
