//! Invoices: sums of days and prices in, line items out.
//!
//! The same usage and plans make the same invoice, byte for byte, in whatever order they come: line items are sorted, names are
//! derived from what they name, and nothing says when it was made.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sha2::{Digest, Sha256};
use tenantry_types::share::ShareTier;
use tenantry_types::{DeploymentId, OrganisationId, TenantId};

use crate::csv::Table;
use crate::meter::{Meter, Pool, Quantities, Unit};
use crate::money::{Currency, Nano, ratio};
use crate::period::{DAY_MS, Period, date, midnight};
use crate::price::{CostOverflow, Price, PriceBook};

/// The shape of the JSON. It changes when a field changes its meaning or goes, not when one comes.
const FORMAT: u32 = 1;

/// The columns of [`Invoice::to_csv`].
pub const CSV_COLUMNS: [&str; 20] = [
    "invoice",
    "tenant",
    "period_start",
    "period_end",
    "model",
    "version",
    "deployment",
    "tier",
    "pool",
    "meter",
    "plan",
    "first_day",
    "last_day",
    "used",
    "used_unit",
    "quantity",
    "unit",
    "price",
    "cost",
    "currency",
];

/// Who is billed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Billed {
    /// The tenant.
    pub tenant: TenantId,
    /// Its name.
    pub tenant_name: String,
    /// The organisation it belongs to, which pays.
    pub organisation: Option<OrganisationId>,
    /// Its name.
    pub organisation_name: Option<String>,
}

/// What was used on one day by one deployment's version in one tier. Several may be about the same; they are added up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaySum {
    /// The day, counted from the Unix epoch, UTC.
    pub day: i64,
    /// The deployment; none: what was for none.
    pub deployment: Option<DeploymentId>,
    /// The model, `owner/name`.
    pub model: String,
    /// The version's number.
    pub version: u32,
    /// What was promised.
    pub tier: ShareTier,
    /// On which kind of device, where that is known.
    pub pool: Option<Pool>,
    /// What is billed of it.
    pub quantities: Quantities,
}

/// An invoice of one tenant, in one currency, for whole days.
///
/// As JSON all amounts are texts with decimal numbers: of money in units of the currency, of usage in `used` as whole numbers of
/// `used_unit` and in `quantity` in what the price is for, to twelve digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Invoice {
    /// The shape of this document.
    format: u32,
    /// Derived from all that is in it.
    invoice: String,
    #[serde(flatten)]
    billed: Billed,
    currency: Option<Currency>,
    period_start: String,
    period_end: String,
    lines: Vec<LineItem>,
    /// All lines together.
    sum: Nano,
    /// What makes the total of the sum.
    rounding: Nano,
    /// What is to be paid, in whole smallest units of the currency.
    total: String,
    /// Days with usage and without a plan; they cost nothing.
    unpriced_days: Vec<String>,
    #[serde(skip)]
    period: Period,
    #[serde(skip)]
    total_nano: Nano,
}

/// What one meter of one version cost under one plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LineItem {
    /// The model, `owner/name`.
    pub model: String,
    /// The version's number.
    pub version: u32,
    /// The deployment.
    pub deployment: Option<DeploymentId>,
    /// What was promised.
    pub tier: ShareTier,
    /// On which kind of device, where that is known.
    pub pool: Option<Pool>,
    /// What was measured.
    pub meter: Meter,
    /// The plan.
    pub plan: String,
    /// The first day with usage.
    pub first_day: String,
    /// The last one.
    pub last_day: String,
    /// How much, in the meter's unit.
    pub used: String,
    /// The meter's unit.
    pub used_unit: &'static str,
    /// How many units of the price.
    pub quantity: String,
    /// What the price is for.
    pub unit: Unit,
    /// Of one unit.
    pub price: Nano,
    /// Quantity times price, rounded half to even to a nano.
    pub cost: Nano,
    #[serde(skip)]
    pub(crate) priced: Price,
    #[serde(skip)]
    pub(crate) plan_from_ms: i64,
    #[serde(skip)]
    pub(crate) days: Vec<LineDay>,
}

/// One day's part of a line item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LineDay {
    pub(crate) day: i64,
    pub(crate) used: u128,
    pub(crate) cost: Nano,
}

