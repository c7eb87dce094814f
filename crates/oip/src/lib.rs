//! The codecs of the Open Inference Protocol v2 and of its kin ([`generate`], [`predict`]): bytes in, requests out, and back.
//!
//! Pure functions over values: no IO, no clock, no async, no HTTP types. The shapes follow "Open Inference Protocol,
//! REST" and its binary tensor data extension (a JSON header followed by the tensors, little-endian, row-major, in the
//! order the header lists them). What is decided here where the specifications are silent:
//!
//! - Binary tensor data is never copied while decoding: it stays the chain of buffers it was received in. Only the JSON
//!   header is made contiguous.
//! - `data` may be flat or nested; brackets carry no meaning beyond the order of the elements, but may not be deeper
//!   than the tensor's rank.
//! - `FP16` and `BF16` have no JSON form, and neither have NaN and infinities: both directions refuse them and name the
//!   binary form as the way.
//! - Floats are written in their shortest form that reads back to the same value.
//! - Everything is bounded: inputs, outputs and parameters by count, names and ids by length, nesting by depth, decoded
//!   data by four times the JSON it came from.

#![forbid(unsafe_code)]

mod client;
pub mod compression;
mod elements;
mod error;
mod framing;
pub mod generate;
pub mod grpc;
mod header;
mod json_out;
pub mod limits;
mod parameters;
pub mod predict;
mod request;
mod response;
mod values;

pub use client::{decode_response, encode_request};
pub use error::{DecodeError, EncodeError, Place, TensorKind, TensorProblem};
pub use request::{DecodedRequest, decode_request};
pub use response::{Encoded, Form, ReplyFormat, encode_response};
