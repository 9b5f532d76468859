//! The broadcast without its clock: for checkers that explore every order of what can happen.
//!
//! Deadlines and ages would make each moment a state of its own. Here time stands still, a timer
//! that is armed may fire whenever the checker likes ([`Broadcast::expire`]), and after each step
//! [`Broadcast::forget_time`] takes out of the state what only tells moments, counts and random
//! numbers apart. So all speeds of all clocks are covered at once; what is lost is how *long*
//! things take, and that limits by the second (one prune a second, say) hold anything back.

use crate::id::{LinkId, Log, PersistToken};
use crate::rng::Rng;
use crate::time::{Now, Time};

use super::{Broadcast, Counts, Link};

/// Later than every moment.
const LATER: Time = Time::from_micros(u64::MAX);

/// A timer that is armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// Something of this log is missing, or was asked for.
    Repair(Log),
    /// This link is to be told what is durable.
    Announce(LinkId),
    /// This link is to be asked whether it holds the same.
    Digest(LinkId),
}

impl Broadcast {
    /// The timers that are armed.
    pub fn timers(&self) -> Vec<Timer> {
        let repairs = self.waiting.iter().copied().map(Timer::Repair);
        let waits = |link: &Link| link.announce_at.or(link.ack_at).is_some();
        let telling = self.links.iter().filter(|(_, link)| waits(link));
        let announces = telling.map(|(id, _)| Timer::Announce(*id));
        let digests = self.links.keys().copied().map(Timer::Digest);
        repairs.chain(announces).chain(digests).collect()
    }

    /// Makes one timer due; the next [`Broadcast::handle_timeout`] and flush fire it.
    pub fn expire(&mut self, now: Now, timer: Timer) {
        match timer {
            Timer::Repair(log) => {
                if let Some(state) = self.logs.get_mut(&log) {
                    state.repair.set_deadlines(now.time);
                }
            }
            Timer::Announce(link) => {
                if let Some(link) = self.links.get_mut(&link) {
                    link.announce_at = Some(now.time);
                }
            }
            Timer::Digest(link) => {
                self.digest_at = now.time;
                let (links, nth) =
                    (self.links.len() as u64, self.links.keys().position(|id| *id == link));
                let draws = |rng: &Rng| nth == usize::try_from(rng.clone().below(links)).ok();
                self.rng = (0..).map(Rng::new).find(draws).unwrap_or(Rng::new(0));
            }
        }
    }

    /// Sets every deadline to "later", every age to its rank, and what only counts to nothing.
    pub fn forget_time(&mut self) {
        for state in self.logs.values_mut() {
            state.repair.set_deadlines(LATER);
            state.feeding.forget_time();
        }
        for link in self.links.values_mut() {
            link.announce_at = link.announce_at.map(|_| LATER);
            link.ack_at = link.ack_at.map(|_| LATER);
            link.ride_from = Time::from_micros(0);
        }
        self.digest_at = LATER;
        self.saving_since = Time::default();
        self.rng = Rng::new(0);
        self.counts = Counts::default();
        if self.reads.is_empty() {
            self.last_read = 0;
        }
        self.last_persist = 0;
        if let Some((token, ..)) = &mut self.saving {
            self.last_persist = 1;
            *token = PersistToken(1);
        }
    }

    /// Whether a link is pushed a log, as far as it depends on what its other end asked for.
    pub fn pushes(&self, link: LinkId, log: Log) -> bool {
        self.logs.get(&log).is_some_and(|state| !state.feeding.is_muted(link))
    }

    /// Whether a link was told not to push a log.
    pub fn is_pruned(&self, link: LinkId, log: Log) -> bool {
        self.logs.get(&log).is_some_and(|state| state.feeding.is_pruned(link))
    }

    /// Whether a link is taken not to push a log: it was told, or the plan says so.
    pub fn declines(&self, link: LinkId, log: Log) -> bool {
        self.logs.get(&log).is_some_and(|state| state.feeding.is_silent(link))
    }
}
