//! What a whole server holds while events pass: broadcast, rooms, sessions, all of it.
//!
//! Servers in a full mesh, one person at each, all in one room; everybody talks. The disks take
//! everything, remember nothing and answer that they have nothing, so what is left is the core. Its size
//! is the number of bytes that its `Hash` goes through: that is derived for every part of a
//! [`Replica`], so no map or queue can be forgotten, and what is behind an `Arc` counts in every server
//! that holds it. What allocators add is not in it.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use chatty_core::config::{Config, Feeds, Limits, Me, Mesh, Timing};
use chatty_core::event::Event;
use chatty_core::frame::Frame;
use chatty_core::id::{
    ClusterId, LinkId, Mid, Origin, PersistToken, RequestId, ServerId, SessionId, Slot,
};
use chatty_core::io::{Input, Output, Peer, Severity, Standing};
use chatty_core::replica::Replica;
use chatty_core::session::{
    Attach, Direct, Item, Level, Mode, Open, Request, Send, ServerAddr, ServerState, Target,
};
use chatty_core::store::{Committed, Loaded, Outcome, Query, Rows};
use chatty_core::time::{Now, Time};
use chatty_core::token::TokenKey;

const EPOCH_MS: u64 = 1_700_000_000_000;
/// A turn of every server's loop.
const TURN: Duration = Duration::from_millis(20);
/// Messages of each person in a turn.
const BURST: u64 = 40;
const SESSION: SessionId = SessionId(1);

/// Counts what is hashed.
struct Bytes(usize);

impl Hasher for Bytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
    fn finish(&self) -> u64 {
        self.0 as u64
    }
}

/// Bytes of state.
pub fn size(state: &impl Hash) -> usize {
    let mut bytes = Bytes(0);
    state.hash(&mut bytes);
    bytes.0
}

/// Servers, their people, and what is under way between them: everything arrives within the turn.
pub struct Memory {
    replicas: Vec<Replica>,
    now: Now,
    frames: VecDeque<(usize, LinkId, std::sync::Arc<Frame>)>,
    said: u64,
    heard: u64,
    refused: Vec<String>,
}

/// The link of two servers is named alike at both ends.
const fn link_of(a: usize, b: usize) -> LinkId {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    LinkId((low * 1_000_000 + high) as u64)
}

const fn other_end(link: LinkId, end: usize) -> usize {
    let (low, high) = ((link.0 / 1_000_000) as usize, (link.0 % 1_000_000) as usize);
    if low == end { high } else { low }
}

impl Memory {
    /// Servers that are linked, with a person at each who is in the room.
    pub fn new(servers: usize, feeds: Feeds, mut limits: Limits) -> Self {
        // These people talk faster than people may.
        (limits.session_rate, limits.room_rate) = (u32::MAX, u32::MAX);
        let slot = |n: usize| {
            Slot::new(format!("s{}", n + 1)).unwrap_or_else(|name| unreachable!("{name} is a slot"))
        };
        let names: Vec<ServerAddr> =
            (0..servers).map(|n| ServerAddr { name: slot(n), addr: String::new() }).collect();
        let now = Now { time: Time::from_micros(1_000_000), wall_ms: EPOCH_MS };
        let me = |n: usize| Me {
            cluster: ClusterId::new(1),
            slot: slot(n),
            generation: 1,
            server: ServerId::new(n as u128 + 1),
            origin: Origin::at(EPOCH_MS, n as u128 + 1),
            prev: None,
            addr: String::new(),
        };
        let config = |n: usize| Config {
            me: me(n),
            servers: names.clone(),
            token_key: TokenKey::new([1; 32]),
            feeds,
            mesh: Mesh::default(),
            timing: Timing::default(),
            limits: limits.clone(),
            retention: Default::default(),
        };
        let replicas =
            (0..servers).map(|n| Replica::new(config(n), &Loaded::default(), n as u64, now));
        let mut memory = Self {
            replicas: replicas.collect(),
            now,
            frames: VecDeque::new(),
            said: 0,
            heard: 0,
            refused: Vec::new(),
        };
        for n in 0..servers {
            for other in (0..servers).filter(|other| *other != n) {
                let Me { slot, generation, server, origin, .. } = me(other);
                let peer = Peer { slot, generation, server, origin, standing: Standing::Sound };
                memory.replicas[n].handle(now, Input::LinkUp(link_of(n, other), peer));
            }
        }
        memory.turn();
        memory.people();
        memory
    }

    fn people(&mut self) {
        while self.replicas.iter().any(|replica| replica.state() != ServerState::Ready) {
            self.turn();
        }
        for n in 0..self.replicas.len() {
            let attach = Attach {
                minor: 0,
                token: Vec::new(),
                nick: Some(format!("p{n}")),
                cursor: Default::default(),
                rooms: Vec::new(),
                direct: Direct::Ignore,
            };
            let open =
                Open { request: RequestId(1), room: "scale".into(), last: 0, mode: Mode::Join };
            self.replicas[n].handle(self.now, Input::SessionUp(SESSION));
            for request in [Request::Attach(attach), Request::Open(open)] {
                self.replicas[n].handle(self.now, Input::Request(SESSION, request));
                self.turn();
            }
        }
    }

