//! The virtual world: one queue of what happens next, servers and clients that only know what they
//! are told, and every invariant checked after every step.
//!
//! `network.rs` carries frames and cuts links, `server.rs` and `person.rs` drive the real state
//! machines of servers and clients, `strike` makes the faults happen, `heal.rs` says what must hold
//! in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use chatty_core::broadcast::Counts as BroadcastCounts;
use chatty_core::frame::Class;
use chatty_core::id::{AccountId, LinkId, PersistToken, ReadToken, SessionId};
use chatty_core::io::Input;
use chatty_core::rng::Rng;
use chatty_core::session::{Item, Level, Request, Target};
use chatty_core::store::Query;
use chatty_core::time::{Now, Time};
use chatty_core::vector::Vector;
use std::sync::Arc;

use crate::faults::{Counts, Fault, Swarm};
use crate::floods::Felt;
use crate::history::{History, Rule};
use crate::liveness::Watch;
use crate::luck::{Luck, Stream};
use crate::network::{Cable, Line, Said, Way};
use crate::person::{Person, room_name};
use crate::schedule::{Act, Does, Entry, Happened, Planned, Plant, Redraws, Schedule};
use crate::server::Server;
use crate::strike::bites::{Cause, Fate, Place};
use crate::strike::clones::Fork;
use crate::strike::newer::Unknown;
use crate::strike::scrubs::Scrubs;
use crate::strike::{Plan, Relent};
use crate::tape::Tape;

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
    Frame { cable: u64, to: usize, class: Class, said: Said, cost: usize, sent: Time },
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
    Request { line: u64, request: Request, sent: Time },
    /// A server's item arrives.
    Item { line: u64, item: Arc<Item>, cost: usize, sent: Time },
    /// A client learns that its dial failed or its connection is gone.
    Disconnected { person: usize, conn: u64 },
    /// A server learns that a client's connection is gone.
    SessionDown { line: u64 },
    /// The kernel's word that the server's process is gone.
    ClientHint { person: usize, conn: u64 },
    /// A client's timer.
    Timer { person: usize },
    /// What a client wrote down is on its disk.
    Kept { person: usize, life: u64, batch: u64 },
    /// A person says or does something.
    Act { person: usize, does: Does },
    /// A person says or does what it draws, as in the first edition.
    ActFirst { person: usize },
    /// A person says something in the first room.
    Say { person: usize },
    /// A fault begins, by its place in the plan.
    Strike(usize),
    /// A fault begins, aimed only now, as in the first edition.
    LateStrike(Fault),
    /// A server dies in the middle of a write, by that strike.
    Tear { server: usize, run: u64, strike: usize },
    /// A fault ends, or takes its next turn.
    Relent(Relent),
}

/// How a world draws what is left to chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edition {
    /// From one stream, strikes when they happen, as the seeds that once broke a rule need it.
    First,
    /// From many streams, by a schedule.
    Now,
}

/// A run that broke a rule.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was wrong.
    pub what: String,
    /// When, in the world.
    pub at: Time,
}

impl Failure {
    /// What kind of failure it is: what was wrong, without names and numbers. Two runs that fail
    /// for one reason say the same.
    pub fn kind(&self) -> String {
        let mut kind = String::new();
        let mut quoted = false;
        for char in self.what.chars() {
            match char {
                '"' => quoted = !quoted,
                _ if quoted => {}
                ':' | '{' | '(' | '[' if kind.len() > 8 => break,
                '0'..='9' => {
                    if !kind.ends_with('#') {
                        kind.push('#');
                    }
                }
                _ => kind.push(char),
            }
        }
        kind.trim().to_string()
    }
}

/// What a run that kept all rules did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Things that happened.
    pub steps: u64,
    /// A hash over all of them, in order.
    pub trace: u64,
    /// Faults that changed something.
    pub faults: Counts,
    /// Faults that began, and changed nothing before they ended.
    pub idle: Counts,
    /// Faults that were drawn and for which there was never anybody to strike.
    pub missed: Counts,
    /// Messages said and replicated.
    pub messages: u64,
    /// Operations of the history that was checked.
    pub operations: u64,
    /// How often each rule of the history had something to judge.
    pub judged: BTreeMap<Rule, u64>,
    /// How long the healed world took to converge.
    pub settled: Duration,
}

