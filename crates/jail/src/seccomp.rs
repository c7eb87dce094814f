//! The system calls a worker may make once it is locked down.
//!
//! Three lists: what is allowed whatever its arguments, what is allowed with some arguments, and what is refused with an
//! error because the C library or the runtime copes with one. Anything else ends the process. Each entry has its reason.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// Its number, its name and why it is in the list.
type Entry = (libc::c_long, &'static str, &'static str);

macro_rules! calls {
    ($($name:ident: $reason:literal,)*) => { &[$((libc::$name, stringify!($name), $reason)),*] };
}

/// Allowed with any arguments.
const ALLOWED: &[Entry] = calls! {
    SYS_read: "files below /proc, wake-ups of the runtime",
    SYS_write: "standard error, a descriptor of an optimised model",
    SYS_readv: "the C library's form of read",
    SYS_writev: "the C library's form of write, for standard error",
    SYS_pread64: "the runtime reads external data and its own descriptors at offsets",
    SYS_pwrite64: "the runtime writes an optimised model at offsets",
    SYS_lseek: "reading and writing an optimised model",
    SYS_close: "descriptors of a replica that is unloaded",
    SYS_fstat: "the size of a file that was given",
    SYS_newfstatat: "the C++ library looks at a path before it opens it; there are none but its own",
    SYS_statx: "the same, as Rust's library asks it",
    SYS_ftruncate: "the size of an optimised model",
    SYS_openat: "files below /proc about itself; no other path exists, and Landlock refuses it",
    SYS_readlinkat: "the runtime resolves the paths of external data",
    SYS_faccessat: "the runtime asks whether a path exists",
    SYS_faccessat2: "the same, in newer libraries",
    SYS_getcwd: "the runtime makes paths absolute",
    SYS_munmap: "the heap, and models that are unloaded",
    SYS_mremap: "the heap grows large blocks",
    SYS_brk: "the heap",
    SYS_madvise: "the heap gives memory back",
    SYS_futex: "locks, the runtime's threads, the node's word that a run is to end",
    SYS_sched_yield: "the runtime's threads spin before they sleep",
    SYS_sched_getaffinity: "the runtime counts processors",
    SYS_nanosleep: "the runtime's threads wait between tries",
    SYS_clock_nanosleep: "the same, in newer C libraries",
    SYS_clock_gettime: "time, where the kernel maps no code for it",
    SYS_clock_getres: "the resolution of that time",
    SYS_gettimeofday: "time, in older code",
    SYS_times: "the processor time it used",
    SYS_getrusage: "the memory and time it used",
    SYS_getrandom: "seeds of hash tables",
    SYS_ppoll: "waits for the node's next frame",
    SYS_sendmsg: "a frame to the node",
    SYS_sendto: "a frame to the node without descriptors",
    SYS_recvmsg: "a frame from the node",
    SYS_recvfrom: "a frame from the node without descriptors",
    SYS_exit: "a thread ends",
    SYS_exit_group: "the process ends",
    SYS_rt_sigaction: "threads and aborts of the C library",
    SYS_rt_sigprocmask: "starting a thread",
    SYS_rt_sigreturn: "the end of a signal handler",
    SYS_sigaltstack: "Rust's threads have a stack for the handler that tells of an overflow",
    SYS_restart_syscall: "the kernel restarts a wait when a suspended worker is resumed",
    SYS_set_robust_list: "starting a thread",
    SYS_rseq: "starting a thread",
    SYS_set_tid_address: "starting a thread in some C libraries",
    SYS_gettid: "locks, and aborts of the C library",
    SYS_getpid: "aborts of the C library",
    SYS_getuid: "looks at itself; says nothing of the host",
    SYS_geteuid: "as getuid",
    SYS_getgid: "as getuid",
    SYS_getegid: "as getuid",
    SYS_membarrier: "the runtime's threads",
    SYS_dup: "a descriptor of the optimised model is copied",
};

/// The same, which exist on this processor only.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[Entry] = calls! {
    SYS_stat: "the runtime's older library calls",
    SYS_lstat: "the runtime checks the paths of external data",
    SYS_readlink: "the runtime resolves the paths of external data",
    SYS_access: "the runtime asks whether a path exists",
    SYS_open: "the older form of openat",
    SYS_poll: "waits for the node's next frame",
    SYS_time: "time, in older code",
    SYS_arch_prctl: "thread-local storage and processor features are asked for",
};
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[Entry] = &[];

