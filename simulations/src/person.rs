//! A person with a client: the real client state machine, what its program says and what it is
//! told, and the promises a program relies on.

use std::collections::{BTreeMap, BTreeSet};

use chatty_core::client::{
    Answer, Ask, Client, ClientEvent, Command, Config, Conn, Input, Output, Roam, Ticket,
};
use chatty_core::event::{Body, Identity};
use chatty_core::id::{AccountId, Mid, RoomId};
use chatty_core::rng::Rng;
use chatty_core::session::{Direct, Item, Level, Line as Told, Mode, ServerAddr, Target};
use chatty_core::time::{Key, Time};

use crate::faults::Swarm;
use crate::server::{addr_of, slot_of};
use crate::world::{Action, World};

/// The room where people only talk: whoever is in it hears everything.
pub(crate) fn room_name(n: usize) -> String {
    format!("room{n}")
}

/// The room where people come and go, kick and rename; its shared state must agree in the end.
const BUSY_ROOM: &str = "square";

/// A message said.
#[derive(Clone, Debug)]
struct Said {
    text: String,
    direct: bool,
    mid: Option<Mid>,
    room: Option<RoomId>,
    level: Option<Level>,
    refused: Option<String>,
}

/// A person.
pub(crate) struct Person {
    n: usize,
    pub(crate) client: Client,
    rng: Rng,
    timer_at: Option<Time>,
    /// How many faults keep it from its server.
    cut: u32,
    rooms: BTreeSet<String>,
    opened: BTreeSet<String>,
    asked: bool,
    last_ticket: u64,
    opens: BTreeMap<Ticket, String>,
    said: BTreeMap<Ticket, Said>,
    /// Lines told, by identity.
    told: BTreeMap<RoomId, BTreeMap<Identity, Key>>,
    kicked: u64,
}

