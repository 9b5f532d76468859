//! How much may be asked: token buckets, and what each request takes out of them.
//!
//! The unit is one message. Whatever costs a server more (a register on every server's disk and in
//! its memory, a page from the disk) takes more out of the same bucket, so that one rate an account
//! bounds all it can cause, on however many connections.

use std::time::Duration;

use crate::session::{Mode, Request};
use crate::time::Time;

/// A token bucket: `rate` a second, `burst` at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bucket {
    rate: u32,
    burst: u32,
    /// When the bucket is full again if nothing is taken.
    full_at: Time,
}

impl Bucket {
    /// So much a second, and as much at once.
    pub(super) const fn new(rate: u32) -> Self {
        Self::with_burst(rate, rate)
    }

    pub(super) const fn with_burst(rate: u32, burst: u32) -> Self {
        Self { rate, burst, full_at: Time::from_micros(0) }
    }

    fn span(&self, units: u64) -> Duration {
        Duration::from_micros(units.saturating_mul(1_000_000) / u64::from(self.rate.max(1)))
    }

    /// Takes so many units; else tells after how many milliseconds they are there. What is larger
    /// than the whole bucket takes a full one, and leaves it as empty as it costs.
    pub(super) fn take(&mut self, now: Time, units: u64) -> Result<(), u32> {
        let depth = self.span(u64::from(self.burst.max(1)));
        let debt = self.full_at.since(now);
        let allowed = depth.saturating_sub(self.span(units).min(depth));
        // One unit of grace: rounding must not refuse who keeps the rate exactly.
        if debt > allowed + self.span(1) {
            let wait = debt.saturating_sub(allowed);
            return Err(u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1));
        }
        self.owe(now, units);
        Ok(())
    }

    /// Takes so many units whether they are there or not: what comes next waits for them.
    pub(super) fn owe(&mut self, now: Time, units: u64) {
        self.full_at = self.full_at.max(now) + self.span(units);
    }

    pub(super) fn is_full(&self, now: Time) -> bool {
        self.full_at <= now
    }
}

/// The first message from one account to another makes a register on every server.
pub(super) const NEW_CONVERSATION: u64 = 20;
/// So does a new room, which everybody is shown.
pub(super) const NEW_ROOM: u64 = 20;

/// What a request takes out of its account's bucket.
pub(super) const fn cost(request: &Request) -> u64 {
    match request {
        Request::Send(_) | Request::Ping(_) | Request::Detach(_) => 1,
        Request::Open(open) => match open.mode {
            Mode::Join => 10,
            Mode::Watch => 5,
        },
        Request::Attach(_) | Request::Close(_) | Request::Mark(_) => 5,
        Request::Topic(topic) => match topic.text {
            Some(_) => 20,
            None => 1,
        },
        Request::Nick(_) | Request::Kick(_) | Request::Role(_) | Request::Keep(_) => 20,
        Request::History(_) | Request::Who(_) => 10,
        Request::Rooms(_) | Request::Status(_) => 20,
        // One at a time, a small piece after the other.
        Request::Verify(_) => 100,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Time {
        Time::from_micros(ms * 1000)
    }

    /// How much is taken in ten seconds by one who always wants more.
    fn taken(mut bucket: Bucket, units: u64) -> u64 {
        (0..10_000)
            .map(|at| (0..100).filter(|_| bucket.take(ms(at), units).is_ok()).count())
            .sum::<usize>() as u64
            * units
    }

    #[test]
    fn a_bucket_gives_its_rate_and_its_burst_whatever_the_pieces() {
        for units in [1, 7, 50] {
            let all = taken(Bucket::new(1000), units);
            assert!((10_900..=11_100).contains(&all), "{all} in pieces of {units}");
            let all = taken(Bucket::with_burst(10, 500), units);
            assert!((550..=700).contains(&all), "{all} in pieces of {units}");
        }
    }

    #[test]
    fn who_is_refused_is_told_when_it_works() {
        let mut bucket = Bucket::new(10);
        while bucket.take(ms(0), 1).is_ok() {}
        let wait = bucket.take(ms(0), 5).unwrap_err();
        assert!(bucket.take(ms(u64::from(wait) - 200), 5).is_err());
        assert_eq!(bucket.take(ms(u64::from(wait)), 5), Ok(()));
    }

    #[test]
    fn what_is_larger_than_the_bucket_takes_a_full_one_and_pays_for_it() {
        let mut bucket = Bucket::new(10);
        assert_eq!(bucket.take(ms(0), 100), Ok(()));
        assert!(bucket.take(ms(9_000), 10).is_err(), "it owes ten seconds");
        assert_eq!(bucket.take(ms(10_000), 10), Ok(()));
    }

    #[test]
    fn a_bucket_is_full_when_all_it_gave_is_back() {
        let mut bucket = Bucket::new(10);
        assert!(bucket.is_full(ms(0)));
        assert_eq!(bucket.take(ms(1000), 5), Ok(()));
        assert!(!bucket.is_full(ms(1499)));
        assert!(bucket.is_full(ms(1500)));
    }
}
