//! The newest lines and message identities, in memory and bounded.
//!
//! Both say exactly what they can answer: a cursor or a message id from before what is kept goes
//! to the disk, never to a guess.

use std::collections::{BTreeMap, VecDeque};

use crate::event::Identity;
use crate::id::{AccountId, Mid, RoomId};
use crate::session::Line;
use crate::time::Key;
use crate::vector::Vector;

/// To whom a line is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Audience {
    /// To those who have its room open.
    Room,
    /// To two accounts.
    Direct(AccountId, AccountId),
}

/// A line that was shown.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kept {
    pub(super) line: Line,
    pub(super) audience: Audience,
    /// Where it stood before, if it moved.
    pub(super) from: Option<Key>,
    /// Other keys under which a client may have seen it.
    aliases: Vec<Key>,
}

impl Kept {
    /// Whether a client with this cursor was told the message.
    pub(super) fn is_covered(&self, cursor: &Vector) -> bool {
        let own = [self.line.key()];
        let keys = own.iter().chain(&self.from).chain(&self.aliases);
        keys.into_iter().any(|key| cursor.covers(key.event()))
    }
}

/// The newest lines in the order in which this server showed them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Recent {
    lines: VecDeque<Kept>,
    /// How many were dropped before the first.
    base: u64,
    max: usize,
    /// Everything that a cursor must cover for the lines kept to be all it misses.
    floor: Vector,
}

impl Recent {
    pub(super) const fn new(max: usize, durable: Vector) -> Self {
        Self { lines: VecDeque::new(), base: 0, max, floor: durable }
    }

    pub(super) fn push(&mut self, line: Line, audience: Audience, from: Option<Key>) {
        self.lines.push_back(Kept { line, audience, from, aliases: Vec::new() });
        if self.lines.len() > self.max
            && let Some(dropped) = self.lines.pop_front()
        {
            self.base += 1;
            let event = dropped.line.key().event();
            self.floor.raise(event.log, event.seq);
        }
    }

    /// A message came once more, under a larger key. Looks at the newest lines first: a sender
    /// repeats what it said a moment ago.
    pub(super) fn alias(&mut self, of: Key, alias: Key) {
        if let Some(kept) = self.lines.iter_mut().rev().find(|kept| kept.line.key() == of) {
            kept.aliases.push(alias);
        }
    }

    /// The place after the newest line.
    pub(super) fn end(&self) -> u64 {
        self.base + self.lines.len() as u64
    }

    /// Lines from a place on; `None` if some of them were dropped.
    pub(super) fn from(&self, place: u64) -> Option<impl Iterator<Item = &Kept>> {
        let skip = usize::try_from(place.checked_sub(self.base)?).ok()?;
        Some(self.lines.iter().skip(skip))
    }

    /// The place from which lines are all that a cursor misses, if they are all kept.
    pub(super) fn since(&self, cursor: &Vector) -> Option<u64> {
        cursor.covers_all(&self.floor).then_some(self.base)
    }

    pub(super) fn assert_invariants(&self) {
        assert!(self.lines.len() <= self.max, "recent lines over their bound");
    }
}

/// An identity by its message id first: that begins with the time, so what is new lies together.
type ByMid = (Mid, AccountId, RoomId);

const fn by_mid(identity: &Identity) -> ByMid {
    (identity.mid, identity.account, identity.room)
}

/// The newest message identities: exact for every message id from `floor_ms` on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RecentMids {
    known: BTreeMap<ByMid, Known>,
    order: VecDeque<Identity>,
    max: usize,
    floor_ms: u64,
}

/// What is known of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Known {
    pub(super) key: Key,
    /// Over its content.
    pub(super) content: u64,
}

/// What memory can say of a message identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recall {
    Known(Known),
    New,
    /// Only the disk knows.
    TooOld,
}

impl RecentMids {
    pub(super) const fn new(max: usize, floor_ms: u64) -> Self {
        Self { known: BTreeMap::new(), order: VecDeque::new(), max, floor_ms }
    }

    pub(super) fn recall(&self, identity: &Identity) -> Recall {
        match self.known.get(&by_mid(identity)) {
            Some(known) => Recall::Known(*known),
            None if identity.mid.unix_ms() >= self.floor_ms => Recall::New,
            None => Recall::TooOld,
        }
    }

