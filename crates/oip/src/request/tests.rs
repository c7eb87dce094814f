use bytes::Bytes;
use tenantry_types::ParameterValue;

use super::*;

fn model() -> ModelRef {
    "m".parse().unwrap()
}

fn decode(header_length: Option<&str>, body: impl Into<Payload>) -> Result<DecodedRequest, DecodeError> {
    decode_request(model(), None, header_length, body.into())
}

fn json(text: &str) -> Result<DecodedRequest, DecodeError> {
    decode(None, text.as_bytes().to_vec())
}

/// A body of a JSON part and bytes behind it, with the right header.
fn binary(text: &str, data: &[u8]) -> Result<DecodedRequest, DecodeError> {
    decode(Some(&text.len().to_string()), [text.as_bytes(), data].concat())
}

fn refusal(result: Result<DecodedRequest, DecodeError>) -> String {
    result.unwrap_err().to_string()
}

fn tensors(decoded: &DecodedRequest) -> &[Tensor] {
    match &decoded.request.inputs {
        Inputs::Named(tensors) => tensors,
        Inputs::Raw(_) => panic!("a raw request"),
    }
}

#[test]
fn a_json_request_is_read_whole_whatever_the_order_of_its_keys() {
    let decoded = json(
        r#"{"outputs":[{"name":"y","parameters":{"binary_data":true}},{"name":"z"}],
            "inputs":[{"data":[1,2],"parameters":{"some":"thing"},"datatype":"UINT8","shape":[2],"name":"x","new":{}}],
            "parameters":{"timeout":1500,"mode":"fast","n":-3,"r":0.5,"on":true},"id":"42","later":[[[]]]}"#,
    )
    .unwrap();
    let request = &decoded.request;
    assert_eq!(request.id.as_deref(), Some("42"));
    assert_eq!(request.timeout, Some(Duration::from_micros(1500)));
    let parameters = [
        ("mode".to_owned(), ParameterValue::String("fast".into())),
        ("n".to_owned(), ParameterValue::Int(-3)),
        ("r".to_owned(), ParameterValue::Double(0.5)),
        ("on".to_owned(), ParameterValue::Bool(true)),
    ];
    assert_eq!(request.parameters, parameters);
    let [x] = tensors(&decoded) else { panic!("one input") };
    assert_eq!((x.name.as_str(), x.datatype, x.shape.as_slice()), ("x", DataType::Uint8, &[2_u64][..]));
    assert_eq!(x.data.to_contiguous(), &[1, 2][..]);
    assert_eq!(request.outputs.iter().map(|output| output.name.as_str()).collect::<Vec<_>>(), ["y", "z"]);
    assert_eq!((decoded.reply.form(0), decoded.reply.form(1)), (Form::Binary, Form::Json));
}

#[test]
fn binary_data_stays_where_it_was_received() {
    let header = r#"{"inputs":[{"name":"a","shape":[2],"datatype":"INT16","parameters":{"binary_data_size":4}},{"name":"j","shape":[1],"datatype":"BOOL","data":[true]},{"name":"b","shape":[3],"datatype":"UINT8","parameters":{"binary_data_size":3}}],"parameters":{"binary_data_output":true},"outputs":[{"name":"y"},{"name":"z","parameters":{"binary_data":false}}]}"#;
    let whole = Bytes::from([header.as_bytes(), &[1, 0, 2, 0, 7, 8, 9]].concat());
    // The JSON part and the first tensor each span two buffers.
    let cuts = [10, header.len() + 2, whole.len()];
    let mut body = Payload::new();
    let mut from = 0;
    for to in cuts {
        body.push(whole.slice(from..to));
        from = to;
    }
    let decoded = decode(Some(&header.len().to_string()), body).unwrap();
    let [a, j, b] = tensors(&decoded) else { panic!("three inputs") };
    assert_eq!(a.data.to_contiguous(), &[1, 0, 2, 0][..]);
    assert_eq!(j.data.to_contiguous(), &[1][..]);
    assert_eq!(b.data.parts().len(), 1);
    let received = whole.as_ptr_range();
    assert!(a.data.parts().iter().chain(b.data.parts()).all(|part| received.contains(&part.as_ptr())));
    assert_eq!((decoded.reply.form(0), decoded.reply.form(1)), (Form::Binary, Form::Json));
}

#[test]
fn a_raw_request_is_all_data_and_answered_in_binary() {
    let decoded = decode(Some("0"), vec![1, 2, 3]).unwrap();
    assert_eq!(decoded.request.inputs, Inputs::Raw(vec![1, 2, 3].into()));
    assert_eq!(decoded.reply.form(5), Form::Binary);
}

