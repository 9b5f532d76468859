//! Connections between servers (cables) and from clients (lines): ordered by class, delayed with
//! jitter, held while a way is blocked (a transport sends again), lost when the connection ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use chatty_core::client::Conn;
use chatty_core::frame::{Class, Frame};
use chatty_core::id::{LinkId, SessionId};
use chatty_core::io::{Input, Peer};
use chatty_core::session::{Item, Request};
use chatty_core::time::Time;

use crate::faults::Fault;
use crate::luck::Stream;
use crate::strike::bites::{Cause, Place};
use crate::world::{Action, World};

/// What is bad about a way between two servers, and until when.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Way {
    /// Packets are lost, so hard.
    pub(crate) loss: (u8, Time),
    /// Frames take longer, so hard.
    pub(crate) slow: (u8, Time),
    /// Few bytes get through, so hard.
    pub(crate) narrow: (u8, Time),
    /// When the last byte of a narrow way leaves.
    busy_until: Time,
}

impl Way {
    /// Until when something is bad about it, or what waited for it is under way.
    pub(crate) fn bad_until(&self) -> Time {
        self.loss.1.max(self.slow.1).max(self.narrow.1).max(self.busy_until)
    }
}

/// A lost packet is sent again after this, doubling; two round trips of a slow network.
const RESEND_MICROS: u64 = 25_000;

/// What goes from one server to another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Said {
    /// What all know.
    Frame(Arc<Frame>),
    /// A frame of a kind that only a newer version knows, by that strike.
    Unknown(u8, Arc<[u8]>, usize),
}

/// What waits: its class, its cost, and when it left.
type Held = (Class, Said, usize, Time);

/// A connection between two servers.
#[derive(Clone, Debug)]
pub(crate) struct Cable {
    pub(crate) ends: [usize; 2],
    pub(crate) runs: [u64; 2],
    pub(crate) up: [bool; 2],
    /// Whether an end has come up yet: what arrives before waits for it.
    came: [bool; 2],
    /// When the last frame of each class arrives at each end.
    last: [[Time; 4]; 2],
    held: [VecDeque<Held>; 2],
}

/// A client's connection; its number is the server's session.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) person: usize,
    pub(crate) conn: Conn,
    pub(crate) server: usize,
    pub(crate) run: u64,
    pub(crate) up_at_server: bool,
    pub(crate) up_at_client: bool,
    last_request: Time,
    last_item: Time,
    held_items: VecDeque<(Arc<Item>, usize, Time)>,
    held_requests: VecDeque<(Request, Time)>,
}

impl World {
    /// How long something takes from one server to another.
    fn delay(&mut self, from: usize, to: usize) -> u64 {
        let (least, jitter) = self.swarm.delay_micros;
        let times = self.times.get(&(from, to)).copied().unwrap_or(1);
        times * (least + self.luck.of(Stream::Way(from, to)).below(jitter))
    }

    /// How long something takes between a client and a server.
    pub(crate) fn client_delay(&mut self, person: usize) -> u64 {
        let (least, jitter) = self.swarm.delay_micros;
        least + self.luck.of(Stream::Client(person)).below(jitter)
    }

    /// How much longer a frame takes on a bad way.
    fn trouble(&mut self, from: usize, to: usize, cost: usize) -> u64 {
        let now = self.time;
        let Some(way) = self.ways.get_mut(&(from, to)) else { return 0 };
        let rng = self.luck.of(Stream::Way(from, to));
        let mut micros = 0;
        let [mut lost, mut slow, mut narrow] = [false; 3];
        if way.loss.1 > now {
            // Up to 60 of 100 are lost.
            let mut resend = RESEND_MICROS;
            while rng.below(100) < u64::from(way.loss.0) * 6 / 10 && micros < 3_000_000 {
                micros += resend;
                resend *= 2;
            }
            lost = micros > 0;
        }
        if way.slow.1 > now {
            let longer = u64::from(way.slow.0) * 2000;
            micros += longer + rng.below(longer);
            slow = true;
        }
        if way.narrow.1 > now {
            // From 200 bytes a millisecond down to two.
            let rate = 202 - 2 * u64::from(way.narrow.0.min(100));
            let bytes = cost.max(40) as u64;
            let from = way.busy_until.max(now);
            way.busy_until = from + Duration::from_micros(1000 * bytes / rate);
            micros += u64::try_from(way.busy_until.since(now).as_micros()).unwrap_or(u64::MAX);
            narrow = true;
        }
        let faults = [(lost, Fault::Loss), (slow, Fault::SlowLink), (narrow, Fault::NarrowLink)];
        for (_, fault) in faults.into_iter().filter(|(is_bad, _)| *is_bad) {
            self.bite(fault, Place::Way(from, to));
        }
        micros
    }

