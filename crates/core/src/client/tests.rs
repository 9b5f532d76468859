//! One client against hand-made items; `model` plays whole clusters.

use std::sync::Arc;

use super::*;
use crate::event::Retention;
use crate::event::{Body, Event, Msg};
use crate::id::{ClusterId, Log, Mid, Origin};
use crate::session::{
    ClosedWhy, Code, Direct, Gap, History, Level, Line, Mode, Moved, Moving, OpenedRoom, Page,
    Pong, Refused, Replicated, RoomClosed, RoomInfo, RoomList, RoomOpened, Send, Sent, Shown,
    Target, TokenBytes, Topic,
};
use crate::time::{Hlc, Key};

mod journal;
mod model;
mod reread;
mod session;

const CLOCK_MS: u64 = 1_700_000_000_000;
const ME: AccountId = AccountId::new(7);

fn at(ms: u64) -> Time {
    Time::from_micros(ms * 1000)
}

fn slot(name: &str) -> Slot {
    Slot::new(name).unwrap()
}

fn server(name: &str) -> ServerAddr {
    ServerAddr { name: slot(name), addr: format!("{name}:1") }
}

fn config() -> Config {
    Config {
        servers: ["s1", "s2", "s3"].map(server).to_vec(),
        roam: Roam::First("s1:1".into()),
        direct: Direct::Take,
        ..Config::default()
    }
}

fn drain(client: &mut Client) -> Vec<Output> {
    std::iter::from_fn(|| client.poll_output()).collect()
}

fn requests(client: &mut Client) -> Vec<Request> {
    let request = |output| match output {
        Output::Request(_, Request::Ping(_)) => None,
        Output::Request(_, request) => Some(request),
        _ => None,
    };
    drain(client).into_iter().filter_map(request).collect()
}

fn events(client: &mut Client) -> Vec<ClientEvent> {
    let event = |output| match output {
        Output::Emit(event) => Some(event),
        _ => None,
    };
    drain(client).into_iter().filter_map(event).collect()
}

fn sends(client: &mut Client) -> Vec<Send> {
    let send = |request| match request {
        Request::Send(send) => Some(send),
        _ => None,
    };
    requests(client).into_iter().filter_map(send).collect()
}

/// The dial in progress.
fn dialed(client: &mut Client) -> (Conn, String) {
    let dial = |output| match output {
        Output::Dial(conn, addr) => Some((conn, addr)),
        _ => None,
    };
    drain(client).into_iter().find_map(dial).expect("a dial")
}

fn welcome(name: &str) -> Welcome {
    Welcome {
        minor: 0,
        cluster: ClusterId::new(1),
        server: slot(name),
        origin: Origin::new(1),
        servers: ["s1", "s2", "s3"].map(server).to_vec(),
        account: ME,
        nick: "ann".into(),
        clock_ms: CLOCK_MS,
        token: vec![1],
        closed: vec![],
        rooms: vec![],
        stale: vec![],
    }
}

fn accept(client: &mut Client, ms: u64, conn: Conn, welcome: Welcome) {
    client.handle(at(ms), Input::Connected(conn));
    client.handle(at(ms), Input::Item(conn, Item::Welcome(welcome)));
}

/// A client attached to s1, its outputs drained.
fn attached() -> (Client, Conn) {
    let mut client = Client::new(config(), 1);
    client.handle_timeout(at(0));
    let (conn, addr) = dialed(&mut client);
    assert_eq!(addr, "s1:1");
    accept(&mut client, 0, conn, welcome("s1"));
    drain(&mut client);
    (client, conn)
}

/// The client's server is gone and the next one answers, at 100 ms.
fn fail_over(client: &mut Client, conn: Conn, welcome: Welcome) -> Conn {
    client.handle(at(100), Input::Disconnected(conn, "gone".into()));
    let (conn, addr) = dialed(client);
    assert_ne!(addr, "s1:1");
    accept(client, 100, conn, welcome);
    conn
}

fn say(client: &mut Client, ticket: u64, text: &str) {
    let to = Target::Room("lobby".into());
    let (ticket, text, level) = (Ticket(ticket), text.to_owned(), Level::Stored);
    client.handle(at(1), Input::Command(Command::Send { ticket, to, text, level }));
}

fn sent(send: &Send, level: Level) -> Item {
    let (request, mid) = (send.request, send.mid);
    let room = RoomId::public("lobby");
    Item::Sent(Sent { request, mid, room, key: Key::MIN, level, replicas: 1, to: None })
}

fn ask(client: &mut Client, ms: u64, ticket: u64, ask: Ask) {
    client.handle(at(ms), Input::Command(Command::Ask { ticket: Ticket(ticket), ask }));
}

fn line(origin: u128, seq: u64, ms: u64, text: &str) -> Line {
    let body = Body::from(Msg { nick: "bob".into(), text: text.into() });
    let event = Event {
        seq,
        hlc: Hlc::at_ms(CLOCK_MS + ms),
        wall_ms: CLOCK_MS + ms,
        room: RoomId::public("lobby"),
        actor: AccountId::new(8),
        mid: Mid::at(CLOCK_MS + ms, u128::from(seq) << 64 | origin),
        kind: body.kind(),
        body: body.encode(),
    };
    Line { origin: Origin::new(origin), event: Arc::new(event) }
}

fn shown(line: &Line) -> Item {
    Item::Event(Shown { line: line.clone(), late: false })
}

fn told(line: &Line) -> ClientEvent {
    ClientEvent::Line { line: line.clone(), late: false }
}

fn lobby() -> OpenedRoom {
    OpenedRoom {
        id: RoomId::public("lobby"),
        name: "lobby".into(),
        since: Hlc::at_ms(CLOCK_MS),
        topic: String::new(),
    }
}

/// Opens the lobby and answers with these lines.
fn open_lobby(client: &mut Client, conn: Conn, lines: Vec<Line>) {
    let open = Ask::Open { room: "lobby".into(), last: 10, mode: Mode::Watch };
    ask(client, 2, 99, open);
    let [Request::Open(open)] = &requests(client)[..] else { panic!("no open") };
    let opened = RoomOpened {
        request: open.request,
        room: lobby(),
        lines,
        complete: true,
        unreachable: vec![],
    };
    client.handle(at(2), Input::Item(conn, Item::RoomOpened(opened)));
    drain(client);
}

fn token(entries: &[(u128, u64)]) -> Item {
    let vector = entries.iter().map(|(o, upto)| (Log::of(Origin::new(*o)), *upto)).collect();
    Item::Token(TokenBytes { token: vec![2], vector })
}

