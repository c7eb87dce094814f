//! The JSON of prices, invoices and budgets. Amounts of money are texts with decimal numbers, because many read the numbers of
//! JSON as floats.

use serde::{Deserialize, Serialize};
use tenantry_types::{DeploymentId, KeyId, OrganisationId, TenantId};
use utoipa::ToSchema;

use super::Tier;

/// What one unit of something costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Of what: `device_compute`, `device_padding`, `device_load`, `device_aborted`, `cpu`, `requests`, `bytes_in`, `bytes_out`,
    /// `tokens_in`, `tokens_out` or `resident`.
    pub meter: String,
    /// Of this tier only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// On devices of this pool only: `cpu` or `gpu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// A decimal number of the currency's units, such as `0.36`.
    pub price: String,
    /// For one of these: `second`, `minute`, `hour`; `one`, `thousand`, `million`; `mb`, `mib`, `gb`, `gib`, `tb`, `tib`;
    /// `gb_hour`, `gib_hour`.
    pub per: String,
}

/// A price plan that is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPricePlan {
    /// Its name, for invoices.
    pub name: String,
    /// Three letters of ISO 4217, such as `EUR`.
    pub currency: String,
    /// From when on; absent: from now on. A day is priced by the plan that is in force at its beginning, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_from_ms: Option<i64>,
    /// Until when; absent: until another plan begins, or it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until_ms: Option<i64>,
    /// What things cost. Of several prices that fit, the most exact counts; what has none costs nothing.
    pub prices: Vec<Price>,
}

/// A price plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PricePlan {
    /// Its name.
    pub name: String,
    /// Of its prices.
    pub currency: String,
    /// From when on it is in force.
    pub valid_from_ms: i64,
    /// Until when, if that is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until_ms: Option<i64>,
    /// What things cost.
    pub prices: Vec<Price>,
}

/// Price plans.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PricePlans {
    /// In the order they come into force. Of a tenant its own; those for everybody count where it has none.
    pub plans: Vec<PricePlan>,
    /// Of a tenant: what it is billed by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<PricePlan>,
}

/// An invoice. The same usage and prices make the same invoice, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Invoice {
    /// The shape of this document.
    pub format: u32,
    /// Derived from all that is in it: another figure, another name.
    pub invoice: String,
    /// Who is billed.
    #[schema(value_type = String)]
    pub tenant: TenantId,
    /// Its name.
    pub tenant_name: String,
    /// The organisation it belongs to.
    #[schema(value_type = Option<String>)]
    pub organisation: Option<OrganisationId>,
    /// Its name.
    pub organisation_name: Option<String>,
    /// Of all amounts; `null` where nothing has a price.
    pub currency: Option<String>,
    /// The beginning of the first day.
    pub period_start: String,
    /// The end of the last day.
    pub period_end: String,
    /// What was used and costs something.
    pub lines: Vec<InvoiceLine>,
    /// All lines together.
    pub sum: String,
    /// What makes the total of the sum.
    pub rounding: String,
    /// What is to be paid, to the currency's smallest unit.
    pub total: String,
    /// Days with usage and without a plan; they cost nothing.
    pub unpriced_days: Vec<String>,
}

/// What one meter of one version cost under one plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InvoiceLine {
    /// The model, `owner/name`.
    pub model: String,
    /// The version's number.
    pub version: u32,
    /// The deployment.
    #[schema(value_type = Option<String>)]
    pub deployment: Option<DeploymentId>,
    /// What was promised.
    pub tier: Tier,
    /// On which kind of device, where that is known.
    pub pool: Option<String>,
    /// What was measured.
    pub meter: String,
    /// The plan.
    pub plan: String,
    /// The first day with usage.
    pub first_day: String,
    /// The last one.
    pub last_day: String,
    /// How much, a whole number of `used_unit`.
    pub used: String,
    /// The meter's unit.
    pub used_unit: String,
    /// How many units of the price, to twelve digits.
    pub quantity: String,
    /// What the price is for.
    pub unit: String,
    /// Of one unit.
    pub price: String,
    /// Quantity times price.
    pub cost: String,
}

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BudgetMeter {
    /// Requests that were answered.
    Requests,
    /// Device time of all causes, nanoseconds.
    DeviceTime,
    /// Tokens read and written.
    Tokens,
    /// What it costs, billionths of the currency's unit.
    Money,
}

/// How long a budget lasts, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BudgetPeriod {
    /// From one full hour to the next.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From the first of a month to the first of the next.
    Month,
}

/// What is done where a budget is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BudgetEnforcement {
    /// Nothing begins that does not fit beside what is used and what runs may yet use.
    #[default]
    Hard,
    /// Nothing begins that does not fit beside what is used.
    Soft,
    /// Everything begins; thresholds are told.
    Watch,
}

/// A budget that is to be. There is one for each scope, meter and period; another one takes its place and keeps what is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBudget {
    /// Of what.
    pub meter: BudgetMeter,
    /// In which time.
    pub period: BudgetPeriod,
    /// How much: requests, nanoseconds, tokens, or billionths of the currency's unit.
    pub amount: u64,
    /// Of what goes to this model only: `name` or `owner/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Of what comes with this key only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub key: Option<KeyId>,
    /// What is done where it is met.
    #[serde(default)]
    pub enforcement: BudgetEnforcement,
    /// Of money: in which currency; absent: the price plan's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// When to tell, percent of the amount, ascending; absent: 50, 80 and 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thresholds_percent: Option<Vec<u16>>,
}

/// A budget and what is left of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Budget {
    /// Its name in paths, such as `requests.month`.
    pub id: String,
    /// Of what.
    pub meter: BudgetMeter,
    /// In which time.
    pub period: BudgetPeriod,
    /// The deployment it is of, if it is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub deployment: Option<DeploymentId>,
    /// Its model, while the tenant can name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The key it is of, if it is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub key: Option<KeyId>,
    /// How much may be used.
    pub amount: u64,
    /// Of money: in which currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// What is done where it is met.
    pub enforcement: BudgetEnforcement,
    /// When it is told, percent.
    pub thresholds_percent: Vec<u16>,
    /// Whether the platform set it; then only the platform changes it.
    pub platform: bool,
    /// How much is used.
    pub used: u64,
    /// How much more what runs may use.
    pub reserved: u64,
    /// What is neither.
    pub remaining: u64,
    /// When its period ends.
    pub reset_at_ms: i64,
}

/// A tenant's budgets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Budgets {
    /// The tenant's own, then those of its deployments and keys.
    pub budgets: Vec<Budget>,
}
