//! Who is shown what: late, moved, missed and dropped lines.

use std::sync::Arc;

use super::world::*;
use crate::config::Limits;
use crate::event::{CHAIN_START, Event, Msg};
use crate::frame::{Events, Frame, Haves};
use crate::id::{AccountId, LinkId, Log, Mid, Origin, RoomId, SessionId};
use crate::io::Input;
use crate::session::{Attach, Mode, Open, Opened, Plain, Request};
use crate::time::Hlc;
use crate::vector::Vector;

const NOTHING: [&str; 0] = [];

/// What zoe said at server 2, with its stamps in milliseconds after the beginning.
pub(super) fn told_by_s2(world: &mut World, from: u64, said: &[(u64, u128, &str)]) {
    told_of(world, 2, from, said);
}

/// What zoe said at another server, as server 2 tells it.
fn told_of(world: &mut World, server: u128, from: u64, said: &[(u64, u128, &str)]) {
    let log = Log::of(Origin::at(WALL_MS, server));
    let event = |seq: u64, at: u64, mid: u128, text: &str| {
        let body = crate::event::Body::Msg(Msg { nick: "zoe".into(), text: text.into() });
        Event {
            seq,
            hlc: Hlc::at_ms(WALL_MS + at),
            wall_ms: WALL_MS + at,
            room: RoomId::public("lobby"),
            actor: AccountId::new(5),
            mid: Mid::at(WALL_MS, mid),
            kind: body.kind(),
            body: body.encode(),
        }
    };
    let events: Vec<Arc<Event>> = (from..)
        .zip(said)
        .map(|(seq, (at, mid, text))| Arc::new(event(seq, *at, *mid, text)))
        .collect();
    let held = world.disk.as_ref().unwrap().logs.get(&log).and_then(|log| log.last());
    let before = held.map_or(CHAIN_START, |entry| entry.chain);
    let chain = events.iter().fold(before, |chain, event| event.chain(chain));
    let hops = u8::from(server != 2);
    let frame = Events { log, base: from, hops, events, chain };
    world.give(Input::Frame(LinkId(2), Frame::Events(frame)));
}

/// s1 of two, linked, with ann in the lobby.
fn lobby(limits: Limits) -> (World, SessionId, crate::session::Welcome) {
    let mut world = with_disk(limits, 2);
    world.link(2);
    let (ann, welcome) = world.guest("ann");
    world.open(ann, "lobby", Mode::Watch);
    (world, ann, welcome)
}

#[test]
fn a_line_more_than_a_second_older_than_the_newest_is_late() {
    let (mut world, ann, _) = lobby(Limits::default());
    told_by_s2(&mut world, 1, &[(1500, 1, "one")]);
    world.say(ann, room("lobby"), 9, "mine");
    world.take(ann);
    let (mut other, bob, _) = lobby(Limits::default());
    // Logs rise; so the older lines come from another log.
    other.now.wall_ms += 1500;
    other.say(bob, room("lobby"), 1, "now");
    let now = other.written.last().unwrap().hlc.ms() - WALL_MS;
    other.take(bob);
    told_by_s2(&mut other, 1, &[(now - 1001, 11, "late"), (now - 1000, 12, "in time")]);
    assert_eq!(other.heard(bob), ["late zoe: late", "zoe: in time"]);
}

#[test]
fn a_stamp_far_ahead_of_the_clock_makes_nothing_late() {
    let (mut world, ann, _) = lobby(Limits::default());
    told_by_s2(&mut world, 1, &[(2001, 1, "ahead")]);
    assert_eq!(world.heard(ann), ["zoe: ahead"]);
    world.say(ann, room("lobby"), 1, "now");
    assert_eq!(world.heard(ann)[0], "ann: now");
    // As far ahead as clocks may differ, it counts.
    let (mut world, ann, _) = lobby(Limits::default());
    told_by_s2(&mut world, 1, &[(2000, 1, "ahead")]);
    world.take(ann);
    let log = Log::of(Origin::at(WALL_MS, 2));
    assert_eq!(world.replica.durable().upto(log), 1);
    let newest = world.replica.sessions.all[&ann].rooms[&RoomId::public("lobby")].newest;
    assert_eq!(newest.hlc.ms(), WALL_MS + 2000);
}

