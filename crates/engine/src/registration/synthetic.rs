//! Inputs made up from a signature, for warm-ups and profiles.
//!
//! A file says which extents are open, not which make sense, so several are tried. Values differ from row to row: that
//! is what shows whether rows of a batch see each other.

use std::time::Instant;

use tenantry_types::{DataType, Dim, Shape, Signature, TensorSpec};

use crate::model::{InputTensor, Model, RunError};
use crate::outputs::Outputs;

/// Extents to try for the open dimensions of up to three dimensions: sequences, features, audio frames.
const FLAT_EXTENTS: [u64; 10] = [16, 64, 1, 8, 32, 128, 512, 576, 2, 256];
/// Extents to try for the open dimensions of four and more: images.
const IMAGE_EXTENTS: [u64; 8] = [224, 64, 320, 32, 16, 48, 1, 8];
/// The most combinations tried.
const MAX_TRIES: usize = 120;
/// The largest single input made up, bytes.
const MAX_INPUT_BYTES: u64 = 256 << 20;

/// What is chosen freely when inputs are made up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    /// An extent for each class of open dimensions, in order of appearance.
    extents: Vec<u64>,
    /// Whole numbers are this or one more. Zero suits masks and small vocabularies, one suits divisors.
    lowest: u8,
}

/// Open dimensions that must agree: all of one name, or one without a name.
struct Classes {
    /// For each input and dimension: fixed, the batch, or a class.
    inputs: Vec<Vec<Kind>>,
    /// For each class, whether it belongs to something like an image.
    image: Vec<bool>,
}

#[derive(Clone, Copy)]
enum Kind {
    Fixed(u64),
    Rows,
    Class(usize),
}

impl Classes {
    fn of(signature: &Signature) -> Self {
        let mut names: Vec<(&str, Kind)> = Vec::new();
        let mut image = Vec::new();
        // The first dimension of the first input that leaves it open is the batch, and so is its name elsewhere.
        for spec in &signature.inputs {
            if let Some(Dim::Named(name)) = spec.dims.first() {
                names.push((name, Kind::Rows));
            }
        }
        let inputs = signature.inputs.iter().map(|spec| {
            let kinds = spec.dims.iter().enumerate().map(|(axis, dim)| match dim {
                Dim::Fixed(extent) => Kind::Fixed(*extent),
                Dim::Any(()) if axis == 0 => Kind::Rows,
                Dim::Named(name) if names.iter().any(|(known, _)| known == name) => {
                    names.iter().find(|(known, _)| known == name).map_or(Kind::Rows, |(_, kind)| *kind)
                }
                open => {
                    let class = Kind::Class(image.len());
                    image.push(spec.dims.len() >= 4);
                    if let Dim::Named(name) = open {
                        names.push((name, class));
                    }
                    class
                }
            });
            kinds.collect()
        });
        let inputs = inputs.collect();
        Self { inputs, image }
    }

    /// Combinations to try, the likeliest first: all classes at the same step of their lists, then every other.
    fn candidates(&self, lowest: u8) -> Vec<Choice> {
        let lists: Vec<&[u64]> =
            self.image.iter().map(|image| if *image { &IMAGE_EXTENTS[..] } else { &FLAT_EXTENTS[..] }).collect();
        let steps = lists.iter().map(|list| list.len()).max().unwrap_or(1);
        let pick = |list: &&[u64], step: usize| list.get(step % list.len().max(1)).copied().unwrap_or(1);
        let mut candidates: Vec<Choice> = (0..steps)
            .map(|step| Choice { lowest, extents: lists.iter().map(|list| pick(list, step)).collect() })
            .collect();
        if (2..=3).contains(&lists.len()) {
            let all = lists.iter().map(|list| list.len()).product::<usize>();
            for mut number in 0..all.min(MAX_TRIES) {
                let extents = lists.iter().map(|list| {
                    let step = number % list.len();
                    number /= list.len();
                    pick(list, step)
                });
                let candidate = Choice { lowest, extents: extents.collect() };
                if !candidates.contains(&candidate) {
                    candidates.push(candidate);
                }
            }
        }
        candidates.truncate(MAX_TRIES);
        candidates
    }
}

/// A whole set of inputs.
pub(super) struct Inputs {
    tensors: Vec<(DataType, Shape, Vec<u8>)>,
}

