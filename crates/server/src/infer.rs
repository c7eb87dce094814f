//! The one path.
use std::sync::Arc;
use std::time::Duration;
use tenantry_types::{InferResponse, ModelRef, RequestId, Signature};

/// Where a request's time went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timing {
    /// From submission to dispatch.
    pub queue_wait: Duration,
    /// This request's share of the batch's slot time.
    pub device_time: Duration,
    /// The whole batch's slot time.
    pub batch_time: Duration,
    /// Rows in the batch.
    pub batch_rows: u32,
}

/// An answer with what it took.
#[derive(Debug, Clone, PartialEq)]
pub struct Inferred {
    /// The answer.
    pub response: InferResponse,
    /// Where the time went.
    pub timing: Timing,
    /// The request's id, as given to [`crate::Server::infer`].
    pub request: RequestId,
}

/// What a client may know of a model before it calls it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelMetadata {
    /// As the caller named it.
    pub name: ModelRef,
    /// The numbers of the versions that can be served, ascending.
    pub versions: Vec<String>,
    /// The protocol's word for engine and format.
    pub platform: &'static str,
    /// Inputs and outputs of the version asked for.
    pub signature: Arc<Signature>,
    /// The most rows of one batch; 1: requests are not joined.
    pub max_batch: u32,
}

/// Whether a model would be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelReadiness {
    /// As the caller named it.
    pub name: ModelRef,
    /// Whether it would be served now: loaded, or loadable on demand.
    pub ready: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// One model the caller may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSummary {
    /// The name that works for this caller: `name` for his own, `owner/name` for shared ones.
    pub name: ModelRef,
    /// Whether a deployed version could be served.
    pub ready: bool,
}
