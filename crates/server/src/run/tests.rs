//! Whole servers in this process, over loopback.

use std::net::UdpSocket;
use std::path::PathBuf;

use chatty_core::id::{Mid, RequestId, Slot};
use chatty_core::session::{
    Attach, CLIENT_MINOR, Code, Direct, Item, Level, Mode, Open, Refused, Request, Send, Target,
};
use chatty_core::time::Key;
use chatty_core::vector::Vector;
use chatty_core::wire::Wire;
use chatty_net::{Connection, FrameReader, FrameWriter, RecvStream, Trust};
use tempfile::TempDir;

use super::*;
use crate::close;
use crate::init::{self, Cluster, Wanted};

const LIMIT: Duration = Duration::from_secs(20);

struct Made {
    _dir: TempDir,
    cluster: Cluster,
}

/// A cluster on ports that are free now.
fn make(count: u16) -> Made {
    let dir = TempDir::new().unwrap();
    let sockets: Vec<_> = (0..count).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let named = sockets
        .iter()
        .enumerate()
        .map(|(n, socket)| (format!("s{}", n + 1), socket.local_addr().unwrap().to_string()));
    let wanted = Wanted { named: named.collect(), ..Wanted::default() };
    let cluster = init::init(dir.path(), &wanted).unwrap();
    Made { _dir: dir, cluster }
}

impl Made {
    fn config(&self, name: &str) -> PathBuf {
        self.cluster.layout.server(&Slot::new(name).unwrap()).config()
    }

