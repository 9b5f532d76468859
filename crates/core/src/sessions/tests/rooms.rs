//! Rooms and who may what in them: each rule by all that everybody is told.

use super::lines::NOBODY;
use super::world::*;
use crate::config::Limits;
use crate::event::{Rank, Retention};
use crate::id::{RequestId, SessionId};
use crate::io::Input;
use crate::session::{
    Close, CloseMode, Keep, Kick, Mode, NICK_CHARS_MAX, Nick, Open, Plain, Request, Role,
    TOPIC_BYTES_MAX, Topic, Who,
};

const NOTHING: [&str; 0] = [];

fn open(room: &str, last: u32, mode: Mode) -> impl FnOnce(u64) -> Request {
    let room = room.to_string();
    move |n| Request::Open(Open { request: RequestId(n), room, last, mode })
}

fn close(mode: CloseMode) -> impl FnOnce(u64) -> Request {
    move |n| Request::Close(Close { request: RequestId(n), room: "lobby".into(), mode })
}

fn kick(nick: &str) -> impl FnOnce(u64) -> Request {
    let nick = nick.to_string();
    move |n| {
        let (room, reason) = ("lobby".into(), "enough".into());
        Request::Kick(Kick { request: RequestId(n), room, nick, reason })
    }
}

fn role(nick: &str, rank: Rank) -> impl FnOnce(u64) -> Request {
    let nick = nick.to_string();
    move |n| Request::Role(Role { request: RequestId(n), room: "lobby".into(), nick, rank })
}

fn topic(room: &str, text: Option<&str>) -> impl FnOnce(u64) -> Request {
    let (room, text) = (room.to_string(), text.map(str::to_string));
    move |n| Request::Topic(Topic { request: RequestId(n), room, text })
}

fn keep(keep: Retention) -> impl FnOnce(u64) -> Request {
    move |n| Request::Keep(Keep { request: RequestId(n), room: "lobby".into(), keep })
}

fn nick(nick: &str) -> impl FnOnce(u64) -> Request {
    let nick = nick.to_string();
    move |n| Request::Nick(Nick { request: RequestId(n), nick })
}

fn who(n: u64) -> Request {
    Request::Who(Who { request: RequestId(n), room: "Lobby".into() })
}

fn plain(make: fn(Plain) -> Request) -> impl FnOnce(u64) -> Request {
    move |n| make(Plain { request: RequestId(n) })
}

/// Ann, who founded the lobby, and bob, who joined it.
fn lobby() -> (World, SessionId, SessionId) {
    let mut world = with_disk(Limits::default(), 1);
    let ((ann, _), (bob, _)) = (world.guest("ann"), world.guest("bob"));
    assert_eq!(world.asks(ann, open("Lobby", 0, Mode::Join)), ["#1 open Lobby: "]);
    assert_eq!(world.asks(bob, open("lobby", 5, Mode::Join)), ["#2 open Lobby: "]);
    assert_eq!(world.heard(ann), ["bob joins"]);
    (world, ann, bob)
}

#[test]
fn a_room_is_founded_by_who_joins_it_first_and_shows_what_happens() {
    let (mut world, ann, bob) = lobby();
    world.say(bob, room("LOBBY"), 1, "hello");
    assert_eq!(world.heard(bob), ["bob: hello", "#3 replicated on 1"]);
    assert_eq!(world.heard(ann), ["bob: hello"]);
    // Again is not once more: the room is as it was.
    assert_eq!(
        world.asks(bob, open("lobby", 2, Mode::Join)),
        ["#4 open Lobby: bob: hello", "token"]
    );
    assert_eq!(world.heard(ann), NOTHING);
    assert_eq!(world.asks(ann, who), ["#5 in Lobby: ann founder at s1, bob member at s1"]);
    let (eve, _) = world.guest("eve");
    assert_eq!(world.asks(eve, open("lobby", 0, Mode::Watch)), ["#6 open Lobby: "]);
    let people = "#7 in Lobby: ann founder at s1, bob member at s1, eve member watching at s1";
    assert_eq!(world.asks(eve, who), [people]);
    let rooms = "#8 rooms Lobby () 3 people 1 messages";
    assert_eq!(world.asks(eve, plain(Request::Rooms)), [rooms]);
}

