//! The audit trail.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use tenantry_server::admin::AuditQuery;
use utoipa::IntoParams;

use super::AdminState;
use super::convert::all;
use super::extract::{Asked, Caller, Names, Refusal};
use super::tenants::TenantPath;
use super::types::{Audit, AuditVerification, ErrorBody};

/// Which records to read.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// Not those from before, milliseconds since the Unix epoch.
    since_ms: Option<i64>,
    /// Only those before this one: the `sequence` of the last one of the page before.
    before: Option<u64>,
    /// Only those after this one, and the oldest first: the `sequence` of the last one of the page before, 0 for the first.
    after: Option<u64>,
    /// The most records of the answer, at most 1000.
    limit: Option<u32>,
}

impl From<Page> for AuditQuery {
    fn from(page: Page) -> Self {
        let Page { since_ms, before, after, limit } = page;
        Self { since_ms, before, after, limit }
    }
}

/// What was done to everybody's things and what happened to them, the newest first. Platform administrators only.
#[utoipa::path(get, path = "/admin/v1/audit", tag = "audit", operation_id = "list_audit",
    params(Page),
    responses((status = 200, body = Audit, description = "The records."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn list(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Asked(page): Asked<Page>,
) -> Result<Json<Audit>, Refusal> {
    Ok(Json(Audit { records: all(state.server.audit_of_all(&caller, page.into()).await?) }))
}

/// What was done to a tenant's things and what happened to them, the newest first. Its administrators only.
#[utoipa::path(get, path = "/admin/v1/tenants/{tenant}/audit", tag = "audit", operation_id = "list_tenant_audit",
    params(TenantPath, Page),
    responses((status = 200, body = Audit, description = "The records."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn tenant(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<TenantPath>,
    Asked(page): Asked<Page>,
) -> Result<Json<Audit>, Refusal> {
    Ok(Json(Audit { records: all(state.server.audit(&caller, &path.tenant, page.into()).await?) }))
}

/// Whether the trail of the whole server is what was written: follows the chain of hashes from the oldest record that is kept
/// to the newest. Platform administrators only.
#[utoipa::path(get, path = "/admin/v1/audit/verification", tag = "audit", operation_id = "verify_audit",
    responses((status = 200, body = AuditVerification, description = "What was found."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn verify(
    State(state): State<AdminState>,
    Caller(caller): Caller,
) -> Result<Json<AuditVerification>, Refusal> {
    Ok(Json(state.server.verify_audit(&caller).await?.into()))
}
