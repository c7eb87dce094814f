//! Runs that the node ends before their time.
//!
//! The thread that runs models reads no frame meanwhile, so another one waits for the node's word and sets the engine's
//! flag. A run costs two uncontended locks for it, no system call and no allocation.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tenantry_engine::{LoadError, Runtime, Termination};
use tenantry_types::TaskId;
use tenantry_wire::Terminations;

/// The listener's stack: it calls into the runtime to set one flag.
const STACK_BYTES: usize = 64 << 10;

/// What the two threads share.
pub(crate) struct Current {
    pub(crate) termination: Termination,
    run: Mutex<Run>,
}

#[derive(Default)]
struct Run {
    /// What runs now.
    task: Option<TaskId>,
    /// The last task whose end was asked for. The word may overtake the frame that starts the run, which another thread
    /// reads.
    ended: Option<TaskId>,
}

impl Current {
    pub(crate) fn new(runtime: Runtime) -> Result<Arc<Self>, LoadError> {
        Ok(Arc::new(Self { termination: Termination::new(runtime)?, run: Mutex::default() }))
    }

    /// The run of `task` begins.
    pub(crate) fn begin(&self, task: TaskId) {
        let mut run = self.lock();
        run.task = Some(task);
        if run.ended == Some(task) {
            self.termination.terminate();
        }
    }

    /// Whether the end of what runs now was asked for.
    pub(crate) fn is_ended(&self) -> bool {
        let run = self.lock();
        run.task.is_some() && run.ended == run.task
    }

    /// The run is over; whether its end was asked for.
    pub(crate) fn end(&self) -> bool {
        let mut run = self.lock();
        let task = run.task.take();
        let asked = task.is_some() && run.ended == task;
        if asked {
            self.termination.clear();
        }
        asked
    }

    fn terminate(&self, task: TaskId) {
        // Under the lock, so that the flag cannot be set after the run's end, for the next run.
        let mut run = self.lock();
        run.ended = Some(task);
        if run.task == Some(task) {
            self.termination.terminate();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the listener. It ends with the node's end of the socket, at the latest with this process.
pub(crate) fn listen(current: &Arc<Current>, fd: OwnedFd) -> std::io::Result<()> {
    let current = Arc::clone(current);
    let terminations = Terminations::new(fd);
    let body = move || {
        while let Some(task) = terminations.wait() {
            current.terminate(task);
        }
    };
    std::thread::Builder::new().name("terminations".to_owned()).stack_size(STACK_BYTES).spawn(body)?;
    Ok(())
}
