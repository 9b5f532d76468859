//! The newest lines and message identities, in memory and bounded.
//!
//! Both say exactly what they can answer: a cursor or a message id from before what is kept goes
//! to the disk, never to a guess.

use std::collections::{BTreeMap, VecDeque};

use crate::event::Identity;
use crate::id::AccountId;
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

/// The newest message identities: exact for every message id from `floor_ms` on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RecentMids {
    known: BTreeMap<Identity, Known>,
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
        match self.known.get(identity) {
            Some(known) => Recall::Known(*known),
            None if identity.mid.unix_ms() >= self.floor_ms => Recall::New,
            None => Recall::TooOld,
        }
    }

    /// A message is there; of several the smallest key counts.
    pub(super) fn note(&mut self, identity: Identity, known: Known) {
        if let Some(held) = self.known.get_mut(&identity) {
            if known.key < held.key {
                *held = known;
            }
            return;
        }
        self.known.insert(identity, known);
        self.order.push_back(identity);
        if self.order.len() > self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
            self.floor_ms = self.floor_ms.max(oldest.mid.unix_ms().saturating_add(1));
        }
    }

    pub(super) fn assert_invariants(&self) {
        assert!(self.known.len() <= self.max, "recent message ids over their bound");
        assert_eq!(self.known.len(), self.order.len(), "each is known once");
    }
}
