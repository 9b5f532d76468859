//! One server: the broadcast, the rooms, the sessions, and the one door to them.
//!
//! The driver's contract: [`Replica::handle`] for what happened, [`Replica::handle_timeout`] when
//! [`Replica::next_deadline`] is due, [`Replica::flush`] once after the inputs of a tick, then
//! [`Replica::poll_output`] until it is empty. Nothing is sent, written or delivered but by an
//! [`Output`].
//!
//! This file connects the parts and decides little: events are pushed when they are accepted or
//! received, and shown when they are on this server's disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::balance::Balance;
use crate::broadcast::{Broadcast, Counts};
use crate::catch_up::CatchUp;
use crate::clock::{Clock, Fence};
use crate::config::Config;
use crate::event::{BODY_BYTES_MAX, Body, Boot, Event};
use crate::frame::{Class, Frame, Leaving, Ping};
use crate::health::{Care, Health};
use crate::id::{AccountId, LinkId, Log, Mid, PersistToken, ReadToken, RoomId, SessionId, Slot};
use crate::io::{Input, Output, Peer, Severity};
use crate::presence::Presence;
use crate::retention::Retaining;
use crate::rng::Rng;
use crate::rooms::Rooms;
use crate::session::{Item, Moving, ServerAddr, ServerState};
use crate::sessions::Sessions;
use crate::store::{Committed, Loaded, Rows};
use crate::time::{Hlc, Key, Now, Time};
use crate::vector::Vector;

/// How long a new run waits to hear what the others hold before it takes clients, and for a server
/// whose link it lost meanwhile.
const START_WAIT: std::time::Duration = std::time::Duration::from_millis(1000);

/// A server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    pub(crate) config: Arc<Config>,
    pub(crate) started: Time,
    pub(crate) rng: Rng,
    pub(crate) clock: Clock,
    pub(crate) broadcast: Broadcast,
    pub(crate) health: Health,
    pub(crate) rooms: Rooms,
    pub(crate) presence: Presence,
    pub(crate) links: BTreeMap<LinkId, Peer>,
    pub(crate) sessions: Sessions,
    pub(crate) retaining: Retaining,
    pub(crate) balance: Balance,
    start: Start,
    pub(crate) catch_up: CatchUp,
    /// Why the disk takes no writes.
    pub(crate) refusing: Option<String>,
    /// Why it takes none of clients.
    no_room: Option<String>,
    course: Course,
    /// What was here when a drain began.
    drained: Vector,
    pub(crate) certificate_ends_ms: Option<u64>,
    out: VecDeque<Output>,
}

/// Whether a new run has what the others held when it began.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Start {
    /// Waiting to hear what they hold, until then.
    Asking(Time),
    /// Fetching this. What no live link claims any more is waited for until then: its server may
    /// have died, and whoever has the rest must not wait for it.
    Fetching(Vector, Option<Time>),
    /// It has.
    Done,
}

/// What the operator wants of this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Course {
    Serving,
    /// No clients any more; the log still has to reach the other disks.
    Draining,
    Stopping,
}

/// How far a drain is; see [`Input::Drain`].
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Drain {
    /// Clients still attached.
    pub sessions: usize,
    /// Linked servers whose disks lack events that are to be there, and how many.
    pub missing: Vec<(Slot, u64)>,
    /// Such events that are not on a majority of the voters' disks.
    pub not_replicated: u64,
    /// Servers of the configuration that are not linked: they are waited for only as part of a
    /// majority.
    pub unreachable: Vec<Slot>,
}

impl Drain {
    /// Whether nobody would miss this server now.
    pub fn is_done(&self) -> bool {
        self.sessions == 0 && self.missing.is_empty() && self.not_replicated == 0
    }
}

