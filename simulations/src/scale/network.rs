//! A light network: the real [`Broadcast`] of every server, and as little as possible around it.
//!
//! A frame takes the way of its link (0.2 to 1 ms, drawn once for each link) and some jitter (up to
//! 0.3 ms); frames of one class stay in order. An fsync takes 0.1 to 0.3 ms. Nothing is ever full, and
//! no frame is lost but those on a connection whose server died. Rooms, clients and pings are left out: a
//! ping and its answer, every 500 ms on every link, cost the same whatever is said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chatty_core::broadcast::Broadcast;
use chatty_core::clock::Clock;
use chatty_core::config::{Config, Feeds, Limits, Me, Mesh, Timing};
use chatty_core::event::{Body, Event, Msg};
use chatty_core::frame::{Class, Frame};
use chatty_core::id::{
    AccountId, ClusterId, LinkId, Log, Mid, Origin, PersistToken, RoomId, ServerId, Slot,
};
use chatty_core::io::{Output, Peer, Standing};
use chatty_core::rng::Rng;
use chatty_core::session::ServerAddr;
use chatty_core::store::{Batch, Entry, Loaded, LoadedLog, Query, Rows};
use chatty_core::time::{Hlc, Now, Time};
use chatty_core::token::TokenKey;
use chatty_core::wire::Wire;

use super::spread::Spread;
use super::traffic::Traffic;

/// The wall clock at the beginning, unix milliseconds.
const EPOCH_MS: u64 = 1_700_000_000_000;
/// How long the kernel's word of a dead process takes, at most, with the probe that it starts.
const NOTICED_MICROS: u64 = 500_000;
/// How long a handshake takes.
const HANDSHAKE_MICROS: u64 = 3000;
/// What is said in each message.
pub const TEXT_BYTES: usize = 128;

/// What happens at some moment.
#[derive(Clone, Debug)]
enum Action {
    Frame { link: LinkId, to: usize, frame: Arc<Frame> },
    Persisted { server: usize, run: u64, token: PersistToken },
    Timer { server: usize, run: u64 },
    Up { ends: [usize; 2], runs: [u64; 2] },
    Down { link: LinkId, at: usize },
}

struct Server {
    /// How many times it started.
    run: u64,
    core: Option<(Broadcast, Clock)>,
    /// What its disk holds.
    disk: BTreeMap<Log, u64>,
    saving: Option<Arc<Batch>>,
    timer: Option<Time>,
    origin: Origin,
}

/// A connection, as one end or both see it.
struct Connection {
    ends: [usize; 2],
    up: [bool; 2],
    /// When the last frame arrives, by direction and class.
    last: [[Time; 4]; 2],
    micros: u64,
}

/// All servers, and everything that is under way.
pub(super) struct Network {
    servers: Vec<Server>,
    graph: Vec<BTreeSet<usize>>,
    names: Vec<ServerAddr>,
    connections: BTreeMap<LinkId, Connection>,
    /// Every event there is, as whoever stored it would read it.
    events: BTreeMap<Log, Vec<Entry>>,
    queue: BTreeMap<(Time, u64), Action>,
    queued: u64,
    now: Time,
    rng: Rng,
    feeds: Feeds,
    mesh: Mesh,
    timing: Timing,
    pub(super) traffic: Traffic,
    pub(super) spread: Spread,
    scratch: Vec<u8>,
    steps: u64,
}

fn slot_of(n: usize) -> Slot {
    Slot::new(format!("s{}", n + 1)).unwrap_or_else(|name| unreachable!("{name} is a slot"))
}

impl Network {
    /// Servers that are all up and linked.
    pub(super) fn new(
        graph: Vec<BTreeSet<usize>>,
        feeds: Feeds,
        mesh: Mesh,
        timing: Timing,
        rng: Rng,
    ) -> Self {
        let names = (0..graph.len())
            .map(|n| ServerAddr { name: slot_of(n), addr: String::new() })
            .collect();
        let server = || Server {
            run: 0,
            core: None,
            disk: BTreeMap::new(),
            saving: None,
            timer: None,
            origin: Origin::new(0),
        };
        let mut network = Self {
            servers: graph.iter().map(|_| server()).collect(),
            graph,
            names,
            connections: BTreeMap::new(),
            events: BTreeMap::new(),
            queue: BTreeMap::new(),
            queued: 0,
            now: Time::from_micros(1_000_000),
            rng,
            feeds,
            mesh,
            timing,
            traffic: Traffic::default(),
            spread: Spread::default(),
            scratch: Vec::new(),
            steps: 0,
        };
        for n in 0..network.servers.len() {
            network.start(n);
        }
        network
    }

