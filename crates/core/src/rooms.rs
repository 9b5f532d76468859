//! The rooms as they stand on this server's disk: who is in, who may what, who goes by what name.
//!
//! Everything here is a fold over registers ([`crate::register`]) and knows nothing of sessions,
//! links or arrival. The indexes beside the registers are derived and rebuilt at start.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Event, Rank, Retention};
use crate::id::{AccountId, Log, RoomId};
use crate::register::{Membership, Register, RegisterKey, write_of};
use crate::store::{Loaded, Sum};
use crate::time::Key;
use crate::vector::Vector;

/// Shared state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Rooms {
    registers: BTreeMap<RegisterKey, Register>,
    sums: BTreeMap<RoomId, Sum>,
    /// Accounts joined, by room.
    members: BTreeMap<RoomId, BTreeSet<AccountId>>,
    /// Who asked for a name (case-folded), earliest first: the first holds it.
    claims: BTreeMap<String, BTreeMap<Key, AccountId>>,
    /// Each account's direct-message rooms.
    directs: BTreeMap<AccountId, BTreeSet<RoomId>>,
    /// Those in all.
    conversations: usize,
    /// How many rooms each account has founded.
    founded: BTreeMap<AccountId, usize>,
    /// Rooms in all.
    rooms: usize,
    /// Accounts with a name.
    accounts: usize,
}

/// What an event changed besides its register.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Applied {
    /// Accounts that go by another name now.
    pub renamed: BTreeSet<AccountId>,
}

impl Rooms {
    /// The state on a disk.
    pub fn load(loaded: &Loaded) -> Self {
        let mut rooms = Self::default();
        for (room, sum) in &loaded.sums {
            rooms.set_sum(*room, *sum);
        }
        for (key, value) in &loaded.registers {
            rooms.write(*key, value.clone());
        }
        rooms
    }

    /// Takes in a durable event.
    pub fn apply(&mut self, log: Log, event: &Event) -> Applied {
        match write_of(log, event) {
            Some((key, value)) => self.write(key, value),
            None => Applied::default(),
        }
    }

    /// The sum of a room, as the disk has it now.
    pub fn set_sum(&mut self, room: RoomId, sum: Sum) {
        if sum.messages == 0 {
            self.sums.remove(&room); // all of it was erased
        } else {
            self.sums.insert(room, sum);
        }
    }

    fn write(&mut self, key: RegisterKey, value: Register) -> Applied {
        let before = self.registers.get(&key).cloned();
        match self.registers.get_mut(&key) {
            Some(held) => {
                if !held.merge(&value) {
                    return Applied::default();
                }
            }
            None => {
                self.registers.insert(key, value.clone());
            }
        }
        self.index(key, before.as_ref(), &value)
    }

    /// A register from nowhere.
    #[cfg(test)]
    pub(crate) fn write_for_tests(&mut self, key: RegisterKey, value: Register) {
        self.write(key, value);
    }

    /// Keeps the indexes beside a register whose value is `value` now.
    fn index(&mut self, key: RegisterKey, before: Option<&Register>, value: &Register) -> Applied {
        let mut applied = Applied::default();
        match (key, value) {
            (RegisterKey::Member(room, account), Register::Member { state, .. }) => {
                let members = self.members.entry(room).or_default();
                match state {
                    Membership::Joined => members.insert(account),
                    Membership::Left | Membership::Kicked { .. } => members.remove(&account),
                };
            }
            (RegisterKey::Room(_), Register::Room { founder, .. }) => {
                match before {
                    Some(Register::Room { founder, .. }) => {
                        let left = self.founded.remove(founder).unwrap_or(0).saturating_sub(1);
                        if left > 0 {
                            self.founded.insert(*founder, left);
                        }
                    }
                    _ => self.rooms += 1,
                }
                *self.founded.entry(*founder).or_insert(0) += 1;
            }
            (RegisterKey::Direct(room), Register::Direct { low, high }) => {
                self.conversations += usize::from(before.is_none());
                self.directs.entry(*low).or_default().insert(room);
                self.directs.entry(*high).or_default().insert(room);
            }
            (RegisterKey::Nick(account), Register::Nick { key, nick }) => {
                match before {
                    Some(Register::Nick { key, nick }) => {
                        self.unclaim(nick, *key, &mut applied.renamed);
                    }
                    _ => self.accounts += 1,
                }
                let claims = self.claims.entry(fold(nick)).or_default();
                let holder = claims.values().next().copied();
                claims.insert(*key, account);
                if claims.values().next() == Some(&account) {
                    applied.renamed.extend(holder);
                }
                applied.renamed.insert(account);
            }
            _ => {}
        }
        applied
    }

