//! Values to JSON text. Floats take the shortest form that reads back to the same value.

use serde::Serialize;
use tenantry_types::tensor::element_count;
use tenantry_types::{DataType, ParameterValue, Tensor};

use crate::error::{EncodeError, echo};
use crate::framing;

/// Appends a text with its quotes.
pub(crate) fn write_text(json: &mut Vec<u8>, text: &str) {
    write_value(json, text);
}

/// Writing into memory and values without maps cannot fail; there is nothing to report.
pub(crate) fn write_value(json: &mut Vec<u8>, value: impl Serialize) {
    let written = serde_json::to_writer(json, &value);
    debug_assert!(written.is_ok(), "a plain value has a JSON form");
}

/// Appends a shape.
pub(crate) fn write_shape(json: &mut Vec<u8>, shape: &[u64]) {
    write_list(json, shape.iter(), |json, extent| {
        write_value(json, extent);
        Ok(())
    })
    .unwrap_or_default();
}

/// Appends a parameter's value.
pub(crate) fn write_parameter(json: &mut Vec<u8>, name: &str, value: &ParameterValue) -> Result<(), EncodeError> {
    match value {
        ParameterValue::Bool(value) => write_value(json, value),
        ParameterValue::Int(value) => write_value(json, value),
        ParameterValue::Uint(value) => write_value(json, value),
        ParameterValue::Double(value) if !value.is_finite() => {
            return Err(EncodeError::Parameter { name: echo(name) });
        }
        ParameterValue::Double(value) => write_value(json, value),
        ParameterValue::String(value) => write_text(json, value),
    }
    Ok(())
}

/// Appends a tensor's data as a flat array.
pub(crate) fn write_data(json: &mut Vec<u8>, tensor: &Tensor) -> Result<(), EncodeError> {
    let Tensor { name, datatype, .. } = tensor;
    let malformed = || EncodeError::Malformed { name: echo(name) };
    let no_form = || EncodeError::NoJsonForm { name: echo(name), datatype: *datatype };
    let count = element_count(&tensor.shape).ok_or_else(malformed)?;
    let data = tensor.data.to_contiguous();
    if let Some(bytes) = datatype.element_bytes()
        && count.checked_mul(bytes as u64) != Some(data.len() as u64)
    {
        return Err(malformed());
    }
    match datatype {
        DataType::Bool => write_list(json, data.iter(), |json, byte| {
            write_value(json, *byte != 0);
            Ok(())
        }),
        DataType::Uint8 => write_numbers(json, &data, u8::from_le_bytes),
        DataType::Uint16 => write_numbers(json, &data, u16::from_le_bytes),
        DataType::Uint32 => write_numbers(json, &data, u32::from_le_bytes),
        DataType::Uint64 => write_numbers(json, &data, u64::from_le_bytes),
        DataType::Int8 => write_numbers(json, &data, i8::from_le_bytes),
        DataType::Int16 => write_numbers(json, &data, i16::from_le_bytes),
        DataType::Int32 => write_numbers(json, &data, i32::from_le_bytes),
        DataType::Int64 => write_numbers(json, &data, i64::from_le_bytes),
        DataType::Fp32 => write_floats(json, name, &data, f32::from_le_bytes, f32::is_finite),
        DataType::Fp64 => write_floats(json, name, &data, f64::from_le_bytes, f64::is_finite),
        DataType::Fp16 | DataType::Bf16 => Err(no_form()),
        DataType::Bytes => {
            let mut index = 0;
            write_list(json, framing::elements(&data), |json, element| {
                let text = std::str::from_utf8(element.ok_or_else(malformed)?)
                    .map_err(|_| EncodeError::NotText { name: echo(name), index })?;
                write_text(json, text);
                index += 1;
                Ok(())
            })?;
            if index as u64 == count { Ok(()) } else { Err(malformed()) }
        }
    }
}

fn write_numbers<T: Serialize, const N: usize>(
    json: &mut Vec<u8>,
    data: &[u8],
    read: fn([u8; N]) -> T,
) -> Result<(), EncodeError> {
    write_list(json, data.as_chunks::<N>().0.iter(), |json, bytes| {
        write_value(json, read(*bytes));
        Ok(())
    })
}

fn write_floats<T: Serialize + Copy, const N: usize>(
    json: &mut Vec<u8>,
    name: &str,
    data: &[u8],
    read: fn([u8; N]) -> T,
    is_finite: fn(T) -> bool,
) -> Result<(), EncodeError> {
    write_list(json, data.as_chunks::<N>().0.iter().enumerate(), |json, (index, bytes)| {
        let value = read(*bytes);
        if !is_finite(value) {
            return Err(EncodeError::NotFinite { name: echo(name), index });
        }
        write_value(json, value);
        Ok(())
    })
}

fn write_list<T>(
    json: &mut Vec<u8>,
    items: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    json.push(b'[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            json.push(b',');
        }
        write(json, item)?;
    }
    json.push(b']');
    Ok(())
}
