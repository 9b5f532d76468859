//! What a client may ask and what it is told: the whole of what any gateway may do.
//!
//! A gateway (QUIC today; line protocols and browsers are others) turns its clients' words into
//! [`Request`]s and [`Item`]s into their words, and decides nothing. Items of one session keep
//! program order: the answer to a later request comes after everything that its earlier requests
//! put into the queues of this server's sessions.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::{Event, Identity, Rank, Retention, TEXT_BYTES_MAX};
use crate::id::{AccountId, ClusterId, Mid, Origin, RequestId, RoomId, ServerId, Slot};
use crate::io::Standing;
use crate::time::{Hlc, Key};
use crate::vector::Vector;
use crate::visible::is_invisible;
use crate::wire::wire;

/// Minor version of the protocol between servers and clients; unknown kinds are skipped.
pub const CLIENT_MINOR: u16 = 0;
/// Characters of a nick, at most.
pub const NICK_CHARS_MAX: usize = 32;
/// Characters of a room's name, at most.
pub const ROOM_CHARS_MAX: usize = 64;
/// Bytes of a topic or of a kick's reason, at most.
pub const TOPIC_BYTES_MAX: usize = 1024;
/// Lines of one history page, at most; ask again for more.
pub const PAGE_LINES_MAX: u32 = 500;
/// Rooms one session may have open.
pub const ROOMS_OPEN_MAX: usize = 256;

/// Why a name or a text is refused, in words for its writer.
pub fn check_text(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("the text is empty".into());
    }
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("the text has {} bytes; at most {TEXT_BYTES_MAX} fit", text.len()));
    }
    Ok(())
}

/// Whether `name` can name a room: see the error for the rule.
///
/// # Errors
/// What is wrong with it and what to do.
pub fn check_room(name: &str) -> Result<(), String> {
    let chars = name.chars().count();
    if chars == 0 {
        return Err("the room's name is empty".into());
    }
    if chars > ROOM_CHARS_MAX {
        return Err(format!(
            "the room's name has {chars} characters; at most {ROOM_CHARS_MAX} fit"
        ));
    }
    if let Some(mark) = name.chars().next().filter(|c| matches!(c, '#' | '@' | '/' | '-')) {
        let rest = &name[mark.len_utf8()..];
        if mark == '@' {
            return Err(format!(
                "{name:?} is a person and no room; what you say to one person goes by dm, and what \
                 was said is in the history of {name:?}"
            ));
        }
        return Err(format!("a room's name does not begin with '{mark}'; say {rest:?}"));
    }
    name_chars(name, "room")
}

/// Whether `nick` can name a person.
///
/// # Errors
/// What is wrong with it and what to do.
pub fn check_nick(nick: &str) -> Result<(), String> {
    let chars = nick.chars().count();
    if chars == 0 {
        return Err("the nick is empty".into());
    }
    if chars > NICK_CHARS_MAX {
        return Err(format!("the nick has {chars} characters; at most {NICK_CHARS_MAX} fit"));
    }
    if nick.contains('~') {
        return Err("'~' marks a nick that was taken; choose one without it".into());
    }
    if nick.starts_with(['#', '@', '/', '-']) {
        return Err("a nick does not begin with one of # @ / -".into());
    }
    name_chars(nick, "nick")
}

fn name_chars(name: &str, what: &str) -> Result<(), String> {
    match name.chars().find(|c| is_invisible(*c)) {
        Some(c) => Err(format!(
            "the {what}'s name has U+{:04X} in it; leave blanks, control characters and what cannot \
             be seen out",
            u32::from(c)
        )),
        None => Ok(()),
    }
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Target {
    /// To everybody in the public room of that name.
    Room(String),
    /// To the holder of that nick.
    Nick(String),
    /// To that account (a retry of a message whose target is known already).
    Account(AccountId),
}

/// How safe a message must be before the answer comes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum Level {
    /// Fsynced on the server that took it.
    Stored,
    /// Fsynced on a majority of the voters' disks.
    #[default]
    Replicated,
}

