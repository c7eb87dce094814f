//! The arguments of prices, invoices and budgets.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand, ValueEnum};
use tenantry_types::{KeyId, ModelRef, TenantName};

/// Price plans.
#[derive(Debug, Subcommand)]
pub(crate) enum Price {
    /// Add a price plan, for everybody or for one tenant; it takes the place of the one before. For the platform's administrators.
    #[command(after_help = "Examples:\n  tenantry price set --file plan.json --from 2027-01-01\n  \
                            tenantry price set --file acme.json --tenant acme\n\n\
                            A plan, as JSON:\n  \
                            {\"name\": \"standard-2027\", \"currency\": \"EUR\", \"prices\": [\n    \
                            {\"meter\": \"device_compute\", \"tier\": \"guaranteed\", \"price\": \"2.40\", \"per\": \"hour\"},\n    \
                            {\"meter\": \"tokens_in\", \"price\": \"0.50\", \"per\": \"million\"}]}\n\n\
                            A day is priced by the plan that is in force at its beginning, UTC. Only the first plan of a list may begin\n\
                            in the past.")]
    Set {
        /// The plan; `-` reads it from standard input.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// Whose; without it everybody's who has none of their own.
        #[arg(long)]
        tenant: Option<TenantName>,
        /// From when on, such as 2027-01-01 or 2027-01-01T12:00:00Z; without it as the file says, or else from now on.
        #[arg(long, value_name = "INSTANT", value_parser = unix_ms)]
        from: Option<i64>,
    },
    /// List price plans.
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  tenantry price list\n  tenantry price list --tenant acme"
    )]
    List {
        /// Whose; without it everybody's, for the platform's administrators.
        #[arg(long)]
        tenant: Option<TenantName>,
    },
    /// Take back a plan that has not begun; let one that has end now. For the platform's administrators.
    #[command(
        visible_alias = "rm",
        after_help = "Examples:\n  tenantry price remove 2027-01-01\n  tenantry price remove 1798761600000 --tenant acme"
    )]
    Remove {
        /// When the plan begins, as `price list` shows it.
        #[arg(value_name = "FROM", value_parser = unix_ms)]
        from: i64,
        /// Whose; without it everybody's.
        #[arg(long)]
        tenant: Option<TenantName>,
    },
}

/// Invoices.
#[derive(Debug, Subcommand)]
pub(crate) enum Invoice {
    /// Show a tenant's invoice. It has what was recorded until now.
    #[command(after_help = "Examples:\n  tenantry invoice show acme --month 2026-11\n  \
                            tenantry invoice show acme --from 2026-11-01 --to 2026-11-15 --csv > acme.csv")]
    Show {
        /// Whose.
        tenant: TenantName,
        #[command(flatten)]
        days: InvoiceDays,
        /// Print it as comma-separated values.
        #[arg(long, conflicts_with = "json")]
        csv: bool,
    },
    /// Print charges for the tools of finance people: the columns of FOCUS 1.2 as comma-separated values.
    #[command(after_help = "Examples:\n  tenantry invoice focus --month 2026-11 > focus.csv\n  \
                            tenantry invoice focus --tenant acme --month 2026-11")]
    Focus {
        /// Whose; without it everybody's, for the platform's administrators.
        #[arg(long)]
        tenant: Option<TenantName>,
        #[command(flatten)]
        days: InvoiceDays,
    },
}

/// Which days, UTC.
#[derive(Debug, Args)]
pub(crate) struct InvoiceDays {
    /// A month, such as 2026-11; without it and without days the current one.
    #[arg(long, value_name = "MONTH", conflicts_with_all = ["from", "to"])]
    pub(crate) month: Option<String>,
    /// The first day, such as 2026-11-01.
    #[arg(long, value_name = "DAY")]
    pub(crate) from: Option<String>,
    /// The last day; without it today.
    #[arg(long, value_name = "DAY", requires = "from")]
    pub(crate) to: Option<String>,
}

/// Budgets.
#[derive(Debug, Subcommand)]
pub(crate) enum Budget {
    /// Set what may be used in an hour, a day or a month.
    #[command(after_help = "Examples:\n  tenantry budget set acme requests 1000000 --per month\n  \
                            tenantry budget set acme device-time 12h --per day --enforce soft\n  \
                            tenantry budget set acme money 250.00 --per month --tell 50,80,100\n  \
                            tenantry budget set acme tokens 5000000 --per day --model digits\n\n\
                            Where a budget is used up, requests are answered with 429 until its period ends.")]
    Set {
        /// Whose.
        tenant: TenantName,
        /// Of what.
        meter: MeterName,
        /// How much: requests, tokens, device time such as 90m, or an amount of money such as 250.00.
        amount: String,
        /// In which time, UTC.
        #[arg(long, value_name = "PERIOD")]
        per: PeriodName,
        #[command(flatten)]
        place: BudgetPlace,
        /// `hard`: nothing begins that does not fit beside what runs; `soft`: beside what is used; `watch`: everything begins.
        #[arg(long, default_value = "hard")]
        enforce: EnforcementName,
        /// When to tell it, percent; without it at 50, 80 and 100.
        #[arg(long, value_name = "PERCENT", value_delimiter = ',')]
        tell: Option<Vec<u16>>,
    },
    /// List a tenant's budgets and what is left of them.
    #[command(visible_alias = "ls", after_help = "Example:\n  tenantry budget list acme")]
    List {
        /// Whose.
        tenant: TenantName,
    },
    /// Remove a budget.
    #[command(visible_alias = "rm", after_help = "Example:\n  tenantry budget remove acme requests.month")]
    Remove {
        /// Whose.
        tenant: TenantName,
        /// The budget, as `budget list` names it.
        budget: String,
    },
}

/// Whose use is limited, of a tenant's.
#[derive(Debug, Args)]
pub(crate) struct BudgetPlace {
    /// Of what goes to this model only.
    #[arg(long, value_name = "MODEL", conflicts_with = "of_key")]
    pub(crate) model: Option<ModelRef>,
    /// Of what comes with this key only.
    #[arg(long = "of-key", value_name = "KEY_ID")]
    pub(crate) of_key: Option<KeyId>,
}

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MeterName {
    Requests,
    DeviceTime,
    Tokens,
    Money,
}

/// How long a budget lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PeriodName {
    Hour,
    Day,
    Month,
}

/// What is done where it is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EnforcementName {
    Hard,
    Soft,
    Watch,
}

/// An instant as milliseconds since the Unix epoch: a day, an instant of RFC 3339, or the number itself.
fn unix_ms(text: &str) -> Result<i64, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let full = if text.contains(['T', ' ']) { text.to_owned() } else { format!("{text}T00:00:00Z") };
    let instant: SystemTime = humantime::parse_rfc3339_weak(&full)
        .map_err(|_| "expected a day such as 2027-01-01, or an instant such as 2027-01-01T12:00:00Z".to_owned())?;
    let since: Duration = instant.duration_since(UNIX_EPOCH).map_err(|_| "before 1970".to_owned())?;
    i64::try_from(since.as_millis()).map_err(|_| "too late".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_days_times_and_numbers() {
        assert_eq!(unix_ms("2027-01-01"), Ok(1_798_761_600_000));
        assert_eq!(unix_ms("2027-01-01T00:00:00.001Z"), Ok(1_798_761_600_001));
        assert_eq!(unix_ms("17"), Ok(17));
        assert!(unix_ms("soon").is_err());
    }
}