    pub(super) const fn now(&self) -> Time {
        self.now
    }

    /// Steps taken: inputs of all cores.
    pub(super) const fn steps(&self) -> u64 {
        self.steps
    }

    pub(super) fn is_up(&self, server: usize) -> bool {
        self.servers[server].core.is_some()
    }

    fn stamp(&self) -> Now {
        Now { time: self.now, wall_ms: EPOCH_MS + self.now.as_micros() / 1000 }
    }

    fn at(&mut self, at: Time, action: Action) {
        self.queued += 1;
        self.queue.insert((at, self.queued), action);
    }

    fn later(&mut self, micros: u64, action: Action) {
        self.at(self.now + Duration::from_micros(micros), action);
    }

    /// A server starts with what its disk holds, and links to its neighbours that are up.
    pub(super) fn start(&mut self, n: usize) {
        let now = self.stamp();
        let (disk_id, seed) = (ServerId::new(n as u128 + 1), self.rng.bits());
        let origin = Origin::at(now.wall_ms, self.rng.bits128());
        let logs = self.servers[n].disk.iter().filter_map(|(log, upto)| {
            let last = self.events.get(log)?.get(usize::try_from(*upto).ok()?.checked_sub(1)?)?;
            Some(LoadedLog { log: *log, upto: *upto, chain: last.chain, hlc: last.event.hlc })
        });
        let loaded = Loaded { logs: logs.collect(), ..Loaded::default() };
        let config = Config {
            me: Me {
                cluster: ClusterId::new(1),
                slot: slot_of(n),
                generation: 1,
                server: disk_id,
                origin,
                prev: None,
                addr: String::new(),
            },
            servers: self.names.clone(),
            token_key: TokenKey::new([1; 32]),
            feeds: self.feeds,
            mesh: self.mesh,
            timing: self.timing.clone(),
            limits: Limits::default(),
            retention: Default::default(),
        };
        let clock =
            Clock::load(loaded.logs.iter().map(|log| log.hlc), config.timing.max_skew_ms, now);
        let server = &mut self.servers[n];
        server.core = Some((Broadcast::new(&config, &loaded, seed, now), clock));
        (server.origin, server.run, server.timer) = (origin, server.run + 1, None);
        let run = server.run;
        let up: Vec<usize> = self.graph[n].iter().copied().filter(|m| self.is_up(*m)).collect();
        for m in up {
            let runs = [run, self.servers[m].run];
            let took = HANDSHAKE_MICROS + self.rng.below(HANDSHAKE_MICROS);
            self.later(took, Action::Up { ends: [n, m], runs });
        }
    }

    /// A process ends: what it had not synced is gone, and its neighbours learn of it.
    pub(super) fn crash(&mut self, n: usize) {
        let server = &mut self.servers[n];
        server.core = None;
        server.saving = None;
        self.spread.died(self.now, n);
        let ends: Vec<(LinkId, usize)> = self
            .connections
            .iter()
            .filter_map(|(id, c)| {
                let side = c.ends.iter().position(|end| *end == n)?;
                c.up[side].then_some((*id, side))
            })
            .collect();
        for (link, side) in ends {
            let Some(connection) = self.connections.get_mut(&link) else { continue };
            connection.up[side] = false;
            let at = connection.ends[1 - side];
            let noticed = self.rng.below(NOTICED_MICROS);
            self.later(noticed, Action::Down { link, at });
        }
    }

