//! What the disk holds, what a write does to it, and how reads are answered: pure functions over
//! a [`View`], so that the database and the simulator's disk share every rule.
//!
//! An event and everything derived from it (timeline place, message identity, register, digest)
//! are rows of one atomic, fsynced batch. The alias rule lives here: of all events of one message
//! identity the smallest [`Key`] is the line, the others are aliases that no timeline shows.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::fmt;
use std::sync::Arc;

use crate::event::{Event, Identity, first_eight};
use crate::id::{AccountId, Generation, Log, Mid, RoomId, ServerId, Slot};
use crate::io::Standing;
use crate::register::{Register, RegisterKey, write_of};
use crate::scrub;
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
    /// Floors that are on a majority of disks: what is below them need not be kept.
    pub floors: Floors,
    /// Go on erasing what is below them after this identity.
    pub sweep: Option<SweepAfter>,
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

/// Keys remembered of one message: its sender repeats it at another server when one fails, and no
/// server takes it twice. Beyond that the smallest count.
const ALIASES_MAX: usize = 16;

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

/// The rows a batch writes, and what it does.
///
/// # Errors
/// Those of the view; nothing is to be written then.
pub fn plan<V: View>(view: &V, batch: &Batch) -> Result<(Vec<Row>, Committed), V::Error> {
    let mut planned = Plan {
        view,
        rows: Vec::new(),
        first: BTreeMap::new(),
        sums: BTreeMap::new(),
        registers: BTreeMap::new(),
    };
    let mut outcomes = Vec::with_capacity(batch.entries.len());
    for entry in &batch.entries {
        let outcome = planned.message(entry)?;
        outcomes.push(outcome);
        let stub = outcome == Outcome::Below && is_below(&batch.floors, &entry.event);
        let kept = if stub { void(entry) } else { entry.clone() };
        planned.rows.push(Row::Event(kept));
        planned.write(entry)?;
    }
    let swept = match batch.sweep {
        Some(after) => Some(planned.sweep(after, &batch.floors)?),
        None => None,
    };
    let Plan { mut rows, first, sums, registers, .. } = planned;
    rows.extend(first.into_iter().map(|(identity, (keys, _))| Row::Keys(identity, keys)));
    rows.extend(sums.iter().map(|(room, sum)| Row::Sum(*room, *sum)));
    let written = registers.into_iter().filter_map(|(key, value)| Some((key, value?)));
    rows.extend(written.map(|(key, value)| Row::Register(key, value)));
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
    Ok((rows, Committed { outcomes, sums: sums.into_iter().collect(), swept }))
}

/// Message identities that one batch of a sweep looks at.
const SWEEP_STEP: usize = 256;

/// Whether a message is below its room's floor.
fn is_below(floors: &Floors, event: &Event) -> bool {
    floors.get(&event.room).is_some_and(|floor| is_below_floor(event.mid, *floor))
}

fn void(entry: &Entry) -> Entry {
    Entry { event: Arc::new(entry.event.void()), ..entry.clone() }
}

/// A batch being planned: what it changes is seen by its later events.
struct Plan<'a, V> {
    view: &'a V,
    rows: Vec<Row>,
    /// The keys of messages, and what stands at the smallest.
    first: BTreeMap<Identity, (Vec<Key>, Arc<Event>)>,
    sums: BTreeMap<RoomId, Sum>,
    /// As they are with this batch; `None`: there is no such register.
    registers: BTreeMap<RegisterKey, Option<Register>>,
}