wire! {
    /// What a client asks.
    pub enum Request {
        /// The first frame of a connection.
        1 => Attach(Attach),
        /// Take part in a room.
        2 => Open(Open),
        /// Stop taking part: leave for good, or just close it here.
        3 => Close(Close),
        /// Say something.
        4 => Send(Send),
        /// Go by another name.
        5 => Nick(Nick),
        /// Ask for or set the topic.
        6 => Topic(Topic),
        /// Put somebody out of a room.
        7 => Kick(Kick),
        /// Make somebody op, or not.
        8 => Role(Role),
        /// A page of the timeline.
        9 => History(History),
        /// The rooms.
        10 => Rooms(Plain),
        /// A room's participants.
        11 => Who(Who),
        /// What the server sees of the cluster.
        12 => Status(Plain),
        /// Are you there? Answered by a pong, in program order.
        13 => Ping(Plain),
        /// Direct messages read so far.
        14 => Mark(Mark),
        /// Goodbye: forget the session at once, without the grace of a lost connection.
        15 => Detach(Plain),
        /// Read everything on the disk again and check it.
        16 => Verify(Plain),
        /// Say how long a room's messages are kept.
        17 => Keep(Keep),
    }
}

/// The first request of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attach {
    /// The client's [`CLIENT_MINOR`].
    pub minor: u16,
    /// The newest token of the account ([`crate::token::Token`]); without one a new guest account is made.
    #[serde(with = "serde_bytes")]
    pub token: Vec<u8>,
    /// The name to go by; `None` keeps the account's.
    pub nick: Option<String>,
    /// What this client has seen: everything in its rooms that this covers. Empty: nothing.
    pub cursor: Vector,
    /// The rooms it had open and since when, to go on where it was.
    pub rooms: Vec<Opened>,
    /// Whether direct messages are shown by this client (they are then sent to it).
    pub direct: Direct,
}

/// Whether a session takes its account's direct messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Direct {
    /// No: a program that only sends or asks.
    #[default]
    Ignore,
    /// Yes: new ones, and on a first attach those that wait.
    Take,
}

/// A room a client has open.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Opened {
    /// Its name.
    pub room: String,
    /// When it was opened, as [`OpenedRoom::since`] told it. Whoever was put out of the room since is
    /// out of it whatever stands here.
    pub since: Hlc,
}

/// Opens a room.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Open {
    /// Answered by [`RoomOpened`].
    pub request: RequestId,
    /// The room's name; it is made if nobody made it yet.
    pub room: String,
    /// So many of its last lines first, at most [`PAGE_LINES_MAX`].
    pub last: u32,
    /// As a member for good, or while this session lasts.
    pub mode: Mode,
}

/// How a session takes part in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// Join: the account stays a member until it leaves or is kicked.
    Join,
    /// A participant while the session lasts. Whoever was put out of the room joins it again first.
    Watch,
}

/// Closes a room for this session.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Close {
    /// Answered by [`Item::Done`].
    pub request: RequestId,
    /// The room's name.
    pub room: String,
    /// Whether the account leaves the room.
    pub mode: CloseMode,
}

/// What becomes of the membership when a room is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CloseMode {
    /// The account leaves; its other sessions are told.
    Leave,
    /// Only this session closes the room.
    Keep,
}

/// Says something. Repeated on one connection before it is answered, only the last is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Send {
    /// Answered by [`Sent`].
    pub request: RequestId,
    /// Where to.
    pub to: Target,
    /// The message's name: repeated on every retry.
    pub mid: Mid,
    /// What is said.
    pub text: String,
    /// When to answer.
    pub level: Level,
}

/// A new name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Nick {
    /// Answered by [`Named`].
    pub request: RequestId,
    /// The name asked for.
    pub nick: String,
}

/// Asks for (`None`) or sets the topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Topic {
    /// Answered by [`TopicIs`].
    pub request: RequestId,
    /// The room's name.
    pub room: String,
    /// The new topic.
    pub text: Option<String>,
}

