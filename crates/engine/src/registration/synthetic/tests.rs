use super::*;

fn spec(name: &str, dims: Vec<Dim>) -> TensorSpec {
    TensorSpec { name: name.to_owned(), datatype: DataType::Int64, dims }
}

fn named(name: &str) -> Dim {
    Dim::Named(name.to_owned())
}

#[test]
fn dimensions_of_one_name_agree_and_the_first_are_the_rows() {
    let signature = Signature {
        inputs: vec![
            spec("ids", vec![named("batch"), named("sequence")]),
            spec("mask", vec![named("batch"), named("sequence")]),
            spec("state", vec![Dim::Fixed(2), named("batch"), Dim::Fixed(3)]),
            spec("rate", vec![]),
        ],
        outputs: vec![],
    };
    let candidates = Classes::of(&signature).candidates(0);
    assert_eq!(candidates.first(), Some(&Choice { lowest: 0, extents: vec![16] }));
    let inputs = Inputs::new(&signature, &candidates[0], 0, 5).unwrap();
    let shapes: Vec<&[u64]> = inputs.tensors.iter().map(|(_, shape, _)| shape.as_slice()).collect();
    assert_eq!(shapes, [&[5, 16][..], &[5, 16], &[2, 5, 3], &[]]);
}

#[test]
fn nameless_dimensions_are_tried_in_combination_and_the_tries_are_bounded() {
    let any = || Dim::Any(());
    let signature = Signature {
        inputs: vec![spec("x", vec![any(), any()]), spec("state", vec![Dim::Fixed(2), any(), Dim::Fixed(128)])],
        outputs: vec![],
    };
    let candidates = Classes::of(&signature).candidates(0);
    assert!(candidates.contains(&Choice { lowest: 0, extents: vec![512, 1] }));
    assert!(candidates.len() <= MAX_TRIES);
    let many = Signature { inputs: (0..40).map(|_| spec("x", vec![any(); 8])).collect(), outputs: vec![] };
    assert!(Classes::of(&many).candidates(0).len() <= MAX_TRIES);
    let none = Signature { inputs: vec![spec("x", vec![Dim::Fixed(1)])], outputs: vec![] };
    assert_eq!(Classes::of(&none).candidates(0).len(), 1);
}

#[test]
fn a_row_has_the_same_values_alone_as_in_a_batch() {
    for datatype in DataType::ALL {
        let spec = TensorSpec { name: "x".to_owned(), datatype, dims: vec![named("batch"), Dim::Fixed(7)] };
        let signature = Signature { inputs: vec![spec], outputs: vec![] };
        let choice = Choice { lowest: 0, extents: vec![] };
        let data = |first, rows| Inputs::new(&signature, &choice, first, rows).unwrap().tensors.remove(0).2;
        assert_eq!([data(0, 1), data(1, 1)].concat(), data(0, 2), "{datatype}");
        assert_ne!(data(0, 1), data(1, 1), "{datatype}");
    }
}

#[test]
fn absurd_extents_are_not_made_up() {
    let signature = Signature { inputs: vec![spec("x", vec![Dim::Fixed(1 << 40), named("batch")])], outputs: vec![] };
    assert!(Inputs::new(&signature, &Choice { lowest: 0, extents: vec![1] }, 0, 1).is_none());
}