/// Refused with an error that the caller copes with.
const REFUSED: &[(Entry, i32)] = &[
    (
        (
            libc::SYS_clone3,
            "SYS_clone3",
            "its flags lie in memory no filter can read: the C library falls back to clone",
        ),
        libc::ENOSYS,
    ),
    ((libc::SYS_socket, "SYS_socket", "name lookups of libraries fail quietly"), libc::EACCES),
    ((libc::SYS_ioctl, "SYS_ioctl", "the C library asks whether standard error is a terminal"), libc::ENOTTY),
    ((libc::SYS_sysinfo, "SYS_sysinfo", "shows the host's memory and load; callers guess"), libc::ENOSYS),
    ((libc::SYS_uname, "SYS_uname", "shows the host's kernel; callers do without"), libc::ENOSYS),
    (
        (
            libc::SYS_sched_setaffinity,
            "SYS_sched_setaffinity",
            "would leave the slot's processors; the runtime goes on",
        ),
        libc::EPERM,
    ),
    (
        (libc::SYS_sched_setscheduler, "SYS_sched_setscheduler", "would outrank others; the runtime goes on"),
        libc::EPERM,
    ),
    (
        (libc::SYS_sched_getscheduler, "SYS_sched_getscheduler", "asked for by threads that want to outrank others"),
        libc::EPERM,
    ),
    ((libc::SYS_sched_getparam, "SYS_sched_getparam", "as sched_getscheduler"), libc::EPERM),
    ((libc::SYS_setpriority, "SYS_setpriority", "would outrank others"), libc::EPERM),
    ((libc::SYS_mlock, "SYS_mlock", "memory stays the kernel's to manage"), libc::EPERM),
    ((libc::SYS_mbind, "SYS_mbind", "memory stays the kernel's to place"), libc::EPERM),
    ((libc::SYS_get_mempolicy, "SYS_get_mempolicy", "the same; the runtime goes on"), libc::EPERM),
    ((libc::SYS_mkdirat, "SYS_mkdirat", "the runtime would make a folder for a cache"), libc::EPERM),
    ((libc::SYS_unlinkat, "SYS_unlinkat", "clean-up of files that cannot exist"), libc::EPERM),
    ((libc::SYS_getdents64, "SYS_getdents64", "there is no directory worth listing"), libc::EPERM),
];

/// `PR_GET_AUXV`: a copy of its own auxiliary vector, which holds the size of a page.
const PR_GET_AUXV: i64 = 0x4155_5856;
const THREAD_FLAGS: u64 = (libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD) as u64;
/// The flags of clone that make a namespace. (That of time namespaces means the signal here, and makes none.)
const NAMESPACE_FLAGS: u64 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP) as u64;

fn argument(index: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Qword, op, value)
}

/// Allowed if one of the rules holds; with the reason.
fn conditional() -> Result<Vec<(Entry, Vec<SeccompRule>)>, seccompiler::BackendError> {
    use SeccompCmpOp::{Eq, MaskedEq};
    let only = |index: u8, values: &[i64]| -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        values
            .iter()
            .map(|value| {
                SeccompRule::new(vec![SeccompCondition::new(index, SeccompCmpArgLen::Dword, Eq, *value as u64)?])
            })
            .collect()
    };
    let not_executable = || -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        Ok(vec![SeccompRule::new(vec![argument(2, MaskedEq(libc::PROT_EXEC as u64), 0)?])?])
    };
    let own_process = std::process::id();
    Ok(vec![
        ((libc::SYS_mmap, "SYS_mmap", "memory, never executable"), not_executable()?),
        ((libc::SYS_mprotect, "SYS_mprotect", "guard pages of threads, never executable"), not_executable()?),
        (
            (libc::SYS_clone, "SYS_clone", "a thread, never a process or a namespace"),
            vec![SeccompRule::new(vec![
                argument(0, MaskedEq(THREAD_FLAGS), THREAD_FLAGS)?,
                argument(0, MaskedEq(NAMESPACE_FLAGS), 0)?,
            ])?],
        ),
        (
            (
                libc::SYS_prctl,
                "SYS_prctl",
                "names of threads and of heap regions; the size of a page, from what the kernel said at the start",
            ),
            only(0, &[libc::PR_SET_NAME.into(), libc::PR_GET_NAME.into(), libc::PR_SET_VMA.into(), PR_GET_AUXV])?,
        ),
        (
            (libc::SYS_fcntl, "SYS_fcntl", "looks at descriptors, copies them, checks the seals of what was given"),
            only(
                1,
                &[
                    libc::F_GETFL.into(),
                    libc::F_SETFL.into(),
                    libc::F_GETFD.into(),
                    libc::F_SETFD.into(),
                    libc::F_DUPFD_CLOEXEC.into(),
                    libc::F_GET_SEALS.into(),
                    libc::F_ADD_SEALS.into(),
                ],
            )?,
        ),
        (
            (libc::SYS_prlimit64, "SYS_prlimit64", "reads limits, sets none"),
            vec![SeccompRule::new(vec![argument(2, Eq, 0)?])?],
        ),
        (
            (libc::SYS_tgkill, "SYS_tgkill", "an abort signals its own process and no other"),
            only(0, &[own_process.into()])?,
        ),
    ])
}

