//! The system calls of all workers of a spawner.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

thread_local! {
    static ORDERS: RefCell<Option<(mpsc::Sender<Pid>, mpsc::Receiver<()>)>> = const { RefCell::new(None) };
}

/// What workers ask the kernel for behind their filters while `live` runs, which tells of a spawner by [`trace`].
pub(crate) fn calls_of_workers(live: impl FnOnce()) -> BTreeSet<i64> {
    let (order, orders) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    // Whoever attaches must be who waits and reads, and the thread that starts the spawner must not be held up by it.
    let tracer = std::thread::spawn(move || {
        let spawner = orders.recv().unwrap();
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACEEXEC;
        if let Err(error) = ptrace::seize(spawner, options) {
            panic!("this test needs to be allowed to trace its own children: {error}");
        }
        tell.send(()).unwrap();
        follow()
    });
    ORDERS.set(Some((order, told)));
    live();
    tracer.join().unwrap()
}

/// Traces this spawner and all it will start.
pub(crate) fn trace(spawner: u32) {
    ORDERS.with_borrow(|orders| {
        let (order, told) = orders.as_ref().unwrap();
        order.send(Pid::from_raw(spawner.cast_signed())).unwrap();
        told.recv().unwrap();
    });
}

/// Until the last traced process has ended.
fn follow() -> BTreeSet<i64> {
    // By thread; what the filter's last part was followed by is what counts.
    let mut calls: BTreeMap<Pid, BTreeSet<i64>> = BTreeMap::new();
    loop {
        let (stopped, signal) = match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Err(Errno::ECHILD) => break,
            Err(Errno::EINTR) => continue,
            Err(error) => panic!("{error}"),
            Ok(WaitStatus::PtraceSyscall(pid)) => {
                if let Ok(registers) = ptrace::getregs(pid) {
                    let number = registers.orig_rax.cast_signed();
                    if number == libc_seccomp() {
                        calls.insert(pid, BTreeSet::new());
                    } else if let Some(calls) = calls.get_mut(&pid) {
                        calls.insert(number);
                    }
                }
                (pid, None)
            }
            Ok(WaitStatus::PtraceEvent(pid, ..)) => {
                // A thread is started behind the filter; a process puts up its own.
                if is_thread(pid) {
                    calls.entry(pid).or_default();
                }
                (pid, None)
            }
            Ok(WaitStatus::Stopped(pid, signal)) => (pid, Some(signal)),
            Ok(_) => continue,
        };
        // It may have been killed meanwhile.
        let _ = ptrace::syscall(stopped, signal);
    }
    calls.into_values().flatten().collect()
}

/// The number of seccomp(2), which a worker makes before it may not any more.
fn libc_seccomp() -> i64 {
    nix::libc::SYS_seccomp
}

fn is_thread(pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let group = status.lines().find_map(|line| line.strip_prefix("Tgid:")).map(str::trim);
    group.is_some_and(|group| group != pid.to_string())
}
