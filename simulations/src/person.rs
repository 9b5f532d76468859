//! A person with a client: the real client state machine, what its program says and what it is
//! told, and the promises a program relies on.

use std::collections::{BTreeMap, BTreeSet};

use chatty_core::client::{
    Answer, Ask, Client, ClientEvent, Command, Config, Conn, Input, Journal, MessageState, Note,
    Output, Roam, Ticket,
};
use chatty_core::event::{Body, Identity};
use chatty_core::id::{AccountId, Mid, RoomId};
use chatty_core::rng::Rng;
use chatty_core::session::{Direct, Item, Level, Line as Told, Mode, ServerAddr, Target};
use chatty_core::store::Entry;
use chatty_core::time::{Key, Time};

use crate::balance::Journey;
use crate::faults::Swarm;
use crate::history::Did;
use crate::luck::Stream;
use crate::network::take_out;
use crate::record;
use crate::schedule::Does;
use crate::server::{addr_of, slot_of};
use crate::strike::bites::Cause;
use crate::strike::clones::Kept;
use crate::world::{Action, Edition, World};

/// The room where people only talk: whoever is in it hears everything.
pub(crate) fn room_name(n: usize) -> String {
    format!("room{n}")
}

/// The room where people come and go, kick and rename; its shared state must agree in the end.
pub(crate) const BUSY_ROOM: &str = "square";

/// A message said.
#[derive(Clone, Debug)]
struct Said {
    text: String,
    direct: bool,
    account: Option<AccountId>,
    mid: Option<Mid>,
    room: Option<RoomId>,
    level: Option<Level>,
    refused: Option<String>,
    /// What is known of it since its client died.
    left: Left,
}

/// What is known of a message whose client died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// Its client lives.
    Lives,
    /// It was settled before.
    Settled,
    /// It may have happened.
    Perhaps,
    /// It was not written down, and so it cannot have left.
    Never,
}

/// What a client that dies loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loses {
    /// It comes back with what it had written down.
    Memory,
    /// Nothing is left of it.
    All,
}

/// A person.
pub(crate) struct Person {
    n: usize,
    pub(crate) client: Client,
    config: Config,
    rng: Rng,
    timer_at: Option<Time>,
    /// How many faults keep it from its server.
    pub(crate) cut: Vec<Cause>,
    rooms: BTreeSet<String>,
    opened: BTreeSet<String>,
    asked: bool,
    last_ticket: u64,
    opens: BTreeMap<Ticket, String>,
    reads: BTreeMap<Ticket, (RoomId, Time)>,
    said: BTreeMap<Ticket, Said>,
    /// What its earlier lives said.
    past: Vec<Said>,
    /// Lines told, by identity.
    told: BTreeMap<RoomId, BTreeMap<Identity, Key>>,
    kicked: u64,
    /// How many times it died.
    lives: u64,
    running: bool,
    /// What it has written down, and what it is writing.
    journal: Option<Journal>,
    writing: Vec<(u64, Vec<Note>)>,
    /// How long an item takes it, and until when.
    pub(crate) slow: (u64, Time),
    /// The strike that takes its next answer away.
    pub(crate) loses_answer: Option<usize>,
    /// What it did and heard since it was last asked.
    pub(crate) dids: Vec<Did>,
    /// Its number in the history.
    pub(crate) session: usize,
    /// Where it was.
    pub(crate) journey: Journey,
}

impl Person {
    pub(crate) fn new(n: usize, swarm: &Swarm, rng: &mut Rng, edition: Edition) -> Self {
        let servers: Vec<ServerAddr> =
            (0..swarm.servers).map(|n| ServerAddr { name: slot_of(n), addr: addr_of(n) }).collect();
        let first = addr_of(rng.below(swarm.servers as u64) as usize);
        let mut config = Config {
            servers,
            roam: if rng.one_in(2) { Roam::Anywhere } else { Roam::First(first) },
            nick: Some(format!("person{n}")),
            direct: Direct::Take,
            ..Config::default()
        };
        let all = swarm.rooms as u64;
        let mut rooms: BTreeSet<String> =
            (0..1 + rng.below(all)).map(|_| room_name(rng.below(all) as usize)).collect();
        if rng.one_in(2) {
            rooms.insert(BUSY_ROOM.into());
        }
        let (seed, own) = (rng.bits(), Rng::new(rng.bits()));
        if edition == Edition::Now && rng.one_in(2) {
            config.journal = Some(Journal::default());
        }
        Self {
            n,
            client: Client::new(config.clone(), seed),
            journal: config.journal.clone(),
            config,
            rng: own,
            timer_at: None,
            cut: Vec::new(),
            rooms,
            opened: BTreeSet::new(),
            asked: false,
            last_ticket: 0,
            opens: BTreeMap::new(),
            reads: BTreeMap::new(),
            said: BTreeMap::new(),
            past: Vec::new(),
            told: BTreeMap::new(),
            kicked: 0,
            lives: 0,
            running: true,
            writing: Vec::new(),
            slow: (0, Time::default()),
            loses_answer: None,
            dids: Vec::new(),
            session: n,
            journey: Journey::default(),
        }
    }

