//! What an operator does to running servers: nobody else notices.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use chatty_tests::{Flow, SHORT, Tail, TestCluster, eventually, key, text};
use nix::sys::signal::Signal;
use serde_json::Value;

const ROOM: &str = "lobby";
/// Nobody waits longer for what he said, or for what others said.
const INTERRUPTION: Duration = Duration::from_secs(1);

/// Sends 200 lines a second, from all in turn.
struct Load {
    flows: Vec<Flow>,
    sent: usize,
}

impl Load {
    /// A sender on each server.
    fn begin(cluster: &TestCluster) -> Self {
        let sender = |s: &String| cluster.person(&format!("sender-{s}")).on(s).flow(ROOM);
        Self { flows: cluster.names().iter().map(sender).collect(), sent: 0 }
    }

    /// Sends at least `least` lines, and goes on until `done`.
    fn send(&mut self, least: usize, done: impl Fn() -> bool) {
        let began = Instant::now();
        let mut lines = 0;
        while lines < least || !done() {
            let from = self.sent % self.flows.len();
            self.flows[from].line(&format!("message {} of sender {from}", self.sent));
            self.sent += 1;
            lines += 1;
            let due = began + Duration::from_millis(5) * u32::try_from(lines).unwrap_or(u32::MAX);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }

    /// Ends the senders; gives what was sent and when, all of it acknowledged.
    #[track_caller]
    fn finish(&mut self) -> BTreeMap<String, Instant> {
        for flow in &mut self.flows {
            let status = flow.finish();
            assert!(status.success(), "a line was not acknowledged: {}", flow.said());
        }
        let sent = self.flows.iter().flat_map(Flow::sent);
        sent.map(|(text, at)| (text.to_owned(), at)).collect()
    }
}

#[track_caller]
fn assert_each_once(history: &[Value], sent: &BTreeSet<String>) {
    let once: BTreeSet<_> = history.iter().map(|message| text(message).to_owned()).collect();
    assert_eq!(once.len(), history.len(), "nothing is there twice");
    assert_eq!(&once, sent, "all that was sent, and nothing else");
    assert!(history.windows(2).all(|two| key(&two[0]) < key(&two[1])), "oldest first");
}

/// The longest time from a line's sending to its showing.
#[track_caller]
fn longest_wait(tail: &Tail, sent: &BTreeMap<String, Instant>) -> Duration {
    let shown = tail.times();
    assert_eq!(shown.len(), sent.len(), "each is shown once");
    let waited = |(at, message): &(Instant, Value)| at.duration_since(sent[text(message)]);
    shown.iter().map(waited).max().unwrap_or_default()
}

#[test]
fn a_rolling_restart_of_all_servers_under_load_is_noticed_by_nobody() {
    let cluster = TestCluster::up(3);
    let names = cluster.names();
    let reader = |s: &String| cluster.person(&format!("reader-{s}")).on(s).tail(ROOM);
    let tails: Vec<_> = names.iter().map(reader).collect();
    let runs = || names.iter().map(|s| cluster.status_of(s)["origin"].clone()).collect::<Vec<_>>();
    let mut load = Load::begin(&cluster);
    load.send(200, || true);
    let before = runs();

    std::thread::scope(|scope| {
        let restart = scope.spawn(|| cluster.ok(&["rolling-restart"]));
        load.send(0, || restart.is_finished());
        restart.join().expect("it succeeds");
    });
    let after = runs();
    load.send(200, || true);
    let sent = load.finish();

    assert!(before.iter().zip(&after).all(|(a, b)| a != b), "each runs anew: {before:?} {after:?}");
    let history = cluster.one_history(ROOM);
    assert_each_once(&history, &sent.keys().cloned().collect());
    let waits = load.flows.iter().flat_map(Flow::waits);
    let longest = waits.max().expect("there are receipts");
    println!("{} lines, longest wait for a receipt {longest:?}", sent.len());
    assert!(longest <= INTERRUPTION, "a sender waited {longest:?}");
    for (name, tail) in names.iter().zip(&tails) {
        tail.shows_at_least(history.len());
        let longest = longest_wait(tail, &sent);
        println!("reader that began on {name}: longest wait for a line {longest:?}");
        assert!(longest <= INTERRUPTION, "a reader waited {longest:?}");
    }
}

#[test]
fn a_drain_that_takes_too_long_says_what_is_missing_where_and_changes_nothing() {
    let cluster = TestCluster::up(3);
    let ann = cluster.person("ann").on("s1");
    ann.say(ROOM, "before");
    let pid = cluster.pid("s1");

    // Linked for some seconds more, and its disk gets nothing.
    cluster.signal("s3", Signal::SIGSTOP);
    ann.say(ROOM, "not on the disk of s3");
    let refused = cluster.operate_on("s1", "drain", &["--limit", "1"]).unwrap_err();
    cluster.signal("s3", Signal::SIGCONT);

    assert!(refused.contains("not on the disk of s3 yet"), "{refused}");
    assert!(!refused.contains("the disk of s2"), "{refused}");
    assert_eq!(cluster.pid("s1"), pid, "it goes on");
    assert_eq!(ann.say(ROOM, "after")["server"], "s1", "and takes clients");

    cluster.wait_converged();
    let done = cluster.operate_on("s1", "drain", &[]).expect("now all have everything");
    assert!(done.contains("stopped"), "{done}");
    assert_eq!(cluster.status_of("s1")["state"], "down");
}

#[test]
fn what_is_on_one_disk_alone_is_not_left_behind_by_a_drain_unless_it_is_forced() {
    let cluster = TestCluster::up(3);
    cluster.ok(&["kill", "s2", "s3"]);
    let ann = cluster.person("ann").on("s1");
    assert_eq!(ann.say(ROOM, "on one disk")["level"], "stored");
    // Another run has nothing to say: its data is that of the run before.
    cluster.ok(&["kill", "s1"]);
    cluster.ok(&["start", "s1"]);
    let pid = cluster.pid("s1");

    let refused = cluster.operate_on("s1", "drain", &["--limit", "1"]).unwrap_err();
    assert!(refused.contains("not on the disks of most voters yet"), "{refused}");
    assert!(refused.contains("(not linked: s2, s3)"), "{refused}");
    assert_eq!(cluster.pid("s1"), pid, "it goes on");
    assert_eq!(cluster.history("s1", ROOM).len(), 1, "and takes clients");

    let done = cluster.operate_on("s1", "drain", &["--limit", "1", "--force"]).expect("it stops");
    assert!(done.contains("not on the disks of most voters yet"), "{done}");
    assert_eq!(cluster.status_of("s1")["state"], "down");
    // The command waits until it has let go of its data.
    cluster.start_all();
    cluster.wait_converged();
    cluster.operate_on("s1", "drain", &[]).expect("now most disks have it");
}

#[test]
fn a_drain_that_is_interrupted_is_given_up() {
    let cluster = TestCluster::up(2);
    let ann = cluster.person("ann").on("s1");
    cluster.signal("s2", Signal::SIGSTOP);
    let mut flow = ann.flow(ROOM);
    flow.line("waits for s2");
    eventually("s1 has it on disk", SHORT, || {
        let lines = cluster.history("s1", ROOM).len();
        (lines == 1).then_some(()).ok_or_else(|| lines.to_string())
    });
    let config = cluster.server_dir("s1").join("server.toml");
    let mut drain = std::process::Command::new(chatty_tests::programs().join("chatty-server"))
        .args(["drain", "--config"])
        .arg(config)
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("chatty-server runs");
    cluster.logs("s1", "that it is draining", |line| line.contains("on the disk of s2"));
    drain.kill().expect("it runs");
    drain.wait().expect("it is our child");
    cluster.logs("s1", "that it is given up", |line| line.contains("the drain is given up"));
    cluster.signal("s2", Signal::SIGCONT);
    assert_eq!(ann.say(ROOM, "after")["server"], "s1");
}

#[test]
fn commands_to_a_server_that_does_not_run_say_so() {
    let cluster = TestCluster::up(1);
    cluster.ok(&["down"]);
    for command in ["drain", "reload"] {
        let said = cluster.operate_on("s1", command, &[]).unwrap_err();
        assert!(said.contains("no server uses this data folder"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn servers_that_start_at_the_same_moment_link_once() {
    const ROUNDS: usize = 5;
    let cluster = TestCluster::down(3);
    for _ in 0..ROUNDS {
        cluster.start_all();
        cluster.ok(&["kill", "s1", "s2", "s3"]);
    }
    for name in cluster.names() {
        let log = std::fs::read_to_string(cluster.server_dir(&name).join("log")).expect("a log");
        let linked = log.matches(" linked peer=").count();
        assert_eq!(linked, 2 * ROUNDS, "{name} made links only to drop them:\n{log}");
    }
}
