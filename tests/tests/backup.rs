//! A server's data in a file, and back.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use chatty_tests::{TestCluster, text};

const ROOM: &str = "lobby";

fn path(path: &Path) -> &str {
    path.to_str().expect("a readable path")
}

#[test]
fn a_backup_under_load_fills_a_new_server_that_fetches_the_rest() {
    let cluster = TestCluster::up(3);
    let file = cluster.folder().join("backup");
    let mut flow = cluster.person("ann").on("s1").flow(ROOM);
    for i in 0..300 {
        flow.line(&format!("message {i}"));
    }
    flow.replicated(200);
    std::thread::scope(|scope| {
        let backup = scope.spawn(|| cluster.operate_on("s2", "backup", &["--out", path(&file)]));
        for i in 300..600 {
            flow.line(&format!("message {i}"));
        }
        backup.join().expect("no panic").expect("a backup");
    });
    let disk = cluster.status_of("s3")["disk"].clone();

    cluster.ok(&["stop", "s3"]);
    let data = cluster.server_dir("s3").join("data");
    fs::remove_dir_all(&data).expect("the disk is lost");
    let dir = cluster.dir();
    let restore = ["--from", path(&file), "--dir", path(&dir)];
    let said = cluster.operate_on("s3", "restore", &restore).expect("restored");
    assert!(said.contains("from a backup of s2"), "{said}");
    cluster.ok(&["start", "s3"]);
    cluster.logs("s3", "that it began with the backup's logs", |line| {
        line.contains("starting") && line.contains("generation=1") && !line.contains("logs=0")
    });
    let status = flow.finish();
    assert!(status.success(), "{}", flow.said());

    assert_ne!(cluster.status_of("s3")["disk"], disk, "it is another disk to the others");
    let history = cluster.one_history(ROOM);
    let once: BTreeSet<_> = history.iter().map(text).collect();
    assert_eq!((once.len(), history.len()), (600, 600), "nothing lost, nothing twice");
    // The old disk is fenced, the new one counts: two of three are enough again.
    cluster.ok(&["stop", "s2"]);
    assert_eq!(cluster.person("ann").on("s1").say(ROOM, "one more")["level"], "replicated");
}

#[test]
fn a_restore_that_would_harm_is_refused_and_touches_nothing() {
    let cluster = TestCluster::up(1);
    cluster.person("ann").say(ROOM, "hello");
    let file = cluster.folder().join("backup");
    let restore = |from: &Path, more: &[&str]| {
        let arguments = [&["--from", path(from)], more].concat();
        cluster.operate_on("s1", "restore", &arguments).unwrap_err()
    };
    cluster.operate_on("s1", "backup", &["--out", path(&file)]).expect("a backup");
    assert!(restore(&file, &[]).contains("another process uses this data folder"));
    cluster.ok(&["down"]);
    let stopped = cluster.folder().join("stopped");
    cluster.operate_on("s1", "backup", &["--out", path(&stopped)]).expect("of a stopped one");
    assert!(restore(&file, &[]).contains("the data folder holds data ("));

    let data = cluster.server_dir("s1").join("data");
    fs::remove_dir_all(&data).expect("the disk is lost");
    // Its old identity: the others would count on what its old disk held.
    assert!(restore(&file, &[]).contains("chatty-server reissue"));
    let whole = fs::read(&file).expect("a backup");
    let bad = cluster.folder().join("bad");
    let dir = cluster.dir();
    let dir = ["--dir", path(&dir)];
    let certificate = cluster.server_dir("s1").join("server.pem");
    let before = fs::read(&certificate).expect("a certificate");
    fs::write(&bad, &whole[..whole.len() - 7]).expect("writable");
    assert!(restore(&bad, &dir).contains("cut off"));
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fs::write(&bad, &flipped).expect("writable");
    assert!(restore(&bad, &dir).contains("damaged"));
    fs::write(&bad, "something else").expect("writable");
    assert!(restore(&bad, &dir).contains("no backup of chatty"));

    assert!(!data.exists(), "no data folder was made");
    assert_eq!(fs::read(&certificate).expect("a certificate"), before, "nothing was issued");

    let arguments = [&["--from", path(&stopped)], &dir[..]].concat();
    cluster.operate_on("s1", "restore", &arguments).expect("restored");
    cluster.start_all();
    assert_eq!(cluster.history("s1", ROOM).len(), 1);
}
