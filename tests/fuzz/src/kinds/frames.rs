//! Frames between servers.

use std::collections::BTreeSet;
use std::sync::Arc;

use chatty_core::event::{CHAIN_START, Retention};
use chatty_core::frame::{
    Common, Digest, Events, Frame, Have, Haves, Hello, Lagging, Leaving, Load, Logs, Ping,
    PresenceUpdate, Push, Range, RolledBack, SERVER_MINOR, Want,
};
use chatty_core::id::{AccountId, Slot};
use chatty_core::session::ServerState;
use chatty_core::wire::Wire as _;

use super::{Kind, LOG, STANDINGS, count, event, every, number_of, numbered, numbers, room, text};

every! {
    PUSHES: Push = Unchanged Start;
}

const FIRST: &str = "first-hello";

/// One of each kind; and the first of a connection, which is read by itself.
pub(super) fn values() -> Vec<Kind> {
    let hellos: Vec<Hello> = STANDINGS.iter().map(|standing| hello(*standing)).collect();
    let first = hellos.iter().map(|hello| (text(FIRST), hello_body(hello)));
    let mut all = count(first.collect());
    let frames = hellos.into_iter().map(Frame::Hello).chain(others()).chain(wants());
    all.extend(numbered(frames.collect()));
    all
}

pub(super) fn known() -> BTreeSet<String> {
    let mut known = numbers::<Frame>();
    known.insert(text(FIRST));
    known
}

/// An input is a frame, or the body of the first.
pub(super) fn of(bytes: &[u8]) -> BTreeSet<String> {
    let mut kinds = number_of::<Frame>(bytes);
    let first = Hello::decode(bytes).ok().filter(|hello| hello_body(hello) == bytes);
    kinds.extend(first.map(|_| text(FIRST)));
    kinds
}

/// As a connection's first frame is read: its body without its kind.
fn hello_body(hello: &Hello) -> Vec<u8> {
    let mut body = Vec::new();
    Frame::Hello(hello.clone()).encode_body(&mut body);
    body
}

fn hello(standing: chatty_core::io::Standing) -> Hello {
    let voters = ["s1", "s2"].map(|name| Slot::new(name).expect("a name")).into();
    let common = Some(Common { voters, retention: Retention { age_ms: 7, messages: 8 } });
    let (origin, addr) = (LOG.origin, "s1:7".into());
    Hello { minor: SERVER_MINOR, origin, wall_ms: 9, addr, standing, common }
}

fn wants() -> impl Iterator<Item = Frame> {
    PUSHES.iter().map(|push| Frame::Want(Want { log: LOG, from: 1, to: 2, push: *push }))
}

fn others() -> Vec<Frame> {
    let ping = Ping { sent_micros: 5, clock_ms: 6 };
    let events = vec![Arc::new(event(1)), Arc::new(event(2))];
    let chain = events.iter().fold(CHAIN_START, |chain, event| event.chain(chain));
    let haves = Haves { haves: vec![Have { log: LOG, upto: 2, chain }] };
    let logs = Logs { logs: vec![LOG] };
    let in_room = (AccountId::new(1), Some(room()));
    let attached = (AccountId::new(2), None);
    vec![
        Frame::Ping(ping),
        Frame::Pong(ping),
        Frame::Digest(Digest::of(haves.haves.clone())),
        Frame::Vector(haves.clone()),
        Frame::Have(haves),
        Frame::Prune(logs.clone()),
        Frame::Lagging(Lagging {}),
        Frame::Leaving(Leaving {}),
        Frame::Events(Events { log: LOG, base: 1, hops: 0, events: events.clone(), chain }),
        Frame::Range(Range { log: LOG, base: 1, events, chain, done: true }),
        Frame::Range(Range { log: LOG, base: 3, events: Vec::new(), chain: 0, done: false }),
        Frame::Presence(PresenceUpdate { full: true, here: vec![attached, in_room], gone: vec![] }),
        Frame::Presence(PresenceUpdate { full: false, here: vec![attached], gone: vec![in_room] }),
        Frame::RolledBack(RolledBack { log: LOG, announced: 3, held: 2 }),
        Frame::Forked(logs),
        Frame::Load(Load { clients: 7, state: ServerState::Ready }),
    ]
}