#[test]
fn the_first_timeout_dials_and_the_connection_gets_an_attach() {
    let mut client = Client::new(Config { nick: Some("ann".into()), ..config() }, 1);
    assert_eq!(client.next_deadline(), Some(Time::default()));
    client.handle_timeout(at(0));
    assert_eq!(drain(&mut client), [Output::Dial(Conn(1), "s1:1".into())]);
    client.handle(at(1), Input::Connected(Conn(1)));
    let attach = Attach {
        minor: CLIENT_MINOR,
        token: vec![],
        nick: Some("ann".into()),
        cursor: Vector::new(),
        rooms: vec![],
        direct: Direct::Take,
    };
    assert_eq!(drain(&mut client), [Output::Request(Conn(1), Request::Attach(attach))]);
}

#[test]
fn a_silent_dial_goes_on_with_the_next_server_within_its_time() {
    let mut client = Client::new(config(), 1);
    client.handle_timeout(at(0));
    drain(&mut client);
    client.handle_timeout(at(999));
    assert_eq!(drain(&mut client), []);
    client.handle_timeout(at(1000));
    let outputs = drain(&mut client);
    assert_eq!(outputs[0], Output::Hangup(Conn(1)));
    assert!(matches!(&outputs[2], Output::Dial(Conn(2), addr) if addr != "s1:1"), "{outputs:?}");
}

#[test]
fn inputs_of_an_older_connection_change_nothing() {
    let (mut client, old) = attached();
    let new = fail_over(&mut client, old, welcome("s2"));
    drain(&mut client);
    client.handle(
        at(101),
        Input::Item(
            old,
            Item::Gap(Gap { room: RoomId::public("lobby"), since: Key::MIN, with: None }),
        ),
    );
    client.handle(at(101), Input::Disconnected(old, "late".into()));
    client.handle(at(101), Input::Hint(old));
    assert_eq!(drain(&mut client), []);
    assert!(client.session(new).is_some());
}

#[test]
fn silence_is_pinged_and_after_two_seconds_given_up() {
    let (mut client, _) = attached();
    for ms in [500, 1000, 1500] {
        assert_eq!(client.next_deadline(), Some(at(ms)));
        client.handle_timeout(at(ms));
        assert!(matches!(&drain(&mut client)[..], [Output::Request(_, Request::Ping(_))]));
    }
    client.handle_timeout(at(2000));
    let lost = ClientEvent::Lost { server: slot("s1"), why: LostWhy::Silent };
    let outputs = drain(&mut client);
    assert_eq!(outputs[..2], [Output::Hangup(Conn(1)), Output::Emit(lost)]);
    assert!(matches!(&outputs[2], Output::Dial(..)), "at once: {outputs:?}");
}

#[test]
fn a_client_that_stood_still_asks_before_it_gives_up() {
    let (mut client, conn) = attached();
    client.handle_timeout(at(60_000));
    assert!(matches!(&drain(&mut client)[..], [Output::Request(_, Request::Ping(_))]));
    assert!(client.session(conn).is_some());
}

#[test]
fn a_hint_is_believed_only_when_the_probe_goes_unanswered() {
    let (mut client, conn) = attached();
    client.handle(at(10), Input::Hint(conn));
    let [Output::Request(_, Request::Ping(ping))] = drain(&mut client)[..] else { panic!() };
    let pong = Pong { request: ping.request, clock_ms: CLOCK_MS };
    client.handle(at(30), Input::Item(conn, Item::Pong(pong)));
    client.handle_timeout(at(70));
    assert_eq!(drain(&mut client), [], "a forged hint costs a ping");

    client.handle(at(80), Input::Hint(conn));
    let older = Pong { request: ping.request, clock_ms: CLOCK_MS };
    client.handle(at(81), Input::Item(conn, Item::Pong(older)));
    drain(&mut client);
    client.handle_timeout(at(140));
    let lost = ClientEvent::Lost { server: slot("s1"), why: LostWhy::Dead };
    assert_eq!(drain(&mut client)[1], Output::Emit(lost));
}

/// A client with the lobby open that remembers one line, and has been told and forgotten those of
/// the log of run 2 up to `upto`.
fn forgetful(upto: u64) -> (Client, Conn) {
    let mut client = Client::new(Config { remembered: 1, ..config() }, 1);
    client.handle_timeout(at(0));
    let (conn, _) = dialed(&mut client);
    accept(&mut client, 0, conn, welcome("s1"));
    drain(&mut client);
    ask(&mut client, 1, 1, Ask::Open { room: "lobby".into(), last: 0, mode: Mode::Watch });
    let opens = requests(&mut client);
    let [Request::Open(open)] = &opens[..] else { panic!("{opens:?}") };
    let opened = RoomOpened {
        request: open.request,
        room: OpenedRoom {
            id: RoomId::public("lobby"),
            name: "lobby".into(),
            since: Hlc::at_ms(CLOCK_MS),
            topic: String::new(),
        },
        lines: vec![],
        complete: true,
        unreachable: vec![],
    };
    client.handle(at(2), Input::Item(conn, Item::RoomOpened(opened)));
    for seq in 1..=upto {
        client.handle(at(3), Input::Item(conn, shown(&line(2, seq, seq, "told"))));
        let vector = [(Log::of(Origin::new(2)), seq)].into_iter().collect();
        let token = TokenBytes { token: vec![2], vector };
        client.handle(at(3), Input::Item(conn, Item::Token(token)));
    }
    drain(&mut client);
    (client, conn)
}

#[test]
fn a_message_that_moved_is_told_once_though_it_is_forgotten() {
    let (mut client, conn) = forgetful(10);
    let told = line(2, 3, 3, "told");
    // The server that took it first is back: the same message under a smaller key.
    let event = Event { seq: 7, hlc: Hlc::at_ms(CLOCK_MS), ..(*told.event).clone() };
    let first = Line { origin: Origin::new(9), event: Arc::new(event) };
    let moved =
        |from| Item::Moved(Moved { shown: Shown { line: first.clone(), late: true }, from });
    client.handle(at(20), Input::Item(conn, moved(told.key())));
    assert_eq!(events(&mut client), [], "it was told as event 3 of the other log");

    // One whose old place this client never saw, as after a gap, is news.
    client.handle(at(20), Input::Item(conn, moved(line(2, 11, 11, "lost").key())));
    assert!(matches!(&events(&mut client)[..], [ClientEvent::Line { .. }]));
}

#[test]
fn lines_told_elsewhere_that_reach_a_server_later_are_told_once_though_they_are_forgotten() {
    let (mut client, conn) = forgetful(10);
    // The new server lacked them, welcomed the client as stale, and has them now.
    let conn = fail_over(&mut client, conn, welcome("s2"));
    drain(&mut client);
    for seq in 1..=11 {
        client.handle(at(120), Input::Item(conn, shown(&line(2, seq, seq, "told"))));
    }
    let told = events(&mut client);
    let [ClientEvent::Line { line, .. }] = &told[..] else { panic!("{told:?}") };
    assert_eq!(line.event.seq, 11, "that one is new");
}

