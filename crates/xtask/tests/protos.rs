//! What is generated from the protocol's `.proto` file is checked in, so that nobody who only builds needs a compiler for
//! it; this test is that compiler. `UPDATE_REFERENCE=1` rewrites what it finds stale.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use prost::Message as _;

fn codec() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../oip")
}

#[test]
fn the_generated_messages_are_those_of_the_proto_file() {
    let described = protox::compile(["inference.proto"], [codec().join("proto")]).unwrap();
    let fresh = tempfile::tempdir().unwrap();
    let mut config = prost_build::Config::new();
    config.bytes(["."]).btree_map(["."]).out_dir(fresh.path());
    config.compile_fds(described.clone()).unwrap();
    // Comments and positions are for readers of the file, not for clients.
    let mut bare = described;
    bare.file.iter_mut().for_each(|file| file.source_code_info = None);
    std::fs::write(fresh.path().join("inference.bin"), bare.encode_to_vec()).unwrap();

    let committed = codec().join("src/grpc/proto");
    for name in ["inference.rs", "inference.bin"] {
        let generated = std::fs::read(fresh.path().join(name)).unwrap();
        let path = committed.join(name);
        if std::env::var_os("UPDATE_REFERENCE").is_some() {
            std::fs::write(&path, &generated).unwrap();
        }
        let stale = std::fs::read(&path).ok() != Some(generated);
        assert!(!stale, "{name} is stale: run this test with UPDATE_REFERENCE=1");
    }
}
