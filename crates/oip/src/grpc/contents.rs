//! Typed contents (`InferTensorContents`) to a tensor's bytes and back: each in one pass, without a list in between.

use tenantry_types::tensor::element_count;
use tenantry_types::{DataType, Tensor};

use super::wire::{Fields, Value, WireError, put_bytes, put_length, put_varint};
use crate::error::{EncodeError, TensorProblem, echo};
use crate::framing;

/// The fields of the message that hold elements.
const FIELDS: std::ops::RangeInclusive<u32> = 1..=8;

/// The field that a type's elements go in, and its name; the 16-bit floats have none.
const fn field_of(datatype: DataType) -> Option<(u32, &'static str)> {
    match datatype {
        DataType::Bool => Some((1, "bool_contents")),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => Some((2, "int_contents")),
        DataType::Int64 => Some((3, "int64_contents")),
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => Some((4, "uint_contents")),
        DataType::Uint64 => Some((5, "uint64_contents")),
        DataType::Fp32 => Some((6, "fp32_contents")),
        DataType::Fp64 => Some((7, "fp64_contents")),
        DataType::Bytes => Some((8, "bytes_contents")),
        DataType::Fp16 | DataType::Bf16 => None,
    }
}

/// Whether a type has typed contents at all.
pub(crate) fn has_contents(datatype: DataType) -> bool {
    field_of(datatype).is_some()
}

/// Reads a tensor's typed contents into its bytes: row-major, little-endian, `BYTES` elements after their length.
pub(crate) fn read_contents(
    message: &[u8],
    datatype: DataType,
    shape: &[u64],
    limit_bytes: usize,
) -> Result<Vec<u8>, TensorProblem> {
    let (field, name) = field_of(datatype).ok_or(TensorProblem::RawOnly(datatype))?;
    let expected = element_count(shape).ok_or_else(|| TensorProblem::ShapeTooLarge(shape.into()))?;
    // An element takes a byte at least, so the message's length bounds what is reserved for it.
    let most = usize::try_from(expected).unwrap_or(usize::MAX).min(message.len());
    let bytes = most.saturating_mul(datatype.element_bytes().unwrap_or(1)).min(limit_bytes);
    let mut sink = Sink { out: Vec::with_capacity(bytes), count: 0, expected, datatype, shape, limit_bytes };
    for item in Fields::new(message) {
        let (number, value) = item?;
        if number == field {
            sink.take(field, value)?;
        } else if FIELDS.contains(&number) && value != Value::Delimited(&[]) {
            return Err(TensorProblem::WrongContents { datatype, expected: name });
        }
    }
    if sink.count == expected { Ok(sink.out) } else { Err(sink.count_problem(sink.count.to_string())) }
}

/// Elements on their way into a tensor's bytes.
struct Sink<'a> {
    out: Vec<u8>,
    count: u64,
    expected: u64,
    datatype: DataType,
    shape: &'a [u64],
    limit_bytes: usize,
}

