//! The one door in and the one queue out of a [`Replica`](crate::replica::Replica).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::frame::{Class, Frame};
use crate::id::{Generation, LinkId, Origin, PersistToken, ReadToken, ServerId, SessionId, Slot};
use crate::session::{Item, Request};
use crate::store::{Batch, Committed, Query, Rows};

/// Another server, as its certificate and its `Hello` name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// Its slot of the configuration.
    pub slot: Slot,
    /// Which certificate of the slot.
    pub generation: Generation,
    /// Its disk.
    pub server: ServerId,
    /// Its run.
    pub origin: Origin,
    /// How far its disk is to be believed.
    pub standing: Standing,
}

/// How far a disk is to be believed. What it announced once, it holds for ever; a disk of which
/// that is not so says it, or is found out.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum Standing {
    /// It holds all that it ever announced.
    #[default]
    Sound,
    /// It lost some of that and knows it (damage was cut out): its vector counts, not what it said
    /// before.
    Lossy,
    /// It lost some of that unawares: an older state was put back, or a copy was started. It
    /// replicates, and counts for nothing until it comes back as a new server.
    RolledBack,
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sound => "sound",
            Self::Lossy => "lossy",
            Self::RolledBack => "rolled back",
        })
    }
}

/// What has happened outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A connection to another server is up, both ends authenticated. At most one a server: the
    /// driver says `LinkDown` of the old one first.
    LinkUp(LinkId, Peer),
    /// It is down; frames in flight may be lost.
    LinkDown(LinkId),
    /// A frame came: decoded, not yet trusted.
    Frame(LinkId, Frame),
    /// The kernel says that nothing listens there any more. Anybody could have forged that.
    Hint(LinkId),
    /// So many bytes (as [`Output::Send`] counted them) of a class left for the network.
    Wrote(LinkId, Class, usize),
    /// A client connected; its first request must be an attach.
    SessionUp(SessionId),
    /// A client asks.
    Request(SessionId, Request),
    /// A client's connection is gone.
    SessionDown(SessionId),
    /// So many bytes (as [`Output::Deliver`] counted them) left for the client.
    Drained(SessionId, usize),
    /// The batch is fsynced; what it did.
    Persisted(PersistToken, Committed),
    /// The batch could not be written: nothing of it is on the disk, and it is tried again when
    /// the store says so with another `Persisted` for the same token.
    PersistFailed(PersistToken, String),
    /// The disk has no room any more for what clients write, and why; or it has again.
    Room(Result<(), String>),
    /// The answer to a read.
    ReadDone(ReadToken, Rows),
    /// The operator wants the server empty before it stops: send the clients elsewhere and take no
    /// more. [`crate::replica::Replica::drain`] tells how far that is.
    Drain,
    /// A drain was given up: take clients again.
    Resume,
    /// From when until when the server's certificate is good, unix milliseconds: its end is told in
    /// the status, and a server that is alone holds its clock to it.
    Certificate(u64, u64),
    /// The operator wants the server to stop: tell the clients where to go.
    Stop,
}

/// What the driver must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Output {
    /// Queue a frame on these links; it counts `cost` bytes until `Wrote` says it left.
    Send {
        /// To whom.
        links: Vec<LinkId>,
        /// On which stream.
        class: Class,
        /// What.
        frame: Arc<Frame>,
        /// Bytes it counts for.
        cost: usize,
    },
    /// Forget frames of that class that wait for the network on this link.
    DropQueue(LinkId, Class),
    /// Close the connection and say why.
    Close(LinkId, String),
    /// Write and fsync this, then say `Persisted`. One batch is outstanding at a time.
    Persist(PersistToken, Arc<Batch>),
    /// Read, then say `ReadDone`.
    Read(ReadToken, Query),
    /// Queue an item for these sessions; it counts `cost` bytes until `Drained` says it left.
    Deliver {
        /// To whom.
        sessions: Vec<SessionId>,
        /// What.
        item: Arc<Item>,
        /// Bytes it counts for.
        cost: usize,
    },
    /// Deliver what is queued for the session, then close it.
    CloseSession(SessionId),
    /// The disk is damaged, told in words: stop in good order, cut the damage out, start again.
    Damaged(String),
    /// Something the operator should read.
    Log(Severity, String),
}

/// How much an operator should care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Look into it.
    Warn,
    /// Act.
    Error,
}