#[test]
fn a_message_that_came_earlier_elsewhere_moves_and_its_copies_are_silent() {
    let (mut world, ann, _) = lobby(Limits::default());
    told_by_s2(&mut world, 1, &[(500, 1, "one")]);
    assert_eq!(world.heard(ann), ["zoe: one"]);
    told_by_s2(&mut world, 2, &[(600, 1, "one")]);
    assert_eq!(world.heard(ann), NOTHING, "once more, later");
    // Another server took it earlier.
    let log = Log::of(Origin::at(WALL_MS, 7));
    let entry = &world.disk.as_ref().unwrap().logs[&Log::of(Origin::at(WALL_MS, 2))][0];
    let event = Event { hlc: Hlc::at_ms(WALL_MS + 100), ..(*entry.event).clone() };
    let chain = event.chain(CHAIN_START);
    let frame = Events { log, base: 1, hops: 1, events: vec![Arc::new(event)], chain };
    world.give(Input::Frame(LinkId(2), Frame::Events(frame)));
    assert_eq!(world.heard(ann), ["moved zoe: one"]);
}

/// Comes again with what it has seen.
fn again(world: &mut World, welcome: &crate::session::Welcome, cursor: Vector) -> Vec<String> {
    let rooms = vec![Opened { room: "lobby".into(), since: Hlc::default() }];
    let (token, nick) = (welcome.token.clone(), None);
    let id = world.attach(Attach { token, rooms, nick, cursor, ..guest("x") });
    let mut said = world.heard(id);
    said.retain(|line| line != "token");
    said
}

#[test]
fn whoever_comes_again_is_told_what_he_missed_and_no_more() {
    let limits = [Limits::default(), Limits { recent_lines: 1, ..Limits::default() }];
    for limits in limits {
        let (mut world, ann, welcome) = lobby(limits);
        for n in 1..=4 {
            world.say(ann, room("lobby"), n, &format!("{n}"));
        }
        told_by_s2(&mut world, 1, &[(3000, 1, "five")]);
        let own = Log::of(world.replica.config.me.origin);
        let upto = world.replica.durable().upto(own);
        let cursor = |own_upto: u64, s2: u64| -> Vector {
            [(own, own_upto), (Log::of(Origin::at(WALL_MS, 2)), s2)].into_iter().collect()
        };
        let said = again(&mut world, &welcome, cursor(upto - 2, 0));
        assert_eq!(said, ["welcome ann", "ann: 3", "ann: 4", "zoe: five"]);
        assert_eq!(again(&mut world, &welcome, cursor(upto, 1)), ["welcome ann"]);
        assert_eq!(again(&mut world, &welcome, cursor(upto - 1, 1)), ["welcome ann", "ann: 4"]);
        // Who has seen nothing is told nothing: he reads the room.
        assert_eq!(again(&mut world, &welcome, Vector::new()), ["welcome ann"]);
    }
}

#[test]
fn whoever_missed_more_than_is_read_is_told_of_a_gap() {
    let limits = Limits { recent_lines: 1, since_scan: 3, ..Limits::default() };
    let (mut world, ann, welcome) = lobby(limits);
    for n in 1..=6 {
        world.say(ann, room("lobby"), n, &format!("{n}"));
    }
    let own = Log::of(world.replica.config.me.origin);
    let upto = world.replica.durable().upto(own);
    let cursor = [(own, upto - 4)].into_iter().collect();
    assert_eq!(again(&mut world, &welcome, cursor), ["welcome ann", "gap in lobby"]);
}

#[test]
fn direct_messages_wait_for_whoever_takes_them() {
    let (mut world, ann, _) = lobby(Limits::default());
    let (bob, welcome) = world.guest("bob");
    world.give(Input::SessionDown(bob));
    world.say(ann, crate::session::Target::Nick("bob".into()), 1, "psst");
    assert_eq!(again(&mut world, &welcome, Vector::new()), ["welcome bob", "ann to bob: psst"]);
    let ignores = Attach {
        token: welcome.token.clone(),
        nick: None,
        direct: crate::session::Direct::Ignore,
        ..guest("x")
    };
    let id = world.attach(ignores);
    world.say(ann, crate::session::Target::Nick("bob".into()), 2, "again");
    let mut said = world.heard(id);
    said.retain(|line| line != "token");
    assert_eq!(said, ["welcome bob"]);
}

