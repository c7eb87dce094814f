//! Usage: what everybody used, one by one and added up.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use tenantry_server::admin::{UsageAsk, UsageGroup, UsageInfo};
use tenantry_types::ServiceError;
use utoipa::IntoParams;

use super::AdminState;
use super::convert::all;
use super::convert::usage::{day, day_text, today, usage_key};
use super::extract::{Asked, Caller, Names, Refusal};
use super::tenants::TenantPath;
use super::types::{ErrorBody, Usage, UsageAccounts, UsageRecords};

/// Days that are added up where none are named, today included.
const DEFAULT_DAYS: i64 = 30;

/// Which usage, and divided by what.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Ask {
    /// The first day, UTC, such as `2026-11-01`; without it 30 days up to the last one.
    from: Option<String>,
    /// The last day; without it today.
    to: Option<String>,
    /// Divided by these, with commas between: `day`, `tenant`, `deployment`, `version`, `tier`, `kind`, `outcome`. Without it
    /// one sum.
    by: Option<String>,
}

impl TryFrom<Ask> for UsageAsk {
    type Error = ServiceError;
    fn try_from(ask: Ask) -> Result<Self, ServiceError> {
        let to = ask.to.as_deref().map_or_else(|| Ok(today()), day)?;
        let from = ask.from.as_deref().map_or_else(|| Ok((to - DEFAULT_DAYS + 1).max(0)), day)?;
        let words = ask.by.as_deref().unwrap_or_default().split(',').map(str::trim).filter(|word| !word.is_empty());
        let groups = words.map(group).collect::<Result<_, _>>()?;
        Ok(Self { days: (from, to), groups })
    }
}

fn group(word: &str) -> Result<UsageGroup, ServiceError> {
    Ok(match word {
        "day" => UsageGroup::Day,
        "tenant" => UsageGroup::Tenant,
        "deployment" => UsageGroup::Deployment,
        "version" => UsageGroup::Version,
        "tier" => UsageGroup::Tier,
        "kind" => UsageGroup::Kind,
        "outcome" => UsageGroup::Outcome,
        _ => {
            return Err(ServiceError::invalid(
                "usage is divided by `day`, `tenant`, `deployment`, `version`, `tier`, `kind` and `outcome` only",
            ));
        }
    })
}

fn answer(days: (i64, i64), lines: Vec<UsageInfo>) -> Json<Usage> {
    Json(Usage { from: day_text(days.0), to: day_text(days.1), lines: all(lines) })
}

/// What everybody used. Platform administrators only.
#[utoipa::path(get, path = "/admin/v1/usage", tag = "usage", operation_id = "usage",
    params(Ask),
    responses((status = 200, body = Usage, description = "The sums."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn total(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Asked(ask): Asked<Ask>,
) -> Result<Json<Usage>, Refusal> {
    let ask = UsageAsk::try_from(ask)?;
    Ok(answer(ask.days, state.server.usage_of_all(&caller, ask).await?))
}

/// What a tenant used. For everybody of the tenant.
#[utoipa::path(get, path = "/admin/v1/tenants/{tenant}/usage", tag = "usage", operation_id = "tenant_usage",
    params(TenantPath, Ask),
    responses((status = 200, body = Usage, description = "The sums."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn tenant(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<TenantPath>,
    Asked(ask): Asked<Ask>,
) -> Result<Json<Usage>, Refusal> {
    let ask = UsageAsk::try_from(ask)?;
    Ok(answer(ask.days, state.server.usage(&caller, &path.tenant, ask).await?))
}

/// Where to go on.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// Only those after this one: the `id` of the last one of the page before.
    after: Option<String>,
    /// The most records of the answer, at most 1000.
    limit: Option<u32>,
}

/// Everybody's attempts one by one. Platform administrators only.
#[utoipa::path(get, path = "/admin/v1/usage/records", tag = "usage", operation_id = "usage_records",
    params(Page),
    responses((status = 200, body = UsageRecords, description = "The records."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn records(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Asked(page): Asked<Page>,
) -> Result<Json<UsageRecords>, Refusal> {
    let after = page.after.as_deref().map(usage_key).transpose()?;
    Ok(Json(UsageRecords { records: all(state.server.usage_records_of_all(&caller, after, page.limit).await?) }))
}

/// A tenant's attempts one by one. Its administrators only.
#[utoipa::path(get, path = "/admin/v1/tenants/{tenant}/usage/records", tag = "usage", operation_id = "tenant_usage_records",
    params(TenantPath, Page),
    responses((status = 200, body = UsageRecords, description = "The records."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn tenant_records(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<TenantPath>,
    Asked(page): Asked<Page>,
) -> Result<Json<UsageRecords>, Refusal> {
    let after = page.after.as_deref().map(usage_key).transpose()?;
    let records = state.server.usage_records(&caller, &path.tenant, after, page.limit).await?;
    Ok(Json(UsageRecords { records: all(records) }))
}

/// Whether the records add up to what the machine did: one account for each start of each node. Platform administrators only.
#[utoipa::path(get, path = "/admin/v1/usage/accounts", tag = "usage", operation_id = "usage_accounts",
    responses((status = 200, body = UsageAccounts, description = "The accounts."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn accounts(
    State(state): State<AdminState>,
    Caller(caller): Caller,
) -> Result<Json<UsageAccounts>, Refusal> {
    Ok(Json(UsageAccounts { accounts: all(state.server.usage_accounts(&caller).await?) }))
}
