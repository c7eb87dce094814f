//! Closed records on their way into the books: one by one in pages, added up in days.

use std::collections::HashMap;
use std::sync::Arc;

use tenantry_types::share::ShareTier;
use tenantry_types::usage::{Attempted, Outcome, SlotTime, UsageKind, Used};
use tenantry_types::{DeploymentId, TenantId, VersionId};

use super::page::Page;

/// What is added up for a day, in the order of [`sums`].
pub(super) const SUMS: [&str; 12] = [
    "attempts",
    "duration_ns",
    "queue_ns",
    "compute_ns",
    "padding_ns",
    "load_ns",
    "aborted_ns",
    "cpu_ns",
    "bytes_in",
    "bytes_out",
    "tokens",
    "resident_byte_seconds",
];
pub(super) const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// What comes into the books in one transaction.
#[derive(Debug, Default)]
pub(super) struct Posting {
    /// By tenant, those of each in the order in which they were filled.
    pub(super) pages: HashMap<TenantId, Vec<Page>>,
    pub(super) days: HashMap<DayKey, Day>,
    pub(super) records: u64,
    pub(super) interrupted: u64,
    /// Device time of all records.
    pub(super) charged_ns: u64,
    /// What the slots have done by now.
    pub(super) slots: Option<SlotTime>,
    /// Whether the start has said its last word.
    pub(super) ended: bool,
    /// When the start was last heard of.
    pub(super) last_ms: i64,
    /// Pages that were begun.
    begun: usize,
    /// Bytes of its pages.
    pub(super) bytes: usize,
}

/// Which line of the days a record belongs to. Its version says which model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct DayKey {
    pub(super) day: i64,
    pub(super) tenant: TenantId,
    pub(super) deployment: Option<DeploymentId>,
    version: VersionId,
    pub(super) tier: ShareTier,
    pub(super) kind: UsageKind,
    pub(super) outcome: Outcome,
}

/// What a day's records of one line add up to.
#[derive(Debug)]
pub(super) struct Day {
    pub(super) model: Arc<str>,
    pub(super) version_number: u32,
    /// In the order of [`SUMS`].
    pub(super) sums: [i64; SUMS.len()],
}

impl Posting {
    /// Takes a closed record, with its bytes as a page has them.
    pub(super) fn add(&mut self, sequence: u64, attempted: &Attempted, used: &Used, ended_ms: i64, record: &[u8]) {
        let pages = self.pages.entry(attempted.tenant).or_default();
        if !pages.last_mut().is_some_and(|page| page.add(sequence, record)) {
            pages.push(Page::new(self.begun, sequence, record));
            self.begun += 1;
        }
        let Attempted { tenant, deployment, version, tier, kind, .. } = *attempted;
        let day = ended_ms.div_euclid(DAY_MS);
        let day = self
            .days
            .entry(DayKey { day, tenant, deployment, version, tier, kind, outcome: used.outcome })
            .or_insert_with(|| Day {
                model: Arc::clone(&attempted.model),
                version_number: attempted.version_number,
                sums: [0; SUMS.len()],
            });
        day.sums.iter_mut().zip(sums(used)).for_each(|(sum, value)| *sum = sum.saturating_add(value));
        self.last_ms = self.last_ms.max(ended_ms);
        self.records += 1;
        self.interrupted += u64::from(used.outcome == Outcome::Interrupted);
        self.charged_ns = self.charged_ns.saturating_add(used.device.total_ns());
        self.bytes += record.len();
    }

    /// Takes what a start says of its slots.
    pub(super) fn heard(&mut self, at_ms: i64, time: SlotTime, last: bool) {
        self.slots = Some(time);
        self.ended |= last;
        self.last_ms = self.last_ms.max(at_ms);
    }

    /// Whether there is nothing that the books would not have without it.
    pub(super) fn is_empty(&self) -> bool {
        self.records == 0 && self.slots.is_none()
    }
}

/// In the order of [`SUMS`].
fn sums(used: &Used) -> [i64; SUMS.len()] {
    let Used { duration_ns, queue_ns, device, cpu_ns, bytes_in, bytes_out, tokens, resident_byte_seconds, .. } = *used;
    [
        1,
        duration_ns,
        queue_ns,
        device.compute_ns,
        device.padding_ns,
        device.load_ns,
        device.aborted_ns,
        cpu_ns,
        bytes_in,
        bytes_out,
        tokens,
        resident_byte_seconds,
    ]
    .map(signed)
}

/// For a column: 2^63 nanoseconds are 292 years.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
