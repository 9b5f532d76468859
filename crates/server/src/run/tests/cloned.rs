//! A machine that was cloned with its memory: one run of a server goes on twice.

use std::path::Path;
use std::sync::{Mutex, OnceLock};

use chatty_core::event::Event as LogEvent;
use chatty_core::id::Log;
use chatty_core::session::{Plain, ServerState, Status};
use chatty_core::store::{Query, Reader, Rows};

use super::*;
use crate::store::FjallStore;

impl Made {
    /// The configuration of s3, and of its clone: another machine, with what else the first has.
    fn clones(&self) -> (Config, Config) {
        let original = config::load(&self.config("s3")).unwrap();
        let mut clone = original.clone();
        clone.listen = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        clone.data = original.data.with_file_name("clone");
        std::fs::create_dir(&clone.data).unwrap();
        (original, clone)
    }
}

fn origin() -> Origin {
    Origin::at(Clock::start().now().wall_ms, random::bits128().unwrap())
}

/// What all servers of this process have logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn gather() -> Self {
        static LINES: OnceLock<Lines> = OnceLock::new();
        let begin = || {
            let lines = Self::default();
            let to = lines.clone();
            let logger = tracing_subscriber::fmt().with_ansi(false).with_target(false);
            logger.with_writer(move || to.clone()).try_init().expect("the only logger");
            lines
        };
        LINES.get_or_init(begin).clone()
    }

    /// Whether `FORK` was said of that run, in a line with these words.
    fn fork(&self, origin: Origin, words: &str) -> bool {
        let (bytes, log) = (self.0.lock().unwrap(), Log::of(origin).to_string());
        String::from_utf8_lossy(&bytes).lines().any(|line| {
            line.contains("ERROR FORK: ") && line.contains(&log) && line.contains(words)
        })
    }

    async fn wait_for_fork(&self, origin: Origin, words: &str) {
        let told = async {
            while !self.fork(origin, words) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, told).await.unwrap_or_else(|_| panic!("no FORK: {words}"));
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn run(config: &Config, origin: Origin) -> Running {
    Running::start_as(config.clone(), origin, |store| store).unwrap()
}

/// Attaches to the server that listens there, again and again until it is ready.
async fn attach(made: &Made, config: &Config) -> Client {
    let attached = async {
        loop {
            let mut client = made.connect_to(config.listen).await;
            client.attach("ann").await;
            match client.next().await {
                Some(Item::Welcome(_)) => return client,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(LIMIT, attached).await.expect("attached in time")
}

fn mid() -> Mid {
    Mid::at(Clock::start().now().wall_ms, random::bits128().unwrap())
}

/// Says new things until one is refused.
async fn refused(client: &mut Client) -> Refused {
    for request in 1000..2000 {
        client.say_as("lobby", "once more", mid(), request).await;
        match client.answer_to(request).await {
            Err(refused) if refused.code == Code::Busy => {
                tokio::time::sleep(Duration::from_millis(refused.retry_ms.into())).await;
            }
            Err(refused) => return refused,
            Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    panic!("it takes writes for ever");
}

async fn status(client: &mut Client) -> Status {
    client.ask(Request::Status(Plain { request: RequestId(77) })).await;
    client.find(|item| if let Item::Status(status) = item { Some(status) } else { None }).await
}

fn events(data: &Path, origin: Origin) -> Vec<Arc<LogEvent>> {
    let store = FjallStore::open(&data.join("db")).unwrap();
    let query = Query::Events { log: Log::of(origin), from: 1, to: 5000, bytes_max: usize::MAX };
    let Rows::Events(entries) = store.reader().read(&query).unwrap() else { panic!() };
    entries.into_iter().map(|entry| entry.event).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_of_a_running_server_takes_no_writes_and_what_the_original_says_stays() {
    let (lines, made, origin) = (Lines::gather(), make(3), origin());
    let (s1, s2) = (made.start("s1").await, made.start("s2").await);
    let (config, clone_config) = made.clones();
    let original = run(&config, origin);
    let mut ann = attach(&made, &config).await;
    ann.say_as("lobby", "of the original", mid(), 1).await;
    ann.answer_to(1).await.unwrap();

    let clone = run(&clone_config, origin);
    // A guest's account would be an event already.
    let turned_away = async {
        loop {
            let mut carl = made.connect_to(clone_config.listen).await;
            carl.attach("carl").await;
            match carl.next().await {
                Some(Item::Refused(why)) if why.reason.contains("this server runs twice") => {
                    return why.code;
                }
                Some(Item::Refused(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                other => panic!("{other:?}"),
            }
        }
    };
    let code = tokio::time::timeout(LIMIT, turned_away).await.expect("found out in time");
    assert_eq!(code, Code::NotReady, "another server is to be tried");
    lines.wait_for_fork(origin, "the run goes on twice").await;

    ann.say_as("lobby", "the original goes on", mid(), 2).await;
    ann.answer_to(2).await.unwrap();
    stop(clone).await;
    for server in [original, s1, s2] {
        stop(server).await;
    }
    assert_eq!(events(&clone_config.data, origin), [], "the clone made no event");
    let whole = events(&config.data, origin);
    assert!(whole.len() >= 3);
    for name in ["s1", "s2"] {
        let held = events(&config::load(&made.config(name)).unwrap().data, origin);
        assert!(whole.starts_with(&held), "{name} has something else");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clones_that_wrote_apart_take_no_more_writes_and_no_event_changes_its_content() {
    let (lines, made, origin) = (Lines::gather(), make(3), origin());
    let (config, clone_config) = made.clones();
    let (original, clone) = (run(&config, origin), run(&clone_config, origin));
    let mut ann = attach(&made, &config).await;
    let mut carl = attach(&made, &clone_config).await;
    let (a, c) = (mid(), mid());
    ann.say_as("lobby", "of the original", a, 1).await;
    carl.say_as("lobby", "of the clone", c, 1).await;
    for client in [&mut ann, &mut carl] {
        client.find(|item| matches!(item, Item::Sent(_)).then_some(())).await;
    }

    let (s1, s2) = (made.start("s1").await, made.start("s2").await);
    for client in [&mut ann, &mut carl] {
        let why = refused(client).await;
        assert!(why.reason.contains("this server runs twice"), "{why:?}");
        assert_eq!(status(client).await.state, ServerState::ReadOnly);
    }
    lines.wait_for_fork(origin, "the run goes on twice").await;
    // Whoever said something says it again elsewhere, as every client does.
    let mut bob = made.attach("s1").await;
    bob.say_as("lobby", "of the original", a, 1).await;
    bob.say_as("lobby", "of the clone", c, 2).await;
    for request in [1, 2] {
        bob.answer_to(request).await.unwrap();
    }

    for server in [original, clone, s1, s2] {
        stop(server).await;
    }
    let both = [events(&config.data, origin), events(&clone_config.data, origin)];
    assert_ne!(both[0], both[1], "they wrote apart");
    for name in ["s1", "s2"] {
        let held = events(&config::load(&made.config(name)).unwrap().data, origin);
        assert!(both.iter().any(|log| log.starts_with(&held)), "{name} mixed the two");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_of_one_length_of_a_run_and_its_clone_are_told_when_their_servers_link() {
    let (lines, made, origin) = (Lines::gather(), make(3), origin());
    let (config, clone_config) = made.clones();
    let mut held = Vec::new();
    for (name, config) in [("s1", &config), ("s2", &clone_config)] {
        let (server, running) = (made.start(name).await, run(config, origin));
        let mut client = attach(&made, config).await;
        client.say_as("lobby", name, mid(), 1).await;
        let on_both = |item: Item| match item {
            Item::Sent(sent) => (sent.level == Level::Replicated).then_some(()),
            Item::Replicated(_) => Some(()),
            _ => None,
        };
        client.find(on_both).await;
        stop(running).await;
        stop(server).await;
        held.push(events(&config::load(&made.config(name)).unwrap().data, origin));
    }
    assert_eq!(held[0].len(), held[1].len());
    assert_ne!(held[0], held[1]);
    assert!(!lines.fork(origin, ""), "nobody has seen both");

    let (s1, s2) = (made.start("s1").await, made.start("s2").await);
    for other in ["s1", "s2"] {
        lines.wait_for_fork(origin, &format!("differs from the copy of {other}")).await;
    }
    stop(s1).await;
    stop(s2).await;
}
