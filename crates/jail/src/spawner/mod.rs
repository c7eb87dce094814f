//! The spawner: a loop over requests and ends. Its server side is in [`server_side`].

pub(crate) mod server_side;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags};
use rustix::process::WaitIdStatus;

use crate::child::{self, Inherit, Limits};
use crate::clone::{self, Cloned};
use crate::exits::{Exit, ExitKind};
use crate::layers::Layer;
use crate::message::{Answer, GREETING, MAX_CPUS, SpawnRequest, WorkerSpec};
use crate::packet::{self, RecvError};
use crate::probe;

/// The most workers alive at once.
const MAX_WORKERS: usize = 4096;

struct Running {
    serial: u64,
    child: Cloned,
}

/// The body of `tenantry-worker spawner CONTROL EXITS`: starts workers and relays their ends until the server is gone.
/// The two arguments are the descriptors of its sockets.
///
/// Single-threaded by construction: the kernel ties the workers' lives to this thread's.
pub fn spawner_main() -> ExitCode {
    let sockets: Vec<OwnedFd> = std::env::args().skip(2).filter_map(|number| inherited(&number)).collect();
    let Ok([control, exits]) = <[OwnedFd; 2]>::try_from(sockets) else {
        eprintln!("this command is run by the server; there is nothing to do with it by hand");
        return ExitCode::FAILURE;
    };
    match run(control.as_fd(), exits.as_fd()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("spawner: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The socket a worker was born with. `None` the second time, or in a process that is no worker.
pub fn inherited_channel() -> Option<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::AcqRel) {
        return None;
    }
    let channel = inherited(&crate::WORKER_CHANNEL_FD.to_string())?;
    rustix::io::fcntl_setfd(&channel, rustix::io::FdFlags::CLOEXEC).ok()?;
    Some(channel)
}

/// A socket this process was born with, by its number.
fn inherited(number: &str) -> Option<OwnedFd> {
    let number: RawFd = number.parse().ok()?;
    // SAFETY: only looked at; a number that is no open descriptor is refused by `fstat`.
    let found = rustix::fs::fstat(unsafe { BorrowedFd::borrow_raw(number) }).ok()?;
    let is_socket = rustix::fs::FileType::from_raw_mode(found.st_mode).is_socket();
    // SAFETY: the number is open, above the standard three, and came from whoever started this process for it to own;
    // each number is taken once, because `Spawner::start` gives two different ones.
    (number > 2 && is_socket).then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

fn run(control: BorrowedFd<'_>, exits: BorrowedFd<'_>) -> io::Result<()> {
    // The workers must not inherit them.
    for socket in [control, exits] {
        rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::CLOEXEC)?;
    }
    rustix::io::ioctl_fionbio(exits, true)?;
    // Held so that nothing else gets the number the workers' channels are placed at.
    let _reserved = rustix::io::fcntl_dupfd_cloexec(control, crate::WORKER_CHANNEL_FD)?;
    packet::send(control, &Answer::Greeting(GREETING, probe::probe()), &[])?;
    let mut running: Vec<Running> = Vec::new();
    // Ends not yet relayed, because the server was slow to read. At most one a worker; new workers wait for room.
    let mut ended: VecDeque<Exit> = VecDeque::new();
    loop {
        let (request, readable) = wait(control, exits, &running, !ended.is_empty())?;
        // From the back, so that removing one moves none still to be looked at.
        for index in readable.into_iter().rev() {
            let Some(worker) = running.get_mut(index) else { continue };
            if let Some(status) = worker.child.try_wait()? {
                let worker = running.swap_remove(index);
                ended.push_back(Exit { pid: worker.child.pid, serial: worker.serial, status: kind(&status) });
            }
        }
        while let Some(exit) = ended.front() {
            match packet::send(exits, exit, &[]) {
                Ok(()) => drop(ended.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if request {
            match packet::recv::<SpawnRequest>(control, 2) {
                Ok((SpawnRequest { serial, spec }, fds)) => {
                    let room = running.len() + ended.len() < MAX_WORKERS;
                    let spawned =
                        if room { spawn(&spec, serial, fds) } else { Err(io::ErrorKind::QuotaExceeded.into()) };
                    match spawned {
                        Ok(child) => {
                            packet::send(control, &Answer::Spawned { pid: child.pid }, &[child.pidfd.as_fd()])?;
                            running.push(Running { serial, child });
                        }
                        Err(error) => {
                            packet::send(control, &Answer::Refused { reason: error.to_string() }, &[])?;
                        }
                    }
                }
                // The server is gone, or has dropped its handle.
                Err(RecvError::Closed) => return Ok(()),
                Err(RecvError::WouldBlock) => {}
                Err(RecvError::Io(error)) => return Err(error),
            }
        }
    }
}

/// Waits for something to do: whether there is a request, and which workers have ended.
fn wait(
    control: BorrowedFd<'_>,
    exits: BorrowedFd<'_>,
    running: &[Running],
    relaying: bool,
) -> io::Result<(bool, Vec<usize>)> {
    let exit_events = if relaying { PollFlags::OUT } else { PollFlags::empty() };
    let mut polled = Vec::with_capacity(running.len() + 2);
    polled.push(PollFd::from_borrowed_fd(control, PollFlags::IN));
    polled.push(PollFd::from_borrowed_fd(exits, exit_events));
    polled.extend(running.iter().map(|worker| PollFd::from_borrowed_fd(worker.child.pidfd.as_fd(), PollFlags::IN)));
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, None))?;
    let mut polled = polled.iter().map(|fd| !fd.revents().is_empty());
    let request = polled.next().unwrap_or(false);
    let _ = polled.next();
    let readable = polled.enumerate().filter(|(_, ready)| *ready).map(|(index, _)| index).collect();
    Ok((request, readable))
}

fn spawn(spec: &WorkerSpec, serial: u64, fds: Vec<OwnedFd>) -> io::Result<Cloned> {
    let [channel, stderr] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| io::ErrorKind::InvalidInput)?;
    if spec.cpus.len() > MAX_CPUS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // This very binary, even if another has taken its place on the disk since the server started.
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["work", "--runtime"])
        .arg(&spec.runtime_library)
        .args(["--layers", &spec.layers.bits().to_string()])
        .env_clear()
        .env("ORT_DISABLE_TELEMETRY", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::from(stderr));
    let inherit = [Inherit { fd: channel.as_raw_fd(), number: crate::WORKER_CHANNEL_FD }];
    let namespaces = spec.layers.has(Layer::Namespaces);
    let parent = (!namespaces).then(rustix::process::getpid);
    child::confine(&mut command, parent, &inherit, Limits::of(spec)?);
    clone::spawn(&mut command, namespaces, serial)
}

fn kind(status: &WaitIdStatus) -> ExitKind {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitKind::Code(code),
        (None, Some(signal)) => ExitKind::Signal(signal),
        (None, None) => ExitKind::Code(-1),
    }
}
