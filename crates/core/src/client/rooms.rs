//! The rooms a client has open, and what was told of each.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{AccountId, EventId, RoomId};
use crate::session::{CloseMode, Line, Mode, Opened, OpenedRoom, RoomOpened, Target};
use crate::time::{Hlc, Key, Time};
use crate::vector::Vector;

use super::Client;
use super::ask::{Answer, Ask};
use super::io::ClientEvent;
use super::seen::Seen;

/// [`Event::kind`](crate::event::Event::kind) of a direct message.
pub(super) const KIND_DIRECT: u16 = 3;
/// Of a change of name.
pub(super) const KIND_NICK: u16 = 10;
/// A line is late when it is older than the newest told of its room by more than this.
const LATE_MS: u64 = 1000;
/// Before a room's opening is covered by a token, lines older than the opening by more than this
/// are history that nobody asked for. Two seconds: the most that servers' clocks may differ.
const BEFORE_MS: u64 = 2000;
/// Rooms that are remembered after they were closed.
const CLOSED_MAX: usize = 256;
/// People whose direct messages can be read again after a gap.
const DIRECTS_MAX: usize = 1024;

/// What the cursor says about a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cover {
    /// Nothing yet: the room was opened after the newest token.
    Opening,
    /// What the cursor does not cover is new.
    Token,
}

#[derive(Clone, Debug)]
struct Room {
    name: String,
    since: Hlc,
    mode: Mode,
    cover: Cover,
    /// What was covered as it was opened: what came before was told of other rooms only.
    opened_with: Vector,
    seen: Seen,
    /// The newest line told.
    newest: Option<Key>,
}

impl Room {
    /// Whether a line is older than what this client takes part in.
    fn is_before(&self, line: &Line) -> bool {
        self.cover == Cover::Opening
            && line.event.hlc.ms().saturating_add(BEFORE_MS) < self.since.ms()
    }
}

/// What is left of a room that was closed.
#[derive(Clone, Debug)]
struct Closed {
    /// What was told before may still be on its way to the program.
    name: String,
    /// It is not told again when the room is open again: of what was said and never left a server
    /// that is dead, whoever said it says it again, and it has another place then.
    seen: Seen,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Rooms {
    open: BTreeMap<RoomId, Room>,
    closed: BTreeMap<RoomId, Closed>,
    /// Direct messages and changes of names, of all people.
    elsewhere: Seen,
    elsewhere_newest: BTreeMap<RoomId, Key>,
    directs: BTreeMap<RoomId, AccountId>,
    remembered: usize,
}

impl Rooms {
    pub(super) fn new(remembered: usize) -> Self {
        Self {
            open: BTreeMap::new(),
            closed: BTreeMap::new(),
            elsewhere: Seen::default(),
            elsewhere_newest: BTreeMap::new(),
            directs: BTreeMap::new(),
            remembered,
        }
    }

    pub(super) fn name(&self, room: RoomId) -> Option<&str> {
        self.open.get(&room).map(|room| room.name.as_str())
    }

    /// The name of a room that is open, or was.
    pub(super) fn known_name(&self, room: RoomId) -> Option<&str> {
        self.name(room).or_else(|| self.closed.get(&room).map(|closed| closed.name.as_str()))
    }

    /// What the attach repeats.
    pub(super) fn opened(&self) -> Vec<Opened> {
        let opened = |room: &Room| Opened { room: room.name.clone(), since: room.since };
        self.open.values().map(opened).collect()
    }

    /// Takes the rooms of a `Welcome`; returns those to open anew.
    pub(super) fn welcome(&mut self, rooms: &[OpenedRoom]) -> Vec<(String, u32, Mode)> {
        let told: BTreeSet<RoomId> = rooms.iter().map(|room| room.id).collect();
        for opened in rooms {
            if let Some(room) = self.open.get_mut(&opened.id) {
                room.since = opened.since;
                room.name.clone_from(&opened.name);
            }
        }
        let missing = self.open.iter().filter(|(id, _)| !told.contains(id));
        missing.map(|(_, room)| (room.name.clone(), 0, room.mode)).collect()
    }

    /// A token covers everything told before it.
    pub(super) fn covered(&mut self) {
        for room in self.open.values_mut() {
            room.cover = Cover::Token;
        }
    }

    pub(super) fn close(&mut self, room: RoomId) -> bool {
        let Some(Room { name, seen, .. }) = self.open.remove(&room) else { return false };
        if self.closed.len() >= CLOSED_MAX {
            self.closed.pop_first();
        }
        self.closed.insert(room, Closed { name, seen });
        true
    }

