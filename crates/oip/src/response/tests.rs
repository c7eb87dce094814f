use proptest::prelude::*;
use tenantry_types::limits::MAX_TENSORS;
use tenantry_types::{DataType, InferRequest, Inputs, OutputRequest, ParameterValue};

use super::*;
use crate::{decode_request, decode_response, encode_request};

fn tensor(name: &str, datatype: DataType, shape: &[u64], data: Vec<u8>) -> Tensor {
    Tensor { name: name.to_owned(), datatype, shape: shape.into(), data: data.into() }
}

fn response(outputs: Vec<Tensor>) -> InferResponse {
    InferResponse { model: "acme/m".parse().unwrap(), version: "3".into(), id: Some("a\"b".into()), outputs }
}

fn text(encoded: &Encoded) -> String {
    String::from_utf8(encoded.body.to_contiguous().to_vec()).unwrap()
}

#[test]
fn an_answer_in_json_reads_as_the_protocol_says() {
    let floats = [0.1_f32, -1.0, 3.0e38].iter().flat_map(|value| value.to_le_bytes()).collect();
    let outputs = vec![
        tensor("y", DataType::Fp32, &[3], floats),
        tensor("t", DataType::Bytes, &[1], b"\x03\0\0\0a\"\n".to_vec()),
        tensor("b", DataType::Bool, &[2], vec![1, 0]),
    ];
    let encoded = encode_response(&response(outputs), &ReplyFormat::default()).unwrap();
    assert_eq!(encoded.json_length, None);
    assert_eq!(
        text(&encoded),
        r#"{"model_name":"acme/m","model_version":"3","id":"a\"b","outputs":[{"name":"y","datatype":"FP32","shape":[3],"data":[0.1,-1.0,3e+38]},{"name":"t","datatype":"BYTES","shape":[1],"data":["a\"\n"]},{"name":"b","datatype":"BOOL","shape":[2],"data":[true,false]}]}"#
    );
}