/// Puts somebody out of a room.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Kick {
    /// Answered by [`Item::Done`].
    pub request: RequestId,
    /// The room's name.
    pub room: String,
    /// Whom.
    pub nick: String,
    /// Why; may be empty.
    pub reason: String,
}

/// Gives or takes op.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Role {
    /// Answered by [`Item::Done`].
    pub request: RequestId,
    /// The room's name.
    pub room: String,
    /// Whose.
    pub nick: String,
    /// [`Rank::Op`] or [`Rank::Member`].
    pub rank: Rank,
}

/// Says how long a room's messages are kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Keep {
    /// Answered by [`Item::Done`].
    pub request: RequestId,
    /// The room's name.
    pub room: String,
    /// The policy.
    pub keep: Retention,
}

/// Asks for a page.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct History {
    /// Answered by [`Page`].
    pub request: RequestId,
    /// Of a room, or of the direct messages with somebody.
    pub of: Target,
    /// Lines below this key; `None`: the newest.
    pub before: Option<Key>,
    /// So many, at most [`PAGE_LINES_MAX`].
    pub limit: u32,
}

/// Asks who takes part.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Who {
    /// Answered by [`Participants`].
    pub request: RequestId,
    /// The room's name.
    pub room: String,
}

/// A request without more to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Plain {
    /// Carried back by the answer.
    pub request: RequestId,
}

/// The account's direct messages have been shown up to here.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mark {
    /// Answered by [`Item::Done`].
    pub request: RequestId,
    /// Keys of direct messages shown (at most [`MARKS_MAX`] in a request).
    pub shown: Vec<(RoomId, Key)>,
}

/// Keys in one [`Mark`], at most.
pub const MARKS_MAX: usize = 512;

wire! {
    /// What a client is told.
    pub enum Item {
        /// The answer to the attach.
        1 => Welcome(Welcome),
        /// A request was refused, or the session is at fault.
        2 => Refused(Refused),
        /// A request was carried out.
        3 => Done(Plain),
        /// A message is on the disk (or on enough disks).
        4 => Sent(Sent),
        /// Messages answered as stored are on a majority of disks now.
        5 => Replicated(Replicated),
        /// A room is open.
        6 => RoomOpened(RoomOpened),
        /// A room was closed by somebody else.
        7 => RoomClosed(RoomClosed),
        /// Something happened in a room, or a direct message came.
        8 => Event(Shown),
        /// A page of the timeline.
        9 => Page(Page),
        /// The rooms.
        10 => Rooms(RoomList),
        /// A room's participants.
        11 => Participants(Participants),
        /// The account goes by this name now.
        12 => Named(Named),
        /// The topic.
        13 => TopicIs(TopicIs),
        /// What the server sees of the cluster.
        14 => Status(Status),
        /// A newer token; it covers everything sent before it.
        15 => Token(TokenBytes),
        /// Lines of this room were dropped because this client is slow: read the room again.
        16 => Gap(Gap),
        /// Attach to another server, one of these if possible: this one stops, or has more clients
        /// than they.
        17 => Leaving(Moving),
        /// The answer to a ping.
        18 => Pong(Pong),
        /// How far a verification is, or what it found.
        19 => Verified(Verified),
        /// A message that was there comes once more, and earlier in the timeline: a server that
        /// was away took it first. Whoever was told it is not told again.
        20 => Moved(Moved),
    }
}

impl Item {
    /// Which request it answers; 0 for what nobody asked for.
    pub fn request(&self) -> RequestId {
        match self {
            Self::Refused(item) => item.request,
            Self::Done(item) => item.request,
            Self::Sent(item) => item.request,
            Self::RoomOpened(item) => item.request,
            Self::Page(item) => item.request,
            Self::Rooms(item) => item.request,
            Self::Participants(item) => item.request,
            Self::Named(item) => item.request,
            Self::TopicIs(item) => item.request,
            Self::Status(item) => item.request,
            Self::Pong(item) => item.request,
            Self::Verified(item) => item.request,
            Self::Welcome(_)
            | Self::Replicated(_)
            | Self::RoomClosed(_)
            | Self::Event(_)
            | Self::Moved(_)
            | Self::Token(_)
            | Self::Gap(_)
            | Self::Leaving(_) => RequestId(0),
        }
    }

