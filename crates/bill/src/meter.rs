//! What is measured, in which units it is priced, and what of an attempt is billed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tenantry_types::usage::{Outcome, UsageKind, Used};

/// What is measured and may have a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meter {
    /// Device time of runs that reached their end, nanoseconds.
    DeviceCompute,
    /// The part of it that was spent on rows and elements nobody sent, nanoseconds.
    DevicePadding,
    /// Device time of loads, nanoseconds.
    DeviceLoad,
    /// Device time of runs that did not reach their end, nanoseconds.
    DeviceAborted,
    /// Processor time of workers, nanoseconds.
    Cpu,
    /// Requests that were answered.
    Requests,
    /// Bodies of requests, bytes.
    BytesIn,
    /// Bodies of answers, bytes.
    BytesOut,
    /// Tokens that were read.
    TokensIn,
    /// Tokens that were written.
    TokensOut,
    /// Memory held by loaded versions, bytes times seconds.
    Resident,
}

/// Devices of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// Processors.
    Cpu,
    /// Accelerators.
    Gpu,
}

/// What a price is for one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// One second.
    Second,
    /// 60 seconds.
    Minute,
    /// 3600 seconds.
    Hour,
    /// One request or token.
    One,
    /// A thousand of them.
    Thousand,
    /// A million of them.
    Million,
    /// 10^6 bytes.
    Mb,
    /// 2^20 bytes.
    Mib,
    /// 10^9 bytes.
    Gb,
    /// 2^30 bytes.
    Gib,
    /// 10^12 bytes.
    Tb,
    /// 2^40 bytes.
    Tib,
    /// 10^9 bytes for an hour.
    GbHour,
    /// 2^30 bytes for an hour.
    GibHour,
}

/// How much was used, by meter, in the meters' own units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quantities {
    /// [`Meter::DeviceCompute`].
    pub compute_ns: u64,
    /// [`Meter::DevicePadding`].
    pub padding_ns: u64,
    /// [`Meter::DeviceLoad`].
    pub load_ns: u64,
    /// [`Meter::DeviceAborted`].
    pub aborted_ns: u64,
    /// [`Meter::Cpu`].
    pub cpu_ns: u64,
    /// [`Meter::Requests`].
    pub requests: u64,
    /// [`Meter::BytesIn`].
    pub bytes_in: u64,
    /// [`Meter::BytesOut`].
    pub bytes_out: u64,
    /// [`Meter::TokensIn`].
    pub tokens_in: u64,
    /// [`Meter::TokensOut`].
    pub tokens_out: u64,
    /// [`Meter::Resident`].
    pub resident_byte_seconds: u64,
}

/// What can be compared with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dimension {
    Time,
    Count,
    Bytes,
    ByteTime,
}

const NANOS_PER_SECOND: u128 = 1_000_000_000;

