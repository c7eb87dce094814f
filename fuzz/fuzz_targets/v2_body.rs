//! The bodies of infer calls and answers: whatever comes, no panic, bounded memory, and what is accepted survives being
//! written and read again.
//!
//! The first line of the input says how the rest, the body, is delivered: the value of `Inference-Header-Content-Length`,
//! a space, and the size of the buffers the body arrives in. `-` stands for no such header, `<N` for the length of all but
//! the last N bytes, so that a mutation inside the JSON keeps the binary part where it is.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tenantry_oip::{Encoded, Form, ReplyFormat, decode_request, decode_response, encode_request, encode_response};
use tenantry_types::{InferRequest, InferResponse, Inputs, ModelRef, Payload, Tensor};

fuzz_target!(|input: &[u8]| {
    let Some((header_length, body)) = delivery(input) else { return };
    requests(header_length.as_deref(), body.clone());
    responses(header_length.as_deref(), body);
});

fn delivery(input: &[u8]) -> Option<(Option<String>, Payload)> {
    let end = input.iter().position(|byte| *byte == b'\n')?;
    let (header_length, part_bytes) = std::str::from_utf8(&input[..end]).ok()?.split_once(' ')?;
    let part_bytes: usize = part_bytes.parse().ok().filter(|bytes| *bytes > 0)?;
    let mut body = Payload::new();
    input[end + 1..].chunks(part_bytes).for_each(|part| body.push(Bytes::copy_from_slice(part)));
    let header_length = match (header_length, header_length.strip_prefix('<')) {
        ("-", _) => None,
        (_, Some(binary_bytes)) => Some(body.len().saturating_sub(binary_bytes.parse().ok()?).to_string()),
        (text, None) => Some(text.to_owned()),
    };
    Some((header_length, body))
}

fn model() -> ModelRef {
    "acme/m".parse().unwrap()
}

fn requests(header_length: Option<&str>, body: Payload) {
    let body_bytes = body.len();
    let decoded = match decode_request(model(), None, header_length, body) {
        Ok(decoded) => decoded,
        Err(error) => {
            assert!(error.to_string().chars().count() < 1500, "a short account of the error");
            return;
        }
    };
    let request = decoded.request;
    assert!(request.data_bytes() <= 4 * body_bytes + 8, "{} bytes of {body_bytes}", request.data_bytes());

    let Inputs::Named(inputs) = &request.inputs else {
        let encoded = encode_request(&request, Form::Binary, &decoded.reply).unwrap();
        let again = read_request(encoded);
        assert_eq!(again.0, request);
        return;
    };
    for form in [Form::Binary, Form::Json] {
        let encoded = match encode_request(&request, form, &decoded.reply) {
            Ok(encoded) => encoded,
            Err(error) => {
                assert!(form == Form::Json && error.is_choice_of_form(), "{error}");
                continue;
            }
        };
        // The JSON part may not fit its limit any more: escapes are written in full where they were short.
        if form == Form::Binary && encoded.json_length.is_some_and(|length| length > (1 << 20)) {
            continue;
        }
        let (again, reply) = read_request(encoded);
        assert_eq!(reply, decoded.reply);
        let Inputs::Named(read) = &again.inputs else { panic!("named inputs became raw") };
        assert_same(read, inputs);
        assert_eq!(InferRequest { inputs: request.inputs.clone(), ..again }, request);
    }

    // The inputs of a request are as good as the outputs of an answer.
    let response =
        InferResponse { model: model(), version: "1".to_owned(), id: request.id.clone(), outputs: inputs.clone() };
    for default in [Form::Binary, Form::Json] {
        answer(&response, &ReplyFormat { default, ..ReplyFormat::default() });
    }
}

fn responses(header_length: Option<&str>, body: Payload) {
    if let Ok(response) = decode_response(header_length, body) {
        answer(&response, &ReplyFormat { default: Form::Binary, ..ReplyFormat::default() });
    }
}

fn answer(response: &InferResponse, format: &ReplyFormat) {
    let encoded = match encode_response(response, format) {
        Ok(encoded) => encoded,
        Err(error) => {
            assert!(format.default == Form::Json && error.is_choice_of_form(), "{error}");
            return;
        }
    };
    let length = encoded.json_length.map(|length| length.to_string());
    let again = decode_response(length.as_deref(), encoded.body).unwrap();
    assert_same(&again.outputs, &response.outputs);
    assert_eq!(InferResponse { outputs: response.outputs.clone(), ..again }, *response);
}

fn read_request(encoded: Encoded) -> (InferRequest, ReplyFormat) {
    let length = encoded.json_length.map(|length| length.to_string());
    let decoded = decode_request(model(), None, length.as_deref(), encoded.body).unwrap();
    (decoded.request, decoded.reply)
}

/// Tensors compare by their bytes, however these are cut.
fn assert_same(left: &[Tensor], right: &[Tensor]) {
    assert_eq!(left.len(), right.len());
    for (left, right) in left.iter().zip(right) {
        assert_eq!((&left.name, left.datatype, &left.shape), (&right.name, right.datatype, &right.shape));
        assert_eq!(left.data.to_contiguous(), right.data.to_contiguous());
    }
}
