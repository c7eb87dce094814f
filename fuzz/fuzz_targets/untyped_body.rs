//! The bodies of predict and generate calls, whose types come from the model: whatever comes, no panic, bounded memory, and
//! what is accepted survives being written and read again.
//!
//! The first byte of the input chooses the model; the rest is the body.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tenantry_oip::generate::decode_generate;
use tenantry_oip::predict::{Predict, PredictFormat, decode_instance, decode_predict, encode_predict};
use tenantry_types::tensor::element_count;
use tenantry_types::{DataType, Dim, Signature, Tensor, TensorSpec};

fuzz_target!(|input: &[u8]| {
    let Some((&choice, body)) = input.split_first() else { return };
    let signature = signature(choice);
    for decoded in [decode_predict(&signature, body), decode_instance(&signature, body)] {
        match decoded {
            Ok(decoded) => survives(&signature, decoded, body.len()),
            Err(error) => assert!(error.to_string().chars().count() < 1500, "a short account of the error"),
        }
    }
    if let Ok(decoded) = decode_generate(&signature, body) {
        decoded.inputs.iter().for_each(|tensor| is_whole(tensor, body.len()));
    }
});

fn signature(choice: u8) -> Signature {
    let types = [DataType::Fp32, DataType::Fp64, DataType::Bytes, DataType::Int8, DataType::Uint64, DataType::Bool];
    let spec = |name: &str, shift: u32| {
        let rank = usize::from(choice >> shift & 3);
        let datatype = types[usize::from(choice >> shift) % types.len()];
        TensorSpec { name: name.to_owned(), datatype, dims: vec![Dim::Any(()); rank] }
    };
    let inputs = if choice & 1 == 0 { vec![spec("x", 1)] } else { vec![spec("x", 1), spec("y", 4)] };
    Signature { outputs: inputs.clone(), inputs }
}

/// The data is what the shape says, and not much more than the text.
fn is_whole(tensor: &Tensor, body_bytes: usize) {
    let count = element_count(&tensor.shape).expect("a shape of what was read");
    match tensor.datatype.element_bytes() {
        Some(bytes) => assert_eq!(tensor.data.len() as u64, count * bytes as u64),
        None => assert!(tensor.data.len() as u64 >= 4 * count),
    }
    assert!(tensor.data.len() <= 4 * body_bytes + 8, "{} bytes of {body_bytes}", tensor.data.len());
}

fn survives(signature: &Signature, decoded: Predict, body_bytes: usize) {
    let Predict { inputs, format } = decoded;
    inputs.iter().for_each(|tensor| is_whole(tensor, body_bytes));
    let (from, to) = match format {
        PredictFormat::Rows(_) => ("{\"predictions\":", "{\"instances\":"),
        PredictFormat::Whole => ("{\"outputs\":", "{\"inputs\":"),
        PredictFormat::OneRow | PredictFormat::Bare => return,
    };
    // What has a zero among its extents is not always told apart, and has nothing to lose.
    if inputs.iter().any(|tensor| tensor.shape.contains(&0)) {
        return;
    }
    let json = String::from_utf8(encode_predict(&inputs, format).expect("what was read can be written")).expect("text");
    let again = json.replacen(from, to, 1);
    let again = decode_predict(signature, again.as_bytes()).unwrap_or_else(|error| panic!("{again}: {error}"));
    let written = encode_predict(&again.inputs, format).expect("twice");
    assert_eq!(String::from_utf8(written).expect("text"), json);
}
