//! The server itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::HeaderName;
use http::header::CONTENT_TYPE;

use super::AdminState;
use super::extract::{Caller, Given, Refusal};
use super::types::{ErrorBody, SchedulerPolicy, Status};
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

/// How it is chosen what runs next. Platform administrators only.
#[utoipa::path(get, path = "/admin/v1/system/policy", tag = "server", operation_id = "show_policy",
    responses((status = 200, body = SchedulerPolicy, description = "The scheduler's policy."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn policy(
    State(state): State<AdminState>,
    Caller(caller): Caller,
) -> Result<Json<SchedulerPolicy>, Refusal> {
    Ok(Json(state.server.policy(&caller)?.into()))
}

/// Switch how it is chosen what runs next, until the server ends. Platform administrators only.
#[utoipa::path(put, path = "/admin/v1/system/policy", tag = "server", operation_id = "set_policy",
    request_body = SchedulerPolicy,
    responses((status = 200, body = SchedulerPolicy, description = "The scheduler's policy."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn set_policy(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Given(wanted): Given<SchedulerPolicy>,
) -> Result<Json<SchedulerPolicy>, Refusal> {
    Ok(Json(state.server.set_policy(&caller, wanted.policy.into()).await?.into()))
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
