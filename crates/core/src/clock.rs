//! The hybrid clock (Kulkarni et al., 2014) and the fence for a server whose clock is off.
//!
//! Replicas never reject an event for its clock (rejection would be divergence): a stamp too far
//! ahead is kept and not followed. The *source* is fenced instead: a server whose wall clock, or whose
//! stamps, are more than half the allowed skew from the lower median over itself and its linked
//! voters takes no client writes, and goes on replicating and serving reads (CockroachDB's rule).
//!
//! A server that hears no majority has one thing to hold its clock to: its certificate. By a clock
//! outside its time no other server would be right to link with it, and it takes no writes until a
//! majority says that the clock is right.

use crate::bugs::bug;
use crate::time::{Hlc, Now, Time};

/// Whether a server takes writes, as far as its clock goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fence {
    /// It does.
    Open,
    /// Not: a majority says that the clock is off.
    Off,
    /// Not: the clock is outside the time of the certificate, and no majority says that it is right.
    Doubtful,
}

/// A wall clock that moves by more than this against the steady one was set. Clocks that are slewed
/// move by less between two looks.
const SET_MS: u64 = 100;

/// A server's clock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Clock {
    last: Hlc,
    max_skew_ms: u64,
    /// The median when there was a majority to take it from.
    median: Option<(u64, Time)>,
    fenced: bool,
    /// Whether the verdict is of a majority that is linked now.
    judged: bool,
    /// When the certificate is good.
    certified_ms: Option<(u64, u64)>,
    /// Whether it is not, by this clock.
    outside: bool,
    /// The wall clock when it was last looked at, and when that was.
    looked: Option<(u64, Time)>,
    /// Stamps of others too far ahead to be followed.
    skew_events: u64,
}

