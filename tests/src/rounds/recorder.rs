//! The history of a round while it is being lived.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use chatty_core::id::{AccountId, RoomId, Slot};
use chatty_core::time::Time;
use chatty_simulations::history::{Did, History, Op, Server, Session, What};

/// Writes down what all sessions of a round do and hear, by one clock.
#[derive(Debug)]
pub struct Recorder {
    began: Instant,
    live: Mutex<Live>,
}

#[derive(Debug, Default)]
struct Live {
    history: History,
    /// How many messages each session was shown of each room.
    shown: BTreeMap<(Session, RoomId), usize>,
    /// Which rooms each session had open from when it came on.
    opened: BTreeSet<(Session, RoomId)>,
    closed: BTreeSet<(Session, RoomId)>,
    ended: BTreeMap<Session, String>,
    /// Messages of each session that are not known to be replicated.
    unsettled: BTreeMap<Session, usize>,
}

impl Recorder {
    /// The round begins.
    pub fn new(servers: Vec<String>, rooms: &[String]) -> Self {
        let rooms = rooms.iter().map(|room| (RoomId::public(room), room.clone())).collect();
        let history = History { servers, rooms, ..History::default() };
        Self { began: Instant::now(), live: Mutex::new(Live { history, ..Live::default() }) }
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        // What a session that panicked has written stands.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the round began.
    pub fn now(&self) -> Time {
        let micros = self.began.elapsed().as_micros();
        Time::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// Another session begins.
    pub fn session(&self, name: &str) -> Session {
        let mut live = self.live();
        live.history.sessions.push(name.to_owned());
        live.history.sessions.len() - 1
    }

    /// A conversation of two begins.
    pub fn direct(&self, room: RoomId, pair: [AccountId; 2], name: String) {
        let mut live = self.live();
        live.history.rooms.insert(room, name);
        live.history.directs.insert(room, pair);
    }

    /// Its number; one that the history does not know is none of its servers.
    pub fn server(&self, name: &Slot) -> Server {
        let live = self.live();
        let found = live.history.servers.iter().position(|server| server == name.as_str());
        found.unwrap_or(usize::MAX)
    }

    /// Something happened now.
    pub fn note(&self, what: What) {
        self.note_at(self.now(), what);
    }

    /// A session did or heard something now.
    pub fn did(&self, session: Session, did: Did) {
        self.note(What::Client(session, did));
    }

    /// Something happened then.
    pub fn note_at(&self, at: Time, what: What) {
        let mut live = self.live();
        match &what {
            What::Client(session, Did::Saw { room, .. }) => {
                *live.shown.entry((*session, *room)).or_default() += 1;
            }
            // Who was out of it meanwhile need not be shown it all.
            What::Client(session, Did::Opened { room, .. })
                if !live.closed.contains(&(*session, *room)) =>
            {
                live.opened.insert((*session, *room));
            }
            What::Client(session, Did::Closed(room)) => {
                live.opened.remove(&(*session, *room));
                live.closed.insert((*session, *room));
            }
            _ => {}
        }
        live.history.ops.push(Op { at, what });
    }

    /// So many messages of a session are not known to be replicated.
    pub fn unsettled(&self, session: Session, count: usize) {
        self.live().unsettled.insert(session, count);
    }

    /// A session left in good order before the round ends; nobody waits for it any more.
    pub fn left(&self, session: Session) {
        self.did(session, Did::Ended);
        let mut live = self.live();
        live.unsettled.remove(&session);
        live.opened.retain(|(other, _)| *other != session);
    }

    /// A session ended before its time.
    pub fn ended(&self, session: Session, why: String) {
        self.did(session, Did::Ended);
        self.live().ended.insert(session, why);
    }

    /// Sessions that ended before their time, and why.
    pub fn all_ended(&self) -> Vec<String> {
        let live = self.live();
        let told = |(session, why): (&Session, &String)| {
            format!("{}: {why}", live.history.sessions.get(*session).map_or("?", String::as_str))
        };
        live.ended.iter().map(told).collect()
    }

    /// How many messages are not known to be replicated, over all sessions that have not ended.
    pub fn all_unsettled(&self) -> usize {
        let live = self.live();
        let open = live.unsettled.iter().filter(|(session, _)| !live.ended.contains_key(session));
        open.map(|(_, count)| count).sum()
    }

    /// How many messages sessions have not been shown of a room that has so many.
    pub fn not_shown(&self, room: RoomId, messages: usize) -> usize {
        let live = self.live();
        let open = live
            .opened
            .iter()
            .filter(|(session, opened)| *opened == room && !live.ended.contains_key(session));
        let shown = |key| live.shown.get(key).copied().unwrap_or_default();
        open.map(|key| messages.saturating_sub(shown(key))).sum()
    }

    /// The history so far.
    pub fn history(&self) -> History {
        self.live().history.clone()
    }
}
