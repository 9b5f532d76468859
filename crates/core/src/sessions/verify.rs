//! A client asks that everything on the disk be read again and checked.
//!
//! One such task at a time, one piece of it outstanding: it goes on beside everything else. Damage
//! is told to whoever asked, and to the driver, which cuts it out.
//!
//! A room that is not as its sum says is counted again if lines came or went, meanwhile, where it had
//! been read already: they are in one and not in the other.

use std::sync::Arc;
use std::time::Duration;

use super::busy;
use crate::id::{ReadToken, RequestId, RoomId, SessionId};
use crate::io::{Output, Severity};
use crate::replica::Replica;
use crate::scrub::{self, At, Miscount, Piece, RoomAt};
use crate::session::{Item, Verified};
use crate::store::{Batch, Committed, Outcome, Query, Rows};
use crate::time::{Key, Now, Time};
use crate::vector::Vector;

/// How often whoever asked hears how far it is.
const PROGRESS: Duration = Duration::from_secs(1);

/// How often a room is counted that changes behind the count. Then its sum is left unproved, and
/// said so; that every line has its event was seen all the same.
const COUNTS_MAX: u8 = 8;

/// A timeline is being counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Counting {
    room: RoomId,
    /// Whether it changed where it was read already.
    changed: bool,
    /// The least place where it changed since the last piece was read.
    least: Option<Key>,
    /// How often it was counted before.
    before: u8,
}

impl Counting {
    /// Lines came or went at that place.
    fn change(&mut self, key: Key) {
        self.least = Some(self.least.map_or(key, |least| least.min(key)));
    }

    /// A piece was read, up to that line. What changed while it was read may be in it or not.
    fn read(&mut self, after: Key) {
        self.changed |= self.least.take().is_some_and(|least| least <= after);
    }
}

/// Everything is being read again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Verifying {
    session: SessionId,
    request: RequestId,
    token: ReadToken,
    within: Arc<Vector>,
    rooms: Arc<[RoomId]>,
    counting: Option<Counting>,
    events: u64,
    told_at: Time,
}

impl Verifying {
    /// Notes what a batch changed where it is being counted.
    fn written(&mut self, batch: &Batch, committed: &Committed) {
        let Some(counting) = &mut self.counting else { return };
        let swept = batch.sweep.is_some();
        counting.changed |= swept && committed.sums.iter().any(|(of, _)| *of == counting.room);
        let room = counting.room;
        let lines = batch.entries.iter().zip(&committed.outcomes);
        for (entry, outcome) in lines.filter(|(entry, _)| entry.event.room == room) {
            let key = entry.event.key(entry.log.origin);
            match outcome {
                Outcome::New => counting.change(key),
                Outcome::Moved { from } => counting.change(key.min(*from)),
                Outcome::NoMessage | Outcome::Alias { .. } | Outcome::Below => {}
            }
        }
    }

    /// Takes a piece in: where to go on, and what is wrong for certain.
    fn take(&mut self, piece: Piece) -> (Option<At>, Result<Option<String>, Miscount>) {
        if let Some(At::Room(at)) = &piece.next
            && let Some(counting) = self.counting.as_mut().filter(|c| c.room == at.room)
        {
            counting.read(at.after);
            return (piece.next, Ok(piece.damage));
        }
        let before = self.counting.take();
        if let (Some(mut counting), Some(miscount)) = (before, piece.miscount) {
            counting.read(miscount.last);
            if !counting.changed {
                return (None, Ok(Some(miscount.why)));
            }
            if counting.before + 1 < COUNTS_MAX {
                self.count(counting.room, counting.before + 1);
                return (Some(At::Room(RoomAt::begin(counting.room))), Ok(None));
            }
            self.begin(piece.next.as_ref());
            return (piece.next, Err(miscount));
        }
        self.begin(piece.next.as_ref());
        (piece.next, Ok(piece.damage))
    }

