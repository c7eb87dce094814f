//! JSON `data` to a tensor's bytes, in one pass and without recursion.
//!
//! The text comes from serde_json's reader, which has already checked that it is one valid JSON value; what is left is
//! to walk its elements and convert each for the tensor's type. Numbers are read from their own text, never through
//! another type: a 64-bit integer stays exact and an `FP32` is rounded once.

use serde_json::value::RawValue;
use tenantry_types::DataType;
use tenantry_types::tensor::element_count;

use crate::error::{TensorProblem, echo};

/// Reads `data` of a tensor into its bytes: row-major, little-endian, `BYTES` elements after their length.
pub(crate) fn read_elements(data: &RawValue, datatype: DataType, shape: &[u64]) -> Result<Vec<u8>, TensorProblem> {
    let elements = Elements::new(data.get(), datatype, shape)?;
    match datatype {
        DataType::Bool => elements.read(boolean),
        DataType::Uint8 => elements.read(|token, out| number::<u8, 1>(token, out, u8::to_le_bytes)),
        DataType::Uint16 => elements.read(|token, out| number::<u16, 2>(token, out, u16::to_le_bytes)),
        DataType::Uint32 => elements.read(|token, out| number::<u32, 4>(token, out, u32::to_le_bytes)),
        DataType::Uint64 => elements.read(|token, out| number::<u64, 8>(token, out, u64::to_le_bytes)),
        DataType::Int8 => elements.read(|token, out| number::<i8, 1>(token, out, i8::to_le_bytes)),
        DataType::Int16 => elements.read(|token, out| number::<i16, 2>(token, out, i16::to_le_bytes)),
        DataType::Int32 => elements.read(|token, out| number::<i32, 4>(token, out, i32::to_le_bytes)),
        DataType::Int64 => elements.read(|token, out| number::<i64, 8>(token, out, i64::to_le_bytes)),
        DataType::Fp32 => elements.read(single),
        DataType::Fp64 => elements.read(double),
        DataType::Bytes => elements.read(text),
        DataType::Fp16 | DataType::Bf16 => Err(TensorProblem::NoJsonForm(datatype)),
    }
}

/// What the element type takes, for errors.
pub(crate) fn expected(datatype: DataType) -> &'static str {
    match datatype {
        DataType::Bool => "true or false",
        DataType::Uint8 => "a whole number from 0 to 255 for UINT8",
        DataType::Uint16 => "a whole number from 0 to 65535 for UINT16",
        DataType::Uint32 => "a whole number from 0 to 4294967295 for UINT32",
        DataType::Uint64 => "a whole number from 0 to 18446744073709551615 for UINT64",
        DataType::Int8 => "a whole number from -128 to 127 for INT8",
        DataType::Int16 => "a whole number from -32768 to 32767 for INT16",
        DataType::Int32 => "a whole number from -2147483648 to 2147483647 for INT32",
        DataType::Int64 => "a whole number from -9223372036854775808 to 9223372036854775807 for INT64",
        DataType::Fp32 => "a finite number in the range of FP32",
        DataType::Fp64 => "a finite number in the range of FP64",
        DataType::Bytes => "a text of valid Unicode",
        DataType::Fp16 | DataType::Bf16 => "binary data",
    }
}

/// Converts one element's JSON text and appends its bytes; `None` if it is not of the type.
pub(crate) type Converted = Option<()>;

pub(crate) fn boolean(token: &str, out: &mut Vec<u8>) -> Converted {
    out.push(match token {
        "true" | "1" => 1,
        "false" | "0" => 0,
        _ => return None,
    });
    Some(())
}

pub(crate) fn number<T: std::str::FromStr, const N: usize>(
    token: &str,
    out: &mut Vec<u8>,
    bytes: fn(T) -> [u8; N],
) -> Converted {
    out.extend_from_slice(&bytes(token.parse().ok()?));
    Some(())
}

pub(crate) fn single(token: &str, out: &mut Vec<u8>) -> Converted {
    let value: f32 = token.parse().ok()?;
    out.extend_from_slice(&value.is_finite().then_some(value)?.to_le_bytes());
    Some(())
}

