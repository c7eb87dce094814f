//! `tenantry price`.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tenantry_api::admin::types::{NewPricePlan, PricePlan, PricePlans};
use tenantry_types::TenantName;
use ureq::http::Method;

use super::tenant;
use crate::arguments::Price as Command;
use crate::client::Client;
use crate::output::{print_json, print_table, table};

pub(crate) fn run(client: &Client, command: &Command, json: bool) -> Result<()> {
    match command {
        Command::Set { file, tenant, from } => {
            let mut plan = read(file)?;
            plan.valid_from_ms = from.or(plan.valid_from_ms);
            let made: PricePlan = client.send(Method::POST, &path(tenant.as_ref()), &plan)?;
            if json {
                return print_json(&made);
            }
            println!("price plan {} is in force from {} on", made.name, exact(made.valid_from_ms));
        }
        Command::List { tenant } => {
            let plans: PricePlans = client.get(&path(tenant.as_ref()))?;
            if json {
                return print_json(&plans);
            }
            let mut rows = table(&["from", "until", "plan", "meter", "tier", "pool", "price"]);
            for plan in &plans.plans {
                for (position, price) in plan.prices.iter().enumerate() {
                    let first = |text: String| if position == 0 { text } else { String::new() };
                    rows.add_row([
                        first(exact(plan.valid_from_ms)),
                        first(plan.valid_until_ms.map(exact).unwrap_or_default()),
                        first(plan.name.clone()),
                        price.meter.clone(),
                        price.tier.map(|tier| word(&tier)).unwrap_or_default(),
                        price.pool.clone().unwrap_or_default(),
                        format!("{} {} per {}", price.price, plan.currency, price.per),
                    ]);
                }
            }
            print_table(&rows, "no price plans");
            if let Some(in_force) = &plans.in_force {
                println!("in force: {} from {}", in_force.name, exact(in_force.valid_from_ms));
            }
        }
        Command::Remove { from, tenant } => {
            client.delete(&format!("{}/{from}", path(tenant.as_ref())))?;
            eprintln!("the price plan of {} is gone, or has ended", exact(*from));
        }
    }
    Ok(())
}

fn path(tenant: Option<&TenantName>) -> String {
    match tenant {
        Some(tenant) => format!("{}/prices", tenant::path(tenant)),
        None => "/admin/v1/prices".to_owned(),
    }
}

fn read(file: &Path) -> Result<NewPricePlan> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        text
    } else {
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?
    };
    serde_json::from_str(&text).with_context(|| format!("{} is no price plan", file.display()))
}

/// A word of the API.
fn word(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).ok();
    value.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// An instant to the millisecond: it names a plan.
fn exact(unix_ms: i64) -> String {
    let since = Duration::from_millis(u64::try_from(unix_ms).unwrap_or(0));
    humantime::format_rfc3339(std::time::UNIX_EPOCH + since).to_string()
}
