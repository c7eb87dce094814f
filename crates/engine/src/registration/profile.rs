//! Measures batch sizes, and whether rows of a batch leave each other alone.

use std::time::{Duration, Instant};

use rustix::time::ClockId;
use tenantry_types::DataType;
use tenantry_types::model::{BatchPoint, EngineOptions};

use super::synthetic::{Choice, Inputs};
use crate::model::{Model, RunError};
use crate::outputs::Outputs;

/// The batch sizes tried.
const BATCH_ROWS: [u32; 6] = [1, 2, 4, 8, 16, 32];
/// A larger batch must be this much better per row, in percent, to be worth its latency.
const WORTHWHILE_PERCENT: u128 = 3;
/// Runs measured per batch size: at least, and at most.
const MIN_RUNS: usize = 3;
const MAX_RUNS: usize = 200;
/// Measuring one batch size goes on for about this long.
const POINT_TIME: Duration = Duration::from_millis(60);
/// A batch that takes longer is not measured further, nor any larger one.
const LONGEST_RUN: Duration = Duration::from_secs(1);
/// How far an answer in a batch may be from the answer alone, relative to the largest value.
const ROW_TOLERANCE: f64 = 0.02;

/// Run times per batch size, ascending. Stops early when batches stop paying or time is up.
pub(super) fn measure(
    model: &mut Model,
    options: &EngineOptions,
    choice: &Choice,
    can_batch: bool,
    until: Instant,
) -> Vec<BatchPoint> {
    let clock = RunClock::of(options);
    let mut points: Vec<BatchPoint> = Vec::new();
    let signature = model.signature().clone();
    for rows in BATCH_ROWS.into_iter().take(if can_batch { BATCH_ROWS.len() } else { 1 }) {
        // A guess from the last point: twice the rows, twice the time.
        let expected = points.last().map_or(Duration::ZERO, |point| Duration::from_nanos(point.run_ns * 2));
        if expected > LONGEST_RUN || Instant::now() + expected * 4 > until {
            break;
        }
        let Some(inputs) = Inputs::new(&signature, choice, 0, u64::from(rows)) else { break };
        let Ok(run_ns) = clock.median_run_ns(model, &inputs, until) else { break };
        points.push(BatchPoint { rows, run_ns });
        if is_falling(&points) {
            break;
        }
    }
    points
}

/// What a run's time is read from.
#[derive(Clone, Copy)]
pub(super) struct RunClock(ClockId);

impl RunClock {
    /// A run on one thread is timed by what the thread computed, so that busy neighbours do not show.
    pub(super) fn of(options: &EngineOptions) -> Self {
        Self(if options.threads <= 1 { ClockId::ThreadCPUTime } else { ClockId::Monotonic })
    }

    fn now_ns(self) -> u64 {
        let now = rustix::time::clock_gettime(self.0);
        now.tv_sec.cast_unsigned().saturating_mul(1_000_000_000).saturating_add(now.tv_nsec.cast_unsigned())
    }

    /// One run, nanoseconds; at least 1.
    pub(super) fn run_ns(self, model: &mut Model, inputs: &Inputs) -> Result<u64, RunError> {
        let started = self.now_ns();
        drop(inputs.run(model)?);
        Ok(self.now_ns().saturating_sub(started).max(1))
    }

    /// The median time of a run after one that does not count.
    fn median_run_ns(self, model: &mut Model, inputs: &Inputs, until: Instant) -> Result<u64, RunError> {
        inputs.run(model)?;
        let started = Instant::now();
        let mut times: Vec<u64> = Vec::new();
        while times.len() < MAX_RUNS
            && (times.len() < MIN_RUNS || started.elapsed() < POINT_TIME)
            && (times.is_empty() || Instant::now() < until)
        {
            times.push(self.run_ns(model, inputs)?);
        }
        Ok(median(&mut times))
    }
}

pub(super) fn median(times: &mut [u64]) -> u64 {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or(1)
}

