//! A server without others, and a disk that says yes when the test wants.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::config::{Config, Feeds, Limits, Me, Mesh, Timing};
use crate::event::{Event, Retention};
use crate::frame::{Frame, Have, Haves};
use crate::id::{
    AccountId, ClusterId, LinkId, Log, Mid, Origin, ReadToken, RequestId, ServerId, SessionId, Slot,
};
use crate::io::{Input, Output, Peer, Standing};
use crate::replica::Replica;
use crate::session::{
    Attach, Code, Direct, Item, Level, Mode, Open, Opened, Refused, Request, Send, ServerAddr,
    Status, Target, Welcome,
};
use crate::store::tests::disk::Disk;
use crate::store::{Batch, Committed, Loaded, Outcome, Query, Rows};
use crate::time::{Now, Time};
use crate::token::TokenKey;
use crate::vector::Vector;

pub(super) const WALL_MS: u64 = 1_700_000_000_000;

/// Whether a write is on the disk as soon as it is handed over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fsync {
    AtOnce,
    WhenToldTo,
}

pub(super) struct World {
    pub(super) replica: Replica,
    pub(super) now: Now,
    pub(super) fsync: Fsync,
    /// Writes that are not done.
    pub(super) writes: VecDeque<(crate::id::PersistToken, Arc<Batch>)>,
    /// Reads that are not answered.
    pub(super) reads: VecDeque<(ReadToken, Query)>,
    /// What sessions were told.
    pub(super) told: Vec<(SessionId, Arc<Item>, usize)>,
    pub(super) closed: Vec<SessionId>,
    /// What operators were told.
    pub(super) logged: Vec<String>,
    /// Everything ever written.
    pub(super) written: Vec<Arc<Event>>,
    /// What is written stays here, and reads are answered from it, if there is one.
    pub(super) disk: Option<Disk>,
    /// What the links were sent.
    pub(super) sent: Vec<(Vec<LinkId>, Arc<Frame>)>,
    last_session: u64,
    last_request: u64,
}

/// A server of that many with a disk that answers.
pub(super) fn with_disk(limits: Limits, servers: usize) -> World {
    let mut world = world_of(limits, servers, &Loaded::default());
    world.disk = Some(Disk::default());
    world
}

pub(super) fn world(limits: Limits) -> World {
    world_of(limits, 1, &Loaded::default())
}

/// One of several servers, and what is on its disk; the others are what the test says.
pub(super) fn world_of(limits: Limits, servers: usize, loaded: &Loaded) -> World {
    world_as(1, limits, servers, loaded)
}

/// The `me`-th of several servers.
pub(super) fn world_as(me: u8, limits: Limits, servers: usize, loaded: &Loaded) -> World {
    let all = (1..=servers)
        .map(|n| ServerAddr { name: Slot::new(format!("s{n}")).unwrap(), addr: format!("s{n}:1") })
        .collect();
    let slot = Slot::new(format!("s{me}")).unwrap();
    let addr = format!("{slot}:1");
    let config = Config {
        me: Me {
            cluster: ClusterId::new(1),
            slot,
            generation: 1,
            server: ServerId::new(me.into()),
            origin: Origin::at(WALL_MS, me.into()),
            prev: None,
            addr,
        },
        servers: all,
        token_key: TokenKey::new([1; 32]),
        feeds: Feeds::DEFAULT,
        mesh: Mesh::default(),
        timing: Timing::default(),
        limits,
        retention: Retention::default(),
    };
    let now = Now { time: Time::from_micros(1_000_000), wall_ms: WALL_MS };
    World {
        replica: Replica::new(config, loaded, 1, now),
        now,
        fsync: Fsync::AtOnce,
        writes: VecDeque::new(),
        reads: VecDeque::new(),
        told: Vec::new(),
        closed: Vec::new(),
        logged: Vec::new(),
        written: Vec::new(),
        disk: None,
        sent: Vec::new(),
        last_session: 0,
        last_request: 0,
    }
}

