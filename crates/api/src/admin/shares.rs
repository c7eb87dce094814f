//! Shares and limits of tenants, of the deployments they call, and of their keys.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use tenantry_server::admin::SharePlace;
use tenantry_types::{ModelName, ModelRef, TenantName};
use utoipa::IntoParams;

use super::AdminState;
use super::convert::all;
use super::extract::{Caller, Given, Names, Refusal};
use super::keys::KeyPath;
use super::tenants::TenantPath;
use super::types::{ErrorBody, Share, ShareChange, Shares};

/// The path of a deployment as a tenant calls it.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct DeploymentPath {
    /// The tenant that calls it.
    #[param(value_type = String)]
    tenant: TenantName,
    /// The owner of its model: the tenant itself, or one that shares it.
    #[param(value_type = String)]
    owner: TenantName,
    /// The model's name.
    #[param(value_type = String)]
    model: ModelName,
}

impl From<DeploymentPath> for SharePlace {
    fn from(path: DeploymentPath) -> Self {
        Self::Deployment { tenant: path.tenant, model: ModelRef { owner: Some(path.owner), name: path.model } }
    }
}

impl From<KeyPath> for SharePlace {
    fn from(path: KeyPath) -> Self {
        Self::Key { tenant: path.tenant, key: path.key }
    }
}

/// A tenant's share and limits, and those of its deployments and keys that have some.
#[utoipa::path(get, path = "/admin/v1/tenants/{tenant}/shares", tag = "shares", operation_id = "list_shares",
    params(TenantPath),
    responses((status = 200, body = Shares, description = "The settings, and what holds in the end."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn list(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<TenantPath>,
) -> Result<Json<Shares>, Refusal> {
    Ok(Json(Shares { shares: all(state.server.shares(&caller, &path.tenant)?) }))
}

/// A tenant's share and limits.
#[utoipa::path(get, path = "/admin/v1/tenants/{tenant}/share", tag = "shares", operation_id = "show_tenant_share",
    params(TenantPath),
    responses((status = 200, body = Share, description = "Its settings, and what holds in the end."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn tenant(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<TenantPath>,
) -> Result<Json<Share>, Refusal> {
    Ok(Json(state.server.share(&caller, &SharePlace::Tenant(path.tenant))?.into()))
}

/// Set a tenant's share and limits, as a whole; 409 with the arithmetic if the reservations do not fit the slots.
/// Platform administrators only.
#[utoipa::path(put, path = "/admin/v1/tenants/{tenant}/share", tag = "shares", operation_id = "set_tenant_share",
    params(TenantPath), request_body = ShareChange,
    responses((status = 200, body = Share, description = "Its settings, and what holds in the end."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn set_tenant(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<TenantPath>,
    Given(change): Given<ShareChange>,
) -> Result<Json<Share>, Refusal> {
    let place = SharePlace::Tenant(path.tenant);
    Ok(Json(state.server.set_share(&caller, &place, change.try_into()?).await?.into()))
}

/// The share and limits of a deployment as one tenant calls it.
#[utoipa::path(get, path = "/admin/v1/tenants/{tenant}/deployments/{owner}/{model}/share", tag = "shares", operation_id = "show_deployment_share",
    params(DeploymentPath),
    responses((status = 200, body = Share, description = "Its settings, and what holds in the end."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn deployment(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<DeploymentPath>,
) -> Result<Json<Share>, Refusal> {
    Ok(Json(state.server.share(&caller, &path.into())?.into()))
}

/// Set the share and limits of a deployment as one tenant calls it. A tenant's administrator divides what the tenant has.
#[utoipa::path(put, path = "/admin/v1/tenants/{tenant}/deployments/{owner}/{model}/share", tag = "shares", operation_id = "set_deployment_share",
    params(DeploymentPath), request_body = ShareChange,
    responses((status = 200, body = Share, description = "Its settings, and what holds in the end."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn set_deployment(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<DeploymentPath>,
    Given(change): Given<ShareChange>,
) -> Result<Json<Share>, Refusal> {
    Ok(Json(state.server.set_share(&caller, &path.into(), change.try_into()?).await?.into()))
}

/// A key's share and limits.
#[utoipa::path(get, path = "/admin/v1/tenants/{tenant}/keys/{key}/share", tag = "shares", operation_id = "show_key_share",
    params(KeyPath),
    responses((status = 200, body = Share, description = "Its settings, and what holds in the end."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn key(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<KeyPath>,
) -> Result<Json<Share>, Refusal> {
    Ok(Json(state.server.share(&caller, &path.into())?.into()))
}

/// Set a key's share and limits. A tenant's administrator divides what the tenant has.
#[utoipa::path(put, path = "/admin/v1/tenants/{tenant}/keys/{key}/share", tag = "shares", operation_id = "set_key_share",
    params(KeyPath), request_body = ShareChange,
    responses((status = 200, body = Share, description = "Its settings, and what holds in the end."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn set_key(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<KeyPath>,
    Given(change): Given<ShareChange>,
) -> Result<Json<Share>, Refusal> {
    Ok(Json(state.server.set_share(&caller, &path.into(), change.try_into()?).await?.into()))
}
