//! Clients that are asked to go where there are fewer, and what those take along who go by
//! themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use super::world::{WALL_MS, World, room, world_of};
use crate::config::Limits;
use crate::frame::{Frame, Load, Ping};
use crate::id::{ClusterId, LinkId, Log, Mid, SessionId};
use crate::io::Input;
use crate::session::{History, Item, Plain, Request, ServerState, Welcome};
use crate::store::Loaded;
use crate::time::Time;
use crate::token::{Token, TokenKey};

/// The others and their clients.
type Others = BTreeMap<u8, u32>;

/// `s1` of three that hear each other, and so many clients of it.
fn with_clients(clients: usize) -> (World, Vec<(SessionId, Welcome)>) {
    let mut world = world_of(Limits::default(), 3, &Loaded::default());
    world.link(2);
    world.link(3);
    let guests = (0..clients).map(|n| world.guest(&format!("g{n}"))).collect();
    (world, guests)
}

/// Seconds pass in which all servers live, and clients that are asked to go to a server do. Who went
/// where.
fn live(world: &mut World, seconds: u64, others: &mut Others) -> Vec<(SessionId, String)> {
    let mut went = Vec::new();
    for _ in 0..seconds {
        for (n, clients) in others.iter() {
            let link = LinkId((*n).into());
            let clock_ms = world.now.wall_ms;
            world.give(Input::Frame(link, Frame::Ping(Ping { sent_micros: 0, clock_ms })));
            let load = Load { clients: *clients, state: ServerState::Ready };
            world.give(Input::Frame(link, Frame::Load(load)));
        }
        world.pass_ms(1000);
        for (id, item, _) in std::mem::take(&mut world.told) {
            let Item::Leaving(moving) = &*item else { continue };
            let [server] = &moving.servers[..] else { panic!("{moving:?}") };
            went.push((id, server.name.to_string()));
            let n = server.name.as_str()[1..].parse().unwrap();
            *others.get_mut(&n).unwrap() += 1;
            world.give(Input::SessionDown(id));
        }
    }
    went
}

fn ask_rooms(world: &mut World, id: SessionId) {
    let request = world.request();
    world.ask(id, Request::Rooms(Plain { request }));
    world.take(id);
}

#[test]
fn those_who_wait_for_nothing_go_to_the_emptiest_server_until_it_is_even() {
    let (mut world, guests) = with_clients(30);
    let mut others = Others::from([(2, 5), (3, 0)]);
    // These two asked before all others, and wait since: that a disk is read, and that a message which
    // is on one disk of three is on another one.
    let [reads, waits] = [guests[0].0, guests[1].0];
    let request = world.request();
    let history = History { request, of: room("lobby"), before: None, limit: 1 };
    world.ask(reads, Request::History(history));
    world.say(waits, room("lobby"), 1, "on this disk alone");
    assert_eq!(live(&mut world, 119, &mut others), [], "they came only now");
    // Whoever asks for something is there.
    let active: Vec<SessionId> = guests[2..12].iter().map(|(id, _)| *id).collect();
    active.iter().for_each(|id| ask_rooms(&mut world, *id));

    let went = live(&mut world, 10, &mut others);
    assert_eq!(went.len(), 18, "thirty of thirty-five, and twelve are the mean: {went:?}");
    assert!(went.iter().all(|(id, _)| ![reads, waits].contains(id)), "{went:?}");
    assert!(went.iter().all(|(id, _)| !active.contains(id)), "{went:?}");
    assert!(went[..5].iter().all(|(_, server)| server == "s3"), "it has fewest: {went:?}");
    assert_eq!(others, Others::from([(2, 12), (3, 11)]));
    assert_eq!(live(&mut world, 300, &mut others), [], "it is even");
    let told = |words: &str| world.logged.iter().filter(|line| line.contains(words)).count();
    assert_eq!((told("clearly more clients"), told("even again: 18 were asked")), (1, 1));
}

