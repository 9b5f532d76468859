//! What a client says of itself is not believed.

use super::world::*;
use crate::config::Limits;
use crate::id::{AccountId, Log, Origin, RoomId, SessionId};
use crate::io::Input;
use crate::session::{
    Attach, ClosedWhy, Code, Item, Kick, Mark, Mode, Open, Opened, OpenedRoom, Plain, Request,
    RoomList, Topic,
};
use crate::store::{Query, Rows, Sum};
use crate::time::{Hlc, Key, Time};
use crate::vector::Vector;

fn opened(room: &str, since: Hlc) -> Opened {
    Opened { room: room.into(), since }
}

fn open_names(rooms: &[OpenedRoom]) -> Vec<&str> {
    rooms.iter().map(|room| room.name.as_str()).collect()
}

#[test]
fn a_room_named_twice_is_entered_once_and_left_for_good() {
    let mut world = world(Limits::default());
    let (ann, welcome) = world.guest("ann");
    world.open(ann, "lobby", Mode::Join);
    let rooms = ["lobby", "LOBBY", "Lobby"].map(|name| opened(name, Hlc::default()));
    let two = world.again(&welcome, rooms.to_vec());
    assert_eq!(open_names(&world.welcome(two).rooms), ["lobby"]);
    for id in [ann, two] {
        let request = world.request();
        world.ask(id, Request::Detach(Plain { request }));
        world.give(Input::SessionDown(id));
    }
    assert_eq!(world.replica.presence.places(), 0);
}

#[test]
fn who_lingers_is_gone_when_the_grace_is_over() {
    let mut world = world(Limits::default());
    let (ann, welcome) = world.guest("ann");
    world.open(ann, "lobby", Mode::Join);
    world.give(Input::SessionDown(ann));
    assert_eq!(world.replica.presence.places(), 2);
    world.pass_ms(10_000);
    let two = world.again(&welcome, Vec::new());
    world.give(Input::SessionDown(two));
    world.pass_ms(25_000);
    assert_eq!(world.replica.presence.places(), 1, "attached again later, gone later");
    world.pass_ms(6_000);
    assert_eq!(world.replica.presence.places(), 0);
    assert_eq!(world.replica.presence.next_deadline(std::time::Duration::ZERO), None);
}

/// Ann founds the lobby, bob joins it, ann puts him out.
fn kicked(world: &mut World) -> (SessionId, SessionId, crate::session::Welcome) {
    let ((ann, _), (bob, welcome)) = (world.guest("ann"), world.guest("bob"));
    for id in [ann, bob] {
        world.open(id, "lobby", Mode::Join);
    }
    kick(world, ann);
    (ann, bob, welcome)
}

fn kick(world: &mut World, by: SessionId) {
    let request = world.request();
    let (room, nick, reason) = ("lobby".into(), "bob".into(), "enough".into());
    world.ask(by, Request::Kick(Kick { request, room, nick, reason }));
    assert_eq!(refused(&world.take(by)), []);
}

fn is_closed(items: &[std::sync::Arc<Item>]) -> bool {
    items.iter().any(|item| matches!(&**item, Item::RoomClosed(_)))
}

#[test]
fn no_time_of_opening_gets_past_a_kick() {
    let mut world = world(Limits::default());
    let (_, bob, welcome) = kicked(&mut world);
    assert!(is_closed(&world.take(bob)));
    for since in [Hlc::default(), Hlc::from_bits(u64::MAX)] {
        let two = world.again(&welcome, vec![opened("lobby", since)]);
        let welcome = world.welcome(two);
        assert_eq!(open_names(&welcome.rooms), [""; 0]);
        let [closed] = &welcome.closed[..] else { panic!("{:?}", welcome.closed) };
        let (by, reason) = ("ann".into(), "enough".into());
        assert_eq!(closed.why, ClosedWhy::Kicked { by, reason });
    }
}

#[test]
fn who_was_put_out_watches_no_more_until_he_joins_again() {
    let mut world = world(Limits::default());
    let (_, bob, _) = kicked(&mut world);
    world.take(bob);
    let told = world.open(bob, "lobby", Mode::Watch);
    assert_eq!(refused(&told).iter().map(|(_, code)| *code).collect::<Vec<_>>(), [Code::Kicked]);
    let told = world.open(bob, "lobby", Mode::Join);
    assert!(told.iter().any(|item| matches!(&**item, Item::RoomOpened(_))), "{told:?}");
}

