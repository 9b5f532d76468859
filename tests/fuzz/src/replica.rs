//! A replica among servers and clients that say anything, on a disk that is sometimes slow.
//!
//! Two peers and four clients. What they say is either bytes that happen to be a frame, or a frame
//! made of likely values: the logs there are, the numbers that are next, ends of what a number can
//! be. The replica must not panic, must keep its invariants after every step, and may say only what
//! others can read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use chatty_core::config::{Config, Feeds, Limits, Me, Mesh, Timing};
use chatty_core::event::{Event, Retention};
use chatty_core::frame::{Class, Frame, Ping};
use chatty_core::id::{
    AccountId, ClusterId, LinkId, Log, Mid, Origin, PersistToken, ReadToken, RequestId, RoomId,
    ServerId, SessionId, Slot,
};
use chatty_core::io::{Input as Happened, Output, Peer, Standing};
use chatty_core::replica::Replica;
use chatty_core::session::{
    Attach, Direct, History, Item, Level, Mode, Open, Plain, Request, Send, ServerAddr, Target, Who,
};
use chatty_core::store::{Batch, Loaded, Query};
use chatty_core::time::{Now, Time};
use chatty_core::token::TokenKey;
use chatty_core::vector::Vector;
use chatty_core::wire::{FRAME_BYTES_MAX, Wire};
use chatty_simulations::disk::Disk;

use crate::input::Input;

mod frames;
mod requests;

const WALL_MS: u64 = 1_700_000_000_000;
/// Steps of one run, at most.
const STEPS: usize = 400;

/// A replica and what is around it.
pub(crate) struct World {
    replica: Replica,
    config: Config,
    now: Now,
    disk: Disk,
    writes: VecDeque<(PersistToken, Arc<Batch>)>,
    reads: VecDeque<(ReadToken, Query)>,
    /// Whether the disk answers at once.
    quick: bool,
    runs: u128,
    links: [Option<LinkId>; 2],
    last_link: u64,
    sessions: [Option<SessionId>; 4],
    last_session: u64,
    last_request: u64,
    /// What the peers have said of each log: so many events, and the chain there.
    said: BTreeMap<Log, (u64, u64)>,
    /// The newest token that a client was given.
    token: Vec<u8>,
}

/// Two servers beside this one.
fn slots() -> [Slot; 3] {
    ["s1", "s2", "s3"].map(|name| Slot::new(name).expect("a name"))
}

const fn peer_origin(nth: usize) -> Origin {
    Origin::at(WALL_MS, 50 + nth as u128)
}

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (servers, me) = World::cluster();
    let mut world = World::new(servers, me, |config| {
        // Small bounds are reached by short inputs.
        if input.byte() % 2 == 1 {
            config.limits = small();
        }
        config.timing.floor_period = std::time::Duration::from_secs(2);
        config.retention = Retention { age_ms: 0, messages: u64::from(input.byte() % 8) };
    });
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
}

fn small() -> Limits {
    Limits {
        buffer_events: 4,
        buffer_bytes: 1000,
        buffers_bytes: 1500,
        tail_events: 3,
        live_queue_bytes: 2000,
        session_queue_bytes: 1500,
        session_requests: 3,
        session_request_bytes: 2000,
        unsaved_bytes: 2000,
        range_window_bytes: 1000,
        recent_lines: 3,
        since_scan: 4,
        recent_mids: 2,
        attach_lag: 5,
        guest_burst: 3,
        accounts: 3,
        rooms: 3,
        rooms_founded: 2,
        conversations: 3,
        conversations_each: 2,
        sessions: 3,
        waiting_lines: 2,
        waiting_scan: 3,
        ..Limits::default()
    }
}

impl World {
    /// Three servers, and which this one is.
    pub(crate) fn cluster() -> (Vec<ServerAddr>, Slot) {
        let [me, ..] = slots();
        let server = |name: Slot| ServerAddr { addr: format!("{name}:7"), name };
        (slots().map(server).into(), me)
    }

    pub(crate) fn new(
        servers: Vec<ServerAddr>,
        me: Slot,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        Self::begin(servers, me, &Loaded::default(), change)
    }

