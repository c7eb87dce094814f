//! Decision logs: what a scheduler was told and what it decided, one JSON object a line.
//!
//! The first line is `{"config": {...}}`, every other one `{"at": nanoseconds, "events": [...], "decisions": [...]}`. A
//! server records one with `serve --record-decisions`. A log is checked in two ways: the auditor looks at what it says, and
//! the scheduler of this build is told the same and must decide the same.

use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize};
use tenantry_sched::{Decision, Event, Scheduler, SchedulerConfig};
use tenantry_types::MonotonicTime;

use crate::check::{Auditor, Violation};
use crate::world::{Observer, Poll};

/// Why a log cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It cannot be read.
    #[error("the log cannot be read")]
    Io(#[from] std::io::Error),
    /// A line is not what it should be.
    #[error("line {line} of the log is not a line of a decision log")]
    Line {
        /// Which.
        line: u64,
        /// Why.
        source: serde_json::Error,
    },
    /// There is nothing in it.
    #[error("the log is empty: its first line should be {{\"config\": ...}}")]
    Empty,
}

#[derive(Debug, Serialize, Deserialize)]
struct First {
    config: SchedulerConfig,
}

#[derive(Debug, Serialize)]
struct LineOut<'a> {
    at: MonotonicTime,
    events: &'a [Event],
    decisions: &'a [Decision],
}

#[derive(Debug, Deserialize)]
struct LineIn {
    at: MonotonicTime,
    events: Vec<Event>,
    decisions: Vec<Decision>,
}

/// Writes a log of a world.
#[derive(Debug)]
pub struct Recorder<W> {
    to: W,
    failed: Option<std::io::Error>,
}

impl<W: Write> Recorder<W> {
    /// Begins a log.
    ///
    /// # Errors
    /// What writing fails with.
    pub fn new(mut to: W, config: &SchedulerConfig) -> std::io::Result<Self> {
        write_line(&mut to, &First { config: config.clone() })?;
        Ok(Self { to, failed: None })
    }

    /// Ends it.
    ///
    /// # Errors
    /// The first thing that writing failed with.
    pub fn finish(mut self) -> std::io::Result<W> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.to.flush().map(|()| self.to),
        }
    }
}

impl<W: Write> Observer for Recorder<W> {
    fn poll(&mut self, poll: &Poll<'_>) {
        if (poll.events.is_empty() && poll.decisions.is_empty()) || self.failed.is_some() {
            return;
        }
        let line = LineOut { at: poll.at, events: poll.events, decisions: poll.decisions };
        self.failed = write_line(&mut self.to, &line).err();
    }
}

fn write_line(to: &mut impl Write, line: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer(&mut *to, line)?;
    to.write_all(b"\n")
}

/// What was found in a log.
#[derive(Debug)]
pub struct Checked {
    /// Polls in it.
    pub polls: u64,
    /// Decisions in it.
    pub decisions: u64,
    /// From its first to its last line.
    pub lasted: std::time::Duration,
    /// The first line on which this build's scheduler decides otherwise, and how.
    pub differs: Option<(u64, String)>,
    /// The first things that should not be, and how many there are.
    pub violations: (Vec<Violation>, u64),
    /// P2: the worst gap between tenants with work, and its bound, seconds.
    pub gap: Option<(f64, f64)>,
    /// P4: how long after `F + Q` the latest reserved task ended, seconds, and how many there were.
    pub lateness: (f64, u64),
}

/// Checks a log.
///
/// # Errors
/// [`LogError`] where it is not a log.
pub fn check(log: impl BufRead) -> Result<Checked, LogError> {
    let mut lines = log.lines().zip(1_u64..);
    let (first, line) = lines.next().ok_or(LogError::Empty)?;
    let First { config } = serde_json::from_str(&first?).map_err(|source| LogError::Line { line, source })?;
    let mut scheduler = Scheduler::new(config.clone());
    let mut auditor = Auditor::new(&config);
    let (mut polls, mut decided, mut differs) = (0, 0, None);
    let mut span: Option<(MonotonicTime, MonotonicTime)> = None;
    for (text, line) in lines {
        let LineIn { at, events, decisions } =
            serde_json::from_str(&text?).map_err(|source| LogError::Line { line, source })?;
        polls += 1;
        decided += decisions.len() as u64;
        span = Some((span.map_or(at, |(from, _)| from), at));
        let mut again = Vec::new();
        scheduler.poll(at, events.iter().cloned(), &mut again);
        if differs.is_none() && again != decisions {
            differs = Some((line, difference(&decisions, &again)));
        }
        auditor.poll(&Poll { at, events: &events, decisions: &decisions, scheduler: &scheduler, truly_used: &[] });
    }
    auditor.check_gaps();
    auditor.check_reservations();
    let (violations, count) = auditor.violations();
    Ok(Checked {
        polls,
        decisions: decided,
        lasted: span.map_or(std::time::Duration::ZERO, |(from, to)| to.saturating_since(from)),
        differs,
        violations: (violations.to_vec(), count),
        gap: auditor.worst_gap().map(|gap| (gap.gap, gap.bound)),
        lateness: auditor.worst_lateness(),
    })
}

fn difference(recorded: &[Decision], again: &[Decision]) -> String {
    let at = recorded.iter().zip(again).take_while(|(one, other)| one == other).count();
    format!("decision {}: recorded {:?}, now {:?}", at + 1, recorded.get(at), again.get(at))
}
