//! Random inputs that fit a model, made from what the protocol says of it.

use std::collections::BTreeMap;

use serde::Deserialize;
use smallvec::SmallVec;
use tenantry_types::{DataType, Shape, Tensor};

use crate::SplitMix64;

/// An extent that the model leaves open, other than the first.
const OPEN_EXTENT: u64 = 16;
/// The largest input that is made up, bytes.
const MAX_INPUT_BYTES: u64 = 256 << 20;
/// What a byte string of an input says.
const WORD: &[u8] = b"tenantry";

/// What the protocol says of a model.
#[derive(Debug, Clone, Deserialize)]
pub struct ModelMetadata {
    /// Its inputs.
    pub inputs: Vec<InputMetadata>,
}

/// One input of a model.
#[derive(Debug, Clone, Deserialize)]
pub struct InputMetadata {
    /// Its name.
    pub name: String,
    /// Its element type, as the protocol calls it.
    pub datatype: String,
    /// Its extents; negative ones are open.
    pub shape: Vec<i64>,
}

/// Inputs that cannot be made up.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// An element type from a later protocol.
    #[error("input `{input}` has elements of a type this client does not know; update it")]
    DataType {
        /// The input.
        input: String,
    },
    /// Larger than anything one would send.
    #[error("input `{input}` would have more than 256 MiB; ask for fewer rows or name a smaller shape")]
    TooLarge {
        /// The input.
        input: String,
    },
    /// A shape for an input the model does not have.
    #[error("the model has no input `{input}` to give a shape to; it has {known}")]
    Unknown {
        /// The input.
        input: String,
        /// What it has.
        known: String,
    },
}

/// One tensor for each input: `rows` where the first extent is open, `shapes` where one is named, noise in it.
///
/// Whole numbers are 0 or 1, which is a valid token, mask and flag alike; fractions are from 0 up to 1.
///
/// # Errors
/// [`InputError`].
pub fn random_inputs(
    metadata: &ModelMetadata,
    rows: u32,
    shapes: &BTreeMap<String, Vec<u64>>,
    noise: &mut SplitMix64,
) -> Result<Vec<Tensor>, InputError> {
    if let Some(input) = shapes.keys().find(|name| metadata.inputs.iter().all(|input| input.name != **name)) {
        let known: Vec<&str> = metadata.inputs.iter().map(|input| input.name.as_str()).collect();
        return Err(InputError::Unknown { input: input.clone(), known: known.join(", ") });
    }
    metadata.inputs.iter().map(|input| tensor(input, rows, shapes.get(&input.name), noise)).collect()
}

fn tensor(
    input: &InputMetadata,
    rows: u32,
    named: Option<&Vec<u64>>,
    noise: &mut SplitMix64,
) -> Result<Tensor, InputError> {
    let datatype: DataType = input.datatype.parse().map_err(|_| InputError::DataType { input: input.name.clone() })?;
    let extent = |(axis, extent): (usize, &i64)| {
        u64::try_from(*extent).unwrap_or(if axis == 0 { u64::from(rows.max(1)) } else { OPEN_EXTENT })
    };
    let shape: Shape = match named {
        Some(shape) => SmallVec::from_slice(shape),
        None => input.shape.iter().enumerate().map(extent).collect(),
    };
    let element_bytes = datatype.element_bytes().unwrap_or(4 + WORD.len()) as u64;
    let elements = shape
        .iter()
        .try_fold(1_u64, |product, extent| product.checked_mul(*extent))
        .filter(|elements| elements.checked_mul(element_bytes).is_some_and(|bytes| bytes <= MAX_INPUT_BYTES))
        .ok_or_else(|| InputError::TooLarge { input: input.name.clone() })?;
    let mut data = Vec::with_capacity((elements * element_bytes) as usize);
    for _ in 0..elements {
        element(datatype, noise, &mut data);
    }
    Ok(Tensor { name: input.name.clone(), datatype, shape, data: data.into() })
}

fn element(datatype: DataType, noise: &mut SplitMix64, data: &mut Vec<u8>) {
    let bits = noise.next_u64();
    let bit = (bits & 1) as u8;
    match datatype {
        DataType::Fp32 => data.extend_from_slice(&(((bits >> 40) as f32) / (1 << 24) as f32).to_le_bytes()),
        DataType::Fp64 => data.extend_from_slice(&noise.fraction().to_le_bytes()),
        // The exponent of one half, and a random significand: from 0.5 up to 1.
        DataType::Fp16 => data.extend_from_slice(&(0x3800 | (bits & 0x03ff) as u16).to_le_bytes()),
        DataType::Bf16 => data.extend_from_slice(&(0x3f00 | (bits & 0x007f) as u16).to_le_bytes()),
        DataType::Bytes => {
            data.extend_from_slice(&(WORD.len() as u32).to_le_bytes());
            data.extend_from_slice(WORD);
        }
        whole => {
            data.push(bit);
            // Little-endian: the rest of the number is zero.
            data.extend(std::iter::repeat_n(0, whole.element_bytes().unwrap_or(1) - 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> ModelMetadata {
        let text = r#"{"name": "m", "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "ids", "datatype": "INT64", "shape": [-1, -1]},
            {"name": "text", "datatype": "BYTES", "shape": [2]},
            {"name": "half", "datatype": "FP16", "shape": []}]}"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn inputs_fit_the_model() {
        let shapes = BTreeMap::from([("ids".to_owned(), vec![4, 8])]);
        let inputs = random_inputs(&metadata(), 4, &shapes, &mut SplitMix64::new(1)).unwrap();
        let sizes: Vec<_> = inputs.iter().map(|input| (input.shape.to_vec(), input.data.len())).collect();
        assert_eq!(sizes, [(vec![4, 3], 48), (vec![4, 8], 256), (vec![2], 24), (vec![], 2)]);
        let floats = inputs[0].data.to_contiguous();
        let values = floats.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
        assert!(values.into_iter().all(|value| (0.0..1.0).contains(&value)));
        let whole = inputs[1].data.to_contiguous();
        assert!(whole.chunks(8).all(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()) <= 1));
    }

    #[test]
    fn what_cannot_be_made_up_is_refused() {
        let mut noise = SplitMix64::new(1);
        let unknown = BTreeMap::from([("y".to_owned(), vec![1])]);
        let error = random_inputs(&metadata(), 1, &unknown, &mut noise).unwrap_err().to_string();
        assert!(error.contains("x, ids, text, half"), "{error}");
        let huge = BTreeMap::from([("x".to_owned(), vec![u64::MAX, 2])]);
        assert!(matches!(random_inputs(&metadata(), 1, &huge, &mut noise), Err(InputError::TooLarge { .. })));
    }
}