#[test]
fn what_a_client_saw_elsewhere_is_waited_for_two_seconds() {
    let (mut world, _, welcome) = lobby(Limits::default());
    let s2 = Log::of(Origin::at(WALL_MS, 2));
    // s2 claims it, so it can come.
    let have = crate::frame::Have { log: s2, upto: 1, chain: 5 };
    world.give(Input::Frame(LinkId(2), Frame::Have(Haves { haves: vec![have] })));
    let rooms = vec![Opened { room: "lobby".into(), since: Hlc::default() }];
    let cursor: Vector = [(s2, 1)].into_iter().collect();
    let (token, nick) = (welcome.token.clone(), None);
    let attach = Attach { token, rooms, nick, cursor, ..guest("x") };
    let two = world.attach(attach.clone());
    assert_eq!(world.heard(two), NOTHING);
    // A ping is answered meanwhile, and nothing else.
    let ping = world.asks(two, |n| Request::Ping(Plain { request: crate::id::RequestId(n) }));
    assert_eq!(ping.len(), 1, "{ping:?}");
    world.pass_ms(1999);
    assert_eq!(world.heard(two), NOTHING);
    world.pass_ms(1);
    let told = world.take(two);
    let Some(crate::session::Item::Welcome(welcome)) = told.first().map(|item| &**item) else {
        panic!("{told:?}")
    };
    assert_eq!(welcome.stale, [(s2.origin, 1)]);
    // What nobody claims is not worth waiting for.
    let nowhere: Vector = [(Log::of(Origin::new(9)), 1)].into_iter().collect();
    world.give(Input::LinkDown(LinkId(2)));
    world.link(2);
    let three = world.attach(Attach { cursor: nowhere, ..attach });
    assert!(world.heard(three).contains(&"welcome ann".to_string()));
}

#[test]
fn a_client_that_is_slow_loses_lines_and_not_its_connection() {
    let limits = Limits { session_queue_bytes: 2000, ..Limits::default() };
    let (mut world, ann, _) = lobby(limits);
    let (bob, _) = world.guest("bob");
    world.open(bob, "lobby", Mode::Watch);
    world.take(ann);
    // Of ann's queue of 2000 bytes nothing leaves.
    let mut items = 0;
    let mut cost = 0;
    for n in 0..20 {
        world.say(bob, room("lobby"), n, &"x".repeat(200));
        world.take(bob);
        items = world.told.iter().filter(|(id, ..)| *id == ann).count();
        cost = world.told.iter().filter(|(id, ..)| *id == ann).map(|(.., cost)| cost).sum();
    }
    assert!(cost <= 2000 && items == 2000 / (cost / items), "{items} items, {cost} bytes");
    let said = world.heard(ann);
    assert_eq!(said.iter().filter(|line| *line != "token").count(), items);
    assert_eq!(world.heard(ann), ["gap in lobby"]);
    world.say(bob, room("lobby"), 99, "again");
    assert_eq!(world.heard(ann), ["bob: again"]);
}

#[test]
fn half_a_queue_is_room_enough_to_say_what_was_lost() {
    let limits = Limits { session_queue_bytes: 2000, ..Limits::default() };
    let (mut world, ann, _) = lobby(limits);
    let (bob, _) = world.guest("bob");
    world.open(bob, "lobby", Mode::Watch);
    world.take(ann);
    for n in 0..20 {
        world.say(bob, room("lobby"), n, &"x".repeat(200));
        world.take(bob);
    }
    let queued = world.replica.sessions.all[&ann].queued;
    let gaps = |world: &mut World| {
        let told = std::mem::take(&mut world.told);
        told.iter().filter(|(_, item, _)| matches!(**item, crate::session::Item::Gap(_))).count()
    };
    gaps(&mut world);
    world.give(Input::Drained(ann, queued - 1001));
    assert_eq!(gaps(&mut world), 0);
    world.give(Input::Drained(ann, 1));
    assert_eq!(gaps(&mut world), 1);
}

#[test]
fn a_retry_that_waits_is_answered_after_the_gap_it_could_hide() {
    let limits = Limits { session_queue_bytes: 2000, ..Limits::default() };
    let (mut world, ann, _) = lobby(limits);
    let (bob, _) = world.guest("bob");
    world.open(bob, "lobby", Mode::Watch);
    world.take(ann);
    for n in 0..20 {
        world.say(bob, room("lobby"), n, &"x".repeat(200));
        world.take(bob);
    }
    world.say(ann, room("lobby"), 50, "mine");
    let queued = world.replica.sessions.all[&ann].queued;
    let lines: Vec<String> = world.heard(ann);
    assert!(!lines.iter().any(|line| line.contains("stored")), "{lines:?}");
    let said = world.heard(ann);
    assert_eq!(said[0], "gap in lobby");
    assert!(said[1].contains("stored on 1"), "{said:?} after {queued}");
}

