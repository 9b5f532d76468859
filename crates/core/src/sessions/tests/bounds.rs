//! What one session can make a server keep, and how much it may ask.

use super::world::*;
use crate::config::Limits;
use crate::id::{AccountId, Mid, RequestId, SessionId};
use crate::io::Input;
use crate::session::{
    Code, Item, Level, Mode, Open, Plain, Refused, Request, Send, TOPIC_BYTES_MAX, Topic,
};
use crate::sessions::ACCOUNT_RATES_MAX;
use crate::sessions::rate::Bucket;
use crate::store::Rows;

#[test]
fn a_message_repeated_before_it_is_safe_is_one_wait_and_one_answer() {
    let mut world = world(Limits::default());
    let (ann, _) = world.guest("ann");
    world.fsync = Fsync::WhenToldTo;
    world.say(ann, room("lobby"), 7, "hello");
    let mut last = RequestId(0);
    for _ in 0..20 {
        last = world.say(ann, room("lobby"), 7, "hello");
    }
    assert_eq!(world.replica.sessions.acks.count(), 1);
    world.persist_all();
    assert_eq!(acknowledged(&world.take(ann)), [last]);
}

#[test]
fn repeats_of_a_message_take_out_of_the_rate() {
    let limits = Limits { session_rate: 10, ..Limits::default() };
    let mut world = world(limits);
    let (ann, _) = world.guest("ann");
    for _ in 0..100 {
        world.say(ann, room("lobby"), 7, "hello");
    }
    let told = world.take(ann);
    let refused = refused(&told);
    assert!(refused.len() >= 85, "{} refused", refused.len());
    assert!(refused.iter().all(|(_, code)| *code == Code::Busy));
}

#[test]
fn every_kind_of_request_takes_out_of_one_bucket() {
    let mut world = world(Limits { session_rate: 100, ..Limits::default() });
    let (ann, _) = world.guest("ann");
    let asks: [fn(RequestId, usize) -> Request; 4] = [
        |request, n| {
            let room = format!("room-{n}");
            Request::Open(Open { request, room, last: 0, mode: Mode::Join })
        },
        |request, n| Request::Nick(crate::session::Nick { request, nick: format!("ann-{n}") }),
        |request, _| Request::Rooms(Plain { request }),
        |request, _| Request::Status(Plain { request }),
    ];
    for ask in asks {
        world.pass_ms(10_000);
        world.take(ann);
        for n in 0..50 {
            let request = world.request();
            world.ask(ann, ask(request, n));
        }
        let refused = refused(&world.take(ann));
        assert!(refused.len() >= 35, "only {} of 50 refused", refused.len());
        assert!(refused.iter().all(|(_, code)| *code == Code::Busy));
    }
}

#[test]
fn a_room_can_be_made_at_the_lowest_rate_and_is_paid_for_afterwards() {
    let mut world = world(Limits { session_rate: 1, ..Limits::default() });
    let (ann, _) = world.guest("ann");
    world.pass_ms(10_000);
    let told = world.open(ann, "lobby", Mode::Join);
    assert_eq!(refused(&told), []);
    world.say(ann, room("lobby"), 1, "hello");
    let told = world.take(ann);
    let Item::Refused(Refused { retry_ms, .. }) = &*told[0] else { panic!("{told:?}") };
    assert!(*retry_ms > 20_000, "a room and a member cost 30: {retry_ms} ms");
}

