//! What the disk holds, what a write does to it, and how reads are answered: pure functions over
//! a [`View`], so that the database and the simulator's disk share every rule.
//!
//! An event and everything derived from it (timeline place, message identity, register, digest)
//! are rows of one atomic, fsynced batch. The alias rule lives here: of all events of one message
//! identity the smallest [`Key`] is the line, the others are aliases that no timeline shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::event::{Event, Identity, first_eight};
use crate::id::{AccountId, Generation, Log, RoomId, ServerId, Slot};
use crate::io::Standing;
use crate::register::{Register, RegisterKey, write_of};
use crate::session::Line;
use crate::time::{Hlc, Key};
use crate::vector::Vector;

/// An event of a log, with the chain at it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Whose.
    pub log: Log,
    /// The event.
    pub event: Arc<Event>,
    /// The chain at the event.
    pub chain: u64,
}

/// What is to be written at once: all of it durable, or none of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Batch {
    /// Events; those of one log in order, without holes, right after what the disk holds.
    pub entries: Vec<Entry>,
    /// What other servers said they hold: (server, log, events).
    pub disks: Vec<(ServerId, Log, u64)>,
    /// New holders of slots: what was counted for the old holder is forgotten.
    pub slots: Vec<SlotHolder>,
    /// How far this disk is to be believed from now on.
    pub standing: Option<Standing>,
}

impl Batch {
    /// Whether there is nothing that must be written soon: what other disks hold can wait.
    pub fn can_wait(&self) -> bool {
        self.entries.is_empty() && self.slots.is_empty() && self.standing.is_none()
    }
}

/// Who holds a slot of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotHolder {
    /// The slot.
    pub slot: Slot,
    /// The disk.
    pub server: ServerId,
    /// Which certificate of the slot.
    pub generation: Generation,
}

/// What a written event turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// No message, or a kind that is not known here.
    NoMessage,
    /// A message that was not there before.
    New,
    /// A message that is there with a smaller key.
    Alias {
        /// Its place.
        of: Key,
    },
    /// A message that was there with a larger key, and moves.
    Moved {
        /// Its place until now.
        from: Key,
    },
}

/// What a written batch did.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Committed {
    /// What each of its events turned out to be, in the batch's order.
    pub outcomes: Vec<Outcome>,
    /// The sums of the rooms it changed.
    pub sums: Vec<(RoomId, Sum)>,
}

/// How many messages a room's timeline has, and a hash over them in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Sum {
    /// Messages.
    pub messages: u64,
    /// The wrapping sum of a hash of each.
    pub digest: u64,
}

impl Sum {
    const fn add(&mut self, line: u64) {
        self.messages = self.messages.wrapping_add(1);
        self.digest = self.digest.wrapping_add(line);
    }

    const fn remove(&mut self, line: u64) {
        self.messages = self.messages.wrapping_sub(1);
        self.digest = self.digest.wrapping_sub(line);
    }
}

/// Keys remembered of one message: its sender repeats it at another server when one fails, and no
/// server takes it twice. Beyond that the smallest count.
const ALIASES_MAX: usize = 16;

/// The hash of one line in a [`Sum`]: its place, its identity and its content.
fn line_hash(key: Key, event: &Event) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&key.hlc.bits().to_be_bytes());
    hasher.update(&key.origin.to_bytes());
    hasher.update(&key.seq.to_be_bytes());
    hasher.update(&event.actor.to_bytes());
    hasher.update(&event.mid.to_bytes());
    hasher.update(&event.kind.to_be_bytes());
    hasher.update(&event.body);
    first_eight(&hasher.finalize())
}

/// One row to write. How keys are laid out is the store's affair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// Append to a log.
    Event(Entry),
    /// A message has a place in a room's timeline.
    Place(RoomId, Key),
    /// It has it no longer.
    Unplace(RoomId, Key),
    /// All keys of a message identity, the smallest first: that one is its line.
    Keys(Identity, Vec<Key>),
    /// A register's merged value.
    Register(RegisterKey, Register),
    /// A room's sum.
    Sum(RoomId, Sum),
    /// What another server holds of a log.
    Disk(ServerId, Log, u64),
    /// Forget all [`Row::Disk`]s of that server.
    ForgetDisk(ServerId),
    /// Who holds a slot.
    Slot(SlotHolder),
    /// How far this disk is to be believed.
    Standing(Standing),
}

/// What a store can look up. Everything written by an earlier batch is seen.
pub trait View {
    /// Why a look-up failed.
    type Error;

