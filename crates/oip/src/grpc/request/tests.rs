use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;
use smallvec::smallvec;

use super::*;
use crate::grpc::proto::infer_parameter::ParameterChoice;
use crate::grpc::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::grpc::proto::{InferParameter, InferTensorContents, ModelInferRequest};

const LIMIT: usize = 1 << 20;

fn cut(data: &[u8], part_bytes: usize) -> Payload {
    let mut payload = Payload::new();
    data.chunks(part_bytes.max(1)).for_each(|part| payload.push(Bytes::copy_from_slice(part)));
    payload
}

fn decode(request: &ModelInferRequest) -> Result<DecodedCall, DecodeError> {
    RequestParts::read(&request.encode_to_vec().into())?.decode("net".parse().unwrap(), LIMIT)
}

fn text(request: &ModelInferRequest) -> String {
    decode(request).unwrap_err().to_string()
}

fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor { name: name.into(), datatype: datatype.into(), shape: shape.into(), ..Default::default() }
}

fn parameters(choices: &[(&str, ParameterChoice)]) -> BTreeMap<String, InferParameter> {
    let entry = |(name, choice): &(&str, ParameterChoice)| {
        ((*name).to_owned(), InferParameter { parameter_choice: Some(choice.clone()) })
    };
    choices.iter().map(entry).collect()
}

fn raw_request() -> ModelInferRequest {
    ModelInferRequest {
        model_name: "net".into(),
        inputs: vec![input("a", "FP32", &[1, 2]), input("b", "BYTES", &[1])],
        raw_input_contents: vec![Bytes::from_static(&[0; 8]), Bytes::from_static(b"\x02\0\0\0hi")],
        ..Default::default()
    }
}

fn tensors(call: &DecodedCall) -> &[Tensor] {
    let Inputs::Named(tensors) = &call.request.inputs else { panic!("{call:?}") };
    tensors
}

#[test]
fn everything_of_a_request_arrives() {
    let request = ModelInferRequest {
        model_version: "7".into(),
        id: "mine".into(),
        parameters: parameters(&[
            ("timeout", ParameterChoice::Int64Param(1500)),
            ("bool", ParameterChoice::BoolParam(true)),
            ("int", ParameterChoice::Int64Param(-3)),
            ("text", ParameterChoice::StringParam("ü".into())),
            ("double", ParameterChoice::DoubleParam(0.5)),
            ("uint", ParameterChoice::Uint64Param(3)),
            ("large", ParameterChoice::Uint64Param(u64::MAX)),
        ]),
        outputs: vec![InferRequestedOutputTensor { name: "y".into(), ..Default::default() }],
        ..raw_request()
    };
    let call = decode(&request).unwrap();
    assert_eq!((call.form, call.grown_bytes), (Form::Binary, 0));
    let DecodedCall { request: decoded, .. } = &call;
    assert_eq!((decoded.version.as_deref(), decoded.id.as_deref()), (Some("7"), Some("mine")));
    assert_eq!(decoded.timeout, Some(Duration::from_micros(1500)));
    let mut given = decoded.parameters.clone();
    given.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        ("bool", ParameterValue::Bool(true)),
        ("double", ParameterValue::Double(0.5)),
        ("int", ParameterValue::Int(-3)),
        ("large", ParameterValue::Uint(u64::MAX)),
        ("text", ParameterValue::String("ü".to_owned())),
        ("uint", ParameterValue::Int(3)),
    ];
    assert_eq!(given, expected.map(|(name, value)| (name.to_owned(), value)));
    assert_eq!(decoded.outputs, [OutputRequest { name: "y".to_owned() }]);
    let [a, b] = tensors(&call) else { panic!("{call:?}") };
    assert_eq!((a.name.as_str(), a.datatype, a.shape.clone()), ("a", DataType::Fp32, smallvec![1, 2]));
    assert_eq!(b.data.to_contiguous(), &b"\x02\0\0\0hi"[..]);
}

