use super::*;

fn spec(name: &str, datatype: DataType, dims: Vec<Dim>) -> TensorSpec {
    TensorSpec { name: name.to_owned(), datatype, dims }
}

fn named(name: &str) -> Dim {
    Dim::Named(name.to_owned())
}

fn text_model() -> Signature {
    Signature {
        inputs: vec![
            spec("ids", DataType::Int64, vec![named("batch"), named("sequence")]),
            spec("mask", DataType::Int64, vec![named("batch"), named("sequence")]),
        ],
        outputs: vec![spec("hidden", DataType::Fp32, vec![named("batch"), named("sequence"), Dim::Fixed(384)])],
    }
}

fn view<'a>(name: &'a str, datatype: DataType, shape: &'a [u64], data_bytes: usize) -> InputView<'a> {
    InputView { name, datatype, shape, data_bytes }
}

#[test]
fn a_fitting_request_passes_in_any_order() {
    let ids = view("ids", DataType::Int64, &[2, 3], 48);
    let mask = view("mask", DataType::Int64, &[2, 3], 48);
    assert_eq!(text_model().check(&[ids, mask]), Ok(()));
    assert_eq!(text_model().check(&[mask, ids]), Ok(()));
}

#[test]
fn each_misfit_is_named() {
    let ids = view("ids", DataType::Int64, &[2, 3], 48);
    let mask = view("mask", DataType::Int64, &[2, 3], 48);
    let text = |inputs: &[InputView<'_>]| text_model().check(inputs).unwrap_err().to_string();
    assert!(text(&[ids]).contains("`mask` is missing"));
    assert!(text(&[ids, mask, view("x", DataType::Fp32, &[1], 4)]).contains("unknown input `x`"));
    assert!(text(&[ids, ids]).contains("more than once"));
    assert!(text(&[view("ids", DataType::Int32, &[2, 3], 24), mask]).contains("datatype INT32; expected INT64"));
    assert!(text(&[view("ids", DataType::Int64, &[6], 48), mask]).contains("expected [batch,sequence]"));
    assert!(text(&[view("ids", DataType::Int64, &[2, 3], 47), mask]).contains("47 bytes"));
    let disagreement = text(&[ids, view("mask", DataType::Int64, &[2, 4], 64)]);
    assert!(disagreement.contains("dimension `sequence`") && disagreement.contains("`ids` has 3"), "{disagreement}");
    assert!(text(&[view("ids", DataType::Int64, &[u64::MAX, 3], 48), mask]).contains("too large"));
}

#[test]
fn only_a_model_with_an_open_first_dimension_everywhere_can_batch() {
    assert!(text_model().has_batch_axis());
    let mut with_scalar = text_model();
    with_scalar.inputs.push(spec("rate", DataType::Int64, vec![]));
    assert!(!with_scalar.has_batch_axis());
    let mut fixed = text_model();
    fixed.outputs[0].dims[0] = Dim::Fixed(1);
    assert!(!fixed.has_batch_axis());
}

#[test]
fn counts_do_not_overflow() {
    assert_eq!(element_count(&[]), Some(1));
    assert_eq!(element_count(&[u64::MAX, 2]), None);
    assert_eq!(element_count(&[u64::MAX, 2, 0]), Some(0));
}

#[test]
fn data_types_have_the_protocols_names() {
    for (index, datatype) in DataType::ALL.into_iter().enumerate() {
        assert_eq!(datatype.as_str().parse(), Ok(datatype));
        assert_eq!(DataType::from_u8(datatype as u8), Some(datatype));
        assert_eq!(datatype as usize, index);
        assert_eq!(serde_json::to_string(&datatype).unwrap(), format!("\"{datatype}\""));
    }
    assert_eq!("FLOAT".parse::<DataType>(), Err(ParseDataTypeError));
}

#[test]
fn dims_survive_json() {
    let dims = vec![Dim::Fixed(3), named("batch"), Dim::Any(())];
    let json = serde_json::to_string(&dims).unwrap();
    assert_eq!(json, r#"[3,"batch",null]"#);
    assert_eq!(serde_json::from_str::<Vec<Dim>>(&json).unwrap(), dims);
}