macro_rules! words {
    ($name:ident, $error:ident, $what:literal { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl $name {
            /// All of them, in the order of a bill.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its word, the same as in JSON.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = $error;
            fn from_str(text: &str) -> Result<Self, $error> {
                Self::ALL.iter().copied().find(|known| known.as_str() == text).ok_or($error)
            }
        }

        /// A word that is none of those expected.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
        #[error($what)]
        pub struct $error;
    };
}

words!(Meter, UnknownMeter, "no meter" {
    DeviceCompute = "device_compute",
    DevicePadding = "device_padding",
    DeviceLoad = "device_load",
    DeviceAborted = "device_aborted",
    Cpu = "cpu",
    Requests = "requests",
    BytesIn = "bytes_in",
    BytesOut = "bytes_out",
    TokensIn = "tokens_in",
    TokensOut = "tokens_out",
    Resident = "resident",
});
words!(Pool, UnknownPool, "no pool: expected `cpu` or `gpu`" { Cpu = "cpu", Gpu = "gpu" });
words!(Unit, UnknownUnit, "no unit of prices" {
    Second = "second",
    Minute = "minute",
    Hour = "hour",
    One = "one",
    Thousand = "thousand",
    Million = "million",
    Mb = "mb",
    Mib = "mib",
    Gb = "gb",
    Gib = "gib",
    Tb = "tb",
    Tib = "tib",
    GbHour = "gb_hour",
    GibHour = "gib_hour",
});

impl Meter {
    /// The name of the unit it is measured in.
    pub const fn measured_in(self) -> &'static str {
        match self {
            Self::DeviceCompute | Self::DevicePadding | Self::DeviceLoad | Self::DeviceAborted | Self::Cpu => "ns",
            Self::Requests => "requests",
            Self::BytesIn | Self::BytesOut => "bytes",
            Self::TokensIn | Self::TokensOut => "tokens",
            Self::Resident => "byte_seconds",
        }
    }

    /// What it measures, for people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::DeviceCompute => "Device time (computing)",
            Self::DevicePadding => "Device time (padding)",
            Self::DeviceLoad => "Device time (loading)",
            Self::DeviceAborted => "Device time (aborted runs)",
            Self::Cpu => "Processor time",
            Self::Requests => "Requests",
            Self::BytesIn => "Data received",
            Self::BytesOut => "Data sent",
            Self::TokensIn => "Tokens read",
            Self::TokensOut => "Tokens written",
            Self::Resident => "Resident memory",
        }
    }

    const fn dimension(self) -> Dimension {
        match self {
            Self::DeviceCompute | Self::DevicePadding | Self::DeviceLoad | Self::DeviceAborted | Self::Cpu => {
                Dimension::Time
            }
            Self::Requests | Self::TokensIn | Self::TokensOut => Dimension::Count,
            Self::BytesIn | Self::BytesOut => Dimension::Bytes,
            Self::Resident => Dimension::ByteTime,
        }
    }

    /// Whether a price of this meter may be for one of these.
    pub fn is_priced_per(self, unit: Unit) -> bool {
        self.dimension() == unit.dimension()
    }

    /// What one of it is called in FOCUS, in the singular.
    pub(crate) const fn focus_noun(self) -> &'static str {
        match self {
            Self::DeviceCompute | Self::DevicePadding | Self::DeviceLoad | Self::DeviceAborted => "Device",
            Self::Cpu => "Core",
            Self::Requests => "Request",
            Self::BytesIn | Self::BytesOut | Self::Resident => "B",
            Self::TokensIn | Self::TokensOut => "Token",
        }
    }
}

impl Unit {
    const fn dimension(self) -> Dimension {
        match self {
            Self::Second | Self::Minute | Self::Hour => Dimension::Time,
            Self::One | Self::Thousand | Self::Million => Dimension::Count,
            Self::Mb | Self::Mib | Self::Gb | Self::Gib | Self::Tb | Self::Tib => Dimension::Bytes,
            Self::GbHour | Self::GibHour => Dimension::ByteTime,
        }
    }

    /// How many of what the meter counts make one of it: nanoseconds, pieces, bytes, or bytes times seconds.
    pub const fn size(self) -> u128 {
        match self {
            Self::Second => NANOS_PER_SECOND,
            Self::Minute => 60 * NANOS_PER_SECOND,
            Self::Hour => 3_600 * NANOS_PER_SECOND,
            Self::One => 1,
            Self::Thousand => 1_000,
            Self::Million | Self::Mb => 1_000_000,
            Self::Mib => 1 << 20,
            Self::Gb => 1_000_000_000,
            Self::Gib => 1 << 30,
            Self::Tb => 1_000_000_000_000,
            Self::Tib => 1 << 40,
            Self::GbHour => 3_600 * 1_000_000_000,
            Self::GibHour => 3_600 << 30,
        }
    }
}

