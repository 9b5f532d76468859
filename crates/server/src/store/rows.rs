//! How rows are written: big-endian keys, so that bytewise order is the order of sequence numbers,
//! of timelines and of time; values of fixed width where that is possible, postcard elsewhere.
//!
//! Ids stand in full. Short numbers for origins and rooms would save a third of a key, but every
//! read would need a second look-up, and blocks on disk leave out what a key shares with the one
//! before it anyway.

use chatty_core::event::{Event, Identity};
use chatty_core::id::{AccountId, Log, Mid, Origin, RoomId, SEQ_MAX, ServerId, Slot};
use chatty_core::io::Standing;
use chatty_core::register::{Register, RegisterKey};
use chatty_core::store::{Entry, LoadedLog, SlotHolder, StoreError, Sum};
use chatty_core::time::{Hlc, Key};

/// The format that this version reads and writes.
pub(super) const FORMAT: u32 = 1;

/// Rows of the keyspace `meta` begin with one of these.
pub(super) mod tag {
    /// The format number.
    pub(crate) const FORMAT: &[u8] = b"f";
    /// The newest run of this server.
    pub(crate) const RUN: &[u8] = b"o";
    /// How far a log goes.
    pub(crate) const LOG: u8 = b'l';
    /// What another server said it holds of a log.
    pub(crate) const DISK: u8 = b'd';
    /// Who holds a slot.
    pub(crate) const SLOT: u8 = b's';
    /// A room's sum.
    pub(crate) const SUM: u8 = b'r';
    /// How far this disk is to be believed.
    pub(crate) const STANDING: &[u8] = b"h";
}

/// `log`: (origin, shard, seq).
pub(super) fn event_key(log: Log, seq: u64) -> [u8; 26] {
    let mut key = [0; 26];
    key[..16].copy_from_slice(&log.origin.to_bytes());
    key[16..18].copy_from_slice(&log.shard.to_be_bytes());
    key[18..].copy_from_slice(&seq.to_be_bytes());
    key
}

/// Chain, then the event.
pub(super) fn event_value(entry: &Entry) -> Vec<u8> {
    let chain = entry.chain.to_be_bytes().to_vec();
    // Plain data into a vector: postcard has nothing to fail on.
    postcard::to_extend(&*entry.event, chain).unwrap_or_default()
}

pub(super) fn read_event(log: Log, seq: u64, value: &[u8]) -> Result<Entry, StoreError> {
    let bad = || StoreError::Corrupt(format!("event {seq} of log {log} does not parse"));
    let mut cursor = Cursor(value);
    let chain = cursor.u64().ok_or_else(bad)?;
    let event: Event = postcard::from_bytes(cursor.0).map_err(|_| bad())?;
    if event.seq != seq {
        return Err(bad());
    }
    Ok(Entry { log, event: event.into(), chain })
}

/// The log that an event's key begins with.
pub(super) fn log_of_event_key(key: &[u8]) -> Option<Log> {
    Cursor(key).log()
}

/// The sequence number at the end of an event's key.
pub(super) fn event_seq(key: &[u8]) -> Result<u64, StoreError> {
    let seq = key.get(18..).and_then(|seq| seq.try_into().ok()).map(u64::from_be_bytes);
    seq.ok_or_else(|| StoreError::Corrupt("a key of the logs has the wrong length".into()))
}

/// `tl`: (room, hlc, origin, seq).
pub(super) fn place_key(room: RoomId, key: Key) -> [u8; 48] {
    let mut bytes = [0; 48];
    bytes[..16].copy_from_slice(&room.to_bytes());
    bytes[16..].copy_from_slice(&key_bytes(key));
    bytes
}

pub(super) fn read_place(bytes: &[u8]) -> Result<Key, StoreError> {
    let key = bytes.get(16..).and_then(read_key);
    key.ok_or_else(|| StoreError::Corrupt("a key of the timelines has the wrong length".into()))
}

/// 32 bytes that sort as keys do.
/// A [`Key`] as bytes that sort as it does.
pub(super) const KEY_BYTES: usize = 32;

