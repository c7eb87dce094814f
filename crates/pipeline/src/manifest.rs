//! `tenantry.toml`: what a version takes and gives, and what is done before and behind its model.
//!
//! Values have names. A request's inputs are the first of them; each step reads some and adds some; the model reads those
//! that are called like its inputs and adds its outputs; the answer is made of those that `[[output]]` names.
//!
//! A manifest with `[[stage]]` instead is a chain: each stage is a version of some model, which reads and adds values in
//! the same way, in a worker of its own.

use std::collections::BTreeMap;

use serde::Deserialize;
use tenantry_types::DataType;
use tenantry_types::limits::{MAX_STATE_BYTES, MAX_TENSOR_NAME_BYTES, MAX_TENSORS};
use tenantry_types::model::{Chain, Stage, Task};
use tenantry_types::tensor::MAX_RANK;

use crate::step::StepConfig;

/// What the file is called.
pub const FILE_NAME: &str = "tenantry.toml";
/// In front of a key of the model's own metadata, where a file's name may stand.
pub const METADATA_PREFIX: &str = "metadata:";
/// The longest manifest, bytes.
pub const MAX_BYTES: usize = 64 << 10;
/// The most steps before and behind the model.
const MAX_STEPS: usize = 64;
/// The most stages of a chain.
pub const MAX_STAGES: usize = 16;

/// A manifest that cannot be used. The text says where and what to write instead.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ManifestError {
    /// Longer than [`MAX_BYTES`].
    #[error("{FILE_NAME} has {0} bytes; at most {MAX_BYTES} are read")]
    Long(usize),
    /// Not UTF-8.
    #[error("{FILE_NAME} is not UTF-8 text")]
    Text,
    /// Not TOML, or not these keys.
    #[error("{FILE_NAME} cannot be read: {0}")]
    Toml(String),
    /// It reads well and makes no sense.
    #[error("{FILE_NAME}: {0}")]
    Sense(String),
}

/// A manifest as written.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What the version is for.
    pub task: Option<Task>,
    /// What a request carries.
    #[serde(rename = "input", default)]
    pub inputs: Vec<InputConfig>,
    /// What is done with it before the model runs, in order.
    #[serde(default)]
    pub before: Vec<StepConfig>,
    /// How the model is run.
    #[serde(default)]
    pub model: ModelConfig,
    /// What is done with what the model made, in order.
    #[serde(default)]
    pub after: Vec<StepConfig>,
    /// What the answer carries.
    #[serde(rename = "output", default)]
    pub outputs: Vec<OutputConfig>,
    /// What is carried from one request of a sequence to the next.
    #[serde(rename = "state", default)]
    pub states: Vec<StateConfig>,
    /// The versions of a chain, in order.
    #[serde(rename = "stage", default)]
    pub stages: Vec<StageConfig>,
}

/// What an input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputType {
    /// UTF-8 text: `BYTES`.
    Text,
    /// A picture's file: `BYTES`.
    Image,
    /// A sound's file: `BYTES`.
    Audio,
    /// Any file: `BYTES`.
    Bytes,
    /// A tensor as it is.
    Tensor,
}

/// One input of a request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputConfig {
    /// What clients call it.
    pub name: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: InputType,
    /// How many rows a request has; absent: any number, and requests may be joined.
    pub rows: Option<u64>,
    /// The element type of a tensor.
    pub datatype: Option<DataType>,
    /// The extents of a tensor behind the first, -1 where the request chooses.
    #[serde(default)]
    pub shape: Vec<i64>,
}

/// How the model is run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The value whose second dimension is time: the model is run once for each step of it, with the states carried from
    /// step to step, and its other outputs gain that dimension.
    pub scan: Option<String>,
}

/// One output of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputConfig {
    /// What clients call it.
    pub name: String,
    /// The value; absent: the one of that name.
    pub from: Option<String>,
}

/// Something carried from one request of a sequence to the next, and from one step of a scan to the next.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateConfig {
    /// The value that holds it before; zeros where a sequence begins.
    pub name: String,
    /// The value that holds it after.
    pub next: String,
    /// The element type.
    pub datatype: DataType,
    /// All extents.
    pub shape: Vec<u64>,
}