#[test]
fn absent_texts_are_absent() {
    let request = decode(&raw_request()).unwrap().request;
    assert_eq!((request.version, request.id, request.timeout), (None, None, None));
}

#[test]
fn raw_contents_stay_the_buffers_they_came_in() {
    let mut request = raw_request();
    request.inputs = vec![input("a", "UINT8", &[100])];
    request.raw_input_contents = vec![Bytes::from(vec![7; 100])];
    let received = cut(&request.encode_to_vec(), 60);
    let call = RequestParts::read(&received).unwrap().decode("net".parse().unwrap(), LIMIT).unwrap();
    let data = &tensors(&call)[0].data;
    let sent: Vec<_> = received.parts().iter().map(|part| part.as_ptr_range()).collect();
    for part in data.parts() {
        assert!(sent.iter().any(|range| range.contains(&part.as_ptr())), "a copy was made");
    }
    assert_eq!(data.to_contiguous(), vec![7; 100]);
}

#[test]
fn the_form_of_the_answer_is_the_requests_unless_it_says_otherwise() {
    let mut typed = ModelInferRequest { inputs: vec![input("a", "FP32", &[1])], ..Default::default() };
    typed.inputs[0].contents = Some(InferTensorContents { fp32_contents: vec![1.5], ..Default::default() });
    assert_eq!(decode(&typed).unwrap().form, Form::Json);
    typed.parameters = parameters(&[("binary_data_output", ParameterChoice::BoolParam(true))]);
    assert_eq!(decode(&typed).unwrap().form, Form::Binary);
    let mut raw = raw_request();
    raw.parameters = parameters(&[("binary_data_output", ParameterChoice::BoolParam(false))]);
    assert_eq!(decode(&raw).unwrap().form, Form::Json);
}

#[test]
fn what_contradicts_itself_is_refused_and_told() {
    let change = |change: &dyn Fn(&mut ModelInferRequest)| {
        let mut request = raw_request();
        change(&mut request);
        text(&request)
    };
    let contents = || Some(InferTensorContents { fp32_contents: vec![0.0; 2], ..Default::default() });
    let cases = [
        (
            change(&|r| r.inputs[0].contents = contents()),
            "input `a` has contents beside the message's raw_input_contents",
        ),
        (change(&|r| drop(r.raw_input_contents.pop())), "raw_input_contents has 1 entries for 2 inputs"),
        (change(&|r| r.raw_input_contents[0] = Bytes::from_static(&[0; 7])), "input `a` has 7 bytes"),
        (change(&|r| r.raw_input_contents[1] = Bytes::from_static(b"hi")), "input `b` is cut off in element 0"),
        (change(&|r| r.inputs[0].shape = vec![1, -2]), "input `a` has a shape with a negative extent"),
        (change(&|r| r.inputs[0].shape = vec![1; MAX_RANK + 1]), "more than 16"),
        (
            change(&|r| r.inputs[0].shape = vec![i64::MAX, 4]),
            "input `a` has shape [9223372036854775807, 4], which is too large",
        ),
        (change(&|r| r.inputs[0].datatype = "FLOAT".into()), "input `a` has the datatype `FLOAT`; expected one of"),
        (
            change(&|r| {
                r.inputs[0].parameters =
                    parameters(&[("shared_memory_region", ParameterChoice::StringParam("x".into()))]);
            }),
            "input `a` asks for shared memory",
        ),
        (
            change(&|r| {
                r.outputs = vec![InferRequestedOutputTensor {
                    name: "y".into(),
                    parameters: parameters(&[("classification", ParameterChoice::Int64Param(3))]),
                }];
            }),
            "output `y` asks for classification",
        ),
        (
            change(&|r| r.outputs = vec![InferRequestedOutputTensor { name: "y".into(), ..Default::default() }; 2]),
            "output `y` is requested more than once",
        ),
        (
            change(&|r| r.parameters = parameters(&[("timeout", ParameterChoice::Int64Param(-1))])),
            "parameter `timeout` must be a whole number, zero or more",
        ),
        (
            change(&|r| r.parameters = [("x".to_owned(), InferParameter { parameter_choice: None })].into()),
            "parameter `x` must be a value",
        ),
        (change(&|r| r.id = "x".repeat(MAX_ID_BYTES + 1)), "the id has more than 1024 bytes"),
    ];
    for (got, expected) in cases {
        assert!(got.contains(expected), "{got:?} lacks {expected:?}");
    }
    // BOOL has two values, raw as well.
    let mut request = ModelInferRequest { inputs: vec![input("a", "BOOL", &[2])], ..Default::default() };
    request.raw_input_contents = vec![Bytes::from_static(&[1, 2])];
    assert!(text(&request).contains("has the byte 2 at element 1"));
}