#[test]
fn what_somebody_said_before_he_was_put_out_is_acknowledged_when_he_says_it_again() {
    let mut world = with_disk(Limits::default(), 1);
    let ((ann, _), (bob, welcome)) = (world.guest("ann"), world.guest("bob"));
    for id in [ann, bob] {
        world.open(id, "lobby", Mode::Join);
    }
    let at = world.now.wall_ms;
    world.say(bob, room("lobby"), 1, "hello");
    kick(&mut world, ann);
    let two = world.again(&welcome, Vec::new());
    world.take(two);
    assert_eq!(world.now.wall_ms, at, "the same id");
    let request = world.say(two, room("lobby"), 1, "hello");
    assert_eq!(acknowledged(&world.take(two)), [request]);
    let request = world.say(two, room("lobby"), 2, "and more");
    assert_eq!(refused(&world.take(two)), [(request, Code::Kicked)]);
}

#[test]
fn who_is_put_out_while_the_room_is_read_does_not_get_in() {
    let mut world = world(Limits::default());
    let ((ann, _), (bob, welcome)) = (world.guest("ann"), world.guest("bob"));
    for id in [ann, bob] {
        world.open(id, "lobby", Mode::Join);
    }
    let two = world.again(&welcome, Vec::new());
    world.take(two);
    let request = world.request();
    let open = Open { request, room: "lobby".into(), last: 10, mode: Mode::Watch };
    world.ask(two, Request::Open(open));
    kick(&mut world, ann);
    world.read_done(Rows::Page(Vec::new(), false));
    assert_eq!(refused(&world.take(two)), [(request, Code::Kicked)]);
    assert!(is_closed(&world.take(bob)));
}

#[test]
fn a_kick_closes_a_session_that_says_it_opened_the_room_later() {
    let mut world = world(Limits::default());
    let ((ann, _), (bob, welcome)) = (world.guest("ann"), world.guest("bob"));
    for id in [ann, bob] {
        world.open(id, "lobby", Mode::Join);
    }
    let two = world.again(&welcome, vec![opened("lobby", Hlc::from_bits(u64::MAX))]);
    let [room] = &world.welcome(two).rooms[..] else { panic!("not open") };
    assert!(room.since <= world.replica.clock.last(), "clamped");
    kick(&mut world, ann);
    assert!(is_closed(&world.take(two)));
}

#[test]
fn a_cursor_of_logs_that_nobody_knows_is_not_kept() {
    let mut world = world(Limits { recent_lines: 1, ..Limits::default() });
    let (ann, welcome) = world.guest("ann");
    world.open(ann, "lobby", Mode::Join);
    for n in 0..5 {
        world.say(ann, room("lobby"), n, "hello");
    }
    let cursor: Vector = (0..100_000).map(|n| (Log::of(Origin::new(n)), u64::MAX)).collect();
    let rooms = vec![opened("lobby", Hlc::default())];
    let (token, nick) = (welcome.token, None);
    let two = world.attach(Attach { token, rooms, nick, cursor, ..guest("x") });
    world.pass_ms(3000);
    assert_eq!(world.welcome(two).rooms.len(), 1);
    assert_eq!(world.reads.len(), 1);
    for (_, query) in &world.reads {
        let Query::Since { cursor, .. } = query else { panic!("{query:?}") };
        assert!(cursor.len() <= 2000, "{} logs", cursor.len());
    }
}

#[test]
fn a_write_is_above_what_it_replaces_or_refused() {
    let mut world = world(Limits::default());
    let (ann, _) = world.guest("ann");
    world.open(ann, "lobby", Mode::Join);
    // Another server's clock was ahead when it wrote this: it was not followed.
    let room = RoomId::public("lobby");
    let hlc = Hlc::at_ms(WALL_MS + 3_600_000);
    let key = Key { hlc, origin: Origin::new(u128::MAX), seq: 9 };
    let register = crate::register::Register::Topic { key, text: "old".into() };
    let row = (crate::register::RegisterKey::Topic(room), register);
    world.replica.rooms.write_for_tests(row.0, row.1);
    let set = |world: &mut World, text: &str| {
        let request = world.request();
        let (room, text) = ("lobby".into(), Some(text.into()));
        world.ask(ann, Request::Topic(Topic { request, room, text }));
        refused(&world.take(ann)).first().map(|(_, code)| *code)
    };
    assert_eq!(set(&mut world, "too soon"), Some(Code::ClockSkew));
    // Now it is a little ahead: in reach, and above what this server would stamp by itself.
    world.now.wall_ms = hlc.ms() - 1000;
    world.now.time = Time::from_micros(3_600_000_000);
    assert_eq!(set(&mut world, "new"), None);
    assert_eq!(world.replica.rooms.topic(room), "new");
}

