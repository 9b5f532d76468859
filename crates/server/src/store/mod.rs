//! The disk of a server: [`FjallStore`] keeps what `chatty_core::store` plans in a fjall database.
//!
//! What a batch writes and how a question is answered is decided in the core; here is only where
//! a row lies and what makes it durable. One writer, any number of readers beside it. A commit is
//! one atomic journal record and one `fdatasync`.

mod rows;
mod tables;
mod view;
mod writes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use chatty_core::id::{Log, Origin};
use chatty_core::store::{
    Batch, Committed, Loaded, LoadedLog, Query, Reader, Rows, Store, StoreError, answer, plan,
};
use fjall::{Guard, PersistMode, Readable};

use rows::{read_disk, read_log, read_register, read_register_key, read_slot, read_sum, tag};
use tables::{Tables, store_error};
use view::Frozen;
use writes::Writes;

/// The open database, or nothing while it cannot be opened again after a failed write.
type Shared = Arc<RwLock<Option<Tables>>>;

/// A disk in a folder.
pub struct FjallStore {
    folder: PathBuf,
    shared: Shared,
    heads: BTreeMap<Log, LoadedLog>,
    health: Health,
}

/// Whether the database takes writes.
enum Health {
    Sound,
    /// A write failed before it reached the disk: the database has to be opened again.
    Failed,
}

impl FjallStore {
    /// Opens the database in that folder, or makes one.
    ///
    /// # Errors
    /// The folder cannot be used, or what is in it is damaged or of another format.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let tables = Tables::open(folder)?;
        let heads = read_heads(&tables)?;
        Ok(Self {
            folder: folder.to_owned(),
            shared: Arc::new(RwLock::new(Some(tables))),
            heads,
            health: Health::Sound,
        })
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
                Some(row) => Some(postcard::from_bytes::<RunRow>(&row).map_err(|_| {
                    StoreError::Corrupt("the row of the newest run does not parse".into())
                })?),
            };
            // A run that wrote nothing is nobody's predecessor: no other server heard of it.
            let prev = before.and_then(|(run, prev)| match heads.get(&Log::of(run)) {
                Some(held) => Some((run, held.upto)),
                None => prev,
            });
            let row = postcard::to_allocvec::<RunRow>(&(run, prev)).unwrap_or_default();
            let mut batch = tables.db.batch().durability(Some(PersistMode::SyncData));
            batch.insert(&tables.meta, tag::RUN, row);
            batch.commit().map_err(store_error)?;
            Ok(prev)
        })
    }

    /// Opens the database again after a failed write. What failed must not have arrived: a write
    /// that the kernel took and did not confirm cannot be told from one that is safe.
    fn reopen(&mut self) -> Result<(), StoreError> {
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        *shared = None;
        let tables = Tables::open(&self.folder)?;
        if read_heads(&tables)? != self.heads {
            return Err(StoreError::Corrupt(
                "a write that failed is there all the same; start the server again".into(),
            ));
        }
        *shared = Some(tables);
        self.health = Health::Sound;
        Ok(())
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
            Ok(loaded)
        })
    }

    fn commit(&mut self, batch: &Batch) -> Result<Committed, StoreError> {
        if matches!(self.health, Health::Failed) {
            self.reopen()?;
        }
        let heads = self.heads_after(batch)?;
        let committed = with_tables(&self.shared, |tables| {
            let (rows, done) = plan(&Frozen::now(tables), batch)?;
            let mut writes = Writes::new(tables, rows.len() + heads.len());
            for row in &rows {
                writes.row(row)?;
            }
            heads.values().for_each(|head| writes.head(head));
            Ok(writes.commit().map(|()| done))
        })?;
        let done = committed.map_err(|error| {
            self.health = Health::Failed;
            store_error(error)
        })?;
        self.heads.extend(heads);
        Ok(done)
    }

    fn reader(&self) -> FjallReader {
        FjallReader { shared: self.shared.clone() }
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
        None => Err(StoreError::Io("the database is closed after a failed write".into())),
    }
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
mod tests;
