//! The server's handle on one worker process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use crate::cgroup::Group;
use crate::child::cpu_set;

/// How a worker is made to stand still.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SuspendBy {
    /// By the freezer where its group has one, else by a signal.
    #[default]
    Auto,
    /// By the freezer of its control group: the kernel says when it stands.
    Freezer,
    /// By SIGSTOP.
    Stop,
}

/// A started worker. Dropping the handle does not end the process; its exit arrives through [`crate::Exits`].
#[derive(Debug)]
pub struct WorkerProcess {
    /// The process id, for people: the kernel uses it again later.
    pub pid: i32,
    /// Unique among this spawner's workers, and what [`crate::Exit`] names.
    pub serial: u64,
    pub(crate) pidfd: OwnedFd,
    pub(crate) group: Option<Group>,
}

impl WorkerProcess {
    /// Processor time the process has used, all its threads together; nothing once it is gone.
    pub fn cpu_time(&self) -> Option<Duration> {
        let mut clock: libc::clockid_t = 0;
        // SAFETY: the pointer is to a clock id of this frame, which outlives the call. Any process id may be asked for; one of nobody
        // is answered with an error.
        if unsafe { libc::clock_getcpuclockid(self.pid, &raw mut clock) } != 0 {
            return None;
        }
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a timespec of this frame, which outlives the call.
        if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
            return None;
        }
        Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
    }

    /// Ends the process now. A process that has ended already is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&self) -> io::Result<()> {
        self.signal(Signal::KILL)?;
        // In a frozen group of version 1 the signal is heeded when it goes on.
        self.thaw()
    }

    /// Stops every thread of the process where it is; [`Self::stands`] says when the last one has noticed.
    ///
    /// # Errors
    /// When the kernel refuses, or there is no freezer and it must be one.
    pub fn suspend(&self, by: SuspendBy) -> io::Result<()> {
        match self.freezer().filter(|_| by != SuspendBy::Stop) {
            // It may have ended, and its group with it.
            Some(group) => match group.freeze() {
                Err(error) if is_gone(&error) => Ok(()),
                Err(_) if by == SuspendBy::Auto => self.signal(Signal::STOP),
                frozen => frozen,
            },
            None if by == SuspendBy::Freezer => Err(io::ErrorKind::Unsupported.into()),
            None => self.signal(Signal::STOP),
        }
    }

    /// Whether the kernel says that every thread stands that was suspended by the freezer. A signal has no such word.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn stands(&self) -> io::Result<bool> {
        self.freezer().map_or(Ok(false), Group::is_frozen)
    }

    /// Lets a process go on that was suspended in this way.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn resume(&self, by: SuspendBy) -> io::Result<()> {
        if by != SuspendBy::Stop {
            self.thaw()?;
        }
        self.signal(Signal::CONT)
    }

    /// Whether the kernel bounds what it uses by a control group.
    pub fn is_in_group(&self) -> bool {
        self.group.is_some()
    }

    /// Changes its share of processor time beside other groups, 1 to 10,000. Without a group nothing happens.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_cpu_weight(&self, weight: u16) -> io::Result<()> {
        match self.group.as_ref().map_or(Ok(()), |group| group.set_cpu_weight(weight)) {
            Err(error) if is_gone(&error) => Ok(()),
            set => set,
        }
    }

    fn freezer(&self) -> Option<&Group> {
        self.group.as_ref().filter(|group| group.freezer.is_some())
    }

    fn thaw(&self) -> io::Result<()> {
        match self.freezer().map_or(Ok(()), Group::thaw) {
            Err(error) if is_gone(&error) => Ok(()),
            thawed => thawed,
        }
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

/// The group was removed because its processes have ended.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// Readable when the process has ended.
impl AsFd for WorkerProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
