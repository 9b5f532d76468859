//! The rows of one batch on their way to the database.
//!
//! fjall gives all writes of a batch one sequence number, so a key may be in it only once. A place
//! that comes and goes in one batch, or a disk that is named and forgotten, is settled here first.

use std::collections::BTreeMap;

use chatty_core::id::ServerId;
use chatty_core::store::{LoadedLog, Row, StoreError};
use fjall::{Keyspace, OwnedWriteBatch, PersistMode, Readable};

use super::rows::{
    disk_key, disk_prefix, event_key, event_value, identity_key, key_bytes, log_key, log_value,
    place_key, register_key, register_value, slot_key, slot_value, standing_value, sum_key,
    sum_value, tag,
};
use super::tables::{Tables, store_error};

/// What is to be written, a key at most once.
pub(super) struct Writes<'a> {
    tables: &'a Tables,
    /// Rows that the plan names once.
    once: OwnedWriteBatch,
    /// Places: there, or gone.
    places: BTreeMap<[u8; 48], Change>,
    /// Rows of `meta`; `None`: gone.
    meta: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

enum Change {
    Put,
    Remove,
}

impl<'a> Writes<'a> {
    /// Nothing yet; room for so many rows.
    pub(super) fn new(tables: &'a Tables, rows: usize) -> Self {
        let once = OwnedWriteBatch::with_capacity(tables.db.clone(), rows);
        Self { tables, once, places: BTreeMap::new(), meta: BTreeMap::new() }
    }

    /// Adds a row; later rows win.
    pub(super) fn row(&mut self, row: &Row) -> Result<(), StoreError> {
        let tables = self.tables;
        match row {
            Row::Event(entry) => {
                let key = event_key(entry.log, entry.event.seq);
                self.once.insert(&tables.log, key, event_value(entry));
            }
            Row::Void(entry) => {
                let key = event_key(entry.log, entry.event.seq);
                self.once.insert(&tables.log, key, event_value(entry));
            }
            Row::ForgetKey(identity) => {
                self.once.remove(&tables.mid, identity_key(identity));
            }
            Row::Place(room, key) => {
                self.places.insert(place_key(*room, *key), Change::Put);
            }
            Row::Unplace(room, key) => {
                self.places.insert(place_key(*room, *key), Change::Remove);
            }
            Row::Keys(identity, keys) => {
                let keys: Vec<u8> = keys.iter().flat_map(|key| key_bytes(*key)).collect();
                self.once.insert(&tables.mid, identity_key(identity), keys);
            }
            Row::Register(key, value) => {
                self.once.insert(&tables.reg, register_key(key), register_value(value));
            }
            Row::Lost(key, register) => {
                self.once.insert(&tables.lost, key_bytes(*key), register_key(register));
            }
            Row::ForgetLost(key) => self.once.remove(&tables.lost, key_bytes(*key)),
            Row::Sum(room, sum) => self.put(sum_key(*room).to_vec(), sum_value(*sum).to_vec()),
            Row::Disk(server, log, upto) => {
                self.put(disk_key(*server, *log), upto.to_be_bytes().to_vec());
            }
            Row::ForgetDisk(server) => self.forget_disk(*server)?,
            Row::Slot(holder) => self.put(slot_key(&holder.slot), slot_value(holder).to_vec()),
            Row::Standing(standing) => {
                self.put(tag::STANDING.to_vec(), standing_value(*standing));
            }
        }
        Ok(())
    }

    /// Notes how far a log goes now.
    pub(super) fn head(&mut self, head: &LoadedLog) {
        self.put(log_key(head.log), log_value(head).to_vec());
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.meta.insert(key, Some(value));
    }

    fn forget_disk(&mut self, server: ServerId) -> Result<(), StoreError> {
        let prefix = disk_prefix(server);
        for (_, value) in
            self.meta.range_mut(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix))
        {
            *value = None;
        }
        for row in self.tables.db.snapshot().prefix(&self.tables.meta, &prefix) {
            self.meta.insert(row.key().map_err(store_error)?.to_vec(), None);
        }
        Ok(())
    }

    /// Writes everything in one journal record and waits until the disk has it.
    pub(super) fn commit(self) -> fjall::Result<()> {
        let Self { tables, mut once, places, meta } = self;
        for (key, change) in places {
            match change {
                Change::Put => once.insert(&tables.tl, key, []),
                Change::Remove => once.remove(&tables.tl, key),
            }
        }
        for (key, value) in meta {
            put_or_remove(&mut once, &tables.meta, key, value);
        }
        once.durability(Some(PersistMode::SyncData)).commit()
    }
}

fn put_or_remove(to: &mut OwnedWriteBatch, table: &Keyspace, key: Vec<u8>, value: Option<Vec<u8>>) {
    match value {
        Some(value) => to.insert(table, key, value),
        None => to.remove(table, key),
    }
}
