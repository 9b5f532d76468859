//! Flipped bits and torn files: nothing wrong is ever read, nothing is lost without being known.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chatty_core::event::{Body, Event, Msg};
use chatty_core::id::{AccountId, Log, Mid, Origin, RoomId};
use chatty_core::io::Standing;
use chatty_core::rng::Rng;
use chatty_core::scrub;
use chatty_core::store::{Batch, Entry, Query, Reader as _, Rows, Store as _, StoreError};
use chatty_core::time::Hlc;
use chatty_core::vector::Vector;
use tempfile::TempDir;

use super::{Begun, FjallStore, begin, note_damage};

const LOGS: u128 = 3;
const ROOMS: u64 = 4;

fn log(n: u128) -> Log {
    Log::of(Origin::new(n))
}

/// Messages of some hundred bytes in a few logs and rooms, in batches.
fn batches(events: u64) -> Vec<Batch> {
    let mut rng = Rng::new(7);
    let mut ends: Vec<(u64, u64)> = vec![(0, 0); LOGS as usize];
    let mut entry = |nth: u64| {
        let of = (nth % LOGS as u64) as usize;
        let (seq, chain) = &mut ends[of];
        *seq += 1;
        let text: String = (0..400).map(|_| char::from(b'a' + rng.below(26) as u8)).collect();
        let body = Body::Msg(Msg { nick: "ann".into(), text });
        let event = Event {
            seq: *seq,
            hlc: Hlc::at_ms(nth),
            wall_ms: nth,
            room: RoomId::new(u128::from(nth % ROOMS)),
            actor: AccountId::new(1),
            mid: Mid::at(nth, rng.bits128()),
            kind: body.kind(),
            body: body.encode(),
        };
        *chain = event.chain(*chain);
        Entry { log: log(of as u128), event: event.into(), chain: *chain }
    };
    let numbers: Vec<u64> = (0..events).collect();
    numbers
        .chunks(100)
        .map(|piece| Batch {
            entries: piece.iter().map(|n| entry(*n)).collect(),
            ..Batch::default()
        })
        .collect()
}

