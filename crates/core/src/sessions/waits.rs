//! Who waits for a message to be safe.
//!
//! One wait for each session and message: a repeat takes the place of the request before it, so
//! that what waits is bounded by messages and not by how often they are asked about.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{EventId, Log, Mid, RequestId, RoomId, SessionId};
use crate::session::Level;
use crate::time::{Key, Time};

/// Waits for more than the local disk, at most; full: sends are refused as busy.
const WAITING_MAX: usize = 1 << 18;

/// A session that waits for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Waiter {
    pub(super) session: SessionId,
    pub(super) request: RequestId,
    pub(super) mid: Mid,
    pub(super) room: RoomId,
    pub(super) key: Key,
    /// The level to answer at; `None` once answered as stored.
    pub(super) answer_at: Option<Level>,
    /// Whether its time to wait for more than the local disk is over…
    pub(super) late: bool,
    /// … which it is at this time.
    pub(super) deadline: Time,
}

/// All waits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Waits {
    logs: BTreeMap<Log, LogWaits>,
    count: usize,
    /// Of those that are not late.
    deadlines: BTreeSet<(Time, EventId, SessionId)>,
    of: BTreeMap<SessionId, BTreeSet<EventId>>,
}

/// The waits for one log's events.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
struct LogWaits {
    waiting: BTreeMap<u64, BTreeMap<SessionId, Waiter>>,
    /// Up to here, those who wait for the local disk alone were answered.
    stored: u64,
}

impl Waits {
    pub(super) const fn is_full(&self) -> bool {
        self.count >= WAITING_MAX
    }

