//! What a client writes down so that what it was told to say outlives it.
//!
//! The machine says what to write ([`Note`]), and lets no message leave before its words and its id
//! are written: a client that begins again with the same notes ([`Journal`]) sends what was not
//! replicated under the same ids, and no server takes any of it twice. Files are the driver's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{AccountId, Mid};
use crate::session::{Level, Target};

/// A message's number is at most this: the next client counts on from what it finds.
const NTH_MAX: u64 = 1 << 48;

/// One thing to write down. Messages are numbered in the order they were said; no number is used
/// twice while its message is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Note {
    /// Whose messages these are.
    Account(AccountId),
    /// Something was said.
    Said {
        /// Its number.
        nth: u64,
        /// To whom.
        to: Target,
        /// What.
        text: String,
        /// How safe it must be before its first answer.
        level: Level,
    },
    /// A message goes by this id from now on.
    Named {
        /// Its number.
        nth: u64,
        /// Its id.
        mid: Mid,
    },
    /// The nick that a message was said to means this account.
    Meant {
        /// Its number.
        nth: u64,
        /// Whom.
        account: AccountId,
    },
    /// A message is replicated or refused: it is not to be sent again.
    Done {
        /// Its number.
        nth: u64,
    },
}

impl Note {
    /// Notes as bytes.
    pub fn encode(notes: &Vec<Self>) -> Vec<u8> {
        let mut bytes = Vec::new();
        crate::wire::append(notes, &mut bytes);
        bytes
    }

    /// Reads notes; `None` if these bytes are none, or number a message as no client does.
    pub fn decode(bytes: &[u8]) -> Option<Vec<Self>> {
        let notes: Option<Vec<Self>> = crate::wire::parse(0, bytes).ok();
        notes.filter(|notes| notes.iter().all(|note| note.nth() <= NTH_MAX))
    }

    /// The number of the message it is about; 0: of none.
    const fn nth(&self) -> u64 {
        match self {
            Self::Account(_) => 0,
            Self::Said { nth, .. }
            | Self::Named { nth, .. }
            | Self::Meant { nth, .. }
            | Self::Done { nth } => *nth,
        }
    }
}

/// A message that waits to be replicated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// To whom.
    pub to: Target,
    /// What.
    pub text: String,
    /// How safe it must be before its first answer.
    pub level: Level,
    /// Its id, once it has one: a server may know it.
    pub mid: Option<Mid>,
}

/// What notes say in all.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Journal {
    account: Option<AccountId>,
    /// By number, which is the order in which they were said.
    messages: BTreeMap<u64, Waiting>,
}

impl Journal {
    /// Takes a note. One about a message that is not open says nothing.
    pub fn apply(&mut self, note: Note) {
        match note {
            Note::Account(account) => self.account = Some(account),
            Note::Said { nth, to, text, level } => {
                self.messages.insert(nth, Waiting { to, text, level, mid: None });
            }
            Note::Named { nth, mid } => {
                if let Some(message) = self.messages.get_mut(&nth) {
                    message.mid = Some(mid);
                }
            }
            Note::Meant { nth, account } => {
                if let Some(message) = self.messages.get_mut(&nth) {
                    message.to = Target::Account(account);
                }
            }
            Note::Done { nth } => {
                self.messages.remove(&nth);
            }
        }
    }

    /// The fewest notes that say the same.
    pub fn notes(&self) -> Vec<Note> {
        let mut notes: Vec<Note> = self.account.map(Note::Account).into_iter().collect();
        for (nth, message) in &self.messages {
            let Waiting { to, text, level, mid } = message.clone();
            notes.push(Note::Said { nth: *nth, to, text, level });
            notes.extend(mid.map(|mid| Note::Named { nth: *nth, mid }));
        }
        notes
    }

    /// Whose messages these are, if it is known.
    pub const fn account(&self) -> Option<AccountId> {
        self.account
    }

    /// The messages that wait, in the order they were said, by number.
    pub const fn messages(&self) -> &BTreeMap<u64, Waiting> {
        &self.messages
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

impl FromIterator<Note> for Journal {
    fn from_iter<I: IntoIterator<Item = Note>>(notes: I) -> Self {
        let mut journal = Self::default();
        for note in notes {
            journal.apply(note);
        }
        journal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(nth: u64) -> Note {
        let (to, text) = (Target::Nick("bob".into()), format!("text {nth}"));
        Note::Said { nth, to, text, level: Level::Stored }
    }

    #[test]
    fn a_journal_is_what_its_notes_say_and_its_notes_are_the_fewest_that_say_it() {
        let account = AccountId::new(7);
        let all = [
            said(1),
            said(2),
            Note::Account(account),
            Note::Named { nth: 1, mid: Mid::new(5) },
            Note::Named { nth: 9, mid: Mid::new(6) },
            said(3),
            Note::Done { nth: 2 },
            Note::Meant { nth: 3, account },
            Note::Done { nth: 9 },
        ];
        let journal: Journal = all.into_iter().collect();
        let meant = Note::Said {
            nth: 3,
            to: Target::Account(account),
            text: "text 3".into(),
            level: Level::Stored,
        };
        let fewest =
            [Note::Account(account), said(1), Note::Named { nth: 1, mid: Mid::new(5) }, meant];
        assert_eq!(journal.notes(), fewest);
        assert_eq!(journal.notes().into_iter().collect::<Journal>(), journal);
        assert_eq!((journal.account(), journal.is_empty()), (Some(account), false));
        assert!(Journal::default().is_empty());
        let bytes = Note::encode(&journal.notes());
        assert_eq!(Note::decode(&bytes), Some(fewest.to_vec()));
        assert_eq!(Note::decode(&bytes[1..]), None);
    }
}