    pub(crate) const fn is_running(&self) -> bool {
        self.running
    }

    /// A connection's number in the world: unlike all of its earlier lives.
    const fn world_conn(&self, conn: Conn) -> Conn {
        Conn(self.lives << 32 | conn.0)
    }

    /// A connection's number for the client that lives, if it is one of it.
    fn own_conn(&self, conn: u64) -> Option<Conn> {
        (self.running && conn >> 32 == self.lives).then_some(Conn(conn & 0xffff_ffff))
    }

    pub(crate) const fn account(&self) -> Option<AccountId> {
        self.client.account()
    }

    pub(crate) fn is_cut(&self) -> bool {
        !self.cut.is_empty()
    }

    /// Whether all its rooms are open.
    pub(crate) fn is_ready(&self) -> bool {
        self.asked && self.opened == self.rooms
    }

    pub(crate) fn said(&self) -> u64 {
        let all = self.said.values().chain(&self.past);
        all.filter(|said| said.refused.is_none()).count() as u64
    }

    /// Whether everything it said is safe.
    pub(crate) fn is_settled(&self) -> bool {
        self.running && self.client.outstanding().1 == 0 && self.client.server().is_some()
    }

    pub(crate) fn ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    /// What the program is told; `Err` names the promise that was broken.
    fn on_event(&mut self, event: ClientEvent) -> Result<(), String> {
        match event {
            ClientEvent::Line { line, late } => {
                self.dids.extend(record::line(&line, late));
                self.on_line(&line)
            }
            ClientEvent::Direct { line, .. } => self.on_line(&line),
            ClientEvent::Message(state) => self.on_state(&state),
            ClientEvent::Answered { ticket, answer } => {
                self.on_answer(ticket, answer);
                Ok(())
            }
            ClientEvent::Failed { ticket, failure } => {
                if let Some(said) = self.said.get_mut(&ticket) {
                    if said.level.is_some() {
                        return Err(format!("{:?} was acknowledged, then failed", said.text));
                    }
                    said.refused = Some(failure.to_string());
                    if !said.direct {
                        self.dids.push(record::failed(ticket, &failure));
                    }
                }
                // In the turmoil there may be no server for longer than an ask waits.
                self.opens.remove(&ticket);
                self.reads.remove(&ticket);
                Ok(())
            }
            ClientEvent::RoomClosed(closed) => {
                self.kicked += 1;
                self.opened.remove(&closed.name);
                self.rooms.remove(&closed.name);
                self.dids.push(Did::Closed(closed.room));
                Ok(())
            }
            ClientEvent::Ended(Some(failure)) => {
                Err(format!("person{} was turned away for good: {failure}", self.n))
            }
            ClientEvent::Attached(attached) => {
                self.dids.push(record::attached(&attached));
                Ok(())
            }
            ClientEvent::Lost { .. } => {
                self.dids.push(Did::Lost);
                Ok(())
            }
            ClientEvent::Unreachable { .. }
            | ClientEvent::Named { .. }
            | ClientEvent::Kept(_)
            | ClientEvent::Unkept(_)
            | ClientEvent::Notice(_)
            | ClientEvent::Ended(None) => Ok(()),
        }
    }

    fn on_state(&mut self, state: &MessageState) -> Result<(), String> {
        let account = self.account();
        let Some(said) = self.said.get_mut(&state.ticket) else {
            return Err(format!("person{} heard of a message it never said", self.n));
        };
        said.mid = Some(state.mid);
        said.room = state.room;
        said.account = account;
        if said.level.is_some_and(|level| level > state.level) {
            return Err(format!("person{}: {:?} became less safe", self.n, said.text));
        }
        said.level = Some(state.level);
        if !said.direct {
            self.dids.push(record::answered(state));
        }
        Ok(())
    }

