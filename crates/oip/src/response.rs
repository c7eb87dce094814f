//! An answer, encoded.

use bytes::Bytes;
use smallvec::SmallVec;
use tenantry_types::{InferResponse, Payload, Tensor};

use crate::error::EncodeError;
use crate::json_out::{write_data, write_shape, write_text};
use crate::limits::MAX_INLINE_BYTES;

/// How a tensor's data travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// As a JSON array.
    #[default]
    Json,
    /// As bytes behind the JSON.
    Binary,
}

impl Form {
    /// Binary or not.
    pub fn binary_if(binary: bool) -> Self {
        if binary { Self::Binary } else { Self::Json }
    }
}

/// How a client wants its answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplyFormat {
    /// The form of outputs without a choice of their own.
    pub default: Form,
    /// The form of each requested output, in the order of the request; empty when none was requested by name.
    pub outputs: SmallVec<[Form; 4]>,
}

impl ReplyFormat {
    /// The form of the output at a position.
    pub fn form(&self, index: usize) -> Form {
        self.outputs.get(index).copied().unwrap_or(self.default)
    }
}

/// A body, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Bytes of the JSON part, where binary tensors may follow: the value of `Inference-Header-Content-Length`.
    /// `None` when the body is all JSON.
    pub json_length: Option<usize>,
    /// The body.
    pub body: Payload,
}

/// Encodes the body of a successful answer; its outputs are in the order asked for.
///
/// # Errors
/// An output that has no JSON form and was not asked for in binary, or a tensor whose data does not fit its type.
pub fn encode_response(response: &InferResponse, format: &ReplyFormat) -> Result<Encoded, EncodeError> {
    let mut json = Vec::with_capacity(256);
    json.extend_from_slice(b"{\"model_name\":");
    write_text(&mut json, &response.model.to_string());
    json.extend_from_slice(b",\"model_version\":");
    write_text(&mut json, &response.version);
    if let Some(id) = &response.id {
        json.extend_from_slice(b",\"id\":");
        write_text(&mut json, id);
    }
    json.extend_from_slice(b",\"outputs\":[");
    write_tensors(&mut json, &response.outputs, |index| format.form(index))?;
    json.extend_from_slice(b"]}");
    Ok(assemble(json, &response.outputs, |index| format.form(index)))
}

/// Writes tensors as the members of a JSON array.
pub(crate) fn write_tensors(
    json: &mut Vec<u8>,
    tensors: &[Tensor],
    form: impl Fn(usize) -> Form,
) -> Result<(), EncodeError> {
    for (index, tensor) in tensors.iter().enumerate() {
        json.extend_from_slice(if index == 0 { b"{\"name\":" } else { b",{\"name\":" });
        write_text(json, &tensor.name);
        json.extend_from_slice(b",\"datatype\":\"");
        json.extend_from_slice(tensor.datatype.as_str().as_bytes());
        json.extend_from_slice(b"\",\"shape\":");
        write_shape(json, &tensor.shape);
        match form(index) {
            Form::Binary => {
                json.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
                json.extend_from_slice(tensor.data.len().to_string().as_bytes());
                json.extend_from_slice(b"}}");
            }
            Form::Json => {
                json.extend_from_slice(b",\"data\":");
                write_data(json, tensor)?;
                json.push(b'}');
            }
        }
    }
    Ok(())
}

/// Puts the binary tensors behind the JSON: copied when they are few bytes, as they are otherwise.
pub(crate) fn assemble(mut json: Vec<u8>, tensors: &[Tensor], form: impl Fn(usize) -> Form) -> Encoded {
    let binary =
        || tensors.iter().enumerate().filter(|(index, _)| form(*index) == Form::Binary).map(|(_, tensor)| tensor);
    if binary().next().is_none() {
        return Encoded { json_length: None, body: json.into() };
    }
    let json_length = Some(json.len());
    let parts = binary().flat_map(|tensor| tensor.data.parts());
    if binary().map(|tensor| tensor.data.len()).sum::<usize>() <= MAX_INLINE_BYTES {
        parts.for_each(|part| json.extend_from_slice(part));
        return Encoded { json_length, body: json.into() };
    }
    let mut body = Payload::from(Bytes::from(json));
    parts.for_each(|part| body.push(part.clone()));
    Encoded { json_length, body }
}

#[cfg(test)]
mod tests;
