//! What was read is said, once, whatever becomes of the process that read it.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use chatty_tests::{LONG, SHORT, TestCluster, eventually, text};
use nix::sys::signal::Signal;
use serde_json::Value;

const ROOM: &str = "lobby";

fn signal_all(cluster: &TestCluster, signal: Signal) {
    cluster.names().iter().for_each(|server| cluster.signal(server, signal));
}

/// Every line is in the history that all servers have, once.
#[track_caller]
fn assert_each_once(cluster: &TestCluster, lines: &[String]) {
    let history = cluster.one_history(ROOM);
    let mut said: Vec<_> = history.iter().map(|message| text(message).to_owned()).collect();
    said.sort();
    let mut lines = lines.to_vec();
    lines.sort();
    assert_eq!(said, lines);
}

/// The objects about lines of an earlier run.
fn resent(objects: &[Value]) -> Vec<&Value> {
    objects.iter().filter(|object| object["type"] == "resent").collect()
}

#[test]
fn lines_read_before_the_sender_is_killed_are_said_once_by_the_next_one() {
    let cluster = TestCluster::up(3);
    let file = cluster.folder().join("ann.outbox");
    let state = ["--state", file.to_str().expect("a readable path")];
    let ann = cluster.person("ann");
    let mut flow = ann.flow_with(ROOM, &state);
    let mut lines: Vec<String> = Vec::new();
    let mut said = |flow: &mut chatty_tests::Flow, count: usize| {
        let mut last = 0;
        for _ in 0..count {
            let line = format!("line {}", lines.len() + 1);
            last = flow.line(&line);
            lines.push(line);
        }
        (last, lines.clone())
    };

    // Frozen while lines are under way: some are taken, some answered, some neither.
    let (last, _) = said(&mut flow, 50);
    flow.acknowledged(last);
    let (last, _) = said(&mut flow, 400);
    flow.acknowledged(100);
    signal_all(&cluster, Signal::SIGSTOP);
    let (more, _) = said(&mut flow, 300);
    assert!(more > last);
    flow.kept(more);
    flow.kill();

    // Another one reads more, without any server, and is killed as well.
    let mut flow = ann.flow_with(ROOM, &state);
    let (_, all) = said(&mut flow, 100);
    flow.kept(100);
    flow.kill();

    signal_all(&cluster, Signal::SIGCONT);
    let done = ann.run(&[&["send", ROOM, "--stdin"][..], &state].concat());
    assert!(done.status.success(), "{done:?}");
    let again = resent(&done.objects);
    let texts: BTreeSet<_> = again.iter().map(|object| text(object)).collect();
    assert!(texts.contains("line 750") && texts.contains("line 850"), "{} resent", texts.len());
    assert!(again.iter().all(|object| object["room"] == ROOM && object.get("line").is_none()));
    assert!(done.errors.contains("sent again from last time"), "{}", done.errors);
    assert_each_once(&cluster, &all);

    let idle = ann.run(&[&["send", ROOM, "--stdin"][..], &state].concat());
    assert!(idle.status.success() && idle.objects.is_empty(), "nothing is left: {idle:?}");
}

#[test]
fn lines_read_while_all_servers_are_dead_are_said_after_a_crash_and_a_restart() {
    let cluster = TestCluster::up(3);
    let file = cluster.folder().join("ann.outbox");
    let state = ["--state", file.to_str().expect("a readable path")];
    let ann = cluster.person("ann");
    let mut flow = ann.flow_with(ROOM, &state);
    let mut lines: Vec<String> = (1..=200).map(|n| format!("line {n}")).collect();
    for line in &lines[..100] {
        flow.line(line);
    }
    flow.acknowledged(20);
    signal_all(&cluster, Signal::SIGKILL);
    for line in &lines[100..] {
        flow.line(line);
    }
    flow.kept(200);
    flow.kill();

    cluster.start_all();
    lines.push("and one".into());
    let done = ann.run(&[&["send", ROOM, "and one"][..], &state].concat());
    assert!(done.status.success(), "{done:?}");
    assert!(!resent(&done.objects).is_empty());
    assert_each_once(&cluster, &lines);
}

