//! One session: its round trips and hints, the clock it learns, what its items teach the client.

use super::*;
use crate::client::session::Tip;
use crate::rng::Rng;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The newest ping that was sent.
fn pinged(client: &mut Client) -> Option<RequestId> {
    let ping = |output| match output {
        Output::Request(_, Request::Ping(ping)) => Some(ping.request),
        _ => None,
    };
    drain(client).into_iter().filter_map(ping).last()
}

/// A client attached to s1 whose first ping was answered after so long, at that moment.
fn answered_after(millis: u64) -> (Client, Conn) {
    let mut client = Client::new(config(), 1);
    client.handle_timeout(at(0));
    let (conn, _) = dialed(&mut client);
    accept(&mut client, 0, conn, welcome("s1"));
    let request = pinged(&mut client).expect("a ping after the welcome");
    let pong = Pong { request, clock_ms: CLOCK_MS };
    client.handle(at(millis), Input::Item(conn, Item::Pong(pong)));
    (client, conn)
}

#[test]
fn the_servers_clock_is_taken_half_a_round_trip_on() {
    let mut tip = Tip::default();
    tip.learn(at(0), 1000, ms(101));
    assert_eq!(tip.clock_ms(at(0)), 1050);
    assert_eq!(tip.clock_ms(at(10)), 1060);
}

#[test]
fn an_id_follows_the_last_one_unless_that_came_of_a_mad_clock() {
    let mut rng = Rng::new(1);
    let mut tip = Tip::default();
    tip.learn(at(0), CLOCK_MS, Duration::ZERO);
    let last = |tip: &mut Tip, ms: u64| {
        let mid = Mid::at(CLOCK_MS + ms, 5);
        tip.used(mid);
        mid
    };
    let mid = last(&mut tip, 1000);
    assert_eq!(tip.next_mid(at(0), &mut rng), Mid::new(mid.bits() + 1), "a second ahead");
    last(&mut tip, 1001);
    assert_eq!(tip.next_mid(at(0), &mut rng).unix_ms(), CLOCK_MS, "more");
    // All ids of a millisecond are used: the next one begins.
    let mid = Mid::new(last(&mut tip, 7).bits() | 0x3fff_ffff_ffff_ffff);
    tip.used(mid);
    let next = tip.next_mid(at(0), &mut rng);
    assert_eq!(next.unix_ms(), CLOCK_MS + 8);
}

#[test]
fn a_probe_takes_at_least_two_round_trips_as_they_were_of_late() {
    let (mut client, conn) = answered_after(80);
    client.handle_timeout(at(580));
    let request = pinged(&mut client).expect("a ping after half a second");
    let pong = Pong { request, clock_ms: CLOCK_MS + 700 };
    client.handle(at(740), Input::Item(conn, Item::Pong(pong)));
    // Seven eighths of 80 ms and one of 160 ms: 90 ms.
    client.handle(at(750), Input::Hint(conn));
    assert_eq!(client.next_deadline(), Some(at(930)));
    // Another hint gives no more time.
    client.handle(at(760), Input::Hint(conn));
    assert_eq!(client.next_deadline(), Some(at(930)));
    client.handle_timeout(at(929));
    assert!(client.server().is_some());
    client.handle_timeout(at(930));
    assert_eq!(client.server(), None);
}

#[test]
fn a_second_hint_or_one_about_another_connection_changes_no_deadline() {
    let mut client = Client::new(config(), 1);
    client.handle_timeout(at(0));
    let (conn, _) = dialed(&mut client);
    let other = Conn(conn.0 + 7);
    client.handle(at(10), Input::Hint(other));
    assert_eq!(client.next_deadline(), Some(at(1000)), "dialing");
    client.handle(at(10), Input::Hint(conn));
    for conn in [conn, other] {
        client.handle(at(20), Input::Hint(conn));
        assert_eq!(client.next_deadline(), Some(at(260)));
    }
    client.handle(at(100), Input::Connected(conn));
    drain(&mut client);
    client.handle(at(110), Input::Hint(other));
    assert_eq!((pinged(&mut client), client.next_deadline()), (None, Some(at(2600))), "attaching");
    client.handle(at(110), Input::Hint(conn));
    assert!(pinged(&mut client).is_some());
    for conn in [conn, other] {
        client.handle(at(120), Input::Hint(conn));
        assert_eq!((pinged(&mut client), client.next_deadline()), (None, Some(at(360))));
    }
}

#[test]
fn a_client_that_stood_still_for_more_than_half_the_silence_asks_anew() {
    let (mut client, _) = answered_after(10);
    drain(&mut client);
    client.handle(at(1010), Input::Kept(0));
    assert_eq!(drain(&mut client), [], "half of two seconds is no standstill");
    client.handle(at(2011), Input::Kept(0));
    assert!(pinged(&mut client).is_some());
    client.handle_timeout(at(3900));
    assert!(client.server().is_some(), "the silence counts from there");
}

