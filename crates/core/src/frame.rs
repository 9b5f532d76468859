//! What servers say to each other.
//!
//! `Have` is at once Plumtree's IHAVE, the acknowledgement of replication and the anti-entropy
//! digest; `Want` is at once graft, gap repair and catch-up (Leitao, Pereira, Rodrigues:
//! Epidemic Broadcast Trees, 2007). The table of kinds is in `docs/protocol.md`.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::{Event, Retention, first_eight};
use crate::id::{AccountId, Log, Origin, RoomId, Slot};
use crate::io::Standing;
use crate::session::ServerState;
use crate::wire::{DecodeError, wire};

/// Which stream of a link a frame travels on, highest priority first. Order holds within a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Small and urgent: `Have`, `Want`, pings.
    Control,
    /// New events.
    Live,
    /// Who is where.
    Presence,
    /// Repair of what was missed.
    CatchUp,
}

impl Class {
    /// All, highest priority first.
    pub const ALL: [Self; 4] = [Self::Control, Self::Live, Self::Presence, Self::CatchUp];
}

/// Events of one frame, at most this many bytes (by [`Event::cost`]), unless one event is larger.
pub const EVENTS_BYTES_MAX: usize = 256 * 1024;

wire! {
    /// A frame between servers.
    pub enum Frame {
        /// The first frame on the control stream, once; who is speaking.
        0 => Hello(Hello),
        /// Are you there? Every 500 ms.
        1 => Ping(Ping),
        /// I am.
        2 => Pong(Ping),
        /// A hash of what I hold, contents included; answered with [`Frame::Vector`] if it differs
        /// from yours.
        3 => Digest(Digest),
        /// All that I hold on disk, log by log.
        4 => Vector(Haves),
        /// What I hold on disk of the logs that changed.
        5 => Have(Haves),
        /// Send me these.
        6 => Want(Want),
        /// Stop pushing these logs to me (one direction only).
        7 => Prune(Logs),
        /// I dropped what was queued for you: pull, and ask to be pushed to when you are near.
        8 => Lagging(Lagging),
        /// I am about to stop.
        9 => Leaving(Leaving),
        /// New events, pushed.
        10 => Events(Events),
        /// Events that were asked for.
        11 => Range(Range),
        /// Who is attached to me.
        12 => Presence(PresenceUpdate),
        /// Your disk holds less than it announced: it was rolled back, or is a copy.
        13 => RolledBack(RolledBack),
        /// Your run goes on twice: I hold other events under the names of this log.
        14 => Forked(Logs),
        /// How many clients are attached to me, and whether I take more.
        15 => Load(Load),
    }
}

/// Minor version of the protocol between servers; unknown frame kinds are skipped, unknown event
/// kinds are kept and forwarded. The major version is in the ALPN (`chatty-s/1`).
pub const SERVER_MINOR: u16 = 2;

/// Who is speaking, beyond what the certificate says. The connection's driver reads it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Hello {
    /// The sender's [`SERVER_MINOR`].
    pub minor: u16,
    /// The sender's run.
    pub origin: Origin,
    /// The sender's wall clock, unix milliseconds.
    pub wall_ms: u64,
    /// Where it listens, host:port.
    pub addr: String,
    /// How far the sender's disk is to be believed.
    pub standing: Standing,
    /// What all servers are to have configured alike; from minor version 1 on.
    pub common: Option<Common>,
}

/// What all servers of a cluster are to have in their configurations.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Common {
    /// Whose disks count: with other voters, *replicated* is said of something else.
    pub voters: BTreeSet<Slot>,
    /// What rooms keep that say nothing: where it differs, whoever sets a room's floor decides.
    pub retention: Retention,
}

impl Hello {
    /// Reads the body of a `Hello`. Unlike any other frame it may go on behind the fields that this
    /// version knows: newer versions append theirs.
    ///
    /// # Errors
    /// The known fields do not parse.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let malformed = |_| DecodeError::Malformed(0);
        let (first, rest) = postcard::take_from_bytes(body).map_err(malformed)?;
        let (minor, origin, wall_ms, addr, standing) = first;
        let common = match minor {
            0 => None,
            _ => postcard::take_from_bytes(rest).map_err(malformed)?.0,
        };
        Ok(Self { minor, origin, wall_ms, addr, standing, common })
    }
}

/// A ping or its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ping {
    /// The pinger's steady clock, echoed in the answer.
    pub sent_micros: u64,
    /// The sender's max(wall clock, hybrid clock) in milliseconds: what the clock fence compares.
    pub clock_ms: u64,
}

/// Eight bytes over all that the sender holds on disk, contents included: [`Digest::of`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest {
    /// The hash.
    pub hash: u64,
}

