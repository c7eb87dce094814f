//! What type a file is: the features and the reading of a Magika model (module `file_type`).

use serde::Deserialize;
use tenantry_types::{DataType, Dim};

use super::{Config, Files, Step, file};
use crate::array::Array;
use crate::file_type::{FileTypes, Question};
use crate::value::{PlanError, Spec, Specs, StepError, Value, Values};

/// `file_window`: the start and the end of each file as the model's tokens, INT32 [rows, tokens].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileWindowConfig {
    from: String,
    to: String,
    /// The model's configuration.
    configuration: String,
    /// What is known of each type.
    knowledge: String,
}

/// `file_type`: the model's scores, FP32 [rows, types], in words. A file too short for the model is answered without it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileTypeConfig {
    from: String,
    /// The value with the files themselves.
    content: String,
    configuration: String,
    knowledge: String,
    #[serde(default = "label")]
    label: String,
    #[serde(default = "description")]
    description: String,
    #[serde(default = "mime_type")]
    mime_type: String,
    #[serde(default = "score")]
    score: String,
}

fn label() -> String {
    "label".to_owned()
}

fn description() -> String {
    "description".to_owned()
}

fn mime_type() -> String {
    "mime_type".to_owned()
}

fn score() -> String {
    "score".to_owned()
}

fn open(files: &Files<'_>, configuration: &str, knowledge: &str) -> Result<FileTypes, PlanError> {
    FileTypes::open(file(files, configuration)?, file(files, knowledge)?).map_err(|error| PlanError(error.to_string()))
}

impl Config for FileWindowConfig {
    fn files(&self) -> Vec<&str> {
        vec![&self.configuration, &self.knowledge]
    }

    fn open(&self, files: &Files<'_>) -> Result<Box<dyn Step>, PlanError> {
        let types = open(files, &self.configuration, &self.knowledge)?;
        Ok(Box::new(FileWindow { config: self.clone(), types }))
    }
}

impl Config for FileTypeConfig {
    fn files(&self) -> Vec<&str> {
        vec![&self.configuration, &self.knowledge]
    }

    fn open(&self, files: &Files<'_>) -> Result<Box<dyn Step>, PlanError> {
        let types = open(files, &self.configuration, &self.knowledge)?;
        Ok(Box::new(FileTypeStep { config: self.clone(), types }))
    }
}

#[derive(Debug)]
struct FileWindow {
    config: FileWindowConfig,
    types: FileTypes,
}

impl Step for FileWindow {
    fn plan(&self, specs: &mut Specs) -> Result<(), PlanError> {
        let rows = specs.texts(&self.config.from)?;
        let tokens = Dim::Fixed(self.types.row_tokens() as u64);
        specs.set(&self.config.to, Spec::Array(DataType::Int32, vec![rows, tokens]))
    }

    fn run<'a>(&'a self, values: &mut Values<'a>) -> Result<(), StepError> {
        let files = values.texts(&self.config.from)?;
        let row_tokens = self.types.row_tokens();
        let mut tokens = Vec::with_capacity(files.len().saturating_mul(row_tokens));
        for content in files {
            match self.types.question(content) {
                Question::Ask(row) => tokens.extend(row),
                // The model's word on it will not be read.
                Question::Answered(_) => tokens.resize(tokens.len() + row_tokens, 0),
            }
        }
        let shape = [files.len() as u64, row_tokens as u64];
        values.set(&self.config.to, Value::Array(Array::ints(shape, tokens)));
        Ok(())
    }

    fn makes(&self) -> Vec<&str> {
        vec![&self.config.to]
    }

    fn reads(&self) -> Vec<&str> {
        vec![&self.config.from]
    }
}

#[derive(Debug)]
struct FileTypeStep {
    config: FileTypeConfig,
    types: FileTypes,
}

impl Step for FileTypeStep {
    fn plan(&self, specs: &mut Specs) -> Result<(), PlanError> {
        specs.floats_exactly(&self.config.from, 2)?;
        let rows = specs.texts(&self.config.content)?;
        let FileTypeConfig { label, description, mime_type, score, .. } = &self.config;
        for name in [label, description, mime_type] {
            specs.set(name, Spec::Texts(rows.clone()))?;
        }
        specs.set(score, Spec::Array(DataType::Fp32, vec![rows]))
    }

    fn run<'a>(&'a self, values: &mut Values<'a>) -> Result<(), StepError> {
        let files = values.texts(&self.config.content)?;
        let (scores, [rows, types]) = values.floats::<2>(&self.config.from)?;
        if rows != files.len() {
            return Err(StepError::model(format!("the model gave {rows} answers for {} files", files.len())));
        }
        let mut answers = Vec::with_capacity(rows);
        for (content, scores) in files.iter().zip(scores.chunks_exact(types.max(1))) {
            answers.push(match self.types.question(content) {
                Question::Answered(answer) => answer,
                Question::Ask(_) => self.types.answer(scores).map_err(|error| StepError::model(error.to_string()))?,
            });
        }
        let FileTypeConfig { label, description, mime_type, score, .. } = &self.config;
        let scores = answers.iter().map(|answer| answer.score).collect();
        values.set(score, Value::Array(Array::floats([rows as u64], scores)));
        let (mut labels, mut descriptions, mut mime_types) = (Vec::new(), Vec::new(), Vec::new());
        for answer in answers {
            labels.push(answer.label.into_bytes().into());
            descriptions.push(answer.description.into_bytes().into());
            mime_types.push(answer.mime_type.into_bytes().into());
        }
        values.set(label, Value::Texts(labels));
        values.set(description, Value::Texts(descriptions));
        values.set(mime_type, Value::Texts(mime_types));
        Ok(())
    }

    fn makes(&self) -> Vec<&str> {
        let FileTypeConfig { label, description, mime_type, score, .. } = &self.config;
        vec![label, description, mime_type, score]
    }

    fn reads(&self) -> Vec<&str> {
        vec![&self.config.from, &self.config.content]
    }
}
