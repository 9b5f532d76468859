//! Coming and coming back: what is waited for, how many are let in, what a token covers.

use super::world::*;
use crate::config::Limits;
use crate::frame::{Frame, Haves};
use crate::id::{ClusterId, LinkId, Log, Origin, SessionId};
use crate::io::Input;
use crate::session::{Attach, Code, Item, Mode, Opened};
use crate::store::Loaded;
use crate::time::Hlc;
use crate::token::{Token, TokenKey};
use crate::vector::Vector;

const NOTHING: [&str; 0] = [];
const ELSEWHERE: Log = Log::of(Origin::at(WALL_MS, 9));

/// What a token covers that not every server has.
fn covered(token: &[u8]) -> Vector {
    Token::open(token, &TokenKey::new([1; 32]), ClusterId::new(1)).unwrap().vector
}

fn tokens(told: &[std::sync::Arc<Item>]) -> Vec<crate::session::TokenBytes> {
    let token = |item: &std::sync::Arc<Item>| match &**item {
        Item::Token(token) => Some(token.clone()),
        _ => None,
    };
    told.iter().filter_map(token).collect()
}

/// A server of three that has heard everything from these, and a client that has seen an event of a
/// server that nobody here has heard of.
fn seen_elsewhere(told: &[u8], untold: &[u8]) -> (World, SessionId) {
    let mut world = world_of(Limits::default(), 3, &Loaded::default());
    for n in told {
        world.link(*n);
    }
    for n in untold {
        world.give(Input::LinkUp(LinkId(u64::from(*n)), peer(*n)));
    }
    world.pass_ms(1600); // whoever is not linked is not waited for any more
    for n in told.iter().chain(untold) {
        let alive = Frame::Have(Haves { haves: Vec::new() });
        world.give(Input::Frame(LinkId(u64::from(*n)), alive));
    }
    world.pass_ms(137);
    let cursor = [(ELSEWHERE, 1)].into_iter().collect();
    let id = world.attach(Attach { cursor, ..guest("ann") });
    (world, id)
}

#[test]
fn what_no_server_has_is_not_waited_for_and_what_one_may_have_is_for_two_seconds() {
    let (mut world, ann) = seen_elsewhere(&[2, 3], &[]);
    assert_eq!(world.heard(ann)[0], "welcome ann", "all servers have said what they hold");
    for (told, untold) in [(&[2][..], &[][..]), (&[2], &[3])] {
        let (mut world, ann) = seen_elsewhere(told, untold);
        assert_eq!(world.heard(ann), NOTHING);
        let now = world.now.time;
        let due = world.replica.sessions.next_deadline();
        assert_eq!(due, Some(now + std::time::Duration::from_secs(2)));
        world.pass_ms(1999);
        assert_eq!(world.heard(ann), NOTHING);
        world.pass_ms(1);
        assert_eq!(world.heard(ann)[0], "welcome ann");
    }
}

#[test]
fn so_many_sessions_are_let_in_and_no_more() {
    let mut world = world(Limits { sessions: 2, ..Limits::default() });
    let (ann, _) = world.guest("ann");
    world.guest("bob");
    for _ in 0..2 {
        let id = world.attach(guest("eve"));
        assert_eq!(
            refused(&world.take(id)).iter().map(|(_, code)| *code).collect::<Vec<_>>(),
            [Code::Busy]
        );
        assert_eq!(world.closed.pop(), Some(id));
        world.give(Input::SessionDown(id));
    }
    world.give(Input::SessionDown(ann));
    world.guest("eve");
    assert_eq!(world.replica.drain().sessions, 2);
}

#[test]
fn so_many_rooms_are_named_at_the_door_and_no_more() {
    let mut world = world(Limits::default());
    let rooms = |n: usize| {
        (0..n).map(|n| Opened { room: format!("room-{n}"), since: Hlc::default() }).collect()
    };
    let id = world.attach(Attach { rooms: rooms(256), ..guest("ann") });
    assert_eq!(world.welcome(id).rooms.len(), 256);
    let id = world.attach(Attach { rooms: rooms(257), ..guest("bob") });
    let why = "Invalid: a session has at most 256 rooms open";
    assert_eq!(world.heard(id), [why]);
}

#[test]
fn whoever_asks_for_no_name_is_a_guest_by_number() {
    let mut world = world(Limits::default());
    let id = world.attach(Attach { nick: None, ..guest("x") });
    let welcome = world.welcome(id);
    let number = welcome.nick.strip_prefix("guest-").and_then(|number| number.parse::<u32>().ok());
    assert!(number.is_some_and(|number| number < 1_000_000), "{}", welcome.nick);
    let again = world.again(&welcome, Vec::new());
    assert_eq!(world.welcome(again).nick, welcome.nick);
}

#[test]
fn a_token_carries_what_not_every_server_has_and_tells_what_is_new_since_the_last() {
    let mut world = with_disk(Limits::default(), 2);
    world.link(2);
    let own = Log::of(world.replica.config.me.origin);
    let (ann, first) = world.guest("ann");
    let durable = world.replica.durable().upto(own);
    assert_eq!(covered(&first.token), [(own, durable)].into_iter().collect());
    world.has(2, 0);
    let again = world.again(&first, Vec::new());
    assert_eq!(covered(&world.welcome(again).token), Vector::new(), "it is on both disks");
    world.give(Input::SessionDown(again));
    // Of two logs one grows.
    super::deliver::told_by_s2(&mut world, 1, &[(0, 1, "one")]);
    world.pass_ms(2000);
    world.take(ann);
    world.open(ann, "lobby", Mode::Join);
    world.pass_ms(2000);
    let given = tokens(&world.take(ann));
    let [token] = &given[..] else { panic!("one token for one change: {given:?}") };
    let durable = world.replica.durable().upto(own);
    assert_eq!(token.vector, [(own, durable)].into_iter().collect());
    world.pass_ms(5000);
    assert_eq!(tokens(&world.take(ann)), [], "nothing is new");
}

#[test]
fn a_session_that_lost_lines_gets_no_token_until_it_knows() {
    let limits = Limits { session_queue_bytes: 2000, ..Limits::default() };
    let mut world = with_disk(limits, 1);
    let ((ann, _), (bob, _)) = (world.guest("ann"), world.guest("bob"));
    for id in [ann, bob] {
        world.open(id, "lobby", Mode::Watch);
    }
    world.pass_ms(2000);
    world.take(ann);
    for n in 0..20 {
        world.say(bob, room("lobby"), n, &"x".repeat(200));
        world.take(bob);
    }
    assert!(!world.replica.sessions.all[&ann].gapped.is_empty());
    world.pass_ms(5000);
    assert_eq!(tokens(&world.take(ann)), [], "it would cover what was dropped");
    world.pass_ms(1000);
    assert_eq!(tokens(&world.take(ann)).len(), 1);
}

#[test]
fn tokens_of_sessions_that_came_at_about_one_time_are_due_in_one_moment() {
    let mut world = world(Limits::default());
    world.pass_ms(7);
    for n in 0..10 {
        world.guest(&format!("guest-{n}"));
        world.pass_ms(1);
    }
    let moments: std::collections::BTreeSet<u64> =
        world.replica.sessions.tokens.iter().map(|(at, _)| at.as_micros()).collect();
    // A second later, each at one of twenty moments in it.
    assert_eq!(moments, [2_050_000].into());
}
