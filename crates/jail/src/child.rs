//! What happens between fork and exec, or between fork and the worker's body, in the child.
//!
//! After a fork of a process with threads only async-signal-safe things are allowed: raw system calls on values prepared before. No allocation,
//! no lock, no panic.

use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustix::thread::CpuSet;

use crate::message::WorkerSpec;

/// A descriptor and the number the child is to find it at. No descriptor of the parent that matters in the child may
/// have that number: neither another one to inherit nor the pipe through which `Command` hears of a failed exec.
#[derive(Clone, Copy)]
pub(crate) struct Inherit {
    pub(crate) fd: RawFd,
    pub(crate) number: RawFd,
}

impl Inherit {
    /// `fd` under its own number.
    pub(crate) fn in_place(fd: RawFd) -> Self {
        Self { fd, number: fd }
    }
}

/// Limits set in the child, computed before the fork.
#[derive(Default)]
pub(crate) struct Limits {
    cpus: Option<CpuSet>,
    nice: i32,
    address_space_bytes: Option<u64>,
    file_bytes: Option<u64>,
}

impl Limits {
    pub(crate) fn of(spec: &WorkerSpec) -> io::Result<Self> {
        Ok(Self {
            cpus: if spec.cpus.is_empty() { None } else { Some(cpu_set(&spec.cpus)?) },
            nice: i32::from(spec.nice),
            address_space_bytes: spec.address_space_bytes,
            file_bytes: spec.file_bytes,
        })
    }
}

/// The kernel's form of a set of processors.
pub(crate) fn cpu_set(cpus: &[usize]) -> io::Result<CpuSet> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        if *cpu >= CpuSet::MAX_CPU {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("there is no processor {cpu}")));
        }
        set.set(*cpu);
    }
    Ok(set)
}

/// How a child notices that this process has ended.
#[derive(Clone, Copy)]
pub(crate) enum Tie {
    /// The kernel ends it. With this process's id; none where the child cannot see it, because it has process ids of its
    /// own, and made sure otherwise that it still lives.
    Kill(Option<Pid>),
    /// By itself, when its socket closes: it has something to clear up.
    Socket,
}

/// Arranges that the child of `command` ends with this process, has a session of its own, no descriptors but the
/// standard three and `inherit`, and the limits.
pub(crate) fn confine(command: &mut Command, tie: Tie, inherit: &[Inherit], limits: Limits) {
    let inherit = inherit.to_vec();
    let steps = move || -> io::Result<()> {
        settle(tie, &limits)?;
        // Everything else this process happens to hold is closed by exec. First, because `dup2` below clears the mark
        // of what is to stay.
        close_from(FIRST_FREE_FD, libc::CLOSE_RANGE_CLOEXEC)?;
        inherit.iter().try_for_each(|Inherit { fd, number }| place(*fd, *number))
    };
    // SAFETY: `steps` only makes system calls on values captured above; it neither allocates nor locks (an `io::Error`
    // from an errno or a kind holds no heap memory).
    unsafe { command.pre_exec(steps) };
}

/// Does for a fork that goes on as it is what [`confine`] and an exec do: `inherit` in their places, nothing else open.
/// Descriptors that Rust values of the parent own are closed or replaced, so the child must never come back to them.
pub(crate) fn become_worker(tie: Tie, inherit: &[Inherit], limits: &Limits) -> io::Result<()> {
    settle(tie, limits)?;
    inherit.iter().try_for_each(|Inherit { fd, number }| place(*fd, *number))
}

/// Closes every descriptor from the one after `last`.
pub(crate) fn close_after(last: RawFd) -> io::Result<()> {
    close_from(last.unsigned_abs() + 1, 0)
}

/// Arranges that this child ends with its parent, has a session of its own and the limits.
fn settle(tie: Tie, limits: &Limits) -> io::Result<()> {
    // Its own session: a Ctrl-C at the server's terminal is the server's to handle, and the kernel's autogrouping
    // then shares processors by worker, not by thread.
    rustix::process::setsid()?;
    if let Tie::Kill(parent) = tie {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above; then nobody would send the signal.
        if parent.is_some() && rustix::process::getppid() != parent {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
    }
    // A core dump would write tenants' data to the disk.
    lower(Resource::Core, 0)?;
    if let Some(bytes) = limits.address_space_bytes {
        lower(Resource::As, bytes)?;
    }
    if let Some(bytes) = limits.file_bytes {
        lower(Resource::Fsize, bytes)?;
        // The signal at the limit would kill; ignored, the write fails and whoever writes can say so.
        // SAFETY: sets a disposition of this child, which runs no handler of its own; exec keeps it.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    }
    if let Some(cpus) = &limits.cpus {
        rustix::thread::sched_setaffinity(None, cpus)?;
    }
    if limits.nice != 0 {
        rustix::process::nice(limits.nice)?;
        give_way(limits.nice);
    }
    Ok(())
}

/// Puts `fd` at `number`, where it survives an exec.
fn place(fd: RawFd, number: RawFd) -> io::Result<()> {
    // SAFETY: both calls take integers only. `fd` is open (its owner lives in the parent's frame until the child has
    // exec'ed, or for good), and `number` is a descriptor of this child that no Rust value of it will use.
    let result = unsafe { if fd == number { libc::fcntl(fd, libc::F_SETFD, 0) } else { libc::dup2(fd, number) } };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Where the kernel groups processes by session, a nice value only counts within the session; the session has its own.
/// That is a convenience of the kernel's that few servers have on, so nothing depends on it.
fn give_way(nice: i32) {
    let Ok(file) = rustix::fs::open("/proc/self/autogroup", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) else {
        return;
    };
    // Written without the heap, and without a leading zero, which would make it octal.
    let digits = [nice.clamp(0, 19) / 10, nice.clamp(0, 19) % 10].map(|digit| b'0' + digit as u8);
    let _ = match &digits {
        [b'0', ones] => rustix::io::write(&file, &[*ones]),
        both => rustix::io::write(&file, both),
    };
}

/// The first descriptor after the standard three.
const FIRST_FREE_FD: libc::c_uint = 3;

/// Sets a limit, at most to what the hard limit allows.
fn lower(resource: Resource, wanted: u64) -> io::Result<()> {
    let hard = rustix::process::getrlimit(resource).maximum;
    let limit = hard.map_or(wanted, |hard| hard.min(wanted));
    Ok(rustix::process::setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?)
}

/// Closes every descriptor from this one on; at exec, if `flags` says so.
fn close_from(first: libc::c_uint, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: `close_range` takes three integers. What it closes now is closed in a child that never comes back to the
    // values that own it: see `become_worker`.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
