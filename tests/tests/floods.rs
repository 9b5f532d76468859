//! Load that is too much: what floods is held back, what is slow is left behind and comes after,
//! nobody else is hurt, and every word is there once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use chatty_tests::{Flow, TestCluster, text};
use nix::sys::signal::Signal;
use serde_json::Value;

const ROOM: &str = "lobby";
/// Messages a second that are let through, of one session or into one room.
const RATE: u32 = 100;
/// As many are let through at once before that rate counts.
const BURST: u32 = RATE;
const LINES: u32 = 600;

/// No faster than that: what is beyond the burst takes its time.
fn at_the_rate() -> Duration {
    Duration::from_secs(1) * (LINES - BURST) / RATE
}

#[track_caller]
fn assert_each_once(history: &[Value], said: &BTreeSet<String>) {
    let there: BTreeSet<String> = history.iter().map(|line| text(line).to_owned()).collect();
    assert_eq!(there.len(), history.len(), "nothing is there twice");
    assert_eq!(&there, said, "all of it is there");
}

/// Somebody in another room of that server is answered while the flood is under way.
#[track_caller]
fn another_room_is_served(cluster: &TestCluster, server: &str, floods: &[Flow]) {
    cluster.person("bob").on(server).say("elsewhere", "do you hear me?");
    let taken: usize = floods.iter().map(|flow| flow.acknowledgements().len()).sum();
    assert!(taken < LINES as usize, "the flood was over before he was answered");
}

#[test]
fn a_client_that_floods_is_held_to_its_rate_and_all_it_says_is_there_once() {
    let cluster = TestCluster::up_with(3, &[("# session_rate = 1000", "session_rate = 100")]);
    let mut flood = cluster.person("ann").on("s1").flow(ROOM);
    let began = Instant::now();
    let said: BTreeSet<String> = (0..LINES).map(|nth| format!("line {nth}")).collect();
    for line in &said {
        flood.line(line);
    }
    another_room_is_served(&cluster, "s1", std::slice::from_ref(&flood));
    assert!(flood.finish().success(), "{}", flood.said());
    let took = began.elapsed();
    assert!(took >= at_the_rate(), "{LINES} lines in {took:?}");
    assert_each_once(&cluster.one_history(ROOM), &said);
}

#[test]
fn a_room_that_is_flooded_by_many_is_held_to_its_rate_and_all_of_it_is_there_once() {
    let cluster = TestCluster::up_with(3, &[("# room_rate = 10000", "room_rate = 100")]);
    let flow = |nth| cluster.person(&format!("ann{nth}")).on("s1").flow(ROOM);
    let mut floods: Vec<Flow> = (0..6).map(flow).collect();
    let began = Instant::now();
    let mut said = BTreeSet::new();
    for nth in 0..LINES {
        let line = format!("line {nth}");
        floods[nth as usize % 6].line(&line);
        said.insert(line);
    }
    another_room_is_served(&cluster, "s1", &floods);
    for flood in &mut floods {
        assert!(flood.finish().success(), "{}", flood.said());
    }
    let took = began.elapsed();
    assert!(took >= at_the_rate(), "{LINES} lines in {took:?}");
    assert_each_once(&cluster.one_history(ROOM), &said);
}

/// A long line: some hundred of them fill what waits for a slow client or server.
fn long(who: &str, nth: u32) -> String {
    format!("{who} {nth} {}", "x".repeat(16_000))
}

#[test]
fn a_client_that_takes_nothing_is_left_behind_and_shows_all_of_it_once_when_it_goes_on() {
    let cluster =
        TestCluster::up_with(3, &[("# session_queue_kib = 1024", "session_queue_kib = 64")]);
    let slow = cluster.person("slow").on("s1").tail(ROOM);
    let quick = cluster.person("quick").on("s1").tail(ROOM);
    let mut ann = cluster.person("ann").on("s1").flow(ROOM);
    slow.signal(Signal::SIGSTOP);
    for nth in 0..400 {
        ann.line(&long("ann", nth));
    }
    cluster.logs("s1", "that a client is left behind", |line| {
        line.contains("a client takes less than there is to show")
    });
    assert!(ann.finish().success(), "{}", ann.said());
    quick.shows_at_least(400);
    assert!(slow.messages().len() < 400, "it stood still");
    slow.signal(Signal::SIGCONT);
    slow.shows_at_least(400);

    let history = cluster.one_history(ROOM);
    assert_each_once(&history, &(0..400).map(|nth| long("ann", nth)).collect());
    for tail in [&slow, &quick] {
        let shown: Vec<Value> = tail.sorted();
        let texts = |lines: &[Value]| lines.iter().map(|l| text(l).to_owned()).collect::<Vec<_>>();
        assert_eq!(texts(&shown), texts(&history), "what a client saw, sorted by key");
    }
}

#[test]
fn a_server_that_takes_nothing_loses_what_waits_for_it_and_asks_for_all_of_it_when_it_goes_on() {
    let cluster = TestCluster::up_with(3, &[("# live_queue_kib = 8192", "live_queue_kib = 512")]);
    let mut flows: Vec<Flow> =
        ["s1", "s2"].iter().map(|s| cluster.person(s).on(s).flow(ROOM)).collect();
    let mut said = BTreeSet::new();
    cluster.signal("s3", Signal::SIGSTOP);
    for nth in 0..300 {
        for (flow, who) in flows.iter_mut().zip(["s1", "s2"]) {
            let line = long(who, nth);
            flow.line(&line);
            said.insert(line);
        }
    }
    cluster.logs("s1", "that s3 is left behind", |line| {
        line.contains("s3 takes less than is pushed to it")
    });
    for flow in &mut flows {
        assert!(flow.finish().success(), "two of three go on: {}", flow.said());
        assert_eq!(flow.replicated_texts().len(), 300, "on the disks of the two");
    }
    cluster.signal("s3", Signal::SIGCONT);
    assert_each_once(&cluster.one_history(ROOM), &said);
}
