//! What a program is told, in words it can use: events with their bodies read.

use chatty_core::client::{Attached, Client, ClientEvent, Failure, LostWhy, MessageState, Ticket};
use chatty_core::event::{Body, Rank, Retention};
use chatty_core::id::{AccountId, Mid, RoomId, Slot};
use chatty_core::session::{Line, RoomClosed};
use chatty_core::time::Key;

/// What a program is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A server answers.
    Attached(Attached),
    /// The server is lost; another one is being dialled.
    Lost {
        /// Which.
        server: Slot,
        /// Why.
        why: LostWhy,
    },
    /// A server could not be attached to; the next one is tried.
    Unreachable {
        /// host:port.
        addr: String,
        /// Why.
        why: LostWhy,
    },
    /// Somebody said something in an open room.
    Message(Message),
    /// A direct message, from somebody or to somebody.
    Direct(Message),
    /// Something else happened.
    Happened(Happening),
    /// A message of this client reached another level.
    State(MessageState),
    /// A message of this client was refused.
    Failed {
        /// Which.
        ticket: Ticket,
        /// Why.
        failure: Failure,
    },
    /// The session is out of a room that it had open.
    RoomClosed(RoomClosed),
    /// The account goes by this name now.
    Named {
        /// The name.
        nick: String,
        /// The name asked for, when somebody else holds it.
        taken: Option<String>,
    },
    /// Something a person should read.
    Notice(String),
    /// These messages are in the outbox's file: they are said also when this process dies now and
    /// another one begins with the file.
    Kept(Vec<Ticket>),
    /// The outbox's file cannot be written, for this reason. It was emptied; the session goes on
    /// without it.
    Unkept(String),
    /// The last event: `None` after a goodbye, else why the client cannot go on.
    Ended(Option<Failure>),
}

/// Something that was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The room's name; of a direct message `@` and the other person's name.
    pub room: String,
    /// The room.
    pub room_id: RoomId,
    /// The message.
    pub mid: Mid,
    /// Its place in the timeline.
    pub key: Key,
    /// Who said it.
    pub account: AccountId,
    /// His name then.
    pub nick: String,
    /// To whom, by name, if it is a direct message.
    pub to: Option<String>,
    /// What.
    pub text: String,
    /// When, in unix milliseconds by the clock of the server that took it.
    pub time_ms: u64,
    /// Whether it is more than a second older than the newest line shown before it.
    pub late: bool,
}

impl Message {
    /// Reads a line; `None` if it is no message. `room` is the room's name as far as it is known.
    pub fn of(line: &Line, late: bool, room: Option<&str>, me: AccountId) -> Option<Self> {
        let event = &line.event;
        let (nick, text, to, room) = match event.body()? {
            Body::Msg(body) => {
                let room = room.map_or_else(|| event.room.to_string(), str::to_owned);
                (body.nick, body.text, None, room)
            }
            Body::Direct(body) => {
                let other = if event.actor == me { &body.to_nick } else { &body.nick };
                let room = format!("@{other}");
                (body.nick, body.text, Some(body.to_nick), room)
            }
            _ => return None,
        };
        Some(Self {
            room,
            room_id: event.room,
            mid: event.mid,
            key: line.key(),
            account: event.actor,
            nick,
            to,
            text,
            time_ms: event.wall_ms,
            late,
        })
    }
}

/// Something that happened in a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// The room's name; `None` for a change of name, which is of no room.
    pub room: Option<String>,
    /// Its place in the timeline.
    pub key: Key,
    /// Who did it.
    pub account: AccountId,
    /// His name then.
    pub nick: String,
    /// When, in unix milliseconds.
    pub time_ms: u64,
    /// As in [`Message`].
    pub late: bool,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The actor joined the room.
    Joined,
    /// The actor left the room.
    Left,
    /// The actor put somebody out.
    Kicked {
        /// Whom.
        account: AccountId,
        /// His name then.
        nick: String,
        /// May be empty.
        reason: String,
    },
    /// The actor made somebody op, or not.
    Role {
        /// Whom.
        nick: String,
        /// What he became.
        rank: Rank,
    },
    /// The actor set the topic.
    Topic(String),
    /// The actor said how long the room's messages are kept.
    Kept(Retention),
    /// The actor made the room.
    Created,
    /// The actor changed his name from this one.
    Renamed {
        /// Empty for a new account.
        before: String,
    },
}

impl Happening {
    fn of(line: &Line, late: bool, room: Option<&str>) -> Option<Self> {
        let event = &line.event;
        let (nick, what) = match event.body()? {
            Body::Join(body) => (body.nick, What::Joined),
            Body::Leave(body) => (body.nick, What::Left),
            Body::Kick(body) => {
                let (account, nick) = (body.account, body.account_nick);
                (body.nick, What::Kicked { account, nick, reason: body.reason })
            }
            Body::Role(body) => {
                (body.nick, What::Role { nick: body.account_nick, rank: body.role })
            }
            Body::Topic(body) => (body.nick, What::Topic(body.text)),
            Body::RoomCreate(_) => (String::new(), What::Created),
            Body::Nick(body) => (body.nick, What::Renamed { before: body.before }),
            Body::Keep(body) => (body.nick, What::Kept(body.keep)),
            Body::Boot(_) | Body::Msg(_) | Body::Direct(_) | Body::Mark(_) | Body::Floor(_) => {
                return None;
            }
        };
        Some(Self {
            room: room.map(str::to_owned),
            key: line.key(),
            account: event.actor,
            nick,
            time_ms: event.wall_ms,
            late,
            what,
        })
    }
}

impl Event {
    /// Reads what the machine tells; `None` for what a program has no use for (events of a newer
    /// version, and answers, which go to whoever asked).
    pub fn of(event: ClientEvent, client: &Client) -> Option<Self> {
        let me = client.account().unwrap_or_default();
        Some(match event {
            ClientEvent::Attached(attached) => Self::Attached(attached),
            ClientEvent::Lost { server, why } => Self::Lost { server, why },
            ClientEvent::Unreachable { addr, why } => Self::Unreachable { addr, why },
            ClientEvent::Line { line, late } => {
                // What puts somebody out of a room is told when the room is closed already.
                let room = client.known_room_name(line.event.room);
                match Message::of(&line, late, room, me) {
                    Some(message) => Self::Message(message),
                    None => Self::Happened(Happening::of(&line, late, room)?),
                }
            }
            ClientEvent::Direct { line, late } => Self::Direct(Message::of(&line, late, None, me)?),
            ClientEvent::Message(state) => Self::State(state),
            ClientEvent::Failed { ticket, failure } => Self::Failed { ticket, failure },
            ClientEvent::RoomClosed(closed) => Self::RoomClosed(closed),
            ClientEvent::Named { nick, taken } => Self::Named { nick, taken },
            ClientEvent::Notice(text) => Self::Notice(text),
            ClientEvent::Kept(tickets) => Self::Kept(tickets),
            ClientEvent::Unkept(why) => Self::Unkept(why),
            ClientEvent::Ended(why) => Self::Ended(why),
            ClientEvent::Answered { .. } => return None,
        })
    }
}