    pub(crate) fn begin(
        servers: Vec<ServerAddr>,
        slot: Slot,
        loaded: &Loaded,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let me = Me {
            cluster: ClusterId::new(1),
            slot,
            generation: 1,
            server: ServerId::new(1),
            origin: Origin::at(WALL_MS, 1),
            prev: None,
            addr: "s1:7".into(),
        };
        let mut config = Config {
            me,
            servers,
            token_key: TokenKey::new([1; 32]),
            feeds: Feeds::DEFAULT,
            mesh: Mesh::default(),
            timing: Timing::default(),
            limits: Limits::default(),
            retention: Retention::default(),
        };
        change(&mut config);
        let now = Now { time: Time::from_micros(1_000_000), wall_ms: WALL_MS };
        Self {
            replica: Replica::new(config.clone(), loaded, 1, now),
            config,
            now,
            disk: Disk::default(),
            writes: VecDeque::new(),
            reads: VecDeque::new(),
            quick: true,
            runs: 1,
            links: [None; 2],
            last_link: 0,
            sessions: [None; 4],
            last_session: 0,
            last_request: 0,
            said: BTreeMap::new(),
            token: Vec::new(),
        }
    }

    /// An ordinary day: the others come, somebody says something, time passes.
    pub(crate) fn talk(&mut self) {
        for nth in 0..2 {
            self.link_up(nth, peer_origin(nth), 1, Standing::Sound);
            self.give(Happened::Frame(self.link(nth), Frame::Vector(frames::no_haves())));
        }
        self.session_up(0);
        self.attach(0, Vector::new());
        self.ask(0, |request| {
            Request::Open(Open { request, room: "lobby".into(), last: 10, mode: Mode::Join })
        });
        self.ask(0, |request| {
            Request::Send(Send {
                request,
                to: Target::Room("lobby".into()),
                mid: Mid::at(WALL_MS, 1),
                text: "hello".into(),
                level: Level::Stored,
            })
        });
        self.ask(0, |request| {
            let of = Target::Room("lobby".into());
            Request::History(History { request, of, before: None, limit: 50 })
        });
        self.ask(0, |request| Request::Who(Who { request, room: "lobby".into() }));
        self.ask(0, |request| Request::Status(Plain { request }));
        for _ in 0..8 {
            self.pass(700);
        }
        self.give(Happened::Drain);
        let _ = (self.replica.drain(), self.replica.state());
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 24 {
            0..=2 => {
                let (kind, body) = (input.byte(), input.piece());
                if let Ok(frame) = Frame::decode(kind, body) {
                    let link = self.link(input.below(2));
                    self.give(Happened::Frame(link, frame));
                }
            }
            3..=9 => {
                let link = self.link(input.below(2));
                let frame = self.frame(input);
                self.give(Happened::Frame(link, frame));
            }
            10 => self.link_up_or_down(input),
            11..=12 => {
                let (kind, body) = (input.byte(), input.piece());
                if let Ok(request) = Request::decode(kind, body) {
                    let session = self.session(input.below(4));
                    self.give(Happened::Request(session, request));
                }
            }
            13..=17 => {
                let session = self.session(input.below(4));
                let request = self.request(input);
                self.give(Happened::Request(session, request));
            }
            18 => {
                let nth = input.below(4);
                match self.sessions[nth].take() {
                    Some(session) => self.give(Happened::SessionDown(session)),
                    None => {
                        self.session_up(nth);
                        self.attach(nth, Vector::new());
                    }
                }
            }
            19 => self.pass(u64::from(input.byte()) * 20),
            20 => self.set_clock(input),
            21 => self.turn_disk(input),
            22 => self.network(input),
            _ => self.operate(input),
        }
    }

    fn link(&self, nth: usize) -> LinkId {
        self.links[nth].unwrap_or(LinkId(u64::MAX))
    }

    fn session(&self, nth: usize) -> SessionId {
        self.sessions[nth].unwrap_or(SessionId(u64::MAX))
    }

    fn link_up_or_down(&mut self, input: &mut Input<'_>) {
        let nth = input.below(2);
        if let Some(link) = self.links[nth].take() {
            self.give(Happened::LinkDown(link));
            return;
        }
        let origin = match input.byte() % 4 {
            0 => self.config.me.origin,
            1 => Origin::at(WALL_MS, u128::from(input.byte())),
            _ => peer_origin(nth),
        };
        let standing = input.one(&[Standing::Sound, Standing::Lossy, Standing::RolledBack]);
        self.link_up(nth, origin, u64::from(input.byte() % 3), standing);
    }

