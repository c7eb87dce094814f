//! `tenantry budget`.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use tenantry_api::admin::types::{Budget, BudgetEnforcement, BudgetMeter, BudgetPeriod, Budgets, NewBudget};
use tenantry_bill::Nano;
use tenantry_bill::money::parse_nano;
use tenantry_types::TenantName;
use ureq::http::Method;

use super::tenant;
use crate::arguments::{Budget as Command, EnforcementName, MeterName, PeriodName};
use crate::client::Client;
use crate::output::{instant, print_json, print_table, span, table};

pub(crate) fn run(client: &Client, command: &Command, json: bool) -> Result<()> {
    match command {
        Command::Set { tenant, meter, amount, per, place, enforce, tell } => {
            let meter = meter_of(*meter);
            let new = NewBudget {
                meter,
                period: period_of(*per),
                amount: amount_of(meter, amount)?,
                model: place.model.as_ref().map(ToString::to_string),
                key: place.of_key,
                enforcement: enforcement_of(*enforce),
                currency: None,
                thresholds_percent: tell.clone(),
            };
            let set: Budget = client.send(Method::PUT, &path(tenant), &new)?;
            if json {
                return print_json(&set);
            }
            println!(
                "budget {}: {}, {} used, begins anew at {}",
                set.id,
                shown(&set, set.amount),
                shown(&set, set.used),
                instant(set.reset_at_ms)
            );
        }
        Command::List { tenant } => {
            let budgets: Budgets = client.get(&path(tenant))?;
            if json {
                return print_json(&budgets);
            }
            let mut rows = table(&["budget", "model", "amount", "used", "held", "left", "anew", "met", "set by"]);
            for budget in &budgets.budgets {
                rows.add_row([
                    budget.id.clone(),
                    budget.model.clone().unwrap_or_default(),
                    shown(budget, budget.amount),
                    shown(budget, budget.used),
                    shown(budget, budget.reserved),
                    shown(budget, budget.remaining),
                    instant(budget.reset_at_ms),
                    match budget.enforcement {
                        BudgetEnforcement::Hard => "refuses",
                        BudgetEnforcement::Soft => "refuses, late",
                        BudgetEnforcement::Watch => "tells",
                    }
                    .to_owned(),
                    if budget.platform { "platform" } else { "tenant" }.to_owned(),
                ]);
            }
            print_table(&rows, "no budgets");
        }
        Command::Remove { tenant, budget } => {
            client.delete(&format!("{}/{}", path(tenant), crate::client::escape(budget)))?;
            eprintln!("budget {budget} removed");
        }
    }
    Ok(())
}

fn path(tenant: &TenantName) -> String {
    format!("{}/budgets", tenant::path(tenant))
}

fn amount_of(meter: BudgetMeter, text: &str) -> Result<u64> {
    match meter {
        BudgetMeter::Requests | BudgetMeter::Tokens => text.parse().context("expected a whole number"),
        BudgetMeter::DeviceTime => {
            let time = humantime::parse_duration(text).context("expected a time such as 90m")?;
            u64::try_from(time.as_nanos()).context("longer than device time can be counted")
        }
        BudgetMeter::Money => parse_nano(text).map_err(|error| anyhow!("{error}")),
    }
}

fn shown(budget: &Budget, amount: u64) -> String {
    match budget.meter {
        BudgetMeter::Requests | BudgetMeter::Tokens => amount.to_string(),
        BudgetMeter::DeviceTime => span(Duration::from_nanos(amount)),
        BudgetMeter::Money => {
            format!("{} {}", Nano(i128::from(amount)), budget.currency.as_deref().unwrap_or_default())
        }
    }
}

const fn meter_of(meter: MeterName) -> BudgetMeter {
    match meter {
        MeterName::Requests => BudgetMeter::Requests,
        MeterName::DeviceTime => BudgetMeter::DeviceTime,
        MeterName::Tokens => BudgetMeter::Tokens,
        MeterName::Money => BudgetMeter::Money,
    }
}

const fn period_of(period: PeriodName) -> BudgetPeriod {
    match period {
        PeriodName::Hour => BudgetPeriod::Hour,
        PeriodName::Day => BudgetPeriod::Day,
        PeriodName::Month => BudgetPeriod::Month,
    }
}

const fn enforcement_of(enforcement: EnforcementName) -> BudgetEnforcement {
    match enforcement {
        EnforcementName::Hard => BudgetEnforcement::Hard,
        EnforcementName::Soft => BudgetEnforcement::Soft,
        EnforcementName::Watch => BudgetEnforcement::Watch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_in_the_meters_own_way() {
        assert_eq!(amount_of(BudgetMeter::Requests, "20").unwrap(), 20);
        assert_eq!(amount_of(BudgetMeter::DeviceTime, "1500us").unwrap(), 1_500_000);
        assert_eq!(amount_of(BudgetMeter::Money, "2.5").unwrap(), 2_500_000_000);
        assert!(amount_of(BudgetMeter::Tokens, "1.5").is_err());
        assert!(amount_of(BudgetMeter::Money, "-1").is_err());
    }
}
