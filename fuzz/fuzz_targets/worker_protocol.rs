//! The server's side of the worker protocol, the worker being the enemy: whatever it sends, in whatever order, and
//! whatever it writes into the shared memory, the node never panics, takes no answer it did not ask for, believes no
//! offset outside the arena, and hands on exactly the bytes that lay at the offsets it believed.
//!
//! The sockets and the shared memory are the real ones; the node's check is the one of production. The input is a
//! script: the outputs of a model, then steps of node and worker, each a byte and what it needs.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::ser::{Serialize, SerializeTuple, Serializer};
use std::os::fd::AsFd;
use tenantry_node::claims::{Claim, Expectation, Expected, Job, check};
use tenantry_types::limits::MAX_ENGINE_MESSAGE_CHARS;
use tenantry_types::model::{EngineOptions, FileMetadata, Profile, Registration};
use tenantry_types::{DataType, Dim, ReplicaId, Shape, Signature, TaskId, TensorSpec};
use tenantry_wire::{
    Channel, FailureKind, FromWorker, InputArena, MAX_FRAME_BYTES, OutputArena, PROTOCOL, RecvError, TensorDescriptor,
    WorkerArena,
};

const MAX_STEPS: usize = 32;
const MAX_ARENA_BYTES: u64 = 32 << 10;
const LAYERS: u32 = 0x5a;
const DATA_TYPES: [DataType; 5] = [DataType::Fp32, DataType::Uint8, DataType::Int64, DataType::Bytes, DataType::Bool];

fuzz_target!(|input: &[u8]| {
    let mut script = Script(input);
    let mut node = Node::new(&mut script);
    for _ in 0..MAX_STEPS {
        if script.0.is_empty() || !step(&mut node, &mut script) {
            return;
        }
    }
});

/// One step; false if the worker is dead after it.
fn step(node: &mut Node, script: &mut Script<'_>) -> bool {
    match script.byte() % 8 {
        0 => {
            node.give_work(script);
            return true;
        }
        1 => {
            let offset = script.number() % (node.shadow.len() as u64 + 1);
            node.scribble(offset as usize, script);
            return true;
        }
        2 => node.send(&Raw(script.bytes())),
        3 => node.send(&node.honest()),
        4 | 5 => {
            let mut frame = node.honest();
            for _ in 0..1 + script.byte() % 3 {
                distort(&mut frame, script);
            }
            node.send(&frame);
        }
        6 => {
            let mut packet = postcard::to_allocvec(&node.honest()).unwrap();
            for _ in 0..1 + script.byte() % 4 {
                damage(&mut packet, script);
            }
            packet.truncate(MAX_FRAME_BYTES);
            node.send(&Raw(&packet));
        }
        _ => {
            let task = TaskId(script.number());
            node.send(&node.answer(script.byte() % 6, task));
        }
    }
    node.hear()
}

// ---- the node ----

struct Node {
    ours: Channel,
    theirs: Channel,
    signature: Signature,
    arena: OutputArena,
    worker: WorkerArena,
    /// What lies in the arena.
    shadow: Vec<u8>,
    task: TaskId,
    running: Option<Work>,
}

struct Work {
    end_asked: bool,
    kind: Kind,
}

enum Kind {
    Infer { wanted: Vec<u16>, rows: Vec<u64> },
    Load,
    Register { written_bytes: u64 },
}

const REPLICA: ReplicaId = ReplicaId(11);

impl Node {
    fn new(script: &mut Script<'_>) -> Self {
        let (ours, theirs) = Channel::pair().unwrap();
        let (ours, theirs) = (Channel::new(ours), Channel::new(theirs));
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let outputs = (0..script.byte() % 4).map(|number| output(number, script)).collect();
        let signature = Signature { inputs: Vec::new(), outputs };
        let (arena, worker, shadow) = memory(u64::from(script.byte()) * 32);
        Self { ours, theirs, signature, arena, worker, shadow, task: TaskId(0), running: None }
    }

    fn give_work(&mut self, script: &mut Script<'_>) {
        // A worker that is busy gets nothing.
        if self.running.is_some() {
            return;
        }
        self.task = TaskId(self.task.0 + 1);
        let what = script.byte();
        let kind = match what % 4 {
            0 => Kind::Load,
            1 => Kind::Register { written_bytes: script.number() },
            _ => Kind::Infer {
                wanted: (0..self.signature.outputs.len() as u16).rev().filter(|_| script.byte() % 4 != 0).collect(),
                rows: (0..self.members(script.byte())).map(|_| u64::from(script.byte() % 5)).collect(),
            },
        };
        self.running = Some(Work { end_asked: what & 0x80 != 0, kind });
    }