#[test]
fn whoever_is_refused_as_busy_is_told_when_to_come_again() {
    let mut world = world(Limits { unsaved_bytes: 3000, ..Limits::default() });
    let ((ann, _), (bob, _)) = (world.guest("ann"), world.guest("bob"));
    world.fsync = Fsync::WhenToldTo;
    while !world.replica.broadcast().is_full() {
        world.say(ann, room("lobby"), 1, &"x".repeat(5000));
    }
    let asks: [fn(RequestId) -> Request; 3] = [
        |request| {
            let room = "lobby".into();
            Request::Open(Open { request, room, last: 0, mode: Mode::Join })
        },
        |request| Request::Nick(crate::session::Nick { request, nick: "rob".into() }),
        |request| {
            let (to, mid, text) = (room("lobby"), Mid::at(WALL_MS, 2), "hello".into());
            Request::Send(Send { request, to, mid, text, level: Level::Stored })
        },
    ];
    for ask in asks {
        let request = world.request();
        world.ask(bob, ask(request));
        let told = world.take(bob);
        let [item] = told.as_slice() else { panic!("{told:?}") };
        let Item::Refused(refused) = &**item else { panic!("{item:?}") };
        assert_eq!((refused.code, refused.reason.as_str()), (Code::Busy, "the disk is behind"));
        assert!(refused.retry_ms > 0, "{refused:?}");
    }
}

#[test]
fn who_has_not_attached_may_not_ask_for_ever() {
    let mut world = world(Limits { session_rate: 100, ..Limits::default() });
    let nobody = world.session();
    for _ in 0..50 {
        let request = world.request();
        world.ask(nobody, Request::Status(Plain { request }));
    }
    assert!(refused(&world.take(nobody)).len() >= 40);
}

#[test]
fn a_session_may_send_its_500_messages_a_second() {
    let mut world = world(Limits::default());
    let (ann, _) = world.guest("ann");
    for n in 0..2000 {
        world.pass_ms(2);
        world.say(ann, room("lobby"), n, "hello");
    }
    assert_eq!(refused(&world.take(ann)), []);
}

#[test]
fn answers_that_wait_for_the_disk_are_bounded_in_bytes() {
    let limits = Limits { session_queue_bytes: 2000, ..Limits::default() };
    let mut world = world(limits);
    let (ann, _) = world.guest("ann");
    world.fsync = Fsync::WhenToldTo;
    world.say(ann, room("lobby"), 1, "hello");
    for _ in 0..900 {
        let request = world.request();
        world.ask(ann, Request::Ping(Plain { request }));
    }
    assert_eq!(world.closed, [ann], "it is cut off");
}

#[test]
fn requests_that_wait_are_bounded_in_bytes() {
    let limits = Limits { session_request_bytes: 100_000, ..Limits::default() };
    let mut world = world(limits);
    let (ann, _) = world.guest("ann");
    let request = world.request();
    let open = Open { request, room: "lobby".into(), last: 9, mode: Mode::Watch };
    world.ask(ann, Request::Open(open));
    assert_eq!(world.reads.len(), 1);
    for n in 0..100 {
        world.say(ann, room("lobby"), n, &"x".repeat(16_000));
    }
    let refused = refused(&world.take(ann));
    assert!(refused.len() >= 90, "{} refused", refused.len());
    world.read_done(Rows::Page(Vec::new(), false));
    assert_eq!(acknowledged(&world.take(ann)).len() + refused.len(), 100);
}

#[test]
fn what_is_too_long_is_refused_before_it_waits() {
    let mut world = world(Limits::default());
    let (ann, _) = world.guest("ann");
    world.fsync = Fsync::WhenToldTo;
    world.say(ann, room("lobby"), 1, "hello");
    let long = "x".repeat(100_000);
    let (a, b, c) = (world.request(), world.request(), world.request());
    let mid = Mid::at(WALL_MS, 2);
    let requests = [
        Request::Send(Send {
            request: a,
            to: room("lobby"),
            mid,
            text: long.clone(),
            level: Level::Stored,
        }),
        Request::Topic(Topic {
            request: b,
            room: "lobby".into(),
            text: Some("x".repeat(TOPIC_BYTES_MAX + 1)),
        }),
        Request::Nick(crate::session::Nick { request: c, nick: long }),
    ];
    for request in requests {
        world.ask(ann, request);
    }
    let told = world.take(ann);
    assert_eq!(refused(&told), [a, b, c].map(|request| (request, Code::Invalid)));
    let Item::Refused(Refused { reason, .. }) = &*told[0] else { unreachable!() };
    assert_eq!(reason, "the text has 100000 bytes; at most 16384 fit");
}

