//! Numbers that no log can have.

use std::sync::Arc;

use super::start::link_up;
use super::world::*;
use crate::config::Limits;
use crate::event::Event;
use crate::frame::{Events, Frame, Have, Haves, Push, Range, Want};
use crate::id::{AccountId, LinkId, Log, Mid, Origin, RoomId, SEQ_MAX};
use crate::io::Input;
use crate::store::{Loaded, LoadedLog};
use crate::time::Hlc;

const LOG: Log = Log::of(Origin::at(WALL_MS, 9));

fn event(seq: u64) -> Event {
    Event {
        seq,
        hlc: Hlc::at_ms(seq),
        wall_ms: 0,
        room: RoomId::new(1),
        actor: AccountId::new(1),
        mid: Mid::new(1),
        kind: 77,
        body: Vec::new(),
    }
}

/// Whether a peer is still linked after that frame, and after everything that follows from it.
fn is_taken(loaded: &Loaded, frame: Frame) -> bool {
    let mut world = world_of(Limits::default(), 3, loaded);
    link_up(&mut world, 2);
    world.give(Input::Frame(LinkId(2), frame));
    let taken = world.replica.links.contains_key(&LinkId(2));
    world.pass_ms(1000);
    taken
}

#[test]
fn a_peer_that_counts_beyond_what_a_log_can_have_is_cut_off() {
    let none = Loaded::default();
    for (upto, taken) in [(SEQ_MAX, true), (SEQ_MAX + 1, false), (u64::MAX, false)] {
        let haves = || Haves { haves: vec![Have { log: LOG, upto, chain: 1 }] };
        assert_eq!(is_taken(&none, Frame::Have(haves())), taken, "have {upto}");
        assert_eq!(is_taken(&none, Frame::Vector(haves())), taken, "vector {upto}");
        let events = || vec![Arc::new(event(upto))];
        let push = Events { log: LOG, base: upto, hops: 0, events: events(), chain: 1 };
        assert_eq!(is_taken(&none, Frame::Events(push)), taken, "events {upto}");
        let range = Range { log: LOG, base: upto, events: events(), chain: 1, done: true };
        assert_eq!(is_taken(&none, Frame::Range(range)), taken, "range {upto}");
    }
}

#[test]
fn a_log_that_is_as_long_as_a_log_can_be_is_served_and_takes_no_more() {
    let head = LoadedLog { log: LOG, upto: SEQ_MAX, chain: 1, hlc: Hlc::at_ms(5) };
    let full = Loaded { logs: vec![head], ..Loaded::default() };
    let have = Have { log: LOG, upto: SEQ_MAX, chain: 1 };
    assert!(is_taken(&full, Frame::Vector(Haves { haves: vec![have] })));
    let want = Want { log: LOG, from: u64::MAX, to: u64::MAX, push: Push::Start };
    assert!(is_taken(&full, Frame::Want(want)));
    let next = Events {
        log: LOG,
        base: SEQ_MAX + 1,
        hops: 0,
        events: vec![Arc::new(event(SEQ_MAX + 1))],
        chain: 1,
    };
    assert!(!is_taken(&full, Frame::Events(next)));
}