    fn link_up(&mut self, nth: usize, origin: Origin, generation: u64, standing: Standing) {
        self.last_link += 1;
        let link = LinkId(self.last_link);
        self.links[nth] = Some(link);
        let slot = slots()[nth + 1].clone();
        let server = ServerId::new(10 * (nth as u128 + 1) + u128::from(generation));
        self.give(Happened::LinkUp(link, Peer { slot, generation, server, origin, standing }));
    }

    fn session_up(&mut self, nth: usize) {
        self.last_session += 1;
        let session = SessionId(self.last_session);
        self.sessions[nth] = Some(session);
        self.give(Happened::SessionUp(session));
    }

    fn attach(&mut self, nth: usize, cursor: Vector) {
        let attach = Attach {
            minor: 0,
            token: self.token.clone(),
            nick: Some(["ann", "bob", "Ann", "cy"][nth].into()),
            cursor,
            rooms: Vec::new(),
            direct: Direct::Take,
        };
        self.give(Happened::Request(self.session(nth), Request::Attach(attach)));
    }

    fn ask(&mut self, nth: usize, request: impl FnOnce(RequestId) -> Request) {
        self.last_request += 1;
        let request = request(RequestId(self.last_request));
        self.give(Happened::Request(self.session(nth), request));
    }

    fn set_clock(&mut self, input: &mut Input<'_>) {
        self.now.wall_ms = match input.byte() % 4 {
            0 => WALL_MS,
            1 => input.number(self.now.wall_ms),
            2 => self.now.wall_ms.saturating_add(3_600_000),
            _ => self.now.wall_ms.saturating_sub(3_600_000),
        };
        let about = self.now.wall_ms;
        if input.byte().is_multiple_of(4) {
            let certified = Happened::Certificate(input.number(about), input.number(about));
            self.give(certified);
        }
        self.pass(0);
    }

    fn turn_disk(&mut self, input: &mut Input<'_>) {
        match input.byte() % 5 {
            0 => self.quick = true,
            1 => self.quick = false,
            2 => {
                if let Some((token, _)) = self.writes.front() {
                    let failed = Happened::PersistFailed(*token, "no room".into());
                    self.give(failed);
                }
            }
            _ => {
                self.write();
                self.read();
                self.turn();
            }
        }
    }

    fn network(&mut self, input: &mut Input<'_>) {
        let link = self.link(input.below(2));
        let happened = match input.byte() % 4 {
            0 => Happened::Wrote(link, Class::Live, input.byte().into()),
            1 => Happened::Wrote(link, Class::CatchUp, usize::MAX),
            2 => Happened::Hint(link),
            _ => Happened::Drained(self.session(input.below(4)), input.number(1000) as usize),
        };
        self.give(happened);
    }

    fn operate(&mut self, input: &mut Input<'_>) {
        match input.byte() % 8 {
            0 => self.give(Happened::Drain),
            1 => self.give(Happened::Resume),
            2 => self.give(Happened::Stop),
            3 => self.restart(),
            _ => {
                let ping = Ping { sent_micros: input.number(0), clock_ms: input.number(WALL_MS) };
                let link = self.link(input.below(2));
                let frame = if input.byte().is_multiple_of(2) {
                    Frame::Ping(ping)
                } else {
                    Frame::Pong(ping)
                };
                self.give(Happened::Frame(link, frame));
            }
        }
    }

    /// The process ends and begins again on its disk.
    fn restart(&mut self) {
        self.runs += 1;
        let held = self.disk.upto(Log::of(self.config.me.origin));
        if held > 0 {
            self.config.me.prev = Some((self.config.me.origin, held));
        }
        self.config.me.origin = Origin::at(WALL_MS, self.runs);
        self.replica = Replica::new(self.config.clone(), &self.disk.load(), 1, self.now);
        self.writes.clear();
        self.reads.clear();
        self.links = [None; 2];
        self.sessions = [None; 4];
        self.turn();
    }