/// Fills a session's queue so that a line is dropped, and leaves it unread.
fn dropped(world: &mut World, ann: SessionId, bob: SessionId) {
    let mut n = 100;
    while world.replica.sessions.all[&ann].gapped.is_empty() {
        n += 1;
        world.say(bob, room("lobby"), n, &"x".repeat(400));
        world.take(bob);
    }
}

#[test]
fn no_answer_proves_lines_that_were_dropped() {
    let mut world = world(Limits { session_queue_bytes: 4000, ..Limits::default() });
    let ((ann, _), (bob, _)) = (world.guest("ann"), world.guest("bob"));
    for id in [ann, bob] {
        world.open(id, "lobby", Mode::Join);
    }
    world.take(ann);
    dropped(&mut world, ann, bob);
    let request = world.say(ann, room("elsewhere"), 1, "hello");
    let unread: Vec<_> = world.told.iter().filter(|told| told.0 == ann).cloned().collect();
    let items: Vec<_> = unread.iter().map(|told| told.1.clone()).collect();
    assert_eq!(acknowledged(&items), [], "it waits for the gap");
    world.told.retain(|told| told.0 != ann);
    world.give(Input::Drained(ann, unread.iter().map(|told| told.2).sum()));
    let told: Vec<_> = world.take(ann);
    let gap = told.iter().position(|item| matches!(&**item, Item::Gap(_)));
    let answer =
        told.iter().position(|item| matches!(&**item, Item::Sent(s) if s.request == request));
    assert!(gap.is_some() && gap < answer, "{told:?}");
}

#[test]
fn two_sessions_that_retry_one_message_write_it_once() {
    let limits = Limits { recent_mids: 1, ..Limits::default() };
    let mut world = world(limits);
    let (ann, welcome) = world.guest("ann");
    let two = world.again(&welcome, Vec::new());
    world.take(two);
    // An id below what memory knows: the disk is asked.
    for n in 0..2 {
        world.say(ann, room("lobby"), n, "hello");
    }
    world.take(ann);
    let request = world.request();
    let mid = Mid::at(WALL_MS - 5000, 9);
    let send = Send { request, to: room("lobby"), mid, text: "once".into(), level: Level::Stored };
    for id in [ann, two] {
        world.ask(id, Request::Send(send.clone()));
    }
    assert_eq!(world.reads.len(), 2);
    for _ in 0..2 {
        world.read_done(Rows::Message(None));
    }
    let written = world.written.iter().filter(|event| event.mid == mid).count();
    assert_eq!(written, 1);
    assert_eq!(
        (acknowledged(&world.take(ann)).len(), acknowledged(&world.take(two)).len()),
        (1, 1)
    );
}

#[test]
fn a_disk_that_is_behind_takes_no_more_by_any_way() {
    let limits = Limits { unsaved_bytes: 5000, recent_mids: 1, ..Limits::default() };
    let mut world = world(limits);
    let (ann, _) = world.guest("ann");
    for n in 0..2 {
        world.say(ann, room("lobby"), n, "hello");
    }
    world.take(ann);
    let request = world.request();
    let mid = Mid::at(WALL_MS - 5000, 9);
    let send = Send { request, to: room("lobby"), mid, text: "late".into(), level: Level::Stored };
    world.ask(ann, Request::Send(send));
    // While the disk looks for it, the writes stand still.
    world.fsync = Fsync::WhenToldTo;
    let bob = world.attach(guest("bob"));
    world.persist_all();
    world.take(bob);
    for n in 10..20 {
        world.pass_ms(1); // above what memory has forgotten
        world.say(bob, room("lobby"), n, &"x".repeat(1000));
    }
    assert!(world.replica.broadcast().is_full());
    world.read_done(Rows::Message(None));
    assert_eq!(refused(&world.take(ann)), [(request, Code::Busy)]);
    let cid = world.attach(guest("cid"));
    assert_eq!(refused(&world.take(cid)), [(RequestId(0), Code::Busy)]);
    assert_eq!(world.closed, [cid]);
    world.persist_all();
    assert!(world.written.iter().all(|event| event.mid != mid));
}