#[test]
fn a_goodbye_that_nobody_answers_ends_in_its_time() {
    let (mut client, conn) = attached();
    client.handle(at(100), Input::Command(Command::Detach));
    drain(&mut client);
    assert_eq!(client.next_deadline(), Some(at(500)), "the ping comes first");
    client.handle_timeout(at(599));
    assert!(!client.is_ended());
    drain(&mut client);
    assert_eq!(client.next_deadline(), Some(at(600)));
    client.handle_timeout(at(600));
    assert_eq!(drain(&mut client), [Output::Hangup(conn), Output::Emit(ClientEvent::Ended(None))]);
}

#[test]
fn a_server_that_stops_during_the_attach_is_left_without_a_word() {
    let mut client = Client::new(config(), 1);
    client.handle_timeout(at(0));
    let (conn, _) = dialed(&mut client);
    client.handle(at(1), Input::Connected(conn));
    drain(&mut client);
    let moving = Moving { servers: vec![server("s3")] };
    client.handle(at(10), Input::Item(conn, Item::Leaving(moving)));
    assert_eq!(drain(&mut client), [Output::Hangup(conn), Output::Dial(Conn(2), "s3:1".into())]);
}

#[test]
fn a_stranger_at_a_dial_that_is_over_is_no_news() {
    let mut client = Client::new(config(), 1);
    client.handle_timeout(at(0));
    let (first, _) = dialed(&mut client);
    client.handle(at(10), Input::Disconnected(first, "refused".into()));
    let (second, _) = dialed(&mut client);
    client.handle(at(11), Input::Stranger(first, "who".into()));
    assert_eq!(drain(&mut client), []);
    accept(&mut client, 12, second, welcome("s2"));
    assert_eq!(client.server(), Some(&slot("s2")));
}

#[test]
fn the_back_off_grows_with_short_sessions_and_a_long_one_begins_anew() {
    let mut client = Client::new(Config { roam: Roam::Only("s1:1".into()), ..config() }, 1);
    let mut now = 0;
    let mut wait_after = |lasted: u64| {
        client.handle_timeout(at(now));
        let (conn, _) = dialed(&mut client);
        accept(&mut client, now, conn, welcome("s1"));
        drain(&mut client);
        now += lasted;
        client.handle(at(now), Input::Disconnected(conn, "gone".into()));
        let wait = client.next_deadline().unwrap().since(at(now));
        now += 10_000;
        wait
    };
    for step in [100, 200, 400, 800, 1600, 3200] {
        let wait = wait_after(4999);
        assert!((ms(step / 2)..=ms(step)).contains(&wait), "{wait:?} of {step} ms");
    }
    let wait = wait_after(5000);
    assert!(wait <= ms(100), "{wait:?} after a session of five seconds");
}

#[test]
fn a_name_that_is_asked_for_is_answered_and_one_that_is_given_is_told() {
    let named = |request, nick: &str, taken: Option<&str>| {
        let taken = taken.map(str::to_string);
        Item::Named(crate::session::Named { request, nick: nick.into(), taken })
    };
    let wish = |client: &mut Client, conn| {
        client.handle(at(100), Input::Disconnected(conn, "gone".into()));
        let (conn, _) = dialed(client);
        client.handle(at(100), Input::Connected(conn));
        let [Request::Attach(attach)] = &requests(client)[..] else { panic!("no attach") };
        attach.nick.clone()
    };
    let (mut client, conn) = attached();
    ask(&mut client, 1, 4, Ask::Nick { nick: "anna".into() });
    let [Request::Nick(nick)] = &requests(&mut client)[..] else { panic!("no ask") };
    client.handle(at(2), Input::Item(conn, named(nick.request, "anna", None)));
    let [ClientEvent::Answered { ticket: Ticket(4), answer: Answer::Named(answer) }] =
        &events(&mut client)[..]
    else {
        panic!("no answer")
    };
    assert_eq!((answer.nick.as_str(), &answer.taken), ("anna", &None));
    assert_eq!(wish(&mut client, conn).as_deref(), Some("anna"));
    // Somebody with an older claim to it appeared.
    let (mut client, conn) = attached();
    client.handle(at(2), Input::Item(conn, named(RequestId(0), "ann~2", Some("ann"))));
    let told = ClientEvent::Named { nick: "ann~2".into(), taken: Some("ann".into()) };
    assert_eq!(events(&mut client), [told]);
    assert_eq!(wish(&mut client, conn).as_deref(), Some("ann"), "it may come free");
}

