//! A server of a newer minor version: beside what all know it sends frames and writes events of kinds
//! that the others do not. They skip the frames, and keep, count, pass on and hash the events, and show
//! them to nobody.

use std::collections::{BTreeMap, BTreeSet};

use chatty_core::event::{Body, Event};
use chatty_core::frame::{Class, Frame};
use chatty_core::id::{AccountId, EventId, Log, Mid, RoomId};
use chatty_core::rng::Rng;
use chatty_core::session::{Item, ServerState};
use chatty_core::store::Batch;
use chatty_core::time::{Hlc, Time};
use chatty_core::wire::{DecodeError, Wire};

use super::Relent;
use super::bites::Cause;
use crate::network::Said;
use crate::person::{BUSY_ROOM, room_name};
use crate::schedule::Strike;
use crate::world::{Action, World};

/// Strikes as hard as that last as long as the world.
const FOR_GOOD: u8 = 80;
/// Of what such a server sends, one in so many is followed by something unknown.
const FRAMES_ONE_IN: u64 = 3;

/// The version of a server: newer than the others', until then.
#[derive(Clone, Debug)]
pub(crate) struct Newer {
    until: Time,
    strike: usize,
    rng: Rng,
}

/// What newer servers said and wrote.
#[derive(Debug, Default)]
pub(crate) struct Unknown {
    written: BTreeMap<EventId, Written>,
    /// By which strikes a frame was received, and an event came to another disk.
    received: BTreeSet<usize>,
    kept: BTreeSet<usize>,
}

/// An event of an unknown kind.
#[derive(Debug)]
struct Written {
    event: Event,
    strike: usize,
    /// The places whose disks had it.
    on: BTreeSet<usize>,
}

const fn is_known(kind: u16, kinds: &[(u16, &str)]) -> bool {
    let mut nth = 0;
    while nth < kinds.len() {
        if kinds[nth].0 == kind {
            return true;
        }
        nth += 1;
    }
    false
}

/// A body of up to so many bytes.
fn bytes(rng: &mut Rng, most: u64) -> Vec<u8> {
    let long = rng.below(most + 1);
    (0..long).map(|_| rng.below(256) as u8).collect()
}

impl World {
    /// A server goes on as a newer version.
    pub(super) fn upgrade(&mut self, nth: usize, strike: &Strike) -> bool {
        let n = strike.server;
        if !self.is_well(n) || self.servers[n].newer.is_some() {
            return false;
        }
        let for_good = strike.hard > FOR_GOOD;
        let until = if for_good { Time::from_micros(u64::MAX) } else { self.time + strike.long };
        self.servers[n].newer = Some(Newer { until, strike: nth, rng: Rng::new(strike.luck) });
        self.later(1 + strike.luck % 20_000, Action::Relent(Relent::WriteUnknown(n, nth)));
        if !for_good {
            self.later(strike.micros(), Action::Relent(Relent::Downgrade(n, nth)));
        }
        true
    }

    /// The older version is started again, on what the newer one wrote.
    pub(super) fn downgrade(&mut self, n: usize, nth: usize) {
        if self.servers[n].newer.take_if(|newer| newer.strike == nth).is_some() {
            self.stop(n, 100_000);
        }
    }

    /// A newer server writes something, if it takes writes, and does so again.
    pub(super) fn write_unknown(&mut self, n: usize, nth: usize) -> Result<(), String> {
        let now = self.now_of(n);
        let well = self.is_well(n);
        let rooms = self.swarm.rooms as u64;
        let people = self.people.len() as u64;
        let is_it = |newer: &&mut Newer| newer.strike == nth && newer.until > now.time;
        let Some(newer) = self.servers[n].newer.as_mut().filter(is_it) else { return Ok(()) };
        if !self.turmoil {
            return Ok(());
        }
        let rng = &mut newer.rng;
        let again = 10_000 + rng.below(200_000);
        let room = match rng.below(4) {
            0 => RoomId::new(0),
            1 => RoomId::public(BUSY_ROOM),
            2 => RoomId::new(rng.bits128()),
            _ => RoomId::public(&room_name(rng.below(rooms) as usize)),
        };
        let known = self.people[rng.below(people) as usize].account();
        let actor = known.unwrap_or(AccountId::new(0));
        let mid = Mid::at(now.wall_ms, rng.bits128());
        let kind = 1000 + rng.below(60_000) as u16;
        let body = bytes(rng, 200);
        self.later(again, Action::Relent(Relent::WriteUnknown(n, nth)));
        let log = Log::of(self.servers[n].origin);
        let Some(replica) = self.servers[n].replica.as_mut().filter(|_| well) else {
            return Ok(());
        };
        replica.handle_timeout(now); // it looks at its clock before it writes
        if replica.state() != ServerState::Ready || replica.broadcast().is_full() {
            self.tick_soon(n);
            return Ok(());
        }
        let about = (room, actor, mid);
        let key = replica.append_kind(now, Hlc::default(), about, (kind, body.clone()))?;
        self.tick_soon(n);
        let (seq, hlc, wall_ms) = (key.seq, key.hlc, now.wall_ms);
        let event = Event { seq, hlc, wall_ms, room, actor, mid, kind, body };
        let written = Written { event, strike: nth, on: BTreeSet::new() };
        self.unknown.written.insert(EventId { log, seq }, written);
        Ok(())
    }