    /// Starts a server, as soon as the port of its last run is free: connections that were
    /// closed hold it until their last packets cannot come any more.
    async fn start(&self, name: &str) -> Running {
        let start = || Running::start(config::load(&self.config(name)).unwrap());
        tokio::time::timeout(LIMIT, async {
            loop {
                match start() {
                    Err(error) if error.to_string().contains("is in use") => {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    started => return started.unwrap(),
                }
            }
        })
        .await
        .expect("the port is free in time")
    }

    async fn start_all(&self) -> Vec<Running> {
        let mut servers = Vec::new();
        for server in &self.cluster.servers {
            servers.push(self.start(server.name.as_str()).await);
        }
        servers
    }

    /// Attaches to a server, again and again until it is ready.
    async fn attach(&self, name: &str) -> Client {
        tokio::time::timeout(LIMIT, async {
            loop {
                let mut client = self.connect(name).await;
                client.attach("ann").await;
                match client.next().await {
                    Some(Item::Welcome(welcome)) => {
                        assert_eq!(welcome.server.as_str(), name);
                        return client;
                    }
                    _ => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        })
        .await
        .expect("attached in time")
    }

    async fn connect(&self, name: &str) -> Client {
        let server = self.cluster.servers.iter().find(|s| s.name.as_str() == name).unwrap();
        self.connect_to(server.addr.parse().unwrap()).await
    }

    async fn connect_to(&self, address: std::net::SocketAddr) -> Client {
        let endpoint = Endpoint::client().unwrap();
        let trust = Trust::pinned(self.cluster.authority).unwrap();
        let connection = endpoint.dial_server(address, &trust, LIMIT).await.unwrap();
        let (to, from) = connection.open_bi().await.unwrap();
        let (to, from) = (FrameWriter::new(to), FrameReader::new(from));
        Client { _endpoint: endpoint, connection, to, from }
    }
}

struct Client {
    _endpoint: Endpoint,
    connection: Connection,
    to: FrameWriter,
    from: FrameReader<RecvStream>,
}

impl Client {
    async fn ask(&mut self, request: Request) {
        let mut body = Vec::new();
        request.encode_body(&mut body);
        self.to.push(request.kind(), |to| to.extend_from_slice(&body)).unwrap();
        self.to.flush().await.unwrap();
    }

    async fn attach(&mut self, nick: &str) {
        let attach = Attach {
            minor: CLIENT_MINOR,
            token: Vec::new(),
            nick: Some(nick.into()),
            cursor: Vector::new(),
            rooms: Vec::new(),
            direct: Direct::Ignore,
        };
        self.ask(Request::Attach(attach)).await;
    }

    async fn open(&mut self, room: &str) {
        let (request, room) = (RequestId(1), room.into());
        self.ask(Request::Open(Open { request, room, last: 100, mode: Mode::Watch })).await;
    }

    async fn say(&mut self, room: &str, text: &str) {
        let mid = Mid::at(Clock::start().now().wall_ms, random::bits128().unwrap());
        self.say_as(room, text, mid, 2).await;
    }

    async fn say_as(&mut self, room: &str, text: &str, mid: Mid, request: u64) {
        let (request, to) = (RequestId(request), Target::Room(room.into()));
        let send = Send { request, to, mid, text: text.into(), level: Level::Replicated };
        self.ask(Request::Send(send)).await;
    }

    /// The answer to that request: the message's place, or why it was refused.
    async fn answer_to(&mut self, request: u64) -> Result<Key, Refused> {
        let request = RequestId(request);
        self.find(|item| match item {
            Item::Sent(sent) if sent.request == request => Some(Ok(sent.key)),
            Item::Refused(refused) if refused.request == request => Some(Err(refused)),
            _ => None,
        })
        .await
    }

    /// The next item; `None` at the end.
    async fn next(&mut self) -> Option<Item> {
        let raw = self.from.next().await.ok()??;
        Some(Item::decode(raw.kind, &raw.body).unwrap())
    }

    /// The first item that fits.
    async fn find<T>(&mut self, mut fits: impl FnMut(Item) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = fits(self.next().await.expect("the session goes on")) {
                    return found;
                }
            }
        };
        tokio::time::timeout(LIMIT, found).await.expect("in time")
    }
}

fn text_of(item: Item) -> Option<String> {
    let Item::Event(shown) = item else { return None };
    match shown.line.event.body() {
        Some(chatty_core::event::Body::Msg(msg)) => Some(msg.text),
        _ => None,
    }
}

async fn stop(server: Running) {
    server.doors.tell(Event::Stop);
    tokio::time::timeout(Duration::from_secs(2), server.finish()).await.expect("quickly").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_to_one_server_is_heard_on_another_and_there_after_a_restart() {
    let made = make(3);
    let servers = made.start_all().await;
    let (mut ann, mut bob) = (made.attach("s1").await, made.attach("s2").await);
    bob.open("lobby").await;
    bob.find(|item| matches!(item, Item::RoomOpened(_)).then_some(())).await;

    ann.say("lobby", "good morning").await;

    let sent = ann.find(|item| if let Item::Sent(sent) = item { Some(sent) } else { None }).await;
    assert_eq!(sent.level, Level::Replicated);
    assert!(sent.replicas >= 2);
    assert_eq!(bob.find(text_of).await, "good morning");

    for server in servers {
        stop(server).await;
    }
    let servers = made.start_all().await;
    let mut carl = made.attach("s3").await;
    carl.open("lobby").await;
    let opened =
        carl.find(|item| if let Item::RoomOpened(opened) = item { Some(opened) } else { None });
    let lines = opened.await.lines;
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].event.mid, sent.mid);
    for server in servers {
        stop(server).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_tells_its_clients_where_to_go() {
    let made = make(2);
    let (s1, s2) = (made.start("s1").await, made.start("s2").await);
    let mut ann = made.attach("s1").await;
    s1.doors.tell(Event::Stop);
    let moving = ann.find(|item| if let Item::Leaving(to) = item { Some(to) } else { None }).await;
    assert_eq!(moving.servers.len(), 1);
    assert_eq!(moving.servers[0].name.as_str(), "s2");
    assert_eq!(ann.next().await, None);
    s1.finish().await.unwrap();
    stop(s2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_breaks_the_protocol_is_told_why_and_cut_off() {
    let made = make(1);
    let server = made.start("s1").await;
    let mut rude = made.attach("s1").await;
    rude.to.push(4, |to| to.extend_from_slice(b"rubbish")).unwrap();
    rude.to.flush().await.unwrap();
    let why = close::reason(&rude.connection.closed().await);
    assert!(why.contains("the body of a frame of kind 4 does not parse"), "{why}");

    let mut modern = made.attach("s1").await;
    modern.to.push(200, |to| to.extend_from_slice(b"of a newer version")).unwrap();
    modern.say("lobby", "still here").await;
    modern.find(|item| matches!(item, Item::Sent(_)).then_some(())).await;
    stop(server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_refused_as_busy_is_not_overtaken_by_those_behind_it() {
    let made = make(1);
    let text = std::fs::read_to_string(made.config("s1")).unwrap();
    let slow = text.replace("# session_rate = 1000", "session_rate = 5");
    assert_ne!(slow, text);
    std::fs::write(made.config("s1"), slow).unwrap();
    let server = made.start("s1").await;
    let mut ann = made.attach("s1").await;
    let began = Clock::start().now().wall_ms;
    let mid = |n: u64| Mid::at(began, 1 + u128::from(n));

    let mut n = 1;
    let refused = loop {
        ann.say_as("lobby", &format!("text {n}"), mid(n), n).await;
        match ann.answer_to(n).await {
            Ok(_) => n += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.code, Code::Busy);
    // As the server asks: now there is room again, but for the refused one first.
    tokio::time::sleep(Duration::from_millis(refused.retry_ms.into())).await;
    ann.say_as("lobby", "behind it", mid(n + 1), 100).await;
    let behind = ann.answer_to(100).await.unwrap_err();
    assert_eq!(behind.code, Code::Busy, "{behind:?}");
    assert!(behind.reason.contains("an earlier message of yours"), "{behind:?}");
    let first = patiently(&mut ann, &format!("text {n}"), mid(n), 1000).await;
    let second = patiently(&mut ann, "behind it", mid(n + 1), 2000).await;
    assert!(first < second);
    stop(server).await;
}

/// Says it again and again until it is taken.
async fn patiently(client: &mut Client, text: &str, mid: Mid, from: u64) -> Key {
    for request in from..from + 100 {
        client.say_as("lobby", text, mid, request).await;
        match client.answer_to(request).await {
            Ok(key) => return key,
            Err(refused) => {
                tokio::time::sleep(Duration::from_millis(refused.retry_ms.into())).await;
            }
        }
    }
    panic!("{text:?} was never taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_the_same_data_is_refused() {
    let made = make(1);
    let server = made.start("s1").await;
    let error = Running::start(config::load(&made.config("s1")).unwrap()).err().unwrap();
    assert!(error.to_string().contains("another process uses this data folder"), "{error}");
    stop(server).await;
    stop(made.start("s1").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_outside_the_configuration_is_not_linked() {
    let made = make(2);
    let text = std::fs::read_to_string(made.config("s1")).unwrap();
    let list = text.find("[[servers]]\nname = \"s2\"").unwrap();
    std::fs::write(made.config("s1"), &text[..list]).unwrap();
    let (s1, s2) = (made.start("s1").await, made.start("s2").await);
    let to = s1.endpoint.local_addr().unwrap();
    // The refusal may come before the dial is over, or after.
    let why = match s2.endpoint.dial_peer(to, LIMIT).await {
        Ok((connection, _)) => close::reason(&connection.closed().await),
        Err(error) => error.to_string(),
    };
    assert!(why.contains("s2 is not in the configuration of s1"), "{why}");
    stop(s1).await;
    stop(s2).await;
}

mod cloned;
mod floods;
mod newer;
mod slow;
