use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use tenantry_types::testing::{cache, onnx};

use super::*;
use crate::model::InputTensor;

fn runtime() -> Runtime {
    Runtime::open(&cache::runtime_library()).unwrap()
}

/// Registers `model` and loads what was written, as a later worker would.
fn registered(model: Vec<u8>, settings: &VersionSettings) -> (Registration, Model) {
    let source = Source { form: Form::Source, model: Arc::new(model), external: Vec::new() };
    let file = tempfile::tempfile().unwrap();
    let read = |bytes: u64| {
        let mut contents = vec![0; bytes as usize];
        file.read_exact_at(&mut contents, 0)?;
        Ok(Arc::new(contents) as SharedBytes)
    };
    let (registration, bytes) = register(runtime(), &source, settings, file.as_fd(), &read, &mut |_| {}).unwrap();
    assert_eq!(registration.profile.optimised_bytes, bytes);
    let optimised = Source { form: Form::Optimised, model: read(bytes).unwrap(), external: Vec::new() };
    let model = runtime().load(&optimised, &registration.profile.options).unwrap();
    assert_eq!(model.signature(), &registration.signature);
    (registration, model)
}

#[test]
fn a_good_model_is_measured_and_its_optimised_form_computes() {
    let (registration, mut model) = registered(onnx::matmul16(), &VersionSettings::default());
    assert!(registration.can_batch);
    let profile = &registration.profile;
    assert_eq!(profile.runtime, cache::RUNTIME_VERSION);
    assert_eq!((profile.options.threads, profile.options.optimization), (1, Optimization::All));
    assert!(profile.load_ns > 0 && profile.optimised_load_ns > 0);
    assert!(profile.points.iter().all(|point| point.run_ns > 0));
    assert!(profile.points.is_sorted_by_key(|point| point.rows) && profile.single_run().is_some());
    // A call costs far more than sixteen multiplications.
    assert!(profile.best_batch > 1, "{profile:?}");
    let data: Vec<u8> = (0..16).flat_map(|_| 1.0_f32.to_le_bytes()).collect();
    let input = InputTensor { index: 0, datatype: tenantry_types::DataType::Fp32, shape: &[1, 16], data: &data };
    let answer = model.run(&[input], &[]).unwrap().iter().next().unwrap().to_vec().unwrap();
    assert_eq!(answer, 2.0_f32.to_le_bytes().repeat(16));
}

#[test]
fn a_model_whose_rows_see_each_other_is_never_batched() {
    let (registration, _) = registered(onnx::softmax_over_rows(), &VersionSettings::default());
    assert!(registration.signature.has_batch_axis());
    assert!(!registration.can_batch);
    assert_eq!((registration.profile.best_batch, registration.profile.points.len()), (1, 1));
}

#[test]
fn a_model_without_a_batch_axis_is_measured_once() {
    let (registration, _) = registered(onnx::counting_loop(), &VersionSettings::default());
    assert!(!registration.can_batch);
    assert_eq!((registration.profile.best_batch, registration.profile.points.len()), (1, 1));
}

#[test]
fn every_data_type_can_be_made_up() {
    for datatype in tenantry_types::DataType::ALL {
        let dims = [tenantry_types::Dim::Any(()), tenantry_types::Dim::Fixed(3)];
        let (registration, _) = registered(onnx::identity(datatype, &dims), &VersionSettings::default());
        assert!(registration.can_batch, "{datatype}");
    }
}

#[test]
fn what_a_rewrite_breaks_is_rewritten_less() {
    let model = onnx::broken_by_fusion;
    let optimization = |settings: &VersionSettings| {
        let profile = registered(model(), settings).0.profile;
        (profile.options.optimization, profile.points.len())
    };
    assert_eq!(optimization(&VersionSettings::default()), (Optimization::Basic, 1));
    let settings =
        VersionSettings { disabled_optimizers: vec!["GatherToSliceFusion".to_owned()], ..VersionSettings::default() };
    assert_eq!(optimization(&settings), (Optimization::All, 1));
    // The owner's word is the last: it is done as told, and nothing could be measured.
    let settings = VersionSettings { optimization: Some(Optimization::All), ..VersionSettings::default() };
    assert_eq!(optimization(&settings), (Optimization::All, 0));
}

#[test]
fn settings_win_over_measurements() {
    let settings = VersionSettings { threads: Some(2), prepack: Some(false), ..VersionSettings::default() };
    let options = registered(onnx::matmul16(), &settings).0.profile.options;
    assert_eq!((options.threads, options.prepack), (2, false));
}

#[test]
fn a_broken_model_is_refused() {
    let source = Source { form: Form::Source, model: Arc::new(b"no".to_vec()), external: Vec::new() };
    let file = tempfile::tempfile().unwrap();
    let map = |_| unreachable!();
    let refused = register(runtime(), &source, &VersionSettings::default(), file.as_fd(), &map, &mut |_| {});
    assert!(matches!(refused, Err(LoadError::Refused(_))));
}

#[test]
fn real_models_are_understood() {
    for (package, file, can_batch) in [
        ("magika", "model.onnx", true),
        ("silero", "silero_vad.onnx", false),
        ("minilm", "model.onnx", true),
        ("nsfw", "open_nsfw.onnx", true),
    ] {
        let model = std::fs::read(cache::model(package, file)).unwrap();
        let (registration, _) = registered(model, &VersionSettings::default());
        println!("{package}: {:?}", registration.profile);
        assert_eq!(registration.can_batch, can_batch, "{package}");
        assert!(registration.profile.single_run().is_some(), "{package}");
    }
}