    fn unclaim(&mut self, nick: &str, key: Key, renamed: &mut BTreeSet<AccountId>) {
        let name = fold(nick);
        let Some(claims) = self.claims.get_mut(&name) else { return };
        let held = claims.keys().next() == Some(&key);
        claims.remove(&key);
        if held {
            renamed.extend(claims.values().next());
        }
        if claims.is_empty() {
            self.claims.remove(&name);
        }
    }

    /// The name an account goes by: the one it asked for if it asked first of all who ask for it
    /// now, else that with a suffix of its own.
    pub fn nick(&self, account: AccountId) -> Option<String> {
        let Some(Register::Nick { nick, .. }) = self.registers.get(&RegisterKey::Nick(account))
        else {
            return None;
        };
        if self.holder(nick) == Some(account) {
            return Some(nick.clone());
        }
        Some(format!("{nick}~{}", suffix(account)))
    }

    /// The name an account asked for last.
    pub fn wanted_nick(&self, account: AccountId) -> Option<&str> {
        match self.registers.get(&RegisterKey::Nick(account)) {
            Some(Register::Nick { nick, .. }) => Some(nick),
            _ => None,
        }
    }

    fn holder(&self, nick: &str) -> Option<AccountId> {
        self.claims.get(&fold(nick)).and_then(|claims| claims.values().next()).copied()
    }

    /// Who goes by that name (with its suffix, if it has one).
    pub fn account(&self, nick: &str) -> Option<AccountId> {
        match nick.rsplit_once('~') {
            None => self.holder(nick),
            Some((nick, end)) => {
                let claims = self.claims.get(&fold(nick))?;
                claims.values().skip(1).find(|account| suffix(**account) == end).copied()
            }
        }
    }

    /// A room's name as its founder wrote it.
    pub fn name(&self, room: RoomId) -> Option<&str> {
        match self.registers.get(&RegisterKey::Room(room)) {
            Some(Register::Room { name, .. }) => Some(name),
            _ => None,
        }
    }

    /// A room's topic; empty if none.
    pub fn topic(&self, room: RoomId) -> &str {
        match self.registers.get(&RegisterKey::Topic(room)) {
            Some(Register::Topic { text, .. }) => text,
            _ => "",
        }
    }

    /// What an account may do in a room.
    pub fn rank(&self, room: RoomId, account: AccountId) -> Rank {
        match self.registers.get(&RegisterKey::Room(room)) {
            Some(Register::Room { founder, .. }) if *founder == account => return Rank::Founder,
            _ => {}
        }
        match self.registers.get(&RegisterKey::Role(room, account)) {
            Some(Register::Role { rank, .. }) => *rank,
            _ => Rank::Member,
        }
    }

    /// Whether an account is in a room, and since which event.
    pub fn membership(&self, room: RoomId, account: AccountId) -> Option<(Key, &Membership)> {
        match self.registers.get(&RegisterKey::Member(room, account)) {
            Some(Register::Member { key, state }) => Some((*key, state)),
            _ => None,
        }
    }

    /// Whether an account is a member of a room.
    pub fn is_member(&self, room: RoomId, account: AccountId) -> bool {
        self.members.get(&room).is_some_and(|members| members.contains(&account))
    }

