//! A database in a folder, with arbitrary rows in it or arbitrary bytes in its files: a start finds
//! it sound or damaged, and what is damaged is mended.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};

use chatty_core::event::{Body, CHAIN_START, Event, Msg};
use chatty_core::id::{AccountId, Log, Mid, Origin, RoomId};
use chatty_core::scrub;
use chatty_core::store::{Batch, Entry, Query, Reader as _, Rows, Store as _, StoreError};
use chatty_core::time::{Hlc, Key};
use chatty_core::vector::Vector;
use chatty_server::store::{Begun, Table, begin, note_damage};
use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use tempfile::TempDir;

use crate::input::Input;
use crate::rows::next_row;

const LOG: Log = Log::of(Origin::new(5));
const EVENTS: u64 = 40;
/// Of a journal, until the database is opened again.
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;

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

/// A file of a sound database. Its end of nothing but zeros is not kept: a journal takes 64 MiB from
/// the beginning on, and to copy those would be most of a run.
struct Kept {
    /// In the database's folder.
    path: PathBuf,
    bytes: Vec<u8>,
    length: u64,
}

impl Kept {
    fn of(folder: &Path, file: &Path) -> Self {
        let mut bytes = fs::read(file).expect("a file");
        let is_journal = file.extension().is_some_and(|extension| extension == "jnl");
        let length = if is_journal { JOURNAL_BYTES } else { bytes.len() as u64 };
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(end);
        let path = file.strip_prefix(folder).expect("a file of the folder").to_owned();
        Self { path, bytes, length }
    }

    /// Writes it as it was.
    fn put(&self, folder: &Path) -> PathBuf {
        let path = folder.join(&self.path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        let mut file = File::create(&path).expect("a file");
        file.write_all(&self.bytes).expect("written");
        file.set_len(self.length).expect("its length");
        path
    }
}

/// The files of a sound database, which is made once: the first half of it in tables, the rest in the
/// journal.
fn template() -> &'static [Kept] {
    static TEMPLATE: OnceLock<Vec<Kept>> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let folder = TempDir::new_in(place()).expect("a folder");
        let db = folder.path().join("db");
        let all = written();
        let (tables, journal) = all.split_at(all.len() / 2);
        put(&db, tables);
        flush(&db);
        put(&db, journal);
        let files = files_in(folder.path());
        files.iter().map(|file| Kept::of(folder.path(), file)).collect()
    })
}

/// Writes events as a server does.
fn put(db: &Path, events: &[Entry]) {
    let mut store = begin(db, Origin::new(99)).expect("a database").store;
    for entries in events.chunks(8) {
        let batch = Batch { entries: entries.to_vec(), ..Batch::default() };
        store.commit(&batch).expect("a commit");
    }
}

/// Writes what is in the journal to tables.
fn flush(db: &Path) {
    let database = Database::builder(db).worker_threads(1).open().expect("a database");
    for table in Table::ALL {
        let table = database.keyspace(table.name(), KeyspaceCreateOptions::default);
        table.expect("a table").rotate_memtable_and_wait().expect("flushed");
    }
}

/// A sound database in a folder; its files.
fn put_sound(folder: &Path) -> Vec<PathBuf> {
    template().iter().map(|file| file.put(folder)).collect()
}

/// In memory where that is possible.
fn place() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
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
    put_sound(folder.path());
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
    let all = put_sound(folder.path());
    let mut input = Input::new(bytes);
    while !input.is_empty() {
        damage(&input.one(&all), &mut input);
    }
    judge(&folder.path().join("db"));
}

/// Cuts a file short, removes it, or writes a piece over some of it.
fn damage(path: &Path, input: &mut Input<'_>) {
    // Journals are mostly empty: near the beginning, or anywhere.
    let at = u64::from(u32::from_be_bytes([0, input.byte(), input.byte(), input.byte()]));
    let at = if at.is_multiple_of(2) { at / 2 % 16_384 } else { at };
    let how = input.byte() % 4;
    if how == 1 {
        let _ = fs::remove_file(path);
        return;
    }
    let file = File::options().create(true).truncate(false).write(true).open(path).expect("a file");
    let length = file.metadata().expect("its length").len();
    if how == 0 {
        file.set_len(length.min(at)).expect("cut");
    } else {
        let at = at % length.max(1);
        let room = usize::try_from(length - at).unwrap_or(usize::MAX);
        let piece = input.piece();
        file.write_all_at(&piece[..piece.len().min(room)], at).expect("written");
    }
}

/// Starts as a server does, looks at everything, mends what is found; after that nothing is wrong,
/// and nothing is there that was not written, unless its chain proves it.
fn judge(db: &Path) {
    for _ in 0..3 {
        let begun = match begin(db, Origin::new(100)) {
            Ok(begun) => begun,
            // Of another version: said, and left alone.
            Err(StoreError::Unusable(_)) => {
                assert_no_own_panic();
                return;
            }
            // The disk below takes and gives everything.
            Err(StoreError::Corrupt(why) | StoreError::Io(why)) => {
                panic!("a start does not mend: {why}")
            }
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
