//! Seeded randomness: SplitMix64 (Steele, Lea, Flood, 2014). The caller gives the seed; there is
//! no constructor that finds one by itself.

/// A stream of random numbers that is the same for the same seed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rng(u64);

impl Rng {
    /// The stream of that seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 128 random bits.
    pub const fn bits128(&mut self) -> u128 {
        ((self.bits() as u128) << 64) | self.bits() as u128
    }

    /// A number below `end`; 0 if `end` is 0.
    pub const fn below(&mut self, end: u64) -> u64 {
        // The multiply-shift bias is below 2^-32 for the small ranges used here.
        ((self.bits() as u128 * end as u128) >> 64) as u64
    }

    /// True once in `n` on average.
    pub const fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_splitmix64() {
        // The reference implementation's first numbers for the seed 1234567.
        let mut rng = Rng::new(1_234_567);
        let bits = [(); 3].map(|()| rng.bits());
        assert_eq!(
            bits,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
        let mut rng = Rng::new(1_234_567);
        let wide = (u128::from(bits[0]) << 64) | u128::from(bits[1]);
        assert_eq!(rng.bits128(), wide);
    }

    #[test]
    fn numbers_below_an_end_are_spread_evenly() {
        let mut rng = Rng::new(1);
        let mut counts = [0; 10];
        (0..10_000).for_each(|_| counts[rng.below(10) as usize] += 1);
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
        let hits = (0..10_000).filter(|_| rng.one_in(4)).count();
        assert!((2350..2650).contains(&hits), "{hits}");
        assert_eq!(rng.below(0), 0);
    }
}