    pub(crate) fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.blocked.contains_key(&(from, to))
    }

    /// Something is held up on a way, if it is blocked.
    fn bite_by_cut(&mut self, from: usize, to: usize) {
        for cause in self.blocked.get(&(from, to)).cloned().unwrap_or_default() {
            self.bite_by(cause);
        }
    }

    /// Something is held up between a client and its server, if he is cut off.
    fn bite_by_client_cut(&mut self, person: usize) {
        for cause in self.people[person].cut.clone() {
            self.bite_by(cause);
        }
    }

    fn side(cable: &Cable, server: usize) -> usize {
        usize::from(cable.ends[1] == server)
    }

    /// Servers without a connection make one, if they can reach each other.
    pub(crate) fn redial(&mut self) {
        self.later(100_000, Action::Redial);
        for a in 0..self.servers.len() {
            for b in a + 1..self.servers.len() {
                let can = |world: &Self, n: usize| {
                    world.servers[n].is_alive() && !world.servers[n].is_paused(world.time)
                };
                let reachable = can(self, a)
                    && can(self, b)
                    && !self.is_blocked(a, b)
                    && !self.is_blocked(b, a);
                let linked = self.cables.values().any(|cable| {
                    cable.ends == [a, b]
                        && cable.runs == [self.servers[a].run, self.servers[b].run]
                        && cable.up == [true, true]
                });
                if self.servers[a].place == self.servers[b].place {
                    continue; // a disk and its copy do not link
                }
                let fit = self.certificates_fit(a, b);
                if !linked && can(self, a) && can(self, b) {
                    self.bite_by_cut(a, b);
                    self.bite_by_cut(b, a);
                    if reachable && !fit {
                        self.bite_by_certificate(a);
                        self.bite_by_certificate(b);
                    }
                }
                if reachable
                    && !linked
                    && fit
                    && self.luck.of(Stream::Way(a, b)).one_in(2)
                    && self.wins(a, b)
                    && self.wins(b, a)
                {
                    self.connect(a, b);
                }
            }
        }
    }

    /// The connection of a server to another run of the disk of that one.
    fn rival(&self, at: usize, newcomer: usize, but: u64) -> Option<(u64, usize)> {
        if self.servers.len() == self.swarm.servers {
            return None; // nothing was ever copied
        }
        self.cables.iter().find_map(|(id, cable)| {
            let side = cable.ends.iter().position(|end| *end == at)?;
            let other = cable.ends[1 - side];
            let is_rival = *id != but
                && other != newcomer
                && self.servers[other].place == self.servers[newcomer].place
                && cable.up[side]
                && cable.runs[side] == self.servers[at].run;
            is_rival.then_some((*id, other))
        })
    }

    /// Whether a server takes a connection of another although a run of the same disk may be linked:
    /// only if that one does not answer. (The driver asks it with a ping.)
    fn wins(&mut self, at: usize, newcomer: usize) -> bool {
        let Some((id, other)) = self.rival(at, newcomer, 0) else { return true };
        if self.is_one_run(other, newcomer) {
            // Whoever dials has no link: the newer connection of one run is the link, at once.
            let replaced = self.luck.of(Stream::Way(at, newcomer)).one_in(4);
            if replaced {
                self.replace_link(id, at);
            }
            return replaced;
        }
        let answers = self.servers[other].is_alive()
            && !self.servers[other].is_paused(self.time)
            && !self.is_blocked(at, other)
            && !self.is_blocked(other, at)
            && self.cables.get(&id).is_some_and(|cable| {
                let side = Self::side(cable, other);
                cable.up[side] && cable.runs[side] == self.servers[other].run
            });
        if !answers {
            self.tell_link(id, at, Input::LinkDown(LinkId(id)));
        }
        !answers
    }

    /// Whether two machines are one run of one server.
    fn is_one_run(&self, a: usize, b: usize) -> bool {
        self.servers[a].origin == self.servers[b].origin
    }

    /// An end gives its link up for another one.
    fn replace_link(&mut self, id: u64, at: usize) {
        self.tell_link(id, at, Input::LinkDown(LinkId(id)));
        self.hang_up(id, at);
    }

    fn connect(&mut self, a: usize, b: usize) {
        let old: Vec<u64> =
            self.cables.iter().filter(|(_, c)| c.ends == [a, b]).map(|(id, _)| *id).collect();
        for id in old {
            for end in [a, b] {
                self.tell_link(id, end, Input::LinkDown(LinkId(id)));
            }
            self.cables.remove(&id);
        }
        let id = self.next_id();
        let runs = [self.servers[a].run, self.servers[b].run];
        self.cables.insert(
            id,
            Cable {
                ends: [a, b],
                runs,
                up: [false, false],
                came: [false, false],
                last: [[self.time; 4]; 2],
                held: Default::default(),
            },
        );
        for (from, to) in [(b, a), (a, b)] {
            let delay = self.delay(from, to);
            self.later(delay, Action::CableUp { cable: id, to });
        }
    }

    pub(crate) fn on_cable_up(&mut self, id: u64, to: usize) {
        let Some(cable) = self.cables.get_mut(&id) else { return };
        let side = Self::side(cable, to);
        let other = cable.ends[1 - side];
        let alive = self.servers[to].run == cable.runs[side]
            && self.servers[to].is_alive()
            && self.servers[other].run == cable.runs[1 - side];
        if !alive {
            return;
        }
        let rival = self.rival(to, other, id);
        if let Some((rival, _)) = rival.filter(|(_, rival)| self.is_one_run(*rival, other)) {
            self.replace_link(rival, to);
        } else if rival.is_some() {
            // Both runs of one disk connected at once: the first one answers, this one is refused.
            return self.hang_up(id, to);
        }
        let Some(cable) = self.cables.get_mut(&id) else { return };
        (cable.up[side], cable.came[side]) = (true, true);
        let far = &self.servers[other];
        let peer = Peer {
            slot: far.slot.clone(),
            generation: far.generation,
            server: far.id,
            origin: far.origin,
            standing: far.standing,
        };
        self.give(to, Input::LinkUp(LinkId(id), peer));
        if !self.blocked.contains_key(&(other, to)) {
            self.release_frames(id, to);
        }
    }

    /// Tells a server something of a link, if that end is up in its present run.
    pub(crate) fn tell_link(&mut self, id: u64, to: usize, input: Input) {
        let Some(cable) = self.cables.get_mut(&id) else { return };
        let side = Self::side(cable, to);
        if !cable.up[side] || cable.runs[side] != self.servers[to].run {
            return;
        }
        if matches!(input, Input::LinkDown(_)) {
            cable.up[side] = false;
        }
        self.give(to, input);
    }

    pub(crate) fn on_cable_down(&mut self, id: u64, to: usize) {
        self.tell_link(id, to, Input::LinkDown(LinkId(id)));
    }

    /// A server closed its end: the other learns of it, if the word gets through.
    pub(crate) fn hang_up(&mut self, id: u64, server: usize) {
        let Some(cable) = self.cables.get_mut(&id) else { return };
        let side = Self::side(cable, server);
        let other = cable.ends[1 - side];
        cable.up[side] = false;
        if !self.is_blocked(server, other) {
            let delay = self.delay(server, other);
            self.later(delay, Action::CableDown { cable: id, to: other });
        }
    }

    pub(crate) fn send_said(
        &mut self,
        id: u64,
        from: usize,
        class: Class,
        said: Said,
        cost: usize,
    ) {
        let time = self.time;
        let Some(cable) = self.cables.get(&id) else {
            self.delay(from, from);
            return;
        };
        let side = Self::side(cable, from);
        let (to, up) = (cable.ends[1 - side], cable.up[side]);
        let delay = self.delay(from, to);
        if !up {
            return;
        }
        let delay = delay + self.trouble(from, to, cost);
        let Some(cable) = self.cables.get_mut(&id) else { return };
        let nth = Class::ALL.iter().position(|c| *c == class).unwrap_or(0);
        let last = &mut cable.last[1 - side][nth];
        *last = (*last).max(time + Duration::from_micros(delay));
        let at = *last;
        self.at(at, Action::Frame { cable: id, to, class, said, cost, sent: time });
    }

    pub(crate) fn on_frame(
        &mut self,
        id: u64,
        to: usize,
        class: Class,
        said: Said,
        cost: usize,
        sent: Time,
    ) -> Result<(), String> {
        let Some(cable) = self.cables.get_mut(&id) else { return Ok(()) };
        let side = Self::side(cable, to);
        let (from, up) = (cable.ends[1 - side], cable.up[side]);
        let waits = self.blocked.contains_key(&(from, to)) || !cable.came[side];
        if waits || !cable.held[side].is_empty() {
            cable.held[side].push_back((class, said, cost, sent));
            self.bite_by_cut(from, to);
            return Ok(());
        }
        self.tape_said(from, to, sent, &said);
        match said {
            Said::Frame(frame) => {
                self.tell_link(id, from, Input::Wrote(LinkId(id), class, cost));
                self.tell_link(id, to, Input::Frame(LinkId(id), (*frame).clone()));
                Ok(())
            }
            Said::Unknown(kind, body, nth) if up => self.on_unknown(kind, &body, nth),
            Said::Unknown(..) => Ok(()),
        }
    }

    /// The queue of a slow link is dropped by its owner.
    pub(crate) fn drop_queue(&mut self, id: u64, from: usize, class: Class) {
        if let Some(cable) = self.cables.get_mut(&id) {
            let side = Self::side(cable, from);
            cable.held[1 - side].retain(|(of, ..)| *of != class);
        }
    }

    pub(crate) fn block(&mut self, from: usize, to: usize, cause: Cause) {
        self.blocked.entry((from, to)).or_default().push(cause);
        self.note_ways();
    }

    /// A way is free again: what was held arrives, in order.
    pub(crate) fn unblock(&mut self, from: usize, to: usize, cause: Cause) {
        if let Some(causes) = self.blocked.get_mut(&(from, to)) {
            take_out(causes, cause);
            if !causes.is_empty() {
                return;
            }
            self.blocked.remove(&(from, to));
            self.note_ways();
        }
        let ids: Vec<u64> = self.cables.keys().copied().collect();
        for id in ids {
            let Some(cable) = self.cables.get_mut(&id) else { continue };
            let side = Self::side(cable, to);
            if cable.ends[side] == to && cable.ends[1 - side] == from && cable.came[side] {
                self.release_frames(id, to);
            }
        }
    }

    /// What was held arrives now, in order.
    fn release_frames(&mut self, id: u64, to: usize) {
        let Some(cable) = self.cables.get_mut(&id) else { return };
        let side = Self::side(cable, to);
        for (class, said, cost, sent) in std::mem::take(&mut cable.held[side]) {
            self.at(self.time, Action::Frame { cable: id, to, class, said, cost, sent });
        }
    }

    /// A client dials.
    pub(crate) fn on_dial(&mut self, person: usize, conn: u64, server: usize) {
        let server = self.answers_at(person, server);
        if self.people[person].is_cut() {
            return self.bite_by_client_cut(person); // nothing answers
        }
        let target = &self.servers[server];
        if target.is_paused(self.time) {
            return self.bite(Fault::Pause, Place::Server(server));
        }
        if !target.is_alive() {
            if self.luck.of(Stream::Client(person)).one_in(2) {
                let delay = self.client_delay(person);
                self.later(delay, Action::Disconnected { person, conn });
            }
            return;
        }
        if target.expired.is_some() {
            self.bite_by_certificate(server);
            let delay = 2 * self.client_delay(person);
            return self.later(delay, Action::Disconnected { person, conn });
        }
        let run = target.run;
        let id = self.next_id();
        let line = Line {
            person,
            conn: Conn(conn),
            server,
            run,
            up_at_server: true,
            up_at_client: true,
            last_request: self.time,
            last_item: self.time,
            held_items: VecDeque::new(),
            held_requests: VecDeque::new(),
        };
        self.lines.insert(id, line);
        self.give(server, Input::SessionUp(SessionId(id)));
        self.connected(person, Conn(conn));
    }

    /// Who answers at a server's address: it, or a copy of it that runs.
    fn answers_at(&mut self, person: usize, server: usize) -> usize {
        let copy = (self.swarm.servers..self.servers.len())
            .find(|n| self.servers[*n].place == server && self.servers[*n].is_alive());
        match copy {
            Some(copy) if self.luck.of(Stream::Client(person)).one_in(2) => copy,
            _ => server,
        }
    }

    pub(crate) fn line_of(&self, person: usize, conn: Conn) -> Option<u64> {
        let mut lines = self.lines.iter().rev();
        lines.find(|(_, line)| line.person == person && line.conn == conn).map(|(id, _)| *id)
    }

    pub(crate) fn send_request(&mut self, id: u64, request: Request) {
        let person = self.lines.get(&id).map_or(0, |line| line.person);
        let delay = self.client_delay(person);
        let sent = self.time;
        let Some(line) = self.lines.get_mut(&id) else { return };
        line.last_request = line.last_request.max(sent + Duration::from_micros(delay));
        let at = line.last_request;
        self.at(at, Action::Request { line: id, request, sent });
    }

    pub(crate) fn on_request(&mut self, id: u64, request: Request, sent: Time) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        if self.people[line.person].is_cut() || !line.held_requests.is_empty() {
            line.held_requests.push_back((request, sent));
            let person = line.person;
            return self.bite_by_client_cut(person);
        }
        let (person, server) = (line.person, line.server);
        self.tape_request(person, server, sent, &request);
        self.session_input(id, |session| Input::Request(session, request));
    }

    pub(crate) fn send_item(&mut self, id: u64, item: &Arc<Item>, cost: usize) {
        let person = self.lines.get(&id).map_or(0, |line| line.person);
        let delay = self.client_delay(person);
        let time = self.time;
        let Some(line) = self.lines.get_mut(&id) else { return };
        let reader = &mut self.people[person];
        if line.up_at_client
            && matches!(**item, Item::Sent(_))
            && let Some(strike) = reader.loses_answer.take()
        {
            let conn = line.conn.0;
            self.later(0, Action::Disconnected { person, conn });
            self.later(0, Action::SessionDown { line: id });
            self.struck(strike);
            return;
        }
        let takes = if reader.slow.1 > time { reader.slow.0 } else { 0 };
        line.last_item = line.last_item.max(time + Duration::from_micros(delay));
        line.last_item = line.last_item + Duration::from_micros(takes);
        let at = line.last_item;
        self.at(at, Action::Item { line: id, item: item.clone(), cost, sent: time });
        if takes > 0 {
            self.bite(Fault::SlowClient, Place::Client(person));
        }
    }

    pub(crate) fn on_item(
        &mut self,
        id: u64,
        item: &Arc<Item>,
        cost: usize,
        sent: Time,
    ) -> Result<(), String> {
        let Some(line) = self.lines.get_mut(&id) else { return Ok(()) };
        if self.people[line.person].is_cut() || !line.held_items.is_empty() {
            line.held_items.push_back((item.clone(), cost, sent));
            let person = line.person;
            self.bite_by_client_cut(person);
            return Ok(());
        }
        let (person, conn, up) = (line.person, line.conn, line.up_at_client);
        let server = line.server;
        self.tape_item(person, server, sent, item);
        self.session_input(id, |session| Input::Drained(session, cost));
        if up { self.told(person, conn, (**item).clone()) } else { Ok(()) }
    }

    /// A server ends a session after what is queued.
    pub(crate) fn close_line(&mut self, id: u64) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        line.up_at_server = false;
        let (person, conn, at) = (line.person, line.conn.0, line.last_item);
        self.at(at.max(self.time), Action::Disconnected { person, conn });
        self.give_down(id);
    }

    fn give_down(&mut self, id: u64) {
        let Some(line) = self.lines.get(&id) else { return };
        let (server, run) = (line.server, line.run);
        if self.servers[server].run == run {
            self.give(server, Input::SessionDown(SessionId(id)));
        }
    }

    /// A client dropped its connection: the server hears of it, or notices after the idle time.
    pub(crate) fn client_hung_up(&mut self, id: u64) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        line.up_at_client = false;
        let person = line.person;
        let cut = self.people[person].is_cut();
        let delay = if cut { 10_000_000 } else { self.client_delay(person) };
        self.later(delay, Action::SessionDown { line: id });
    }

    pub(crate) fn on_session_down(&mut self, id: u64) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        if std::mem::replace(&mut line.up_at_server, false) {
            self.give_down(id);
        }
        self.lines.remove(&id);
    }

    /// A client is reached again: what was held arrives, in order.
    pub(crate) fn release_lines(&mut self, person: usize) {
        let ids: Vec<u64> =
            self.lines.iter().filter(|(_, l)| l.person == person).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(line) = self.lines.get_mut(&id) else { continue };
            let items = std::mem::take(&mut line.held_items);
            let requests = std::mem::take(&mut line.held_requests);
            for (item, cost, sent) in items {
                self.at(self.time, Action::Item { line: id, item, cost, sent });
            }
            for (request, sent) in requests {
                self.at(self.time, Action::Request { line: id, request, sent });
            }
        }
    }
}

/// Takes one of them out.
pub(crate) fn take_out(causes: &mut Vec<Cause>, cause: Cause) {
    if let Some(at) = causes.iter().position(|other| *other == cause) {
        causes.remove(at);
    }
}