/// Why there is no invoice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvoiceError {
    /// A day that is not in the period: the caller's mistake.
    #[error("{} is not in the invoice's period", date(*.0))]
    Outside(i64),
    /// The plans changed their currency within the period. Two shorter invoices have one each.
    #[error(
        "the plans of the period are in {0} and {1}: make an invoice up to the day the currency changes and one from there"
    )]
    TwoCurrencies(Currency, Currency),
    /// Nobody has so much money.
    #[error(transparent)]
    Cost(#[from] CostOverflow),
}

/// Which line item something belongs to, in the order they are shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct LineKey {
    model: String,
    version: u32,
    deployment: Option<DeploymentId>,
    tier: ShareTier,
    pool: Option<Pool>,
    meter: Meter,
    plan_from_ms: i64,
    plan: String,
}

impl Invoice {
    /// The invoice of a period. Each day is priced by the plan that is in force at its beginning.
    ///
    /// # Errors
    /// [`InvoiceError`].
    pub fn new(billed: Billed, period: Period, book: &PriceBook, days: &[DaySum]) -> Result<Self, InvoiceError> {
        let mut currency: Option<Currency> = None;
        let mut unpriced_days = BTreeSet::new();
        let mut lines: BTreeMap<LineKey, (Price, BTreeMap<i64, u128>)> = BTreeMap::new();
        for sum in days {
            if !period.contains(sum.day) {
                return Err(InvoiceError::Outside(sum.day));
            }
            if sum.quantities == Quantities::default() {
                continue;
            }
            let Some(plan) = book.in_force(sum.day.saturating_mul(DAY_MS)) else {
                unpriced_days.insert(sum.day);
                continue;
            };
            if let Some(before) = currency.replace(plan.currency())
                && before != plan.currency()
            {
                let (one, other) = (before.min(plan.currency()), before.max(plan.currency()));
                return Err(InvoiceError::TwoCurrencies(one, other));
            }
            for meter in Meter::ALL {
                let used = sum.quantities.get(*meter);
                let Some(price) = plan.price(*meter, sum.tier, sum.pool).filter(|_| used > 0) else { continue };
                let key = LineKey {
                    model: sum.model.clone(),
                    version: sum.version,
                    deployment: sum.deployment,
                    tier: sum.tier,
                    pool: sum.pool,
                    meter: *meter,
                    plan_from_ms: plan.valid_from_ms(),
                    plan: plan.name().to_owned(),
                };
                let (_, by_day) = lines.entry(key).or_insert_with(|| (*price, BTreeMap::new()));
                let of_day = by_day.entry(sum.day).or_default();
                // 2^64 times the number of sums: far below 2^128.
                *of_day = of_day.saturating_add(u128::from(used));
            }
        }
        let lines = lines.into_iter().map(|(key, (price, by_day))| LineItem::new(key, price, by_day));
        let lines: Vec<LineItem> = lines.collect::<Result<_, _>>()?;
        let sum = lines.iter().try_fold(Nano::ZERO, |sum, line| sum.checked_add(line.cost)).ok_or(CostOverflow)?;
        let smallest = currency.map_or(1, Currency::smallest_nano);
        let total = sum.rounded(smallest).ok_or(CostOverflow)?;
        let mut invoice = Self {
            format: FORMAT,
            invoice: String::new(),
            billed,
            currency,
            period_start: midnight(period.first_day()),
            period_end: midnight(period.last_day() + 1),
            lines,
            sum,
            rounding: Nano(total.0 - sum.0),
            total: currency.map_or_else(|| "0".to_owned(), |currency| currency.show(total)),
            unpriced_days: unpriced_days.into_iter().map(date).collect(),
            period,
            total_nano: total,
        };
        invoice.invoice = invoice.derive_name();
        Ok(invoice)
    }

    /// Its name: the same for the same content, and another one as soon as a figure is another.
    pub fn name(&self) -> &str {
        &self.invoice
    }

    /// Who is billed.
    pub const fn billed(&self) -> &Billed {
        &self.billed
    }

    /// Of all amounts; none where nothing has a price.
    pub const fn currency(&self) -> Option<Currency> {
        self.currency
    }

    /// For which days.
    pub const fn period(&self) -> Period {
        self.period
    }

    /// Sorted by model, version, deployment, tier, pool, meter, and the plans by when they came into force.
    pub fn lines(&self) -> &[LineItem] {
        &self.lines
    }

    /// All lines together.
    pub const fn sum(&self) -> Nano {
        self.sum
    }

