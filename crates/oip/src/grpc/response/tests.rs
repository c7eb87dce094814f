use bytes::Bytes;
use prost::Message as _;
use smallvec::smallvec;
use tenantry_types::DataType;

use super::*;
use crate::grpc::framed::Prefix;
use crate::grpc::proto::infer_parameter::ParameterChoice;
use crate::grpc::proto::{ModelInferResponse, ModelStreamInferResponse};

fn response() -> InferResponse {
    let tensor = |name: &str, datatype, count: u64, data: Vec<u8>| Tensor {
        name: name.to_owned(),
        datatype,
        shape: smallvec![1, count],
        data: data.into(),
    };
    InferResponse {
        model: "platform/net".parse().unwrap(),
        version: "3".to_owned(),
        id: Some("mine".to_owned()),
        outputs: vec![
            tensor("y", DataType::Fp32, 2, [1.5_f32, -2.0].map(f32::to_le_bytes).concat()),
            tensor("label", DataType::Bytes, 1, b"\x02\0\0\0hi".to_vec()),
        ],
    }
}

/// The message behind the one prefix.
fn unframed(payload: &Payload) -> Bytes {
    let mut whole = payload.to_contiguous();
    let prefix = whole.split_to(PREFIX_BYTES);
    let prefix = Prefix::read(*prefix.first_chunk().unwrap()).unwrap();
    assert_eq!(prefix, Prefix { is_compressed: false, message_bytes: whole.len() as u32 });
    whole
}

fn decoded(response: &InferResponse, form: Form) -> ModelInferResponse {
    let payload = encode_response(response, form, Envelope::Alone).unwrap();
    ModelInferResponse::decode(unframed(&payload)).unwrap()
}

#[test]
fn a_raw_answer_holds_every_tensor_as_bytes() {
    let message = decoded(&response(), Form::Binary);
    assert_eq!(
        (message.model_name.as_str(), message.model_version.as_str(), message.id.as_str()),
        ("platform/net", "3", "mine")
    );
    assert_eq!(message.raw_output_contents.len(), 2);
    assert_eq!(message.raw_output_contents[1], &b"\x02\0\0\0hi"[..]);
    let output = &message.outputs[0];
    assert_eq!((output.name.as_str(), output.datatype.as_str(), output.shape.as_slice()), ("y", "FP32", &[1, 2][..]));
    assert!(message.outputs.iter().all(|output| output.contents.is_none()));
}

#[test]
fn a_typed_answer_holds_every_tensor_as_elements() {
    let message = decoded(&response(), Form::Json);
    assert!(message.raw_output_contents.is_empty());
    assert_eq!(message.outputs[0].contents.as_ref().unwrap().fp32_contents, [1.5, -2.0]);
    assert_eq!(message.outputs[1].contents.as_ref().unwrap().bytes_contents, ["hi"]);
}

#[test]
fn one_tensor_without_typed_contents_makes_the_whole_answer_raw() {
    let mut response = response();
    response.outputs[1] =
        Tensor { name: "h".to_owned(), datatype: DataType::Fp16, shape: smallvec![1], data: vec![0, 60].into() };
    let message = decoded(&response, Form::Json);
    assert_eq!(message.raw_output_contents.len(), 2);
}

#[test]
fn large_tensors_are_not_copied_and_small_ones_between_them_keep_their_place() {
    let large = Bytes::from(vec![7; MAX_INLINE_BYTES + 1]);
    let mut response = response();
    let tensor = |data: &Bytes| Tensor {
        name: "x".to_owned(),
        datatype: DataType::Uint8,
        shape: smallvec![data.len() as u64],
        data: data.clone().into(),
    };
    response.outputs = vec![tensor(&large), tensor(&Bytes::from_static(b"ab")), tensor(&large)];
    for envelope in [Envelope::Alone, Envelope::InStream { says_final: false }] {
        let payload = encode_response(&response, Form::Binary, envelope).unwrap();
        let pointers: Vec<_> = payload.parts().iter().filter(|part| part.as_ptr() == large.as_ptr()).collect();
        assert_eq!(pointers.len(), 2);
        let message = unframed(&payload);
        let message = match envelope {
            Envelope::Alone => ModelInferResponse::decode(message).unwrap(),
            Envelope::InStream { .. } => ModelStreamInferResponse::decode(message).unwrap().infer_response.unwrap(),
        };
        let lengths: Vec<_> = message.raw_output_contents.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [large.len(), 2, large.len()]);
    }
}

#[test]
fn a_streams_answer_says_that_it_is_the_last_where_that_was_asked() {
    for says_final in [true, false] {
        let payload = encode_response(&response(), Form::Binary, Envelope::InStream { says_final }).unwrap();
        let message = ModelStreamInferResponse::decode(unframed(&payload)).unwrap();
        assert_eq!(message.error_message, "");
        let parameters = message.infer_response.unwrap().parameters;
        let said = parameters.get("triton_final_response").and_then(|parameter| parameter.parameter_choice.clone());
        assert_eq!(said, says_final.then_some(ParameterChoice::BoolParam(true)));
    }
}

#[test]
fn a_streams_error_names_its_request() {
    let message = ModelStreamInferResponse::decode(unframed(&encode_stream_error("no", "mine").unwrap())).unwrap();
    assert_eq!((message.error_message.as_str(), message.infer_response.unwrap().id.as_str()), ("no", "mine"));
}

#[test]
fn lengths_of_keys_are_counted_right() {
    for length in [0, 1, 127, 128, 16_383, 16_384, 1 << 21, 1 << 28] {
        let mut key = Vec::new();
        put_length(&mut key, 6, length);
        assert_eq!(delimited_bytes(length), key.len() + length, "{length}");
    }
}
