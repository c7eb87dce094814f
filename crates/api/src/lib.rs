//! The edges: over HTTP the Open Inference Protocol under `/v2`, TensorFlow Serving's and KServe's older ones and OpenAI's
//! under `/v1`, TorchServe's `/predictions`, the admin API under `/admin/v1`, and the metrics listener; the Open Inference
//! Protocol's gRPC form on a listener of its own.
//! They convert and call [`tenantry_server::Server`]; whatever is decided is decided there.
//!
//! The order of work on the one path, for an inference: authenticate and admit from headers alone (a refusal reads no
//! body), collect the body as a chain of buffers under a size and a time limit, inflate and decode it, call the server,
//! encode (module `flow`, one for all dialects). A client that goes away drops the future, and that cancels the request.
//!
//! The connection loop is our own ([`serve`]): every limit on what a network peer may hold is set in one place.

#![forbid(unsafe_code)]

pub mod admin;
mod body;
mod budget;
mod caller;
mod connection;
mod document;
mod encoding;
mod explain;
mod flow;
mod grpc;
mod http1;
mod http2;
mod infer;
mod linger;
mod metrics;
mod oauth;
mod openai;
mod path;
mod pool;
mod reply;
mod request_body;
mod route;
mod serve;
mod stream;
mod tls;
mod v1;
mod v2;

pub use document::inference_openapi;
pub use serve::{BindError, Listeners, serve};
pub use tls::{Tls, TlsError};
