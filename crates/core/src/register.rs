//! Shared state: every register has one rule, and the rule is a join.
//!
//! An event is authorised once, where it is accepted; replicas never judge it again. What is left
//! is [`Register::merge`]: commutative, associative and idempotent, so that any order of arrival
//! and any repetition give one result (a state-based CRDT: Shapiro et al., 2011). Last-writer
//! registers keep the largest [`Key`], a room's founder is the smallest, marks are joined vectors.

use serde::{Deserialize, Serialize};

use crate::event::{Body, Event, Rank, Retention};
use crate::id::{AccountId, Generation, Log, Origin, RoomId, ServerId, Slot};
use crate::time::Key;
use crate::vector::Vector;

/// Which register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RegisterKey {
    /// That a room exists.
    Room(RoomId),
    /// A room's topic.
    Topic(RoomId),
    /// Whether an account is in a room.
    Member(RoomId, AccountId),
    /// An account's rank in a room.
    Role(RoomId, AccountId),
    /// An account's name.
    Nick(AccountId),
    /// What an account has read of a room.
    Mark(RoomId, AccountId),
    /// Whose direct messages a room holds.
    Direct(RoomId),
    /// Whose log it is.
    Log(Log),
    /// How long a room's messages are kept.
    Keep(RoomId),
    /// Up to where they are gone.
    Floor(RoomId),
}

/// A register's value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Register {
    /// The smallest key wins.
    Room {
        /// Of the founding event.
        key: Key,
        /// Its actor.
        founder: AccountId,
        /// As the founder wrote it.
        name: String,
    },
    /// The largest key wins.
    Topic {
        /// Of the write.
        key: Key,
        /// May be empty.
        text: String,
    },
    /// The largest key wins.
    Member {
        /// Of the write.
        key: Key,
        /// In or out.
        state: Membership,
    },
    /// The largest key wins.
    Role {
        /// Of the write.
        key: Key,
        /// Op or member.
        rank: Rank,
    },
    /// The largest key wins.
    Nick {
        /// Of the write.
        key: Key,
        /// The name asked for.
        nick: String,
    },
    /// The least upper bound.
    Mark {
        /// What was read.
        seen: Vector,
    },
    /// Always the same two: the room's id is made from them.
    Direct {
        /// The lesser account.
        low: AccountId,
        /// The greater account.
        high: AccountId,
    },
    /// Written once, by the log's first event.
    Log {
        /// The disk.
        server: ServerId,
        /// Its slot.
        slot: Slot,
        /// Its certificate's generation.
        generation: Generation,
        /// The run before.
        prev: Option<(Origin, u64)>,
    },
    /// The largest key wins.
    Keep {
        /// Of the write.
        key: Key,
        /// The policy.
        keep: Retention,
    },
    /// The highest wins.
    Floor {
        /// Messages of ids up to this unix millisecond are gone.
        ms: u64,
        /// Of the event that says so (of several, the smallest).
        key: Key,
    },
}

/// Whether an account is in a room.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Membership {
    /// In.
    Joined,
    /// Left by itself.
    Left,
    /// Put out.
    Kicked {
        /// The kicker's name then.
        by: String,
        /// May be empty.
        reason: String,
    },
}

impl Register {
    /// The event that alone makes the value, and that another write of the register may beat; `None`
    /// where values are joined, or written once.
    pub const fn winner(&self) -> Option<Key> {
        match self {
            Self::Room { key, .. }
            | Self::Topic { key, .. }
            | Self::Member { key, .. }
            | Self::Role { key, .. }
            | Self::Nick { key, .. }
            | Self::Keep { key, .. }
            | Self::Floor { key, .. } => Some(*key),
            Self::Mark { .. } | Self::Direct { .. } | Self::Log { .. } => None,
        }
    }

