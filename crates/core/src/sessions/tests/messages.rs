//! Messages: accepted once, answered when they are safe.

use super::world::*;
use crate::config::Limits;
use crate::id::{LinkId, Mid, RequestId, SessionId, Slot};
use crate::io::Input;
use crate::session::{History, Level, Mode, Plain, Request, Send, Target};

const NOTHING: [&str; 0] = [];

fn send(world: &mut World, id: SessionId, mid: u128, text: &str, level: Level) -> Vec<String> {
    let request = world.request();
    let mid = Mid::at(WALL_MS, mid);
    let send = Send { request, to: room("lobby"), mid, text: text.into(), level };
    world.ask(id, Request::Send(send));
    world.heard(id)
}

/// s1 of three, with links to both, and ann in the lobby.
fn linked() -> (World, SessionId) {
    let mut world = with_disk(Limits::default(), 3);
    for n in [2, 3] {
        world.link(n);
    }
    let (ann, _) = world.guest("ann");
    world.open(ann, "lobby", Mode::Watch);
    (world, ann)
}

#[test]
fn a_message_is_answered_when_it_is_as_safe_as_was_asked() {
    let (mut world, ann) = linked();
    assert_eq!(send(&mut world, ann, 1, "one", Level::Stored), ["ann: one", "#2 stored on 1"]);
    assert_eq!(send(&mut world, ann, 2, "two", Level::Replicated), ["ann: two"]);
    world.has(2, 1);
    assert_eq!(world.heard(ann), ["replicated: [2]"], "what was called stored is told");
    world.has(3, 0);
    assert_eq!(world.heard(ann), ["#3 replicated on 2"]);
    world.has(2, 0);
    assert_eq!(world.heard(ann), NOTHING);
}

#[test]
fn a_message_that_reaches_no_majority_in_time_is_called_stored_and_replicated_later() {
    let (mut world, ann) = linked();
    assert_eq!(send(&mut world, ann, 1, "one", Level::Replicated), ["ann: one"]);
    world.pass_ms(1999);
    assert!(!world.heard(ann).iter().any(|line| line.contains("stored")));
    world.pass_ms(1);
    assert!(world.heard(ann).contains(&"#2 stored on 1".to_string()));
    world.pass_ms(5000);
    assert!(!world.heard(ann).iter().any(|line| line.contains("stored")), "once");
}

#[test]
fn a_message_is_answered_as_stored_only_when_it_is() {
    let (mut world, ann) = linked();
    world.fsync = Fsync::WhenToldTo;
    assert_eq!(send(&mut world, ann, 1, "one", Level::Stored), NOTHING);
    assert_eq!(send(&mut world, ann, 2, "two", Level::Replicated), NOTHING);
    world.pass_ms(2100);
    assert!(!world.heard(ann).iter().any(|line| line.contains("stored")));
    world.persist_all();
    let lines = ["ann: one", "#2 stored on 1", "ann: two", "#3 stored on 1"];
    let mut said = world.heard(ann);
    said.retain(|line| line != "token");
    assert_eq!(said, lines, "it had time enough");
}

#[test]
fn a_retry_is_answered_and_appends_nothing_and_another_text_is_refused() {
    let (mut world, ann) = linked();
    send(&mut world, ann, 1, "one", Level::Stored);
    let events = world.written.len();
    assert_eq!(send(&mut world, ann, 1, "one", Level::Stored), ["#3 stored on 1"]);
    assert_eq!(send(&mut world, ann, 1, "one", Level::Replicated), NOTHING);
    let other = "#5 Conflict: another message was sent under this id";
    assert_eq!(send(&mut world, ann, 1, "two", Level::Stored), [other]);
    assert_eq!(world.written.len(), events);
    world.has(2, 0);
    assert_eq!(world.heard(ann), ["#4 replicated on 2"]);
    assert_eq!(send(&mut world, ann, 1, "one", Level::Replicated), ["#6 replicated on 2"]);
}

