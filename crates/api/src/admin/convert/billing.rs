//! Prices, invoices and budgets between the server's values and the JSON of the API.

use tenantry_bill::period::{BudgetPeriod, Period};
use tenantry_bill::{BudgetMeter, BudgetScope, Currency, Enforcement, Price, PricePlan};
use tenantry_server::admin::{BudgetChange, BudgetInfo, BudgetPlace, NewPlan, TenantPlans};
use tenantry_types::ServiceError;
use tenantry_types::share::ShareTier;

use super::all;
use super::usage::{day, today};
use crate::admin::types;
use crate::caller::model_ref;

/// The days of `month`, or from `from` to `to`; of nothing the current month's.
///
/// # Errors
/// 400 for what is none, and for a month and days together.
pub(in crate::admin) fn period(
    month: Option<&str>,
    from: Option<&str>,
    to: Option<&str>,
) -> Result<Period, ServiceError> {
    let invalid = |error: &dyn std::fmt::Display| ServiceError::invalid(error.to_string());
    match (month, from, to) {
        (Some(month), None, None) => month_of(month),
        (None, Some(from), to) => {
            let to = to.map_or_else(|| Ok(today()), day)?;
            Period::days(day(from)?, to).map_err(|error| invalid(&error))
        }
        (None, None, None) => {
            let now_ms = today().saturating_mul(tenantry_bill::period::DAY_MS);
            let window = BudgetPeriod::Month.window(now_ms);
            let days = |ms: i64| ms.div_euclid(tenantry_bill::period::DAY_MS);
            Period::days(days(window.start_ms), days(window.end_ms) - 1).map_err(|error| invalid(&error))
        }
        _ => Err(ServiceError::invalid("say either `month`, such as 2026-11, or the days `from` and `to`")),
    }
}

fn month_of(text: &str) -> Result<Period, ServiceError> {
    let found = || {
        let (year, month) = text.split_once('-').filter(|(year, month)| year.len() == 4 && month.len() == 2)?;
        let is_number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(year) || !is_number(month) {
            return None;
        }
        Period::month(year.parse().ok()?, month.parse().ok()?).ok()
    };
    found().ok_or_else(|| ServiceError::invalid("a month is written like 2026-11"))
}

fn currency(text: &str) -> Result<Currency, ServiceError> {
    text.parse().map_err(|error: tenantry_bill::money::UnknownCurrency| ServiceError::invalid(error.to_string()))
}

impl TryFrom<types::NewPricePlan> for NewPlan {
    type Error = ServiceError;
    fn try_from(plan: types::NewPricePlan) -> Result<Self, ServiceError> {
        let types::NewPricePlan { name, currency: unit, valid_from_ms, valid_until_ms, prices } = plan;
        let prices = prices.into_iter().map(price).collect::<Result<_, _>>()?;
        Ok(Self { name, currency: currency(&unit)?, valid_from_ms, valid_until_ms, prices })
    }
}

fn price(price: types::Price) -> Result<Price, ServiceError> {
    let invalid = |error: &dyn std::fmt::Display| ServiceError::invalid(format!("a price: {error}"));
    let types::Price { meter, tier, pool, price, per } = price;
    let meter = meter.parse().map_err(|error: tenantry_bill::meter::UnknownMeter| invalid(&error))?;
    let pool = pool.map(|pool| pool.parse()).transpose();
    let pool = pool.map_err(|error: tenantry_bill::meter::UnknownPool| invalid(&error))?;
    let per = per.parse().map_err(|error: tenantry_bill::meter::UnknownUnit| invalid(&error))?;
    Price::new(meter, tier.map(ShareTier::from), pool, &price, per).map_err(|error| invalid(&error))
}

impl From<Price> for types::Price {
    fn from(price: Price) -> Self {
        Self {
            meter: price.meter.to_string(),
            tier: price.tier.map(Into::into),
            pool: price.pool.map(|pool| pool.to_string()),
            price: price.amount().to_string(),
            per: price.per.to_string(),
        }
    }
}

impl From<PricePlan> for types::PricePlan {
    fn from(plan: PricePlan) -> Self {
        Self {
            name: plan.name().to_owned(),
            currency: plan.currency().to_string(),
            valid_from_ms: plan.valid_from_ms(),
            valid_until_ms: plan.valid_until_ms(),
            prices: all(plan.prices().to_vec()),
        }
    }
}

impl From<TenantPlans> for types::PricePlans {
    fn from(plans: TenantPlans) -> Self {
        Self { plans: all(plans.plans), in_force: plans.in_force.map(Into::into) }
    }
}