#[test]
fn reading_everything_again_goes_on_in_pieces_and_tells_its_end() {
    let (mut world, ann, _) = lobby(Limits::default());
    for n in 1..=3 {
        world.say(ann, room("lobby"), n, "x");
    }
    world.take(ann);
    let disk = world.disk.take().unwrap();
    let verify = |n| Request::Verify(Plain { request: crate::id::RequestId(n) });
    assert_eq!(world.asks(ann, verify), NOTHING);
    let busy = world.asks(ann, verify);
    assert!(busy[0].contains("is being verified already"), "{busy:?}");
    let events: u64 = disk.logs.values().map(|log| log.len() as u64).sum();
    let mut said = Vec::new();
    world.now.time = world.now.time + std::time::Duration::from_secs(1);
    while let Some((_, query)) = world.reads.front() {
        let rows = disk.ask(query);
        world.read_done(rows);
        said.extend(world.heard(ann));
    }
    said.retain(|line| line != "token");
    let first = format!("#5 verified {events} events");
    assert_eq!(said, [first.clone(), format!("{first}, done")]);
    // And again, when it is over; a disk that cannot be read is told.
    world.asks(ann, verify);
    world.read_done(crate::store::Rows::Failed("bad sector".into()));
    assert_eq!(world.heard(ann), ["#7 verified 0 events, done: bad sector"]);
}

/// What bob is told who opens the lobby while the disk takes its time, with a token in between; and
/// what whoever opens it after that is told.
fn opened_while(last: u32, meanwhile: impl FnOnce(&mut World, SessionId)) -> [Vec<String>; 2] {
    let (mut world, ann, _) = lobby(Limits::default());
    told_by_s2(&mut world, 1, &[(100, 1, "one"), (200, 2, "two"), (300, 3, "three")]);
    let ((bob, _), (eve, _)) = (world.guest("bob"), world.guest("eve"));
    world.pass_ms(1000);
    for id in [ann, bob, eve] {
        world.take(id);
    }
    let disk = world.disk.take().unwrap();
    let request = world.request();
    let open = Open { request, room: "lobby".into(), last, mode: Mode::Watch };
    world.ask(bob, Request::Open(open));
    let (token, query) = world.reads.pop_front().unwrap();
    let rows = disk.ask(&query);
    world.disk = Some(disk);
    meanwhile(&mut world, ann);
    world.pass_ms(1000);
    assert_eq!(world.heard(bob), ["token"], "it covers what he was not shown");
    world.give(Input::ReadDone(token, rows));
    let while_read = world.heard(bob);
    world.take(eve);
    let request = world.request();
    let open = Open { request, room: "lobby".into(), last, mode: Mode::Watch };
    world.ask(eve, Request::Open(open));
    let lines = |said: Vec<String>| -> Vec<String> {
        said.into_iter()
            .map(|line| line.split_once(' ').unwrap().1.replace(", not complete", ""))
            .collect()
    };
    [lines(while_read), lines(world.heard(eve))]
}

#[test]
fn what_happens_while_a_room_is_read_is_among_its_last_lines_and_not_told_after_them() {
    let [bob, eve] = opened_while(5, |world, ann| {
        world.say(ann, room("lobby"), 11, "meanwhile");
        world.say(ann, room("tea"), 12, "elsewhere");
    });
    assert_eq!(bob, ["open lobby: zoe: one | zoe: two | zoe: three | ann: meanwhile"]);
    assert_eq!(bob, eve);
    let [bob, eve] = opened_while(1, |world, ann| {
        world.say(ann, room("lobby"), 11, "four");
        world.say(ann, room("lobby"), 12, "five");
    });
    assert_eq!(bob, ["open lobby: ann: five"], "the last one");
    assert_eq!(bob, eve);
    // What is older than all that is read belongs to the page before, if there is one.
    for (last, lines) in
        [(3, "one | zoe: two | zoe: three"), (4, "late | zoe: one | zoe: two | zoe: three")]
    {
        let [bob, eve] = opened_while(last, |world, _| told_of(world, 7, 1, &[(50, 7, "late")]));
        assert_eq!(bob, [format!("open lobby: zoe: {lines}")]);
        assert_eq!(bob, eve);
    }
    let [bob, eve] = opened_while(5, |world, _| told_of(world, 7, 1, &[(150, 3, "three")]));
    assert_eq!(bob, ["open lobby: zoe: one | zoe: three | zoe: two"], "it has moved");
    assert_eq!(bob, eve);
    // Out of what is read: it is read again.
    let [bob, eve] = opened_while(1, |world, _| told_of(world, 7, 1, &[(50, 3, "three")]));
    assert_eq!(bob, ["open lobby: zoe: two"]);
    assert_eq!(bob, eve);
    // A floor came over all of it.
    let [bob, eve] = opened_while(5, |world, _| {
        let nobody = (RoomId::public("lobby"), AccountId::new(0), Mid::new(0));
        let floor = crate::event::Body::Floor(crate::event::Floor { ms: WALL_MS + 1 });
        world.replica.append(world.now, Hlc::default(), nobody, &floor).unwrap();
        world.turn();
    });
    assert_eq!(bob, ["open lobby: "]);
    assert_eq!(bob, eve);
    // What happens besides is no line of a page, and takes no place of one.
    let [bob, eve] = opened_while(1, |world, ann| {
        world.open(ann, "lobby", Mode::Join);
    });
    assert_eq!(bob, ["open lobby: zoe: three"]);
    assert_eq!(bob, eve);
}

