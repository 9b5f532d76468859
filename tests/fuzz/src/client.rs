//! A client whose servers say anything.
//!
//! What they say is bytes that happen to be an item, or an item made of likely values: the requests
//! that wait, the rooms that are open, ends of what a number can be. The client must not panic, and
//! may ask only what a server can read.

use std::sync::Arc;

use chatty_core::client::{
    Ask, Client, Command, Config, Conn, Input as Happened, Journal, Output, Ticket,
};
use chatty_core::event::{Event, Msg};
use chatty_core::id::{AccountId, ClusterId, Log, Mid, Origin, RequestId, RoomId, Slot};
use chatty_core::session::{
    Code, Direct, Gap, Item, Level, Line, Mode, Moved, OpenedRoom, Page, Plain, Pong, Refused,
    Replicated, Request, RoomOpened, Sent, ServerAddr, Shown, Target, TokenBytes, Welcome,
};
use chatty_core::time::{Hlc, Key, Time};
use chatty_core::vector::Vector;
use chatty_core::wire::{FRAME_BYTES_MAX, Wire};

use crate::input::Input;

const CLOCK_MS: u64 = 1_700_000_000_000;
const ORIGIN: Origin = Origin::new(5);
/// Steps of one run, at most.
const STEPS: usize = 400;

struct World {
    client: Client,
    now: Time,
    conn: Option<Conn>,
    /// What it asked, newest last; some of them.
    asked: Vec<Request>,
    kept: u64,
    tickets: u64,
}

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let server = |name: &str| ServerAddr {
        name: Slot::new(name).expect("a name"),
        addr: format!("{name}:7"),
    };
    let config = Config {
        servers: vec![server("s1"), server("s2")],
        nick: Some("ann".into()),
        direct: Direct::Take,
        remembered: 4,
        journal: input.byte().is_multiple_of(2).then(Journal::default),
        ..Config::default()
    };
    let mut world = World {
        client: Client::new(config, 1),
        now: Time::from_micros(0),
        conn: None,
        asked: Vec::new(),
        kept: 0,
        tickets: 0,
    };
    world.pass(1);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0..=1 => {
                let (kind, body) = (input.byte(), input.piece());
                if let Ok(item) = Item::decode(kind, body) {
                    self.tell(item);
                }
            }
            2..=9 => {
                let item = self.item(input);
                self.tell(item);
            }
            10..=11 => self.command(input),
            12 => self.pass(u64::from(input.byte()) * 50),
            13 => self.connection(input),
            14 => self.give(Happened::Kept(self.kept)),
            _ => {
                let welcome = Item::Welcome(welcome(input));
                if let Some(conn) = self.conn {
                    self.give(Happened::Connected(conn));
                    self.tell(welcome);
                }
            }
        }
    }

    fn connection(&mut self, input: &mut Input<'_>) {
        let Some(conn) = self.conn else { return };
        let why = String::from("gone");
        self.give(match input.byte() % 6 {
            0 => Happened::Disconnected(conn, why),
            1 => Happened::Stranger(conn, why),
            2 => Happened::Hint(conn),
            3 => Happened::Unkept(why),
            4 => Happened::Heard(conn),
            _ => Happened::Connected(conn),
        });
    }

    fn command(&mut self, input: &mut Input<'_>) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let room = || String::from("lobby");
        let ask = |ask| Command::Ask { ticket, ask };
        let command = match input.byte() % 8 {
            0..=2 => {
                let level = input.one(&[Level::Stored, Level::Replicated]);
                let to = input.one(&[
                    Target::Room(room()),
                    Target::Nick("bob".into()),
                    Target::Account(AccountId::new(2)),
                ]);
                Command::Send { ticket, to, text: "hello".into(), level }
            }
            3..=4 => ask(Ask::Open { room: room(), last: 5, mode: Mode::Join }),
            5 => ask(Ask::History { of: Target::Room(room()), before: None, limit: 3 }),
            6 => ask(Ask::Status),
            _ => ask(Ask::Who { room: room() }),
        };
        self.give(Happened::Command(command));
    }

    fn request(&self, input: &mut Input<'_>) -> RequestId {
        let nth = input.below(4);
        let asked = self.asked.iter().rev().nth(nth);
        asked.map_or(RequestId(nth as u64), request_of)
    }

    fn mid(&self, input: &mut Input<'_>) -> Mid {
        let mut sends = self.asked.iter().rev().filter_map(|request| match request {
            Request::Send(send) => Some(send.mid),
            _ => None,
        });
        let nth = input.below(4);
        sends.nth(nth).unwrap_or(Mid::at(input.number(CLOCK_MS), 1))
    }

    fn line(&self, input: &mut Input<'_>) -> Line {
        let key = key(input);
        let text = String::from_utf8_lossy(input.piece()).into_owned();
        let body = chatty_core::event::Body::from(Msg { nick: "bob".into(), text });
        let event = Event {
            seq: key.seq,
            hlc: key.hlc,
            wall_ms: key.hlc.ms(),
            room: room(input),
            actor: AccountId::new(u128::from(input.byte() % 3)),
            mid: self.mid(input),
            kind: if input.byte().is_multiple_of(4) { input.byte().into() } else { body.kind() },
            body: body.encode(),
        };
        Line { origin: key.origin, event: Arc::new(event) }
    }

    fn item(&self, input: &mut Input<'_>) -> Item {
        let request = self.request(input);
        let lines = |input: &mut Input<'_>| (0..input.below(3)).map(|_| self.line(input)).collect();
        match input.byte() % 16 {
            0..=2 => Item::Sent(Sent {
                request,
                mid: self.mid(input),
                room: room(input),
                key: key(input),
                level: input.one(&[Level::Stored, Level::Replicated]),
                replicas: 2,
                to: input.byte().is_multiple_of(2).then_some(AccountId::new(2)),
            }),
            3 => {
                let mids = vec![(self.mid(input), input.byte().into())];
                Item::Replicated(Replicated { mids })
            }
            4..=6 => {
                let (line, late) = (self.line(input), input.byte().is_multiple_of(2));
                Item::Event(Shown { line, late })
            }
            7 => {
                let shown = Shown { line: self.line(input), late: false };
                Item::Moved(Moved { shown, from: key(input) })
            }
            8 => Item::RoomOpened(RoomOpened {
                request,
                room: opened(input),
                lines: lines(input),
                complete: true,
                unreachable: Vec::new(),
            }),
            9 => {
                let retry_ms = u32::try_from(input.number(5)).unwrap_or(u32::MAX);
                let codes = [Code::Busy, Code::Invalid, Code::NotReady, Code::Kicked, Code::BadMid];
                let (code, reason) = (input.one(&codes), String::from("no"));
                Item::Refused(Refused { request, code, reason, retry_ms })
            }
            10 => Item::Done(Plain { request }),
            11 => Item::Gap(Gap { room: room(input), since: key(input), with: None }),
            12 => {
                let vector: Vector = [(Log::of(ORIGIN), input.number(1))].into_iter().collect();
                Item::Token(TokenBytes { token: vec![1], vector })
            }
            13 => Item::Pong(Pong { request, clock_ms: input.number(CLOCK_MS) }),
            _ => Item::Page(Page {
                request,
                lines: lines(input),
                more: input.byte().is_multiple_of(2),
                complete: true,
                unreachable: Vec::new(),
            }),
        }
    }

    fn tell(&mut self, item: Item) {
        if let Some(conn) = self.conn {
            self.give(Happened::Item(conn, item));
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now = Time::from_micros(self.now.as_micros() + ms * 1000);
        self.client.handle_timeout(self.now);
        self.drain();
    }

    fn give(&mut self, happened: Happened) {
        self.client.handle(self.now, happened);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::Dial(conn, _) => self.conn = Some(conn),
                Output::Request(_, request) => {
                    let mut body = Vec::new();
                    request.encode_body(&mut body);
                    assert!(body.len() < FRAME_BYTES_MAX, "a request that nobody takes");
                    assert_eq!(Request::decode(request.kind(), &body).as_ref(), Ok(&request));
                    self.asked.push(request);
                    if self.asked.len() > 16 {
                        self.asked.remove(0);
                    }
                }
                Output::Hangup(conn) => {
                    self.conn.take_if(|held| *held == conn);
                }
                Output::Keep(nth, notes) => {
                    self.kept = nth;
                    assert!(notes.len() < 10_000);
                }
                Output::Emit(_) => {}
            }
        }
        let _ = (self.client.next_deadline(), self.client.outstanding(), self.client.servers());
    }
}

