//! What the tests of several crates share. Behind the feature `testing`; never in a shipped binary.

pub mod cache;
pub mod onnx;
mod protobuf;
