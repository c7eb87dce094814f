//! Versions.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use tenantry_types::{ModelName, TenantName};
use utoipa::IntoParams;

use super::AdminState;
use super::convert::all;
use super::extract::{Asked, Caller, Given, Names, Refusal};
use super::models::ModelPath;
use super::types::{ErrorBody, NewVersion, Version, Versions};

/// The longest a call waits for a registration, milliseconds; the caller asks again.
const MAX_WAIT_MS: u64 = 60_000;

/// The path of a version.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct VersionPath {
    /// The tenant's name.
    #[param(value_type = String)]
    tenant: TenantName,
    /// The model's name.
    #[param(value_type = String)]
    model: ModelName,
    /// The version's number.
    number: u32,
}

/// How long to wait.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Waiting {
    /// Answer once the state is not `registering` any more, or after this many milliseconds (60000 at most).
    wait_ms: Option<u64>,
}

/// A model's versions.
#[utoipa::path(get, path = "/admin/v1/tenants/{tenant}/models/{model}/versions", tag = "versions", operation_id = "list_versions",
    params(ModelPath),
    responses((status = 200, body = Versions, description = "The versions."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn list(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<ModelPath>,
) -> Result<Json<Versions>, Refusal> {
    Ok(Json(Versions { versions: all(state.server.versions(&caller, &path.tenant, &path.model).await?) }))
}

/// Make a version of an uploaded artefact, and the model if it is not there. Its registration runs afterwards.
#[utoipa::path(post, path = "/admin/v1/tenants/{tenant}/models/{model}/versions", tag = "versions", operation_id = "create_version",
    params(ModelPath), request_body = NewVersion,
    responses((status = 202, body = Version, description = "The version, in state `registering`."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn create(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<ModelPath>,
    Given(new): Given<NewVersion>,
) -> Result<(StatusCode, Json<Version>), Refusal> {
    let version = state.server.create_version(&caller, &path.tenant, &path.model, new.into()).await?;
    Ok((StatusCode::ACCEPTED, Json(version.into())))
}

/// One version.
#[utoipa::path(get, path = "/admin/v1/tenants/{tenant}/models/{model}/versions/{number}", tag = "versions", operation_id = "show_version",
    params(VersionPath, Waiting),
    responses((status = 200, body = Version, description = "The version."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn show(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<VersionPath>,
    Asked(waiting): Asked<Waiting>,
) -> Result<Json<Version>, Refusal> {
    let wait = waiting.wait_ms.map(|wait_ms| Duration::from_millis(wait_ms.min(MAX_WAIT_MS)));
    Ok(Json(state.server.version(&caller, &path.tenant, &path.model, path.number, wait).await?.into()))
}

/// Delete a version; 409 while the deployment points to it.
#[utoipa::path(delete, path = "/admin/v1/tenants/{tenant}/models/{model}/versions/{number}", tag = "versions", operation_id = "delete_version",
    params(VersionPath),
    responses((status = 204, description = "It is gone."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn delete(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<VersionPath>,
) -> Result<StatusCode, Refusal> {
    state.server.delete_version(&caller, &path.tenant, &path.model, path.number).await?;
    Ok(StatusCode::NO_CONTENT)
}
