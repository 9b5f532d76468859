//! The one door in and the one queue out of a [`Client`](super::Client).

use std::time::Duration;

use crate::id::{AccountId, Mid, Origin, RoomId, Slot};
use crate::session::{Code, Item, Level, Line, Request, RoomClosed, Target};
use crate::time::Key;

use super::ask::{Answer, Ask};
use super::journal::Note;

/// One dial and the connection it led to; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Conn(pub u64);

/// The program's own number for something it asked; every answer carries it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ticket(pub u64);

impl Ticket {
    /// The program's own numbers are below this.
    const RESTORED: u64 = 1 << 63;

    /// The ticket of a message that an earlier client left, by its number in the journal.
    pub const fn restored(nth: u64) -> Self {
        Self(Self::RESTORED | nth)
    }

    /// Whether an earlier client left the message.
    pub const fn is_restored(self) -> bool {
        self.0 >= Self::RESTORED
    }
}

/// What has happened outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The program wants something.
    Command(Command),
    /// The dial succeeded.
    Connected(Conn),
    /// The dial failed or the connection is gone.
    Disconnected(Conn, String),
    /// The dial reached somebody who cannot prove to be of this cluster, and why.
    Stranger(Conn, String),
    /// Bytes came that are no whole item yet: somebody is alive.
    Heard(Conn),
    /// An item came.
    Item(Conn, Item),
    /// The kernel says that nothing listens there any more. Anybody could have forged that.
    Hint(Conn),
    /// All notes are on disk up to this batch.
    Kept(u64),
    /// Notes cannot be kept any more, and those of before will not be read again.
    Unkept(String),
}

/// What a program may want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Say something. Answered by one [`ClientEvent::Message`] for each level it reaches, or by
    /// [`ClientEvent::Failed`].
    Send {
        /// The program's number for it.
        ticket: Ticket,
        /// Where to.
        to: Target,
        /// What.
        text: String,
        /// How safe it must be before the first answer.
        level: Level,
    },
    /// Ask something. Answered by [`ClientEvent::Answered`] or [`ClientEvent::Failed`].
    Ask {
        /// The program's number for it.
        ticket: Ticket,
        /// What.
        ask: Ask,
    },
    /// Say goodbye and end. Answered by [`ClientEvent::Ended`].
    Detach,
}

/// What the driver must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Output {
    /// Connect to host:port and say `Connected` or `Disconnected`.
    Dial(Conn, String),
    /// Send a request.
    Request(Conn, Request),
    /// Drop the dial or the connection; nothing more is expected of it.
    Hangup(Conn),
    /// Write these down after those before and say `Kept`, or `Unkept`. Only with a journal.
    Keep(u64, Vec<Note>),
    /// Tell the program.
    Emit(ClientEvent),
}

/// What a program is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// A server answers.
    Attached(Attached),
    /// The server is lost; another one is being dialled. Nothing is said when a server that stops
    /// hands its clients over.
    Lost {
        /// Which.
        server: Slot,
        /// Why.
        why: LostWhy,
    },
    /// A server did not answer a dial, or refused the attach; the next one is tried.
    Unreachable {
        /// host:port.
        addr: String,
        /// Why.
        why: LostWhy,
    },
    /// Something happened in an open room (or a person changed his name: then the room may be one
    /// that is not open). Once for each identity, in an order that extends what was told.
    Line {
        /// What happened.
        line: Line,
        /// Whether it is more than a second older than the newest line told of its room.
        late: bool,
    },
    /// A direct message, to or from this account.
    Direct {
        /// The message.
        line: Line,
        /// As in [`ClientEvent::Line`].
        late: bool,
    },
    /// A message of this client reached another level.
    Message(MessageState),
    /// These messages are written down: they are sent also when this client crashes now and
    /// another one begins with its notes.
    Kept(Vec<Ticket>),
    /// Messages are no longer written down, and why.
    Unkept(String),
    /// The answer to an ask.
    Answered {
        /// Which.
        ticket: Ticket,
        /// The answer.
        answer: Answer,
    },
    /// A message or an ask was not carried out.
    Failed {
        /// Which.
        ticket: Ticket,
        /// Why, and whether it may have happened all the same.
        failure: Failure,
    },
    /// The session is out of a room that it had open.
    RoomClosed(RoomClosed),
    /// The account goes by this name now, by somebody else's doing.
    Named {
        /// The name.
        nick: String,
        /// The name asked for, when somebody else holds it.
        taken: Option<String>,
    },
    /// Something a person should read.
    Notice(String),
    /// The client has ended: `None` after [`Command::Detach`], else the reason.
    Ended(Option<Failure>),
}

/// A session has begun, or goes on elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// At which server.
    pub server: Slot,
    /// Its address as dialled.
    pub addr: String,
    /// As whom.
    pub account: AccountId,
    /// Under which name.
    pub nick: String,
    /// Events seen elsewhere that this server could not get in time, by the log's origin.
    pub stale: Vec<(Origin, u64)>,
    /// How long there was no server, if there was one before.
    pub outage: Option<Duration>,
}

/// Why a server is no longer talked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LostWhy {
    /// The connection was closed or broke.
    Closed(String),
    /// Nothing came for too long.
    Silent,
    /// Its machine says that its process is gone, and a probe was not answered.
    Dead,
    /// It cannot do what was asked now; another one may.
    Unable(Code, String),
    /// It stops, and said so.
    Leaving,
}

impl std::fmt::Display for LostWhy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed(why) => write!(f, "connection lost: {why}"),
            Self::Silent => f.write_str("it does not answer"),
            Self::Dead => f.write_str("its process is gone"),
            Self::Unable(_, reason) => f.write_str(reason),
            Self::Leaving => f.write_str("it is stopping"),
        }
    }
}

/// The state of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageState {
    /// Which message, for the program.
    pub ticket: Ticket,
    /// Which message, for everybody.
    pub mid: Mid,
    /// Its room.
    pub room: Option<RoomId>,
    /// Its place in the timeline.
    pub key: Option<Key>,
    /// How safe it is: each level is told once.
    pub level: Level,
    /// On how many voters' disks it is known to be.
    pub replicas: u16,
    /// The server that says so.
    pub server: Slot,
    /// Since the program said it.
    pub elapsed: Duration,
}

/// Why something was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Refused: it definitely did not happen.
    Refused(Code, String),
    /// Refused now, and sent before to a server that was left or lost without an answer and may have
    /// taken it: it may have happened.
    Unsure(Code, String),
    /// No answer in time: it may have happened.
    TimedOut,
    /// The client has ended before the answer came: it may have happened.
    Ended,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(_, reason) => f.write_str(reason),
            Self::Unsure(_, reason) => {
                write!(f, "{reason} (an earlier server may have taken it all the same)")
            }
            Self::TimedOut => f.write_str("no server answered in time"),
            Self::Ended => f.write_str("the session ended before the answer came"),
        }
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// What a refusal says of something that an earlier server may have taken, or of which that is
    /// out of the question.
    pub(super) const fn refused(code: Code, reason: String, doubtful: bool) -> Self {
        if doubtful { Self::Unsure(code, reason) } else { Self::Refused(code, reason) }
    }

    /// Whether it is certain that it did not happen.
    #[must_use]
    pub const fn is_certain(&self) -> bool {
        matches!(self, Self::Refused(..))
    }
}
