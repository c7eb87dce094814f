//! Where tests find what `make fetch` has fetched. A test that needs it and does not find it fails; it never skips.

use std::path::{Path, PathBuf};

/// The version of the runtime library that everything is tested with.
pub const RUNTIME_VERSION: &str = "1.31.1";

/// The runtime library: `TENANTRY_ONNXRUNTIME`, or the one in the cache folder.
#[expect(clippy::panic, reason = "a test without its library must fail, and say what to do")]
pub fn runtime_library() -> PathBuf {
    if let Some(path) = std::env::var_os("TENANTRY_ONNXRUNTIME") {
        return path.into();
    }
    let path = folder().join(format!("onnxruntime/{RUNTIME_VERSION}/libonnxruntime.so.{RUNTIME_VERSION}"));
    if !path.is_file() {
        panic!("there is no ONNX Runtime library in the cache folder; run `make fetch`");
    }
    path
}

/// A real model by package and file name, e.g. `magika`, `model.onnx`.
#[expect(clippy::panic, reason = "a test without its model must fail, and say what to do")]
pub fn model(package: &str, file: &str) -> PathBuf {
    let path = folder().join("models").join(package).join(file);
    if !path.is_file() {
        panic!("the model {package}/{file} is not in the cache folder; run `make fetch`");
    }
    path
}

/// The cache folder at the root of the checkout.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache")
}
