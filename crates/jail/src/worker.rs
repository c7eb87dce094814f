//! The server's handle on one worker process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal};

use crate::child::cpu_set;

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

    /// Moves every thread of the process to these processors; threads made later follow their makers.
    ///
    /// # Errors
    /// When the kernel refuses, e.g. because there are no such processors. A process that has ended is no error.
    pub fn pin(&self, cpus: &[usize]) -> io::Result<()> {
        let set = cpu_set(cpus)?;
        // Threads are named by number only. The numbers are of this process, because it lives: the kernel gives a number
        // again only after the whole range has been used.
        let threads = match std::fs::read_dir(format!("/proc/{}/task", self.pid)) {
            Ok(threads) if self.is_alive() => threads,
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for thread in threads {
            let number = thread?.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            match rustix::thread::sched_setaffinity(number, &set) {
                // That thread ended meanwhile.
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn is_alive(&self) -> bool {
        let mut polled = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(rustix::event::poll(&mut polled, Some(&now)), Ok(0))
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
