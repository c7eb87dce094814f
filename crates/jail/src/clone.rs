//! Makes a process in namespaces of its own, in one call.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus};

use crate::cgroup::{Group, Version};
use crate::lockdown::NOBODY;

/// Every namespace a worker is born with. That of control groups comes after it is in its group, which is its root then.
const NAMESPACES: libc::c_int = libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWNS;
/// The host's users that workers of a server that is root become: none of them owns anything.
const FIRST_HOST_USER: u32 = 200_000;
const HOST_USERS: u64 = 100_000;
/// The child starts in the group of `clone_args.cgroup` (`linux/sched.h`); the C library has no name for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// What a child exits with that could not become what it should.
const EXIT_FAILED: libc::c_int = 127;

/// A process made here, which nobody else may reap.
#[derive(Debug)]
pub(crate) struct Cloned {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
}

impl Cloned {
    /// How it ended, if it has.
    pub(crate) fn try_wait(&self) -> io::Result<Option<WaitIdStatus>> {
        self.wait_with(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    /// Ends it and forgets it.
    pub(crate) fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(self.pidfd.as_fd(), Signal::KILL);
        let _ = self.wait_with(WaitIdOptions::EXITED);
    }

    pub(crate) fn wait_with(&self, options: WaitIdOptions) -> io::Result<Option<WaitIdStatus>> {
        Ok(rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options))?)
    }
}

/// Runs `command` in a child, in namespaces of its own and in a group if wanted. Returns when it has been executed, or why
/// not.
///
/// The caller must be the only thread of its process. `serial` tells children apart.
pub(crate) fn spawn(command: &mut Command, namespaces: bool, group: Option<&Group>, serial: u64) -> io::Result<Cloned> {
    use std::os::unix::process::CommandExt;
    // It comes back only if it failed; exec closes the pipe by which that is told.
    fork(namespaces, group, serial, || Err(command.exec()), || None)
}

/// Forks a child, in namespaces of its own and in a group if wanted, that does `settle` and then `work`. Returns when it has settled, or
/// why not. `work` runs with whatever this process has loaded; it must not come back to what this process was doing, and
/// does not: its answer is the child's exit code.
///
/// The caller must be the only thread of its process. `serial` tells children apart.
pub(crate) fn fork(
    namespaces: bool,
    group: Option<&Group>,
    serial: u64,
    settle: impl FnOnce() -> io::Result<()>,
    work: impl FnOnce() -> Option<libc::c_int>,
) -> io::Result<Cloned> {
    let (mut complaint, mut complain) = pipe()?;
    let child = clone(namespaces, group, serial, || {
        if let Err(error) = settle() {
            let _ = complain.write_all(&error.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes());
            return None;
        }
        // Its end says that all went well.
        drop(complain);
        work()
    })?;
    let mut number = [0; 4];
    match complaint.read_exact(&mut number) {
        // The end of the pipe without a word: it went well, or the child died before it could complain.
        Err(_) => Ok(child),
        Ok(()) => {
            child.kill();
            Err(io::Error::from_raw_os_error(i32::from_ne_bytes(number)))
        }
    }
}

/// Makes a child that runs `body` and exits with what it answers, or with [`EXIT_FAILED`]. It waits until it is in its
/// group and its users are mapped, and never runs anything if this process dies before.
pub(crate) fn clone(
    namespaces: bool,
    group: Option<&Group>,
    serial: u64,
    body: impl FnOnce() -> Option<libc::c_int>,
) -> io::Result<Cloned> {
    let (mut ready, mut go) = pipe()?;
    let mut pidfd: libc::c_int = -1;
    let flags = libc::CLONE_PIDFD | if namespaces { NAMESPACES } else { 0 };
    // SAFETY: all zeroes is a valid value: no stack, no thread-local storage, no set of ids.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags.cast_unsigned().into();
    arguments.pidfd = (&raw mut pidfd) as u64;
    arguments.exit_signal = libc::SIGCHLD.cast_unsigned().into();
    if let Some(address) = thread_id_address() {
        arguments.flags |= u64::from((libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID).cast_unsigned());
        arguments.child_tid = address;
    }
    // Born in its group, which costs next to nothing; into one of version 1 a process can only be moved.
    let birthplace = match group.filter(|group| group.version == Version::V2) {
        Some(group) => Some(open_directory(&group.memory)?),
        None => None,
    };
    if let Some(directory) = &birthplace {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::try_from(directory.as_raw_fd()).map_err(io::Error::other)?;
    }
    // SAFETY: without CLONE_VM the child has a copy of this memory and returns here like after a fork. This process has
    // one thread, so no lock is held by a thread the child does not have.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        drop(go);
        let mut word = [0];
        let told = ready.read_exact(&mut word).is_ok() && (!namespaces || enter_cgroup_namespace().is_ok());
        // A panic must not unwind into what the parent was doing: this is the child.
        let code = std::panic::catch_unwind(AssertUnwindSafe(|| if told { body() } else { None }));
        let code = code.ok().flatten();
        // SAFETY: ends the process without running what the parent registered for its own end.
        unsafe { libc::_exit(code.unwrap_or(EXIT_FAILED)) }
    }
    // SAFETY: the kernel wrote a new descriptor there, closed by exec, which nobody else knows.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let child = Cloned { pid: i32::try_from(pid).map_err(io::Error::other)?, pidfd };
    drop(ready);
    let adopted = match group.filter(|_| birthplace.is_none()) {
        Some(group) => group.adopt(child.pid),
        None => Ok(()),
    };
    let mapped = || if namespaces { map_users(child.pid, serial) } else { Ok(()) };
    if let Err(error) = adopted.and_then(|()| mapped()).and_then(|()| go.write_all(&[1])) {
        child.kill();
        return Err(error);
    }
    Ok(child)
}

/// Where the C library keeps the number of this thread, as it told the kernel when the process began. Its own `fork` has
/// the kernel write the child's number there; so do we, or locks that know their owner would know the wrong one.
/// `None` where the kernel was built without the question; then nothing here needs such a lock.
fn thread_id_address() -> Option<u64> {
    let mut address: u64 = 0;
    // SAFETY: writes one pointer to a local that is as large.
    let asked = unsafe { libc::prctl(libc::PR_GET_TID_ADDRESS, &raw mut address, 0, 0, 0) };
    (asked == 0 && address != 0).then_some(address)
}

/// Says who the users inside are outside: user 0 is the server's; where that is root, user 1 is one that owns nothing,
/// and another one for each worker.
fn map_users(pid: i32, serial: u64) -> io::Result<()> {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let write = |file: &str, text: &str| std::fs::write(format!("/proc/{pid}/{file}"), text);
    if user == 0 {
        let other = FIRST_HOST_USER + u32::try_from(serial % HOST_USERS).unwrap_or(0);
        let maps = |own: u32| format!("0 {own} 1\n{NOBODY} {other} 1\n");
        if write("uid_map", &maps(user)).and_then(|()| write("gid_map", &maps(group))).is_ok() {
            return Ok(());
        }
        // Root in a namespace that has no other users.
    }
    write("setgroups", "deny")?;
    write("uid_map", &format!("0 {user} 1\n"))?;
    write("gid_map", &format!("0 {group} 1\n"))
}

/// Makes the group this process is in the root of all that it sees.
fn enter_cgroup_namespace() -> io::Result<()> {
    // SAFETY: takes an integer; this flag shares nothing that other code relies on.
    if unsafe { libc::unshare(libc::CLONE_NEWCGROUP) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn pipe() -> io::Result<(std::fs::File, std::fs::File)> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    Ok((reader.into(), writer.into()))
}
