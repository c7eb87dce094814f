//! Outputs as nested JSON lists.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use tenantry_types::tensor::element_count;
use tenantry_types::{DataType, Signature, Tensor};

use super::PredictError;
use crate::framing;
use crate::json_out::{write_text, write_value};

/// The ending of an output's name that says that it holds bytes rather than text.
const BYTES_SUFFIX: &str = "_bytes";
/// The most lists of a tensor without elements: its extents are the model's word, and nothing else bounds them.
const MAX_EMPTY_LISTS: u64 = 1 << 16;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PredictFormat {
    /// `predictions`: so many entries, one a row.
    Rows(u64),
    /// `outputs`: tensors as they are.
    Whole,
    /// Bare outputs of the only row.
    OneRow,
    /// Bare outputs as they are.
    Bare,
}

impl PredictFormat {
    /// How the answer to a single instance is written: without the dimension for rows where the model has one.
    pub fn instance_of(signature: &Signature) -> Self {
        if signature.has_batch_axis() { Self::OneRow } else { Self::Bare }
    }
}

/// Writes an answer. A model's only output comes without its name.
///
/// # Errors
/// An output without a JSON form, or one that is not of so many rows.
pub fn encode_predict(outputs: &[Tensor], format: PredictFormat) -> Result<Vec<u8>, PredictError> {
    let mut readers = outputs.iter().map(Reader::new).collect::<Result<Vec<_>, _>>()?;
    let mut json = Vec::with_capacity(256);
    match format {
        PredictFormat::Whole => {
            json.extend_from_slice(b"{\"outputs\":");
            write_entry(&mut json, &mut readers, 0)?;
            json.push(b'}');
        }
        PredictFormat::Rows(rows) => {
            check_rows(outputs, rows)?;
            json.extend_from_slice(b"{\"predictions\":[");
            for row in 0..rows {
                if row > 0 {
                    json.push(b',');
                }
                write_entry(&mut json, &mut readers, 1)?;
            }
            json.extend_from_slice(b"]}");
        }
        // An output that is not of rows is shown as it is.
        PredictFormat::OneRow if check_rows(outputs, 1).is_ok() => write_entry(&mut json, &mut readers, 1)?,
        PredictFormat::OneRow | PredictFormat::Bare => write_entry(&mut json, &mut readers, 0)?,
    }
    Ok(json)
}

fn check_rows(outputs: &[Tensor], rows: u64) -> Result<(), PredictError> {
    match outputs.iter().find(|tensor| tensor.shape.first() != Some(&rows)) {
        None => Ok(()),
        Some(Tensor { name, shape, .. }) => {
            Err(PredictError::NotRows { name: name.clone(), shape: shape.to_vec(), rows })
        }
    }
}

/// Writes what is next of every output, each without its first `outer` dimensions.
fn write_entry(json: &mut Vec<u8>, readers: &mut [Reader<'_>], outer: usize) -> Result<(), PredictError> {
    if let [only] = readers {
        return only.write(json, outer);
    }
    json.push(b'{');
    for (index, reader) in readers.iter_mut().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        write_text(json, &reader.tensor.name);
        json.push(b':');
        reader.write(json, outer)?;
    }
    json.push(b'}');
    Ok(())
}

