//! A toy cluster, faithful where a client can tell: every server has its own log and receives the
//! others' in order; what a client sends may be stored and its answer lost; any server may be left
//! at any moment; a server replays, room by room, what the cursor does not cover.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::session::Opened;

const SERVERS: usize = 3;

/// What happens next in a random history.
#[derive(Clone, Debug)]
enum Step {
    /// The program says something.
    Say,
    /// Somebody else says something at that server.
    Other(usize),
    /// That server takes in what it lacks of that other one's log.
    Sync(usize, usize),
    /// The attached server reads so many of the client's requests.
    Serve(usize),
    /// The attached server sends a token.
    Token,
    /// The connection breaks: requests and items in flight are lost.
    Break,
    /// Lines wait too long and are dropped.
    Gap,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Say),
        3 => (0..SERVERS).prop_map(Step::Other),
        4 => (0..SERVERS, 0..SERVERS).prop_map(|(a, b)| Step::Sync(a, b)),
        4 => (1..6usize).prop_map(Step::Serve),
        2 => Just(Step::Token),
        2 => Just(Step::Break),
        1 => Just(Step::Gap),
    ]
}

#[derive(Default)]
struct Server {
    /// Log by log, what it holds.
    logs: BTreeMap<u128, Vec<Line>>,
    mids: BTreeSet<Mid>,
}

impl Server {
    fn vector(&self) -> Vector {
        let entry = |(origin, lines): (&u128, &Vec<Line>)| {
            (Log::of(Origin::new(*origin)), lines.len() as u64)
        };
        self.logs.iter().map(entry).collect()
    }

    fn timeline(&self) -> Vec<Line> {
        let mut lines: Vec<_> = self.logs.values().flatten().cloned().collect();
        lines.sort_by_key(Line::key);
        let mut seen = BTreeSet::new();
        lines.retain(|line| seen.insert(line.event.mid));
        lines
    }
}