    /// What is said instead of an answer that is too long for a frame: whoever asked must not wait
    /// for ever.
    pub fn too_long(&self) -> Self {
        Self::Refused(Refused {
            request: self.request(),
            code: Code::Invalid,
            reason: "the answer is too long to be sent; ask for less".into(),
            retry_ms: 0,
        })
    }
}

/// The session is attached.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Welcome {
    /// The server's minor version.
    pub minor: u16,
    /// The cluster.
    pub cluster: ClusterId,
    /// The server attached to.
    pub server: Slot,
    /// Its run.
    pub origin: Origin,
    /// All servers, to fail over to.
    pub servers: Vec<ServerAddr>,
    /// The account.
    pub account: AccountId,
    /// The name it goes by.
    pub nick: String,
    /// The server's clock, unix milliseconds: message ids are made from it.
    pub clock_ms: u64,
    /// The account's token.
    #[serde(with = "serde_bytes")]
    pub token: Vec<u8>,
    /// Rooms asked for that this session is no longer in, and why.
    pub closed: Vec<RoomClosed>,
    /// Rooms that are open now.
    pub rooms: Vec<OpenedRoom>,
    /// Events that the cursor covers and this server could not get in time, by the log's origin:
    /// keep what you have.
    pub stale: Vec<(Origin, u64)>,
}

/// A server and where it listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServerAddr {
    /// Its slot.
    pub name: Slot,
    /// host:port.
    pub addr: String,
}

/// A room that is open in a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OpenedRoom {
    /// Its id: events carry it.
    pub id: RoomId,
    /// Its name as its founder wrote it.
    pub name: String,
    /// When it was opened: to be repeated in [`Opened`].
    pub since: Hlc,
    /// The topic; empty if none.
    pub topic: String,
}

/// What went wrong, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Code {
    /// The request is wrong in itself.
    Invalid,
    /// No such room, person or nick.
    Unknown,
    /// Not allowed to.
    Forbidden,
    /// Kicked out of the room.
    Kicked,
    /// Too much or too fast: after `retry_ms`, again.
    Busy,
    /// The server's clock is off: it takes no writes, another server does.
    ClockSkew,
    /// The server is not ready (still catching up, or stopping): try another one.
    NotReady,
    /// The token is not of this cluster.
    BadToken,
    /// A message of that id exists with another content.
    Conflict,
    /// The message id's time is in the future.
    BadMid,
    /// The first frame was no attach, or another breach of the protocol: the session ends.
    Protocol,
    /// The disk refuses writes.
    Storage,
    /// The message is older than what the room keeps.
    Expired,
}

/// A request that was not carried out, definitely: nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Refused {
    /// Which; 0 for the session as a whole.
    pub request: RequestId,
    /// For programs.
    pub code: Code,
    /// For people: what was wrong and what to do.
    pub reason: String,
    /// When to try again, for [`Code::Busy`].
    pub retry_ms: u32,
}

/// The state of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sent {
    /// Which request.
    pub request: RequestId,
    /// The message.
    pub mid: Mid,
    /// Its room.
    pub room: RoomId,
    /// Its place in the timeline.
    pub key: Key,
    /// How safe it is.
    pub level: Level,
    /// On how many voters' disks it is known to be.
    pub replicas: u16,
    /// Whom a direct message went to: the account that its nick meant.
    pub to: Option<AccountId>,
}

/// These are on a majority of disks now.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Replicated {
    /// The messages and on how many voters' disks each is.
    pub mids: Vec<(Mid, u16)>,
}

/// A room is open.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RoomOpened {
    /// Which request.
    pub request: RequestId,
    /// The room.
    pub room: OpenedRoom,
    /// Its last messages at this moment, oldest first; what happens later follows.
    pub lines: Vec<Line>,
    /// Whether they are all this side of a partition can know; see [`Page`].
    pub complete: bool,
    /// Servers that cannot be reached now.
    pub unreachable: Vec<Slot>,
}

