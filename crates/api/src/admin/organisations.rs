//! Organisations.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use tenantry_server::admin::SharePlace;
use tenantry_types::OrganisationName;
use utoipa::IntoParams;

use super::AdminState;
use super::convert::all;
use super::extract::{Caller, Given, Names, Refusal};
use super::types::{ErrorBody, NewOrganisation, Organisation, Organisations, Share, ShareChange};

/// The path of an organisation.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OrganisationPath {
    /// The organisation's name.
    #[param(value_type = String)]
    organisation: OrganisationName,
}

/// Every organisation with its tenants. Platform administrators only.
#[utoipa::path(get, path = "/admin/v1/organisations", tag = "organisations", operation_id = "list_organisations",
    responses((status = 200, body = Organisations, description = "The organisations."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn list(
    State(state): State<AdminState>,
    Caller(caller): Caller,
) -> Result<Json<Organisations>, Refusal> {
    Ok(Json(Organisations { organisations: all(state.server.organisations(&caller)?) }))
}

/// Create an organisation. Platform administrators only.
#[utoipa::path(post, path = "/admin/v1/organisations", tag = "organisations", operation_id = "create_organisation",
    request_body = NewOrganisation,
    responses((status = 201, body = Organisation, description = "The organisation."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn create(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Given(new): Given<NewOrganisation>,
) -> Result<(StatusCode, Json<Organisation>), Refusal> {
    let organisation = state.server.create_organisation(&caller, &new.name).await?;
    Ok((StatusCode::CREATED, Json(organisation.into())))
}

/// Delete an organisation; 409 while tenants belong to it. Platform administrators only.
#[utoipa::path(delete, path = "/admin/v1/organisations/{organisation}", tag = "organisations", operation_id = "delete_organisation",
    params(OrganisationPath),
    responses((status = 204, description = "It is gone."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn delete(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<OrganisationPath>,
) -> Result<StatusCode, Refusal> {
    state.server.delete_organisation(&caller, &path.organisation).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An organisation's share. Platform administrators only.
#[utoipa::path(get, path = "/admin/v1/organisations/{organisation}/share", tag = "shares", operation_id = "show_organisation_share",
    params(OrganisationPath),
    responses((status = 200, body = Share, description = "Its settings, and what holds in the end."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn share(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<OrganisationPath>,
) -> Result<Json<Share>, Refusal> {
    Ok(Json(state.server.share(&caller, &SharePlace::Organisation(path.organisation))?.into()))
}

/// Set an organisation's share: weight, device time, what may wait. Platform administrators only.
#[utoipa::path(put, path = "/admin/v1/organisations/{organisation}/share", tag = "shares", operation_id = "set_organisation_share",
    params(OrganisationPath), request_body = ShareChange,
    responses((status = 200, body = Share, description = "Its settings, and what holds in the end."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn set_share(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<OrganisationPath>,
    Given(change): Given<ShareChange>,
) -> Result<Json<Share>, Refusal> {
    let place = SharePlace::Organisation(path.organisation);
    Ok(Json(state.server.set_share(&caller, &place, change.try_into()?).await?.into()))
}
