use std::io::Write as _;
use std::os::fd::AsFd;

use tenantry_types::testing::{cache, onnx};

use super::*;

fn runtime() -> Runtime {
    Runtime::open(&cache::runtime_library()).unwrap()
}

fn source(form: Form, bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Source {
    Source { form, model: Arc::new(bytes), external: Vec::new() }
}

fn refused(bytes: Vec<u8>) -> LoadError {
    runtime().load(&source(Form::Source, bytes), &EngineOptions::default()).err().unwrap()
}

fn answer(model: &mut Model) -> Vec<u8> {
    let data: Vec<u8> = (0..16).flat_map(|_| 1.5_f32.to_le_bytes()).collect();
    let input = crate::InputTensor { index: 0, datatype: tenantry_types::DataType::Fp32, shape: &[1, 16], data: &data };
    model.run(&[input], &[]).unwrap().iter().next().unwrap().to_vec().unwrap()
}

#[test]
fn one_runtime_a_process() {
    let first = runtime();
    assert_eq!(first.version(), cache::RUNTIME_VERSION);
    assert!(first.cpu().starts_with(std::env::consts::ARCH));
    assert!(std::ptr::eq(first.inner, runtime().inner));
    // Whatever comes after the first is refused before it is looked at.
    let other = tempfile::NamedTempFile::new().unwrap();
    assert!(matches!(Runtime::open(other.path()), Err(RuntimeError::AlreadyOpen(_))));
    assert!(matches!(Runtime::open(Path::new("/nowhere")), Err(RuntimeError::NotFound(_))));
}

#[test]
fn a_library_must_be_whole() {
    let library = std::fs::read(cache::runtime_library()).unwrap();
    let check = |bytes: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        check_whole(&file)
    };
    assert_eq!(check(&library), Ok(()));
    assert!(matches!(check(&library[..library.len() / 2]), Err(ElfError::Truncated { .. })));
    assert!(matches!(check(&library[..library.len() - 1]), Err(ElfError::Truncated { .. })));
    for bytes in [&b""[..], b"#!/bin/sh", &[0; 100], &library[..60]] {
        assert_eq!(check(bytes), Err(ElfError::NotElf));
    }
}

#[test]
fn hostile_and_broken_files_are_refused_with_a_clean_reason() {
    for bytes in [vec![], b"{}".to_vec(), vec![255; 1000], onnx::matmul16()[..100].to_vec()] {
        let error = refused(bytes);
        assert!(matches!(error, LoadError::Refused(_)), "{error}");
    }
    let text = refused(onnx::unknown_operator()).to_string();
    assert!(text.contains("Foo") && !text.contains(['\n', '\u{1b}']), "{text}");
    let text = refused(onnx::sequence_output()).to_string();
    assert!(text.contains("output `s` is not a tensor"), "{text}");
}

#[test]
fn external_data_comes_from_memory_by_its_name() {
    let (model, weights) = onnx::external_matmul16("weights/w.bin");
    let load = |external: Vec<(&str, Vec<u8>)>| {
        let external = external.into_iter().map(|(name, bytes)| (name.to_owned(), Arc::new(bytes) as SharedBytes));
        let source = Source { external: external.collect(), ..source(Form::Source, model.clone()) };
        runtime().load(&source, &EngineOptions::default())
    };
    let mut loaded = load(vec![("weights/w.bin", weights.clone())]).unwrap();
    assert_eq!(answer(&mut loaded), 3.0_f32.to_le_bytes().repeat(16));
    assert!(load(vec![]).is_err());
    assert!(load(vec![("other.bin", weights.clone())]).is_err());
    assert!(load(vec![("weights/w.bin", weights[..100].to_vec())]).is_err());
    for name in ["/etc/passwd", "../w.bin", "weights/../../w.bin", "", ".", "a//b", "a\\b", "a\0b"] {
        let error = load(vec![(name, weights.clone())]).err().unwrap();
        assert!(error.to_string().contains("external data"), "{name}: {error}");
    }
}

#[test]
fn the_optimised_form_gives_the_same_answers_and_keeps_its_bytes() {
    let (model, weights) = onnx::external_matmul16("w.bin");
    let external = vec![("w.bin".to_owned(), Arc::new(weights) as SharedBytes)];
    let options = EngineOptions::default();
    let plain = source(Form::Source, onnx::matmul16());
    for source in [plain, Source { external, ..source(Form::Source, model) }] {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 100_000]).unwrap();
        let written = runtime().optimise(&source, &options, file.as_fd()).unwrap();
        let mut bytes = vec![0; usize::try_from(written).unwrap()];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).unwrap();
        let bytes: SharedBytes = Arc::new(bytes);
        let optimised = Source { form: Form::Optimised, model: Arc::clone(&bytes), external: Vec::new() };
        for prepack in [true, false] {
            let options = EngineOptions { prepack, ..options.clone() };
            let mut loaded = runtime().load(&optimised, &options).unwrap();
            assert_eq!(answer(&mut loaded), 3.0_f32.to_le_bytes().repeat(16));
            assert_eq!(loaded.signature(), runtime().load(&source, &options).unwrap().signature());
            assert_eq!(Arc::strong_count(&bytes), 3);
        }
        assert_eq!(Arc::strong_count(&bytes), 2);
    }
}

#[test]
fn threads_options_and_unknown_optimizers_are_accepted() {
    let options = EngineOptions {
        threads: 2,
        disabled_optimizers: vec!["GatherToSliceFusion".to_owned(), "NoSuchThing".to_owned()],
        ..EngineOptions::default()
    };
    let mut loaded = runtime().load(&source(Form::Source, onnx::matmul16()), &options).unwrap();
    assert_eq!(answer(&mut loaded), 3.0_f32.to_le_bytes().repeat(16));
}

/// What a fresh process says when it opens `library`: there is one runtime a process, so each failure needs its own.
fn opening(library: &Path, telemetry: &str) -> String {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "runtime::tests::child_that_opens_a_library", "--ignored", "--nocapture"])
        .env("TENANTRY_TEST_LIBRARY", library)
        .env("ORT_DISABLE_TELEMETRY", telemetry)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "run by the tests below, in a process of its own"]
fn child_that_opens_a_library() {
    let library = std::env::var_os("TENANTRY_TEST_LIBRARY").unwrap();
    match Runtime::open(Path::new(&library)) {
        Ok(runtime) => println!("opened {}", runtime.version()),
        Err(error) => println!("refused: {error}"),
    }
}

#[test]
fn each_wrong_library_has_its_own_words() {
    let folder = tempfile::tempdir().unwrap();
    let library = std::fs::read(cache::runtime_library()).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    assert!(opening(&cache::runtime_library(), "1").contains("opened 1.31.1"));
    assert!(opening(&cache::runtime_library(), "0").contains("phone home"));
    assert!(opening(Path::new("/nowhere/lib.so"), "1").contains("no ONNX Runtime library"));
    assert!(opening(&file("short.so", &library[..1 << 20]), "1").contains("truncated"));
    assert!(opening(&file("text.so", &[b'#'; 5000]), "1").contains("not a 64-bit shared library"));
    let other = std::fs::read_to_string("/proc/self/maps").unwrap();
    let other = other.lines().find_map(|line| line.split_whitespace().last().filter(|path| path.contains("libc.so")));
    assert!(opening(Path::new(other.unwrap()), "1").contains("is not the ONNX Runtime library"));
}
