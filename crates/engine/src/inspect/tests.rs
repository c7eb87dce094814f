use tenantry_types::testing::onnx;

use super::*;

fn look(model: &[u8]) -> Result<(), InspectError> {
    look_with(model, &[], 1_000)
}

fn look_with(model: &[u8], files: &[&str], max_nodes: u32) -> Result<(), InspectError> {
    inspect(model, files.iter().copied(), ModelLimits { max_nodes })
}

#[test]
fn what_is_good_is_let_through() {
    for model in [
        onnx::matmul16(),
        onnx::add(),
        onnx::counting_loop(),
        onnx::unknown_operator(),
        onnx::sequence_output(),
        onnx::nested_graphs(MAX_GRAPH_DEPTH),
    ] {
        assert_eq!(look(&model), Ok(()));
    }
}

#[test]
fn nodes_are_counted_with_those_of_graphs_inside() {
    assert_eq!(look_with(&onnx::chain(10), &[], 10), Ok(()));
    assert_eq!(look_with(&onnx::chain(11), &[], 10), Err(InspectError::TooManyNodes(10)));
    // The loop and the two nodes of its body.
    assert_eq!(look_with(&onnx::counting_loop(), &[], 3), Ok(()));
    assert_eq!(look_with(&onnx::counting_loop(), &[], 2), Err(InspectError::TooManyNodes(2)));
}

#[test]
fn functions_are_counted_as_often_as_they_are_called() {
    assert_eq!(look(&onnx::function_bomb()), Err(InspectError::FunctionsTooLarge(1_000)));
    assert_eq!(look_with(&onnx::function_bomb(), &[], u32::MAX), Ok(()));
    assert_eq!(look(&onnx::recursive_functions()), Err(InspectError::FunctionsRecursive));
}

#[test]
fn graphs_may_not_lie_too_deep_in_each_other() {
    assert_eq!(look(&onnx::nested_graphs(MAX_GRAPH_DEPTH + 1)), Err(InspectError::TooDeep));
    assert_eq!(look(&onnx::nested_graphs(500)), Err(InspectError::TooDeep));
}

#[test]
fn data_comes_from_the_versions_own_files() {
    let (model, _) = onnx::external_matmul16("weights/w.bin");
    assert_eq!(look_with(&model, &["other", "weights/w.bin"], 10), Ok(()));
    let foreign = |file: &str| InspectError::ForeignData { tensor: "W".to_owned(), file: file.to_owned() };
    assert_eq!(look_with(&model, &["other"], 10), Err(foreign("weights/w.bin")));
    for name in ["/etc/passwd", "../weights/w.bin", "/proc/self/mem", ""] {
        let (model, _) = onnx::external_matmul16(name);
        assert_eq!(look_with(&model, &["weights/w.bin"], 10), Err(foreign(name)));
    }
    // The runtime's mark of an address in memory, even where a file is called so.
    let mark = "*/_ORT_MEM_ADDR_/*";
    assert_eq!(look_with(&onnx::external_matmul16(mark).0, &[mark], 10), Err(foreign(mark)));
    let (forged, _) = onnx::external_matmul16("a\n\u{1b}[31mb");
    assert_eq!(look(&forged), Err(foreign("a  [31mb")));
}

#[test]
fn other_formats_are_named() {
    let format = |bytes: &[u8]| look(bytes).unwrap_err().to_string();
    assert!(format(b"\x1c\0\0\0ORTM...").contains("the ORT format"));
    assert!(format(b"PK\x03\x04...").contains("PyTorch"));
    assert!(format(b"\x80\x04\x95...").contains("pickle"));
    assert!(format(b"GGUF\x03").contains("GGUF"));
}

#[test]
fn whatever_is_cut_off_or_made_up_is_an_error_and_no_panic() {
    assert_eq!(look(b""), Err(InspectError::NoGraph));
    assert_eq!(look(b"not a model"), Err(InspectError::Malformed));
    let whole = onnx::function_bomb();
    for length in 0..whole.len() {
        // Cut between two fields it may still be a message, and a smaller one.
        let _ = look(&whole[..length]);
    }
    // Every byte changed, one at a time and to several values: numbers of fields, lengths, names.
    for model in [onnx::counting_loop(), onnx::external_matmul16("w").0, onnx::recursive_functions()] {
        for position in 0..model.len() {
            for value in [0, 0x7f, 0x80, 0xff, model[position] ^ 1] {
                let mut changed = model.clone();
                changed[position] = value;
                let _ = look(&changed);
            }
        }
    }
}
