//! Invoices for the tools of finance people: the FinOps Open Cost and Usage Specification (FOCUS), version 1.2, as CSV.
//!
//! One row for each line item and day, `ChargeCategory` `Usage`; what a total's rounding comes to is one `Adjustment`, so that the
//! rows' `BilledCost` add up to the invoices' totals to the last digit, as the specification asks. There are no discounts and
//! no commitments: the four costs of a row are the same, and so are its two unit prices. All columns that version 1.2 calls
//! mandatory are there, and of the others those we can say something in; columns of our own begin with `x_`.
//!
//! A row's cost is its quantity times its price to within a nano: days share their line item's rounding, and quantities have
//! twelve digits.

use sha2::{Digest, Sha256};
use tenantry_types::share::ShareTier;

use crate::csv::Table;
use crate::invoice::{Invoice, LineDay, LineItem, hex};
use crate::meter::{Meter, Pool, Unit};
use crate::money::{Currency, Nano, ratio};
use crate::period::midnight;

/// Which version of the specification the columns are of.
pub const FOCUS_VERSION: &str = "1.2";

/// The columns, in order.
pub const FOCUS_COLUMNS: [&str; 46] = [
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingAccountType",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceId",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "RegionName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceDetails",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
    "Tags",
    "x_ModelVersion",
    "x_PricePlan",
    "x_UsageTier",
];

/// Who sells, and where: the same in every row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parties {
    /// Who runs the server.
    pub provider: String,
    /// Who makes the invoice.
    pub issuer: String,
    /// Where the machine stands.
    pub region: Option<String>,
    /// The service, as people know it.
    pub service: String,
}

/// What differs from row to row; the rest is the invoice's.
struct Row {
    cost: String,
    category: &'static str,
    description: String,
    frequency: &'static str,
    start: String,
    end: String,
    usage: Option<Usage>,
}

/// What only rows about usage have.
struct Usage {
    consumed: String,
    consumed_unit: String,
    quantity: String,
    unit: String,
    price: String,
    sku: String,
    meter: &'static str,
    details: String,
    sku_price: String,
    resource: Option<String>,
    model: String,
    version: String,
    plan: String,
    tier: &'static str,
    tags: String,
}

/// The rows of these invoices, with one header. Invoices without a price have none: there is no currency to name.
pub fn focus_csv(parties: &Parties, invoices: &[Invoice]) -> String {
    let mut table = Table::new(&FOCUS_COLUMNS);
    for invoice in invoices {
        let Some(currency) = invoice.currency() else { continue };
        for line in invoice.lines() {
            for day in &line.days {
                // A quotient of what has been priced already.
                if let Some(row) = usage_row(line, day, currency) {
                    write(&mut table, parties, invoice, currency, &row);
                }
            }
        }
        if invoice.rounding() != Nano::ZERO {
            write(&mut table, parties, invoice, currency, &rounding_row(invoice));
        }
    }
    table.finish()
}

fn usage_row(line: &LineItem, day: &LineDay, currency: Currency) -> Option<Row> {
    let (consumed_size, consumed_unit) = consumed(line.meter);
    let sku = format!("tenantry/{}", line.meter);
    let usage = Usage {
        consumed: ratio(day.used, consumed_size)?,
        consumed_unit,
        quantity: ratio(day.used, line.unit.size())?,
        unit: pricing_unit(line.meter, line.unit),
        price: line.price.to_string(),
        sku_price: sku_price(&sku, line, currency),
        sku,
        meter: line.meter.title(),
        details: price_details(line),
        resource: line.deployment.map(|deployment| deployment.to_string()),
        model: line.model.clone(),
        version: line.version.to_string(),
        plan: line.plan.clone(),
        tier: line.tier.as_str(),
        tags: object(&[("model", &line.model), ("version", &line.version.to_string())]),
    };
    Some(Row {
        cost: day.cost.to_string(),
        category: "Usage",
        description: format!(
            "{} of {} version {}, {}",
            line.meter.title(),
            line.model,
            line.version,
            line.tier.as_str()
        ),
        frequency: "Usage-Based",
        start: midnight(day.day),
        end: midnight(day.day + 1),
        usage: Some(usage),
    })
}

fn rounding_row(invoice: &Invoice) -> Row {
    let period = invoice.period();
    Row {
        cost: invoice.rounding().to_string(),
        category: "Adjustment",
        description: "Rounding of the total to the currency's smallest unit".to_owned(),
        frequency: "One-Time",
        start: midnight(period.first_day()),
        end: midnight(period.last_day() + 1),
        usage: None,
    }
}