/// The session is out of a room.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RoomClosed {
    /// The room.
    pub room: RoomId,
    /// Its name.
    pub name: String,
    /// Why.
    pub why: ClosedWhy,
}

/// Why a session is out of a room.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ClosedWhy {
    /// By whom and why.
    Kicked {
        /// The kicker's name.
        by: String,
        /// May be empty.
        reason: String,
    },
    /// Another session of the account left it.
    Left,
}

/// A line of a timeline: an event and whose log it is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Line {
    /// The log's origin; with the event's stamp and number it gives the key.
    pub origin: Origin,
    /// What happened.
    pub event: Arc<Event>,
}

impl Line {
    /// Its place in the timeline.
    pub fn key(&self) -> Key {
        self.event.key(self.origin)
    }

    /// The message's identity, if it is a message.
    pub fn identity(&self) -> Option<Identity> {
        self.event.identity()
    }
}

/// A line that just happened, or that the client had missed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shown {
    /// The line.
    pub line: Line,
    /// Whether it is more than a second older than the newest shown in its room.
    pub late: bool,
}

/// A message that has another place now.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Moved {
    /// The line in its place.
    pub shown: Shown,
    /// Where it was: a client whose cursor covers that was told it.
    pub from: Key,
}

/// A page of a timeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Page {
    /// Which request.
    pub request: RequestId,
    /// Messages, oldest first.
    pub lines: Vec<Line>,
    /// Whether older ones may exist here.
    pub more: bool,
    /// Whether they are all that any server of the cluster had on its disk some seconds ago: this one
    /// hears all others, knows what they hold, and has it on its own disk.
    pub complete: bool,
    /// Servers that cannot be reached now.
    pub unreachable: Vec<Slot>,
}

/// The rooms.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RoomList {
    /// Which request.
    pub request: RequestId,
    /// By name.
    pub rooms: Vec<RoomInfo>,
    /// Whether another item of the same request continues the list.
    pub more: bool,
}

/// A room.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RoomInfo {
    /// Its id.
    pub id: RoomId,
    /// Its name.
    pub name: String,
    /// Empty if none.
    pub topic: String,
    /// How many take part.
    pub participants: u32,
    /// How many messages it holds.
    pub messages: u64,
    /// How long it keeps them.
    pub keep: Retention,
}

/// Who takes part in a room.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Participants {
    /// Which request.
    pub request: RequestId,
    /// The room's name.
    pub room: String,
    /// By account.
    pub people: Vec<Participant>,
    /// Whether another item of the same request continues the list.
    pub more: bool,
}

/// Somebody in a room.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Participant {
    /// The account.
    pub account: AccountId,
    /// The name it goes by.
    pub nick: String,
    /// Member, op or founder.
    pub rank: Rank,
    /// Whether it joined for good (or watches while a session lasts).
    pub member: bool,
    /// The servers its sessions with this room open are attached to; none: away.
    pub servers: Vec<Slot>,
}

/// A name was given.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Named {
    /// Which request; 0 when somebody else's claim changed it.
    pub request: RequestId,
    /// The name the account goes by now.
    pub nick: String,
    /// The name it asked for, when that is held by somebody else.
    pub taken: Option<String>,
}

/// A room's topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TopicIs {
    /// Which request.
    pub request: RequestId,
    /// The room's name.
    pub room: String,
    /// Empty if none.
    pub topic: String,
}

/// An opaque token.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TokenBytes {
    /// To be kept and shown at the next attach.
    #[serde(with = "serde_bytes")]
    pub token: Vec<u8>,
    /// What changed in what it covers of the client's rooms: the cursor may be raised by it.
    pub vector: Vector,
}

/// Lines were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Gap {
    /// In this room (or direct messages).
    pub room: RoomId,
    /// None of them is below this: read back as far as here.
    pub since: Key,
    /// With whom, if these are direct messages.
    pub with: Option<AccountId>,
}