    fn begin(&mut self, at: Option<&At>) {
        if let Some(At::Room(at)) = at {
            self.count(at.room, 0);
        }
    }

    fn count(&mut self, room: RoomId, before: u8) {
        let counting = Counting { room, changed: false, least: None, before };
        self.counting = Some(counting);
    }
}

impl Replica {
    /// Whether everything is being read for that session.
    pub(super) fn is_verifying(&self, id: SessionId) -> bool {
        self.sessions.verifying.as_ref().is_some_and(|verifying| verifying.session == id)
    }

    /// A batch is on the disk.
    pub(crate) fn verify_written(&mut self, batch: &Batch, committed: &Committed) {
        if let Some(task) = &mut self.sessions.verifying {
            task.written(batch, committed);
        }
    }

    pub(super) fn verify(&mut self, now: Now, id: SessionId, request: RequestId) {
        if self.sessions.verifying.is_some() {
            let why = "the disk of this server is being verified already";
            self.deliver_answer(vec![id], busy(request, why, 1000));
            return;
        }
        let within = self.broadcast.durable().clone();
        let rooms: Arc<[RoomId]> = self.rooms.sums().map(|(room, _)| room).collect();
        let Some(at) = scrub::start(&within, &rooms) else {
            let verified = Verified { request, events: 0, done: true, damage: None };
            self.deliver_answer(vec![id], Item::Verified(verified));
            return;
        };
        let token = self.sessions.verify_read();
        let mut task = Verifying {
            session: id,
            request,
            token,
            within,
            rooms,
            counting: None,
            events: 0,
            told_at: now.time,
        };
        task.begin(Some(&at));
        self.sessions.verifying = Some(task);
        self.read_piece(at);
    }

    fn read_piece(&mut self, at: At) {
        let Some(task) = &self.sessions.verifying else { return };
        let (within, rooms) = (task.within.clone(), task.rooms.clone());
        self.say(Output::Read(task.token, Query::Scrub { at, within, rooms }));
    }

    /// Whether a read was a piece of this.
    pub(super) fn verify_read(&mut self, now: Now, token: ReadToken, rows: &Rows) -> bool {
        let Some(task) = self.sessions.verifying.as_mut().filter(|task| task.token == token) else {
            return false;
        };
        let (session, request) = (task.session, task.request);
        let gone = !self.sessions.all.contains_key(&session);
        let piece = match rows {
            Rows::Scrubbed(piece) => piece.clone(),
            // If that is damage, the driver knows it: it may as well be a disk without room.
            Rows::Failed(why) => Piece { damage: Some(why.clone()), ..Piece::default() },
            _ => Piece {
                damage: Some("the disk answered another question".into()),
                ..Piece::default()
            },
        };
        task.events = task.events.saturating_add(piece.events);
        let events = task.events;
        let (next, found) = task.take(piece);
        let damage = found.unwrap_or_else(|miscount| {
            let why = format!("{}: it changed too often to be counted", miscount.why);
            self.say(Output::Log(Severity::Warn, why));
            None
        });
        if gone && damage.is_none() {
            self.sessions.verifying = None; // nobody waits for it any more
            return true;
        }
        if let (Some(at), None) = (next, &damage) {
            let told_at = self.sessions.verifying.as_mut().map(|task| &mut task.told_at);
            if let Some(told_at) = told_at.filter(|at| now.time.since(**at) >= PROGRESS) {
                *told_at = now.time;
                let verified = Verified { request, events, done: false, damage: None };
                self.deliver_answer(vec![session], Item::Verified(verified));
            }
            self.read_piece(at);
            return true;
        }
        self.sessions.verifying = None;
        let verified = Verified { request, events, done: true, damage: damage.clone() };
        self.deliver_answer(vec![session], Item::Verified(verified));
        if let (Some(why), Rows::Scrubbed(_)) = (damage, rows) {
            self.log(Severity::Error, format!("DAMAGED: {why}"));
            self.say(Output::Damaged(why));
        }
        true
    }
}
