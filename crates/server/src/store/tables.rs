//! The database: six keyspaces, their memory bounds, and its errors in our words.

use std::path::Path;
use std::sync::Arc;

use chatty_core::store::StoreError;
use fjall::compaction::Leveled;
use fjall::{Database, Keyspace, KeyspaceCreateOptions};

use super::rows::{FORMAT, tag};
use super::{contents, journal, version};

/// Cached blocks. Little, since the kernel caches the files too.
const CACHE_BYTES: u64 = 8 * MIB;
/// All journals: what a start after a crash replays, at most.
const JOURNAL_BYTES: u64 = 128 * MIB;
/// Flushing and compaction: one, since of two one spins while the other compacts.
const WORKERS: usize = 1;
/// Tables are cut at this size. Four of them are the first level, and a compaction rewrites as much
/// of a level as the new rows lie between. Our rows come in order, or at a few places of an order:
/// with small tables most is not touched again. (The database's 64 MiB would make the first level
/// 256 MiB: a store of a million messages was rewritten with every fourth full memtable.)
const TABLE_BYTES: u64 = 4 * MIB;
const MIB: u64 = 1024 * 1024;

/// What a write is told after a thread of the database failed.
const POISONED: &str = "an earlier write failed";

/// An open database.
pub(super) struct Tables {
    pub(super) db: Database,
    /// (origin, shard, seq) → chain, event.
    pub(super) log: Keyspace,
    /// (room, key) → nothing: each room's timeline.
    pub(super) tl: Keyspace,
    /// (mid, account, room) → the keys of that identity, the smallest first.
    pub(super) mid: Keyspace,
    /// Registers.
    pub(super) reg: Keyspace,
    /// key → register: writes that lost and are not erased yet.
    pub(super) lost: Keyspace,
    /// Heads of logs, sums of rooms, other servers' disks, holders of slots, the runs.
    pub(super) meta: Keyspace,
}

impl Tables {
    /// Opens the database in that folder, or makes one.
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        contents::check(folder)?;
        version::check(folder)?;
        journal::cut(folder).map_err(|error| StoreError::Io(error.to_string()))?;
        let db = Database::builder(folder)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(WORKERS)
            .manual_journal_persist(true)
            .open()
            .map_err(store_error)?;
        // Full memtables are written out: they bound the memory, together about 30 MiB under load.
        let open = |name, memtable_mib: u64| {
            let compaction = Leveled::default().with_table_target_size(TABLE_BYTES);
            let options = || {
                KeyspaceCreateOptions::default()
                    .max_memtable_size(memtable_mib * MIB)
                    .compaction_strategy(Arc::new(compaction))
            };
            db.keyspace(name, options).map_err(store_error)
        };
        let (log, tl, mid) = (open("log", 8)?, open("tl", 4)?, open("mid", 4)?);
        let (reg, lost, meta) = (open("reg", 2)?, open("lost", 1)?, open("meta", 2)?);
        let tables = Self { db, log, tl, mid, reg, lost, meta };
        tables.check_format()?;
        Ok(tables)
    }

    fn check_format(&self) -> Result<(), StoreError> {
        match self.meta.get(tag::FORMAT).map_err(store_error)? {
            Some(format) if *format == FORMAT.to_be_bytes() => Ok(()),
            Some(format) => Err(StoreError::Unusable(format!(
                "the data has format {format:?}, this version reads format {FORMAT}; start the \
                 version of chatty-server that wrote it"
            ))),
            None => {
                let mut batch = self.db.batch().durability(Some(fjall::PersistMode::SyncData));
                batch.insert(&self.meta, tag::FORMAT, FORMAT.to_be_bytes());
                batch.commit().map_err(store_error)
            }
        }
    }
}

/// The database's error, told apart by who is at fault: the disk, or what is on it.
pub(super) fn store_error(error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => {
            use std::io::ErrorKind::{
                AlreadyExists, InvalidData, InvalidInput, NotFound, UnexpectedEof,
            };
            match error.kind() {
                // A file that another one names is gone or cut short; or the one that says that
                // there is a database is gone, and a new one is begun where the old one lies.
                NotFound | UnexpectedEof | InvalidData | InvalidInput | AlreadyExists => {
                    StoreError::Corrupt(error.to_string())
                }
                _ => StoreError::Io(error.to_string()),
            }
        }
        fjall::Error::Poisoned => StoreError::Io(POISONED.into()),
        fjall::Error::Locked => StoreError::Io("another process has the database open".into()),
        error => StoreError::Corrupt(error.to_string()),
    }
}
