//! A client asks that everything on the disk be read again and checked.
//!
//! One such task at a time, one piece of it outstanding: it goes on beside everything else. Damage
//! is told to whoever asked, and to the driver, which cuts it out.

use std::sync::Arc;
use std::time::Duration;

use super::busy;
use crate::id::{ReadToken, RequestId, RoomId, SessionId};
use crate::io::{Output, Severity};
use crate::replica::Replica;
use crate::scrub::{self, At, Piece};
use crate::session::{Item, Verified};
use crate::store::{Query, Rows};
use crate::time::{Now, Time};
use crate::vector::Vector;

/// How often whoever asked hears how far it is.
const PROGRESS: Duration = Duration::from_secs(1);

/// Everything is being read again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Verifying {
    session: SessionId,
    request: RequestId,
    token: ReadToken,
    within: Arc<Vector>,
    rooms: Arc<[RoomId]>,
    events: u64,
    told_at: Time,
}

impl Replica {
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
        self.sessions.verifying = Some(Verifying {
            session: id,
            request,
            token,
            within,
            rooms,
            events: 0,
            told_at: now.time,
        });
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
        task.events += piece.events;
        let events = task.events;
        if gone && piece.damage.is_none() {
            self.sessions.verifying = None; // nobody waits for it any more
            return true;
        }
        if let (Some(at), None) = (piece.next, &piece.damage) {
            if now.time.since(task.told_at) >= PROGRESS {
                task.told_at = now.time;
                let verified = Verified { request, events, done: false, damage: None };
                self.deliver_answer(vec![session], Item::Verified(verified));
            }
            self.read_piece(at);
            return true;
        }
        self.sessions.verifying = None;
        let damage = piece.damage;
        let verified = Verified { request, events, done: true, damage: damage.clone() };
        self.deliver_answer(vec![session], Item::Verified(verified));
        if let (Some(why), Rows::Scrubbed(_)) = (damage, rows) {
            self.log(Severity::Error, format!("DAMAGED: {why}"));
            self.say(Output::Damaged(why));
        }
        true
    }
}
