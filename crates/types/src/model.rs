//! What is known of a version, and how its owner wants it run.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Signature;

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

/// What a registration finds out about a model file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Inputs and outputs.
    pub signature: Signature,
    /// Free text from the file.
    pub metadata: FileMetadata,
    /// Whether two rows in one batch gave the same shape of answer as two runs.
    pub can_batch: bool,
    /// Timings and memory.
    pub profile: Profile,
}
