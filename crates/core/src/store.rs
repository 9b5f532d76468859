//! What the disk holds, what a write does to it, and how reads are answered: pure functions over
//! a [`View`], so that the database and the simulator's disk share every rule.
//!
//! An event and everything derived from it (timeline place, message identity, register, digest)
//! are rows of one atomic, fsynced batch. The alias rule lives here: of all events of one message
//! identity the smallest [`Key`] is the line, the others are aliases that no timeline shows.

mod answer;
mod plan;
mod tidy;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::bugs::bug;
use crate::event::{Event, Identity, first_eight};
use crate::id::{AccountId, Generation, Log, Mid, RoomId, ServerId, Slot};
use crate::io::Standing;
use crate::register::{Register, RegisterKey};
use crate::scrub;
use crate::session::Line;
use crate::time::{Hlc, Key};
use crate::vector::Vector;

pub use answer::answer;
pub use plan::plan;

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
    /// Floors that are on a majority of disks: what is below them need not be kept.
    pub floors: Floors,
    /// Go on erasing what is below them after this identity.
    pub sweep: Option<SweepAfter>,
    /// Go on erasing register writes that lost.
    pub tidy: Option<Tidy>,
}

/// A step of erasing register writes that lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tidy {
    /// Those after this one; `None`: from the first.
    pub after: Option<Key>,
    /// What is on a majority of disks: only what lost to one of these may go.
    pub replicated: Arc<Vector>,
}

/// Rooms, and up to which unix millisecond their messages are gone.
pub type Floors = Arc<BTreeMap<RoomId, u64>>;

/// Where a sweep over the message identities goes on; `None`: at the beginning.
pub type SweepAfter = Option<Identity>;

impl Batch {
    /// Whether there is nothing that must be written soon: what other disks hold can wait.
    pub fn can_wait(&self) -> bool {
        self.entries.is_empty()
            && self.slots.is_empty()
            && self.standing.is_none()
            && self.sweep.is_none()
            && self.tidy.is_none()
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
    /// A message below its room's floor: it is gone already.
    Below,
}

/// What a written batch did.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Committed {
    /// What each of its events turned out to be, in the batch's order.
    pub outcomes: Vec<Outcome>,
    /// The sums of the rooms it changed.
    pub sums: Vec<(RoomId, Sum)>,
    /// If it swept: where to go on, or that all is done.
    pub swept: Option<Swept>,
    /// If it tidied: where to go on, or that all is done.
    pub tidied: Option<Tidied>,
}

/// How far tidying came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tidied {
    /// There may be more after this.
    Upto(Key),
    /// Everything was looked at.
    All,
}