#[test]
fn whoever_leaves_is_shown_no_more_and_whoever_closes_stays_a_member() {
    let (mut world, ann, bob) = lobby();
    assert_eq!(world.asks(bob, close(CloseMode::Keep)), ["#3 done"]);
    world.say(ann, room("lobby"), 1, "hello");
    assert_eq!((world.heard(ann).len(), world.heard(bob)), (2, vec![]));
    assert_eq!(world.asks(ann, who), ["#5 in Lobby: ann founder at s1, bob member at "]);
    let again = ["#6 Unknown: you are not in lobby"];
    assert_eq!(world.asks(bob, close(CloseMode::Keep)), again);
    assert_eq!(world.asks(bob, close(CloseMode::Leave)), ["#7 done"]);
    assert_eq!(world.heard(ann), ["bob leaves"]);
    let again = ["#8 Unknown: you are not in lobby"];
    assert_eq!(world.asks(bob, close(CloseMode::Leave)), again);
    assert_eq!(world.asks(ann, who), ["#9 in Lobby: ann founder at s1"]);
    assert_eq!(world.asks(ann, close(CloseMode::Leave)), ["#10 done"]);
    assert_eq!(world.asks(bob, who), ["#11 in Lobby: "]);
}

#[test]
fn whoever_leaves_with_one_session_is_out_with_all() {
    let mut world = with_disk(Limits::default(), 1);
    let (ann, welcome) = world.guest("ann");
    world.open(ann, "lobby", Mode::Join);
    let two = world.again(&welcome, Vec::new());
    world.take(two);
    world.open(two, "lobby", Mode::Watch);
    assert_eq!(world.asks(ann, close(CloseMode::Leave)), ["#3 done"]);
    assert_eq!(world.heard(two), ["ann leaves", "left lobby"]);
}

#[test]
fn only_ops_kick_and_set_roles_and_policies() {
    let (mut world, ann, bob) = lobby();
    let (eve, _) = world.guest("eve");
    world.open(eve, "lobby", Mode::Join);
    world.take(bob);
    let no = "Forbidden: only the founder and ops of lobby may do that";
    assert_eq!(world.asks(bob, kick("eve")), [format!("#4 {no}")]);
    assert_eq!(world.asks(bob, role("bob", Rank::Op)), [format!("#5 {no}")]);
    assert_eq!(world.asks(bob, keep(Retention::default())), [format!("#6 {no}")]);
    world.take(ann);
    let made = ["ann makes bob op", "#7 done"];
    assert_eq!(world.asks(ann, role("bob", Rank::Op)), made);
    assert_eq!(world.heard(bob), ["ann makes bob op"]);
    assert_eq!(world.asks(bob, kick("eve")), ["bob kicks eve: enough", "#8 done"]);
    assert_eq!(world.heard(eve)[1..], ["bob kicks eve: enough", "out of Lobby: bob, enough"]);
    let founder = "Invalid: the founder of a room stays its founder";
    assert_eq!(world.asks(bob, role("ann", Rank::Member)), [format!("#9 {founder}")]);
    assert_eq!(world.asks(bob, role("eve", Rank::Founder)), [format!("#10 {founder}")]);
    let no_kick = "#11 Forbidden: nobody can put the founder of a room out of it";
    assert_eq!(world.asks(bob, kick("ann")), [no_kick]);
    let self_kick = "#12 Invalid: you cannot put yourself out; leave the room";
    assert_eq!(world.asks(bob, kick("bob")), [self_kick]);
    assert_eq!(world.asks(bob, kick("eve")), ["#13 Unknown: eve is not in lobby"]);
    assert_eq!(
        world.asks(bob, kick("nobody")),
        ["#14 Unknown: nobody goes by the name \"nobody\""]
    );
    let lost = ["ann makes bob member", "#15 done"];
    world.take(ann);
    assert_eq!(world.asks(ann, role("bob", Rank::Member)), lost);
    world.take(bob);
    assert_eq!(world.asks(bob, kick("eve")), [format!("#16 {no}")]);
}