    /// Events `from..=to` of a log, in order, until `bytes_max` (by [`Event::cost`]) is passed;
    /// at least one if there is one.
    ///
    /// # Errors
    /// The disk's.
    fn events(
        &self,
        log: Log,
        from: u64,
        to: u64,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, Self::Error>;

    /// Places of a room's timeline below `below`, newest first, at most `limit`.
    ///
    /// # Errors
    /// The disk's.
    fn places(&self, room: RoomId, below: Key, limit: usize) -> Result<Vec<Key>, Self::Error>;

    /// All keys of a message identity, the smallest first.
    ///
    /// # Errors
    /// The disk's.
    fn keys(&self, identity: &Identity) -> Result<Vec<Key>, Self::Error>;

    /// A register.
    ///
    /// # Errors
    /// The disk's.
    fn register(&self, key: &RegisterKey) -> Result<Option<Register>, Self::Error>;

    /// A room's sum.
    ///
    /// # Errors
    /// The disk's.
    fn sum(&self, room: RoomId) -> Result<Sum, Self::Error>;

    /// The slot's holder.
    ///
    /// # Errors
    /// The disk's.
    fn slot(&self, slot: &Slot) -> Result<Option<SlotHolder>, Self::Error>;
}

/// What a start needs of the disk.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Loaded {
    /// Every log: events held, chain at the last, stamp of the last.
    pub logs: Vec<LoadedLog>,
    /// Every register.
    pub registers: Vec<(RegisterKey, Register)>,
    /// Every room's sum.
    pub sums: Vec<(RoomId, Sum)>,
    /// What other servers said they hold.
    pub disks: Vec<(ServerId, Log, u64)>,
    /// Who holds each slot.
    pub slots: Vec<SlotHolder>,
    /// How far this disk is to be believed.
    pub standing: Standing,
}

/// A log as the disk holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoadedLog {
    /// Which.
    pub log: Log,
    /// How many events.
    pub upto: u64,
    /// The chain at the last.
    pub chain: u64,
    /// The stamp of the last.
    pub hlc: Hlc,
}

/// A question to the disk. `within` bounds the answer to what the asker knows to be durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Query {
    /// A piece of a log.
    Events {
        /// Which log.
        log: Log,
        /// The first.
        from: u64,
        /// The last.
        to: u64,
        /// Stop after so many bytes.
        bytes_max: usize,
    },
    /// A page of a timeline.
    Page {
        /// Of which room.
        room: RoomId,
        /// Lines below this.
        before: Key,
        /// At most so many.
        limit: usize,
        /// Only events covered by this.
        within: Arc<Vector>,
    },
    /// Everything in some rooms above a cursor, for a client that comes back.
    Since {
        /// What the client has.
        cursor: Vector,
        /// What there is.
        within: Arc<Vector>,
        /// Its rooms and direct messages.
        rooms: BTreeSet<RoomId>,
        /// Give up beyond so many events looked at.
        scan_max: usize,
    },
    /// Direct messages that an account has not seen.
    Waiting {
        /// Whose: his own are not told.
        account: AccountId,
        /// The rooms of his direct messages, and what he has seen of each.
        rooms: Vec<(RoomId, Vector)>,
        /// Only events covered by this.
        within: Arc<Vector>,
        /// At most so many of each room, newest first.
        limit: usize,
    },
    /// A message by its identity.
    Message(Identity),
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Rows {
    /// To [`Query::Events`].
    Events(Vec<Entry>),
    /// To [`Query::Page`], oldest first; whether there may be more below.
    Page(Vec<Line>, bool),
    /// To [`Query::Since`], by key.
    Since(Vec<Line>),
    /// To [`Query::Since`], when there is too much: nothing that is missing is below this.
    TooFar(Key),
    /// To [`Query::Waiting`], by key.
    Waiting(Vec<Line>),
    /// To [`Query::Message`].
    Message(Option<Line>),
    /// The disk could not read: damage, told in words.
    Failed(String),
}