impl Inputs {
    /// Makes inputs of `rows` rows; row `i` of them holds the values of row `first + i`.
    pub(super) fn new(signature: &Signature, choice: &Choice, first: u64, rows: u64) -> Option<Self> {
        let classes = Classes::of(signature);
        let tensors = signature.inputs.iter().zip(&classes.inputs).map(|(spec, kinds)| {
            let mut shape = Shape::new();
            let mut has_rows = false;
            for (axis, kind) in kinds.iter().enumerate() {
                has_rows |= axis == 0 && matches!(kind, Kind::Rows);
                shape.push(match kind {
                    Kind::Fixed(extent) => *extent,
                    Kind::Rows => rows,
                    Kind::Class(class) => *choice.extents.get(*class)?,
                });
            }
            let rows = has_rows.then_some(first);
            let data = values(spec, &shape, rows, choice.lowest)?;
            Some((spec.datatype, shape, data))
        });
        Some(Self { tensors: tensors.collect::<Option<_>>()? })
    }

    pub(super) fn run(&self, model: &mut Model) -> Result<Outputs, RunError> {
        let inputs: Vec<InputTensor<'_>> = (0_u16..)
            .zip(&self.tensors)
            .map(|(index, (datatype, shape, data))| InputTensor { index, datatype: *datatype, shape, data })
            .collect();
        model.run(&inputs, &[])
    }
}

/// The data of one input, from row `first` on. Without a batch axis all of it is row 0.
fn values(spec: &TensorSpec, shape: &[u64], first: Option<u64>, lowest: u8) -> Option<Vec<u8>> {
    let count = tenantry_types::tensor::element_count(shape)?;
    let size = spec.datatype.element_bytes().unwrap_or(5) as u64;
    if count.checked_mul(size)? > MAX_INPUT_BYTES {
        return None;
    }
    let rows = if first.is_some() { *shape.first()? } else { 1 };
    let row_elements = count.checked_div(rows).unwrap_or(count).max(1);
    let mut data = Vec::with_capacity(usize::try_from(count * size).ok()?);
    for element in 0..count {
        let row = first.unwrap_or(0) + element / row_elements;
        push_value(&mut data, spec.datatype, row, element % row_elements, lowest);
    }
    Some(data)
}

/// Small, not negative, not all equal, different in each row: token ids, masks, pixels and samples can all be that.
fn push_value(data: &mut Vec<u8>, datatype: DataType, row: u64, position: u64, lowest: u8) {
    let mixed = (position.wrapping_mul(7).wrapping_add(row.wrapping_mul(3))) % 11;
    let odd = u8::from(mixed % 2 == 1);
    let whole = lowest + odd;
    let real = (mixed as f32 + 1.0) / 16.0;
    match datatype {
        DataType::Bool => data.push(odd),
        DataType::Uint8 | DataType::Int8 => data.push(whole),
        DataType::Uint16 | DataType::Int16 => data.extend(u16::from(whole).to_le_bytes()),
        DataType::Uint32 | DataType::Int32 => data.extend(u32::from(whole).to_le_bytes()),
        DataType::Uint64 | DataType::Int64 => data.extend(u64::from(whole).to_le_bytes()),
        // A power of two below one, whose bits are easily written down: 2^-1 or 2^-2.
        DataType::Fp16 => data.extend(((14 - u16::from(odd)) << 10).to_le_bytes()),
        DataType::Bf16 => data.extend(((126 - u16::from(odd)) << 7).to_le_bytes()),
        DataType::Fp32 => data.extend(real.to_le_bytes()),
        DataType::Fp64 => data.extend(f64::from(real).to_le_bytes()),
        DataType::Bytes => {
            data.extend(1_u32.to_le_bytes());
            data.push(b'a' + odd);
        }
    }
}

/// Finds a choice with which the model runs on one row. `None` if none of those tried does before `until`.
pub(super) fn find_choice(model: &mut Model, until: Instant) -> Option<Choice> {
    let signature = model.signature().clone();
    let classes = Classes::of(&signature);
    let candidates = [0, 1].into_iter().flat_map(|lowest| classes.candidates(lowest));
    candidates
        .take_while(|_| Instant::now() < until)
        .find(|choice| Inputs::new(&signature, choice, 0, 1).is_some_and(|inputs| inputs.run(model).is_ok()))
}

#[cfg(test)]
mod tests;
