use std::sync::Arc;

use tenantry_types::Dim;
use tenantry_types::model::{EngineOptions, Optimization};
use tenantry_types::testing::{cache, onnx};

use super::*;
use crate::runtime::{Form, Source};

fn runtime() -> Runtime {
    Runtime::open(&cache::runtime_library()).unwrap()
}

fn source(bytes: Vec<u8>) -> Source {
    Source { form: Form::Source, model: Arc::new(bytes), external: Vec::new() }
}

fn load(bytes: Vec<u8>) -> Model {
    runtime().load(&source(bytes), &EngineOptions::default()).unwrap()
}

fn bytes_of<T: Copy, const N: usize>(values: &[T], to: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|value| to(*value)).collect()
}

fn floats(values: &[f32]) -> Vec<u8> {
    bytes_of(values, f32::to_le_bytes)
}

fn longs(values: &[i64]) -> Vec<u8> {
    bytes_of(values, i64::to_le_bytes)
}

fn input<'a>(index: u16, datatype: DataType, shape: &'a [u64], data: &'a [u8]) -> InputTensor<'a> {
    InputTensor { index, datatype, shape, data }
}

fn named(name: &str) -> Dim {
    Dim::Named(name.to_owned())
}

/// What the study did not try: the flag can be taken back, so one object serves all runs of a worker.
#[test]
fn a_run_is_ended_from_outside_and_the_next_one_is_not() {
    let mut model = load(onnx::counting_loop());
    let termination = Termination::new(runtime()).unwrap();
    let endless = longs(&[i64::MAX]);
    for _ in 0..3 {
        let ended = std::thread::scope(|scope| {
            let run =
                scope.spawn(|| model.run_until(&[input(0, DataType::Int64, &[], &endless)], &[], &termination).err());
            termination.terminate();
            run.join().unwrap()
        });
        assert!(ended.is_some());
        termination.clear();
        let outputs = model.run_until(&[input(0, DataType::Int64, &[], &longs(&[12]))], &[], &termination).unwrap();
        assert_eq!(outputs.iter().next().unwrap().to_vec().unwrap(), longs(&[12]));
    }
}

#[test]
fn every_data_type_goes_in_and_comes_out_unchanged() {
    for datatype in DataType::ALL {
        let mut model = load(onnx::identity(datatype, &[named("batch"), Dim::Fixed(2)]));
        assert_eq!(model.signature().inputs[0].datatype, datatype);
        assert_eq!(model.signature().outputs[0].dims, [named("batch"), Dim::Fixed(2)]);
        let data = match datatype.element_bytes() {
            Some(size) => (0..6 * size).map(|byte| u8::from(byte % 3 == 1)).collect(),
            None => {
                let elements: [&[u8]; 6] = [b"a", b"", b"with \0 zero", &[255, 254], "ü".as_bytes(), &[0; 300]];
                elements
                    .iter()
                    .flat_map(|element| [&(element.len() as u32).to_le_bytes(), *element].concat())
                    .collect::<Vec<u8>>()
            }
        };
        let outputs = model.run(&[input(0, datatype, &[3, 2], &data)], &[]).unwrap();
        let output = outputs.iter().next().unwrap();
        assert_eq!((output.index, output.datatype, output.shape.as_slice()), (0, datatype, &[3, 2][..]));
        assert_eq!(output.bytes, data.len() as u64);
        assert_eq!(output.to_vec().unwrap(), data, "{datatype}");
    }
}

