//! What a batch will take, learned from what batches took.
//!
//! One model for each (placement, bucket of row sizes): `fixed + per_row * rows`, fitted to recent batches with weights
//! that fade, and a tail from how far recent batches were off. A placement is a version in a trust domain, so nobody's
//! inputs spoil what is expected of somebody else's, but where requests of several tenants share a worker by design.
//! All slots of a machine are taken to be alike; a slot of another width is another placement's worth of history only
//! when its owner says so by another bucket.

use std::time::Duration;

use rustc_hash::FxHashMap;
use tenantry_types::{MonotonicTime, PlacementId};

/// Batches whose errors are remembered: a cheap input among dear ones is forgotten after as many.
const REMEMBERED: usize = 128;
/// Of the remembered errors this many are larger than the tail: one outlier is an outlier, two are a pattern.
const OUTLIERS: usize = 1;
/// Errors from which on there can be an outlier among them.
const ENOUGH_FOR_OUTLIERS: usize = 16;
/// How much of an observation's weight is left when the next one comes.
const FADE: f64 = 0.95;
/// How far beyond a prior estimate the tail is taken to be before anything was seen.
const UNKNOWN_TAIL: f64 = 2.0;
/// Observations until the tail is taken from them alone.
const ENOUGH: usize = 8;
/// After this long without a finished batch nothing is refused or dropped for what it is expected to take: somebody has
/// to find out whether the expectation still holds.
const STALE_AFTER: Duration = Duration::from_secs(1);

/// What a batch is expected to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// The middle of what is likely.
    pub median: Duration,
    /// What 99 in 100 do not exceed, as far as recent batches tell.
    pub upper: Duration,
}

/// The models of everything that ran.
#[derive(Debug, Default)]
pub(crate) struct Costs {
    cells: FxHashMap<(PlacementId, u32), Cell>,
}

#[derive(Debug)]
pub(crate) struct Cell {
    fixed_ns: f64,
    per_row_ns: f64,
    /// Faded sums over batches, each divided by what it used so that large ones do not drown small ones.
    weight: f64,
    rows: f64,
    rows_rows: f64,
    used: f64,
    rows_used: f64,
    /// Errors as observed / expected: the latest ones in order of arrival, and sorted.
    recent: Vec<f32>,
    next: usize,
    sorted: Vec<f32>,
    tail: f64,
    observed: Option<MonotonicTime>,
}

impl Costs {
    pub(crate) fn get(&self, placement: PlacementId, bucket: u32) -> Option<&Cell> {
        self.cells.get(&(placement, bucket))
    }

    /// A finished batch. `expected_ns` is what its owner expected before anything was learned.
    pub(crate) fn observe(
        &mut self,
        (placement, bucket): (PlacementId, u32),
        rows: u64,
        expected_ns: u64,
        used: Duration,
        now: MonotonicTime,
    ) {
        let cell = self.cells.entry((placement, bucket)).or_insert_with(|| Cell::new(rows, expected_ns));
        cell.observe(rows, used, now);
    }

    pub(crate) fn forget(&mut self, placement: PlacementId) {
        self.cells.retain(|(of, _), _| *of != placement);
    }
}

impl Cell {
    fn new(rows: u64, expected_ns: u64) -> Self {
        Self {
            fixed_ns: 0.0,
            per_row_ns: (expected_ns as f64 / rows.max(1) as f64).max(1.0),
            weight: 0.0,
            rows: 0.0,
            rows_rows: 0.0,
            used: 0.0,
            rows_used: 0.0,
            recent: Vec::new(),
            next: 0,
            sorted: Vec::new(),
            tail: UNKNOWN_TAIL,
            observed: None,
        }
    }

    /// What a batch of so many rows is likely to take.
    pub(crate) fn median_ns(&self, rows: u64) -> u64 {
        ((self.fixed_ns + self.per_row_ns * rows.max(1) as f64) as u64).max(1)
    }

    /// What it will hardly exceed.
    pub(crate) fn upper_ns(&self, rows: u64) -> u64 {
        (self.median_ns(rows) as f64 * self.tail) as u64
    }

    /// The part that does not grow with the rows, and the part of each row.
    pub(crate) fn parts_ns(&self) -> (u64, u64) {
        (self.fixed_ns as u64, (self.per_row_ns as u64).max(1))
    }

    /// Whether it has not been checked against reality for long.
    pub(crate) fn is_stale(&self, now: MonotonicTime) -> bool {
        self.observed.is_none_or(|observed| now.saturating_since(observed) > STALE_AFTER)
    }

    fn observe(&mut self, rows: u64, used: Duration, now: MonotonicTime) {
        let used_ns = (used.as_nanos() as f64).max(1.0);
        let expected_ns = self.median_ns(rows) as f64;
        let rows = rows.max(1) as f64;
        // One dear batch, such as a first one on a busy machine, must not drown the cheap ones after it.
        let weight = 1.0 / used_ns;
        for sum in [&mut self.weight, &mut self.rows, &mut self.rows_rows, &mut self.used, &mut self.rows_used] {
            *sum *= FADE;
        }
        self.weight += weight;
        self.rows += weight * rows;
        self.rows_rows += weight * rows * rows;
        self.used += weight * used_ns;
        self.rows_used += weight * rows * used_ns;
        let first = self.observed.is_none();
        self.fit();
        // The first expectation was a guess: it says nothing about how far later ones will be off.
        self.remember((used_ns / if first { self.median_ns(rows as u64) as f64 } else { expected_ns }) as f32);
        self.observed = Some(now);
    }

    fn fit(&mut self) {
        let mean_rows = self.rows / self.weight;
        let mean_used = self.used / self.weight;
        let spread = self.rows_rows / self.weight - mean_rows * mean_rows;
        if spread < 0.01 * mean_rows * mean_rows {
            // Batches of one size say nothing of how the cost divides: keep the division, correct the size.
            let expected = self.fixed_ns + self.per_row_ns * mean_rows;
            let factor = mean_used / expected.max(1.0);
            self.fixed_ns *= factor;
            self.per_row_ns *= factor;
            return;
        }
        let slope = (self.rows_used / self.weight - mean_rows * mean_used) / spread;
        if slope <= 0.0 {
            self.per_row_ns = 1.0;
            self.fixed_ns = mean_used;
        } else if slope * mean_rows > mean_used {
            self.fixed_ns = 0.0;
            self.per_row_ns = self.rows_used / self.rows_rows;
        } else {
            self.per_row_ns = slope;
            self.fixed_ns = mean_used - slope * mean_rows;
        }
    }

    fn remember(&mut self, error: f32) {
        let error = if error.is_finite() { error } else { 1.0 };
        let position = |sorted: &[f32], value: f32| sorted.partition_point(|&known| known < value);
        if let Some(old) = self.recent.get_mut(self.next) {
            let old = std::mem::replace(old, error);
            let at = position(&self.sorted, old).min(self.sorted.len().saturating_sub(1));
            self.sorted.remove(at);
        } else {
            self.recent.push(error);
        }
        self.next = (self.next + 1) % REMEMBERED;
        self.sorted.insert(position(&self.sorted, error), error);
        let outliers = if self.sorted.len() >= ENOUGH_FOR_OUTLIERS { OUTLIERS } else { 0 };
        let seen = self.sorted.iter().rev().nth(outliers).copied().map_or(1.0, f64::from).max(1.0);
        self.tail = if self.sorted.len() < ENOUGH { seen.max(UNKNOWN_TAIL) } else { seen };
    }
}

#[cfg(test)]
mod tests;
