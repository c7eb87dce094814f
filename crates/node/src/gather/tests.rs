use proptest::prelude::*;
use smallvec::smallvec;
use tenantry_types::TensorSpec;

use super::*;

fn tensor(rows: u64, columns: u64, fill: u8) -> Tensor {
    Tensor {
        name: "x".to_owned(),
        datatype: DataType::Uint8,
        shape: smallvec![rows, columns],
        data: vec![fill; (rows * columns) as usize].into(),
    }
}

fn string_tensor(words: &[&str]) -> Vec<u8> {
    words.iter().flat_map(|word| [&(word.len() as u32).to_le_bytes(), word.as_bytes()].concat()).collect()
}

#[test]
fn members_lie_one_after_another_and_inputs_are_aligned() {
    let first = [tensor(2, 3, 1), tensor(2, 1, 2)];
    let second = [tensor(1, 3, 3), tensor(1, 1, 4)];
    let layout = layout([&first[..], &second[..]].into_iter(), 2).unwrap();
    assert_eq!(layout.descriptors[0].shape[..], [3, 3]);
    assert_eq!((layout.descriptors[0].offset, layout.descriptors[0].bytes), (0, 9));
    assert_eq!(layout.descriptors[1].shape[..], [3, 1]);
    assert_eq!((layout.descriptors[1].offset, layout.descriptors[1].bytes), (64, 3));
    assert_eq!(layout.bytes, 67);
}

#[test]
fn members_of_other_shapes_do_not_join() {
    let first = [tensor(2, 3, 1)];
    for other in [tensor(2, 4, 1), Tensor { datatype: DataType::Int8, ..tensor(2, 3, 1) }] {
        assert_eq!(layout([&first[..], &[other][..]].into_iter(), 1), Err(Mismatch));
    }
    assert_eq!(layout([&first[..]].into_iter(), 2), Err(Mismatch));
}

fn claim(shape: &[u64], bytes: u64) -> TensorDescriptor {
    TensorDescriptor { index: 0, datatype: DataType::Fp32, shape: shape.into(), offset: 0, bytes }
}

#[test]
fn what_a_worker_claims_must_fit_the_signature() {
    let spec = TensorSpec {
        name: "y".to_owned(),
        datatype: DataType::Fp32,
        dims: vec![Dim::Named("n".to_owned()), Dim::Fixed(2)],
    };
    let signature = Signature { inputs: vec![], outputs: vec![spec] };
    let check = |claimed: TensorDescriptor, rows| check_outputs(&signature, &[0], &[claimed], rows);
    assert_eq!(check(claim(&[3, 2], 24), Some(3)), Ok(Division::ByRows));
    assert_eq!(check(claim(&[3, 2], 24), None), Ok(Division::Whole));
    assert!(check(claim(&[3, 2], 24), Some(4)).is_err());
    assert!(check(claim(&[3, 3], 36), Some(3)).is_err());
    assert!(check(claim(&[6], 24), None).is_err());
    assert!(check(claim(&[3, 2], 23), Some(3)).is_err());
    assert!(check(claim(&[u64::MAX, 2], 24), None).is_err());
    assert!(check(TensorDescriptor { datatype: DataType::Int32, ..claim(&[3, 2], 24) }, None).is_err());
    assert!(check(TensorDescriptor { index: 1, ..claim(&[3, 2], 24) }, None).is_err());
    assert!(check_outputs(&signature, &[0], &[], None).is_err());
}

#[test]
fn strings_are_cut_at_their_lengths() {
    let data = Bytes::from(string_tensor(&["a", "", "long word", "b"]));
    let output = TensorDescriptor { index: 0, datatype: DataType::Bytes, shape: smallvec![4, 1], offset: 0, bytes: 0 };
    let parts = divide("y", &output, data.clone(), &[1, 3]).unwrap();
    assert_eq!(parts[0].data.to_contiguous(), string_tensor(&["a"]));
    assert_eq!(parts[1].data.to_contiguous(), string_tensor(&["", "long word", "b"]));
    assert_eq!(parts[1].shape[..], [3, 1]);
    let cut = data.slice(..data.len() - 1);
    assert!(matches!(divide("y", &output, cut, &[1, 3]), Err(Violation::Framing { .. })));
}

proptest! {
    #[test]
    fn dividing_gives_every_member_its_own_rows(rows in proptest::collection::vec(0_u64..5, 1..9), columns in 1_u64..4) {
        let total: u64 = rows.iter().sum();
        let data: Vec<u8> = rows.iter().enumerate()
            .flat_map(|(member, rows)| vec![member as u8; (rows * columns) as usize]).collect();
        let output = TensorDescriptor {
            index: 0, datatype: DataType::Uint8, shape: smallvec![total, columns], offset: 0, bytes: total * columns,
        };
        let parts = divide("y", &output, data.into(), &rows).unwrap();
        prop_assert_eq!(parts.len(), rows.len());
        for (member, (part, rows)) in parts.iter().zip(&rows).enumerate() {
            prop_assert_eq!(&part.shape[..], &[*rows, columns]);
            prop_assert_eq!(part.data.to_contiguous(), vec![member as u8; (rows * columns) as usize]);
        }
    }

    #[test]
    fn reading_string_lengths_never_panics(data in proptest::collection::vec(any::<u8>(), 0..64), count in 0_u64..20) {
        if let Some(bytes) = string_bytes(&data, count) {
            prop_assert!(bytes <= data.len());
        }
    }
}
