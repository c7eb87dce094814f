//! One worker process as the node holds it: its socket, its arenas and what it runs now.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;
use tenantry_jail::{SuspendBy, WorkerProcess};
use tenantry_sched::{AbortCause, Phase, Task, Weights};
use tenantry_types::{
    BatchId, MonotonicTime, ReplicaId, RequestId, SlotId, TaskId, Tensor, TrustDomain, VersionId, WorkerId,
};
use tenantry_wire::{Channel, FromWorker, InputArena, OutputArena, SendError, Terminator, ToWorker};
use tokio::sync::oneshot;

use crate::claims::{self, Claim, Expectation, Expected, Job, ProtocolViolation};
use crate::config::{ARENA_IDLE, INITIAL_ARENA_BYTES};
use crate::meter::{LoadFor, Meter};
use crate::placement::Placement;
use crate::recording::Recorder;
use crate::register::{RegisterError, Registered};
use crate::submission::{Answer, ServeError};
use crate::supervisor::ModelFiles;
use crate::worker_memory::own_memory_bytes;

/// What a worker is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Holds replicas; the reconciler asked for it.
    Serving,
    /// Runs one registration, then ends.
    Registration,
}

/// Why the node itself ended a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kill {
    /// Not needed any more.
    Stopped,
    /// A run outlasted its limit.
    Overran(Duration),
    /// A run went on long after every deadline of its requests, and did not end when asked to.
    Overdue,
    /// A run did not end, or could not be asked to, when its place was needed for a reservation or its memory was: nobody's
    /// fault.
    Preempted,
    /// It broke the protocol; the text says how, without the worker's own words.
    Violation(String),
    /// It closed its socket but kept running.
    Silent,
    /// It did not say it was ready in time.
    NeverReady,
    /// It used more memory than this many bytes, and no control group bounds it.
    Memory(u64),
}

/// A worker process.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    pub(crate) domain: TrustDomain,
    pub(crate) purpose: Purpose,
    suspend_by: SuspendBy,
    process: OnceLock<WorkerProcess>,
    channel: OnceLock<Arc<Channel>>,
    terminator: OnceLock<Terminator>,
    /// The most memory it may use, bytes, if anybody says.
    pub(crate) memory_limit: OnceLock<u64>,
    /// The barriers it was started with, as bits: its first word must name the same.
    pub(crate) layers: AtomicU32,
    exec: Mutex<Exec>,
    kill: Mutex<Option<Kill>>,
}

/// What the worker runs and the memory it shares with the node.
#[derive(Debug, Default)]
pub(crate) struct Exec {
    arenas: Option<Arenas>,
    generation: u32,
    /// The one task or batch in the worker.
    pub(crate) running: Option<Running>,
    /// The process ended; nothing may be sent any more.
    pub(crate) gone: bool,
    /// On whose processors it is, where slots are pinned.
    pub(crate) slot: Option<SlotId>,
    last_run: MonotonicTime,
}

#[derive(Debug)]
struct Arenas {
    input: InputArena,
    output: OutputArena,
}

/// What a worker is busy with.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) batch: BatchId,
    /// What the worker echoes in its answer.
    pub(crate) task: TaskId,
    pub(crate) started: MonotonicTime,
    /// By what its tasks divide the time it uses, those that were cancelled before it began included.
    pub(crate) weights: Weights,
    pub(crate) phase: Phase,
    /// How much more often it was suspended than resumed; decisions may cross.
    pub(crate) stops: i32,
    /// Since when its process stands.
    pub(crate) suspended_at: Option<MonotonicTime>,
    /// How long its process stood before that.
    pub(crate) suspended: Duration,
    /// Processor time its worker has used: at its beginning all of it, after its end that of this run.
    pub(crate) cpu: Duration,
    /// Why its end was asked for.
    pub(crate) abort: Option<AbortCause>,
    pub(crate) work: Work,
}

impl Running {
    /// A run that begins, for nobody in particular.
    pub(crate) fn new(batch: BatchId, task: TaskId, started: MonotonicTime, work: Work) -> Self {
        Self {
            batch,
            task,
            started,
            weights: Weights::new(),
            phase: Phase::Shared,
            stops: 0,
            suspended_at: None,
            suspended: Duration::ZERO,
            cpu: Duration::ZERO,
            abort: None,
            work,
        }
    }

