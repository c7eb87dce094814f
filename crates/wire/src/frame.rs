//! The frames. Changing one changes [`PROTOCOL`].

use serde::{Deserialize, Serialize};
use tenantry_types::model::{EngineOptions, ModelLimits, Registration, VersionSettings};
use tenantry_types::{DataType, ReplicaId, Shape, TaskId};

/// The protocol's number; node and worker are of one build, so it is only a guard against a mixed installation.
pub const PROTOCOL: u32 = 5;

/// The longest message of a [`FromWorker::Failed`], characters. Longer ones are cut by the worker; the node cuts again.
pub const MAX_FAILURE_MESSAGE_CHARS: usize = tenantry_types::limits::MAX_ENGINE_MESSAGE_CHARS;

/// From the node to a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// New shared memory, replacing the old. Descriptors: the input memfd, the output memfd.
    Arena {
        /// Counts up with each arena; a `Run` names the one its offsets mean.
        generation: u32,
        /// Bytes of the input arena.
        input_bytes: u64,
        /// Bytes of the output arena.
        output_bytes: u64,
    },
    /// Load a version. Descriptors: one a file, the model first, then its external data.
    Load {
        /// Answered by `Loaded` or `Failed`.
        task: TaskId,
        /// What later frames call it.
        replica: ReplicaId,
        /// Which form the first file has.
        form: ModelForm,
        /// Names and sizes of the files, in the order of the descriptors.
        files: Vec<FileEntry>,
        /// How to run it.
        options: EngineOptions,
        /// What a file as uploaded may be.
        limits: ModelLimits,
    },
    /// Find out everything about a model. Descriptors: the files in order, then one empty writable memfd, which
    /// receives the optimised form.
    Register {
        /// Answered by `Registered` or `Failed`.
        task: TaskId,
        /// Names and sizes of the files, the model first.
        files: Vec<FileEntry>,
        /// What the owner set; the rest is measured.
        settings: VersionSettings,
        /// What the file may be.
        limits: ModelLimits,
    },
    /// Forget a replica. Not answered; an unknown replica is ignored.
    Unload {
        /// Which.
        replica: ReplicaId,
    },
    /// Compute one batch over the current arena.
    Run {
        /// Answered by `Finished`, `NeedOutput` (then `Finished`) or `Failed`.
        task: TaskId,
        /// Which replica.
        replica: ReplicaId,
        /// The generation of the arena that holds the inputs.
        arena: u32,
        /// Where the inputs lie in the input arena.
        inputs: Vec<TensorDescriptor>,
        /// Which outputs are wanted: positions in the signature's outputs. Empty means all.
        outputs: Vec<u16>,
    },
    /// End with exit code 0.
    Exit,
    /// Where runs to be ended are named from now on. Descriptor: the worker's end of a [`crate::Terminator`].
    Terminations,
}

/// From a worker to the node: claims, every one to be checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// The worker has its runtime and waits for frames. Always first.
    Ready {
        /// [`PROTOCOL`] of the worker's build.
        protocol: u32,
        /// The runtime library's version.
        runtime: String,
        /// What the processor can do, e.g. `x86_64+avx2+avx512`: part of the key of optimised forms.
        cpu: String,
        /// The barriers it has put up around itself and looked at, as the bits of `tenantry_jail::Layers`.
        layers: u32,
    },
    /// The replica is loaded.
    Loaded {
        /// The load's task.
        task: TaskId,
        /// The load's replica.
        replica: ReplicaId,
        /// How long it took, nanoseconds.
        load_ns: u64,
        /// Growth of the worker's private memory, bytes.
        resident_bytes: u64,
    },
    /// The registration is done and the optimised form lies in the memfd.
    Registered {
        /// The registration's task.
        task: TaskId,
        /// What was found out.
        #[serde(with = "as_json")]
        registration: Box<Registration>,
        /// Bytes written to the memfd.
        optimised_bytes: u64,
    },
    /// The run's outputs lie in the output arena.
    Finished {
        /// The run's task.
        task: TaskId,
        /// Where each wanted output lies, in the order wanted.
        outputs: Vec<TensorDescriptor>,
        /// How long the engine computed, nanoseconds.
        compute_ns: u64,
    },
    /// The outputs do not fit; the node answers with a larger `Arena` and the worker then says `Finished`.
    NeedOutput {
        /// The run's task.
        task: TaskId,
        /// Bytes the output arena must have.
        bytes: u64,
    },
    /// The task ended in an error.
    Failed {
        /// Which task.
        task: TaskId,
        /// Whose fault.
        kind: FailureKind,
        /// What a person reads; sanitised and cut to [`MAX_FAILURE_MESSAGE_CHARS`].
        message: String,
    },
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FailureKind {
    /// The request's inputs.
    Input,
    /// The model file's.
    Model,
    /// Memory, descriptors or another resource ran out.
    Resource,
    /// Nobody's: the node asked for the end of this run. Said unasked it is a breach of the protocol.
    Terminated,
}

/// Which form a model file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ModelForm {
    /// As uploaded (ONNX).
    Source,
    /// As this machine's registration wrote it (ORT format).
    Optimised,
}

/// A file that comes as a descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name, relative, as the model file may refer to it.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// A tensor in an arena.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorDescriptor {
    /// Position in the signature's inputs or outputs.
    pub index: u16,
    /// The element type.
    pub datatype: DataType,
    /// The extents, outermost first.
    #[serde(with = "as_extents")]
    pub shape: Shape,
    /// Where the data starts in the arena; a multiple of [`crate::ARENA_ALIGN`].
    pub offset: u64,
    /// How many bytes of data there are.
    pub bytes: u64,
}

/// A shape of at most `MAX_RANK` extents. `SmallVec`'s own deserialiser reserves whatever length a frame announces.
mod as_extents {
    use std::fmt;

    use serde::de::{Error, SeqAccess, Visitor};
    use serde::{Deserializer, Serializer};
    use tenantry_types::Shape;
    use tenantry_types::tensor::MAX_RANK;

    pub(super) fn serialize<S: Serializer>(shape: &Shape, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(shape.iter())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Shape, D::Error> {
        deserializer.deserialize_seq(Extents)
    }

    struct Extents;

    impl<'de> Visitor<'de> for Extents {
        type Value = Shape;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX_RANK} extents")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut extents: A) -> Result<Shape, A::Error> {
            let mut shape = Shape::new();
            while let Some(extent) = extents.next_element()? {
                if shape.len() == MAX_RANK {
                    return Err(A::Error::custom("too many dimensions"));
                }
                shape.push(extent);
            }
            Ok(shape)
        }
    }
}

/// A registration as JSON text: its dimensions are an untagged enum, which postcard cannot read back.
mod as_json {
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use tenantry_types::model::Registration;

    pub(super) fn serialize<S: Serializer>(registration: &Registration, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::to_string(registration).map_err(S::Error::custom)?.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<Registration>, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        serde_json::from_str(&text).map(Box::new).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
