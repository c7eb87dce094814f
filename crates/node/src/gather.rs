//! The batch's way into a worker's arena and the answer's way out, with the checks of what a worker claims.
//!
//! Inputs: for every input of the signature, the members' tensors lie one after another along the first dimension, each
//! input at an offset of a multiple of [`ALIGN`]. Outputs: the worker says where each lies; data type, rank, fixed
//! extents, rows and length are compared with the signature before a byte of it is believed.

use bytes::Bytes;
use tenantry_types::tensor::element_count;
use tenantry_types::{DataType, Dim, Shape, Signature, Tensor};
use tenantry_wire::TensorDescriptor;

/// Tensors start at multiples of this many bytes: a cache line, and enough for any vector instruction.
pub(crate) const ALIGN: u64 = 64;

/// Where the inputs of a batch go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InputLayout {
    /// One per input of the signature, in its order.
    pub(crate) descriptors: Vec<TensorDescriptor>,
    /// Bytes of arena needed.
    pub(crate) bytes: u64,
}

/// The batch does not fit together; only a bug or a hash collision gets here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the batch's members do not have the same shape")]
pub(crate) struct Mismatch;

/// Lays out the members' inputs, each member's in the signature's order.
pub(crate) fn layout<'a>(
    members: impl Iterator<Item = &'a [Tensor]> + Clone,
    inputs: usize,
) -> Result<InputLayout, Mismatch> {
    let mut descriptors = Vec::with_capacity(inputs);
    let mut end = 0_u64;
    for index in 0..inputs {
        let mut joined: Option<(DataType, Shape)> = None;
        let mut bytes = 0_u64;
        for tensors in members.clone() {
            let tensor = tensors.get(index).ok_or(Mismatch)?;
            bytes = bytes.checked_add(tensor.data.len() as u64).ok_or(Mismatch)?;
            match &mut joined {
                None => joined = Some((tensor.datatype, tensor.shape.clone())),
                Some((datatype, shape)) => {
                    let (Some((rows, rest)), Some((more, other))) =
                        (shape.split_first_mut(), tensor.shape.split_first())
                    else {
                        return Err(Mismatch);
                    };
                    if *datatype != tensor.datatype || *rest != *other {
                        return Err(Mismatch);
                    }
                    *rows = rows.checked_add(*more).ok_or(Mismatch)?;
                }
            }
        }
        let (datatype, shape) = joined.ok_or(Mismatch)?;
        let offset = end.checked_next_multiple_of(ALIGN).ok_or(Mismatch)?;
        end = offset.checked_add(bytes).ok_or(Mismatch)?;
        let index = u16::try_from(index).map_err(|_| Mismatch)?;
        descriptors.push(TensorDescriptor { index, datatype, shape, offset, bytes });
    }
    Ok(InputLayout { descriptors, bytes: end })
}

/// What a worker said about its outputs is impossible: the worker is broken or hostile.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("it returned {got} outputs instead of {expected}")]
    Count { got: usize, expected: usize },
    #[error("it returned output {got} where {expected} was due")]
    Order { got: u16, expected: u16 },
    #[error("output `{name}` does not have the declared type and shape")]
    Shape { name: String },
    #[error("output `{name}` has the wrong number of bytes")]
    Length { name: String },
    #[error("output `{name}` is not well-formed BYTES data")]
    Framing { name: String },
}

/// Whether the outputs of a batch can be given back to its members.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Division {
    /// Each output by its first dimension.
    ByRows,
    /// One member owns everything.
    Whole,
}

/// Compares what the worker claims with the signature. `rows` is the batch's first extent when it has several members.
pub(crate) fn check_outputs(
    signature: &Signature,
    wanted: &[u16],
    claimed: &[TensorDescriptor],
    rows: Option<u64>,
) -> Result<Division, Violation> {
    if wanted.len() != claimed.len() {
        return Err(Violation::Count { got: claimed.len(), expected: wanted.len() });
    }
    for (index, output) in wanted.iter().zip(claimed) {
        if output.index != *index {
            return Err(Violation::Order { got: output.index, expected: *index });
        }
        let Some(spec) = signature.outputs.get(usize::from(*index)) else {
            return Err(Violation::Order { got: *index, expected: 0 });
        };
        let name = || spec.name.clone();
        let fixed = |(dim, extent): (&Dim, &u64)| !matches!(dim, Dim::Fixed(fixed) if fixed != extent);
        let fits = spec.datatype == output.datatype
            && spec.dims.len() == output.shape.len()
            && spec.dims.iter().zip(&output.shape).all(fixed)
            && rows.is_none_or(|rows| output.shape.first() == Some(&rows));
        let count = element_count(&output.shape).filter(|_| fits).ok_or_else(|| Violation::Shape { name: name() })?;
        if let Some(element) = output.datatype.element_bytes()
            && count.checked_mul(element as u64) != Some(output.bytes)
        {
            return Err(Violation::Length { name: name() });
        }
    }
    Ok(if rows.is_some() { Division::ByRows } else { Division::Whole })
}

/// Cuts one output, copied out of the arena already, into the members' parts. No byte is copied again.
pub(crate) fn divide(
    name: &str,
    output: &TensorDescriptor,
    data: Bytes,
    rows_of_members: &[u64],
) -> Result<Vec<Tensor>, Violation> {
    let tensor = |shape: Shape, data: Bytes| Tensor {
        name: name.to_owned(),
        datatype: output.datatype,
        shape,
        data: data.into(),
    };
    let count = element_count(&output.shape).unwrap_or(0);
    if output.datatype == DataType::Bytes && string_bytes(&data, count) != Some(data.len()) {
        return Err(Violation::Framing { name: name.to_owned() });
    }
    if rows_of_members.len() <= 1 {
        return Ok(vec![tensor(output.shape.clone(), data)]);
    }
    let total: u64 = rows_of_members.iter().sum();
    let per_row = count.checked_div(total).unwrap_or(0);
    let mut rest = data;
    let mut parts = Vec::with_capacity(rows_of_members.len());
    for rows in rows_of_members {
        let elements = per_row.saturating_mul(*rows);
        let length = match output.datatype.element_bytes() {
            Some(element) => usize::try_from(elements).ok().and_then(|elements| elements.checked_mul(element)),
            None => string_bytes(&rest, elements),
        };
        let length =
            length.filter(|length| *length <= rest.len()).ok_or_else(|| Violation::Length { name: name.to_owned() })?;
        let mut shape = output.shape.clone();
        if let Some(first) = shape.first_mut() {
            *first = *rows;
        }
        parts.push(tensor(shape, rest.split_to(length)));
    }
    Ok(parts)
}

/// The bytes that `count` length-prefixed strings take at the start of `data`; `None` if they are not all there.
fn string_bytes(data: &[u8], count: u64) -> Option<usize> {
    let mut rest = data;
    for _ in 0..count {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        rest = tail.get(usize::try_from(u32::from_le_bytes(*length)).ok()?..)?;
    }
    Some(data.len() - rest.len())
}

#[cfg(test)]
mod tests;