#[test]
fn a_hint_shortens_a_handshake_and_does_not_end_it() {
    let mut client = Client::new(config(), 1);
    client.handle_timeout(at(0));
    let (conn, _) = dialed(&mut client);
    client.handle(at(10), Input::Hint(conn));
    assert_eq!((drain(&mut client), client.next_deadline()), (vec![], Some(at(260))));
    accept(&mut client, 200, conn, welcome("s1"));
    assert!(client.session(conn).is_some(), "a handshake that completes disproves it");

    let (mut client, conn) = attached();
    client.handle(at(100), Input::Disconnected(conn, "gone".into()));
    let (conn, addr) = dialed(&mut client);
    client.handle(at(110), Input::Hint(conn));
    client.handle_timeout(at(360));
    let unreachable = ClientEvent::Unreachable { addr, why: LostWhy::Dead };
    assert_eq!(events(&mut client), [unreachable]);
}

#[test]
fn a_hint_during_an_attach_is_a_probe_that_any_answer_disproves() {
    let mut client = Client::new(config(), 1);
    client.handle_timeout(at(0));
    let (conn, addr) = dialed(&mut client);
    client.handle(at(5), Input::Connected(conn));
    drain(&mut client);
    client.handle(at(10), Input::Hint(conn));
    let [Output::Request(_, Request::Ping(ping))] = drain(&mut client)[..] else { panic!() };
    let pong = Pong { request: ping.request, clock_ms: CLOCK_MS };
    client.handle(at(30), Input::Item(conn, Item::Pong(pong)));
    client.handle_timeout(at(1000));
    assert_eq!(drain(&mut client), [], "it waits for events, and lives");

    client.handle(at(1000), Input::Hint(conn));
    client.handle_timeout(at(1250));
    let unreachable = ClientEvent::Unreachable { addr, why: LostWhy::Dead };
    assert_eq!(events(&mut client), [unreachable]);
}

#[test]
fn a_fail_over_sends_again_in_order_under_the_same_ids() {
    let (mut client, conn) = attached();
    for n in 0..5 {
        say(&mut client, n, &n.to_string());
    }
    let first = sends(&mut client);
    client.handle(at(5), Input::Item(conn, sent(&first[0], Level::Stored)));
    client.handle(at(5), Input::Item(conn, sent(&first[1], Level::Replicated)));
    fail_over(&mut client, conn, welcome("s2"));
    let again = sends(&mut client);
    let mids = |sends: &[Send]| sends.iter().map(|send| send.mid).collect::<Vec<_>>();
    let want = [&first[..1], &first[2..]].concat();
    assert_eq!(mids(&again), mids(&want), "the replicated one is safe, the stored one is not");
    assert!(mids(&first).is_sorted(), "ids rise strictly");
}

#[test]
fn each_level_is_told_once_and_a_refused_repetition_takes_nothing_back() {
    let (mut client, conn) = attached();
    say(&mut client, 1, "hello");
    let first = sends(&mut client);
    client.handle(at(4), Input::Item(conn, sent(&first[0], Level::Stored)));
    let [ClientEvent::Message(state)] = &events(&mut client)[..] else { panic!() };
    assert_eq!((state.ticket, state.level), (Ticket(1), Level::Stored));
    assert_eq!(state.elapsed, Duration::from_millis(3));
    let conn = fail_over(&mut client, conn, welcome("s2"));
    let again = sends(&mut client);
    let refused = Refused {
        request: again[0].request,
        code: Code::Kicked,
        reason: "kicked".into(),
        retry_ms: 0,
    };
    client.handle(at(101), Input::Item(conn, Item::Refused(refused)));
    assert_eq!(events(&mut client), []);
    assert_eq!(client.outstanding(), (0, 0));
}

#[test]
fn the_window_holds_back_what_is_not_answered_and_drafts_are_bounded() {
    let (mut client, conn) = attached();
    for n in 0..WINDOW_MAX as u64 + 10 {
        say(&mut client, n, "x");
    }
    let first = sends(&mut client);
    assert_eq!((first.len(), client.sends_free()), (WINDOW_MAX, 0));
    client.handle(at(2), Input::Item(conn, sent(&first[0], Level::Stored)));
    assert_eq!(sends(&mut client).len(), 1);
    for n in 0..5000 {
        say(&mut client, 1000 + n, "x");
    }
    let failed = |event: &ClientEvent| {
        matches!(event, ClientEvent::Failed { failure: Failure::Refused(Code::Busy, _), .. })
    };
    assert!(events(&mut client).iter().any(failed));
}

#[test]
fn a_flood_is_paced_below_what_a_server_takes() {
    let (mut client, conn) = attached();
    let (mut sent_at, mut ms) = (Vec::new(), 1);
    for n in 0..1200 {
        say(&mut client, n, "x");
    }
    while sent_at.len() < 1200 && ms < 10_000 {
        for send in sends(&mut client) {
            sent_at.push(ms);
            client.handle(at(ms), Input::Item(conn, sent(&send, Level::Stored)));
        }
        ms += 1;
        client.handle_timeout(at(ms));
    }
    let within = |from: u64| sent_at.iter().filter(|ms| (from..from + 1000).contains(*ms)).count();
    assert_eq!(sent_at.len(), 1200);
    assert!(within(100) <= 910, "{}", within(100));
    assert!(ms < 600, "the first burst goes at once: {ms}");
}

#[test]
fn a_busy_server_is_asked_again_in_order_after_the_time_it_says() {
    let (mut client, conn) = attached();
    for n in 0..3 {
        say(&mut client, n, "x");
    }
    let first = sends(&mut client);
    for send in &first[..2] {
        let (request, code) = (send.request, Code::Busy);
        let refused = Refused { request, code, reason: "slow".into(), retry_ms: 50 };
        client.handle(at(5), Input::Item(conn, Item::Refused(refused)));
    }
    say(&mut client, 9, "later");
    assert_eq!(sends(&mut client), []);
    client.handle_timeout(at(55));
    let again: Vec<_> = sends(&mut client).into_iter().map(|send| send.mid).collect();
    assert_eq!(again[..2], [first[0].mid, first[1].mid]);
}

#[test]
fn a_server_that_cannot_write_is_left_with_the_message_in_hand() {
    let (mut client, conn) = attached();
    say(&mut client, 1, "x");
    let first = sends(&mut client);
    let request = first[0].request;
    let refused =
        Refused { request, code: Code::ClockSkew, reason: "clock off".into(), retry_ms: 0 };
    client.handle(at(5), Input::Item(conn, Item::Refused(refused)));
    let (conn, _) = dialed(&mut client);
    accept(&mut client, 6, conn, welcome("s2"));
    assert_eq!(sends(&mut client)[0].mid, first[0].mid);
}

