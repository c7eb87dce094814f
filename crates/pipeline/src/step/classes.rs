//! Scores out: the best classes with their labels, and text from a recogniser's alphabet.

use serde::Deserialize;
use tenantry_types::{DataType, Dim};

use super::{Config, Files, Step, lines};
use crate::array::Array;
use crate::value::{PlanError, Spec, Specs, StepError, Value, Values};

/// `top_k`: the `k` largest of each row of `from`, FP32 [rows, classes], the largest first. `labels` gets the lines of
/// the file at their positions (without a file: the positions as text), `scores` the values.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopKConfig {
    from: String,
    k: u32,
    file: Option<String>,
    #[serde(default = "labels")]
    labels: String,
    #[serde(default = "scores")]
    scores: String,
}

fn labels() -> String {
    "labels".to_owned()
}

fn scores() -> String {
    "scores".to_owned()
}

impl Config for TopKConfig {
    fn files(&self) -> Vec<&str> {
        self.file.iter().map(String::as_str).collect()
    }

    fn open(&self, files: &Files<'_>) -> Result<Box<dyn Step>, PlanError> {
        let known = self.file.as_ref().map(|file| lines(files, file)).transpose()?;
        Ok(Box::new(TopK { config: self.clone(), known }))
    }
}

#[derive(Debug)]
struct TopK {
    config: TopKConfig,
    known: Option<Vec<String>>,
}

impl Step for TopK {
    fn plan(&self, specs: &mut Specs) -> Result<(), PlanError> {
        let [rows, classes] = specs
            .floats_exactly(&self.config.from, 2)?
            .try_into()
            .map_err(|_| PlanError("top_k reads FP32 [rows, classes]".to_owned()))?;
        if self.config.k == 0 {
            return Err(PlanError("top_k: `k` is at least 1".to_owned()));
        }
        if let (Some(known), Dim::Fixed(classes)) = (&self.known, &classes)
            && known.len() as u64 != *classes
        {
            return Err(PlanError(format!("top_k: {} labels for {classes} classes", known.len())));
        }
        if matches!(classes, Dim::Fixed(classes) if classes < u64::from(self.config.k)) {
            return Err(PlanError(format!("top_k: `k` is {}, there are fewer classes", self.config.k)));
        }
        let dims = vec![rows, Dim::Fixed(self.config.k.into())];
        specs.set(&self.config.labels, Spec::Array(DataType::Bytes, dims.clone()))?;
        specs.set(&self.config.scores, Spec::Array(DataType::Fp32, dims))
    }

    fn run<'a>(&'a self, values: &mut Values<'a>) -> Result<(), StepError> {
        let (scores, [rows, classes]) = values.floats::<2>(&self.config.from)?;
        let k = self.config.k as usize;
        if classes < k || self.known.as_ref().is_some_and(|known| known.len() != classes) {
            return Err(StepError::model(format!(
                "the model gave {classes} classes, which do not fit top_k's labels and k"
            )));
        }
        let (mut labels, mut best) = (Vec::with_capacity(rows * k), Vec::with_capacity(rows * k));
        for row in scores.chunks_exact(classes.max(1)) {
            let mut order: Vec<usize> = (0..classes).collect();
            let score = |index: &usize| row.get(*index).copied().unwrap_or(f32::NEG_INFINITY);
            order.sort_by(|a, b| score(b).total_cmp(&score(a)).then(a.cmp(b)));
            for index in order.iter().take(k) {
                best.push(score(index));
                let known = self.known.as_ref().and_then(|known| known.get(*index));
                labels.push(known.map_or_else(|| index.to_string(), String::clone));
            }
        }
        let shape = [rows as u64, k as u64];
        let mut texts = Array::texts(&labels);
        texts.shape = shape.into_iter().collect();
        values.set(&self.config.labels, Value::Array(texts));
        values.set(&self.config.scores, Value::Array(Array::floats(shape, best)));
        Ok(())
    }

    fn makes(&self) -> Vec<&str> {
        vec![&self.config.labels, &self.config.scores]
    }

    fn reads(&self) -> Vec<&str> {
        vec![&self.config.from]
    }
}

/// `ctc_decode`: the best path through `from`, FP32 [rows, time, classes]: class 0 is the blank, repetitions are one
/// (Graves et al., 2006). Class n is line n of the file; one class more than that is the space. `scores` gets the mean of
/// the classes' probabilities.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CtcDecodeConfig {
    from: String,
    file: String,
    #[serde(default = "text")]
    text: String,
    #[serde(default = "scores")]
    scores: String,
}

fn text() -> String {
    "text".to_owned()
}

impl Config for CtcDecodeConfig {
    fn files(&self) -> Vec<&str> {
        vec![&self.file]
    }

    fn open(&self, files: &Files<'_>) -> Result<Box<dyn Step>, PlanError> {
        Ok(Box::new(CtcDecode { config: self.clone(), alphabet: lines(files, &self.file)? }))
    }
}

#[derive(Debug)]
struct CtcDecode {
    config: CtcDecodeConfig,
    alphabet: Vec<String>,
}

impl CtcDecode {
    /// The blank and, where there is one, the space are not in the file.
    fn knows(&self, classes: usize) -> bool {
        [1, 2].contains(&classes.saturating_sub(self.alphabet.len()))
    }

    fn decode(&self, row: &[f32], classes: usize) -> (String, f32) {
        let (mut text, mut sum, mut count, mut last) = (String::new(), 0.0_f32, 0.0_f32, 0);
        for step in row.chunks_exact(classes) {
            let best = step.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            let Some((class, probability)) = best else { continue };
            if class != 0 && class != last {
                text.push_str(self.alphabet.get(class - 1).map_or(" ", String::as_str));
                sum += probability;
                count += 1.0;
            }
            last = class;
        }
        (text, if count > 0.0 { sum / count } else { 0.0 })
    }
}

impl Step for CtcDecode {
    fn plan(&self, specs: &mut Specs) -> Result<(), PlanError> {
        let dims = specs.floats_exactly(&self.config.from, 3)?;
        if let Some(Dim::Fixed(classes)) = dims.last()
            && !usize::try_from(*classes).is_ok_and(|classes| self.knows(classes))
        {
            return Err(PlanError(format!("ctc_decode: {} letters for {classes} classes", self.alphabet.len())));
        }
        let rows = dims.into_iter().next().unwrap_or(Dim::Any(()));
        specs.set(&self.config.text, Spec::Texts(rows.clone()))?;
        specs.set(&self.config.scores, Spec::Array(DataType::Fp32, vec![rows]))
    }

    fn run<'a>(&'a self, values: &mut Values<'a>) -> Result<(), StepError> {
        let (probabilities, [rows, time, classes]) = values.floats::<3>(&self.config.from)?;
        if !self.knows(classes) {
            return Err(StepError::model(format!("the model gave {classes} classes; its alphabet has another length")));
        }
        let length = time.saturating_mul(classes);
        let decode = |row: usize| {
            let row = probabilities.get(row.saturating_mul(length)..).and_then(|rest| rest.get(..length));
            self.decode(row.unwrap_or_default(), classes)
        };
        let (texts, scores): (Vec<String>, Vec<f32>) = (0..rows).map(decode).unzip();
        values.set(&self.config.text, Value::Texts(texts.into_iter().map(|text| text.into_bytes().into()).collect()));
        values.set(&self.config.scores, Value::Array(Array::floats([rows as u64], scores)));
        Ok(())
    }

    fn makes(&self) -> Vec<&str> {
        vec![&self.config.text, &self.config.scores]
    }

    fn reads(&self) -> Vec<&str> {
        vec![&self.config.from]
    }
}
