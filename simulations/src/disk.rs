//! A virtual disk: what is synced survives a crash; a write under way survives whole or not at
//! all, as the database promises of its atomic batches.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::Bound;
use std::sync::Arc;

use chatty_core::event::Identity;
use chatty_core::id::{Log, RoomId, ServerId, Slot};
use chatty_core::io::Standing;
use chatty_core::register::{Register, RegisterKey};
use chatty_core::rng::Rng;
use chatty_core::scrub;
use chatty_core::store::{
    Batch, Committed, Entry, Loaded, LoadedLog, Query, Row, Rows, SlotHolder, Sum, View, answer,
    plan,
};
use chatty_core::time::Key;

use crate::rot::Rot;

/// What is on a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Disk {
    logs: BTreeMap<Log, Vec<Entry>>,
    places: BTreeMap<RoomId, BTreeSet<Key>>,
    keys: BTreeMap<Identity, Vec<Key>>,
    registers: BTreeMap<RegisterKey, Register>,
    lost: BTreeMap<Key, RegisterKey>,
    sums: BTreeMap<RoomId, Sum>,
    disks: BTreeMap<(ServerId, Log), u64>,
    slots: BTreeMap<Slot, SlotHolder>,
    standing: Standing,
    /// What is not as it was written, and nobody knows.
    pub(crate) rot: Rot,
}

impl Disk {
    /// Writes a batch, synced.
    ///
    /// # Panics
    /// If the batch leaves a hole in a log or changes an event: a bug of the core.
    pub fn commit(&mut self, batch: &Batch) -> Committed {
        let Ok((rows, committed)) = plan(&*self, batch);
        for row in rows {
            self.write(row);
        }
        committed
    }

    /// A bug: the index of a batch was to be written after its events.
    #[cfg(chatty_bugs)]
    pub(crate) fn lose_index(&mut self, batch: &Batch) {
        for identity in batch.entries.iter().filter_map(|entry| entry.event.identity()) {
            self.keys.remove(&identity);
        }
    }

