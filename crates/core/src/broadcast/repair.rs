//! What is missing, and asking for it: never give up, never forget.
//!
//! Announced events that no push brought within `ihave_timeout`, and holes before pushed ones after
//! `gap_delay`, are asked for with `Want`, one request a log at a time. An unanswered request goes
//! to another link after the round trip of the one that was asked and 100 ms more, doubling to 2 s, for
//! as long as any live link claims the events.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Broadcast, Frame, LogState, Now, Push, Time};
use crate::bugs::bug;
use crate::frame::{Digest, HAVES_MAX, Have, Want};
use crate::id::{LinkId, Log, SEQ_MAX};

/// A server so near to the end of a log can be pushed to again after its queue was dropped.
const NEAR_EVENTS: u64 = 1000;

/// What is known to be missing of one log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Repair {
    /// When to ask for an announced event, and its number.
    announced: Option<(Time, u64)>,
    /// When to ask for a hole.
    hole: Option<(Time, LinkId)>,
    /// What was asked of whom, until when that counts.
    asked: Option<Asked>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Asked {
    link: LinkId,
    until: Time,
    backoff: Duration,
}

/// What a `Range` was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// More of it follows.
    Piece,
    /// The last of a window.
    Done,
    /// Nothing: it cannot serve what it claimed.
    Nothing,
}

/// Whether a peer told what grew, or all it holds (then it is the truth, also where it is less).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Growth,
    Whole,
}

impl Repair {
    /// All that is armed is due then; how long was waited before is forgotten.
    pub(super) fn set_deadlines(&mut self, then: Time) {
        self.announced = self.announced.map(|(_, target)| (then, target));
        self.hole = self.hole.map(|(_, link)| (then, link));
        self.asked = self.asked.map(|asked| Asked {
            until: then,
            backoff: Duration::from_micros(1),
            ..asked
        });
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        // While an answer is awaited, the other reasons wait for it too.
        match self.asked {
            Some(asked) => Some(asked.until),
            None => {
                let announced = self.announced.map(|(at, _)| at);
                let hole = self.hole.map(|(at, _)| at);
                announced.into_iter().chain(hole).min()
            }
        }
    }
}

impl Broadcast {
    /// A peer said what it holds durably.
    pub(super) fn on_haves(
        &mut self,
        now: Now,
        link: LinkId,
        haves: &[Have],
        told: Told,
    ) -> Result<(), String> {
        if haves.len() > HAVES_MAX {
            return Err(format!("more than {HAVES_MAX} prefixes in one frame"));
        }
        if haves.iter().any(|have| have.upto > SEQ_MAX) {
            return Err("a prefix that no log can have".into());
        }
        let Some(from) = self.links.get(&link) else { return Ok(()) };
        let server = from.peer.server;
        for have in haves {
            if !self.ensure_log(have.log) {
                return Err(format!("more than {} logs", super::LOGS_MAX));
            }
            self.link_has(link, have.log, have.upto);
            if told == Told::Growth {
                self.count_disk(server, have.log, have.upto);
            }
            let Some(state) = self.logs.get_mut(&have.log) else { continue };
            if state.chain_at(have.upto).is_some_and(|held| held != have.chain) {
                self.fork(have.log, link);
                continue;
            }
            if have.upto < state.next || state.forked {
                continue;
            }
            if have.log == self.own {
                self.fork(have.log, link);
                continue;
            }
            // What a new link holds is asked for at once; what a live one announces is on its way.
            let delay = match told {
                Told::Growth => self.timing.ihave_timeout,
                Told::Whole => Duration::ZERO,
            };
            let at = now.time + delay;
            match &mut state.repair.announced {
                Some((due, target)) => {
                    *due = (*due).min(at);
                    *target = (*target).max(have.upto);
                }
                none => *none = Some((at, have.upto)),
            }
            self.waiting.insert(have.log);
        }
        if told == Told::Whole {
            self.gather_vector(link, haves);
        }
        Ok(())
    }

    pub(super) fn send_digest(&mut self, link: LinkId) {
        let digest = self.digest();
        if let Some(link) = self.links.get_mut(&link) {
            link.asked = Some((digest.hash, self.durable.clone()));
        }
        self.send_control(link, Frame::Digest(digest));
    }