/// One version of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageConfig {
    /// The model, `name` of the same owner or `owner/name`.
    pub model: String,
    /// A version's number or alias; absent: the deployed one. Fixed when the chain is registered.
    pub version: Option<String>,
    /// The stage's inputs and the values they are; absent ones are called alike.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
    /// The stage's outputs and the values they become; absent ones keep their names.
    #[serde(default)]
    pub outputs: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads a manifest and checks what can be checked without the model.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn parse(file: &[u8]) -> Result<Self, ManifestError> {
        if file.len() > MAX_BYTES {
            return Err(ManifestError::Long(file.len()));
        }
        let text = std::str::from_utf8(file).map_err(|_| ManifestError::Text)?;
        let manifest: Self = toml::from_str(text).map_err(|error| ManifestError::Toml(in_one_line(&error, text)))?;
        manifest.check().map_err(ManifestError::Sense)?;
        Ok(manifest)
    }

    /// The names of the files that steps need beside the model, each once.
    pub fn files(&self) -> Vec<&str> {
        self.named_files(false)
    }

    /// What steps need of the model's own metadata: [`METADATA_PREFIX`] and a key stand where a file's name may.
    pub fn metadata_files(&self) -> Vec<&str> {
        self.named_files(true)
    }

    fn named_files(&self, in_metadata: bool) -> Vec<&str> {
        let all = self.before.iter().chain(&self.after).flat_map(StepConfig::files);
        let mut files: Vec<&str> = all.filter(|name| name.starts_with(METADATA_PREFIX) == in_metadata).collect();
        files.sort_unstable();
        files.dedup();
        files
    }

    /// The chain, if it is one.
    pub fn chain(&self) -> Option<Chain> {
        if self.stages.is_empty() {
            return None;
        }
        let pairs = |map: &BTreeMap<String, String>| map.iter().map(|(a, b)| (a.clone(), b.clone())).collect();
        let stage = |stage: &StageConfig| Stage {
            model: stage.model.clone(),
            version: stage.version.clone(),
            inputs: pairs(&stage.inputs),
            outputs: pairs(&stage.outputs),
        };
        let output = |output: &OutputConfig| (output.name.clone(), output.value().to_owned());
        Some(Chain {
            inputs: self.inputs.iter().map(|input| input.name.clone()).collect(),
            stages: self.stages.iter().map(stage).collect(),
            outputs: self.outputs.iter().map(output).collect(),
        })
    }

    fn check(&self) -> Result<(), String> {
        if self.before.len() + self.after.len() > MAX_STEPS {
            return Err(format!("more than {MAX_STEPS} steps"));
        }
        for (what, count) in
            [("inputs", self.inputs.len()), ("outputs", self.outputs.len()), ("states", self.states.len())]
        {
            if count > MAX_TENSORS {
                return Err(format!("more than {MAX_TENSORS} {what}"));
            }
        }
        if !self.stages.is_empty() {
            return self.check_chain();
        }
        let names = self.inputs.iter().map(|input| input.name.as_str());
        check_names("[[input]]", names.chain(self.states.iter().map(|state| state.name.as_str())))?;
        check_names("[[output]]", self.outputs.iter().map(|output| output.name.as_str()))?;
        self.inputs.iter().try_for_each(InputConfig::check)?;
        self.states.iter().try_for_each(StateConfig::check)
    }

    fn check_chain(&self) -> Result<(), String> {
        if self.stages.len() > MAX_STAGES {
            return Err(format!("more than {MAX_STAGES} stages"));
        }
        if !self.before.is_empty() || !self.after.is_empty() || !self.states.is_empty() || self.model.scan.is_some() {
            return Err(
                "a chain has stages only; steps, states and `model` belong into the versions it names".to_owned()
            );
        }
        if self.inputs.is_empty() || self.outputs.is_empty() {
            return Err("a chain needs at least one [[input]] and one [[output]]".to_owned());
        }
        check_names("[[input]]", self.inputs.iter().map(|input| input.name.as_str()))?;
        check_names("[[output]]", self.outputs.iter().map(|output| output.name.as_str()))
    }
}

impl InputConfig {
    fn check(&self) -> Result<(), String> {
        let Self { name, kind, rows, datatype, shape } = self;
        if *rows == Some(0) {
            return Err(format!("[[input]] `{name}`: `rows` is at least 1"));
        }
        match (kind, datatype) {
            (InputType::Tensor, None) => {
                Err(format!("[[input]] `{name}`: a tensor needs a `datatype`, such as \"FP32\""))
            }
            (InputType::Tensor, Some(_)) if shape.len() >= MAX_RANK => {
                Err(format!("[[input]] `{name}`: at most {MAX_RANK} dimensions are supported"))
            }
            (InputType::Tensor, Some(_)) if shape.iter().any(|extent| *extent < -1 || *extent == 0) => {
                Err(format!("[[input]] `{name}`: an extent is -1 (any) or at least 1"))
            }
            (InputType::Tensor, Some(_)) => Ok(()),
            (_, None) if shape.is_empty() => Ok(()),
            _ => Err(format!("[[input]] `{name}`: `datatype` and `shape` belong to the type \"tensor\"")),
        }
    }
}

impl OutputConfig {
    /// The value it shows.
    pub fn value(&self) -> &str {
        self.from.as_deref().unwrap_or(&self.name)
    }
}

impl StateConfig {
    /// How many bytes it takes.
    pub fn bytes(&self) -> Option<u64> {
        tenantry_types::tensor::element_count(&self.shape)?.checked_mul(self.datatype.element_bytes()? as u64)
    }

    fn check(&self) -> Result<(), String> {
        match self.bytes() {
            Some(1..=MAX_STATE_BYTES) if self.shape.len() <= MAX_RANK => Ok(()),
            _ => Err(format!(
                "[[state]] `{}`: a state has between 1 and {MAX_STATE_BYTES} bytes, of a type of fixed size",
                self.name
            )),
        }
    }
}

fn check_names<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut known = std::collections::HashSet::new();
    for name in names {
        if name.is_empty() || name.len() > MAX_TENSOR_NAME_BYTES || name.contains(char::is_control) {
            return Err(format!("{what}: a name has between 1 and {MAX_TENSOR_NAME_BYTES} printable bytes"));
        }
        if !known.insert(name) {
            return Err(format!("{what}: the name `{name}` occurs twice"));
        }
    }
    Ok(())
}

/// The parser draws several lines; a version's reason is one.
fn in_one_line(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
    let message = error.message().replace('\n', " ");
    line.map_or_else(|| message.clone(), |line| format!("line {line}: {message}"))
}

#[cfg(test)]
mod tests;
