//! The server itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::HeaderName;
use http::header::CONTENT_TYPE;

use super::AdminState;
use super::extract::{Caller, Refusal};
use super::types::{ErrorBody, Status};
use crate::metrics::OPENMETRICS;

/// A response of a type known at compile time.
type Text<T> = ([(HeaderName, &'static str); 1], T);

/// The server at a glance. Platform administrators only.
#[utoipa::path(get, path = "/admin/v1/status", tag = "server", operation_id = "status",
    responses((status = 200, body = Status, description = "What it is doing."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn status(State(state): State<AdminState>, Caller(caller): Caller) -> Result<Json<Status>, Refusal> {
    Ok(Json(state.server.status(&caller)?.into()))
}

/// The metrics of all tenants, for Prometheus. Platform administrators only.
#[utoipa::path(get, path = "/admin/v1/metrics", tag = "server", operation_id = "metrics",
    responses((status = 200, body = String, content_type = "application/openmetrics-text", description = "OpenMetrics text."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn metrics(State(state): State<AdminState>, Caller(caller): Caller) -> Result<Text<String>, Refusal> {
    Ok(([(CONTENT_TYPE, OPENMETRICS)], state.server.admin_metrics_text(&caller)?))
}

/// This document.
#[utoipa::path(get, path = "/admin/v1/openapi.json", tag = "server", operation_id = "openapi",
    responses((status = 200, body = String, content_type = "application/json", description = "OpenAPI."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn document(State(state): State<AdminState>, _: Caller) -> Text<String> {
    ([(CONTENT_TYPE, "application/json")], Arc::clone(&state.document).to_string())
}
