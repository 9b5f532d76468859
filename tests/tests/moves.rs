//! Servers are stopped one after the other while people talk, and people spread over them again:
//! nobody notices.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chatty_tests::{LONG, Person, TestCluster, eventually, text};
use serde_json::Value;

const ROOM: &str = "lobby";

/// Sends a line every 5 ms until told to stop; gives how many, and what it said on standard error.
fn send_until_over(person: &Person, over: &AtomicBool) -> (usize, String) {
    let mut flow = person.flow(ROOM);
    let mut lines = 0;
    while !over.load(Ordering::Relaxed) {
        lines = flow.line(&format!("{} {}", person.nick(), lines + 1));
        std::thread::sleep(Duration::from_millis(5));
    }
    let status = flow.finish();
    assert!(status.success(), "{}", flow.said());
    (lines, flow.said())
}

/// The only words are which server it goes on at.
#[track_caller]
fn assert_quiet(said: &str) {
    let loud: Vec<_> = said.lines().filter(|line| !line.starts_with("going on at s")).collect();
    assert!(loud.is_empty(), "{loud:?}");
}

#[test]
fn clients_of_a_server_that_stops_move_without_an_error() {
    let cluster = TestCluster::up(3);
    let over = Arc::new(AtomicBool::new(false));
    let tails: Vec<_> = cluster
        .names()
        .iter()
        .map(|s| cluster.person(&format!("reader-{s}")).on(s).tail(ROOM))
        .collect();
    let senders: Vec<_> = cluster
        .names()
        .iter()
        .map(|server| {
            let (person, over) =
                (cluster.person(&format!("sender-{server}")).on(server), over.clone());
            std::thread::spawn(move || send_until_over(&person, &over))
        })
        .collect();

    for (round, server) in cluster.names().iter().enumerate() {
        for tail in &tails {
            tail.shows_at_least((round + 1) * 300);
        }
        cluster.ok(&["stop", server]);
        for tail in &tails {
            tail.shows_at_least(tail.messages().len() + 100);
        }
        cluster.ok(&["start", server]);
        cluster.wait_linked();
    }
    over.store(true, Ordering::Relaxed);

    let mut sent = 0;
    let mut moves = 0;
    for sender in senders {
        let (lines, said) = sender.join().expect("each line was acknowledged");
        assert_quiet(&said);
        moves += said.lines().count();
        sent += lines;
    }
    assert!(moves >= 3, "each sender's first server stopped: {moves} moves");
    let history = cluster.one_history(ROOM);
    assert_eq!(history.len(), sent, "nothing is lost, nothing doubled");
    for tail in &tails {
        tail.shows_at_least(sent);
        let (shown, texts) = (tail.sorted(), |all: &[serde_json::Value]| {
            all.iter().map(|message| text(message).to_owned()).collect::<Vec<_>>()
        });
        assert_eq!(texts(&shown), texts(&history));
        assert_quiet(&tail.said());
    }
}

/// How many clients each server has.
fn clients(cluster: &TestCluster) -> Vec<u64> {
    let sessions = |status: &Value| status["sessions"].as_u64().unwrap_or_default();
    cluster.status().iter().map(sessions).collect()
}

#[test]
fn after_a_rolling_restart_under_load_the_clients_spread_again_and_nobody_notices() {
    const CLIENTS: u64 = 60;
    /// Nobody waits longer for what he said, or for what others said.
    const INTERRUPTION_MS: f64 = 1000.0;
    let cluster = TestCluster::up_with(3, &[("# settled_seconds = 120", "settled_seconds = 5")]);
    let number = CLIENTS.to_string();
    let bench = ["bench", "--clients", &number, "--rate", "60", "--seconds", "60", "--json"];
    let load = cluster.person("load").command(&bench).stdout(Stdio::piped()).spawn();
    let load = load.expect("chatty runs");
    let all_here = |counts: &[u64]| counts.iter().sum::<u64>() == CLIENTS;
    // A third each, but for those whose server took too long to answer the first time.
    let is_spread =
        |counts: &[u64]| all_here(counts) && counts.iter().all(|n| n.abs_diff(CLIENTS / 3) <= 8);
    eventually("all are attached, some third to each server", LONG, || {
        let counts = clients(&cluster);
        is_spread(&counts).then_some(()).ok_or_else(|| format!("{counts:?}"))
    });

    cluster.ok(&["rolling-restart"]);
    let left = clients(&cluster);
    assert!(all_here(&left) && left[2] < CLIENTS / 10, "the last one has none: {left:?}");
    let spread = eventually("they are spread again", LONG, || {
        let counts = clients(&cluster);
        is_spread(&counts).then_some(counts.clone()).ok_or_else(|| format!("{counts:?}"))
    });

    let done = load.wait_with_output().expect("our child");
    let found: Value = serde_json::from_slice(&done.stdout).expect("one object");
    println!("{left:?} became {spread:?}; {found}");
    assert!(done.status.success(), "{found}");
    for (what, count) in [("lost", 0), ("repeated", 0), ("unanswered", 0), ("failovers", 0)] {
        assert_eq!(found[what], count, "{what}: {found}");
    }
    for what in ["stored", "replicated", "same_server", "other_server"] {
        let longest = found[what]["max_ms"].as_f64().expect("a time");
        assert!(longest <= INTERRUPTION_MS, "{what}: {found}");
    }
    let log = |server: &String| {
        std::fs::read_to_string(cluster.server_dir(server).join("log")).expect("a log")
    };
    let logs: String = cluster.names().iter().map(log).collect();
    assert!(!logs.contains("ERROR"), "{logs}");
    // Their counts went to a third each, so those of two servers that were asked are what the last one
    // has now, and nobody was asked twice.
    let asked =
        logs.lines().filter_map(|line| line.split_once("are even again: ")).map(|(_, rest)| {
            rest.split(' ').next().and_then(|count| count.parse::<u64>().ok()).expect("a number")
        });
    assert!(asked.sum::<u64>() <= CLIENTS / 3 + 4, "{logs}");
}
