//! Arithmetic on the rows of tensors.

use serde::Deserialize;
use tenantry_types::tensor::element_count;
use tenantry_types::{DataType, Dim};

use super::Step;
use crate::array::Array;
use crate::value::{PlanError, Spec, Specs, StepError, Value, Values};

/// The most values of a constant.
const MAX_CONSTANT_VALUES: u64 = 4096;

/// `constant`: the same tensor in every run, such as a sampling rate.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constant {
    to: String,
    datatype: DataType,
    /// All extents; none: a scalar.
    #[serde(default)]
    shape: Vec<u64>,
    /// As many as the shape has, or one for all.
    values: Vec<f64>,
}

impl Constant {
    fn array(&self) -> Option<Array<'static>> {
        let count = usize::try_from(element_count(&self.shape).filter(|count| *count <= MAX_CONSTANT_VALUES)?).ok()?;
        let values: Vec<f64> = match self.values.as_slice() {
            [value] => vec![*value; count],
            values if values.len() == count => values.to_vec(),
            _ => return None,
        };
        let shape = self.shape.iter().copied();
        Some(match self.datatype {
            DataType::Fp32 => Array::floats(shape, values.iter().map(|value| *value as f32).collect()),
            DataType::Int32 => Array::ints(shape, values.iter().map(|value| *value as i32).collect()),
            DataType::Int64 => Array::longs(shape, values.iter().map(|value| *value as i64).collect()),
            _ => return None,
        })
    }
}

impl Step for Constant {
    fn plan(&self, specs: &mut Specs) -> Result<(), PlanError> {
        if self.array().is_none() {
            return Err(PlanError(format!(
                "constant `{}`: it is FP32, INT32 or INT64, with one value, or one for each of at most \
                 {MAX_CONSTANT_VALUES} elements of its shape",
                self.to
            )));
        }
        specs.set(&self.to, Spec::Array(self.datatype, self.shape.iter().map(|extent| Dim::Fixed(*extent)).collect()))
    }

    fn run<'a>(&'a self, values: &mut Values<'a>) -> Result<(), StepError> {
        let array = self.array().ok_or_else(|| StepError::model("a constant without a value"))?;
        values.set(&self.to, Value::Array(array));
        Ok(())
    }

    fn makes(&self) -> Vec<&str> {
        vec![&self.to]
    }

    fn reads(&self) -> Vec<&str> {
        Vec::new()
    }
}

/// `mean_pool`: the mean of `from`, FP32 [rows, tokens, width], over the tokens whose `mask`, INT64 [rows, tokens], is not 0.
/// A row without any becomes zeros.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeanPool {
    from: String,
    #[serde(default = "attention_mask")]
    mask: String,
    to: String,
}

fn attention_mask() -> String {
    "attention_mask".to_owned()
}

impl Step for MeanPool {
    fn plan(&self, specs: &mut Specs) -> Result<(), PlanError> {
        let dims = specs.floats_exactly(&self.from, 3)?;
        match specs.any(&self.mask)? {
            Spec::Array(DataType::Int64, mask) if mask.len() == 2 => {}
            _ => return Err(PlanError(format!("the mask `{}` of mean_pool must be INT64 [rows, tokens]", self.mask))),
        }
        let pooled = dims.into_iter().enumerate().filter(|(axis, _)| *axis != 1).map(|(_, dim)| dim).collect();
        specs.set(&self.to, Spec::Array(DataType::Fp32, pooled))
    }