    fn on_answer(&mut self, ticket: Ticket, answer: Answer) {
        match answer {
            Answer::Opened(opened) => {
                if let Some(room) = self.opens.remove(&ticket) {
                    self.opened.insert(room);
                    let (room, since) = (opened.room.id, opened.room.since);
                    self.dids.push(Did::Opened { room, since });
                }
            }
            Answer::Page(page) => {
                if let Some((room, asked)) = self.reads.remove(&ticket) {
                    self.dids.push(record::page(room, asked, &page));
                }
            }
            _ => {}
        }
    }

    fn on_line(&mut self, line: &Told) -> Result<(), String> {
        let Some(identity) = line.identity() else { return Ok(()) };
        let body = line.event.body();
        if let Some(Body::Direct(direct)) = &body {
            let ours = self.account().is_some_and(|a| a == direct.to || a == line.event.actor);
            if !ours {
                return Err(format!("person{} was shown another's direct message", self.n));
            }
        }
        let room = self.told.entry(line.event.room).or_default();
        if room.insert(identity, line.key()).is_some() {
            return Err(format!("person{} was told {body:?} twice", self.n));
        }
        Ok(())
    }
}

impl World {
    /// Lets a client take something in and does what it says.
    pub(crate) fn drive(&mut self, p: usize, input: Option<Input>) -> Result<(), String> {
        if !self.people[p].running {
            return Ok(());
        }
        let now = self.time;
        match input {
            Some(input) => self.people[p].client.handle(now, input),
            None => self.people[p].client.handle_timeout(now),
        }
        while let Some(output) = self.people[p].client.poll_output() {
            match output {
                Output::Dial(conn, addr) => {
                    let conn = self.people[p].world_conn(conn);
                    let server = (0..self.swarm.servers).find(|n| addr_of(*n) == addr);
                    let delay = self.client_delay(p);
                    match server {
                        Some(server) => {
                            self.later(delay, Action::Dial { person: p, conn: conn.0, server });
                        }
                        None => return Err(format!("person{p} dialled {addr:?}, which is nobody")),
                    }
                }
                Output::Request(conn, request) => {
                    let conn = self.people[p].world_conn(conn);
                    if let Some(line) = self.line_of(p, conn) {
                        self.send_request(line, request);
                    }
                }
                Output::Hangup(conn) => {
                    let conn = self.people[p].world_conn(conn);
                    if let Some(line) = self.line_of(p, conn) {
                        self.client_hung_up(line);
                    }
                }
                Output::Keep(batch, notes) => self.write_down(p, batch, notes),
                Output::Emit(event) => {
                    self.people[p].journey.note(now, &event);
                    let told = self.people[p].on_event(event);
                    self.note_dids(p);
                    told?;
                }
            }
        }
        if let Some(at) = self.people[p].client.next_deadline() {
            let at = at.max(now + std::time::Duration::from_micros(1));
            if self.people[p].timer_at != Some(at) {
                self.people[p].timer_at = Some(at);
                self.at(at, Action::Timer { person: p });
            }
        }
        Ok(())
    }

    pub(crate) fn on_timer(&mut self, p: usize) -> Result<(), String> {
        if self.people[p].timer_at.is_some_and(|at| at != self.time) || !self.people[p].running {
            return Ok(()); // another deadline took its place
        }
        if !self.people[p].asked {
            self.people[p].asked = true;
            let rooms: Vec<String> = self.people[p].rooms.iter().cloned().collect();
            for room in rooms {
                let ticket = self.people[p].ticket();
                self.people[p].opens.insert(ticket, room.clone());
                let mode = if self.luck.of(Stream::Client(p)).one_in(2) {
                    Mode::Join
                } else {
                    Mode::Watch
                };
                let ask = Ask::Open { room, last: 0, mode };
                self.drive(p, Some(Input::Command(Command::Ask { ticket, ask })))?;
            }
        }
        self.people[p].timer_at = None;
        self.drive(p, None)
    }

    pub(crate) fn connected(&mut self, p: usize, conn: Conn) {
        // The handshake's answer travels like everything else; told by a timer of its own would
        // only add an action, so the client hears of it now.
        let _ = self.client_delay(p);
        let Some(conn) = self.people[p].own_conn(conn.0) else { return };
        let result = self.drive(p, Some(Input::Connected(conn)));
        debug_assert!(result.is_ok(), "a connection breaks no promise");
    }

    pub(crate) fn told(&mut self, p: usize, conn: Conn, item: Item) -> Result<(), String> {
        match self.people[p].own_conn(conn.0) {
            Some(conn) => self.drive(p, Some(Input::Item(conn, item))),
            None => Ok(()),
        }
    }