/// The peer that is server `n`.
pub(super) fn peer(n: u8) -> Peer {
    Peer {
        slot: Slot::new(format!("s{n}")).unwrap(),
        generation: 1,
        server: ServerId::new(n.into()),
        origin: Origin::at(WALL_MS, n.into()),
        standing: Standing::Sound,
    }
}

impl World {
    /// A link to server `n`, which holds nothing.
    pub(super) fn link(&mut self, n: u8) {
        let link = LinkId(n.into());
        self.give(Input::LinkUp(link, peer(n)));
        self.give(Input::Frame(link, Frame::Vector(Haves { haves: Vec::new() })));
    }

    /// Server `n` has all of this server's events on its disk, but for the last so many.
    pub(super) fn has(&mut self, n: u8, but: usize) {
        let log = Log::of(self.replica.config.me.origin);
        let entries = &self.disk.as_ref().unwrap().logs[&log];
        let last = &entries[entries.len() - 1 - but];
        let have = Have { log, upto: last.event.seq, chain: last.chain };
        self.give(Input::Frame(LinkId(n.into()), Frame::Have(Haves { haves: vec![have] })));
    }

    pub(super) fn give(&mut self, input: Input) {
        self.replica.handle(self.now, input);
        self.turn();
    }

    pub(super) fn turn(&mut self) {
        loop {
            self.replica.flush(self.now);
            while let Some(output) = self.replica.poll_output() {
                match output {
                    Output::Persist(token, batch) => self.writes.push_back((token, batch)),
                    Output::Read(token, query) => self.reads.push_back((token, query)),
                    Output::Deliver { sessions, item, cost } => {
                        self.told.extend(sessions.into_iter().map(|s| (s, item.clone(), cost)));
                    }
                    Output::CloseSession(id) => self.closed.push(id),
                    Output::Log(_, what) => self.logged.push(what),
                    Output::Send { links, frame, .. } => self.sent.push((links, frame)),
                    _ => {}
                }
            }
            self.replica.assert_invariants();
            if let Some(disk) = &self.disk
                && let Some((token, query)) = self.reads.pop_front()
            {
                let rows = disk.ask(&query);
                self.replica.handle(self.now, Input::ReadDone(token, rows));
                continue;
            }
            if self.fsync == Fsync::WhenToldTo || !self.persist() {
                return;
            }
        }
    }

    /// The oldest write is on the disk.
    pub(super) fn persist(&mut self) -> bool {
        let Some((token, batch)) = self.writes.pop_front() else { return false };
        let outcome = |event: &Event| match event.identity() {
            Some(_) => Outcome::New,
            None => Outcome::NoMessage,
        };
        let outcomes = batch.entries.iter().map(|entry| outcome(&entry.event)).collect();
        self.written.extend(batch.entries.iter().map(|entry| entry.event.clone()));
        let committed = match &mut self.disk {
            Some(disk) => disk.commit(&batch),
            None => Committed { outcomes, ..Committed::default() },
        };
        self.replica.handle(self.now, Input::Persisted(token, committed));
        true
    }

    /// Everything is on the disk.
    pub(super) fn persist_all(&mut self) {
        while self.persist() {
            self.turn();
        }
    }

    pub(super) fn read_done(&mut self, rows: Rows) {
        let (token, _) = self.reads.pop_front().unwrap();
        self.give(Input::ReadDone(token, rows));
    }

    /// Time passes, and every timer is run.
    pub(super) fn pass_ms(&mut self, ms: u64) {
        let end = Time::from_micros(self.now.time.as_micros() + ms * 1000);
        while let Some(at) = self.replica.next_deadline().filter(|at| *at <= end) {
            let at = at.max(self.now.time);
            self.now.wall_ms += (at.as_micros() - self.now.time.as_micros()) / 1000;
            self.now.time = at;
            self.replica.handle_timeout(self.now);
            self.turn();
        }
        self.now.wall_ms += (end.as_micros() - self.now.time.as_micros()) / 1000;
        self.now.time = end;
    }