/// A closed database of so many events in `folder/db`.
fn filled(folder: &Path, events: u64) -> Vec<Entry> {
    let mut store = begin(&folder.join("db"), Origin::new(99)).unwrap().store;
    let batches = batches(events);
    for batch in &batches {
        store.commit(batch).unwrap();
    }
    batches.into_iter().flat_map(|batch| batch.entries).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Reads everything again, as a verification does; what is wrong.
fn scrubbed(store: &FjallStore, within: &Arc<Vector>) -> Option<String> {
    let rooms: Arc<[RoomId]> = (0..ROOMS).map(|n| RoomId::new(u128::from(n))).collect();
    let mut at = scrub::start(within, &rooms);
    let reader = store.reader();
    while let Some(here) = at {
        let query = Query::Scrub { at: here, within: within.clone(), rooms: rooms.clone() };
        match catch_unwind(AssertUnwindSafe(|| reader.read(&query))) {
            Ok(Ok(Rows::Scrubbed(piece))) => match piece.wrong() {
                Some(why) => return Some(why.into()),
                None => at = piece.next,
            },
            Ok(Err(StoreError::Corrupt(why))) => return Some(why),
            Ok(other) => panic!("{other:?}"),
            Err(_) => return Some("the database gave up".into()),
        }
    }
    None
}

/// Starts on a folder as a server does, verifies, mends what is found; what stands there then.
fn started(folder: &Path) -> Begun {
    let db = folder.join("db");
    for _ in 0..3 {
        let begun = begin(&db, Origin::new(100)).unwrap();
        let within = Arc::new(begun.loaded.logs.iter().map(|l| (l.log, l.upto)).collect());
        match scrubbed(&begun.store, &within) {
            None => return begun,
            Some(why) => {
                drop(begun);
                note_damage(&db, &why).unwrap();
            }
        }
    }
    panic!("mended three times and still damaged");
}

/// What stands there is a part of what was written, and short only if the disk says so. Tells
/// whether something was lost.
fn assert_honest(begun: &Begun, written: &[Entry], what: &str) -> bool {
    let mut short = false;
    for n in 0..LOGS {
        let all: Vec<&Entry> = written.iter().filter(|entry| entry.log == log(n)).collect();
        let held = begun.loaded.logs.iter().find(|held| held.log == log(n));
        let upto = held.map_or(0, |held| held.upto);
        assert!(upto <= all.len() as u64, "{what}: more than was written");
        if let Some(last) = (upto as usize).checked_sub(1) {
            assert_eq!(held.map(|held| held.chain), Some(all[last].chain), "{what}: another log");
        }
        short |= upto < all.len() as u64;
    }
    let lossy = begun.loaded.standing == Standing::Lossy;
    assert!(lossy || !short, "{what}: events are missing and the disk does not say so");
    short
}

#[test]
fn a_bit_flipped_anywhere_is_found_and_only_what_is_right_is_kept() {
    let folder = TempDir::new().unwrap();
    let written = filled(folder.path(), 20_000); // more than fits the memory: tables are there
    let whole = folder.path().join("db");
    let all = files(&whole);
    assert!(all.iter().any(|file| file.to_string_lossy().contains("tables")), "{all:?}");
    let mut rng = Rng::new(11);
    let mut lost = 0;
    for file in &all {
        let bytes = fs::metadata(file).unwrap().len();
        for _ in 0..if bytes > 100_000 { 4 } else { 1 } {
            if bytes == 0 {
                continue;
            }
            let (at, bit) = (rng.below(bytes) as usize, rng.below(8));
            let name = file.strip_prefix(&whole).unwrap();
            let what = format!("bit {bit} of byte {at} of {bytes} in {}", name.display());
            let struck = TempDir::new_in(folder.path()).unwrap();
            copy(&whole, &struck.path().join("db"));
            fs::copy(folder.path().join("db.high"), struck.path().join("db.high")).unwrap();
            let target = struck.path().join("db").join(name);
            let mut content = fs::read(&target).unwrap();
            content[at] ^= 1 << bit;
            fs::write(&target, content).unwrap();
            let begun = started(struck.path());
            lost += usize::from(assert_honest(&begun, &written, &what));
        }
    }
    assert!(lost > 0, "no flip cost anything: the test strikes nothing");
}

#[test]
fn a_file_cut_or_torn_anywhere_is_found_and_only_what_is_right_is_kept() {
    let folder = TempDir::new().unwrap();
    let written = filled(folder.path(), 20_000);
    let whole = folder.path().join("db");
    let mut rng = Rng::new(12);
    let mut lost = 0;
    for file in &files(&whole) {
        let bytes = fs::metadata(file).unwrap().len();
        for nth in 0..if bytes > 100_000 { 4 } else { 1 } {
            let at = rng.below(bytes + 1);
            let name = file.strip_prefix(&whole).unwrap();
            let torn = nth % 2 == 1;
            let what = format!("{} at {at} of {bytes}, torn: {torn}", name.display());
            let struck = TempDir::new_in(folder.path()).unwrap();
            copy(&whole, &struck.path().join("db"));
            fs::copy(folder.path().join("db.high"), struck.path().join("db.high")).unwrap();
            let target = struck.path().join("db").join(name);
            let mut content = fs::read(&target).unwrap();
            if torn {
                let end = (at as usize + 4096).min(content.len());
                content[at as usize..end].fill(0);
                fs::write(&target, content).unwrap();
            } else {
                fs::File::options().write(true).open(&target).unwrap().set_len(at).unwrap();
            }
            let begun = started(struck.path());
            lost += usize::from(assert_honest(&begun, &written, &what));
        }
    }
    assert!(lost > 0, "no cut cost anything: the test strikes nothing");
}

#[test]
fn mending_that_is_cut_short_is_done_again() {
    let folder = TempDir::new().unwrap();
    let written = filled(folder.path(), 300);
    let db = folder.path().join("db");
    note_damage(&db, "a test").unwrap();
    // As after a crash between setting aside and the new database.
    fs::rename(&db, db.with_extension("damaged")).unwrap();
    fs::create_dir(db.with_extension("new")).unwrap();
    let begun = begin(&db, Origin::new(100)).unwrap();
    assert!(!assert_honest(&begun, &written, "all of it could be proved"));
    assert_eq!(begun.loaded.standing, Standing::Lossy);
    assert_eq!(begun.prev.map(|(run, _)| run), None, "the run before wrote nothing");
}

#[test]
fn writes_of_clients_are_refused_in_the_reserve_and_all_in_its_last_quarter() {
    let folder = TempDir::new().unwrap();
    let store = FjallStore::open(&folder.path().join("db")).unwrap();
    let free = store.free().unwrap();
    let [first, second, third] = &batches(300)[..] else { unreachable!() };
    let mut store = store.with_reserve(0);
    assert_eq!(store.room(), Ok(()));
    store.commit(first).unwrap();
    let mut store = store.with_reserve(free.saturating_mul(2));
    assert!(store.room().unwrap_err().contains("the disk is full"));
    store.commit(second).unwrap();
    let mut store = store.with_reserve(free.saturating_mul(8));
    let refused = store.commit(third).unwrap_err();
    assert!(refused.to_string().contains("the disk is full"), "{refused}");
}

#[test]
fn a_file_that_announces_more_than_it_holds_is_damage_and_not_the_end_of_the_process() {
    let folder = TempDir::new().unwrap();
    let written = filled(folder.path(), 300);
    let mut changed = 0;
    for path in files(folder.path()) {
        let mut content = fs::read(&path).unwrap();
        let Some(at) = content.windows(4).rposition(|bytes| bytes == b"TOC!") else { continue };
        if content.ends_with(&[0; 8]) || !content[at..].windows(4).any(|bytes| bytes == b"SFA!") {
            continue; // a journal
        }
        content[at + 7] = 0x7f; // some two thousand million entries
        fs::write(&path, content).unwrap();
        changed += 1;
    }
    assert!(changed > 0, "the database's files look otherwise");
    let begun = started(folder.path());
    assert!(assert_honest(&begun, &written, "contents"), "nothing of it could be opened");
}

#[test]
fn a_damaged_note_of_the_newest_run_is_not_carried_along() {
    let folder = TempDir::new().unwrap();
    let written = filled(folder.path(), 300);
    {
        let tables = super::tables::Tables::open(&folder.path().join("db")).unwrap();
        super::put_run(&tables, b"x").unwrap();
    }
    let begun = started(folder.path());
    assert!(!assert_honest(&begun, &written, "run"), "no event was damaged");
}

#[test]
fn a_database_that_lacks_any_of_its_files_is_mended() {
    let folder = TempDir::new().unwrap();
    let written = filled(folder.path(), 300);
    let whole = folder.path().join("db");
    // The other keyspaces have the same files as the log's.
    let others: Vec<PathBuf> = (2..=6).map(|nth| whole.join(format!("keyspaces/{nth}"))).collect();
    let once = |file: &PathBuf| !others.iter().any(|other| file.starts_with(other));
    for file in files(&whole).into_iter().filter(once) {
        let name = file.strip_prefix(&whole).unwrap();
        let struck = TempDir::new_in(folder.path()).unwrap();
        copy(&whole, &struck.path().join("db"));
        fs::copy(folder.path().join("db.high"), struck.path().join("db.high")).unwrap();
        fs::remove_file(struck.path().join("db").join(name)).unwrap();
        let begun = started(struck.path());
        assert_honest(&begun, &written, &format!("without {}", name.display()));
    }
}

/// Changes the last byte of a part of every version of a keyspace; how many were changed.
fn change_versions(keyspace: &Path, part: &[u8], to: u8) -> usize {
    let mut changed = 0;
    for path in files(keyspace) {
        let mut content = fs::read(&path).unwrap();
        // Its name in the table of contents follows its place, its length and that of the name.
        let name = content.windows(part.len()).rposition(|bytes| bytes == part);
        let Some(entry) = name.and_then(|name| name.checked_sub(18)) else { continue };
        let number = |at: usize| u64::from_le_bytes(content[at..at + 8].try_into().unwrap());
        let end = (number(entry) + number(entry + 8)) as usize;
        content[end - 1] = to;
        fs::write(&path, content).unwrap();
        changed += 1;
    }
    changed
}

#[test]
fn a_version_that_is_not_as_it_was_written_is_damage_and_not_the_end_of_the_process() {
    // Some two thousand million of what there are none of, and what the database takes for granted.
    for (part, to) in
        [(&b"blob_files"[..], 0x7f), (b"blob_gc_stats", 0x7f), (b"filter_hash_type", 1)]
    {
        let folder = TempDir::new().unwrap();
        let written = filled(folder.path(), 300);
        let changed = change_versions(&folder.path().join("db/keyspaces/1"), part, to);
        assert_eq!(changed, 1, "the database's files look otherwise");
        let begun = started(folder.path());
        assert!(assert_honest(&begun, &written, "a version"), "nothing of it could be opened");
    }
}

#[test]
fn a_journal_is_cut_before_a_row_that_announces_more_than_a_row_can_be() {
    let folder = TempDir::new().unwrap();
    let written = filled(folder.path(), 300);
    let db = folder.path().join("db");
    let path = db.join("0.jnl");
    let sound = fs::read(&path).unwrap();
    super::journal::cut(&db).unwrap();
    assert_eq!(fs::read(&path).unwrap(), sound, "a sound one is left alone");

    // The first row of the last batch: behind the end of the one before and its own beginning.
    let ends = |bytes: &[u8]| bytes == b"FJL\x03";
    let last = sound.windows(4).rposition(ends).unwrap();
    let row = sound[..last].windows(4).rposition(ends).unwrap() + 4 + 13;
    assert_eq!(sound[row], 2, "the database's journal looks otherwise");
    // 2 GiB of a packed value once it is unpacked, or of a value here.
    for (compression, length) in [(1, row + 16), (0, row + 20)] {
        let mut content = sound.clone();
        content[row + 2] = compression;
        content[length] = 0x7f;
        fs::write(&path, &content).unwrap();
        super::journal::cut(&db).unwrap();
        assert_eq!(fs::read(&path).unwrap(), sound[..row]);
    }
    let begun = started(folder.path());
    assert!(assert_honest(&begun, &written, "a journal"), "a batch is gone");
    let held: u64 = begun.loaded.logs.iter().map(|log| log.upto).sum();
    assert_eq!(held, 200, "the batches before it are there");
}

#[test]
fn rows_of_logs_with_keys_of_a_wrong_length_neither_hold_up_a_mend_nor_hide_a_log() {
    let folder = TempDir::new().unwrap();
    let written = filled(folder.path(), 300);
    let db = folder.path().join("db");
    {
        let tables = super::tables::Tables::open(&db).unwrap();
        let behind = [&super::rows::event_key(log(0), u64::MAX)[..], &[1]].concat();
        for key in [vec![0], behind] {
            tables.log.insert(key, b"x").unwrap();
        }
        // Only the rows themselves say which logs there are.
        for n in 0..LOGS {
            tables.meta.remove(super::rows::log_key(log(n))).unwrap();
        }
        tables.db.persist(fjall::PersistMode::SyncAll).unwrap();
    }
    note_damage(&db, "a test").unwrap();
    let begun = started(folder.path());
    assert!(!assert_honest(&begun, &written, "long keys"), "no event was damaged");
}