    /// Whether it is the value of such a register.
    pub const fn is_of(&self, key: &RegisterKey) -> bool {
        matches!(
            (key, self),
            (RegisterKey::Room(_), Self::Room { .. })
                | (RegisterKey::Topic(_), Self::Topic { .. })
                | (RegisterKey::Member(..), Self::Member { .. })
                | (RegisterKey::Role(..), Self::Role { .. })
                | (RegisterKey::Nick(_), Self::Nick { .. })
                | (RegisterKey::Mark(..), Self::Mark { .. })
                | (RegisterKey::Direct(_), Self::Direct { .. })
                | (RegisterKey::Log(_), Self::Log { .. })
                | (RegisterKey::Keep(_), Self::Keep { .. })
                | (RegisterKey::Floor(_), Self::Floor { .. })
        )
    }

    /// Takes in another value of the same register; tells whether this one changed.
    pub fn merge(&mut self, other: &Self) -> bool {
        let wins = match (&mut *self, other) {
            (Self::Mark { seen }, Self::Mark { seen: more }) => {
                let news = !seen.covers_all(more);
                seen.join(more);
                return news;
            }
            (Self::Room { key, .. }, Self::Room { key: new, .. }) => new < key,
            (Self::Topic { key, .. }, Self::Topic { key: new, .. })
            | (Self::Member { key, .. }, Self::Member { key: new, .. })
            | (Self::Role { key, .. }, Self::Role { key: new, .. })
            | (Self::Nick { key, .. }, Self::Nick { key: new, .. })
            | (Self::Keep { key, .. }, Self::Keep { key: new, .. }) => new > key,
            (Self::Floor { ms, key }, Self::Floor { ms: new, key: other }) => {
                new > ms || (new == ms && other < key)
            }
            // Written once, or values of two different registers: keep what is here.
            _ => false,
        };
        if wins {
            *self = other.clone();
        }
        wins
    }
}