#[test]
fn empty_tensors_and_scalars_are_tensors() {
    for datatype in [DataType::Fp32, DataType::Bytes, DataType::Int64] {
        let mut model = load(onnx::identity(datatype, &[named("batch"), Dim::Fixed(2)]));
        let outputs = model.run(&[input(0, datatype, &[0, 2], &[])], &[]).unwrap();
        let output = outputs.iter().next().unwrap();
        assert_eq!((output.shape.as_slice(), output.bytes), (&[0, 2][..], 0));
        assert_eq!(output.to_vec().unwrap(), b"");
    }
    let mut scalar = load(onnx::identity(DataType::Int64, &[]));
    assert_eq!(scalar.signature().inputs[0].dims, []);
    let outputs = scalar.run(&[input(0, DataType::Int64, &[], &longs(&[-7]))], &[]).unwrap();
    assert_eq!(outputs.iter().next().unwrap().to_vec().unwrap(), longs(&[-7]));
}

#[test]
fn inputs_come_in_any_order_and_outputs_as_asked() {
    let mut model = load(onnx::add());
    let (a, b) = (floats(&[1.0, 2.0]), floats(&[10.0, 20.0]));
    let inputs = [input(1, DataType::Fp32, &[1, 2], &b), input(0, DataType::Fp32, &[1, 2], &a)];
    for wanted in [&[][..], &[0], &[0, 0]] {
        let outputs = model.run(&inputs, wanted).unwrap();
        assert_eq!(outputs.len(), wanted.len().max(1));
        assert!(outputs.iter().all(|output| output.to_vec().unwrap() == floats(&[11.0, 22.0])));
    }
    assert_eq!(model.run(&inputs, &[1]).err().unwrap().fault(), Fault::Input);
}

#[test]
fn misfits_are_the_requests_fault_and_the_model_goes_on() {
    let mut model = load(onnx::add());
    let (two, three) = (floats(&[1.0, 2.0]), floats(&[1.0, 2.0, 3.0]));
    let good = input(0, DataType::Fp32, &[1, 2], &two);
    let odd = [0_u8; 9];
    let start = usize::from(odd.as_ptr().align_offset(4) == 0);
    let wrong = [
        vec![],
        vec![good],
        vec![good, good],
        vec![good, input(2, DataType::Fp32, &[1, 2], &two)],
        vec![good, input(1, DataType::Int32, &[1, 2], &two)],
        vec![good, input(1, DataType::Fp32, &[2], &two)],
        vec![good, input(1, DataType::Fp32, &[1, 3], &two)],
        vec![good, input(1, DataType::Fp32, &[u64::MAX, 2], &two)],
        vec![good, input(1, DataType::Fp32, &[1, 2], &odd[start..start + 8])],
        // The runtime's own kernel refuses this one: `n` differs.
        vec![good, input(1, DataType::Fp32, &[1, 3], &three)],
    ];
    for inputs in wrong {
        assert_eq!(model.run(&inputs, &[]).err().unwrap().fault(), Fault::Input);
    }
    let other = InputTensor { index: 1, ..good };
    assert_eq!(model.run(&[good, other], &[]).unwrap().iter().next().unwrap().to_vec().unwrap(), floats(&[2.0, 4.0]));
}

#[test]
fn values_that_are_undefined_behaviour_inside_never_reach_the_runtime() {
    let mut bools = load(onnx::identity(DataType::Bool, &[named("n")]));
    assert!(bools.run(&[input(0, DataType::Bool, &[2], &[1, 2])], &[]).is_err());
    let mut texts = load(onnx::identity(DataType::Bytes, &[named("n")]));
    let wrong: [(u64, &[u8]); 6] = [
        (1, b""),
        (1, &[1, 0, 0, 0]),
        (1, &[255, 255, 255, 255, 0]),
        (1, &[0, 0, 0, 0, 0]),
        (2, &[0, 0, 0, 0]),
        (1 << 60, &[0, 0, 0, 0]),
    ];
    for (count, data) in wrong {
        let error = texts.run(&[input(0, DataType::Bytes, &[count], data)], &[]).err().unwrap();
        assert!(error.to_string().contains("length-prefixed"), "{error}");
    }
}

