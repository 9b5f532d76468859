//! Rows of a database.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use chatty_core::event::{Body, CHAIN_START, Event, Topic};
use chatty_core::id::{AccountId, Origin, RoomId, ServerId, Slot};
use chatty_core::io::Standing;
use chatty_core::register::RegisterKey;
use chatty_core::store::{Batch, Entry, SlotHolder, Store as _};
use chatty_server::store::{FjallStore, Found, Table, read_row};
use fjall::{Database, KeyspaceCreateOptions, Readable as _};
use tempfile::TempDir;

use super::{Kind, LOG, account, count, event_of, events, named, text};
use crate::input::Input;
use crate::rows::next_row;

named!(Found, found, FOUND = Event Place Keys Register Lost Head Disk Slot Sum Standing Run Unasked);
named!(RegisterKey, register,
    REGISTERS = Room Topic Member Role Nick Mark Direct Log Keep Floor);

/// The first row of each kind out of a database that a server's store wrote, and all of them.
pub(super) fn values() -> Vec<Kind> {
    let folder = TempDir::new().expect("a folder");
    let db = folder.path().join("db");
    write(&db);
    let mut first: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (nth, table) in Table::ALL.into_iter().enumerate() {
        for (key, value) in rows_of(&db, table) {
            let row = read_row(table, &key, &value).expect("a row that the store wrote");
            let nth = u8::try_from(nth).expect("few tables");
            first.entry(name_of(&row)).or_insert_with(|| input_of(nth, &key, &value));
        }
    }
    let all = (text("all"), first.values().flatten().copied().collect());
    count(first.into_iter().chain([all]).collect())
}

pub(super) fn known() -> BTreeSet<String> {
    let found = FOUND.iter().filter(|name| **name != "Register").map(|name| (*name).to_owned());
    found.chain(REGISTERS.iter().map(|name| format!("Register-{name}"))).collect()
}

pub(super) fn of(bytes: &[u8]) -> BTreeSet<String> {
    let (mut input, mut kinds) = (Input::new(bytes), BTreeSet::new());
    while !input.is_empty() {
        let (table, key, value) = next_row(&mut input);
        kinds.extend(read_row(table, key, value).ok().map(|row| name_of(&row)));
    }
    kinds
}

fn name_of(row: &Found) -> String {
    match row {
        Found::Register(key, _) => format!("Register-{}", register(key)),
        row => found(row).to_owned(),
    }
}

/// As [`next_row`] reads it.
fn input_of(table: u8, key: &[u8], value: &[u8]) -> Vec<u8> {
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("a short row");
    [&[table, length(key)], key, &[length(value)], value].concat()
}

/// Everything that a store ever writes.
fn write(db: &Path) {
    let mut store = FjallStore::open(db).expect("a database");
    let holder = |name, server| SlotHolder {
        slot: Slot::new(name).expect("a name"),
        server: ServerId::new(server),
        generation: 1,
    };
    let batch = Batch {
        entries: entries(),
        disks: vec![(ServerId::new(2), LOG, 1)],
        slots: vec![holder("s1", 1), holder("s2", 2)],
        standing: Some(Standing::Lossy),
        ..Batch::default()
    };
    store.commit(&batch).expect("a commit");
    for run in [LOG.origin, Origin::new(6)] {
        store.begin_run(run).expect("a run");
    }
}

/// One event of each kind, and a topic that wins over another.
fn entries() -> Vec<Entry> {
    let topic = Topic { nick: text("ann"), text: text("coffee") };
    let bodies = events::bodies().into_iter().chain([topic.into()]);
    let mut chain = CHAIN_START;
    let entry = |(seq, body)| {
        let event: Event = event_of(seq, body);
        let event = match event.body() {
            Some(Body::Direct(_) | Body::Mark(_)) => {
                Event { room: RoomId::direct(AccountId::new(1), account()), ..event }
            }
            _ => event,
        };
        chain = event.chain(chain);
        Entry { log: LOG, event: Arc::new(event), chain }
    };
    (1..).zip(bodies).map(entry).collect()
}

fn rows_of(db: &Path, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
    let database = Database::builder(db).worker_threads(1).open().expect("a database");
    let rows = database.keyspace(table.name(), KeyspaceCreateOptions::default).expect("a table");
    let row = |row: fjall::Guard| {
        let (key, value) = row.into_inner().expect("a row");
        (key.to_vec(), value.to_vec())
    };
    database.snapshot().iter(&rows).map(row).collect()
}