/// How far a sweep came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Swept {
    /// There may be more after this.
    Upto(Identity),
    /// Everything was looked at.
    All,
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
    pub(crate) const fn add(&mut self, line: u64) {
        self.messages = self.messages.wrapping_add(1);
        self.digest = self.digest.wrapping_add(line);
    }

    const fn remove(&mut self, line: u64) {
        self.messages = self.messages.wrapping_sub(1);
        self.digest = self.digest.wrapping_sub(line);
    }
}
/// The hash of one line in a [`Sum`]: its place, its identity and its content.
pub(crate) fn line_hash(key: Key, event: &Event) -> u64 {
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
/// The floor that a register says.
fn floor_of(register: Option<&Register>) -> u64 {
    match register {
        Some(Register::Floor { ms, .. }) => *ms,
        _ => 0,
    }
}

/// Whether a message of that id is below a room's floor; 0: there is none.
pub(crate) const fn is_below_floor(mid: Mid, floor_ms: u64) -> bool {
    floor_ms > 0 && mid.unix_ms() <= floor_ms
}

/// Whether a line is to be shown: an event of its room that is no message, or one above the floor.
pub(crate) fn is_kept(event: &Event, floor_ms: u64) -> bool {
    if bug!(FloorOnStamp) {
        return event.identity().is_none() || event.hlc.ms() > floor_ms;
    }
    event.identity().is_none_or(|identity| !is_below_floor(identity.mid, floor_ms))
}

/// One row to write. How keys are laid out is the store's affair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// Append to a log.
    Event(Entry),
    /// Replace an event of a log by what is left of it.
    Void(Entry),
    /// A message has a place in a room's timeline.
    Place(RoomId, Key),
    /// It has it no longer.
    Unplace(RoomId, Key),
    /// All keys of a message identity, the smallest first: that one is its line.
    Keys(Identity, Vec<Key>),
    /// A message identity is forgotten.
    ForgetKey(Identity),
    /// A register's merged value.
    Register(RegisterKey, Register),
    /// A write of that register lost to another one.
    Lost(Key, RegisterKey),
    /// What is to be remembered of a write that lost is done.
    ForgetLost(Key),
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

    /// Places of a room's timeline above `above`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// The disk's.
    fn places_above(&self, room: RoomId, above: Key, limit: usize)
    -> Result<Vec<Key>, Self::Error>;

    /// All keys of a message identity, the smallest first.
    ///
    /// # Errors
    /// The disk's.
    fn keys(&self, identity: &Identity) -> Result<Vec<Key>, Self::Error>;

    /// Message identities after one, in the order of their message ids, of ids up to a unix
    /// millisecond, with all their keys, the smallest first; at most `limit`.
    ///
    /// # Errors
    /// The disk's.
    fn identities(
        &self,
        after: Option<&Identity>,
        upto_ms: u64,
        limit: usize,
    ) -> Result<Vec<(Identity, Vec<Key>)>, Self::Error>;

    /// A register.
    ///
    /// # Errors
    /// The disk's.
    fn register(&self, key: &RegisterKey) -> Result<Option<Register>, Self::Error>;

    /// Register writes that lost and are not erased, by key, after one of them; at most `limit`.
    ///
    /// # Errors
    /// The disk's.
    fn lost(
        &self,
        after: Option<Key>,
        limit: usize,
    ) -> Result<Vec<(Key, RegisterKey)>, Self::Error>;

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
        /// Give up beyond so many events looked at…
        scan_max: usize,
        /// … or so many bytes found (by [`Event::cost`]).
        bytes_max: usize,
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
        /// Bytes of them all (by [`Event::cost`]); the rooms have equal shares.
        bytes_max: usize,
        /// Look at so many places of timelines in all.
        scan_max: usize,
    },
    /// A message by its identity.
    Message(Identity),
    /// When a room's message was said that is the oldest to stay if so many are kept.
    Oldest {
        /// Of which room.
        room: RoomId,
        /// How many are kept; 1 or more.
        keep: u64,
    },
    /// A piece of everything, read again.
    Scrub {
        /// Where.
        at: scrub::At,
        /// What is durable.
        within: Arc<Vector>,
        /// The rooms with messages, ascending.
        rooms: Arc<[RoomId]>,
    },
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
    /// To [`Query::Waiting`], by key; and rooms of which some were left out, with a key below which
    /// none of these is.
    Waiting(Vec<Line>, Vec<(RoomId, Key)>),
    /// To [`Query::Message`].
    Message(Option<Line>),
    /// To [`Query::Oldest`]: the unix milliseconds of its id, if there is one.
    Oldest(Option<u64>),
    /// To [`Query::Scrub`].
    Scrubbed(scrub::Piece),
    /// The disk could not read: damage, told in words.
    Failed(String),
}
/// Why a store refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The disk refused or failed: what was being written is not durable.
    Io(String),
    /// What is on the disk contradicts itself.
    Corrupt(String),
    /// It must not be used as it is, and nothing here can mend it: another version wrote it, or the
    /// disk did not confirm a write.
    Unusable(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(what) => write!(f, "the disk failed: {what}"),
            Self::Corrupt(what) => write!(f, "the data folder is damaged: {what}"),
            Self::Unusable(what) => f.write_str(what),
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

    /// Whether there is room for what clients write. What other servers have may find room after that:
    /// it is on their disks anyway, and must come to this one to be safe.
    ///
    /// # Errors
    /// Why not, and what to do.
    fn room(&self) -> Result<(), String> {
        Ok(())
    }

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

#[cfg(test)]
pub(crate) mod tests;
