//! Load that is too much, by clients that keep to nothing: what they are told, and what is bounded.

use std::collections::{BTreeMap, BTreeSet};

use chatty_core::config::Limits;
use chatty_core::session::History;
use tokio::task::JoinSet;

use super::slow::{Pace, Slow, say};
use super::*;

/// A server with other bounds, on a disk of that pace.
fn start_with(made: &Made, name: &str, pace: &Arc<Pace>, set: impl FnOnce(&mut Limits)) -> Running {
    let origin = Origin::at(Clock::start().now().wall_ms, random::bits128().unwrap());
    let mut config = config::load(&made.config(name)).unwrap();
    set(&mut config.limits);
    let pace = pace.clone();
    Running::start_as(config, origin, |inner| Slow { inner, pace }).unwrap()
}

/// The texts of a room as a server has it; none is there twice.
async fn history(client: &mut Client, room: &str) -> BTreeSet<String> {
    let (mut texts, mut before, mut count) = (BTreeSet::new(), None, 0);
    loop {
        let (request, of) = (RequestId(1_000_000), Target::Room(room.into()));
        client.ask(Request::History(History { request, of, before, limit: 100 })).await;
        let page = client
            .find(|item| match item {
                Item::Page(page) => Some(page),
                Item::Refused(refused) => panic!("{refused:?}"),
                _ => None,
            })
            .await;
        before = page.lines.first().map(|line| line.key());
        count += page.lines.len();
        texts.extend(page.lines.iter().filter_map(|line| match line.event.body() {
            Some(chatty_core::event::Body::Msg(msg)) => Some(msg.text),
            _ => None,
        }));
        if before.is_none() || !page.more {
            assert_eq!(texts.len(), count, "each is there once");
            return texts;
        }
    }
}

