//! Roles that tenants make for themselves.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use tenantry_types::{CustomRole, Role, RoleName, TenantName};
use utoipa::IntoParams;

use super::AdminState;
use super::convert::all;
use super::extract::{Caller, Given, Names, Refusal};
use super::tenants::TenantPath;
use super::types::{self, ErrorBody, RoleContent, Roles};

/// The path of a role.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct RolePath {
    /// The tenant's name.
    #[param(value_type = String)]
    pub(super) tenant: TenantName,
    /// The role's name.
    #[param(value_type = String)]
    pub(super) role: RoleName,
}

/// The roles a tenant made, and those there are everywhere.
#[utoipa::path(get, path = "/admin/v1/tenants/{tenant}/roles", tag = "roles", operation_id = "list_roles",
    params(TenantPath),
    responses((status = 200, body = Roles, description = "The roles."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn list(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<TenantPath>,
) -> Result<Json<Roles>, Refusal> {
    let roles = all(state.server.roles(&caller, &path.tenant).await?);
    let built_in = Role::BUILT_IN.iter().map(ToString::to_string).collect();
    Ok(Json(Roles { built_in, roles }))
}

/// Make a role, or change one: whoever has it may do this from now on. Nobody gives a role more than he may do himself.
#[utoipa::path(put, path = "/admin/v1/tenants/{tenant}/roles/{role}", tag = "roles", operation_id = "set_role",
    params(RolePath), request_body = RoleContent,
    responses((status = 200, body = types::CustomRole, description = "The role."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn set(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<RolePath>,
    Given(content): Given<RoleContent>,
) -> Result<Json<types::CustomRole>, Refusal> {
    let RoleContent { actions, models, description } = content;
    let role = CustomRole { name: path.role, actions, models, description };
    Ok(Json(state.server.set_role(&caller, &path.tenant, role).await?.into()))
}

/// Delete a role that no key has.
#[utoipa::path(delete, path = "/admin/v1/tenants/{tenant}/roles/{role}", tag = "roles", operation_id = "delete_role",
    params(RolePath),
    responses((status = 204, description = "It is gone."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn delete(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<RolePath>,
) -> Result<StatusCode, Refusal> {
    state.server.delete_role(&caller, &path.tenant, &path.role).await?;
    Ok(StatusCode::NO_CONTENT)
}
