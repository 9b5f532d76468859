//! Who is attached where: told, not logged.
//!
//! Each server tells its own sessions to its links; receivers keep what one server told together
//! and drop it when that server runs anew or stays away for the grace. Membership of rooms is
//! durable and does not change because a link or a server died, so nothing here makes join or part
//! lines.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::frame::PresenceUpdate;
use crate::id::{AccountId, Origin, RoomId, Slot};
use crate::time::{Now, Time};

/// An account that is attached (`None`), or has a room open.
type Place = (AccountId, Option<RoomId>);

/// Places in one frame, at most; more travel in several.
const PLACES_MAX: usize = 16_384;
/// Places kept of one other server, at most; more are not shown.
const PLACES_KEPT_MAX: usize = 1 << 20;

/// Who is where.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Presence {
    /// How many sessions of this server are at a place.
    local: BTreeMap<Place, u32>,
    /// Places whose last session was lost: they show until then.
    lingering: BTreeMap<Place, Time>,
    /// The same, by time.
    linger_ends: BTreeSet<(Time, Place)>,
    /// What changed here since it was told.
    changed: BTreeSet<Place>,
    remote: BTreeMap<Slot, Remote>,
}

/// What another server told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Remote {
    origin: Origin,
    places: BTreeSet<Place>,
    /// When the link to it went down.
    away_since: Option<Time>,
}

impl Presence {
    /// A session of this server is at a place.
    pub fn enter(&mut self, account: AccountId, room: Option<RoomId>) {
        let place = (account, room);
        if !self.end_lingering(place) && !self.local.contains_key(&place) {
            self.changed.insert(place);
        }
        *self.local.entry(place).or_insert(0) += 1;
    }

    /// Whether the place was lingering; it is no longer.
    fn end_lingering(&mut self, place: Place) -> bool {
        let until = self.lingering.remove(&place);
        until.is_some_and(|until| self.linger_ends.remove(&(until, place)))
    }

    /// A session of this server is there no longer; if its connection was lost (and not ended),
    /// the place shows until `linger`.
    pub fn leave(&mut self, account: AccountId, room: Option<RoomId>, linger: Option<Time>) {
        let place = (account, room);
        let Some(count) = self.local.get_mut(&place) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.local.remove(&place);
        // Whoever is attached elsewhere by now is only there.
        match linger.filter(|_| !self.is_told(&place)) {
            Some(until) => {
                if let Some(before) = self.lingering.insert(place, until) {
                    self.linger_ends.remove(&(before, place));
                }
                self.linger_ends.insert((until, place));
            }
            None => {
                self.changed.insert(place);
            }
        }
    }

    /// A link is up; what an older run of that server told is void.
    pub fn link_up(&mut self, slot: &Slot, origin: Origin) {
        match self.remote.get_mut(slot) {
            Some(remote) if remote.origin == origin => remote.away_since = None,
            _ => {
                let remote = Remote { origin, places: BTreeSet::new(), away_since: None };
                self.remote.insert(slot.clone(), remote);
            }
        }
    }

    /// A link is down: its people show unchanged until the grace is over.
    pub fn link_down(&mut self, now: Now, slot: &Slot) {
        if let Some(remote) = self.remote.get_mut(slot) {
            remote.away_since = Some(now.time);
        }
    }

    /// Another server told.
    pub fn told(&mut self, slot: &Slot, update: PresenceUpdate) {
        let Some(remote) = self.remote.get_mut(slot) else { return };
        if update.full {
            remote.places.clear();
        }
        for place in &update.gone {
            remote.places.remove(place);
        }
        for place in &update.here {
            if remote.places.len() < PLACES_KEPT_MAX {
                remote.places.insert(*place);
            }
        }
        for place in update.here {
            // Whoever is attached elsewhere lingers here no longer.
            if self.end_lingering(place) {
                self.changed.insert(place);
            }
        }
    }

    /// Ends what is over.
    pub fn expire(&mut self, now: Now, grace: Duration) {
        while let Some((until, place)) = self.linger_ends.first().copied()
            && until <= now.time
        {
            self.end_lingering(place);
            self.changed.insert(place);
        }
        self.remote.retain(|_, remote| {
            remote.away_since.is_none_or(|since| now.time.since(since) < grace)
        });
    }

    /// When [`Self::expire`] has something to do.
    pub fn next_deadline(&self, grace: Duration) -> Option<Time> {
        let lingering = self.linger_ends.first().map(|(until, _)| *until).into_iter();
        let remote = self.remote.values().filter_map(|r| r.away_since.map(|since| since + grace));
        lingering.chain(remote).min()
    }