    fn run<'a>(&'a self, values: &mut Values<'a>) -> Result<(), StepError> {
        let (hidden, [rows, tokens, width]) = values.floats::<3>(&self.from)?;
        let mask = values.array(&self.mask)?.as_longs().filter(|mask| Some(mask.len()) == rows.checked_mul(tokens));
        let mask = mask.ok_or_else(|| StepError::model("the model's output and the mask have different extents"))?;
        let mut pooled = Vec::with_capacity(rows.saturating_mul(width));
        if tokens > 0 && width > 0 {
            for (hidden, mask) in hidden.chunks_exact(tokens * width).zip(mask.chunks_exact(tokens)) {
                pooled.extend(mean_of(hidden, mask, width));
            }
        } else {
            pooled.resize(rows.saturating_mul(width), 0.0);
        }
        values.set(&self.to, Value::Array(Array::floats([rows as u64, width as u64], pooled)));
        Ok(())
    }

    fn makes(&self) -> Vec<&str> {
        vec![&self.to]
    }

    fn reads(&self) -> Vec<&str> {
        vec![&self.from, &self.mask]
    }
}

fn mean_of(hidden: &[f32], mask: &[i64], width: usize) -> Vec<f32> {
    let mut sum = vec![0.0_f32; width];
    let mut count = 0.0_f32;
    for (state, _) in hidden.chunks_exact(width).zip(mask).filter(|(_, mask)| **mask != 0) {
        count += 1.0;
        for (total, value) in sum.iter_mut().zip(state) {
            *total += value;
        }
    }
    for total in &mut sum {
        *total /= count.max(1.0);
    }
    sum
}

/// `l2_normalize`: divides each vector along the last dimension by its Euclidean length; zeros stay zeros.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct L2Normalize {
    from: String,
    to: String,
}

/// `softmax`: along the last dimension.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Softmax {
    from: String,
    to: String,
}

/// Along the last dimension of an FP32 tensor, vector by vector.
fn each_vector(values: &Values<'_>, name: &str, change: fn(&mut [f32])) -> Result<Array<'static>, StepError> {
    let array = values.array(name)?;
    let floats = array.as_floats().ok_or_else(|| StepError::model(format!("`{name}` is not FP32")))?;
    let width = array.shape.last().and_then(|width| usize::try_from(*width).ok()).unwrap_or(0);
    let mut changed = floats.to_vec();
    if width > 0 {
        changed.chunks_exact_mut(width).for_each(change);
    }
    Ok(Array::floats(array.shape.iter().copied(), changed))
}

fn normalize(vector: &mut [f32]) {
    let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|value| *value /= norm);
    }
}

fn softmax(vector: &mut [f32]) {
    // The largest is taken away first, so that no power overflows.
    let largest = vector.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    vector.iter_mut().for_each(|value| *value = (*value - largest).exp());
    let sum: f32 = vector.iter().sum();
    vector.iter_mut().for_each(|value| *value /= sum);
}

macro_rules! each_vector_step {
    ($step:ty, $change:expr) => {
        impl Step for $step {
            fn plan(&self, specs: &mut Specs) -> Result<(), PlanError> {
                let dims = specs.floats(&self.from, 1)?;
                specs.set(&self.to, Spec::Array(DataType::Fp32, dims))
            }

            fn run<'a>(&'a self, values: &mut Values<'a>) -> Result<(), StepError> {
                let array = each_vector(values, &self.from, $change)?;
                values.set(&self.to, Value::Array(array));
                Ok(())
            }

            fn makes(&self) -> Vec<&str> {
                vec![&self.to]
            }

            fn reads(&self) -> Vec<&str> {
                vec![&self.from]
            }
        }
    };
}

each_vector_step!(L2Normalize, normalize);
each_vector_step!(Softmax, softmax);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_softmax_of_large_values_is_finite() {
        let mut vector = [1000.0, 1000.0, -1000.0];
        softmax(&mut vector);
        assert_eq!(vector, [0.5, 0.5, 0.0]);
    }

    #[test]
    fn zeros_stay_zeros_and_the_mask_counts() {
        let mut vector = [0.0, 0.0];
        normalize(&mut vector);
        assert_eq!(vector, [0.0, 0.0]);
        assert_eq!(mean_of(&[1.0, 2.0, 3.0, 4.0, 9.0, 9.0], &[1, 1, 0], 2), [2.0, 3.0]);
        assert_eq!(mean_of(&[1.0, 2.0], &[0], 2), [0.0, 0.0]);
    }
}
