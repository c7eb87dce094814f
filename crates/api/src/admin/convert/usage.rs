//! Usage between the server's values and the JSON of the API.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tenantry_server::admin::{BootAccount, UsageInfo, UsageRecordInfo};
use tenantry_types::ServiceError;
use tenantry_types::usage::{Outcome, UsageKey, UsageKind, Used};

use crate::admin::types;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Today, UTC, days since the Unix epoch.
pub(in crate::admin) fn today() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs() / DAY.as_secs()).unwrap_or(0)
}

/// A day as `2026-11-30` (RFC 3339, full-date).
///
/// # Errors
/// 400 for anything else.
pub(in crate::admin) fn day(text: &str) -> Result<i64, ServiceError> {
    let instant = Some(text).filter(|text| text.len() == "2026-11-30".len());
    let instant = instant.and_then(|text| humantime::parse_rfc3339(&format!("{text}T00:00:00Z")).ok());
    let since = instant.and_then(|instant| instant.duration_since(UNIX_EPOCH).ok());
    since
        .and_then(|since| i64::try_from(since.as_secs() / DAY.as_secs()).ok())
        .ok_or_else(|| ServiceError::invalid("a day is written like 2026-11-30"))
}

/// The day as text.
pub(in crate::admin) fn day_text(day: i64) -> String {
    let since = DAY.saturating_mul(u32::try_from(day).unwrap_or(0));
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string().chars().take("2026-11-30".len()).collect()
}

/// A record's name.
///
/// # Errors
/// 400 for what is none.
pub(in crate::admin) fn usage_key(text: &str) -> Result<UsageKey, ServiceError> {
    let key = || {
        let (node, rest) = text.split_once('/')?;
        let (boot, sequence) = rest.split_once('/')?;
        Some(UsageKey { node: node.parse().ok()?, boot: boot.parse().ok()?, sequence: sequence.parse().ok()? })
    };
    key().ok_or_else(|| ServiceError::invalid("`after` is the `id` of a record, such as `nod_…/boo_…/17`"))
}

impl From<UsageKind> for types::UsageKind {
    fn from(kind: UsageKind) -> Self {
        match kind {
            UsageKind::Inference => Self::Inference,
            UsageKind::Load => Self::Load,
            UsageKind::Registration => Self::Registration,
            UsageKind::Residency => Self::Residency,
        }
    }
}

impl From<Outcome> for types::UsageOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Ok => Self::Ok,
            Outcome::Cached => Self::Cached,
            Outcome::Failed => Self::Failed,
            Outcome::Rejected => Self::Rejected,
            Outcome::Expired => Self::Expired,
            Outcome::Cancelled => Self::Cancelled,
            Outcome::Interrupted => Self::Interrupted,
        }
    }
}

impl From<Used> for types::Amounts {
    fn from(used: Used) -> Self {
        Self {
            compute_ns: used.device.compute_ns,
            padding_ns: used.device.padding_ns,
            load_ns: used.device.load_ns,
            aborted_ns: used.device.aborted_ns,
            cpu_ns: used.cpu_ns,
            duration_ns: used.duration_ns,
            queue_ns: used.queue_ns,
            bytes_in: used.bytes_in,
            bytes_out: used.bytes_out,
            tokens: used.tokens,
            resident_byte_seconds: used.resident_byte_seconds,
        }
    }
}

impl From<UsageInfo> for types::UsageLine {
    fn from(info: UsageInfo) -> Self {
        let UsageInfo { tenant, row } = info;
        Self {
            day: row.day.map(day_text),
            tenant,
            deployment: row.deployment,
            model: row.model,
            version: row.version,
            tier: row.tier.map(Into::into),
            kind: row.kind.map(Into::into),
            outcome: row.outcome.map(Into::into),
            attempts: row.attempts,
            used: row.used.into(),
        }
    }
}

impl From<UsageRecordInfo> for types::UsageRecord {
    fn from(info: UsageRecordInfo) -> Self {
        let UsageRecordInfo { tenant, record } = info;
        let UsageKey { node, boot, sequence } = record.key;
        let attempted = record.attempted;
        Self {
            id: format!("{node}/{boot}/{sequence}"),
            tenant,
            key: attempted.key,
            deployment: attempted.deployment,
            model: attempted.model.to_string(),
            version_id: attempted.version,
            version: attempted.version_number,
            tier: attempted.tier.into(),
            kind: attempted.kind.into(),
            request_id: attempted.request,
            admitted_ms: attempted.admitted_ms,
            ended_ms: record.ended_ms,
            outcome: record.used.outcome.into(),
            used: record.used.into(),
        }
    }
}

impl From<BootAccount> for types::UsageAccount {
    fn from(account: BootAccount) -> Self {
        let state = match (account.ended, account.done) {
            (true, _) => types::BootState::Ended,
            (false, true) => types::BootState::Killed,
            (false, false) => types::BootState::Running,
        };
        Self {
            node: account.node,
            boot: account.boot,
            at_ms: account.at_ms,
            state,
            slots: account.slots.slots,
            wall_ns: account.slots.wall_ns,
            busy_ns: account.slots.busy_ns,
            system_ns: account.slots.system_ns,
            charged_ns: account.charged_ns,
            idle_ns: account.idle_ns(),
            unaccounted_ns: i64::try_from(account.unaccounted_ns()).unwrap_or(i64::MIN),
            records: account.records,
            interrupted: account.interrupted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_as_they_are_written() {
        for (text, number) in [("1970-01-01", 0), ("2000-02-29", 11_016), ("2026-11-30", 20_787)] {
            assert_eq!(day(text).ok(), Some(number), "{text}");
            assert_eq!(day_text(number), text);
        }
        for wrong in ["", "today", "2026-11-3", "2026-13-01", "2026-11-30T00:00:00Z", "1969-12-31", "2026/11/30"] {
            assert!(day(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_records_name_is_read_back() {
        let text = format!("nod_{:032x}/boo_{:032x}/17", 1, 2);
        assert_eq!(usage_key(&text).unwrap().sequence, 17);
        for wrong in ["", "17", "nod_1/boo_1/1", &text.replace("/17", "/-1"), &text.replace("/17", "")] {
            assert!(usage_key(wrong).is_err(), "{wrong}");
        }
    }
}
