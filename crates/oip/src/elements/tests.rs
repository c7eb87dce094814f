use super::*;

fn read(json: &str, datatype: DataType, shape: &[u64]) -> Result<Vec<u8>, TensorProblem> {
    let data: &RawValue = serde_json::from_str(json).unwrap();
    read_elements(data, datatype, shape)
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn flat_and_nested_data_are_the_same() {
    let flat = read("[1,2.5,-3e1,4,5,6]", DataType::Fp32, &[2, 3]).unwrap();
    assert_eq!(flat, floats(&[1.0, 2.5, -30.0, 4.0, 5.0, 6.0]));
    assert_eq!(read(" [ [1 , 2.5, -3e1],\n[4,5,6] ]", DataType::Fp32, &[2, 3]).unwrap(), flat);
}

#[test]
fn a_scalar_may_come_bare_and_nothing_else() {
    assert_eq!(read("7", DataType::Uint8, &[]).unwrap(), [7]);
    assert_eq!(read("[7]", DataType::Uint8, &[]).unwrap(), [7]);
    assert_eq!(read("7", DataType::Uint8, &[1]), Err(TensorProblem::NotAnArray { datatype: DataType::Uint8 }));
    assert_eq!(read("null", DataType::Uint8, &[1]), Err(TensorProblem::NotAnArray { datatype: DataType::Uint8 }));
}

#[test]
fn no_elements_are_no_bytes() {
    for json in ["[]", "[[],[]]"] {
        assert_eq!(read(json, DataType::Int64, &[2, 0]).unwrap(), Vec::<u8>::new());
    }
    assert!(matches!(read("[1]", DataType::Int64, &[0]), Err(TensorProblem::Count { .. })));
}

#[test]
fn every_integer_type_takes_its_range_and_nothing_beyond() {
    let cases: [(DataType, &str, &str, &str, &str); 8] = [
        (DataType::Uint8, "0", "255", "-1", "256"),
        (DataType::Uint16, "0", "65535", "-1", "65536"),
        (DataType::Uint32, "0", "4294967295", "-1", "4294967296"),
        (DataType::Uint64, "0", "18446744073709551615", "-1", "18446744073709551616"),
        (DataType::Int8, "-128", "127", "-129", "128"),
        (DataType::Int16, "-32768", "32767", "-32769", "32768"),
        (DataType::Int32, "-2147483648", "2147483647", "-2147483649", "2147483648"),
        (DataType::Int64, "-9223372036854775808", "9223372036854775807", "-9223372036854775809", "9223372036854775808"),
    ];
    for (datatype, least, most, below, above) in cases {
        let bytes = read(&format!("[{least},{most}]"), datatype, &[2]).unwrap();
        assert_eq!(bytes.len(), 2 * datatype.element_bytes().unwrap());
        for wrong in [below, above, "1.0", "1e2", "true", "null", "\"1\"", "{}"] {
            let problem = read(&format!("[0,{wrong}]"), datatype, &[2]).unwrap_err();
            let expected = TensorProblem::Element { index: 1, got: wrong.to_owned(), expected: expected(datatype) };
            assert_eq!(problem, expected);
        }
    }
}

#[test]
fn sixty_four_bit_integers_stay_exact() {
    let bytes = read("[9007199254740993]", DataType::Int64, &[1]).unwrap();
    assert_eq!(bytes, 9_007_199_254_740_993_i64.to_le_bytes());
}

#[test]
fn floats_are_rounded_once() {
    // Read as FP64 first and then rounded, this text would give the neighbour below.
    let text = "1.00000005960464477540";
    assert_eq!(read(&format!("[{text}]"), DataType::Fp32, &[1]).unwrap(), 1.000_000_1_f32.to_le_bytes());
}

#[test]
fn numbers_beyond_the_type_are_refused_not_made_infinite() {
    assert!(matches!(read("[1e39]", DataType::Fp32, &[1]), Err(TensorProblem::Element { index: 0, .. })));
    assert!(matches!(read("[1e309]", DataType::Fp64, &[1]), Err(TensorProblem::Element { index: 0, .. })));
    assert!(read("[1e39]", DataType::Fp64, &[1]).is_ok());
}

#[test]
fn booleans_are_words_or_bits() {
    assert_eq!(read("[true,false,1,0]", DataType::Bool, &[4]).unwrap(), [1, 0, 1, 0]);
    assert!(matches!(read("[2]", DataType::Bool, &[1]), Err(TensorProblem::Element { .. })));
}

#[test]
fn texts_are_framed_and_unescaped() {
    let bytes = read(r#"["ab","é,]\"\u00e9\n",""]"#, DataType::Bytes, &[3]).unwrap();
    let mut expected = Vec::new();
    for text in ["ab", "é,]\"é\n", ""] {
        expected.extend_from_slice(&(text.len() as u32).to_le_bytes());
        expected.extend_from_slice(text.as_bytes());
    }
    assert_eq!(bytes, expected);
    assert!(matches!(read(r#"["\ud800"]"#, DataType::Bytes, &[1]), Err(TensorProblem::Element { .. })));
    assert!(matches!(read("[1]", DataType::Bytes, &[1]), Err(TensorProblem::Element { .. })));
}

#[test]
fn half_precision_has_no_json_form() {
    assert_eq!(read("[1]", DataType::Fp16, &[1]), Err(TensorProblem::NoJsonForm(DataType::Fp16)));
    assert_eq!(read("[1]", DataType::Bf16, &[1]), Err(TensorProblem::NoJsonForm(DataType::Bf16)));
}

#[test]
fn the_count_must_be_the_shapes() {
    let problem = read("[1,2,3]", DataType::Int32, &[2, 2]).unwrap_err();
    assert_eq!(problem.to_string(), "has 3 elements in `data`; shape [2, 2] needs 4");
    let problem = read("[1,2,3,4,5,6]", DataType::Int32, &[2, 2]).unwrap_err();
    assert_eq!(problem.to_string(), "has more than 4 elements in `data`; shape [2, 2] needs 4");
}

#[test]
fn a_shape_that_lies_reserves_no_memory() {
    let problem = read("[1]", DataType::Fp64, &[1 << 62]).unwrap_err();
    assert!(matches!(problem, TensorProblem::Count { .. }));
    let problem = read("[1]", DataType::Fp64, &[1 << 62, 1 << 62]).unwrap_err();
    assert!(matches!(problem, TensorProblem::ShapeTooLarge(_)));
}

#[test]
fn deep_brackets_end_at_the_rank() {
    let json = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(read(&json, DataType::Int32, &[1]), Err(TensorProblem::TooDeep { rank: 1 }));
}