#[test]
fn requests_wait_up_to_exactly_their_bound_in_bytes() {
    let one = Request::Mark(crate::session::Mark { request: RequestId(1), shown: Vec::new() });
    let bytes = crate::sessions::size::bytes(&one);
    for (limit, waiting) in [(3 * bytes, 3), (3 * bytes - 1, 2)] {
        let mut world = world(Limits { session_request_bytes: limit, ..Limits::default() });
        let (ann, _) = world.guest("ann");
        let open = |request| Open { request, room: "lobby".into(), last: 9, mode: Mode::Watch };
        let request = world.request();
        world.ask(ann, Request::Open(open(request)));
        for _ in 0..5 {
            world.ask(ann, one.clone());
        }
        assert_eq!(refused(&world.take(ann)).len(), 5 - waiting);
    }
}

#[test]
fn answers_wait_or_are_queued_up_to_exactly_their_bound_in_bytes() {
    // Sixteen times the queue: ten answers of 128 bytes.
    let limits = Limits { session_queue_bytes: 80, ..Limits::default() };
    let ping = |world: &mut World, id: SessionId, times: usize| {
        for _ in 0..times {
            let request = world.request();
            world.ask(id, Request::Ping(Plain { request }));
        }
    };
    // Queued, since the client does not read.
    let mut queued = world(limits.clone());
    let (ann, _) = queued.guest("ann");
    queued.take(ann);
    ping(&mut queued, ann, 10);
    assert_eq!(queued.closed, []);
    ping(&mut queued, ann, 1);
    assert_eq!(queued.closed, [ann]);
    // Held back, since the disk has not what the session wrote.
    let mut held = world(limits);
    let (ann, _) = held.guest("ann");
    held.take(ann);
    held.fsync = Fsync::WhenToldTo;
    held.say(ann, room("lobby"), 1, "hello");
    ping(&mut held, ann, 10);
    assert_eq!(held.closed, []);
    ping(&mut held, ann, 1);
    assert_eq!(held.closed, [ann]);
}

#[test]
fn a_mark_is_of_what_is_here_and_not_marked_yet() {
    let mut world = with_disk(Limits::default(), 1);
    let ((ann, _), (bob, of_bob)) = (world.guest("ann"), world.guest("bob"));
    world.say(ann, account(of_bob.account), 1, "psst");
    let key = world.take(bob).iter().find_map(|item| match &**item {
        Item::Event(shown) => Some((shown.line.event.room, shown.line.key())),
        _ => None,
    });
    let (room, key) = key.unwrap();
    let mut marks = |key: crate::time::Key| {
        let before = world.written.len();
        let request = world.request();
        let shown = vec![(room, key)];
        world.ask(bob, Request::Mark(crate::session::Mark { request, shown }));
        world.take(bob);
        world.written.len() - before
    };
    let later = crate::time::Key { seq: key.seq + 100, ..key };
    assert_eq!(marks(later), 0, "nobody has that");
    assert_eq!((marks(key), marks(key)), (1, 0));
}

#[test]
fn rates_of_rooms_are_kept_while_they_hold_somebody_back() {
    let mut world = with_disk(Limits { room_rate: 1, ..Limits::default() }, 1);
    let (ann, _) = world.guest("ann");
    for mid in 1..=2 {
        world.say(ann, room("lobby"), mid, "x");
    }
    let idle = crate::sessions::rate::Bucket::new(1);
    for n in 0..5000 {
        world.replica.sessions.room_rates.insert(crate::id::RoomId::new(n), idle);
    }
    world.take(ann);
    let request = world.say(ann, room("tea"), 3, "x");
    assert_eq!(acknowledged(&world.take(ann)), [request]);
    assert_eq!(world.replica.sessions.room_rates.len(), 2, "the idle ones are forgotten");
    let request = world.say(ann, room("lobby"), 4, "x");
    assert_eq!(refused(&world.take(ann)), [(request, Code::Busy)], "and not the others");
}