    fn write(&mut self, row: Row) {
        match row {
            Row::Event(entry) => {
                let log = self.logs.entry(entry.log).or_default();
                assert_eq!(entry.event.seq, log.len() as u64 + 1, "a log on disk has no holes");
                let before = log.last().map_or(0, |last| last.chain);
                assert_eq!(entry.chain, entry.event.chain(before), "the chain holds on disk");
                log.push(entry);
            }
            Row::Void(entry) => {
                let held = self.logs.get_mut(&entry.log);
                let at = usize::try_from(entry.event.seq - 1).unwrap_or(usize::MAX);
                let held = held.and_then(|log| log.get_mut(at));
                let Some(held) = held else { panic!("what is erased was there") };
                assert_eq!(entry.chain, held.chain, "what is left keeps its place");
                *held = entry;
            }
            Row::ForgetKey(identity) => {
                self.keys.remove(&identity);
            }
            Row::Place(room, key) => {
                self.places.entry(room).or_default().insert(key);
            }
            Row::Unplace(room, key) => {
                self.places.entry(room).or_default().remove(&key);
            }
            Row::Keys(identity, keys) => {
                self.keys.insert(identity, keys);
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
            Row::Standing(standing) => self.standing = standing,
            Row::Slot(holder) => {
                self.slots.insert(holder.slot.clone(), holder);
            }
        }
    }

    /// The disk that is made anew from what comes before the damage in each log: logs are damaged
    /// from a drawn place on, or not at all.
    #[must_use]
    pub fn cut_out_damage(&self, rng: &mut Rng) -> Self {
        let mut kept = self.made_anew(|log, events| {
            let drawn = match rng.below(3) {
                0 => rng.below(events as u64 + 1) as usize,
                _ => events,
            };
            drawn.min(self.rot.sound(log))
        });
        kept.standing = Standing::Lossy;
        kept
    }

    /// The disk that is made anew from what comes before what flipped in each log.
    #[must_use]
    pub(crate) fn cut_out_rot(&self) -> Self {
        let mut kept = self.made_anew(|log, events| events.min(self.rot.sound(log)));
        kept.standing = Standing::Lossy;
        kept
    }

    /// What a backup of it becomes, as another server: the logs and who had which slot are kept, and
    /// everything else is made anew from them.
    #[must_use]
    pub fn restored(&self) -> Self {
        self.made_anew(|_, events| events)
    }

    /// Made anew from so many events of each log as is said.
    fn made_anew(&self, mut sound: impl FnMut(Log, usize) -> usize) -> Self {
        let mut made = Self { slots: self.slots.clone(), ..Self::default() };
        for (log, entries) in &self.logs {
            for entry in &entries[..sound(*log, entries.len())] {
                made.commit(&Batch { entries: vec![entry.clone()], ..Batch::default() });
            }
        }
        made
    }

    /// How many events are on it.
    pub fn events(&self) -> usize {
        self.logs.values().map(Vec::len).sum()
    }

    /// What is derived from the logs is what they say, in whatever order they came.
    ///
    /// # Panics
    /// If an index, a register or a sum is not: a batch was not written as a whole.
    pub fn assert_derived(&self) {
        let mut made = Self::default();
        for entries in self.logs.values() {
            made.commit(&Batch { entries: entries.clone(), ..Batch::default() });
        }
        // A conversation stays known when all that was said in it is erased.
        let registers = |disk: &Self| {
            let mut registers = disk.registers.clone();
            registers.retain(|key, _| !matches!(key, RegisterKey::Direct(_)));
            registers
        };
        assert_eq!(registers(self), registers(&made), "registers are what the logs say");
        // What is below a floor is erased little by little.
        let kept = |identity: &Identity| identity.mid.unix_ms() > self.floor_ms(identity.room);
        let keys = |disk: &Self| {
            let mut keys = disk.keys.clone();
            keys.retain(|identity, _| kept(identity));
            keys
        };
        assert_eq!(keys(self), keys(&made), "every message in the logs is in the index");
        let lines = |disk: &Self| -> Vec<(RoomId, Key)> {
            let all = disk.rooms().flat_map(|room| disk.timeline(room));
            let kept = all.filter(|entry| entry.event.identity().is_some_and(|id| kept(&id)));
            kept.map(|entry| (entry.event.room, entry.event.key(entry.log.origin))).collect()
        };
        assert_eq!(lines(self), lines(&made), "every line of a timeline is in its place");
        let rooms: Vec<RoomId> = self.rooms().collect();
        let within = Arc::default();
        for room in &rooms {
            let mut at = scrub::RoomAt::begin(*room);
            while at.room == *room {
                let Ok(piece) = scrub::piece(self, &scrub::At::Room(at), &within, &rooms);
                assert_eq!(piece.wrong(), None, "the sum of a room is that of its lines");
                let Some(scrub::At::Room(next)) = piece.next else { break };
                at = next;
            }
        }
    }

    /// Answers a query.
    pub fn read(&self, query: &Query) -> Rows {
        let Ok(rows) = answer(self, query);
        rows
    }

    /// What a start finds.
    pub fn load(&self) -> Loaded {
        let logs = self.logs.iter().filter_map(|(log, entries)| {
            let last = entries.last()?;
            Some(LoadedLog {
                log: *log,
                upto: last.event.seq,
                chain: last.chain,
                hlc: last.event.hlc,
            })
        });
        Loaded {
            logs: logs.collect(),
            registers: self.registers.iter().map(|(k, v)| (*k, v.clone())).collect(),
            sums: self.sums.iter().map(|(room, sum)| (*room, *sum)).collect(),
            disks: self.disks.iter().map(|((server, log), upto)| (*server, *log, *upto)).collect(),
            slots: self.slots.values().cloned().collect(),
            standing: self.standing,
        }
    }

    /// Whether it says what other disks hold.
    pub fn names_disks(&self) -> bool {
        !self.disks.is_empty()
    }

    /// What other disks hold is not asked for any more: no server starts from this one.
    pub fn forget_disks(&mut self) {
        self.disks.clear();
    }

    /// How far it is to be believed.
    pub const fn standing(&self) -> Standing {
        self.standing
    }

    /// Events of a log.
    pub fn upto(&self, log: Log) -> u64 {
        self.logs.get(&log).map_or(0, |entries| entries.len() as u64)
    }

    /// All logs.
    pub const fn logs(&self) -> &BTreeMap<Log, Vec<Entry>> {
        &self.logs
    }

    /// Messages of ids up to this unix millisecond are gone from a room.
    pub fn floor_ms(&self, room: RoomId) -> u64 {
        match self.registers.get(&RegisterKey::Floor(room)) {
            Some(Register::Floor { ms, .. }) => *ms,
            _ => 0,
        }
    }

    /// Every log by its chains: equal for equal logs, also where one has erased more.
    pub fn chains(&self) -> BTreeMap<Log, Vec<u64>> {
        let chains = |entries: &Vec<Entry>| entries.iter().map(|entry| entry.chain).collect();
        self.logs.iter().map(|(log, entries)| (*log, chains(entries))).collect()
    }

    /// Whether something is there that is below its room's floor.
    pub fn is_unerased(&self) -> bool {
        let below = |identity: &Identity| identity.mid.unix_ms() <= self.floor_ms(identity.room);
        self.keys.keys().any(below)
    }

    /// A room's messages in order.
    pub fn timeline(&self, room: RoomId) -> Vec<Entry> {
        let keys = self.places.get(&room);
        keys.into_iter()
            .flatten()
            .filter_map(|key| {
                let entries = self.logs.get(&key.event().log)?;
                entries.get(usize::try_from(key.seq).ok()?.checked_sub(1)?).cloned()
            })
            .collect()
    }

    /// The rooms that hold messages.
    pub fn rooms(&self) -> impl Iterator<Item = RoomId> + '_ {
        self.places.keys().copied()
    }

