//! The protocol's messages, generated from `proto/inference.proto`. Inferences are read and written without them: see
//! [`super::RequestParts`].

#![expect(missing_docs, clippy::all, reason = "generated: what there is to say is in the .proto file")]

#[path = "proto/inference.rs"]
#[rustfmt::skip]
mod generated;

pub use generated::*;

/// The file's descriptor, for the reflection service.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!("proto/inference.bin");
