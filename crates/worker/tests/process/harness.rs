//! A node's side of workers, in the fewest words.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags};
use tenantry_jail::{Exit, Exits, Spawner, WorkerProcess, WorkerSpec};
use tenantry_types::model::{EngineOptions, ModelLimits, Registration, VersionSettings};
use tenantry_types::testing::cache;
use tenantry_types::{DataType, ReplicaId, Shape, TaskId};
use tenantry_wire::{
    Channel, FailureKind, FileEntry, FromWorker, InputArena, ModelForm, OutputArena, TensorDescriptor, ToWorker,
    align_up, scratch_file,
};

/// Nothing here takes long; what takes this long never comes.
const LIMIT_SECONDS: i64 = 60;

pub(crate) const TASK: TaskId = TaskId(7);

pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_tenantry-worker"))
}

pub(crate) fn start_spawner() -> (Spawner, Exits) {
    Spawner::start(binary()).unwrap()
}

pub(crate) fn spec() -> WorkerSpec {
    WorkerSpec { runtime_library: cache::runtime_library(), start: crate::START, ..WorkerSpec::default() }
}

/// Waits until `fd` is readable or at its end.
pub(crate) fn wait(fd: BorrowedFd<'_>) {
    let mut polled = [PollFd::new(&fd, PollFlags::IN)];
    let limit = rustix::time::Timespec { tv_sec: LIMIT_SECONDS, tv_nsec: 0 };
    let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, Some(&limit))).unwrap();
    assert_eq!(ready, 1, "nothing came in {LIMIT_SECONDS} seconds");
}

pub(crate) fn next_exit(exits: &Exits) -> Exit {
    loop {
        if let Some(exit) = exits.next().unwrap() {
            return exit;
        }
        wait(exits.as_fd());
    }
}

/// A worker and the node's end of everything.
pub(crate) struct Peer {
    pub(crate) process: WorkerProcess,
    pub(crate) channel: Channel,
    stderr: OwnedFd,
    arenas: Option<(u32, InputArena, OutputArena)>,
}

/// An input as a test writes it.
pub(crate) type Input<'a> = (DataType, &'a [u64], &'a [u8]);

impl Peer {
    /// Starts a worker behind every barrier there is here, and does not wait for it.
    pub(crate) fn spawn(spawner: &Spawner, spec: &WorkerSpec) -> Self {
        let (ours, theirs) = Channel::pair().unwrap();
        let (stderr, their_stderr) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let spec = WorkerSpec { layers: spawner.barriers().in_force, ..spec.clone() };
        let process = spawner.spawn(&spec, theirs, their_stderr).unwrap();
        Self { process, channel: Channel::new(ours), stderr, arenas: None }
    }

    /// Starts a worker and hears its first word.
    pub(crate) fn ready(spawner: &Spawner) -> Self {
        let peer = Self::spawn(spawner, &spec());
        let word = peer.recv();
        let wanted = spawner.barriers().in_force.bits();
        assert!(matches!(word, FromWorker::Ready { layers, .. } if layers == wanted), "{word:?}");
        peer
    }

