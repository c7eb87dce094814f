//! API keys.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use tenantry_types::{KeyId, TenantName};
use utoipa::IntoParams;

use super::AdminState;
use super::convert::all;
use super::extract::{Caller, Given, Names, Refusal};
use super::tenants::TenantPath;
use super::types::{CreatedKey, ErrorBody, KeyRotation, Keys, NewKey};

/// How long a replaced key is accepted where nobody says it: long enough to change a deployment's secrets, short enough for one
/// that leaked a little.
const OVERLAP: Duration = Duration::from_secs(24 * 3_600);

/// The path of a key.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct KeyPath {
    /// The tenant's name.
    #[param(value_type = String)]
    pub(super) tenant: TenantName,
    /// The key's id.
    #[param(value_type = String)]
    pub(super) key: KeyId,
}

/// A tenant's keys, without their secrets.
#[utoipa::path(get, path = "/admin/v1/tenants/{tenant}/keys", tag = "keys", operation_id = "list_keys",
    params(TenantPath),
    responses((status = 200, body = Keys, description = "The keys."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn list(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<TenantPath>,
) -> Result<Json<Keys>, Refusal> {
    Ok(Json(Keys { keys: all(state.server.keys(&caller, &path.tenant).await?) }))
}

/// Make a key. The answer is the only place its secret is ever shown.
#[utoipa::path(post, path = "/admin/v1/tenants/{tenant}/keys", tag = "keys", operation_id = "create_key",
    params(TenantPath), request_body = NewKey,
    responses((status = 201, body = CreatedKey, description = "The key with its secret."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn create(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<TenantPath>,
    Given(new): Given<NewKey>,
) -> Result<(StatusCode, Json<CreatedKey>), Refusal> {
    let created = state.server.create_key(&caller, &path.tenant, new.into()).await?;
    Ok((StatusCode::CREATED, Json(created.into())))
}

/// Replace a key by a new one that may do the same. The old one is accepted for a while, so that its holders can change over.
#[utoipa::path(post, path = "/admin/v1/tenants/{tenant}/keys/{key}/rotate", tag = "keys", operation_id = "rotate_key",
    params(KeyPath), request_body = KeyRotation,
    responses((status = 201, body = CreatedKey, description = "The new key with its secret."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn rotate(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<KeyPath>,
    Given(rotation): Given<KeyRotation>,
) -> Result<(StatusCode, Json<CreatedKey>), Refusal> {
    let overlap = rotation.overlap_seconds.map_or(OVERLAP, Duration::from_secs);
    let expires_in = rotation.expires_in_seconds.map(Duration::from_secs);
    let created = state.server.rotate_key(&caller, &path.tenant, path.key, overlap, expires_in).await?;
    Ok((StatusCode::CREATED, Json(created.into())))
}

/// Revoke a key, effective at once.
#[utoipa::path(delete, path = "/admin/v1/tenants/{tenant}/keys/{key}", tag = "keys", operation_id = "revoke_key",
    params(KeyPath),
    responses((status = 204, description = "It works no more."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn revoke(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<KeyPath>,
) -> Result<StatusCode, Refusal> {
    state.server.revoke_key(&caller, &path.tenant, path.key).await?;
    Ok(StatusCode::NO_CONTENT)
}
