//! The disk of a server: [`FjallStore`] keeps what `chatty_core::store` plans in a fjall database.
//!
//! What a batch writes and how a question is answered is decided in the core; here is only where
//! a row lies and what makes it durable. One writer, any number of readers beside it. A commit is
//! one atomic journal record and one `fdatasync`.
//!
//! - `rows.rs`, `tables.rs`, `view.rs`, `writes.rs`: the database's keyspaces, read and written
//! - `row.rs`: any one row, read
//! - `high.rs`: beside the database, how much of it was durable
//! - `mend.rs`: cutting damage out
//! - `begin.rs`: a run's first look, mended if need be
//! - `contents.rs`, `journal.rs`, `version.rs`: damage over which the database would end the process

mod begin;
mod contents;
mod high;
mod journal;
mod mend;
mod row;
mod rows;
mod tables;
mod version;
mod view;
mod writes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use chatty_core::id::{Log, Origin};
use chatty_core::io::Standing;
use chatty_core::store::{
    Batch, Committed, Entry, Loaded, LoadedLog, Query, Reader, Row, Rows, Store, StoreError,
    answer, plan,
};
use fjall::{Guard, PersistMode, Readable};

pub use begin::{Begun, begin};
pub use mend::note_damage;
pub use row::{Found, Table, read_row};

use high::High;
use rows::{
    read_disk, read_log, read_register, read_register_key, read_slot, read_standing, read_sum, tag,
};
use tables::{Tables, store_error};
use view::Frozen;
use writes::Writes;

/// The open database, or nothing while it cannot be opened again after a failed write.
type Shared = Arc<RwLock<Option<Tables>>>;

/// What other servers have is written until only this part of the reserve is left.
const LEAST: u64 = 4;

/// A disk in a folder.
pub struct FjallStore {
    folder: PathBuf,
    shared: Shared,
    heads: BTreeMap<Log, LoadedLog>,
    health: Health,
    high: High,
    /// Bytes of the volume that are left alone.
    reserve: u64,
    /// Whether the database was opened again after tidying up failed, and nothing was written since.
    tried_again: bool,
}

/// Whether the database takes writes.
enum Health {
    Sound,
    /// There was no room for a write: the database has to be opened again. It may be there all the
    /// same, whole, since what was left of it is written when the database is closed.
    Full(Option<Unsure>),
    /// The disk did not confirm a write. The kernel may have dropped what it could not write, so
    /// that another attempt would succeed without it.
    Unconfirmed(String),
}

/// A write of which it is not known whether it arrived.
#[derive(Clone)]
struct Unsure {
    /// The logs it continues, as they are with it.
    heads: BTreeMap<Log, LoadedLog>,
    /// What it writes.
    rows: Vec<Row>,
    done: Committed,
}

impl Unsure {
    /// Whether these are the batch's events.
    fn is_of(&self, batch: &Batch) -> bool {
        let is_here = |e: &Entry| {
            self.heads
                .get(&e.log)
                .is_some_and(|head| e.event.seq < head.upto || e.chain == head.chain)
        };
        !batch.entries.is_empty()
            && batch.entries.len() == self.done.outcomes.len()
            && batch.entries.iter().all(is_here)
    }
}

fn unconfirmed(why: &str) -> StoreError {
    StoreError::Unusable(format!(
        "the disk did not confirm a write ({why}); check the disk, then start the server again"
    ))
}