    pub(crate) fn on_disconnected(&mut self, p: usize, conn: u64) -> Result<(), String> {
        if let Some(line) = self.line_of(p, Conn(conn))
            && let Some(line) = self.lines.get_mut(&line)
        {
            line.up_at_client = false;
        }
        match self.people[p].own_conn(conn) {
            Some(conn) => self.drive(p, Some(Input::Disconnected(conn, "gone".into()))),
            None => Ok(()),
        }
    }

    pub(crate) fn on_client_hint(&mut self, p: usize, conn: u64) -> Result<(), String> {
        match self.people[p].own_conn(conn) {
            Some(conn) => self.drive(p, Some(Input::Hint(conn))),
            None => Ok(()),
        }
    }

    /// A person does what it draws, as in the first edition: says something, mostly.
    pub(crate) fn act_first(&mut self, p: usize) -> Result<(), String> {
        let all = self.people.len() as u64;
        let rooms = self.swarm.rooms as u64;
        let person = &mut self.people[p];
        let does = match person.rng.below(20) {
            0 => Some(Does::Renames(person.rng.below(4))),
            1 if person.opened.contains(BUSY_ROOM) => Some(Does::Topic(person.rng.below(1000))),
            2 => Some(Does::Kicks(person.rng.below(all) as usize)),
            3 => Some(Does::Enters),
            _ => None,
        };
        if let Some(does) = does {
            return self.act(p, &does);
        }
        let rng = &mut person.rng;
        let direct = rng.one_in(8);
        let to = rng.below(if direct { all } else { rooms }) as usize;
        let level = if rng.one_in(2) { Level::Stored } else { Level::Replicated };
        let length = rng.below(60) as usize;
        let does = if direct {
            Does::Tells { client: to, level, length }
        } else {
            Does::Says { room: to, level, length }
        };
        self.act(p, &does)
    }

    /// A person does something, if its client runs.
    pub(crate) fn act(&mut self, p: usize, does: &Does) -> Result<(), String> {
        if !self.people[p].running {
            return Ok(());
        }
        let now = self.time;
        let person = &mut self.people[p];
        let ticket = person.ticket();
        let ask = match does {
            Does::Says { room, level, length } => {
                return self.say_as(p, ticket, Target::Room(room_name(*room)), *level, *length);
            }
            Does::Tells { client, level, length } => {
                let to = Target::Nick(format!("person{client}"));
                return self.say_as(p, ticket, to, *level, *length);
            }
            Does::Reads { room, lines } => {
                let name = room_name(*room);
                person.reads.insert(ticket, (RoomId::public(&name), now));
                Ask::History { of: Target::Room(name), before: None, limit: *lines }
            }
            Does::Renames(name) => Ask::Nick { nick: format!("name{name}") },
            Does::Topic(topic) => {
                Ask::Topic { room: BUSY_ROOM.into(), text: Some(format!("topic {topic}")) }
            }
            Does::Kicks(client) => {
                let nick = format!("person{client}");
                Ask::Kick { room: BUSY_ROOM.into(), nick, reason: "out".into() }
            }
            Does::Calls { level, length } => {
                let to = Target::Room(BUSY_ROOM.into());
                return self.say_as(p, ticket, to, *level, *length);
            }
            Does::Looks(lines) => {
                person.reads.insert(ticket, (RoomId::public(BUSY_ROOM), now));
                Ask::History { of: Target::Room(BUSY_ROOM.into()), before: None, limit: *lines }
            }
            Does::Enters => {
                person.rooms.insert(BUSY_ROOM.into());
                person.opens.insert(ticket, BUSY_ROOM.into());
                Ask::Open { room: BUSY_ROOM.into(), last: 5, mode: Mode::Join }
            }
        };
        self.drive(p, Some(Input::Command(Command::Ask { ticket, ask })))
    }

    /// A person says something.
    pub(crate) fn say(&mut self, p: usize, to: Target, level: Level) -> Result<(), String> {
        let ticket = self.people[p].ticket();
        let length = self.people[p].rng.below(60) as usize;
        self.say_as(p, ticket, to, level, length)
    }