/// In the order of [`FOCUS_COLUMNS`].
fn write(table: &mut Table, parties: &Parties, invoice: &Invoice, currency: Currency, row: &Row) {
    let billed = invoice.billed();
    let period = invoice.period();
    let (start, end) = (midnight(period.first_day()), midnight(period.last_day() + 1));
    let tenant = billed.tenant.to_string();
    let organisation = billed.organisation.map(|organisation| organisation.to_string());
    let (account, account_name, account_type) = match &organisation {
        Some(organisation) => (organisation, billed.organisation_name.as_deref(), "Organisation"),
        None => (&tenant, Some(billed.tenant_name.as_str()), "Tenant"),
    };
    let cost = Some(row.cost.as_str());
    let usage = row.usage.as_ref();
    let price = usage.map(|usage| usage.price.as_str());
    table.line([
        cost,
        Some(account.as_str()),
        account_name,
        Some(account_type),
        Some(currency.code()),
        Some(end.as_str()),
        Some(start.as_str()),
        Some(row.category),
        None,
        Some(row.description.as_str()),
        Some(row.frequency),
        Some(row.end.as_str()),
        Some(row.start.as_str()),
        usage.map(|usage| usage.consumed.as_str()),
        usage.map(|usage| usage.consumed_unit.as_str()),
        cost,
        price,
        cost,
        Some(invoice.name()),
        Some(parties.issuer.as_str()),
        cost,
        price,
        usage.map(|_| "Standard"),
        usage.map(|usage| usage.quantity.as_str()),
        usage.map(|usage| usage.unit.as_str()),
        Some(parties.provider.as_str()),
        Some(parties.provider.as_str()),
        parties.region.as_deref(),
        parties.region.as_deref(),
        usage.and_then(|usage| usage.resource.as_deref()),
        usage.and_then(|usage| usage.resource.as_ref().map(|_| usage.model.as_str())),
        usage.and_then(|usage| usage.resource.as_ref().map(|_| "Deployment")),
        Some("AI and Machine Learning"),
        Some(parties.service.as_str()),
        Some("Machine Learning"),
        usage.map(|usage| usage.sku.as_str()),
        usage.map(|usage| usage.meter),
        usage.map(|usage| usage.details.as_str()),
        usage.map(|usage| usage.sku_price.as_str()),
        Some(tenant.as_str()),
        Some(billed.tenant_name.as_str()),
        Some("Tenant"),
        usage.map(|usage| usage.tags.as_str()),
        usage.map(|usage| usage.version.as_str()),
        usage.map(|usage| usage.plan.as_str()),
        usage.map(|usage| usage.tier),
    ]);
}

/// How what is consumed is counted, and how many of the meter's own units make one. Nanoseconds are no unit of FOCUS.
fn consumed(meter: Meter) -> (u128, String) {
    match meter.measured_in() {
        "ns" => (Unit::Second.size(), format!("{}-Seconds", meter.focus_noun())),
        "byte_seconds" => (1, "B-Seconds".to_owned()),
        "bytes" => (1, "B".to_owned()),
        _ => (1, format!("{}s", meter.focus_noun())),
    }
}

fn pricing_unit(meter: Meter, unit: Unit) -> String {
    let noun = meter.focus_noun();
    match unit {
        Unit::Second => format!("{noun}-Seconds"),
        Unit::Minute => format!("{noun}-Minutes"),
        Unit::Hour => format!("{noun}-Hours"),
        Unit::One => format!("{noun}s"),
        Unit::Thousand => format!("1000 {noun}s"),
        Unit::Million => format!("1000000 {noun}s"),
        Unit::Mb => "MB".to_owned(),
        Unit::Mib => "MiB".to_owned(),
        Unit::Gb => "GB".to_owned(),
        Unit::Gib => "GiB".to_owned(),
        Unit::Tb => "TB".to_owned(),
        Unit::Tib => "TiB".to_owned(),
        Unit::GbHour => "GB-Hours".to_owned(),
        Unit::GibHour => "GiB-Hours".to_owned(),
    }
}

/// The name of a unit price: it is derived from all that makes it one, so that no name ever stands for two prices.
fn sku_price(sku: &str, line: &LineItem, currency: Currency) -> String {
    let price = line.priced;
    let tier = price.tier.map_or("any", ShareTier::as_str);
    let pool = price.pool.map_or("any", Pool::as_str);
    let what = format!("{sku}/{}/{tier}/{pool}", line.plan);
    let exact = format!("{what}/{}/{}/{}/{}", line.plan_from_ms, price.nano, price.per, currency);
    format!("{what}/{}", hex(&Sha256::digest(exact.as_bytes()), 4))
}

fn price_details(line: &LineItem) -> String {
    let tier = line.priced.tier.map(|tier| ("UsageTier", tier.as_str()));
    let pool = line.priced.pool.map(|pool| ("Pool", pool.as_str()));
    let details: Vec<(&str, &str)> =
        [Some(("PricePlan", line.plan.as_str())), tier, pool].into_iter().flatten().collect();
    object(&details)
}

/// A JSON object of texts.
fn object(fields: &[(&str, &str)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{}:{}", text(name), text(value))).collect();
    format!("{{{}}}", fields.join(","))
}

fn text(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            c if c.is_control() => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests;
