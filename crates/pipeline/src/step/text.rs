//! Text in: word pieces for a language model.

use serde::Deserialize;
use tenantry_types::{DataType, Dim};

use super::{Config, Files, Step, file};
use crate::array::Array;
use crate::sentence::{Sentences, Text};
use crate::value::{PlanError, Spec, Specs, StepError, Value, Values};

/// `tokenize`: a Hugging Face `tokenizer.json` cuts texts into tokens, padded to the longest of the run.
///
/// An element that begins with the byte 0xFF, which no UTF-8 text does, is token ids already: each a little-endian u32.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizeConfig {
    from: String,
    #[serde(default = "tokenizer_json")]
    file: String,
    /// Longer texts are cut; absent: as the file says.
    max_tokens: Option<usize>,
    #[serde(default = "input_ids")]
    ids: String,
    #[serde(default = "attention_mask")]
    mask: String,
    /// The value for segment ids; absent: none is made.
    types: Option<String>,
    /// The value for the number of tokens of each text; absent: none is made.
    count: Option<String>,
}

fn tokenizer_json() -> String {
    "tokenizer.json".to_owned()
}

fn input_ids() -> String {
    "input_ids".to_owned()
}

fn attention_mask() -> String {
    "attention_mask".to_owned()
}

impl Config for TokenizeConfig {
    fn files(&self) -> Vec<&str> {
        vec![&self.file]
    }

    fn open(&self, files: &Files<'_>) -> Result<Box<dyn Step>, PlanError> {
        let sentences = Sentences::open(file(files, &self.file)?, self.max_tokens)
            .map_err(|error| PlanError(format!("`{}`: {error}", self.file)))?;
        Ok(Box::new(Tokenize { config: self.clone(), sentences }))
    }
}

#[derive(Debug)]
struct Tokenize {
    config: TokenizeConfig,
    sentences: Sentences,
}

impl Step for Tokenize {
    fn plan(&self, specs: &mut Specs) -> Result<(), PlanError> {
        let rows = specs.texts(&self.config.from)?;
        let tokens = Spec::Array(DataType::Int64, vec![rows.clone(), Dim::Named("tokens".to_owned())]);
        for name in [Some(&self.config.ids), Some(&self.config.mask), self.config.types.as_ref()].into_iter().flatten()
        {
            specs.set(name, tokens.clone())?;
        }
        match &self.config.count {
            Some(count) => specs.set(count, Spec::Array(DataType::Int64, vec![rows])),
            None => Ok(()),
        }
    }

    fn run<'a>(&'a self, values: &mut Values<'a>) -> Result<(), StepError> {
        let elements = values.texts(&self.config.from)?;
        let texts: Vec<Text<'_>> =
            elements.iter().map(|element| Text::read(element)).collect::<Option<_>>().ok_or_else(|| {
                StepError::input(format!(
                    "`{}` holds something that is neither UTF-8 text nor token ids",
                    self.config.from
                ))
            })?;
        let encoded = self.sentences.encode(&texts).map_err(|error| StepError::input(error.to_string()))?;
        let shape = [encoded.rows as u64, encoded.tokens as u64];
        let counts: Vec<i64> =
            encoded.attention_mask.chunks(encoded.tokens.max(1)).map(|row| row.iter().sum()).collect();
        values.set(&self.config.ids, Value::Array(Array::longs(shape, encoded.input_ids)));
        values.set(&self.config.mask, Value::Array(Array::longs(shape, encoded.attention_mask)));
        if let Some(types) = &self.config.types {
            values.set(types, Value::Array(Array::longs(shape, encoded.token_type_ids)));
        }
        if let Some(count) = &self.config.count {
            values.set(count, Value::Array(Array::longs([counts.len() as u64], counts)));
        }
        Ok(())
    }

    fn makes(&self) -> Vec<&str> {
        let TokenizeConfig { ids, mask, types, count, .. } = &self.config;
        [Some(ids), Some(mask), types.as_ref(), count.as_ref()].into_iter().flatten().map(String::as_str).collect()
    }

    fn reads(&self) -> Vec<&str> {
        vec![&self.config.from]
    }
}