/// The world.
pub struct World {
    pub(crate) time: Time,
    /// When all clients were in their rooms: schedules count from here.
    pub(crate) began: Time,
    order: u64,
    queue: BTreeMap<(Time, u64), Action>,
    luck_seed: u64,
    pub(crate) luck: Luck,
    pub(crate) swarm: Swarm,
    entries: Vec<Entry>,
    pub(crate) redraws: Redraws,
    pub(crate) plant: Option<Plant>,
    pub(crate) servers: Vec<Server>,
    pub(crate) people: Vec<Person>,
    pub(crate) cables: BTreeMap<u64, Cable>,
    pub(crate) lines: BTreeMap<u64, Line>,
    pub(crate) last_id: u64,
    /// Ways on which nothing arrives, and by what.
    pub(crate) blocked: BTreeMap<(usize, usize), Vec<Cause>>,
    /// Ways that are bad.
    pub(crate) ways: BTreeMap<(usize, usize), Way>,
    /// How many times longer than the least each way takes, where it does.
    pub(crate) times: BTreeMap<(usize, usize), u64>,
    /// The strikes of this run.
    pub(crate) plan: Vec<Plan>,
    /// The last strike of each kind at each place.
    pub(crate) causes: BTreeMap<(Fault, Place), usize>,
    /// Those that happened.
    pub(crate) happened: Vec<Happened>,
    /// What servers of a newer version said.
    pub(crate) unknown: Unknown,
    /// Logs of which there are, or were, two.
    pub(crate) forks: Vec<Fork>,
    /// Who was asked to verify.
    pub(crate) scrubs: Scrubs,
    pub(crate) felt: Felt,
    pub(crate) watch: Watch,
    pub(crate) turmoil: bool,
    /// The slot whose disk was lost last, and what the others held then.
    pub(crate) replaced: Option<(usize, Vector)>,
    /// By when a disk that was put back has been accused, if it will be.
    pub(crate) judged_at: Time,
    /// Until when a clock is off, the last one that was.
    pub(crate) clock_off_until: Option<Time>,
    /// Accounts whose clients died with messages that may be lost.
    pub(crate) orphans: BTreeSet<AccountId>,
    pub(crate) history: History,
    /// How often each rule of the history had something to judge, once that was done.
    pub(crate) judged: BTreeMap<Rule, u64>,
    /// Whether some servers cannot reach some others.
    pub(crate) cut: bool,
    pub(crate) tape: Option<Tape>,
    steps: u64,
    trace: DefaultHasher,
    narrate: bool,
}

impl World {
    /// A world of that seed.
    pub fn new(seed: u64) -> Self {
        Self::of(&Schedule::draw(seed))
    }

    /// A world to which that happens.
    pub fn of(schedule: &Schedule) -> Self {
        let luck = Luck::many(schedule.luck);
        let mut world = Self::build(schedule.swarm.clone(), luck, Edition::Now);
        world.entries.clone_from(&schedule.entries);
        world.luck_seed = schedule.luck;
        world.redraws = schedule.redraws;
        world.plant = schedule.plant;
        world
    }

    /// A world of that seed as the first edition drew it: see [`Swarm::draw_first`].
    pub fn first_edition(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let swarm = Swarm::draw_first(&mut rng);
        Self::build(swarm, Luck::One(rng), Edition::First)
    }

    /// A world of chosen parts, in which nothing is planned.
    pub fn with(swarm: Swarm, rng: Rng) -> Self {
        Self::build(swarm, Luck::One(rng), Edition::First)
    }

    fn build(swarm: Swarm, mut luck: Luck, edition: Edition) -> Self {
        let mut servers: Vec<Server> = (0..swarm.servers)
            .map(|n| Server::new(n, swarm.servers, luck.of(Stream::Server(n))))
            .collect();
        let people: Vec<Person> = (0..swarm.clients)
            .map(|n| Person::new(n, &swarm, luck.of(Stream::Client(n)), edition))
            .collect();
        let mut times = BTreeMap::new();
        if edition == Edition::Now {
            for a in 0..swarm.servers {
                let off = luck.of(Stream::Server(a)).below(2 * swarm.clocks_ms + 1);
                servers[a].drift_ms = off.cast_signed() - swarm.clocks_ms.cast_signed();
                for b in 0..swarm.servers {
                    let factor = 1 + luck.of(Stream::Way(a, b)).below(u64::from(swarm.unlike));
                    times.insert((a, b), factor);
                }
            }
        }
        let mut world = Self {
            time: Time::from_micros(0),
            began: Time::from_micros(0),
            order: 0,
            queue: BTreeMap::new(),
            luck_seed: 0,
            luck,
            swarm,
            entries: Vec::new(),
            redraws: Redraws::Never,
            plant: None,
            servers,
            people,
            cables: BTreeMap::new(),
            lines: BTreeMap::new(),
            last_id: 0,
            blocked: BTreeMap::new(),
            ways: BTreeMap::new(),
            times,
            plan: Vec::new(),
            causes: BTreeMap::new(),
            happened: Vec::new(),
            unknown: Unknown::default(),
            forks: Vec::new(),
            scrubs: Scrubs::default(),
            felt: Felt::default(),
            watch: Watch::default(),
            turmoil: true,
            replaced: None,
            judged_at: Time::from_micros(0),
            clock_off_until: None,
            orphans: BTreeSet::new(),
            history: History::default(),
            judged: BTreeMap::new(),
            cut: false,
            tape: None,
            steps: 0,
            trace: DefaultHasher::new(),
            narrate: false,
        };
        world.history = world.new_history();
        for server in 0..world.servers.len() {
            world.later(0, Action::Start { server });
        }
        world.later(1000, Action::Redial);
        for person in 0..world.people.len() {
            world.later(1_300_000, Action::Timer { person });
        }
        world
    }