impl Person {
    pub(crate) fn new(n: usize, swarm: &Swarm, rng: &mut Rng) -> Self {
        let servers: Vec<ServerAddr> =
            (0..swarm.servers).map(|n| ServerAddr { name: slot_of(n), addr: addr_of(n) }).collect();
        let first = addr_of(rng.below(swarm.servers as u64) as usize);
        let config = Config {
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
        Self {
            n,
            client: Client::new(config, rng.bits()),
            rng: Rng::new(rng.bits()),
            timer_at: None,
            cut: 0,
            rooms,
            opened: BTreeSet::new(),
            asked: false,
            last_ticket: 0,
            opens: BTreeMap::new(),
            said: BTreeMap::new(),
            told: BTreeMap::new(),
            kicked: 0,
        }
    }

    pub(crate) const fn account(&self) -> Option<AccountId> {
        self.client.account()
    }

    pub(crate) const fn is_cut(&self) -> bool {
        self.cut > 0
    }

    /// Whether all its rooms are open.
    pub(crate) fn is_ready(&self) -> bool {
        self.asked && self.opened == self.rooms
    }

    pub(crate) fn said(&self) -> u64 {
        self.said.values().filter(|said| said.refused.is_none()).count() as u64
    }

    /// Whether everything it said is safe.
    pub(crate) fn is_settled(&self) -> bool {
        self.client.outstanding().1 == 0 && self.client.server().is_some()
    }

    pub(crate) fn ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    /// What the program is told; `Err` names the promise that was broken.
    fn on_event(&mut self, event: ClientEvent) -> Result<(), String> {
        match event {
            ClientEvent::Line { line, .. } | ClientEvent::Direct { line, .. } => {
                self.on_line(&line)
            }
            ClientEvent::Message(state) => {
                let Some(said) = self.said.get_mut(&state.ticket) else {
                    return Err(format!("person{} heard of a message it never said", self.n));
                };
                said.mid = Some(state.mid);
                said.room = state.room;
                if said.level.is_some_and(|level| level > state.level) {
                    return Err(format!("person{}: {:?} became less safe", self.n, said.text));
                }
                said.level = Some(state.level);
                Ok(())
            }
            ClientEvent::Answered { ticket, answer } => {
                if let (Answer::Opened(_), Some(room)) = (&answer, self.opens.remove(&ticket)) {
                    self.opened.insert(room);
                }
                Ok(())
            }
            ClientEvent::Failed { ticket, failure } => {
                if let Some(said) = self.said.get_mut(&ticket) {
                    if said.level.is_some() {
                        return Err(format!("{:?} was acknowledged, then failed", said.text));
                    }
                    said.refused = Some(failure.to_string());
                }
                // In the turmoil there may be no server for longer than an ask waits.
                self.opens.remove(&ticket);
                Ok(())
            }
            ClientEvent::RoomClosed(closed) => {
                self.kicked += 1;
                self.opened.remove(&closed.name);
                self.rooms.remove(&closed.name);
                Ok(())
            }
            ClientEvent::Ended(Some(failure)) => {
                Err(format!("person{} was turned away for good: {failure}", self.n))
            }
            ClientEvent::Attached(_)
            | ClientEvent::Lost { .. }
            | ClientEvent::Unreachable { .. }
            | ClientEvent::Named { .. }
            | ClientEvent::Kept(_)
            | ClientEvent::Unkept(_)
            | ClientEvent::Notice(_)
            | ClientEvent::Ended(None) => Ok(()),
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
        let now = self.time;
        match input {
            Some(input) => self.people[p].client.handle(now, input),
            None => self.people[p].client.handle_timeout(now),
        }
        while let Some(output) = self.people[p].client.poll_output() {
            match output {
                Output::Dial(conn, addr) => {
                    let server = (0..self.servers.len()).find(|n| addr_of(*n) == addr);
                    let delay = self.delay();
                    match server {
                        Some(server) => {
                            self.later(delay, Action::Dial { person: p, conn: conn.0, server });
                        }
                        None => return Err(format!("person{p} dialled {addr:?}, which is nobody")),
                    }
                }
                Output::Request(conn, request) => {
                    if let Some(line) = self.line_of(p, conn) {
                        self.send_request(line, request);
                    }
                }
                Output::Hangup(conn) => {
                    if let Some(line) = self.line_of(p, conn) {
                        self.client_hung_up(line);
                    }
                }
                // Nobody here has a journal.
                Output::Keep(..) => {}
                Output::Emit(event) => self.people[p].on_event(event)?,
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
        if self.people[p].timer_at.is_some_and(|at| at != self.time) {
            return Ok(()); // another deadline took its place
        }
        if !self.people[p].asked {
            self.people[p].asked = true;
            let rooms: Vec<String> = self.people[p].rooms.iter().cloned().collect();
            for room in rooms {
                let ticket = self.people[p].ticket();
                self.people[p].opens.insert(ticket, room.clone());
                let mode = if self.rng.one_in(2) { Mode::Join } else { Mode::Watch };
                let ask = Ask::Open { room, last: 0, mode };
                self.drive(p, Some(Input::Command(Command::Ask { ticket, ask })))?;
            }
        }
        self.people[p].timer_at = None;
        self.drive(p, None)
    }

    pub(crate) fn connected(&mut self, p: usize, conn: Conn) {
        let delay = self.delay();
        // The handshake's answer travels like everything else; told by a timer of its own would
        // only add an action, so the client hears of it now.
        let _ = delay;
        let result = self.drive(p, Some(Input::Connected(conn)));
        debug_assert!(result.is_ok(), "a connection breaks no promise");
    }

    pub(crate) fn told(&mut self, p: usize, conn: Conn, item: Item) -> Result<(), String> {
        self.drive(p, Some(Input::Item(conn, item)))
    }

    pub(crate) fn on_disconnected(&mut self, p: usize, conn: u64) -> Result<(), String> {
        if let Some(line) = self.line_of(p, Conn(conn))
            && let Some(line) = self.lines.get_mut(&line)
        {
            line.up_at_client = false;
        }
        self.drive(p, Some(Input::Disconnected(Conn(conn), "gone".into())))
    }

    pub(crate) fn on_client_hint(&mut self, p: usize, conn: u64) -> Result<(), String> {
        self.drive(p, Some(Input::Hint(Conn(conn))))
    }

    /// A person says something, mostly.
    pub(crate) fn act(&mut self, p: usize) -> Result<(), String> {
        let all = self.people.len() as u64;
        let person = &mut self.people[p];
        let ticket = person.ticket();
        let rooms = self.swarm.rooms as u64;
        let ask = match person.rng.below(20) {
            0 => Some(Ask::Nick { nick: format!("name{}", person.rng.below(4)) }),
            1 if person.opened.contains(BUSY_ROOM) => {
                let text = Some(format!("topic {}", person.rng.below(1000)));
                Some(Ask::Topic { room: BUSY_ROOM.into(), text })
            }
            2 => {
                let nick = format!("person{}", person.rng.below(all));
                Some(Ask::Kick { room: BUSY_ROOM.into(), nick, reason: "out".into() })
            }
            3 => {
                person.rooms.insert(BUSY_ROOM.into());
                person.opens.insert(ticket, BUSY_ROOM.into());
                Some(Ask::Open { room: BUSY_ROOM.into(), last: 5, mode: Mode::Join })
            }
            _ => None,
        };
        if let Some(ask) = ask {
            return self.drive(p, Some(Input::Command(Command::Ask { ticket, ask })));
        }
        let direct = person.rng.one_in(8);
        let to = if direct {
            Target::Nick(format!("person{}", person.rng.below(all)))
        } else {
            Target::Room(room_name(person.rng.below(rooms) as usize))
        };
        let level = if person.rng.one_in(2) { Level::Stored } else { Level::Replicated };
        self.say_as(p, ticket, to, level)
    }

    /// A person says something.
    pub(crate) fn say(&mut self, p: usize, to: Target, level: Level) -> Result<(), String> {
        let ticket = self.people[p].ticket();
        self.say_as(p, ticket, to, level)
    }

    fn say_as(&mut self, p: usize, ticket: Ticket, to: Target, level: Level) -> Result<(), String> {
        let person = &mut self.people[p];
        let text =
            format!("{}-{}-{}", person.n, ticket.0, "x".repeat(person.rng.below(60) as usize));
        let (direct, mid, room) = (!matches!(to, Target::Room(_)), None, None);
        let said = Said { text: text.clone(), direct, mid, room, level: None, refused: None };
        person.said.insert(ticket, said);
        self.drive(p, Some(Input::Command(Command::Send { ticket, to, text, level })))
    }

    pub(crate) fn cut_client(&mut self, p: usize) {
        self.people[p].cut += 1;
    }

    pub(crate) fn uncut_client(&mut self, p: usize) {
        self.people[p].cut -= 1;
        if self.people[p].cut == 0 {
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
        let disk = &self.servers[0].disk;
        for person in &self.people {
            let Some(account) = person.account() else { continue };
            for said in person.said.values() {
                if let Some(why) = &said.refused {
                    if said.direct || why.contains("in time") || why.contains("older than") {
                        continue; // nobody by that name; or it may have happened or not
                    }
                    return Err(format!("{:?} was refused: {why}", said.text));
                }
                let (Some(mid), Some(room)) = (said.mid, said.room) else {
                    return Err(format!("{:?} was never answered", said.text));
                };
                let identity = Identity { room, account, mid };
                let lines = disk.timeline(room);
                let times = lines.iter().filter(|e| e.event.identity() == Some(identity)).count();
                let due = usize::from(mid.unix_ms() > disk.floor_ms(room));
                if times != due {
                    return Err(format!("{:?} is {times} times in its room", said.text));
                }
            }
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
            let (missed, wrong) =
                (there.difference(&told).count(), told.difference(&there).count());
            (told != there).then(|| {
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
