//! The gRPC edge: the Open Inference Protocol's service with Triton's extensions, and the standard health and reflection
//! services.
//!
//! The order of work is the HTTP edge's: authenticate and admit from the metadata alone, read the message as a chain of
//! buffers under a size and a time limit, and only then decode. gRPC names the model inside the message, so admission has
//! two steps: by tenant and key before the message is read, by the deployment's own limits before its tensors are decoded.
//!
//! The messages of inference are read and written here and in `tenantry-oip`, not by tonic: its way joins every message into
//! one buffer, decodes it on the reactor's thread, and makes structs of whatever repeats before anybody can count it. The
//! standard services, whose messages are a few bytes, are tonic's.

mod body;
mod call;
mod convert;
mod infer;
mod messages;
mod reply;
mod service;
mod standard;
mod stream;

pub(crate) use call::answer;
pub(crate) use standard::Standard;