#[test]
fn an_output_may_be_as_large_as_the_request_asks_and_too_large_is_an_error() {
    let mut model = load(onnx::expand());
    let large = longs(&[1_000_003]);
    let outputs = model.run(&[input(0, DataType::Int64, &[1], &large)], &[]).unwrap();
    let output = outputs.iter().next().unwrap();
    assert_eq!((output.shape.as_slice(), output.bytes), (&[1_000_003][..], 4_000_012));
    assert!(output.copy_to(&mut [0; 12]).is_err());
    drop(outputs);
    let absurd = longs(&[1 << 50]);
    let error = model.run(&[input(0, DataType::Int64, &[1], &absurd)], &[]).err().unwrap();
    assert_eq!(error.fault(), Fault::Resource, "{error}");
    let negative = longs(&[-1]);
    assert!(model.run(&[input(0, DataType::Int64, &[1], &negative)], &[]).is_err());
    assert!(model.run(&[input(0, DataType::Int64, &[1], &longs(&[2]))], &[]).is_ok());
}

#[test]
fn outputs_outlive_their_model() {
    let mut model = load(onnx::matmul16());
    let data = floats(&[1.0; 16]);
    let outputs = model.run(&[input(0, DataType::Fp32, &[1, 16], &data)], &[]).unwrap();
    drop(model);
    assert_eq!(outputs.iter().next().unwrap().to_vec().unwrap(), floats(&[2.0; 16]));
}

#[test]
fn division_by_zero_is_an_error_and_not_a_death() {
    let mut model = load(onnx::div_i64());
    let (a, b) = (longs(&[7, 9]), longs(&[2, 0]));
    let error = model.run(&[input(0, DataType::Int64, &[2], &a), input(1, DataType::Int64, &[2], &b)], &[]);
    assert_eq!(error.err().unwrap().fault(), Fault::Input);
}

#[test]
fn a_loop_runs_as_often_as_asked() {
    let mut model = load(onnx::counting_loop());
    let outputs = model.run(&[input(0, DataType::Int64, &[], &longs(&[1_234]))], &[]).unwrap();
    assert_eq!(outputs.iter().next().unwrap().to_vec().unwrap(), longs(&[1_234]));
}

#[test]
fn what_the_runtimes_own_rewrite_breaks_runs_at_a_lower_level_or_without_it() {
    let options = |optimization, disabled: &[&str]| EngineOptions {
        optimization,
        disabled_optimizers: disabled.iter().map(|name| (*name).to_owned()).collect(),
        ..EngineOptions::default()
    };
    let run = |options| {
        let mut model = runtime().load(&source(onnx::broken_by_fusion()), &options).unwrap();
        let (x, end) = (floats(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]), longs(&[3]));
        let inputs = [input(0, DataType::Fp32, &[1, 8], &x), input(1, DataType::Int64, &[], &end)];
        model.run(&inputs, &[]).map(|outputs| outputs.iter().next().unwrap().to_vec().unwrap())
    };
    assert!(run(options(Optimization::All, &[])).is_err());
    let three = Ok(floats(&[1.0, 2.0, 3.0]));
    assert_eq!(run(options(Optimization::Basic, &[])), three);
    assert_eq!(run(options(Optimization::All, &["GatherToSliceFusion"])), three);
}

#[test]
fn metadata_is_read_and_cut() {
    let metadata = load(onnx::matmul16()).metadata().unwrap();
    assert_eq!((metadata.producer.as_str(), metadata.graph_name.as_str()), ("tenantry-testing", "matmul"));
}

#[test]
fn a_model_moves_to_another_thread() {
    let mut model = load(onnx::matmul16());
    let answer = std::thread::spawn(move || {
        let data = floats(&[3.0; 32]);
        let outputs = model.run(&[input(0, DataType::Fp32, &[2, 16], &data)], &[]).unwrap();
        outputs.iter().next().unwrap().to_vec().unwrap()
    });
    assert_eq!(answer.join().unwrap(), floats(&[6.0; 32]));
}