    /// How many requests go together: one, where the first dimension is not the batch's.
    fn members(&self, wish: u8) -> u8 {
        let joins = |spec: &TensorSpec| !matches!(spec.dims.first(), None | Some(Dim::Fixed(_)));
        if self.signature.outputs.iter().all(joins) { 1 + wish % 4 } else { 1 }
    }

    fn scribble(&mut self, offset: usize, script: &mut Script<'_>) {
        let bytes = script.bytes();
        let end = (offset + bytes.len()).min(self.shadow.len());
        let bytes = &bytes[..end - offset];
        self.shadow[offset..end].copy_from_slice(bytes);
        self.worker.output_mut(offset as u64, bytes.len() as u64).unwrap().copy_from_slice(bytes);
    }

    fn send(&self, frame: &impl Serialize) {
        // Refused where it is too large, like anybody's.
        let _ = self.theirs.send(frame, &[]);
    }

    /// Takes what came, as the node's reader does; false where that is the worker's end.
    fn hear(&mut self) -> bool {
        loop {
            let frame = match self.ours.recv::<FromWorker>() {
                Ok(frame) => frame,
                Err(RecvError::WouldBlock) => return true,
                Err(_) => return false,
            };
            let said = frame.clone();
            match check(&self.expected(), frame) {
                Ok(claim) => self.act(claim, &said),
                Err(violation) => {
                    let text = violation.to_string();
                    assert!(text.chars().count() < 200 && !text.chars().any(char::is_control), "{text:?}");
                    return false;
                }
            }
        }
    }