impl Digest {
    /// Equal for equal prefixes with equal chains, given by log. An event that was erased here and not
    /// there makes no difference: it keeps its place in the chain.
    pub fn of(haves: impl IntoIterator<Item = Have>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for Have { log, upto, chain } in haves {
            hasher.update(&log.origin.to_bytes());
            hasher.update(&log.shard.to_be_bytes());
            hasher.update(&upto.to_be_bytes());
            hasher.update(&chain.to_be_bytes());
        }
        Self { hash: first_eight(&hasher.finalize()) }
    }
}

/// A durable prefix of one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Have {
    /// Of which log.
    pub log: Log,
    /// Its first `upto` events are fsynced at the sender.
    pub upto: u64,
    /// The chain at `upto`.
    pub chain: u64,
}

/// Durable prefixes, at most [`HAVES_MAX`]. A [`Frame::Vector`] that is full continues in the next.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Haves {
    /// One entry a log.
    pub haves: Vec<Have>,
}

/// Entries in one [`Haves`], at most; longer lists travel as several frames.
pub const HAVES_MAX: usize = 8192;

/// A request for events `from..=to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Want {
    /// Of which log.
    pub log: Log,
    /// The first wanted.
    pub from: u64,
    /// The last wanted; below `from` when nothing is missing yet.
    pub to: u64,
    /// Whether to push the log from now on.
    pub push: Push,
}

/// What a [`Want`] asks for besides the events it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Push {
    /// Nothing.
    Unchanged,
    /// Push new events of the log to me from now on (Plumtree's graft).
    Start,
}

/// Some logs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Logs {
    /// Which.
    pub logs: Vec<Log>,
}

/// No content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lagging {}

/// No content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Leaving {}

/// The first of what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RolledBack {
    /// Of which log.
    pub log: Log,
    /// Events of it that the disk announced once.
    pub announced: u64,
    /// Events of it that it holds now.
    pub held: u64,
}

/// New events `base ..= base + events.len() - 1` of a log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Events {
    /// Of which log.
    pub log: Log,
    /// Sequence number of the first.
    pub base: u64,
    /// How many servers relayed them before: 0 from the log's own server.
    pub hops: u8,
    /// In order.
    pub events: Vec<Arc<Event>>,
    /// The chain at the last.
    pub chain: u64,
}

/// Events that were asked for; the same shape, without hops.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Range {
    /// Of which log.
    pub log: Log,
    /// Sequence number of the first.
    pub base: u64,
    /// In order; empty if the sender has none of them.
    pub events: Vec<Arc<Event>>,
    /// The chain at the last (0 if empty).
    pub chain: u64,
    /// Whether this answers the `Want` as far as the sender will: ask again for more.
    pub done: bool,
}

/// Changes in who is attached to the sender. Version n+1 follows n; a `full` one starts anew.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PresenceUpdate {
    /// Whether `here` is everybody, or what changed.
    pub full: bool,
    /// Now open: accounts and the rooms they have open here (`None`: just attached).
    pub here: Vec<(AccountId, Option<RoomId>)>,
    /// No longer.
    pub gone: Vec<(AccountId, Option<RoomId>)>,
}

/// What a server tells of its clients with a ping, when it changed; from minor version 2 on. One that
/// never told it takes no part in spreading clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Load {
    /// Accounts attached: many sessions of one are one client.
    pub clients: u32,
    /// What the server can do.
    pub state: ServerState,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_is_read_from_every_minor_version() {
        let voters = ["s1", "s2"].map(|name| Slot::new(name).unwrap()).into();
        let common = Common { voters, retention: Retention { age_ms: 7, messages: 0 } };
        let mut hello = Hello {
            minor: SERVER_MINOR,
            origin: Origin::new(5),
            wall_ms: 9,
            addr: "s1:7".into(),
            standing: Standing::Lossy,
            common: Some(common),
        };
        let mut body = postcard::to_allocvec(&hello).unwrap();
        assert_eq!(Hello::decode(&body), Ok(hello.clone()));
        let cut = Hello::decode(&body[..body.len() - 1]);
        assert_eq!(cut, Err(DecodeError::Malformed(0)));
        body.push(1);
        assert_eq!(Hello::decode(&body), Ok(hello.clone()), "a newer one goes on");

        // The first one ended earlier.
        (hello.minor, hello.common) = (0, None);
        let mut body = postcard::to_allocvec(&hello).unwrap();
        body.pop();
        assert_eq!(Hello::decode(&body), Ok(hello.clone()));
        body.push(1);
        assert_eq!(Hello::decode(&body), Ok(hello));
    }
}
