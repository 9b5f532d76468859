//! A server that cannot run says so in one clear line, ends with an error, and touches nothing.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Stdio};

use chatty_tests::{LONG, TestCluster, eventually, programs};

/// Runs a server that must refuse to; gives what it said.
#[track_caller]
fn refusal(config: &Path) -> String {
    let out = Command::new("timeout")
        .arg("20")
        .arg(programs().join("chatty-server"))
        .args(["run", "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .output()
        .expect("chatty-server runs");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code().is_some_and(|code| code != 0 && code != 124), "{out:?}");
    assert_eq!(said.lines().count(), 1, "one clear line:\n{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// A cluster of one server that is set up and stopped, with its configuration file.
fn stopped() -> (TestCluster, std::path::PathBuf) {
    let cluster = TestCluster::up(1);
    cluster.person("ann").say("lobby", "kept");
    cluster.ok(&["down"]);
    let config = cluster.dir().join("servers/s1/server.toml");
    (cluster, config)
}

/// Every file below a folder, with its length and its time.
fn files(folder: &Path) -> Vec<(std::path::PathBuf, u64, std::time::SystemTime)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let meta = entry.metadata().expect("it is there");
        if meta.is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push((entry.path(), meta.len(), meta.modified().expect("a time")));
        }
    }
    found.sort();
    found
}

#[test]
fn a_wrong_key_in_the_configuration_is_named_and_nothing_is_touched() {
    let (cluster, config) = stopped();
    let right = fs::read_to_string(&config).expect("init wrote it");
    fs::write(&config, right.replace("listen = ", "lisen = ")).expect("ours");
    let before = files(&cluster.dir());

    let said = refusal(&config);
    assert!(said.contains("lisen") && said.contains("server.toml"), "{said}");
    assert_eq!(files(&cluster.dir()), before, "nothing was touched");

    let check = Command::new(programs().join("chatty-server"))
        .args(["check", "--config"])
        .arg(&config)
        .output()
        .expect("chatty-server runs");
    assert!(!check.status.success() && String::from_utf8_lossy(&check.stderr).contains("lisen"));
}

#[test]
fn a_port_in_use_is_named() {
    let (cluster, config) = stopped();
    let taken = UdpSocket::bind(("127.0.0.1", cluster.base_port())).expect("it is free");
    let before = files(&cluster.dir().join("servers/s1/data"));

    let said = refusal(&config);
    assert!(said.contains(&cluster.base_port().to_string()), "{said}");
    assert_eq!(files(&cluster.dir().join("servers/s1/data")), before, "nothing was touched");

    let up = cluster.script(&["up"]);
    assert_eq!(up.status.code(), Some(1), "and scripts/cluster passes the reason on");
    let passed_on = String::from_utf8_lossy(&up.stderr).into_owned();
    assert!(passed_on.contains(&cluster.base_port().to_string()), "{passed_on}");

    drop(taken);
    cluster.ok(&["up"]);
    assert_eq!(cluster.history("s1", "lobby").len(), 1);
}

#[test]
fn a_certificate_of_another_cluster_is_refused() {
    let (cluster, config) = stopped();
    let (other, _) = stopped();
    let home = config.parent().expect("a folder");
    for file in ["server.pem", "server.key"] {
        fs::copy(other.dir().join("servers/s1").join(file), home.join(file)).expect("both exist");
    }
    let said = refusal(&config);
    assert!(said.contains("certificate"), "{said}");
    drop(cluster);
}

#[test]
fn a_key_that_does_not_fit_its_certificate_is_refused() {
    let (_cluster, config) = stopped();
    let (other, _) = stopped();
    let key = other.dir().join("servers/s1/server.key");
    fs::copy(key, config.with_file_name("server.key")).expect("both exist");
    let said = refusal(&config);
    assert!(said.contains("key") && said.contains("server.pem"), "{said}");
}

#[test]
fn a_data_folder_in_use_is_named_and_its_user_is_left_alone() {
    let cluster = TestCluster::up(1);
    let config = cluster.dir().join("servers/s1/server.toml");
    let text = fs::read_to_string(&config).expect("init wrote it");
    let (here, there) = (cluster.base_port(), cluster.base_port() + 7);
    let second = config.with_file_name("second.toml");
    fs::write(&second, text.replace(&format!(":{here}\""), &format!(":{there}\""))).expect("ours");

    let said = refusal(&second);
    assert!(said.contains("data"), "{said}");
    cluster.person("ann").say("lobby", "the first one runs on");
}

#[test]
fn a_server_of_another_cluster_gets_no_link() {
    let (one, two) = (TestCluster::up(2), TestCluster::up(1));
    // s2 of the first cluster looks for its s1 where the server of the second one listens.
    let config = one.dir().join("servers/s2/server.toml");
    one.ok(&["down"]);
    let text = fs::read_to_string(&config).expect("init wrote it");
    let (own, foreign) = (one.base_port().to_string(), two.base_port().to_string());
    fs::write(&config, text.replace(&format!(":{own}\""), &format!(":{foreign}\""))).expect("ours");
    two.person("ann").say("lobby", "private");

    one.ok(&["start", "s2"]);
    let receipt = one.person("bob").on("s2").say("lobby", "alone");

    assert_eq!(receipt["level"], "stored", "no second disk took it");
    assert_eq!(two.status_of("s1")["rooms"][0]["messages"], 1, "nothing came over");
    assert_eq!(one.history("s2", "lobby").len(), 1, "nothing went over");
}

/// Whether a server's log has an error with these words.
fn has_error(cluster: &TestCluster, server: &str, words: &str) -> Result<(), String> {
    let log = cluster.dir().join("servers").join(server).join("log");
    let log = fs::read_to_string(log).unwrap_or_default();
    let found = log.lines().any(|line| line.contains("ERROR") && line.contains(words));
    found.then_some(()).ok_or(log)
}

#[test]
fn servers_with_other_lists_of_servers_do_not_link_and_both_say_why() {
    let cluster = TestCluster::up(3);
    cluster.ok(&["down"]);
    let config = cluster.dir().join("servers/s1/server.toml");
    let right = fs::read_to_string(&config).expect("init wrote it");
    let (shorter, _) = right.split_once("[[servers]]\nname = \"s3\"").expect("s3 comes last");
    fs::write(&config, shorter).expect("ours");
    let mut check = Command::new(programs().join("chatty-server"));
    let checked = check.args(["check", "--config"]).arg(&config).status();
    assert!(checked.is_ok_and(|status| status.success()), "alone it is a good one of two servers");

    cluster.ok(&["start", "s1"]);
    cluster.ok(&["start", "s2"]);
    let why = "the voters are s1, s2, by s2 they are s1, s2, s3";
    for server in ["s1", "s2"] {
        eventually("the reason is in the log", LONG, || has_error(&cluster, server, why));
    }
    let receipt = cluster.person("ann").on("s1").say("lobby", "on one disk");
    assert_eq!(receipt["level"], "stored", "two of two would be no majority of three: {receipt}");

    cluster.ok(&["stop", "s1"]);
    fs::write(&config, right).expect("ours");
    cluster.ok(&["start", "s1"]);
    let receipt = cluster.person("bob").on("s1").say("lobby", "on two disks");
    assert_eq!(receipt["level"], "replicated", "{receipt}");
}