    fn expected(&self) -> Expected<'_> {
        let running = self.running.as_ref().map(|work| Expectation {
            task: self.task,
            end_asked: work.end_asked,
            job: match &work.kind {
                Kind::Infer { wanted, rows } => Job::Infer { signature: &self.signature, wanted, rows },
                Kind::Load => Job::Load(REPLICA),
                Kind::Register { written_bytes } => Job::Register { written_bytes: *written_bytes },
            },
        });
        Expected { layers: LAYERS, running, output: Some(&self.arena) }
    }

    /// What may be believed, said in another way than the check says it; then what the node would do.
    fn act(&mut self, claim: Claim, said: &FromWorker) {
        if let (Claim::Ready { runtime, cpu }, FromWorker::Ready { protocol, layers, .. }) = (&claim, said) {
            assert_eq!((*protocol, *layers), (PROTOCOL, LAYERS));
            assert!(
                [runtime, cpu].iter().all(|text| text.len() <= 64 && text.is_ascii() && !text.contains(['\n', '"']))
            );
            return;
        }
        let work = self.running.take().expect("an answer is taken only while something runs");
        assert_eq!(task_of(said), Some(self.task), "an answer is to the task that runs");
        match (claim, said, &work.kind) {
            (Claim::Finished(outputs), FromWorker::Finished { outputs: said, .. }, Kind::Infer { wanted, rows }) => {
                self.judge(&outputs, said, wanted, rows);
            }
            (Claim::NeedOutput(bytes), _, Kind::Infer { .. }) => {
                assert!(bytes > self.arena.capacity());
                if bytes <= MAX_ARENA_BYTES {
                    (self.arena, self.worker, self.shadow) = memory(bytes);
                    self.running = Some(work);
                }
            }
            (Claim::Failed { kind, message }, _, _) => {
                assert!(kind != FailureKind::Terminated || work.end_asked);
                assert!(message.chars().count() <= MAX_ENGINE_MESSAGE_CHARS + 1);
                assert!(!message.chars().any(char::is_control));
            }
            (Claim::Loaded { .. }, FromWorker::Loaded { replica, .. }, Kind::Load) => assert_eq!(*replica, REPLICA),
            (Claim::Registered { optimised_bytes, .. }, _, Kind::Register { written_bytes }) => {
                assert!(optimised_bytes <= *written_bytes);
            }
            (claim, said, _) => panic!("{said:?} was taken for {claim:?}, which was not asked for"),
        }
    }

    fn judge(&self, outputs: &[Vec<tenantry_types::Tensor>], said: &[TensorDescriptor], wanted: &[u16], rows: &[u64]) {
        assert_eq!((outputs.len(), said.len()), (wanted.len(), wanted.len()));
        let total: u128 = said.iter().map(|output| u128::from(output.bytes)).sum();
        assert!(total <= self.shadow.len() as u128, "no byte is copied out twice");
        for ((parts, said), index) in outputs.iter().zip(said).zip(wanted) {
            let spec = &self.signature.outputs[usize::from(*index)];
            let end = u128::from(said.offset) + u128::from(said.bytes);
            assert!(end <= self.shadow.len() as u128, "an offset outside the arena was believed: {said:?}");
            let bytes: Vec<u8> = parts.iter().flat_map(|part| part.data.to_contiguous().to_vec()).collect();
            assert_eq!(bytes, self.shadow[said.offset as usize..end as usize]);
            assert_eq!(parts.len(), rows.len());
            for (part, rows_of_member) in parts.iter().zip(rows) {
                assert_eq!((&part.name, part.datatype), (&spec.name, spec.datatype));
                assert_eq!(part.shape.len(), spec.dims.len());
                assert!(rows.len() == 1 || part.shape[0] == *rows_of_member);
                for (dim, extent) in spec.dims.iter().zip(&part.shape) {
                    assert!(!matches!(dim, Dim::Fixed(fixed) if fixed != extent));
                }
                if let Some(element) = part.datatype.element_bytes() {
                    let elements: u128 = part.shape.iter().map(|extent| u128::from(*extent)).product();
                    assert_eq!(part.data.len() as u128, elements * element as u128);
                }
            }
        }
    }

    // ---- the worker ----

    /// What an honest worker would say now.
    fn honest(&self) -> FromWorker {
        let kind = match self.running.as_ref().map(|work| &work.kind) {
            None => 0,
            Some(Kind::Infer { .. }) => 1,
            Some(Kind::Load) => 2,
            Some(Kind::Register { .. }) => 3,
        };
        self.answer(kind, self.task)
    }

    fn answer(&self, kind: u8, task: TaskId) -> FromWorker {
        match kind {
            0 => FromWorker::Ready {
                protocol: PROTOCOL,
                runtime: "1.0".to_owned(),
                cpu: "x86_64".to_owned(),
                layers: LAYERS,
            },
            1 => self.finished(task),
            2 => FromWorker::Loaded { task, replica: REPLICA, load_ns: 1, resident_bytes: 1 },
            3 => FromWorker::Registered { task, registration: registration(&self.signature), optimised_bytes: 1 },
            4 => FromWorker::Failed { task, kind: FailureKind::Input, message: "no".to_owned() },
            _ => FromWorker::NeedOutput { task, bytes: self.arena.capacity() + 1 },
        }
    }

    fn finished(&self, task: TaskId) -> FromWorker {
        let (wanted, rows) = match self.running.as_ref().map(|work| &work.kind) {
            Some(Kind::Infer { wanted, rows }) => (wanted.as_slice(), rows.iter().sum()),
            _ => (&[0_u16][..], 1),
        };
        let mut end = 0;
        let outputs = wanted.iter().filter_map(|index| {
            let spec = self.signature.outputs.get(usize::from(*index))?;
            let shape: Shape =
                spec.dims.iter().map(|dim| if let Dim::Fixed(extent) = dim { *extent } else { rows }).collect();
            // A string takes its length, at least: the arena begins as zeros.
            let bytes = shape.iter().product::<u64>() * spec.datatype.element_bytes().unwrap_or(4) as u64;
            let offset = tenantry_wire::align_up(end)?;
            end = offset + bytes;
            Some(TensorDescriptor { index: *index, datatype: spec.datatype, shape, offset, bytes })
        });
        FromWorker::Finished { task, outputs: outputs.collect(), compute_ns: 1 }
    }
}

fn memory(bytes: u64) -> (OutputArena, WorkerArena, Vec<u8>) {
    let (input, output) = (InputArena::create(0).unwrap(), OutputArena::create(bytes).unwrap());
    let worker = WorkerArena::map(input.as_fd(), 0, output.as_fd(), bytes).unwrap();
    (output, worker, vec![0; bytes as usize])
}

fn output(number: u8, script: &mut Script<'_>) -> TensorSpec {
    let what = script.byte();
    let first = if what & 0x80 == 0 { Dim::Named("n".to_owned()) } else { Dim::Fixed(u64::from(what >> 4) % 4) };
    let rest = (0..(what >> 4) % 3).map(|_| Dim::Fixed(u64::from(script.byte() % 9)));
    let datatype = DATA_TYPES[usize::from(what) % DATA_TYPES.len()];
    TensorSpec { name: format!("output{number}"), datatype, dims: std::iter::once(first).chain(rest).collect() }
}