    /// A room is out of sight once its closing is answered.
    pub(super) fn done(&mut self, ask: &Ask) {
        if let Ask::Close { room, mode: CloseMode::Leave | CloseMode::Keep } = ask {
            self.close(RoomId::public(room));
        }
    }

    pub(super) fn note_direct(&mut self, room: RoomId, other: AccountId) {
        if self.directs.len() >= DIRECTS_MAX && !self.directs.contains_key(&room) {
            self.directs.pop_first();
        }
        self.directs.insert(room, other);
    }

    /// What to read again after a gap.
    pub(super) fn target(&self, room: RoomId) -> Option<Target> {
        let public = self.open.get(&room).map(|room| Target::Room(room.name.clone()));
        public.or_else(|| self.directs.get(&room).copied().map(Target::Account))
    }

    /// Whether the client has that line, or need not have it.
    pub(super) fn has(&self, line: &Line, cursor: &Vector) -> bool {
        let covered = cursor.covers(line.key().event());
        match self.open.get(&line.event.room) {
            // Before the first token the cursor knows nothing of this room.
            Some(room) if room.cover == Cover::Opening => room.is_before(line),
            _ => covered,
        }
    }

    /// Whether a line was told, or was history when its room was opened, by what a cursor covers:
    /// also when its identity is forgotten.
    pub(super) fn was_told(&self, room: RoomId, event: EventId, cursor: &Vector) -> bool {
        let before = self.open.get(&room).is_some_and(|room| room.opened_with.covers(event));
        cursor.covers(event) && !before
    }

    /// Remembers a line; the event to tell, if it is news.
    pub(super) fn show(
        &mut self,
        line: Line,
        horizon_ms: u64,
        cursor: &Vector,
    ) -> Option<ClientEvent> {
        let key = line.key();
        let (seen, newest) = match self.open.get_mut(&line.event.room) {
            Some(room) => {
                if room.is_before(&line) {
                    return None;
                }
                (&mut room.seen, &mut room.newest)
            }
            None if matches!(line.event.kind, KIND_DIRECT | KIND_NICK) => {
                return self.show_elsewhere(line, horizon_ms, cursor);
            }
            // Of a room just closed: still on its way then.
            None => return None,
        };
        if !seen.insert(&line, self.remembered, cursor) {
            return None;
        }
        let late = is_late(*newest, key);
        // A clock far ahead would make everybody else's lines late.
        if key.hlc.ms() <= horizon_ms && newest.is_none_or(|newest| newest < key) {
            *newest = Some(key);
        }
        Some(ClientEvent::Line { line, late })
    }

    fn show_elsewhere(
        &mut self,
        line: Line,
        horizon_ms: u64,
        cursor: &Vector,
    ) -> Option<ClientEvent> {
        if !self.elsewhere.insert(&line, self.remembered, cursor) {
            return None;
        }
        if line.event.kind != KIND_DIRECT {
            return Some(ClientEvent::Line { line, late: false });
        }
        let (room, key) = (line.event.room, line.key());
        let newest = self.elsewhere_newest.get(&room).copied();
        let late = is_late(newest, key);
        if key.hlc.ms() <= horizon_ms && newest.is_none_or(|newest| newest < key) {
            if self.elsewhere_newest.len() >= DIRECTS_MAX && newest.is_none() {
                self.elsewhere_newest.pop_first();
            }
            self.elsewhere_newest.insert(room, key);
        }
        Some(ClientEvent::Direct { line, late })
    }