    /// How long it has held its slot: not while its process stood.
    pub(crate) fn used(&self, now: MonotonicTime) -> Duration {
        let standing = self.suspended_at.map_or(Duration::ZERO, |since| now.saturating_since(since));
        now.saturating_since(self.started).saturating_sub(self.suspended).saturating_sub(standing)
    }

    /// Ends a suspension in the books; false if there was none.
    pub(crate) fn count_suspension(&mut self, now: MonotonicTime) -> bool {
        let Some(since) = self.suspended_at.take() else { return false };
        self.suspended = self.suspended.saturating_add(now.saturating_since(since));
        true
    }
}

/// The kinds of work.
#[derive(Debug)]
pub(crate) enum Work {
    Infer { placement: Arc<Placement>, members: Vec<Request>, wanted: Vec<u16> },
    Load(Load),
    Register(Register),
}

impl Work {
    /// The version it runs; none for a file that is not one yet.
    pub(crate) fn version(&self) -> Option<VersionId> {
        match self {
            Self::Infer { placement, .. } | Self::Load(Load { placement, .. }) => Some(placement.spec.version),
            Self::Register(_) => None,
        }
    }
}

/// A request, waiting or running.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) task: Task,
    pub(crate) placement: Arc<Placement>,
    pub(crate) request: RequestId,
    pub(crate) meter: Option<Arc<dyn Meter>>,
    /// In the signature's order.
    pub(crate) inputs: Vec<Tensor>,
    /// Positions of outputs, in the order asked for.
    pub(crate) wanted: SmallVec<[u16; 4]>,
    pub(crate) submitted: MonotonicTime,
    /// Its place among the tasks of its batch.
    pub(crate) position: u32,
    /// Batches with it that ended their worker.
    pub(crate) deaths_in_company: u32,
    pub(crate) recorder: Option<Arc<Recorder>>,
    pub(crate) reply: oneshot::Sender<Result<Answer, ServeError>>,
}

impl Request {
    /// Ends the request. Nobody may be listening any more; that is no error.
    pub(crate) fn answer(self, outcome: Result<Answer, ServeError>, now: MonotonicTime) {
        self.placement.counters.answered(now);
        if let Some(recorder) = &self.recorder {
            let device_time = outcome.as_ref().ok().map(|answer| answer.timing.device_time);
            recorder.arrival(&self.task, &self.placement, self.submitted, device_time);
        }
        let _ = self.reply.send(outcome);
    }

    /// The extent of the first dimension, as batches count.
    pub(crate) fn rows(&self) -> u64 {
        u64::from(self.task.rows)
    }
}

/// A load, waiting or running.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) replica: ReplicaId,
    /// For whom.
    pub(crate) payer: LoadFor,
    pub(crate) meter: Option<Arc<dyn Meter>>,
    /// What its worker had of its own when it began, bytes.
    pub(crate) memory_before: u64,
    pub(crate) placement: Arc<Placement>,
    pub(crate) model: ModelFiles,
}

/// A registration that runs.
#[derive(Debug)]
pub(crate) struct Register {
    /// What it registers.
    pub(crate) version: VersionId,
    pub(crate) meter: Option<Arc<dyn Meter>>,
    /// Where the worker writes the optimised form.
    pub(crate) optimised: File,
    pub(crate) reply: oneshot::Sender<Result<Registered, RegisterError>>,
}

