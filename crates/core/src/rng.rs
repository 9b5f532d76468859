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