    pub(crate) fn send(&self, frame: &ToWorker, fds: &[BorrowedFd<'_>]) {
        self.channel.send(frame, fds).unwrap();
    }

    pub(crate) fn recv(&self) -> FromWorker {
        wait(self.channel.as_fd());
        self.channel.recv().unwrap()
    }

    /// All it said on stderr, once it has ended.
    pub(crate) fn last_words(self) -> String {
        let mut text = String::new();
        File::from(self.stderr).read_to_string(&mut text).unwrap();
        text
    }

    pub(crate) fn arena(&mut self, generation: u32, input_bytes: u64, output_bytes: u64) {
        let (input, output) = (InputArena::create(input_bytes).unwrap(), OutputArena::create(output_bytes).unwrap());
        self.send(&ToWorker::Arena { generation, input_bytes, output_bytes }, &[input.as_fd(), output.as_fd()]);
        self.arenas = Some((generation, input, output));
    }

    pub(crate) fn load(&self, replica: u64, form: ModelForm, files: &[(&str, &File)]) -> FromWorker {
        let entries = entries(files);
        let fds: Vec<BorrowedFd<'_>> = files.iter().map(|(_, file)| file.as_fd()).collect();
        let options = EngineOptions::default();
        let (replica, limits) = (ReplicaId(replica), ModelLimits::default());
        let load = ToWorker::Load { task: TASK, replica, form, files: entries, options, limits };
        self.send(&load, &fds);
        self.recv()
    }

    /// Loads a model as it is and gives it a small arena.
    pub(crate) fn serving(spawner: &Spawner, model: &[u8]) -> Self {
        let mut peer = Self::ready(spawner);
        peer.arena(1, 4096, 4096);
        let loaded = peer.load(1, ModelForm::Source, &[("model.onnx", &memory_file(model))]);
        assert!(matches!(loaded, FromWorker::Loaded { task: TASK, replica: ReplicaId(1), .. }), "{loaded:?}");
        peer
    }

    pub(crate) fn register(&self, files: &[(&str, &File)]) -> Result<(Registration, File), (FailureKind, String)> {
        let optimised = File::from(scratch_file().unwrap());
        let mut fds: Vec<BorrowedFd<'_>> = files.iter().map(|(_, file)| file.as_fd()).collect();
        fds.push(optimised.as_fd());
        let settings = VersionSettings::default();
        let limits = ModelLimits::default();
        self.send(&ToWorker::Register { task: TASK, files: entries(files), settings, limits }, &fds);
        match self.recv() {
            FromWorker::Registered { task: TASK, registration, optimised_bytes } => {
                assert_eq!(optimised.metadata().unwrap().len(), optimised_bytes);
                Ok((*registration, optimised))
            }
            FromWorker::Failed { task: TASK, kind, message } => Err((kind, message)),
            other => panic!("{other:?}"),
        }
    }

    /// Gathers inputs into the arena and sends the run.
    pub(crate) fn send_run(&mut self, replica: u64, inputs: &[Input<'_>]) {
        let (generation, arena, _) = self.arenas.as_mut().unwrap();
        let mut descriptors = Vec::new();
        let mut offset = 0;
        for (index, (datatype, shape, data)) in (0_u16..).zip(inputs) {
            arena.write(offset, data).unwrap();
            let (datatype, shape, bytes) = (*datatype, Shape::from_slice(shape), data.len() as u64);
            descriptors.push(TensorDescriptor { index, datatype, shape, offset, bytes });
            offset = align_up(offset + bytes).unwrap();
        }
        let (arena, replica) = (*generation, ReplicaId(replica));
        self.send(&ToWorker::Run { task: TASK, replica, arena, inputs: descriptors, outputs: vec![] }, &[]);
    }

    /// The outputs of a `Finished`, copied out.
    pub(crate) fn outputs(&self, finished: &FromWorker) -> Vec<(Shape, Vec<u8>)> {
        let FromWorker::Finished { task: TASK, outputs, .. } = finished else { panic!("{finished:?}") };
        let (_, _, arena) = self.arenas.as_ref().unwrap();
        outputs
            .iter()
            .map(|output| (output.shape.clone(), arena.copy_out(output.offset, output.bytes).unwrap()))
            .collect()
    }

    pub(crate) fn run(&mut self, replica: u64, inputs: &[Input<'_>]) -> Vec<(Shape, Vec<u8>)> {
        self.send_run(replica, inputs);
        self.outputs(&self.recv())
    }
}

fn entries(files: &[(&str, &File)]) -> Vec<FileEntry> {
    files
        .iter()
        .map(|(name, file)| FileEntry { name: (*name).to_owned(), bytes: file.metadata().unwrap().len() })
        .collect()
}

/// A file that has no name, as decrypted models have none.
pub(crate) fn memory_file(bytes: &[u8]) -> File {
    let mut file = File::from(scratch_file().unwrap());
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

pub(crate) fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub(crate) fn longs(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