#[test]
fn ids_come_from_the_servers_clock_and_only_once_it_is_known() {
    let mut client = Client::new(config(), 1);
    say(&mut client, 1, "early");
    client.handle_timeout(at(1));
    let (conn, _) = dialed(&mut client);
    accept(&mut client, 5, conn, welcome("s1"));
    assert_eq!(sends(&mut client)[0].mid.unix_ms(), CLOCK_MS);
    client.handle(at(5), Input::Item(conn, token(&[])));
    client.handle_timeout(at(505));
    drain(&mut client);
    let to = Target::Room("lobby".into());
    let send = Command::Send { ticket: Ticket(2), to, text: "y".into(), level: Level::Stored };
    client.handle(at(705), Input::Command(send));
    assert_eq!(sends(&mut client)[0].mid.unix_ms(), CLOCK_MS + 700);
}

#[test]
fn a_line_is_told_once_whatever_a_server_replays() {
    let (mut client, conn) = attached();
    let (old, new) = (line(1, 1, 0, "old"), line(1, 2, 10, "new"));
    open_lobby(&mut client, conn, vec![old.clone()]);
    client.handle(at(3), Input::Item(conn, shown(&new)));
    assert_eq!(events(&mut client), [told(&new)]);
    let rooms = vec![lobby()];
    let conn = fail_over(&mut client, conn, Welcome { rooms, ..welcome("s2") });
    drain(&mut client);
    // The sender repeated `new` at s2, whose log gives it another place.
    let mut alias = (*new.event).clone();
    alias.seq = 40;
    let alias = Line { origin: Origin::new(2), event: Arc::new(alias) };
    let newest = line(2, 41, 30, "newest");
    for line in [&old, &alias, &new, &newest] {
        client.handle(at(101), Input::Item(conn, shown(line)));
    }
    assert_eq!(events(&mut client), [told(&newest)]);
}

#[test]
fn the_cursor_rises_with_tokens_and_with_lines_after_the_first_token() {
    let (mut client, conn) = attached();
    open_lobby(&mut client, conn, vec![]);
    client.handle(at(3), Input::Item(conn, shown(&line(1, 5, 0, "replayed"))));
    assert_eq!(client.cursor().len(), 0, "other rooms' lines below 5 may still be coming");
    client.handle(at(4), Input::Item(conn, token(&[(1, 6)])));
    client.handle(at(4), Input::Item(conn, shown(&line(1, 7, 1, "live"))));
    let cursor: Vector = [(Log::of(Origin::new(1)), 7)].into_iter().collect();
    assert_eq!(client.cursor(), &cursor);
    assert_eq!(client.token(), [2]);
}

#[test]
fn a_conversation_never_seen_is_read_again_after_a_gap() {
    let (mut client, conn) = attached();
    let bob = AccountId::new(8);
    let (room, with) = (RoomId::direct(ME, bob), Some(bob));
    client.handle(at(3), Input::Item(conn, Item::Gap(Gap { room, since: Key::MIN, with })));
    let [Request::History(history)] = &requests(&mut client)[..] else { panic!() };
    assert_eq!(history.of, Target::Account(bob));
}

#[test]
fn a_nick_that_a_server_took_for_somebody_means_him_at_the_next_one() {
    let (mut client, conn) = attached();
    let (to, text, level) = (Target::Nick("bob".into()), "hi".to_owned(), Level::Stored);
    client.handle(at(1), Input::Command(Command::Send { ticket: Ticket(1), to, text, level }));
    let [send] = &sends(&mut client)[..] else { panic!() };
    let bob = AccountId::new(8);
    let (request, mid, room) = (send.request, send.mid, RoomId::direct(ME, bob));
    let (level, to) = (Level::Stored, Some(bob));
    let sent = Sent { request, mid, room, key: Key::MIN, level, replicas: 1, to };
    client.handle(at(2), Input::Item(conn, Item::Sent(sent)));
    fail_over(&mut client, conn, welcome("s2"));
    let [again] = &sends(&mut client)[..] else { panic!() };
    assert_eq!((again.mid, &again.to), (mid, &Target::Account(bob)));
}

#[test]
fn a_window_of_refusals_as_busy_is_one_refusal() {
    let (mut client, conn) = attached();
    for n in 0..200 {
        say(&mut client, n, "x");
    }
    for send in sends(&mut client) {
        let (request, code) = (send.request, Code::Busy);
        let refused = Refused { request, code, reason: "slow".into(), retry_ms: 50 };
        client.handle(at(5), Input::Item(conn, Item::Refused(refused)));
    }
    client.handle_timeout(at(56));
    assert_eq!(sends(&mut client).len(), 128, "half of 256, once");
}

#[test]
fn a_message_below_its_rooms_floor_is_refused_for_good() {
    let mid = Mid::at(CLOCK_MS - 3_600_000, 1);
    let (to, text) = (Target::Room("lobby".into()), "old".to_owned());
    let notes =
        [Note::Said { nth: 1, to, text, level: Level::Stored }, Note::Named { nth: 1, mid }];
    let journal = Some(notes.into_iter().collect());
    let mut client = Client::new(Config { journal, ..config() }, 1);
    client.handle_timeout(at(0));
    let (conn, _) = dialed(&mut client);
    accept(&mut client, 0, conn, welcome("s1"));
    let [send] = &sends(&mut client)[..] else { panic!() };
    let (request, code) = (send.request, Code::BadMid);
    let refused = Refused { request, code, reason: "below the floor".into(), retry_ms: 0 };
    client.handle(at(5), Input::Item(conn, Item::Refused(refused)));
    let outputs = drain(&mut client);
    let told = |output: &Output| {
        matches!(output, Output::Emit(ClientEvent::Failed { failure: Failure::Unsure(..), .. }))
    };
    assert!(outputs.iter().any(told), "{outputs:?}");
    let done = vec![Note::Done { nth: 1 }];
    assert!(
        outputs.iter().any(|output| matches!(output, Output::Keep(_, notes) if *notes == done))
    );
}

#[test]
fn a_gap_takes_back_what_lines_seemed_to_prove() {
    let (mut client, conn) = attached();
    open_lobby(&mut client, conn, vec![]);
    let log = Log::of(Origin::new(1));
    client.handle(at(3), Input::Item(conn, token(&[(1, 5)])));
    client.handle(at(4), Input::Item(conn, shown(&line(1, 9, 1, "live"))));
    assert_eq!(client.cursor().upto(log), 9);
    let room = RoomId::public("lobby");
    client.handle(at(5), Input::Item(conn, Item::Gap(Gap { room, since: Key::MIN, with: None })));
    assert_eq!(client.cursor().upto(log), 5, "line 8 may have been dropped in another room");
}