#[test]
fn binary_outputs_follow_the_json_in_order() {
    let outputs = vec![
        tensor("a", DataType::Uint8, &[2], vec![1, 2]),
        tensor("j", DataType::Uint8, &[1], vec![9]),
        tensor("b", DataType::Fp16, &[1], vec![3, 4]),
    ];
    let forms = [Form::Binary, Form::Json, Form::Binary].into_iter().collect();
    let encoded = encode_response(&response(outputs), &ReplyFormat { default: Form::Json, outputs: forms }).unwrap();
    let body = encoded.body.to_contiguous();
    let json = &body[..encoded.json_length.unwrap()];
    assert!(std::str::from_utf8(json).unwrap().contains(r#""shape":[1],"parameters":{"binary_data_size":2}}]}"#));
    assert_eq!(&body[json.len()..], [1, 2, 3, 4]);
}

#[test]
fn large_binary_outputs_are_sent_from_where_they_are() {
    let outputs = vec![tensor("a", DataType::Uint8, &[20_000], vec![7; 20_000])];
    let at = outputs[0].data.parts()[0].as_ptr();
    let format = ReplyFormat { default: Form::Binary, ..ReplyFormat::default() };
    let encoded = encode_response(&response(outputs), &format).unwrap();
    assert_eq!(encoded.body.parts()[1].as_ptr(), at);
}

#[test]
fn what_json_cannot_carry_is_the_clients_choice_to_change() {
    let encode = |tensor| encode_response(&response(vec![tensor]), &ReplyFormat::default()).unwrap_err();
    let nan = encode(tensor("y", DataType::Fp32, &[2], [1.0, f32::NAN].iter().flat_map(|v| v.to_le_bytes()).collect()));
    assert!(nan.is_choice_of_form() && nan.to_string().contains("`y` has a NaN or an infinity at element 1"), "{nan}");
    let half = encode(tensor("y", DataType::Fp16, &[1], vec![0, 0]));
    assert!(half.is_choice_of_form() && half.to_string().contains("FP16"), "{half}");
    let bytes = encode(tensor("y", DataType::Bytes, &[1], b"\x01\0\0\0\xff".to_vec()));
    assert!(bytes.is_choice_of_form() && bytes.to_string().contains("not UTF-8"), "{bytes}");
    let short = encode(tensor("y", DataType::Fp32, &[2], vec![0; 7]));
    assert!(!short.is_choice_of_form(), "{short}");
}

fn datatypes() -> impl Strategy<Value = DataType> {
    prop::sample::select(DataType::ALL.to_vec())
}

/// Any tensor whose data fits its type and shape.
fn any_tensor() -> impl Strategy<Value = Tensor> {
    (datatypes(), prop::collection::vec(0..4_u64, 0..4), ".{0,12}", any::<u64>()).prop_map(
        |(datatype, shape, name, seed)| {
            let count = shape.iter().product::<u64>();
            let mut random = seed;
            let mut next = move || {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) as u8
            };
            let data: Vec<u8> = match datatype.element_bytes() {
                Some(_) if datatype == DataType::Bool => (0..count).map(|_| next() & 1).collect(),
                Some(bytes) => (0..count * bytes as u64).map(|_| next()).collect(),
                None => (0..count)
                    .flat_map(|_| {
                        let text = vec![b'a' + next() % 26; usize::from(next() % 5)];
                        [&(text.len() as u32).to_le_bytes()[..], &text].concat()
                    })
                    .collect(),
            };
            Tensor { name, datatype, shape: shape.into(), data: data.into() }
        },
    )
}

fn any_parameter() -> impl Strategy<Value = ParameterValue> {
    prop_oneof![
        any::<bool>().prop_map(ParameterValue::Bool),
        any::<i64>().prop_map(ParameterValue::Int),
        any::<f64>().prop_filter("finite", |v| v.is_finite()).prop_map(ParameterValue::Double),
        ".{0,12}".prop_map(ParameterValue::String),
    ]
}

fn any_request() -> impl Strategy<Value = (InferRequest, ReplyFormat)> {
    let form = any::<bool>().prop_map(Form::binary_if);
    (
        prop::collection::vec(any_tensor(), 0..4),
        prop::collection::btree_map("p[a-z]{0,5}", any_parameter(), 0..4),
        prop::option::of(".{0,12}"),
        prop::option::of(1..1_000_000_u64),
        prop::collection::btree_map("[a-z]{1,5}", form.clone(), 0..4),
        form,
    )
        .prop_map(|(inputs, parameters, id, timeout_us, outputs, default)| {
            let request = InferRequest {
                id,
                parameters: parameters.into_iter().collect(),
                outputs: outputs.keys().map(|name| OutputRequest { name: name.clone() }).collect(),
                timeout: timeout_us.map(std::time::Duration::from_micros),
                priority: tenantry_types::Priority::from_client(timeout_us.unwrap_or(0) % 11),
                ..InferRequest::new("m".parse().unwrap(), Inputs::Named(inputs))
            };
            (request, ReplyFormat { default, outputs: outputs.values().copied().collect() })
        })
}

/// The body cut into small buffers, as a network may deliver it.
fn cut(body: &Payload, part_bytes: usize) -> Payload {
    let mut payload = Payload::new();
    body.to_contiguous().chunks(part_bytes).for_each(|part| payload.push(Bytes::copy_from_slice(part)));
    payload
}

/// The same tensors with each chain joined, so that they compare by content.
fn joined(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(|tensor| Tensor { data: tensor.data.to_contiguous().into(), ..tensor.clone() }).collect()
}

proptest! {
    #[test]
    fn a_request_survives_the_wire((request, reply) in any_request(), binary in any::<bool>(), part_bytes in 1..200_usize) {
        let form = Form::binary_if(binary);
        let encoded = match encode_request(&request, form, &reply) {
            Ok(encoded) => encoded,
            Err(error) => {
                prop_assert!(form == Form::Json && error.is_choice_of_form(), "{}", error);
                return Ok(());
            }
        };
        let length = encoded.json_length.map(|length| length.to_string());
        let decoded = decode_request(request.model.clone(), None, length.as_deref(), cut(&encoded.body, part_bytes)).unwrap();
        prop_assert_eq!(&decoded.reply, &reply);
        let (Inputs::Named(sent), Inputs::Named(received)) = (&request.inputs, &decoded.request.inputs) else { panic!() };
        prop_assert_eq!(joined(received), joined(sent));
        prop_assert_eq!(InferRequest { inputs: request.inputs.clone(), ..decoded.request }, request);
    }

    #[test]
    fn an_answer_survives_the_wire(
        outputs in prop::collection::vec(any_tensor(), 0..4),
        default in any::<bool>().prop_map(Form::binary_if),
        part_bytes in 1..200_usize,
    ) {
        let response = response(outputs);
        let encoded = match encode_response(&response, &ReplyFormat { default, ..ReplyFormat::default() }) {
            Ok(encoded) => encoded,
            Err(error) => {
                prop_assert!(default == Form::Json && error.is_choice_of_form(), "{}", error);
                return Ok(());
            }
        };
        let length = encoded.json_length.map(|length| length.to_string());
        let decoded = decode_response(length.as_deref(), cut(&encoded.body, part_bytes)).unwrap();
        prop_assert_eq!(joined(&decoded.outputs), joined(&response.outputs));
        prop_assert_eq!(InferResponse { outputs: response.outputs.clone(), ..decoded }, response);
    }

    #[test]
    fn any_bytes_are_answered_without_panic(body in prop::collection::vec(any::<u8>(), 0..200), length in prop::option::of(0..220_usize)) {
        let length = length.map(|length| length.to_string());
        let _ = decode_request("m".parse().unwrap(), None, length.as_deref(), body.clone().into());
        let _ = decode_response(length.as_deref(), body.into());
    }
}

#[test]
fn as_many_outputs_as_a_model_may_have_survive() {
    let outputs = (0..MAX_TENSORS).map(|i| tensor(&format!("o{i}"), DataType::Uint8, &[1], vec![i as u8])).collect();
    let encoded = encode_response(&response(outputs), &ReplyFormat::default()).unwrap();
    assert_eq!(decode_response(None, encoded.body).unwrap().outputs.len(), MAX_TENSORS);
}