impl<V: View> Plan<'_, V> {
    fn register(&mut self, key: RegisterKey) -> Result<&mut Option<Register>, V::Error> {
        let held = match self.registers.entry(key) {
            btree_map::Entry::Occupied(held) => held.into_mut(),
            btree_map::Entry::Vacant(none) => none.insert(self.view.register(&key)?),
        };
        Ok(held)
    }

    /// Merges the register that an event writes, if it writes one.
    fn write(&mut self, entry: &Entry) -> Result<(), V::Error> {
        let Some((key, value)) = write_of(entry.log, &entry.event) else { return Ok(()) };
        match self.register(key)? {
            Some(held) => {
                held.merge(&value);
            }
            none => *none = Some(value),
        }
        Ok(())
    }

    /// Messages of ids up to this unix millisecond are gone from the room.
    fn floor_ms(&mut self, room: RoomId) -> Result<u64, V::Error> {
        Ok(floor_of(self.register(RegisterKey::Floor(room))?.as_ref()))
    }

    /// Erases a few messages below the floors: their places, identities and contents. The events
    /// stay as stubs, so that the log has no hole and its chain can be checked.
    fn sweep(&mut self, after: SweepAfter, floors: &Floors) -> Result<Swept, V::Error> {
        let highest = floors.values().copied().max().unwrap_or(0);
        let found = self.view.identities(after.as_ref(), highest, SWEEP_STEP)?;
        let end = found.len() < SWEEP_STEP;
        let last = found.last().map(|(identity, _)| *identity);
        for (identity, keys) in found {
            let room = identity.room;
            if floors.get(&room).is_none_or(|floor| !is_below_floor(identity.mid, *floor)) {
                continue;
            }
            self.rows.push(Row::ForgetKey(identity));
            for (nth, key) in keys.into_iter().enumerate() {
                let entries = self.view.events(key.event().log, key.seq, key.seq, 1)?;
                let Some(entry) = entries.first() else { continue };
                if nth == 0 {
                    self.rows.push(Row::Unplace(room, key));
                    self.sum(room)?.remove(line_hash(key, &entry.event));
                }
                self.rows.push(Row::Void(void(entry)));
            }
        }
        Ok(match last.filter(|_| !end) {
            Some(last) => Swept::Upto(last),
            None => Swept::All,
        })
    }

    /// The alias rule: the smallest key of an identity is its line.
    fn message(&mut self, entry: &Entry) -> Result<Outcome, V::Error> {
        let Some(identity) = entry.event.identity() else { return Ok(Outcome::NoMessage) };
        let key = entry.event.key(entry.log.origin);
        let room = identity.room;
        if is_below_floor(identity.mid, self.floor_ms(room)?) {
            return Ok(Outcome::Below);
        }
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
    event.identity().is_none_or(|identity| !is_below_floor(identity.mid, floor_ms))
}

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
        Query::Since { cursor, within, rooms, scan_max, bytes_max } => {
            since(view, cursor, within, rooms, (*scan_max, *bytes_max))?
        }
        Query::Waiting { account, rooms, within, limit, bytes_max, scan_max } => {
            let mut left = Left { places: *scan_max, bytes: *bytes_max };
            let share = |left: usize, nth: usize| left.div_ceil(rooms.len() - nth);
            let (mut waiting, mut cut) = (Vec::new(), Vec::new());
            for (nth, (room, seen)) in rooms.iter().enumerate() {
                let unseen = |key: Key| within.covers(key.event()) && !seen.covers(key.event());
                let of = Left { places: share(left.places, nth), bytes: share(left.bytes, nth) };
                let found = newest(view, *room, unseen, *limit, of, &mut left)?;
                let others = found.lines.into_iter().filter(|line| line.event.actor != *account);
                waiting.extend(others);
                cut.extend(found.cut_above.map(|key| (*room, key)));
            }
            waiting.sort_by_key(Line::key);
            Rows::Waiting(waiting, cut)
        }
        Query::Scrub { at, within, rooms } => {
            Rows::Scrubbed(scrub::piece(view, at, within, rooms)?)
        }
        Query::Oldest { room, keep } => Rows::Oldest(oldest(view, *room, *keep)?),
        Query::Message(identity) => Rows::Message(match view.keys(identity)?.first() {
            Some(key) => line(view, *key)?,
            None => None,
        }),
    })
}

