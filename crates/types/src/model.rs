//! What is known of a version, and how its owner wants it run.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{DataType, Signature};

/// How far the engine may rewrite a graph at load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimization {
    /// Not at all.
    Disabled,
    /// Semantics-preserving rewrites.
    Basic,
    /// Also fused kernels.
    Extended,
    /// Also layouts of this processor.
    #[default]
    All,
}

/// The output in which a text model says how many tokens it read: one INT64 a row.
pub const TOKEN_COUNT: &str = "token_count";

/// How the engine runs a version. Part of the key of its optimised form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineOptions {
    /// Threads of one run, the calling one included.
    pub threads: u16,
    /// How far the graph is rewritten.
    pub optimization: Optimization,
    /// Rewrites of the engine to leave out, by the engine's name (a model may load and then fail because of one).
    pub disabled_optimizers: Vec<String>,
    /// Whether weights are copied into the processor's preferred layout: faster runs, more memory, slower loads.
    pub prepack: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { threads: 1, optimization: Optimization::All, disabled_optimizers: Vec::new(), prepack: true }
    }
}

/// What a model file may be, beside its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelLimits {
    /// The most nodes, those of graphs inside it included, and every call of a local function replaced by its body.
    pub max_nodes: u32,
}

impl Default for ModelLimits {
    fn default() -> Self {
        Self { max_nodes: crate::limits::DEFAULT_MAX_MODEL_NODES }
    }
}

/// What the owner of a version may set. Absent values are measured or defaulted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VersionSettings {
    /// The most rows of one batch; absent: the best batch the profile measured.
    pub max_batch: Option<u32>,
    /// How long a batch may wait to fill, milliseconds; absent: not at all.
    pub max_batch_delay_ms: Option<u32>,
    /// The longest one run may take before its worker is killed, milliseconds.
    pub max_run_ms: Option<u32>,
    /// Threads of one run; absent: measured.
    pub threads: Option<u16>,
    /// How far the graph is rewritten; absent: all.
    pub optimization: Option<Optimization>,
    /// Rewrites of the engine to leave out.
    pub disabled_optimizers: Vec<String>,
    /// Whether to prepack; absent: measured.
    pub prepack: Option<bool>,
}

/// One measured batch size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchPoint {
    /// Rows in the batch.
    pub rows: u32,
    /// The median run, nanoseconds.
    pub run_ns: u64,
}

/// What registration measured on this machine. A claim of the worker: a prior for the scheduler, not a promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The engine library's version.
    pub runtime: String,
    /// How the version is to be run: the owner's settings, the rest as measured.
    pub options: EngineOptions,
    /// Loading the file as uploaded, nanoseconds.
    pub load_ns: u64,
    /// Loading the optimised form, nanoseconds.
    pub optimised_load_ns: u64,
    /// Growth of the worker's private memory by one loaded copy, bytes.
    pub resident_bytes: u64,
    /// Bytes of the optimised form.
    pub optimised_bytes: u64,
    /// The batch size with the best throughput; 1 where the model cannot batch or batching does not pay.
    pub best_batch: u32,
    /// Run time per batch size, ascending by rows.
    pub points: Vec<BatchPoint>,
}

impl Profile {
    /// The run time of one row, when measured.
    pub fn single_run(&self) -> Option<Duration> {
        self.points.iter().find(|point| point.rows == 1).map(|point| Duration::from_nanos(point.run_ns))
    }
}

/// Free text the model file carries about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FileMetadata {
    /// The tool that wrote it.
    pub producer: String,
    /// The graph's description.
    pub description: String,
    /// The graph's name.
    pub graph_name: String,
    /// Custom key and value pairs.
    pub custom: Vec<(String, String)>,
}

/// What a version is for, where an API needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Task {
    /// Texts to vectors: the input `text`, BYTES [rows], the outputs `embedding`, FP32 [rows, width], and `token_count`,
    /// INT64 [rows].
    Embedding {
        /// Whether the first numbers of a vector mean something alone (Kusupati et al., "Matryoshka Representation
        /// Learning", 2022), so that clients may ask for shorter ones.
        #[serde(default)]
        dimensions: bool,
    },
}

/// What is done before and behind a version's model.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PipelineFacts {
    /// What the version is for.
    pub task: Option<Task>,
    /// The names of the version's files that are needed beside the model, the manifest first.
    pub files: Vec<String>,
    /// What is carried from request to request of a sequence. These are the last inputs and the last outputs of the
    /// signature, in this order, and no client sees them.
    pub states: Vec<StateFact>,
    /// The stages of a chain, which has no model of its own.
    pub chain: Option<Chain>,
}

/// A tensor carried from one request of a sequence to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFact {
    /// The element type.
    pub datatype: DataType,
    /// All extents.
    pub shape: Vec<u64>,
}

/// Versions that run one behind the other.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Chain {
    /// The inputs of the chain.
    pub inputs: Vec<String>,
    /// In order.
    pub stages: Vec<Stage>,
    /// The outputs of the chain, and the values they are.
    pub outputs: Vec<(String, String)>,
}

/// One version of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stage {
    /// The model, `name` of the chain's owner or `owner/name`.
    pub model: String,
    /// The version's number once the chain is registered, before that whatever its owner wrote.
    pub version: Option<String>,
    /// Inputs of the stage and the values they are; others are called alike.
    pub inputs: Vec<(String, String)>,
    /// Outputs of the stage and the values they become; others keep their names.
    pub outputs: Vec<(String, String)>,
}

/// What a registration finds out about a model file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Inputs and outputs.
    pub signature: Signature,
    /// What is done before and behind the model; absent without a manifest.
    #[serde(default)]
    pub pipeline: Option<PipelineFacts>,
    /// Free text from the file.
    pub metadata: FileMetadata,
    /// Whether two rows in one batch gave the same shape of answer as two runs.
    pub can_batch: bool,
    /// Timings and memory.
    pub profile: Profile,
}
