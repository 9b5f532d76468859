//! The virtual world: one queue of what happens next, servers and clients that only know what they
//! are told, and every invariant checked after every step.
//!
//! `network.rs` carries frames and cuts links, `server.rs` and `person.rs` drive the real state
//! machines of servers and clients, `strike.rs` makes the faults happen.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use chatty_core::broadcast::Counts as BroadcastCounts;
use chatty_core::frame::{Class, Frame};
use chatty_core::id::{LinkId, PersistToken, ReadToken, ServerId, SessionId};
use chatty_core::io::Input;
use chatty_core::rng::Rng;
use chatty_core::session::{Item, Level, Request, Target};
use chatty_core::store::Query;
use chatty_core::time::{Now, Time};
use chatty_core::vector::Vector;
use std::sync::Arc;

use crate::disk::Disk;
use crate::faults::{Counts, Fault, Swarm};
use crate::floods::Felt;
use crate::liveness::Watch;
use crate::network::{Cable, Line};
use crate::person::{Person, room_name};
use crate::server::Server;

/// The wall clock at the beginning of the world, unix milliseconds.
const EPOCH_MS: u64 = 1_700_000_000_000;
/// How long a healed world may take to converge.
const SETTLE_MAX: Duration = Duration::from_secs(90);

/// What happens at some moment.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// A server's loop turns.
    Tick { server: usize, run: u64 },
    /// The disk was asked to write: it did, or refuses.
    Persisted { server: usize, run: u64, token: PersistToken },
    /// A read is done.
    Read { server: usize, run: u64, token: ReadToken, query: Query },
    /// A dead server starts.
    Start { server: usize },
    /// A frame arrives.
    Frame { cable: u64, to: usize, class: Class, frame: Arc<Frame>, cost: usize },
    /// An end of a connection between servers is up.
    CableUp { cable: u64, to: usize },
    /// An end learns that the other closed it.
    CableDown { cable: u64, to: usize },
    /// The kernel's word that a server's process is gone.
    LinkHint { cable: u64, to: usize },
    /// Servers look for others they are not linked to.
    Redial,
    /// A client's dial arrives.
    Dial { person: usize, conn: u64, server: usize },
    /// A client's request arrives.
    Request { line: u64, request: Request },
    /// A server's item arrives.
    Item { line: u64, item: Arc<Item>, cost: usize },
    /// A client learns that its dial failed or its connection is gone.
    Disconnected { person: usize, conn: u64 },
    /// A server learns that a client's connection is gone.
    SessionDown { line: u64 },
    /// The kernel's word that the server's process is gone.
    ClientHint { person: usize, conn: u64 },
    /// A client's timer.
    Timer { person: usize },
    /// A person says or does the next thing.
    Act { person: usize },
    /// A person says something in the first room.
    Say { person: usize },
    /// A fault begins.
    Strike(Fault),
    /// A fault ends.
    Relent(Relent),
}

/// The end of a fault.
#[derive(Clone, Debug)]
pub(crate) enum Relent {
    Unblock(usize, usize),
    Resume(usize),
    /// A server that was told to stop has.
    End(usize),
    MendClock(usize),
    FastDisk(usize),
    EmptyDisk(usize),
    Uncut(usize),
    /// The older state of a disk is put back.
    RollBack(usize, ServerId, Box<Disk>),
    /// The operator looks at a server.
    Readmit(usize),
}

/// A run that broke a rule.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was wrong.
    pub what: String,
    /// When, in the world.
    pub at: Time,
}

/// What a run that kept all rules did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Things that happened.
    pub steps: u64,
    /// A hash over all of them, in order.
    pub trace: u64,
    /// Faults that happened.
    pub faults: Counts,
    /// Messages said and replicated.
    pub messages: u64,
    /// How long the healed world took to converge.
    pub settled: Duration,
}

/// The world.
pub struct World {
    pub(crate) time: Time,
    order: u64,
    queue: BTreeMap<(Time, u64), Action>,
    pub(crate) rng: Rng,
    pub(crate) swarm: Swarm,
    pub(crate) servers: Vec<Server>,
    pub(crate) people: Vec<Person>,
    pub(crate) cables: BTreeMap<u64, Cable>,
    pub(crate) lines: BTreeMap<u64, Line>,
    pub(crate) last_id: u64,
    /// Ways on which nothing arrives, and how many faults say so.
    pub(crate) blocked: BTreeMap<(usize, usize), u32>,
    pub(crate) counts: Counts,
    pub(crate) felt: Felt,
    pub(crate) turmoil: bool,
    /// The slot whose disk was lost last, and what the others held then.
    pub(crate) replaced: Option<(usize, Vector)>,
    pub(crate) watch: Watch,
    steps: u64,
    trace: DefaultHasher,
    narrate: bool,
}

