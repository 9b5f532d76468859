//! What people run into: names, rooms under two spellings, a kick, a move, a wrong URL.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use chatty_tests::{Person, SHORT, TestCluster, eventually, programs, text};
use serde_json::Value;

/// Runs a session without a terminal on these lines.
#[track_caller]
fn talk(person: &Person, lines: &[u8]) -> Output {
    let mut child = person
        .command(&[])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("chatty runs");
    child.stdin.take().expect("a pipe").write_all(lines).expect("it reads");
    child.wait_with_output().expect("our child")
}

fn account(person: &Person, nick: &str) -> Value {
    let people = person.ok(&["who", "lobby"]);
    people.into_iter().find(|p| p["nick"] == nick).map_or(Value::Null, |p| p["account"].clone())
}

#[test]
fn a_room_goes_by_the_name_its_founder_wrote() {
    let cluster = TestCluster::up(1);
    let ann = cluster.person("ann");
    ann.ok(&["join", "Pub"]);
    cluster.person("bob").ok(&["join", "PUB"]);
    ann.say("pub", "hello");
    ann.say("pub", " ");

    let asked: [&[&str]; 7] = [
        &["history", "PUB"],
        &["who", "PUB"],
        &["topic", "pUb", "tea"],
        &["op", "pub", "bob"],
        &["kick", "puB", "bob", "out"],
        &["tail", "pub", "PUB", "Pub", "--last", "9", "--until-idle", "0.2"],
        &["leave", "pub"],
    ];
    for arguments in asked {
        let objects = ann.ok(arguments);
        assert!(!objects.is_empty(), "{arguments:?}");
        assert!(objects.iter().all(|o| o["room"] == "Pub"), "{arguments:?}: {objects:?}");
        if arguments[0] == "tail" || arguments[0] == "history" {
            let texts: Vec<_> = objects.iter().map(text).collect();
            assert_eq!(texts, ["hello", " "], "each once: {arguments:?}");
        }
    }
    for arguments in [["who", "@bob"], ["tail", "@bob"], ["join", "@bob"], ["topic", "@bob"]] {
        let why = ann.refused(&arguments);
        assert!(why.contains("is a person and no room"), "{why}");
    }
}

#[test]
fn nobody_puts_himself_or_the_founder_out() {
    let cluster = TestCluster::up(1);
    let (ann, bob) = (cluster.person("ann"), cluster.person("bob"));
    ann.ok(&["join", "lobby"]);
    bob.ok(&["join", "lobby"]);
    ann.ok(&["op", "lobby", "bob"]);

    assert!(ann.refused(&["kick", "lobby", "ann"]).contains("leave the room"));
    assert!(bob.refused(&["kick", "lobby", "bob"]).contains("leave the room"));
    assert!(bob.refused(&["kick", "lobby", "ann"]).contains("founder"));
    assert_eq!(ann.ok(&["who", "lobby"]).len(), 2);

    // The kicked is told in which room it was.
    let tail = bob.tail("lobby");
    // He was a participant before: only what is shown proves that he is there.
    ann.say("lobby", "la la la");
    tail.shows("la la la");
    ann.ok(&["kick", "lobby", "bob", "too loud"]);
    let kick = tail.finds("the kick", |o| o["type"] == "kick");
    assert_eq!((&kick["room"], &kick["target"]), (&"lobby".into(), &"bob".into()), "{kick}");
    let closed = tail.finds("the closing", |o| o["type"] == "closed");
    assert_eq!(closed["room"], "lobby", "{closed}");
}

#[test]
fn whoever_moved_is_shown_only_where_he_is() {
    let cluster = TestCluster::up(3);
    let pat = cluster.person("pat").on("s2");
    let _tail = pat.tail("lobby");
    let servers = |asked: &str| {
        let people = cluster.person("watcher").on(asked).ok(&["who", "lobby"]);
        people.iter().find(|p| p["nick"] == "pat").map(|p| p["servers"].clone())
    };
    assert_eq!(servers("s1"), Some(serde_json::json!(["s2"])));

    cluster.ok(&["kill", "s2"]);

    // Well within the 30 s for which the people of a dead server are shown.
    let killed = Instant::now();
    eventually("pat is at one server that lives", SHORT, || {
        let (one, three) = (servers("s1"), servers("s3"));
        let lives =
            one == Some(serde_json::json!(["s1"])) || one == Some(serde_json::json!(["s3"]));
        (lives && one == three).then_some(()).ok_or_else(|| format!("{one:?} {three:?}"))
    });
    assert!(killed.elapsed() < Duration::from_secs(25), "the grace ended it: {killed:?}");
}

#[test]
fn each_nick_has_one_account_whatever_its_letters() {
    let cluster = TestCluster::up(1);
    for nick in ["a/b", "a_b", "Zoe"] {
        cluster.person(nick).ok(&["join", "lobby"]);
    }
    let (slash, line) =
        (account(&cluster.person("a/b"), "a/b"), account(&cluster.person("x"), "a_b"));
    assert!(slash.is_string() && line.is_string() && slash != line, "{slash} {line}");

    cluster.person("ZOE").say("lobby", "it is me");
    let history = cluster.history("s1", "lobby");
    assert_eq!(history[0]["nick"], "Zoe", "one nick, one account");

    for nick in ["zo\u{ad}e", "zoe\u{fe0f}", "\u{3164}", "zoe\u{2800}"] {
        let why = cluster.person("ann").refused(&["nick", nick]);
        assert!(why.contains("U+"), "{why}");
    }
}

#[test]
fn a_line_that_is_not_utf8_is_refused_and_the_session_goes_on() {
    let cluster = TestCluster::up(1);
    let done = talk(&cluster.person("ann"), b"/join lobby\none\nbad\xff\nafter\n");
    let shown = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{shown}{}", String::from_utf8_lossy(&done.stderr));
    assert!(shown.contains("the text is not UTF-8"), "{shown}");
    let history = cluster.history("s1", "lobby");
    assert_eq!(history.iter().map(text).collect::<Vec<_>>(), ["one", "after"]);
}

#[test]
fn the_url_of_another_cluster_is_told_at_once() {
    let cluster = TestCluster::up(3);
    let base = cluster.base_port();
    let url = format!(
        "chatty://127.0.0.1:{base},127.0.0.1:{},127.0.0.1:{}/#{}",
        base + 1,
        base + 2,
        "00".repeat(32)
    );
    for arguments in [["rooms"].as_slice(), &["send", "lobby", "hi"], &["tail", "lobby"]] {
        let asked = Instant::now();
        let done = Command::new(programs().join("chatty"))
            .args(["--nick", "ann", "--cluster", &url])
            .args(arguments)
            .env("XDG_STATE_HOME", cluster.folder().join("state"))
            .stdin(Stdio::null())
            .output()
            .expect("chatty runs");
        // Commands wait 10, 45 and 30 s for a server that may come.
        assert!(asked.elapsed() < Duration::from_secs(8), "{arguments:?}: {:?}", asked.elapsed());
        let why = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(1), "{why}");
        assert_eq!(why.matches("another cluster").count(), 1, "{why}");
    }
}