/// The rows a batch writes, and what it does.
///
/// # Errors
/// Those of the view; nothing is to be written then.
pub fn plan<V: View>(view: &V, batch: &Batch) -> Result<(Vec<Row>, Committed), V::Error> {
    let mut planned =
        Plan { view, rows: Vec::new(), first: BTreeMap::new(), sums: BTreeMap::new() };
    let mut registers: BTreeMap<RegisterKey, Register> = BTreeMap::new();
    let mut outcomes = Vec::with_capacity(batch.entries.len());
    for entry in &batch.entries {
        outcomes.push(planned.message(entry)?);
        planned.rows.push(Row::Event(entry.clone()));
        if let Some((key, value)) = write_of(entry.log, &entry.event) {
            if !registers.contains_key(&key)
                && let Some(held) = view.register(&key)?
            {
                registers.insert(key, held);
            }
            registers
                .entry(key)
                .and_modify(|held| {
                    held.merge(&value);
                })
                .or_insert(value);
        }
    }
    let Plan { mut rows, first, sums, .. } = planned;
    rows.extend(first.into_iter().map(|(identity, (keys, _))| Row::Keys(identity, keys)));
    rows.extend(sums.iter().map(|(room, sum)| Row::Sum(*room, *sum)));
    rows.extend(registers.into_iter().map(|(key, value)| Row::Register(key, value)));
    rows.extend(batch.disks.iter().map(|(server, log, upto)| Row::Disk(*server, *log, *upto)));
    for holder in &batch.slots {
        if let Some(old) = view.slot(&holder.slot)?
            && old.server != holder.server
        {
            rows.push(Row::ForgetDisk(old.server));
        }
        rows.push(Row::Slot(holder.clone()));
    }
    rows.extend(batch.standing.map(Row::Standing));
    Ok((rows, Committed { outcomes, sums: sums.into_iter().collect() }))
}

/// A batch being planned: what it changes is seen by its later events.
struct Plan<'a, V> {
    view: &'a V,
    rows: Vec<Row>,
    /// The keys of messages, and what stands at the smallest.
    first: BTreeMap<Identity, (Vec<Key>, Arc<Event>)>,
    sums: BTreeMap<RoomId, Sum>,
}

impl<V: View> Plan<'_, V> {
    /// The alias rule: the smallest key of an identity is its line.
    fn message(&mut self, entry: &Entry) -> Result<Outcome, V::Error> {
        let Some(identity) = entry.event.identity() else { return Ok(Outcome::NoMessage) };
        let key = entry.event.key(entry.log.origin);
        let room = identity.room;
        let held = match self.first.get(&identity) {
            Some(held) => Some(held.clone()),
            None => {
                let keys = self.view.keys(&identity)?;
                match keys.first() {
                    Some(first) => self.event(*first)?.map(|event| (keys, event)),
                    None => None,
                }
            }
        };
        let (mut keys, first) = match held {
            Some((keys, event)) => {
                let first = keys.first().map(|first| (*first, event));
                (keys, first)
            }
            None => (Vec::new(), None),
        };
        if keys.len() < ALIASES_MAX || first.as_ref().is_some_and(|(first, _)| key < *first) {
            let at = keys.partition_point(|held| *held < key);
            keys.insert(at, key);
            keys.truncate(ALIASES_MAX);
        }
        let outcome = match first {
            Some((first, event)) if first <= key => {
                self.first.insert(identity, (keys, event));
                return Ok(Outcome::Alias { of: first });
            }
            Some((first, event)) => {
                self.rows.push(Row::Unplace(room, first));
                self.sum(room)?.remove(line_hash(first, &event));
                Outcome::Moved { from: first }
            }
            None => Outcome::New,
        };
        self.rows.push(Row::Place(room, key));
        self.sum(room)?.add(line_hash(key, &entry.event));
        self.first.insert(identity, (keys, entry.event.clone()));
        Ok(outcome)
    }

    fn sum(&mut self, room: RoomId) -> Result<&mut Sum, V::Error> {
        let held = match self.sums.get(&room) {
            Some(sum) => *sum,
            None => self.view.sum(room)?,
        };
        Ok(self.sums.entry(room).or_insert(held))
    }

    fn event(&self, key: Key) -> Result<Option<Arc<Event>>, V::Error> {
        let log = key.event().log;
        let entries = self.view.events(log, key.seq, key.seq, 1)?;
        Ok(entries.into_iter().next().map(|entry| entry.event))
    }
}

/// Bytes read from a log in one go while a client's missed lines are looked for.
const SCAN_BYTES: usize = 256 * 1024;

/// Answers a query.
///
/// # Errors
/// Those of the view.
pub fn answer<V: View>(view: &V, query: &Query) -> Result<Rows, V::Error> {
    Ok(match query {
        Query::Events { log, from, to, bytes_max } => {
            Rows::Events(view.events(*log, *from, *to, *bytes_max)?)
        }
        Query::Page { room, before, limit, within } => {
            let (lines, more) =
                page(view, *room, *before, *limit, |key| within.covers(key.event()))?;
            Rows::Page(lines, more)
        }
        Query::Since { cursor, within, rooms, scan_max } => {
            since(view, cursor, within, rooms, *scan_max)?
        }
        Query::Waiting { account, rooms, within, limit } => {
            let mut waiting = Vec::new();
            for (room, seen) in rooms {
                let unseen = |key: Key| within.covers(key.event()) && !seen.covers(key.event());
                let (lines, _) = page(view, *room, Key::MAX, *limit, unseen)?;
                waiting.extend(lines.into_iter().filter(|line| line.event.actor != *account));
            }
            waiting.sort_by_key(Line::key);
            Rows::Waiting(waiting)
        }
        Query::Message(identity) => Rows::Message(match view.keys(identity)?.first() {
            Some(key) => line(view, *key)?,
            None => None,
        }),
    })
}