    /// Whether it draws from many streams, as all but the first edition do.
    pub(crate) const fn is_many(&self) -> bool {
        matches!(self.luck, Luck::Many(_))
    }

    /// Writes down what a page shows.
    pub fn tape(&mut self) {
        self.tape = Some(Tape::default());
    }

    /// The schedule of what happened, without chance in it.
    pub fn lived(&self) -> Schedule {
        let mut entries: Vec<Entry> =
            self.entries.iter().filter(|e| matches!(e.what, Planned::Act(_))).cloned().collect();
        entries.extend(self.happened.iter().map(|happened| Entry {
            at: happened.planned,
            what: Planned::Strike(happened.strike.clone()),
        }));
        entries.sort_by_key(|entry| entry.at);
        Schedule {
            swarm: self.swarm.clone(),
            luck: self.luck_seed,
            entries,
            redraws: Redraws::Never,
            plant: self.plant,
        }
    }

    /// The moment.
    pub const fn now(&self) -> Time {
        self.time
    }

    /// When all clients were in their rooms.
    pub const fn began(&self) -> Time {
        self.began
    }

    /// The servers and copies of servers, and whether each came later.
    pub(crate) fn server_names(&self) -> Vec<(String, bool)> {
        let name = |(n, server): (usize, &Server)| {
            let is_copy = n >= self.swarm.servers;
            (format!("{}{}", server.slot, if is_copy { " (copy)" } else { "" }), is_copy)
        };
        self.servers.iter().enumerate().map(name).collect()
    }

    /// The clients.
    pub(crate) fn client_names(&self) -> impl Iterator<Item = String> + use<> {
        (0..self.people.len()).map(|n| format!("person{n}"))
    }

    /// What happened to servers and clients.
    pub fn happened(&self) -> &[Happened] {
        &self.happened
    }

