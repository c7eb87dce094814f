//! A `ModelInferResponse`, alone or in a `ModelStreamInferResponse`, with gRPC's prefix: ready to be sent.

use tenantry_types::{InferResponse, Payload, Tensor};

use super::contents::{has_contents, write_contents};
use super::framed::{PREFIX_BYTES, write_prefix};
use super::wire::{put_bytes, put_length, put_number, put_varint};
use crate::error::EncodeError;
use crate::limits::MAX_INLINE_BYTES;
use crate::response::Form;

/// The parameter that says that no further answer of a stream belongs to the same request.
const FINAL_RESPONSE: &str = "triton_final_response";
/// The longest a message's fields without tensors' data may be announced, bytes: what a key and a length take.
const MAX_KEY_BYTES: usize = 16;

/// How an answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Envelope {
    /// As the answer of `ModelInfer`.
    Alone,
    /// As one of a stream's; `says_final`: with the parameter that it is its request's last.
    InStream {
        /// Whether the client asked to be told.
        says_final: bool,
    },
}

/// The form an answer's tensors go in: typed contents cannot carry every type, and one message has one form.
fn form_of(response: &InferResponse, wanted: Form) -> Form {
    let all_typed = response.outputs.iter().all(|tensor| has_contents(tensor.datatype));
    if wanted == Form::Json && all_typed { Form::Json } else { Form::Binary }
}

/// Encodes an answer as a length-prefixed message. Raw contents of some size are not copied.
///
/// # Errors
/// A tensor whose data does not fit its type, or an answer too large for gRPC.
pub fn encode_response(response: &InferResponse, form: Form, envelope: Envelope) -> Result<Payload, EncodeError> {
    let form = form_of(response, form);
    let mut message = Vec::with_capacity(256);
    put_bytes(&mut message, 1, response.model.to_string().as_bytes());
    put_bytes(&mut message, 2, response.version.as_bytes());
    if let Some(id) = &response.id {
        put_bytes(&mut message, 3, id.as_bytes());
    }
    if envelope == (Envelope::InStream { says_final: true }) {
        put_final(&mut message);
    }
    for tensor in &response.outputs {
        put_output(&mut message, tensor, form)?;
    }
    let raw = if form == Form::Binary { response.outputs.as_slice() } else { &[] };
    // What is behind the fields so far: each tensor's key, length and data.
    let raw_bytes = raw.iter().map(|tensor| delimited_bytes(tensor.data.len())).sum::<usize>();
    let front = front(envelope, message.len().saturating_add(raw_bytes))?;
    message.splice(..0, front);
    Ok(with_raw(message, raw))
}

/// Encodes an error as an answer of a stream, which goes on. `id` is the request's.
///
/// # Errors
/// A text too long for gRPC.
pub fn encode_stream_error(text: &str, id: &str) -> Result<Payload, EncodeError> {
    let mut response = Vec::new();
    if !id.is_empty() {
        put_bytes(&mut response, 3, id.as_bytes());
    }
    let mut message = vec![0; PREFIX_BYTES];
    put_bytes(&mut message, 1, text.as_bytes());
    put_bytes(&mut message, 2, &response);
    let length = u32::try_from(message.len().saturating_sub(PREFIX_BYTES)).map_err(|_| EncodeError::TooLarge)?;
    write_prefix(&mut message, length);
    Ok(message.into())
}

/// What comes before the fields of a response.
fn front(envelope: Envelope, response_bytes: usize) -> Result<Vec<u8>, EncodeError> {
    let mut front = Vec::with_capacity(PREFIX_BYTES + MAX_KEY_BYTES);
    front.resize(PREFIX_BYTES, 0);
    if matches!(envelope, Envelope::InStream { .. }) {
        put_length(&mut front, 2, response_bytes);
    }
    let message_bytes = front.len().saturating_sub(PREFIX_BYTES).saturating_add(response_bytes);
    write_prefix(&mut front, u32::try_from(message_bytes).map_err(|_| EncodeError::TooLarge)?);
    Ok(front)
}

fn put_final(message: &mut Vec<u8>) {
    let mut value = Vec::new();
    put_number(&mut value, 1, 1);
    let mut entry = Vec::new();
    put_bytes(&mut entry, 1, FINAL_RESPONSE.as_bytes());
    put_bytes(&mut entry, 2, &value);
    put_bytes(message, 4, &entry);
}

fn put_output(message: &mut Vec<u8>, tensor: &Tensor, form: Form) -> Result<(), EncodeError> {
    let mut output = Vec::with_capacity(64);
    put_bytes(&mut output, 1, tensor.name.as_bytes());
    put_bytes(&mut output, 2, tensor.datatype.as_str().as_bytes());
    let mut extents = Vec::with_capacity(16);
    tensor.shape.iter().for_each(|extent| put_varint(&mut extents, *extent));
    put_bytes(&mut output, 3, &extents);
    if form == Form::Json {
        let mut contents = Vec::with_capacity(tensor.data.len());
        write_contents(&mut contents, tensor)?;
        put_bytes(&mut output, 5, &contents);
    }
    put_bytes(message, 5, &output);
    Ok(())
}

/// Bytes of a delimited field of a number below 16.
fn delimited_bytes(length: usize) -> usize {
    let length_bytes = (usize::BITS - length.leading_zeros()).div_ceil(7).max(1) as usize;
    1 + length_bytes + length
}

/// Puts raw contents behind a message: copied when they are few bytes, as they are otherwise.
fn with_raw(mut message: Vec<u8>, raw: &[Tensor]) -> Payload {
    let mut payload = Payload::new();
    for tensor in raw {
        put_length(&mut message, 6, tensor.data.len());
        if tensor.data.len() <= MAX_INLINE_BYTES {
            tensor.data.parts().iter().for_each(|part| message.extend_from_slice(part));
        } else {
            payload.push(std::mem::take(&mut message).into());
            tensor.data.parts().iter().for_each(|part| payload.push(part.clone()));
        }
    }
    payload.push(message.into());
    payload
}

#[cfg(test)]
mod tests;
