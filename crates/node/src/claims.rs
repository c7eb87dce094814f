//! What a worker may say, and when: every frame is compared with what the node knows before any of it is believed.
//!
//! A plain function over values, without a process, a socket or a lock, so that a fuzzer can play the worker
//! (`fuzz/fuzz_targets/worker_protocol.rs`). A frame is a private copy by the time it gets here, and outputs are copied
//! out of the shared memory before their bytes are looked at: a worker that writes on cannot change what was checked.

use bytes::Bytes;
use tenantry_types::error::sanitise;
use tenantry_types::limits::MAX_ENGINE_MESSAGE_CHARS;
use tenantry_types::model::Registration;
use tenantry_types::{ReplicaId, Signature, TaskId, Tensor};
use tenantry_wire::{FailureKind, FromWorker, OutputArena, PROTOCOL, TensorDescriptor};

use crate::gather::{self, Division};

/// The longest text a worker may say about its runtime or processor, characters.
const MAX_LABEL_CHARS: usize = 64;

/// A worker said something the protocol does not allow. The text is the node's, never the worker's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProtocolViolation(String);

impl ProtocolViolation {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl From<gather::Violation> for ProtocolViolation {
    fn from(violation: gather::Violation) -> Self {
        Self(violation.to_string())
    }
}

/// What the node knows of a worker when a frame of it arrives.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The barriers it was to put up, as the bits of `tenantry_jail::Layers`.
    pub layers: u32,
    /// What it was given to do and has not answered.
    pub running: Option<Expectation<'a>>,
    /// The memory its outputs lie in.
    pub output: Option<&'a OutputArena>,
}

/// The one task or batch in the worker.
#[derive(Debug, Clone, Copy)]
pub struct Expectation<'a> {
    /// What the worker must echo.
    pub task: TaskId,
    /// Whether the node asked for its end.
    pub end_asked: bool,
    /// What it is to do.
    pub job: Job<'a>,
}

/// The kinds of work, as far as answers depend on them.
#[derive(Debug, Clone, Copy)]
pub enum Job<'a> {
    /// Compute a batch.
    Infer {
        /// The model's signature.
        signature: &'a Signature,
        /// Which outputs, in which order.
        wanted: &'a [u16],
        /// The extents of the members' first dimensions.
        rows: &'a [u64],
    },
    /// Load a replica.
    Load(ReplicaId),
    /// Find out about a model.
    Register {
        /// How long the file for the optimised form is by now.
        written_bytes: u64,
    },
}

/// A frame of a worker that may be acted upon.
#[derive(Debug, PartialEq)]
pub enum Claim {
    /// It has its runtime and its barriers. Whether it may say so now is for the fleet to know.
    Ready {
        /// The runtime library's version, in the alphabet of labels.
        runtime: String,
        /// The processor, in the alphabet of labels.
        cpu: String,
    },
    /// The batch is done. For each output wanted, each member's part.
    Finished(Vec<Vec<Tensor>>),
    /// The outputs of this task need an arena of more bytes than there are.
    NeedOutput(u64),
    /// The task ended in an error.
    Failed {
        /// Whose fault, it says.
        kind: FailureKind,
        /// Without control characters, and of bounded length.
        message: String,
    },
    /// The replica that was to be loaded is.
    Loaded {
        /// Growth of the worker's memory, it says.
        resident_bytes: u64,
    },
    /// The model that was to be looked at was.
    Registered {
        /// What it says it found.
        registration: Box<Registration>,
        /// Bytes of the optimised form; they are there.
        optimised_bytes: u64,
    },
}