#[test]
fn a_mark_is_as_long_as_what_is_news_in_it() {
    let mut world = world(Limits::default());
    let ((ann, me), (bob, _)) = (world.guest("ann"), world.guest("bob"));
    let to = account(me.account);
    world.say(bob, to, 1, "hello");
    let told = world.take(ann);
    let key = told.iter().find_map(|item| match &**item {
        Item::Event(shown) => Some(shown.line.key()),
        _ => None,
    });
    let (room, key) = (world.replica.rooms.directs(me.account).next().unwrap(), key.unwrap());
    // So much was marked before that one body would not hold it.
    let seen = (0..5000).map(|n| (Log::of(Origin::new(n)), 1)).collect();
    let register = crate::register::Register::Mark { seen };
    world
        .replica
        .rooms
        .write_for_tests(crate::register::RegisterKey::Mark(room, me.account), register);
    let request = world.request();
    world.ask(ann, Request::Mark(Mark { request, shown: vec![(room, key); 3] }));
    let told = world.take(ann);
    assert!(matches!(&*told[0], Item::Done(_)), "{told:?}");
    assert!(world.written.last().unwrap().body.len() < 100);
    assert!(world.replica.rooms.seen(room, me.account).covers(key.event()));
}

#[test]
fn the_longest_mark_fits_an_event() {
    let seen = (0..crate::session::MARKS_MAX as u128)
        .map(|n| (Log { origin: Origin::new(u128::MAX - n), shard: u16::MAX }, u64::MAX))
        .collect();
    let body = crate::event::Body::Mark(crate::event::Mark { seen });
    assert!(body.encode().len() <= crate::event::BODY_BYTES_MAX);
}

#[test]
fn an_own_event_that_others_would_not_take_is_not_made() {
    let mut world = world(Limits::default());
    let text = "x".repeat(crate::event::BODY_BYTES_MAX);
    let body = crate::event::Body::Msg(crate::event::Msg { nick: "ann".into(), text });
    let about = (RoomId::new(1), AccountId::new(1), crate::id::Mid::new(1));
    let before = world.replica.broadcast().next_seq();
    let why = world.replica.append(world.now, Hlc::default(), about, &body).unwrap_err();
    assert!(why.contains("at most 17408 fit"), "{why}");
    assert!(world.replica.broadcast().next_seq() <= before + 1, "but for the boot");
}

#[test]
fn a_status_does_not_tell_who_writes_to_whom() {
    let mut world = world(Limits::default());
    let names = ["ann", "bob", "cid"];
    let people: Vec<_> = names.iter().map(|name| world.guest(name)).collect();
    let mut sums = Vec::new();
    for (n, (id, _)) in people.iter().enumerate() {
        let to = people[(n + 1) % 3].1.account;
        world.say(*id, account(to), 1, "psst");
        let room = RoomId::direct(people[n].1.account, to);
        sums.push((room, Sum { messages: 1, digest: 1 << n }));
    }
    world.say(people[0].0, room("lobby"), 2, "hello");
    sums.push((RoomId::public("lobby"), Sum { messages: 1, digest: 99 }));
    for (room, sum) in sums {
        world.replica.rooms.set_sum(room, sum);
    }
    let nobody = world.session();
    let told: Vec<_> =
        world.status(nobody).rooms.into_iter().map(|r| (r.room, r.messages, r.digest)).collect();
    let expected = [("lobby".to_string(), 1, 99), ("direct messages".to_string(), 3, 7)];
    assert_eq!(told, expected);
}

