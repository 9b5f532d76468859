//! What things count for is what they take, about.

use std::sync::Arc;

use super::world::*;
use crate::event::{Event, Rank, Retention};
use crate::id::{AccountId, Log, Mid, Origin, RequestId, RoomId, ServerId, Slot};
use crate::io::Standing;
use crate::session::*;
use crate::sessions::deliver::cost_of;
use crate::sessions::size;
use crate::time::{Hlc, Key};
use crate::vector::Vector;
use crate::wire::Wire;

const REQUEST: RequestId = RequestId(7);

fn line(bytes: usize) -> Line {
    let event = Event {
        seq: 1 << 40,
        hlc: Hlc::from_bits(u64::MAX),
        wall_ms: WALL_MS,
        room: RoomId::new(u128::MAX),
        actor: AccountId::new(u128::MAX),
        mid: Mid::new(u128::MAX),
        kind: 2,
        body: vec![7; bytes],
    };
    Line { origin: Origin::new(u128::MAX), event: Arc::new(event) }
}

fn vector(logs: u128) -> Vector {
    (1..=logs).map(|n| (Log::of(Origin::new(u128::MAX - n)), 1 << 48)).collect()
}

fn slot(n: usize) -> Slot {
    Slot::new(format!("server-{n}")).unwrap()
}

fn one_letter() -> Slot {
    Slot::new("s").unwrap()
}

fn info(n: usize) -> RoomInfo {
    RoomInfo {
        id: RoomId::new(u128::MAX),
        name: "n".repeat(n),
        topic: "t".repeat(3 * n),
        participants: u32::MAX,
        messages: u64::MAX,
        keep: Retention { age_ms: u64::MAX, messages: 1_000_000 },
    }
}

fn participant(n: usize) -> Participant {
    Participant {
        account: AccountId::new(u128::MAX),
        nick: "n".repeat(2 * n),
        rank: Rank::Op,
        member: true,
        servers: (0..n).map(slot).collect(),
    }
}

fn digest(n: usize) -> RoomDigest {
    RoomDigest { room: "r".repeat(n), messages: u64::MAX, digest: u64::MAX }
}

fn status(rooms: Vec<RoomDigest>, vector: Vector) -> Item {
    Item::Status(Status {
        request: REQUEST,
        server: slot(1),
        disk: ServerId::new(1),
        origin: Origin::new(1),
        state: ServerState::Ready,
        standing: Standing::Sound,
        links: Vec::new(),
        vector,
        rooms,
        more: false,
        lag: 0,
        sessions: 0,
        uptime_s: 0,
        certificate_ends_ms: None,
    })
}

/// A queue bounded by what its items count for is bounded in memory and on the wire; and nobody's
/// queue is called full when it is nearly empty.
#[test]
fn items_count_for_what_they_take_on_the_wire_and_not_for_much_more() {
    for n in [1, 30, 60] {
        let (room, more) = (RoomId::new(1), false);
        let shown = Shown { line: line(100 * n), late: false };
        let lines: Vec<Line> = (0..n).map(|_| line(100)).collect();
        let opened =
            OpenedRoom { id: room, name: "x".into(), since: Hlc::default(), topic: String::new() };
        let items = [
            Item::Event(shown.clone()),
            Item::Moved(Moved { shown, from: Key::MAX }),
            Item::Page(Page {
                request: REQUEST,
                lines: lines.clone(),
                more,
                complete: true,
                unreachable: Vec::new(),
            }),
            Item::RoomOpened(RoomOpened {
                request: REQUEST,
                room: opened,
                lines,
                complete: true,
                unreachable: Vec::new(),
            }),
            Item::Rooms(RoomList { request: REQUEST, rooms: vec![info(n); n], more }),
            Item::Participants(Participants {
                request: REQUEST,
                room: "x".into(),
                people: vec![participant(n); n],
                more,
            }),
            Item::Participants(Participants {
                request: REQUEST,
                room: "x".into(),
                people: vec![Participant { servers: vec![one_letter(); 10 * n], ..participant(1) }],
                more,
            }),
            status(vec![digest(n); n], Vector::new()),
            status(Vec::new(), vector(n as u128)),
            status(vec![digest(n); n], vector(n as u128)),
            Item::Token(TokenBytes { token: vec![7; 100 * n], vector: Vector::new() }),
            Item::Token(TokenBytes { token: vec![7; n], vector: vector(n as u128) }),
            Item::Replicated(Replicated { mids: vec![(Mid::new(u128::MAX), 7); n] }),
        ];
        for item in items {
            let mut bytes = Vec::new();
            item.encode_body(&mut bytes);
            let (wire, counted) = (bytes.len(), cost_of(&item));
            // The numbers of a line here are longer than any in this century.
            assert!(
                counted + counted / 8 >= wire,
                "{counted} for {wire} bytes of kind {}",
                item.kind()
            );
            let most = wire + wire / 2 + 256 + 100 * n;
            assert!(counted <= most, "{counted} for {wire} bytes of kind {}", item.kind());
        }
    }
}

#[test]
fn requests_count_for_what_they_take_in_memory_and_are_bounded_by_their_texts() {
    let target = |n: usize| Target::Room("r".repeat(n));
    let send = |to: Target, text: usize| {
        let (mid, level, text) = (Mid::new(1), Level::Stored, "x".repeat(text));
        Request::Send(Send { request: REQUEST, to, mid, text, level })
    };
    let base = size::bytes(&Request::Ping(Plain { request: REQUEST }));
    assert_eq!(size::bytes(&send(target(10), 300)), base + 310);
    let mark = |n: usize| {
        Request::Mark(Mark { request: REQUEST, shown: vec![(RoomId::new(1), Key::MAX); n] })
    };
    let each = size_of::<(RoomId, Key)>();
    assert_eq!(size::bytes(&mark(10)), base + 10 * each);

    let said = |request: &Request| size::too_long(request).unwrap_or_default();
    assert_eq!(said(&mark(MARKS_MAX)), "");
    assert_eq!(said(&mark(MARKS_MAX + 1)), "at most 512 marks fit a request");
    assert_eq!(said(&send(target(256), 16_384)), "");
    assert_eq!(said(&send(target(257), 1)), "the name has 257 bytes; at most 256 fit");
    let nick = Target::Nick("n".repeat(257));
    assert_eq!(said(&send(nick, 1)), "the name has 257 bytes; at most 256 fit");
    assert_eq!(said(&send(target(1), 16_385)), "the text has 16385 bytes; at most 16384 fit");
    assert_eq!(said(&send(Target::Account(AccountId::new(1)), 1)), "");
    let kick = |reason: usize| {
        let (room, nick, reason) = ("r".into(), "n".into(), "x".repeat(reason));
        Request::Kick(Kick { request: REQUEST, room, nick, reason })
    };
    assert_eq!(said(&kick(1024)), "");
    assert_eq!(said(&kick(1025)), "the reason has 1025 bytes; at most 1024 fit");
}
