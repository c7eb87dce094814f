//! The file that says who the tenants are and on what they run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use tenantry_sched::{DeviceTimeLimit, Policy, Rate, Reservation, Tier, Weight};

/// Why a tenants file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the tenants file is not valid: {0}")]
pub struct TenantsError(#[from] toml::de::Error);

/// A tenants file: every key but the tables' names is optional.
///
/// ```toml
/// [slots]
/// count = 2                  # slots everybody uses
/// suspend = true             # batches on them can be suspended for a reservation
/// groups = { gold = 1 }      # slots beside them that only the tenants of a group use
///
/// [scheduler]
/// policy = "fair"            # fair | fifo | round-robin | strict-priority
/// quantum = "20ms"
/// window = "100ms"
/// fill_window = "1s"
///
/// [models."platform/files"]  # what its runs cost; without it, what the trace says they took
/// fixed = "2ms"
/// per_row = "300us"
/// max_rows = 32
///
/// [organisations.north]
/// weight = 2
///
/// [tenants.acme]
/// tier = "guaranteed"        # guaranteed | burstable | best-effort
/// weight = 2
/// reservation = "0.25"       # slots
/// burst = "100ms"
/// limit = "0.5"              # slots
/// limit_burst = "1s"
/// max_queued_tasks = 100
/// organisation = "north"
/// group = "gold"
/// batch_with_others = false
/// ```
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tenants {
    /// The machine.
    pub slots: Slots,
    /// The scheduler.
    pub scheduler: SchedulerTable,
    /// Models whose cost is given.
    pub models: BTreeMap<String, ModelTable>,
    /// Organisations.
    pub organisations: BTreeMap<String, OrganisationTable>,
    /// Tenants; one of the trace that is missing here has the default settings.
    pub tenants: BTreeMap<String, TenantTable>,
}

/// The machine.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Slots {
    /// Slots everybody uses.
    pub count: u16,
    /// Whether what runs on them can be suspended.
    pub suspend: bool,
    /// Dedicated slots.
    pub groups: BTreeMap<String, u16>,
}

impl Default for Slots {
    fn default() -> Self {
        Self { count: 1, suspend: true, groups: BTreeMap::new() }
    }
}

/// The scheduler.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SchedulerTable {
    /// The policy.
    pub policy: Policy,
    /// Q.
    pub quantum: Option<Span>,
    /// T.
    pub window: Option<Span>,
    /// T for filling batches.
    pub fill_window: Option<Span>,
}

/// What a model's runs cost.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelTable {
    /// The part of a batch that does not grow with its rows.
    pub fixed: Option<Span>,
    /// Each row.
    pub per_row: Option<Span>,
    /// The largest batch.
    pub max_rows: Option<u32>,
}

/// An organisation.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OrganisationTable {
    /// Its weight.
    pub weight: Option<Factor>,
}

/// A tenant.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TenantTable {
    /// Its tier.
    pub tier: TierName,
    /// Its weight; absent: 1.
    pub weight: Option<Factor>,
    /// Slots kept free for it.
    pub reservation: Option<Factor>,
    /// Device time at once that counts as reserved; absent: 100 ms.
    pub burst: Option<Span>,
    /// Slots it may use.
    pub limit: Option<Factor>,
    /// Device time it may use at once; absent: 1 s.
    pub limit_burst: Option<Span>,
    /// Its requests that may wait.
    pub max_queued_tasks: Option<u32>,
    /// Under which organisation.
    pub organisation: Option<String>,
    /// On which slots.
    pub group: Option<String>,
    /// Whether its requests run in the workers of others; absent: unless guaranteed or in a group.
    pub batch_with_others: Option<bool>,
}

impl TenantTable {
    pub(super) fn reservation(&self) -> Option<Reservation> {
        let burst = self.burst.map_or(Duration::from_millis(100), |burst| burst.0);
        self.reservation.map(|rate| Reservation { rate: rate.rate(), burst })
    }

    pub(super) fn limit(&self) -> Option<DeviceTimeLimit> {
        let burst = self.limit_burst.map_or(Duration::from_secs(1), |burst| burst.0);
        self.limit.map(|rate| DeviceTimeLimit { rate: rate.rate(), burst })
    }
}

/// A tier as files name it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TierName {
    /// [`Tier::Guaranteed`].
    Guaranteed,
    /// [`Tier::Burstable`].
    #[default]
    Burstable,
    /// [`Tier::BestEffort`].
    #[serde(alias = "best_effort")]
    BestEffort,
}

impl TierName {
    /// As the scheduler knows it.
    pub const fn tier(self) -> Tier {
        match self {
            Self::Guaranteed => Tier::Guaranteed,
            Self::Burstable => Tier::Burstable,
            Self::BestEffort => Tier::BestEffort,
        }
    }

    /// As tables name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "guaranteed",
            Self::Burstable => "burstable",
            Self::BestEffort => "best-effort",
        }
    }
}

/// A length of time, written `20ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// A number that is not negative, written `0.25` or `"0.25"`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Factor(pub f64);

impl Factor {
    /// Millionths of a slot.
    pub fn rate(self) -> Rate {
        Rate::from_ppm((self.0 * 1e6).round() as u32)
    }

    /// Thousandths.
    pub fn weight(self) -> Weight {
        Weight::from_milli((self.0 * 1e3).round() as u32)
    }
}

impl<'de> Deserialize<'de> for Factor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = f64;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, such as 0.25")
            }
            fn visit_f64<E>(self, value: f64) -> Result<f64, E> {
                Ok(value)
            }
            fn visit_i64<E>(self, value: i64) -> Result<f64, E> {
                Ok(value as f64)
            }
            fn visit_u64<E>(self, value: u64) -> Result<f64, E> {
                Ok(value as f64)
            }
            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<f64, E> {
                value.parse().map_err(|_| E::custom(format!("`{value}` is not a number")))
            }
        }
        let value = deserializer.deserialize_any(Visitor)?;
        if value.is_finite() && (0.0..=1000.0).contains(&value) {
            Ok(Self(value))
        } else {
            Err(serde::de::Error::custom("expected a number from 0 to 1000"))
        }
    }
}

/// Reads a tenants file.
///
/// # Errors
/// [`TenantsError`] with the line and what is wrong there.
pub fn parse(text: &str) -> Result<Tenants, TenantsError> {
    Ok(toml::from_str(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_in_the_docs_is_valid() {
        let page = include_str!("tenants.rs");
        let from = page.find("/// ```toml\n").unwrap() + "/// ```toml\n".len();
        let to = page.find("/// ```\n#[derive").unwrap();
        let example: String =
            page[from..to].lines().map(|line| line.trim_start_matches("///")).collect::<Vec<_>>().join("\n");
        let parsed = parse(&example).unwrap();
        assert_eq!(parsed.slots.count, 2);
        assert_eq!(parsed.tenants["acme"].reservation().unwrap().rate, Rate::from_ppm(250_000));
    }

    #[test]
    fn mistakes_are_named() {
        assert!(parse("[tenants.a]\nwieght = 2").unwrap_err().to_string().contains("wieght"));
        assert!(parse("[tenants.a]\nweight = -2").unwrap_err().to_string().contains("0 to 1000"));
        assert!(parse("[tenants.a]\nburst = \"soon\"").is_err());
    }
}
