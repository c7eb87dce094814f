//! When requests are due.

use std::sync::Arc;
use std::time::Duration;

use crate::SplitMix64;

/// The arrivals of one stream.
#[derive(Debug, Clone)]
pub enum Arrivals {
    /// Evenly spaced.
    Constant {
        /// The rate.
        per_second: f64,
    },
    /// Independent of one another: exponential steps.
    Poisson {
        /// The mean rate.
        per_second: f64,
        /// Equal seeds give equal arrivals.
        seed: u64,
    },
    /// At these times, in order.
    Recorded(Arc<[Arrival]>),
    /// A closed loop: each connection sends again as soon as it has its answer.
    Closed,
}

/// One request that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// After the start.
    pub at: Duration,
    /// Which of the stream's requests.
    pub request: usize,
}

/// The arrivals of an open stream, one after the other; a closed loop has none.
#[derive(Debug, Clone)]
pub struct Offsets {
    arrivals: Arrivals,
    requests: usize,
    next: usize,
    /// Seconds from the start, where they are counted up.
    clock: f64,
    noise: SplitMix64,
}

impl Arrivals {
    /// The due times, for a stream that sends `requests` different requests in turn.
    pub fn offsets(&self, requests: usize) -> Offsets {
        let seed = if let Self::Poisson { seed, .. } = self { *seed } else { 0 };
        Offsets { arrivals: self.clone(), requests: requests.max(1), next: 0, clock: 0.0, noise: SplitMix64::new(seed) }
    }
}

impl Iterator for Offsets {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        let index = self.next;
        self.next += 1;
        let seconds = match &self.arrivals {
            Arrivals::Recorded(arrivals) => return arrivals.get(index).copied(),
            Arrivals::Closed => return None,
            // Multiplied, not added up: rounding must not make the rate drift.
            Arrivals::Constant { per_second } => index as f64 / per_second,
            Arrivals::Poisson { per_second, .. } => {
                self.clock += self.noise.exponential(*per_second);
                self.clock
            }
        };
        let at = Duration::try_from_secs_f64(seconds).ok()?;
        Some(Arrival { at, request: index % self.requests })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constant_arrivals_are_even_and_take_the_requests_in_turn() {
        let due: Vec<Arrival> = Arrivals::Constant { per_second: 4.0 }.offsets(2).take(3).collect();
        let at = |ms, request| Arrival { at: Duration::from_millis(ms), request };
        assert_eq!(due, [at(0, 0), at(250, 1), at(500, 0)]);
    }

    #[test]
    fn poisson_arrivals_follow_their_seed_and_their_rate() {
        let of = |seed| Arrivals::Poisson { per_second: 1_000.0, seed }.offsets(1).take(50_000).collect::<Vec<_>>();
        let due = of(3);
        assert_eq!(due, of(3));
        assert_ne!(due, of(4));
        let end = due.last().unwrap().at.as_secs_f64();
        assert!((48.0..52.0).contains(&end), "{end}");
        // In a Poisson process the variance of counts equals their mean.
        let mut counts = vec![0_u32; 500];
        due.iter().for_each(|arrival| {
            if let Some(count) = counts.get_mut((arrival.at.as_secs_f64() * 10.0) as usize) {
                *count += 1;
            }
        });
        let counts = &counts[..480];
        let mean = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
        let variance = counts.iter().map(|&count| (f64::from(count) - mean).powi(2)).sum::<f64>() / counts.len() as f64;
        assert!((0.8..1.25).contains(&(variance / mean)), "{variance} {mean}");
    }
}