fn long(nth: u64) -> String {
    format!("text {nth} {}", "x".repeat(16_000))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_refused_with_the_time_at_which_it_is_taken() {
    let made = make(1);
    let server = start_with(&made, "s1", &Arc::default(), |limits| limits.session_rate = 50);
    let mut ann = made.attach("s1").await;
    let began = Clock::start().now().wall_ms;
    let mid = |n: u64| Mid::at(began, u128::from(n));
    for n in 1..=400 {
        ann.say_as("lobby", &format!("text {n}"), mid(n), n).await;
    }
    let (mut refused, mut answers) = (BTreeMap::new(), 0);
    while answers < 400 {
        answers += 1;
        let answer = ann.find(|item| match item {
            Item::Sent(_) => Some(None),
            Item::Refused(refusal) => Some(Some(refusal)),
            _ => None,
        });
        if let Some(refusal) = answer.await {
            assert_eq!(refusal.code, Code::Busy, "{refusal:?}");
            assert!(refusal.retry_ms > 0, "{refusal:?}");
            refused.insert(refusal.request.0, refusal.retry_ms);
        }
    }
    // Fifty at once, and what comes to be free meanwhile.
    assert!(refused.len() >= 300, "only {} of 400 were refused", refused.len());
    let (first, wait) = refused.pop_first().unwrap();
    tokio::time::sleep(Duration::from_millis(wait.into())).await;
    // What was asked behind it took out of the bucket as well, if it was let through.
    patiently(&mut ann, &format!("text {first}"), mid(first), 1000).await;
    stop(server).await;
}

/// Bytes that wait for a client that does not read, in these tests.
const QUEUE_BYTES: usize = 64 * 1024;
/// What may be on its way besides: the client's window, and a write.
const ON_THE_WAY: usize = 1_250_000 + 64 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_told_of_a_gap_and_finds_everything_in_the_history() {
    let made = make(1);
    let server =
        start_with(&made, "s1", &Arc::default(), |limits| limits.session_queue_bytes = QUEUE_BYTES);
    let (mut ann, mut bob) = (made.attach("s1").await, made.attach("s1").await);
    bob.open("lobby").await;
    bob.find(|item| matches!(item, Item::RoomOpened(_)).then_some(())).await;
    let began = Clock::start().now().wall_ms;
    for n in 0..200 {
        ann.say_as("lobby", &long(n), Mid::at(began, u128::from(n)), n).await;
        ann.answer_to(n).await.unwrap();
    }
    let mut shown = 0;
    bob.find(|item| match item {
        Item::Gap(_) => Some(()),
        item => {
            shown += text_of(item).map_or(0, |text| text.len());
            None
        }
    })
    .await;
    assert!(shown <= QUEUE_BYTES + ON_THE_WAY, "{shown} bytes were kept for a client");
    assert_eq!(history(&mut bob, "lobby").await, (0..200).map(long).collect());
    stop(server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_disk_hangs_refuses_with_a_time_and_fetches_what_it_did_not_take() {
    let made = make(3);
    let pace = Arc::new(Pace::default());
    let servers = vec![
        made.start("s1").await,
        made.start("s2").await,
        start_with(&made, "s3", &pace, |limits| limits.unsaved_bytes = 256 * 1024),
    ];
    let (mut ann, mut carl) = (made.attach("s1").await, made.attach("s3").await);
    say(&mut ann, "before").await;
    say(&mut carl, "here").await;

    pace.set(|state| state.held = true);
    let mut said: BTreeSet<String> = (0..100).map(long).collect();
    for text in &said {
        assert_eq!(say(&mut ann, text).await.replicas, 2, "four times what s3 takes");
    }
    let mut taken = 0;
    let refused = loop {
        let (text, request) = (format!("slowly {taken}"), 10 + taken);
        let mid = Mid::at(Clock::start().now().wall_ms, u128::from(taken));
        carl.say_as("lobby", &text, mid, request).await;
        // What is taken is answered once the disk has it: not now.
        let answer = tokio::time::timeout(Duration::from_millis(200), carl.answer_to(request));
        match answer.await {
            Ok(answer) => break answer.unwrap_err(),
            Err(_) => said.insert(text),
        };
        taken += 1;
    };
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Busy, "the disk is behind"));
    assert!(refused.retry_ms > 0, "{refused:?}");

    pace.set(|state| state.held = false);
    said.extend(["before", "here"].map(String::from));
    let all = async {
        while history(&mut carl, "lobby").await.len() < said.len() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, all).await.expect("s3 fetches it");
    assert_eq!(history(&mut carl, "lobby").await, said);
    for server in servers {
        stop(server).await;
    }
}

/// Attaches to a server once; else tells why it was closed.
async fn attach_once(made: &Made) -> Result<Client, String> {
    let endpoint = Endpoint::client().unwrap();
    let trust = Trust::pinned(made.cluster.authority).unwrap();
    let address = made.cluster.servers[0].addr.parse().unwrap();
    let connection = endpoint.dial_server(address, &trust, LIMIT).await.unwrap();
    let why = connection.clone();
    let attached = async {
        let (to, from) = connection.open_bi().await.ok()?;
        let (to, from) = (FrameWriter::new(to), FrameReader::new(from));
        let mut client = Client { _endpoint: endpoint, connection, to, from };
        let (minor, token, nick) = (CLIENT_MINOR, Vec::new(), Some("ann".into()));
        let (cursor, rooms, direct) = (Vector::new(), Vec::new(), Direct::Ignore);
        let attach = Request::Attach(Attach { minor, token, nick, cursor, rooms, direct });
        let mut body = Vec::new();
        attach.encode_body(&mut body);
        client.to.push(attach.kind(), |to| to.extend_from_slice(&body)).unwrap();
        client.to.flush().await.ok()?;
        matches!(client.next().await?, Item::Welcome(_)).then_some(client)
    };
    match tokio::time::timeout(LIMIT, attached).await.expect("in time") {
        Some(client) => Ok(client),
        None => Err(close::reason(&why.closed().await)),
    }
}

impl Client {
    /// Announces a frame of so many bytes, and sends the first of it.
    async fn announce(self, bytes: u32) -> (Endpoint, Connection, chatty_net::SendStream) {
        let mut to = self.to.into_stream();
        // In one piece: it may be refused as soon as it is announced.
        to.write_all(&[&bytes.to_be_bytes()[..], &[1; 100]].concat()).await.unwrap();
        // Dropped, the stream would end.
        (self._endpoint, self.connection, to)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_sends_long_frames_neither_before_it_attached_nor_after() {
    let made = make(1);
    let server = made.start("s1").await;
    let why = async |client: Client, bytes| {
        let (_endpoint, connection, _to) = client.announce(bytes).await;
        let why = tokio::time::timeout(LIMIT, connection.closed()).await;
        close::reason(&why.expect("in time"))
    };
    let long = why(made.attach("s1").await, 65_537).await;
    assert!(long.contains("65537 bytes announced, 65536 are allowed"), "{long}");
    let long = why(made.connect("s1").await, 524_289).await;
    assert!(long.contains("524289 bytes announced, 65536 are allowed"), "{long}");

    // A cursor that names the runs of many years is no flood.
    let mut ann = made.connect("s1").await;
    let run = |n| chatty_core::id::Log::of(Origin::new(u128::MAX - n));
    let cursor: Vector = (0..15_000).map(|n| (run(n), 1 << 40)).collect();
    let (minor, token, nick) = (CLIENT_MINOR, Vec::new(), Some("ann".into()));
    let (rooms, direct) = (Vec::new(), Direct::Ignore);
    let attach = Attach { minor, token, nick, cursor, rooms, direct };
    let mut body = Vec::new();
    Request::Attach(attach.clone()).encode_body(&mut body);
    assert!(body.len() > 65_536, "it is a long one");
    ann.ask(Request::Attach(attach)).await;
    ann.find(|item| matches!(item, Item::Welcome(_)).then_some(())).await;
    ann.say("lobby", "here").await;
    ann.find(|item| matches!(item, Item::Sent(_)).then_some(())).await;
    let long = why(ann, 65_537).await;
    assert!(long.contains("65536 are allowed"), "{long}");

    // So many of these at once, whoever they are (they need not come in the order in which they were
    // announced); an ordinary attach takes no such place.
    let (mut held, mut closed) = (Vec::new(), JoinSet::new());
    for _ in 0..257 {
        let announced = made.connect("s1").await.announce(524_288).await;
        let connection = announced.1.clone();
        closed.spawn(async move { connection.closed().await });
        held.push(announced);
    }
    let full = tokio::time::timeout(LIMIT, closed.join_next()).await.expect("in time");
    let full = close::reason(&full.unwrap().unwrap());
    assert!(full.contains("too many long attaches at once; try again"), "{full}");
    made.attach("s1").await;
    drop(held);
    stop(server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_has_no_more_clients_than_its_part() {
    let made = make(1);
    let text = std::fs::read_to_string(made.config("s1")).unwrap();
    let few = text.replace("# address_sessions = 5000", "address_sessions = 2");
    assert_ne!(few, text);
    std::fs::write(made.config("s1"), few).unwrap();
    let server = made.start("s1").await;
    let (_ann, silent) = (made.attach("s1").await, made.connect("s1").await);
    let full = attach_once(&made).await.err().expect("two are there");
    assert!(full.contains("too many clients at your address; try another server"), "{full}");
    // Whoever goes leaves his place.
    silent.connection.close(0_u32.into(), b"");
    let again = async {
        while attach_once(&made).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, again).await.expect("a place is free");
    stop(server).await;
}
