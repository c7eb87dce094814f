//! The first values of a tensor, as people read them.

use tenantry_types::{DataType, Tensor};

/// The longest piece of a byte string that is shown, characters.
const MAX_TEXT_CHARS: usize = 60;

/// At most `count` values, and a sign that there are more.
pub(super) fn preview(tensor: &Tensor, count: usize) -> String {
    let data = tensor.data.to_contiguous();
    let (values, more) = match tensor.datatype.element_bytes() {
        Some(bytes) => {
            let values: Vec<String> =
                data.chunks_exact(bytes).take(count).map(|element| number(tensor.datatype, element)).collect();
            (values, data.len() > count * bytes)
        }
        None => texts(&data, count),
    };
    let dots = if more { ", …" } else { "" };
    format!("{}{dots}", values.join(", "))
}

fn number(datatype: DataType, element: &[u8]) -> String {
    // Little-endian: the bytes fill the low end, the sign fills the rest.
    let unsigned = element.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    let shift = 64 - 8 * element.len().clamp(1, 8) as u32;
    let signed = (unsigned << shift) as i64 >> shift;
    match datatype {
        DataType::Bool => (unsigned != 0).to_string(),
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 | DataType::Uint64 => unsigned.to_string(),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => signed.to_string(),
        DataType::Fp16 => float(half(unsigned as u16)),
        DataType::Bf16 => float(f64::from(f32::from_bits((unsigned as u32) << 16))),
        DataType::Fp32 => float(f64::from(f32::from_bits(unsigned as u32))),
        DataType::Fp64 => float(f64::from_bits(unsigned)),
        DataType::Bytes => String::new(),
    }
}

/// Five digits, without zeros at the end.
fn float(value: f64) -> String {
    let text = if value != 0.0 && (value.abs() < 1e-3 || value.abs() >= 1e6) {
        return format!("{value:.4e}");
    } else {
        format!("{value:.5}")
    };
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// IEEE 754 binary16.
fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff) / 1024.0);
    match exponent {
        0 => sign * fraction * 2_f64.powi(-14),
        31 if fraction == 0.0 => sign * f64::INFINITY,
        31 => f64::NAN,
        _ => sign * (1.0 + fraction) * 2_f64.powi(exponent - 15),
    }
}

fn texts(mut data: &[u8], count: usize) -> (Vec<String>, bool) {
    let mut values = Vec::new();
    while let Some((length, rest)) = data.split_first_chunk::<4>() {
        if values.len() == count {
            return (values, true);
        }
        let Some((element, rest)) = rest.split_at_checked(u32::from_le_bytes(*length) as usize) else { break };
        let text = String::from_utf8_lossy(element);
        values.push(format!("\"{}\"", tenantry_types::error::sanitise(&text, MAX_TEXT_CHARS)));
        data = rest;
    }
    (values, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(datatype: DataType, data: Vec<u8>) -> String {
        let tensor = Tensor {
            name: String::new(),
            datatype,
            shape: std::iter::once(data.len() as u64).collect(),
            data: data.into(),
        };
        preview(&tensor, 3)
    }

    #[test]
    fn every_type_is_readable() {
        assert_eq!(shown(DataType::Bool, vec![0, 1]), "false, true");
        assert_eq!(shown(DataType::Uint8, vec![1, 2, 255, 4]), "1, 2, 255, …");
        assert_eq!(shown(DataType::Int8, vec![255]), "-1");
        assert_eq!(shown(DataType::Int64, (-5_i64).to_le_bytes().to_vec()), "-5");
        assert_eq!(shown(DataType::Uint64, u64::MAX.to_le_bytes().to_vec()), u64::MAX.to_string());
        assert_eq!(shown(DataType::Fp16, vec![0x00, 0x3c, 0x00, 0xc0, 0x00, 0x7c]), "1, -2, inf");
        assert_eq!(shown(DataType::Bf16, vec![0x80, 0x3f]), "1");
        assert_eq!(shown(DataType::Fp32, [0.5_f32, 1e-9].map(f32::to_le_bytes).concat()), "0.5, 1.0000e-9");
        assert_eq!(shown(DataType::Fp64, 12.25_f64.to_le_bytes().to_vec()), "12.25");
        assert_eq!(shown(DataType::Bytes, vec![2, 0, 0, 0, b'h', b'i', 9, 0, 0, 0, b'x']), "\"hi\"");
    }
}
