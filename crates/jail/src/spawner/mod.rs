//! The spawner: a loop over requests and ends. Its server side is in [`server_side`].

pub(crate) mod server_side;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags};
use rustix::process::WaitIdStatus;

use crate::cgroup::{Group, Groups};
use crate::child::{self, Inherit, Limits, Tie};
use crate::clone::{self, Cloned};
use crate::exits::{Exit, ExitKind};
use crate::layers::{Layer, Layers};
use crate::message::{Answer, GREETING, MAX_CPUS, SpawnRequest, WorkerSpec, WorkerStart};
use crate::packet::{self, RecvError};
use crate::probe;

/// What keeps the engine's library from phoning home.
const TELEMETRY_OFF: (&str, &str) = ("ORT_DISABLE_TELEMETRY", "1");
/// The most workers alive at once.
const MAX_WORKERS: usize = 4096;

/// How long the spawner may take to clear up when the server is gone, seconds. Then it ends, and its workers with it.
const END_LIMIT_S: libc::c_uint = 1;
/// How soon the removal of a group is tried again with which the kernel was still busy.
const SWEEP_AGAIN: rustix::time::Timespec = rustix::time::Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

struct Running {
    serial: u64,
    child: Cloned,
    group: Option<Group>,
}

impl Running {
    /// What is to be said of its end.
    fn exit(&self, status: &WaitIdStatus) -> Exit {
        let counters = self.group.as_ref().map(Group::counters).unwrap_or_default();
        Exit {
            pid: self.child.pid,
            serial: self.serial,
            status: kind(status),
            oom_kills: counters.oom_kills,
            memory_peak_bytes: counters.memory_peak_bytes,
        }
    }
}

/// What a spawner needs to be a zygote: how its workers do what an executed one would.
#[derive(Debug, Clone, Copy)]
pub struct Zygote {
    /// Loads the engine's library into this process. Must start no thread; called before every fork, so the second time
    /// it should find it loaded. The error is for the operator.
    pub prepare: fn(library: &Path) -> Result<(), String>,
    /// The body of a worker, in the fork; answers its exit code.
    pub work: fn(library: &Path, layers: Layers) -> u8,
}

/// The body of `tenantry-worker spawner CONTROL EXITS`: starts workers and relays their ends until the server is gone.
/// The two arguments are the descriptors of its sockets.
///
/// Single-threaded by construction: the kernel ties the workers' lives to this thread's.
pub fn spawner_main() -> ExitCode {
    serve(None)
}

/// Like [`spawner_main`], for a program that can also be forked. It becomes a zygote with the first worker that is to be
/// made so, and has seen nothing of any tenant by then, nor will it ever: models and requests go to the workers.
pub fn zygote_main(zygote: Zygote) -> ExitCode {
    serve(Some(zygote))
}