pub(super) fn key_bytes(key: Key) -> [u8; KEY_BYTES] {
    let mut bytes = [0; KEY_BYTES];
    bytes[..8].copy_from_slice(&key.hlc.bits().to_be_bytes());
    bytes[8..24].copy_from_slice(&key.origin.to_bytes());
    bytes[24..].copy_from_slice(&key.seq.to_be_bytes());
    bytes
}

pub(super) fn read_key(bytes: &[u8]) -> Option<Key> {
    let mut cursor = Cursor(bytes);
    let hlc = Hlc::from_bits(cursor.u64()?);
    let key = Key { hlc, origin: Origin::from_bytes(cursor.array()?), seq: cursor.u64()? };
    cursor.0.is_empty().then_some(key)
}

/// `mid`: the id first, since it begins with its time: new rows then come near the end, so that a
/// look-up of a new id opens no old table and compaction moves tables without rewriting them.
pub(super) fn identity_key(identity: &Identity) -> [u8; 48] {
    let Identity { room, account, mid } = identity;
    let mut key = [0; 48];
    key[..16].copy_from_slice(&Mid::to_bytes(*mid));
    key[16..32].copy_from_slice(&AccountId::to_bytes(*account));
    key[32..].copy_from_slice(&RoomId::to_bytes(*room));
    key
}

pub(super) fn read_identity(key: &[u8]) -> Result<Identity, StoreError> {
    let bad = || StoreError::Corrupt("the name of a message has the wrong length".into());
    let mut cursor = Cursor(key);
    let mid = Mid::from_bytes(cursor.array().ok_or_else(bad)?);
    let account = AccountId::from_bytes(cursor.array().ok_or_else(bad)?);
    let room = RoomId::from_bytes(cursor.array().ok_or_else(bad)?);
    cursor.0.is_empty().then_some(Identity { room, account, mid }).ok_or_else(bad)
}

/// `reg`: any bytes that differ for different registers.
pub(super) fn register_key(key: &RegisterKey) -> Vec<u8> {
    postcard::to_allocvec(key).unwrap_or_default()
}

pub(super) fn register_value(value: &Register) -> Vec<u8> {
    postcard::to_allocvec(value).unwrap_or_default()
}

pub(super) fn read_register_key(key: &[u8]) -> Result<RegisterKey, StoreError> {
    postcard::from_bytes(key)
        .map_err(|_| StoreError::Corrupt("the name of a register does not parse".into()))
}

pub(super) fn read_register(key: &RegisterKey, value: &[u8]) -> Result<Register, StoreError> {
    let read = postcard::from_bytes(value).ok();
    read.filter(|value: &Register| value.is_of(key))
        .ok_or_else(|| StoreError::Corrupt(format!("the register {key:?} does not parse")))
}

pub(super) fn log_key(log: Log) -> Vec<u8> {
    let mut key = vec![tag::LOG];
    key.extend(event_key(log, 0).iter().take(18));
    key
}

pub(super) fn log_value(held: &LoadedLog) -> [u8; 24] {
    let mut value = [0; 24];
    value[..8].copy_from_slice(&held.upto.to_be_bytes());
    value[8..16].copy_from_slice(&held.chain.to_be_bytes());
    value[16..].copy_from_slice(&held.hlc.bits().to_be_bytes());
    value
}

pub(super) fn read_log(key: &[u8], value: &[u8]) -> Option<LoadedLog> {
    let (mut key, mut value) = (Cursor(key.get(1..)?), Cursor(value));
    let held = LoadedLog {
        log: key.log()?,
        upto: value.upto()?,
        chain: value.u64()?,
        hlc: Hlc::from_bits(value.u64()?),
    };
    key.0.is_empty().then_some(held)
}

pub(super) fn disk_prefix(server: ServerId) -> Vec<u8> {
    let mut key = vec![tag::DISK];
    key.extend(server.to_bytes());
    key
}

pub(super) fn disk_key(server: ServerId, log: Log) -> Vec<u8> {
    let mut key = disk_prefix(server);
    key.extend(event_key(log, 0).iter().take(18));
    key
}

pub(super) fn read_disk(key: &[u8], value: &[u8]) -> Option<(ServerId, Log, u64)> {
    let mut key = Cursor(key.get(1..)?);
    let held = (ServerId::from_bytes(key.array()?), key.log()?, Cursor(value).upto()?);
    key.0.is_empty().then_some(held)
}

