use prost::Message as _;
use smallvec::smallvec;

use super::*;
use crate::grpc::proto::InferTensorContents;

fn read(contents: &InferTensorContents, datatype: DataType, count: u64) -> Result<Vec<u8>, TensorProblem> {
    read_contents(&contents.encode_to_vec(), datatype, &[count], 1 << 20)
}

fn bytes<const N: usize>(values: &[[u8; N]]) -> Vec<u8> {
    values.concat()
}

/// One tensor of every type that has typed contents, with its extremes: contents and data.
fn every_type() -> Vec<(DataType, u64, InferTensorContents, Vec<u8>)> {
    let none = InferTensorContents::default;
    let ints = |values: &[i32]| InferTensorContents { int_contents: values.into(), ..none() };
    let uints = |values: &[u32]| InferTensorContents { uint_contents: values.into(), ..none() };
    vec![
        (DataType::Bool, 2, InferTensorContents { bool_contents: vec![true, false], ..none() }, vec![1, 0]),
        (DataType::Int8, 3, ints(&[-128, 0, 127]), bytes(&[-128_i8, 0, 127].map(i8::to_le_bytes))),
        (DataType::Int16, 2, ints(&[-32768, 32767]), bytes(&[-32768_i16, 32767].map(i16::to_le_bytes))),
        (DataType::Int32, 2, ints(&[i32::MIN, i32::MAX]), bytes(&[i32::MIN, i32::MAX].map(i32::to_le_bytes))),
        (
            DataType::Int64,
            2,
            InferTensorContents { int64_contents: vec![i64::MIN, i64::MAX], ..none() },
            bytes(&[i64::MIN, i64::MAX].map(i64::to_le_bytes)),
        ),
        (DataType::Uint8, 2, uints(&[0, 255]), vec![0, 255]),
        (DataType::Uint16, 1, uints(&[65535]), vec![255, 255]),
        (DataType::Uint32, 1, uints(&[u32::MAX]), vec![255; 4]),
        (DataType::Uint64, 1, InferTensorContents { uint64_contents: vec![u64::MAX], ..none() }, vec![255; 8]),
        (
            DataType::Fp32,
            3,
            InferTensorContents { fp32_contents: vec![1.5, f32::NEG_INFINITY, -0.0], ..none() },
            bytes(&[1.5, f32::NEG_INFINITY, -0.0].map(f32::to_le_bytes)),
        ),
        (
            DataType::Fp64,
            1,
            InferTensorContents { fp64_contents: vec![f64::MIN_POSITIVE], ..none() },
            f64::MIN_POSITIVE.to_le_bytes().into(),
        ),
        (
            DataType::Bytes,
            2,
            InferTensorContents { bytes_contents: vec!["".into(), "hé".into()], ..none() },
            b"\0\0\0\0\x03\0\0\0h\xc3\xa9".to_vec(),
        ),
    ]
}

#[test]
fn every_type_is_read_and_written_as_an_independent_codec_does() {
    let types = every_type();
    assert_eq!(types.len(), DataType::ALL.len() - 2, "all but the 16-bit floats");
    for (datatype, count, contents, data) in types {
        assert_eq!(read(&contents, datatype, count), Ok(data.clone()), "{datatype}");
        let tensor = Tensor { name: "x".to_owned(), datatype, shape: smallvec![count], data: data.into() };
        let mut written = Vec::new();
        write_contents(&mut written, &tensor).unwrap();
        assert_eq!(InferTensorContents::decode(written.as_slice()).unwrap(), contents, "{datatype}");
    }
}

#[test]
fn numbers_may_come_packed_or_one_by_one() {
    // fp32_contents twice unpacked, then once packed.
    let one = 1.0_f32.to_le_bytes();
    let message = [&[0x35][..], &one, &[0x35], &one, &[0x32, 4], &one].concat();
    assert_eq!(read_contents(&message, DataType::Fp32, &[3], 100), Ok(one.repeat(3)));
    let message = [0x10, 0x05, 0x12, 0x02, 0x06, 0x07];
    assert_eq!(read_contents(&message, DataType::Int8, &[3], 100), Ok(vec![5, 6, 7]));
}

#[test]
fn what_does_not_fit_type_or_shape_is_refused() {
    let ints = InferTensorContents { int_contents: vec![1, 300], ..Default::default() };
    let problem = |datatype, count| read(&ints, datatype, count).unwrap_err().to_string();
    assert!(
        problem(DataType::Int8, 2).contains("has 300 at element 1 of its contents, which is out of the range of INT8")
    );
    assert!(problem(DataType::Int32, 1).contains("has more than 1 elements"));
    assert!(problem(DataType::Int32, 3).contains("has 2 elements in its contents; shape [3] needs 3"));
    assert!(problem(DataType::Uint8, 2).contains("the elements of UINT8 go in uint_contents"));
    assert!(problem(DataType::Fp16, 2).contains("is FP16, which has no typed contents; send it in raw_input_contents"));
    assert!(read(&InferTensorContents::default(), DataType::Fp32, 0).unwrap().is_empty());
    // A float's field cut off inside an element.
    assert!(read_contents(&[0x32, 3, 0, 0, 0], DataType::Fp32, &[1], 100).is_err());
    // A shape of billions reserves no more than the message could hold.
    assert!(read_contents(&[0x32, 4, 0, 0, 0, 0], DataType::Fp32, &[u64::MAX], usize::MAX).is_err());
}

#[test]
fn data_that_does_not_fit_its_tensor_is_not_written() {
    for (datatype, shape, data) in
        [(DataType::Fp32, 2, vec![0; 4]), (DataType::Fp32, 1, vec![0; 7]), (DataType::Bytes, 1, vec![9])]
    {
        let tensor = Tensor { name: "x".to_owned(), datatype, shape: smallvec![shape], data: data.into() };
        assert!(write_contents(&mut Vec::new(), &tensor).is_err(), "{datatype}");
    }
}