fn serve(zygote: Option<Zygote>) -> ExitCode {
    let sockets: Vec<OwnedFd> = std::env::args().skip(2).filter_map(|number| inherited(&number)).collect();
    let Ok([control, exits]) = <[OwnedFd; 2]>::try_from(sockets) else {
        eprintln!("this command is run by the server; there is nothing to do with it by hand");
        return ExitCode::FAILURE;
    };
    match run(control.as_fd(), exits.as_fd(), zygote) {
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

fn run(control: BorrowedFd<'_>, exits: BorrowedFd<'_>, zygote: Option<Zygote>) -> io::Result<()> {
    // The workers must not inherit them.
    for socket in [control, exits] {
        rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::CLOEXEC)?;
    }
    rustix::io::ioctl_fionbio(exits, true)?;
    // Held so that nothing else gets the number the workers' channels are placed at.
    let _reserved = rustix::io::fcntl_dupfd_cloexec(control, crate::WORKER_CHANNEL_FD)?;
    let mut groups = Groups::open();
    let barriers = probe::probe(&mut groups);
    let has_freezer = groups.as_ref().is_ok_and(Groups::has_freezer);
    packet::send(control, &Answer::Greeting(GREETING, barriers, has_freezer), &[])?;
    let mut running: Vec<Running> = Vec::new();
    // Ends not yet relayed, because the server was slow to read. At most one a worker; new workers wait for room.
    let mut ended: VecDeque<Exit> = VecDeque::new();
    loop {
        let unswept = groups.as_mut().is_ok_and(Groups::sweep);
        let (request, readable) = wait(control, exits, &running, !ended.is_empty(), unswept)?;
        // From the back, so that removing one moves none still to be looked at.
        for index in readable.into_iter().rev() {
            let Some(worker) = running.get_mut(index) else { continue };
            if let Some(status) = worker.child.try_wait()? {
                let worker = running.swap_remove(index);
                ended.push_back(worker.exit(&status));
                if let (Ok(groups), Some(group)) = (&mut groups, worker.group) {
                    groups.leave(group);
                }
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
                    let groups = groups.as_ref().ok();
                    let spawned = match (room, spec.start) {
                        (false, _) => Err(io::ErrorKind::QuotaExceeded.into()),
                        (true, WorkerStart::Exec) => spawn(&spec, serial, fds, groups),
                        (true, WorkerStart::Zygote) => fork(zygote, &spec, serial, fds, groups),
                    };
                    match spawned {
                        Ok((child, group)) => {
                            let answer = Answer::Spawned { pid: child.pid, group: group.clone() };
                            packet::send(control, &answer, &[child.pidfd.as_fd()])?;
                            running.push(Running { serial, child, group });
                        }
                        Err(error) => {
                            packet::send(control, &Answer::Refused { reason: error.to_string() }, &[])?;
                        }
                    }
                }
                // The server is gone, or has dropped its handle.
                Err(RecvError::Closed) => {
                    end(running, groups.ok());
                    return Ok(());
                }
                Err(RecvError::WouldBlock) => {}
                Err(RecvError::Io(error)) => return Err(error),
            }
        }
    }
}

/// Ends every worker and removes the groups.
fn end(running: Vec<Running>, mut groups: Option<Groups>) {
    // SAFETY: takes an integer. Nobody handles the signal, so that it ends this process if something below hangs.
    unsafe { libc::alarm(END_LIMIT_S) };
    for worker in &running {
        let _ = rustix::process::pidfd_send_signal(worker.child.pidfd.as_fd(), rustix::process::Signal::KILL);
        // One that is frozen has to be let go, or it would not end.
        if let Some(group) = &worker.group {
            group.kill_all();
        }
    }
    for Running { child, group, .. } in running {
        child.kill();
        if let (Some(groups), Some(group)) = (&mut groups, group) {
            groups.leave(group);
        }
    }
}

/// Waits for something to do: whether there is a request, and which workers have ended.
fn wait(
    control: BorrowedFd<'_>,
    exits: BorrowedFd<'_>,
    running: &[Running],
    relaying: bool,
    unswept: bool,
) -> io::Result<(bool, Vec<usize>)> {
    let exit_events = if relaying { PollFlags::OUT } else { PollFlags::empty() };
    let mut polled = Vec::with_capacity(running.len() + 2);
    polled.push(PollFd::from_borrowed_fd(control, PollFlags::IN));
    polled.push(PollFd::from_borrowed_fd(exits, exit_events));
    polled.extend(running.iter().map(|worker| PollFd::from_borrowed_fd(worker.child.pidfd.as_fd(), PollFlags::IN)));
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, unswept.then_some(&SWEEP_AGAIN)))?;
    let mut polled = polled.iter().map(|fd| !fd.revents().is_empty());
    let request = polled.next().unwrap_or(false);
    let _ = polled.next();
    let readable = polled.enumerate().filter(|(_, ready)| *ready).map(|(index, _)| index).collect();
    Ok((request, readable))
}

/// The worker's channel and its stderr.
fn ends(spec: &WorkerSpec, fds: Vec<OwnedFd>) -> io::Result<[OwnedFd; 2]> {
    if spec.cpus.len() > MAX_CPUS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(<[OwnedFd; 2]>::try_from(fds).map_err(|_| io::ErrorKind::InvalidInput)?)
}

