//! Encryption at rest.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::AdminState;
use super::extract::{Asked, Caller, Given, Names, Refusal};
use super::tenants::TenantPath;
use super::types::{Encryption, EncryptionJob, ErrorBody, RekeyRequest, TenantEncryption};

/// Whether to wait.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Waiting {
    /// Answer once the job has ended, or after this many milliseconds (60000 at most).
    wait_ms: Option<u64>,
}

/// How files are encrypted. Platform administrators only.
#[utoipa::path(get, path = "/admin/v1/encryption", tag = "encryption", operation_id = "show_encryption",
    responses((status = 200, body = Encryption, description = "Keys, and the last job."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn show(State(state): State<AdminState>, Caller(caller): Caller) -> Result<Json<Encryption>, Refusal> {
    Ok(Json(state.server.encryption(&caller).await?.into()))
}

/// The rotation of the master key or the rekey that runs, or the last one. Platform administrators only.
#[utoipa::path(get, path = "/admin/v1/encryption/job", tag = "encryption", operation_id = "show_encryption_job",
    params(Waiting),
    responses((status = 200, body = EncryptionJob, description = "How far it is."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn job(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Asked(waiting): Asked<Waiting>,
) -> Result<Json<EncryptionJob>, Refusal> {
    let wait = waiting.wait_ms.map(Duration::from_millis);
    Ok(Json(state.server.encryption_job(&caller, wait).await?.into()))
}

/// Write files anew that are not encrypted with their tenant's newest key, and remove the older keys. Files can be read and
/// written meanwhile; one job runs at a time. Platform administrators only.
#[utoipa::path(post, path = "/admin/v1/encryption/rekey", tag = "encryption", operation_id = "rekey",
    request_body = RekeyRequest,
    responses((status = 202, body = EncryptionJob, description = "The job, which has begun."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn rekey(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Given(wanted): Given<RekeyRequest>,
) -> Result<(StatusCode, Json<EncryptionJob>), Refusal> {
    Ok((StatusCode::ACCEPTED, Json(state.server.rekey(&caller, wanted.tenant).await?.into())))
}

/// Make a new master key, where its keeper makes one, and wrap the tenants' keys anew; no file is written. Platform
/// administrators only.
#[utoipa::path(post, path = "/admin/v1/encryption/master-key/rotation", tag = "encryption", operation_id = "rotate_master_key",
    responses((status = 202, body = EncryptionJob, description = "The job, which has begun."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn rotate_master_key(
    State(state): State<AdminState>,
    Caller(caller): Caller,
) -> Result<(StatusCode, Json<EncryptionJob>), Refusal> {
    Ok((StatusCode::ACCEPTED, Json(state.server.rotate_master_key(&caller).await?.into())))
}

/// How a tenant's files are encrypted. Its administrators only.
#[utoipa::path(get, path = "/admin/v1/tenants/{tenant}/encryption", tag = "encryption", operation_id = "show_tenant_encryption",
    params(TenantPath),
    responses((status = 200, body = TenantEncryption, description = "Its keys and files."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn tenant(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<TenantPath>,
) -> Result<Json<TenantEncryption>, Refusal> {
    Ok(Json(state.server.tenant_encryption(&caller, &path.tenant).await?.into()))
}

/// Make a new key for what a tenant's files are encrypted with from now on. What is there stays readable; a rekey writes it
/// anew. Its administrators only.
#[utoipa::path(post, path = "/admin/v1/tenants/{tenant}/encryption/rotation", tag = "encryption", operation_id = "rotate_tenant_key",
    params(TenantPath),
    responses((status = 200, body = TenantEncryption, description = "Its keys and files."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn rotate_tenant_key(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<TenantPath>,
) -> Result<Json<TenantEncryption>, Refusal> {
    Ok(Json(state.server.rotate_tenant_key(&caller, &path.tenant).await?.into()))
}
