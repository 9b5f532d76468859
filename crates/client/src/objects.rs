//! The JSON objects: what `docs/client.md` documents. Field order is the order written.

use chatty_client::safe::rfc3339;
use chatty_client::{Failure, Happening, Left, Level, Message, MessageState, Target, What};
use chatty_core::event::Retention;
use chatty_core::session::{ClosedWhy, Participant, RoomClosed, RoomInfo};
use serde::Serialize;

/// A message, as `tail`, `history` and `join` show it.
#[derive(Serialize)]
pub struct MessageObject<'a> {
    /// `dm` for a direct message; a message of a room has no type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    room: &'a str,
    mid: String,
    key: String,
    nick: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'a str>,
    text: &'a str,
    time: String,
    late: bool,
}

impl<'a> MessageObject<'a> {
    /// As part of a timeline.
    pub fn of(message: &'a Message) -> Self {
        Self {
            kind: None,
            room: &message.room,
            mid: message.mid.to_string(),
            key: message.key.to_string(),
            nick: &message.nick,
            to: message.to.as_deref(),
            text: &message.text,
            time: rfc3339(message.time_ms),
            late: message.late,
        }
    }

    /// As a direct message among the events of rooms.
    pub fn direct(message: &'a Message) -> Self {
        Self { kind: Some("dm"), ..Self::of(message) }
    }
}

/// Anything else that happened.
#[derive(Serialize)]
pub struct EventObject<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<&'a str>,
    key: String,
    nick: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rank: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep: Option<KeepObject>,
    time: String,
    late: bool,
}

/// How long messages are kept; 0: for ever.
#[derive(Serialize)]
pub struct KeepObject {
    seconds: u64,
    messages: u64,
}

impl From<Retention> for KeepObject {
    fn from(keep: Retention) -> Self {
        Self { seconds: keep.age_ms / 1000, messages: keep.messages }
    }
}

impl<'a> EventObject<'a> {
    pub fn of(happening: &'a Happening) -> Self {
        let mut object = Self {
            kind: "join",
            room: happening.room.as_deref(),
            key: happening.key.to_string(),
            nick: &happening.nick,
            target: None,
            reason: None,
            topic: None,
            rank: None,
            before: None,
            keep: None,
            time: rfc3339(happening.time_ms),
            late: happening.late,
        };
        match &happening.what {
            What::Joined => {}
            What::Left => object.kind = "leave",
            What::Kicked { nick, reason, .. } => {
                object.kind = "kick";
                object.target = Some(nick);
                object.reason = Some(reason);
            }
            What::Role { nick, rank } => {
                object.kind = "role";
                object.target = Some(nick);
                object.rank = Some(rank.to_string());
            }
            What::Topic(topic) => {
                object.kind = "topic";
                object.topic = Some(topic);
            }
            What::Kept(keep) => {
                object.kind = "keep";
                object.keep = Some((*keep).into());
            }
            What::Created => object.kind = "create",
            What::Renamed { before } => {
                object.kind = "nick";
                object.before = Some(before);
            }
        }
        object
    }
}

/// This session was put out of a room.
#[derive(Serialize)]
pub struct ClosedObject<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    room: &'a str,
    why: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl<'a> ClosedObject<'a> {
    pub fn of(closed: &'a RoomClosed) -> Self {
        let (why, by, reason) = match &closed.why {
            ClosedWhy::Kicked { by, reason } => {
                ("kicked", Some(by.as_str()), Some(reason.as_str()))
            }
            ClosedWhy::Left => ("left", None, None),
        };
        Self { kind: "closed", room: &closed.name, why, by, reason }
    }
}

/// The state of a message that was sent.
#[derive(Serialize)]
pub struct Receipt {
    line: u64,
    #[serde(flatten)]
    state: State,
}

impl Receipt {
    pub fn of(line: u64, state: &MessageState) -> Self {
        Self { line, state: State::of(state) }
    }
}

/// How safe a message is.
#[derive(Serialize)]
struct State {
    mid: String,
    level: &'static str,
    replicas: u16,
    server: String,
    ms: f64,
}

impl State {
    fn of(state: &MessageState) -> Self {
        let level = match state.level {
            Level::Stored => "stored",
            Level::Replicated => "replicated",
        };
        Self {
            mid: state.mid.to_string(),
            level,
            replicas: state.replicas,
            server: state.server.to_string(),
            ms: (state.elapsed.as_secs_f64() * 1e6).round() / 1e3,
        }
    }
}

/// A line of `send` that was not said.
#[derive(Serialize)]
pub struct RefusedObject<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    line: u64,
    reason: &'a str,
    /// It may have been said all the same.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unsure: bool,
}

impl<'a> RefusedObject<'a> {
    pub const fn new(line: u64, reason: &'a str, unsure: bool) -> Self {
        Self { kind: "refused", line, reason, unsure }
    }
}

/// The lines up to this one are in the outbox's file.
#[derive(Serialize)]
pub struct KeptObject {
    #[serde(rename = "type")]
    kind: &'static str,
    upto: u64,
}