    fn pass(&mut self, ms: u64) {
        let micros = self.now.time.as_micros().saturating_add(ms * 1000);
        self.now.time = Time::from_micros(micros);
        self.now.wall_ms = self.now.wall_ms.saturating_add(ms);
        self.replica.handle_timeout(self.now);
        self.turn();
        if let Some(at) = self.replica.next_deadline() {
            // A timer that is due for ever would keep the loop busy.
            let later = Now { time: at.max(self.now.time), ..self.now };
            assert!(later.time >= self.now.time);
        }
    }

    fn give(&mut self, happened: Happened) {
        self.replica.handle(self.now, happened);
        self.turn();
    }

    /// What a driver does after each input.
    fn turn(&mut self) {
        for _ in 0..1000 {
            self.replica.flush(self.now);
            while let Some(output) = self.replica.poll_output() {
                self.output(output);
            }
            self.replica.assert_invariants();
            if !self.quick || !(self.write() | self.read()) {
                let _ = self.replica.state();
                return;
            }
        }
        panic!("it never comes to rest");
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Send { frame, .. } => {
                let mut body = Vec::new();
                frame.encode_body(&mut body);
                assert!(body.len() < FRAME_BYTES_MAX, "a frame that nobody takes: {frame:?}");
                assert_eq!(Frame::decode(frame.kind(), &body).as_ref(), Ok(&*frame));
            }
            Output::Persist(token, batch) => self.writes.push_back((token, batch)),
            Output::Read(token, query) => self.reads.push_back((token, query)),
            Output::Deliver { item, .. } => {
                let mut body = Vec::new();
                item.encode_body(&mut body);
                assert_eq!(Item::decode(item.kind(), &body).as_ref(), Ok(&*item));
                match &*item {
                    Item::Welcome(welcome) => self.token = welcome.token.clone(),
                    Item::Token(token) => self.token = token.token.clone(),
                    _ => {}
                }
            }
            Output::Damaged(why) => panic!("a sound disk is called damaged: {why}"),
            Output::Close(link, _) => {
                for held in self.links.iter_mut().filter(|held| **held == Some(link)) {
                    *held = None;
                }
            }
            Output::CloseSession(session) => {
                for held in self.sessions.iter_mut().filter(|held| **held == Some(session)) {
                    *held = None;
                }
            }
            Output::DropQueue(..) | Output::Log(..) => {}
        }
    }

    /// The oldest write is on the disk.
    fn write(&mut self) -> bool {
        let Some((token, batch)) = self.writes.pop_front() else { return false };
        let committed = self.disk.commit(&batch);
        self.replica.handle(self.now, Happened::Persisted(token, committed));
        true
    }

    /// The oldest question is answered.
    fn read(&mut self) -> bool {
        let Some((token, query)) = self.reads.pop_front() else { return false };
        let rows = self.disk.read(&query);
        self.replica.handle(self.now, Happened::ReadDone(token, rows));
        true
    }

    /// A log that somebody may speak of.
    fn log(&self, input: &mut Input<'_>) -> Log {
        match input.byte() % 8 {
            0 => Log::of(self.config.me.origin),
            1 => Log { shard: 1, ..Log::of(peer_origin(0)) },
            2 => Log::of(Origin::at(WALL_MS, u128::from(input.byte()))),
            3..=5 => Log::of(peer_origin(0)),
            _ => Log::of(peer_origin(1)),
        }
    }

    fn held(&self, log: Log) -> u64 {
        self.replica.broadcast().held().upto(log)
    }
}

/// An account that somebody may speak of.
fn account(input: &mut Input<'_>) -> AccountId {
    AccountId::new(u128::from(input.byte() % 4))
}

fn room(input: &mut Input<'_>) -> RoomId {
    match input.byte() % 4 {
        0 => RoomId::public("lobby"),
        1 => RoomId::public("den"),
        2 => RoomId::direct(AccountId::new(1), AccountId::new(2)),
        _ => RoomId::new(u128::from(input.byte())),
    }
}

fn mid(input: &mut Input<'_>) -> Mid {
    Mid::at(input.number(WALL_MS), u128::from(input.byte() % 4))
}

fn chain_of(events: &[Arc<Event>], before: u64) -> u64 {
    events.iter().fold(before, |chain, event| event.chain(chain))
}