impl Clock {
    /// A clock that goes on above `last`, the greatest stamp on the disk that is not too far ahead.
    pub const fn new(last: Hlc, max_skew_ms: u64) -> Self {
        Self {
            last,
            max_skew_ms,
            median: None,
            fenced: false,
            judged: false,
            certified_ms: None,
            outside: false,
            looked: None,
            skew_events: 0,
        }
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
            Some(median) if self.is_fenced() => median,
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
        if bug!(ClockNotMerged) {
            return;
        }
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
    /// all. Without a majority the last verdict stands.
    pub fn judge(&mut self, now: Now, others: &[u64], voters: usize) {
        let mut clocks = others.to_vec();
        let own = self.reading_ms(now);
        clocks.push(own);
        self.judged = !others.is_empty() && clocks.len() * 2 > voters;
        if !self.judged {
            return;
        }
        clocks.sort_unstable();
        let Some(median) = clocks.get((clocks.len() - 1) / 2).copied() else { return };
        self.median = Some((median, now.time));
        // The wall clock may be behind though the stamps, which follow those of others, are right; the
        // stamps may be ahead though the wall clock was mended.
        let is_off = |ms: u64| ms.abs_diff(median) > self.max_skew_ms / 2;
        self.fenced = is_off(now.wall_ms) || is_off(own);
    }

    /// The certificate is good from then until then, in unix milliseconds.
    pub const fn certified(&mut self, begins_ms: u64, ends_ms: u64) {
        self.certified_ms = Some((begins_ms, ends_ms));
    }

    /// Holds the clock to the certificate. Tells whether it was set since the last look: then it has
    /// to be judged anew, by what the others' clocks should read now, before it stamps anything.
    pub fn look(&mut self, now: Now) -> bool {
        let outside = |(begins, ends)| now.wall_ms < begins || now.wall_ms > ends;
        self.outside = self.certified_ms.is_some_and(outside) && !bug!(CertificateIgnored);
        let was_set = |(wall_ms, at): (u64, Time)| {
            let passed = u64::try_from(now.time.since(at).as_millis()).unwrap_or(u64::MAX);
            wall_ms.saturating_add(passed).abs_diff(now.wall_ms) > SET_MS
        };
        self.looked.replace((now.wall_ms, now.time)).is_some_and(was_set)
    }

    /// Whether writes are taken.
    pub const fn fence(&self) -> Fence {
        if self.fenced {
            Fence::Off
        } else if self.outside && !self.judged {
            Fence::Doubtful
        } else {
            Fence::Open
        }
    }

    /// Whether client writes are to be refused.
    pub const fn is_fenced(&self) -> bool {
        !matches!(self.fence(), Fence::Open)
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
    fn a_clock_that_is_right_is_told_and_the_median_for_one_that_is_off() {
        let mut clock = Clock::new(Hlc::default(), 2000);
        clock.judge(at(100_000), &[100_400, 100_500], 3);
        assert_eq!(clock.told_ms(at(100_000)), 100_000);
        clock.judge(at(200_000), &[100_400, 100_500], 3);
        assert_eq!(clock.told_ms(at(200_000)), 100_500);
    }

    #[test]
    fn a_majority_of_the_voters_judges_and_half_of_them_does_not() {
        let is_judged = |others: &[u64], voters| {
            let mut wrong = Clock::new(Hlc::default(), 2000);
            wrong.judge(at(3_700_000), others, voters);
            wrong.fence() == Fence::Off
        };
        assert!(is_judged(&[100_000, 100_100], 5));
        assert!(!is_judged(&[100_000, 100_100], 6));
        assert!(is_judged(&[100_000, 100_100, 100_200], 7));
    }

    #[test]
    fn the_one_of_three_that_is_off_fences_itself() {
        let now = at(100_000);
        let mut right = Clock::new(Hlc::default(), 2000);
        right.judge(now, &[100_100, 3_700_000], 3);
        assert!(!right.is_fenced());
        let mut wrong = Clock::new(Hlc::default(), 2000);
        wrong.judge(at(3_700_000), &[100_000, 100_100], 3);
        assert_eq!(wrong.fence(), Fence::Off);
        wrong.judge(now, &[100_000, 100_100], 3);
        assert_eq!(wrong.fence(), Fence::Open, "its clock was mended");
    }

    #[test]
    fn a_clock_that_is_behind_is_off_though_stamps_of_others_are_followed() {
        let behind = at(90_000);
        let others = [100_000, 100_100];
        let mut clock = Clock::new(Hlc::default(), 2000);
        clock.judge(behind, &others, 3);
        assert_eq!(clock.fence(), Fence::Off);
        // Others write all the time: the next stamp would be right, and the clock is not.
        clock.observe(behind, Hlc::at_ms(100_050));
        clock.judge(behind, &others, 3);
        assert_eq!(clock.fence(), Fence::Off);
        clock.judge(at(100_100), &others, 3);
        assert_eq!(clock.fence(), Fence::Open, "mended");
    }

    #[test]
    fn a_clock_that_was_set_back_is_off_while_its_stamps_are_ahead() {
        let mut clock = Clock::new(Hlc::at_ms(110_000), 2000);
        clock.judge(at(100_000), &[100_000, 100_100], 3);
        assert_eq!(clock.fence(), Fence::Off);
    }

    #[test]
    fn alone_the_last_verdict_stands() {
        let mut clock = Clock::new(Hlc::default(), 2000);
        clock.judge(at(5), &[], 3);
        assert!(!clock.is_fenced());
        clock.judge(at(9_000_000), &[5, 6], 3);
        clock.judge(at(9_000_000), &[], 3);
        assert_eq!(clock.fence(), Fence::Off);
    }

    #[test]
    fn a_clock_outside_the_time_of_the_certificate_is_believed_only_with_a_majority() {
        let mut clock = Clock::new(Hlc::default(), 2000);
        clock.certified(50_000, 100_000);
        for (wall_ms, fence) in [
            (49_999, Fence::Doubtful),
            (50_000, Fence::Open),
            (100_000, Fence::Open),
            (100_001, Fence::Doubtful),
        ] {
            clock.look(at(wall_ms));
            assert_eq!(clock.fence(), fence, "{wall_ms}");
        }
        clock.judge(at(100_001), &[100_001], 3);
        assert_eq!(clock.fence(), Fence::Open, "the certificate ended, and the clock is right");
        clock.judge(at(100_001), &[], 3);
        assert_eq!(clock.fence(), Fence::Doubtful, "alone again");
        clock.certified(50_000, 200_000);
        clock.look(at(100_001));
        assert_eq!(clock.fence(), Fence::Open, "renewed");
    }

    #[test]
    fn a_clock_starts_from_the_greatest_stamp_that_is_not_too_far_ahead() {
        let start = |stamps: &[u64]| {
            let stamps = stamps.iter().map(|ms| Hlc::at_ms(*ms));
            Clock::load(stamps, 2000, at(1000)).last().ms()
        };
        assert_eq!(start(&[5, 900, 7]), 900);
        assert_eq!(start(&[5, 3000]), 3000, "as far as clocks may differ");
        assert_eq!(start(&[5, 3001]), 5);
        assert_eq!(start(&[]), 0);
    }

    #[test]
    fn a_stamp_as_far_ahead_as_clocks_may_differ_is_followed_and_the_next_is_counted() {
        let mut clock = Clock::new(Hlc::default(), 2000);
        clock.observe(at(1000), Hlc::at_ms(3000));
        assert_eq!((clock.last(), clock.skew_events()), (Hlc::at_ms(3000), 0));
        assert!(clock.reaches(at(1000), Hlc::at_ms(3000)));
        for n in 1..3 {
            clock.observe(at(1000), Hlc::at_ms(3001));
            assert_eq!((clock.last(), clock.skew_events()), (Hlc::at_ms(3000), n));
        }
        assert!(!clock.reaches(at(1000), Hlc::at_ms(3001)));
        assert_eq!(clock.reading_ms(at(1000)), 3000, "the stamps are ahead of the wall");
        assert_eq!(clock.reading_ms(at(4000)), 4000);
        clock.observe(at(1000), Hlc::at_ms(2000));
        assert_eq!(clock.last(), Hlc::at_ms(3000), "an older stamp takes nothing back");
    }

    #[test]
    fn a_clock_may_be_off_by_half_of_what_clocks_may_differ() {
        let fence = |own: u64, others: &[u64], voters: usize| {
            let mut clock = Clock::new(Hlc::default(), 2000);
            clock.judge(at(own), others, voters);
            clock.fence()
        };
        assert_eq!(fence(11_000, &[10_000, 10_000], 3), Fence::Open);
        assert_eq!(fence(11_001, &[10_000, 10_000], 3), Fence::Off);
        assert_eq!(fence(9000, &[10_000, 10_000], 3), Fence::Open);
        assert_eq!(fence(8999, &[10_000, 10_000], 3), Fence::Off);
        // The lower median: of two clocks the earlier is right.
        assert_eq!(fence(20_000, &[10_000], 2), Fence::Off);
        assert_eq!(fence(10_000, &[20_000], 2), Fence::Open);
        assert_eq!(fence(10_000, &[20_000, 20_000, 20_000], 4), Fence::Off);
        assert_eq!(fence(20_000, &[10_000, 10_000, 20_000], 4), Fence::Off);
        // Two of four are no majority, and one alone of one is nothing to go by.
        assert_eq!(fence(90_000, &[10_000], 4), Fence::Open);
        assert_eq!(fence(90_000, &[10_000], 3), Fence::Off);
        assert_eq!(fence(90_000, &[], 1), Fence::Open);
    }

    #[test]
    fn a_clock_that_is_off_tells_the_time_of_the_majority_which_goes_on() {
        let moment = |micros, wall_ms| Now { time: Time::from_micros(micros), wall_ms };
        let mut clock = Clock::new(Hlc::default(), 2000);
        clock.judge(moment(0, 50_000), &[10_000, 10_100], 3);
        assert_eq!(clock.told_ms(moment(0, 50_000)), 10_100);
        assert_eq!(clock.told_ms(moment(700_000, 50_700)), 10_800);
        clock.judge(moment(0, 10_000), &[10_000, 10_100], 3);
        assert_eq!(clock.told_ms(moment(0, 10_000)), 10_000, "one that is right tells its own");
        // A stamp is held against the later of the two.
        clock.judge(moment(0, 5000), &[10_000, 10_000], 3);
        assert!(clock.reaches(moment(0, 5000), Hlc::at_ms(12_000)));
        assert!(!clock.reaches(moment(0, 5000), Hlc::at_ms(12_001)));
    }

    #[test]
    fn a_clock_that_is_set_is_noticed_and_one_that_is_slewed_is_not() {
        let moment = |ms: u64, wall_ms| Now { time: Time::from_micros(ms * 1000), wall_ms };
        let mut clock = Clock::new(Hlc::default(), 2000);
        assert!(!clock.look(moment(0, 1000)), "nothing to compare with");
        assert!(!clock.look(moment(500, 1600)));
        assert!(clock.look(moment(1000, 2201)));
        assert!(!clock.look(moment(1500, 2601)));
        assert!(clock.look(moment(2000, 3000)), "back");
    }
}
