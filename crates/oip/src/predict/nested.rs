//! Nested JSON lists to a tensor: the nesting is the shape.
//!
//! The text has been checked to be one valid JSON value; what is left is to walk it, without recursion, and to see that
//! lists side by side are of one length.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;
use smallvec::SmallVec;
use std::borrow::Cow;
use tenantry_types::{DataType, Dim, Payload, Shape, Tensor, TensorSpec};

use super::{NestedProblem, shown};
use crate::elements::{self, Converted, end_of_text, end_of_word};

/// Converts one element's JSON text and appends its bytes.
type Convert = fn(&str, &mut Vec<u8>) -> Converted;

/// A tensor in the making.
pub(crate) struct Gatherer<'s> {
    pub(crate) spec: &'s TensorSpec,
    convert: Convert,
    extents: SmallVec<[Option<u64>; 4]>,
    data: Vec<u8>,
    count: u64,
}

impl<'s> Gatherer<'s> {
    /// An empty one; `text_bytes` bounds what is reserved for its data.
    pub(crate) fn new(spec: &'s TensorSpec, text_bytes: usize) -> Result<Self, NestedProblem> {
        let convert = converter(spec.datatype).ok_or(NestedProblem::NoJsonForm(spec.datatype))?;
        let extents = spec.dims.iter().map(|_| None).collect();
        // An element and its comma take two bytes at least.
        let most = text_bytes / 2 + 1;
        let data = Vec::with_capacity(most.saturating_mul(spec.datatype.element_bytes().unwrap_or(4)));
        Ok(Self { spec, convert, extents, data, count: 0 })
    }

    /// Takes a value in that has all dimensions but the first `outer`.
    pub(crate) fn take(&mut self, json: &str, outer: usize) -> Result<(), NestedProblem> {
        let text = json.as_bytes();
        let rank = self.spec.dims.len();
        let mut counts: SmallVec<[u64; 8]> = SmallVec::new();
        let mut at = 0;
        while let Some(byte) = text.get(at) {
            let end = match byte {
                b'[' if outer + counts.len() >= rank => {
                    return Err(NestedProblem::TooDeep { rank, dims: self.dims() });
                }
                b'[' => {
                    counts.push(0);
                    at += 1;
                    continue;
                }
                b']' => {
                    let count = counts.pop().unwrap_or_default();
                    self.settle(outer + counts.len(), count)?;
                    bump(&mut counts);
                    at += 1;
                    continue;
                }
                b',' | b' ' | b'\n' | b'\r' | b'\t' => {
                    at += 1;
                    continue;
                }
                b'"' => end_of_text(text, at),
                b'{' => end_of_object(text, at),
                _ => end_of_word(text, at),
            };
            let token = json.get(at..end).unwrap_or_default();
            if outer + counts.len() != rank {
                return Err(NestedProblem::TooShallow { got: shown(token), rank, dims: self.dims() });
            }
            if (self.convert)(token, &mut self.data).is_none() {
                let expected = elements::expected(self.spec.datatype);
                return Err(NestedProblem::Element { index: self.count, got: shown(token), expected });
            }
            self.count += 1;
            bump(&mut counts);
            at = end;
        }
        Ok(())
    }

    /// The length of a list in a dimension; the first one says it for all.
    pub(crate) fn settle(&mut self, axis: usize, got: u64) -> Result<(), NestedProblem> {
        match self.extents.get_mut(axis) {
            Some(extent @ None) => {
                *extent = Some(got);
                Ok(())
            }
            Some(Some(expected)) if *expected != got => Err(NestedProblem::Ragged { axis, expected: *expected, got }),
            _ => Ok(()),
        }
    }

    /// The tensor. Dimensions of which no list was seen, inside of an empty one, are as the model has them.
    pub(crate) fn finish(self) -> Tensor {
        let extents = self.extents.iter().zip(&self.spec.dims);
        let shape: Shape = extents
            .map(|(extent, dim)| match (extent, dim) {
                (Some(extent), _) => *extent,
                (None, Dim::Fixed(extent)) => *extent,
                (None, Dim::Named(_) | Dim::Any(())) => 0,
            })
            .collect();
        let TensorSpec { name, datatype, .. } = self.spec;
        Tensor { name: name.clone(), datatype: *datatype, shape, data: Payload::from(self.data) }
    }

    fn dims(&self) -> String {
        let dims: Vec<String> = self.spec.dims.iter().map(Dim::to_string).collect();
        format!("[{}]", dims.join(","))
    }
}

/// One more entry in the innermost open list.
fn bump(counts: &mut SmallVec<[u64; 8]>) {
    if let Some(count) = counts.last_mut() {
        *count += 1;
    }
}