#[test]
fn a_header_length_that_lies_is_refused() {
    let text = r#"{"inputs":[]}"#;
    for wrong in ["-1", "x", "", "14", "99999999999999999999", "1.5", "+ 1"] {
        let message = refusal(decode(Some(wrong), text.as_bytes().to_vec()));
        assert!(message.contains("expected the length of the JSON part") && message.contains("(0, 13)"), "{message}");
    }
    assert!(decode(Some("13"), text.as_bytes().to_vec()).is_ok());
    // Too short: the JSON ends early.
    assert!(refusal(decode(Some("12"), text.as_bytes().to_vec())).contains("the JSON of the body is not valid"));
}

#[test]
fn the_json_part_in_front_of_binary_data_is_limited() {
    let mut text = r#"{"inputs":[]}"#.to_owned();
    text.push_str(&" ".repeat(MAX_JSON_HEADER_BYTES));
    assert!(matches!(binary(&text, &[1]), Err(DecodeError::HeaderTooLarge { .. })));
    assert!(json(&text).is_ok());
}

#[test]
fn sizes_that_do_not_add_up_name_the_input() {
    let input = |size: &str| {
        format!(
            r#"{{"inputs":[{{"name":"x","shape":[2],"datatype":"FP32","parameters":{{"binary_data_size":{size}}}}}]}}"#
        )
    };
    assert_eq!(
        refusal(binary(&input("8"), &[0; 7])),
        "input `x` announces 8 bytes of binary data, but only 7 bytes of the body are left"
    );
    assert_eq!(
        refusal(binary(&input("4"), &[0; 4])),
        "input `x` announces 4 bytes of binary data; shape [2] of FP32 needs 8"
    );
    assert_eq!(
        refusal(binary(&input("8"), &[0; 9])),
        "1 bytes follow the last binary tensor; the inputs' `binary_data_size` account for none of them"
    );
    for wrong in ["-8", "8.0", "\"8\"", "true", "18446744073709551615"] {
        let message = refusal(binary(&input(wrong), &[0; 8]));
        assert!(message.contains("input `x`") && message.contains("expected a whole number"), "{message}");
    }
    assert!(refusal(json(&input("8"))).contains("lacks the header Inference-Header-Content-Length"));
}

#[test]
fn binary_bytes_and_bools_are_checked() {
    let header = r#"{"inputs":[{"name":"t","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":9}}]}"#;
    assert!(binary(header, b"\x01\0\0\0a\0\0\0\0").is_ok());
    assert!(refusal(binary(header, b"\x02\0\0\0a\0\0\0\0")).contains("input `t` is cut off in element 1"));
    assert!(refusal(binary(header, b"\0\0\0\0\0\0\0\0x")).contains("1 bytes after its last element"));
    let header = r#"{"inputs":[{"name":"t","shape":[2],"datatype":"BOOL","parameters":{"binary_data_size":2}}]}"#;
    assert!(binary(header, &[0, 1]).is_ok());
    assert!(refusal(binary(header, &[0, 2])).contains("input `t` has the byte 2 at element 1"));
}

#[test]
fn tensors_of_no_elements_are_fine_in_both_forms() {
    let decoded = binary(
        r#"{"inputs":[{"name":"a","shape":[0,4],"datatype":"FP32","parameters":{"binary_data_size":0}},{"name":"b","shape":[0],"datatype":"BYTES","data":[]}]}"#,
        &[],
    )
    .unwrap();
    assert!(tensors(&decoded).iter().all(|tensor| tensor.data.is_empty()));
}

#[test]
fn data_comes_in_one_form() {
    let message = refusal(json(r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32"}]}"#));
    assert_eq!(message, "input `x` has neither `data` nor the parameter `binary_data_size`");
    let both =
        r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1],"parameters":{"binary_data_size":4}}]}"#;
    assert!(refusal(binary(both, &[0; 4])).contains("has both"));
}

#[test]
fn what_is_not_a_number_is_refused_with_the_way_out() {
    for word in ["NaN", "Infinity", "-Infinity"] {
        let message = refusal(json(&format!(
            "{{\"inputs\":[\n{{\"name\":\"x\",\"shape\":[2],\"datatype\":\"INT32\",\n\"data\":[1,{word}]}}]}}"
        )));
        assert!(message.contains("in input `x`") && message.contains("send this tensor as binary data"), "{message}");
    }
}

