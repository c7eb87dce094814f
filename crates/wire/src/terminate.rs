//! The way to end one run: a socket of its own, on which the node names the task.
//!
//! The worker's one thread reads no frame while it runs something, so a thread beside it listens here. The task is named
//! because a word that comes late must not end the run after the one it was meant for.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use tenantry_types::TaskId;

/// The node's end.
#[derive(Debug)]
pub struct Terminator {
    fd: OwnedFd,
}

impl Terminator {
    /// The node's end, and the worker's as a descriptor to be sent to it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (fd, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok((Self { fd }, theirs))
    }

    /// Asks the worker to end its run of `task`. A run that has ended already is not disturbed.
    ///
    /// # Errors
    /// When the worker is gone or does not listen; then only ending the process helps.
    pub fn terminate(&self, task: TaskId) -> io::Result<()> {
        rustix::io::retry_on_intr(|| rustix::net::send(&self.fd, &task.0.to_le_bytes(), SendFlags::NOSIGNAL))?;
        Ok(())
    }
}

/// The worker's end.
#[derive(Debug)]
pub struct Terminations {
    fd: OwnedFd,
}

impl Terminations {
    /// Takes over the descriptor that came with the frame [`Terminations`](crate::ToWorker::Terminations).
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Waits for the next task whose run is to end; `None` when the node is gone.
    pub fn wait(&self) -> Option<TaskId> {
        let mut task = [0_u8; size_of::<u64>()];
        loop {
            match rustix::net::recv(&self.fd, &mut task, RecvFlags::empty()) {
                Ok((length, _)) if length == task.len() => return Some(TaskId(u64::from_le_bytes(task))),
                Err(Errno::INTR) => {}
                // Nothing but whole names is ever sent.
                Ok(_) | Err(_) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_arrive_one_by_one_until_the_node_is_gone() {
        let (terminator, theirs) = Terminator::pair().unwrap();
        let terminations = Terminations::new(theirs);
        terminator.terminate(TaskId(7)).unwrap();
        terminator.terminate(TaskId(u64::MAX)).unwrap();
        drop(terminator);
        assert_eq!(terminations.wait(), Some(TaskId(7)));
        assert_eq!(terminations.wait(), Some(TaskId(u64::MAX)));
        assert_eq!(terminations.wait(), None);
    }

    #[test]
    fn a_worker_that_does_not_listen_never_makes_the_node_wait() {
        let (terminator, theirs) = Terminator::pair().unwrap();
        let refused = (0..1 << 20).find_map(|task| terminator.terminate(TaskId(task)).err());
        assert_eq!(refused.map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
        drop(theirs);
        assert!(terminator.terminate(TaskId(1)).is_err());
    }
}