fn converter(datatype: DataType) -> Option<Convert> {
    use elements::number;
    Some(match datatype {
        DataType::Bool => elements::boolean,
        DataType::Uint8 => |token, out| number::<u8, 1>(token, out, u8::to_le_bytes),
        DataType::Uint16 => |token, out| number::<u16, 2>(token, out, u16::to_le_bytes),
        DataType::Uint32 => |token, out| number::<u32, 4>(token, out, u32::to_le_bytes),
        DataType::Uint64 => |token, out| number::<u64, 8>(token, out, u64::to_le_bytes),
        DataType::Int8 => |token, out| number::<i8, 1>(token, out, i8::to_le_bytes),
        DataType::Int16 => |token, out| number::<i16, 2>(token, out, i16::to_le_bytes),
        DataType::Int32 => |token, out| number::<i32, 4>(token, out, i32::to_le_bytes),
        DataType::Int64 => |token, out| number::<i64, 8>(token, out, i64::to_le_bytes),
        DataType::Fp32 => |token, out| match not_finite(token) {
            // Each is the same in every width.
            Some(value) => put(out, &(value as f32).to_le_bytes()),
            None => elements::single(token, out),
        },
        DataType::Fp64 => |token, out| match not_finite(token) {
            Some(value) => put(out, &value.to_le_bytes()),
            None => elements::double(token, out),
        },
        DataType::Bytes => text_or_base64,
        DataType::Fp16 | DataType::Bf16 => return None,
    })
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) -> Converted {
    out.extend_from_slice(bytes);
    Some(())
}

/// What has no JSON form, quoted (see [`quoted`]).
fn not_finite(token: &str) -> Option<f64> {
    match token {
        "\"NaN\"" => Some(f64::NAN),
        "\"Infinity\"" => Some(f64::INFINITY),
        "\"-Infinity\"" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// The one member that says that a text is bytes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Base64<'a> {
    #[serde(borrow)]
    b64: Cow<'a, str>,
}

fn text_or_base64(token: &str, out: &mut Vec<u8>) -> Converted {
    if !token.starts_with('{') {
        return elements::text(token, out);
    }
    let Base64 { b64 } = serde_json::from_str(token).ok()?;
    let text = b64.trim_end_matches('=');
    let bytes = if text.len() == b64.len() { STANDARD_NO_PAD.decode(text) } else { STANDARD.decode(b64.as_bytes()) };
    let bytes = bytes.ok()?;
    put(out, &u32::try_from(bytes.len()).ok()?.to_le_bytes())?;
    put(out, &bytes)
}

/// Whether an object is bytes rather than values by name.
pub(crate) fn is_base64(json: &str) -> bool {
    json.strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with("\"b64\""))
}

/// The end of the object that opens at `at`; objects inside of it end with it.
fn end_of_object(json: &[u8], at: usize) -> usize {
    let (mut end, mut depth) = (at, 0_usize);
    while let Some(byte) = json.get(end) {
        match byte {
            b'"' => {
                end = end_of_text(json, end);
                continue;
            }
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        end += 1;
        if depth == 0 {
            break;
        }
    }
    end
}

/// How deep lists nest around the first element.
pub(crate) fn depth(json: &str) -> usize {
    let text = json.bytes().filter(|byte| !matches!(byte, b' ' | b'\n' | b'\r' | b'\t'));
    text.take_while(|byte| *byte == b'[').count()
}

/// The text with bare `NaN`, `Infinity` and `-Infinity` in quotes, so that it is JSON. Unchanged, as a rule.
pub(crate) fn quoted(json: &[u8]) -> Cow<'_, [u8]> {
    const WORDS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];
    let first = json.iter().position(|byte| matches!(byte, b'N' | b'I')).and_then(|at| json.get(at..));
    if !first.is_some_and(|rest| rest.windows(3).any(|window| matches!(window, b"NaN" | b"Inf"))) {
        return Cow::Borrowed(json);
    }
    let mut out = Vec::with_capacity(json.len() + json.len() / 8);
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        let rest = json.get(at..).unwrap_or_default();
        let end = if *byte == b'"' {
            end_of_text(json, at)
        } else if let Some(word) = WORDS.iter().find(|word| rest.starts_with(word)) {
            out.push(b'"');
            out.extend_from_slice(word);
            out.push(b'"');
            at += word.len();
            continue;
        } else {
            at + 1
        };
        out.extend_from_slice(json.get(at..end).unwrap_or_default());
        at = end;
    }
    Cow::Owned(out)
}