/// Where to go.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Moving {
    /// The other servers, those this one is linked to first; or the one that has fewer clients.
    pub servers: Vec<ServerAddr>,
}

/// The answer to a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pong {
    /// Which request.
    pub request: RequestId,
    /// The server's clock, unix milliseconds.
    pub clock_ms: u64,
}

/// What a server sees.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Status {
    /// Which request.
    pub request: RequestId,
    /// Itself.
    pub server: Slot,
    /// Its disk.
    pub disk: ServerId,
    /// Its run.
    pub origin: Origin,
    /// Its state.
    pub state: ServerState,
    /// How far its disk is to be believed.
    pub standing: Standing,
    /// Every other server of the configuration.
    pub links: Vec<LinkStatus>,
    /// What it holds on disk.
    pub vector: Vector,
    /// Each room's timeline in 8 bytes: equal on servers that show the same.
    pub rooms: Vec<RoomDigest>,
    /// Whether another item of the same request continues `rooms`.
    pub more: bool,
    /// Events that linked servers hold and that are not on its disk yet.
    pub lag: u64,
    /// Clients attached.
    pub sessions: u32,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// When its certificate ends, unix milliseconds; unknown until its driver says so.
    pub certificate_ends_ms: Option<u64>,
}

/// Of a verification: told about once a second, and at its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Verified {
    /// Which request.
    pub request: RequestId,
    /// Events read and found right so far.
    pub events: u64,
    /// Whether this is the end.
    pub done: bool,
    /// What is damaged, in words; the server cuts it out and fetches it from the others.
    pub damage: Option<String>,
}

/// What a server can do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ServerState {
    /// Everything.
    Ready,
    /// Far behind: it takes no clients until it is near.
    CatchingUp,
    /// Its clock is off: it reads and replicates, and takes no writes.
    Fenced,
    /// It was asked to stop.
    Stopping,
    /// Its disk takes no writes, or its run goes on twice: it serves what it has.
    ReadOnly,
}

impl std::fmt::Display for ServerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ready => "ready",
            Self::CatchingUp => "catching up",
            Self::Fenced => "clock off",
            Self::Stopping => "stopping",
            Self::ReadOnly => "read only",
        })
    }
}

/// A link to another server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LinkStatus {
    /// The other server.
    pub server: Slot,
    /// Its state.
    pub state: LinkState,
    /// Round trip in microseconds, smoothed; 0 if not measured.
    pub rtt_micros: u64,
    /// Events it holds that are not here yet.
    pub behind: u64,
}

/// Whether another server can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LinkState {
    /// Linked.
    Up,
    /// Linked, but silent for longer than the suspicion time.
    Suspect,
    /// Not linked.
    Down,
}

impl std::fmt::Display for LinkState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
        })
    }
}

/// The digest of a room's timeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RoomDigest {
    /// The room's name; all direct messages together are one entry, `direct messages`.
    pub room: String,
    /// Messages shown in it.
    pub messages: u64,
    /// Over their identities, keys and contents, in any order.
    pub digest: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_may_be_as_long_as_their_bounds() {
        let fits = |check: fn(&str) -> Result<(), String>, letter: &str, bound: usize| {
            let of = |n| check(&letter.repeat(n)).is_ok();
            [of(0), of(1), of(bound), of(bound + 1)]
        };
        assert_eq!(fits(check_text, "x", TEXT_BYTES_MAX), [false, true, true, false]);
        assert_eq!(fits(check_room, "ä", ROOM_CHARS_MAX), [false, true, true, false]);
        assert_eq!(fits(check_nick, "ä", NICK_CHARS_MAX), [false, true, true, false]);
    }

    #[test]
    fn states_are_told_in_words() {
        assert_eq!(LinkState::Suspect.to_string(), "suspect");
        assert_ne!(LinkState::Up.to_string(), LinkState::Down.to_string());
        assert_ne!(ServerState::Ready.to_string(), ServerState::Stopping.to_string());
    }
}