/// When the message was said that just stays if the newest `keep` are kept.
fn oldest<V: View>(view: &V, room: RoomId, keep: u64) -> Result<Option<u64>, V::Error> {
    let limit = usize::try_from(keep).unwrap_or(usize::MAX);
    let places = view.places(room, Key::MAX, limit)?;
    let Some(key) = places.last().filter(|_| places.len() == limit) else { return Ok(None) };
    Ok(line(view, *key)?.map(|line| line.event.mid.unix_ms()))
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
    let floor_ms = floor_of(view.register(&RegisterKey::Floor(room))?.as_ref());
    let mut lines = Vec::new();
    let mut below = before;
    for _ in 0..10 {
        if lines.len() >= limit {
            break;
        }
        let places = view.places(room, below, limit)?;
        let end = places.len() < limit;
        for key in places {
            if lines.len() >= limit {
                // A place that the page has no room for: there is more, whatever comes after it.
                lines.reverse();
                return Ok((lines, true));
            }
            below = key;
            if fits(key) {
                lines.extend(line(view, key)?.filter(|line| is_kept(&line.event, floor_ms)));
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

/// What a query may still look at and find.
struct Left {
    places: usize,
    bytes: usize,
}

/// Lines of one room.
struct Found {
    lines: Vec<Line>,
    /// Some were left out; none of these is below this.
    cut_above: Option<Key>,
}

/// Places read in one go while waiting lines are looked for.
const PLACES_STEP: usize = 256;

/// The newest lines of a room that `fits` accepts: at most `limit` of them, and bytes up to the
/// room's share (one line may pass it, if there is anything left of the whole). Below its share of
/// places nothing is looked at: a first page of the room's history shows what is there.
fn newest<V: View>(
    view: &V,
    room: RoomId,
    fits: impl Fn(Key) -> bool,
    limit: usize,
    share: Left,
    left: &mut Left,
) -> Result<Found, V::Error> {
    let mut found = Found { lines: Vec::new(), cut_above: None };
    let mut fitting = Vec::new();
    let mut below = Key::MAX;
    let mut places_left = share.places;
    while fitting.len() < limit && places_left > 0 {
        let step = PLACES_STEP.min(places_left);
        let places = view.places(room, below, step)?;
        places_left -= places.len().min(places_left);
        left.places -= places.len().min(left.places);
        let end = places.len() < step;
        below = places.last().copied().unwrap_or(below);
        fitting.extend(places.into_iter().filter(|key| fits(*key)));
        if end {
            break;
        }
    }
    fitting.truncate(limit);
    let mut bytes = 0;
    for key in &fitting {
        if left.bytes == 0 || bytes >= share.bytes {
            found.cut_above = fitting.last().copied();
            break;
        }
        if let Some(line) = line(view, *key)? {
            bytes += line.event.cost();
            left.bytes = left.bytes.saturating_sub(line.event.cost());
            found.lines.push(line);
        }
    }
    Ok(found)
}

fn since<V: View>(
    view: &V,
    cursor: &Vector,
    within: &Vector,
    rooms: &BTreeSet<RoomId>,
    (scan_max, bytes_max): (usize, usize),
) -> Result<Rows, V::Error> {
    if within.ahead_of(cursor) > scan_max as u64 {
        return too_far(view, cursor, within);
    }
    let mut floors: BTreeMap<RoomId, u64> = BTreeMap::new();
    for room in rooms {
        floors.insert(*room, floor_of(view.register(&RegisterKey::Floor(*room))?.as_ref()));
    }
    let kept = |event: &Event| floors.get(&event.room).is_some_and(|ms| is_kept(event, *ms));
    let mut lines = Vec::new();
    let mut bytes = 0;
    for (log, upto) in within.iter() {
        // The cursor is a client's word: it may be anything.
        let mut from = cursor.upto(log).saturating_add(1);
        while from <= upto {
            let entries = view.events(log, from, upto, SCAN_BYTES)?;
            let Some(last) = entries.last() else { break };
            from = last.event.seq.saturating_add(1);
            for entry in entries.into_iter().filter(|entry| kept(&entry.event)) {
                let line = Line { origin: log.origin, event: entry.event };
                if !is_told_otherwise(view, cursor, within, &line)? {
                    bytes += line.event.cost();
                    lines.push(line);
                }
            }
            if bytes > bytes_max {
                return too_far(view, cursor, within);
            }
        }
    }
    lines.sort_by_key(Line::key);
    Ok(Rows::Since(lines))
}

/// Below what nothing is missing.
fn too_far<V: View>(view: &V, cursor: &Vector, within: &Vector) -> Result<Rows, V::Error> {
    // Stamps rise within a log: its first missing event bounds all that are missing of it.
    let mut least = Key::MAX;
    for (log, upto) in within.iter() {
        let next = cursor.upto(log).saturating_add(1);
        if next <= upto
            && let Some(entry) = view.events(log, next, next, 1)?.first()
        {
            least = least.min(entry.event.key(log.origin));
        }
    }
    Ok(Rows::TooFar(least))
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
mod tests;
