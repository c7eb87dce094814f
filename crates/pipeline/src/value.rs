//! The values between steps, and what is known of them before any request comes.

use std::borrow::Cow;
use std::collections::HashMap;

use image::RgbImage;
use tenantry_types::{DataType, Dim};

use crate::array::Array;

/// The name of the dimension along which requests are joined.
pub(crate) const BATCH: &str = "batch";

/// A sound: one channel, -1 to 1.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sound {
    pub(crate) rate_hz: u32,
    pub(crate) samples: Vec<f32>,
}

/// A value. Each has rows, one behind the other.
#[derive(Debug, Clone)]
pub(crate) enum Value<'a> {
    /// Texts and files.
    Texts(Vec<Cow<'a, [u8]>>),
    /// Decoded pictures.
    Pictures(Vec<RgbImage>),
    /// Decoded sounds.
    Sounds(Vec<Sound>),
    /// Numbers.
    Array(Array<'a>),
}

/// What is known of a value beforehand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Spec {
    /// Texts and files, with their number of rows.
    Texts(Dim),
    /// Decoded pictures, with their number of rows.
    Pictures(Dim),
    /// Decoded sounds, with their number of rows.
    Sounds(Dim),
    /// Numbers.
    Array(DataType, Vec<Dim>),
}

impl Spec {
    fn kind(&self) -> String {
        match self {
            Self::Texts(_) => "text or a file".to_owned(),
            Self::Pictures(_) => "decoded pictures".to_owned(),
            Self::Sounds(_) => "decoded sounds".to_owned(),
            Self::Array(datatype, dims) => format!("{datatype} of {} dimensions", dims.len()),
        }
    }
}

/// A step that does not fit the values before it. The text is for the model's owner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PlanError(pub(crate) String);

/// What is known of all values beforehand. Each name is given once.
#[derive(Debug, Default)]
pub(crate) struct Specs(HashMap<String, Spec>);

impl Specs {
    pub(crate) fn get(&self, name: &str) -> Option<&Spec> {
        self.0.get(name)
    }

    pub(crate) fn set(&mut self, name: &str, spec: Spec) -> Result<(), PlanError> {
        match self.0.insert(name.to_owned(), spec) {
            None => Ok(()),
            Some(_) => Err(PlanError(format!("the value `{name}` is made twice; give one of them another name"))),
        }
    }

    pub(crate) fn any(&self, name: &str) -> Result<&Spec, PlanError> {
        self.0.get(name).ok_or_else(|| {
            let mut known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            known.sort_unstable();
            PlanError(format!("there is no value `{name}` here; there are: {}", known.join(", ")))
        })
    }

    pub(crate) fn texts(&self, name: &str) -> Result<Dim, PlanError> {
        match self.any(name)? {
            Spec::Texts(rows) => Ok(rows.clone()),
            other => Err(misfit(name, other, "text or a file")),
        }
    }

    pub(crate) fn pictures(&self, name: &str) -> Result<Dim, PlanError> {
        match self.any(name)? {
            Spec::Pictures(rows) => Ok(rows.clone()),
            other => Err(misfit(name, other, "decoded pictures (see the step `decode_image`)")),
        }
    }

    pub(crate) fn sounds(&self, name: &str) -> Result<Dim, PlanError> {
        match self.any(name)? {
            Spec::Sounds(rows) => Ok(rows.clone()),
            other => Err(misfit(name, other, "decoded sounds (see the step `decode_audio`)")),
        }
    }

    /// The extents of an `FP32` value of at least `rank` dimensions.
    pub(crate) fn floats(&self, name: &str, rank: usize) -> Result<Vec<Dim>, PlanError> {
        match self.any(name)? {
            Spec::Array(DataType::Fp32, dims) if dims.len() >= rank => Ok(dims.clone()),
            other => Err(misfit(name, other, &format!("FP32 of at least {rank} dimensions"))),
        }
    }