fn registration(signature: &Signature) -> Box<Registration> {
    let profile = Profile {
        runtime: "1.0".to_owned(),
        options: EngineOptions::default(),
        load_ns: 1,
        optimised_load_ns: 1,
        resident_bytes: 1,
        optimised_bytes: 1,
        best_batch: 1,
        points: Vec::new(),
    };
    Box::new(Registration {
        signature: signature.clone(),
        pipeline: None,
        metadata: FileMetadata::default(),
        can_batch: true,
        profile,
    })
}

fn task_of(frame: &FromWorker) -> Option<TaskId> {
    match frame {
        FromWorker::Ready { .. } => None,
        FromWorker::Loaded { task, .. }
        | FromWorker::Registered { task, .. }
        | FromWorker::Finished { task, .. }
        | FromWorker::NeedOutput { task, .. }
        | FromWorker::Failed { task, .. } => Some(*task),
    }
}

/// Changes one thing an honest worker would have said.
fn distort(frame: &mut FromWorker, script: &mut Script<'_>) {
    let (what, number) = (script.byte(), script.number());
    match frame {
        FromWorker::Ready { protocol, runtime, cpu, layers } => match what % 4 {
            0 => *protocol = number as u32,
            1 => *layers = number as u32,
            2 => *runtime = script.text(),
            _ => *cpu = script.text(),
        },
        FromWorker::Finished { task, outputs, .. } => {
            let place = usize::from(what >> 4) % outputs.len().max(1);
            match (what % 9, outputs.get_mut(place)) {
                (0, _) => *task = TaskId(number),
                (1, Some(_)) => drop(outputs.remove(place)),
                (2, Some(output)) => {
                    let copy = output.clone();
                    outputs.push(copy);
                }
                (3, Some(output)) => output.offset = number,
                (4, Some(output)) => output.bytes = number,
                (5, Some(output)) => output.index = number as u16,
                (6, Some(output)) => output.datatype = DATA_TYPES[number as usize % DATA_TYPES.len()],
                (7, Some(output)) => match output.shape.first_mut() {
                    Some(extent) => *extent = number,
                    None => output.shape.push(number),
                },
                (_, Some(output)) => output.shape.push(number),
                (_, None) => {}
            }
        }
        FromWorker::Loaded { task, replica, resident_bytes, .. } => match what % 3 {
            0 => *task = TaskId(number),
            1 => *replica = ReplicaId(number),
            _ => *resident_bytes = number,
        },
        FromWorker::Registered { task, registration, optimised_bytes } => match what % 3 {
            0 => *task = TaskId(number),
            1 => *optimised_bytes = number,
            _ => registration.metadata.producer = script.text(),
        },
        FromWorker::NeedOutput { task, bytes } => match what % 2 {
            0 => *task = TaskId(number),
            _ => *bytes = number,
        },
        FromWorker::Failed { task, kind, message } => match what % 3 {
            0 => *task = TaskId(number),
            1 => *kind = FailureKind::Terminated,
            _ => *message = script.text(),
        },
    }
}

/// Changes one byte of a frame, or its length.
fn damage(packet: &mut Vec<u8>, script: &mut Script<'_>) {
    let (what, place) = (script.byte(), script.number() as usize % packet.len().max(1));
    match what % 3 {
        0 => {
            if let Some(byte) = packet.get_mut(place) {
                *byte = script.byte();
            }
        }
        1 => packet.truncate(place),
        _ => drop(packet.splice(place..place, script.bytes().iter().copied())),
    }
}

/// Bytes as they are: a tuple has no length in the frames' encoding.
struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(self.0.len())?;
        self.0.iter().try_for_each(|byte| tuple.serialize_element(byte))?;
        tuple.end()
    }
}

/// The fuzzer's bytes; zeros after their end.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Small ones, those next to powers of two, and any.
    fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=0x7f => u64::from(small),
            power @ 0x80..=0xbf => 1 << (power - 0x80),
            power @ 0xc0..=0xfe => (1_u64 << (power - 0xc0)).wrapping_sub(1),
            0xff => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    /// A length, and as many bytes.
    fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    fn text(&mut self) -> String {
        let times = 1 + usize::from(self.byte());
        String::from_utf8_lossy(self.bytes()).repeat(times)
    }
}
