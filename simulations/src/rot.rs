//! Bits that flip on a virtual disk: what is there is not what was written, and nobody is told.
//!
//! The database has a checksum over all that it reads, so whatever else touches what flipped is
//! refused. A scrub is shown it as it is now: bits may as well have flipped before the checksum was
//! made, and then only the chain knows.

use std::collections::BTreeSet;

use chatty_core::event::{Event, Identity};
use chatty_core::id::{EventId, Log, RoomId, Slot};
use chatty_core::register::{Register, RegisterKey};
use chatty_core::rng::Rng;
use chatty_core::store::{
    Batch, Committed, Entry, Query, Rows, SlotHolder, Sum, View, answer, plan,
};
use chatty_core::time::Key;

use crate::disk::Disk;

/// Events that flip at once, at most.
const FLIPS_MAX: u64 = 3;

/// Which events of a disk are not what was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rot(BTreeSet<EventId>);

impl Rot {
    /// Whether all is as it was written.
    pub(crate) fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all that flipped in the other has flipped here.
    pub(crate) fn holds(&self, other: &Self) -> bool {
        self.0.is_superset(&other.0)
    }

    /// How many events of a log come before the first that flipped.
    pub(crate) fn sound(&self, log: Log) -> usize {
        let first = self.0.range(EventId { log, seq: 0 }..).next().filter(|id| id.log == log);
        first.map_or(usize::MAX, |id| usize::try_from(id.seq - 1).unwrap_or(usize::MAX))
    }

    fn has(&self, entry: &Entry) -> bool {
        self.0.contains(&entry.event.id(entry.log))
    }
}

impl Disk {
    /// Bits of some events flip; false if there are none.
    pub(crate) fn flip(&mut self, rng: &mut Rng) -> bool {
        let ids = |(log, held): (&Log, &Vec<Entry>)| {
            let log = *log;
            (1..=held.len() as u64).map(move |seq| EventId { log, seq })
        };
        let all: Vec<EventId> = self.logs().iter().flat_map(ids).collect();
        if all.is_empty() {
            return false;
        }
        for _ in 0..1 + rng.below(FLIPS_MAX) {
            self.rot.0.insert(all[rng.below(all.len() as u64) as usize]);
        }
        true
    }

    /// Answers a query, as a database does.
    ///
    /// # Errors
    /// It finds that something is not what was written.
    pub(crate) fn try_read(&self, query: &Query) -> Result<Rows, String> {
        if self.rot.is_none() {
            return Ok(self.read(query));
        }
        let scrubs = matches!(query, Query::Scrub { .. });
        answer(
            &Rotten { disk: self, reads: if scrubs { Reads::Flipped } else { Reads::Sound } },
            query,
        )
    }

    /// Writes a batch, synced.
    ///
    /// # Errors
    /// It had to read something that is not what was written; nothing is written.
    pub(crate) fn try_commit(&mut self, batch: &Batch) -> Result<Committed, String> {
        if !self.rot.is_none() {
            plan(&Rotten { disk: self, reads: Reads::Sound }, batch)?;
        }
        Ok(self.commit(batch))
    }
}

/// What is read of what flipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    /// Nothing: that is an error.
    Sound,
    /// What is there now.
    Flipped,
}

/// A disk of which something flipped.
struct Rotten<'a> {
    disk: &'a Disk,
    reads: Reads,
}

/// An event with a bit that is not as it was.
fn flipped(event: &Event) -> Event {
    let mut event = event.clone();
    match event.body.last_mut() {
        Some(last) => *last ^= 1 << (event.seq % 8),
        None => event.wall_ms ^= 1 << (event.seq % 8),
    }
    event
}

fn sound<T>(read: Result<T, std::convert::Infallible>) -> Result<T, String> {
    let Ok(read) = read;
    Ok(read)
}

impl View for Rotten<'_> {
    type Error = String;

    fn events(&self, log: Log, from: u64, to: u64, most: usize) -> Result<Vec<Entry>, String> {
        let mut entries = sound(View::events(self.disk, log, from, to, most))?;
        for entry in entries.iter_mut().filter(|entry| self.disk.rot.has(entry)) {
            match self.reads {
                Reads::Sound => {
                    return Err(format!("the checksum of {log} {} is wrong", entry.event.seq));
                }
                Reads::Flipped => entry.event = flipped(&entry.event).into(),
            }
        }
        Ok(entries)
    }

    fn places(&self, room: RoomId, below: Key, limit: usize) -> Result<Vec<Key>, String> {
        sound(self.disk.places(room, below, limit))
    }

    fn places_above(&self, room: RoomId, above: Key, limit: usize) -> Result<Vec<Key>, String> {
        sound(self.disk.places_above(room, above, limit))
    }

    fn keys(&self, identity: &Identity) -> Result<Vec<Key>, String> {
        sound(self.disk.keys(identity))
    }

    fn identities(
        &self,
        after: Option<&Identity>,
        upto_ms: u64,
        limit: usize,
    ) -> Result<Vec<(Identity, Vec<Key>)>, String> {
        sound(self.disk.identities(after, upto_ms, limit))
    }

    fn register(&self, key: &RegisterKey) -> Result<Option<Register>, String> {
        sound(View::register(self.disk, key))
    }

    fn lost(&self, after: Option<Key>, limit: usize) -> Result<Vec<(Key, RegisterKey)>, String> {
        sound(View::lost(self.disk, after, limit))
    }

    fn sum(&self, room: RoomId) -> Result<Sum, String> {
        sound(self.disk.sum(room))
    }

    fn slot(&self, slot: &Slot) -> Result<Option<SlotHolder>, String> {
        sound(View::slot(self.disk, slot))
    }
}