impl Sink<'_> {
    /// Takes one field's value: an element, or several packed.
    fn take(&mut self, field: u32, value: Value<'_>) -> Result<(), TensorProblem> {
        match (self.datatype, value) {
            (DataType::Bytes, value) => {
                let element = value.delimited(field)?;
                // Shorter than the message, whose length fits.
                let length = u32::try_from(element.len()).map_err(|_| self.too_large())?;
                self.fits(1, 4 + element.len())?;
                self.out.extend_from_slice(&length.to_le_bytes());
                self.out.extend_from_slice(element);
                Ok(())
            }
            (DataType::Fp32, Value::Fixed32(element)) => self.plain(&element, 4),
            (DataType::Fp64, Value::Fixed64(element)) => self.plain(&element, 8),
            (DataType::Fp32, Value::Delimited(packed)) => self.plain(packed, 4),
            (DataType::Fp64, Value::Delimited(packed)) => self.plain(packed, 8),
            (_, Value::Varint(element)) => self.number(element),
            (_, Value::Delimited(packed)) => {
                let mut packed = Fields::new(packed);
                while !packed.is_at_end() {
                    let element = packed.varint()?;
                    self.number(element)?;
                }
                Ok(())
            }
            (_, Value::Fixed32(_) | Value::Fixed64(_)) => Err(WireError::Mistyped(field).into()),
        }
    }

    /// Elements that are on the wire as they are in memory.
    fn plain(&mut self, elements: &[u8], element_bytes: usize) -> Result<(), TensorProblem> {
        if !elements.len().is_multiple_of(element_bytes) {
            return Err(WireError::Truncated.into());
        }
        self.fits((elements.len() / element_bytes) as u64, elements.len())?;
        self.out.extend_from_slice(elements);
        Ok(())
    }

    fn number(&mut self, element: u64) -> Result<(), TensorProblem> {
        // As every reader of the 32-bit fields does: the upper half is the sign again.
        let (signed, unsigned) = (element as i64 as i32, element as u32);
        let out_of_range =
            |got: String| TensorProblem::ContentsElement { index: self.count, got, datatype: self.datatype };
        match self.datatype {
            DataType::Bool => self.put(&[u8::from(element != 0)]),
            DataType::Int8 => {
                let element = i8::try_from(signed).map_err(|_| out_of_range(signed.to_string()))?;
                self.put(&element.to_le_bytes())
            }
            DataType::Int16 => {
                let element = i16::try_from(signed).map_err(|_| out_of_range(signed.to_string()))?;
                self.put(&element.to_le_bytes())
            }
            DataType::Int32 => self.put(&signed.to_le_bytes()),
            DataType::Uint8 => {
                let element = u8::try_from(unsigned).map_err(|_| out_of_range(unsigned.to_string()))?;
                self.put(&element.to_le_bytes())
            }
            DataType::Uint16 => {
                let element = u16::try_from(unsigned).map_err(|_| out_of_range(unsigned.to_string()))?;
                self.put(&element.to_le_bytes())
            }
            DataType::Uint32 => self.put(&unsigned.to_le_bytes()),
            DataType::Int64 | DataType::Uint64 => self.put(&element.to_le_bytes()),
            // Taken before, or without typed contents.
            DataType::Fp32 | DataType::Fp64 | DataType::Bytes | DataType::Fp16 | DataType::Bf16 => {
                Err(TensorProblem::RawOnly(self.datatype))
            }
        }
    }

    fn put(&mut self, element: &[u8]) -> Result<(), TensorProblem> {
        self.fits(1, element.len())?;
        self.out.extend_from_slice(element);
        Ok(())
    }

    /// Counts elements, unless they are more than the shape says or than is accepted.
    fn fits(&mut self, count: u64, bytes: usize) -> Result<(), TensorProblem> {
        let total = self.count.saturating_add(count);
        if total > self.expected {
            return Err(self.count_problem(format!("more than {}", self.expected)));
        }
        if self.out.len().saturating_add(bytes) > self.limit_bytes {
            return Err(self.too_large());
        }
        self.count = total;
        Ok(())
    }

    fn count_problem(&self, got: String) -> TensorProblem {
        TensorProblem::ContentsCount { got, shape: self.shape.into(), expected: self.expected }
    }

    fn too_large(&self) -> TensorProblem {
        TensorProblem::TooLarge { limit_bytes: self.limit_bytes }
    }
}

/// Appends a tensor's typed contents: an `InferTensorContents` without its key and length.
pub(crate) fn write_contents(out: &mut Vec<u8>, tensor: &Tensor) -> Result<(), EncodeError> {
    let Tensor { name, datatype, .. } = tensor;
    let malformed = || EncodeError::Malformed { name: echo(name) };
    let (field, _) = field_of(*datatype).ok_or_else(malformed)?;
    let count = element_count(&tensor.shape).ok_or_else(malformed)?;
    let data = tensor.data.to_contiguous();
    let elements = match datatype.element_bytes() {
        Some(bytes) => (data.len() / bytes) as u64,
        None => {
            let mut elements = 0;
            for element in framing::elements(&data) {
                put_bytes(out, field, element.ok_or_else(malformed)?);
                elements += 1;
            }
            elements
        }
    };
    if elements != count || datatype.element_bytes().is_some_and(|bytes| !data.len().is_multiple_of(bytes)) {
        return Err(malformed());
    }
    if data.is_empty() {
        return Ok(());
    }
    match datatype {
        DataType::Fp32 | DataType::Fp64 => put_bytes(out, field, &data),
        DataType::Bool | DataType::Uint8 => write_packed(out, field, &data, u8::from_le_bytes, u64::from),
        DataType::Uint16 => write_packed(out, field, &data, u16::from_le_bytes, u64::from),
        DataType::Uint32 => write_packed(out, field, &data, u32::from_le_bytes, u64::from),
        DataType::Uint64 => write_packed(out, field, &data, u64::from_le_bytes, u64::from),
        DataType::Int8 => write_packed(out, field, &data, i8::from_le_bytes, |value| i64::from(value) as u64),
        DataType::Int16 => write_packed(out, field, &data, i16::from_le_bytes, |value| i64::from(value) as u64),
        DataType::Int32 => write_packed(out, field, &data, i32::from_le_bytes, |value| i64::from(value) as u64),
        DataType::Int64 => write_packed(out, field, &data, i64::from_le_bytes, |value| value as u64),
        // Written above, or refused.
        DataType::Bytes | DataType::Fp16 | DataType::Bf16 => {}
    }
    Ok(())
}

fn write_packed<T, const N: usize>(
    out: &mut Vec<u8>,
    field: u32,
    data: &[u8],
    read: fn([u8; N]) -> T,
    widen: fn(T) -> u64,
) {
    let mut packed = Vec::with_capacity(data.len());
    data.as_chunks::<N>().0.iter().for_each(|element| put_varint(&mut packed, widen(read(*element))));
    put_length(out, field, packed.len());
    out.append(&mut packed);
}

#[cfg(test)]
mod tests;