    fn say_as(
        &mut self,
        p: usize,
        ticket: Ticket,
        to: Target,
        level: Level,
        length: usize,
    ) -> Result<(), String> {
        let person = &mut self.people[p];
        let text = format!("{}-{}-{}", person.n, ticket.0, "x".repeat(length));
        let direct = !matches!(to, Target::Room(_));
        if let Target::Room(name) = &to {
            person.dids.push(Did::Sent { ticket: ticket.0, room: RoomId::public(name) });
        }
        let said = Said {
            text: text.clone(),
            direct,
            account: None,
            mid: None,
            room: None,
            level: None,
            refused: None,
            left: Left::Lives,
        };
        person.said.insert(ticket, said);
        self.note_dids(p);
        self.drive(p, Some(Input::Command(Command::Send { ticket, to, text, level })))
    }

    /// A client writes something down; it takes its time.
    fn write_down(&mut self, p: usize, batch: u64, notes: Vec<Note>) {
        self.people[p].writing.push((batch, notes));
        let micros = 100 + self.luck.of(Stream::Client(p)).below(5000);
        let life = self.people[p].lives;
        self.later(micros, Action::Kept { person: p, life, batch });
    }

    /// What a client wrote down up to that batch is on its disk.
    pub(crate) fn on_kept(&mut self, p: usize, life: u64, batch: u64) -> Result<(), String> {
        let person = &mut self.people[p];
        if person.lives != life || !person.running {
            return Ok(());
        }
        let kept = person.writing.iter().take_while(|(nth, _)| *nth <= batch).count();
        for (_, notes) in person.writing.drain(..kept) {
            notes.into_iter().for_each(|note| {
                if let Some(journal) = &mut person.journal {
                    journal.apply(note);
                }
            });
        }
        self.drive(p, Some(Input::Kept(batch)))
    }

    /// A client dies. What its program had not been told the end of is judged by what is written.
    pub(crate) fn person_dies(&mut self, p: usize, loses: Loses) {
        let person = &mut self.people[p];
        person.running = false;
        person.timer_at = None;
        person.writing.clear();
        person.opened.clear();
        person.opens.clear();
        person.reads.clear();
        person.dids.push(Did::Ended);
        person.config.token = person.client.token().to_vec();
        if loses == Loses::All {
            person.config.token = Vec::new();
            person.journal = person.journal.is_some().then(Journal::default);
        }
        let account = person.account();
        let kept: BTreeMap<String, Ticket> = person
            .journal
            .iter()
            .flat_map(|journal| journal.messages())
            .map(|(nth, waiting)| (waiting.text.clone(), Ticket::restored(*nth)))
            .collect();
        let writes = person.journal.is_some() && loses == Loses::Memory;
        let mut lost = false;
        for (_, mut said) in std::mem::take(&mut person.said) {
            let settled = said.refused.is_some() || said.level == Some(Level::Replicated);
            if let Some(ticket) = kept.get(&said.text) {
                // The next life is told of it anew: that it is done may not be written down yet.
                said.level = None;
                person.said.insert(*ticket, said);
                continue;
            }
            said.left = match (settled, writes) {
                (true, _) => Left::Settled,
                (false, true) => Left::Never,
                (false, false) => Left::Perhaps,
            };
            lost |= said.left == Left::Perhaps;
            said.account = said.account.or(account);
            person.past.push(said);
        }
        if lost {
            self.orphans.extend(account);
        }
        self.note_dids(p);
    }

    /// A client begins again, with what it had written down.
    pub(crate) fn person_returns(&mut self, p: usize) -> Result<(), String> {
        let seed = self.luck.of(Stream::Client(p)).bits();
        let session = self.new_session(p);
        let person = &mut self.people[p];
        person.lives += 1;
        person.running = true;
        person.asked = false;
        person.session = session;
        person.told.clear();
        person.config.journal = person.journal.clone();
        person.client = Client::new(person.config.clone(), seed);
        for (ticket, said) in person.said.iter().filter(|(_, said)| !said.direct) {
            if let Some(waiting) = person.journal.as_ref().and_then(|journal| {
                journal.messages().values().find(|waiting| waiting.text == said.text)
            }) && let Target::Room(name) = &waiting.to
            {
                let sent = Did::Sent { ticket: ticket.0, room: RoomId::public(name) };
                person.dids.push(sent);
            }
        }
        self.note_dids(p);
        self.on_timer(p)
    }

    pub(crate) fn cut_client(&mut self, p: usize, cause: Cause) {
        self.people[p].cut.push(cause);
    }

    pub(crate) fn uncut_client(&mut self, p: usize, cause: Cause) {
        take_out(&mut self.people[p].cut, cause);
        if !self.people[p].is_cut() {
            self.release_lines(p);
        }
    }

