//! A server whose clock is off takes no writes, goes on reading and replicating, and takes writes
//! again when it is mended; nobody follows its clock. A client's clock costs no message. The clock
//! of one process alone is moved, with libfaketime (on Debian: `apt-get install faketime`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use chatty_tests::{LONG, ServerProcess, TestCluster, eventually, key, repository, text};
use serde_json::Value;

const ROOM: &str = "lobby";

/// The clock of one server's process.
struct Clock(PathBuf);

impl Clock {
    /// Starts the server with a clock that can be moved.
    fn start(cluster: &TestCluster, server: &str) -> Self {
        let clock = Self::off_by(cluster, 0);
        let mut script = Command::new(repository().join("scripts/cluster"));
        script.args(["start", server, "--dir"]).arg(cluster.dir());
        let done = clock.rules(&mut script).stdin(Stdio::null()).status();
        assert!(done.is_ok_and(|status| status.success()), "{server} starts");
        clock
    }

    /// One for processes that are started later.
    fn off_by(cluster: &TestCluster, seconds: i64) -> Self {
        let clock = Self(cluster.folder().join("clock"));
        clock.is_off_by(seconds);
        clock
    }

    /// The process will live by it.
    fn rules<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("LD_PRELOAD", library())
            .env("FAKETIME_TIMESTAMP_FILE", &self.0)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    }

    /// Starts the server alone: the script asks it with a client, whose clock shall be right.
    fn run(&self, cluster: &TestCluster, server: &str) -> ServerProcess {
        let mut command = cluster.server_command(server);
        ServerProcess::start(self.rules(&mut command))
    }

    /// Moves it by so many seconds from the right time.
    fn is_off_by(&self, seconds: i64) {
        let new = self.0.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n")).expect("written");
        fs::rename(&new, &self.0).expect("in its place at once");
    }
}

fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let found = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1"));
    found
        .chain([PathBuf::from("/usr/local/lib/faketime/libfaketime.so.1")])
        .find(|path| Path::exists(path))
        .expect("libfaketime is missing; on Debian: apt-get install faketime")
}

/// The milliseconds in a message's place.
fn stamp_ms(message: &Value) -> u64 {
    u64::from_str_radix(key(message).get(..12).unwrap_or_default(), 16).expect("a stamp")
}

fn state(cluster: &TestCluster, server: &str, wanted: &str) {
    eventually(&format!("{server} is {wanted}"), LONG, || {
        let status = cluster.status_of(server);
        (status["state"] == wanted).then_some(()).ok_or_else(|| status.to_string())
    });
}

fn linked(cluster: &TestCluster, server: &str) {
    eventually(&format!("{server} is linked to both others"), LONG, || {
        let status = cluster.status_of(server);
        let links = status["links"].as_array().into_iter().flatten();
        let up = links.filter(|link| link["state"] == "up").count();
        (up == 2).then_some(()).ok_or_else(|| status.to_string())
    });
}

const DAY: i64 = 86_400;
const YEAR: i64 = 365 * DAY;

#[test]
fn a_server_started_with_a_clock_a_year_off_takes_no_writes_until_it_is_mended() {
    let cluster = TestCluster::up(3);
    let ann = cluster.person("ann").on("s3");
    let mut said = vec!["before".to_owned()];
    ann.say(ROOM, "before");
    for off in [YEAR, -YEAR] {
        cluster.ok(&["stop", "s3"]);
        let clock = Clock::off_by(&cluster, off);
        let server = clock.run(&cluster, "s3");
        linked(&cluster, "s3");
        state(&cluster, "s3", "clock off");
        let words = format!("while s3 is {off} s off");
        let receipt = ann.say(ROOM, &words);
        assert_ne!(receipt["server"], "s3", "{off}: another server takes it: {receipt}");
        assert_eq!(receipt["level"], "replicated", "{off}: {receipt}");
        said.push(words.clone());
        eventually("s3 replicates, and is read", LONG, || {
            let history = ann.ok(&["history", ROOM, "--last", "1"]);
            let last = history.last().map(text) == Some(words.as_str());
            last.then_some(()).ok_or_else(|| format!("{history:?}"))
        });

        // Alone, with nobody to tell it, it takes none either.
        cluster.ok(&["stop", "s1", "s2"]);
        state(&cluster, "s3", "clock off");
        cluster.ok(&["start", "s1", "s2"]);
        linked(&cluster, "s3");

        clock.is_off_by(0);
        state(&cluster, "s3", "ready");
        let words = format!("after s3 was {off} s off");
        assert_eq!(ann.say(ROOM, &words)["server"], "s3", "{off}: it takes writes again");
        said.push(words);
        drop(server);
        cluster.ok(&["start", "s3"]);
        cluster.wait_linked();
    }
    for (off, why) in [(YEAR, "the certificate has expired, by"), (-YEAR, "made in the future")] {
        cluster.logs("s3", &format!("{off} s off"), |line| {
            line.contains("ERROR") && line.contains(why) && line.contains("mend the clock")
        });
    }
    let history = cluster.one_history(ROOM);
    assert_eq!(history.iter().map(text).collect::<Vec<_>>(), said, "nothing was said to s3 alone");
}

