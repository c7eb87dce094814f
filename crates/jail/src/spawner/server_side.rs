//! The server's handle on the spawner.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags};

use crate::child::{self, Inherit, Limits, Tie};
use crate::exits::Exits;
use crate::layers::Barriers;
use crate::message::{Answer, GREETING, SpawnRequest, WorkerSpec};
use crate::packet::{self, RecvError};
use crate::worker::WorkerProcess;

/// How long the spawner may take for its first word, and for each answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long it may take to end when it is told to.
const END_LIMIT: Duration = Duration::from_secs(2);

/// Why the spawner did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The worker binary cannot be run.
    #[error("cannot run the worker binary; install `tenantry-worker` next to `tenantry`")]
    Exec(#[source] io::Error),
    /// It runs and is something else.
    #[error("the worker binary is not of this build; install `tenantry-worker` and `tenantry` together")]
    WrongBinary,
    /// Anything else the kernel says.
    #[error("cannot start the spawner")]
    Io(#[from] io::Error),
}

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The spawner is gone, and with it every worker. It takes a new server to get another.
    #[error("the spawner is gone")]
    Closed,
    /// The spawner could not do it; another try may work.
    #[error("the worker process could not be started: {0}")]
    Refused(String),
    /// The request could not be sent.
    #[error("cannot talk to the spawner")]
    Io(#[source] io::Error),
}

/// The spawner process. Dropping it ends it, and so every worker.
#[derive(Debug)]
pub struct Spawner {
    conversation: Mutex<Conversation>,
    barriers: Barriers,
    has_freezer: bool,
}

#[derive(Debug)]
struct Conversation {
    control: OwnedFd,
    next_serial: u64,
    child: Child,
}

impl Spawner {
    /// Starts the spawner process and waits until it answers.
    ///
    /// Call it from `main` before any thread or runtime exists: the child of a process with one thread cannot inherit a
    /// lock that nobody will open.
    ///
    /// # Errors
    /// [`StartError`] says what to do.
    pub fn start(worker_binary: &Path) -> Result<(Self, Exits), StartError> {
        let pair = || {
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(io::Error::from)
        };
        let (control, control_theirs) = pair()?;
        let (exits, exits_theirs) = pair()?;
        rustix::io::ioctl_fionbio(&exits, true).map_err(io::Error::from)?;
        let mut command = Command::new(worker_binary);
        let theirs = [control_theirs.as_raw_fd(), exits_theirs.as_raw_fd()];
        // Its stderr is the server's: the spawner itself speaks only when it breaks.
        command.arg("spawner").args(theirs.map(|fd| fd.to_string()));
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null());
        child::confine(&mut command, Tie::Socket, &theirs.map(Inherit::in_place), Limits::default());
        let child = command.spawn().map_err(StartError::Exec)?;
        drop((control_theirs, exits_theirs));
        let mut conversation = Conversation { control, next_serial: 1, child };
        match conversation.answer() {
            Ok((Answer::Greeting(GREETING, barriers, has_freezer), _)) => {
                Ok((Self { conversation: Mutex::new(conversation), barriers, has_freezer }, Exits { socket: exits }))
            }
            _ => Err(StartError::WrongBinary),
        }
    }

    /// Starts a worker that talks over `channel` (its descriptor 3) and complains to `stderr`. Takes a few
    /// milliseconds; does not wait until the worker is ready.
    ///
    /// # Errors
    /// See [`SpawnError`].
    pub fn spawn(&self, spec: &WorkerSpec, channel: OwnedFd, stderr: OwnedFd) -> Result<WorkerProcess, SpawnError> {
        let mut conversation = self.lock();
        let serial = conversation.next_serial;
        conversation.next_serial += 1;
        let request = SpawnRequest { serial, spec: spec.clone() };
        packet::send(conversation.control.as_fd(), &request, &[channel.as_fd(), stderr.as_fd()]).map_err(|error| {
            match error.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => SpawnError::Closed,
                _ => SpawnError::Io(error),
            }
        })?;
        match conversation.answer()? {
            (Answer::Spawned { pid, group }, fds) => {
                let pidfd = fds.into_iter().next().ok_or(SpawnError::Closed)?;
                Ok(WorkerProcess { pid, serial, pidfd, group })
            }
            (Answer::Refused { reason }, _) => Err(SpawnError::Refused(reason)),
            (Answer::Greeting(..), _) => Err(SpawnError::Closed),
        }
    }

    /// What this machine lets it put up around workers: tried when it started.
    pub fn barriers(&self) -> &Barriers {
        &self.barriers
    }

    /// Whether workers in control groups can be frozen.
    pub fn has_freezer(&self) -> bool {
        self.has_freezer
    }

    /// The spawner's process id, for people.
    pub fn pid(&self) -> u32 {
        self.lock().child.id()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Conversation> {
        // A panic inside cannot leave half a conversation: requests are sent whole.
        self.conversation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Conversation {
    /// Waits until the spawner has ended, or could have.
    fn wait_a_while(&self) {
        let pid = Pid::from_child(&self.child);
        let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return };
        let limit = rustix::time::Timespec { tv_sec: END_LIMIT.as_secs().cast_signed(), tv_nsec: 0 };
        let _ = rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit));
    }

    fn answer(&mut self) -> Result<(Answer, Vec<OwnedFd>), SpawnError> {
        let mut polled = [PollFd::new(&self.control, PollFlags::IN)];
        let limit = rustix::time::Timespec { tv_sec: ANSWER_LIMIT.as_secs().cast_signed(), tv_nsec: 0 };
        let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, Some(&limit)))
            .map_err(|error| SpawnError::Io(error.into()))?;
        if ready == 0 {
            // A late answer would be taken for the next one's: better no spawner than one out of step.
            let _ = self.child.kill();
            return Err(SpawnError::Closed);
        }
        packet::recv_any(self.control.as_fd()).map_err(|error| match error {
            RecvError::WouldBlock | RecvError::Closed => SpawnError::Closed,
            RecvError::Io(error) => SpawnError::Io(error),
        })
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        // It ends once the socket closes, having ended its workers and removed their groups.
        let _ = rustix::net::shutdown(&self.control, rustix::net::Shutdown::Both);
        self.wait_a_while();
        // Does nothing to one that has ended. This way it is gone, and reaped, when `drop` returns.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