#[test]
fn whoever_was_put_out_does_nothing_in_the_room_until_he_joins_again() {
    let (mut world, ann, bob) = lobby();
    assert_eq!(world.asks(ann, kick("bob")), ["ann kicks bob: enough", "#3 done"]);
    world.take(bob);
    let out = "Kicked: ann put you out of lobby (enough); join it again first";
    world.say(bob, room("lobby"), 1, "hello");
    assert_eq!(world.heard(bob), [format!("#4 {out}")]);
    assert_eq!(world.asks(bob, topic("lobby", Some("tea"))), [format!("#5 {out}")]);
    assert_eq!(world.asks(bob, topic("lobby", None)), ["#6 topic of Lobby: "], "he may read");
    assert_eq!(world.asks(bob, open("lobby", 0, Mode::Join)), ["#7 open Lobby: "]);
    world.say(bob, room("lobby"), 2, "again");
    assert_eq!(world.heard(bob), ["bob: again", "#8 replicated on 1"]);
}

#[test]
fn whoever_only_watches_can_be_put_out() {
    let (mut world, ann, _) = lobby();
    let (eve, _) = world.guest("eve");
    world.open(eve, "lobby", Mode::Watch);
    assert_eq!(world.asks(ann, kick("eve")), ["ann kicks eve: enough", "#4 done"]);
    assert_eq!(world.heard(eve), ["ann kicks eve: enough", "out of Lobby: ann, enough"]);
}

#[test]
fn a_topic_is_set_by_anybody_who_was_not_put_out_and_is_bounded() {
    let (mut world, ann, bob) = lobby();
    let set = ["bob sets the topic: tea", "#3 topic of Lobby: tea"];
    assert_eq!(world.asks(bob, topic("LOBBY", Some("tea"))), set);
    assert_eq!(world.heard(ann), ["bob sets the topic: tea"]);
    assert_eq!(world.asks(ann, topic("lobby", None)), ["#4 topic of Lobby: tea"]);
    let unknown = "#5 Unknown: there is no room \"tea\"; join or say something in it to make it";
    assert_eq!(world.asks(ann, topic("tea", None)), [unknown]);
    let most = "x".repeat(TOPIC_BYTES_MAX);
    assert_eq!(world.asks(ann, topic("lobby", Some(&most))).len(), 2);
    let long = world.asks(ann, topic("lobby", Some(&format!("{most}x"))));
    assert_eq!(long, ["#7 Invalid: the topic has 1025 bytes; at most 1024 fit"]);
    let rooms = world.asks(bob, plain(Request::Rooms));
    assert!(rooms.last().unwrap().ends_with(" 2 people 0 messages"), "{rooms:?}");
}

#[test]
fn a_name_has_one_holder_and_is_told_to_who_shares_a_room() {
    let (mut world, ann, bob) = lobby();
    let (eve, _) = world.guest("eve");
    let taken = "#3 Conflict: \"ANN\" is taken; choose another nick";
    assert_eq!(world.asks(bob, nick("ANN")), [taken]);
    assert_eq!(world.asks(bob, nick("rob")), ["bob is rob now", "#4 named rob"]);
    assert_eq!((world.heard(ann), world.heard(eve)), (vec!["bob is rob now".to_string()], vec![]));
    assert_eq!(world.asks(bob, nick("rob")), ["#5 named rob"], "no news");
    assert_eq!(world.asks(bob, nick("Rob")), ["rob is Rob now", "#6 named Rob"]);
    assert_eq!(world.asks(eve, nick("bob")), ["#7 named bob"], "it is free again");
    let long = "x".repeat(NICK_CHARS_MAX + 1);
    let said = world.asks(eve, nick(&long));
    assert_eq!(said, ["#8 Invalid: the nick has 33 characters; at most 32 fit"]);
}

#[test]
fn who_asks_for_a_taken_name_at_the_door_gets_it_with_a_suffix() {
    let mut world = with_disk(Limits::default(), 1);
    world.guest("ann");
    let (_, welcome) = world.guest("ann");
    assert!(welcome.nick.starts_with("ann~") && welcome.nick.len() == 10, "{}", welcome.nick);
}

#[test]
fn a_policy_is_bounded_and_told() {
    let (mut world, ann, bob) = lobby();
    let some = Retention { age_ms: 0, messages: 1_000_000 };
    let told = "ann keeps Retention { age_ms: 0, messages: 1000000 }";
    assert_eq!(world.asks(ann, keep(some)), [told, "#3 done"]);
    assert_eq!(world.heard(bob), [told]);
    let more = Retention { age_ms: 0, messages: 1_000_001 };
    let no = "#4 Invalid: a room keeps at most 1000000 messages, or all of them";
    assert_eq!(world.asks(ann, keep(more)), [no]);
}

