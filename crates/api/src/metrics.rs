//! The metrics listener: `/metrics` for Prometheus, without a key; it belongs on a private network.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode};

use crate::reply::{self, Reply};
use crate::request_body::RequestBody;
use crate::route::Edge;

/// The OpenMetrics text format.
pub(crate) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves a request on the metrics listener.
pub(crate) fn serve(edge: &Edge, request: &Request<RequestBody>) -> Reply {
    let id = edge.server.new_request_id();
    match (request.uri().path(), request.method()) {
        ("/metrics", &Method::GET | &Method::HEAD) => {
            let text = Bytes::from(edge.server.metrics_text());
            reply::with_type(StatusCode::OK, HeaderValue::from_static(OPENMETRICS), text)
        }
        ("/metrics", _) => reply::method_not_allowed("GET, HEAD", &id),
        _ => reply::not_found(&id),
    }
}
