//! When a new run takes clients.

use super::world::*;
use crate::config::Limits;
use crate::frame::{Frame, Have, Haves};
use crate::id::{LinkId, Log, Origin, ServerId, Slot};
use crate::io::{Input, Peer, Standing};
use crate::session::ServerState;
use crate::store::{Loaded, LoadedLog};
use crate::time::Hlc;

const LOG: Log = Log::of(Origin::new(77));

fn link(world: &mut World, n: u64, haves: &[(u64, u64)]) {
    link_up(world, n);
    let haves = haves.iter().map(|(upto, chain)| Have { log: LOG, upto: *upto, chain: *chain });
    let frame = Frame::Vector(Haves { haves: haves.collect() });
    world.give(Input::Frame(LinkId(n), frame));
}

pub(super) fn link_up(world: &mut World, n: u64) {
    let peer = Peer {
        slot: Slot::new(format!("s{n}")).unwrap(),
        generation: 1,
        server: ServerId::new(n.into()),
        origin: Origin::new(n.into()),
        standing: Standing::Sound,
    };
    world.give(Input::LinkUp(LinkId(n), peer));
}

fn at(world: &mut World, ms: u64) -> ServerState {
    for _ in 0..ms / 100 {
        world.pass_ms(100);
        // Whoever is linked lives.
        for n in [2, 3] {
            world.give(Input::Frame(LinkId(n), Frame::Have(Haves { haves: Vec::new() })));
        }
    }
    world.replica.state()
}

#[test]
fn what_only_a_dead_server_has_is_not_waited_for() {
    let mut world = world_of(Limits::default(), 3, &Loaded::default());
    link(&mut world, 2, &[(5, 1)]);
    link(&mut world, 3, &[]);
    assert_eq!(at(&mut world, 10_000), ServerState::CatchingUp, "it may still give it");
    world.give(Input::LinkDown(LinkId(2)));
    assert_eq!(at(&mut world, 500), ServerState::CatchingUp, "it may come again");
    link(&mut world, 2, &[(5, 1)]);
    assert_eq!(at(&mut world, 5000), ServerState::CatchingUp);
    world.give(Input::LinkDown(LinkId(2)));
    assert_eq!(at(&mut world, 1200), ServerState::Ready);
}

#[test]
fn a_forked_log_is_not_waited_for() {
    let held = LoadedLog { log: LOG, upto: 5, chain: 7, hlc: Hlc::at_ms(WALL_MS) };
    let loaded = Loaded { logs: vec![held], ..Loaded::default() };
    let mut world = world_of(Limits::default(), 3, &loaded);
    link(&mut world, 2, &[(5, 8)]);
    link(&mut world, 3, &[(9, 9)]);
    assert_eq!(at(&mut world, 1200), ServerState::Ready);
}
