//! Servers are stopped one after the other while people talk: nobody notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chatty_tests::{Person, TestCluster, text};

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
