//! Prices, invoices and budgets as arithmetic over measured usage.
//!
//! What was used is measured elsewhere and is integers; what it costs follows from it and a price plan by rules that are stated
//! here once, so that everybody who asks gets the same figures. No clock, no IO, no floats: time is an argument, amounts of
//! money are whole nanos (10^-9 of the currency's unit), and what would overflow is an error.
//!
//! - [`price`]: price plans, and which of them is in force when.
//! - [`invoice`]: sums of days and prices in, line items out; as JSON and CSV, and for the tools of finance people in [`focus`].
//! - [`budget`]: limits by period on requests, device time, tokens and money, held while requests run. README.md has the argument.
//!
//! **Rounding**, the only places there are: a line item's cost is rounded half to even to a nano; an invoice's total is the sum of
//! its line items, rounded half to even to the currency's smallest unit, and the difference is shown.
#![forbid(unsafe_code)]

pub mod budget;
mod csv;
pub mod focus;
pub mod invoice;
pub mod meter;
pub mod money;
pub mod period;
pub mod price;

pub use budget::{
    Amounts, BudgetLimit, BudgetMeter, BudgetScope, Budgets, Crossed, Enforcement, LimitKey, Refused, RefusedFor,
    Remaining, Reservation, Subject,
};
pub use focus::{Parties, focus_csv};
pub use invoice::{Billed, DaySum, Invoice, InvoiceError, LineItem};
pub use meter::{Meter, Pool, Quantities, Unit};
pub use money::{Currency, Nano};
pub use period::{BudgetPeriod, Period, Window};
pub use price::{Price, PriceBook, PriceError, PricePlan, Rates};
