//! Items to a client.

use std::sync::Arc;

use chatty_core::event::Retention;
use chatty_core::id::{AccountId, ClusterId, Mid, RequestId, ServerId, Slot};
use chatty_core::session::{self as s, ClosedWhy, Code, Item, Level, Line, LinkState, ServerState};
use chatty_core::time::Hlc;

use super::{LOG, RANKS, STANDINGS, account, event, every, key, named, room, text, vector};

every! {
    CODES: Code = Invalid Unknown Forbidden Kicked Busy ClockSkew NotReady BadToken Conflict BadMid
        Protocol Storage Expired;
    LEVELS: Level = Stored Replicated;
    STATES: ServerState = Ready CatchingUp Fenced Stopping ReadOnly;
    LINKS: LinkState = Up Suspect Down;
}
named!(ClosedWhy, why, ALL_WHYS = Kicked Left);

const REQUEST: RequestId = RequestId(7);

pub(super) fn values() -> Vec<Item> {
    let mut all = vec![Item::Welcome(welcome())];
    all.extend(CODES.iter().map(|code| Item::Refused(refused(*code))));
    all.extend(LEVELS.iter().map(|level| Item::Sent(sent(*level))));
    all.extend(closed().into_iter().map(Item::RoomClosed));
    all.extend(
        STATES
            .iter()
            .zip(STANDINGS.iter().cycle())
            .map(|(state, standing)| Item::Status(status(*state, *standing))),
    );
    all.extend(rooms());
    all.extend(others());
    all
}

fn slot(name: &str) -> Slot {
    Slot::new(name).expect("a name")
}

fn server(name: &str) -> s::ServerAddr {
    s::ServerAddr { name: slot(name), addr: format!("{name}:7") }
}

fn line() -> Line {
    Line { origin: LOG.origin, event: Arc::new(event(1)) }
}

fn shown() -> s::Shown {
    s::Shown { line: line(), late: true }
}

fn opened() -> s::OpenedRoom {
    s::OpenedRoom { id: room(), name: text("lobby"), since: Hlc::at_ms(5), topic: text("tea") }
}

fn closed() -> Vec<s::RoomClosed> {
    let whys = [ClosedWhy::Kicked { by: text("bob"), reason: text("spam") }, ClosedWhy::Left];
    assert_eq!(whys.each_ref().map(why), ALL_WHYS);
    whys.map(|why| s::RoomClosed { room: room(), name: text("lobby"), why }).into()
}

fn welcome() -> s::Welcome {
    s::Welcome {
        minor: s::CLIENT_MINOR,
        cluster: ClusterId::new(9),
        server: slot("s1"),
        origin: LOG.origin,
        servers: vec![server("s1"), server("s2")],
        account: AccountId::new(1),
        nick: text("ann"),
        clock_ms: 5,
        token: vec![1, 2, 3],
        closed: closed(),
        rooms: vec![opened()],
        stale: vec![(LOG.origin, 3)],
    }
}

fn refused(code: Code) -> s::Refused {
    let retry_ms = if code == Code::Busy { 500 } else { 0 };
    s::Refused { request: REQUEST, code, reason: text("no"), retry_ms }
}

fn sent(level: Level) -> s::Sent {
    let to = (level == Level::Stored).then(account);
    s::Sent {
        request: REQUEST,
        mid: Mid::at(5, 6),
        room: room(),
        key: key(),
        level,
        replicas: 2,
        to,
    }
}

fn status(state: ServerState, standing: chatty_core::io::Standing) -> s::Status {
    let link = |state: &LinkState| s::LinkStatus {
        server: slot("s2"),
        state: *state,
        rtt_micros: 200,
        behind: 1,
    };
    s::Status {
        request: REQUEST,
        server: slot("s1"),
        disk: ServerId::new(1),
        origin: LOG.origin,
        state,
        standing,
        links: LINKS.iter().map(link).collect(),
        vector: vector(),
        rooms: vec![s::RoomDigest { room: text("lobby"), messages: 3, digest: 4 }],
        more: false,
        lag: 1,
        sessions: 2,
        uptime_s: 60,
        certificate_ends_ms: (state == ServerState::Ready).then_some(5),
    }
}

fn rooms() -> Vec<Item> {
    let request = REQUEST;
    let keep = Retention { age_ms: 5, messages: 6 };
    let info = s::RoomInfo {
        id: room(),
        name: text("lobby"),
        topic: text("tea"),
        participants: 2,
        messages: 3,
        keep,
    };
    let people = RANKS.iter().map(|rank| s::Participant {
        account: account(),
        nick: text("bob"),
        rank: *rank,
        member: true,
        servers: vec![slot("s1")],
    });
    let people = people.collect();
    vec![
        Item::Rooms(s::RoomList { request, rooms: vec![info], more: false }),
        Item::Participants(s::Participants { request, room: text("lobby"), people, more: true }),
        Item::TopicIs(s::TopicIs { request, room: text("lobby"), topic: text("tea") }),
    ]
}

fn others() -> Vec<Item> {
    let request = REQUEST;
    let (complete, unreachable) = (false, vec![slot("s3")]);
    let (mids, since, vector) = (vec![(Mid::at(5, 6), 2)], key(), vector());
    vec![
        Item::Done(s::Plain { request }),
        Item::Replicated(s::Replicated { mids }),
        Item::RoomOpened(s::RoomOpened {
            request,
            room: opened(),
            lines: vec![line()],
            complete,
            unreachable: unreachable.clone(),
        }),
        Item::Event(shown()),
        Item::Page(s::Page { request, lines: vec![line()], more: true, complete, unreachable }),
        Item::Named(s::Named { request, nick: text("ann~1"), taken: Some(text("ann")) }),
        Item::Token(s::TokenBytes { token: vec![1, 2, 3], vector }),
        Item::Gap(s::Gap { room: room(), since, with: Some(account()) }),
        Item::Leaving(s::Moving { servers: vec![server("s2")] }),
        Item::Pong(s::Pong { request, clock_ms: 5 }),
        Item::Verified(s::Verified { request, events: 5, done: true, damage: Some(text("a row")) }),
        Item::Moved(s::Moved { shown: shown(), from: since }),
    ]
}