    /// Whether people still wait for something, in words.
    pub(crate) fn people_differ(&self) -> Option<String> {
        let Some(waiting) = self.people.iter().find(|person| !person.is_settled()) else {
            return self.people.iter().find_map(|person| self.lacks(person));
        };
        let (unanswered, unsafe_) = waiting.client.outstanding();
        Some(format!(
            "person{} waits: attached to {:?}, {unanswered} unanswered, {unsafe_} not replicated",
            waiting.n,
            waiting.client.server()
        ))
    }

    /// What people said is there, once; what they were told is what is there.
    pub(crate) fn check_people(&self) -> Result<(), String> {
        for person in &self.people {
            for said in person.said.values().chain(&person.past) {
                let account = said.account.or(person.account());
                self.check_message(said, account)?;
            }
        }
        Ok(())
    }

    fn check_message(&self, said: &Said, account: Option<AccountId>) -> Result<(), String> {
        let disk = &self.servers[0].disk;
        if said.left == Left::Never && said.mid.is_none() {
            let is_there = |room| disk.timeline(room).iter().any(|e| has_text(e, &said.text));
            return if disk.rooms().any(is_there) {
                Err(format!("{:?} left before it was written down", said.text))
            } else {
                Ok(())
            };
        }
        if said.left == Left::Never {
            return Err(format!("{:?} was acknowledged and is not written down", said.text));
        }
        if let Some(why) = &said.refused {
            if said.direct || why.contains("in time") || why.contains("older than") {
                return Ok(()); // nobody by that name; or it may have happened or not
            }
            if why.contains("put you out of") {
                return Ok(()); // the history tells of the kick
            }
            return Err(format!("{:?} was refused: {why}", said.text));
        }
        let (Some(mid), Some(room), Some(account)) = (said.mid, said.room, account) else {
            return match said.left {
                Left::Perhaps => Ok(()),
                _ => Err(format!("{:?} was never answered", said.text)),
            };
        };
        let identity = Identity { room, account, mid };
        let lines = disk.timeline(room);
        let times = lines.iter().filter(|e| e.event.identity() == Some(identity)).count();
        let due = usize::from(mid.unix_ms() > disk.floor_ms(room));
        // What is called replicated is not said again by its sender.
        let wiped = said.level == Some(Level::Replicated)
            && self.of_twins().get(&(room, mid)) == Some(&Kept::Wiped);
        if times != due && !((said.left == Left::Perhaps || wiped) && times < due) {
            return Err(format!("{:?} is {times} times in its room", said.text));
        }
        Ok(())
    }

    /// What a person who is in a room has not been told of it, or was told wrongly, in words.
    fn lacks(&self, person: &Person) -> Option<String> {
        let disk = &self.servers[0].disk;
        // People are put out of the busy room; what they miss there is theirs to miss.
        person.opened.iter().filter(|room| *room != BUSY_ROOM).find_map(|room| {
            let id = RoomId::public(room);
            let there: BTreeSet<Identity> =
                disk.timeline(id).iter().filter_map(|e| e.event.identity()).collect();
            let floor_ms = disk.floor_ms(id);
            let told: BTreeSet<Identity> = person
                .told
                .get(&id)
                .into_iter()
                .flat_map(|t| t.keys().copied())
                .filter(|identity| identity.mid.unix_ms() > floor_ms)
                .collect();
            // Who began again hears what was said since; what was only stored on a disk that was
            // lost is gone if its sender is.
            let twins = self.of_twins();
            let made = |identity: &Identity| twins.get(&(identity.room, identity.mid)).copied();
            // Whoever heard one run of a cloned machine takes what the other said for heard.
            let missed = there.difference(&told).filter(|id| made(id).is_none()).count();
            let missed = if person.lives == 0 { missed } else { 0 };
            let is_wrong = |identity: &&Identity| {
                !self.orphans.contains(&identity.account) && made(identity) != Some(Kept::Wiped)
            };
            let wrong = told.difference(&there).filter(is_wrong).count();
            (missed > 0 || wrong > 0).then(|| {
                format!(
                    "person{} at {:?} missed {missed} lines of {room} and was told {wrong} that \
                     are not there",
                    person.n,
                    person.client.server()
                )
            })
        })
    }
}

fn has_text(entry: &Entry, text: &str) -> bool {
    match entry.event.body() {
        Some(Body::Msg(message)) => message.text == text,
        Some(Body::Direct(message)) => message.text == text,
        _ => false,
    }
}