    /// What every register holds.
    pub const fn registers(&self) -> &BTreeMap<RegisterKey, Register> {
        &self.registers
    }

    /// What each room's sum says.
    pub fn sums(&self) -> BTreeMap<RoomId, Sum> {
        let full = self.sums.iter().filter(|(_, sum)| sum.messages > 0);
        full.map(|(room, sum)| (*room, *sum)).collect()
    }

    /// Whether a message is there.
    pub fn has(&self, identity: &Identity) -> bool {
        self.keys.contains_key(identity)
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
        let entries = self.logs.get(&log).map_or(&[][..], Vec::as_slice);
        let skip = usize::try_from(from.saturating_sub(1)).unwrap_or(usize::MAX);
        Ok(entries
            .iter()
            .skip(skip)
            .take_while(|entry| {
                let fits = entry.event.seq <= to && bytes < bytes_max;
                bytes += entry.event.cost();
                fits
            })
            .cloned()
            .collect())
    }

    fn places(&self, room: RoomId, below: Key, limit: usize) -> Result<Vec<Key>, Infallible> {
        let keys = self.places.get(&room);
        Ok(keys
            .map_or_else(Vec::new, |keys| keys.range(..below).rev().take(limit).copied().collect()))
    }

    fn places_above(&self, room: RoomId, above: Key, limit: usize) -> Result<Vec<Key>, Infallible> {
        let above = (Bound::Excluded(above), Bound::Unbounded);
        let keys = self.places.get(&room);
        Ok(keys.map_or_else(Vec::new, |keys| keys.range(above).take(limit).copied().collect()))
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
        let place = |identity: &Identity| (identity.mid, identity.account, identity.room);
        let mut found: Vec<(Identity, Vec<Key>)> = self
            .keys
            .iter()
            .filter(|(identity, _)| identity.mid.unix_ms() <= upto_ms)
            .filter(|(identity, _)| after.is_none_or(|after| place(identity) > place(after)))
            .map(|(identity, keys)| (*identity, keys.clone()))
            .collect();
        found.sort_by_key(|(identity, _)| place(identity));
        found.truncate(limit);
        Ok(found)
    }

    fn register(&self, key: &RegisterKey) -> Result<Option<Register>, Infallible> {
        Ok(self.registers.get(key).cloned())
    }

    fn lost(
        &self,
        after: Option<Key>,
        limit: usize,
    ) -> Result<Vec<(Key, RegisterKey)>, Infallible> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let lost = self.lost.range((from, Bound::Unbounded));
        Ok(lost.take(limit).map(|(key, register)| (*key, *register)).collect())
    }

    fn sum(&self, room: RoomId) -> Result<Sum, Infallible> {
        Ok(self.sums.get(&room).copied().unwrap_or_default())
    }

    fn slot(&self, slot: &Slot) -> Result<Option<SlotHolder>, Infallible> {
        Ok(self.slots.get(slot).cloned())
    }
}
