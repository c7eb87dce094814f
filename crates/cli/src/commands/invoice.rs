//! `tenantry invoice`.

use anyhow::Result;
use tenantry_api::admin::types::Invoice;

use super::tenant;
use crate::arguments::{Invoice as Command, InvoiceDays};
use crate::client::{Client, escape};
use crate::output::{print_json, print_table, table};

pub(crate) fn run(client: &Client, command: &Command, json: bool) -> Result<()> {
    match command {
        Command::Show { tenant, days, csv: true } => {
            let path = format!("{}/invoice{}", tenant::path(tenant), query(days, Some("csv")));
            print!("{}", client.text(&path)?);
            Ok(())
        }
        Command::Show { tenant, days, csv: false } => {
            let invoice: Invoice = client.get(&format!("{}/invoice{}", tenant::path(tenant), query(days, None)))?;
            if json {
                return print_json(&invoice);
            }
            show(&invoice);
            Ok(())
        }
        Command::Focus { tenant, days } => {
            let place = tenant.as_ref().map_or_else(|| "/admin/v1".to_owned(), tenant::path);
            print!("{}", client.text(&format!("{place}/focus{}", query(days, None)))?);
            Ok(())
        }
    }
}

fn query(days: &InvoiceDays, format: Option<&str>) -> String {
    let named = [
        ("month", days.month.as_deref()),
        ("from", days.from.as_deref()),
        ("to", days.to.as_deref()),
        ("format", format),
    ];
    let said: Vec<String> =
        named.iter().filter_map(|(name, value)| Some(format!("{name}={}", escape((*value)?)))).collect();
    if said.is_empty() { String::new() } else { format!("?{}", said.join("&")) }
}

fn show(invoice: &Invoice) {
    println!(
        "invoice {} for {}, {} to {}",
        invoice.invoice, invoice.tenant_name, invoice.period_start, invoice.period_end
    );
    let currency = invoice.currency.as_deref().unwrap_or_default();
    let mut rows = table(&["model", "meter", "plan", "used", "price", "cost"]);
    for line in &invoice.lines {
        rows.add_row([
            format!("{}:{}", line.model, line.version),
            line.meter.clone(),
            line.plan.clone(),
            format!("{} {}", line.used, line.used_unit),
            format!("{} per {}", line.price, line.unit),
            format!("{} {currency}", line.cost),
        ]);
    }
    print_table(&rows, "nothing that was used has a price");
    println!("total {} {currency}", invoice.total);
    if !invoice.unpriced_days.is_empty() {
        println!("without a price plan, and so for nothing: {}", invoice.unpriced_days.join(", "));
    }
}
