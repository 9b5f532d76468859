//! Servers are killed, frozen and wiped while people talk: nobody loses a word.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use chatty_tests::{Flow, LONG, Tail, TestCluster, eventually, key, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const ROOM: &str = "lobby";

/// Clients of all three servers: one that shows the room and one that sends, on each.
struct Crowd {
    tails: Vec<Tail>,
    flows: Vec<Flow>,
    sent: usize,
}

impl Crowd {
    fn gather(cluster: &TestCluster) -> Self {
        let names = cluster.names();
        let reader = |s: &String| cluster.person(&format!("reader-{s}")).on(s).tail(ROOM);
        let sender = |s: &String| cluster.person(&format!("sender-{s}")).on(s).flow(ROOM);
        let tails = names.iter().map(reader).collect();
        Self { tails, flows: names.iter().map(sender).collect(), sent: 0 }
    }

    /// Sends 200 messages a second, from all in turn, until so many are sent in all.
    fn send_until(&mut self, total: usize) {
        let (began, first) = (Instant::now(), self.sent);
        while self.sent < total {
            let from = self.sent % self.flows.len();
            let line = format!("message {} of sender {from}", self.sent);
            self.flows[from].line(&line);
            self.sent += 1;
            let due =
                began + Duration::from_millis(5) * u32::try_from(self.sent - first).unwrap_or(0);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }

    /// Ends the input of all senders; gives the texts that were acknowledged.
    #[track_caller]
    fn finish(&mut self) -> BTreeSet<String> {
        let mut acknowledged = BTreeSet::new();
        for flow in &mut self.flows {
            let status = flow.finish();
            assert!(status.success(), "a line was not acknowledged: {}", flow.said());
            acknowledged.extend(flow.acknowledgements().into_keys());
        }
        assert_eq!(acknowledged.len(), self.sent, "each line has its receipt");
        acknowledged
    }

    /// Every reader shows exactly that history, once sorted.
    #[track_caller]
    fn all_show(&self, history: &[Value]) {
        for tail in &self.tails {
            tail.shows_at_least(history.len());
            let shown = tail.sorted();
            assert_eq!(texts(&shown), texts(history), "what a client saw, sorted by key");
        }
    }
}

fn texts(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(text).collect()
}

#[track_caller]
fn assert_each_once(history: &[Value], acknowledged: &BTreeSet<String>) {
    let once: BTreeSet<_> = history.iter().map(|message| text(message).to_owned()).collect();
    assert_eq!(once.len(), history.len(), "nothing is there twice");
    let lost: Vec<_> = acknowledged.difference(&once).collect();
    assert!(lost.is_empty(), "acknowledged and not there: {lost:?}");
    assert!(history.windows(2).all(|two| key(&two[0]) < key(&two[1])), "oldest first");
}

#[test]
fn a_server_is_killed_while_200_messages_a_second_flow_and_nobody_loses_or_doubles_a_word() {
    let cluster = TestCluster::up(3);
    let mut crowd = Crowd::gather(&cluster);

    crowd.send_until(600);
    cluster.signal("s2", Signal::SIGKILL);
    crowd.send_until(1600);
    let acknowledged = crowd.finish();

    assert!(cluster.status_of("s2")["state"] == "down", "s2 was killed and nothing restarted it");
    let (s1, s3) = (cluster.history("s1", ROOM), cluster.history("s3", ROOM));
    assert_each_once(&s1, &acknowledged);
    assert_eq!(s1, s3, "the survivors have the same history");
    crowd.all_show(&s1);

    cluster.ok(&["start", "s2"]);
    let history = cluster.one_history(ROOM);
    assert_each_once(&history, &acknowledged);
    crowd.all_show(&history);
}

/// The processes of all servers, to be killed without a moment's delay: what was acknowledged a
/// millisecond ago must be on the disks.
fn processes(cluster: &TestCluster) -> Vec<Pid> {
    cluster.names().iter().map(|server| cluster.pid(server)).collect()
}

#[track_caller]
fn kill_at_once(processes: &[Pid]) {
    for process in processes {
        kill(*process, Signal::SIGKILL).expect("it runs");
    }
}

#[test]
fn all_three_killed_at_once_have_every_replicated_message_when_they_are_back() {
    let cluster = TestCluster::up(3);
    let servers = processes(&cluster);
    let mut crowd = Crowd::gather(&cluster);
    crowd.send_until(500);
    eventually("some are replicated", LONG, || {
        let count = crowd.flows.iter().map(|flow| flow.replicated_texts().len()).sum::<usize>();
        (count >= 200).then_some(()).ok_or_else(|| count.to_string())
    });

    // Texts known to be replicated before the first server dies.
    let replicated: BTreeSet<String> =
        crowd.flows.iter().flat_map(Flow::replicated_texts).collect();
    kill_at_once(&servers);
    assert!(cluster.status().iter().all(|server| server["state"] == "down"));
    cluster.start_all();

    // The senders are still there: they reconnect and deliver what was on its way.
    let acknowledged = crowd.finish();
    let history = cluster.one_history(ROOM);
    assert!(replicated.is_subset(&acknowledged));
    assert_each_once(&history, &acknowledged);
    crowd.all_show(&history);
}

#[test]
fn all_three_killed_at_once_without_any_client_left_keep_what_was_replicated() {
    let cluster = TestCluster::up(3);
    let servers = processes(&cluster);
    let mut flow = cluster.person("ann").on("s1").flow(ROOM);
    for i in 0..300 {
        flow.line(&format!("message {i}"));
    }
    flow.replicated(100);
    let replicated: BTreeSet<String> = flow.replicated_texts().into_iter().collect();
    kill_at_once(&servers);
    drop(flow); // its outbox is gone, too

    cluster.start_all();

    let history = cluster.one_history(ROOM);
    assert_each_once(&history, &replicated);
}

#[test]
fn a_wiped_server_comes_back_whole() {
    let cluster = TestCluster::up(3);
    let mut flow = cluster.person("ann").on("s2").flow(ROOM);
    for i in 0..500 {
        flow.line(&format!("message {i}"));
    }
    assert!(flow.finish().success(), "{}", flow.said());
    let before = cluster.one_history(ROOM);
    let disk = cluster.status_of("s2")["disk"].clone();

    cluster.ok(&["wipe", "s2"]);

    let after = cluster.one_history(ROOM);
    assert_eq!(after, before);
    assert_eq!(after.len(), 500);
    assert_ne!(cluster.status_of("s2")["disk"], disk, "it has a new identity");
}

#[test]
fn a_stopped_server_that_is_wiped_stays_stopped_and_comes_back_whole() {
    let cluster = TestCluster::up(3);
    cluster.person("ann").say(ROOM, "before");
    cluster.ok(&["stop", "s3"]);
    cluster.ok(&["wipe", "s3"]);
    assert!(!cluster.script(&["pid", "s3"]).status.success(), "it is still stopped");
    cluster.person("ann").say(ROOM, "meanwhile");

    cluster.ok(&["start", "s3"]);

    assert_eq!(texts(&cluster.one_history(ROOM)), ["before", "meanwhile"]);
}

#[test]
fn a_server_paused_for_ten_seconds_rejoins_without_harm() {
    let cluster = TestCluster::up(3);
    let mut crowd = Crowd::gather(&cluster);
    crowd.send_until(200);
    cluster.signal("s2", Signal::SIGSTOP);
    crowd.send_until(2200); // at 200 a second: ten seconds
    eventually("the others see s2 as down", LONG, || {
        let status = cluster.status_of("s1");
        let links = status["links"].as_array().cloned().unwrap_or_default();
        let down = links.iter().any(|link| link["server"] == "s2" && link["state"] == "down");
        down.then_some(()).ok_or_else(|| status.to_string())
    });
    cluster.signal("s2", Signal::SIGCONT);
    crowd.send_until(2400);
    let acknowledged = crowd.finish();

    let history = cluster.one_history(ROOM);
    assert_each_once(&history, &acknowledged);
    crowd.all_show(&history);
}

#[test]
fn a_server_started_alone_answers_and_takes_messages_that_the_others_get_later() {
    let cluster = TestCluster::up(3);
    cluster.person("ann").say(ROOM, "to all");
    cluster.ok(&["down"]);

    cluster.ok(&["start", "s2"]);
    let receipt = cluster.person("ann").on("s2").say(ROOM, "alone");
    assert_eq!(receipt["level"], "stored", "one disk is no majority");
    assert_eq!(texts(&cluster.history("s2", ROOM)), ["to all", "alone"]);

    cluster.start_all();
    assert_eq!(texts(&cluster.one_history(ROOM)), ["to all", "alone"]);
}

#[test]
fn what_a_minority_took_reaches_the_others_late_and_in_its_place() {
    let cluster = TestCluster::up(3);
    cluster.person("ann").on("s1").say(ROOM, "to all");
    cluster.person("bob").on("s3").say(ROOM, "and me");
    cluster.wait_converged();
    // Who reads on the other side hears nothing of it: she stands still while only s3 is there.
    let tail = cluster.person("eve").on("s1").tail(ROOM);
    tail.signal(Signal::SIGSTOP);
    cluster.ok(&["kill", "s1", "s2"]);
    let receipt = cluster.person("bob").on("s3").say(ROOM, "alone");
    let said = Instant::now();
    assert_eq!(receipt["level"], "stored", "{receipt}");
    cluster.ok(&["kill", "s3"]);

    // Meanwhile the others go on without it, for more than the second that makes a line late.
    cluster.ok(&["start", "s1", "s2"]);
    tail.signal(Signal::SIGCONT);
    let mut flow = cluster.person("ann").on("s1").flow(ROOM);
    let mut count = 0;
    while said.elapsed() < Duration::from_secs(2) || count < 2 {
        count = flow.line(&format!("meanwhile {}", count + 1));
        flow.replicated(count);
    }
    assert!(flow.finish().success(), "{}", flow.said());
    tail.shows(&format!("meanwhile {count}"));
    let shown = tail.messages();
    assert!(shown.iter().all(|line| line["late"] == false), "{shown:?}");

    cluster.ok(&["start", "s3"]);
    assert_eq!(tail.shows("alone").1["late"], true);
    let history = cluster.one_history(ROOM);
    let mut expected = vec!["to all".to_owned(), "and me".into(), "alone".into()];
    expected.extend((1..=count).map(|nth| format!("meanwhile {nth}")));
    assert_eq!(texts(&history), expected);
    // Sorted as they stand, the reader's lines are the same.
    assert_eq!(texts(&tail.sorted()), expected[2..]);
}

#[test]
fn five_servers_lose_two_and_go_on_replicating() {
    let cluster = TestCluster::up(5);
    let mut flow = cluster.person("ann").on("s1").flow(ROOM);
    let tail = cluster.person("bob").on("s5").tail(ROOM);
    flow.line("five");
    flow.replicated(1);

    cluster.ok(&["kill", "s1", "s3"]);
    let line = flow.line("three");
    flow.replicated(line);
    tail.shows("three");
    assert!(flow.finish().success(), "{}", flow.said());

    cluster.start_all();
    assert_eq!(texts(&cluster.one_history(ROOM)), ["five", "three"]);
}

#[test]
fn a_server_stopped_gracefully_sends_its_clients_elsewhere_and_ends_within_two_seconds() {
    let cluster = TestCluster::up(3);
    let tail = cluster.person("bob").on("s1").tail(ROOM);
    let mut flow = cluster.person("ann").on("s1").flow(ROOM);
    let line = flow.line("first");
    flow.acknowledged(line);

    let began = Instant::now();
    cluster.ok(&["stop", "s1"]);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "it took {took:?}");

    let line = flow.line("second");
    flow.acknowledged(line);
    tail.shows("second");
    assert!(flow.finish().success(), "{}", flow.said());
    assert_eq!(texts(&tail.sorted()), ["first", "second"]);
}