impl Quantities {
    /// What of attempts of one kind and end is billed. This is the one rule of what costs something:
    ///
    /// - what was interrupted costs nothing, whatever it used: nobody got anything for it;
    /// - a request counts as one when it was answered: with a result, one kept from before, or an error of its own. One that was
    ///   refused, ran out of time or lost its client is none;
    /// - device and processor time, bytes and tokens count as they were measured, also of what did not come to an answer.
    ///
    /// The ledger's tokens are those that were read.
    pub fn of(kind: UsageKind, outcome: Outcome, attempts: u64, used: &Used) -> Self {
        if outcome == Outcome::Interrupted {
            return Self::default();
        }
        let is_answer = matches!(outcome, Outcome::Ok | Outcome::Cached | Outcome::Failed);
        Self {
            compute_ns: used.device.compute_ns,
            padding_ns: used.device.padding_ns,
            load_ns: used.device.load_ns,
            aborted_ns: used.device.aborted_ns,
            cpu_ns: used.cpu_ns,
            requests: if is_answer && kind == UsageKind::Inference { attempts } else { 0 },
            bytes_in: used.bytes_in,
            bytes_out: used.bytes_out,
            tokens_in: used.tokens,
            tokens_out: 0,
            resident_byte_seconds: used.resident_byte_seconds,
        }
    }

    /// How much of one meter.
    pub const fn get(&self, meter: Meter) -> u64 {
        match meter {
            Meter::DeviceCompute => self.compute_ns,
            Meter::DevicePadding => self.padding_ns,
            Meter::DeviceLoad => self.load_ns,
            Meter::DeviceAborted => self.aborted_ns,
            Meter::Cpu => self.cpu_ns,
            Meter::Requests => self.requests,
            Meter::BytesIn => self.bytes_in,
            Meter::BytesOut => self.bytes_out,
            Meter::TokensIn => self.tokens_in,
            Meter::TokensOut => self.tokens_out,
            Meter::Resident => self.resident_byte_seconds,
        }
    }

    /// Device time of all causes, nanoseconds. More than fits stays at the most that does.
    pub fn device_ns(&self) -> u64 {
        [self.compute_ns, self.padding_ns, self.load_ns, self.aborted_ns].into_iter().fold(0, u64::saturating_add)
    }

    /// Tokens read and written. More than fits stays at the most that does.
    pub const fn tokens(&self) -> u64 {
        self.tokens_in.saturating_add(self.tokens_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_json() {
        for meter in Meter::ALL {
            assert_eq!(serde_json::to_string(meter).unwrap(), format!("\"{meter}\""));
            assert_eq!(meter.as_str().parse(), Ok(*meter));
        }
        for unit in Unit::ALL {
            assert_eq!(serde_json::to_string(unit).unwrap(), format!("\"{unit}\""));
        }
        for pool in Pool::ALL {
            assert_eq!(serde_json::to_string(pool).unwrap(), format!("\"{pool}\""));
        }
    }

    #[test]
    fn interrupted_attempts_cost_nothing_and_refused_ones_are_no_requests() {
        let used = Used { cpu_ns: 7, bytes_in: 5, tokens: 3, ..Used::nothing(Outcome::Ok) };
        let of = |kind, outcome| Quantities::of(kind, outcome, 2, &used);
        assert_eq!(of(UsageKind::Inference, Outcome::Interrupted), Quantities::default());
        for (outcome, requests) in [
            (Outcome::Ok, 2),
            (Outcome::Cached, 2),
            (Outcome::Failed, 2),
            (Outcome::Rejected, 0),
            (Outcome::Expired, 0),
            (Outcome::Cancelled, 0),
        ] {
            let quantities = of(UsageKind::Inference, outcome);
            assert_eq!((quantities.requests, quantities.cpu_ns, quantities.tokens()), (requests, 7, 3), "{outcome}");
        }
        assert_eq!(of(UsageKind::Load, Outcome::Ok).requests, 0);
    }
}