    /// Everybody talks until so many messages were said in all.
    pub fn talk(&mut self, upto: u64) {
        while self.said < upto {
            for n in 0..self.replicas.len() {
                for _ in 0..BURST {
                    self.said += 1;
                    let send = Send {
                        request: RequestId(self.said + 1),
                        to: Target::Room("scale".into()),
                        mid: Mid::at(self.now.wall_ms, u128::from(self.said)),
                        text: "x".repeat(super::TEXT_BYTES),
                        level: Level::Stored,
                    };
                    let request = Input::Request(SESSION, Request::Send(send));
                    self.replicas[n].handle(self.now, request);
                }
            }
            self.turn();
        }
        // What is announced late, too.
        for _ in 0..20 {
            self.turn();
        }
    }

    /// Messages said so far.
    pub const fn said(&self) -> u64 {
        self.said
    }

    /// Whether every message was taken, and shown to everybody.
    ///
    /// # Errors
    /// What was not.
    pub fn check(&self) -> Result<(), String> {
        if let Some(refused) = self.refused.first() {
            return Err(format!("{refused}, and {} more", self.refused.len() - 1));
        }
        let people = self.replicas.len() as u64;
        if self.heard != self.said * people {
            let (said, heard) = (self.said, self.heard);
            return Err(format!("{said} messages were said, and {heard} shown to {people} people"));
        }
        Ok(())
    }

    /// What each server holds, in bytes.
    pub fn sizes(&self) -> Vec<usize> {
        self.replicas.iter().map(size).collect()
    }

    /// Time passes, and everything that comes of it happens.
    fn turn(&mut self) {
        self.now.time = self.now.time + TURN;
        self.now.wall_ms += TURN.as_millis() as u64;
        for n in 0..self.replicas.len() {
            if self.replicas[n].next_deadline().is_some_and(|at| at <= self.now.time) {
                self.replicas[n].handle_timeout(self.now);
            }
            self.flush(n);
        }
        while !self.frames.is_empty() {
            let mut touched = vec![false; self.replicas.len()];
            for (to, link, frame) in std::mem::take(&mut self.frames) {
                self.replicas[to].handle(self.now, Input::Frame(link, (*frame).clone()));
                touched[to] = true;
            }
            for n in (0..self.replicas.len()).filter(|n| touched[*n]) {
                self.flush(n);
            }
        }
    }

    fn flush(&mut self, n: usize) {
        loop {
            self.replicas[n].flush(self.now);
            let outputs: Vec<Output> =
                std::iter::from_fn(|| self.replicas[n].poll_output()).collect();
            if outputs.is_empty() {
                return;
            }
            outputs.into_iter().for_each(|output| self.perform(n, output));
        }
    }

    fn perform(&mut self, n: usize, output: Output) {
        match output {
            Output::Send { links, class, frame, cost } => {
                for link in links {
                    self.frames.push_back((other_end(link, n), link, frame.clone()));
                    self.replicas[n].handle(self.now, Input::Wrote(link, class, cost));
                }
            }
            Output::Persist(token, batch) => {
                let outcomes = batch.entries.iter().map(|entry| outcome(&entry.event)).collect();
                self.persisted(n, token, Committed { outcomes, ..Committed::default() });
            }
            Output::Read(token, query) => {
                let rows = nothing(&query);
                self.replicas[n].handle(self.now, Input::ReadDone(token, rows));
            }
            Output::Deliver { sessions, item, cost } => {
                match &*item {
                    Item::Event(shown) if shown.line.event.identity().is_some() => {
                        self.heard += sessions.len() as u64;
                    }
                    Item::Refused(refused) => self.refused.push(format!("{refused:?}")),
                    Item::Gap(_) => self.refused.push("a line was dropped".into()),
                    _ => {}
                }
                for session in sessions {
                    self.replicas[n].handle(self.now, Input::Drained(session, cost));
                }
            }
            Output::Log(Severity::Info, _) => {}
            Output::Log(_, what) | Output::Damaged(what) | Output::Close(_, what) => {
                self.refused.push(what);
            }
            Output::DropQueue(..) | Output::CloseSession(_) => {
                self.refused.push("something was cut off".into());
            }
        }
    }

    fn persisted(&mut self, n: usize, token: PersistToken, committed: Committed) {
        self.replicas[n].handle(self.now, Input::Persisted(token, committed));
    }
}

fn outcome(event: &Event) -> Outcome {
    match event.identity() {
        Some(_) => Outcome::New,
        None => Outcome::NoMessage,
    }
}

/// The answer of a disk that has nothing.
fn nothing(query: &Query) -> Rows {
    match query {
        Query::Events { .. } => Rows::Events(Vec::new()),
        Query::Page { .. } => Rows::Page(Vec::new(), false),
        Query::Since { .. } => Rows::Since(Vec::new()),
        Query::Waiting { .. } => Rows::Waiting(Vec::new(), Vec::new()),
        Query::Message(_) => Rows::Message(None),
        Query::Oldest { .. } => Rows::Oldest(None),
        Query::Scrub { .. } => Rows::Failed("nothing is here to be read again".into()),
    }
}