/// Why an arena could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArenaError {
    #[error("it needs {needed} bytes of shared memory; the limit is {limit}")]
    TooLarge { needed: u64, limit: u64 },
    #[error(transparent)]
    Memory(#[from] io::Error),
    #[error(transparent)]
    Send(#[from] SendError),
}

impl Worker {
    pub(crate) fn new(id: WorkerId, domain: TrustDomain, purpose: Purpose, suspend_by: SuspendBy) -> Self {
        Self {
            id,
            domain,
            purpose,
            suspend_by,
            process: OnceLock::new(),
            channel: OnceLock::new(),
            terminator: OnceLock::new(),
            memory_limit: OnceLock::new(),
            layers: AtomicU32::new(0),
            exec: Mutex::default(),
            kill: Mutex::default(),
        }
    }

    /// The process and the node's ends of its sockets, once they exist.
    pub(crate) fn attach(&self, process: WorkerProcess, channel: Arc<Channel>, terminator: Terminator) {
        // Each worker is attached exactly once, by the task that started it.
        let _ = self.process.set(process);
        let _ = self.channel.set(channel);
        let _ = self.terminator.set(terminator);
        // A stop that came while the process was being made could not reach it; now it can.
        if self.kill.lock().is_some() {
            self.signal();
        }
    }

    pub(crate) fn pid(&self) -> Option<i32> {
        self.process.get().map(|process| process.pid)
    }

    pub(crate) fn exec(&self) -> parking_lot::MutexGuard<'_, Exec> {
        self.exec.lock()
    }

    /// Ends the process. The first reason stays; the rest happens when its exit is relayed.
    pub(crate) fn kill(&self, reason: Kill) {
        self.kill.lock().get_or_insert(reason);
        self.signal();
    }

    fn signal(&self) {
        if let Some(process) = self.process.get()
            && let Err(error) = process.kill()
        {
            tracing::debug!(worker = %self.id, %error, "worker was gone before it could be killed");
        }
    }

    /// Stops the process where it is.
    pub(crate) fn suspend(&self) {
        self.tell("suspended", |process| process.suspend(self.suspend_by));
    }

    /// Lets the process go on.
    pub(crate) fn resume(&self) {
        self.tell("resumed", |process| process.resume(self.suspend_by));
    }

    /// Changes its share of the processors.
    pub(crate) fn set_cpu_weight(&self, weight: u16) {
        self.tell("given another weight", |process| process.set_cpu_weight(weight));
    }

    /// Whether the kernel bounds what it uses. False for one whose process does not exist yet.
    pub(crate) fn is_in_group(&self) -> bool {
        self.process.get().is_some_and(WorkerProcess::is_in_group)
    }

    /// Moves the process to these processors.
    pub(crate) fn pin(&self, cpus: &[usize]) -> io::Result<()> {
        self.process.get().map_or(Ok(()), |process| process.pin(cpus))
    }

    /// Memory of the process that is not a file's or shared; nothing if it is gone.
    pub(crate) fn own_memory_bytes(&self) -> Option<u64> {
        own_memory_bytes(self.pid()?)
    }

    /// Processor time it has used since it was made; nothing if it is gone.
    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        self.process.get()?.cpu_time()
    }

    /// Asks for the end of a run.
    pub(crate) fn terminate(&self, task: TaskId) -> io::Result<()> {
        self.terminator.get().ok_or(io::ErrorKind::NotConnected)?.terminate(task)
    }

    fn tell(&self, what: &str, tell: impl FnOnce(&WorkerProcess) -> io::Result<()>) {
        if let Some(process) = self.process.get()
            && let Err(error) = tell(process)
        {
            tracing::warn!(worker = %self.id, %error, "a worker could not be {what}");
        }
    }

    pub(crate) fn kill_reason(&self) -> Option<Kill> {
        self.kill.lock().clone()
    }

    /// Sends a frame. The worker reads between runs; a worker that lets its socket fill up is not following the protocol.
    pub(crate) fn send(&self, frame: &ToWorker, files: &[std::os::fd::BorrowedFd<'_>]) -> Result<(), SendError> {
        self.channel.get().ok_or(SendError::Closed)?.send(frame, files)
    }
}

impl Exec {
    /// Makes both arenas at least this large (keeping what is large enough) and tells the worker of a change.
    pub(crate) fn ensure_arenas(
        &mut self,
        worker: &Worker,
        input_bytes: u64,
        output_bytes: u64,
        limit: u64,
    ) -> Result<(), ArenaError> {
        let needed = input_bytes.max(output_bytes);
        if needed > limit {
            return Err(ArenaError::TooLarge { needed, limit });
        }
        let grown = |bytes: u64| bytes.max(INITIAL_ARENA_BYTES).checked_next_power_of_two().unwrap_or(limit).min(limit);
        let fits = self
            .arenas
            .as_ref()
            .is_some_and(|arenas| arenas.input.capacity() >= input_bytes && arenas.output.capacity() >= output_bytes);
        if fits {
            return Ok(());
        }
        let (had_input, had_output) =
            self.arenas.as_ref().map_or((0, 0), |arenas| (arenas.input.capacity(), arenas.output.capacity()));
        self.replace_arenas(worker, grown(input_bytes.max(had_input)), grown(output_bytes.max(had_output)))
    }

