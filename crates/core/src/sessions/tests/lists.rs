//! Long answers: what they cost, what they tell of the cluster, how they are cut.

use super::world::*;
use crate::config::Limits;
use crate::id::{AccountId, LinkId, Origin, RequestId, RoomId, SessionId};
use crate::io::Input;
use crate::register::{Register, RegisterKey};
use crate::session::{Code, Item, LinkState, Mode, Plain, Request, Who};
use crate::store::{Loaded, Sum};
use crate::time::{Hlc, Key};

/// How often in a moment something may be asked before the server calls it too much.
fn taken(world: &mut World, id: SessionId, ask: fn(RequestId) -> Request) -> usize {
    for times in 0.. {
        let request = world.request();
        world.ask(id, ask(request));
        if refused(&world.take(id)).contains(&(request, Code::Busy)) {
            return times;
        }
    }
    unreachable!("for ever")
}

#[test]
fn a_list_costs_as_many_entries_as_are_gone_through_for_it() {
    // Ten entries a second, and one of grace.
    let limits = Limits { list_rate: 10, ..Limits::default() };
    let lobby = |mode| {
        let mut world = world(limits.clone());
        let (ann, _) = world.guest("ann");
        world.open(ann, "lobby", mode);
        (world, ann)
    };
    let rooms = |request| Request::Rooms(Plain { request });
    let who = |request| Request::Who(Who { request, room: "lobby".into() });
    // A session in a room is seen in two places: attached, and there.
    let (mut world, ann) = lobby(Mode::Watch);
    assert_eq!(taken(&mut world, ann, rooms), 5, "two places and no room");
    let (mut world, ann) = lobby(Mode::Watch);
    assert_eq!(taken(&mut world, ann, who), 5, "two places and no member");
    let (mut world, ann) = lobby(Mode::Join);
    assert_eq!(taken(&mut world, ann, rooms), 3, "two places and a room");
    let (mut world, ann) = lobby(Mode::Join);
    assert_eq!(taken(&mut world, ann, who), 3, "two places and a member");
}

#[test]
fn a_status_tells_of_every_other_server_and_of_who_is_here() {
    let mut world = world_of(Limits::default(), 3, &Loaded::default());
    world.link(3);
    world.give(Input::Frame(
        LinkId(3),
        crate::frame::Frame::Have(crate::frame::Haves { haves: Vec::new() }),
    ));
    world.pass_ms(2000); // long enough for s2 not to be waited for
    world.give(Input::Frame(
        LinkId(3),
        crate::frame::Frame::Have(crate::frame::Haves { haves: Vec::new() }),
    ));
    let (ann, _) = world.guest("ann");
    world.guest("bob");
    world.session();
    let status = world.status(ann);
    let links: Vec<(&str, LinkState)> =
        status.links.iter().map(|link| (link.server.as_str(), link.state)).collect();
    assert_eq!(links, [("s2", LinkState::Down), ("s3", LinkState::Up)]);
    assert_eq!(status.sessions, 2, "one has not said who it is");
}

#[test]
fn a_status_of_many_rooms_comes_in_pieces_and_says_that_more_follow() {
    let rooms = (1..=3000).map(RoomId::new);
    let key = Key { hlc: Hlc::default(), origin: Origin::new(1), seq: 1 };
    let founder = AccountId::new(1);
    let register = |room: RoomId| {
        let name = format!("{:060}", room.bits());
        (RegisterKey::Room(room), Register::Room { key, founder, name })
    };
    let loaded = Loaded {
        registers: rooms.clone().map(register).collect(),
        sums: rooms.map(|room| (room, Sum { messages: 1, digest: 1 })).collect(),
        ..Loaded::default()
    };
    let mut world = world_of(Limits::default(), 1, &loaded);
    let (ann, _) = world.guest("ann");
    let request = world.request();
    world.ask(ann, Request::Status(Plain { request }));
    let told = world.take(ann);
    let pieces: Vec<(usize, bool)> = told
        .iter()
        .filter_map(|item| match &**item {
            Item::Status(status) => Some((status.rooms.len(), status.more)),
            _ => None,
        })
        .collect();
    // 124 bytes each, of 256 KiB.
    assert_eq!(pieces, [(2114, true), (886, false)]);
}
