//! The primitive look-ups, over one snapshot of the database: a reader sees whole batches only,
//! and never waits for the writer.

use std::ops::Bound;

use chatty_core::event::Identity;
use chatty_core::id::{Log, RoomId, Slot};
use chatty_core::register::{Register, RegisterKey};
use chatty_core::store::{Entry, SlotHolder, StoreError, Sum, View};
use chatty_core::time::Key;
use fjall::{Keyspace, Readable, Snapshot, UserValue};

use super::rows::{
    KEY_BYTES, event_key, event_seq, identity_key, key_bytes, place_key, read_event, read_identity,
    read_key, read_place, read_register, read_register_key, read_slot, read_sum, register_key,
    slot_key, sum_key,
};
use super::tables::{Tables, store_error};

/// The database as it was at one moment.
pub(super) struct Frozen<'a> {
    tables: &'a Tables,
    at: Snapshot,
}

impl<'a> Frozen<'a> {
    /// As it is now.
    pub(super) fn now(tables: &'a Tables) -> Self {
        Self { tables, at: tables.db.snapshot() }
    }

    fn get(&self, from: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<UserValue>, StoreError> {
        self.at.get(from, key).map_err(store_error)
    }
}

impl View for Frozen<'_> {
    type Error = StoreError;

    fn events(
        &self,
        log: Log,
        from: u64,
        to: u64,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let from = from.max(1);
        if from > to {
            return Ok(Vec::new());
        }
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let mut seq = from;
        for row in self.at.range(&self.tables.log, event_key(log, from)..=event_key(log, to)) {
            let (key, value) = row.into_inner().map_err(store_error)?;
            if event_seq(&key)? != seq {
                return Err(StoreError::Corrupt(format!("event {seq} of log {log} is missing")));
            }
            let entry = read_event(log, seq, &value)?;
            bytes += entry.event.cost();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry);
            // What is behind the last number there can be has no number.
            seq = seq.saturating_add(1);
        }
        Ok(entries)
    }

    fn places(&self, room: RoomId, below: Key, limit: usize) -> Result<Vec<Key>, StoreError> {
        let range = place_key(room, Key::MIN)..place_key(room, below);
        let newest_first = self.at.range(&self.tables.tl, range).rev().take(limit);
        newest_first.map(|row| read_place(&row.key().map_err(store_error)?)).collect()
    }

    fn places_above(&self, room: RoomId, above: Key, limit: usize) -> Result<Vec<Key>, StoreError> {
        let from = Bound::Excluded(place_key(room, above));
        let to = Bound::Included(place_key(room, Key::MAX));
        let oldest_first = self.at.range(&self.tables.tl, (from, to)).take(limit);
        oldest_first.map(|row| read_place(&row.key().map_err(store_error)?)).collect()
    }

    fn keys(&self, identity: &Identity) -> Result<Vec<Key>, StoreError> {
        let Some(value) = self.get(&self.tables.mid, identity_key(identity))? else {
            return Ok(Vec::new());
        };
        read_keys(identity, &value)
    }

    fn identities(
        &self,
        after: Option<&Identity>,
        upto_ms: u64,
        limit: usize,
    ) -> Result<Vec<(Identity, Vec<Key>)>, StoreError> {
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(identity_key(after)));
        let rows = self.at.range(&self.tables.mid, (from, Bound::Unbounded));
        let mut found = Vec::new();
        for row in rows.take(limit) {
            let (key, value) = row.into_inner().map_err(store_error)?;
            let identity = read_identity(&key)?;
            if identity.mid.unix_ms() > upto_ms {
                break;
            }
            found.push((identity, read_keys(&identity, &value)?));
        }
        Ok(found)
    }

    fn register(&self, key: &RegisterKey) -> Result<Option<Register>, StoreError> {
        let value = self.get(&self.tables.reg, register_key(key))?;
        value.map(|value| read_register(key, &value)).transpose()
    }

    fn lost(
        &self,
        after: Option<Key>,
        limit: usize,
    ) -> Result<Vec<(Key, RegisterKey)>, StoreError> {
        let bad = || StoreError::Corrupt("the name of a write that lost is damaged".into());
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(key_bytes(after)));
        let rows = self.at.range(&self.tables.lost, (from, Bound::Unbounded)).take(limit);
        rows.map(|row| {
            let (key, register) = row.into_inner().map_err(store_error)?;
            Ok((read_key(&key).ok_or_else(bad)?, read_register_key(&register)?))
        })
        .collect()
    }

    fn sum(&self, room: RoomId) -> Result<Sum, StoreError> {
        let key = sum_key(room);
        let Some(value) = self.get(&self.tables.meta, key)? else { return Ok(Sum::default()) };
        let bad = || StoreError::Corrupt(format!("the sum of room {room} does not parse"));
        read_sum(&key, &value).map(|(_, sum)| sum).ok_or_else(bad)
    }

    fn slot(&self, slot: &Slot) -> Result<Option<SlotHolder>, StoreError> {
        let key = slot_key(slot);
        let Some(value) = self.get(&self.tables.meta, &key)? else { return Ok(None) };
        let bad = || StoreError::Corrupt(format!("the holder of slot {slot} does not parse"));
        read_slot(&key, &value).map(Some).ok_or_else(bad)
    }
}

pub(super) fn read_keys(identity: &Identity, value: &[u8]) -> Result<Vec<Key>, StoreError> {
    let bad = || StoreError::Corrupt(format!("the place of message {} is lost", identity.mid));
    value.chunks(KEY_BYTES).map(|key| read_key(key).ok_or_else(bad)).collect()
}
