use bytes::Bytes;
use proptest::prelude::*;
use smallvec::smallvec;
use tenantry_types::OutputRequest;

use super::*;

fn signature(specs: &[(&str, DataType, &[Dim])]) -> Signature {
    let specs = specs
        .iter()
        .map(|(name, datatype, dims)| TensorSpec { name: (*name).to_owned(), datatype: *datatype, dims: dims.to_vec() })
        .collect();
    Signature { inputs: specs, outputs: Vec::new() }
}

fn open() -> Dim {
    Dim::Any(())
}

fn tensor(datatype: DataType, shape: &[u64], data: &[u8]) -> Inputs {
    Inputs::Named(vec![Tensor {
        name: "x".to_owned(),
        datatype,
        shape: shape.iter().copied().collect(),
        data: data.to_vec().into(),
    }])
}

fn framed(strings: &[&[u8]]) -> Vec<u8> {
    strings.iter().flat_map(|text| [&(text.len() as u32).to_le_bytes()[..], text].concat()).collect()
}

fn raw(bytes: usize, signature: &Signature) -> Result<Shape, String> {
    checked(Inputs::Raw(vec![0; bytes].into()), signature)
        .map(|tensors| tensors[0].shape.clone())
        .map_err(|error| error.message)
}

#[test]
fn a_raw_body_takes_type_and_shape_from_the_signature() {
    let fixed = signature(&[("x", DataType::Fp32, &[Dim::Fixed(1), Dim::Fixed(3)])]);
    assert_eq!(raw(12, &fixed), Ok(smallvec![1, 3]));
    let open_batch = signature(&[("x", DataType::Fp32, &[open(), Dim::Fixed(3)])]);
    assert_eq!(raw(12, &open_batch), Ok(smallvec![1, 3]));
    assert_eq!(raw(24, &open_batch), Ok(smallvec![2, 3]));
    let two_open = signature(&[("x", DataType::Int64, &[Dim::Named("batch".into()), Dim::Named("sequence".into())])]);
    assert_eq!(raw(40, &two_open), Ok(smallvec![1, 5]));
    let scalar = signature(&[("x", DataType::Uint8, &[])]);
    assert_eq!(raw(1, &scalar), Ok(smallvec![]));
}

#[test]
fn a_raw_body_that_cannot_fit_says_why() {
    let open_batch = signature(&[("x", DataType::Fp32, &[open(), Dim::Fixed(3)])]);
    let text = raw(13, &open_batch).unwrap_err();
    assert!(text.contains("13 bytes") && text.contains("12 bytes") && text.contains("`x` (FP32 [?,3])"), "{text}");
    let fixed = signature(&[("x", DataType::Fp32, &[Dim::Fixed(2)])]);
    assert!(raw(16, &fixed).unwrap_err().contains("needs 8"));
    let three = signature(&[("x", DataType::Fp32, &[open(), open(), open()])]);
    assert!(raw(12, &three).unwrap_err().contains("leaves 3 open"));
    let inner = signature(&[("x", DataType::Fp32, &[Dim::Fixed(1), open(), open()])]);
    assert!(raw(12, &inner).unwrap_err().contains("leaves 2 open"));
    let two = signature(&[("x", DataType::Fp32, &[open()]), ("y", DataType::Fp32, &[open()])]);
    assert!(raw(12, &two).unwrap_err().contains("this one has 2"));
    let none = signature(&[("x", DataType::Fp32, &[open(), Dim::Fixed(0)])]);
    assert!(raw(12, &none).is_err());
}

#[test]
fn a_raw_string_is_the_whole_body() {
    let text = signature(&[("x", DataType::Bytes, &[open()])]);
    let tensors = checked(Inputs::Raw(b"hello".to_vec().into()), &text).unwrap();
    assert_eq!(tensors[0].data.to_contiguous(), framed(&[b"hello"]));
    assert_eq!(tensors[0].shape.as_slice(), [1]);
    let many = signature(&[("x", DataType::Bytes, &[Dim::Fixed(2)])]);
    assert!(raw(4, &many).unwrap_err().contains("one string"));
}

#[test]
fn strings_must_be_framed_exactly() {
    let model = signature(&[("x", DataType::Bytes, &[open()])]);
    let check = |shape: u64, data: &[u8]| {
        checked(tensor(DataType::Bytes, &[shape], data), &model).map(|_| ()).map_err(|error| error.message)
    };
    let good = framed(&[b"a", b"", b"\xff\x00"]);
    assert_eq!(check(3, &good), Ok(()));
    assert_eq!(check(0, b""), Ok(()));
    assert!(check(2, &good).unwrap_err().contains("holds 3 strings"));
    assert!(check(4, &good).unwrap_err().contains("needs 4"));
    assert!(check(3, &good[..good.len() - 1]).unwrap_err().contains("ends inside a string"));
    assert!(check(1, &[1, 0]).unwrap_err().contains("ends inside a string"));
    assert!(check(1, &[255, 255, 255, 255]).unwrap_err().contains("ends inside a string"));
}

#[test]
fn booleans_are_0_or_1() {
    let model = signature(&[("x", DataType::Bool, &[open()])]);
    assert!(checked(tensor(DataType::Bool, &[2], &[0, 1]), &model).is_ok());
    let error = checked(tensor(DataType::Bool, &[2], &[0, 2]), &model).unwrap_err();
    assert!(error.message.contains("input `x`"), "{}", error.message);
}

#[test]
fn wanted_outputs_are_found_in_the_order_asked() {
    let mut model = signature(&[("a", DataType::Fp32, &[open()]), ("b", DataType::Fp32, &[open()])]);
    std::mem::swap(&mut model.inputs, &mut model.outputs);
    let ask = |names: &[&str]| {
        let request = InferRequest {
            outputs: names.iter().map(|name| OutputRequest { name: (*name).to_owned() }).collect(),
            ..InferRequest::new("m".parse().unwrap(), Inputs::Named(Vec::new()))
        };
        wanted(&request, &model).map(|wanted| wanted.to_vec()).map_err(|error| error.message)
    };
    assert_eq!(ask(&["b", "a"]), Ok(vec![1, 0]));
    assert_eq!(ask(&[]), Ok(vec![]));
    assert!(ask(&["c"]).unwrap_err().contains("unknown output `c`"));
    assert!(ask(&["a", "a"]).unwrap_err().contains("more than once"));
}

proptest! {
    #[test]
    fn framing_does_not_depend_on_how_the_bytes_arrived(
        strings in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..6),
        cuts in prop::collection::vec(0_usize..60, 0..6),
        damage in any::<Option<(usize, u8)>>(),
    ) {
        let mut bytes = framed(&strings.iter().map(Vec::as_slice).collect::<Vec<_>>());
        if let Some((position, value)) = damage && !bytes.is_empty() {
            let length = bytes.len();
            bytes[position % length] = value;
        }
        let shape: Shape = smallvec![strings.len() as u64];
        let one = Tensor { name: "x".into(), datatype: DataType::Bytes, shape: shape.clone(), data: bytes.clone().into() };
        let mut chain = Payload::new();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.sort_unstable();
        let mut from = 0;
        for cut in cuts.into_iter().chain([bytes.len()]) {
            chain.push(Bytes::copy_from_slice(&bytes[from..cut]));
            from = cut;
        }
        let chained = Tensor { data: chain, ..one.clone() };
        prop_assert_eq!(check_framing(&one), check_framing(&chained));
        if damage.is_none() {
            prop_assert_eq!(check_framing(&one), Ok(()));
        }
    }
}