/// The register that an event writes, and what it writes; `None` for messages and unknown kinds.
pub fn write_of(log: Log, event: &Event) -> Option<(RegisterKey, Register)> {
    let key = event.key(log.origin);
    let (room, actor) = (event.room, event.actor);
    let write = match event.body()? {
        Body::Msg(_) => return None,
        Body::Direct(body) => {
            let (low, high) = (actor.min(body.to), actor.max(body.to));
            (RegisterKey::Direct(room), Register::Direct { low, high })
        }
        Body::Boot(boot) => (
            RegisterKey::Log(log),
            Register::Log {
                server: boot.server,
                slot: boot.slot,
                generation: boot.generation,
                prev: boot.prev,
            },
        ),
        Body::Join(_) => {
            (RegisterKey::Member(room, actor), Register::Member { key, state: Membership::Joined })
        }
        Body::Leave(_) => {
            (RegisterKey::Member(room, actor), Register::Member { key, state: Membership::Left })
        }
        Body::Kick(kick) => (
            RegisterKey::Member(room, kick.account),
            Register::Member {
                key,
                state: Membership::Kicked { by: kick.nick, reason: kick.reason },
            },
        ),
        Body::Role(role) => {
            (RegisterKey::Role(room, role.account), Register::Role { key, rank: role.role })
        }
        Body::Topic(topic) => (RegisterKey::Topic(room), Register::Topic { key, text: topic.text }),
        Body::RoomCreate(create) => {
            (RegisterKey::Room(room), Register::Room { key, founder: actor, name: create.name })
        }
        Body::Nick(nick) => (RegisterKey::Nick(actor), Register::Nick { key, nick: nick.nick }),
        Body::Mark(mark) => (RegisterKey::Mark(room, actor), Register::Mark { seen: mark.seen }),
        Body::Keep(keep) => (RegisterKey::Keep(room), Register::Keep { key, keep: keep.keep }),
        Body::Floor(floor) => (RegisterKey::Floor(room), Register::Floor { ms: floor.ms, key }),
    };
    Some(write)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Hlc;
    use proptest::prelude::*;

    fn key() -> impl Strategy<Value = Key> {
        (0u64..4, 0u128..3, 1u64..4).prop_map(|(hlc, origin, seq)| Key {
            hlc: Hlc::from_bits(hlc),
            origin: Origin::new(origin),
            seq,
        })
    }

    #[test]
    fn a_value_is_of_the_registers_of_its_kind_alone() {
        let (room, account, log) = (RoomId::new(1), AccountId::new(2), Log::of(Origin::new(3)));
        let key = Key { hlc: Hlc::default(), origin: Origin::new(3), seq: 1 };
        let keys = [
            RegisterKey::Room(room),
            RegisterKey::Topic(room),
            RegisterKey::Member(room, account),
            RegisterKey::Role(room, account),
            RegisterKey::Nick(account),
            RegisterKey::Mark(room, account),
            RegisterKey::Direct(room),
            RegisterKey::Log(log),
            RegisterKey::Keep(room),
            RegisterKey::Floor(room),
        ];
        let slot = crate::id::Slot::new("s1").unwrap();
        let server = crate::id::ServerId::new(1);
        let values = [
            Register::Room { key, founder: account, name: String::new() },
            Register::Topic { key, text: String::new() },
            Register::Member { key, state: Membership::Joined },
            Register::Role { key, rank: Rank::Op },
            Register::Nick { key, nick: String::new() },
            Register::Mark { seen: Vector::new() },
            Register::Direct { low: account, high: account },
            Register::Log { server, slot, generation: 0, prev: None },
            Register::Keep { key, keep: Retention::default() },
            Register::Floor { ms: 1, key },
        ];
        for (nth, key) in keys.iter().enumerate() {
            let of: Vec<usize> = (0..values.len()).filter(|n| values[*n].is_of(key)).collect();
            assert_eq!(of, [nth], "{key:?}");
        }
    }

    /// Values of one register: the same key always carries the same content, as in real logs.
    fn values() -> impl Strategy<Value = Vec<Register>> {
        let topic = |key: Key| Register::Topic { key, text: key.to_string() };
        let room = |key: Key| Register::Room {
            key,
            founder: AccountId::new(key.origin.bits()),
            name: key.to_string(),
        };
        let member = |key: Key| Register::Member {
            key,
            state: if key.seq == 1 { Membership::Joined } else { Membership::Left },
        };
        let floor = |key: Key| Register::Floor { ms: key.hlc.bits(), key };
        let mark = |key: Key| Register::Mark {
            seen: [(Log::of(key.origin), key.seq)].into_iter().collect(),
        };
        let make: Vec<Box<dyn Fn(Key) -> Register>> = vec![
            Box::new(topic),
            Box::new(room),
            Box::new(member),
            Box::new(mark),
            Box::new(floor),
        ];
        (0..make.len(), prop::collection::vec(key(), 1..6))
            .prop_map(move |(which, keys)| keys.into_iter().map(|k| make[which](k)).collect())
    }

    fn fold<'a>(values: impl IntoIterator<Item = &'a Register>) -> Option<Register> {
        let mut values = values.into_iter();
        let mut sum = values.next()?.clone();
        values.for_each(|value| {
            sum.merge(value);
        });
        Some(sum)
    }

    #[test]
    fn of_two_floors_the_higher_counts_and_of_equal_ones_the_earlier_word() {
        let key = |seq| Key { hlc: Hlc::from_bits(seq), origin: Origin::new(1), seq };
        let floor = |ms, seq| Register::Floor { ms, key: key(seq) };
        let merged = |mut one: Register, two: Register| {
            one.merge(&two);
            one
        };
        assert_eq!(merged(floor(5, 9), floor(6, 1)), floor(6, 1));
        assert_eq!(merged(floor(6, 1), floor(5, 9)), floor(6, 1));
        assert_eq!(merged(floor(5, 9), floor(5, 1)), floor(5, 1));
        assert_eq!(merged(floor(5, 1), floor(5, 9)), floor(5, 1));
    }

    proptest! {
        #[test]
        fn any_order_and_repetition_give_one_result(values in values(), seed in any::<u64>()) {
            let mut shuffled: Vec<_> = values.iter().chain(values.iter()).cloned().collect();
            let mut rng = crate::rng::Rng::new(seed);
            for i in (1..shuffled.len()).rev() {
                shuffled.swap(i, rng.below(i as u64 + 1) as usize);
            }
            prop_assert_eq!(fold(&values), fold(&shuffled));
        }

        #[test]
        fn merge_says_whether_it_changed_something(values in values()) {
            let mut sum = values[0].clone();
            for value in &values[1..] {
                let before = sum.clone();
                prop_assert_eq!(sum.merge(value), sum != before);
            }
        }
    }
}
