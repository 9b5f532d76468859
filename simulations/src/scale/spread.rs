//! How events spread: when each was on every disk, and how many servers relayed it there.

use std::collections::BTreeMap;
use std::time::Duration;

use chatty_core::id::Log;
use chatty_core::time::Time;
use serde::{Deserialize, Serialize};

use super::kept;

/// From being said to being on every disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Times {
    /// Events that got there.
    pub events: u64,
    /// Half of them took no longer.
    #[serde(with = "kept::micros")]
    pub median: Duration,
    /// Of a hundred, 99 took no longer.
    #[serde(with = "kept::micros")]
    pub ninety_nine: Duration,
    /// The slowest.
    #[serde(with = "kept::micros")]
    pub most: Duration,
}

impl Times {
    /// In short.
    pub(super) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let quantile = |percent: usize| {
            let at = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(at).copied().unwrap_or_default()
        };
        let [median, ninety_nine, most] = [50, 99, 100].map(quantile);
        Self { events: times.len() as u64, median, ninety_nine, most }
    }
}

/// Links that pushed events took to the servers they came to first by a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Hops {
    /// Such arrivals.
    pub arrivals: u64,
    /// Their links, all together.
    pub links: u64,
    /// Of the longest way.
    pub most: u64,
}

impl Hops {
    /// Of one arrival.
    pub fn mean(&self) -> f64 {
        self.links as f64 / self.arrivals.max(1) as f64
    }
}

/// An event that is not everywhere yet.
#[derive(Clone, Debug)]
struct Track {
    said: Time,
    origin: usize,
    /// Servers it came to, by whatever way.
    reached: Vec<bool>,
    /// Whether it was on a disk.
    stored: bool,
    /// Servers that were up when it was said, have been since, and lack it on their disk.
    waiting: Vec<bool>,
    left: usize,
}

/// How all events spread so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Spread {
    open: BTreeMap<(Log, u64), Track>,
    /// From being said to being on every disk, one an event.
    pub(super) times: Vec<Duration>,
    pub(super) hops: Hops,
    /// First arrivals because somebody asked, here or on the way.
    pub(super) repaired: u64,
    /// Events whose server died before it came to another one: nobody waits for them.
    pub(super) alone: u64,
}

impl Spread {
    /// A server says something; these are up.
    pub(super) fn said(&mut self, now: Time, origin: usize, event: (Log, u64), up: Vec<bool>) {
        let left = up.iter().filter(|up| **up).count();
        let mut reached = vec![false; up.len()];
        reached[origin] = true;
        let track = Track { said: now, origin, reached, stored: false, waiting: up, left };
        self.open.insert(event, track);
    }

    /// An event was pushed to a server, by one that got it over so many links; nobody counts the links
    /// of one that was asked for on its way.
    pub(super) fn pushed(&mut self, to: usize, event: (Log, u64), hops: u8) {
        if hops == u8::MAX {
            self.repaired(to, event);
        } else if self.is_first(to, event) {
            let hops = u64::from(hops) + 1;
            self.hops.arrivals += 1;
            self.hops.links += hops;
            self.hops.most = self.hops.most.max(hops);
        }
    }

    /// An event came because it was asked for.
    pub(super) fn repaired(&mut self, to: usize, event: (Log, u64)) {
        if self.is_first(to, event) {
            self.repaired += 1;
        }
    }

    fn is_first(&mut self, to: usize, event: (Log, u64)) -> bool {
        let track = self.open.get_mut(&event);
        track.is_some_and(|track| !std::mem::replace(&mut track.reached[to], true))
    }

    /// It is on a server's disk.
    pub(super) fn stored(&mut self, now: Time, on: usize, event: (Log, u64)) {
        let Some(track) = self.open.get_mut(&event) else { return };
        track.stored = true;
        track.left -= usize::from(std::mem::replace(&mut track.waiting[on], false));
        if track.left == 0 {
            self.times.push(now.since(track.said));
            self.open.remove(&event);
        }
    }

    /// A server died: nobody waits for it any more.
    pub(super) fn died(&mut self, now: Time, server: usize) {
        let mut over = Vec::new();
        for (event, track) in &mut self.open {
            let mut others = track.reached.iter().enumerate().filter(|(n, _)| *n != track.origin);
            if track.origin == server && others.all(|(_, reached)| !reached) {
                self.alone += 1;
                over.push(*event);
                continue;
            }
            track.left -= usize::from(std::mem::replace(&mut track.waiting[server], false));
            if track.left == 0 {
                self.times.push(now.since(track.said));
                over.push(*event);
            }
        }
        over.iter().for_each(|event| drop(self.open.remove(event)));
    }

    /// An event that is on a disk and that somebody lacks.
    pub(super) fn missing(&self) -> Option<String> {
        let (event, track) = self.open.iter().find(|(_, track)| track.stored)?;
        Some(format!("event {} of {} is missing on {} servers", event.1, event.0, track.left))
    }
}