#[test]
fn rooms_open_in_a_session_are_bounded() {
    let limits = Limits { session_rate: 1_000_000, ..Limits::default() };
    let mut world = with_disk(limits, 1);
    let (ann, _) = world.guest("ann");
    for n in 0..256 {
        world.open(ann, &format!("room-{n}"), Mode::Watch);
    }
    let said = world.asks(ann, open("one-more", 0, Mode::Watch));
    assert_eq!(said, ["#257 Forbidden: you have 256 rooms open; close one first"]);
    let said = world.asks(ann, open("room-7", 0, Mode::Watch));
    assert_eq!(said, ["#258 open room-7: "]);
}

#[test]
fn rooms_are_bounded_in_all_and_for_each_founder() {
    let limits = Limits { rooms: 3, rooms_founded: 2, ..Limits::default() };
    let mut world = with_disk(limits, 1);
    let ((ann, _), (bob, _)) = (world.guest("ann"), world.guest("bob"));
    for name in ["one", "two"] {
        world.open(ann, name, Mode::Join);
    }
    let said = world.asks(ann, open("three", 0, Mode::Join));
    assert_eq!(said, ["#3 Forbidden: three is not made: you made 2 rooms, as many as one may"]);
    world.say(ann, room("three"), 1, "hello");
    assert_eq!(world.heard(ann).len(), 1);
    assert_eq!(world.asks(bob, open("three", 0, Mode::Join)), ["#5 open three: "]);
    let said = world.asks(bob, open("four", 0, Mode::Join));
    assert_eq!(said, ["#6 Forbidden: four is not made: there are 3 rooms, as many as may be"]);
    assert_eq!(world.asks(bob, open("two", 0, Mode::Join)), ["#7 open two: "]);
}

#[test]
fn whoever_is_put_out_says_nothing_more_though_the_kick_is_not_on_the_disk_yet() {
    let (mut world, ann, bob) = lobby();
    world.fsync = Fsync::WhenToldTo;
    world.asks(ann, kick("bob"));
    world.say(bob, room("lobby"), 1, "but");
    let why = "Kicked: ann put you out of Lobby (enough); join it again first";
    assert_eq!(world.heard(bob), [format!("#4 {}", why.replace("Lobby", "lobby"))]);
    world.persist_all();
    assert_eq!(world.heard(bob), ["ann kicks bob: enough", "out of Lobby: ann, enough"]);
    world.heard(ann);
    // Whoever joins again speaks at once.
    world.ask(bob, open("lobby", 0, Mode::Join)(5));
    world.say(bob, room("lobby"), 2, "sorry");
    world.persist_all();
    let heard = world.heard(ann);
    assert_eq!(heard.last().map(String::as_str), Some("bob: sorry"), "{heard:?}");
}

#[test]
fn conversations_are_bounded_in_all_and_for_whoever_begins_them() {
    let limits = Limits { conversations: 3, conversations_each: 1, ..Limits::default() };
    let mut world = with_disk(limits, 1);
    let [ann, bob, cid] = ["ann", "bob", "cid"].map(|nick| world.guest(nick).0);
    world.guest("dan");
    let to = |nick: &str| crate::session::Target::Nick(nick.into());
    let mut mid = 0;
    let mut say = |world: &mut World, from, nick| {
        mid += 1;
        world.say(from, to(nick), mid, "psst");
        world.heard(from).pop().unwrap()
    };
    assert_eq!(say(&mut world, ann, "bob"), "#1 replicated on 1");
    let refused = "Forbidden: you began 1 conversations here; you may begin no other";
    assert_eq!(say(&mut world, ann, "cid"), format!("#2 {refused}"));
    assert_eq!(say(&mut world, ann, "bob"), "#3 replicated on 1", "what was begun goes on");
    assert_eq!(say(&mut world, bob, "ann"), "#4 replicated on 1", "and is answered");
    assert_eq!(
        say(&mut world, bob, "cid"),
        "#5 replicated on 1",
        "what others begin counts for them"
    );
    assert_eq!(say(&mut world, cid, "ann"), "#6 replicated on 1");
    assert_eq!(say(&mut world, ann, "cid"), "#7 replicated on 1");
    let (eve, _) = world.guest("eve");
    let refused = "Forbidden: there are 3 conversations, as many as may be";
    assert_eq!(say(&mut world, eve, "bob"), format!("#8 {refused}"));
    assert_eq!(say(&mut world, cid, "bob"), "#9 replicated on 1");
}

