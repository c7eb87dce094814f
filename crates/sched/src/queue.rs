//! What waits at one place: tasks in arrival order, in one line per shape, since only equal shapes share a batch.
//!
//! A line is *due* when its head may start: its batch is full, or may wait no longer. Among the due lines the one with
//! the oldest head comes first. Every operation costs the logarithm of the tasks that wait here.

use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;
use tenantry_types::MonotonicTime;

use crate::task::{Batching, Task};

/// The order of arrival. Never used twice.
pub(crate) type Sequence = u64;

/// What a queue needs to know of a task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) sequence: Sequence,
    pub(crate) shape: u64,
    pub(crate) rows: u32,
    /// The last instant at which waiting for company is fine.
    pub(crate) release: MonotonicTime,
}

impl Entry {
    pub(crate) fn new(sequence: Sequence, task: &Task, arrival: MonotonicTime, batching: Batching) -> Self {
        let release = if batching.max_delay.is_zero() {
            arrival
        } else {
            // Waiting for company is a courtesy: it must not cost the task its deadline.
            let latest = arrival.saturating_add(batching.max_delay);
            task.deadline.map_or(latest, |deadline| {
                let start = MonotonicTime::ZERO
                    .saturating_add(deadline.saturating_since(MonotonicTime::ZERO).saturating_sub(task.cost));
                latest.min(start)
            })
        };
        Self { sequence, shape: task.shape, rows: task.rows.max(1), release }
    }
}

/// Tasks of one shape.
#[derive(Debug, Default)]
struct Line {
    entries: BTreeMap<Sequence, Entry>,
    /// Sum of the entries' rows.
    rows: u64,
    /// The entries by release. Empty while the place never waits for company.
    releases: BTreeSet<(MonotonicTime, Sequence)>,
    /// INVARIANT: the head's sequence in `PlaceQueue::due`, if this line is there.
    due: Option<Sequence>,
    /// INVARIANT: the instant of this line in `PlaceQueue::timers`, if it is there.
    timer: Option<MonotonicTime>,
}

/// Everything that waits at one place.
#[derive(Debug)]
pub(crate) struct PlaceQueue {
    batching: Batching,
    /// INVARIANT: no line is empty.
    lines: BTreeMap<u64, Line>,
    /// Heads of the lines that are due, with their shape.
    due: BTreeSet<(Sequence, u64)>,
    /// When lines that are not due will be, with their shape.
    timers: BTreeSet<(MonotonicTime, u64)>,
    tasks: usize,
}

impl PlaceQueue {
    pub(crate) fn new(batching: Batching) -> Self {
        Self { batching, lines: BTreeMap::new(), due: BTreeSet::new(), timers: BTreeSet::new(), tasks: 0 }
    }

    pub(crate) fn batching(&self) -> Batching {
        self.batching
    }

    pub(crate) fn len(&self) -> usize {
        self.tasks
    }

    /// The oldest task that may start now.
    pub(crate) fn head(&self) -> Option<Sequence> {
        self.due.first().map(|&(sequence, _)| sequence)
    }

    /// The oldest task, whether or not it may start.
    pub(crate) fn oldest(&self) -> Option<Sequence> {
        self.lines.values().filter_map(|line| line.entries.first_key_value()).map(|(&sequence, _)| sequence).min()
    }

    /// When the next line becomes due by waiting.
    pub(crate) fn next_release(&self) -> Option<MonotonicTime> {
        self.timers.first().map(|&(at, _)| at)
    }

    pub(crate) fn push(&mut self, entry: Entry, now: MonotonicTime) {
        let line = self.lines.entry(entry.shape).or_default();
        line.rows += u64::from(entry.rows);
        if !self.batching.max_delay.is_zero() {
            line.releases.insert((entry.release, entry.sequence));
        }
        line.entries.insert(entry.sequence, entry);
        self.tasks += 1;
        self.settle(entry.shape, now);
    }

    pub(crate) fn remove(&mut self, sequence: Sequence, shape: u64, now: MonotonicTime) {
        let Some(line) = self.lines.get_mut(&shape) else {
            return;
        };
        let Some(entry) = line.entries.remove(&sequence) else {
            return;
        };
        line.rows -= u64::from(entry.rows);
        line.releases.remove(&(entry.release, sequence));
        self.tasks -= 1;
        self.settle(shape, now);
    }

    /// Makes lines due whose wait has ended.
    pub(crate) fn advance(&mut self, now: MonotonicTime) {
        while let Some(&(at, shape)) = self.timers.first()
            && at <= now
        {
            self.settle(shape, now);
        }
    }

    /// Takes the next batch: the oldest task that may start, and what follows it in its line while the rows allow.
    pub(crate) fn take_batch(&mut self, now: MonotonicTime) -> SmallVec<[Sequence; 8]> {
        let mut batch = SmallVec::new();
        let Some(&(_, shape)) = self.due.first() else {
            return batch;
        };
        let Some(line) = self.lines.get_mut(&shape) else {
            return batch;
        };
        let max_rows = u64::from(self.batching.max_rows);
        let mut rows = 0;
        while let Some(first) = line.entries.first_entry() {
            let entry = *first.get();
            let with_it = rows + u64::from(entry.rows);
            if !batch.is_empty() && with_it > max_rows {
                break;
            }
            rows = with_it;
            first.remove();
            line.rows -= u64::from(entry.rows);
            line.releases.remove(&(entry.release, entry.sequence));
            batch.push(entry.sequence);
        }
        self.tasks -= batch.len();
        self.settle(shape, now);
        batch
    }

    /// Brings `due` and `timers` in line with the line of `shape`, and forgets the line if it is empty.
    fn settle(&mut self, shape: u64, now: MonotonicTime) {
        let Some(line) = self.lines.get_mut(&shape) else {
            return;
        };
        let full = line.rows >= u64::from(self.batching.max_rows);
        let release = line.releases.first().map(|&(at, _)| at);
        let is_due = full || release.is_none_or(|at| at <= now);

        let due = line.entries.first_key_value().map(|(&sequence, _)| sequence).filter(|_| is_due);
        if due != line.due {
            if let Some(sequence) = line.due {
                self.due.remove(&(sequence, shape));
            }
            if let Some(sequence) = due {
                self.due.insert((sequence, shape));
            }
            line.due = due;
        }
        let timer = release.filter(|_| !is_due);
        if timer != line.timer {
            if let Some(at) = line.timer {
                self.timers.remove(&(at, shape));
            }
            if let Some(at) = timer {
                self.timers.insert((at, shape));
            }
            line.timer = timer;
        }
        if line.entries.is_empty() {
            self.lines.remove(&shape);
        }
    }

    /// Every task that waits here, in arrival order.
    pub(crate) fn sequences(&self) -> Vec<Sequence> {
        let mut all: Vec<Sequence> = self.lines.values().flat_map(|line| line.entries.keys().copied()).collect();
        all.sort_unstable();
        all
    }
}