    /// A room's members.
    pub fn members(&self, room: RoomId) -> impl Iterator<Item = AccountId> + '_ {
        self.members.get(&room).into_iter().flatten().copied()
    }

    /// Public rooms in all.
    pub const fn count(&self) -> usize {
        self.rooms
    }

    /// Accounts that have a name.
    pub const fn accounts(&self) -> usize {
        self.accounts
    }

    /// How many rooms an account has founded.
    pub fn founded(&self, account: AccountId) -> usize {
        self.founded.get(&account).copied().unwrap_or(0)
    }

    /// Conversations in all.
    pub const fn conversations(&self) -> usize {
        self.conversations
    }

    /// Whether two accounts have a conversation.
    pub fn has_direct(&self, room: RoomId) -> bool {
        self.registers.contains_key(&RegisterKey::Direct(room))
    }

    /// How many rooms hold messages.
    pub fn sums_len(&self) -> usize {
        self.sums.len()
    }

    /// Every public room: id and name.
    pub fn rooms(&self) -> impl Iterator<Item = (RoomId, &str)> {
        self.registers.iter().filter_map(|(key, value)| match (key, value) {
            (RegisterKey::Room(room), Register::Room { name, .. }) => Some((*room, name.as_str())),
            _ => None,
        })
    }

    /// Every room that holds messages: id, and its sum.
    pub fn sums(&self) -> impl Iterator<Item = (RoomId, Sum)> + '_ {
        self.sums.iter().map(|(room, sum)| (*room, *sum))
    }

    /// A room's sum.
    pub fn sum(&self, room: RoomId) -> Sum {
        self.sums.get(&room).copied().unwrap_or_default()
    }

    /// Messages of ids up to this unix millisecond are gone from a room; 0: none.
    pub fn floor_ms(&self, room: RoomId) -> u64 {
        match self.registers.get(&RegisterKey::Floor(room)) {
            Some(Register::Floor { ms, .. }) => *ms,
            _ => 0,
        }
    }

    /// Every room with a floor: unix milliseconds, and the event that says so.
    pub fn floors(&self) -> impl Iterator<Item = (RoomId, u64, Key)> + '_ {
        let least = RegisterKey::Floor(RoomId::new(0));
        self.registers.range(least..).map_while(|(key, value)| match (key, value) {
            (RegisterKey::Floor(room), Register::Floor { ms, key }) => Some((*room, *ms, *key)),
            _ => None,
        })
    }

    /// How long a room's own policy keeps its messages.
    pub fn retention(&self, room: RoomId) -> Option<Retention> {
        match self.registers.get(&RegisterKey::Keep(room)) {
            Some(Register::Keep { keep, .. }) => Some(*keep),
            _ => None,
        }
    }

    /// The rooms of an account's direct messages.
    pub fn directs(&self, account: AccountId) -> impl Iterator<Item = RoomId> + '_ {
        self.directs.get(&account).into_iter().flatten().copied()
    }

    /// The same without conversations of which nothing is kept: a server that came later never
    /// heard of them, and nothing is to be seen of them anywhere.
    #[must_use]
    pub fn without_empty_conversations(&self) -> Self {
        let mut rest = self.clone();
        let empty = |room: &RoomId| self.sum(*room).messages == 0;
        rest.registers.retain(|key, _| !matches!(key, RegisterKey::Direct(room) if empty(room)));
        for rooms in rest.directs.values_mut() {
            rooms.retain(|room| !empty(room));
        }
        rest.directs.retain(|_, rooms| !rooms.is_empty());
        let is_direct = |key: &&RegisterKey| matches!(key, RegisterKey::Direct(_));
        rest.conversations = rest.registers.keys().filter(is_direct).count();
        rest
    }

    /// With whom an account has its direct messages in that room; `None` for any other room.
    pub fn direct_with(&self, room: RoomId, account: AccountId) -> Option<AccountId> {
        match self.registers.get(&RegisterKey::Direct(room)) {
            Some(Register::Direct { low, high }) if *low == account => Some(*high),
            Some(Register::Direct { low, high }) if *high == account => Some(*low),
            _ => None,
        }
    }

    /// What an account has read of a room.
    pub fn seen(&self, room: RoomId, account: AccountId) -> Vector {
        match self.registers.get(&RegisterKey::Mark(room, account)) {
            Some(Register::Mark { seen }) => seen.clone(),
            _ => Vector::new(),
        }
    }

    /// The key that a write of that register must be above to count.
    pub fn winner(&self, key: &RegisterKey) -> Option<Key> {
        match self.registers.get(key)? {
            Register::Topic { key, .. }
            | Register::Member { key, .. }
            | Register::Role { key, .. }
            | Register::Nick { key, .. }
            | Register::Keep { key, .. } => Some(*key),
            Register::Room { .. }
            | Register::Mark { .. }
            | Register::Direct { .. }
            | Register::Floor { .. }
            | Register::Log { .. } => None,
        }
    }
}