#[test]
fn what_repeats_is_counted_before_anything_is_made_of_it() {
    // Two bytes an input: a reader that makes structs first would take a hundred times the message.
    let inputs = [0x2a, 0x00].repeat(MAX_TENSORS + 1);
    let parts = |message: Vec<u8>| RequestParts::read(&message.into()).unwrap_err();
    assert_eq!(parts(inputs), DecodeError::TooMany { what: "inputs", limit: MAX_TENSORS });
    assert_eq!(
        parts([0x3a, 0x00].repeat(MAX_TENSORS + 1)),
        DecodeError::TooMany { what: "raw_input_contents", limit: MAX_TENSORS }
    );
    assert_eq!(parts([0x0a, 0x00].repeat(MAX_FIELDS + 1)), DecodeError::TooMany { what: "fields", limit: MAX_FIELDS });
    let mut tensor = [0x22, 0x00].repeat(MAX_PARAMETERS + 1);
    let mut message = vec![0x2a, 0x82, 0x01];
    message.append(&mut tensor);
    let error = RequestParts::read(&message.into()).unwrap().decode("net".parse().unwrap(), LIMIT).unwrap_err();
    // An entry without a value is refused already.
    assert!(matches!(error, DecodeError::Parameter { .. }), "{error:?}");
}

#[test]
fn compact_contents_do_not_grow_beyond_the_limit() {
    let mut request = ModelInferRequest { inputs: vec![input("a", "INT64", &[1000])], ..Default::default() };
    request.inputs[0].contents = Some(InferTensorContents { int64_contents: vec![1; 1000], ..Default::default() });
    let message = Payload::from(request.encode_to_vec());
    let decode = |limit| RequestParts::read(&message).unwrap().decode("net".parse().unwrap(), limit);
    assert_eq!(decode(7_999).unwrap_err(), DecodeError::TooLarge { limit_bytes: 7_999 });
    let call = decode(8_000).unwrap();
    assert_eq!(call.grown_bytes, 8_000 - RequestParts::read(&message).unwrap().typed_bytes() as u64);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused_however_they_are_cut(
        data in prop::collection::vec(any::<u8>(), 0..200),
        part_bytes in 1..40_usize,
    ) {
        let whole = RequestParts::read(&data.clone().into());
        let in_parts = RequestParts::read(&cut(&data, part_bytes));
        prop_assert_eq!(whole.is_ok(), in_parts.is_ok());
        if let (Ok(whole), Ok(in_parts)) = (whole, in_parts) {
            let decode = |parts: RequestParts| parts.decode("net".parse().unwrap(), LIMIT).map_err(|error| error.to_string());
            prop_assert_eq!(decode(whole).is_ok(), decode(in_parts).is_ok());
        }
    }

    #[test]
    fn a_message_cut_or_bent_anywhere_is_read_or_refused(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        is_cut in any::<bool>(),
    ) {
        let mut message = raw_request().encode_to_vec();
        let at = at.index(message.len());
        if is_cut { message.truncate(at) } else { message[at] = byte }
        if let Ok(parts) = RequestParts::read(&message.into()) {
            let _ = parts.decode("net".parse().unwrap(), LIMIT);
        }
    }
}
