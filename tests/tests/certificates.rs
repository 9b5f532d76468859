//! Certificates of running servers: renewed, told of, refused.

use std::process::{Child, Command, Stdio};

use chatty_tests::{LONG, TestCluster, eventually, programs};
use nix::sys::signal::Signal;

const ROOM: &str = "lobby";

/// Renews a server's certificate at the authority.
#[track_caller]
fn renew(cluster: &TestCluster, server: &str, validity: &[&str]) {
    let dir = cluster.dir();
    let dir = dir.to_str().expect("a readable path");
    let done = cluster.operate(&[&["renew", "--dir", dir, server], validity].concat());
    assert!(done.status.success(), "{done:?}");
}

fn days_left(cluster: &TestCluster, server: &str) -> Option<u64> {
    cluster.status_of(server)["certificate_days_left"].as_u64()
}

#[test]
fn a_renewed_certificate_is_taken_by_the_running_server_and_no_client_notices() {
    let cluster = TestCluster::up(3);
    let tail = cluster.person("bob").on("s1").tail(ROOM);
    let mut flow = cluster.person("ann").on("s1").flow(ROOM);
    let line = flow.line("before");
    flow.replicated(line);
    let pid = cluster.pid("s1");
    assert!(days_left(&cluster, "s1").is_some_and(|days| days >= 89));

    renew(&cluster, "s1", &["--valid-days", "20"]);

    eventually("s1 shows it without being asked to", LONG, || {
        let left = days_left(&cluster, "s1");
        (left == Some(19)).then_some(()).ok_or_else(|| format!("{left:?}"))
    });
    cluster.logs("s1", "that it ends soon", |line| {
        line.contains("WARN") && line.contains("the certificate ends in 19 days")
    });
    // Every link shows it, too: each was made a second time.
    for other in ["s2", "s3"] {
        eventually(&format!("the link to {other} is made anew"), LONG, || {
            let log = std::fs::read_to_string(cluster.server_dir("s1").join("log")).expect("a log");
            let made = log.matches(&format!("linked peer={other} ")).count();
            (made == 2).then_some(()).ok_or(log)
        });
    }
    let line = flow.line("after");
    assert_eq!(flow.replicated(line).1["server"], "s1");
    tail.shows("after");
    assert_eq!((tail.said(), flow.said()), (String::new(), String::new()), "nobody was disturbed");
    assert_eq!(cluster.pid("s1"), pid);

    renew(&cluster, "s1", &["--valid-days", "5"]);
    let told = cluster.operate_on("s1", "reload", &[]).expect("it takes it");
    assert!(told.contains("valid for 4 more days"), "{told}");
    assert_eq!(days_left(&cluster, "s1"), Some(4), "at once, when asked to");
    cluster.logs("s1", "that it ends very soon", |line| {
        line.contains("ERROR") && line.contains("the certificate ends in 4 days")
    });
}

#[test]
fn an_expired_certificate_is_refused_with_the_reason_in_both_logs_until_it_is_renewed() {
    let cluster = TestCluster::up(2);
    renew(&cluster, "s2", &["--valid-seconds", "2"]);
    cluster.operate_on("s2", "reload", &[]).expect("it is good for a moment");
    cluster.logs("s2", "that it is over", |line| {
        line.contains("ERROR") && line.contains("the certificate has expired")
    });
    // The link that is there lives on; a new one is refused, whoever dials.
    cluster.ok(&["kill", "s1"]);
    cluster.ok(&["start", "s1"]);

    cluster.logs("s1", "whose certificate it refused to dial", |line| {
        line.contains("not linked: by this machine's clock the certificate of")
            && line.contains("has ended")
    });
    cluster.logs("s1", "whom it refused", |line| {
        line.contains("its certificate is out of time: renew it (chatty-server renew)")
    });
    cluster.logs("s2", "why it is refused when it dials", |line| {
        line.contains("does not take our certificate") && line.contains("renew it")
    });
    cluster.logs("s2", "why it is refused when it is dialled", |line| {
        line.contains("it says that our certificate is out of time: renew it")
    });

    renew(&cluster, "s2", &[]);
    cluster.wait_linked();
}

/// A server that is no part of the test's cluster; dropped, it is killed.
struct Stranger(Child);

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_server_of_a_foreign_cluster_is_refused_with_the_reason_in_both_logs() {
    let cluster = TestCluster::up(2);
    cluster.signal("s2", Signal::SIGKILL);
    let other = cluster.folder().join("other");
    let port = cluster.base_port().to_string();
    let dir = other.to_str().expect("a readable path");
    let made = cluster.operate(&["init", "--dir", dir, "--servers", "2", "--base-port", &port]);
    assert!(made.status.success(), "{made:?}");

    // In the place of s2, on its port.
    let log = cluster.folder().join("stranger.log");
    let to = std::fs::File::create(&log).expect("a log");
    let command = Command::new(programs().join("chatty-server"))
        .args(["run", "--config"])
        .arg(other.join("servers/s2/server.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(to)
        .spawn();
    let _stranger = Stranger(command.expect("chatty-server runs"));

    cluster.logs("s1", "that it dialled a stranger", |line| {
        line.contains("is not a server of this cluster")
    });
    cluster.logs("s1", "that a stranger dialled it", |line| {
        line.contains("it trusts another authority than the one of our certificate")
    });
    for reason in ["is not a server of this cluster", "it trusts another authority"] {
        eventually(&format!("the stranger logs: {reason}"), LONG, || {
            let said = std::fs::read_to_string(&log).expect("a log");
            said.contains(reason).then_some(()).ok_or(said)
        });
    }
}