struct World {
    client: Client,
    servers: Vec<Server>,
    clock: u64,
    attached: Option<(Conn, usize)>,
    requests: std::collections::VecDeque<Request>,
    said: u64,
    others: u64,
    /// Lines the client was told of, in order.
    told: Vec<Line>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            client: Client::new(config(), 5),
            servers: (0..SERVERS).map(|_| Server::default()).collect(),
            clock: 0,
            attached: None,
            requests: Default::default(),
            said: 0,
            others: 0,
            told: Vec::new(),
        };
        world.advance();
        let open = Ask::Open { room: "lobby".into(), last: 10, mode: Mode::Watch };
        ask(&mut world.client, world.clock, 0, open);
        world.drain();
        world.serve(10);
        world
    }

    /// Time passes, long enough for every back-off, too short for any silence.
    fn advance(&mut self) {
        self.clock += 200;
        if let Some((conn, _)) = self.attached {
            self.client.handle(at(self.clock), Input::Heard(conn));
        }
        self.client.handle_timeout(at(self.clock));
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::Dial(conn, addr) => {
                    let server = ["s1:1", "s2:1", "s3:1"].iter().position(|a| *a == addr).unwrap();
                    self.attached = Some((conn, server));
                    self.requests.clear();
                    self.client.handle(at(self.clock), Input::Connected(conn));
                }
                Output::Request(conn, Request::Attach(attach)) => self.attach(conn, &attach),
                Output::Request(_, request) => self.requests.push_back(request),
                Output::Hangup(_) => self.attached = None,
                Output::Emit(ClientEvent::Line { line, .. }) => self.told.push(line),
                Output::Keep(..) | Output::Emit(_) => {}
            }
        }
    }

    fn item(&mut self, item: Item) {
        if let Some((conn, _)) = self.attached {
            self.client.handle(at(self.clock), Input::Item(conn, item));
            self.drain();
        }
    }

    fn attach(&mut self, conn: Conn, attach: &Attach) {
        let Some((_, server)) = self.attached else { return };
        let rooms = if attach.rooms.is_empty() { vec![] } else { vec![lobby()] };
        assert!(attach.rooms.iter().all(|Opened { room, .. }| room == "lobby"));
        let welcome = Welcome {
            rooms: rooms.clone(),
            clock_ms: CLOCK_MS + self.clock,
            ..welcome(["s1", "s2", "s3"][server])
        };
        let missed: Vec<_> = self.servers[server]
            .timeline()
            .into_iter()
            .filter(|line| !rooms.is_empty() && !attach.cursor.covers(line.key().event()))
            .collect();
        self.client.handle(at(self.clock), Input::Item(conn, Item::Welcome(welcome)));
        for line in missed {
            self.client.handle(at(self.clock), Input::Item(conn, shown(&line)));
        }
    }

    fn append(&mut self, server: usize, mid: Mid, actor: AccountId, text: &str) -> Line {
        self.clock += 1;
        let origin = server as u128 + 1;
        self.servers[server].mids.insert(mid);
        let log = self.servers[server].logs.entry(origin).or_default();
        let mut event = (*line(origin, log.len() as u64 + 1, self.clock, text).event).clone();
        (event.mid, event.actor) = (mid, actor);
        let line = Line { origin: Origin::new(origin), event: Arc::new(event) };
        log.push(line.clone());
        line
    }

    /// What a server tells its session of lines it has just come to hold.
    fn deliver(&mut self, server: usize, lines: Vec<Line>) {
        if self.attached.is_some_and(|(_, at)| at == server) {
            for line in lines {
                self.item(shown(&line));
            }
        }
    }

    fn serve(&mut self, count: usize) {
        for _ in 0..count {
            let (Some((_, server)), Some(request)) = (self.attached, self.requests.pop_front())
            else {
                return;
            };
            match request {
                Request::Open(open) => {
                    let mut lines = self.servers[server].timeline();
                    lines.drain(..lines.len().saturating_sub(10));
                    let (request, room) = (open.request, lobby());
                    self.item(Item::RoomOpened(RoomOpened {
                        request,
                        room,
                        lines,
                        complete: true,
                        unreachable: vec![],
                    }));
                }
                Request::Send(send) => {
                    if !self.servers[server].mids.contains(&send.mid) {
                        let line = self.append(server, send.mid, ME, &send.text);
                        self.deliver(server, vec![line]);
                    }
                    self.item(sent(&send, Level::Stored));
                }
                Request::History(history) => {
                    let mut lines = self.servers[server].timeline();
                    lines.retain(|line| history.before.is_none_or(|before| line.key() < before));
                    let skip = lines.len().saturating_sub(3);
                    lines.drain(..skip);
                    let (request, more) = (history.request, skip > 0);
                    let unreachable = vec![];
                    self.item(Item::Page(Page {
                        request,
                        lines,
                        more,
                        complete: true,
                        unreachable,
                    }));
                }
                _ => {}
            }
        }
    }

    fn sync(&mut self, to: usize, from: usize) {
        if to == from {
            return;
        }
        for (origin, lines) in self.servers[from].logs.clone() {
            let server = &mut self.servers[to];
            let have = server.logs.get(&origin).map_or(0, Vec::len);
            let Some(fresh) = lines.get(have..).filter(|fresh| !fresh.is_empty()) else { continue };
            server.logs.entry(origin).or_default().extend_from_slice(fresh);
            server.mids.extend(fresh.iter().map(|line| line.event.mid));
            self.deliver(to, fresh.to_vec());
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Say => {
                self.said += 1;
                let (ticket, to) = (Ticket(self.said), Target::Room("lobby".into()));
                let (text, level) = (self.said.to_string(), Level::Stored);
                let send = Command::Send { ticket, to, text, level };
                self.client.handle(at(self.clock), Input::Command(send));
                self.drain();
            }
            Step::Other(server) => {
                self.others += 1;
                let mid = Mid::new(self.others.into());
                let line = self.append(server, mid, AccountId::new(8), "other");
                self.deliver(server, vec![line]);
            }
            Step::Sync(to, from) => self.sync(to, from),
            Step::Serve(count) => self.serve(count),
            Step::Token => {
                if let Some((_, server)) = self.attached {
                    let (token, vector) = (vec![2], self.servers[server].vector());
                    self.item(Item::Token(TokenBytes { token, vector }));
                }
            }
            Step::Break => {
                if let Some((conn, _)) = self.attached.take() {
                    self.requests.clear();
                    let gone = Input::Disconnected(conn, "broken".into());
                    self.client.handle(at(self.clock), gone);
                    self.drain();
                    self.advance();
                }
            }
            Step::Gap => {
                // Another log grows here and its lines are dropped, then the server says so.
                let Some((_, server)) = self.attached else { return };
                let open = self.client.room_name(RoomId::public("lobby")).is_some();
                self.others += 1;
                let mid = Mid::new(self.others.into());
                self.append(server, mid, AccountId::new(8), "dropped");
                if open {
                    self.item(Item::Gap(Gap {
                        room: RoomId::public("lobby"),
                        since: Key::MIN,
                        with: None,
                    }));
                }
            }
        }
    }

    /// All faults end: everything reaches every server and the client's.
    fn heal(&mut self) {
        for _ in 0..10 {
            self.advance();
            for (to, from) in (0..SERVERS).flat_map(|to| (0..SERVERS).map(move |f| (to, f))) {
                self.sync(to, from);
            }
            self.serve(1000);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Once healed the client was told every message exactly once, and its own are in the
    /// timeline in the order in which they were said.
    #[test]
    fn nothing_is_lost_told_twice_or_reordered(steps in prop::collection::vec(step(), 0..80)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.heal();
        let told: Vec<_> = world.told.iter().map(|line| line.event.mid).collect();
        let set: BTreeSet<_> = told.iter().copied().collect();
        prop_assert_eq!(told.len(), set.len(), "told twice");
        let timeline = world.servers[0].timeline();
        let all: BTreeSet<_> = timeline.iter().map(|line| line.event.mid).collect();
        prop_assert_eq!(&set, &all, "lost");
        let mut own: Vec<_> = timeline.iter().filter(|line| line.event.actor == ME).collect();
        prop_assert_eq!(own.len() as u64, world.said);
        own.sort_by_key(|line| line.event.mid);
        let texts: Vec<u64> = own.iter().map(|line| {
            let Some(Body::Msg(msg)) = line.event.body() else { panic!("no message") };
            msg.text.parse().unwrap()
        }).collect();
        prop_assert!(texts.is_sorted(), "ids rise in the order of saying: {texts:?}");
        prop_assert_eq!(world.client.outstanding().0, 0);
    }
}
