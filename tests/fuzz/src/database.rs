//! A database in a folder, with arbitrary rows in it or arbitrary bytes in its files: a start finds
//! it sound or damaged, and what is damaged is mended.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};

use chatty_core::event::{Body, CHAIN_START, Event, Msg};
use chatty_core::id::{AccountId, Log, Mid, Origin, RoomId};
use chatty_core::scrub;
use chatty_core::store::{Batch, Entry, Query, Reader as _, Rows, Store as _, StoreError};
use chatty_core::time::{Hlc, Key};
use chatty_core::vector::Vector;
use chatty_server::store::{Begun, FjallStore, begin, note_damage};
use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use tempfile::TempDir;

use crate::input::Input;
use crate::rows::next_row;

const LOG: Log = Log::of(Origin::new(5));
const EVENTS: u64 = 40;

/// A panic in the project's own code, though somebody caught it.
static OWN_PANIC: Mutex<Option<String>> = Mutex::new(None);

/// The database may panic about damage, and is caught; chatty may not.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // libFuzzer's hook ends the process, also when the panic would be caught.
        std::panic::set_hook(Box::new(move |info| {
            let file = info.location().map_or("", |at| at.file());
            if file.contains("registry/src") {
                return;
            }
            if file.contains("crates/") {
                let mut own = OWN_PANIC.lock().unwrap_or_else(PoisonError::into_inner);
                own.get_or_insert(info.to_string());
            }
            eprintln!("{info}");
        }));
    });
}

fn assert_no_own_panic() {
    let own = OWN_PANIC.lock().unwrap_or_else(PoisonError::into_inner).take();
    assert_eq!(own, None, "chatty's own code gave up");
}

fn room() -> RoomId {
    RoomId::public("lobby")
}

/// Events as a server writes them.
fn written() -> Vec<Entry> {
    let mut chain = CHAIN_START;
    let event = |seq: u64| Event {
        seq,
        hlc: Hlc::at_ms(seq),
        wall_ms: seq,
        room: room(),
        actor: AccountId::new(1),
        mid: Mid::at(seq, u128::from(seq)),
        kind: 2,
        body: Body::from(Msg { nick: "ann".into(), text: format!("line {seq}") }).encode(),
    };
    (1..=EVENTS)
        .map(|seq| {
            let event = event(seq);
            chain = event.chain(chain);
            Entry { log: LOG, event: Arc::new(event), chain }
        })
        .collect()
}

/// A sound database, made once; copied for each run.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<TempDir> = OnceLock::new();
    let made = || {
        let folder = TempDir::new_in(place()).expect("a folder");
        let mut store = FjallStore::open(&folder.path().join("db")).expect("a database");
        for entries in written().chunks(8) {
            let batch = Batch { entries: entries.to_vec(), ..Batch::default() };
            store.commit(&batch).expect("a commit");
        }
        folder
    };
    TEMPLATE.get_or_init(made).path()
}

/// In memory where that is possible.
fn place() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        if entry.path().is_dir() {
            found.extend(files_in(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// Rows that a start, a client or a repair may come upon.
pub(crate) fn rows(bytes: &[u8]) {
    watch_panics();
    let folder = TempDir::new_in(place()).expect("a folder");
    copy(template(), folder.path());
    let db = folder.path().join("db");
    {
        let database = Database::builder(&db).worker_threads(1).open().expect("a database");
        let mut input = Input::new(bytes);
        while !input.is_empty() {
            let (table, key, value) = next_row(&mut input);
            if key.is_empty() {
                continue;
            }
            let table = database.keyspace(table.name(), KeyspaceCreateOptions::default);
            table.expect("a table").insert(key, value).expect("a row");
        }
        database.persist(PersistMode::SyncAll).expect("written");
    }
    judge(&db);
}

/// Files that are not as they were written.
pub(crate) fn files(bytes: &[u8]) {
    watch_panics();
    let folder = TempDir::new_in(place()).expect("a folder");
    copy(template(), folder.path());
    let all = files_in(folder.path());
    let mut input = Input::new(bytes);
    while !input.is_empty() {
        let file = input.one(&all);
        let mut content = fs::read(&file).unwrap_or_default();
        // Journals are mostly empty: near the beginning, or anywhere.
        let at = u32::from_be_bytes([0, input.byte(), input.byte(), input.byte()]) as usize;
        let at = if at.is_multiple_of(2) { at / 2 % 16_384 } else { at };
        match input.byte() % 4 {
            0 => content.truncate(at),
            1 => {
                let _ = fs::remove_file(&file);
                continue;
            }
            _ => {
                let piece = input.piece();
                let at = at % content.len().max(1);
                let end = (at + piece.len()).min(content.len());
                content[at..end].copy_from_slice(&piece[..end - at]);
            }
        }
        fs::write(&file, content).expect("written");
    }
    judge(&folder.path().join("db"));
}

/// Starts as a server does, looks at everything, mends what is found; after that nothing is wrong,
/// and nothing is there that was not written, unless its chain proves it.
fn judge(db: &Path) {
    for _ in 0..3 {
        let begun = match begin(db, Origin::new(100)) {
            Ok(begun) => begun,
            // Of another version, or a database that must not be used: said, and left alone.
            Err(StoreError::Unusable(_) | StoreError::Io(_)) => {
                assert_no_own_panic();
                return;
            }
            Err(StoreError::Corrupt(why)) => panic!("a start does not mend: {why}"),
        };
        let found = look_at(&begun);
        assert_no_own_panic();
        let Some(why) = found else { return };
        drop(begun);
        note_damage(db, &why).expect("noted");
    }
    panic!("mended three times and still damaged");
}

/// Reads everything; what is damaged, in words.
fn look_at(begun: &Begun) -> Option<String> {
    let within: Arc<Vector> =
        Arc::new(begun.loaded.logs.iter().map(|held| (held.log, held.upto)).collect());
    let rooms: Arc<[RoomId]> = begun.loaded.sums.iter().map(|(room, _)| *room).collect();
    let mut at = scrub::start(&within, &rooms);
    while let Some(piece) = at {
        let query = Query::Scrub { at: piece, within: within.clone(), rooms: rooms.clone() };
        match ask(begun, &query) {
            Ok(Rows::Scrubbed(piece)) => match piece.wrong() {
                Some(why) => return Some(why.into()),
                None => at = piece.next,
            },
            Ok(other) => panic!("{other:?}"),
            Err(why) => return Some(why),
        }
    }
    let page = Query::Page { room: room(), before: Key::MAX, limit: 50, within: within.clone() };
    let message = written().first().and_then(|entry| entry.event.identity()).map(Query::Message);
    let oldest = Query::Oldest { room: room(), keep: 10 };
    let since = Query::Since {
        cursor: Vector::new(),
        within,
        rooms: [room()].into(),
        scan_max: 10_000,
        bytes_max: 1 << 20,
    };
    [Some(page), message, Some(oldest), Some(since)]
        .into_iter()
        .flatten()
        .find_map(|query| ask(begun, &query).err())
}

fn ask(begun: &Begun, query: &Query) -> Result<Rows, String> {
    let reader = begun.store.reader();
    match catch_unwind(AssertUnwindSafe(|| reader.read(query))) {
        Ok(Ok(rows)) => Ok(rows),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the database gave up".into()),
    }
}