impl FjallStore {
    /// Opens the database in that folder, or makes one.
    ///
    /// # Errors
    /// The folder cannot be used, or what is in it is damaged or of another format.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let tables = Tables::open(folder)?;
        let heads = read_heads(&tables)?;
        let (high, before) = High::open(folder)?;
        let short = before.is_some_and(|before| before > events_of(&heads));
        let mut store = Self {
            folder: folder.to_owned(),
            shared: Arc::new(RwLock::new(Some(tables))),
            heads,
            health: Health::Sound,
            high,
            reserve: 0,
            tried_again: false,
        };
        if short && store.load()?.standing == Standing::Sound {
            let standing = Some(Standing::Lossy);
            store.commit(&Batch { standing, ..Batch::default() })?;
        }
        Ok(store)
    }

    /// Has no room for what clients write while less than this is free on the volume, and refuses all
    /// writes below a part of it (`LEAST`): the database does not recover well from a write that
    /// found no room, and needs some to tidy up.
    #[must_use]
    pub const fn with_reserve(mut self, bytes: u64) -> Self {
        self.reserve = bytes;
        self
    }

    /// Bytes that are free for this process on the volume.
    fn free(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(&self.folder).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Whether so many bytes are free on the volume.
    fn check_free(&self, least: u64) -> Result<(), String> {
        const MIB: u64 = 1024 * 1024;
        match self.free().filter(|free| *free < least) {
            None => Ok(()),
            Some(free) => Err(format!(
                "the disk is full: {} MiB are free, {} MiB are kept in reserve; make room on the \
                 volume of {}",
                free / MIB,
                self.reserve / MIB,
                self.folder.display()
            )),
        }
    }

    /// Whether there is room for any write.
    fn check_room(&self) -> Result<(), StoreError> {
        self.check_free(self.reserve / LEAST).map_err(StoreError::Io)
    }

    /// Writes down, durably, that a new run of the server begins, and tells the newest run before
    /// it that wrote events here and how many: what the new run's Boot names as its predecessor.
    ///
    /// # Errors
    /// The disk failed or is damaged; the run must not begin.
    pub fn begin_run(&mut self, run: Origin) -> Result<Option<(Origin, u64)>, StoreError> {
        let heads = &self.heads;
        with_tables(&self.shared, |tables| {
            let before = match tables.meta.get(tag::RUN).map_err(store_error)? {
                None => None,
                Some(row) => Some(read_run(&row)?),
            };
            // A run that wrote nothing is nobody's predecessor: no other server heard of it.
            let prev = before.and_then(|(run, prev)| match heads.get(&Log::of(run)) {
                Some(held) => Some((run, held.upto)),
                None => prev,
            });
            let row = postcard::to_allocvec::<RunRow>(&(run, prev)).unwrap_or_default();
            put_run(tables, &row)?;
            Ok(prev)
        })
    }

    /// Keeps the row of the newest run as another database had it.
    fn put_run(&self, row: &[u8]) -> Result<(), StoreError> {
        with_tables(&self.shared, |tables| put_run(tables, row))
    }

    /// Opens the database again after there was no room for a write. Tells what the write did if
    /// it is there.
    fn reopen(&mut self, unsure: Option<Unsure>) -> Result<Option<Unsure>, StoreError> {
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        *shared = None;
        let tables = Tables::open(&self.folder)?;
        // What was read back came from the kernel's memory, not from the disk.
        tables.db.persist(PersistMode::SyncAll).map_err(store_error)?;
        let found = read_heads(&tables)?;
        let mut with = self.heads.clone();
        with.extend(unsure.iter().flat_map(|unsure| unsure.heads.clone()));
        let arrived = if found == self.heads {
            None
        } else if found == with {
            unsure
        } else {
            let what = "the logs are not as they were written";
            return Err(StoreError::Corrupt(what.into()));
        };
        self.heads = found;
        *shared = Some(tables);
        self.health = Health::Sound;
        Ok(arrived)
    }

    fn has_room(&self) -> bool {
        const TIDY_BYTES: u64 = 64 * 1024 * 1024;
        self.free().is_some_and(|free| free > self.reserve.max(TIDY_BYTES))
    }

    /// What a failed commit means for the next one.
    fn failed(&mut self, error: fjall::Error, unsure: Unsure) -> StoreError {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        self.health = match &error {
            fjall::Error::Io(error) if matches!(error.kind(), StorageFull | QuotaExceeded) => {
                Health::Full(Some(unsure))
            }
            // A thread in the background failed, perhaps long ago; this write was not begun. If it
            // fails again at once although there is room, it did not lack room but found damage.
            fjall::Error::Poisoned if self.tried_again && self.has_room() => {
                return StoreError::Corrupt("tidying up the database fails again and again".into());
            }
            fjall::Error::Poisoned => {
                self.tried_again = true;
                Health::Full(None)
            }
            error => Health::Unconfirmed(error.to_string()),
        };
        match &self.health {
            Health::Unconfirmed(why) => unconfirmed(why),
            Health::Sound | Health::Full(_) => store_error(error),
        }
    }

    fn write(&mut self, unsure: Unsure) -> Result<Committed, StoreError> {
        let written = with_tables(&self.shared, |tables| {
            let mut writes = Writes::new(tables, unsure.rows.len() + unsure.heads.len());
            for row in &unsure.rows {
                writes.row(row)?;
            }
            unsure.heads.values().for_each(|head| writes.head(head));
            Ok(writes.commit())
        })?;
        if let Err(error) = written {
            return Err(self.failed(error, unsure));
        }
        self.heads.extend(unsure.heads);
        self.tried_again = false;
        self.high.raise(events_of(&self.heads));
        Ok(unsure.done)
    }

    /// The heads of the logs after a batch; an error if it does not continue what is held.
    fn heads_after(&self, batch: &Batch) -> Result<BTreeMap<Log, LoadedLog>, StoreError> {
        let mut heads = BTreeMap::new();
        for entry in &batch.entries {
            let (log, event) = (entry.log, &entry.event);
            let held = heads.get(&log).or_else(|| self.heads.get(&log));
            let next = held.map_or(1, |held: &LoadedLog| held.upto + 1);
            if event.seq != next {
                return Err(StoreError::Corrupt(format!(
                    "event {} of log {log} was to be written where event {next} is due",
                    event.seq
                )));
            }
            let head = LoadedLog { log, upto: next, chain: entry.chain, hlc: event.hlc };
            heads.insert(log, head);
        }
        Ok(heads)
    }
}