#[test]
fn a_queue_is_filled_to_its_bound_and_its_overflow_is_told_to_the_operator() {
    // What one line costs.
    let (mut world, ann, _) = lobby(Limits::default());
    let (bob, _) = world.guest("bob");
    world.open(bob, "lobby", Mode::Watch);
    world.say(bob, room("lobby"), 1, "hello");
    world.told.retain(|told| told.0 == ann);
    let [(.., cost)] = world.told[..] else { panic!("{:?}", world.told) };
    for (limit, shown) in [(3 * cost, 3), (3 * cost - 1, 2)] {
        let (mut world, ann, _) = lobby(Limits { session_queue_bytes: limit, ..Limits::default() });
        let (bob, _) = world.guest("bob");
        world.open(bob, "lobby", Mode::Watch);
        world.take(ann);
        for n in 0..5 {
            world.say(bob, room("lobby"), n, "hello");
            world.take(bob);
        }
        let events = world.heard(ann).iter().filter(|line| *line == "bob: hello").count();
        assert_eq!(events, shown);
        let told = world.logged.iter().filter(|line| line.starts_with("a client takes less"));
        assert_eq!(told.count(), 1);
    }
}

#[test]
fn a_conversation_of_others_is_nobody_elses_who_comes_again() {
    let (mut world, ann, _) = lobby(Limits::default());
    let ((bob, of_bob), (_, of_eve)) = (world.guest("bob"), world.guest("eve"));
    world.give(Input::SessionDown(bob));
    let own = Log::of(world.replica.config.me.origin);
    let before: Vector = [(own, world.replica.durable().upto(own))].into_iter().collect();
    world.say(ann, crate::session::Target::Nick("bob".into()), 1, "psst");
    assert_eq!(again(&mut world, &of_eve, before.clone()), ["welcome eve"]);
    let ignores = Attach {
        token: of_bob.token.clone(),
        nick: None,
        cursor: before.clone(),
        direct: crate::session::Direct::Ignore,
        ..guest("x")
    };
    let id = world.attach(ignores);
    let mut said = world.heard(id);
    said.retain(|line| line != "token");
    assert_eq!(said, ["welcome bob"]);
    assert_eq!(again(&mut world, &of_bob, before), ["welcome bob", "ann to bob: psst"]);
}

#[test]
fn a_name_that_somebody_had_before_is_taken_away_and_its_session_told() {
    let (mut world, ann, _) = lobby(Limits::default());
    let (bob, _) = world.guest("bob");
    // At another server somebody took it a while ago.
    let log = Log::of(Origin::at(WALL_MS, 2));
    let body =
        crate::event::Body::Nick(crate::event::Nick { nick: "ann".into(), before: "x".into() });
    let event = Event {
        seq: 1,
        hlc: Hlc::at_ms(WALL_MS - 5000),
        wall_ms: WALL_MS,
        room: RoomId::new(0),
        actor: AccountId::new(5),
        mid: Mid::at(WALL_MS, 1),
        kind: body.kind(),
        body: body.encode(),
    };
    let chain = event.chain(CHAIN_START);
    let frame = Events { log, base: 1, hops: 0, events: vec![Arc::new(event)], chain };
    world.give(Input::Frame(LinkId(2), Frame::Events(frame)));
    let said = world.heard(ann);
    let [told] = &said[..] else { panic!("{said:?}") };
    assert!(told.starts_with("named ann~") && told.ends_with(", for ann is taken"), "{told}");
    assert_eq!(world.heard(bob), NOTHING);
    // It is told once.
    told_by_s2(&mut world, 2, &[(10, 2, "hello")]);
    assert_eq!(world.heard(ann), ["zoe: hello"]);
}
