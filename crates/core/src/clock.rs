//! The hybrid clock (Kulkarni et al., 2014) and the fence for a server whose clock is off.
//!
//! Replicas never reject an event for its clock (rejection would be divergence): a stamp too far
//! ahead is kept and not followed. The *source* is fenced instead: a server whose clock is more
//! than half the allowed skew from the lower median over itself and its linked voters takes no
//! client writes, and goes on replicating and serving reads (CockroachDB's rule).

use crate::time::{Hlc, Now, Time};

/// A server's clock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Clock {
    last: Hlc,
    max_skew_ms: u64,
    /// The median when there was a majority to take it from.
    median: Option<(u64, Time)>,
    fenced: bool,
    /// Stamps of others too far ahead to be followed.
    skew_events: u64,
}

impl Clock {
    /// A clock that goes on above `last`, the greatest stamp on the disk that is not too far ahead.
    pub const fn new(last: Hlc, max_skew_ms: u64) -> Self {
        Self { last, max_skew_ms, median: None, fenced: false, skew_events: 0 }
    }

    /// Starts from the stamps on a disk.
    pub fn load(stamps: impl Iterator<Item = Hlc>, max_skew_ms: u64, now: Now) -> Self {
        let horizon = now.wall_ms.saturating_add(max_skew_ms);
        let last = stamps.filter(|stamp| stamp.ms() <= horizon).max().unwrap_or_default();
        Self::new(last, max_skew_ms)
    }

    /// What the fence compares: the wall clock, or the stamps if they are ahead of it.
    pub const fn reading_ms(&self, now: Now) -> u64 {
        if now.wall_ms > self.last.ms() { now.wall_ms } else { self.last.ms() }
    }

    /// The median as it should read now.
    fn median_ms(&self, now: Now) -> Option<u64> {
        let (ms, at) = self.median?;
        let since = u64::try_from(now.time.since(at).as_millis()).unwrap_or(u64::MAX);
        Some(ms.saturating_add(since))
    }

    /// The time that clients are told, and message ids are judged by: the median when this clock
    /// is off.
    pub fn told_ms(&self, now: Now) -> u64 {
        match self.median_ms(now) {
            Some(median) if self.fenced => median,
            _ => self.reading_ms(now),
        }
    }

    fn horizon_ms(&self, now: Now) -> u64 {
        now.wall_ms.max(self.median_ms(now).unwrap_or(0)).saturating_add(self.max_skew_ms)
    }

    /// Whether a stamp is near enough to be followed: an own event can be stamped above it.
    pub fn reaches(&self, now: Now, stamp: Hlc) -> bool {
        stamp.ms() <= self.horizon_ms(now)
    }

    /// Stamps an own event above everything this server and the writer have seen.
    pub fn stamp(&mut self, now: Now, seen: Hlc) -> Hlc {
        let mut stamp = Hlc::at_ms(now.wall_ms).max(self.last.next());
        if seen.ms() <= self.horizon_ms(now) {
            stamp = stamp.max(seen.next());
        }
        self.last = stamp;
        stamp
    }

    /// Follows a stamp of another server, unless it is too far ahead.
    pub fn observe(&mut self, now: Now, stamp: Hlc) {
        if stamp.ms() <= self.horizon_ms(now) {
            self.last = self.last.max(stamp);
        } else {
            self.skew_events += 1;
        }
    }

    /// The newest stamp given or followed.
    pub const fn last(&self) -> Hlc {
        self.last
    }

    /// Judges this clock by those of the linked voters (`others`, in milliseconds), of `voters` in
    /// all. Without a majority the last verdict stands. Tells whether the verdict changed.
    pub fn judge(&mut self, now: Now, others: &[u64], voters: usize) -> bool {
        let mut clocks = others.to_vec();
        let own = self.reading_ms(now);
        clocks.push(own);
        if clocks.len() * 2 <= voters {
            return false;
        }
        clocks.sort_unstable();
        let Some(median) = clocks.get((clocks.len() - 1) / 2).copied() else { return false };
        self.median = Some((median, now.time));
        let fenced = own.abs_diff(median) > self.max_skew_ms / 2;
        std::mem::replace(&mut self.fenced, fenced) != fenced
    }

    /// Whether client writes are to be refused.
    pub const fn is_fenced(&self) -> bool {
        self.fenced
    }

    /// How many stamps were too far ahead to be followed.
    pub const fn skew_events(&self) -> u64 {
        self.skew_events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(wall_ms: u64) -> Now {
        Now { time: Time::from_micros(0), wall_ms }
    }

    #[test]
    fn stamps_rise_when_the_wall_clock_goes_back() {
        let mut clock = Clock::new(Hlc::default(), 2000);
        let first = clock.stamp(at(1000), Hlc::default());
        let second = clock.stamp(at(500), Hlc::default());
        assert!(second > first);
    }

    #[test]
    fn a_stamp_follows_what_the_writer_saw_elsewhere() {
        let mut clock = Clock::new(Hlc::default(), 2000);
        let seen = Hlc::at_ms(2500);
        assert!(clock.stamp(at(1000), seen) > seen);
    }

    #[test]
    fn a_stamp_far_ahead_is_not_followed() {
        let mut clock = Clock::new(Hlc::default(), 2000);
        clock.observe(at(1000), Hlc::at_ms(1_000_000));
        assert_eq!(clock.stamp(at(1000), Hlc::at_ms(9_000_000)).ms(), 1000);
        assert_eq!(clock.skew_events(), 1);
    }

    #[test]
    fn the_one_of_three_that_is_off_fences_itself() {
        let now = at(100_000);
        let mut right = Clock::new(Hlc::default(), 2000);
        right.judge(now, &[100_100, 3_700_000], 3);
        assert!(!right.is_fenced());
        let mut wrong = Clock::new(Hlc::default(), 2000);
        assert!(wrong.judge(at(3_700_000), &[100_000, 100_100], 3));
        assert!(wrong.is_fenced());
        assert!(wrong.judge(now, &[100_000, 100_100], 3), "its clock was mended");
        assert!(!wrong.is_fenced());
    }

    #[test]
    fn alone_the_last_verdict_stands() {
        let mut clock = Clock::new(Hlc::default(), 2000);
        assert!(!clock.judge(at(5), &[], 3));
        assert!(!clock.is_fenced());
    }
}
