//! What clients of a run were told, and whether that could be.
//!
//! A [`History`] is what anybody outside the servers can know: what each session sent, was answered
//! and was shown, what each server's timelines were in the end, and which faults there were. It
//! knows nothing of how it came about, so the simulator and real processes use the same one.
//! [`check`] holds it against the promises, one [`Rule`] each; [`figures`] counts and measures.
//!
//! Whoever records keeps to this: the operations of one session stand in the order in which its
//! program did and heard them, and a [`Did::Sent`] stands before anything that followed from it.

mod facts;
mod figures;
mod rules;
#[cfg(test)]
mod tests;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chatty_core::event::Identity;
use chatty_core::id::{AccountId, Mid, Origin, RoomId};
use chatty_core::session::Level;
use chatty_core::time::{Hlc, Key, Time};

pub use figures::{Figures, Quantiles, Stall, figures};
pub use rules::{Verdict, check, judge};

/// A server, by its place in [`History::servers`]. All of them vote.
pub type Server = usize;
/// A session, by its place in [`History::sessions`]: one run of one client, fail-overs included. A
/// client that was started again is another session, perhaps of the same account.
pub type Session = usize;

/// One run, as seen from outside.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The servers' names.
    pub servers: Vec<String>,
    /// The sessions' names.
    pub sessions: Vec<String>,
    /// The rooms, and what they are called.
    pub rooms: BTreeMap<RoomId, String>,
    /// The rooms of direct messages, and between whom.
    pub directs: BTreeMap<RoomId, [AccountId; 2]>,
    /// Messages that somebody who had the room open need not have been shown.
    pub unshown: BTreeSet<(RoomId, Mid)>,
    /// What happened, in the order recorded.
    pub ops: Vec<Op>,
}

impl History {
    /// Takes out what is told of messages that rooms do not keep any more, by their floors in unix
    /// milliseconds: nothing is promised of them.
    pub fn forget_below(&mut self, floors: &BTreeMap<RoomId, u64>) {
        self.forget(|room, mid| floors.get(room).is_none_or(|floor| mid.unix_ms() > *floor));
    }

    /// Takes out what is told of messages of which nothing is promised.
    pub fn forget(&mut self, keeps: impl Fn(&RoomId, Mid) -> bool) {
        let mut gone: BTreeSet<(Session, u64)> = BTreeSet::new();
        let mut rooms = BTreeMap::new();
        for op in &self.ops {
            match &op.what {
                What::Client(session, Did::Sent { ticket, room }) => {
                    rooms.insert((*session, *ticket), *room);
                }
                What::Client(session, Did::Answered { ticket, mid, .. })
                    if rooms.get(&(*session, *ticket)).is_some_and(|room| !keeps(room, *mid)) =>
                {
                    gone.insert((*session, *ticket));
                }
                _ => {}
            }
        }
        self.ops.retain_mut(|op| match &mut op.what {
            What::Client(_, Did::Saw { room, line, .. }) => keeps(room, line.mid),
            What::Client(
                session,
                Did::Sent { ticket, .. }
                | Did::Answered { ticket, .. }
                | Did::Refused { ticket, .. }
                | Did::Doubted { ticket, .. },
            ) => !gone.contains(&(*session, *ticket)),
            What::Client(_, Did::Read { room, lines, .. }) | What::Final(_, room, lines) => {
                lines.retain(|line| keeps(room, line.mid));
                true
            }
            _ => true,
        });
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// When, since the run began, by one clock for all.
    pub at: Time,
    /// What.
    pub what: What,
}

/// What may happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A session did or heard something.
    Client(Session, Did),
    /// From now on only servers of one side reach each other.
    Cut(Vec<BTreeSet<Server>>),
    /// From now on all reach each other again; stands when the first packet may pass.
    Healed,
    /// A server's process was killed or stopped.
    Down(Server),
    /// A server was started.
    Up(Server),
    /// A server's disk was lost: what is on no other is gone.
    DiskLost(Server),
    /// The whole timeline of a room on one server after everything came to rest. The last one of a
    /// server and room counts.
    Final(Server, RoomId, Vec<Shown>),
    /// What else a server shows of a room after everything came to rest. The last one counts.
    State(Server, RoomId, State),
}

/// What a room has besides its timeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Its topic; empty if none.
    pub topic: String,
    /// Who joined it, and by which name each of them goes.
    pub members: BTreeMap<AccountId, String>,
}

/// What is set rather than said: of two changes the one at the higher place counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A room's topic.
    Topic(RoomId),
    /// An account's name.
    Nick(AccountId),
}

