//! How long a client is without a server. Nothing else runs beside these: they measure time.

use std::time::{Duration, Instant};

use chatty_tests::{Flow, TestCluster};
use nix::sys::signal::Signal;
use serde_json::Value;

const ROOM: &str = "lobby";
const KILLS: usize = 10;

fn server_of(receipt: &Value) -> String {
    receipt["server"].as_str().expect("a receipt names the server").into()
}

/// The server that took the newest message.
fn attached_to(flow: &mut Flow, text: &str) -> String {
    let line = flow.line(text);
    server_of(&flow.acknowledged(line).1)
}

fn report(what: &str, times: &mut [Duration]) -> Duration {
    times.sort();
    let median = times[times.len() / 2];
    println!("{what}: median {median:?}, max {:?} of {}", times[times.len() - 1], times.len());
    median
}

#[test]
fn a_sender_whose_server_is_killed_is_acknowledged_by_another_within_300_ms() {
    let cluster = TestCluster::up(3);
    let mut flow = cluster.person("ann").on("s1").flow(ROOM);
    let mut times = Vec::new();
    for round in 0..KILLS {
        let server = attached_to(&mut flow, &format!("before kill {round}"));

        cluster.signal(&server, Signal::SIGKILL);
        let killed = Instant::now();
        let line = flow.line(&format!("after kill {round}"));
        let (at, receipt) = flow.acknowledged(line);
        assert_ne!(server_of(&receipt), server, "another server took it");
        times.push(at - killed);

        cluster.ok(&["start", &server]);
        cluster.wait_linked();
    }
    let median = report("killed server, a client that sends", &mut times);
    assert!(median <= Duration::from_millis(300), "{times:?}");
}

#[test]
fn a_silent_reader_whose_server_is_killed_hears_the_next_message_within_300_ms() {
    let cluster = TestCluster::up(3);
    let tail = cluster.person("bob").on("s1").tail(ROOM);
    let mut times = Vec::new();
    for round in 0..KILLS {
        // A sender on a server that is not the reader's.
        let server = reader_is_on(&cluster);
        let other = cluster.names().into_iter().find(|name| *name != server).expect("three");
        let mut flow = cluster.person("ann").on(&other).flow(ROOM);
        let before = format!("before kill {round}");
        assert_eq!(attached_to(&mut flow, &before), other);
        tail.shows(&before);

        cluster.signal(&server, Signal::SIGKILL);
        let killed = Instant::now();
        let after = format!("after kill {round}");
        flow.line(&after);
        times.push(tail.shows(&after).0 - killed);

        flow.finish();
        cluster.ok(&["start", &server]);
        cluster.wait_linked();
    }
    let median = report("killed server, a client that only reads", &mut times);
    assert!(median <= Duration::from_millis(300), "{times:?}");
}

/// The server that the reader's session is on now.
fn reader_is_on(cluster: &TestCluster) -> String {
    chatty_tests::eventually("the reader is on one server", chatty_tests::SHORT, || {
        let people = cluster.person("watcher").ok(&["who", ROOM]);
        let bob = people.iter().find(|person| person["nick"] == "bob").cloned();
        let servers = bob.as_ref().and_then(|bob| bob["servers"].as_array().cloned());
        match servers.unwrap_or_default().as_slice() {
            [one] => one.as_str().map(str::to_owned).ok_or_else(|| format!("{one}")),
            _ => Err(format!("{people:?}")),
        }
    })
}

#[test]
fn a_client_whose_server_falls_silent_talks_again_within_3_seconds() {
    let cluster = TestCluster::up(3);
    let mut flow = cluster.person("ann").on("s1").flow(ROOM);
    let mut times = Vec::new();
    for round in 0..4 {
        let server = attached_to(&mut flow, &format!("before pause {round}"));

        cluster.signal(&server, Signal::SIGSTOP);
        let paused = Instant::now();
        let line = flow.line(&format!("after pause {round}"));
        let (at, receipt) = flow.acknowledged(line);
        assert_ne!(server_of(&receipt), server, "another server took it");
        times.push(at - paused);

        cluster.signal(&server, Signal::SIGCONT);
        cluster.wait_linked();
    }
    report("silent server, a client that sends", &mut times);
    let longest = times.iter().max().copied().unwrap_or_default();
    assert!(longest <= Duration::from_secs(3), "{times:?}");
}

#[test]
fn a_built_cluster_is_up_in_under_3_seconds() {
    let cluster = TestCluster::down(3);
    let began = Instant::now();
    cluster.start_all();
    let took = began.elapsed();
    println!("up, first use: {took:?}");
    assert!(took < Duration::from_secs(3), "it took {took:?}");

    cluster.ok(&["down"]);
    let began = Instant::now();
    cluster.start_all();
    let took = began.elapsed();
    println!("up again: {took:?}");
    assert!(took < Duration::from_secs(3), "it took {took:?}");
}