/// Names that differ in the case of letters are one name.
fn fold(nick: &str) -> String {
    nick.to_lowercase()
}

/// Six letters that tell accounts which ask for one name apart.
fn suffix(account: AccountId) -> String {
    const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let hash = blake3::hash(&account.to_bytes());
    hash.as_bytes().iter().take(6).map(|b| char::from(LETTERS[usize::from(b & 31)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Origin;
    use crate::time::Hlc;

    fn claim(rooms: &mut Rooms, account: u128, nick: &str, at: u64) -> BTreeSet<AccountId> {
        let key = Key { hlc: Hlc::from_bits(at), origin: Origin::new(1), seq: at };
        let value = Register::Nick { key, nick: nick.into() };
        rooms.write(RegisterKey::Nick(AccountId::new(account)), value).renamed
    }

    #[test]
    fn the_first_by_key_holds_a_nick_in_whatever_order_they_arrive() {
        let (a, b) = (AccountId::new(1), AccountId::new(2));
        let mut late = Rooms::default();
        claim(&mut late, 2, "Bob", 20);
        assert_eq!(late.nick(b).as_deref(), Some("Bob"));
        let renamed = claim(&mut late, 1, "bob", 10);
        assert_eq!(renamed, [a, b].into(), "the later holder is told");
        let mut early = Rooms::default();
        claim(&mut early, 1, "bob", 10);
        claim(&mut early, 2, "Bob", 20);
        for rooms in [&early, &late] {
            assert_eq!(rooms.nick(a).as_deref(), Some("bob"));
            let suffixed = rooms.nick(b).unwrap();
            assert!(suffixed.starts_with("Bob~"));
            assert_eq!(rooms.account(&suffixed), Some(b));
            assert_eq!(rooms.account("BOB"), Some(a));
        }
    }

    #[test]
    fn rooms_and_who_founded_them_are_counted_in_whatever_order_they_arrive() {
        let found = |rooms: &mut Rooms, founder: u128, at: u64| {
            let key = Key { hlc: Hlc::from_bits(at), origin: Origin::new(1), seq: at };
            let founder = AccountId::new(founder);
            let value = Register::Room { key, founder, name: "x".into() };
            rooms.write(RegisterKey::Room(RoomId::public("x")), value);
        };
        let in_order = |order: [u64; 2]| {
            let mut rooms = Rooms::default();
            order.into_iter().for_each(|at| found(&mut rooms, u128::from(at), at));
            rooms
        };
        assert_eq!(in_order([10, 20]), in_order([20, 10]));
        for order in [[10, 20], [20, 10]] {
            let rooms = in_order(order);
            assert_eq!(rooms.count(), 1);
            let founded = [10, 20].map(|founder| rooms.founded(AccountId::new(founder)));
            assert_eq!(founded, [1, 0]);
        }
    }

    #[test]
    fn a_released_nick_goes_to_the_next_who_asked() {
        let mut rooms = Rooms::default();
        claim(&mut rooms, 1, "bob", 10);
        claim(&mut rooms, 2, "bob", 20);
        let renamed = claim(&mut rooms, 1, "robert", 30);
        assert_eq!(renamed, [AccountId::new(1), AccountId::new(2)].into());
        assert_eq!(rooms.nick(AccountId::new(2)).as_deref(), Some("bob"));
        assert_eq!(rooms.account("robert"), Some(AccountId::new(1)));
    }

    fn key(at: u64) -> Key {
        Key { hlc: Hlc::from_bits(at), origin: Origin::new(1), seq: at }
    }

    const ROOM: RoomId = RoomId::new(7);

    #[test]
    fn members_are_those_who_joined_and_neither_left_nor_were_kicked() {
        let mut rooms = Rooms::default();
        let (ann, bob) = (AccountId::new(1), AccountId::new(2));
        let mut set = |who, at, state: Membership| {
            let value = Register::Member { key: key(at), state };
            rooms.write(RegisterKey::Member(ROOM, who), value);
            rooms.members(ROOM).collect::<Vec<_>>()
        };
        assert_eq!(set(bob, 1, Membership::Joined), [bob]);
        assert_eq!(set(ann, 2, Membership::Joined), [ann, bob]);
        assert_eq!(set(bob, 3, Membership::Left), [ann]);
        assert_eq!(set(bob, 2, Membership::Joined), [ann], "older news is none");
        let kicked = Membership::Kicked { by: "ann".into(), reason: String::new() };
        assert_eq!(set(bob, 4, Membership::Joined), [ann, bob]);
        assert_eq!(set(bob, 5, kicked.clone()), [ann]);
        assert!(rooms.is_member(ROOM, ann) && !rooms.is_member(ROOM, bob));
        assert_eq!(rooms.membership(ROOM, bob), Some((key(5), &kicked)));
        assert_eq!(rooms.membership(RoomId::new(8), bob), None);
    }

    #[test]
    fn a_founder_is_above_every_role() {
        let mut rooms = Rooms::default();
        let (ann, bob, cid) = (AccountId::new(1), AccountId::new(2), AccountId::new(3));
        let value = Register::Room { key: key(1), founder: ann, name: "Tea".into() };
        rooms.write(RegisterKey::Room(ROOM), value);
        for who in [ann, bob] {
            let value = Register::Role { key: key(2), rank: Rank::Op };
            rooms.write(RegisterKey::Role(ROOM, who), value);
        }
        let ranks = [ann, bob, cid].map(|who| rooms.rank(ROOM, who));
        assert_eq!(ranks, [Rank::Founder, Rank::Op, Rank::Member]);
        assert_eq!(rooms.rank(RoomId::new(8), ann), Rank::Member);
        assert_eq!(rooms.rooms().collect::<Vec<_>>(), [(ROOM, "Tea")]);
        assert_eq!((rooms.count(), rooms.name(ROOM)), (1, Some("Tea")));
        assert_eq!(rooms.winner(&RegisterKey::Role(ROOM, bob)), Some(key(2)));
        assert_eq!(rooms.winner(&RegisterKey::Room(ROOM)), None);
    }

    #[test]
    fn a_conversation_is_of_two_and_is_forgotten_with_its_last_message() {
        let mut rooms = Rooms::default();
        let (ann, bob, cid) = (AccountId::new(1), AccountId::new(2), AccountId::new(3));
        let with = |rooms: &mut Rooms, room, low, high| {
            rooms.write(RegisterKey::Direct(room), Register::Direct { low, high });
        };
        let (first, second) = (RoomId::new(8), RoomId::new(9));
        with(&mut rooms, first, ann, bob);
        with(&mut rooms, second, ann, cid);
        let value = Register::Room { key: key(1), founder: ann, name: "Tea".into() };
        rooms.write(RegisterKey::Room(ROOM), value);
        assert_eq!(rooms.direct_with(first, ann), Some(bob));
        assert_eq!(rooms.direct_with(first, bob), Some(ann));
        assert_eq!(rooms.direct_with(first, cid), None);
        assert_eq!(rooms.direct_with(ROOM, ann), None);
        assert!(rooms.has_direct(first) && !rooms.has_direct(ROOM));
        assert_eq!(rooms.directs(ann).collect::<Vec<_>>(), [first, second]);

        rooms.set_sum(second, Sum { messages: 2, digest: 5 });
        assert_eq!((rooms.sum(second).digest, rooms.sum(first)), (5, Sum::default()));
        assert_eq!(rooms.sums_len(), 1);
        let kept = rooms.without_empty_conversations();
        assert!(!kept.has_direct(first) && kept.has_direct(second));
        assert_eq!(kept.directs(ann).collect::<Vec<_>>(), [second]);
        assert_eq!(kept.directs.len(), 2, "bob has none left");
        assert_eq!((kept.count(), kept.name(ROOM)), (1, Some("Tea")));
        rooms.set_sum(second, Sum::default());
        assert_eq!((rooms.sums_len(), rooms.sums().count()), (0, 0), "all of it was erased");
    }

    #[test]
    fn a_room_has_its_own_policy_and_a_floor() {
        let mut rooms = Rooms::default();
        assert_eq!((rooms.retention(ROOM), rooms.floor_ms(ROOM)), (None, 0));
        let keep = Retention { age_ms: 5, messages: 6 };
        rooms.write(RegisterKey::Keep(ROOM), Register::Keep { key: key(1), keep });
        rooms.write(RegisterKey::Floor(ROOM), Register::Floor { ms: 77, key: key(2) });
        let other = Register::Floor { ms: 5, key: key(3) };
        rooms.write(RegisterKey::Floor(RoomId::new(1)), other);
        assert_eq!((rooms.retention(ROOM), rooms.floor_ms(ROOM)), (Some(keep), 77));
        let floors: Vec<_> = rooms.floors().collect();
        assert_eq!(floors, [(RoomId::new(1), 5, key(3)), (ROOM, 77, key(2))]);
    }

    #[test]
    fn a_disk_is_loaded_with_its_registers_and_sums() {
        let topic = Register::Topic { key: key(1), text: "tea".into() };
        let loaded = Loaded {
            registers: vec![(RegisterKey::Topic(ROOM), topic)],
            sums: vec![(ROOM, Sum { messages: 3, digest: 9 })],
            ..Loaded::default()
        };
        let rooms = Rooms::load(&loaded);
        assert_eq!((rooms.topic(ROOM), rooms.sum(ROOM).messages), ("tea", 3));
        assert_eq!(rooms.topic(RoomId::new(8)), "");
    }

    #[test]
    fn suffixes_tell_accounts_apart() {
        let mut rooms = Rooms::default();
        for n in 1..=50 {
            claim(&mut rooms, n, "bob", 10 + u64::try_from(n).unwrap());
        }
        let nicks: BTreeSet<String> =
            (1..=50).filter_map(|n| rooms.nick(AccountId::new(n))).collect();
        assert_eq!(nicks.len(), 50);
        assert!(nicks.iter().all(|nick| nick == "bob" || nick.len() == "bob~".len() + 6));
        for n in 1..=50 {
            let account = AccountId::new(n);
            assert_eq!(rooms.account(&rooms.nick(account).unwrap()), Some(account));
            assert_eq!(rooms.wanted_nick(account), Some("bob"));
        }
        assert_eq!((rooms.accounts(), rooms.wanted_nick(AccountId::new(99))), (50, None));
        assert_eq!((rooms.account("bob~zzzzzz"), rooms.account("eve")), (None, None));
    }

    #[test]
    fn founders_of_several_rooms_are_counted_with_each() {
        let mut rooms = Rooms::default();
        let (ann, bob) = (AccountId::new(1), AccountId::new(2));
        for n in 0..3 {
            let value = Register::Room { key: key(9), founder: ann, name: String::new() };
            rooms.write(RegisterKey::Room(RoomId::new(n)), value);
        }
        // One of them was bob's before.
        let value = Register::Room { key: key(5), founder: bob, name: String::new() };
        rooms.write(RegisterKey::Room(RoomId::new(0)), value);
        assert_eq!((rooms.founded(ann), rooms.founded(bob), rooms.count()), (2, 1, 3));
    }
}
