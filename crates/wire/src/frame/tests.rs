use proptest::prelude::*;
use tenantry_types::model::{BatchPoint, FileMetadata, Profile};
use tenantry_types::tensor::MAX_RANK;
use tenantry_types::{Dim, Signature, TensorSpec};

use super::*;

fn descriptor(shape: &[u64]) -> TensorDescriptor {
    TensorDescriptor { index: 3, datatype: DataType::Bf16, shape: Shape::from_slice(shape), offset: 64, bytes: 12 }
}

fn finished(shape: &[u64]) -> FromWorker {
    FromWorker::Finished { task: TaskId(u64::MAX), outputs: vec![descriptor(shape)], compute_ns: 1 }
}

fn decode(bytes: &[u8]) -> Option<FromWorker> {
    postcard::from_bytes(bytes).ok()
}

#[test]
fn a_registration_survives_with_all_kinds_of_dimensions() {
    let dims = vec![Dim::Named("batch".to_owned()), Dim::Fixed(3), Dim::Any(())];
    let spec = TensorSpec { name: "x".to_owned(), datatype: DataType::Bytes, dims };
    let registration = Registration {
        pipeline: None,
        signature: Signature { inputs: vec![spec.clone()], outputs: vec![spec] },
        metadata: FileMetadata { custom: vec![("k".to_owned(), "\u{1b}".to_owned())], ..FileMetadata::default() },
        can_batch: true,
        profile: Profile {
            runtime: "1.31.1".to_owned(),
            options: EngineOptions::default(),
            load_ns: 1,
            optimised_load_ns: 2,
            resident_bytes: 3,
            optimised_bytes: 4,
            best_batch: 5,
            points: vec![BatchPoint { rows: 1, run_ns: u64::MAX }],
        },
    };
    let frame =
        FromWorker::Registered { task: TaskId(7), registration: Box::new(registration), optimised_bytes: 1 << 40 };
    assert_eq!(decode(&postcard::to_allocvec(&frame).unwrap()), Some(frame));
}

#[test]
fn a_shape_has_a_bounded_rank() {
    for rank in [0, 1, 4, 5, MAX_RANK] {
        let frame = finished(&vec![u64::MAX; rank]);
        assert_eq!(decode(&postcard::to_allocvec(&frame).unwrap()), Some(frame));
    }
    assert_eq!(decode(&postcard::to_allocvec(&finished(&[1; MAX_RANK + 1])).unwrap()), None);
}

#[test]
fn an_announced_length_reserves_nothing() {
    // Finished, task 0, outputs: 2^60 of them.
    let mut frame = vec![3, 0, 128, 128, 128, 128, 128, 128, 128, 128, 16];
    assert_eq!(decode(&frame), None);
    // One output, index 0, BOOL, a shape of 2^60 extents.
    frame.splice(2..2, [1, 0, 0]);
    assert_eq!(decode(&frame), None);
}

proptest! {
    #[test]
    fn random_bytes_are_refused_or_decoded_never_worse(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = decode(&bytes);
        let _ = postcard::from_bytes::<ToWorker>(&bytes);
    }

    #[test]
    fn a_flipped_byte_is_refused_or_decoded_never_worse(at in 0_usize..40, to: u8, kind in 0_u8..6) {
        let mut bytes = postcard::to_allocvec(&finished(&[1, 2, 3])).unwrap();
        let at = at % bytes.len();
        bytes[at] = to;
        bytes[0] = kind;
        let _ = decode(&bytes);
    }

    #[test]
    fn descriptors_survive(index: u16, offset: u64, bytes: u64, kind in 0_usize..14, shape in proptest::collection::vec(any::<u64>(), 0..=MAX_RANK)) {
        let tensor = TensorDescriptor { index, datatype: DataType::ALL[kind], shape: Shape::from_vec(shape), offset, bytes };
        let sent = postcard::to_allocvec(&tensor).unwrap();
        prop_assert_eq!(postcard::from_bytes::<TensorDescriptor>(&sent).unwrap(), tensor);
    }
}
