//! One row at a time, read as a start, a look-up and a mend read it: what arbitrary bytes in a
//! database can come to.

use chatty_core::event::Identity;
use chatty_core::id::{Log, Origin, RoomId, ServerId};
use chatty_core::io::Standing;
use chatty_core::register::{Register, RegisterKey};
use chatty_core::store::{Entry, LoadedLog, SlotHolder, StoreError, Sum};
use chatty_core::time::Key;

use super::rows::{
    event_seq, log_of_event_key, read_disk, read_event, read_identity, read_key, read_log,
    read_place, read_register, read_register_key, read_slot, read_standing, read_sum, tag,
};
use super::view::read_keys;
use super::{RunRow, read_run};

/// A table of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Events by log and number.
    Log,
    /// Places of timelines.
    Timelines,
    /// Keys of messages by identity.
    Messages,
    /// Registers.
    Registers,
    /// Writes of registers that lost.
    Lost,
    /// Everything else.
    Meta,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Log, Self::Timelines, Self::Messages, Self::Registers, Self::Meta, Self::Lost];

    /// The name of its keyspace.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Timelines => "tl",
            Self::Messages => "mid",
            Self::Registers => "reg",
            Self::Lost => "lost",
            Self::Meta => "meta",
        }
    }
}

/// What a row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// An event.
    Event(Entry),
    /// A place of a timeline.
    Place(Key),
    /// The keys of a message.
    Keys(Identity, Vec<Key>),
    /// A register.
    Register(RegisterKey, Register),
    /// A write of a register that lost.
    Lost(Key, RegisterKey),
    /// How far a log goes.
    Head(LoadedLog),
    /// What another disk holds of a log.
    Disk(ServerId, Log, u64),
    /// Who holds a slot.
    Slot(SlotHolder),
    /// The sum of a room.
    Sum(RoomId, Sum),
    /// How far this disk is to be believed.
    Standing(Standing),
    /// The newest run, and the one before it that wrote.
    Run(Origin, Option<(Origin, u64)>),
    /// Nothing that this version asks for.
    Unasked,
}

/// Reads a row as it stands in a table.
///
/// # Errors
/// [`StoreError::Corrupt`]: no such row was ever written.
pub fn read_row(table: Table, key: &[u8], value: &[u8]) -> Result<Found, StoreError> {
    match table {
        Table::Log => {
            let seq = event_seq(key)?;
            let log = log_of_event_key(key).ok_or_else(bad)?;
            read_event(log, seq, value).map(Found::Event)
        }
        Table::Timelines => read_place(key).map(Found::Place),
        Table::Messages => {
            let identity = read_identity(key)?;
            Ok(Found::Keys(identity, read_keys(&identity, value)?))
        }
        Table::Registers => {
            let key = read_register_key(key)?;
            Ok(Found::Register(key, read_register(&key, value)?))
        }
        Table::Lost => Ok(Found::Lost(read_key(key).ok_or_else(bad)?, read_register_key(value)?)),
        Table::Meta => read_meta(key, value),
    }
}

fn read_meta(key: &[u8], value: &[u8]) -> Result<Found, StoreError> {
    match key.first() {
        Some(&tag::LOG) => read_log(key, value).map(Found::Head).ok_or_else(bad),
        Some(&tag::DISK) => {
            let disk = read_disk(key, value).ok_or_else(bad)?;
            Ok(Found::Disk(disk.0, disk.1, disk.2))
        }
        Some(&tag::SLOT) => read_slot(key, value).map(Found::Slot).ok_or_else(bad),
        Some(&tag::SUM) => {
            let (room, sum) = read_sum(key, value).ok_or_else(bad)?;
            Ok(Found::Sum(room, sum))
        }
        _ if key == tag::STANDING => read_standing(value).map(Found::Standing),
        _ if key == tag::RUN => {
            let (run, prev): RunRow = read_run(value)?;
            Ok(Found::Run(run, prev))
        }
        _ => Ok(Found::Unasked),
    }
}

fn bad() -> StoreError {
    StoreError::Corrupt("a row does not parse".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::rows::{disk_key, log_key, register_key, register_value};
    use chatty_core::id::{AccountId, SEQ_MAX};
    use chatty_core::vector::Vector;

    #[test]
    fn a_log_longer_than_a_log_can_be_is_damage() {
        let log = Log::of(Origin::new(1));
        for (upto, sound) in [(SEQ_MAX, true), (SEQ_MAX + 1, false), (u64::MAX, false)] {
            let mut head = upto.to_be_bytes().to_vec();
            head.extend([0; 16]);
            let read = read_row(Table::Meta, &log_key(log), &head);
            assert_eq!(read.is_ok(), sound, "a head of {upto}");
            let disk = disk_key(ServerId::new(1), log);
            let read = read_row(Table::Meta, &disk, &upto.to_be_bytes());
            assert_eq!(read.is_ok(), sound, "another disk that holds {upto}");
        }
    }

    #[test]
    fn a_register_with_the_value_of_another_kind_is_damage() {
        let key = RegisterKey::Mark(RoomId::new(1), AccountId::new(1));
        let mark = Register::Mark { seen: Vector::new() };
        let direct = Register::Direct { low: AccountId::new(1), high: AccountId::new(2) };
        let read = |value| read_row(Table::Registers, &register_key(&key), &register_value(value));
        assert_eq!(read(&mark), Ok(Found::Register(key, mark.clone())));
        assert!(read(&direct).is_err());
    }
}
