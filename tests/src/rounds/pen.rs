//! What one client of a round writes down of all that it is told.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use chatty_client::view::What as Happened;
use chatty_client::{Event, Failure, Happening, Level, Message, MessageState, Ticket};
use chatty_core::id::{AccountId, RoomId};
use chatty_core::session::Page;
use chatty_core::time::{Key, Time};
use chatty_simulations::history::{Did, Session, Shown, Subject, What};

use super::recorder::Recorder;

/// Writes down what one session does and hears.
pub struct Pen {
    recorder: Arc<Recorder>,
    session: Session,
    /// Messages without any answer, and those not known to be replicated.
    unanswered: BTreeSet<Ticket>,
    unsettled: BTreeSet<Ticket>,
}

/// What a client acts upon.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is out of a room.
    Out(RoomId),
    /// A message of it is answered, in whatever way.
    Settled(Ticket),
    /// Its session is over.
    Ended(String),
    /// Nothing.
    Nothing,
}

impl Pen {
    /// For a session that begins.
    pub fn new(recorder: Arc<Recorder>, name: &str) -> Self {
        let session = recorder.session(name);
        let (unanswered, unsettled) = Default::default();
        Self { recorder, session, unanswered, unsettled }
    }

    /// Which session it writes for.
    pub const fn session(&self) -> Session {
        self.session
    }

    /// The time of the round.
    pub fn now(&self) -> Time {
        self.recorder.now()
    }

    /// How many messages have no answer at all.
    pub fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// Whether every message is known to be replicated, or refused.
    pub fn is_settled(&self) -> bool {
        self.unsettled.is_empty()
    }

    /// It did something.
    pub fn did(&self, did: Did) {
        self.recorder.did(self.session, did);
    }

    /// It ended before its time.
    pub fn ended(&self, why: String) {
        self.recorder.ended(self.session, why);
    }

    /// It leaves in good order before the round ends.
    pub fn left(&self) {
        self.recorder.left(self.session);
    }

    /// It said something then.
    pub fn said(&mut self, at: Time, ticket: Ticket, room: RoomId) {
        let sent = Did::Sent { ticket: ticket.0, room };
        self.recorder.note_at(at, What::Client(self.session, sent));
        self.unanswered.insert(ticket);
        self.unsettled.insert(ticket);
        self.tell_unsettled();
    }

    /// It read a page.
    pub fn read(&self, room: RoomId, asked: Time, before: Option<Key>, page: &Page) {
        let (lines, more, complete) = (shown_on(page), page.more, page.complete);
        self.did(Did::Read { room, asked, before, lines, more, complete });
    }

    /// It is told something.
    pub fn hears(&mut self, event: Event) -> Heard {
        match event {
            Event::Attached(attached) => {
                let server = self.recorder.server(&attached.server);
                let stale = attached.stale.iter().map(|(origin, _)| *origin).collect();
                self.did(Did::Attached { account: attached.account, server, stale });
            }
            Event::Lost { .. } => self.did(Did::Lost),
            Event::Message(message) | Event::Direct(message) => {
                let (room, late) = (message.room_id, message.late);
                self.did(Did::Saw { room, line: shown(&message), late });
            }
            Event::State(state) => return self.on_state(&state),
            Event::Failed { ticket, failure } => return self.on_failed(ticket, &failure),
            Event::RoomClosed(closed) => {
                self.did(Did::Closed(closed.room));
                return Heard::Out(closed.room);
            }
            Event::Happened(happening) => self.on_happening(happening),
            Event::Ended(why) => {
                return Heard::Ended(why.map_or_else(|| "ended".into(), |why| why.to_string()));
            }
            Event::Unreachable { .. }
            | Event::Kept(_)
            | Event::Unkept(_)
            | Event::Named { .. }
            | Event::Notice(_) => {}
        }
        Heard::Nothing
    }

    fn on_state(&mut self, state: &MessageState) -> Heard {
        self.unanswered.remove(&state.ticket);
        if state.level == Level::Replicated {
            self.unsettled.remove(&state.ticket);
        }
        let server = self.recorder.server(&state.server);
        let (ticket, mid, key, level) = (state.ticket.0, state.mid, state.key, state.level);
        self.did(Did::Answered { ticket, mid, key, level, server });
        self.tell_unsettled();
        Heard::Settled(state.ticket)
    }

    fn on_failed(&mut self, ticket: Ticket, failure: &Failure) -> Heard {
        self.unanswered.remove(&ticket);
        self.unsettled.remove(&ticket);
        let (number, why) = (ticket.0, failure.to_string());
        self.did(if failure.is_certain() {
            Did::Refused { ticket: number, why }
        } else {
            Did::Doubted { ticket: number, why }
        });
        self.tell_unsettled();
        Heard::Settled(ticket)
    }

    fn tell_unsettled(&self) {
        self.recorder.unsettled(self.session, self.unsettled.len());
    }

    fn on_happening(&self, happening: Happening) {
        let Happening { room, key, account, nick, what, .. } = happening;
        let room = room.map(|name| RoomId::public(&name));
        match (what, room) {
            (Happened::Joined, Some(room)) => self.did(Did::Joined { room, account, key }),
            (Happened::Kicked { account, .. }, Some(room)) => {
                self.did(Did::Kicked { room, account, key });
            }
            (Happened::Topic(value), Some(room)) => {
                self.did(Did::Changed { subject: Subject::Topic(room), value, key });
            }
            (Happened::Renamed { .. }, _) => {
                self.did(Did::Changed { subject: Subject::Nick(account), value: nick, key });
            }
            _ => {}
        }
    }
}

fn shown(message: &Message) -> Shown {
    // Hashed with fixed keys: the same in every process.
    let mut hash = DefaultHasher::new();
    (&message.nick, &message.text, message.time_ms).hash(&mut hash);
    Shown { account: message.account, mid: message.mid, key: message.key, body: hash.finish() }
}

/// The messages of a page.
pub fn shown_on(page: &Page) -> Vec<Shown> {
    let nobody = AccountId::default();
    let messages = page.lines.iter().filter_map(|line| Message::of(line, false, None, nobody));
    messages.map(|message| shown(&message)).collect()
}