impl World {
    /// A world of that seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let swarm = Swarm::draw(&mut rng);
        Self::with(swarm, rng)
    }

    /// A world with chosen faults.
    pub fn with(swarm: Swarm, mut rng: Rng) -> Self {
        let servers = (0..swarm.servers).map(|n| Server::new(n, swarm.servers, &mut rng)).collect();
        let people = (0..swarm.clients).map(|n| Person::new(n, &swarm, &mut rng)).collect();
        let mut world = Self {
            time: Time::from_micros(0),
            order: 0,
            queue: BTreeMap::new(),
            rng,
            swarm,
            servers,
            people,
            cables: BTreeMap::new(),
            lines: BTreeMap::new(),
            last_id: 0,
            blocked: BTreeMap::new(),
            counts: Counts::new(),
            felt: Felt::default(),
            turmoil: true,
            replaced: None,
            watch: Watch::default(),
            steps: 0,
            trace: DefaultHasher::new(),
            narrate: false,
        };
        for server in 0..world.servers.len() {
            world.later(0, Action::Start { server });
        }
        world.later(1000, Action::Redial);
        for person in 0..world.people.len() {
            world.later(1_300_000, Action::Timer { person });
        }
        world
    }

    /// Prints every step on standard error.
    pub const fn narrate(&mut self) {
        self.narrate = true;
    }

    /// What the run is made of.
    pub const fn swarm(&self) -> &Swarm {
        &self.swarm
    }

    pub(crate) fn later(&mut self, micros: u64, action: Action) {
        self.at(self.time + Duration::from_micros(micros), action);
    }

    pub(crate) fn at(&mut self, time: Time, action: Action) {
        self.order += 1;
        self.queue.insert((time, self.order), action);
    }

    pub(crate) const fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// The moment as a server's clocks tell it.
    pub(crate) fn now_of(&self, server: usize) -> Now {
        let skew = self.servers[server].skew_ms;
        let wall = EPOCH_MS + self.time.as_micros() / 1000;
        Now { time: self.time, wall_ms: wall.saturating_add_signed(skew) }
    }

    /// Lives through the turmoil, heals everything, and waits until all agree.
    ///
    /// # Errors
    /// The first rule that was broken.
    pub fn run(mut self) -> Result<Report, Failure> {
        self.gather()?;
        self.plan_turmoil();
        let end = self.time + self.swarm.turmoil;
        self.go_to(end)?;
        let settled = self.settle()?;
        Ok(Report {
            steps: self.steps,
            trace: self.trace.finish(),
            faults: std::mem::take(&mut self.counts),
            messages: self.felt.messages,
            settled,
        })
    }

    /// Heals everything and waits until all agree; tells how long that took.
    pub(crate) fn settle(&mut self) -> Result<Duration, Failure> {
        self.heal();
        let healed = self.time;
        if !self.go_until(SETTLE_MAX, |world| world.differences().is_none())? {
            let what = self.differences().unwrap_or_default();
            return Err(self.failure(format!("not settled {SETTLE_MAX:?} after the heal: {what}")));
        }
        let settled = self.time.since(healed);
        self.final_checks().map_err(|what| self.failure(what))?;
        self.felt.messages = self.people.iter().map(Person::said).sum();
        Ok(settled)
    }

    /// Everybody is in the rooms before anything is said: who stays must hear all of it.
    pub(crate) fn gather(&mut self) -> Result<(), Failure> {
        let limit = Duration::from_secs(20);
        if self.go_until(limit, |world| world.people.iter().all(Person::is_ready))? {
            return Ok(());
        }
        Err(self.failure(format!("the clients could not open their rooms in {limit:?}")))
    }

    /// Lets people say so many things, evenly, and waits for the end of the span.
    pub(crate) fn talk(&mut self, things: usize, span: Duration) -> Result<(), Failure> {
        let step = u64::try_from(span.as_micros()).unwrap_or(u64::MAX) / things.max(1) as u64;
        for nth in 0..things {
            let person = nth % self.people.len();
            self.later(nth as u64 * step, Action::Act { person });
        }
        let end = self.time + span + Duration::from_secs(1);
        self.go_to(end)
    }

    /// What all servers did together, and how many events there are.
    pub(crate) fn totals(&self) -> (BroadcastCounts, u64) {
        let mut all = BroadcastCounts::default();
        for replica in self.servers.iter().filter_map(|server| server.replica.as_ref()) {
            let one = replica.counts();
            all.payload_sends += one.payload_sends;
            all.range_sends += one.range_sends;
            all.have_frames += one.have_frames;
            all.wants += one.wants;
            all.prunes += one.prunes;
            all.duplicates += one.duplicates;
            all.overflows += one.overflows;
        }
        let logs = self.servers[0].disk.logs();
        (all, logs.values().map(|entries| entries.len() as u64).sum())
    }

    pub(crate) fn failure(&self, what: String) -> Failure {
        Failure { what, at: self.time }
    }

    fn plan_turmoil(&mut self) {
        let span = u64::try_from(self.swarm.turmoil.as_micros()).unwrap_or(u64::MAX);
        for _ in 0..self.swarm.strikes {
            let fault = self.swarm.faults[self.rng.below(self.swarm.faults.len() as u64) as usize];
            let at = self.rng.below(span);
            self.later(at, Action::Strike(fault));
        }
        for _ in 0..self.swarm.messages {
            let person = self.rng.below(self.people.len() as u64) as usize;
            let at = self.rng.below(span);
            self.later(at, Action::Act { person });
        }
    }

    /// Steps until something holds, looked at every 50 ms of the world; false if it never does.
    pub(crate) fn go_until(
        &mut self,
        limit: Duration,
        holds: impl Fn(&Self) -> bool,
    ) -> Result<bool, Failure> {
        let end = self.time + limit;
        while self.time < end {
            if holds(self) {
                return Ok(true);
            }
            let next = self.time + Duration::from_millis(50);
            self.go_to(next)?;
        }
        Ok(holds(self))
    }

    pub(crate) fn go_to(&mut self, end: Time) -> Result<(), Failure> {
        while let Some(entry) = self.queue.first_entry() {
            let (time, _) = *entry.key();
            if time > end {
                break;
            }
            let action = entry.remove();
            self.time = time;
            self.steps += 1;
            self.note(&action);
            self.step(action).map_err(|what| self.failure(what))?;
        }
        self.time = end;
        Ok(())
    }

    /// Adds an action to the trace.
    fn note(&mut self, action: &Action) {
        (self.time, std::mem::discriminant(action)).hash(&mut self.trace);
        match action {
            Action::Frame { cable, to, frame, .. } => (cable, to, frame).hash(&mut self.trace),
            Action::Item { line, item, .. } => (line, item).hash(&mut self.trace),
            Action::Request { line, request } => (line, request).hash(&mut self.trace),
            _ => {}
        }
        if self.narrate && !matches!(action, Action::Tick { .. } | Action::Redial) {
            eprintln!("{:>10} {action:?}", self.time.as_micros());
        }
    }

    fn step(&mut self, action: Action) -> Result<(), String> {
        match action {
            Action::Tick { server, run } => return self.tick(server, run),
            Action::Persisted { server, run, token } => self.on_persisted(server, run, token),
            Action::Read { server, run, token, query } => self.on_read(server, run, token, &query),
            Action::Start { server } => self.start_server(server),
            Action::Frame { cable, to, class, frame, cost } => {
                self.on_frame(cable, to, class, &frame, cost);
            }
            Action::CableUp { cable, to } => self.on_cable_up(cable, to),
            Action::CableDown { cable, to } => self.on_cable_down(cable, to),
            Action::LinkHint { cable, to } => self.tell_link(cable, to, Input::Hint(LinkId(cable))),
            Action::Redial => {
                self.redial();
                return self.watch_liveness();
            }
            Action::Dial { person, conn, server } => self.on_dial(person, conn, server),
            Action::Request { line, request } => self.on_request(line, request),
            Action::Item { line, item, cost } => return self.on_item(line, &item, cost),
            Action::Disconnected { person, conn } => return self.on_disconnected(person, conn),
            Action::SessionDown { line } => self.on_session_down(line),
            Action::ClientHint { person, conn } => return self.on_client_hint(person, conn),
            Action::Timer { person } => return self.on_timer(person),
            Action::Act { person } => return self.act(person),
            Action::Say { person } => {
                return self.say(person, Target::Room(room_name(0)), Level::Replicated);
            }
            Action::Strike(fault) => self.strike(fault),
            Action::Relent(relent) => self.relent(relent),
        }
        Ok(())
    }

    pub(crate) fn session_input(&mut self, line: u64, input: impl FnOnce(SessionId) -> Input) {
        let Some(held) = self.lines.get(&line) else { return };
        let (server, run, up) = (held.server, held.run, held.up_at_server);
        if up && self.servers[server].run == run {
            self.give(server, input(SessionId(line)));
        }
    }
}