/// A tensor that is read from its first element to its last.
pub(crate) struct Reader<'a> {
    tensor: &'a Tensor,
    data: bytes::Bytes,
    at: usize,
    base64: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(tensor: &'a Tensor) -> Result<Self, PredictError> {
        let Tensor { name, datatype, shape, .. } = tensor;
        let malformed = || PredictError::Malformed { name: name.clone() };
        if matches!(datatype, DataType::Fp16 | DataType::Bf16) {
            return Err(PredictError::NoJsonForm { name: name.clone(), datatype: *datatype });
        }
        let count = element_count(shape).ok_or_else(malformed)?;
        if count == 0 && lists(shape).is_none_or(|lists| lists > MAX_EMPTY_LISTS) {
            return Err(malformed());
        }
        let data = tensor.data.to_contiguous();
        let mut base64 = false;
        match datatype.element_bytes() {
            Some(bytes) if count.checked_mul(bytes as u64) != Some(data.len() as u64) => return Err(malformed()),
            Some(_) => {}
            None => {
                base64 = name.ends_with(BYTES_SUFFIX);
                let mut elements = 0_u64;
                for element in framing::elements(&data) {
                    base64 |= std::str::from_utf8(element.ok_or_else(malformed)?).is_err();
                    elements += 1;
                }
                if elements != count {
                    return Err(malformed());
                }
            }
        }
        Ok(Self { tensor, data, at: 0, base64 })
    }

    fn write(&mut self, json: &mut Vec<u8>, outer: usize) -> Result<(), PredictError> {
        let tensor = self.tensor;
        let dims = tensor.shape.get(outer..).unwrap_or_default();
        self.write_dims(json, dims).ok_or_else(|| PredictError::Malformed { name: tensor.name.clone() })
    }

    /// Writes all of it as one list, or as a value if it is one.
    pub(crate) fn write_flat(mut self, json: &mut Vec<u8>) -> Result<(), PredictError> {
        let tensor = self.tensor;
        let count = element_count(&tensor.shape).unwrap_or_default();
        let dims: &[u64] = if count == 1 { &[] } else { &[count] };
        self.write_dims(json, dims).ok_or_else(|| PredictError::Malformed { name: tensor.name.clone() })
    }

    /// As deep as the tensor has dimensions, which are few.
    fn write_dims(&mut self, json: &mut Vec<u8>, dims: &[u64]) -> Option<()> {
        let Some((extent, inner)) = dims.split_first() else { return self.write_element(json) };
        json.push(b'[');
        for index in 0..*extent {
            if index > 0 {
                json.push(b',');
            }
            self.write_dims(json, inner)?;
        }
        json.push(b']');
        Some(())
    }

    fn write_element(&mut self, json: &mut Vec<u8>) -> Option<()> {
        match self.tensor.datatype {
            DataType::Bool => write_value(json, self.next::<1>()? != [0]),
            DataType::Uint8 => write_value(json, u8::from_le_bytes(self.next()?)),
            DataType::Uint16 => write_value(json, u16::from_le_bytes(self.next()?)),
            DataType::Uint32 => write_value(json, u32::from_le_bytes(self.next()?)),
            DataType::Uint64 => write_value(json, u64::from_le_bytes(self.next()?)),
            DataType::Int8 => write_value(json, i8::from_le_bytes(self.next()?)),
            DataType::Int16 => write_value(json, i16::from_le_bytes(self.next()?)),
            DataType::Int32 => write_value(json, i32::from_le_bytes(self.next()?)),
            DataType::Int64 => write_value(json, i64::from_le_bytes(self.next()?)),
            DataType::Fp32 => {
                let value = f32::from_le_bytes(self.next()?);
                write_float(json, value, value.into());
            }
            DataType::Fp64 => {
                let value = f64::from_le_bytes(self.next()?);
                write_float(json, value, value);
            }
            DataType::Bytes => {
                let length = u32::from_le_bytes(self.next()?) as usize;
                let element = self.data.get(self.at..self.at.checked_add(length)?)?;
                if self.base64 {
                    json.extend_from_slice(b"{\"b64\":");
                    write_text(json, &STANDARD.encode(element));
                    json.push(b'}');
                } else {
                    write_text(json, std::str::from_utf8(element).ok()?);
                }
                self.at += length;
            }
            DataType::Fp16 | DataType::Bf16 => return None,
        }
        Some(())
    }

    fn next<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = self.data.get(self.at..)?.first_chunk()?;
        self.at += N;
        Some(*bytes)
    }
}

fn write_float(json: &mut Vec<u8>, value: impl Serialize, wide: f64) {
    if wide.is_finite() {
        return write_value(json, value);
    }
    json.extend_from_slice(match wide {
        f64::INFINITY => b"Infinity",
        f64::NEG_INFINITY => b"-Infinity",
        _ => b"NaN",
    });
}

/// How many lists a tensor without elements is written with.
fn lists(shape: &[u64]) -> Option<u64> {
    let mut lists = 1_u64;
    for extent in shape.iter().take_while(|extent| **extent > 0) {
        lists = lists.checked_mul(*extent)?.checked_add(1)?;
    }
    Some(lists)
}