#[test]
fn long_lists_come_in_pieces_that_fit_a_frame() {
    let mut world = world(Limits::default());
    let (ann, _) = world.guest("ann");
    for n in 0..1500_u64 {
        let (key, name) = (Key { seq: n, ..Key::MIN }, format!("room-{n}"));
        let room = RoomId::public(&name);
        let founder = AccountId::new(1);
        let made = crate::register::Register::Room { key, founder, name };
        let topic = crate::register::Register::Topic { key, text: "t".repeat(1024) };
        world.replica.rooms.write_for_tests(crate::register::RegisterKey::Room(room), made);
        world.replica.rooms.write_for_tests(crate::register::RegisterKey::Topic(room), topic);
    }
    let request = world.request();
    world.ask(ann, Request::Rooms(Plain { request }));
    let told = world.take(ann);
    let mut rooms = 0;
    for (nth, item) in told.iter().enumerate() {
        let bytes = postcard::to_allocvec(&match &**item {
            Item::Rooms(RoomList { rooms, .. }) => rooms.clone(),
            other => panic!("{other:?}"),
        });
        assert!(bytes.unwrap().len() < 512 * 1024);
        let Item::Rooms(list) = &**item else { unreachable!() };
        rooms += list.rooms.len();
        assert_eq!(list.more, nth + 1 < told.len());
    }
    assert_eq!(rooms, 1500);
}

#[test]
fn lists_of_all_clients_come_out_of_one_bucket() {
    let mut world = world(Limits { list_rate: 10, ..Limits::default() });
    let (ann, _) = world.guest("ann");
    for n in 0..5_u64 {
        world.open(ann, &format!("room-{n}"), Mode::Join);
    }
    let refusals: usize = (0..10)
        .map(|_| {
            let (id, _) = world.guest("x");
            let request = world.request();
            world.ask(id, Request::Rooms(Plain { request }));
            refused(&world.take(id)).len()
        })
        .sum();
    assert!(refusals >= 8, "{refusals} of 10 refused");
}

#[test]
fn rooms_and_new_accounts_have_bounds_and_known_accounts_do_not_meet_them() {
    let limits =
        Limits { rooms: 3, rooms_founded: 2, guest_burst: 3, guest_rate: 1, ..Limits::default() };
    let mut world = world(limits);
    let ((ann, welcome), (bob, _)) = (world.guest("ann"), world.guest("bob"));
    let codes = |told: &[std::sync::Arc<Item>]| refused(told).first().map(|(_, code)| *code);
    assert_eq!(codes(&world.open(ann, "one", Mode::Join)), None);
    assert_eq!(codes(&world.open(ann, "two", Mode::Join)), None);
    assert_eq!(codes(&world.open(ann, "three", Mode::Join)), Some(Code::Forbidden), "two each");
    assert_eq!(codes(&world.open(bob, "three", Mode::Join)), None);
    world.say(bob, room("four"), 1, "hello");
    assert_eq!(codes(&world.take(bob)), Some(Code::Forbidden), "three in all");
    assert_eq!(codes(&world.open(bob, "one", Mode::Join)), None);
    world.guest("cid");
    world.guest("eve"); // one above: rounding is forgiven
    let dan = world.attach(guest("dan"));
    assert_eq!(codes(&world.take(dan)), Some(Code::Busy));
    for _ in 0..20 {
        let again = world.again(&welcome, Vec::new());
        world.welcome(again);
    }
    world.pass_ms(1000);
    world.guest("dan");
}

#[test]
fn there_is_a_last_account() {
    let mut world = world(Limits { accounts: 2, ..Limits::default() });
    let (_, welcome) = world.guest("ann");
    world.guest("bob");
    let cid = world.attach(guest("cid"));
    assert_eq!(refused(&world.take(cid)).len(), 1);
    let again = world.again(&welcome, Vec::new());
    world.welcome(again);
}

#[test]
fn tokens_come_once_a_period_and_not_to_all_at_once() {
    let mut world = world(Limits::default());
    let (ann, _) = world.guest("ann");
    let mut all = Vec::new();
    for n in 0..40 {
        world.pass_ms(23);
        all.push(world.guest(&format!("p{n}")).0);
    }
    let tokens = |world: &mut World| {
        let told = std::mem::take(&mut world.told);
        for (id, _, cost) in &told {
            world.give(Input::Drained(*id, *cost));
        }
        told.iter().filter(|(_, item, _)| matches!(&**item, Item::Token(_))).count()
    };
    world.pass_ms(2000);
    tokens(&mut world);
    world.say(ann, room("lobby"), 1, "hello");
    let mut each = Vec::new();
    for _ in 0..20 {
        world.pass_ms(100);
        each.push(tokens(&mut world));
    }
    assert_eq!(each.iter().sum::<usize>(), 41, "one each: {each:?}");
    assert!(each.iter().all(|count| *count <= 15), "{each:?}");
}
