//! What clients of a run did and heard, written down as a history for the checker.
//!
//! Messages to one person are left out: nobody else is shown them, and `person.rs` checks them.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use chatty_core::client::{Attached, Failure, MessageState, Ticket};
use chatty_core::event::{Body, Event};
use chatty_core::id::{AccountId, RoomId};
use chatty_core::session::{Line, Page};
use chatty_core::time::{Key, Time};

use crate::history::{self, Did, History, Op, Shown, What};
use crate::person::{BUSY_ROOM, room_name};
use crate::server::slot_of;
use crate::strike::clones::Kept;
use crate::world::{self, World};

fn shown(event: &Event, key: Key) -> Option<Shown> {
    let identity = event.identity()?;
    let mut hash = DefaultHasher::new();
    (event.kind, &event.body, event.wall_ms).hash(&mut hash);
    let (account, mid): (AccountId, _) = (identity.account, identity.mid);
    Some(Shown { account, mid, key, body: hash.finish() })
}

/// A line that was shown.
pub(crate) fn line(line: &Line, late: bool) -> Option<Did> {
    let (room, key) = (line.event.room, line.key());
    match line.event.body() {
        Some(Body::Msg(_)) => Some(Did::Saw { room, line: shown(&line.event, key)?, late }),
        Some(Body::Join(_)) => Some(Did::Joined { room, account: line.event.actor, key }),
        Some(Body::Kick(kick)) => Some(Did::Kicked { room, account: kick.account, key }),
        _ => None,
    }
}

/// A page that was read.
pub(crate) fn page(room: RoomId, asked: Time, page: &Page) -> Did {
    let lines = page.lines.iter().filter_map(|line| shown(&line.event, line.key())).collect();
    Did::Read { room, asked, before: None, lines, more: page.more, complete: page.complete }
}

/// A server that answers.
pub(crate) fn attached(attached: &Attached) -> Did {
    let server = (0..).take(64).find(|n| slot_of(*n) == attached.server).unwrap_or(usize::MAX);
    let stale = attached.stale.iter().map(|(origin, _)| *origin).collect();
    Did::Attached { account: attached.account, server, stale }
}

/// A message reached a level.
pub(crate) fn answered(state: &MessageState) -> Did {
    let server = (0..).take(64).find(|n| slot_of(*n) == state.server).unwrap_or(usize::MAX);
    let (ticket, mid, key, level) = (state.ticket.0, state.mid, state.key, state.level);
    Did::Answered { ticket, mid, key, level, server }
}

/// A message was not carried out, or perhaps was.
pub(crate) fn failed(ticket: Ticket, failure: &Failure) -> Did {
    let (ticket, why) = (ticket.0, failure.to_string());
    match failure {
        Failure::Refused(..) => Did::Refused { ticket, why },
        Failure::Unsure(..) | Failure::TimedOut | Failure::Ended => Did::Doubted { ticket, why },
    }
}

impl World {
    /// The rooms that everybody may be in.
    fn public_rooms(&self) -> impl Iterator<Item = (RoomId, String)> + use<> {
        let names = (0..self.swarm.rooms).map(room_name).chain([BUSY_ROOM.to_string()]);
        names.map(|name| (RoomId::public(&name), name))
    }

    /// The history of a world that begins.
    pub(crate) fn new_history(&self) -> History {
        History {
            servers: self.servers.iter().map(|server| server.slot.to_string()).collect(),
            sessions: (0..self.people.len()).map(|n| format!("person{n}")).collect(),
            rooms: self.public_rooms().collect(),
            ..History::default()
        }
    }

    fn note_op(&mut self, what: What) {
        self.history.ops.push(Op { at: self.time, what });
    }

    /// Writes down what a client did and heard.
    pub(crate) fn note_dids(&mut self, p: usize) {
        let session = self.people[p].session;
        for did in std::mem::take(&mut self.people[p].dids) {
            self.tape_did(p, &did);
            self.note_op(What::Client(session, did));
        }
    }

    /// A client that begins again is another session.
    pub(crate) fn new_session(&mut self, p: usize) -> usize {
        let name = format!("person{p}, life {}", self.history.sessions.len());
        self.history.sessions.push(name);
        self.history.sessions.len() - 1
    }

    pub(crate) fn note_down(&mut self, n: usize) {
        self.tape_server(n, "dies");
        if n < self.swarm.servers {
            self.note_op(What::Down(n));
        }
    }

    pub(crate) fn note_up(&mut self, n: usize) {
        self.tape_server(n, "starts");
        if n < self.swarm.servers {
            self.note_op(What::Up(n));
        }
    }

    pub(crate) fn note_disk_lost(&mut self, n: usize) {
        self.tape_server(n, "has another disk");
        self.note_op(What::DiskLost(n));
    }

    /// Which servers reach each other, over others too; one direction is enough to be counted.
    pub(crate) fn note_ways(&mut self) {
        let all = self.swarm.servers;
        let mut side: Vec<usize> = (0..all).collect();
        let there: Vec<usize> =
            (0..self.servers.len()).filter(|n| !self.servers[*n].is_over()).collect();
        for a in &there {
            for b in &there {
                let (a, b) = (*a, *b);
                let (from, to) = (side[self.servers[a].place], side[self.servers[b].place]);
                if from != to && !self.is_blocked(a, b) {
                    side.iter_mut().filter(|of| **of == from).for_each(|of| *of = to);
                }
            }
        }
        let sides: BTreeSet<usize> = side.iter().copied().collect();
        let members = |of: &usize| (0..all).filter(|n| side[*n] == *of).collect::<BTreeSet<_>>();
        if sides.len() > 1 {
            let cut = What::Cut(sides.iter().map(members).collect());
            self.cut = true;
            self.note_op(cut);
        } else if std::mem::take(&mut self.cut) {
            self.note_op(What::Healed);
        }
    }

    /// Holds the history against the promises; `Err` tells the first one that was broken.
    pub(crate) fn check_history(&mut self) -> Result<(), world::Failure> {
        let rooms: Vec<(RoomId, String)> = self.public_rooms().collect();
        for n in 0..self.swarm.servers {
            for (room, _) in &rooms {
                let lines = self.servers[n].disk.timeline(*room);
                let lines = lines.iter().filter_map(|e| shown(&e.event, e.event.key(e.log.origin)));
                self.note_op(What::Final(n, *room, lines.collect()));
            }
        }
        let disk = &self.servers[0].disk;
        let floors = rooms.iter().map(|(room, _)| (*room, disk.floor_ms(*room))).collect();
        self.history.forget_below(&floors);
        let twins = self.of_twins();
        if !twins.is_empty() {
            self.history.forget(|room, mid| twins.get(&(*room, mid)) != Some(&Kept::Wiped));
            // Whoever heard one of the two runs takes what the other said for heard.
            self.history.unshown = twins.into_keys().collect();
        }
        let history::Verdict { broken, judged } = history::judge(&self.history);
        self.judged = judged;
        match broken.first() {
            Some(violation) => {
                let more = broken.len() - 1;
                let rest = if more > 0 { format!(" (and {more} more)") } else { String::new() };
                Err(world::Failure { what: format!("{violation}{rest}"), at: violation.at })
            }
            None => Ok(()),
        }
    }
}
