//! Cutting damage out: what can be proved is copied to a new database, and the rest comes from the
//! other servers again.
//!
//! A flipped bit makes a block of the database unreadable, for compaction too, so a single row cannot
//! be mended in its place. The damaged database is set aside as a whole (the newest is kept, for the
//! operator to look at) and each log is copied as far as its chain proves it; timelines, registers
//! and sums are made anew from that. The new disk is `Lossy`: it says so in every hello, is counted
//! by what it holds now, and is sound when it has fetched what it lost. It never asks anybody to
//! delete anything.
//!
//! Every step can be repeated, so a crash in between costs a second try: the note of the damage
//! goes last.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use chatty_core::event::CHAIN_START;
use chatty_core::id::Log;
use chatty_core::io::Standing;
use chatty_core::store::{Batch, Entry, Store as _, StoreError, View as _};
use fjall::Readable as _;

use super::rows::{event_key, log_of_event_key, read_log, read_slot, read_standing, tag};
use super::tables::Tables;
use super::view::Frozen;
use super::{FjallStore, events_of, read_run};

/// Events copied in one batch, at most.
const COPY_EVENTS: u64 = 1024;
/// Their bytes.
const COPY_BYTES: usize = 1024 * 1024;

/// What mending came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mended {
    /// Events that were proved and kept.
    pub kept: u64,
    /// Whether the damaged database could be opened at all.
    pub opened: bool,
}

/// Notes that the database in `folder` is damaged and must be mended before it is used again.
///
/// # Errors
/// The note could not be written.
pub fn note_damage(folder: &Path, why: &str) -> io::Result<()> {
    let mut file = File::create(note(folder))?;
    writeln!(file, "{why}")?;
    file.sync_all()?;
    sync_parent(folder)
}

/// Whether damage was noted and not mended yet; what was noted.
pub fn needs_mending(folder: &Path) -> Option<String> {
    // The note's content is for people; a damaged note is a note all the same.
    let bytes = fs::read(note(folder)).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// Makes the database in `folder` anew from what of it can be proved.
///
/// # Errors
/// The new database cannot be written; the note stays, and the next start tries again.
pub fn mend(folder: &Path) -> Result<Mended, StoreError> {
    let (aside, fresh) = (folder.with_extension("damaged"), folder.with_extension("new"));
    let io = |error: io::Error| StoreError::Io(format!("{}: {error}", folder.display()));
    if folder.exists() {
        remove(&aside).map_err(io)?;
        fs::rename(folder, &aside).map_err(io)?;
        sync_parent(folder).map_err(io)?;
    }
    remove(&fresh).map_err(io)?;
    let mut store = FjallStore::open(&fresh)?;
    // The database is not made for damaged files: it may give up in the middle.
    let copied = catch_unwind(AssertUnwindSafe(|| copy(&aside, &mut store)));
    let opened = copied.unwrap_or(Ok(false))?;
    let standing = Some(Standing::Lossy.max(store.load()?.standing));
    store.commit(&Batch { standing, ..Batch::default() })?;
    let kept = events_of(&store.heads);
    store.high.raise(kept);
    drop(store);
    fs::rename(&fresh, folder).map_err(io)?;
    sync_parent(folder).map_err(io)?;
    fs::remove_file(note(folder)).or_else(absent).map_err(io)?;
    Ok(Mended { kept, opened })
}

/// Copies what can be proved; tells whether the damaged database could be opened. Its errors end
/// only what they are found in.
///
/// # Errors
/// The new database's.
fn copy(from: &Path, to: &mut FjallStore) -> Result<bool, StoreError> {
    let tables = match Tables::open(from) {
        Ok(tables) => tables,
        // The disk itself fails, or has no room: that proves nothing about what is on it.
        Err(error @ StoreError::Io(_)) => return Err(error),
        Err(_) => return Ok(false),
    };
    let slots = tables.db.snapshot().prefix(&tables.meta, [tag::SLOT]).map_while(|row| {
        let (key, value) = row.into_inner().ok()?;
        read_slot(&key, &value)
    });
    let standing = tables.meta.get(tag::STANDING).ok().flatten();
    let standing = standing.and_then(|row| read_standing(&row).ok());
    to.commit(&Batch { slots: slots.collect(), standing, ..Batch::default() })?;
    if let Ok(Some(run)) = tables.meta.get(tag::RUN)
        && read_run(&run).is_ok()
    {
        to.put_run(&run)?;
    }
    let view = Frozen::now(&tables);
    for log in logs(&tables) {
        copy_log(&view, log, to)?;
    }
    Ok(true)
}

/// Every log that some readable row names.
fn logs(tables: &Tables) -> BTreeSet<Log> {
    let snapshot = tables.db.snapshot();
    let heads = snapshot.prefix(&tables.meta, [tag::LOG]).map_while(|row| {
        let (key, value) = row.into_inner().ok()?;
        Some(read_log(&key, &value)?.log)
    });
    let mut logs: BTreeSet<Log> = heads.collect();
    // Rows of `meta` may be what is damaged: one look at the beginning of each log. A key of another
    // length than ours is stepped over by itself, wherever it sorts.
    let mut from = Vec::new();
    while let Some(row) = snapshot.range(&tables.log, from..).next()
        && let Ok(key) = row.key()
    {
        from = key.to_vec();
        if let Some(log) = log_of_event_key(&key) {
            logs.insert(log);
            from = from.max(event_key(log, u64::MAX).to_vec());
        }
        from.push(0);
    }
    logs
}

fn copy_log(view: &Frozen<'_>, log: Log, to: &mut FjallStore) -> Result<(), StoreError> {
    let (mut next, mut chain) = (1, CHAIN_START);
    loop {
        let read = view.events(log, next, next.saturating_add(COPY_EVENTS - 1), COPY_BYTES);
        // One at a time up to the damage, if a whole piece cannot be read.
        let read = read.or_else(|_| view.events(log, next, next, COPY_BYTES));
        let entries = match read {
            Ok(entries) => entries,
            Err(error @ StoreError::Io(_)) => return Err(error),
            Err(_) => return Ok(()),
        };
        let mut proved: Vec<Entry> = Vec::new();
        for entry in entries {
            let after = entry.event.chain(chain);
            if entry.event.seq != next || entry.chain != after {
                break;
            }
            (next, chain) = (next + 1, after);
            proved.push(entry);
        }
        if proved.is_empty() {
            return Ok(());
        }
        to.commit(&Batch { entries: proved, ..Batch::default() })?;
    }
}

fn note(folder: &Path) -> PathBuf {
    folder.with_extension("damage-noted")
}

fn remove(folder: &Path) -> io::Result<()> {
    fs::remove_dir_all(folder).or_else(absent)
}

fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn sync_parent(folder: &Path) -> io::Result<()> {
    folder.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}