    /// The extents of an `FP32` value of exactly `rank` dimensions.
    pub(crate) fn floats_exactly(&self, name: &str, rank: usize) -> Result<Vec<Dim>, PlanError> {
        match self.any(name)? {
            Spec::Array(DataType::Fp32, dims) if dims.len() == rank => Ok(dims.clone()),
            other => Err(misfit(name, other, &format!("FP32 of {rank} dimensions"))),
        }
    }

    /// Refuses several rows where a step makes something whose number depends on the row.
    pub(crate) fn one_row(&self, name: &str, rows: &Dim) -> Result<(), PlanError> {
        match rows {
            Dim::Fixed(1) => Ok(()),
            _ => Err(PlanError(format!("`{name}` has a changing number of rows; write `rows = 1` at its [[input]]"))),
        }
    }
}

fn misfit(name: &str, found: &Spec, expected: &str) -> PlanError {
    PlanError(format!("the value `{name}` is {}; {expected} is needed", found.kind()))
}

/// Why a step gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StepError {
    /// The request's fault.
    Input(String),
    /// The model's or its manifest's fault.
    Model(String),
}

impl StepError {
    pub(crate) fn input(text: impl Into<String>) -> Self {
        Self::Input(text.into())
    }

    pub(crate) fn model(text: impl Into<String>) -> Self {
        Self::Model(text.into())
    }
}

/// All values of a run. What the plan has found there is there; anything else is the engine's lie.
#[derive(Debug, Default)]
pub(crate) struct Values<'a>(HashMap<&'a str, Value<'a>>);

impl<'a> Values<'a> {
    pub(crate) fn set(&mut self, name: &'a str, value: Value<'a>) {
        self.0.insert(name, value);
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Value<'a>> {
        self.0.remove(name)
    }

    pub(crate) fn any(&self, name: &str) -> Result<&Value<'a>, StepError> {
        self.0.get(name).ok_or_else(|| StepError::model(format!("the value `{name}` was not made")))
    }

    pub(crate) fn texts(&self, name: &str) -> Result<&[Cow<'a, [u8]>], StepError> {
        match self.any(name)? {
            Value::Texts(texts) => Ok(texts),
            _ => Err(other_kind(name)),
        }
    }

    pub(crate) fn pictures(&self, name: &str) -> Result<&[RgbImage], StepError> {
        match self.any(name)? {
            Value::Pictures(pictures) => Ok(pictures),
            _ => Err(other_kind(name)),
        }
    }

    pub(crate) fn sounds(&self, name: &str) -> Result<&[Sound], StepError> {
        match self.any(name)? {
            Value::Sounds(sounds) => Ok(sounds),
            _ => Err(other_kind(name)),
        }
    }

    pub(crate) fn array(&self, name: &str) -> Result<&Array<'a>, StepError> {
        match self.any(name)? {
            Value::Array(array) => Ok(array),
            _ => Err(other_kind(name)),
        }
    }

    /// Values and extents of an `FP32` tensor of exactly `N` dimensions.
    pub(crate) fn floats<const N: usize>(&self, name: &str) -> Result<(&[f32], [usize; N]), StepError> {
        let array = self.array(name)?;
        let floats = array.as_floats().ok_or_else(|| other_kind(name))?;
        let extents: Option<Vec<usize>> = array.shape.iter().map(|extent| usize::try_from(*extent).ok()).collect();
        let extents =
            extents.and_then(|extents| <[usize; N]>::try_from(extents).ok()).ok_or_else(|| other_kind(name))?;
        let count = extents.iter().try_fold(1_usize, |count, extent| count.checked_mul(*extent));
        if count != Some(floats.len()) {
            return Err(other_kind(name));
        }
        Ok((floats, extents))
    }
}

fn other_kind(name: &str) -> StepError {
    StepError::model(format!("the value `{name}` is of another kind or shape than its step needs"))
}
