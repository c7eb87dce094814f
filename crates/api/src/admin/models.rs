//! Models, their aliases and their deployment.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use tenantry_server::admin::ModelQuery;
use tenantry_types::{ModelName, ServiceError, TenantName};
use utoipa::IntoParams;

use super::AdminState;
use super::convert::all;
use super::extract::{Asked, Caller, Given, Names, Refusal};
use super::tenants::TenantPath;
use super::types::{Alias, AliasChange, Deployment, DeploymentChange, ErrorBody, Model, ModelChange, Models};

/// The path of a model.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct ModelPath {
    /// The tenant's name.
    #[param(value_type = String)]
    pub(super) tenant: TenantName,
    /// The model's name.
    #[param(value_type = String)]
    pub(super) model: ModelName,
}

/// The path of an alias.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct AliasPath {
    /// The tenant's name.
    #[param(value_type = String)]
    tenant: TenantName,
    /// The model's name.
    #[param(value_type = String)]
    model: ModelName,
    /// The alias, not all digits.
    #[param(value_type = String)]
    alias: ModelName,
}

/// What to look for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Search {
    /// Text to look for in what is known of a model.
    search: Option<String>,
    /// A tag the model carries, `key:value`.
    tag: Option<String>,
}

impl TryFrom<Search> for ModelQuery {
    type Error = ServiceError;
    fn try_from(search: Search) -> Result<Self, ServiceError> {
        let tag = match search.tag {
            None => None,
            Some(text) => {
                let (key, value) =
                    text.split_once(':').ok_or_else(|| ServiceError::invalid("`tag` must be written `key:value`"))?;
                Some((key.to_owned(), value.to_owned()))
            }
        };
        Ok(Self { text: search.search.filter(|text| !text.is_empty()), tag })
    }
}

/// A tenant's models, all or those that match.
#[utoipa::path(get, path = "/admin/v1/tenants/{tenant}/models", tag = "models", operation_id = "list_models",
    params(TenantPath, Search),
    responses((status = 200, body = Models, description = "The models."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn list(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<TenantPath>,
    Asked(search): Asked<Search>,
) -> Result<Json<Models>, Refusal> {
    let models = state.server.search_models(&caller, &path.tenant, search.try_into()?).await?;
    Ok(Json(Models { models: all(models) }))
}

/// One model.
#[utoipa::path(get, path = "/admin/v1/tenants/{tenant}/models/{model}", tag = "models", operation_id = "show_model",
    params(ModelPath),
    responses((status = 200, body = Model, description = "The model."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn show(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<ModelPath>,
) -> Result<Json<Model>, Refusal> {
    Ok(Json(state.server.model(&caller, &path.tenant, &path.model).await?.into()))
}

/// Change what is said of a model; absent fields stay.
#[utoipa::path(patch, path = "/admin/v1/tenants/{tenant}/models/{model}", tag = "models", operation_id = "update_model",
    params(ModelPath), request_body = ModelChange,
    responses((status = 200, body = Model, description = "The model."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn update(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<ModelPath>,
    Given(change): Given<ModelChange>,
) -> Result<Json<Model>, Refusal> {
    Ok(Json(state.server.update_model(&caller, &path.tenant, &path.model, change.try_into()?).await?.into()))
}

/// Delete a model with its versions.
#[utoipa::path(delete, path = "/admin/v1/tenants/{tenant}/models/{model}", tag = "models", operation_id = "delete_model",
    params(ModelPath),
    responses((status = 204, description = "It is gone."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn delete(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<ModelPath>,
) -> Result<StatusCode, Refusal> {
    state.server.delete_model(&caller, &path.tenant, &path.model).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Point an alias to a version.
#[utoipa::path(put, path = "/admin/v1/tenants/{tenant}/models/{model}/aliases/{alias}", tag = "models", operation_id = "set_alias",
    params(AliasPath), request_body = AliasChange,
    responses((status = 200, body = Alias, description = "The alias."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn set_alias(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<AliasPath>,
    Given(change): Given<AliasChange>,
) -> Result<Json<Alias>, Refusal> {
    let AliasPath { tenant, model, alias } = path;
    Ok(Json(state.server.set_alias(&caller, &tenant, &model, &alias, change.version).await?.into()))
}

/// Remove an alias.
#[utoipa::path(delete, path = "/admin/v1/tenants/{tenant}/models/{model}/aliases/{alias}", tag = "models", operation_id = "delete_alias",
    params(AliasPath),
    responses((status = 204, description = "It is gone."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn delete_alias(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<AliasPath>,
) -> Result<StatusCode, Refusal> {
    state.server.delete_alias(&caller, &path.tenant, &path.model, &path.alias).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A model's deployment.
#[utoipa::path(get, path = "/admin/v1/tenants/{tenant}/models/{model}/deployment", tag = "models", operation_id = "show_deployment",
    params(ModelPath),
    responses((status = 200, body = Deployment, description = "The deployment."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn deployment(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<ModelPath>,
) -> Result<Json<Deployment>, Refusal> {
    Ok(Json(state.server.deployment(&caller, &path.tenant, &path.model)?.into()))
}

/// Change a model's deployment. The change names the generation it was made from; 409 if that moved on.
#[utoipa::path(put, path = "/admin/v1/tenants/{tenant}/models/{model}/deployment", tag = "models", operation_id = "set_deployment",
    params(ModelPath), request_body = DeploymentChange,
    responses((status = 200, body = Deployment, description = "The deployment."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn set_deployment(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<ModelPath>,
    Given(change): Given<DeploymentChange>,
) -> Result<Json<Deployment>, Refusal> {
    Ok(Json(state.server.set_deployment(&caller, &path.tenant, &path.model, change.into()).await?.into()))
}
