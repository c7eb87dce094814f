//! The client's side: requests encoded, responses decoded. For the command line, the bench and tests.

use tenantry_types::{InferRequest, InferResponse, Inputs, Payload};

use crate::error::{DecodeError, EncodeError, TensorKind};
use crate::header::read_response;
use crate::json_out::{write_parameter, write_text};
use crate::request::{Split, read_tensors, split_body};
use crate::response::{Encoded, Form, ReplyFormat, assemble, write_tensors};

/// Encodes the body of an infer call: inputs all in one form, the answer asked for as `reply` says.
///
/// Model and version belong into the URL. A raw request carries its data only.
///
/// # Errors
/// An input or parameter that has no JSON form, a tensor whose data does not fit its type, or a raw request with more
/// than data.
pub fn encode_request(request: &InferRequest, inputs: Form, reply: &ReplyFormat) -> Result<Encoded, EncodeError> {
    let tensors = match &request.inputs {
        Inputs::Named(tensors) => tensors,
        Inputs::Raw(data) => return encode_raw(request, data),
    };
    let mut json = Vec::with_capacity(256);
    json.push(b'{');
    if let Some(id) = &request.id {
        json.extend_from_slice(b"\"id\":");
        write_text(&mut json, id);
        json.push(b',');
    }
    write_request_parameters(&mut json, request, reply)?;
    json.extend_from_slice(b"\"inputs\":[");
    write_tensors(&mut json, tensors, |_| inputs)?;
    json.push(b']');
    if !request.outputs.is_empty() {
        json.extend_from_slice(b",\"outputs\":[");
        for (index, output) in request.outputs.iter().enumerate() {
            json.extend_from_slice(if index == 0 { b"{\"name\":" } else { b",{\"name\":" });
            write_text(&mut json, &output.name);
            json.extend_from_slice(match reply.form(index) {
                Form::Binary => b",\"parameters\":{\"binary_data\":true}}",
                Form::Json => b",\"parameters\":{\"binary_data\":false}}",
            });
        }
        json.push(b']');
    }
    json.push(b'}');
    Ok(assemble(json, tensors, |_| inputs))
}

fn encode_raw(request: &InferRequest, data: &Payload) -> Result<Encoded, EncodeError> {
    let InferRequest { id, parameters, outputs, timeout, priority, .. } = request;
    let has_more = id.is_some() || timeout.is_some() || !priority.is_default();
    if has_more || !parameters.is_empty() || !outputs.is_empty() {
        return Err(EncodeError::RawCarriesDataOnly);
    }
    Ok(Encoded { json_length: Some(0), body: data.clone() })
}

fn write_request_parameters(
    json: &mut Vec<u8>,
    request: &InferRequest,
    reply: &ReplyFormat,
) -> Result<(), EncodeError> {
    json.extend_from_slice(b"\"parameters\":{\"binary_data_output\":");
    json.extend_from_slice(if reply.default == Form::Binary { b"true" } else { b"false" });
    if let Some(timeout) = request.timeout {
        json.extend_from_slice(b",\"timeout\":");
        // A timeout of 0 would mean none: less than a microsecond is asked for as one.
        let timeout_us = timeout.as_micros().clamp(1, i64::MAX as u128);
        json.extend_from_slice(timeout_us.to_string().as_bytes());
    }
    if !request.priority.is_default() {
        json.extend_from_slice(b",\"priority\":");
        json.extend_from_slice(request.priority.level().to_string().as_bytes());
    }
    for (name, value) in &request.parameters {
        json.push(b',');
        write_text(json, name);
        json.push(b':');
        write_parameter(json, name, value)?;
    }
    json.extend_from_slice(b"},");
    Ok(())
}

/// Decodes the body of a successful answer. `header_length` is the value of `Inference-Header-Content-Length`.
///
/// # Errors
/// The first thing wrong with the body.
pub fn decode_response(header_length: Option<&str>, body: Payload) -> Result<InferResponse, DecodeError> {
    let body_bytes = body.len();
    let Split::Json { json, binary } = split_body(header_length, body)? else {
        return Err(DecodeError::HeaderLength { got: "0".to_owned(), body_bytes });
    };
    let json = json.to_contiguous();
    let header = read_response(&json)?;
    let outputs = read_tensors(header.outputs, TensorKind::Output, binary)?;
    Ok(InferResponse { model: header.model_name.parse()?, version: header.model_version, id: header.id, outputs })
}