impl From<types::BudgetMeter> for BudgetMeter {
    fn from(meter: types::BudgetMeter) -> Self {
        match meter {
            types::BudgetMeter::Requests => Self::Requests,
            types::BudgetMeter::DeviceTime => Self::DeviceTime,
            types::BudgetMeter::Tokens => Self::Tokens,
            types::BudgetMeter::Money => Self::Money,
        }
    }
}

impl From<BudgetMeter> for types::BudgetMeter {
    fn from(meter: BudgetMeter) -> Self {
        match meter {
            BudgetMeter::Requests => Self::Requests,
            BudgetMeter::DeviceTime => Self::DeviceTime,
            BudgetMeter::Tokens => Self::Tokens,
            BudgetMeter::Money => Self::Money,
        }
    }
}

impl From<types::BudgetPeriod> for BudgetPeriod {
    fn from(period: types::BudgetPeriod) -> Self {
        match period {
            types::BudgetPeriod::Hour => Self::Hour,
            types::BudgetPeriod::Day => Self::Day,
            types::BudgetPeriod::Month => Self::Month,
        }
    }
}

impl From<BudgetPeriod> for types::BudgetPeriod {
    fn from(period: BudgetPeriod) -> Self {
        match period {
            BudgetPeriod::Hour => Self::Hour,
            BudgetPeriod::Day => Self::Day,
            BudgetPeriod::Month => Self::Month,
        }
    }
}

impl From<types::BudgetEnforcement> for Enforcement {
    fn from(enforcement: types::BudgetEnforcement) -> Self {
        match enforcement {
            types::BudgetEnforcement::Hard => Self::Hard,
            types::BudgetEnforcement::Soft => Self::Soft,
            types::BudgetEnforcement::Watch => Self::Watch,
        }
    }
}

impl From<Enforcement> for types::BudgetEnforcement {
    fn from(enforcement: Enforcement) -> Self {
        match enforcement {
            Enforcement::Hard => Self::Hard,
            Enforcement::Soft => Self::Soft,
            Enforcement::Watch => Self::Watch,
        }
    }
}

impl TryFrom<types::NewBudget> for BudgetChange {
    type Error = ServiceError;
    fn try_from(budget: types::NewBudget) -> Result<Self, ServiceError> {
        let types::NewBudget { meter, period, amount, model, key, enforcement, currency: unit, thresholds_percent } =
            budget;
        let model = model.as_deref().map(model_ref).transpose()?;
        let place = match (model, key) {
            (None, None) => BudgetPlace::Tenant,
            (Some(model), None) => BudgetPlace::Deployment(model),
            (None, Some(key)) => BudgetPlace::Key(key),
            (Some(_), Some(_)) => {
                return Err(ServiceError::invalid("a budget is a model's or a key's, and not both's"));
            }
        };
        let currency = unit.as_deref().map(currency).transpose()?;
        Ok(Self {
            place,
            meter: meter.into(),
            period: period.into(),
            amount,
            enforcement: enforcement.into(),
            currency,
            thresholds_percent,
        })
    }
}

impl From<BudgetInfo> for types::Budget {
    fn from(budget: BudgetInfo) -> Self {
        let BudgetInfo { limit, left, model } = budget;
        let (deployment, key) = match limit.key.scope {
            BudgetScope::Tenant => (None, None),
            BudgetScope::Deployment(deployment) => (Some(deployment), None),
            BudgetScope::Key(key) => (None, Some(key)),
        };
        Self {
            id: limit.key.to_string(),
            meter: limit.key.meter.into(),
            period: limit.key.period.into(),
            deployment,
            model: model.map(|model| model.to_string()),
            key,
            amount: limit.amount,
            currency: limit.currency.map(|currency| currency.to_string()),
            enforcement: limit.enforcement.into(),
            thresholds_percent: limit.thresholds_percent,
            platform: limit.platform,
            used: left.used,
            reserved: left.reserved,
            remaining: left.remaining,
            reset_at_ms: left.reset_at_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_a_month_or_days() {
        let text = |month, from, to| period(month, from, to).map(|period| period.to_string());
        assert_eq!(text(Some("2026-11"), None, None), Ok("2026-11-01/2026-11-30".to_owned()));
        assert_eq!(text(None, Some("2026-11-03"), Some("2026-11-04")), Ok("2026-11-03/2026-11-04".to_owned()));
        assert!(text(None, None, None).is_ok_and(|days| days.contains("-01/")));
        for (month, from, to) in [
            (Some("2026-13"), None, None),
            (Some("2026-1"), None, None),
            (Some("+026-11"), None, None),
            (Some("2026-11"), Some("2026-11-01"), None),
            (None, None, Some("2026-11-01")),
            (None, Some("2026-11-05"), Some("2026-11-04")),
        ] {
            assert!(text(month, from, to).is_err(), "{month:?} {from:?} {to:?}");
        }
    }
}