#[test]
fn whoever_is_to_say_something_again_is_left_alone_until_he_must_have_given_it_up() {
    let (mut world, guests) = with_clients(1);
    live(&mut world, 300, &mut Others::from([(2, 1), (3, 1)]));
    let (id, settled) = (guests[0].0, world.replica.config.timing.settled);
    let until = world.now.time + Duration::from_secs(1);
    world.replica.sessions.all.get_mut(&id).unwrap().awaited = Some((Mid::at(WALL_MS, 1), until));
    let movable = |at: Time| world.replica.sessions.movable(at, settled, |_| false, 1).len();
    assert_eq!(movable(Time::from_micros(until.as_micros() - 1)), 0);
    assert_eq!(movable(until), 1);
}

#[test]
fn whoever_comes_back_after_he_was_asked_is_left_alone_for_an_hour() {
    let (mut world, guests) = with_clients(13);
    let mut others = Others::from([(2, 0), (3, 0)]);
    let went = live(&mut world, 140, &mut others);
    assert_eq!(went.len(), 8);
    // Back they come: the others have as few as before.
    others = Others::from([(2, 0), (3, 0)]);
    for (id, welcome) in &guests {
        if went.iter().any(|(gone, _)| gone == id) {
            world.again(welcome, Vec::new());
        }
    }
    let again = live(&mut world, 300, &mut others);
    assert_eq!(again.len(), 5, "who was not asked before: {again:?}");
}

#[test]
fn nobody_is_asked_where_the_operator_wants_none_to_be() {
    let (mut world, _) = with_clients(30);
    std::sync::Arc::make_mut(&mut world.replica.config).timing.settled = Duration::ZERO;
    assert_eq!(live(&mut world, 300, &mut Others::from([(2, 0), (3, 0)])), []);
}

#[test]
fn the_others_are_told_how_many_clients_are_here_and_at_once_that_none_are_taken() {
    let (mut world, guests) = with_clients(2);
    let loads = |world: &mut World| -> Vec<(LinkId, u32, ServerState)> {
        let sent = std::mem::take(&mut world.sent).into_iter();
        sent.filter_map(|(links, frame)| match *frame {
            Frame::Load(load) => Some((links[0], load.clients, load.state)),
            _ => None,
        })
        .collect()
    };
    let mut others = Others::from([(2, 0), (3, 0)]);
    loads(&mut world);
    live(&mut world, 2, &mut others);
    let two = loads(&mut world);
    assert_eq!(two, [2, 3].map(|n| (LinkId(n), 2, ServerState::Ready)), "once");
    live(&mut world, 2, &mut others);
    assert_eq!(loads(&mut world), [], "nothing changed");
    world.again(&guests[0].1, Vec::new());
    live(&mut world, 2, &mut others);
    assert_eq!(loads(&mut world), [], "many sessions of one account are one client");
    world.give(Input::Drain);
    let now = loads(&mut world);
    assert_eq!(now, [2, 3].map(|n| (LinkId(n), 2, ServerState::Stopping)));
    world.give(Input::Resume);
    assert_eq!(loads(&mut world), [2, 3].map(|n| (LinkId(n), 2, ServerState::Ready)));
}

#[test]
fn whoever_says_goodbye_takes_along_a_token_that_covers_what_he_wrote() {
    let (mut world, guests) = with_clients(1);
    let (ann, welcome) = &guests[0];
    let own = Log::of(world.replica.config.me.origin);
    let covers = |token: &[u8]| {
        let token = Token::open(token, &TokenKey::new([1; 32]), ClusterId::new(1)).unwrap();
        token.vector.upto(own)
    };
    let before = covers(&welcome.token);
    world.say(*ann, room("lobby"), 1, "hello");
    let request = world.request();
    world.ask(*ann, Request::Detach(Plain { request }));
    let told = world.take(*ann);
    let Some(Item::Token(last)) = told.last().map(|item| &**item) else { panic!("{told:?}") };
    assert!(covers(&last.token) > before);
    assert_eq!(covers(&last.token), world.replica.durable().upto(own));
    assert_eq!(world.closed, [*ann]);
}