#[test]
fn a_message_that_memory_forgot_is_looked_up_on_the_disk() {
    let limits = Limits { recent_mids: 2, ..Limits::default() };
    let mut world = with_disk(limits, 1);
    let (ann, _) = world.guest("ann");
    world.open(ann, "lobby", Mode::Watch);
    for mid in 1..=4 {
        send(&mut world, ann, mid, &format!("text {mid}"), Level::Stored);
    }
    let events = world.written.len();
    let known = ["#6 stored on 1", "replicated: [1]"];
    assert_eq!(send(&mut world, ann, 1, "text 1", Level::Stored), known);
    let other = "#7 Conflict: another message was sent under this id";
    assert_eq!(send(&mut world, ann, 1, "other", Level::Stored), [other]);
    assert_eq!(world.written.len(), events);
    // One that the disk does not know either is new.
    let said = send(&mut world, ann, 9, "late", Level::Stored);
    assert_eq!(said, ["ann: late", "#8 replicated on 1"]);
}

#[test]
fn texts_and_ids_are_held_against_their_rules() {
    let (mut world, ann) = linked();
    assert_eq!(send(&mut world, ann, 1, "", Level::Stored), ["#2 Invalid: the text is empty"]);
    let request = |world: &mut World, ms: u64, to: Target| {
        let request = world.request();
        let mid = Mid::at(world.now.wall_ms + ms, 5);
        let (text, level) = ("hello".into(), Level::Stored);
        world.ask(ann, Request::Send(Send { request, to, mid, text, level }));
        world.heard(ann)
    };
    let future = "BadMid: the message id's time is in the future: make it from the server's clock";
    assert_eq!(request(&mut world, 2001, room("lobby")), [format!("#3 {future}")]);
    assert_eq!(request(&mut world, 2000, room("lobby")), ["ann: hello", "#4 stored on 1"]);
    let named = request(&mut world, 0, room("@bob"));
    assert!(named[0].starts_with("#5 Invalid:"), "{named:?}");
}

#[test]
fn a_room_takes_so_many_messages_a_second_of_all() {
    let limits = Limits { room_rate: 10, ..Limits::default() };
    let mut world = with_disk(limits, 1);
    let ((ann, _), (bob, _)) = (world.guest("ann"), world.guest("bob"));
    let mut refused = 0;
    for mid in 0..40 {
        for id in [ann, bob] {
            let said = send(&mut world, id, mid, "x", Level::Stored);
            refused += said.iter().filter(|l| l.contains("too much is said in this room")).count();
        }
    }
    // The second refusal of a session is for the place of its first.
    assert!(refused >= 2, "{refused}");
    assert_eq!(world.written.iter().filter(|event| event.kind == 2).count(), 11);
}

#[test]
fn a_message_refused_as_busy_keeps_its_place_before_those_after_it() {
    let limits = Limits { room_rate: 1, ..Limits::default() };
    let mut world = with_disk(limits, 1);
    let (ann, _) = world.guest("ann");
    for mid in 1..=2 {
        send(&mut world, ann, mid, "x", Level::Stored);
    }
    let said = send(&mut world, ann, 3, "x", Level::Stored);
    assert!(said[0].contains("too much is said in this room"), "{said:?}");
    world.pass_ms(1500);
    world.take(ann);
    let said = send(&mut world, ann, 4, "x", Level::Stored);
    assert!(said[0].contains("an earlier message of yours comes first"), "{said:?}");
    assert_eq!(send(&mut world, ann, 3, "x", Level::Stored), ["#5 replicated on 1"]);
    world.pass_ms(1500);
    world.take(ann);
    assert_eq!(send(&mut world, ann, 4, "x", Level::Stored), ["#6 replicated on 1"]);
}

