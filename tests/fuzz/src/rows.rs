//! Rows of a database, and a replica that begins with what they say.

use chatty_core::store::{Loaded, StoreError};
use chatty_server::store::{Found, Table, read_row};

use crate::input::Input;
use crate::replica::World;

/// A row as an input tells it: which table, key, value.
pub(crate) fn next_row<'a>(input: &mut Input<'a>) -> (Table, &'a [u8], &'a [u8]) {
    (input.one(&Table::ALL), input.piece(), input.piece())
}

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut loaded = Loaded::default();
    while !input.is_empty() {
        let (table, key, value) = next_row(&mut input);
        match read_row(table, key, value) {
            Ok(found) => load(&mut loaded, found),
            Err(StoreError::Corrupt(_)) => {}
            Err(other) => panic!("a row cannot be {other}"),
        }
    }
    let (servers, me) = World::cluster();
    let mut world = World::begin(servers, me, &loaded, |_| {});
    world.talk();
}

/// As the store loads it: a row a key.
fn load(loaded: &mut Loaded, found: Found) {
    match found {
        Found::Head(head) => {
            loaded.logs.retain(|held| held.log != head.log);
            loaded.logs.push(head);
        }
        Found::Register(key, value) => {
            loaded.registers.retain(|(held, _)| *held != key);
            loaded.registers.push((key, value));
        }
        Found::Sum(room, sum) => {
            loaded.sums.retain(|(held, _)| *held != room);
            loaded.sums.push((room, sum));
        }
        Found::Disk(server, log, upto) => loaded.disks.push((server, log, upto)),
        Found::Slot(holder) => loaded.slots.push(holder),
        Found::Standing(standing) => loaded.standing = standing,
        Found::Event(entry) => assert!(entry.event.cost() > 0),
        Found::Keys(_, keys) => assert!(keys.len() <= 8),
        Found::Place(_) | Found::Lost(..) | Found::Run(..) | Found::Unasked => {}
    }
}