/// The programs of the filter; the kernel takes the strictest answer of all.
fn programs() -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    let mut allowed: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut by_error: BTreeMap<i32, BTreeMap<i64, Vec<SeccompRule>>> = BTreeMap::new();
    for (number, ..) in ALLOWED.iter().chain(ALLOWED_HERE) {
        allowed.insert(*number, Vec::new());
    }
    for ((number, ..), rules) in conditional()? {
        allowed.insert(number, rules);
    }
    for ((number, ..), error) in REFUSED {
        allowed.insert(*number, Vec::new());
        by_error.entry(*error).or_default().insert(*number, Vec::new());
    }
    let mut programs: Vec<BpfProgram> = Vec::new();
    for (error, calls) in by_error {
        let action = SeccompAction::Errno(u32::try_from(error).unwrap_or(0));
        programs.push(SeccompFilter::new(calls, SeccompAction::Allow, action, arch)?.try_into()?);
    }
    programs.push(SeccompFilter::new(allowed, SeccompAction::KillProcess, SeccompAction::Allow, arch)?.try_into()?);
    Ok(programs)
}

/// A system call that the filter does not end a worker for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemCall {
    /// Its number on this processor.
    pub number: i64,
    /// Its name, as `SYS_read`.
    pub name: &'static str,
    /// Why it is in the list.
    pub reason: &'static str,
}

/// All calls that the filter lets through or answers with an error.
pub fn system_calls() -> Vec<SystemCall> {
    let conditional = conditional().unwrap_or_default();
    let conditional = conditional.iter().map(|(entry, _)| entry);
    let refused = REFUSED.iter().map(|(entry, _)| entry);
    let entries = ALLOWED.iter().chain(ALLOWED_HERE).chain(conditional).chain(refused);
    entries.map(|(number, name, reason)| SystemCall { number: *number, name, reason }).collect()
}

/// Installs the filter for this thread and all it will start.
pub(crate) fn install() -> io::Result<()> {
    let programs = programs().map_err(|error| io::Error::other(error.to_string()))?;
    // The one that kills comes last: installing is itself a call it would not allow.
    for program in &programs {
        seccompiler::apply_filter(program).map_err(|error| io::Error::other(error.to_string()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_call_is_listed_once_and_has_its_reason() {
        let mut seen = BTreeSet::new();
        let conditional = conditional().unwrap();
        let refused = REFUSED.iter().map(|(entry, _)| entry);
        let entries =
            ALLOWED.iter().chain(ALLOWED_HERE).chain(conditional.iter().map(|(entry, _)| entry)).chain(refused);
        for (number, name, reason) in entries {
            assert!(seen.insert(*number), "{name} is listed twice");
            assert!(reason.len() >= 8, "{name} has no reason");
        }
    }

    #[test]
    fn the_filter_compiles_within_the_kernels_limit() {
        let programs = programs().unwrap();
        let instructions: usize = programs.iter().map(Vec::len).sum();
        assert!(instructions < 4096, "{instructions}");
    }
}