    /// What is to be told of the changes since the last call.
    pub fn changes(&mut self) -> Vec<PresenceUpdate> {
        let changed = std::mem::take(&mut self.changed);
        let (here, gone): (Vec<Place>, Vec<Place>) =
            changed.into_iter().partition(|place| self.is_here(place));
        updates(&here, &gone, false)
    }

    /// What a new link is to be told.
    pub fn everybody(&self) -> Vec<PresenceUpdate> {
        let here: Vec<Place> = self.local.keys().chain(self.lingering.keys()).copied().collect();
        updates(&here, &[], true)
    }

    /// How many places are known, which is what looking through all of them costs.
    pub fn places(&self) -> usize {
        let remote = self.remote.values().map(|remote| remote.places.len()).sum::<usize>();
        self.local.len() + self.lingering.len() + remote
    }

    /// Panics unless this server's sessions are exactly at the places told.
    pub fn assert_invariants(&self, sessions: impl Iterator<Item = (AccountId, Option<RoomId>)>) {
        let mut counted: BTreeMap<Place, u32> = BTreeMap::new();
        for place in sessions {
            *counted.entry(place).or_insert(0) += 1;
        }
        assert_eq!(self.local, counted, "who is here is who has a session");
        let ends = self.linger_ends.iter().map(|(until, place)| (*place, *until));
        assert_eq!(ends.collect::<BTreeMap<_, _>>(), self.lingering, "who lingers has an end");
    }

    fn is_here(&self, place: &Place) -> bool {
        self.local.contains_key(place) || self.lingering.contains_key(place)
    }

    /// Whether a server that is linked tells of that place.
    fn is_told(&self, place: &Place) -> bool {
        self.remote.values().any(|r| r.away_since.is_none() && r.places.contains(place))
    }

    /// The servers at which an account has a room open (or is attached); `me` is this one. What a
    /// server told that is away counts only for those who have not come back elsewhere.
    pub fn servers(&self, account: AccountId, room: Option<RoomId>, me: &Slot) -> Vec<Slot> {
        let place = (account, room);
        let is_back = self.is_here(&place) || self.is_told(&place);
        let mut servers: Vec<Slot> = self
            .remote
            .iter()
            .filter(|(_, remote)| remote.away_since.is_none() || !is_back)
            .filter(|(_, remote)| remote.places.contains(&place))
            .map(|(slot, _)| slot.clone())
            .collect();
        if self.is_here(&place) {
            servers.push(me.clone());
        }
        servers.sort();
        servers
    }

    /// Everybody who has a room open anywhere.
    pub fn in_room(&self, room: RoomId) -> BTreeSet<AccountId> {
        let at = |place: &&Place| place.1 == Some(room);
        let local = self.local.keys().chain(self.lingering.keys()).filter(at);
        let remote = self.remote.values().flat_map(|remote| remote.places.iter()).filter(at);
        local.chain(remote).map(|(account, _)| *account).collect()
    }

    /// How many have each room open, besides those that `known` tells to be counted already.
    pub fn room_counts(
        &self,
        known: impl Fn(RoomId, AccountId) -> bool,
    ) -> BTreeMap<RoomId, BTreeSet<AccountId>> {
        let mut rooms: BTreeMap<RoomId, BTreeSet<AccountId>> = BTreeMap::new();
        let local = self.local.keys().chain(self.lingering.keys());
        let remote = self.remote.values().flat_map(|remote| remote.places.iter());
        for (account, room) in local.chain(remote) {
            if let Some(room) = room
                && !known(*room, *account)
            {
                rooms.entry(*room).or_default().insert(*account);
            }
        }
        rooms
    }
}

