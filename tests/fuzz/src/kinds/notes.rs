//! Notes of a client's outbox.

use std::collections::BTreeSet;

use chatty_core::client::Note;
use chatty_core::id::{AccountId, Mid};
use chatty_core::session::Level;

use super::{Kind, account, count, named, targets, text};

named!(Note, name_of, KNOWN = Account Said Named Meant Done);

/// Each note alone, and all of an outbox.
pub(super) fn values() -> Vec<Kind> {
    let said = targets().into_iter().zip([Level::Stored, Level::Replicated].into_iter().cycle());
    let said = said.map(|(to, level)| Note::Said { nth: 1, to, text: text("hello"), level });
    let mut notes = vec![Note::Account(AccountId::new(1))];
    notes.extend(said);
    notes.extend([
        Note::Named { nth: 1, mid: Mid::at(5, 6) },
        Note::Meant { nth: 1, account: account() },
        Note::Done { nth: 1 },
    ]);
    let each =
        notes.iter().map(|note| (name_of(note).to_owned(), Note::encode(&vec![note.clone()])));
    count(each.chain([(text("all"), Note::encode(&notes))]).collect())
}

pub(super) fn known() -> BTreeSet<String> {
    KNOWN.iter().map(|name| (*name).to_owned()).collect()
}

pub(super) fn of(bytes: &[u8]) -> BTreeSet<String> {
    let notes = Note::decode(bytes).filter(|notes| Note::encode(notes) == bytes);
    notes.iter().flatten().map(|note| name_of(note).to_owned()).collect()
}
