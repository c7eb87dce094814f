//! P2 and P3: how far the service of tenants with work comes apart, and how long one of them goes without any.

use std::collections::{BTreeMap, BTreeSet};

use tenantry_sched::{Decision, Tuning};
use tenantry_types::{BatchId, MonotonicTime, TenantId};

use super::Shares;
use super::books::{Books, Part};
use crate::world::Poll;

/// How far apart two tenants came while both had work, device seconds at weight 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairGap {
    /// Who.
    pub tenants: (TenantId, TenantId),
    /// The largest difference of service over weight in any interval.
    pub gap: f64,
    /// `2T + (D + 1)(c_i/w_i + c_j/w_j)`, with T the larger window, D slots, and c the largest charge of one batch.
    pub bound: f64,
    /// The longest time both had work without a break.
    pub lasted: f64,
}

impl PairGap {
    /// The gap as a part of the bound.
    pub fn part(&self) -> f64 {
        self.gap / self.bound
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Range {
    low: f64,
    high: f64,
    widest: f64,
    since: MonotonicTime,
    lasted: f64,
}

#[derive(Debug, Default)]
struct Tenant {
    weight: f64,
    slots: u32,
    /// Device seconds over weight.
    service: f64,
    /// The largest charge of one batch, seconds.
    largest: f64,
    is_backlogged: bool,
    /// When it was served last, or began to have work.
    served: MonotonicTime,
    longest_wait: f64,
}

#[derive(Debug, Default)]
pub(crate) struct Gaps {
    tenants: BTreeMap<TenantId, Tenant>,
    pairs: BTreeMap<(TenantId, TenantId), Range>,
}

impl Gaps {
    pub(crate) fn poll(&mut self, poll: &Poll<'_>, shares: &Shares, books: &Books, parts: &[Part], counts: bool) {
        if !counts {
            return;
        }
        let mut by_batch: BTreeMap<(BatchId, TenantId), u64> = BTreeMap::new();
        for part in parts.iter().filter(|part| shares.is_plain(part.tenant)) {
            *by_batch.entry((part.batch, part.tenant)).or_default() += part.charged_ns;
        }
        for (&(_, id), &charged_ns) in &by_batch {
            let tenant = self.tenants.entry(id).or_default();
            tenant.weight = f64::from(shares.tenant(id).weight.milli()) / 1e3;
            let charged = charged_ns as f64 / 1e9;
            tenant.service += charged / tenant.weight;
            tenant.largest = tenant.largest.max(charged);
        }
        for id in by_batch.keys().map(|&(_, id)| id).collect::<BTreeSet<_>>() {
            self.widen(id);
        }
        self.settle(poll, shares, books);
        for decision in poll.decisions {
            let Decision::Dispatch { tasks, .. } = decision else { continue };
            for id in tasks.iter().filter_map(|task| Some(books.task(*task)?.tenant)) {
                if let Some(tenant) = self.tenants.get_mut(&id) {
                    tenant.longest_wait = tenant.longest_wait.max(seconds(tenant.served, poll.at));
                    tenant.served = poll.at;
                }
            }
        }
    }

    /// Who has work now; pairs begin and end with it.
    fn settle(&mut self, poll: &Poll<'_>, shares: &Shares, books: &Books) {
        let backlogged = books.backlogged();
        let mut began = Vec::new();
        for &id in backlogged.iter().filter(|&&id| shares.is_plain(id)) {
            let tenant = self.tenants.entry(id).or_default();
            if !tenant.is_backlogged {
                tenant.weight = f64::from(shares.tenant(id).weight.milli()) / 1e3;
                tenant.slots = books.slots_of(shares.group(id));
                tenant.served = poll.at;
                tenant.is_backlogged = true;
                began.push(id);
            }
        }
        for (id, tenant) in &mut self.tenants {
            tenant.is_backlogged &= backlogged.contains(id);
        }
        for id in began {
            let service = self.tenants.get(&id).map_or(0.0, |tenant| tenant.service);
            for (&other, known) in self.tenants.iter().filter(|(other, known)| **other != id && known.is_backlogged) {
                if shares.group(other) != shares.group(id) {
                    continue;
                }
                let difference = if id < other { service - known.service } else { known.service - service };
                let range = self.pairs.entry(ordered(id, other)).or_default();
                (range.low, range.high, range.since) = (difference, difference, poll.at);
            }
        }
        let tenants = &self.tenants;
        let has_work = |id: &TenantId| tenants.get(id).is_some_and(|tenant| tenant.is_backlogged);
        for ((one, other), range) in &mut self.pairs {
            if has_work(one) && has_work(other) {
                range.lasted = range.lasted.max(seconds(range.since, poll.at));
            }
        }
    }

    /// A tenant was served: its pairs came further apart, or closer.
    fn widen(&mut self, id: TenantId) {
        let Some(service) = self.tenants.get(&id).filter(|tenant| tenant.is_backlogged).map(|t| t.service) else {
            return;
        };
        for (&other, known) in self.tenants.iter().filter(|(other, known)| **other != id && known.is_backlogged) {
            let difference = if id < other { service - known.service } else { known.service - service };
            if let Some(range) = self.pairs.get_mut(&ordered(id, other)) {
                range.low = range.low.min(difference);
                range.high = range.high.max(difference);
                range.widest = range.widest.max(range.high - range.low);
            }
        }
    }

    pub(crate) fn pairs(&self, tuning: &Tuning) -> Vec<PairGap> {
        let window = ahead(tuning);
        let pair = |(&(one, other), range): (&(TenantId, TenantId), &Range)| {
            let (first, second) = (self.tenants.get(&one)?, self.tenants.get(&other)?);
            let slots = f64::from(first.slots.max(second.slots).max(1));
            let steps = first.largest / first.weight + second.largest / second.weight;
            let bound = 2.0 * window + (slots + 1.0) * steps;
            Some(PairGap { tenants: (one, other), gap: range.widest, bound, lasted: range.lasted })
        };
        self.pairs.iter().filter_map(pair).collect()
    }

    pub(crate) fn longest_wait(&self, tuning: &Tuning) -> (f64, f64) {
        let longest = self.tenants.values().map(|tenant| tenant.longest_wait).fold(0.0, f64::max);
        let slots = f64::from(self.tenants.values().map(|tenant| tenant.slots).max().unwrap_or(1).max(1));
        let weights: f64 = self.tenants.values().map(|tenant| tenant.weight).sum();
        let largest = self.tenants.values().map(|tenant| tenant.largest).fold(0.0, f64::max);
        // Each of the others receives at most its weight's part of the window, one charge before it and one a slot after it.
        let others = self.tenants.len() as f64 * largest * (slots + 1.0);
        let bound = (ahead(tuning) * weights + others) / slots + tuning.quantum.as_secs_f64().max(largest);
        (longest, bound)
    }
}

/// How far ahead somebody may be served out of turn: for a deadline, or to fill a batch.
fn ahead(tuning: &Tuning) -> f64 {
    tuning.window.max(tuning.fill_window).as_secs_f64()
}

fn ordered(one: TenantId, other: TenantId) -> (TenantId, TenantId) {
    if one < other { (one, other) } else { (other, one) }
}

fn seconds(from: MonotonicTime, to: MonotonicTime) -> f64 {
    to.saturating_since(from).as_secs_f64()
}
