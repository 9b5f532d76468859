//! Events, and their bodies alone.

use std::collections::BTreeSet;

use chatty_core::event::{
    Body, Boot, Direct, Event, Floor, Join, Keep, Kick, Leave, Mark, Msg, Nick, Retention, Role,
    RoomCreate, Topic, VOID,
};
use chatty_core::id::{ServerId, Slot};

use super::{Kind, LOG, RANKS, account, count, event, event_of, text, vector};

/// Each kind, what is left of an event, and one that this version does not know: kept and passed on.
pub(super) fn values() -> Vec<Kind> {
    let mut named = Vec::new();
    for body in bodies() {
        let name = name_of(body.kind());
        named.push((format!("body-{name}"), write_body(&body)));
        named.push((name, write(&event_of(1, body))));
    }
    named.push((name_of(VOID), write(&event(1).void())));
    let newer = Event { kind: u16::MAX, body: vec![1, 2, 3], ..event(1) };
    named.push((name_of(newer.kind), write(&newer)));
    count(named)
}

pub(super) fn known() -> BTreeSet<String> {
    let bodies = Body::KINDS.iter().map(|(_, name)| format!("body-{name}"));
    let events = Body::KINDS.iter().map(|(_, name)| (*name).to_owned());
    bodies.chain(events).chain([name_of(VOID), name_of(u16::MAX)]).collect()
}

/// An input may be both: a body behind its kind, and an event.
pub(super) fn of(bytes: &[u8]) -> BTreeSet<String> {
    let body = bytes.split_first().and_then(|(kind, body)| Body::decode((*kind).into(), body));
    let body = body.filter(|body| write_body(body) == bytes);
    let event = postcard::from_bytes::<Event>(bytes).ok().filter(|event| write(event) == bytes);
    let sound = |event: &Event| {
        Body::KINDS.iter().all(|(kind, _)| *kind != event.kind) || event.body().is_some()
    };
    let event = event.filter(sound);
    let body = body.map(|body| format!("body-{}", name_of(body.kind())));
    body.into_iter().chain(event.map(|event| name_of(event.kind))).collect()
}

fn name_of(kind: u16) -> String {
    match Body::KINDS.iter().find(|(number, _)| *number == kind) {
        Some((_, name)) => (*name).to_owned(),
        None if kind == VOID => text("void"),
        None => text("newer"),
    }
}

fn write(event: &Event) -> Vec<u8> {
    postcard::to_allocvec(event).expect("an event")
}

fn write_body(body: &Body) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(body.kind()).expect("a small kind")];
    bytes.extend(body.encode());
    bytes
}

pub(super) fn bodies() -> Vec<Body> {
    let (nick, bob) = (|| text("ann"), || text("bob"));
    let boot = Boot {
        server: ServerId::new(1),
        slot: Slot::new("s1").expect("a name"),
        generation: 1,
        prev: Some((LOG.origin, 3)),
        addr: text("s1:7"),
    };
    let mut all = vec![boot.clone().into(), Boot { prev: None, ..boot }.into()];
    all.extend(RANKS.iter().map(|rank| {
        Role { nick: nick(), account: account(), account_nick: bob(), role: *rank }.into()
    }));
    all.extend([
        Body::from(Msg { nick: nick(), text: text("hello") }),
        Direct { nick: nick(), to: account(), to_nick: bob(), text: text("hello") }.into(),
        Join { nick: nick() }.into(),
        Leave { nick: nick() }.into(),
        Kick { nick: nick(), account: account(), account_nick: bob(), reason: text("spam") }.into(),
        Topic { nick: nick(), text: text("tea") }.into(),
        RoomCreate { name: text("lobby") }.into(),
        Nick { nick: nick(), before: String::new() }.into(),
        Mark { seen: vector() }.into(),
        Keep { nick: nick(), keep: Retention { age_ms: 5, messages: 6 } }.into(),
        Floor { ms: 5 }.into(),
    ]);
    all
}