#[test]
fn json_errors_say_where_and_what() {
    let shape = |shape: &str| {
        refusal(json(&format!(r#"{{"inputs":[{{"name":"x","shape":{shape},"datatype":"FP32","data":[1]}}]}}"#)))
    };
    assert!(shape("[-1]").contains("in input `x`: invalid type: integer `-1`, expected an extent: a whole number"));
    assert!(shape("[1.5]").contains("expected an extent"));
    assert!(shape("7").contains("expected a shape"));
    assert!(shape("[9223372036854775808]").contains("expected an extent"));
    assert!(shape("[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]").contains("at most 16"));
    let message = refusal(json(r#"{"inputs":[{"shape":[1],"data":[1],"datatype":"FP23","name":"x"}]}"#));
    assert!(message.contains("in inputs[0]: invalid value: string \"FP23\", expected one of BOOL"), "{message}");
    assert!(refusal(json("{}")).contains("missing field `inputs`"));
    assert!(refusal(json("[]")).contains("expected an inference request"));
    assert!(refusal(json("")).contains("EOF"));
    assert!(refusal(json(r#"{"inputs":[]} x"#)).contains("trailing characters"));
    assert!(refusal(json(r#"{"inputs":[],"inputs":[]}"#)).contains("duplicate field `inputs`"));
}

#[test]
fn an_error_repeats_a_clients_text_short_and_clean() {
    let name = format!("a\u{202e}\\n{}", "b".repeat(200));
    let message = refusal(json(&format!(r#"{{"inputs":[{{"name":"{name}","shape":[1],"datatype":"FP32"}}]}}"#)));
    assert!(
        message.starts_with("input `a  bbb") && message.contains('…') && !message.contains(['\n', '\u{202e}']),
        "{message}"
    );
    let long = "x".repeat(100_000);
    assert!(refusal(json(&format!(r#"{{"inputs":"{long}"}}"#))).len() < 600);
}

#[test]
fn counts_lengths_and_depths_are_bounded() {
    let input = r#"{"name":"x","shape":[0],"datatype":"FP32","data":[]}"#;
    let many = vec![input; 65].join(",");
    assert!(refusal(json(&format!(r#"{{"inputs":[{many}]}}"#))).contains("more than 64 inputs"));
    let parameters = (0..65).map(|i| format!("\"p{i}\":1")).collect::<Vec<_>>().join(",");
    assert!(
        refusal(json(&format!(r#"{{"parameters":{{{parameters}}},"inputs":[]}}"#))).contains("more than 64 parameters")
    );
    let name = "n".repeat(257);
    let long = format!(r#"{{"inputs":[{{"name":"{name}","shape":[0],"datatype":"FP32","data":[]}}]}}"#);
    assert!(refusal(json(&long)).contains("expected a name of at most 256 bytes"));
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(refusal(json(&format!(r#"{{"new":{deep},"inputs":[]}}"#))).contains("nested deeper than 100"));
    assert!(
        refusal(json(&format!(r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"FP32","data":{deep}}}]}}"#)))
            .contains("input `x` has `data` nested deeper than its 1 dimensions")
    );
    assert!(refusal(json(&deep)).contains("expected an inference request"));
    assert!(
        refusal(json(&format!(r#"{{"parameters":{{"a":{deep}}},"inputs":[]}}"#))).contains("expected a text, a number")
    );
}

#[test]
fn parameters_are_checked() {
    let parameters = |text: &str| refusal(json(&format!(r#"{{"parameters":{{{text}}},"inputs":[]}}"#)));
    assert!(parameters(r#""timeout":-1"#).contains("parameter `timeout` is -1, expected a whole number"));
    assert!(parameters(r#""timeout":"1""#).contains("parameter `timeout`"));
    assert!(parameters(r#""binary_data_output":1"#).contains("expected true or false"));
    assert!(parameters(r#""a":null"#).contains("expected a text, a number, true or false"));
    assert!(parameters(r#""a":9223372036854775808"#).contains("INT64"));
    assert!(parameters(r#""a":1e999"#).contains("FP64"));
    assert!(parameters(r#""a":1,"a":2"#).contains("not several"));
    assert_eq!(json(r#"{"parameters":{"timeout":0},"inputs":[]}"#).unwrap().request.timeout, None);
}

#[test]
fn extensions_that_are_not_offered_are_refused_instead_of_ignored() {
    let shared = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","parameters":{"shared_memory_region":"r","shared_memory_byte_size":4}}]}"#;
    assert!(refusal(json(shared)).contains("input `x` asks for shared memory"));
    let classification = r#"{"inputs":[],"outputs":[{"name":"y","parameters":{"classification":3}}]}"#;
    assert!(refusal(json(classification)).contains("output `y` asks for classification"));
    let twice = r#"{"inputs":[],"outputs":[{"name":"y"},{"name":"y"}]}"#;
    assert!(refusal(json(twice)).contains("output `y` is requested more than once"));
}
