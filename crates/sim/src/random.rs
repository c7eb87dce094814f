//! Dice with a seed: the same seed gives the same numbers on every machine and in every version of this crate.

use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood, 2014): small, fast, and good enough for workloads.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Numbers of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Numbers of their own for one part of a world, so that one part's use of them does not change another's.
    pub fn fork(seed: u64, part: u64) -> Self {
        let mut random = Self(seed ^ part.wrapping_mul(0xA076_1D64_78BD_642F));
        Self(random.number())
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// At least 0 and less than 1.
    pub fn unit(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Less than `end`; 0 if that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        let wide = u128::from(self.number()) * u128::from(end);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// Exponentially distributed around a mean: the gaps of Poisson arrivals.
    pub fn exponential(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.unit()).ln())
    }

    /// A factor around 1 with a relative deviation of `spread`, never below a tenth: how a run differs from the last one.
    pub fn noise(&mut self, spread: f64) -> f64 {
        if spread <= 0.0 {
            return 1.0;
        }
        // Twelve uniform numbers make a normal one (Irwin and Hall), and unlike the exact form it has no far tail.
        let sum: f64 = (0..12).map(|_| self.unit()).sum();
        (1.0 + spread * (sum - 6.0)).max(0.1)
    }

    /// An index by weights given as their running sums.
    pub fn pick(&mut self, running_sums: &[f64]) -> usize {
        let Some(&total) = running_sums.last() else { return 0 };
        let at = self.unit() * total;
        running_sums.partition_point(|&sum| sum <= at).min(running_sums.len() - 1)
    }
}

/// The running sums of Zipf's weights: the first of `count` is the most popular one.
pub fn zipf(count: usize, exponent: f64) -> Vec<f64> {
    let mut sum = 0.0;
    (1..=count)
        .map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_seed_are_fixed() {
        // The published test vector of SplitMix64 for seed 1234567.
        let mut random = Random::new(1_234_567);
        assert_eq!(random.number(), 6_457_827_717_110_365_317);
        assert_eq!(random.number(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn distributions_have_their_means() {
        let mut random = Random::new(1);
        let count = 20_000;
        let mean: f64 = (0..count).map(|_| random.exponential(Duration::from_secs(1)).as_secs_f64()).sum();
        assert!((0.97..1.03).contains(&(mean / f64::from(count))), "{mean}");
        let ones = (0..count).filter(|_| random.between(1, 4) == 1).count();
        assert!((4_700..5_300).contains(&ones), "{ones}");
        let weights = zipf(3, 1.0);
        let firsts = (0..count).filter(|_| random.pick(&weights) == 0).count();
        assert!((10_500..11_300).contains(&firsts), "{firsts}");
        assert_eq!(random.below(0), 0);
    }
}