#[test]
fn a_message_that_was_given_up_does_not_hold_up_others_for_ever() {
    let limits = Limits { room_rate: 1, ..Limits::default() };
    let mut world = with_disk(limits, 1);
    let (ann, _) = world.guest("ann");
    for mid in 1..=3 {
        send(&mut world, ann, mid, "x", Level::Stored);
    }
    world.pass_ms(5000);
    world.take(ann);
    assert_eq!(send(&mut world, ann, 4, "x", Level::Stored), ["#4 replicated on 1"]);
}

#[test]
fn a_page_has_the_newest_lines_below_a_place() {
    let (mut world, ann) = linked();
    for mid in 1..=5 {
        send(&mut world, ann, mid, &format!("{mid}"), Level::Stored);
    }
    let page = |world: &mut World, before, limit| {
        let request = world.request();
        let history = History { request, of: room("lobby"), before, limit };
        world.ask(ann, Request::History(history));
        let items = world.take(ann);
        let Some(crate::session::Item::Page(page)) = items.last().map(|item| &**item) else {
            panic!("{items:?}")
        };
        page.clone()
    };
    let newest = page(&mut world, None, 2);
    assert_eq!(
        (super::lines::lines(&newest.lines).as_str(), newest.more),
        ("ann: 4 | ann: 5", true)
    );
    let older = page(&mut world, Some(newest.lines[0].key()), 500);
    let texts = super::lines::lines(&older.lines);
    assert_eq!((texts.as_str(), older.more), ("ann: 1 | ann: 2 | ann: 3", false));
    assert!(older.complete && older.unreachable.is_empty());
    assert_eq!(page(&mut world, None, 0).lines.len(), 1, "at least one");
    world.give(Input::LinkDown(LinkId(3)));
    let alone = page(&mut world, None, 1);
    assert!(!alone.complete);
    assert_eq!(alone.unreachable, [Slot::new("s3").unwrap()]);
}

#[test]
fn a_server_whose_disk_or_clock_is_off_takes_no_messages() {
    let (mut world, ann) = linked();
    world.fsync = Fsync::WhenToldTo;
    send(&mut world, ann, 1, "one", Level::Stored);
    let (token, _) = world.writes[0];
    world.give(Input::PersistFailed(token, "no space left".into()));
    assert_eq!(world.heard(ann), ["leave for s2 s3"]);
    world.give(Input::PersistFailed(token, "no space left".into()));
    assert_eq!(world.heard(ann), NOTHING, "said once");
    let refused = "#3 Storage: the disk of this server takes no writes (no space left); another one \
                   does";
    let request = world.request();
    let message = Send {
        request,
        to: room("lobby"),
        mid: Mid::at(WALL_MS, 2),
        text: "two".into(),
        level: Level::Stored,
    };
    world.ask(ann, Request::Send(message));
    world.persist_all();
    assert_eq!(world.heard(ann), ["ann: one", refused, "#2 stored on 1"]);
    world.fsync = Fsync::AtOnce;
    assert_eq!(send(&mut world, ann, 3, "three", Level::Stored), ["ann: three", "#4 stored on 1"]);
    assert_eq!(world.replica.state(), crate::session::ServerState::Ready);

    world.give(Input::Room(Err("full".into())));
    assert_eq!(world.heard(ann), ["leave for s2 s3"]);
    let refused = "#5 Storage: the disk of this server takes no writes (full); another one does";
    assert_eq!(send(&mut world, ann, 4, "four", Level::Stored), [refused]);
}

#[test]
fn a_ping_tells_the_time_and_does_not_wait_for_the_disk() {
    let (mut world, ann) = linked();
    let ping = |n| Request::Ping(Plain { request: RequestId(n) });
    assert_eq!(
        world.asks(ann, ping),
        [format!("#2 pong at {}", world.replica.clock.told_ms(world.now))]
    );
}