/// Compares a frame with what is known.
///
/// # Errors
/// [`ProtocolViolation`]: the worker is broken or hostile.
pub fn check(expected: &Expected<'_>, frame: FromWorker) -> Result<Claim, ProtocolViolation> {
    match frame {
        FromWorker::Ready { protocol, runtime, cpu, layers } => {
            if protocol != PROTOCOL {
                return Err(ProtocolViolation::new(format!(
                    "it speaks protocol {protocol}; this server speaks {PROTOCOL}"
                )));
            }
            if layers != expected.layers {
                let asked = expected.layers;
                return Err(ProtocolViolation::new(format!(
                    "it has the barriers {layers:#x}, and was to have {asked:#x}"
                )));
            }
            Ok(Claim::Ready { runtime: label(&runtime), cpu: label(&cpu) })
        }
        FromWorker::Finished { task, outputs, .. } => match expected.answer_to(task)?.job {
            Job::Infer { signature, wanted, rows } => {
                copy_outputs(expected.output, signature, wanted, rows, &outputs).map(Claim::Finished)
            }
            _ => Err(ProtocolViolation::new("it finished a task it was not given")),
        },
        FromWorker::NeedOutput { task, bytes } => {
            let infers = matches!(expected.answer_to(task)?.job, Job::Infer { .. });
            if !infers || bytes <= expected.output.map_or(0, OutputArena::capacity) {
                return Err(ProtocolViolation::new("it asked for memory it does not need"));
            }
            Ok(Claim::NeedOutput(bytes))
        }
        FromWorker::Failed { task, kind, message } => {
            if !expected.answer_to(task)?.end_asked && kind == FailureKind::Terminated {
                return Err(ProtocolViolation::new("it ended a run that nobody asked it to end"));
            }
            Ok(Claim::Failed { kind, message: sanitise(&message, MAX_ENGINE_MESSAGE_CHARS) })
        }
        FromWorker::Loaded { task, replica, load_ns: _, resident_bytes } => match expected.answer_to(task)?.job {
            Job::Load(wanted) if wanted == replica => Ok(Claim::Loaded { resident_bytes }),
            Job::Load(_) => Err(ProtocolViolation::new("it loaded another replica than asked")),
            _ => Err(ProtocolViolation::new("it answered a request with a load")),
        },
        FromWorker::Registered { task, registration, optimised_bytes } => match expected.answer_to(task)?.job {
            Job::Register { written_bytes } if optimised_bytes <= written_bytes => {
                Ok(Claim::Registered { registration, optimised_bytes })
            }
            Job::Register { .. } => Err(ProtocolViolation::new("it wrote less of the optimised form than it says")),
            _ => Err(ProtocolViolation::new("it answered a request with a registration")),
        },
    }
}

impl<'a> Expected<'a> {
    /// What the worker runs, if it is this task.
    fn answer_to(&self, task: TaskId) -> Result<Expectation<'a>, ProtocolViolation> {
        self.running
            .filter(|running| running.task == task)
            .ok_or_else(|| ProtocolViolation::new("it answered a task it was not given"))
    }
}

/// Checks where the outputs are said to lie, copies them out, and cuts them into the members' parts.
fn copy_outputs(
    arena: Option<&OutputArena>,
    signature: &Signature,
    wanted: &[u16],
    rows: &[u64],
    claimed: &[TensorDescriptor],
) -> Result<Vec<Vec<Tensor>>, ProtocolViolation> {
    let joint = (rows.len() > 1).then(|| rows.iter().sum());
    let rows = match gather::check_outputs(signature, wanted, claimed, joint)? {
        Division::ByRows => rows,
        Division::Whole => &[],
    };
    let arena = arena.ok_or_else(|| ProtocolViolation::new("it has no output arena"))?;
    // Without this, the same bytes said to be every output would be copied as often as the model has outputs.
    let total = claimed.iter().try_fold(0_u64, |sum, output| sum.checked_add(output.bytes));
    if total.is_none_or(|total| total > arena.capacity()) {
        return Err(ProtocolViolation::new("its outputs lie outside its memory or on top of each other"));
    }
    let mut per_output = Vec::with_capacity(claimed.len());
    for output in claimed {
        let name = signature.outputs.get(usize::from(output.index)).map_or("", |spec| spec.name.as_str());
        let data = arena
            .copy_out(output.offset, output.bytes)
            .map_err(|_| ProtocolViolation::new("an output lies outside its memory"))?;
        per_output.push(gather::divide(name, output, Bytes::from(data), rows)?);
    }
    Ok(per_output)
}

/// A label in keys and metrics: the alphabet is ours, whatever the worker says.
fn label(text: &str) -> String {
    let ours = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+' | '_');
    text.chars().filter(ours).take(MAX_LABEL_CHARS).collect()
}

#[cfg(test)]
mod tests;