    pub(super) fn on_digest(&mut self, link: LinkId, hash: u64) {
        let now = self.digest().hash;
        let Some(from) = self.links.get_mut(&link) else { return };
        // Equal hashes say as much as the whole vector: its disk holds what ours does, or did when
        // it was asked.
        let asked = from.asked.take_if(|(asked, _)| *asked == hash).map(|(_, vector)| vector);
        let held = if hash == now { Some(self.durable.clone()) } else { asked };
        let Some(held) = held else {
            self.send_vector(link);
            return;
        };
        held.iter().for_each(|(log, upto)| from.raise_has(log, upto));
        // The other end must hear it too, once, though neither sends its vector.
        let first = !from.told;
        let held: BTreeMap<Log, u64> = held.iter().collect();
        let server = from.peer.server;
        let more = |(log, upto): (&Log, &u64)| held.get(log).is_none_or(|held| held < upto);
        if self.disks.get(&server).is_some_and(|disk| disk.iter().any(more)) {
            // It announced more: the hash may be of a moment before that. Only the vector can accuse
            // it, and another hash brings that.
            self.send_control(link, Frame::Digest(Digest { hash: !hash }));
            return;
        }
        self.recount(link, &held);
        if first {
            self.send_control(link, Frame::Digest(Digest { hash }));
        }
    }

    /// An event came whose predecessor is missing.
    pub(super) fn hole(&mut self, now: Now, link: LinkId, log: Log) {
        let at = now.time + self.timing.gap_delay;
        let Some(state) = self.logs.get_mut(&log) else { return };
        if state.repair.hole.is_none() {
            state.repair.hole = Some((at, link));
        }
        self.waiting.insert(log);
    }

    /// An event was dropped because the disk is behind.
    pub(super) fn missing_later(&mut self, now: Now, log: Log) {
        let at = now.time + self.timing.want_retry_min;
        let Some(state) = self.logs.get_mut(&log) else { return };
        if state.repair.announced.is_none() {
            state.repair.announced = Some((at, state.next));
        }
        self.waiting.insert(log);
    }

    /// Events of the log were applied: what they filled is not missing any more.
    pub(super) fn progressed(&mut self, now: Now, log: Log) {
        let timeout = self.timing.ihave_timeout;
        let most = self.most_held(log);
        let Some(state) = self.logs.get_mut(&log) else { return };
        let next = state.next;
        if state.repair.announced.is_some_and(|(_, target)| target < next) {
            // Newer announcements get a time-out of their own.
            state.repair.announced = (most >= next).then_some((now.time + timeout, most));
        }
        if state.repair.hole.is_some() && state.buffer.is_empty() {
            state.repair.hole = None;
            // What did not fit into the buffer is not in it, and perhaps nobody announces it again.
            if most >= next {
                state.repair.announced.get_or_insert((now.time + timeout, most));
            }
        }
        if let Some(asked) = &mut state.repair.asked {
            asked.backoff = self.timing.want_retry_min;
            if most < next {
                state.repair.asked = None;
            }
        }
        self.note_timers(log);
    }

    fn note_timers(&mut self, log: Log) {
        match self.logs.get(&log).and_then(|state| state.repair.deadline()) {
            Some(_) => self.waiting.insert(log),
            None => self.waiting.remove(&log),
        };
    }

    /// The furthest any live link claims to hold.
    pub(super) fn most_held(&self, log: Log) -> u64 {
        self.links.values().map(|link| link.has(log)).max().unwrap_or(0)
    }

    /// A timer of the log is due: ask for what is missing.
    pub(super) fn repair(&mut self, now: Now, log: Log) {
        let most = self.most_held(log);
        let Some(state) = self.logs.get_mut(&log) else { return };
        let last = state.repair.asked.take();
        state.repair.announced = None;
        let hole = state.repair.hole.take();
        if bug!(TwoWants) && last.is_some_and(|asked| asked.backoff > self.timing.want_retry_min) {
            self.note_timers(log);
            return;
        }
        if most < state.next {
            // Nobody alive claims it: a new link or `Have` will start again.
            self.note_timers(log);
            return;
        }
        let next = state.next;
        let mut able: Vec<LinkId> =
            self.links.iter().filter(|(_, l)| l.has(log) >= next).map(|(id, _)| *id).collect();
        able.sort_by_key(|id| self.rank(*id, log));
        // A hole is asked of the link that showed it; a request that failed goes elsewhere.
        let best = able.first().copied();
        let link = match (last, hole) {
            (Some(asked), _) => able.iter().find(|id| **id != asked.link).copied().or(best),
            (None, Some((_, link))) if able.contains(&link) => Some(link),
            (None, _) => best,
        };
        let backoff = last.map_or(self.timing.want_retry_min, |asked| {
            asked.backoff.saturating_mul(2).min(self.timing.want_retry_max)
        });
        if let Some(link) = link {
            self.ask(now, log, link, backoff);
        }
        self.note_timers(log);
    }