#[test]
fn what_is_refused_as_busy_is_taken_in_its_order_whatever_was_refused_first() {
    let limits = Limits { room_rate: 1, ..Limits::default() };
    let mut world = with_disk(limits, 1);
    let (ann, _) = world.guest("ann");
    for mid in 1..=2 {
        send(&mut world, ann, mid, "x", Level::Stored);
    }
    let busy = |world: &mut World, mid: u128, why: &str| {
        let said = send(world, ann, mid, "x", Level::Stored);
        assert!(said[0].contains(why), "{mid}: {said:?}");
    };
    busy(&mut world, 5, "too much is said in this room");
    busy(&mut world, 4, "too much is said in this room");
    busy(&mut world, 6, "an earlier message of yours comes first");
    world.pass_ms(1500);
    world.take(ann);
    // There is room for one: it is the first.
    busy(&mut world, 6, "an earlier message of yours comes first");
    busy(&mut world, 5, "an earlier message of yours comes first");
    assert_eq!(send(&mut world, ann, 4, "x", Level::Stored), ["#8 replicated on 1"]);
}

#[test]
fn a_message_that_was_said_too_fast_keeps_its_place() {
    let limits = Limits { session_rate: 2, ..Limits::default() };
    let mut world = with_disk(limits, 1);
    let (ann, _) = world.guest("ann");
    world.open(ann, "lobby", Mode::Watch);
    world.pass_ms(60_000);
    world.take(ann);
    for mid in 1..=3 {
        send(&mut world, ann, mid, "x", Level::Stored);
    }
    world.pass_ms(60_000);
    world.take(ann);
    for mid in 11..=13 {
        send(&mut world, ann, mid, "x", Level::Stored);
    }
    let said = send(&mut world, ann, 14, "x", Level::Stored);
    assert!(said[0].contains("you ask too fast"), "{said:?}");
    world.pass_ms(1500);
    world.take(ann);
    let said = send(&mut world, ann, 15, "x", Level::Stored);
    assert!(said[0].contains("an earlier message of yours comes first"), "{said:?}");
}

#[test]
fn a_direct_message_is_the_same_when_its_text_is() {
    let mut world = with_disk(Limits::default(), 1);
    let (ann, _) = world.guest("ann");
    world.guest("bob");
    let mut say = |text: &str| {
        let request = world.say(ann, Target::Nick("bob".into()), 1, text);
        let said = world.heard(ann);
        said.into_iter().find(|line| line.starts_with(&format!("#{} ", request.0))).unwrap()
    };
    assert_eq!(say("psst"), "#1 replicated on 1");
    assert_eq!(say("psst"), "#2 stored on 1");
    assert_eq!(say("hey"), "#3 Conflict: another message was sent under this id");
}

#[test]
fn a_message_that_another_server_took_is_known_when_its_log_is_here() {
    let (mut world, ann) = linked();
    let account = world.replica.sessions.all[&ann].account;
    let mid = Mid::at(WALL_MS, 8);
    let body =
        crate::event::Body::Msg(crate::event::Msg { nick: "ann".into(), text: "one".into() });
    let event = crate::event::Event {
        seq: 1,
        hlc: crate::time::Hlc::at_ms(WALL_MS),
        wall_ms: WALL_MS,
        room: crate::id::RoomId::public("lobby"),
        actor: account,
        mid,
        kind: body.kind(),
        body: body.encode(),
    };
    let chain = event.chain(crate::event::CHAIN_START);
    let log = crate::id::Log::of(crate::id::Origin::at(WALL_MS, 2));
    let events = vec![std::sync::Arc::new(event)];
    let frame = crate::frame::Events { log, base: 1, hops: 0, events, chain };
    world.give(Input::Frame(LinkId(2), crate::frame::Frame::Events(frame)));
    assert_eq!(world.heard(ann), ["ann: one"]);
    let events = world.written.len();
    assert_eq!(send(&mut world, ann, 8, "one", Level::Stored), ["#2 stored on 1"]);
    assert_eq!(world.written.len(), events);
}