    /// A server says something new, to be followed if `followed`.
    pub(super) fn say(&mut self, n: usize, followed: bool) {
        let now = self.stamp();
        let random = self.rng.bits128();
        let up = followed.then(|| (0..self.servers.len()).map(|m| self.is_up(m)).collect());
        let server = &mut self.servers[n];
        let Some((broadcast, clock)) = &mut server.core else { return };
        let body = Body::from(Msg { nick: "someone".into(), text: "x".repeat(TEXT_BYTES) });
        let entry = broadcast.append(Event {
            seq: broadcast.next_seq(),
            hlc: clock.stamp(now, Hlc::default()),
            wall_ms: now.wall_ms,
            room: RoomId::public("scale"),
            actor: AccountId::new(7),
            mid: Mid::at(now.wall_ms, random),
            kind: body.kind(),
            body: body.encode(),
        });
        let event = (entry.log, entry.event.seq);
        self.events.entry(entry.log).or_default().push(entry);
        self.traffic.said += 1;
        if let Some(up) = up {
            self.spread.said(self.now, n, event, up);
        }
        self.turn(n);
    }

    /// Lets everything happen until then.
    pub(super) fn run_until(&mut self, end: Time) {
        while let Some(first) = self.queue.first_entry() {
            if first.key().0 > end {
                break;
            }
            let ((at, _), action) = first.remove_entry();
            self.now = self.now.max(at);
            self.steps += 1;
            self.happen(action);
        }
        self.now = self.now.max(end);
    }

    fn happen(&mut self, action: Action) {
        let now = self.stamp();
        match action {
            Action::Frame { link, to, frame } => self.arrive(now, link, to, &frame),
            Action::Persisted { server, run, token } => self.persisted(now, server, run, token),
            Action::Timer { server, run } => {
                let this = &mut self.servers[server];
                if this.run != run || this.timer != Some(self.now) {
                    return; // of a run that is over, or put forward since
                }
                this.timer = None;
                self.turn(server);
            }
            Action::Up { ends, runs } => self.up(ends, runs),
            Action::Down { link, at } => {
                let connection = self.connections.remove(&link);
                let up =
                    connection.is_some_and(|c| c.ends.iter().zip(c.up).any(|e| e == (&at, true)));
                if let Some((broadcast, _)) = self.servers[at].core.as_mut().filter(|_| up) {
                    broadcast.link_down(now, link);
                    self.turn(at);
                }
            }
        }
    }

    /// Both ends of a connection are up.
    fn up(&mut self, ends: [usize; 2], runs: [u64; 2]) {
        let current = |n: usize| self.is_up(ends[n]) && self.servers[ends[n]].run == runs[n];
        if !current(0) || !current(1) {
            return;
        }
        self.queued += 1;
        let link = LinkId(self.queued);
        let connection = Connection {
            ends,
            up: [true; 2],
            last: [[self.now; 4]; 2],
            micros: 200 + self.rng.below(800),
        };
        self.connections.insert(link, connection);
        for side in 0..2 {
            let peer = Peer {
                slot: slot_of(ends[1 - side]),
                generation: 1,
                server: ServerId::new(ends[1 - side] as u128 + 1),
                origin: self.servers[ends[1 - side]].origin,
                standing: Standing::Sound,
            };
            if let Some((broadcast, _)) = &mut self.servers[ends[side]].core {
                broadcast.link_up(peer, link);
            }
            self.turn(ends[side]);
        }
    }

    fn arrive(&mut self, now: Now, link: LinkId, to: usize, frame: &Arc<Frame>) {
        let connection = self.connections.get(&link);
        if !connection.is_some_and(|c| c.ends.iter().zip(c.up).any(|e| e == (&to, true))) {
            return;
        }
        match &**frame {
            Frame::Events(events) => {
                for seq in (events.base..).take(events.events.len()) {
                    self.spread.pushed(to, (events.log, seq), events.hops);
                }
            }
            Frame::Range(range) => {
                for seq in (range.base..).take(range.events.len()) {
                    self.spread.repaired(to, (range.log, seq));
                }
            }
            _ => {}
        }
        let Some((broadcast, clock)) = &mut self.servers[to].core else { return };
        if let Err(why) = broadcast.frame(now, link, (**frame).clone()) {
            panic!("s{} was sent what no server sends: {why}", to + 1);
        }
        for stamp in broadcast.take_received() {
            clock.observe(now, stamp);
        }
        self.turn(to);
    }

