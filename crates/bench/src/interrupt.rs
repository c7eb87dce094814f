//! The bench is stopped by a signal: its servers must not stay.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

/// The children that are alive, and not yet reaped, so that their numbers are theirs.
static CHILDREN: Mutex<Vec<u32>> = Mutex::new(Vec::new());
/// What a program exits with that was ended by a signal: this and the signal's number.
const EXIT_SIGNALLED: i32 = 128;

fn children() -> MutexGuard<'static, Vec<u32>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child that is to end with this program.
pub(crate) fn remember(pid: u32) {
    children().push(pid);
}

/// A child that is about to be reaped.
pub(crate) fn forget(pid: u32) {
    children().retain(|child| *child != pid);
}

/// From now on SIGINT, SIGTERM and SIGHUP end the children, and then this program.
pub(crate) fn end_children_on_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let [interrupt, terminate, hangup] =
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(|kind| {
            let _context = runtime.enter();
            signal(kind)
        });
    let (mut interrupt, mut terminate, mut hangup) = (interrupt?, terminate?, hangup?);
    let wait = move || {
        let number = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
                _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
                _ = hangup.recv() => SignalKind::hangup().as_raw_value(),
            }
        });
        // Held to the end: no child is made that this does not see.
        let children = children();
        for pid in children.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
        std::process::exit(EXIT_SIGNALLED + number);
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(wait).context("no thread for signals")?;
    Ok(())
}