    fn ask(&mut self, now: Now, log: Log, link: LinkId, backoff: Duration) {
        let jitter = Duration::from_micros(
            self.rng.below(u64::try_from(backoff.as_micros()).unwrap_or(u64::MAX) / 4 + 1),
        );
        let Some(to) = self.links.get(&link).map(|l| l.has(log)) else { return };
        let until = now.time + self.round_trip(link) + backoff + jitter;
        let Some(state) = self.logs.get_mut(&log) else { return };
        let from = state.next;
        let push = if to.saturating_sub(from) < NEAR_EVENTS {
            state.feeding.unprune(link);
            Push::Start
        } else {
            Push::Unchanged
        };
        state.repair.asked = Some(Asked { link, until, backoff });
        self.counts.wants += 1;
        self.send_control(link, Frame::Want(Want { log, from, to, push }));
        self.waiting.insert(log);
    }

    /// How long an answer of that link is on its way at least: asked of another meanwhile, the same
    /// would come twice. A measure that is out of all reason delays repair no further.
    fn round_trip(&self, link: LinkId) -> Duration {
        let micros = self.links.get(&link).map_or(0, |link| link.rtt_micros);
        Duration::from_micros(micros).min(self.timing.want_retry_max)
    }

    /// A piece of an answer came.
    pub(super) fn on_range_answer(&mut self, now: Now, link: LinkId, log: Log, answer: Answer) {
        let most = self.most_held(log);
        let retry = self.timing.want_retry_min;
        let round_trip = self.round_trip(link);
        let Some(state) = self.logs.get_mut(&log) else { return };
        let next = state.next;
        let Some(asked) = state.repair.asked.filter(|asked| asked.link == link) else { return };
        if answer == Answer::Piece {
            let until = now.time + round_trip + retry.saturating_mul(4);
            state.repair.asked = Some(Asked { until, ..asked });
            return;
        }
        let has = self.links.get(&link).map_or(0, |l| l.has(log));
        let full = self.is_full();
        if has >= next && !full && answer == Answer::Done {
            // It has more: the next window, from the same one.
            self.ask(now, log, link, retry);
        } else if most >= next {
            // Others have more, it gave nothing, or the disk must catch up first.
            if let Some(state) = self.logs.get_mut(&log) {
                state.repair.asked = Some(Asked { until: now.time + retry, ..asked });
            }
        } else if let Some(state) = self.logs.get_mut(&log) {
            state.repair.asked = None;
        }
        self.note_timers(log);
    }

    /// A link is gone: what was asked of it is asked of another.
    pub(super) fn reask(&mut self, now: Now, log: Log, link: LinkId) {
        let Some(state) = self.logs.get_mut(&log) else { return };
        if state.repair.asked.is_some_and(|asked| asked.link == link) {
            state.repair.asked = None;
            self.repair(now, log);
        } else if state.repair.hole.is_some_and(|(_, from)| from == link) {
            state.repair.hole = None;
            self.repair(now, log);
        }
    }

    /// Events that live links hold and that are not on this server's disk.
    pub fn lag(&self) -> u64 {
        self.sum_claimed(|log, upto| self.unsaved_of(log, upto))
    }

    /// Events that live links hold and that have not come here yet.
    pub fn missing(&self) -> u64 {
        self.sum_claimed(|log, upto| self.lacking(log, upto))
    }

    fn sum_claimed(&self, of: impl Fn(Log, u64) -> u64) -> u64 {
        let mut most: BTreeMap<Log, u64> = BTreeMap::new();
        for link in self.links.values() {
            for (log, upto) in &link.has {
                let held = most.entry(*log).or_insert(0);
                *held = (*held).max(*upto);
            }
        }
        most.iter().fold(0, |sum, (log, upto)| sum.saturating_add(of(*log, *upto)))
    }

    /// Events that one link holds and that are not on this server's disk.
    pub fn behind(&self, link: LinkId) -> u64 {
        let has = self.links.get(&link).map(|link| &link.has);
        let lacking = has.into_iter().flatten().map(|(log, upto)| self.unsaved_of(*log, *upto));
        lacking.fold(0, u64::saturating_add)
    }

    pub(super) fn lacking(&self, log: Log, upto: u64) -> u64 {
        self.behind_by(log, upto, LogState::held)
    }

    fn unsaved_of(&self, log: Log, upto: u64) -> u64 {
        self.behind_by(log, upto, |state| state.durable)
    }

    /// What a fork leaves out is not waited for.
    fn behind_by(&self, log: Log, upto: u64, of: impl Fn(&LogState) -> u64) -> u64 {
        let held = self.logs.get(&log).filter(|state| !state.forked);
        held.map_or(0, |state| upto.saturating_sub(of(state)))
    }
}
