//! Disks that are not what they say: a data folder that runs twice, an older state of one put back,
//! the disk that a slot had before.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use chatty_tests::{LONG, TestCluster, eventually, programs, text};
use nix::sys::signal::Signal;
use serde_json::Value;

const ROOM: &str = "lobby";

fn home(cluster: &TestCluster, server: &str) -> PathBuf {
    cluster.dir().join("servers").join(server)
}

fn log(cluster: &TestCluster, server: &str) -> String {
    fs::read_to_string(home(cluster, server).join("log")).expect("the server was started")
}

#[track_caller]
fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").args([from, to]).status().expect("cp runs");
    assert!(done.success(), "{} was copied", from.display());
}

#[track_caller]
fn wait_log(what: &str, read: impl Fn() -> String, words: &[&str]) {
    eventually(what, LONG, || {
        let log = read();
        let there = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
        there.then_some(()).ok_or(log)
    });
}

/// A server started by hand from the copy of another one's folder.
struct Copied {
    folder: PathBuf,
    process: Child,
}

impl Copied {
    /// On a port that no server of the cluster has.
    #[track_caller]
    fn start(cluster: &TestCluster, folder: &Path) -> Self {
        let file = folder.join("server.toml");
        let config = fs::read_to_string(&file).expect("the configuration was copied");
        let listen = |line: &str| match line.starts_with("listen = ") {
            true => format!("listen = \"127.0.0.1:{}\"", cluster.base_port() + 9),
            false => line.to_owned(),
        };
        let config: Vec<String> = config.lines().map(listen).collect();
        fs::write(&file, config.join("\n")).expect("the copy is ours");
        let log = File::create(folder.join("log")).expect("a file");
        let process = Command::new(programs().join("chatty-server"))
            .args(["run", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("chatty-server runs");
        Self { folder: folder.into(), process }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).expect("a file")
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// How often a server took a connection as the link to s3.
fn links_to_s3(log: &str) -> usize {
    log.lines().filter(|line| line.contains("linked") && line.contains("peer=s3")).count()
}

#[test]
fn a_copied_data_folder_is_refused_while_the_original_runs_and_a_restart_is_not() {
    let cluster = TestCluster::up(3);
    cluster.person("ann").say(ROOM, "before the copy");
    let folder = cluster.folder().join("copy");
    cluster.ok(&["stop", "s3"]);
    copy(&home(&cluster, "s3"), &folder);
    cluster.ok(&["start", "s3"]);
    cluster.wait_linked();
    let linked = ["s1", "s2"].map(|server| links_to_s3(&log(&cluster, server)));
    assert!(linked.iter().all(|count| *count > 0), "the log says what is linked: {linked:?}");

    let copied = Copied::start(&cluster, &folder);

    let what_to_do = ["ERROR", "DUPLICATE", "s3 runs twice", "Stop the copy"];
    wait_log("the copy says it", || copied.log(), &[&what_to_do[..], &["s1 refused"]].concat());
    wait_log("the copy says it", || copied.log(), &[&what_to_do[..], &["s2 refused"]].concat());
    for server in ["s1", "s2"] {
        wait_log("the others say it", || log(&cluster, server), &what_to_do);
    }
    let after = ["s1", "s2"].map(|server| links_to_s3(&log(&cluster, server)));
    assert_eq!(after, linked, "the link to the original stays");
    cluster.wait_linked();
    let receipt = cluster.person("bob").on("s3").say(ROOM, "to the original");
    assert_eq!((&receipt["server"], &receipt["level"]), (&"s3".into(), &"replicated".into()));
    drop(copied);

    cluster.signal("s3", Signal::SIGKILL);
    let before = log(&cluster, "s3").len();
    cluster.ok(&["start", "s3"]);
    cluster.wait_linked();
    let restarted = log(&cluster, "s3").split_off(before);
    assert!(!restarted.contains("DUPLICATE"), "a restart is no copy: {restarted}");
    let history = cluster.one_history(ROOM);
    let texts: Vec<_> = history.iter().map(text).collect();
    assert_eq!(texts, ["before the copy", "to the original"]);
}

#[test]
fn the_disk_that_a_slot_had_before_is_refused_and_the_link_to_the_new_one_stays() {
    let cluster = TestCluster::up(3);
    cluster.person("ann").say(ROOM, "on the old disk");
    let folder = cluster.folder().join("old");
    cluster.ok(&["stop", "s3"]);
    copy(&home(&cluster, "s3"), &folder);
    cluster.ok(&["wipe", "s3"]);
    cluster.ok(&["start", "s3"]);
    cluster.wait_linked();
    let linked = ["s1", "s2"].map(|server| links_to_s3(&log(&cluster, server)));

    let old = Copied::start(&cluster, &folder);

    for server in ["s1", "s2"] {
        wait_log("it is refused", || log(&cluster, server), &["ERROR", "refused s3", "fenced"]);
    }
    wait_log("it is told why", || old.log(), &["fenced", "generation", "Wipe this server"]);
    let after = ["s1", "s2"].map(|server| links_to_s3(&log(&cluster, server)));
    assert_eq!(after, linked, "it never took the place of the new one");
    let lost = "a newer connection is the link";
    assert!(!log(&cluster, "s3").contains(lost), "the new one was not cut off");
    cluster.wait_linked();
}

/// Says something on one of two servers while the third is away: replicated only with both.
#[track_caller]
fn say_without(cluster: &TestCluster, away: &str, on: &str, what: &str) -> Value {
    cluster.ok(&["stop", away]);
    let receipt = cluster.person("ann").on(on).say(ROOM, what);
    cluster.ok(&["start", away]);
    cluster.wait_linked();
    receipt
}

#[test]
fn a_folder_put_back_from_a_backup_counts_for_nothing_until_it_is_wiped() {
    let cluster = TestCluster::up(3);
    cluster.person("ann").say(ROOM, "before the backup");
    cluster.wait_converged();
    let (data, backup) = (home(&cluster, "s3").join("data"), cluster.folder().join("backup"));
    cluster.ok(&["stop", "s3"]);
    copy(&data, &backup);
    cluster.ok(&["start", "s3"]);
    cluster.wait_linked();
    for (away, on) in [("s2", "s1"), ("s1", "s2")] {
        let receipt = say_without(&cluster, away, on, &format!("without {away}"));
        assert_eq!(receipt["level"], "replicated", "{on} and s3 have it");
    }

    cluster.ok(&["kill", "s3"]);
    fs::remove_dir_all(&data).expect("the folder is ours");
    copy(&backup, &data);
    cluster.ok(&["start", "s3"]);

    for server in ["s1", "s2", "s3"] {
        wait_log("it is found out", || log(&cluster, server), &["ERROR", "ROLLED BACK", "wipe"]);
    }
    cluster.wait_linked();
    assert_eq!(cluster.status_of("s3")["standing"], "rolled back");
    assert_eq!(cluster.status_of("s1")["standing"], "sound");
    let shown = cluster.person("ann").command(&["status"]).output().expect("chatty runs").stdout;
    let shown = String::from_utf8_lossy(&shown).into_owned();
    assert_eq!(shown.matches("disk is rolled back").count(), 1, "{shown}");
    assert!(!shown.contains("sound"), "what is well is not told: {shown}");

    cluster.ok(&["stop", "s2"]);
    let mut flow = cluster.person("bob").on("s1").flow(ROOM);
    let line = flow.line("on one disk that counts");
    let (_, receipt) = flow.acknowledged(line);
    assert_eq!((&receipt["level"], &receipt["replicas"]), (&"stored".into(), &1.into()));
    cluster.ok(&["start", "s2"]);
    flow.replicated(line);
    assert!(flow.finish().success());

    cluster.ok(&["wipe", "s3"]);
    cluster.wait_linked();
    let history = cluster.one_history(ROOM);
    let texts: Vec<_> = history.iter().map(text).collect();
    let all = ["before the backup", "without s2", "without s1", "on one disk that counts"];
    assert_eq!(texts, all, "nothing acknowledged is lost");
    assert_eq!(cluster.status_of("s3")["standing"], "sound");
    let receipt = say_without(&cluster, "s2", "s1", "with the new disk");
    assert_eq!(receipt["level"], "replicated", "it counts again");
}