#[test]
fn a_client_whose_clock_is_a_year_behind_talks_and_its_message_stands_in_this_one() {
    let cluster = TestCluster::up(3);
    let ann = cluster.person("ann").on("s1");
    let clock = Clock::off_by(&cluster, -YEAR);
    let mut send = ann.command(&["send", ROOM, "from last year", "--json"]);
    let done = clock.rules(&mut send).output().expect("chatty runs");
    assert!(done.status.success(), "{done:?}");
    let history = cluster.one_history(ROOM);
    assert_eq!(history.iter().map(text).collect::<Vec<_>>(), ["from last year"]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_millis() as u64;
    assert!(now.abs_diff(stamp_ms(&history[0])) < 600_000, "and stands in this one: {history:?}");
    // Its id, too, is made by the server's clock: one of last year might be below a room's floor.
    let mid = history[0]["mid"].as_str().unwrap_or_default().replace('-', "");
    let mid_ms = mid.get(..12).and_then(|ms| u64::from_str_radix(ms, 16).ok()).expect("an id");
    assert!(now.abs_diff(mid_ms) < 600_000, "{history:?}");
}

#[test]
fn a_server_whose_clock_is_off_takes_no_writes_until_it_is_mended_and_nobody_follows_it() {
    let cluster = TestCluster::up(3);
    cluster.ok(&["stop", "s3"]);
    let clock = Clock::start(&cluster, "s3");
    cluster.wait_linked();
    let ann = cluster.person("ann").on("s3");
    let mut said = vec!["before".to_owned()];
    assert_eq!(ann.say(ROOM, "before")["server"], "s3");

    for off in [10, -10, 3600, -3600, YEAR, -YEAR] {
        clock.is_off_by(off);
        state(&cluster, "s3", "clock off");
        let words = format!("while it is {off} s off");
        let receipt = ann.say(ROOM, &words);
        assert_ne!(receipt["server"], "s3", "{off}: another server takes it: {receipt}");
        assert_eq!(receipt["level"], "replicated", "{off}: {receipt}");
        said.push(words.clone());
        eventually("s3 goes on replicating, and is read", LONG, || {
            let history = ann.ok(&["history", ROOM, "--last", "1"]);
            let last = history.last().map(text) == Some(words.as_str());
            last.then_some(()).ok_or_else(|| format!("{history:?}"))
        });

        clock.is_off_by(0);
        state(&cluster, "s3", "ready");
        let words = format!("after it was {off} s off");
        assert_eq!(ann.say(ROOM, &words)["server"], "s3", "{off}: it takes writes again");
        said.push(words);
    }

    let history = cluster.one_history(ROOM);
    assert_eq!(history.iter().map(text).collect::<Vec<_>>(), said, "in the order they were said");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_millis() as u64;
    for message in &history {
        let ms = stamp_ms(message);
        assert!(ms <= now + 2000 && now < ms + 600_000, "{now}: a stamp is wrong: {message}");
    }
}

#[test]
fn what_a_room_keeps_for_two_days_is_gone_everywhere_on_the_third() {
    let cluster = TestCluster::up_with(3, &[("# check_seconds = 3600", "check_seconds = 1")]);
    let ann = cluster.person("ann").on("s1");
    let mut said: Vec<String> = (0..20).map(|nth| format!("on the first day, {nth}")).collect();
    said.iter().for_each(|words| drop(ann.say(ROOM, words)));
    ann.ok(&["keep", ROOM, "--days", "2"]);
    let texts = || -> Vec<String> {
        cluster.one_history(ROOM).iter().map(|message| text(message).to_owned()).collect()
    };
    assert_eq!(texts(), said, "nothing is old yet");
    cluster.ok(&["down"]);

    // One of three stays away for the days on which the others forget.
    let clock = Clock::off_by(&cluster, DAY);
    let run = |names: &[&str]| -> Vec<ServerProcess> {
        names.iter().map(|server| clock.run(&cluster, server)).collect()
    };
    let two = run(&["s1", "s2"]);
    ann.say(ROOM, "on the second day");
    said.push("on the second day".into());
    let history = || ann.ok(&["history", ROOM, "--last", "100"]);
    assert_eq!(
        history().iter().map(text).collect::<Vec<_>>(),
        said,
        "all are younger than two days"
    );
    drop(two);
    clock.is_off_by(2 * DAY + DAY / 2);
    let two = run(&["s1", "s2"]);
    ann.say(ROOM, "on the third day");
    let kept = ["on the second day", "on the third day"];
    eventually("what is older than two days is gone", LONG, || {
        let left = history();
        let left: Vec<&str> = left.iter().map(text).collect();
        (left == kept).then_some(()).ok_or_else(|| format!("{left:?}"))
    });
    let third = run(&["s3"]);
    cluster.wait_linked();
    assert_eq!(texts(), kept, "the one that was away forgets it too, and brings nothing back");
    drop((two, third));
    let all = run(&["s1", "s2", "s3"]);
    cluster.wait_linked();
    assert_eq!(texts(), kept, "after a restart of all, too");
    ann.ok(&["verify"]);
    drop(all);
}
