use proptest::prelude::*;
use tenantry_types::{Dim, Payload, Shape, Signature, Tensor, TensorSpec};

use super::*;

fn dims(text: &str) -> Vec<Dim> {
    let dim = |text: &str| text.parse().map_or_else(|_| Dim::Named(text.to_owned()), Dim::Fixed);
    text.split_terminator(',').map(dim).collect()
}

/// A signature from lines such as `x FP32 n,2`.
fn signature(inputs: &[&str]) -> Signature {
    let spec = |line: &&str| {
        let mut words = line.split(' ');
        let (name, datatype) = (words.next().unwrap(), words.next().unwrap());
        TensorSpec {
            name: name.to_owned(),
            datatype: datatype.parse().unwrap(),
            dims: dims(words.next().unwrap_or_default()),
        }
    };
    Signature { inputs: inputs.iter().map(spec).collect(), outputs: Vec::new() }
}

fn tensor(name: &str, datatype: DataType, shape: &[u64], data: Vec<u8>) -> Tensor {
    Tensor { name: name.to_owned(), datatype, shape: shape.into(), data: data.into() }
}

fn floats(name: &str, shape: &[u64], values: &[f32]) -> Tensor {
    tensor(name, DataType::Fp32, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

fn strings(name: &str, shape: &[u64], values: &[&[u8]]) -> Tensor {
    let framed = |value: &&[u8]| [&(value.len() as u32).to_le_bytes()[..], value].concat();
    tensor(name, DataType::Bytes, shape, values.iter().flat_map(framed).collect())
}

fn decode(inputs: &[&str], body: &str) -> Result<Predict, PredictError> {
    decode_predict(&signature(inputs), body.as_bytes())
}

#[test]
fn rows_of_one_input_are_values_or_objects() {
    let expected = floats("x", &[2, 2], &[1.0, 2.0, 3.0, 4.5]);
    for body in [
        r#"{"instances": [[1, 2], [3, 4.5]]}"#,
        r#"{"signature_name": "serving_default", "instances": [{"x": [1, 2]}, {"x": [3, 4.5]}]}"#,
        r#"{"instances":[{"x":[1,2]},[3,4.5]],"signature_name":""}"#,
    ] {
        let decoded = decode(&["x FP32 n,2"], body).unwrap();
        assert_eq!((&decoded.inputs[..], decoded.format), (&[expected.clone()][..], PredictFormat::Rows(2)), "{body}");
    }
    let decoded = decode(&["x FP32 n,2"], r#"{"inputs": [[1, 2], [3, 4.5]]}"#).unwrap();
    assert_eq!((&decoded.inputs[..], decoded.format), (&[expected][..], PredictFormat::Whole));
    // One number a row.
    let decoded = decode(&["x FP32 n"], r#"{"instances": [1, -2e1]}"#).unwrap();
    assert_eq!(decoded.inputs, [floats("x", &[2], &[1.0, -20.0])]);
}

#[test]
fn several_inputs_are_given_by_name() {
    let inputs = ["a FP32 n,2", "b BOOL n"];
    let rows = decode(&inputs, r#"{"instances": [{"b": true, "a": [1, 2]}, {"a": [3, 4], "b": false}]}"#).unwrap();
    let whole = decode(&inputs, r#"{"inputs": {"a": [[1, 2], [3, 4]], "b": [true, false]}}"#).unwrap();
    assert_eq!(rows.inputs, whole.inputs);
    assert_eq!(whole.inputs[1], tensor("b", DataType::Bool, &[2], vec![1, 0]));
    // Whole tensors need not agree in their first dimension, and may be scalars.
    let decoded = decode(&["a INT64", "b INT8 n"], r#"{"inputs": {"a": 7, "b": []}}"#).unwrap();
    assert_eq!(decoded.inputs[0], tensor("a", DataType::Int64, &[], 7_i64.to_le_bytes().to_vec()));
    assert_eq!(decoded.inputs[1], tensor("b", DataType::Int8, &[0], Vec::new()));
}

#[test]
fn bytes_are_text_or_base64() {
    let body = r#"{"instances": ["plain", {"b64": "//4A"}, "esc\"aped\u00e9", {"b64":"aGk="}, { "b64" : "aGk" }]}"#;
    let decoded = decode(&["s BYTES n"], body).unwrap();
    let expected: [&[u8]; 5] = [b"plain", b"\xff\xfe\0", "esc\"apedé".as_bytes(), b"hi", b"hi"];
    assert_eq!(decoded.inputs, [strings("s", &[5], &expected)]);
    let by_name = decode(&["s BYTES n,1"], r#"{"instances": [{"s": [{"b64": "aGk="}]}]}"#).unwrap();
    assert_eq!(by_name.inputs, [strings("s", &[1, 1], &[b"hi"])]);
    let whole = decode(&["s BYTES"], r#"{"inputs": {"b64": "aGk="}}"#).unwrap();
    assert_eq!(whole.inputs, [strings("s", &[], &[b"hi"])]);
}

#[test]
fn numbers_that_are_none_have_words() {
    let body = r#"{"instances": [NaN, Infinity, -Infinity, "NaN", 1]}"#;
    for datatype in ["FP32", "FP64"] {
        let decoded = decode(&[&format!("x {datatype} n")], body).unwrap();
        let json = encode_predict(&decoded.inputs, PredictFormat::Rows(5)).unwrap();
        assert_eq!(String::from_utf8(json).unwrap(), r#"{"predictions":[NaN,Infinity,-Infinity,NaN,1.0]}"#);
    }
    // They are words only where they stand for themselves.
    let decoded = decode(&["s BYTES n"], r#"{"instances": ["-Infinity \" NaN", "x"]}"#).unwrap();
    assert_eq!(decoded.inputs, [strings("s", &[2], &[b"-Infinity \" NaN", b"x"])]);
}

#[test]
fn one_instance_is_one_row_where_there_are_rows() {
    let mut batched = signature(&["x FP32 n,2"]);
    batched.outputs = signature(&["y FP32 n,1"]).inputs;
    for body in ["[1, 2]", r#"{"x": [1, 2]}"#] {
        let decoded = decode_instance(&batched, body.as_bytes()).unwrap();
        assert_eq!(
            (&decoded.inputs[..], decoded.format),
            (&[floats("x", &[1, 2], &[1.0, 2.0])][..], PredictFormat::OneRow)
        );
    }
    let fixed = signature(&["x FP32 1,2"]);
    let decoded = decode_instance(&fixed, b"[[1, 2]]").unwrap();
    assert_eq!((&decoded.inputs[..], decoded.format), (&[floats("x", &[1, 2], &[1.0, 2.0])][..], PredictFormat::Bare));
    let answer = |shape: &[u64], format| encode_predict(&[floats("y", shape, &[1.0])], format).unwrap();
    assert_eq!(answer(&[1, 1], PredictFormat::OneRow), b"[1.0]");
    assert_eq!(answer(&[1, 1], PredictFormat::Bare), b"[[1.0]]");
    // What is not of rows after all is shown as it is.
    assert_eq!(answer(&[], PredictFormat::OneRow), b"1.0");
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let cases: [(&[&str], &str, &str); 24] = [
        (&["x FP32 n"], "[]", "an object with `instances` or `inputs`"),
        (&["x FP32 n"], "{", "the JSON of the body is not valid: EOF"),
        (&["x FP32 n"], "{}", "either `instances`"),
        (&["x FP32 n"], r#"{"instances":[1],"inputs":[1]}"#, "either `instances`"),
        (&["x FP32 n"], r#"{"instances":[1],"instances":[1]}"#, "duplicate field"),
        (&["x FP32 n"], r#"{"instances":[]}"#, "at least one"),
        (&["x FP32 n"], r#"{"instances":1}"#, "expected a list of instances"),
        (&["x FP32 n"], r#"{"signature_name":"other","instances":[1]}"#, "no signature `other`"),
        (&["x FP32"], r#"{"instances":[1]}"#, "input `x` has no dimension for rows; send `inputs`"),
        (&["a FP32 n", "b FP32 n"], r#"{"instances":[1]}"#, "the model has 2 inputs; give each by its name"),
        (&["a FP32 n", "b FP32 n"], r#"{"inputs":[1]}"#, "the model has 2 inputs"),
        (&["a FP32 n", "b FP32 n"], r#"{"instances":[{"a":1,"b":2},{"a":1}]}"#, "instances[1] lacks input `b`"),
        (&["a FP32 n"], r#"{"inputs":{"z":1}}"#, "`inputs` has `z`, which is no input of the model; expected `a`"),
        (&["a FP32 n"], r#"{"instances":[{"a":1,"a":2}]}"#, "instances[0] has `a` more than once"),
        (&["x FP32 n,2"], r#"{"instances":[[1,2],[3]]}"#, "`x` has lists of 1 and of 2 entries in dimension 1"),
        (&["x FP32 n,2"], r#"{"instances":[[[1,2]]]}"#, "nested deeper than its 2 dimensions ([n,2])"),
        (&["x FP32 n,2"], r#"{"instances":[7]}"#, "has 7 where a list was expected; it has 2 dimensions"),
        (&["x FP32 n,2"], r#"{"instances":[[1,[2]]]}"#, "nested deeper"),
        (&["x INT8 n"], r#"{"instances":[1,128]}"#, "has 128 at element 1; expected a whole number from -128 to 127"),
        (&["x INT8 n"], r#"{"instances":[NaN]}"#, r#"has "NaN" at element 0"#),
        (&["x FP32 n"], r#"{"instances":[1e400]}"#, "a finite number in the range of FP32"),
        (&["x FP32 n"], r#"{"inputs":{"x":[{"b64":"aGk="}]}}"#, r#"has {"b64":"aGk="} at element 0"#),
        (&["s BYTES n"], r#"{"instances":[{"b64":"!"}]}"#, "expected a text"),
        (&["x FP16 n"], r#"{"instances":[1]}"#, "FP16, which has no JSON form"),
    ];
    for (inputs, body, expected) in cases {
        let text = decode(inputs, body).unwrap_err().to_string();
        assert!(text.contains(expected), "{body}: {text}");
    }
    let deep = format!(r#"{{"instances":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(decode(&["x FP32 n"], &deep).unwrap_err().to_string().contains("nested deeper"));
}

#[test]
fn an_answer_is_rows_or_whole() {
    let one = [floats("y", &[2, 2], &[1.0, 2.5, 3.0, 4.0])];
    let two = [one[0].clone(), strings("label", &[2], &[b"a", b"b"])];
    let text = |outputs: &[Tensor], format| String::from_utf8(encode_predict(outputs, format).unwrap()).unwrap();
    assert_eq!(text(&one, PredictFormat::Rows(2)), r#"{"predictions":[[1.0,2.5],[3.0,4.0]]}"#);
    assert_eq!(text(&one, PredictFormat::Whole), r#"{"outputs":[[1.0,2.5],[3.0,4.0]]}"#);
    assert_eq!(
        text(&two, PredictFormat::Rows(2)),
        r#"{"predictions":[{"y":[1.0,2.5],"label":"a"},{"y":[3.0,4.0],"label":"b"}]}"#
    );
    assert_eq!(text(&two, PredictFormat::Whole), r#"{"outputs":{"y":[[1.0,2.5],[3.0,4.0]],"label":["a","b"]}}"#);
    let error = encode_predict(&two, PredictFormat::Rows(3)).unwrap_err();
    assert!(error.is_senders() && error.to_string().contains("output `y` has shape [2, 2]"), "{error}");
}

#[test]
fn bytes_that_are_not_text_come_as_base64() {
    let text = |name, values: &[&[u8]]| {
        let outputs = [strings(name, &[values.len() as u64], values)];
        String::from_utf8(encode_predict(&outputs, PredictFormat::Whole).unwrap()).unwrap()
    };
    assert_eq!(text("s", &[b"hi"]), r#"{"outputs":["hi"]}"#);
    assert_eq!(text("s_bytes", &[b"hi"]), r#"{"outputs":[{"b64":"aGk="}]}"#);
    assert_eq!(text("s", &[b"hi", b"\xff"]), r#"{"outputs":[{"b64":"aGk="},{"b64":"/w=="}]}"#);
}

#[test]
fn outputs_that_do_not_fit_are_the_servers_fault() {
    let short = tensor("y", DataType::Fp32, &[2], vec![0; 4]);
    let cut_off = tensor("s", DataType::Bytes, &[1], vec![9, 0, 0, 0, 1]);
    // Nothing bounds the brackets of a tensor without elements but this.
    let endless = tensor("y", DataType::Fp32, &[1 << 40, 0], Vec::new());
    for output in [short, cut_off, endless] {
        assert!(!encode_predict(&[output], PredictFormat::Whole).unwrap_err().is_senders());
    }
    let empty = tensor("y", DataType::Fp32, &[2, 0], Vec::new());
    assert_eq!(encode_predict(&[empty], PredictFormat::Whole).unwrap(), br#"{"outputs":[[],[]]}"#);
    let half = tensor("y", DataType::Fp16, &[1], vec![0; 2]);
    assert!(encode_predict(&[half], PredictFormat::Whole).unwrap_err().is_senders());
}

proptest! {
    #[test]
    fn what_is_written_reads_back(
        extents in prop::collection::vec(1..4_u64, 1..4),
        seed in prop::collection::vec(any::<f64>(), 64),
    ) {
        let count = extents.iter().product::<u64>() as usize;
        let data: Vec<u8> = seed.iter().take(count).flat_map(|value| value.to_le_bytes()).collect();
        let shape: Shape = extents.iter().copied().collect();
        let sent = Tensor { name: "x".to_owned(), datatype: DataType::Fp64, shape, data: Payload::from(data) };
        let names: Vec<&str> = extents.iter().map(|_| "n").collect();
        let signature = signature(&[&format!("x FP64 {}", names.join(","))]);
        for (format, from, to) in
            [(PredictFormat::Rows(extents[0]), "predictions", "instances"), (PredictFormat::Whole, "outputs", "inputs")]
        {
            let json = String::from_utf8(encode_predict(std::slice::from_ref(&sent), format).unwrap()).unwrap();
            let read = decode_predict(&signature, json.replace(from, to).as_bytes()).unwrap();
            prop_assert_eq!(read.format, format);
            let bits = |tensor: &Tensor| tensor.data.to_contiguous().as_chunks().0.iter().map(|b| {
                let value = f64::from_le_bytes(*b);
                if value.is_nan() { u64::MAX } else { value.to_bits() }
            }).collect::<Vec<_>>();
            prop_assert_eq!(&read.inputs[0].shape, &sent.shape);
            prop_assert_eq!(bits(&read.inputs[0]), bits(&sent));
        }
    }

    #[test]
    fn any_text_ends_in_a_word_and_not_in_a_panic(body in r#"[\[\]{},:"0-9eNaInfity \\.-]{0,60}"#) {
        for inputs in [&["x FP32 n,2"][..], &["s BYTES n", "y INT8 n"]] {
            let _ = decode(inputs, &body);
            let _ = decode(inputs, &format!(r#"{{"instances":[{body}]}}"#));
            let _ = decode(inputs, &format!(r#"{{"inputs":{{"s":[{body}]}}}}"#));
            let _ = decode_instance(&signature(inputs), body.as_bytes());
        }
    }
}