    fn opened_now(&mut self, opened: &RoomOpened, mode: Mode, cursor: &Vector) {
        let closed = &mut self.closed;
        let room = self.open.entry(opened.room.id).or_insert_with(|| Room {
            name: opened.room.name.clone(),
            since: opened.room.since,
            mode,
            cover: Cover::Opening,
            opened_with: cursor.clone(),
            seen: closed.remove(&opened.room.id).map(|closed| closed.seen).unwrap_or_default(),
            newest: None,
        });
        room.name.clone_from(&opened.room.name);
        room.since = opened.room.since;
        room.mode = mode;
        for line in &opened.lines {
            room.seen.insert(line, self.remembered, cursor);
            room.newest = room.newest.max(Some(line.key()));
        }
    }
}

fn is_late(newest: Option<Key>, key: Key) -> bool {
    newest.is_some_and(|newest| key.hlc.ms().saturating_add(LATE_MS) < newest.hlc.ms())
}

impl Client {
    pub(super) fn on_room_opened(&mut self, now: Time, opened: RoomOpened) {
        let Some((ticket, ask)) = self.asks.taken(opened.request) else {
            // Given up meanwhile: the room is open there, so it is closed again.
            let request = self.request_id();
            let (room, mode) = (opened.room.name, CloseMode::Keep);
            let deadline = now + self.config.timing.patience;
            return self.asks.again(request, Ask::Close { room, mode }, deadline);
        };
        let mode = match ask {
            Ask::Open { mode, .. } => mode,
            _ => Mode::Watch,
        };
        self.rooms.opened_now(&opened, mode, &self.base);
        if let Some(ticket) = ticket {
            self.emit(ClientEvent::Answered { ticket, answer: Answer::Opened(opened) });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::{Event, Rank};
    use crate::id::{Log, Mid, Origin, RequestId};

    const ROOM: RoomId = RoomId::new(1);
    const MS: u64 = 1_700_000_000_000;
    const LATER: u64 = u64::MAX;

    fn line(seq: u64, at: u64, room: RoomId, kind: u16) -> Line {
        let event = Event {
            seq,
            hlc: Hlc::at_ms(MS + at),
            wall_ms: MS + at,
            room,
            actor: AccountId::new(1),
            mid: Mid::at(MS + at, seq.into()),
            kind,
            body: Vec::new(),
        };
        Line { origin: Origin::new(1), event: Arc::new(event) }
    }

    fn open(rooms: &mut Rooms, room: RoomId, since: u64) {
        let opened = OpenedRoom {
            id: room,
            name: format!("room {}", room.bits()),
            since: Hlc::at_ms(MS + since),
            topic: String::new(),
        };
        let opened = RoomOpened {
            request: RequestId(1),
            room: opened,
            lines: Vec::new(),
            complete: true,
            unreachable: Vec::new(),
        };
        rooms.opened_now(&opened, Mode::Join, &Vector::new());
    }

    fn told(rooms: &mut Rooms, line: Line) -> Option<&'static str> {
        told_within(rooms, line, LATER)
    }

    fn told_within(rooms: &mut Rooms, line: Line, horizon: u64) -> Option<&'static str> {
        rooms.show(line, horizon, &Vector::new()).map(|event| match event {
            ClientEvent::Line { late: false, .. } => "line",
            ClientEvent::Line { late: true, .. } => "late line",
            ClientEvent::Direct { late: false, .. } => "direct",
            ClientEvent::Direct { late: true, .. } => "late direct",
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn direct_messages_are_told_once_and_late_by_the_newest_of_their_conversation() {
        let mut rooms = Rooms::new(100);
        let direct = |seq, at| line(seq, at, ROOM, KIND_DIRECT);
        assert_eq!(told(&mut rooms, direct(1, 5000)), Some("direct"));
        assert_eq!(told(&mut rooms, direct(1, 5000)), None);
        assert_eq!(told(&mut rooms, direct(2, 4000)), Some("direct"), "a second is not late");
        assert_eq!(told(&mut rooms, direct(3, 3999)), Some("late direct"));
        assert_eq!(told(&mut rooms, direct(4, 9000)), Some("direct"));
        assert_eq!(told(&mut rooms, direct(5, 5000)), Some("late direct"));
        assert_eq!(told(&mut rooms, line(6, 0, RoomId::new(2), KIND_DIRECT)), Some("direct"));
        // A stamp beyond what clocks may differ by makes nothing late.
        assert_eq!(told_within(&mut rooms, direct(7, 20_000), MS + 19_999), Some("direct"));
        assert_eq!(told(&mut rooms, direct(8, 10_000)), Some("direct"));
        assert_eq!(told_within(&mut rooms, direct(9, 20_000), MS + 20_000), Some("direct"));
        assert_eq!(told(&mut rooms, direct(10, 10_000)), Some("late direct"));
        assert_eq!(told(&mut rooms, line(11, 0, ROOM, KIND_NICK)), Some("line"));
        assert_eq!(told(&mut rooms, line(12, 0, ROOM, 2)), None, "a room that is not open");
    }

    #[test]
    fn a_line_is_late_by_the_newest_told_in_its_room() {
        let mut rooms = Rooms::new(100);
        open(&mut rooms, ROOM, 0);
        assert_eq!(told(&mut rooms, line(1, 1000, ROOM, 2)), Some("line"));
        assert_eq!(told(&mut rooms, line(2, 3000, ROOM, 2)), Some("line"));
        assert_eq!(told(&mut rooms, line(3, 2000, ROOM, 2)), Some("line"), "a second is not late");
        assert_eq!(told(&mut rooms, line(4, 1999, ROOM, 2)), Some("late line"));
    }

    #[test]
    fn conversations_remembered_are_bounded() {
        let mut rooms = Rooms::new(100_000);
        for n in 1..=DIRECTS_MAX as u64 + 5 {
            let room = RoomId::new(n.into());
            told(&mut rooms, line(n, n, room, KIND_DIRECT));
            told(&mut rooms, line(100_000 + n, n + 1, room, KIND_DIRECT));
            rooms.note_direct(room, AccountId::new(n.into()));
            rooms.note_direct(room, AccountId::new(n.into()));
        }
        assert_eq!((rooms.elsewhere_newest.len(), rooms.directs.len()), (DIRECTS_MAX, DIRECTS_MAX));
        assert_eq!(rooms.target(RoomId::new(1)), None);
        let last = RoomId::new(DIRECTS_MAX as u128 + 5);
        assert_eq!(rooms.target(last), Some(Target::Account(AccountId::new(last.bits()))));
        // One that is known takes nobody's place.
        rooms.note_direct(last, AccountId::new(7));
        assert_eq!(rooms.directs.len(), DIRECTS_MAX);
        assert_eq!(rooms.target(last), Some(Target::Account(AccountId::new(7))));
    }

    #[test]
    fn what_came_before_a_room_was_opened_is_history() {
        let mut rooms = Rooms::new(100);
        open(&mut rooms, ROOM, 10_000);
        let covered: Vector = [(Log::of(Origin::new(1)), 5)].into_iter().collect();
        let has = |rooms: &Rooms, seq, at| rooms.has(&line(seq, at, ROOM, 2), &covered);
        assert_eq!(told(&mut rooms, line(1, 7999, ROOM, 2)), None);
        assert_eq!(told(&mut rooms, line(2, 8000, ROOM, 2)), Some("line"), "clocks may differ");
        // Before the first token only that counts, after it only the cursor.
        assert_eq!((has(&rooms, 3, 9000), has(&rooms, 9, 7000)), (false, true));
        rooms.covered();
        assert_eq!((has(&rooms, 3, 9000), has(&rooms, 9, 7000)), (true, false));
        assert_eq!(told(&mut rooms, line(9, 6999, ROOM, 2)), Some("late line"));
    }

    #[test]
    fn what_was_told_of_a_room_is_not_told_again_when_it_was_closed_meanwhile() {
        let mut rooms = Rooms::new(100);
        open(&mut rooms, ROOM, 1);
        let first = line(3, 5, ROOM, 2);
        assert_eq!(told(&mut rooms, first.clone()), Some("line"));
        assert!(rooms.close(ROOM));
        open(&mut rooms, ROOM, 8);
        // Its server died with it, and it was said again to another one.
        let event = Event { seq: 7, hlc: Hlc::at_ms(MS + 9), ..(*first.event).clone() };
        let again = Line { origin: Origin::new(2), event: Arc::new(event) };
        assert_eq!(told(&mut rooms, again), None);
        assert_eq!(told(&mut rooms, line(4, 9, ROOM, 2)), Some("line"));
        assert_eq!(rooms.closed.len(), 0);
    }

    #[test]
    fn rooms_that_a_server_does_not_have_open_are_opened_anew() {
        let mut rooms = Rooms::new(100);
        open(&mut rooms, ROOM, 1);
        open(&mut rooms, RoomId::new(2), 2);
        let told = OpenedRoom {
            id: ROOM,
            name: "Lobby".into(),
            since: Hlc::at_ms(MS + 9),
            topic: String::new(),
        };
        let missing = rooms.welcome(&[told]);
        assert_eq!(missing, [("room 2".to_string(), 0, Mode::Join)]);
        assert_eq!(rooms.name(ROOM), Some("Lobby"));
        assert_eq!(rooms.opened()[0].since, Hlc::at_ms(MS + 9));
    }

    #[test]
    fn names_of_closed_rooms_are_remembered_and_bounded() {
        let mut rooms = Rooms::new(100);
        for n in 1..=CLOSED_MAX as u128 + 1 {
            open(&mut rooms, RoomId::new(n), 1);
            assert!(rooms.close(RoomId::new(n)));
        }
        assert!(!rooms.close(ROOM));
        assert_eq!(rooms.closed.len(), CLOSED_MAX);
        assert_eq!((rooms.known_name(ROOM), rooms.name(RoomId::new(2))), (None, None));
        assert_eq!(rooms.known_name(RoomId::new(2)), Some("room 2"));
        let lobby = RoomId::public("lobby");
        open(&mut rooms, lobby, 1);
        let nick = "bob".to_string();
        let role = Ask::Role { room: "lobby".into(), nick, rank: Rank::Op };
        rooms.done(&role);
        assert!(rooms.name(lobby).is_some());
        rooms.done(&Ask::Close { room: "lobby".into(), mode: CloseMode::Keep });
        assert!(rooms.name(lobby).is_none());
    }
}