#[test]
fn a_kick_on_its_way_to_the_disk_is_not_over_when_an_older_one_is_there() {
    let (mut world, ann, bob) = lobby();
    world.asks(ann, role("bob", Rank::Op));
    let ((eve, _), (dan, _)) = (world.guest("eve"), world.guest("dan"));
    world.asks(eve, open("lobby", 0, Mode::Watch));
    world.fsync = Fsync::WhenToldTo;
    // While this is written, eve is put out and joins: both are in the next write.
    world.say(dan, room("elsewhere"), 1, "wait");
    world.asks(ann, kick("eve"));
    world.asks(eve, open("lobby", 0, Mode::Join));
    let step = |world: &mut World| {
        world.persist();
        world.turn();
    };
    step(&mut world);
    // And while that is written, she is put out again.
    world.asks(bob, kick("eve"));
    step(&mut world);
    world.take(eve);
    world.say(eve, room("lobby"), 2, "but");
    let told = world.heard(eve);
    let why = "bob put you out of lobby (enough); join it again first";
    assert!(told.iter().any(|told| told.ends_with(why)), "{told:?}");
    world.persist_all();
    assert!(!world.heard(ann).iter().any(|told| told == "eve: but"));
    assert!(world.replica.sessions.kicking.is_empty(), "what is written is on its way no more");
}

#[test]
fn whoever_is_put_out_does_not_turn_it_into_his_own_going() {
    let (mut world, ann, bob) = lobby();
    world.fsync = Fsync::WhenToldTo;
    world.asks(ann, kick("bob"));
    assert_eq!(world.asks(bob, close(CloseMode::Leave)), ["#4 done"]);
    world.persist_all();
    world.heard(bob);
    let said = world.asks(bob, open("lobby", 0, Mode::Watch));
    assert_eq!(said, ["#5 Kicked: ann put you out of lobby (enough); join it again first"]);
}

#[test]
fn a_session_says_who_it_is_once_and_first() {
    let mut world = with_disk(Limits::default(), 1);
    let nobody = world.session();
    let said = world.asks(nobody, who);
    assert_eq!(said, ["Protocol: the first request is no attach"]);
    assert_eq!(world.closed, [nobody]);
    let (ann, _) = world.guest("ann");
    world.ask(ann, Request::Attach(guest("ann")));
    assert_eq!(world.heard(ann), ["Protocol: a second attach"]);
    assert_eq!(world.closed, [nobody, ann]);
    assert_eq!(world.asks(ann, who), NOTHING, "nothing is taken from it any more");
    assert_eq!(world.replica.presence.places(), 0);
}

#[test]
fn whoever_goes_by_his_own_will_is_gone_at_once() {
    let (mut world, ann, bob) = lobby();
    world.asks(bob, plain(Request::Detach));
    assert_eq!(world.closed, [bob]);
    assert_eq!(world.asks(ann, who), ["#4 in Lobby: ann founder at s1, bob member at "]);
    world.give(Input::SessionDown(bob));
    // A lost connection shows for the grace.
    world.give(Input::SessionDown(ann));
    let (eve, _) = world.guest("eve");
    assert_eq!(world.asks(eve, who), ["#5 in Lobby: ann founder at s1, bob member at "]);
    world.pass_ms(30_000);
    world.take(eve);
    assert_eq!(world.asks(eve, who), ["#6 in Lobby: ann founder at , bob member at "]);
}

#[test]
fn a_conversation_is_shown_to_both_and_to_nobody_else() {
    let (mut world, ann, bob) = lobby();
    let (eve, _) = world.guest("eve");
    world.say(ann, crate::session::Target::Nick("bob".into()), 1, "psst");
    assert_eq!(world.heard(ann), ["ann to bob: psst", "#3 replicated on 1"]);
    assert_eq!(world.heard(bob), ["ann to bob: psst"]);
    assert_eq!(world.heard(eve), NOTHING);
    world.say(ann, crate::session::Target::Nick("ann".into()), 2, "note");
    assert_eq!(world.heard(ann), ["ann to ann: note", "#4 replicated on 1"], "once");
    world.say(ann, crate::session::Target::Nick("zoe".into()), 3, "hm");
    assert_eq!(world.heard(ann), ["#5 Unknown: nobody goes by the name \"zoe\""]);
    world.say(ann, account(NOBODY), 4, "hm");
    assert_eq!(world.heard(ann), ["#6 Unknown: there is no such account"]);
}

