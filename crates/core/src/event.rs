//! What is kept for ever: an event of a log, what it says, and the chain over a log's events.
//!
//! The header of an event is understood by every version; the body is opaque bytes under a `kind`
//! number, so that a server stores, acknowledges and forwards kinds that it does not know.

use serde::{Deserialize, Serialize};

use crate::id::{AccountId, EventId, Generation, Log, Mid, Origin, RoomId, ServerId, Slot};
use crate::time::{Hlc, Key};
use crate::vector::Vector;

/// Bytes of a message's text, at most.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Bytes of an event's body, at most: a text and the names around it.
pub const BODY_BYTES_MAX: usize = TEXT_BYTES_MAX + 1024;
/// The kind of an event whose content is not kept: see [`Event::void`].
pub const VOID: u16 = 0;
/// What an event costs on the wire besides its body, rounded up.
pub const EVENT_OVERHEAD_BYTES: usize = 80;

/// The `seq`-th event of a log. Neither its order nor its identity depends on arrival.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Event {
    /// Position in its log, from 1, without holes.
    pub seq: u64,
    /// Where it stands in its room's timeline; rises strictly within a log.
    pub hlc: Hlc,
    /// When it was accepted, by the accepting server's wall clock: shown, never compared.
    pub wall_ms: u64,
    /// Where.
    pub room: RoomId,
    /// Who.
    pub actor: AccountId,
    /// The client's name for it.
    pub mid: Mid,
    /// What the body is; see [`Body`].
    pub kind: u16,
    /// The encoded [`Body`].
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

impl Event {
    /// Its place in the timeline, given whose log it is of.
    pub const fn key(&self, origin: Origin) -> Key {
        Key { hlc: self.hlc, origin, seq: self.seq }
    }

    /// Its name, given its log.
    pub const fn id(&self, log: Log) -> EventId {
        EventId { log, seq: self.seq }
    }

    /// Bytes it counts for in queues and frames.
    pub fn cost(&self) -> usize {
        self.body.len() + EVENT_OVERHEAD_BYTES
    }

    /// What is left of an event whose content is not kept: its number, its stamp, and its hash in
    /// place of the body, so that the chain can still be checked.
    #[must_use]
    pub fn void(&self) -> Self {
        Self {
            seq: self.seq,
            hlc: self.hlc,
            wall_ms: 0,
            room: RoomId::new(0),
            actor: AccountId::new(0),
            mid: Mid::new(0),
            kind: VOID,
            body: self.hash().to_vec(),
        }
    }

    /// 32 bytes over the whole event, also once it is void.
    fn hash(&self) -> [u8; 32] {
        if self.kind == VOID
            && let Ok(hash) = self.body.as_slice().try_into()
        {
            return hash;
        }
        let mut bytes = [0u8; 128];
        match postcard::to_slice(self, &mut bytes) {
            Ok(encoded) => blake3::hash(encoded).into(),
            Err(_) => blake3::hash(&postcard::to_allocvec(self).unwrap_or_default()).into(),
        }
    }

    /// What the body says; `None` for a kind this version does not know or bytes it cannot read.
    pub fn body(&self) -> Option<Body> {
        Body::decode(self.kind, &self.body)
    }

    /// The chain at this event: 8 bytes over the chain before it and the whole event, so that equal
    /// prefixes of a log can be told by one number.
    pub fn chain(&self, previous: u64) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&previous.to_be_bytes());
        hasher.update(&self.hash());
        first_eight(&hasher.finalize())
    }
}

/// The chain before the first event of a log.
pub const CHAIN_START: u64 = 0;

pub(crate) fn first_eight(hash: &blake3::Hash) -> u64 {
    hash.as_bytes().iter().take(8).fold(0, |bits, byte| (bits << 8) | u64::from(*byte))
}