/// What a session may do or hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Did {
    /// It is attached to a server, which lacks what it saw elsewhere of these logs.
    Attached {
        /// As whom.
        account: AccountId,
        /// Where.
        server: Server,
        /// Logs of which the server lacks events that this session saw.
        stale: BTreeSet<Origin>,
    },
    /// Its server is gone.
    Lost,
    /// It is shown a room from now on.
    Opened {
        /// Which.
        room: RoomId,
        /// The server's clock then: whoever joined by it did so no later.
        since: Hlc,
    },
    /// It was told that it is out of a room.
    Closed(RoomId),
    /// It said something; answers name the ticket.
    Sent {
        /// The session's own number for it.
        ticket: u64,
        /// Where.
        room: RoomId,
    },
    /// A message of it reached a level.
    Answered {
        /// Which.
        ticket: u64,
        /// Its id.
        mid: Mid,
        /// Its place, if the answer says it.
        key: Option<Key>,
        /// How safe it is.
        level: Level,
        /// Who says so.
        server: Server,
    },
    /// A message of it definitely did not happen.
    Refused {
        /// Which.
        ticket: u64,
        /// The reason given.
        why: String,
    },
    /// A message of it may have happened or not.
    Doubted {
        /// Which.
        ticket: u64,
        /// The reason given.
        why: String,
    },
    /// It was shown a message.
    Saw {
        /// Where.
        room: RoomId,
        /// What.
        line: Shown,
        /// Whether it was marked as late.
        late: bool,
    },
    /// It read a page of a timeline.
    Read {
        /// Of which room.
        room: RoomId,
        /// When it asked.
        asked: Time,
        /// Only what stands below this.
        before: Option<Key>,
        /// Oldest first.
        lines: Vec<Shown>,
        /// Whether older ones may exist.
        more: bool,
        /// Whether the server said that they are all that any server had some seconds ago.
        complete: bool,
    },
    /// It asks that something be set.
    Sets {
        /// What.
        subject: Subject,
        /// To what: no other ask is for the same.
        value: String,
    },
    /// It learnt that something was set.
    Changed {
        /// What.
        subject: Subject,
        /// To what.
        value: String,
        /// The change's place.
        key: Key,
    },
    /// It learnt that somebody joined a room.
    Joined {
        /// Which room.
        room: RoomId,
        /// Who.
        account: AccountId,
        /// The join's place.
        key: Key,
    },
    /// It learnt that somebody was put out of a room.
    Kicked {
        /// Which room.
        room: RoomId,
        /// Who.
        account: AccountId,
        /// The kick's place.
        key: Key,
    },
    /// It ended, or was killed, before the run did.
    Ended,
}

/// A message as a client is shown it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shown {
    /// Who said it.
    pub account: AccountId,
    /// Under which id.
    pub mid: Mid,
    /// Its place.
    pub key: Key,
    /// A hash of all that is shown of it.
    pub body: u64,
}

impl Shown {
    /// Which message it is.
    pub const fn identity(&self, room: RoomId) -> Identity {
        Identity { room, account: self.account, mid: self.mid }
    }
}

/// A promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// What was acknowledged is in the final timeline of every server, as that very event or an
    /// earlier one: its sender's repetition must not be what saved it. (Said as `stored` by a server
    /// that lost its disk afterwards, it may be gone.)
    Lost,
    /// No message is shown twice to a session, or stands twice in a timeline.
    Duplicated,
    /// What a session was shown is in the final timelines. (Shown only by servers that lost their
    /// disks afterwards, it may be gone.)
    DirtyRead,
    /// Timelines rise by key, and the final order extends the order in which sessions saw keys: a
    /// message moves only to the smaller key of another event of the same id.
    Reordered,
    /// A page has what the session had been told is acknowledged, unless the attach said `stale`.
    ReadYourWrites,
    /// A page has what the session had seen before, unless the attach said `stale`.
    MonotonicReads,
    /// A page that is called complete has everything that any session had been told is acknowledged
    /// some seconds before it was asked for.
    Incomplete,
    /// A line that is more than a second older than the newest its session was shown in that room is
    /// marked as late.
    Unmarked,
    /// What a session says stands below what it had seen or been answered in that room.
    WritesFollowReads,
    /// `replicated` is never said, of what was said in a minority, before the heal.
    MinorityReplicated,
    /// The final timelines of a room are the same on all servers, and have what was shown.
    Diverged,
    /// Somebody put out of a room says and hears nothing there that must have come after the kick:
    /// what follows it in the same server's log, or is shown after he was told, or was shown the
    /// kick himself.
    KickedHeard,
    /// A message to one person is shown to nobody but the two.
    Overheard,
    /// A topic or a name is in the end what the last change made it that anybody was told of, and a
    /// room has the same members on all servers.
    Shared,
    /// A session that had a room open from before its first message until the end was shown it all.
    Missed,
    /// The final timelines have nothing that no session said.
    Invented,
    /// Every room that was spoken in was read from every server in the end; else nothing is proven.
    Unread,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Lost,
        Self::Duplicated,
        Self::DirtyRead,
        Self::Reordered,
        Self::ReadYourWrites,
        Self::MonotonicReads,
        Self::Incomplete,
        Self::Unmarked,
        Self::WritesFollowReads,
        Self::MinorityReplicated,
        Self::Diverged,
        Self::KickedHeard,
        Self::Overheard,
        Self::Shared,
        Self::Missed,
        Self::Invented,
        Self::Unread,
    ];
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost",
            Self::Duplicated => "duplicated",
            Self::DirtyRead => "dirty read",
            Self::Reordered => "out of order",
            Self::ReadYourWrites => "read your writes",
            Self::MonotonicReads => "monotonic reads",
            Self::Incomplete => "called complete",
            Self::Unmarked => "not marked late",
            Self::WritesFollowReads => "writes follow reads",
            Self::MinorityReplicated => "replicated in a minority",
            Self::Diverged => "timelines differ",
            Self::KickedHeard => "kicked and heard",
            Self::Overheard => "overheard",
            Self::Shared => "shared state",
            Self::Missed => "missed",
            Self::Invented => "invented",
            Self::Unread => "not read",
        })
    }
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub rule: Rule,
    /// When it showed, since the run began.
    pub at: Time,
    /// What was seen, for a person.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, at, what } = self;
        write!(f, "{rule}, at {}: {what}", write::seconds(*at))
    }
}
