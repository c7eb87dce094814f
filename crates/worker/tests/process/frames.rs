//! What a worker answers.

use std::os::fd::AsFd;

use tenantry_types::testing::{cache, onnx};
use tenantry_types::{DataType, Dim, ReplicaId, Shape};
use tenantry_wire::{FailureKind, FromWorker, ModelForm, PROTOCOL, TensorDescriptor, ToWorker};

use crate::harness::{Peer, TASK, floats, longs, memory_file, spec, start_spawner};

fn failed(frame: &FromWorker, expected: FailureKind) -> &str {
    match frame {
        FromWorker::Failed { task: TASK, kind, message } if *kind == expected => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_model_is_registered_loaded_twice_run_and_unloaded() {
    let (spawner, _exits) = start_spawner();
    let mut peer = Peer::spawn(&spawner, &spec());
    let FromWorker::Ready { protocol: PROTOCOL, runtime, cpu, .. } = peer.recv() else { panic!("not ready") };
    assert_eq!(runtime, cache::RUNTIME_VERSION);
    assert!(cpu.starts_with(std::env::consts::ARCH));

    let (registration, optimised) = peer.register(&[("model.onnx", &memory_file(&onnx::matmul16()))]).unwrap();
    assert!(registration.can_batch && !registration.profile.points.is_empty());
    assert_eq!(registration.signature.inputs[0].dims, [Dim::Named("batch".to_owned()), Dim::Fixed(16)]);

    peer.arena(1, 4096, 4096);
    for replica in [1, 2] {
        let loaded = peer.load(replica, ModelForm::Optimised, &[("model.ort", &optimised)]);
        assert!(matches!(loaded, FromWorker::Loaded { load_ns: 1.., .. }), "{loaded:?}");
    }
    for (replica, rows) in [(1, 1), (2, 3), (1, 4)] {
        let data = floats(&vec![0.5; rows as usize * 16]);
        let outputs = peer.run(replica, &[(DataType::Fp32, &[rows, 16], &data)]);
        assert_eq!(outputs, [(Shape::from_slice(&[rows, 16]), floats(&vec![1.0; rows as usize * 16]))]);
    }
    peer.send(&ToWorker::Unload { replica: ReplicaId(1) }, &[]);
    let data = floats(&[0.5; 16]);
    peer.send_run(1, &[(DataType::Fp32, &[1, 16], &data)]);
    assert!(failed(&peer.recv(), FailureKind::Resource).contains("no such replica"));
    assert_eq!(peer.run(2, &[(DataType::Fp32, &[1, 16], &data)])[0].1, floats(&[1.0; 16]));
}

#[test]
fn a_real_model_goes_the_whole_way_with_its_weights_shared() {
    let (spawner, _exits) = start_spawner();
    let mut peer = Peer::ready(&spawner);
    let model = std::fs::File::open(cache::model("magika", "model.onnx")).unwrap();
    let (registration, optimised) = peer.register(&[("model.onnx", &model)]).unwrap();
    peer.arena(1, 1 << 20, 1 << 20);
    let data: Vec<u8> = (0..2048_u32).flat_map(|value| (value % 256).to_le_bytes()).collect();
    let inputs: [(DataType, &[u64], &[u8]); 1] = [(DataType::Int32, &[1, 2048], &data)];
    let source = peer.load(1, ModelForm::Source, &[("model.onnx", &model)]);
    assert!(matches!(source, FromWorker::Loaded { .. }), "{source:?}");
    let expected = peer.run(1, &inputs);
    for replica in 2..6 {
        let loaded = peer.load(replica, ModelForm::Optimised, &[("model.ort", &optimised)]);
        let FromWorker::Loaded { resident_bytes, .. } = loaded else { panic!("{loaded:?}") };
        // Three megabytes of weights, of which no copy is made.
        assert!(resident_bytes < 2 << 20, "{resident_bytes} after {}", registration.profile.resident_bytes);
        let answer = peer.run(replica, &inputs);
        assert_eq!(answer[0].0, expected[0].0);
        let numbers = |bytes: &[u8]| -> Vec<f32> {
            bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect()
        };
        let pairs = numbers(&answer[0].1).into_iter().zip(numbers(&expected[0].1)).collect::<Vec<_>>();
        assert!(pairs.iter().all(|(one, other)| (one - other).abs() < 1e-4));
    }
}

#[test]
fn texts_go_through_the_arena() {
    let (spawner, _exits) = start_spawner();
    let mut peer = Peer::serving(&spawner, &onnx::identity(DataType::Bytes, &[Dim::Any(())]));
    let data = [&[3, 0, 0, 0][..], b"a\0b", &[0, 0, 0, 0]].concat();
    let outputs = peer.run(1, &[(DataType::Bytes, &[2], &data)]);
    assert_eq!(outputs, [(Shape::from_slice(&[2]), data)]);
}

#[test]
fn outputs_that_do_not_fit_wait_for_a_larger_arena() {
    let (spawner, _exits) = start_spawner();
    let mut peer = Peer::serving(&spawner, &onnx::expand());
    let shape = longs(&[1_000, 1_000]);
    peer.send_run(1, &[(DataType::Int64, &[2], &shape)]);
    let FromWorker::NeedOutput { task: TASK, bytes } = peer.recv() else { panic!("it fits") };
    assert_eq!(bytes, 4_000_000);
    // Still too small: asked again, nothing lost.
    peer.arena(2, 4096, bytes - 1);
    assert_eq!(peer.recv(), FromWorker::NeedOutput { task: TASK, bytes });
    peer.arena(3, 4096, bytes);
    let outputs = peer.outputs(&peer.recv());
    assert_eq!(outputs[0].0.as_slice(), [1_000, 1_000]);
    assert_eq!(outputs[0].1, floats(&vec![1.0; 1_000_000]));
    // The new arena is the one from now on.
    assert_eq!(peer.run(1, &[(DataType::Int64, &[1], &longs(&[3]))])[0].1, floats(&[1.0; 3]));
}

#[test]
fn outputs_nobody_waits_for_any_more_are_dropped() {
    let (spawner, _exits) = start_spawner();
    let mut peer = Peer::serving(&spawner, &onnx::expand());
    peer.send_run(1, &[(DataType::Int64, &[1], &longs(&[5_000]))]);
    assert!(matches!(peer.recv(), FromWorker::NeedOutput { .. }));
    assert_eq!(peer.run(1, &[(DataType::Int64, &[1], &longs(&[2]))])[0].1, floats(&[1.0; 2]));
    // A larger arena now brings no late answer: the next frame is the next run's.
    peer.arena(2, 4096, 1 << 20);
    assert_eq!(peer.run(1, &[(DataType::Int64, &[1], &longs(&[1]))])[0].1, floats(&[1.0]));
}

#[test]
fn a_run_that_cannot_be_is_answered_and_the_worker_goes_on() {
    let (spawner, _exits) = start_spawner();
    let mut peer = Peer::serving(&spawner, &onnx::add());
    let data = floats(&[1.0, 2.0]);
    let good: (DataType, &[u64], &[u8]) = (DataType::Fp32, &[1, 2], &data);
    peer.send_run(1, &[good]);
    failed(&peer.recv(), FailureKind::Input);
    let three = floats(&[0.0; 3]);
    peer.send_run(1, &[good, (DataType::Fp32, &[1, 3], &three)]);
    failed(&peer.recv(), FailureKind::Input);
    let run = |arena, offset| {
        let shape = Shape::from_slice(&[1, 2]);
        let tensor =
            |index| TensorDescriptor { index, datatype: DataType::Fp32, shape: shape.clone(), offset, bytes: 8 };
        ToWorker::Run { task: TASK, replica: ReplicaId(1), arena, inputs: vec![tensor(0), tensor(1)], outputs: vec![0] }
    };
    for offset in [4096, u64::MAX - 3, 4092] {
        peer.send(&run(1, offset), &[]);
        assert!(failed(&peer.recv(), FailureKind::Resource).contains("outside"));
    }
    peer.send(&run(2, 0), &[]);
    assert!(failed(&peer.recv(), FailureKind::Resource).contains("replaced"));
    assert_eq!(peer.run(1, &[good, good])[0].1, floats(&[2.0, 4.0]));
}

#[test]
fn files_that_are_no_models_are_refused_with_clean_words() {
    let (spawner, _exits) = start_spawner();
    let peer = Peer::ready(&spawner);
    for bytes in [b"".to_vec(), b"not a model".to_vec(), onnx::unknown_operator(), onnx::sequence_output()] {
        let (kind, message) = peer.register(&[("model.onnx", &memory_file(&bytes))]).unwrap_err();
        assert_eq!(kind, FailureKind::Model);
        assert!(!message.is_empty() && !message.contains(char::is_control) && message.chars().count() <= 501);
        failed(&peer.load(1, ModelForm::Source, &[("model.onnx", &memory_file(&bytes))]), FailureKind::Model);
        failed(&peer.load(1, ModelForm::Optimised, &[("model.ort", &memory_file(&bytes))]), FailureKind::Model);
    }
    // The sizes and the number of files are the node's word.
    let load = ToWorker::Load {
        task: TASK,
        replica: ReplicaId(1),
        form: ModelForm::Source,
        files: vec![tenantry_wire::FileEntry { name: "model.onnx".to_owned(), bytes: 10 }],
        options: tenantry_types::model::EngineOptions::default(),
        limits: tenantry_types::model::ModelLimits::default(),
    };
    peer.send(&load, &[memory_file(b"123456789").as_fd()]);
    failed(&peer.recv(), FailureKind::Resource);
    peer.send(&load, &[]);
    failed(&peer.recv(), FailureKind::Resource);
}

#[test]
fn external_data_is_what_came_along_and_nothing_else() {
    let (spawner, _exits) = start_spawner();
    let mut peer = Peer::ready(&spawner);
    let (model, weights) = onnx::external_matmul16("parts/weights.bin");
    let (model, weights) = (memory_file(&model), memory_file(&weights));
    let (registration, optimised) = peer.register(&[("model.onnx", &model), ("parts/weights.bin", &weights)]).unwrap();
    assert!(registration.profile.single_run().is_some());
    peer.arena(1, 4096, 4096);
    // The optimised form carries the weights.
    let loaded = peer.load(1, ModelForm::Optimised, &[("model.ort", &optimised)]);
    assert!(matches!(loaded, FromWorker::Loaded { .. }), "{loaded:?}");
    let data = floats(&[4.0; 16]);
    assert_eq!(peer.run(1, &[(DataType::Fp32, &[1, 16], &data)])[0].1, floats(&[8.0; 16]));

    // Without them it looks for the file in its working directory, which is empty, wherever the name leads.
    for name in ["parts/weights.bin", "etc/passwd", "../etc/passwd", "/etc/passwd", "proc/self/environ"] {
        let (model, _) = onnx::external_matmul16(name);
        let (kind, message) = peer.register(&[("model.onnx", &memory_file(&model))]).unwrap_err();
        assert_eq!(kind, FailureKind::Model, "{name}: {message}");
    }
}

#[test]
fn running_out_of_memory_is_an_answer() {
    let (spawner, _exits) = start_spawner();
    let spec = tenantry_jail::WorkerSpec { address_space_bytes: Some(2 << 30), ..spec() };
    let mut peer = Peer::spawn(&spawner, &spec);
    assert!(matches!(peer.recv(), FromWorker::Ready { .. }));
    peer.arena(1, 4096, 4096);
    peer.load(1, ModelForm::Source, &[("model.onnx", &memory_file(&onnx::expand()))]);
    peer.send_run(1, &[(DataType::Int64, &[1], &longs(&[1 << 30]))]);
    failed(&peer.recv(), FailureKind::Resource);
    assert_eq!(peer.run(1, &[(DataType::Int64, &[1], &longs(&[1]))])[0].1, floats(&[1.0]));
}
