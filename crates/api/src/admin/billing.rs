//! Prices, invoices and budgets.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use tenantry_bill::period::Period;
use tenantry_types::{ServiceError, TenantName};
use utoipa::IntoParams;

use super::AdminState;
use super::convert::all;
use super::convert::billing::period;
use super::extract::{Asked, Caller, Given, Names, Refusal};
use super::tenants::TenantPath;
use super::types::{Budget, Budgets, ErrorBody, Invoice, NewBudget, NewPricePlan, PricePlan, PricePlans};

const CSV: &str = "text/csv; charset=utf-8";

/// The path of a plan for everybody.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct PlanPath {
    /// When it begins, milliseconds since the Unix epoch: its name in its list.
    valid_from_ms: i64,
}

/// The path of a tenant's plan.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct TenantPlanPath {
    /// The tenant's name.
    #[param(value_type = String)]
    tenant: TenantName,
    /// When it begins, milliseconds since the Unix epoch: its name in its list.
    valid_from_ms: i64,
}

/// The path of a budget.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct BudgetPath {
    /// The tenant's name.
    #[param(value_type = String)]
    tenant: TenantName,
    /// The budget's `id`, such as `requests.month`.
    budget: String,
}

/// Which days.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Days {
    /// A month, UTC, such as `2026-11`; without it and without days the current one.
    month: Option<String>,
    /// The first day, such as `2026-11-01`.
    from: Option<String>,
    /// The last day; without it today.
    to: Option<String>,
}

/// Which days, and in which form.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct InvoiceAsk {
    /// A month, UTC, such as `2026-11`; without it and without days the current one.
    month: Option<String>,
    /// The first day, such as `2026-11-01`.
    from: Option<String>,
    /// The last day; without it today.
    to: Option<String>,
    /// `json` or `csv`; without it as the header `Accept` says, or else JSON.
    format: Option<String>,
}

impl TryFrom<Days> for Period {
    type Error = ServiceError;
    fn try_from(days: Days) -> Result<Self, ServiceError> {
        period(days.month.as_deref(), days.from.as_deref(), days.to.as_deref())
    }
}