fn line<V: View>(view: &V, key: Key) -> Result<Option<Line>, V::Error> {
    let entries = view.events(key.event().log, key.seq, key.seq, 1)?;
    Ok(entries.into_iter().next().map(|e| Line { origin: key.origin, event: e.event }))
}

/// Up to `limit` lines below `before` that `fits` accepts, oldest first, and whether more may be
/// below. Looks at 10 times `limit` places at most, so that a page is bounded work.
fn page<V: View>(
    view: &V,
    room: RoomId,
    before: Key,
    limit: usize,
    fits: impl Fn(Key) -> bool,
) -> Result<(Vec<Line>, bool), V::Error> {
    let mut lines = Vec::new();
    let mut below = before;
    for _ in 0..10 {
        if lines.len() >= limit {
            break;
        }
        let places = view.places(room, below, limit)?;
        let end = places.len() < limit;
        for key in places {
            below = key;
            if fits(key) && lines.len() < limit {
                lines.extend(line(view, key)?);
            }
        }
        if end {
            lines.reverse();
            return Ok((lines, false));
        }
    }
    let more = !view.places(room, below, 1)?.is_empty();
    lines.reverse();
    Ok((lines, more))
}

fn since<V: View>(
    view: &V,
    cursor: &Vector,
    within: &Vector,
    rooms: &BTreeSet<RoomId>,
    scan_max: usize,
) -> Result<Rows, V::Error> {
    if within.ahead_of(cursor) > scan_max as u64 {
        // Stamps rise within a log: its first missing event bounds all that are missing of it.
        let mut least = Key::MAX;
        for (log, upto) in within.iter() {
            let next = cursor.upto(log) + 1;
            if next <= upto
                && let Some(entry) = view.events(log, next, next, 1)?.first()
            {
                least = least.min(entry.event.key(log.origin));
            }
        }
        return Ok(Rows::TooFar(least));
    }
    let mut lines = Vec::new();
    for (log, upto) in within.iter() {
        let mut from = cursor.upto(log) + 1;
        while from <= upto {
            let entries = view.events(log, from, upto, SCAN_BYTES)?;
            let Some(last) = entries.last() else { break };
            from = last.event.seq + 1;
            for entry in entries.into_iter().filter(|e| rooms.contains(&e.event.room)) {
                let line = Line { origin: log.origin, event: entry.event };
                if !is_told_otherwise(view, cursor, within, &line)? {
                    lines.push(line);
                }
            }
        }
    }
    lines.sort_by_key(Line::key);
    Ok(Rows::Since(lines))
}

/// Whether a client with this cursor has that message under another key, or is told it under one
/// that is smaller.
fn is_told_otherwise<V: View>(
    view: &V,
    cursor: &Vector,
    within: &Vector,
    line: &Line,
) -> Result<bool, V::Error> {
    let Some(identity) = line.identity() else { return Ok(false) };
    let key = line.key();
    let told = |other: &Key| {
        cursor.covers(other.event()) || (*other < key && within.covers(other.event()))
    };
    Ok(view.keys(&identity)?.iter().filter(|other| **other != key).any(told))
}

/// Why a store refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The disk refused or failed: what was being written is not durable.
    Io(String),
    /// What is on the disk contradicts itself.
    Corrupt(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(what) => write!(f, "the disk failed: {what}"),
            Self::Corrupt(what) => write!(f, "the data folder is damaged: {what}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// A disk: written by one thread, read by any.
pub trait Store {
    /// A handle to read with, beside the writer.
    type Reader: Reader;

    /// Everything a start needs.
    ///
    /// # Errors
    /// The folder cannot be read, or contradicts itself.
    fn load(&mut self) -> Result<Loaded, StoreError>;

    /// Writes a batch, all or nothing; durable (fsynced) when it returns.
    ///
    /// # Errors
    /// Nothing of the batch is on the disk; it may be offered again.
    fn commit(&mut self, batch: &Batch) -> Result<Committed, StoreError>;

    /// A handle to read with.
    fn reader(&self) -> Self::Reader;
}

/// Reads a disk.
pub trait Reader: Clone + Send + 'static {
    /// Answers a query; sees every batch whose commit returned.
    ///
    /// # Errors
    /// The disk failed or is damaged.
    fn read(&self, query: &Query) -> Result<Rows, StoreError>;
}
