//! Names of things: who made an event, who said a line, where it was said.
//!
//! Every id is a newtype over 128 bits, written as 16 bytes on wire and disk and as a UUID for
//! people. Which ids survive a restart matters: a reused name would let two contents share it
//! (Jepsen's and corrosion's sequence-number bugs), so the doc of each says so.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

macro_rules! id128 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(u128);

        impl $name {
            /// Wraps 128 bits.
            pub const fn new(bits: u128) -> Self {
                Self(bits)
            }

            /// The 128 bits.
            pub const fn bits(self) -> u128 {
                self.0
            }

            /// Sixteen bytes, big-endian: bytewise order is the order of the ids.
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0.to_be_bytes()
            }

            /// The inverse of [`Self::to_bytes`].
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(u128::from_be_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Uuid::from_u128(self.0).as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(|id| Self(id.as_u128()))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                if to.is_human_readable() { to.collect_str(self) } else { self.to_bytes().serialize(to) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                if from.is_human_readable() {
                    let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    <[u8; 16]>::deserialize(from).map(Self::from_bytes)
                }
            }
        }
    };
}

id128! {
    /// A cluster: made once with its certificate authority.
    ClusterId
}
id128! {
    /// A server's disk: random, made with the data folder. A wiped or restored server gets a new one.
    ServerId
}
id128! {
    /// One run of a server (UUIDv7): new, and fsynced, at **every** process start. It never
    /// survives a restart, so a lost disk tail cannot give two contents one name.
    Origin
}
id128! {
    /// A person's account (UUIDv7).
    AccountId
}
id128! {
    /// A room. Public rooms: [`RoomId::public`]; direct messages: [`RoomId::direct`].
    RoomId
}
id128! {
    /// A message id, chosen by the client (UUIDv7 over the server's clock). Message identity is
    /// ([`RoomId`], [`AccountId`], [`Mid`]) and survives every retry and fail-over.
    Mid
}

/// Name space of the public rooms' ids: a random UUID, fixed for ever.
const PUBLIC_ROOMS: Uuid = Uuid::from_u128(0x5d6f_1c0e_8f43_4b6a_9a55_3c1f_7d10_21b8);
/// Name space of the ids of two people's direct messages.
const DIRECT_ROOMS: Uuid = Uuid::from_u128(0x0b8e_54d2_62c7_4c0f_8d7e_9f0a_44e6_c35d);

impl RoomId {
    /// The room of that name: UUIDv5 over the case-folded name, so that both sides of a partition
    /// that create it create the same room.
    pub fn public(name: &str) -> Self {
        Self(Uuid::new_v5(&PUBLIC_ROOMS, name.to_lowercase().as_bytes()).as_u128())
    }

    /// The room of the direct messages between two accounts, in either order.
    pub fn direct(a: AccountId, b: AccountId) -> Self {
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        let mut name = [0; 32];
        name[..16].copy_from_slice(&low.to_bytes());
        name[16..].copy_from_slice(&high.to_bytes());
        Self(Uuid::new_v5(&DIRECT_ROOMS, &name).as_u128())
    }
}

/// A UUIDv7 (RFC 9562): 48 bits of unix milliseconds, then 74 random bits.
pub(crate) const fn uuid_v7(unix_ms: u64, random: u128) -> u128 {
    let ms = (unix_ms as u128) << 80;
    let rand_a = (random & 0xfff) << 64;
    let rand_b = (random >> 12) & 0x3fff_ffff_ffff_ffff;
    ms | (0x7 << 76) | rand_a | (0x2 << 62) | rand_b
}

/// The milliseconds in a UUIDv7.
const fn uuid_v7_ms(bits: u128) -> u64 {
    (bits >> 80) as u64
}

impl Mid {
    /// A message id at `unix_ms` on the server's clock; `random` gives its other bits.
    pub const fn at(unix_ms: u64, random: u128) -> Self {
        Self(uuid_v7(unix_ms, random))
    }

    /// Unix milliseconds written in the id.
    pub const fn unix_ms(self) -> u64 {
        uuid_v7_ms(self.0)
    }
}

impl Origin {
    /// A new run of a server.
    pub const fn at(unix_ms: u64, random: u128) -> Self {
        Self(uuid_v7(unix_ms, random))
    }
}

impl AccountId {
    /// A new account.
    pub const fn at(unix_ms: u64, random: u128) -> Self {
        Self(uuid_v7(unix_ms, random))
    }
}

/// What a log belongs to: one run of a server, and one shard of its rooms (0 until rooms are
/// sharded, past 64 servers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Log {
    /// The run of the server that made the events.
    pub origin: Origin,
    /// The shard, 0 today.
    pub shard: u16,
}

impl Log {
    /// Shard 0 of an origin.
    pub const fn of(origin: Origin) -> Self {
        Self { origin, shard: 0 }
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.origin, self.shard)
    }
}

/// The number of an event in its log is at most this: at a million events a second a run would take
/// nine years to come so far. A higher one comes from damage or from a peer that breaks the
/// protocol, and is refused where it is read, so that no sum of such numbers overflows.
pub const SEQ_MAX: u64 = 1 << 48;