fn updates(here: &[Place], gone: &[Place], full: bool) -> Vec<PresenceUpdate> {
    let mut updates: Vec<PresenceUpdate> = Vec::new();
    if full || !here.is_empty() {
        let mut pieces = here.chunks(PLACES_MAX);
        let first = pieces.next().unwrap_or_default().to_vec();
        updates.push(PresenceUpdate { full, here: first, gone: Vec::new() });
        updates.extend(pieces.map(|p| PresenceUpdate {
            full: false,
            here: p.to_vec(),
            gone: Vec::new(),
        }));
    }
    updates.extend(gone.chunks(PLACES_MAX).map(|p| PresenceUpdate {
        full: false,
        here: Vec::new(),
        gone: p.to_vec(),
    }));
    updates
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAT: AccountId = AccountId::new(7);

    fn slot(name: &str) -> Slot {
        Slot::new(name).unwrap()
    }

    fn at(seconds: u64) -> Now {
        Now { time: Time::from_micros(seconds * 1_000_000), wall_ms: seconds * 1000 }
    }

    fn here(place: Place) -> PresenceUpdate {
        PresenceUpdate { full: false, here: vec![place], gone: Vec::new() }
    }

    #[test]
    fn somebody_who_came_back_elsewhere_is_not_shown_at_the_server_that_died() {
        let place = (PAT, Some(RoomId::public("lobby")));
        let mut presence = Presence::default();
        for (n, name) in ["s2", "s3"].into_iter().enumerate() {
            presence.link_up(&slot(name), Origin::new(n as u128));
        }
        presence.told(&slot("s2"), here(place));
        let servers = |presence: &Presence| presence.servers(place.0, place.1, &slot("s1"));
        presence.link_down(at(1), &slot("s2"));
        assert_eq!(servers(&presence), [slot("s2")], "shown unchanged for the grace");

        let mut elsewhere = presence.clone();
        elsewhere.told(&slot("s3"), here(place));
        assert_eq!(servers(&elsewhere), [slot("s3")]);
        presence.enter(place.0, place.1);
        assert_eq!(servers(&presence), [slot("s1")]);

        // A link that comes back shows both again.
        presence.link_up(&slot("s2"), Origin::new(0));
        assert_eq!(servers(&presence), [slot("s1"), slot("s2")]);
    }

    #[test]
    fn whoever_moved_before_his_connection_was_missed_does_not_linger() {
        let place = (PAT, None);
        let mut presence = Presence::default();
        presence.link_up(&slot("s2"), Origin::new(2));
        presence.enter(place.0, place.1);
        presence.told(&slot("s2"), here(place));
        presence.leave(place.0, place.1, Some(at(30).time));
        assert_eq!(presence.servers(place.0, place.1, &slot("s1")), [slot("s2")]);
        assert_eq!(presence.changes().last().unwrap().gone, [place], "the others are told");
    }

    const EVE: AccountId = AccountId::new(8);
    const ROOM: RoomId = RoomId::new(1);
    const GRACE: Duration = Duration::from_secs(30);

    fn update(full: bool, here: &[Place], gone: &[Place]) -> PresenceUpdate {
        PresenceUpdate { full, here: here.to_vec(), gone: gone.to_vec() }
    }

    #[test]
    fn a_place_is_told_with_its_first_session_and_its_last() {
        let mut presence = Presence::default();
        let place = (PAT, Some(ROOM));
        assert_eq!(presence.changes(), []);
        presence.enter(place.0, place.1);
        presence.enter(place.0, place.1);
        assert_eq!(presence.changes(), [update(false, &[place], &[])]);
        presence.leave(place.0, place.1, None);
        assert_eq!(presence.changes(), [], "one is left");
        presence.leave(place.0, place.1, None);
        presence.leave(place.0, place.1, None);
        assert_eq!(presence.changes(), [update(false, &[], &[place])]);
        presence.enter(place.0, place.1);
        presence.enter(EVE, None);
        presence.leave(place.0, place.1, None);
        let changes = [update(false, &[(EVE, None)], &[]), update(false, &[], &[place])];
        assert_eq!(presence.changes(), changes);
    }

    #[test]
    fn a_lost_connection_shows_until_its_grace_is_over_or_it_is_back() {
        let mut presence = Presence::default();
        let place = (PAT, None);
        presence.enter(PAT, None);
        presence.changes();
        presence.leave(PAT, None, Some(at(30).time));
        assert_eq!(presence.next_deadline(GRACE), Some(at(30).time));
        presence.expire(at(29), GRACE);
        assert_eq!((presence.changes(), presence.places()), (vec![], 1));
        // Back, and lost again: later.
        presence.enter(PAT, None);
        assert_eq!((presence.changes(), presence.places()), (vec![], 1));
        presence.leave(PAT, None, Some(at(40).time));
        presence.enter(EVE, None);
        presence.assert_invariants([(EVE, None)].into_iter());
        assert_eq!(presence.everybody(), [update(true, &[(EVE, None), place], &[])]);
        presence.expire(at(39), GRACE);
        presence.changes();
        presence.expire(at(40), GRACE);
        assert_eq!(presence.changes(), [update(false, &[], &[place])]);
        assert_eq!((presence.next_deadline(GRACE), presence.places()), (None, 1));
    }

    #[test]
    #[should_panic(expected = "who is here is who has a session")]
    fn somebody_told_without_a_session_breaks_a_rule() {
        let mut presence = Presence::default();
        presence.enter(PAT, None);
        presence.assert_invariants(std::iter::empty());
    }

    #[test]
    fn what_an_older_run_of_a_server_told_is_void_and_what_the_same_told_stays() {
        let mut presence = Presence::default();
        let place = (PAT, Some(ROOM));
        presence.told(&slot("s2"), here(place));
        assert_eq!(presence.places(), 0, "nobody is linked");
        presence.link_up(&slot("s2"), Origin::new(1));
        presence.told(&slot("s2"), here(place));
        presence.link_down(at(1), &slot("s2"));
        presence.link_up(&slot("s2"), Origin::new(1));
        assert_eq!((presence.places(), presence.next_deadline(GRACE)), (1, None));
        presence.link_up(&slot("s2"), Origin::new(2));
        assert_eq!(presence.places(), 0);
    }

    #[test]
    fn a_server_that_stays_away_is_forgotten_after_the_grace() {
        let mut presence = Presence::default();
        for name in ["s2", "s3"] {
            presence.link_up(&slot(name), Origin::new(1));
            presence.told(&slot(name), here((PAT, None)));
        }
        presence.link_down(at(5), &slot("s2"));
        assert_eq!(presence.next_deadline(GRACE), Some(at(35).time));
        presence.expire(at(34), GRACE);
        assert_eq!(presence.places(), 2);
        presence.expire(at(35), GRACE);
        assert_eq!(presence.places(), 1);
        presence.told(&slot("s2"), here((EVE, None)));
        assert_eq!(presence.places(), 1);
    }

    #[test]
    fn a_full_telling_replaces_and_another_adds_and_removes() {
        let mut presence = Presence::default();
        let (one, two) = ((PAT, Some(ROOM)), (EVE, Some(ROOM)));
        presence.link_up(&slot("s2"), Origin::new(1));
        presence.told(&slot("s2"), update(true, &[one], &[]));
        presence.told(&slot("s2"), update(false, &[two], &[]));
        assert_eq!(presence.in_room(ROOM), [PAT, EVE].into());
        presence.told(&slot("s2"), update(false, &[], &[one]));
        assert_eq!(presence.in_room(ROOM), [EVE].into());
        presence.told(&slot("s2"), update(true, &[one], &[]));
        assert_eq!(presence.in_room(ROOM), [PAT].into());
        assert_eq!(presence.in_room(RoomId::new(2)), BTreeSet::new());
    }

    #[test]
    fn of_one_server_so_many_places_are_kept_and_no_more() {
        let mut presence = Presence::default();
        presence.link_up(&slot("s2"), Origin::new(1));
        let place = |n: u128| (AccountId::new(n), None);
        let most = PLACES_KEPT_MAX as u128;
        let remote = presence.remote.values_mut().next().unwrap();
        remote.places = (1..most).map(place).collect();
        presence.told(&slot("s2"), update(false, &[place(most), place(most + 1)], &[]));
        assert_eq!(presence.places(), PLACES_KEPT_MAX);
    }

    #[test]
    fn a_room_is_counted_by_everybody_who_has_it_open_anywhere_and_is_not_known() {
        let mut presence = Presence::default();
        presence.link_up(&slot("s2"), Origin::new(1));
        let other = RoomId::new(2);
        let told = [(PAT, Some(other)), (EVE, Some(other)), (EVE, None)];
        presence.told(&slot("s2"), update(true, &told, &[]));
        presence.enter(PAT, Some(ROOM));
        presence.enter(EVE, Some(ROOM));
        presence.leave(EVE, Some(ROOM), Some(at(9).time));
        let all = [(ROOM, [PAT, EVE].into()), (other, [PAT, EVE].into())];
        assert_eq!(presence.room_counts(|_, _| false), all.into());
        let known = |room, account| room == ROOM && account == PAT;
        let rest = [(ROOM, [EVE].into()), (other, [PAT, EVE].into())];
        assert_eq!(presence.room_counts(known), rest.into());
        assert_eq!(presence.places(), 5);
    }

    #[test]
    fn many_places_are_told_in_frames_of_bounded_length() {
        let many: Vec<Place> =
            (0..PLACES_MAX as u128 + 1).map(|n| (AccountId::new(n), None)).collect();
        let lengths = |here: &[Place], gone: &[Place], full| -> Vec<(bool, usize, usize)> {
            let updates = updates(here, gone, full);
            updates.iter().map(|u| (u.full, u.here.len(), u.gone.len())).collect()
        };
        let first = (true, PLACES_MAX, 0);
        assert_eq!(lengths(&many, &[], true), [first, (false, 1, 0)]);
        assert_eq!(lengths(&[], &[], true), [(true, 0, 0)], "nobody is news, too");
        assert_eq!(lengths(&[], &many, false), [(false, 0, PLACES_MAX), (false, 0, 1)]);
    }
}