#[test]
fn a_file_in_use_or_of_something_else_is_refused_in_one_line() {
    let cluster = TestCluster::up(1);
    let file = cluster.folder().join("ann.outbox");
    let state = ["--state", file.to_str().expect("a readable path")];
    let ann = cluster.person("ann");
    let mut flow = ann.flow_with(ROOM, &state);
    let line = flow.line("first");
    flow.acknowledged(line);

    let why = ann.refused(&[&["send", ROOM, "second"][..], &state].concat());
    assert!(why.contains("another chatty has the outbox") && why.lines().count() == 1, "{why}");
    assert!(flow.finish().success());

    std::fs::write(&file, "dear diary").expect("a file");
    let why = ann.refused(&[&["send", ROOM, "second"][..], &state].concat());
    assert!(why.contains("is not an outbox of chatty") && why.lines().count() == 1, "{why}");
    assert_eq!(std::fs::read_to_string(&file).expect("a file"), "dear diary");

    let why = ann.run(&[&["rooms"][..], &state].concat());
    assert_eq!(why.status.code(), Some(2), "{why:?}");
}

#[test]
fn what_one_account_left_is_not_said_by_another() {
    let cluster = TestCluster::up(1);
    let file = cluster.folder().join("ann.outbox");
    let state = ["--state", file.to_str().expect("a readable path")];
    let mut flow = cluster.person("ann").flow_with(ROOM, &state);
    let line = flow.line("hello");
    flow.acknowledged(line);
    signal_all(&cluster, Signal::SIGSTOP);
    let line = flow.line("ann's words");
    flow.kept(line);
    flow.kill();
    signal_all(&cluster, Signal::SIGCONT);

    cluster.person("bob").say(ROOM, "bob's words");
    let why = cluster.person("bob").refused(&[&["send", ROOM, "more"][..], &state].concat());
    assert!(why.contains("another account"), "{why}");
    cluster.person("ann").ok(&[&["send", ROOM, "--stdin"][..], &state].concat());
    let history = cluster.one_history(ROOM);
    let said: Vec<_> = history.iter().map(|m| (m["nick"].as_str(), text(m))).collect();
    assert!(said.contains(&(Some("ann"), "ann's words")), "{said:?}");
    assert_eq!(said.len(), 3, "{said:?}");
}

#[test]
fn a_message_on_one_disk_is_told_as_stored_and_later_as_replicated() {
    let cluster = TestCluster::up(3);
    let mut flow = cluster.person("ann").on("s1").flow(ROOM);
    let line = flow.line("before");
    flow.replicated(line);
    cluster.ok(&["stop", "s2"]);
    cluster.ok(&["stop", "s3"]);

    let line = flow.line("alone");
    let (_, receipt) = flow.acknowledged(line);
    assert_eq!((&receipt["level"], &receipt["replicas"]), (&"stored".into(), &1.into()));

    cluster.ok(&["start", "s2"]);
    cluster.ok(&["start", "s3"]);
    let (_, later) = flow.replicated(line);
    assert!(later["replicas"].as_u64() >= Some(2), "{later}");
    assert_eq!((&later["mid"], &later["line"]), (&receipt["mid"], &receipt["line"]));
    assert!(flow.finish().success());
}

/// The files named `*.outbox` in a folder and those below it.
fn outboxes(folder: &Path) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(outboxes(&path));
        } else if path.extension().is_some_and(|extension| extension == "outbox") {
            found.extend(std::fs::read(path));
        }
    }
    found
}

#[test]
fn what_a_killed_session_had_said_is_said_by_the_next_one() {
    let cluster = TestCluster::up(3);
    let ann = cluster.person("ann");
    let mut session =
        ann.command(&[]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("chatty runs");
    let mut keys = session.stdin.take().expect("a pipe");
    writeln!(keys, "/join {ROOM}\nheard").expect("it reads");
    eventually("the first words are heard", SHORT, || {
        let history = cluster.history("s1", ROOM);
        (history.len() == 1).then_some(()).ok_or_else(|| format!("{history:?}"))
    });
    signal_all(&cluster, Signal::SIGSTOP);
    writeln!(keys, "not heard").expect("it reads");
    eventually("they are in the outbox", SHORT, || {
        let has = |file: &Vec<u8>| file.windows(9).any(|part| part == b"not heard");
        outboxes(cluster.folder()).iter().any(has).then_some(()).ok_or_else(String::new)
    });
    session.kill().expect("our child");
    session.wait().expect("our child");
    signal_all(&cluster, Signal::SIGCONT);

    let next = ann.command(&[]).output().expect("chatty runs");
    let shown = String::from_utf8_lossy(&next.stdout);
    assert!(shown.contains("1 message from last time is sent again"), "{shown}");
    assert!(next.status.success(), "{next:?}");
    assert_each_once(&cluster, &["heard".to_owned(), "not heard".to_owned()]);
    // A session that ends when its words are stored, and not replicated yet, leaves them to the next.
    eventually("nothing is left", LONG, || {
        let later = ann.command(&[]).output().expect("chatty runs");
        let shown = String::from_utf8_lossy(&later.stdout).into_owned();
        if shown.contains("from last time") { Err(shown) } else { Ok(()) }
    });
}
