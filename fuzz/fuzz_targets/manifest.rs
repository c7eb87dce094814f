//! Manifests of versions: whatever is written there, no panic, bounded work, one line of words; and a program that opens can
//! be run, whatever its model answers.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tenantry_pipeline::{Array, Files, Manifest, Program};
use tenantry_types::{DataType, Dim, Signature, TensorSpec};

/// What many manifests around a small model might name.
fn model() -> Signature {
    let tensor = |name: &str, datatype, dims: &[i64]| TensorSpec {
        name: name.to_owned(),
        datatype,
        dims: dims.iter().map(|extent| u64::try_from(*extent).map_or(Dim::Any(()), Dim::Fixed)).collect(),
    };
    Signature {
        inputs: vec![tensor("x", DataType::Fp32, &[-1, -1])],
        outputs: vec![tensor("y", DataType::Fp32, &[-1, 4]), tensor("z", DataType::Fp32, &[-1, -1, 4])],
    }
}

fuzz_target!(|input: &[u8]| {
    let manifest = match Manifest::parse(input) {
        Ok(manifest) => manifest,
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "{error}");
            return;
        }
    };
    if let Some(chain) = manifest.chain() {
        assert!(!chain.stages.is_empty() && !chain.outputs.is_empty());
        return;
    }
    let files: Files<'_> = [("labels.txt", &b"a\nb\nc\nd"[..]), ("letters.txt", b"a\nb\nc")].into_iter().collect();
    let Ok(program) = Program::open(&manifest, &files, &model()) else { return };
    let signature = program.signature();
    assert!(program.facts().states.len() <= signature.inputs.len());
    // One row of everything, every open extent 2.
    let extent = |(axis, dim): (usize, &Dim)| match dim {
        Dim::Fixed(extent) => (*extent).min(64),
        _ if axis == 0 => 1,
        _ => 2,
    };
    let shapes: Vec<Vec<u64>> =
        signature.inputs.iter().map(|spec| spec.dims.iter().enumerate().map(extent).collect()).collect();
    let count = |shape: &[u64]| shape.iter().product::<u64>() as usize;
    if shapes.iter().any(|shape| count(shape) > 1 << 16) {
        return;
    }
    let data: Vec<Array<'_>> = signature
        .inputs
        .iter()
        .zip(&shapes)
        .map(|(spec, shape)| match spec.datatype.element_bytes() {
            None => Array::texts(&vec!["P3 1 1 255 1 2 3"; count(shape)]),
            Some(bytes) => {
                let zeros = |_: &mut [u8]| -> Result<(), ()> { Ok(()) };
                Array::filled(spec.datatype, shape.iter().copied().collect(), bytes * count(shape), zeros).unwrap()
            }
        })
        .collect();
    let inputs: Vec<(DataType, &[u64], &[u8])> = signature
        .inputs
        .iter()
        .zip(&shapes)
        .zip(&data)
        .map(|((spec, shape), data)| (spec.datatype, shape.as_slice(), data.bytes()))
        .collect();
    let mut engine = |_: &[Array<'_>], wanted: &[u16]| -> Result<Vec<Array<'static>>, ()> {
        Ok(wanted
            .iter()
            .map(|index| match index {
                0 => Array::floats([1, 4], vec![0.1, f32::NAN, 0.7, f32::INFINITY]),
                _ => Array::floats([1, 2, 4], vec![0.25; 8]),
            })
            .collect())
    };
    let _ = program.run(&inputs, &[], &mut engine, &|| false);
});