/// It dies with this process, which it can see as its parent if it has no process ids of its own.
fn tie(spec: &WorkerSpec) -> Tie {
    Tie::Kill((!spec.layers.has(Layer::Namespaces)).then(rustix::process::getpid))
}

/// Makes a worker, in a group of its own if it is to have one.
fn in_group(
    spec: &WorkerSpec,
    serial: u64,
    groups: Option<&Groups>,
    make: impl FnOnce(Option<&Group>) -> io::Result<Cloned>,
) -> io::Result<(Cloned, Option<Group>)> {
    let group = match groups.filter(|_| spec.layers.has(Layer::Cgroup)) {
        Some(groups) => Some(groups.make(serial, &spec.group)?),
        None => None,
    };
    match make(group.as_ref()) {
        Ok(child) => Ok((child, group)),
        Err(error) => {
            // Empty: the child never was in it, or has been reaped.
            let _ = group.map(|group| group.remove());
            Err(error)
        }
    }
}

/// Makes a worker of a copy of this process.
fn fork(
    zygote: Option<Zygote>,
    spec: &WorkerSpec,
    serial: u64,
    fds: Vec<OwnedFd>,
    groups: Option<&Groups>,
) -> io::Result<(Cloned, Option<Group>)> {
    let [channel, stderr] = ends(spec, fds)?;
    let zygote = zygote.ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "this spawner is no zygote"))?;
    // The library reads it when it is loaded; workers that are executed find it in their environment.
    // SAFETY: this process has one thread, so nobody reads the environment meanwhile.
    unsafe { std::env::set_var(TELEMETRY_OFF.0, TELEMETRY_OFF.1) };
    (zygote.prepare)(&spec.runtime_library).map_err(io::Error::other)?;
    let nothing = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    let inherit = [
        Inherit { fd: nothing.as_raw_fd(), number: libc::STDIN_FILENO },
        Inherit { fd: nothing.as_raw_fd(), number: libc::STDOUT_FILENO },
        Inherit { fd: stderr.as_raw_fd(), number: libc::STDERR_FILENO },
        Inherit { fd: channel.as_raw_fd(), number: crate::WORKER_CHANNEL_FD },
    ];
    let limits = Limits::of(spec)?;
    let tie = tie(spec);
    let settle = || child::become_worker(tie, &inherit, &limits);
    let work = || {
        // The spawner's sockets and its handles on the other workers go before anything of a tenant comes.
        child::close_after(crate::WORKER_CHANNEL_FD).ok()?;
        Some((zygote.work)(&spec.runtime_library, spec.layers).into())
    };
    let namespaces = spec.layers.has(Layer::Namespaces);
    in_group(spec, serial, groups, |group| clone::fork(namespaces, group, serial, settle, work))
}

/// Makes a worker by executing this binary anew.
fn spawn(
    spec: &WorkerSpec,
    serial: u64,
    fds: Vec<OwnedFd>,
    groups: Option<&Groups>,
) -> io::Result<(Cloned, Option<Group>)> {
    let [channel, stderr] = ends(spec, fds)?;
    // This very binary, even if another has taken its place on the disk since the server started.
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["work", "--runtime"])
        .arg(&spec.runtime_library)
        .args(["--layers", &spec.layers.bits().to_string()])
        .env_clear()
        .env(TELEMETRY_OFF.0, TELEMETRY_OFF.1)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::from(stderr));
    let inherit = [Inherit { fd: channel.as_raw_fd(), number: crate::WORKER_CHANNEL_FD }];
    let namespaces = spec.layers.has(Layer::Namespaces);
    child::confine(&mut command, tie(spec), &inherit, Limits::of(spec)?);
    in_group(spec, serial, groups, |group| clone::spawn(&mut command, namespaces, group, serial))
}

fn kind(status: &WaitIdStatus) -> ExitKind {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitKind::Code(code),
        (None, Some(signal)) => ExitKind::Signal(signal),
        (None, None) => ExitKind::Code(-1),
    }
}