    /// Something unknown follows what a newer server sends.
    pub(crate) fn send_unknown(&mut self, cable: u64, n: usize, class: Class) {
        let now = self.time;
        let Some(newer) = self.servers[n].newer.as_mut().filter(|newer| newer.until > now) else {
            return;
        };
        if !newer.rng.one_in(FRAMES_ONE_IN) {
            return;
        }
        let least = Frame::KINDS.iter().map(|(kind, _)| kind + 1).max().unwrap_or(0);
        let kind = least + newer.rng.below(256 - u64::from(least)) as u8;
        let body = bytes(&mut newer.rng, 60);
        let strike = newer.strike;
        self.send_said(cable, n, class, Said::Unknown(kind, body.into(), strike), 0);
    }

    /// A frame of an unknown kind came: it is skipped, as the driver does.
    pub(crate) fn on_unknown(&mut self, kind: u8, body: &[u8], nth: usize) -> Result<(), String> {
        if Frame::decode(kind, body) != Err(DecodeError::Unknown(kind)) {
            return Err(format!("a frame of the unknown kind {kind} is taken for something"));
        }
        self.unknown.received.insert(nth);
        self.bite_by(self.proof_of_newer(nth));
        Ok(())
    }

    /// The strike, if all of it was felt: a frame was skipped, an event kept.
    fn proof_of_newer(&self, nth: usize) -> Cause {
        let Unknown { received, kept, .. } = &self.unknown;
        (received.contains(&nth) && kept.contains(&nth)).then_some(nth)
    }

    /// A batch is on a disk: what is unknown in it is as it was written.
    pub(crate) fn check_kept(&mut self, n: usize, batch: &Batch) -> Result<(), String> {
        if self.unknown.written.is_empty() {
            return Ok(());
        }
        let (place, own) = (self.servers[n].place, Log::of(self.servers[n].origin));
        for entry in &batch.entries {
            let (log, id) = (entry.log, entry.event.id(entry.log));
            let forked = self.is_forked(log);
            let Some(written) = self.unknown.written.get_mut(&id) else { continue };
            if *entry.event != written.event {
                if forked {
                    continue; // the other run's
                }
                let slot = &self.servers[n].slot;
                return Err(format!("{slot} holds {id:?} of an unknown kind as something else"));
            }
            written.on.insert(place);
            let nth = written.strike;
            if log != own {
                self.unknown.kept.insert(nth);
                self.bite_by(self.proof_of_newer(nth));
            }
        }
        Ok(())
    }

    /// Nobody is shown what has an unknown kind.
    pub(crate) fn check_unshown(&self, n: usize, item: &Item) -> Result<(), String> {
        if self.unknown.written.is_empty() {
            return Ok(());
        }
        let shown = |event: &Event| {
            let known = is_known(event.kind, Body::KINDS);
            let slot = &self.servers[n].slot;
            if known { Ok(()) } else { Err(format!("{slot} shows an event of an unknown kind")) }
        };
        match item {
            Item::Event(event) => shown(&event.line.event),
            Item::Page(page) => page.lines.iter().try_for_each(|line| shown(&line.event)),
            _ => Ok(()),
        }
    }

    /// What is unknown and was on most disks is on all of them in the end, byte by byte.
    pub(crate) fn check_unknown(&self) -> Result<(), String> {
        let most = self.swarm.servers / 2 + 1;
        for (id, written) in &self.unknown.written {
            if self.is_forked(id.log) {
                continue;
            }
            for server in self.originals() {
                let at = usize::try_from(id.seq - 1).unwrap_or(usize::MAX);
                let held = server.disk.logs().get(&id.log).and_then(|log| log.get(at));
                match held {
                    Some(held) if *held.event == written.event => {}
                    None if written.on.len() < most => {}
                    None => {
                        return Err(format!("{} lacks {id:?} of an unknown kind", server.slot));
                    }
                    Some(_) => {
                        let slot = &server.slot;
                        return Err(format!("{slot} shows {id:?} of an unknown kind otherwise"));
                    }
                }
            }
        }
        Ok(())
    }
}
