//! Tenants.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use tenantry_types::TenantName;
use utoipa::IntoParams;

use super::AdminState;
use super::convert::all;
use super::extract::{Caller, Given, Names, Refusal};
use super::types::{ErrorBody, NewTenant, Tenant, TenantChange, Tenants};

/// The path of a tenant.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct TenantPath {
    /// The tenant's name.
    #[param(value_type = String)]
    pub(super) tenant: TenantName,
}

/// Every tenant for the platform's administrators; for everybody else their own.
#[utoipa::path(get, path = "/admin/v1/tenants", tag = "tenants", operation_id = "list_tenants",
    responses((status = 200, body = Tenants, description = "The tenants."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn list(State(state): State<AdminState>, Caller(caller): Caller) -> Result<Json<Tenants>, Refusal> {
    Ok(Json(Tenants { tenants: all(state.server.tenants(&caller)) }))
}

/// Create a tenant. Platform administrators only.
#[utoipa::path(post, path = "/admin/v1/tenants", tag = "tenants", operation_id = "create_tenant",
    request_body = NewTenant,
    responses((status = 201, body = Tenant, description = "The tenant."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn create(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Given(new): Given<NewTenant>,
) -> Result<(StatusCode, Json<Tenant>), Refusal> {
    let tenant = state.server.create_tenant(&caller, &new.name).await?;
    Ok((StatusCode::CREATED, Json(tenant.into())))
}

/// One tenant.
#[utoipa::path(get, path = "/admin/v1/tenants/{tenant}", tag = "tenants", operation_id = "show_tenant",
    params(TenantPath),
    responses((status = 200, body = Tenant, description = "The tenant."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn show(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<TenantPath>,
) -> Result<Json<Tenant>, Refusal> {
    Ok(Json(state.server.tenant(&caller, &path.tenant)?.into()))
}

/// Change how well a tenant's workers must be kept apart; absent fields stay. What runs below a raised minimum is ended.
#[utoipa::path(patch, path = "/admin/v1/tenants/{tenant}", tag = "tenants", operation_id = "update_tenant",
    params(TenantPath), request_body = TenantChange,
    responses((status = 200, body = Tenant, description = "The tenant."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn update(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<TenantPath>,
    Given(change): Given<TenantChange>,
) -> Result<Json<Tenant>, Refusal> {
    Ok(Json(state.server.update_tenant(&caller, &path.tenant, change.into()).await?.into()))
}

/// Delete a tenant with its keys, models and artefacts. Platform administrators only.
#[utoipa::path(delete, path = "/admin/v1/tenants/{tenant}", tag = "tenants", operation_id = "delete_tenant",
    params(TenantPath),
    responses((status = 204, description = "It is gone."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn delete(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<TenantPath>,
) -> Result<StatusCode, Refusal> {
    state.server.delete_tenant(&caller, &path.tenant).await?;
    Ok(StatusCode::NO_CONTENT)
}