/// The price plans for everybody without one of their own. Platform administrators only.
#[utoipa::path(get, path = "/admin/v1/prices", tag = "billing", operation_id = "list_price_plans",
    responses((status = 200, body = PricePlans, description = "The plans, in the order they come into force."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn plans(
    State(state): State<AdminState>,
    Caller(caller): Caller,
) -> Result<Json<PricePlans>, Refusal> {
    Ok(Json(PricePlans { plans: all(state.server.price_plans(&caller).await?), in_force: None }))
}

/// Add a price plan for everybody without one of their own. A plan is never changed: another one takes its place from an instant
/// on. Only the first of its list may begin in the past. Platform administrators only.
#[utoipa::path(post, path = "/admin/v1/prices", tag = "billing", operation_id = "add_price_plan",
    request_body = NewPricePlan,
    responses((status = 201, body = PricePlan, description = "The plan."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn add_plan(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Given(new): Given<NewPricePlan>,
) -> Result<(StatusCode, Json<PricePlan>), Refusal> {
    let plan = state.server.add_price_plan(&caller, None, new.try_into()?).await?;
    Ok((StatusCode::CREATED, Json(plan.into())))
}

/// Take back a plan for everybody that has not begun, or let one that has end now. Platform administrators only.
#[utoipa::path(delete, path = "/admin/v1/prices/{valid_from_ms}", tag = "billing", operation_id = "remove_price_plan",
    params(PlanPath),
    responses((status = 204, description = "It is gone, or has ended."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn remove_plan(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<PlanPath>,
) -> Result<StatusCode, Refusal> {
    state.server.remove_price_plan(&caller, None, path.valid_from_ms).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A tenant's own price plans, and what it is billed by now.
#[utoipa::path(get, path = "/admin/v1/tenants/{tenant}/prices", tag = "billing", operation_id = "list_tenant_price_plans",
    params(TenantPath),
    responses((status = 200, body = PricePlans, description = "The plans, in the order they come into force."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn tenant_plans(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<TenantPath>,
) -> Result<Json<PricePlans>, Refusal> {
    Ok(Json(state.server.tenant_price_plans(&caller, &path.tenant).await?.into()))
}

/// Add a price plan of a tenant's own: while it is in force, those for everybody do not count. Platform administrators only.
#[utoipa::path(post, path = "/admin/v1/tenants/{tenant}/prices", tag = "billing", operation_id = "add_tenant_price_plan",
    params(TenantPath), request_body = NewPricePlan,
    responses((status = 201, body = PricePlan, description = "The plan."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn add_tenant_plan(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<TenantPath>,
    Given(new): Given<NewPricePlan>,
) -> Result<(StatusCode, Json<PricePlan>), Refusal> {
    let plan = state.server.add_price_plan(&caller, Some(&path.tenant), new.try_into()?).await?;
    Ok((StatusCode::CREATED, Json(plan.into())))
}

/// Take back a tenant's plan that has not begun, or let one that has end now. Platform administrators only.
#[utoipa::path(delete, path = "/admin/v1/tenants/{tenant}/prices/{valid_from_ms}", tag = "billing", operation_id = "remove_tenant_price_plan",
    params(TenantPlanPath),
    responses((status = 204, description = "It is gone, or has ended."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn remove_tenant_plan(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<TenantPlanPath>,
) -> Result<StatusCode, Refusal> {
    state.server.remove_price_plan(&caller, Some(&path.tenant), path.valid_from_ms).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A tenant's invoice, as JSON or CSV. It has what was recorded until now.
#[utoipa::path(get, path = "/admin/v1/tenants/{tenant}/invoice", tag = "billing", operation_id = "tenant_invoice",
    params(TenantPath, InvoiceAsk),
    responses((status = 200, description = "The invoice.", content((Invoice = "application/json"), (String = "text/csv"))),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn invoice(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<TenantPath>,
    Asked(ask): Asked<InvoiceAsk>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let InvoiceAsk { month, from, to, format } = ask;
    let is_csv = match format.as_deref() {
        Some("csv") => true,
        Some("json") => false,
        Some(_) => return Err(ServiceError::invalid("an invoice is `json` or `csv`").into()),
        None => accepts_csv(&headers),
    };
    let days = period(month.as_deref(), from.as_deref(), to.as_deref())?;
    let invoice = state.server.invoice(&caller, &path.tenant, days).await?;
    Ok(if is_csv { csv(invoice.to_csv()) } else { Json(invoice).into_response() })
}

/// What a tenant is billed, for the tools of finance people: the columns of FOCUS 1.2 as CSV.
#[utoipa::path(get, path = "/admin/v1/tenants/{tenant}/focus", tag = "billing", operation_id = "tenant_focus",
    params(TenantPath, Days),
    responses((status = 200, body = String, content_type = "text/csv", description = "One line for each charge and day."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn tenant_focus(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<TenantPath>,
    Asked(days): Asked<Days>,
) -> Result<Response, Refusal> {
    Ok(csv(state.server.focus(&caller, &path.tenant, days.try_into()?).await?))
}

/// What everybody is billed, for the tools of finance people: the columns of FOCUS 1.2 as CSV. Platform administrators only.
#[utoipa::path(get, path = "/admin/v1/focus", tag = "billing", operation_id = "focus",
    params(Days),
    responses((status = 200, body = String, content_type = "text/csv", description = "One line for each charge and day."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn focus(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Asked(days): Asked<Days>,
) -> Result<Response, Refusal> {
    Ok(csv(state.server.focus_of_all(&caller, days.try_into()?).await?))
}

/// A tenant's budgets, and what is left of each.
#[utoipa::path(get, path = "/admin/v1/tenants/{tenant}/budgets", tag = "billing", operation_id = "list_budgets",
    params(TenantPath),
    responses((status = 200, body = Budgets, description = "The budgets."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn budgets(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<TenantPath>,
) -> Result<Json<Budgets>, Refusal> {
    Ok(Json(Budgets { budgets: all(state.server.budgets(&caller, &path.tenant)?) }))
}

/// Set a budget. What the platform set, only platform administrators change.
#[utoipa::path(put, path = "/admin/v1/tenants/{tenant}/budgets", tag = "billing", operation_id = "set_budget",
    params(TenantPath), request_body = NewBudget,
    responses((status = 200, body = Budget, description = "The budget, and what is left of it."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn set_budget(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<TenantPath>,
    Given(new): Given<NewBudget>,
) -> Result<Json<Budget>, Refusal> {
    Ok(Json(state.server.set_budget(&caller, &path.tenant, new.try_into()?).await?.into()))
}

/// Take a budget away. What the platform set, only platform administrators do.
#[utoipa::path(delete, path = "/admin/v1/tenants/{tenant}/budgets/{budget}", tag = "billing", operation_id = "remove_budget",
    params(BudgetPath),
    responses((status = 204, description = "It is gone."),
        (status = "default", body = ErrorBody, description = "An error.")))]
pub(super) async fn remove_budget(
    State(state): State<AdminState>,
    Caller(caller): Caller,
    Names(path): Names<BudgetPath>,
) -> Result<StatusCode, Refusal> {
    state.server.remove_budget(&caller, &path.tenant, &path.budget).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether the first form a client names is CSV.
fn accepts_csv(headers: &HeaderMap) -> bool {
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let first = accepted.split([',', ';']).next().unwrap_or_default();
    first.trim().eq_ignore_ascii_case("text/csv")
}

fn csv(text: String) -> Response {
    ([(CONTENT_TYPE, CSV)], text).into_response()
}