pub(super) fn slot_key(slot: &Slot) -> Vec<u8> {
    let mut key = vec![tag::SLOT];
    key.extend(slot.as_str().as_bytes());
    key
}

pub(super) fn slot_value(holder: &SlotHolder) -> [u8; 24] {
    let mut value = [0; 24];
    value[..16].copy_from_slice(&holder.server.to_bytes());
    value[16..].copy_from_slice(&holder.generation.to_be_bytes());
    value
}

pub(super) fn read_slot(key: &[u8], value: &[u8]) -> Option<SlotHolder> {
    let name = std::str::from_utf8(key.get(1..)?).ok()?;
    let mut value = Cursor(value);
    Some(SlotHolder {
        slot: Slot::new(name).ok()?,
        server: ServerId::from_bytes(value.array()?),
        generation: value.u64()?,
    })
}

pub(super) fn standing_value(standing: Standing) -> Vec<u8> {
    postcard::to_allocvec(&standing).unwrap_or_default()
}

pub(super) fn read_standing(value: &[u8]) -> Result<Standing, StoreError> {
    postcard::from_bytes(value)
        .map_err(|_| StoreError::Corrupt("the standing of this disk does not parse".into()))
}

pub(super) fn sum_key(room: RoomId) -> [u8; 17] {
    let mut key = [tag::SUM; 17];
    key[1..].copy_from_slice(&room.to_bytes());
    key
}

pub(super) fn sum_value(sum: Sum) -> [u8; 16] {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&sum.messages.to_be_bytes());
    value[8..].copy_from_slice(&sum.digest.to_be_bytes());
    value
}

pub(super) fn read_sum(key: &[u8], value: &[u8]) -> Option<(RoomId, Sum)> {
    let room = RoomId::from_bytes(key.get(1..)?.try_into().ok()?);
    let mut value = Cursor(value);
    Some((room, Sum { messages: value.u64()?, digest: value.u64()? }))
}

/// What is left to read; `None` once it is too short.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// How many events of a log.
    fn upto(&mut self) -> Option<u64> {
        self.u64().filter(|upto| *upto <= SEQ_MAX)
    }

    fn log(&mut self) -> Option<Log> {
        let origin = Origin::from_bytes(self.array()?);
        Some(Log { origin, shard: u16::from_be_bytes(self.array()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> impl Strategy<Value = Key> {
        (any::<u64>(), any::<u128>(), any::<u64>()).prop_map(|(hlc, origin, seq)| Key {
            hlc: Hlc::from_bits(hlc),
            origin: Origin::new(origin),
            seq,
        })
    }

    #[test]
    fn a_key_that_goes_on_is_none() {
        let log = Log::of(Origin::new(1));
        let identity =
            Identity { room: RoomId::new(1), account: AccountId::new(2), mid: Mid::at(3, 4) };
        let longer = |key: &[u8]| [key, &[0]].concat();
        let key = identity_key(&identity);
        assert_eq!(read_identity(&key), Ok(identity));
        assert!(read_identity(&longer(&key)).is_err());
        let (key, value) = (log_key(log), [0; 24]);
        assert!(read_log(&key, &value).is_some());
        assert!(read_log(&longer(&key), &value).is_none());
        let key = disk_key(ServerId::new(1), log);
        assert!(read_disk(&key, &value).is_some());
        assert!(read_disk(&longer(&key), &value).is_none());
    }

    proptest! {
        #[test]
        fn the_bytes_of_keys_sort_as_keys_do(a in key(), b in key()) {
            prop_assert_eq!(a.cmp(&b), key_bytes(a).cmp(&key_bytes(b)));
            prop_assert_eq!(read_key(&key_bytes(a)), Some(a));
            prop_assert_eq!(read_place(&place_key(RoomId::new(7), a)), Ok(a));
        }

        #[test]
        fn no_bytes_make_a_reader_panic(key in prop::collection::vec(any::<u8>(), 0..60),
                                        value in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = (read_log(&key, &value), read_disk(&key, &value), read_slot(&key, &value));
            let _ = (read_sum(&key, &value), read_key(&value), read_place(&key));
            let _ = (event_seq(&key), read_event(Log::of(Origin::new(1)), 1, &value));
            let _ = read_register_key(&key).map(|key| read_register(&key, &value));
        }
    }
}
