//! The loop: one frame after the other.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec};
use tenantry_engine::{InputTensor, Output, Outputs, RunError, Runtime, trim};
use tenantry_jail::Layers;
use tenantry_pipeline::Array;
use tenantry_types::error::sanitise;
use tenantry_types::{ReplicaId, TaskId};
use tenantry_wire::{
    Channel, FailureKind, FromWorker, MAX_FAILURE_MESSAGE_CHARS, MAX_FDS, PROTOCOL, RecvError, SendError,
    TensorDescriptor, ToWorker, WorkerArena, align_up,
};

use crate::pipeline;
use crate::replicas::{Failed, Files, Replica, Replicas, kind, register_model};
use crate::terminations::{self, Current};

/// How long nothing must come before the heap is trimmed: long beside a gap between requests, short beside a pause.
const IDLE: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };

/// How serving ends.
pub(crate) enum End {
    /// The node said so, or is gone.
    Asked,
    /// The conversation broke.
    Protocol(String),
}

impl From<SendError> for End {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Closed => Self::Asked,
            error => Self::Protocol(format!("cannot answer the node: {error}")),
        }
    }
}

/// Outputs that wait for a larger arena.
struct Pending {
    task: TaskId,
    outputs: Made,
    compute_ns: u64,
}

/// What a run made.
enum Made {
    /// As it lies in the engine's memory.
    Engine(Outputs),
    /// By a pipeline.
    Pipeline(Vec<(u16, Array<'static>)>),
}

impl Made {
    /// The outputs, each without its place in an arena.
    fn descriptors(&self) -> Vec<TensorDescriptor> {
        match self {
            Self::Engine(outputs) => {
                let describe = |output: &Output| TensorDescriptor {
                    index: output.index,
                    datatype: output.datatype,
                    shape: output.shape.clone(),
                    offset: 0,
                    bytes: output.bytes,
                };
                outputs.iter().map(describe).collect()
            }
            Self::Pipeline(outputs) => {
                let describe = |(index, array): &(u16, Array<'static>)| TensorDescriptor {
                    index: *index,
                    datatype: array.datatype,
                    shape: array.shape.clone(),
                    offset: 0,
                    bytes: array.bytes().len() as u64,
                };
                outputs.iter().map(describe).collect()
            }
        }
    }

    /// Copies output `position` to `room`, which is as long as its descriptor says.
    fn copy_to(&self, position: usize, room: &mut [u8]) -> Result<(), Failed> {
        let absent = || Failed::model("an output is missing");
        match self {
            Self::Engine(outputs) => Ok(outputs.iter().nth(position).ok_or_else(absent)?.copy_to(room)?),
            Self::Pipeline(outputs) => {
                let (_, array) = outputs.get(position).ok_or_else(absent)?;
                room.copy_from_slice(array.bytes());
                Ok(())
            }
        }
    }
}

/// The worker's whole state.
pub(crate) struct Worker {
    channel: Channel,
    runtime: Runtime,
    current: Arc<Current>,
    /// The barriers around it, which it has seen to hold.
    layers: Layers,
    arena: Option<(u32, WorkerArena)>,
    replicas: Replicas,
    pending: Option<Pending>,
    /// Whether a run came since the heap was trimmed.
    untrimmed: bool,
}

impl Worker {
    pub(crate) fn new(channel: Channel, runtime: Runtime, current: Arc<Current>, layers: Layers) -> Self {
        Self {
            channel,
            runtime,
            current,
            layers,
            arena: None,
            replicas: Replicas::default(),
            pending: None,
            untrimmed: false,
        }
    }

    /// Serves frames until the node says `Exit` or is gone.
    pub(crate) fn serve(&mut self) -> End {
        let ready = FromWorker::Ready {
            protocol: PROTOCOL,
            runtime: self.runtime.version().to_owned(),
            cpu: self.runtime.cpu(),
            layers: self.layers.bits(),
        };
        if let Err(error) = self.channel.send(&ready, &[]) {
            return error.into();
        }
        loop {
            self.trim_when_idle();
            let (frame, fds) = match self.channel.recv_with_fds(MAX_FDS) {
                Ok(received) => received,
                Err(RecvError::Closed) => return End::Asked,
                Err(error) => return End::Protocol(format!("cannot understand the node: {error}")),
            };
            if let Err(end) = self.handle(frame, fds) {
                return end;
            }
        }
    }

    /// Gives what runs left on the heap back to the system, once, when nothing has come for a while.
    ///
    /// Without it every loaded model keeps some megabytes of its last run (measured: 4 MiB for a model of 3).
    /// The look costs one system call a run, and only while the heap is untrimmed.
    fn trim_when_idle(&mut self) {
        if !self.untrimmed {
            return;
        }
        let mut waiting = [PollFd::new(&self.channel, PollFlags::IN)];
        // Interrupted or failed: receiving says more.
        if matches!(rustix::event::poll(&mut waiting, Some(&IDLE)), Ok(0)) {
            trim();
            self.untrimmed = false;
        }
    }

    fn handle(&mut self, frame: ToWorker, fds: Vec<OwnedFd>) -> Result<(), End> {
        match frame {
            ToWorker::Run { task, replica, arena, inputs, outputs } => {
                self.untrimmed = true;
                match self.run(task, replica, arena, &inputs, &outputs) {
                    Ok((outputs, compute_ns)) => self.deliver(Pending { task, outputs, compute_ns }),
                    Err(failed) => self.fail(task, &failed),
                }
            }
            ToWorker::Arena { generation, input_bytes, output_bytes } => {
                self.replace_arena(generation, input_bytes, output_bytes, &fds)?;
                match self.pending.take() {
                    Some(pending) => self.deliver(pending),
                    // Arenas are replaced when a burst is over, too: what it left on the heap goes back with them.
                    None => {
                        trim();
                        Ok(())
                    }
                }
            }
            ToWorker::Load { task, replica, form, files, options, limits } => {
                let files = Files { form, entries: &files, fds: &fds, limits };
                match self.replicas.load(self.runtime, replica, files, &options) {
                    Ok(loaded) => self.answer(&FromWorker::Loaded {
                        task,
                        replica,
                        load_ns: loaded.load_ns,
                        resident_bytes: loaded.resident_bytes,
                    }),
                    Err(failed) => self.fail(task, &failed),
                }
            }
            ToWorker::Register { task, files, settings, limits } => {
                match register_model(self.runtime, &files, &fds, &settings, limits) {
                    Ok((registration, optimised_bytes)) => self.answer_registered(
                        task,
                        FromWorker::Registered { task, registration: Box::new(registration), optimised_bytes },
                    ),
                    Err(failed) => self.fail(task, &failed),
                }
            }
            ToWorker::Unload { replica } => {
                self.replicas.unload(replica);
                Ok(())
            }
            ToWorker::Exit => Err(End::Asked),
            ToWorker::Terminations => match fds.into_iter().next().map(|fd| terminations::listen(&self.current, fd)) {
                Some(Ok(())) => Ok(()),
                Some(Err(error)) => Err(End::Protocol(format!("no thread to hear of terminations with: {error}"))),
                None => Err(End::Protocol("terminations came without their descriptor".to_owned())),
            },
        }
    }

    /// Maps the new arena. The node made both ends itself, so a misfit means that it is not the node we know.
    fn replace_arena(
        &mut self,
        generation: u32,
        input_bytes: u64,
        output_bytes: u64,
        fds: &[OwnedFd],
    ) -> Result<(), End> {
        // The old one first: two large arenas at once may be more than there is room for.
        self.arena = None;
        let [input, output] = fds else {
            return Err(End::Protocol("an arena came without its two descriptors".to_owned()));
        };
        let arena = WorkerArena::map(input.as_fd(), input_bytes, output.as_fd(), output_bytes)
            .map_err(|error| End::Protocol(error.to_string()))?;
        self.arena = Some((generation, arena));
        Ok(())
    }

    fn run(
        &mut self,
        task: TaskId,
        replica: ReplicaId,
        generation: u32,
        descriptors: &[TensorDescriptor],
        wanted: &[u16],
    ) -> Result<(Made, u64), Failed> {
        // A node that sends the next run has given the last one up.
        self.pending = None;
        let Some((current, arena)) = &self.arena else { return Err(Failed::resource("there is no arena")) };
        if *current != generation {
            return Err(Failed::resource("the inputs lie in an arena that has been replaced"));
        }
        let Some(Replica { model, program }) = self.replicas.get_mut(replica) else {
            return Err(Failed::resource("no such replica"));
        };
        let mut inputs = Vec::with_capacity(descriptors.len());
        for descriptor in descriptors {
            let Some(data) = arena.input(descriptor.offset, descriptor.bytes) else {
                return Err(Failed::resource("an input lies outside the arena"));
            };
            inputs.push(InputTensor {
                index: descriptor.index,
                datatype: descriptor.datatype,
                shape: &descriptor.shape,
                data,
            });
        }
        let started = Instant::now();
        self.current.begin(task);
        let termination = &self.current.termination;
        let outcome = match program {
            None => model.run_until(&inputs, wanted, termination).map(Made::Engine).map_err(Failed::from),
            Some(program) => {
                let stopped = || self.current.is_ended();
                pipeline::run(program, model, &inputs, wanted, termination, &stopped).map(Made::Pipeline)
            }
        };
        let asked = self.current.end();
        let outputs = outcome.map_err(|failed| match failed {
            // Whatever the engine makes of it: the node asked for this end.
            failed if asked => Failed { kind: FailureKind::Terminated, ..failed },
            failed => failed,
        })?;
        Ok((outputs, u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Copies outputs into the arena, or keeps them and asks for a larger one.
    fn deliver(&mut self, pending: Pending) -> Result<(), End> {
        let Pending { task, outputs, compute_ns } = &pending;
        let mut descriptors = outputs.descriptors();
        let mut end = 0;
        for output in &mut descriptors {
            let Some((offset, after)) =
                align_up(end).and_then(|offset| Some((offset, offset.checked_add(output.bytes)?)))
            else {
                return self.fail(*task, &Failed::model("the outputs are too large"));
            };
            (output.offset, end) = (offset, after);
        }
        let arena = match &mut self.arena {
            Some((_, arena)) if end <= arena.output_capacity() => arena,
            _ => {
                let need = FromWorker::NeedOutput { task: *task, bytes: end };
                self.pending = Some(pending);
                return self.answer(&need);
            }
        };
        for (position, descriptor) in descriptors.iter().enumerate() {
            let copied = match arena.output_mut(descriptor.offset, descriptor.bytes) {
                Some(room) => outputs.copy_to(position, room),
                None => Err(Failed::resource("an output lies outside the arena")),
            };
            if let Err(failed) = copied {
                return self.fail(*task, &failed);
            }
        }
        self.answer(&FromWorker::Finished { task: *task, outputs: descriptors, compute_ns: *compute_ns })
    }

    /// Answers a registration, which alone can be larger than a frame: names are the file's.
    fn answer_registered(&self, task: TaskId, frame: FromWorker) -> Result<(), End> {
        match self.channel.send(&frame, &[]) {
            Err(SendError::TooLarge) => {
                self.fail(task, &Failed::model("the model's signature and metadata are too long to be served"))
            }
            sent => Ok(sent?),
        }
    }

    fn fail(&self, task: TaskId, failed: &Failed) -> Result<(), End> {
        let message = sanitise(&failed.message, MAX_FAILURE_MESSAGE_CHARS);
        self.answer(&FromWorker::Failed { task, kind: failed.kind, message })
    }

    fn answer(&self, frame: &FromWorker) -> Result<(), End> {
        Ok(self.channel.send(frame, &[])?)
    }
}

impl From<RunError> for Failed {
    fn from(error: RunError) -> Self {
        Self { kind: kind(error.fault()), message: error.to_string() }
    }
}