    fn replace_arenas(&mut self, worker: &Worker, input_bytes: u64, output_bytes: u64) -> Result<(), ArenaError> {
        let input = InputArena::create(input_bytes)?;
        let output = OutputArena::create(output_bytes)?;
        self.generation = self.generation.wrapping_add(1);
        let frame = ToWorker::Arena {
            generation: self.generation,
            input_bytes: input.capacity(),
            output_bytes: output.capacity(),
        };
        worker.send(&frame, &[input.as_fd(), output.as_fd()])?;
        self.arenas = Some(Arenas { input, output });
        Ok(())
    }

    /// Gives a burst's memory back: replaces grown arenas of a worker that has been idle for a while.
    pub(crate) fn shrink_if_idle(&mut self, worker: &Worker, now: MonotonicTime) {
        let grown = self.arenas.as_ref().is_some_and(|arenas| {
            arenas.input.capacity() > INITIAL_ARENA_BYTES || arenas.output.capacity() > INITIAL_ARENA_BYTES
        });
        let idle = self.running.is_none() && now.saturating_since(self.last_run) >= ARENA_IDLE;
        if grown && idle && !self.gone {
            let replaced = self.replace_arenas(worker, INITIAL_ARENA_BYTES, INITIAL_ARENA_BYTES);
            if let Err(error) = replaced {
                tracing::debug!(worker = %worker.id, %error, "could not shrink an idle worker's arenas");
            }
        }
    }

    /// Compares a frame with what the worker was given to do. Nothing changes.
    pub(crate) fn check(&self, layers: u32, frame: FromWorker) -> Result<Claim, ProtocolViolation> {
        let rows: SmallVec<[u64; 8]> = match self.running.as_ref().map(|running| &running.work) {
            Some(Work::Infer { members, .. }) => members.iter().map(Request::rows).collect(),
            _ => SmallVec::new(),
        };
        let running = self.running.as_ref().map(|running| Expectation {
            task: running.task,
            end_asked: running.abort.is_some(),
            job: match &running.work {
                Work::Infer { placement, wanted, .. } => {
                    Job::Infer { signature: &placement.spec.signature, wanted, rows: &rows }
                }
                Work::Load(load) => Job::Load(load.replica),
                Work::Register(register) => {
                    Job::Register { written_bytes: register.optimised.metadata().map_or(0, |metadata| metadata.len()) }
                }
            },
        });
        claims::check(&Expected { layers, running, output: self.output() }, frame)
    }

    /// The arenas' generation, as frames name it.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    pub(crate) fn input(&mut self) -> Option<&mut InputArena> {
        self.arenas.as_mut().map(|arenas| &mut arenas.input)
    }

    pub(crate) fn output(&self) -> Option<&OutputArena> {
        self.arenas.as_ref().map(|arenas| &arenas.output)
    }

    pub(crate) fn output_capacity(&self) -> u64 {
        self.output().map_or(0, OutputArena::capacity)
    }

    pub(crate) fn input_capacity(&self) -> u64 {
        self.arenas.as_ref().map_or(0, |arenas| arenas.input.capacity())
    }

    pub(crate) fn begin(&mut self, running: Running) -> &mut Running {
        self.last_run = running.started;
        self.running.insert(running)
    }

    /// What ran, if anything did; a process that was stopped in the moment in which it ended its run goes on.
    pub(crate) fn end(&mut self, worker: &Worker, now: MonotonicTime) -> Option<Running> {
        self.last_run = now;
        let mut running = self.running.take()?;
        // Of one that is gone nothing is known any more.
        running.cpu = worker.cpu_time().map_or(Duration::ZERO, |cpu| cpu.saturating_sub(running.cpu));
        if running.count_suspension(now) {
            worker.resume();
        }
        Some(running)
    }
}

/// The node's end of a worker's socket, for the runtime's poller.
#[derive(Debug)]
pub(crate) struct ChannelFd(pub(crate) Arc<Channel>);

impl AsRawFd for ChannelFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}