    /// What is to be paid: the sum, rounded half to even to the currency's smallest unit.
    pub const fn total(&self) -> Nano {
        self.total_nano
    }

    /// What makes the total of the sum.
    pub const fn rounding(&self) -> Nano {
        self.rounding
    }

    /// Days with usage for which there is no plan, as dates.
    pub fn unpriced_days(&self) -> &[String] {
        &self.unpriced_days
    }

    /// One line for each line item, and a last one with the meter `rounding` where the total is not the sum, so that the costs in
    /// the file add up to what is to be paid. The columns are [`CSV_COLUMNS`]; `price` and `cost` are in `currency`.
    pub fn to_csv(&self) -> String {
        self.csv(&self.invoice)
    }

    fn csv(&self, name: &str) -> String {
        let mut table = Table::new(&CSV_COLUMNS);
        let tenant = self.billed.tenant.to_string();
        let currency = self.currency.map(Currency::code);
        let head = [name, tenant.as_str(), self.period_start.as_str(), self.period_end.as_str()].map(Some);
        for line in &self.lines {
            let version = line.version.to_string();
            let deployment = line.deployment.map(|deployment| deployment.to_string());
            let (price, cost) = (line.price.to_string(), line.cost.to_string());
            let fields = [
                Some(line.model.as_str()),
                Some(version.as_str()),
                deployment.as_deref(),
                Some(line.tier.as_str()),
                line.pool.map(Pool::as_str),
                Some(line.meter.as_str()),
                Some(line.plan.as_str()),
                Some(line.first_day.as_str()),
                Some(line.last_day.as_str()),
                Some(line.used.as_str()),
                Some(line.used_unit),
                Some(line.quantity.as_str()),
                Some(line.unit.as_str()),
                Some(price.as_str()),
                Some(cost.as_str()),
                currency,
            ];
            table.line(head.into_iter().chain(fields));
        }
        if self.rounding != Nano::ZERO {
            let rounding = self.rounding.to_string();
            let mut fields = [None; 16];
            for (place, value) in [(5, Some("rounding")), (14, Some(rounding.as_str())), (15, currency)] {
                if let Some(field) = fields.get_mut(place) {
                    *field = value;
                }
            }
            table.line(head.into_iter().chain(fields));
        }
        table.finish()
    }

    /// The hash of what is in it.
    fn derive_name(&self) -> String {
        let mut hash = Sha256::new();
        // Names and dates hold no line feed, and the table comes last: no two invoices are the same text.
        for part in [&self.period_start, &self.period_end, &self.billed.tenant.to_string(), &self.total] {
            hash.update(part.as_bytes());
            hash.update(b"\n");
        }
        for day in &self.unpriced_days {
            hash.update(day.as_bytes());
            hash.update(b"\n");
        }
        hash.update(self.csv("").as_bytes());
        format!("inv_{}", hex(&hash.finalize(), 16))
    }
}

impl LineItem {
    fn new(key: LineKey, price: Price, by_day: BTreeMap<i64, u128>) -> Result<Self, CostOverflow> {
        let (mut used, mut cost) = (0u128, Nano::ZERO);
        let mut days = Vec::with_capacity(by_day.len());
        for (day, of_day) in &by_day {
            used = used.checked_add(*of_day).ok_or(CostOverflow)?;
            // A day costs what the line costs more with it. So the days add up to the line to the nano, and each is within one of
            // its own product.
            let so_far = price.cost(used)?;
            days.push(LineDay { day: *day, used: *of_day, cost: Nano(so_far.0 - cost.0) });
            cost = so_far;
        }
        let dated = |day: Option<&LineDay>| day.map(|day| date(day.day)).unwrap_or_default();
        let (first_day, last_day) = (dated(days.first()), dated(days.last()));
        let LineKey { model, version, deployment, tier, pool, meter, plan_from_ms, plan } = key;
        Ok(Self {
            model,
            version,
            deployment,
            tier,
            pool,
            meter,
            plan,
            first_day,
            last_day,
            used: used.to_string(),
            used_unit: meter.measured_in(),
            quantity: ratio(used, price.per.size()).ok_or(CostOverflow)?,
            unit: price.per,
            price: price.amount(),
            cost,
            priced: price,
            plan_from_ms,
            days,
        })
    }
}

/// The first `bytes` of a hash.
pub(crate) fn hex(hash: &[u8], bytes: usize) -> String {
    hash.iter().take(bytes).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub(crate) mod tests;
