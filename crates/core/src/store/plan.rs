//! What a batch writes: the rows of its events and of all that is derived from them, and the erasing
//! of what is not kept.

use std::collections::{BTreeMap, btree_map};
use std::sync::Arc;

use super::{
    Batch, Committed, Entry, Floors, Outcome, Row, Sum, SweepAfter, Swept, View, floor_of,
    is_below_floor, line_hash,
};
use crate::bugs::bug;
use crate::event::{Event, Identity};
use crate::id::RoomId;
use crate::register::{Register, RegisterKey, write_of};
use crate::time::Key;

/// Keys remembered of one message: its sender repeats it at another server when one fails, and no
/// server takes it twice. Beyond that the smallest count.
const ALIASES_MAX: usize = 16;
/// Keys remembered of one message below a floor, so that all of them are erased. Beyond that the
/// contents of the greatest stay.
const ERASED_MAX: usize = 256;
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
        let mut kept = entry.clone();
        if outcome == Outcome::Below {
            if is_below(&batch.floors, &entry.event) {
                kept = void(entry);
            } else {
                planned.erase_later(entry)?;
            }
        }
        if bug!(UnknownErased)
            && entry.event.kind != crate::event::VOID
            && entry.event.body().is_none()
        {
            kept = void(entry);
        }
        planned.rows.push(Row::Event(kept));
        planned.write(entry)?;
    }
    let swept = match batch.sweep {
        Some(after) => Some(planned.sweep(after, &batch.floors)?),
        None => None,
    };
    let tidied = match &batch.tidy {
        Some(tidy) => Some(planned.tidy(tidy)?),
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
    Ok((rows, Committed { outcomes, sums: sums.into_iter().collect(), swept, tidied }))
}

/// Message identities that one batch of a sweep looks at.
const SWEEP_STEP: usize = 256;

/// Whether a message is below its room's floor.
fn is_below(floors: &Floors, event: &Event) -> bool {
    floors.get(&event.room).is_some_and(|floor| is_below_floor(event.mid, *floor))
}

pub(super) fn void(entry: &Entry) -> Entry {
    Entry { event: Arc::new(entry.event.void()), ..entry.clone() }
}

/// A batch being planned: what it changes is seen by its later events.
pub(super) struct Plan<'a, V> {
    pub(super) view: &'a V,
    pub(super) rows: Vec<Row>,
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

    /// Merges the register that an event writes, if it writes one. Of two writes one has lost.
    fn write(&mut self, entry: &Entry) -> Result<(), V::Error> {
        let Some((name, value)) = write_of(entry.log, &entry.event) else { return Ok(()) };
        let lost = match self.register(name)? {
            Some(held) => {
                let before = held.winner();
                if held.merge(&value) { before } else { value.winner() }
            }
            none => {
                *none = Some(value);
                None
            }
        };
        self.rows.extend(lost.map(|key| Row::Lost(key, name)));
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
            for key in keys {
                let entries = self.view.events(key.event().log, key.seq, key.seq, 1)?;
                let Some(entry) = entries.first() else { continue };
                if self.is_placed(room, key)? {
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

    /// Whether a key has a place in its room's timeline.
    fn is_placed(&self, room: RoomId, key: Key) -> Result<bool, V::Error> {
        let above = Key { seq: key.seq.saturating_add(1), ..key };
        Ok(self.view.places(room, above, 1)?.first() == Some(&key))
    }

    /// A message came that is below its room's floor, and the floor is on too few disks to erase what
    /// is below it. It gets no place, but a sweep finds it by its identity.
    fn erase_later(&mut self, entry: &Entry) -> Result<(), V::Error> {
        let Some(identity) = entry.event.identity() else { return Ok(()) };
        let key = entry.event.key(entry.log.origin);
        let (mut keys, first) = match self.first.remove(&identity) {
            Some(held) => held,
            None => (self.view.keys(&identity)?, entry.event.clone()),
        };
        let at = keys.partition_point(|held| *held < key);
        keys.insert(at, key);
        keys.truncate(ERASED_MAX);
        self.first.insert(identity, (keys, first));
        Ok(())
    }

    /// The alias rule: the smallest key of an identity is its line.
    fn message(&mut self, entry: &Entry) -> Result<Outcome, V::Error> {
        let Some(identity) = entry.event.identity() else { return Ok(Outcome::NoMessage) };
        let key = entry.event.key(entry.log.origin);
        let room = identity.room;
        let floor_ms = self.floor_ms(room)?;
        let by_stamp = bug!(FloorOnStamp) && entry.event.hlc.ms() > floor_ms;
        if is_below_floor(identity.mid, floor_ms) && !by_stamp {
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
        let at = keys.partition_point(|held| *held < key || bug!(AliasByArrival));
        keys.insert(at, key);
        keys.truncate(ALIASES_MAX);
        let outcome = match first {
            Some((first, event)) if first <= key || bug!(AliasByArrival) => {
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
