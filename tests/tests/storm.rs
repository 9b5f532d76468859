//! Thousands of clients lose their server at once. Nothing else runs beside this: it measures time.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use chatty_tests::{Person, SHORT, TestCluster, eventually};
use nix::sys::signal::Signal;
use serde_json::Value;

const CLIENTS: u64 = 2000;
/// A prober of a survivor never waits longer for its receipt, on two cores that carry the 2,000
/// clients as well.
const PROBE_MAX: Duration = Duration::from_secs(3);

/// Sends a line, waits for its receipt, and again; gives the longest wait and how many there were.
fn probe(person: &Person, over: &AtomicBool, answered: &AtomicUsize) -> (Duration, usize) {
    let mut flow = person.flow("probe");
    let (mut longest, mut count) = (Duration::ZERO, 0);
    while !over.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let line = flow.line("?");
        longest = longest.max(flow.acknowledged(line).0 - asked);
        count += 1;
        answered.store(count, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(20));
    }
    let said = flow.said();
    assert!(flow.finish().success() && said.is_empty(), "the prober stays: {said}");
    (longest, count)
}

#[test]
fn the_clients_of_a_killed_server_spread_over_the_others_which_go_on_answering() {
    let cluster = TestCluster::up(3);
    let clients = CLIENTS.to_string();
    let arguments = ["bench", "--storm", "--clients", &clients, "--json"];
    let mut storm = cluster
        .person("storm")
        .on("s1")
        .command(&arguments)
        .stdout(Stdio::piped())
        .spawn()
        .expect("chatty runs");
    let mut lines = BufReader::new(storm.stdout.take().expect("a pipe")).lines();
    let mut next = || -> Value {
        let line = lines.next().expect("it says why on standard error").expect("a line");
        serde_json::from_str(&line).expect("an object")
    };
    let attached = next();
    assert_eq!((&attached["clients"], &attached["server"]), (&CLIENTS.into(), &"s1".into()));

    let over = Arc::new(AtomicBool::new(false));
    let probers: Vec<_> = ["s2", "s3"]
        .into_iter()
        .map(|server| {
            let person = cluster.person(&format!("prober-{server}")).on(server);
            let (over, answered) = (over.clone(), Arc::new(AtomicUsize::new(0)));
            let count = answered.clone();
            (std::thread::spawn(move || probe(&person, &over, &answered)), count)
        })
        .collect();
    for (_, count) in &probers {
        eventually("both probers are answered", SHORT, || {
            let count = count.load(Ordering::Relaxed);
            (count >= 10).then_some(()).ok_or_else(|| format!("{count} answers"))
        });
    }
    cluster.signal("s1", Signal::SIGKILL);
    let moved = next();
    println!("{attached}\n{moved}");
    over.store(true, Ordering::Relaxed);

    assert_eq!(moved["clients"], CLIENTS);
    for server in ["s2", "s3"] {
        let count = moved["servers"][server].as_u64().unwrap_or(0);
        assert!(count >= CLIENTS / 3, "{moved}");
    }
    for (prober, _) in probers {
        let (longest, count) = prober.join().expect("all probes were answered");
        println!("prober: {count} probes, longest wait {longest:?}");
        assert!(longest <= PROBE_MAX && count > 10, "{longest:?} of {count} probes");
    }
    assert!(storm.wait().expect("our child").success());
}