impl KeptObject {
    pub const fn new(upto: u64) -> Self {
        Self { kind: "kept", upto }
    }
}

/// What became of a message that an earlier run left in the outbox.
#[derive(Serialize)]
pub struct LeftObject<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    room: String,
    text: &'a str,
    #[serde(flatten)]
    state: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// It may have been said all the same.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unsure: bool,
}

impl<'a> LeftObject<'a> {
    pub fn of(left: &'a Left, state: &MessageState) -> Self {
        let (state, room, text) = (Some(State::of(state)), place(&left.to), &left.text);
        Self { kind: "resent", room, text, state, reason: None, unsure: false }
    }

    pub fn refused(left: &'a Left, failure: &Failure) -> Self {
        let (reason, unsure) = (Some(failure.to_string()), !failure.is_certain());
        let (room, text) = (place(&left.to), &left.text);
        Self { kind: "refused", room, text, state: None, reason, unsure }
    }
}

/// Where a message goes, as `room` of a message.
pub fn place(to: &Target) -> String {
    match to {
        Target::Room(room) => room.clone(),
        Target::Nick(nick) => format!("@{nick}"),
        Target::Account(account) => format!("@{account}"),
    }
}

/// A room in the list of rooms.
#[derive(Serialize)]
pub struct RoomObject<'a> {
    room: &'a str,
    topic: &'a str,
    participants: u32,
    messages: u64,
}

impl<'a> RoomObject<'a> {
    pub fn of(room: &'a RoomInfo) -> Self {
        let RoomInfo { name, topic, participants, messages, .. } = room;
        Self { room: name, topic, participants: *participants, messages: *messages }
    }
}

/// Somebody in a room.
#[derive(Serialize)]
pub struct PersonObject<'a> {
    room: &'a str,
    nick: &'a str,
    account: String,
    rank: String,
    member: bool,
    servers: Vec<&'a str>,
    away: bool,
}

impl<'a> PersonObject<'a> {
    pub fn of(room: &'a str, person: &'a Participant) -> Self {
        Self {
            room,
            nick: &person.nick,
            account: person.account.to_string(),
            rank: person.rank.to_string(),
            member: person.member,
            servers: person.servers.iter().map(|slot| slot.as_str()).collect(),
            away: person.servers.is_empty(),
        }
    }
}

/// What was done, for commands that only do something.
#[derive(Default, Serialize)]
pub struct DoneObject<'a> {
    #[serde(rename = "type")]
    pub kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nick: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<KeepObject>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use chatty_core::id::{AccountId, Mid, Origin, RoomId};
    use chatty_core::time::{Hlc, Key};

    fn message() -> Message {
        Message {
            room: "lobby".into(),
            room_id: RoomId::public("lobby"),
            mid: Mid::new(1),
            key: Key { hlc: Hlc::at_ms(1), origin: Origin::new(2), seq: 3 },
            account: AccountId::new(4),
            nick: "ann".into(),
            to: None,
            text: "hi\u{1b}".into(),
            time_ms: 1000,
            late: false,
        }
    }

    #[test]
    fn what_may_have_been_said_all_the_same_says_so() {
        let written =
            |unsure| chatty_client::safe::json(&RefusedObject::new(8, "out", unsure)).unwrap();
        assert_eq!(written(false), r#"{"type":"refused","line":8,"reason":"out"}"#);
        assert_eq!(written(true), r#"{"type":"refused","line":8,"reason":"out","unsure":true}"#);
    }

    #[test]
    fn a_message_has_the_promised_keys_in_their_order() {
        let written = chatty_client::safe::json(&MessageObject::of(&message())).unwrap();
        assert_eq!(
            written,
            r#"{"room":"lobby","mid":"00000000-0000-0000-0000-000000000001","key":"000000000001000000000000000000000000000000000002-0000000000000003","nick":"ann","text":"hi\u001b","time":"1970-01-01T00:00:01.000Z","late":false}"#
        );
    }

    #[test]
    fn whatever_is_no_message_has_a_type() {
        let direct = Message { to: Some("bob".into()), room: "@bob".into(), ..message() };
        let written = chatty_client::safe::json(&MessageObject::direct(&direct)).unwrap();
        assert!(written.starts_with(r#"{"type":"dm","room":"@bob""#), "{written}");
        let account = AccountId::new(5);
        let kicked = What::Kicked { account, nick: "bob".into(), reason: "enough".into() };
        let happening = Happening {
            room: Some("lobby".into()),
            key: message().key,
            account: AccountId::new(4),
            nick: "ann".into(),
            time_ms: 0,
            late: false,
            what: kicked,
        };
        let written = chatty_client::safe::json(&EventObject::of(&happening)).unwrap();
        assert!(written.starts_with(r#"{"type":"kick","room":"lobby""#), "{written}");
        assert!(written.contains(r#""target":"bob","reason":"enough""#), "{written}");
    }
}