#[test]
#[should_panic(expected = "held answers are counted")]
fn answers_that_are_not_counted_break_a_rule() {
    let mut world = world(Limits::default());
    let (ann, _) = world.guest("ann");
    world.replica.sessions.all.get_mut(&ann).unwrap().held_bytes += 1;
    world.replica.assert_invariants();
}

#[test]
fn an_account_has_one_rate_on_however_many_connections() {
    let mut world = world(Limits { session_rate: 10, ..Limits::default() });
    let (ann, welcome) = world.guest("ann");
    let (bob, _) = world.guest("bob");
    world.pass_ms(10_000);
    let busy = |world: &mut World, id, mid| {
        let request = world.say(id, room("lobby"), mid, "x");
        refused(&world.take(id)) == [(request, Code::Busy)]
    };
    let mut said = 0;
    while !busy(&mut world, ann, 1000 + said) {
        said += 1;
        assert!(said < 30, "nobody holds it to its rate");
    }
    // Neither another connection nor a new one has more; somebody else has his own.
    let second = world.again(&welcome, Vec::new());
    world.take(second);
    assert!(busy(&mut world, second, 2000));
    world.give(Input::SessionDown(ann));
    world.give(Input::SessionDown(second));
    let third = world.again(&welcome, Vec::new());
    world.take(third);
    assert!(busy(&mut world, third, 3000));
    assert!(!busy(&mut world, bob, 4000));
    world.pass_ms(5000);
    assert!(!busy(&mut world, third, 5000), "and it fills again");
}

#[test]
fn whoever_does_not_say_who_he_is_and_asks_nothing_for_ten_seconds_is_sent_away() {
    let mut world = world(Limits::default());
    let (ann, _) = world.guest("ann");
    let (silent, asking) = (world.session(), world.session());
    world.pass_ms(9999);
    assert_eq!((world.take(silent).len(), &world.closed), (0, &vec![]));
    world.status(asking);
    world.pass_ms(1);
    let told = world.take(silent);
    assert_eq!(refused(&told), [(RequestId(0), Code::Protocol)]);
    assert_eq!(world.closed, [silent]);
    // Ten seconds after the last word.
    world.pass_ms(9998);
    assert_eq!(world.closed, [silent]);
    world.pass_ms(1);
    assert_eq!(world.closed, [silent, asking]);
    world.pass_ms(100_000);
    assert_eq!(world.closed, [silent, asking], "whoever is attached may be silent");
    world.say(ann, room("lobby"), 1, "x");
    assert_eq!(refused(&world.take(ann)), []);
}

#[test]
fn whoever_has_the_disk_verified_may_wait_for_that_without_an_account() {
    let mut world = world(Limits::default());
    world.guest("ann");
    let (waiting, silent) = (world.session(), world.session());
    world.reads.clear();
    let request = world.request();
    world.ask(waiting, Request::Verify(Plain { request }));
    world.pass_ms(25_000);
    assert_eq!(world.closed, [silent], "who waits is not the only one who is silent");
    world.read_done(Rows::Scrubbed(crate::scrub::Piece::default()));
    assert!(matches!(&*world.take(waiting)[0], Item::Verified(verified) if verified.done));
    world.pass_ms(10_000);
    assert_eq!(world.closed, [silent, waiting]);
}

#[test]
fn rates_of_accounts_that_are_silent_are_forgotten_at_the_bound() {
    let mut world = world(Limits::default());
    let (ann, _) = world.guest("ann");
    let rates = &mut world.replica.sessions.account_rates;
    let idle = (0..ACCOUNT_RATES_MAX as u128).map(|n| (AccountId::new(n), Bucket::new(1)));
    rates.extend(idle);
    assert_eq!(rates.len(), ACCOUNT_RATES_MAX);
    world.say(ann, room("lobby"), 1, "x");
    assert_eq!(world.replica.sessions.account_rates.len(), 1, "hers");
}
