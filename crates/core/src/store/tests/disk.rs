//! A disk that holds rows as they were written, for tests of what is written and read.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use crate::event::{CHAIN_START, Event, Identity};
use crate::id::{Log, RoomId, ServerId, Slot};
use crate::io::Standing;
use crate::register::{Register, RegisterKey};
use crate::store::{
    Batch, Committed, Entry, Query, Row, Rows, SlotHolder, Sum, View, answer, plan,
};
use crate::time::Key;
use crate::vector::Vector;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) logs: BTreeMap<Log, Vec<Entry>>,
    pub(crate) places: BTreeSet<(RoomId, Key)>,
    pub(crate) keys: BTreeMap<Identity, Vec<Key>>,
    pub(crate) registers: BTreeMap<RegisterKey, Register>,
    pub(crate) lost: BTreeMap<Key, RegisterKey>,
    pub(crate) sums: BTreeMap<RoomId, Sum>,
    pub(crate) disks: BTreeMap<(ServerId, Log), u64>,
    pub(crate) slots: BTreeMap<Slot, SlotHolder>,
    pub(crate) standing: Standing,
}

impl Disk {
    /// Writes a batch as any store does.
    pub(crate) fn commit(&mut self, batch: &Batch) -> Committed {
        let Ok((rows, committed)) = plan(self, batch);
        for row in rows {
            self.write(row);
        }
        committed
    }

    /// Appends events to their logs, in one batch.
    pub(crate) fn append(&mut self, events: &[(Log, Event)]) -> Committed {
        let mut chains: BTreeMap<Log, u64> = BTreeMap::new();
        let entries = events.iter().map(|(log, event)| {
            let chain = chains.entry(*log).or_insert_with(|| {
                self.logs.get(log).and_then(|log| log.last()).map_or(CHAIN_START, |e| e.chain)
            });
            *chain = event.chain(*chain);
            Entry { log: *log, event: Arc::new(event.clone()), chain: *chain }
        });
        let entries = entries.collect();
        self.commit(&Batch { entries, ..Batch::default() })
    }

    fn write(&mut self, row: Row) {
        match row {
            Row::Event(entry) => {
                let log = self.logs.entry(entry.log).or_default();
                assert_eq!(entry.event.seq, log.len() as u64 + 1, "a log has no holes");
                log.push(entry);
            }
            Row::Void(entry) => {
                let at = usize::try_from(entry.event.seq).unwrap() - 1;
                let log = self.logs.get_mut(&entry.log).unwrap();
                log[at] = entry;
            }
            Row::Place(room, key) => assert!(self.places.insert((room, key)), "placed twice"),
            Row::Unplace(room, key) => assert!(self.places.remove(&(room, key)), "not placed"),
            Row::Keys(identity, keys) => {
                self.keys.insert(identity, keys);
            }
            Row::ForgetKey(identity) => {
                self.keys.remove(&identity);
            }
            Row::Register(key, value) => {
                self.registers.insert(key, value);
            }
            Row::Lost(key, register) => {
                self.lost.insert(key, register);
            }
            Row::ForgetLost(key) => {
                self.lost.remove(&key);
            }
            Row::Sum(room, sum) => {
                self.sums.insert(room, sum);
            }
            Row::Disk(server, log, upto) => {
                self.disks.insert((server, log), upto);
            }
            Row::ForgetDisk(server) => self.disks.retain(|(of, _), _| *of != server),
            Row::Slot(holder) => {
                self.slots.insert(holder.slot.clone(), holder);
            }
            Row::Standing(standing) => self.standing = standing,
        }
    }

    pub(crate) fn ask(&self, query: &Query) -> Rows {
        let Ok(rows) = answer(self, query);
        rows
    }

    pub(crate) fn within(&self) -> Arc<Vector> {
        Arc::new(self.logs.iter().map(|(log, entries)| (*log, entries.len() as u64)).collect())
    }
}

impl View for Disk {
    type Error = Infallible;

    fn events(
        &self,
        log: Log,
        from: u64,
        to: u64,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, Infallible> {
        let mut bytes = 0;
        let entries = self.logs.get(&log).into_iter().flatten();
        let wanted = entries.filter(|e| (from..=to).contains(&e.event.seq));
        let fits = |entry: &&Entry| {
            let fits = bytes == 0 || bytes + entry.event.cost() <= bytes_max;
            bytes += entry.event.cost();
            fits
        };
        Ok(wanted.take_while(fits).cloned().collect())
    }

    fn places(&self, room: RoomId, below: Key, limit: usize) -> Result<Vec<Key>, Infallible> {
        let range = self.places.range((room, Key::MIN)..(room, below));
        Ok(range.rev().map(|(_, key)| *key).take(limit).collect())
    }

    fn places_above(&self, room: RoomId, above: Key, limit: usize) -> Result<Vec<Key>, Infallible> {
        let after = self.places.range((room, above)..=(room, Key::MAX));
        let above = after.map(|(_, key)| *key).filter(|key| *key > above);
        Ok(above.take(limit).collect())
    }

    fn keys(&self, identity: &Identity) -> Result<Vec<Key>, Infallible> {
        Ok(self.keys.get(identity).cloned().unwrap_or_default())
    }

    fn identities(
        &self,
        after: Option<&Identity>,
        upto_ms: u64,
        limit: usize,
    ) -> Result<Vec<(Identity, Vec<Key>)>, Infallible> {
        let order = |identity: &Identity| (identity.mid, *identity);
        let mut all: Vec<_> = self
            .keys
            .iter()
            .filter(|(identity, _)| identity.mid.unix_ms() <= upto_ms)
            .filter(|(identity, _)| after.is_none_or(|after| order(identity) > order(after)))
            .map(|(identity, keys)| (*identity, keys.clone()))
            .collect();
        all.sort_by_key(|(identity, _)| order(identity));
        all.truncate(limit);
        Ok(all)
    }

    fn register(&self, key: &RegisterKey) -> Result<Option<Register>, Infallible> {
        Ok(self.registers.get(key).cloned())
    }

    fn lost(
        &self,
        after: Option<Key>,
        limit: usize,
    ) -> Result<Vec<(Key, RegisterKey)>, Infallible> {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let lost = self.lost.range((from, std::ops::Bound::Unbounded));
        Ok(lost.take(limit).map(|(key, register)| (*key, *register)).collect())
    }

    fn sum(&self, room: RoomId) -> Result<Sum, Infallible> {
        Ok(self.sums.get(&room).copied().unwrap_or_default())
    }

    fn slot(&self, slot: &Slot) -> Result<Option<SlotHolder>, Infallible> {
        Ok(self.slots.get(slot).cloned())
    }
}
