//! How long the loop lets things gather, by how much there is to do.
//!
//! What one message costs is mostly what it costs alone: a turn of the loop, an fsync, a packet for
//! each reader and its acknowledgement. A server with little to do gives each its own, at once. A
//! server with much to do lets a few gather, so that they share: else it would do nothing but turn,
//! and everybody would wait longer.
//!
//! ```text
//!           calm            from 5,000           at 20,000 a second and more
//!   gap     0               grows evenly to      3 ms from one tick to the next
//!   hold    0               grows evenly to      15 ms for a client's first item to be written
//! ```

use std::time::{Duration, Instant};

/// Fewer than so many frames a second, in and out: nothing waits.
const CALM: f64 = 5_000.0;
/// From so many on, things wait as long as they may.
const BUSY: f64 = 20_000.0;
/// From the beginning of a tick to that of the next, at most: a message passes some five of them on
/// its way to `replicated`.
const GAP_MAX: Duration = Duration::from_millis(3);
/// For an item to wait for others to the same client, at most.
const HOLD_MAX: Duration = Duration::from_millis(15);
/// Frames are counted for so long.
const WINDOW: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Debug)]
pub(super) struct Pace {
    /// Since when frames are counted.
    since: Instant,
    frames: u32,
    /// Between calm (0) and busy (1).
    load: f64,
}

impl Pace {
    pub(super) const fn start(now: Instant) -> Self {
        Self { since: now, frames: 0, load: 0.0 }
    }

    /// So many frames came, or are to go.
    pub(super) const fn add(&mut self, frames: u32) {
        self.frames = self.frames.saturating_add(frames);
    }

    /// The end of a tick.
    pub(super) fn count(&mut self, now: Instant) {
        let span = now.duration_since(self.since);
        if span >= WINDOW {
            let rate = f64::from(self.frames) / span.as_secs_f64();
            self.load = ((rate - CALM) / (BUSY - CALM)).clamp(0.0, 1.0);
            self.since = now;
            self.frames = 0;
        }
    }

    /// From the beginning of a tick to that of the next, at least.
    pub(super) fn gap(&self) -> Duration {
        GAP_MAX.mul_f64(self.load)
    }

    /// How long an item may wait for others to the same client.
    pub(super) fn hold(&self) -> Duration {
        HOLD_MAX.mul_f64(self.load)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_waits_while_there_is_little_to_do_and_no_longer_than_it_may_at_any_rate() {
        let start = Instant::now();
        let at = |rate: u32| {
            let mut pace = Pace::start(start);
            pace.add(rate / 20);
            pace.count(start + WINDOW);
            (pace.gap(), pace.hold())
        };
        assert_eq!(at(0), (Duration::ZERO, Duration::ZERO));
        assert_eq!(at(5_000), (Duration::ZERO, Duration::ZERO));
        let (gap, hold) = at(12_500);
        assert!(gap > GAP_MAX / 3 && gap < GAP_MAX && hold > HOLD_MAX / 3 && hold < HOLD_MAX);
        assert_eq!(at(20_000), (GAP_MAX, HOLD_MAX));
        assert_eq!(at(2_000_000_000), (GAP_MAX, HOLD_MAX));
    }

    #[test]
    fn a_burst_is_forgotten_after_a_window() {
        let start = Instant::now();
        let mut pace = Pace::start(start);
        pace.add(5_000);
        pace.count(start + WINDOW);
        assert_eq!(pace.hold(), HOLD_MAX);
        pace.count(start + WINDOW + WINDOW / 2);
        assert_eq!(pace.hold(), HOLD_MAX, "half a window says nothing");
        pace.count(start + 2 * WINDOW);
        assert_eq!(pace.hold(), Duration::ZERO);
    }
}
