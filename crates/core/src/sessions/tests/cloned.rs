//! One run of a server that goes on twice.

use super::start::link_up;
use super::world::*;
use crate::config::Limits;
use crate::event::CHAIN_START;
use crate::frame::{Frame, Have, Haves};
use crate::id::{LinkId, Log, Mid, Origin, SessionId};
use crate::io::Input;
use crate::session::{Code, Item, Level, Request, Send, Sent, ServerState};
use crate::store::Loaded;

const OWN: Log = Log::of(Origin::at(WALL_MS, 1));

/// A server of three that has said something; the chain of its log.
fn one_of_three() -> (World, SessionId, u64) {
    let mut world = world_of(Limits::default(), 3, &Loaded::default());
    for n in [2, 3] {
        link_up(&mut world, n);
        world.give(Input::Frame(LinkId(n), Frame::Vector(Haves { haves: Vec::new() })));
    }
    let (ann, _) = world.guest("ann");
    say(&mut world, ann, 1);
    let chain = world.written.iter().fold(CHAIN_START, |chain, event| event.chain(chain));
    (world, ann, chain)
}

fn say(world: &mut World, id: SessionId, mid: u128) {
    let (request, mid) = (world.request(), Mid::at(world.now.wall_ms, mid));
    let (to, text, level) = (room("lobby"), "word".into(), Level::Replicated);
    world.ask(id, Request::Send(Send { request, to, mid, text, level }));
}

/// Another server says that its disk holds all of the log, with that chain.
fn has_all(world: &mut World, n: u64, chain: u64) {
    let have = Have { log: OWN, upto: world.written.len() as u64, chain };
    world.give(Input::Frame(LinkId(n), Frame::Have(Haves { haves: vec![have] })));
}

fn sent(items: &[std::sync::Arc<Item>]) -> Vec<(Level, u16)> {
    let sent = |item: &std::sync::Arc<Item>| match &**item {
        Item::Sent(Sent { level, replicas, .. }) => Some((*level, *replicas)),
        _ => None,
    };
    items.iter().filter_map(sent).collect()
}

#[test]
fn what_another_disk_holds_under_the_names_of_a_cloned_run_counts_for_nothing() {
    let (mut world, ann, chain) = one_of_three();
    has_all(&mut world, 2, chain ^ 1);
    assert_eq!(sent(&world.take(ann)), [], "it is something else");
    world.pass_ms(3000);
    assert_eq!(sent(&world.take(ann)), [(Level::Stored, 1)]);
}

#[test]
fn a_run_that_goes_on_twice_takes_no_more_writes() {
    let (mut world, ann, chain) = one_of_three();
    has_all(&mut world, 2, chain);
    assert_eq!(sent(&world.take(ann)), [(Level::Replicated, 2)]);
    assert_eq!(world.replica.state(), ServerState::Ready);
    let events = world.written.len();

    let more = Have { log: OWN, upto: events as u64 + 1, chain: 5 };
    world.give(Input::Frame(LinkId(3), Frame::Have(Haves { haves: vec![more] })));

    say(&mut world, ann, 2);
    let codes: Vec<_> = refused(&world.take(ann)).into_iter().map(|(_, code)| code).collect();
    assert_eq!(codes, [Code::NotReady]);
    assert_eq!(world.replica.state(), ServerState::ReadOnly);
    assert_eq!(world.written.len(), events, "nothing was made");
}
