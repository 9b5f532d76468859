//! The broadcast without its clock: for checkers that explore every order of what can happen.
//!
//! Deadlines and ages would make each moment a state of its own. Here time stands still, a timer
//! that is armed may fire whenever the checker likes ([`Broadcast::expire`]), and after each step
//! [`Broadcast::forget_time`] takes out of the state what only tells moments, counts and random
//! numbers apart. So all speeds of all clocks are covered at once; what is lost is how *long*
//! things take, and that limits by the second (one prune a second, say) hold anything back.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::Start;
use crate::frame::Frame;
use crate::id::{LinkId, Log, PersistToken};
use crate::rng::Rng;
use crate::time::{Now, Time};

use super::{Broadcast, Counts, Link, LogState};

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

/// Whether a server may start again, and read what its disk says of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restarts {
    /// It may.
    Maybe,
    /// It goes on for ever.
    Never,
}

/// How little a frame still tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// What is on its sender's disk, and nothing else.
    ButCounted,
    /// Nothing.
    Wholly,
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

    /// Takes out of the state what no later step of a cluster depends on, each with its reason:
    ///
    /// - what a link holds that is held here, too: it is asked for nothing of that, and pushed
    ///   nothing of it again
    /// - which links push a log, where as many may as there are servers: none is ever one too many
    ///   (a link that is gone is left there, and would be seen)
    /// - in which order other disks were counted since the last batch: their row is written once
    /// - what was counted in the next batches, for a server that never starts again: only a start
    ///   reads it
    ///
    /// Call it after [`Self::forget_time`].
    pub fn forget_spent(&mut self, restarts: Restarts) {
        for link in self.links.values_mut() {
            let held = |log: &Log| self.logs.get(log).map_or(0, LogState::held);
            link.has.retain(|log, upto| *upto > held(log));
        }
        if self.has_feeds_for_all() {
            for state in self.logs.values_mut() {
                state.feeding.forget_feeds(&self.links);
            }
        }
        let saving = self.saving.as_mut().filter(|(_, batch, _)| !batch.disks.is_empty());
        let saving = saving.map(|(_, batch, _)| Arc::make_mut(batch));
        for batch in saving.into_iter().chain([&mut self.unsaved]) {
            match restarts {
                Restarts::Never => batch.disks.clear(),
                Restarts::Maybe => {
                    let newest: BTreeMap<_, _> =
                        batch.disks.iter().map(|(s, l, u)| ((*s, *l), *u)).collect();
                    batch.disks = newest.into_iter().map(|((s, l), u)| (s, l, u)).collect();
                }
            }
        }
    }

    /// The last event of each log that waits here for its predecessors.
    pub fn buffered(&self) -> impl Iterator<Item = (Log, u64)> {
        let last = |state: &LogState| state.buffer.last_key_value().map(|(seq, _)| *seq);
        self.logs.iter().filter_map(move |(log, state)| Some((*log, last(state)?)))
    }

    /// What the next announcement tells a link: of each log so many events.
    pub fn untold(&self, link: LinkId) -> impl Iterator<Item = (Log, u64)> {
        let logs = self.links.get(&link).into_iter().flat_map(|link| &link.unannounced);
        logs.map(|log| (*log, self.durable.upto(*log)))
    }

    /// Whether a log is known and so many events of it are here.
    pub fn holds(&self, log: Log, upto: u64) -> bool {
        self.logs.get(&log).is_some_and(|state| upto <= state.held())
    }

    /// Whether no server can have more links than it wants to be pushed a log by, so that it does not
    /// matter who pushes, nor over how many hops.
    pub fn has_feeds_for_all(&self) -> bool {
        self.start == Start::Flooded && self.ring.len() <= self.feeds.max().saturating_add(1)
    }

    /// Whether all that this frame could tell is known and has come already, and will be whenever it
    /// comes, and whatever comes before it: taking it changes nothing but what is counted for its
    /// sender's disk.
    pub fn is_spent(&self, link: LinkId, frame: &Frame) -> Option<Spent> {
        match frame {
            Frame::Events(events) if self.has_feeds_for_all() => {
                let last = events.base + events.events.len() as u64 - 1;
                self.holds(events.log, last).then_some(Spent::Wholly)
            }
            Frame::Have(haves) | Frame::Vector(haves) => {
                if !haves.haves.iter().all(|have| self.holds(have.log, have.upto)) {
                    return None;
                }
                let disk = self.links.get(&link).and_then(|l| self.disks.get(&l.peer.server));
                let counted = |log| disk.and_then(|disk| disk.get(&log)).copied().unwrap_or(0);
                let known = haves.haves.iter().all(|have| have.upto <= counted(have.log));
                let news = !known || matches!(frame, Frame::Vector(_));
                Some(if news { Spent::ButCounted } else { Spent::Wholly })
            }
            _ => None,
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