impl Replica {
    /// A server's new run, with what its disk holds. `seed` feeds all its randomness.
    pub fn new(config: Config, loaded: &Loaded, seed: u64, now: Now) -> Self {
        let mut rng = Rng::new(seed);
        let clock =
            Clock::load(loaded.logs.iter().map(|log| log.hlc), config.timing.max_skew_ms, now);
        let broadcast = Broadcast::new(&config, loaded, rng.bits(), now);
        let start = if config.servers.len() > 1 {
            Start::Asking(now.time + START_WAIT)
        } else {
            Start::Done
        };
        Self {
            started: now.time,
            clock,
            broadcast,
            health: Health::new(config.timing.clone(), now),
            rooms: Rooms::load(loaded),
            presence: Presence::default(),
            links: BTreeMap::new(),
            sessions: Sessions::new(&config, loaded, now),
            retaining: Retaining::new(config.timing.floor_period, now),
            balance: Balance::default(),
            start,
            catch_up: CatchUp::new(now.time),
            refusing: None,
            no_room: None,
            course: Course::Serving,
            drained: Vector::new(),
            certificate_ends_ms: None,
            out: VecDeque::new(),
            config: Arc::new(config),
            rng,
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.health.tick(now);
        self.check_clock(now);
        match input {
            Input::LinkUp(link, peer) => self.on_link_up(now, link, peer),
            Input::LinkDown(link) => self.on_link_down(now, link),
            Input::Frame(link, frame) => self.on_frame(now, link, frame),
            Input::Hint(link) => self.health.hint(now, link),
            Input::Wrote(link, class, bytes) => self.broadcast.wrote(link, class, bytes),
            Input::SessionUp(session) => self.on_session_up(now, session),
            Input::Request(session, request) => self.on_request(now, session, request),
            Input::SessionDown(session) => self.on_session_down(now, session),
            Input::Drained(session, bytes) => self.on_drained(session, bytes),
            Input::Persisted(token, committed) => self.on_persisted(now, token, &committed),
            Input::PersistFailed(_, why) => self.on_persist_failed(why),
            Input::Room(room) => self.on_room(room),
            Input::ReadDone(token, rows) => self.on_read_done(now, token, rows),
            Input::Drain => self.on_drain(),
            Input::Resume => self.on_resume(),
            Input::Stop => self.on_stop(),
            Input::Certificate(begins_ms, ends_ms) => {
                self.certificate_ends_ms = Some(ends_ms);
                self.clock.certified(begins_ms, ends_ms);
            }
        }
        self.check_clock(now);
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.health.tick(now);
        self.check_clock(now);
        for care in self.health.due(now) {
            match care {
                Care::Ping(link) => {
                    let ping = Frame::Ping(Ping {
                        sent_micros: now.time.as_micros(),
                        clock_ms: self.clock.reading_ms(now),
                    });
                    self.send_control(link, ping);
                    self.tell_load(link);
                }
                Care::Suspect(link) => self.tell_health(now, link),
                Care::Close(link) => {
                    self.say(Output::Close(link, "silent for too long".into()));
                    self.on_link_down(now, link);
                }
            }
        }
        self.broadcast.handle_timeout(now);
        self.presence.expire(now, self.config.timing.grace);
        self.check_start(now);
        self.tell_catch_up(now);
        self.retention_timeout(now);
        self.sessions_timeout(now);
        self.balance(now);
    }

    /// The end of a tick: what gathered becomes frames, a write, deliveries.
    pub fn flush(&mut self, now: Now) {
        self.check_acks(now);
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for update in self.presence.changes() {
            if !links.is_empty() {
                self.broadcast.send_presence(links.clone(), Frame::Presence(update));
            }
        }
        self.broadcast.flush(now);
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.broadcast.poll_output().or_else(|| self.out.pop_front())
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn next_deadline(&self) -> Option<Time> {
        let start = match self.start {
            Start::Asking(until) => Some(until),
            Start::Fetching(_, until) => until,
            Start::Done => None,
        };
        [
            self.health.next_deadline(),
            self.broadcast.next_deadline(),
            self.presence.next_deadline(self.config.timing.grace),
            self.sessions.next_deadline(),
            self.retaining.next_deadline(),
            self.catch_up.next_deadline(),
            start,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether that server may link: it is, or becomes, the holder of its slot. Ask before its
    /// connection takes the place of another one.
    ///
    /// # Errors
    /// Why not, and what its operator should do.
    pub fn admits(&self, peer: &Peer) -> Result<(), String> {
        self.broadcast.admits(peer).map_err(|generation| {
            format!(
                "fenced: {} is held by the certificate of generation {generation}, yours is {}. \
                 Wipe this server, or restore it as a new one.",
                peer.slot, peer.generation
            )
        })
    }

    fn on_link_up(&mut self, now: Now, link: LinkId, peer: Peer) {
        if let Err(why) = self.admits(&peer) {
            self.log(Severity::Error, format!("refused {} ({}): {why}", peer.slot, peer.server));
            self.say(Output::Close(link, why));
            return;
        }
        self.health.link_up(now, link, peer.slot.clone());
        self.presence.link_up(&peer.slot, peer.origin);
        self.links.insert(link, peer.clone());
        self.broadcast.link_up(peer, link);
        for update in self.presence.everybody() {
            self.broadcast.send_presence(vec![link], Frame::Presence(update));
        }
    }

    fn on_link_down(&mut self, now: Now, link: LinkId) {
        let Some(peer) = self.links.remove(&link) else { return };
        self.health.link_down(link);
        self.balance.link_down(link);
        self.broadcast.link_down(now, link);
        self.presence.link_down(now, &peer.slot);
        self.judge_clock(now);
        self.check_start(now);
    }

    fn on_frame(&mut self, now: Now, link: LinkId, frame: Frame) {
        let Some(peer) = self.links.get(&link) else { return };
        let slot = peer.slot.clone();
        if self.health.heard(now, link) {
            self.tell_health(now, link);
        }
        match frame {
            Frame::Ping(ping) => {
                self.health.clock(now, link, ping.clock_ms);
                let clock_ms = self.clock.reading_ms(now);
                self.send_control(link, Frame::Pong(Ping { clock_ms, ..ping }));
                self.judge_clock(now);
            }
            Frame::Pong(pong) => {
                self.health.pong(now, link, pong);
                self.tell_health(now, link);
                self.judge_clock(now);
            }
            Frame::Presence(update) => self.presence.told(&slot, update),
            Frame::Load(load) => self.balance.heard(link, load),
            Frame::Leaving(_) => self.log(Severity::Info, format!("{slot} is about to stop")),
            Frame::Hello(_) => self.cut(now, link, "a second Hello"),
            frame @ (Frame::Digest(_)
            | Frame::Vector(_)
            | Frame::Have(_)
            | Frame::Want(_)
            | Frame::Prune(_)
            | Frame::Lagging(_)
            | Frame::RolledBack(_)
            | Frame::Forked(_)
            | Frame::Events(_)
            | Frame::Range(_)) => {
                if let Err(why) = self.broadcast.frame(now, link, frame) {
                    self.cut(now, link, &why);
                }
                for stamp in self.broadcast.take_received() {
                    self.clock.observe(now, stamp);
                }
            }
        }
        self.check_start(now);
        self.tell_catch_up(now);
    }

    /// A peer broke the protocol.
    fn cut(&mut self, now: Now, link: LinkId, why: &str) {
        let slot = self.links.get(&link).map_or_else(String::new, |peer| peer.slot.to_string());
        self.log(Severity::Warn, format!("closed the link to {slot}: it sent {why}"));
        self.say(Output::Close(link, why.to_string()));
        self.on_link_down(now, link);
    }

    /// How long a link takes there and back; zero if that is not known yet.
    pub fn round_trip(&self, link: LinkId) -> std::time::Duration {
        std::time::Duration::from_micros(self.health.link(link).1)
    }

    fn tell_health(&mut self, now: Now, link: LinkId) {
        let (state, rtt) = self.health.link(link);
        let suspect = state != crate::session::LinkState::Up;
        self.broadcast.set_health(link, suspect, rtt);
        self.broadcast.check_feeds(now);
    }

    fn judge_clock(&mut self, now: Now) {
        let config = &self.config;
        let clocks = self.health.clocks(now, |slot| config.voters().any(|voter| voter == slot));
        let before = self.clock.fence();
        self.clock.judge(now, &clocks, config.voters().count());
        self.tell_clock(before);
    }

    /// What this server can tell of its clock alone.
    fn check_clock(&mut self, now: Now) {
        let before = self.clock.fence();
        let was_set = self.clock.look(now);
        self.tell_clock(before);
        if was_set {
            self.judge_clock(now);
        }
    }

    fn tell_clock(&mut self, before: Fence) {
        let fence = self.clock.fence();
        if fence == before {
            return;
        }
        match fence {
            Fence::Off => {
                let what = "this server's clock is off: it takes no writes until it is mended (it \
                            goes on reading and replicating)";
                self.log(Severity::Error, what.into());
            }
            Fence::Doubtful => {
                let what = "by this server's clock its certificate is not good now, and it hears \
                            the clocks of no majority: it takes no writes. Mend the clock if it is \
                            wrong, else renew the certificate.";
                self.log(Severity::Error, what.into());
            }
            Fence::Open => {
                self.log(Severity::Info, "the clock is right again: writes are taken".into());
            }
        }
    }

    /// A new run takes clients when it has what the others held as it began.
    fn check_start(&mut self, now: Now) {
        if let Start::Asking(until) = self.start {
            let others = self.config.servers.len() - 1;
            if self.broadcast.links_told() >= others || until <= now.time {
                self.start = Start::Fetching(self.broadcast.claimed(), None);
            }
        }
        if let Start::Fetching(target, lost) = &mut self.start {
            let (durable, broadcast) = (self.broadcast.durable(), &self.broadcast);
            let comes =
                |(log, upto): (Log, u64)| durable.upto(log) < upto.min(broadcast.claims(log));
            let all_here = durable.covers_all(target);
            if !all_here && target.iter().any(comes) {
                *lost = None;
            } else if all_here || lost.is_some_and(|until| until <= now.time) {
                self.start = Start::Done;
            } else {
                lost.get_or_insert(now.time + START_WAIT);
            }
        }
        self.broadcast.check_mended(self.config.servers.len() - 1);
    }

    /// Whether this run has yet to fetch what the others held when it began.
    pub(crate) fn is_starting(&self) -> bool {
        self.start != Start::Done
    }

    /// What this server can do now.
    pub fn state(&self) -> ServerState {
        if self.course != Course::Serving {
            ServerState::Stopping
        } else if self.is_starting() || self.broadcast.lag() > self.config.limits.attach_lag as u64
        {
            ServerState::CatchingUp
        } else if self.clock.is_fenced() {
            ServerState::Fenced
        } else if self.refuses_writes().is_some() || self.broadcast.runs_twice() {
            ServerState::ReadOnly
        } else {
            ServerState::Ready
        }
    }

    fn on_persisted(&mut self, now: Now, token: PersistToken, committed: &Committed) {
        let Some(batch) = self.broadcast.persisted(now, token) else { return };
        if self.refusing.take().is_some() {
            self.log(Severity::Info, "the disk takes writes again".into());
        }
        self.verify_written(&batch, committed);
        for (room, sum) in &committed.sums {
            self.rooms.set_sum(*room, *sum);
        }
        if let Some(swept) = committed.swept {
            self.on_swept(swept);
        }
        if let Some(tidied) = committed.tidied {
            self.on_tidied(tidied);
        }
        for (entry, outcome) in batch.entries.iter().zip(&committed.outcomes) {
            let applied = self.rooms.apply(entry.log, &entry.event);
            self.on_durable(now, entry, *outcome);
            for account in applied.renamed {
                self.tell_name(account);
            }
        }
        self.check_start(now);
        self.catch_up.saved(&batch, self.own_log());
        self.tell_catch_up(now);
        self.release(now);
    }

    /// The disk refuses writes until further notice: whoever wrote something here that is on no disk
    /// yet is better off elsewhere.
    fn on_persist_failed(&mut self, why: String) {
        self.log(
            Severity::Error,
            format!("the disk refused a write: {why}; no writes are taken until it takes them"),
        );
        if self.refusing.replace(why).is_none() && !self.links.is_empty() {
            self.hand_over();
        }
    }

    /// What clients write is better kept elsewhere, what other servers have goes on coming.
    fn on_room(&mut self, room: Result<(), String>) {
        let had = self.no_room.is_none();
        match &room {
            Err(why) if had => {
                let what = "no writes of clients are taken until there is room (reading and \
                            replicating go on)";
                self.log(Severity::Error, format!("{why}; {what}"));
            }
            Ok(()) if !had => {
                self.log(Severity::Info, "the disk has room again: writes are taken".into());
            }
            Err(_) | Ok(()) => {}
        }
        self.no_room = room.err();
        if had && self.no_room.is_some() && !self.links.is_empty() {
            self.hand_over();
        }
    }

    /// Why no writes are taken from clients, if it is the disk's fault.
    pub(crate) fn refuses_writes(&self) -> Option<&str> {
        self.refusing.as_deref().or(self.no_room.as_deref())
    }

    fn on_read_done(&mut self, now: Now, token: ReadToken, rows: Rows) {
        // The broadcast's reads have even numbers, all others odd ones.
        if token.0.is_multiple_of(2) {
            self.broadcast.read_done(token, rows);
        } else if !self.retention_read(now, token, &rows) {
            self.on_session_read(now, token, rows);
        }
    }

    /// Sends the clients to the other servers.
    fn hand_over(&mut self) {
        let servers = self.other_servers();
        let sessions: Vec<SessionId> = self.sessions.ids().collect();
        self.deliver_answer(sessions, Item::Leaving(Moving { servers }));
    }

    fn on_drain(&mut self) {
        if self.course == Course::Serving {
            self.course = Course::Draining;
            self.drained = self.broadcast.held();
            self.tell_loads();
            self.hand_over();
        }
    }

    fn on_resume(&mut self) {
        if self.course == Course::Draining {
            self.course = Course::Serving;
            self.tell_loads();
        }
    }

    /// What a drain still waits for: by the other disks' own word, never by what was sent.
    /// It waits for what was here when it began, and for what this run has written since. What comes
    /// from others later is theirs to pass on; under load some of that is always on its way.
    pub fn drain(&self) -> Drain {
        let mut all = self.drained.clone();
        all.raise(Log::of(self.config.me.origin), self.broadcast.next_seq() - 1);
        let missing = |peer: &Peer| match self.broadcast.missing_on(&peer.slot, &all) {
            0 => None,
            events => Some((peer.slot.clone(), events)),
        };
        Drain {
            sessions: self.sessions.attached(),
            missing: self.links.values().filter_map(missing).collect(),
            not_replicated: self.broadcast.not_replicated(&all),
            unreachable: self.unreachable(),
        }
    }

    fn on_stop(&mut self) {
        self.course = Course::Stopping;
        self.hand_over();
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            self.send_control(link, Frame::Leaving(Leaving {}));
        }
    }

    /// The other servers, those that are linked first.
    fn other_servers(&self) -> Vec<ServerAddr> {
        let linked = |slot: &Slot| self.links.values().any(|peer| peer.slot == *slot);
        let mut servers: Vec<ServerAddr> = self
            .config
            .servers
            .iter()
            .filter(|server| server.name != self.config.me.slot)
            .cloned()
            .collect();
        servers.sort_by_key(|server| !linked(&server.name));
        servers
    }

    /// Accepts an event: stamped above what its writer has seen, pushed and written at the end of
    /// the tick. The log begins with its boot.
    ///
    /// # Errors
    /// Its body is longer than other servers take; nothing is appended.
    pub(crate) fn append(
        &mut self,
        now: Now,
        seen: Hlc,
        about: (RoomId, AccountId, Mid),
        body: &Body,
    ) -> Result<Key, String> {
        self.append_kind(now, seen, about, (body.kind(), body.encode()))
    }

    /// Accepts an event of any kind: one that this version does not know is what a newer one would
    /// write.
    ///
    /// # Errors
    /// Its body is longer than other servers take; nothing is appended.
    pub fn append_kind(
        &mut self,
        now: Now,
        seen: Hlc,
        about: (RoomId, AccountId, Mid),
        what: (u16, Vec<u8>),
    ) -> Result<Key, String> {
        if self.broadcast.next_seq() == 1 {
            let me = &self.config.me;
            let boot = Body::Boot(Boot {
                server: me.server,
                slot: me.slot.clone(),
                generation: me.generation,
                prev: me.prev,
                addr: me.addr.clone(),
            });
            let nobody = (RoomId::new(0), AccountId::new(0), Mid::new(0));
            self.append_one(now, Hlc::default(), nobody, (boot.kind(), boot.encode()))?;
        }
        self.append_one(now, seen, about, what)
    }

    fn append_one(
        &mut self,
        now: Now,
        seen: Hlc,
        (room, actor, mid): (RoomId, AccountId, Mid),
        (kind, bytes): (u16, Vec<u8>),
    ) -> Result<Key, String> {
        if bytes.len() > BODY_BYTES_MAX {
            let long = bytes.len();
            return Err(format!("it takes {long} bytes in all; at most {BODY_BYTES_MAX} fit"));
        }
        let event = Event {
            seq: self.broadcast.next_seq(),
            hlc: self.clock.stamp(now, seen),
            wall_ms: now.wall_ms,
            room,
            actor,
            mid,
            kind,
            body: bytes,
        };
        let entry = self.broadcast.append(event);
        Ok(entry.event.key(entry.log.origin))
    }

    /// Slots that are not linked now.
    pub(crate) fn unreachable(&self) -> Vec<Slot> {
        self.config
            .servers
            .iter()
            .map(|server| &server.name)
            .filter(|slot| **slot != self.config.me.slot)
            .filter(|slot| !self.links.values().any(|peer| peer.slot == **slot))
            .cloned()
            .collect()
    }

    pub(crate) fn say(&mut self, output: Output) {
        self.out.push_back(output);
    }

    pub(crate) fn log(&mut self, severity: Severity, what: String) {
        self.say(Output::Log(severity, what));
    }

    pub(crate) fn send_control(&mut self, link: LinkId, frame: Frame) {
        let (class, frame) = (Class::Control, Arc::new(frame));
        self.say(Output::Send { links: vec![link], class, frame, cost: 64 });
    }

    /// What is fsynced here.
    pub const fn durable(&self) -> &Arc<Vector> {
        self.broadcast.durable()
    }

    /// What was done so far.
    pub const fn counts(&self) -> Counts {
        self.broadcast.counts()
    }

    /// The broadcast layer, to be looked at.
    pub const fn broadcast(&self) -> &Broadcast {
        &self.broadcast
    }

    /// The rooms, to be looked at.
    pub const fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// The clock, to be looked at.
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Panics if a rule is broken; the simulator calls it after every step.
    pub fn assert_invariants(&self) {
        self.broadcast.assert_invariants();
        self.sessions.assert_invariants(&self.config.limits);
        self.balance.assert_invariants();
        self.presence.assert_invariants(self.sessions.places());
        assert!(self.out.is_empty(), "the driver drains the outputs");
    }
}

#[cfg(test)]
mod tests;