    /// A message is there; of several the smallest key counts.
    pub(super) fn note(&mut self, identity: Identity, known: Known) {
        if let Some(held) = self.known.get_mut(&by_mid(&identity)) {
            if known.key < held.key {
                *held = known;
            }
            return;
        }
        self.known.insert(by_mid(&identity), known);
        self.order.push_back(identity);
        if self.order.len() > self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&by_mid(&oldest));
            self.floor_ms = self.floor_ms.max(oldest.mid.unix_ms().saturating_add(1));
        }
    }

    pub(super) fn assert_invariants(&self) {
        assert!(self.known.len() <= self.max, "recent message ids over their bound");
        assert_eq!(self.known.len(), self.order.len(), "each is known once");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::Event;
    use crate::id::{Log, Origin};
    use crate::time::Hlc;

    const LOG: Log = Log::of(Origin::new(1));

    fn line(seq: u64) -> Line {
        let event = Event {
            seq,
            hlc: Hlc::from_bits(seq),
            wall_ms: 0,
            room: RoomId::new(1),
            actor: AccountId::new(1),
            mid: Mid::new(seq.into()),
            kind: 2,
            body: Vec::new(),
        };
        Line { origin: LOG.origin, event: Arc::new(event) }
    }

    fn vector(upto: u64) -> Vector {
        [(LOG, upto)].into_iter().collect()
    }

    fn seqs(recent: &Recent, place: u64) -> Option<Vec<u64>> {
        recent.from(place).map(|lines| lines.map(|kept| kept.line.event.seq).collect())
    }

    #[test]
    fn the_newest_lines_are_kept_and_a_place_says_whether_all_after_it_are() {
        let mut recent = Recent::new(3, vector(10));
        assert_eq!((recent.end(), seqs(&recent, 0)), (0, Some(vec![])));
        for seq in 11..=13 {
            recent.push(line(seq), Audience::Room, None);
        }
        recent.assert_invariants();
        assert_eq!((seqs(&recent, 0), seqs(&recent, 2)), (Some(vec![11, 12, 13]), Some(vec![13])));
        // Who has seen all that was there before misses at most these.
        assert_eq!((recent.since(&vector(10)), recent.since(&vector(9))), (Some(0), None));
        recent.push(line(14), Audience::Room, None);
        recent.push(line(15), Audience::Room, None);
        assert_eq!((recent.end(), seqs(&recent, 1)), (5, None), "some after it are gone");
        assert_eq!(seqs(&recent, 2), Some(vec![13, 14, 15]));
        assert_eq!((recent.since(&vector(12)), recent.since(&vector(11))), (Some(2), None));
    }

    #[test]
    fn a_line_is_covered_under_any_key_it_had() {
        let mut recent = Recent::new(3, Vector::new());
        let key = |origin: u128, seq| Key { origin: Origin::new(origin), ..line(seq).key() };
        recent.push(line(5), Audience::Room, Some(key(2, 9)));
        recent.push(line(6), Audience::Room, None);
        recent.alias(line(5).key(), key(3, 7));
        let of = |origin, upto| [(Log::of(Origin::new(origin)), upto)].into_iter().collect();
        let covered = |cursor: &Vector| -> Vec<bool> {
            recent.from(0).into_iter().flatten().map(|kept| kept.is_covered(cursor)).collect()
        };
        assert_eq!(covered(&of(1, 4)), [false, false]);
        assert_eq!(covered(&of(1, 5)), [true, false]);
        assert_eq!(covered(&of(2, 9)), [true, false], "where it stood before");
        assert_eq!(covered(&of(3, 6)), [false, false]);
        assert_eq!(covered(&of(3, 7)), [true, false], "another key");
    }

    #[test]
    #[should_panic(expected = "recent lines over their bound")]
    fn more_lines_than_are_kept_break_a_rule() {
        let mut recent = Recent::new(1, Vector::new());
        recent.push(line(1), Audience::Room, None);
        recent.max = 0;
        recent.assert_invariants();
    }

    #[test]
    fn the_newest_messages_are_known_and_older_ones_left_to_the_disk() {
        let mut mids = RecentMids::new(2, 100);
        let of = |ms: u64| Identity {
            room: RoomId::new(1),
            account: AccountId::new(1),
            mid: Mid::at(ms, 1),
        };
        let known = |seq| Known { key: line(seq).key(), content: seq };
        assert_eq!((mids.recall(&of(99)), mids.recall(&of(100))), (Recall::TooOld, Recall::New));
        mids.note(of(200), known(5));
        mids.note(of(200), known(9));
        assert_eq!(mids.recall(&of(200)), Recall::Known(known(5)), "the smallest key counts");
        mids.note(of(200), known(3));
        assert_eq!(mids.recall(&of(200)), Recall::Known(known(3)));
        mids.note(of(300), known(6));
        assert_eq!(mids.recall(&of(150)), Recall::New);
        mids.note(of(250), known(7));
        assert_eq!((mids.recall(&of(200)), mids.recall(&of(201))), (Recall::TooOld, Recall::New));
        assert_eq!(mids.recall(&of(300)), Recall::Known(known(6)));
        mids.assert_invariants();
    }

    #[test]
    #[should_panic(expected = "each is known once")]
    fn a_message_that_is_known_twice_breaks_a_rule() {
        let mut mids = RecentMids::new(2, 0);
        let identity =
            Identity { room: RoomId::new(1), account: AccountId::new(1), mid: Mid::new(1) };
        mids.note(identity, Known { key: line(1).key(), content: 0 });
        mids.order.push_back(identity);
        mids.assert_invariants();
    }
}