#[test]
fn an_id_in_the_future_has_the_clock_asked_once_and_any_other_refusal_as_such_is_told() {
    let (mut client, conn) = attached();
    for n in 0..2 {
        say(&mut client, n, "x");
    }
    for (nth, send) in sends(&mut client).into_iter().enumerate() {
        client.handle(at(3), Input::Item(conn, refuse(send.request, Code::BadMid)));
        assert_eq!(pinged(&mut client).is_some(), nth == 0, "{nth}");
    }
    ask(&mut client, 4, 7, Ask::Rooms);
    let [Request::Rooms(Plain { request })] = requests(&mut client)[..] else { panic!("no ask") };
    client.handle(at(5), Input::Item(conn, refuse(request, Code::BadMid)));
    let failure = Failure::Refused(Code::BadMid, "because".into());
    assert_eq!(events(&mut client), [ClientEvent::Failed { ticket: Ticket(7), failure }]);
}

#[test]
fn a_line_of_a_second_ago_is_too_old_to_prove_those_before_it() {
    let log = Log::of(Origin::new(1));
    let covered = |ms: u64| {
        let (mut client, conn) = attached();
        open_lobby(&mut client, conn, vec![]);
        client.handle(at(3), Input::Item(conn, token(&[(1, 5)])));
        client.handle(at(ms), Input::Item(conn, shown(&line(1, 9, 400, "x"))));
        client.cursor().upto(log)
    };
    assert_eq!((covered(1399), covered(1400)), (9, 5));
}

#[test]
fn a_direct_line_teaches_whose_conversation_its_room_is() {
    let bob = AccountId::new(8);
    let room = RoomId::direct(ME, bob);
    let direct = |actor: AccountId, to: AccountId, mid: Mid| {
        let (nick, to_nick, text) = ("x".into(), "y".into(), "psst".into());
        let body = Body::from(crate::event::Direct { nick, to, to_nick, text });
        let event = Event {
            room,
            actor,
            mid,
            kind: body.kind(),
            body: body.encode(),
            ..(*line(2, 1, 5, "").event).clone()
        };
        shown(&Line { origin: Origin::new(2), event: Arc::new(event) })
    };
    for (actor, to) in [(bob, ME), (ME, bob)] {
        let (mut client, conn) = attached();
        client.handle(at(3), Input::Item(conn, direct(actor, to, Mid::at(CLOCK_MS, 1))));
        drain(&mut client);
        let gap = Gap { room, since: Key::MIN, with: None };
        client.handle(at(4), Input::Item(conn, Item::Gap(gap)));
        let [Request::History(history)] = &requests(&mut client)[..] else { panic!("no page") };
        assert_eq!(history.of, Target::Account(bob), "said by {actor}");
    }
    // A line in a room that reads like one teaches nothing.
    let (mut client, conn) = attached();
    client.handle(at(3), Input::Item(conn, shown(&line(2, 1, 5, ""))));
    let gap = Gap { room, since: Key::MIN, with: None };
    client.handle(at(4), Input::Item(conn, Item::Gap(gap)));
    assert_eq!(requests(&mut client), []);

    // Whom a nick meant is known from one's own line before it is answered, and from nobody else's.
    for (actor, to, after) in
        [(ME, bob, Target::Account(bob)), (bob, ME, Target::Nick("bob".into()))]
    {
        let (mut client, conn) = attached();
        let (to_nick, text) = (Target::Nick("bob".into()), "psst".to_owned());
        let (ticket, level) = (Ticket(1), Level::Stored);
        client.handle(at(1), Input::Command(Command::Send { ticket, to: to_nick, text, level }));
        let [send] = &sends(&mut client)[..] else { panic!("no message") };
        client.handle(at(2), Input::Item(conn, direct(actor, to, send.mid)));
        fail_over(&mut client, conn, welcome("s2"));
        let [again] = &sends(&mut client)[..] else { panic!("no message again") };
        assert_eq!(again.to, after, "said by {actor}");
    }
}

#[test]
fn a_room_joined_is_joined_again_where_it_is_not_known() {
    let (mut client, conn) = attached();
    ask(&mut client, 1, 1, Ask::Open { room: "lobby".into(), last: 5, mode: Mode::Join });
    let [Request::Open(open)] = &requests(&mut client)[..] else { panic!("no open") };
    let opened = RoomOpened {
        request: open.request,
        room: lobby(),
        lines: vec![],
        complete: true,
        unreachable: vec![],
    };
    client.handle(at(2), Input::Item(conn, Item::RoomOpened(opened)));
    fail_over(&mut client, conn, welcome("s2"));
    let [.., Request::Open(open)] = &requests(&mut client)[..] else { panic!("no open") };
    assert_eq!((open.room.as_str(), open.mode), ("lobby", Mode::Join));
}