    pub(super) fn session(&mut self) -> SessionId {
        self.last_session += 1;
        let id = SessionId(self.last_session);
        self.give(Input::SessionUp(id));
        id
    }

    /// Attaches; what the session was told is taken out. Reads of the attach are left.
    pub(super) fn attach(&mut self, attach: Attach) -> SessionId {
        let id = self.session();
        self.give(Input::Request(id, Request::Attach(attach)));
        id
    }

    pub(super) fn guest(&mut self, nick: &str) -> (SessionId, Welcome) {
        let id = self.attach(guest(nick));
        let welcome = self.welcome(id);
        (id, welcome)
    }

    pub(super) fn welcome(&mut self, id: SessionId) -> Welcome {
        let told = self.take(id);
        let Some(Item::Welcome(welcome)) = told.first().map(|item| &**item) else {
            panic!("no welcome: {told:?}")
        };
        welcome.clone()
    }

    /// Comes again with the account of a welcome.
    pub(super) fn again(&mut self, welcome: &Welcome, rooms: Vec<Opened>) -> SessionId {
        self.attach(Attach { token: welcome.token.clone(), rooms, nick: None, ..guest("x") })
    }

    /// Asks; the answers are what `take` gives.
    pub(super) fn ask(&mut self, id: SessionId, request: Request) {
        self.give(Input::Request(id, request));
    }

    pub(super) const fn request(&mut self) -> RequestId {
        self.last_request += 1;
        RequestId(self.last_request)
    }

    pub(super) fn open(&mut self, id: SessionId, room: &str, mode: Mode) -> Vec<Arc<Item>> {
        let request = self.request();
        self.ask(id, Request::Open(Open { request, room: room.into(), last: 0, mode }));
        self.take(id)
    }

    pub(super) fn say(&mut self, id: SessionId, to: Target, mid: u128, text: &str) -> RequestId {
        let request = self.request();
        let mid = Mid::at(self.now.wall_ms, mid);
        let text = text.into();
        self.ask(id, Request::Send(Send { request, to, mid, text, level: Level::Stored }));
        request
    }

    /// What a session was told since, all of it read.
    pub(super) fn take(&mut self, id: SessionId) -> Vec<Arc<Item>> {
        let (mine, others) = std::mem::take(&mut self.told).into_iter().partition(|t| t.0 == id);
        self.told = others;
        let mine: Vec<(SessionId, Arc<Item>, usize)> = mine;
        let bytes = mine.iter().map(|(.., cost)| cost).sum();
        self.give(Input::Drained(id, bytes));
        mine.into_iter().map(|(_, item, _)| item).collect()
    }

    pub(super) fn status(&mut self, id: SessionId) -> Status {
        let request = self.request();
        self.ask(id, Request::Status(crate::session::Plain { request }));
        let told = self.take(id);
        let Some(Item::Status(status)) = told.first().map(|item| &**item) else {
            panic!("no status: {told:?}")
        };
        status.clone()
    }
}

pub(super) fn guest(nick: &str) -> Attach {
    Attach {
        minor: 0,
        token: Vec::new(),
        nick: Some(nick.into()),
        cursor: Vector::new(),
        rooms: Vec::new(),
        direct: Direct::Take,
    }
}

pub(super) fn room(name: &str) -> Target {
    Target::Room(name.into())
}

pub(super) const fn account(account: AccountId) -> Target {
    Target::Account(account)
}

/// The requests of the acknowledgements among items.
pub(super) fn acknowledged(items: &[Arc<Item>]) -> Vec<RequestId> {
    let sent = |item: &Arc<Item>| match &**item {
        Item::Sent(sent) => Some(sent.request),
        _ => None,
    };
    items.iter().filter_map(sent).collect()
}

/// The refusals among items.
pub(super) fn refused(items: &[Arc<Item>]) -> Vec<(RequestId, Code)> {
    let refused = |item: &Arc<Item>| match &**item {
        Item::Refused(Refused { request, code, .. }) => Some((*request, *code)),
        _ => None,
    };
    items.iter().filter_map(refused).collect()
}
