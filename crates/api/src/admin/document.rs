//! The OpenAPI document of the admin API.

use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

/// The document without its paths.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tenantry admin API",
        description = "Organisations, tenants, keys, models, versions, deployments, shares, limits, prices, budgets, usage, encryption at rest and the audit trail. Inference is under /v2 (Open Inference Protocol v2). \
                       Every error has the same body; `code` is for programs, `error` for people, and `reason` names the \
                       limit that refused a request. Refusals carry \
                       `Retry-After` (seconds) and `retry-after-ms`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    modifiers(&BearerKey),
    security(("key" = [])),
)]
struct Skeleton;

struct BearerKey;

impl Modify for BearerKey {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        document.components.get_or_insert_default().add_security_scheme("key", scheme);
    }
}

pub(super) fn skeleton() -> utoipa::openapi::OpenApi {
    Skeleton::openapi()
}

/// The OpenAPI document of the admin API, as JSON text that ends with a newline.
pub fn openapi() -> String {
    let document = super::routes().into_openapi();
    // Made of our own declarations, which always have a JSON form; the test of the committed copy would notice.
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}
