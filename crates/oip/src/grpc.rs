//! The gRPC form of the protocol: a `ModelInferRequest` to a request, an answer to a `ModelInferResponse`, and the five
//! bytes that gRPC puts in front of each message.
//!
//! Raw contents are never copied while decoding: they stay the chain of buffers they were received in. Typed contents
//! become a tensor's bytes in one pass. Whatever repeats is counted before anything is made of it, since two bytes of a
//! message may ask for a sub-message.

mod contents;
mod framed;
pub mod proto;
mod request;
mod response;
mod wire;

pub use framed::{PREFIX_BYTES, Prefix, framed};
pub use request::{DecodedCall, RequestParts};
pub use response::{Envelope, encode_response, encode_stream_error};
pub use wire::WireError;