    #[cfg(test)]
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    pub(super) fn wait(&mut self, event: EventId, waiter: Waiter) {
        let log = self.logs.entry(event.log).or_default();
        let waiters = log.waiting.entry(event.seq).or_default();
        match waiters.insert(waiter.session, waiter) {
            Some(before) => {
                self.deadlines.remove(&(before.deadline, event, waiter.session));
            }
            None => {
                self.count += 1;
                self.of.entry(waiter.session).or_default().insert(event);
            }
        }
        self.deadlines.insert((waiter.deadline, event, waiter.session));
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|(at, ..)| *at)
    }

    /// Whether a session waits.
    pub(super) fn has(&self, session: SessionId) -> bool {
        self.of.contains_key(&session)
    }

    /// Logs with waits.
    pub(super) fn logs(&self) -> Vec<Log> {
        self.logs.keys().copied().collect()
    }

    /// Ends the waits for events of a log up to `upto`.
    pub(super) fn replicated(&mut self, log: Log, upto: u64) -> Vec<(u64, Vec<Waiter>)> {
        let Some(waits) = self.logs.get_mut(&log) else { return Vec::new() };
        let rest = waits.waiting.split_off(&upto.saturating_add(1));
        let safe = std::mem::replace(&mut waits.waiting, rest);
        if waits.waiting.is_empty() {
            self.logs.remove(&log);
        }
        let mut ended = Vec::with_capacity(safe.len());
        for (seq, waiters) in safe {
            let waiters: Vec<Waiter> = waiters.into_values().collect();
            for waiter in &waiters {
                self.ended(EventId { log, seq }, waiter);
            }
            ended.push((seq, waiters));
        }
        ended
    }

    /// Keeps the books of a wait that is taken out.
    fn ended(&mut self, event: EventId, waiter: &Waiter) {
        self.count -= 1;
        self.deadlines.remove(&(waiter.deadline, event, waiter.session));
        if let Some(events) = self.of.get_mut(&waiter.session) {
            events.remove(&event);
            if events.is_empty() {
                self.of.remove(&waiter.session);
            }
        }
    }

    /// Events waited for that the local disk got since the last call, if it has `durable` of them.
    pub(super) fn stored(&mut self, log: Log, durable: u64) -> Vec<u64> {
        let Some(waits) = self.logs.get_mut(&log) else { return Vec::new() };
        let from = std::mem::replace(&mut waits.stored, durable).saturating_add(1);
        let fresh = waits.waiting.range(from..).map(|(seq, _)| *seq);
        fresh.take_while(|seq| *seq <= durable).collect()
    }

    /// Those to whom it can be said now that an event is on the local disk and no more.
    pub(super) fn content_with_stored(&mut self, event: EventId) -> Vec<Waiter> {
        let waits = self.logs.get_mut(&event.log);
        let waiters = waits.and_then(|waits| waits.waiting.get_mut(&event.seq));
        let mut answers = Vec::new();
        for waiter in waiters.into_iter().flat_map(BTreeMap::values_mut) {
            if waiter.late || waiter.answer_at == Some(Level::Stored) {
                if waiter.answer_at.is_some() {
                    answers.push(*waiter);
                }
                waiter.answer_at = None;
            }
        }
        answers
    }

    /// Messages whose time to answer is over: their senders have to do with less.
    pub(super) fn expire(&mut self, now: Time) -> BTreeSet<EventId> {
        let mut over = BTreeSet::new();
        while let Some((at, event, session)) = self.deadlines.first().copied() {
            if at > now {
                break;
            }
            self.deadlines.pop_first();
            let waits = self.logs.get_mut(&event.log);
            let waiters = waits.and_then(|waits| waits.waiting.get_mut(&event.seq));
            if let Some(waiter) = waiters.and_then(|waiters| waiters.get_mut(&session)) {
                waiter.late = true;
            }
            over.insert(event);
        }
        over
    }

    /// Forgets the waits of a session that is gone.
    pub(super) fn forget(&mut self, session: SessionId) {
        for event in self.of.remove(&session).unwrap_or_default() {
            let Some(waits) = self.logs.get_mut(&event.log) else { continue };
            let Some(waiters) = waits.waiting.get_mut(&event.seq) else { continue };
            let waiter = waiters.remove(&session);
            if waiters.is_empty() {
                waits.waiting.remove(&event.seq);
            }
            if waits.waiting.is_empty() {
                self.logs.remove(&event.log);
            }
            if let Some(waiter) = waiter {
                self.ended(event, &waiter);
            }
        }
    }

    pub(super) fn assert_invariants(&self) {
        let each = self.logs.values().flat_map(|log| log.waiting.values());
        assert_eq!(each.map(BTreeMap::len).sum::<usize>(), self.count, "waits are counted");
        let known = self.of.values().map(BTreeSet::len).sum::<usize>();
        assert_eq!(known, self.count, "each session's waits are known");
        assert!(self.deadlines.len() <= self.count, "deadlines of waits alone");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Origin;

    const LOG: Log = Log::of(Origin::new(1));

    const fn event(seq: u64) -> EventId {
        EventId { log: LOG, seq }
    }

    fn waiter(session: u64, seq: u64, level: Level, deadline: u64) -> Waiter {
        Waiter {
            session: SessionId(session),
            request: RequestId(seq),
            mid: Mid::new(seq.into()),
            room: RoomId::new(1),
            key: Key { seq, ..Key::MIN },
            answer_at: Some(level),
            late: false,
            deadline: Time::from_micros(deadline),
        }
    }

    fn answered(waiters: &[Waiter]) -> Vec<(u64, u64)> {
        waiters.iter().map(|waiter| (waiter.session.0, waiter.request.0)).collect()
    }

    #[test]
    fn waits_end_with_a_majority_and_are_counted_till_then() {
        let mut waits = Waits::default();
        for (session, seq) in [(1, 1), (2, 1), (1, 3)] {
            waits.wait(event(seq), waiter(session, seq, Level::Replicated, 10 * seq));
        }
        waits.wait(event(1), waiter(1, 1, Level::Replicated, 7));
        waits.assert_invariants();
        assert_eq!((waits.count(), waits.next_deadline()), (3, Some(Time::from_micros(7))));
        assert_eq!(waits.logs(), [LOG]);
        assert_eq!(waits.replicated(LOG, 0), []);
        let ended = waits.replicated(LOG, 2);
        assert_eq!(ended.iter().map(|(seq, all)| (*seq, all.len())).collect::<Vec<_>>(), [(1, 2)]);
        waits.assert_invariants();
        assert_eq!((waits.count(), waits.next_deadline()), (1, Some(Time::from_micros(30))));
        waits.replicated(LOG, 3);
        assert_eq!((waits.count(), waits.next_deadline(), waits.logs()), (0, None, vec![]));
        assert_eq!(waits, Waits::default(), "nothing stays");
    }

    #[test]
    fn the_local_disk_is_enough_for_who_asked_no_more_or_waited_too_long() {
        let mut waits = Waits::default();
        waits.wait(event(1), waiter(1, 1, Level::Stored, 10));
        waits.wait(event(1), waiter(2, 1, Level::Replicated, 20));
        waits.wait(event(2), waiter(1, 2, Level::Stored, 30));
        assert_eq!(waits.stored(LOG, 1), [1]);
        assert_eq!(answered(&waits.content_with_stored(event(1))), [(1, 1)]);
        assert_eq!(waits.content_with_stored(event(1)), [], "once");
        assert_eq!(waits.stored(LOG, 1), [] as [u64; 0]);
        assert_eq!(waits.stored(LOG, 9), [2]);
        assert_eq!(waits.expire(Time::from_micros(19)), [event(1)].into());
        assert_eq!(waits.content_with_stored(event(1)), [], "that was the other one's time");
        assert_eq!(waits.expire(Time::from_micros(20)), [event(1)].into());
        assert_eq!(answered(&waits.content_with_stored(event(1))), [(2, 1)]);
        waits.assert_invariants();
        assert_eq!(waits.count(), 3, "all wait for the majority still");
    }

    #[test]
    fn a_session_that_is_gone_waits_for_nothing() {
        let mut waits = Waits::default();
        waits.wait(event(1), waiter(1, 1, Level::Stored, 10));
        waits.wait(event(1), waiter(2, 1, Level::Stored, 10));
        waits.wait(event(2), waiter(1, 2, Level::Stored, 10));
        waits.forget(SessionId(1));
        waits.assert_invariants();
        assert_eq!((waits.count(), waits.deadlines.len()), (1, 1));
        waits.forget(SessionId(2));
        assert_eq!(waits, Waits::default());
    }

    #[test]
    #[should_panic(expected = "waits are counted")]
    fn a_wait_that_is_not_counted_breaks_a_rule() {
        let mut waits = Waits::default();
        waits.wait(event(1), waiter(1, 1, Level::Stored, 10));
        waits.count = 0;
        waits.assert_invariants();
    }

    #[test]
    fn so_much_may_wait_and_no_more() {
        let waits = |count| Waits { count, ..Waits::default() };
        assert!(!waits(WAITING_MAX - 1).is_full());
        assert!(waits(WAITING_MAX).is_full());
    }
}
