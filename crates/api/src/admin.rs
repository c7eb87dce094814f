//! The admin API under `/admin/v1`. Each handler converts and calls the server; its document is generated from the same
//! declarations.

mod audit;
mod billing;
mod convert;
mod document;
mod encryption;
mod extract;
mod keys;
mod models;
mod organisations;
mod places;
mod roles;
mod shares;
mod system;
mod tenants;
pub mod types;
mod uploads;
mod usage;
mod versions;

use std::sync::Arc;
use std::time::Duration;

use tenantry_server::Server;
use tenantry_server::config::HttpSettings;
use tenantry_types::{ErrorCode, ServiceError};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use document::openapi;

use extract::Refusal;
pub(crate) use extract::Seen;
use places::Places;

/// What the admin handlers share.
#[derive(Clone)]
pub(crate) struct AdminState {
    server: Arc<Server>,
    /// The document, as text: made once.
    document: Arc<str>,
    /// How long a client may pause inside an upload.
    upload_pause: Duration,
    bodies: Places,
}

/// All routes with their documentation.
fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::with_openapi(document::skeleton())
        .routes(routes!(tenants::list, tenants::create))
        .routes(routes!(tenants::show, tenants::update, tenants::delete))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::revoke))
        .routes(routes!(keys::rotate))
        .routes(routes!(roles::list))
        .routes(routes!(roles::set, roles::delete))
        .routes(routes!(uploads::create))
        .routes(routes!(models::list))
        .routes(routes!(models::show, models::update, models::delete))
        .routes(routes!(versions::list, versions::create))
        .routes(routes!(versions::show, versions::delete))
        .routes(routes!(models::set_alias, models::delete_alias))
        .routes(routes!(models::deployment, models::set_deployment))
        .routes(routes!(organisations::list, organisations::create))
        .routes(routes!(organisations::delete))
        .routes(routes!(organisations::share, organisations::set_share))
        .routes(routes!(shares::list))
        .routes(routes!(shares::tenant, shares::set_tenant))
        .routes(routes!(shares::deployment, shares::set_deployment))
        .routes(routes!(shares::key, shares::set_key))
        .routes(routes!(audit::list))
        .routes(routes!(audit::tenant))
        .routes(routes!(audit::verify))
        .routes(routes!(encryption::show))
        .routes(routes!(encryption::job))
        .routes(routes!(encryption::rekey))
        .routes(routes!(encryption::rotate_master_key))
        .routes(routes!(encryption::tenant))
        .routes(routes!(encryption::rotate_tenant_key))
        .routes(routes!(usage::total))
        .routes(routes!(usage::records))
        .routes(routes!(usage::accounts))
        .routes(routes!(usage::tenant))
        .routes(routes!(usage::tenant_records))
        .routes(routes!(billing::plans, billing::add_plan))
        .routes(routes!(billing::remove_plan))
        .routes(routes!(billing::tenant_plans, billing::add_tenant_plan))
        .routes(routes!(billing::remove_tenant_plan))
        .routes(routes!(billing::invoice))
        .routes(routes!(billing::tenant_focus))
        .routes(routes!(billing::focus))
        .routes(routes!(billing::budgets, billing::set_budget))
        .routes(routes!(billing::remove_budget))
        .routes(routes!(system::policy, system::set_policy))
        .routes(routes!(system::status))
        .routes(routes!(system::metrics))
        .routes(routes!(system::document))
}

/// The router of `/admin`.
pub(crate) fn router(server: Arc<Server>, settings: &HttpSettings) -> axum::Router {
    let (router, _) = routes().split_for_parts();
    let state = AdminState {
        server,
        document: openapi().into(),
        upload_pause: settings.body_timeout,
        bodies: Places::default(),
    };
    router
        .fallback(|| async { Refusal(ServiceError::new(ErrorCode::NotFound, "no such path under /admin")) })
        .method_not_allowed_fallback(|| async {
            (
                axum::http::StatusCode::METHOD_NOT_ALLOWED,
                axum::Extension(ServiceError::invalid("this path does not take this method; see the header Allow")),
            )
        })
        .with_state(state)
}

#[cfg(test)]
mod tests;