macro_rules! bodies {
    ($($(#[$doc:meta])* $number:literal $name:ident { $($(#[$fdoc:meta])* $field:ident: $type:ty),* $(,)? })*) => {
        /// What an event says.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum Body {
            $($(#[$doc])* $name($name),)*
        }

        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
            pub struct $name {
                $($(#[$fdoc])* pub $field: $type,)*
            }

            impl From<$name> for Body {
                fn from(body: $name) -> Self {
                    Self::$name(body)
                }
            }
        )*

        impl Body {
            /// Every kind number this version knows, with its name.
            pub const KINDS: &[(u16, &str)] = &[$(($number, stringify!($name)),)*];

            /// The number written in [`Event::kind`].
            pub const fn kind(&self) -> u16 {
                match self { $(Self::$name(_) => $number,)* }
            }

            /// The bytes written in [`Event::body`].
            pub fn encode(&self) -> Vec<u8> {
                match self {
                    // Plain data into a vector: postcard has nothing to fail on.
                    $(Self::$name(body) => postcard::to_allocvec(body).unwrap_or_default(),)*
                }
            }

            /// The inverse; `None` for an unknown kind or bytes that are no such body.
            pub fn decode(kind: u16, bytes: &[u8]) -> Option<Self> {
                match kind {
                    $($number => postcard::from_bytes(bytes).ok().map(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

bodies! {
    /// The first event of every log: whose it is. Written with the run's first other event.
    1 Boot {
        /// The disk.
        server: ServerId,
        /// Its place in the configuration.
        slot: Slot,
        /// Which certificate of that slot.
        generation: Generation,
        /// The run before on this disk, and how much of it was on the disk at this start.
        prev: Option<(Origin, u64)>,
        /// Where it listens.
        addr: String,
    }
    /// A message to a public room.
    2 Msg {
        /// The writer's name at that moment.
        nick: String,
        /// What was said: 1 to [`TEXT_BYTES_MAX`] bytes.
        text: String,
    }
    /// A message to one person.
    3 Direct {
        /// The writer's name at that moment.
        nick: String,
        /// To whom.
        to: AccountId,
        /// The target's name at that moment.
        to_nick: String,
        /// What was said.
        text: String,
    }
    /// The actor joined the room.
    4 Join {
        /// His name.
        nick: String,
    }
    /// The actor left the room.
    5 Leave {
        /// His name.
        nick: String,
    }
    /// The actor put somebody out of the room.
    6 Kick {
        /// The actor's name.
        nick: String,
        /// Who was kicked.
        account: AccountId,
        /// The kicked one's name.
        account_nick: String,
        /// Why; may be empty.
        reason: String,
    }
    /// The actor made somebody op of the room, or took it from him.
    7 Role {
        /// The actor's name.
        nick: String,
        /// Whose role.
        account: AccountId,
        /// His name.
        account_nick: String,
        /// The new role.
        role: Rank,
    }
    /// The room's topic.
    8 Topic {
        /// The actor's name.
        nick: String,
        /// The topic; may be empty.
        text: String,
    }
    /// The room exists from now on; the actor of the smallest key is its founder.
    9 RoomCreate {
        /// The name as its creator wrote it.
        name: String,
    }
    /// The actor goes by this name from now on.
    10 Nick {
        /// The name asked for.
        nick: String,
        /// The name shown before; empty for a new account.
        before: String,
    }
    /// The actor has read the room as far as this.
    11 Mark {
        /// What was read.
        seen: Vector,
    }
    /// How long the room's messages are kept.
    12 Keep {
        /// The actor's name.
        nick: String,
        /// The policy.
        keep: Retention,
    }
    /// The room's messages of ids up to this moment are gone. No person's: a server says it.
    13 Floor {
        /// Unix milliseconds.
        ms: u64,
    }
}

/// A room that keeps a number of messages keeps at most so many: setting a floor reads their places.
pub const KEEP_MESSAGES_MAX: u64 = 1_000_000;

/// How long a room's messages are kept; zero: for ever.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Retention {
    /// Milliseconds.
    pub age_ms: u64,
    /// The newest so many messages.
    pub messages: u64,
}

impl Retention {
    /// Whether everything is kept.
    pub const fn is_for_ever(self) -> bool {
        self.age_ms == 0 && self.messages == 0
    }
}

/// What somebody may do in a room.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum Rank {
    /// Talk.
    #[default]
    Member,
    /// Kick, set roles.
    Op,
    /// Made the room; always an op.
    Founder,
}

impl std::fmt::Display for Rank {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Member => "member",
            Self::Op => "op",
            Self::Founder => "founder",
        })
    }
}

/// The identity of a message: the same for all its aliases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Where it was said.
    pub room: RoomId,
    /// By whom.
    pub account: AccountId,
    /// Under what name.
    pub mid: Mid,
}

impl Event {
    /// Its identity, if it is a message (a [`Msg`] or a [`Direct`]).
    pub fn identity(&self) -> Option<Identity> {
        matches!(self.kind, 2 | 3).then_some(Identity {
            room: self.room,
            account: self.actor,
            mid: self.mid,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64) -> Event {
        Event {
            seq,
            hlc: Hlc::at_ms(5),
            wall_ms: 5,
            room: RoomId::new(1),
            actor: AccountId::new(2),
            mid: Mid::new(3),
            kind: 2,
            body: b"hello".to_vec(),
        }
    }

    #[test]
    fn a_chain_tells_every_event_and_every_order_apart() {
        let chain = |events: &[Event]| events.iter().fold(CHAIN_START, |c, event| event.chain(c));
        let (one, two) = (event(1), event(2));
        let other = Event { body: b"hallo".to_vec(), ..event(1) };
        let long = Event { body: vec![7; 500], ..event(1) };
        let longer = Event { body: vec![7; 501], ..event(1) };
        let all = [
            chain(&[]),
            chain(std::slice::from_ref(&one)),
            chain(std::slice::from_ref(&two)),
            chain(&[one.clone(), two.clone()]),
            chain(&[two, one.clone()]),
            chain(&[other]),
            chain(&[long]),
            chain(&[longer]),
        ];
        let different: std::collections::BTreeSet<u64> = all.into_iter().collect();
        assert_eq!(different.len(), all.len());
        // Eight bytes of it, all of them used.
        let used = all.iter().fold(0, |bits, chain| bits | chain);
        assert_eq!(used.to_be_bytes().iter().filter(|byte| **byte == 0).count(), 0);
    }

    #[test]
    fn a_void_event_keeps_its_place_in_the_chain_and_nothing_else() {
        let void = event(1).void();
        assert_eq!((void.kind, void.room, void.actor), (VOID, RoomId::new(0), AccountId::new(0)));
        assert_eq!((void.wall_ms, void.mid, void.hlc), (0, Mid::new(0), Hlc::at_ms(5)));
        assert_eq!(void.chain(7), event(1).chain(7));
        assert_eq!(void.void(), void);
        assert_eq!(void.identity(), None);
        // A body of 32 bytes is a hash only in a void event.
        let short = Event { body: vec![1; 32], ..event(1) };
        let other = Event { body: vec![1; 32], ..event(2) };
        assert_ne!(short.chain(0), other.chain(0));
    }

    #[test]
    fn zero_keeps_for_ever() {
        let keep = |age_ms, messages| Retention { age_ms, messages }.is_for_ever();
        assert_eq!([keep(0, 0), keep(1, 0), keep(0, 1), keep(1, 1)], [true, false, false, false]);
    }

    #[test]
    fn only_messages_have_an_identity() {
        let identity = |kind| Event { kind, ..event(1) }.identity().is_some();
        let kinds: Vec<u16> = (0..20).filter(|kind| identity(*kind)).collect();
        assert_eq!(kinds, [2, 3]);
        let ranks = [Rank::Member, Rank::Op, Rank::Founder].map(|rank| rank.to_string());
        assert_eq!(ranks, ["member", "op", "founder"]);
    }
}