    fn persisted(&mut self, now: Now, n: usize, run: u64, token: PersistToken) {
        let server = &mut self.servers[n];
        if server.run != run {
            return;
        }
        let (Some((broadcast, _)), Some(batch)) = (&mut server.core, server.saving.take()) else {
            return;
        };
        for entry in &batch.entries {
            server.disk.insert(entry.log, entry.event.seq);
            self.spread.stored(self.now, n, (entry.log, entry.event.seq));
        }
        broadcast.persisted(now, token);
        self.turn(n);
    }

    /// The end of a step of a server: what is due, what it says, and when it is to be woken.
    fn turn(&mut self, n: usize) {
        let now = self.stamp();
        let mut outputs = Vec::new();
        let server = &mut self.servers[n];
        let Some((broadcast, _)) = &mut server.core else { return };
        if broadcast.next_deadline().is_some_and(|at| at <= now.time) {
            broadcast.handle_timeout(now);
        }
        broadcast.flush(now);
        while let Some(output) = broadcast.poll_output() {
            match output {
                Output::Read(token, query) => {
                    let rows = Rows::Events(read(&self.events, &query));
                    broadcast.read_done(token, rows);
                }
                other => outputs.push(other),
            }
        }
        let (run, deadline) = (server.run, broadcast.next_deadline());
        for output in outputs {
            self.perform(n, run, output);
        }
        let at = deadline.map(|at| at.max(self.now + Duration::from_micros(1)));
        if let Some(at) = at.filter(|at| self.servers[n].timer.is_none_or(|timer| timer > *at)) {
            self.servers[n].timer = Some(at);
            self.at(at, Action::Timer { server: n, run });
        }
    }

    fn perform(&mut self, n: usize, run: u64, output: Output) {
        match output {
            Output::Send { links, class, frame, cost } => {
                self.scratch.clear();
                frame.encode_body(&mut self.scratch);
                // Four bytes of length and one of kind.
                self.traffic.count(&frame, self.scratch.len() + 5, links.len());
                for link in links {
                    self.send(n, link, class, &frame);
                    if let Some((broadcast, _)) = &mut self.servers[n].core {
                        broadcast.wrote(link, class, cost);
                    }
                }
            }
            Output::Persist(token, batch) => {
                self.servers[n].saving = Some(batch);
                let took = 100 + self.rng.below(200);
                self.later(took, Action::Persisted { server: n, run, token });
            }
            Output::Log(severity, what) => panic!("s{} says {severity:?}: {what}", n + 1),
            Output::Damaged(what) => panic!("s{} calls a sound disk damaged: {what}", n + 1),
            Output::Close(_, why) => panic!("s{} closed a link: {why}", n + 1),
            Output::DropQueue(..) => panic!("s{} dropped a queue that was empty", n + 1),
            Output::Read(..) | Output::Deliver { .. } | Output::CloseSession(_) => {
                unreachable!("reads are answered at once, and there are no sessions")
            }
        }
    }

    fn send(&mut self, from: usize, link: LinkId, class: Class, frame: &Arc<Frame>) {
        let jitter = self.rng.below(300);
        let Some(connection) = self.connections.get_mut(&link) else { return };
        let side = usize::from(connection.ends[0] != from);
        let last = &mut connection.last[side][class as usize];
        let at = (self.now + Duration::from_micros(connection.micros + jitter)).max(*last);
        *last = at;
        let to = connection.ends[1 - side];
        self.at(at, Action::Frame { link, to, frame: frame.clone() });
    }
}

/// A piece of a log, as its disk would read it.
fn read(events: &BTreeMap<Log, Vec<Entry>>, query: &Query) -> Vec<Entry> {
    let Query::Events { log, from, to, bytes_max } = query else {
        unreachable!("the broadcast reads events")
    };
    let mut bytes = 0;
    let skip = usize::try_from(from.saturating_sub(1)).unwrap_or(usize::MAX);
    let wanted = events.get(log).into_iter().flatten().skip(skip);
    wanted
        .take_while(|entry| {
            bytes += entry.event.cost();
            entry.event.seq <= *to && (entry.event.seq == *from || bytes <= *bytes_max)
        })
        .cloned()
        .collect()
}