#[test]
fn a_name_is_told_where_its_holder_is_a_member_or_watches() {
    let (mut world, ann, bob) = lobby();
    let (eve, _) = world.guest("eve");
    world.open(eve, "lobby", Mode::Watch);
    assert_eq!(world.asks(eve, nick("eva"))[0], "eve is eva now");
    assert_eq!(world.heard(ann), ["eve is eva now"], "who watches");
    world.asks(bob, close(CloseMode::Keep));
    assert_eq!(world.asks(bob, nick("rob")), ["#6 named rob"]);
    assert_eq!(world.heard(ann), ["bob is rob now"], "a member that is not there");
    world.asks(eve, close(CloseMode::Keep));
    world.asks(eve, nick("evi"));
    assert_eq!(world.heard(ann), NOTHING, "neither");
}

#[test]
fn a_kick_has_room_for_its_reason() {
    let (mut world, ann, bob) = lobby();
    let reason = |bytes: usize| {
        move |n| {
            let (room, nick) = ("lobby".into(), "bob".into());
            let reason = "x".repeat(bytes);
            Request::Kick(Kick { request: RequestId(n), room, nick, reason })
        }
    };
    let long = world.asks(ann, reason(TOPIC_BYTES_MAX + 1));
    assert_eq!(long, ["#3 Invalid: the reason has 1025 bytes; at most 1024 fit"]);
    assert_eq!(world.asks(ann, reason(TOPIC_BYTES_MAX))[1], "#4 done");
    assert_eq!(world.heard(bob).len(), 2);
}

/// A kick that another server took at that time, as its first event.
fn kicked_elsewhere(account: crate::id::AccountId, ms: u64) -> Input {
    let log = crate::id::Log::of(crate::id::Origin::at(WALL_MS, 2));
    let body = crate::event::Body::Kick(crate::event::Kick {
        nick: "ann".into(),
        account,
        account_nick: "bob".into(),
        reason: "enough".into(),
    });
    let event = crate::event::Event {
        seq: 1,
        hlc: crate::time::Hlc::at_ms(ms),
        wall_ms: ms,
        room: crate::id::RoomId::public("lobby"),
        actor: crate::id::AccountId::new(5),
        mid: crate::id::Mid::at(WALL_MS, 1),
        kind: body.kind(),
        body: body.encode(),
    };
    let chain = event.chain(crate::event::CHAIN_START);
    let events = vec![std::sync::Arc::new(event)];
    let frame = crate::frame::Events { log, base: 1, hops: 0, events, chain };
    Input::Frame(crate::id::LinkId(2), crate::frame::Frame::Events(frame))
}

#[test]
fn a_kick_that_comes_with_the_joining_is_not_undone_by_it() {
    let mut world = with_disk(Limits::default(), 2);
    world.link(2);
    let ((ann, _), (bob, of_bob)) = (world.guest("ann"), world.guest("bob"));
    world.open(ann, "lobby", Mode::Join);
    world.fsync = Fsync::WhenToldTo;
    // A write is under way; the joining and the kick gather behind it.
    world.say(ann, room("lobby"), 1, "hello");
    assert_eq!(world.asks(bob, open("lobby", 0, Mode::Join)), NOTHING);
    world.give(kicked_elsewhere(of_bob.account, WALL_MS + 1000));
    world.persist_all();
    let said = world.heard(bob);
    assert_eq!(said, ["#3 Kicked: ann put you out of lobby (enough); join it again first"]);
}

#[test]
fn a_kick_that_comes_late_closes_nothing_that_was_joined_after_it() {
    let mut world = with_disk(Limits::default(), 2);
    world.link(2);
    let (bob, of_bob) = world.guest("bob");
    world.open(bob, "lobby", Mode::Join);
    world.give(kicked_elsewhere(of_bob.account, WALL_MS - 1000));
    assert_eq!(world.heard(bob), ["ann kicks bob: enough"], "and no more");
    world.say(bob, room("lobby"), 1, "hello");
    assert_eq!(world.heard(bob)[0], "bob: hello");
}