#[test]
fn a_line_that_waited_long_proves_nothing() {
    let (mut client, conn) = attached();
    open_lobby(&mut client, conn, vec![]);
    client.handle(at(3), Input::Item(conn, token(&[(1, 5)])));
    client.handle(at(1400), Input::Item(conn, shown(&line(1, 9, 1, "slow"))));
    assert_eq!(client.cursor().upto(Log::of(Origin::new(1))), 5);
}

#[test]
fn an_answer_in_parts_is_told_as_one() {
    let (mut client, conn) = attached();
    ask(&mut client, 1, 5, Ask::Rooms);
    let [Request::Rooms(Plain { request })] = requests(&mut client)[..] else { panic!() };
    let list = |name: &str, more| {
        let id = RoomId::public(name);
        let (name, topic) = (name.to_owned(), String::new());
        let rooms = vec![RoomInfo {
            id,
            name,
            topic,
            participants: 0,
            messages: 0,
            keep: Retention::default(),
        }];
        RoomList { request, rooms, more }
    };
    client.handle(at(2), Input::Item(conn, Item::Rooms(list("a", true))));
    assert_eq!(events(&mut client), []);
    client.handle(at(2), Input::Item(conn, Item::Rooms(list("b", false))));
    let [ClientEvent::Answered { answer: Answer::Rooms(list), .. }] = &events(&mut client)[..]
    else {
        panic!()
    };
    let names: Vec<_> = list.rooms.iter().map(|room| room.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn a_taken_name_is_told_once_and_asked_for_again() {
    let mut client = Client::new(Config { nick: Some("bob".into()), ..config() }, 1);
    client.handle_timeout(at(0));
    let (conn, _) = dialed(&mut client);
    accept(&mut client, 1, conn, Welcome { nick: "bob~2".into(), ..welcome("s1") });
    let named = ClientEvent::Named { nick: "bob~2".into(), taken: Some("bob".into()) };
    assert_eq!(events(&mut client)[1..], [named]);
    client.handle(at(100), Input::Disconnected(conn, "gone".into()));
    let (conn, _) = dialed(&mut client);
    client.handle(at(100), Input::Connected(conn));
    let [Request::Attach(attach)] = &requests(&mut client)[..] else { panic!() };
    assert_eq!(attach.nick.as_deref(), Some("bob"));
    let again = Welcome { nick: "bob~2".into(), ..welcome("s2") };
    client.handle(at(101), Input::Item(conn, Item::Welcome(again)));
    assert!(matches!(&events(&mut client)[..], [ClientEvent::Attached(_)]));
}

#[test]
fn history_before_the_opening_is_not_told_when_the_cursor_knows_nothing_of_it() {
    let (mut client, conn) = attached();
    open_lobby(&mut client, conn, vec![]);
    let rooms = vec![lobby()];
    let conn = fail_over(&mut client, conn, Welcome { rooms, ..welcome("s2") });
    drain(&mut client);
    let mut ancient = (*line(3, 1, 0, "ancient").event).clone();
    ancient.hlc = Hlc::at_ms(CLOCK_MS - 60_000);
    let ancient = Line { origin: Origin::new(3), event: Arc::new(ancient) };
    client.handle(at(101), Input::Item(conn, shown(&ancient)));
    assert_eq!(events(&mut client), []);
}

#[test]
fn a_line_more_than_a_second_older_than_the_newest_is_late() {
    let (mut client, conn) = attached();
    open_lobby(&mut client, conn, vec![]);
    let newest = line(1, 1, 1500, "newest");
    let close = line(2, 1, 600, "close");
    let late = line(2, 2, 499, "late");
    let mad = line(3, 1, 3_600_000, "clock an hour ahead");
    for line in [&newest, &mad, &close, &late] {
        client.handle(at(1500), Input::Item(conn, shown(line)));
    }
    let late = ClientEvent::Line { line: late, late: true };
    assert_eq!(events(&mut client), [told(&newest), told(&mad), told(&close), late]);
}

#[test]
fn a_gap_is_read_again_and_the_cursor_waits_for_it() {
    let (mut client, conn) = attached();
    open_lobby(&mut client, conn, vec![line(1, 1, 0, "a")]);
    client.handle(at(3), Input::Item(conn, token(&[(1, 1)])));
    let room = RoomId::public("lobby");
    client.handle(at(4), Input::Item(conn, Item::Gap(Gap { room, since: Key::MIN, with: None })));
    let live = line(1, 5, 50, "e");
    client.handle(at(5), Input::Item(conn, shown(&live)));
    client.handle(at(5), Input::Item(conn, token(&[(1, 5)])));
    let outputs = drain(&mut client);
    assert!(outputs.contains(&Output::Emit(told(&live))), "live lines do not wait");
    assert_eq!(client.cursor().upto(Log::of(Origin::new(1))), 1);

    let asked = |outputs: &[Output]| {
        outputs.iter().find_map(|output| match output {
            Output::Request(_, Request::History(history)) => Some(history.clone()),
            _ => None,
        })
    };
    let history = asked(&outputs).expect("the room is read again");
    let page = |history: &History, lines, more| {
        let request = history.request;
        Item::Page(Page { request, lines, more, complete: true, unreachable: vec![] })
    };
    let (b, c, d) = (line(1, 2, 10, "b"), line(1, 3, 20, "c"), line(1, 4, 30, "d"));
    let lines = vec![d.clone(), live];
    client.handle(at(6), Input::Item(conn, page(&history, lines, true)));
    let history = asked(&drain(&mut client)).expect("the page before");
    assert_eq!(history.before, Some(d.key()));
    let lines = vec![line(1, 1, 0, "a"), b.clone(), c.clone()];
    client.handle(at(7), Input::Item(conn, page(&history, lines, false)));
    assert_eq!(events(&mut client), [told(&b), told(&c), told(&d)]);
    assert_eq!(client.cursor().upto(Log::of(Origin::new(1))), 5);
}

#[test]
fn a_line_after_a_gap_at_the_attach_proves_itself_although_the_first_token_waited_for_it() {
    let (mut client, conn) = attached();
    open_lobby(&mut client, conn, vec![]);
    let room = RoomId::public("lobby");
    client.handle(at(3), Input::Item(conn, Item::Gap(Gap { room, since: Key::MIN, with: None })));
    client.handle(at(3), Input::Item(conn, token(&[(1, 5)])));
    let request = drain(&mut client).into_iter().find_map(|output| match output {
        Output::Request(_, Request::History(history)) => Some(history.request),
        _ => None,
    });
    let request = request.expect("the room is read again");
    let lines = vec![line(1, 5, 0, "missed")];
    let page = Page { request, lines, more: false, complete: true, unreachable: vec![] };
    client.handle(at(4), Input::Item(conn, Item::Page(page)));
    assert_eq!(client.cursor().upto(Log::of(Origin::new(1))), 5);
    client.handle(at(5), Input::Item(conn, shown(&line(1, 6, 1, "live"))));
    assert_eq!(client.cursor().upto(Log::of(Origin::new(1))), 6, "the next server must have it");
}

#[test]
fn a_kicked_session_stays_out_across_a_fail_over() {
    let (mut client, conn) = attached();
    open_lobby(&mut client, conn, vec![]);
    let why = ClosedWhy::Kicked { by: "bob".into(), reason: "enough".into() };
    let closed = RoomClosed { room: RoomId::public("lobby"), name: "lobby".into(), why };
    let conn =
        fail_over(&mut client, conn, Welcome { closed: vec![closed.clone()], ..welcome("s2") });
    let outputs = drain(&mut client);
    assert!(outputs.contains(&Output::Emit(ClientEvent::RoomClosed(closed))));
    let open = |output: &Output| matches!(output, Output::Request(_, Request::Open(_)));
    assert!(!outputs.iter().any(open), "only its user may join again");
    client.handle(at(102), Input::Disconnected(conn, "gone".into()));
    let (conn, _) = dialed(&mut client);
    client.handle(at(103), Input::Connected(conn));
    let [Request::Attach(attach)] = &requests(&mut client)[..] else { panic!() };
    assert_eq!(attach.rooms, []);
}

#[test]
fn a_stopping_server_hands_over_without_an_error() {
    let (mut client, conn) = attached();
    let moving = Moving { servers: vec![server("s3")] };
    client.handle(at(10), Input::Item(conn, Item::Leaving(moving)));
    assert_eq!(drain(&mut client), [Output::Hangup(conn), Output::Dial(Conn(2), "s3:1".into())]);
}

#[test]
fn an_unanswered_ask_goes_to_the_next_server_and_ends_at_its_deadline() {
    let (mut client, conn) = attached();
    ask(&mut client, 1, 5, Ask::Rooms);
    assert_eq!(requests(&mut client).len(), 1);
    fail_over(&mut client, conn, welcome("s2"));
    assert!(matches!(&requests(&mut client)[..], [Request::Attach(_), Request::Rooms(_)]));
    client.handle_timeout(at(10_001));
    let failed = ClientEvent::Failed { ticket: Ticket(5), failure: Failure::TimedOut };
    assert!(events(&mut client).contains(&failed));
}

#[test]
fn a_goodbye_ends_once_answered_and_everything_open_is_told() {
    let (mut client, conn) = attached();
    ask(&mut client, 1, 5, Ask::Rooms);
    client.handle(at(2), Input::Command(Command::Detach));
    let sent = requests(&mut client);
    let Some(Request::Detach(plain)) = sent.last() else { panic!() };
    client.handle(at(3), Input::Item(conn, Item::Done(*plain)));
    let failed = ClientEvent::Failed { ticket: Ticket(5), failure: Failure::Ended };
    assert_eq!(
        drain(&mut client),
        [Output::Hangup(conn), Output::Emit(failed), Output::Emit(ClientEvent::Ended(None))]
    );
    assert_eq!((client.is_ended(), client.next_deadline()), (true, None));
}

#[test]
fn whoever_is_far_away_waits_longer_for_the_answer_to_his_goodbye() {
    let (mut client, conn) = attached();
    client.handle_timeout(at(60_000));
    let [Output::Request(_, Request::Ping(ping))] = drain(&mut client)[..] else { panic!() };
    let pong = Pong { request: ping.request, clock_ms: CLOCK_MS };
    client.handle(at(60_400), Input::Item(conn, Item::Pong(pong)));
    client.handle(at(60_400), Input::Command(Command::Detach));
    let waits = u64::try_from(config().timing.detach_wait.as_millis()).unwrap() + 2 * 400;
    client.handle_timeout(at(60_399 + waits));
    assert!(!client.is_ended());
    client.handle_timeout(at(60_400 + waits));
    assert!(client.is_ended());
}

#[test]
fn a_foreign_token_ends_the_client_with_the_reason() {
    let mut client = Client::new(config(), 1);
    client.handle_timeout(at(0));
    let (conn, _) = dialed(&mut client);
    client.handle(at(1), Input::Connected(conn));
    let (request, code) = (RequestId(0), Code::BadToken);
    let refused = Refused { request, code, reason: "not ours".into(), retry_ms: 0 };
    client.handle(at(2), Input::Item(conn, Item::Refused(refused)));
    let ended = ClientEvent::Ended(Some(Failure::Refused(code, "not ours".into())));
    assert_eq!(events(&mut client), [ended]);
}

#[test]
fn a_client_of_another_cluster_is_told_at_once() {
    let mut client = Client::new(config(), 1);
    client.handle_timeout(at(0));
    for dial in 1..=3 {
        let (conn, _) = dialed(&mut client);
        client.handle(at(dial), Input::Stranger(conn, "unknown issuer".into()));
    }
    let told = events(&mut client);
    let Some(ClientEvent::Ended(Some(Failure::Refused(Code::Invalid, why)))) = told.last() else {
        panic!("{told:?}");
    };
    assert!(why.contains("another cluster") && why.contains("unknown issuer"), "{why}");
}

#[test]
fn one_stranger_among_the_servers_ends_nothing() {
    let mut client = Client::new(config(), 1);
    client.handle_timeout(at(0));
    for _ in 0..2 {
        let (conn, _) = dialed(&mut client);
        client.handle(at(1), Input::Stranger(conn, "unknown issuer".into()));
    }
    let (conn, _) = dialed(&mut client);
    client.handle(at(2), Input::Disconnected(conn, "no answer".into()));
    assert!(!client.is_ended(), "the third may be of the cluster");

    // Nor when all answer so later on: once attached, a client knows better.
    let (mut client, conn) = attached();
    client.handle(at(3), Input::Disconnected(conn, "gone".into()));
    for ms in (4..).step_by(1000).take(12) {
        client.handle_timeout(at(ms));
        while let Some((conn, _)) = drain(&mut client).into_iter().find_map(|output| match output {
            Output::Dial(conn, addr) => Some((conn, addr)),
            _ => None,
        }) {
            client.handle(at(ms), Input::Stranger(conn, "unknown issuer".into()));
        }
    }
    assert!(!client.is_ended());
}

#[test]
fn the_name_of_a_room_outlives_its_closing() {
    let (mut client, conn) = attached();
    let lobby = RoomId::public("lobby");
    open_lobby(&mut client, conn, vec![]);
    let why = ClosedWhy::Kicked { by: "bob".into(), reason: String::new() };
    let closed = RoomClosed { room: lobby, name: "lobby".into(), why };
    client.handle(at(5), Input::Item(conn, Item::RoomClosed(closed)));
    assert_eq!((client.room_name(lobby), client.known_room_name(lobby)), (None, Some("lobby")));
}

#[test]
fn a_client_tells_its_program_where_it_stands() {
    let mut client = Client::new(config(), 1);
    assert_eq!((client.server(), client.account(), client.is_ended()), (None, None, false));
    assert_eq!(client.sends_free(), WINDOW_MAX);
    client.handle_timeout(at(0));
    let (conn, _) = dialed(&mut client);
    accept(&mut client, 0, conn, welcome("s1"));
    assert_eq!((client.server(), client.account()), (Some(&slot("s1")), Some(ME)));
    let names: Vec<Slot> = client.servers().into_iter().map(|server| server.name).collect();
    assert_eq!(names, ["s1", "s2", "s3"].map(slot));
    drain(&mut client);
    say(&mut client, 1, "one");
    say(&mut client, 2, "two");
    let sends = sends(&mut client);
    assert_eq!((client.sends_free(), client.outstanding()), (WINDOW_MAX - 2, (2, 2)));
    client.handle(at(2), Input::Item(conn, sent(&sends[0], Level::Stored)));
    assert_eq!((client.sends_free(), client.outstanding()), (WINDOW_MAX - 1, (1, 2)));
    client.handle(at(2), Input::Item(conn, sent(&sends[0], Level::Replicated)));
    client.handle(at(2), Input::Item(conn, sent(&sends[1], Level::Replicated)));
    let notice = Item::Replicated(Replicated { mids: vec![(sends[0].mid, 2)] });
    client.handle(at(2), Input::Item(conn, notice));
    assert_eq!((client.sends_free(), client.outstanding()), (WINDOW_MAX, (0, 0)));
}

#[test]
fn what_an_older_connection_says_late_is_not_taken_for_the_new_one_s() {
    let (mut client, old) = attached();
    let new = fail_over(&mut client, old, welcome("s2"));
    drain(&mut client);
    client.handle(at(200), Input::Heard(old));
    client.handle(at(200), Input::Connected(old));
    client.handle(at(200), Input::Stranger(old, "who".into()));
    client.handle(at(200), Input::Disconnected(old, "gone".into()));
    client.handle(at(200), Input::Item(old, Item::Leaving(Moving { servers: vec![] })));
    assert_eq!((drain(&mut client), client.server()), (vec![], Some(&slot("s2"))));
    client.handle(at(200), Input::Item(new, Item::Leaving(Moving { servers: vec![] })));
    assert_eq!(client.server(), None);
}

#[test]
fn a_dial_that_is_over_is_not_attached() {
    let mut client = Client::new(config(), 1);
    client.handle_timeout(at(0));
    let (first, _) = dialed(&mut client);
    client.handle(at(10), Input::Disconnected(first, "refused".into()));
    client.handle_timeout(at(2000));
    drain(&mut client);
    client.handle(at(2000), Input::Connected(first));
    assert_eq!(requests(&mut client), []);
}

fn refuse(request: RequestId, code: Code) -> Item {
    Item::Refused(Refused { request, code, reason: "because".into(), retry_ms: 0 })
}

/// A client that asks one server alone.
fn only() -> (Client, Conn) {
    let mut client = Client::new(Config { roam: Roam::Only("s1:1".into()), ..config() }, 1);
    client.handle_timeout(at(0));
    let (conn, _) = dialed(&mut client);
    accept(&mut client, 0, conn, welcome("s1"));
    drain(&mut client);
    (client, conn)
}

/// What becomes of a message that is refused so: `None` if it stays.
fn refused_with(code: Code, (mut client, conn): (Client, Conn)) -> (Option<Failure>, bool) {
    say(&mut client, 5, "one");
    let sends = sends(&mut client);
    client.handle(at(3), Input::Item(conn, refuse(sends[0].request, code)));
    let failed = events(&mut client).into_iter().find_map(|event| match event {
        ClientEvent::Failed { ticket: Ticket(5), failure } => Some(failure),
        _ => None,
    });
    (failed, client.server().is_some())
}

#[test]
fn a_refusal_is_told_or_left_for_another_server_by_its_code() {
    use Code::{
        BadMid, BadToken, Busy, ClockSkew, Conflict, Expired, Forbidden, Invalid, Kicked, NotReady,
        Protocol, Storage, Unknown,
    };
    let because = |code| Some(Failure::Refused(code, "because".into()));
    for code in [Invalid, Unknown, Forbidden, Kicked, Conflict, Expired, BadToken, Protocol] {
        assert_eq!(refused_with(code, attached()), (because(code), true), "{code:?}");
    }
    for code in [NotReady, ClockSkew, Storage] {
        assert_eq!(refused_with(code, attached()), (None, false), "{code:?}: elsewhere");
    }
    for code in [ClockSkew, Storage] {
        assert_eq!(refused_with(code, only()), (because(code), true), "{code:?}: nowhere else");
    }
    for code in [Busy, BadMid, NotReady] {
        assert_eq!(refused_with(code, only()), (None, true), "{code:?}: later");
    }
}

#[test]
fn a_refusal_of_what_an_earlier_server_may_have_taken_is_told_as_unsure() {
    let (mut client, conn) = attached();
    say(&mut client, 5, "one");
    let topic =
        |text: Option<&str>| Ask::Topic { room: "lobby".into(), text: text.map(Into::into) };
    ask(&mut client, 2, 6, topic(Some("tea")));
    ask(&mut client, 2, 7, topic(None));
    assert_eq!(requests(&mut client).len(), 3);
    let conn = fail_over(&mut client, conn, welcome("s2"));
    say(&mut client, 8, "two");
    for request in requests(&mut client) {
        let (Request::Send(Send { request, .. }) | Request::Topic(Topic { request, .. })) = request
        else {
            continue;
        };
        client.handle(at(105), Input::Item(conn, refuse(request, Code::Kicked)));
    }
    let mut failed: Vec<(u64, bool)> = events(&mut client)
        .into_iter()
        .filter_map(|event| match event {
            ClientEvent::Failed { ticket, failure } => Some((ticket.0, failure.is_certain())),
            _ => None,
        })
        .collect();
    failed.sort_unstable();
    assert_eq!(failed, [(5, false), (6, false), (7, true), (8, true)]);
}

#[test]
fn a_session_that_is_refused_ends_unsure_of_what_was_under_way() {
    let (mut client, conn) = attached();
    say(&mut client, 5, "asked");
    assert_eq!(requests(&mut client).len(), 1);
    let conn = fail_over(&mut client, conn, welcome("s2"));
    say(&mut client, 6, "asked again and new");
    requests(&mut client);
    client.handle(at(105), Input::Item(conn, refuse(RequestId(0), Code::Protocol)));
    let ended = events(&mut client);
    let certain = |event: &ClientEvent| match event {
        ClientEvent::Failed { ticket, failure } => Some((ticket.0, failure.is_certain())),
        _ => None,
    };
    let failed: Vec<_> = ended.iter().filter_map(certain).collect();
    assert_eq!(failed, [(5, false), (6, false)]);
    assert!(matches!(ended.last(), Some(ClientEvent::Ended(Some(Failure::Refused(..))))));
}

#[test]
fn a_refusal_of_the_session_itself_ends_it_or_is_a_notice() {
    let told = |code| {
        let (mut client, conn) = attached();
        client.handle(at(3), Input::Item(conn, refuse(RequestId(0), code)));
        let notice = |event: &ClientEvent| matches!(event, ClientEvent::Notice(_));
        let noticed = events(&mut client).iter().any(notice);
        (noticed, client.server().is_some(), client.is_ended())
    };
    for code in [Code::BadToken, Code::Protocol] {
        assert_eq!(told(code), (false, false, true), "{code:?}");
    }
    assert_eq!(told(Code::Invalid), (true, true, false));
    assert_eq!(told(Code::Busy), (false, false, false), "another server");
    let (mut client, conn) = only();
    client.handle(at(3), Input::Item(conn, refuse(RequestId(0), Code::NotReady)));
    assert_eq!(client.server(), None);
}

#[test]
fn an_ask_is_refused_to_whoever_asked_and_asked_again_when_it_was_too_early() {
    let (mut client, conn) = attached();
    ask(&mut client, 1, 4, Ask::Rooms);
    let [Request::Rooms(Plain { request })] = requests(&mut client)[..] else { panic!("no ask") };
    let busy = Refused { request, code: Code::Busy, reason: "later".into(), retry_ms: 200 };
    client.handle(at(2), Input::Item(conn, Item::Refused(busy)));
    client.handle_timeout(at(201));
    assert_eq!(requests(&mut client), []);
    assert!(client.next_deadline().is_some_and(|at| at <= self::at(202)));
    client.handle_timeout(at(202));
    assert_eq!(requests(&mut client), [Request::Rooms(Plain { request })]);
    client.handle(at(203), Input::Item(conn, refuse(request, Code::Forbidden)));
    let failure = Failure::Refused(Code::Forbidden, "because".into());
    assert_eq!(events(&mut client), [ClientEvent::Failed { ticket: Ticket(4), failure }]);
}

#[test]
fn a_room_that_a_fail_over_cannot_open_again_is_closed() {
    let (mut client, conn) = attached();
    open_lobby(&mut client, conn, vec![]);
    let conn = fail_over(&mut client, conn, welcome("s2"));
    let [.., Request::Open(open)] = &requests(&mut client)[..] else { panic!("no open") };
    client.handle(at(101), Input::Item(conn, refuse(open.request, Code::Forbidden)));
    let closed = |event: &ClientEvent| matches!(event, ClientEvent::RoomClosed(_));
    assert!(events(&mut client).iter().any(closed));
    assert_eq!(client.room_name(RoomId::public("lobby")), None);
}

#[test]
fn a_gap_that_cannot_be_read_again_is_told_and_the_cursor_goes_on() {
    let (mut client, conn) = attached();
    open_lobby(&mut client, conn, vec![]);
    let gap = Gap { room: RoomId::public("lobby"), since: Key::MIN, with: None };
    client.handle(at(3), Input::Item(conn, Item::Gap(gap)));
    let [Request::History(history)] = &requests(&mut client)[..] else { panic!("no page") };
    client.handle(at(4), Input::Item(conn, token(&[(1, 9)])));
    assert_eq!(client.cursor().len(), 0, "not before the gap is read");
    client.handle(at(5), Input::Item(conn, refuse(history.request, Code::Storage)));
    drain(&mut client);
    let (mut client, conn) = only();
    open_lobby(&mut client, conn, vec![]);
    client.handle(at(3), Input::Item(conn, Item::Gap(gap)));
    let [Request::History(history)] = &requests(&mut client)[..] else { panic!("no page") };
    client.handle(at(4), Input::Item(conn, token(&[(1, 9)])));
    client.handle(at(5), Input::Item(conn, refuse(history.request, Code::Storage)));
    let [ClientEvent::Notice(notice)] = &events(&mut client)[..] else { panic!("no notice") };
    assert!(notice.starts_with("some lines of lobby could not be read again:"), "{notice}");
    assert_eq!(client.cursor().len(), 1);
}

#[test]
fn a_page_that_a_busy_server_postpones_is_asked_for_again() {
    let (mut client, conn) = attached();
    open_lobby(&mut client, conn, vec![]);
    let gap = Gap { room: RoomId::public("lobby"), since: Key::MIN, with: None };
    client.handle(at(3), Input::Item(conn, Item::Gap(gap)));
    let [Request::History(history)] = &requests(&mut client)[..] else { panic!("no page") };
    let busy = Refused {
        request: history.request,
        code: Code::Busy,
        reason: "later".into(),
        retry_ms: 300,
    };
    client.handle(at(4), Input::Item(conn, Item::Refused(busy)));
    client.handle_timeout(at(303));
    assert_eq!(requests(&mut client), []);
    assert!(client.next_deadline().is_some_and(|at| at <= self::at(304)));
    client.handle_timeout(at(304));
    assert!(matches!(requests(&mut client)[..], [Request::History(_)]));
}

#[test]
fn a_name_is_kept_across_a_fail_over_whoever_changed_it() {
    let nick_line = |seq: u64, ms: u64, actor: AccountId, nick: &str| {
        let body = Body::from(crate::event::Nick { nick: nick.into(), before: "ann".into() });
        let event = Event {
            actor,
            kind: body.kind(),
            body: body.encode(),
            ..(*line(2, seq, ms, "").event).clone()
        };
        shown(&Line { origin: Origin::new(2), event: Arc::new(event) })
    };
    let wish = |lines: &[(u64, u64, AccountId, &str)]| {
        let (mut client, conn) = attached();
        for (seq, ms, actor, nick) in lines {
            client.handle(at(3), Input::Item(conn, nick_line(*seq, *ms, *actor, nick)));
        }
        client.handle(at(100), Input::Disconnected(conn, "gone".into()));
        let (conn, _) = dialed(&mut client);
        client.handle(at(100), Input::Connected(conn));
        let [Request::Attach(attach)] = &requests(&mut client)[..] else { panic!("no attach") };
        attach.nick.clone().unwrap()
    };
    assert_eq!(wish(&[]), "ann");
    assert_eq!(wish(&[(1, 1, ME, "anna")]), "anna");
    assert_eq!(wish(&[(1, 1, AccountId::new(8), "bob")]), "ann", "somebody else's");
    assert_eq!(wish(&[(2, 9, ME, "new"), (1, 1, ME, "old")]), "new", "by its stamp");
    assert_eq!(wish(&[(1, 1, ME, "old"), (2, 9, ME, "new")]), "new");
}