/// The newest run, and the newest one before it that wrote events.
type RunRow = (Origin, Option<(Origin, u64)>);

fn read_run(row: &[u8]) -> Result<RunRow, StoreError> {
    postcard::from_bytes(row)
        .map_err(|_| StoreError::Corrupt("the row of the newest run does not parse".into()))
}

impl Store for FjallStore {
    type Reader = FjallReader;

    fn load(&mut self) -> Result<Loaded, StoreError> {
        with_tables(&self.shared, |tables| {
            let mut loaded =
                Loaded { logs: self.heads.values().copied().collect(), ..Loaded::default() };
            for row in tables.db.snapshot().iter(&tables.reg) {
                let (key, value) = row.into_inner().map_err(store_error)?;
                let key = read_register_key(&key)?;
                loaded.registers.push((key, read_register(&key, &value)?));
            }
            loaded.registers.sort_by_key(|(key, _)| *key);
            loaded.sums = meta_rows(tables, tag::SUM, read_sum)?;
            loaded.disks = meta_rows(tables, tag::DISK, read_disk)?;
            loaded.slots = meta_rows(tables, tag::SLOT, read_slot)?;
            if let Some(row) = tables.meta.get(tag::STANDING).map_err(store_error)? {
                loaded.standing = read_standing(&row)?;
            }
            Ok(loaded)
        })
    }

    fn commit(&mut self, batch: &Batch) -> Result<Committed, StoreError> {
        match &self.health {
            Health::Sound => {}
            Health::Unconfirmed(why) => return Err(unconfirmed(why)),
            Health::Full(unsure) => {
                self.check_room()?;
                if let Some(arrived) = self.reopen(unsure.clone())?
                    && arrived.is_of(batch)
                {
                    // Read back, but from the kernel's memory perhaps: written once more.
                    return self.write(arrived);
                }
            }
        }
        self.check_room()?;
        let heads = self.heads_after(batch)?;
        let (rows, done) = with_tables(&self.shared, |tables| plan(&Frozen::now(tables), batch))?;
        self.write(Unsure { heads, rows, done })
    }

    fn room(&self) -> Result<(), String> {
        self.check_free(self.reserve)
    }

    fn reader(&self) -> FjallReader {
        FjallReader { shared: self.shared.clone() }
    }
}

impl Drop for FjallStore {
    /// Closes the database, also if readers are still about.
    fn drop(&mut self) {
        *self.shared.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Reads beside the writer.
#[derive(Clone)]
pub struct FjallReader {
    shared: Shared,
}

impl Reader for FjallReader {
    fn read(&self, query: &Query) -> Result<Rows, StoreError> {
        with_tables(&self.shared, |tables| answer(&Frozen::now(tables), query))
    }
}

fn with_tables<T>(
    shared: &Shared,
    run: impl FnOnce(&Tables) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    match &*shared.read().unwrap_or_else(PoisonError::into_inner) {
        Some(tables) => run(tables),
        None => Err(StoreError::Io("the database is closed".into())),
    }
}

fn put_run(tables: &Tables, row: &[u8]) -> Result<(), StoreError> {
    let mut batch = tables.db.batch().durability(Some(PersistMode::SyncData));
    batch.insert(&tables.meta, tag::RUN, row);
    batch.commit().map_err(store_error)
}

/// Events of all logs.
fn events_of(heads: &BTreeMap<Log, LoadedLog>) -> u64 {
    heads.values().fold(0, |sum, head| sum.saturating_add(head.upto))
}

fn read_heads(tables: &Tables) -> Result<BTreeMap<Log, LoadedLog>, StoreError> {
    let logs = meta_rows(tables, tag::LOG, read_log)?;
    Ok(logs.into_iter().map(|held| (held.log, held)).collect())
}

/// All rows of `meta` under a tag, parsed.
fn meta_rows<T>(
    tables: &Tables,
    tag: u8,
    read: impl Fn(&[u8], &[u8]) -> Option<T>,
) -> Result<Vec<T>, StoreError> {
    let bad = || StoreError::Corrupt(format!("a row '{}' of meta does not parse", tag as char));
    let row = |row: Guard| {
        let (key, value) = row.into_inner().map_err(store_error)?;
        read(&key, &value).ok_or_else(bad)
    };
    tables.db.snapshot().prefix(&tables.meta, [tag]).map(row).collect()
}

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod tests;