#[test]
fn a_kick_while_a_joined_room_is_read_again_is_not_undone_by_it() {
    let limits = Limits { recent_lines: 1, ..Limits::default() };
    let mut world = with_disk(limits, 1);
    let ((ann, _), (bob, of_bob)) = (world.guest("ann"), world.guest("bob"));
    for id in [ann, bob] {
        world.open(id, "lobby", Mode::Join);
    }
    let two = world.again(&of_bob, Vec::new());
    world.take(two);
    let disk = world.disk.take().unwrap();
    // He is a member: the room is read at once. More happens meanwhile than is kept.
    assert_eq!(world.asks(two, open("lobby", 5, Mode::Join)), NOTHING);
    world.asks(ann, kick("bob"));
    for n in 1..=3 {
        world.say(ann, room("lobby"), n, "hello");
    }
    let rows = disk.ask(&world.reads[0].1);
    world.read_done(rows);
    let said = world.heard(two);
    assert!(said[0].contains("Kicked: ann put you out of lobby"), "{said:?}");
    assert!(world.reads.is_empty(), "{:?}", world.reads);
}

#[test]
fn a_room_is_complete_when_every_server_is_heard_and_nothing_is_missing() {
    let mut world = with_disk(Limits::default(), 3);
    for n in [2, 3] {
        world.link(n);
    }
    let (ann, _) = world.guest("ann");
    assert_eq!(world.asks(ann, open("lobby", 0, Mode::Watch)), ["#1 open lobby: "]);
    let have = crate::frame::Have {
        log: crate::id::Log::of(crate::id::Origin::at(WALL_MS, 2)),
        upto: 1,
        chain: 5,
    };
    let frame = crate::frame::Frame::Have(crate::frame::Haves { haves: vec![have] });
    world.give(Input::Frame(crate::id::LinkId(2), frame));
    let said = world.asks(ann, open("lobby", 0, Mode::Watch));
    assert_eq!(said, ["#2 open lobby: , not complete"], "an event of s2 is missing");
    world.give(Input::LinkDown(crate::id::LinkId(2)));
    let said = world.asks(ann, open("lobby", 0, Mode::Watch));
    assert_eq!(said, ["#3 open lobby: , not complete"], "s2 may have more");
}

#[test]
fn rooms_that_are_being_made_count_as_made() {
    let mut world = with_disk(Limits { rooms: 2, ..Limits::default() }, 1);
    let (ann, _) = world.guest("ann");
    world.fsync = Fsync::WhenToldTo;
    for (n, name) in ["one", "two", "three"].into_iter().enumerate() {
        world.say(ann, room(name), n as u128, "hello");
    }
    world.persist_all();
    let said = world.heard(ann);
    let refused: Vec<&String> = said.iter().filter(|line| line.contains("is not made")).collect();
    let why = "#3 Forbidden: three is not made: there are 2 rooms, as many as may be";
    assert_eq!(refused, [why]);
}

#[test]
fn a_conversation_costs_more_to_begin_than_to_go_on() {
    let limits = Limits { session_rate: 60, ..Limits::default() };
    let mut world = with_disk(limits, 1);
    let (ann, _) = world.guest("ann");
    for n in 0..5 {
        world.guest(&format!("bob-{n}"));
    }
    let taken = |world: &mut World, names: &[u8]| {
        world.pass_ms(60_000);
        world.take(ann);
        let mut taken = 0;
        for name in names.iter().cycle() {
            let to = crate::session::Target::Nick(format!("bob-{name}"));
            world.say(ann, to, 1000 * u128::from(*name) + taken, "psst");
            if !refused(&world.take(ann)).is_empty() {
                break;
            }
            taken += 1;
        }
        taken
    };
    let begun = taken(&mut world, &[0]);
    assert!((40..=42).contains(&begun), "{begun}: the first counts for 21");
    let more = taken(&mut world, &[0]);
    assert!((60..=62).contains(&more), "{more}: now each for one");
    let new = taken(&mut world, &[1, 2, 3, 4]);
    assert!((2..=4).contains(&new), "{new} with others");
}