#[test]
fn a_message_below_what_its_room_keeps_has_expired() {
    let (mut world, ann) = linked();
    let floor = crate::register::Register::Floor { ms: WALL_MS, key: crate::time::Key::MIN };
    let lobby = crate::register::RegisterKey::Floor(crate::id::RoomId::public("lobby"));
    world.replica.rooms.write_for_tests(lobby, floor);
    let said = send(&mut world, ann, 1, "late", Level::Stored);
    assert_eq!(said, ["#2 Expired: the message is older than what this room keeps"]);
    world.pass_ms(1);
    world.take(ann);
    let request = world.say(ann, room("lobby"), 1, "now");
    assert_eq!(world.heard(ann), ["ann: now".to_string(), format!("#{} stored on 1", request.0)]);
}

#[test]
fn a_page_is_cut_to_what_fits_and_says_so() {
    let mut world = world(Limits::default());
    let (ann, _) = world.guest("ann");
    let line = |seq: u64| {
        let text = "x".repeat(16_000);
        let body = crate::event::Body::Msg(crate::event::Msg { nick: "bob".into(), text });
        let event = crate::event::Event {
            seq,
            hlc: crate::time::Hlc::at_ms(WALL_MS + seq),
            wall_ms: WALL_MS,
            room: crate::id::RoomId::public("lobby"),
            actor: crate::id::AccountId::new(5),
            mid: Mid::at(WALL_MS, seq.into()),
            kind: body.kind(),
            body: body.encode(),
        };
        let origin = crate::id::Origin::new(2);
        crate::session::Line { origin, event: std::sync::Arc::new(event) }
    };
    let mut page = |lines: u64, more: bool| {
        let request = world.request();
        let history = History { request, of: room("lobby"), before: None, limit: 500 };
        world.ask(ann, Request::History(history));
        let lines = (1..=lines).map(line).collect();
        world.read_done(crate::store::Rows::Page(lines, more));
        let told = world.take(ann);
        let Some(crate::session::Item::Page(page)) = told.last().map(|item| &**item) else {
            panic!("{told:?}")
        };
        let seqs: Vec<u64> = page.lines.iter().map(|line| line.event.seq).collect();
        (seqs.len(), *seqs.last().unwrap(), page.more)
    };
    assert_eq!(page(5, false), (5, 5, false));
    assert_eq!(page(5, true), (5, 5, true));
    assert_eq!(page(40, false), (32, 40, true), "the newest 512 KiB");
}

#[test]
fn a_disk_that_cannot_be_read_is_told_to_who_asked() {
    use crate::store::Rows;
    let limits = Limits { recent_mids: 1, ..Limits::default() };
    let mut world = world(limits);
    let (ann, _) = world.guest("ann");
    for mid in 1..=3 {
        send(&mut world, ann, mid, "x", Level::Stored);
    }
    let mut asks = |ask: fn(RequestId) -> Request, rows: Rows| {
        let said = world.asks(ann, |n| ask(RequestId(n)));
        assert_eq!(said, NOTHING);
        world.read_done(rows);
        let mut said = world.heard(ann);
        said.retain(|line| line != "token");
        said.join("; ").split_once(' ').unwrap().1.to_string()
    };
    let asked: [fn(RequestId) -> Request; 3] = [
        |request| Request::History(History { request, of: room("lobby"), before: None, limit: 5 }),
        |request| {
            let (room, mode) = ("lobby".into(), Mode::Watch);
            Request::Open(crate::session::Open { request, room, last: 5, mode })
        },
        |request| {
            let (to, mid, text) = (room("lobby"), Mid::at(WALL_MS - 9000, 1), "x".into());
            Request::Send(Send { request, to, mid, text, level: Level::Stored })
        },
    ];
    for ask in asked {
        let said = asks(ask, Rows::Failed("bad sector".into()));
        assert_eq!(said, "Storage: the disk could not be read: bad sector");
        let said = asks(ask, Rows::Oldest(None));
        assert_eq!(said, "Storage: the disk answered another question");
    }
}