pub(crate) fn double(token: &str, out: &mut Vec<u8>) -> Converted {
    let value: f64 = token.parse().ok()?;
    out.extend_from_slice(&value.is_finite().then_some(value)?.to_le_bytes());
    Some(())
}

pub(crate) fn text(token: &str, out: &mut Vec<u8>) -> Converted {
    let inner = token.strip_prefix('"')?.strip_suffix('"')?;
    let mut put = |bytes: &[u8]| {
        out.extend_from_slice(&u32::try_from(bytes.len()).ok()?.to_le_bytes());
        out.extend_from_slice(bytes);
        Some(())
    };
    if inner.contains('\\') {
        put(serde_json::from_str::<String>(token).ok()?.as_bytes())
    } else {
        put(inner.as_bytes())
    }
}

/// A walk over the elements of a JSON array, nested or flat.
struct Elements<'a> {
    json: &'a str,
    datatype: DataType,
    shape: &'a [u64],
    expected: u64,
}

impl<'a> Elements<'a> {
    fn new(json: &'a str, datatype: DataType, shape: &'a [u64]) -> Result<Self, TensorProblem> {
        // A scalar's only element may come bare.
        if !json.starts_with('[') && !shape.is_empty() {
            return Err(TensorProblem::NotAnArray { datatype });
        }
        let expected = element_count(shape).ok_or_else(|| TensorProblem::ShapeTooLarge(shape.into()))?;
        Ok(Self { json, datatype, shape, expected })
    }

    fn read(&self, convert: impl Fn(&str, &mut Vec<u8>) -> Converted) -> Result<Vec<u8>, TensorProblem> {
        let json = self.json.as_bytes();
        let max_depth = self.shape.len().max(1);
        // An element and its comma take two bytes at least, so the text's length bounds what is reserved for it.
        let most = usize::try_from(self.expected).unwrap_or(usize::MAX).min(json.len() / 2 + 1);
        let mut out = Vec::with_capacity(most.saturating_mul(self.datatype.element_bytes().unwrap_or(4)));
        let (mut at, mut depth, mut count) = (0_usize, 0_usize, 0_u64);
        while let Some(byte) = json.get(at) {
            match byte {
                b'[' => {
                    depth += 1;
                    if depth > max_depth {
                        return Err(TensorProblem::TooDeep { rank: self.shape.len() });
                    }
                    at += 1;
                }
                b']' => {
                    depth = depth.saturating_sub(1);
                    at += 1;
                }
                b',' | b' ' | b'\n' | b'\r' | b'\t' => at += 1,
                _ => {
                    let end = if *byte == b'"' { end_of_text(json, at) } else { end_of_word(json, at) };
                    let token = self.json.get(at..end).unwrap_or_default();
                    if count == self.expected {
                        return Err(self.count_problem(format!("more than {count}")));
                    }
                    if convert(token, &mut out).is_none() {
                        return Err(self.element_problem(count, token));
                    }
                    count += 1;
                    at = end;
                }
            }
        }
        if count == self.expected { Ok(out) } else { Err(self.count_problem(count.to_string())) }
    }

    #[cold]
    fn count_problem(&self, got: String) -> TensorProblem {
        TensorProblem::Count { got, shape: self.shape.into(), expected: self.expected }
    }

    #[cold]
    fn element_problem(&self, index: u64, token: &str) -> TensorProblem {
        TensorProblem::Element { index, got: echo(token), expected: expected(self.datatype) }
    }
}

/// The end of the word that starts at `at`; past it by at least one byte, so that the walk always moves on.
pub(crate) fn end_of_word(json: &[u8], at: usize) -> usize {
    let rest = json.get(at + 1..).unwrap_or_default();
    let more = rest.iter().position(|byte| matches!(byte, b',' | b']' | b' ' | b'\n' | b'\r' | b'\t'));
    at + 1 + more.unwrap_or(rest.len())
}

/// The end of the text whose opening quote is at `at`.
pub(crate) fn end_of_text(json: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while let Some(byte) = json.get(end) {
        match byte {
            b'"' => return end + 1,
            b'\\' => end += 2,
            _ => end += 1,
        }
    }
    json.len()
}

#[cfg(test)]
mod tests;