/// The name of an event: the `seq`-th of its log, counted from 1, without holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventId {
    /// Whose event.
    pub log: Log,
    /// Position in the log, from 1.
    pub seq: u64,
}

/// A server's place in the configuration (`s1`). It outlives disks: see [`Generation`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Slot(String);

impl TryFrom<String> for Slot {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        Self::new(name).map_err(|name| format!("{name:?} is no name of a server"))
    }
}

impl Slot {
    /// 1 to 32 of `a-z`, `0-9`, `-`.
    ///
    /// # Errors
    /// The name, if it is anything else.
    pub fn new(name: impl Into<String>) -> Result<Self, String> {
        let name = name.into();
        let fits = (1..=32).contains(&name.len())
            && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if fits { Ok(Self(name)) } else { Err(name) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How many certificates the authority had issued for a slot before this one. The holder of the
/// highest generation of a slot is the slot; every older one is fenced for good.
pub type Generation = u64;

macro_rules! id64 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);
    };
}

id64! {
    /// One connection to another server; never reused within a process.
    LinkId
}
id64! {
    /// One attached client; never reused within a process.
    SessionId
}
id64! {
    /// A request of a session, numbered by the client from 1; the answer carries it back.
    RequestId
}
id64! {
    /// A write handed to the disk; answered by `Persisted`.
    PersistToken
}
id64! {
    /// A read handed to the disk; answered by `ReadDone`.
    ReadToken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_room_is_the_same_in_any_case_of_letters() {
        assert_eq!(RoomId::public("Lobby"), RoomId::public("lobby"));
        assert_ne!(RoomId::public("lobby"), RoomId::public("lobby2"));
    }

    #[test]
    fn a_name_of_a_server_from_outside_is_held_to_the_rule_of_names() {
        let encoded = |name: &str| postcard::to_allocvec(name).unwrap();
        let decoded = |name: &str| postcard::from_bytes::<Slot>(&encoded(name)).ok();
        assert_eq!(decoded("s1"), Some(Slot(String::from("s1"))));
        assert_eq!(postcard::to_allocvec(&decoded("s1")).unwrap()[1..], encoded("s1"));
        for name in ["", "S1", "s 1", "../s1", "s1\n", &"s".repeat(33)] {
            assert_eq!(decoded(name), None, "{name:?}");
        }
    }

    #[test]
    fn a_direct_room_is_the_same_from_both_ends() {
        let (a, b) = (AccountId::new(1), AccountId::new(2));
        assert_eq!(RoomId::direct(a, b), RoomId::direct(b, a));
        assert_ne!(RoomId::direct(a, b), RoomId::direct(a, a));
    }

    #[test]
    fn a_mid_carries_its_time_and_is_a_uuid_of_version_7() {
        let mid = Mid::at(1_700_000_000_123, u128::MAX);
        assert_eq!(mid.unix_ms(), 1_700_000_000_123);
        let id = Uuid::from_u128(mid.bits());
        assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
    }

    #[test]
    fn ids_of_one_millisecond_differ_with_any_of_their_74_random_bits() {
        let ids: std::collections::BTreeSet<Mid> =
            (0..74).map(|bit| Mid::at(1, 1 << bit)).chain([Mid::at(1, 0)]).collect();
        assert_eq!(ids.len(), 75);
    }

    /// Servers of all versions must agree on these for ever.
    #[test]
    fn ids_of_rooms_do_not_change() {
        let direct = RoomId::direct(AccountId::new(2), AccountId::new(1));
        let mut name = [0u8; 32];
        (name[15], name[31]) = (1, 2);
        assert_eq!(direct.bits(), Uuid::new_v5(&DIRECT_ROOMS, &name).as_u128());
        let lobby = Uuid::new_v5(&PUBLIC_ROOMS, b"lobby").as_u128();
        assert_eq!(RoomId::public("LOBBY").bits(), lobby);
    }

    #[test]
    fn ids_are_written_for_people_and_read_back() {
        let origin = Origin::at(1_700_000_000_123, 7);
        let text = origin.to_string();
        assert_eq!((text.len(), text.parse()), (36, Ok(origin)));
        assert_eq!(Log::of(origin).to_string(), format!("{text}/0"));
        assert_eq!(Origin::from_bytes(origin.to_bytes()), origin);
        let slot = Slot::new("s-1").unwrap();
        assert_eq!((slot.to_string().as_str(), slot.as_str()), ("s-1", "s-1"));
    }

    #[test]
    fn a_slot_is_a_short_name_of_plain_letters() {
        for good in ["s1", "a", "eu-west-1", &"x".repeat(32)] {
            assert!(Slot::new(good).is_ok(), "{good}");
        }
        for bad in ["", "S1", "s_1", "s 1", "ä", &"x".repeat(33)] {
            assert_eq!(Slot::new(bad), Err(bad.to_string()));
        }
    }
}