/// Whether the last two sizes were both clearly worse per row than the best before them.
fn is_falling(points: &[BatchPoint]) -> bool {
    let [earlier @ .., second, last] = points else { return false };
    earlier.iter().any(|best| [second, last].iter().all(|point| gains(point, best, 10)))
}

/// Whether `best` is at least `percent` faster per row than `other`.
fn gains(other: &BatchPoint, best: &BatchPoint, percent: u128) -> bool {
    // best.rows / best.run_ns >= (1 + percent) * other.rows / other.run_ns, in whole numbers.
    u128::from(best.rows) * u128::from(other.run_ns) * 100
        > u128::from(other.rows) * u128::from(best.run_ns) * (100 + percent)
}

/// The smallest batch that is within a few percent of the best throughput; 1 where batching gains no more than that.
pub(super) fn best_batch(points: &[BatchPoint]) -> u32 {
    points
        .iter()
        .find(|candidate| !points.iter().any(|other| gains(candidate, other, WORTHWHILE_PERCENT)))
        .map_or(1, |point| point.rows)
}

/// Whether two rows run together give what they give alone: the same shape of answer and, within rounding, the same
/// values. Where they do not, joining two requests would make one's answer depend on the other's data.
///
/// Rows that do not even run alone (made-up values are not every model's) say nothing against the signature.
pub(super) fn rows_are_independent(model: &mut Model, choice: &Choice) -> bool {
    let signature = model.signature().clone();
    let mut run = |first, rows| Inputs::new(&signature, choice, first, rows)?.run(model).ok();
    let (Some(first), Some(second)) = (run(0, 1), run(1, 1)) else { return true };
    run(0, 2).is_some_and(|both| outputs_join(&first, &second, &both).unwrap_or(false))
}

fn outputs_join(first: &Outputs, second: &Outputs, both: &Outputs) -> Result<bool, RunError> {
    for ((first, second), both) in first.iter().zip(second).zip(both) {
        let (Some((1, rest)), Some((1, rest_2)), Some((2, rest_both))) =
            (split(&first.shape), split(&second.shape), split(&both.shape))
        else {
            return Ok(false);
        };
        if rest != rest_both || rest_2 != rest_both {
            return Ok(false);
        }
        let alone = [first.to_vec()?, second.to_vec()?].concat();
        if !same_values(both.datatype, &alone, &both.to_vec()?) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn split(shape: &[u64]) -> Option<(u64, &[u64])> {
    shape.split_first().map(|(first, rest)| (*first, rest))
}

/// Equal; numbers with a fraction nearly so.
fn same_values(datatype: DataType, alone: &[u8], together: &[u8]) -> bool {
    let floats = |bytes: &[u8]| -> Option<Vec<f64>> {
        match datatype {
            DataType::Fp64 => Some(bytes.as_chunks::<8>().0.iter().map(|value| f64::from_le_bytes(*value)).collect()),
            DataType::Fp32 => {
                Some(bytes.as_chunks::<4>().0.iter().map(|value| f64::from(f32::from_le_bytes(*value))).collect())
            }
            DataType::Bf16 => Some(
                bytes
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .map(|[low, high]| f64::from(f32::from_le_bytes([0, 0, *low, *high])))
                    .collect(),
            ),
            _ => None,
        }
    };
    let (Some(alone_values), Some(together_values)) = (floats(alone), floats(together)) else {
        // Half floats are too coarse for a bound worth the code; their bytes are expected to be equal, like integers'.
        return alone == together;
    };
    let largest =
        alone_values.iter().filter(|value| value.is_finite()).fold(0.0_f64, |most, value| most.max(value.abs()));
    alone_values.len() == together_values.len()
        && alone_values.iter().zip(&together_values).all(|(one, other)| {
            (one - other).abs() <= ROW_TOLERANCE * largest + 1e-6 || (one.is_nan() && other.is_nan()) || one == other
        })
}

#[cfg(test)]
mod tests;