fn request_of(request: &Request) -> RequestId {
    match request {
        Request::Send(send) => send.request,
        Request::Open(open) => open.request,
        Request::History(history) => history.request,
        Request::Who(who) => who.request,
        Request::Mark(mark) => mark.request,
        Request::Status(plain) | Request::Ping(plain) => plain.request,
        _ => RequestId(0),
    }
}

fn room(input: &mut Input<'_>) -> RoomId {
    match input.byte() % 3 {
        0 => RoomId::direct(AccountId::new(1), AccountId::new(2)),
        _ => RoomId::public("lobby"),
    }
}

fn key(input: &mut Input<'_>) -> Key {
    let hlc = Hlc::from_bits(input.number(Hlc::at_ms(CLOCK_MS).bits()));
    Key { hlc, origin: ORIGIN, seq: input.number(3) }
}

fn opened(input: &mut Input<'_>) -> OpenedRoom {
    let since = Hlc::from_bits(input.number(Hlc::at_ms(CLOCK_MS).bits()));
    OpenedRoom { id: room(input), name: "lobby".into(), since, topic: String::new() }
}

fn welcome(input: &mut Input<'_>) -> Welcome {
    Welcome {
        minor: 0,
        cluster: ClusterId::new(1),
        server: Slot::new("s1").expect("a name"),
        origin: ORIGIN,
        servers: Vec::new(),
        account: AccountId::new(1),
        nick: "ann".into(),
        clock_ms: input.number(CLOCK_MS),
        token: vec![1],
        closed: Vec::new(),
        rooms: (0..input.below(2)).map(|_| opened(input)).collect(),
        stale: vec![(ORIGIN, input.number(2))],
    }
}