    /// The history so far.
    pub const fn history(&self) -> &History {
        &self.history
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

    /// What waits for a server's loop and disk waits for its clone, too.
    pub(crate) fn repeat_for(&mut self, n: usize, clone: usize) {
        let of = |action: &Action| {
            let mut action = action.clone();
            match &mut action {
                Action::Tick { server, .. }
                | Action::Persisted { server, .. }
                | Action::Read { server, .. }
                    if *server == n =>
                {
                    *server = clone;
                    Some(action)
                }
                _ => None,
            }
        };
        let waiting = self.queue.iter();
        let waiting: Vec<(Time, Action)> =
            waiting.filter_map(|((at, _), action)| Some((*at, of(action)?))).collect();
        waiting.into_iter().for_each(|(at, action)| self.at(at, action));
    }

    pub(crate) const fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// The moment as a server's clocks tell it.
    pub(crate) fn now_of(&self, server: usize) -> Now {
        let skew = self.servers[server].skew_ms + self.servers[server].drift_ms;
        let wall = EPOCH_MS + self.time.as_micros() / 1000;
        Now { time: self.time, wall_ms: wall.saturating_add_signed(skew) }
    }

    /// Lives through the turmoil, heals everything, and waits until all agree.
    ///
    /// # Errors
    /// The first rule that was broken.
    pub fn run(&mut self) -> Result<Report, Failure> {
        self.gather()?;
        self.began = self.time;
        if self.is_many() {
            self.plan_turmoil()
        } else {
            self.plan_first()
        }
        let end = self.time + self.swarm.turmoil;
        self.go_to(end)?;
        let settled = self.settle()?;
        self.check_history()?;
        let mut fates = self.fates();
        let mut of = |fate| fates.remove(&fate).unwrap_or_default();
        let (faults, idle, missed) = (of(Fate::Happened), of(Fate::Idle), of(Fate::Missed));
        Ok(Report {
            steps: self.steps,
            trace: self.trace.finish(),
            faults,
            idle,
            missed,
            messages: self.felt.messages,
            operations: self.history.ops.len() as u64,
            judged: self.judged.clone(),
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

    /// Whether a client may not have heard all that its server has: its server is gone and it has not
    /// noticed, or something is on its way to it.
    pub(crate) fn is_behind(&self) -> bool {
        let is_up = |line: &Line| {
            line.up_at_server && line.up_at_client && self.servers[line.server].run == line.run
        };
        let has_line = |person: usize| {
            self.lines.values().rev().find(|line| line.person == person).is_some_and(is_up)
        };
        !(0..self.people.len()).all(has_line)
            || self.queue.values().any(|action| matches!(action, Action::Item { .. }))
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
            self.later(nth as u64 * step, Action::ActFirst { person });
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
        for Entry { at, what } in std::mem::take(&mut self.entries) {
            let then = self.began + at;
            match &what {
                Planned::Strike(strike) => self.plan(then, strike.clone()),
                Planned::Act(Act { client, does }) => {
                    if *client < self.people.len() {
                        self.at(then, Action::Act { person: *client, does: does.clone() });
                    }
                }
            }
            self.entries.push(Entry { at, what });
        }
    }

    fn plan_first(&mut self) {
        let span = u64::try_from(self.swarm.turmoil.as_micros()).unwrap_or(u64::MAX);
        for _ in 0..self.swarm.strikes {
            let rng = self.luck.of(Stream::Strike);
            let (fault, _) = self.swarm.faults[rng.below(self.swarm.faults.len() as u64) as usize];
            let at = rng.below(span);
            self.later(at, Action::LateStrike(fault));
        }
        for _ in 0..self.swarm.messages {
            let rng = self.luck.of(Stream::Strike);
            let person = rng.below(self.people.len() as u64) as usize;
            let at = rng.below(span);
            self.later(at, Action::ActFirst { person });
        }
    }

    /// No fault begins any more; those under way end by themselves within seconds.
    fn heal(&mut self) {
        self.turmoil = false;
        self.servers.iter_mut().for_each(|server| server.tear = None);
        self.people.iter_mut().for_each(|person| person.loses_answer = None);
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
            Action::Frame { cable, to, said, .. } => (cable, to, said).hash(&mut self.trace),
            Action::Item { line, item, .. } => (line, item).hash(&mut self.trace),
            Action::Request { line, request, .. } => (line, request).hash(&mut self.trace),
            _ => {}
        }
        if self.narrate && !matches!(action, Action::Tick { .. } | Action::Redial) {
            eprintln!("{:>10} {action:?}", self.time.as_micros());
        }
    }

    fn step(&mut self, action: Action) -> Result<(), String> {
        match action {
            Action::Tick { server, run } => return self.tick(server, run),
            Action::Persisted { server, run, token } => {
                return self.on_persisted(server, run, token);
            }
            Action::Read { server, run, token, query } => {
                return self.on_read(server, run, token, &query);
            }
            Action::Start { server } => self.start_server(server),
            Action::Frame { cable, to, class, said, cost, sent } => {
                return self.on_frame(cable, to, class, said, cost, sent);
            }
            Action::CableUp { cable, to } => self.on_cable_up(cable, to),
            Action::CableDown { cable, to } => self.on_cable_down(cable, to),
            Action::LinkHint { cable, to } => self.tell_link(cable, to, Input::Hint(LinkId(cable))),
            Action::Redial => {
                self.redial();
                if self.is_many() {
                    self.operate();
                }
                return self.watch_liveness();
            }
            Action::Dial { person, conn, server } => self.on_dial(person, conn, server),
            Action::Request { line, request, sent } => self.on_request(line, request, sent),
            Action::Item { line, item, cost, sent } => {
                return self.on_item(line, &item, cost, sent);
            }
            Action::Disconnected { person, conn } => return self.on_disconnected(person, conn),
            Action::SessionDown { line } => self.on_session_down(line),
            Action::ClientHint { person, conn } => return self.on_client_hint(person, conn),
            Action::Timer { person } => return self.on_timer(person),
            Action::Kept { person, life, batch } => return self.on_kept(person, life, batch),
            Action::Act { person, does } => return self.act(person, &does),
            Action::ActFirst { person } => return self.act_first(person),
            Action::Say { person } => {
                return self.say(person, Target::Room(room_name(0)), Level::Replicated);
            }
            Action::Strike(nth) => self.on_strike(nth),
            Action::LateStrike(fault) => self.on_late_strike(fault),
            Action::Tear { server, run, strike } => self.on_tear(server, run, strike),
            Action::Relent(relent) => return self.relent(relent),
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
