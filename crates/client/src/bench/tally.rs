//! Counting: latencies by the thousand, and which numbers of a sender were seen.

use std::collections::BTreeSet;

/// Values below this have a bucket each.
const EXACT: u64 = 64;
/// Buckets of each doubling above: a value is known to 3 %.
const STEPS: u32 = 32;

/// How often each latency occurred, in microseconds.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Histogram {
    pub fn add(&mut self, micros: u64) {
        let bucket = bucket_of(micros);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.total += 1;
        self.max = self.max.max(micros);
    }

    pub fn merge(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum += count;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    pub const fn total(&self) -> u64 {
        self.total
    }

    pub const fn max(&self) -> u64 {
        self.max
    }

    /// The value that so many of a thousand do not exceed (within a bucket).
    pub fn permille(&self, permille: u64) -> u64 {
        let rank = (self.total * permille).div_ceil(1000).max(1);
        let mut below = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= rank {
                return top_of(bucket).min(self.max);
            }
        }
        self.max
    }
}

fn bucket_of(micros: u64) -> usize {
    let bucket = if micros < EXACT {
        micros
    } else {
        let doubling = micros.ilog2() - EXACT.ilog2();
        let step = (micros >> (doubling + 1)) - u64::from(STEPS);
        EXACT + u64::from(doubling * STEPS) + step
    };
    usize::try_from(bucket).unwrap_or(usize::MAX)
}

/// The largest value of a bucket.
fn top_of(bucket: usize) -> u64 {
    let bucket = u64::try_from(bucket).unwrap_or(u64::MAX);
    if bucket < EXACT {
        return bucket;
    }
    let (doubling, step) =
        ((bucket - EXACT) / u64::from(STEPS), (bucket - EXACT) % u64::from(STEPS));
    ((u64::from(STEPS) + step + 1) << (doubling + 1)) - 1
}

/// Which numbers, from 0, were seen. Mostly they come in order.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    next: u64,
    ahead: BTreeSet<u64>,
}

impl Numbers {
    /// Notes a number; tells whether it is new.
    pub fn see(&mut self, number: u64) -> bool {
        if number < self.next || self.ahead.contains(&number) {
            return false;
        }
        if number > self.next {
            self.ahead.insert(number);
            return true;
        }
        self.next += 1;
        while self.ahead.remove(&self.next) {
            self.next += 1;
        }
        true
    }

    pub fn has(&self, number: u64) -> bool {
        number < self.next || self.ahead.contains(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn percentiles_are_within_a_bucket_of_the_truth() {
        let mut histogram = Histogram::default();
        (1..=10_000).for_each(|micros| histogram.add(micros));
        for (permille, truth) in [(500, 5000), (900, 9000), (990, 9900)] {
            let told = histogram.permille(permille);
            assert!(told >= truth && told <= truth + truth / 30, "{permille}: {told}");
        }
        assert_eq!((histogram.max(), histogram.total()), (10_000, 10_000));
    }

    proptest! {
        #[test]
        fn a_value_lies_in_its_bucket(micros in 0u64..1 << 40) {
            let bucket = bucket_of(micros);
            prop_assert!(micros <= top_of(bucket));
            prop_assert!(bucket == 0 || micros > top_of(bucket - 1));
        }

        #[test]
        fn each_number_is_new_once(numbers in prop::collection::vec(0u64..20, 0..60)) {
            let (mut seen, mut model) = (Numbers::default(), BTreeSet::new());
            for number in numbers {
                prop_assert_eq!(seen.see(number), model.insert(number));
            }
            for number in 0..20 {
                prop_assert_eq!(seen.has(number), model.contains(&number));
            }
        }
    }
}
