//! A small generator of reproducible noise.

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014): every seed is a good one.
#[derive(Debug, Clone)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// The sequence of this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From zero up to but not including one, in steps of 2^-53.
    pub fn fraction(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A step of a Poisson process with this rate, in seconds.
    pub fn exponential(&mut self, per_second: f64) -> f64 {
        // One minus the fraction is never zero.
        -(1.0 - self.fraction()).ln() / per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        let mut noise = SplitMix64::new(1_234_567);
        assert_eq!(noise.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(noise.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn the_mean_step_is_one_over_the_rate() {
        let mut noise = SplitMix64::new(7);
        let sum: f64 = (0..100_000).map(|_| noise.exponential(50.0)).sum();
        assert!((0.0195..0.0205).contains(&(sum / 100_000.0)), "{sum}");
    }
}
