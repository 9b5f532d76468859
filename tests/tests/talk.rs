//! Conversations across three servers: rooms, names, topics, kicks, direct messages, history.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Stdio;

use chatty_core::event::TEXT_BYTES_MAX;
use chatty_core::session::PAGE_LINES_MAX;
use chatty_tests::{LONG, Person, SHORT, TestCluster, eventually, key, text};
use serde_json::Value;

fn texts(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(text).collect()
}

/// The nicks in a room as one server sees them, with the servers each is attached to.
fn who(person: &Person, room: &str) -> Vec<(String, Vec<String>)> {
    let name = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let servers = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let people = person.ok(&["who", room]);
    let mut people: Vec<_> = people
        .iter()
        .map(|p| (name(&p["nick"]), servers(&p["servers"]).iter().map(name).collect()))
        .collect();
    people.sort();
    people
}

#[track_caller]
fn eventually_equal<T: PartialEq + std::fmt::Debug>(what: &str, wanted: &T, ask: impl Fn() -> T) {
    eventually(what, SHORT, || {
        let now = ask();
        if now == *wanted { Ok(()) } else { Err(format!("{now:?}, not {wanted:?}")) }
    });
}

#[test]
fn three_people_on_three_servers_hold_one_conversation() {
    let cluster = TestCluster::up(3);
    let people: Vec<_> = [("ann", "s1"), ("bob", "s2"), ("cyn", "s3")]
        .iter()
        .map(|(nick, server)| cluster.person(nick).on(server))
        .collect();
    let tails: Vec<_> = people.iter().map(|person| person.tail("lobby")).collect();

    for (person, line) in people.iter().zip(["hello", "hello, Ann", "good day, both"]) {
        let receipt = person.say("lobby", line);
        assert_eq!(receipt["level"], "replicated", "{receipt}");
        assert!(receipt["replicas"].as_u64() >= Some(2), "{receipt}");
        for tail in &tails {
            tail.shows(line);
        }
    }

    let history = cluster.one_history("lobby");
    assert_eq!(texts(&history), ["hello", "hello, Ann", "good day, both"]);
    for tail in &tails {
        let shown = tail.sorted();
        for (shown, kept) in shown.iter().zip(&history) {
            for name in ["room", "mid", "key", "nick", "text", "time"] {
                assert!(!kept[name].is_null(), "history prints {name}: {kept}");
                assert_eq!(shown[name], kept[name], "{name}, as tail and as history print it");
            }
        }
        assert_eq!(shown.len(), history.len());
    }
    assert_eq!(history[1]["nick"], "bob");
}

#[test]
fn rooms_are_independent() {
    let cluster = TestCluster::up(3);
    let (ann, bob) = (cluster.person("ann").on("s1"), cluster.person("bob").on("s2"));
    let (tea, coffee) = (bob.tail("tea"), cluster.person("cyn").on("s3").tail("coffee"));

    ann.say("tea", "green");
    ann.say("coffee", "black");
    tea.shows("green");
    coffee.shows("black");

    assert_eq!(texts(&tea.messages()), ["green"]);
    assert_eq!(texts(&coffee.messages()), ["black"]);
    assert_eq!(texts(&cluster.one_history("tea")), ["green"]);
}

#[test]
fn one_tail_shows_several_rooms() {
    let cluster = TestCluster::up(3);
    let ann = cluster.person("ann");
    ann.say("tea", "green");
    ann.say("coffee", "black");
    let mut both =
        cluster.person("bob").tail_with(&["tea", "coffee", "--last", "5", "--until-idle", "1"]);
    assert!(both.wait_end().success());
    let mut rooms: Vec<_> = both.messages().iter().map(|m| m["room"].clone()).collect();
    rooms.sort_by_key(Value::to_string);
    assert_eq!(rooms, ["coffee", "tea"]);
}

#[test]
fn joining_adds_to_the_room_on_every_server_and_leaving_takes_away() {
    let cluster = TestCluster::up(3);
    let ann = cluster.person("ann").on("s1");
    ann.ok(&["join", "garden"]);
    for server in cluster.names() {
        let watcher = cluster.person("watcher").on(&server);
        eventually_equal("ann is a member", &vec!["ann".to_owned()], || {
            who(&watcher, "garden").into_iter().map(|(nick, _)| nick).collect()
        });
        let rooms = watcher.ok(&["rooms"]);
        assert!(rooms.iter().any(|room| room["room"] == "garden"), "{rooms:?}");
    }

    ann.ok(&["leave", "garden"]);
    for server in cluster.names() {
        let watcher = cluster.person("watcher").on(&server);
        eventually_equal("nobody is there", &Vec::new(), || who(&watcher, "garden"));
    }
}

#[test]
fn participants_are_listed_with_the_server_each_is_attached_to() {
    let cluster = TestCluster::up(3);
    let _tails: Vec<_> = [("ann", "s1"), ("bob", "s2"), ("cyn", "s3")]
        .iter()
        .map(|(nick, server)| cluster.person(nick).on(server).tail("lobby"))
        .collect();
    let all = ["ann", "bob", "cyn"].iter().zip(["s1", "s2", "s3"]);
    let all: Vec<_> =
        all.map(|(nick, server)| (nick.to_string(), vec![server.to_string()])).collect();
    for server in cluster.names() {
        let watcher = cluster.person("watcher").on(&server);
        eventually_equal("all three, each on its server", &all, || who(&watcher, "lobby"));
    }
}

#[test]
fn a_tail_is_a_participant_while_it_runs_and_send_and_history_leave_no_member_behind() {
    let cluster = TestCluster::up(3);
    let ann = cluster.person("ann").on("s1");
    ann.say("lobby", "passing by");
    assert_eq!(texts(&ann.ok(&["history", "lobby", "--last", "1"])), ["passing by"]);
    let watcher = cluster.person("watcher").on("s2");
    assert_eq!(who(&watcher, "lobby"), [], "neither sent a member");

    let mut tail = cluster.person("bob").on("s3").tail_with(&["lobby", "--until-idle", "2"]);
    cluster.person("bob").on("s3").wait_seen_in("lobby");
    assert!(tail.wait_end().success());
    eventually("bob is gone with his tail", LONG, || {
        let people = who(&watcher, "lobby");
        people.is_empty().then_some(()).ok_or_else(|| format!("{people:?}"))
    });
}

#[test]
fn the_last_x_messages_come_first_on_joining_and_on_tail() {
    let cluster = TestCluster::up(3);
    let mut flow = cluster.person("ann").on("s1").flow("lobby");
    for i in 0..20 {
        flow.line(&format!("line {i}"));
    }
    assert!(flow.finish().success(), "{}", flow.said());
    cluster.wait_converged();

    let tail = cluster.person("bob").on("s2").tail_with(&["lobby", "--last", "3"]);
    tail.shows("line 19");
    cluster.person("ann").say("lobby", "and on");
    tail.shows("and on");
    assert_eq!(texts(&tail.sorted()), ["line 17", "line 18", "line 19", "and on"]);

    let joined = cluster.person("cyn").on("s3").ok(&["join", "lobby", "--last", "2"]);
    let shown: Vec<_> = joined.iter().filter(|o| o.get("type").is_none()).cloned().collect();
    assert_eq!(texts(&shown), ["line 19", "and on"]);
}

#[test]
fn history_pages_beyond_the_servers_limit_and_beyond_what_exists() {
    let cluster = TestCluster::up(3);
    let limit = usize::try_from(PAGE_LINES_MAX).expect("small");
    let count = 2 * limit + 100;
    let mut flow = cluster.person("ann").on("s1").flow("lobby");
    for i in 0..count {
        flow.line(&format!("line {i}"));
    }
    assert!(flow.finish().success(), "{}", flow.said());
    let all = cluster.one_history("lobby");
    let once: BTreeSet<_> = all.iter().map(text).collect();
    assert_eq!((all.len(), once.len()), (count, count), "all, each once");
    assert!(all.windows(2).all(|two| key(&two[0]) < key(&two[1])), "keys sort bytewise");

    for last in [0, 1, limit, limit + 1, count] {
        let page =
            cluster.person("bob").on("s3").ok(&["history", "lobby", "--last", &last.to_string()]);
        assert_eq!(page, all[count - last..], "--last {last}");
    }
    let empty = cluster.person("bob").ok(&["history", "nobody-was-here", "--last", "5"]);
    assert_eq!(empty, Vec::<Value>::new());
}

#[test]
fn a_nick_has_one_holder_and_the_later_one_is_told_of_another() {
    let cluster = TestCluster::up(3);
    let _ann = cluster.person("ann").on("s1").tail("lobby");
    // Another person of the same name: an account of its own.
    let file = cluster.folder().join("other-ann");
    let file = file.to_str().expect("a readable path");
    let other = cluster.person("ann").on("s2");
    let other = other.tail_with(&["lobby", "--identity", file]);

    let watcher = cluster.person("watcher").on("s3");
    let nicks = eventually("two people, two nicks", SHORT, || {
        let nicks: Vec<_> = who(&watcher, "lobby").into_iter().map(|(nick, _)| nick).collect();
        if nicks.len() == 2 && nicks[0] != nicks[1] { Ok(nicks) } else { Err(format!("{nicks:?}")) }
    });
    assert_eq!(nicks[0], "ann");
    assert!(nicks[1].starts_with("ann~"), "{nicks:?}");
    eventually("the second one is told", SHORT, || {
        let told = format!("{:?} {}", other.objects(), other.said());
        told.contains(&nicks[1]).then_some(()).ok_or(told)
    });
}

#[test]
fn a_nick_changes_while_connected_and_everybody_sees_the_new_one() {
    let cluster = TestCluster::up(3);
    let ann = cluster.person("ann").on("s1");
    let tail = ann.tail("lobby");
    let bob = cluster.person("bob").on("s2").tail("lobby");
    ann.ok(&["nick", "anna"]);

    let watcher = cluster.person("watcher").on("s3");
    eventually_equal("the new name", &vec!["anna".to_owned(), "bob".to_owned()], || {
        who(&watcher, "lobby").into_iter().map(|(nick, _)| nick).collect()
    });
    ann.say("lobby", "it is me");
    assert_eq!(bob.shows("it is me").1["nick"], "anna");
    tail.shows("it is me");
}

#[test]
fn the_same_person_has_the_same_account_next_time() {
    let cluster = TestCluster::up(3);
    let ann = cluster.person("ann");
    ann.on("s1").ok(&["join", "garden"]);
    cluster.ok(&["kill", "s1"]);
    ann.on("s2").ok(&["join", "garden"]);
    ann.on("s3").say("garden", "me again");

    let people = who(&cluster.person("watcher").on("s2"), "garden");
    assert_eq!(people.len(), 1, "one member: {people:?}");
    assert_eq!(people[0].0, "ann");
}

#[test]
fn topics_are_set_on_one_server_and_read_on_another() {
    let cluster = TestCluster::up(3);
    cluster.person("ann").on("s1").ok(&["join", "lobby"]);
    let bob = cluster.person("bob").on("s2").tail("lobby");
    cluster.person("ann").on("s1").ok(&["topic", "lobby", "tea at five"]);

    for server in cluster.names() {
        eventually_equal("the topic", &serde_json::json!("tea at five"), || {
            let answer = cluster.person("cyn").on(&server).ok(&["topic", "lobby"]);
            answer.first().map_or(Value::Null, |answer| answer["topic"].clone())
        });
    }
    let shown = bob.finds("the new topic", |o| o.to_string().contains("tea at five"));
    assert!(shown.get("type").is_some(), "no message: {shown}");
}

#[test]
fn the_founder_kicks_with_a_reason_that_all_see_and_the_kicked_stay_out_until_they_join_again() {
    let cluster = TestCluster::up(3);
    let (ann, bob) = (cluster.person("ann").on("s1"), cluster.person("bob").on("s2"));
    ann.ok(&["join", "lobby"]); // makes the room: she is its founder
    cluster.wait_converged(); // or bob would make it as well, on his side
    bob.ok(&["join", "lobby"]);
    let watcher = cluster.person("cyn").on("s3").tail("lobby");
    let kicked = bob.tail("lobby");
    // Seen as a member he is before that, too; now he has it open.
    ann.say("lobby", "all are here");
    for tail in [&watcher, &kicked] {
        tail.shows("all are here");
    }

    let refused = bob.refused(&["kick", "lobby", "ann", "mine"]);
    assert!(!refused.contains("panicked"), "only the founder or an op: {refused}");
    ann.ok(&["kick", "lobby", "bob", "too loud"]);

    for tail in [&watcher, &kicked] {
        let shown = tail.finds("the kick and its reason", |o| o.to_string().contains("too loud"));
        assert!(shown.get("type").is_some(), "no message: {shown}");
    }
    ann.say("lobby", "after the kick");
    watcher.shows("after the kick");

    // Across a fail-over, too.
    cluster.ok(&["kill", "s2"]);
    ann.say("lobby", "after the fail-over");
    watcher.shows("after the fail-over");
    let out = cluster.person("watcher").on("s1");
    assert!(who(&out, "lobby").iter().all(|(nick, _)| nick != "bob"), "he stays out");
    assert_eq!(texts(&kicked.messages()), ["all are here"]);

    let bob = bob.on("s3");
    bob.ok(&["join", "lobby"]);
    eventually("he is back", SHORT, || {
        let people = who(&out, "lobby");
        let back = people.iter().any(|(nick, _)| nick == "bob");
        back.then_some(()).ok_or_else(|| format!("{people:?}"))
    });
}

#[test]
fn a_direct_message_is_seen_by_its_target_and_by_nobody_else() {
    let cluster = TestCluster::up(3);
    let ann = cluster.person("ann").on("s1");
    let bob = cluster.person("bob").on("s2").tail("lobby");
    let cyn = cluster.person("cyn").on("s3").tail("lobby");

    ann.ok(&["dm", "bob", "a secret"]);
    bob.shows("a secret");
    ann.say("lobby", "in public");
    cyn.shows("in public");
    bob.shows("in public");

    let seen_by_cyn = format!("{:?}", cyn.objects());
    assert!(!seen_by_cyn.contains("a secret"), "{seen_by_cyn}");
    for server in cluster.names() {
        assert_eq!(texts(&cluster.history(&server, "lobby")), ["in public"]);
        let rooms = cluster.person("cyn").on(&server).ok(&["rooms"]);
        let names: Vec<_> = rooms.iter().map(|room| room["room"].clone()).collect();
        assert_eq!(names, ["lobby"], "direct messages are no room to be listed");
    }
}

#[test]
fn a_direct_message_to_somebody_away_waits_for_him() {
    let cluster = TestCluster::up(3);
    let (ann, bob) = (cluster.person("ann").on("s1"), cluster.person("bob"));
    bob.on("s2").ok(&["join", "lobby"]); // and goes away
    ann.ok(&["dm", "bob", "call me"]);
    cluster.ok(&["kill", "s1"]);

    let tail = bob.on("s3").tail("lobby");
    tail.shows("call me");
    let shown = tail.objects().iter().filter(|object| text(object) == "call me").count();
    assert_eq!(shown, 1);
}

#[test]
fn a_direct_message_to_somebody_failing_over_reaches_him() {
    let cluster = TestCluster::up(3);
    let bob = cluster.person("bob").on("s2").tail("lobby");
    cluster.ok(&["kill", "s2"]);
    cluster.person("ann").on("s1").ok(&["dm", "bob", "still there?"]);
    bob.shows("still there?");
}

#[test]
fn one_client_sends_500_a_second_within_the_default_limits() {
    let cluster = TestCluster::up(3);
    let mut flow = cluster.person("ann").on("s1").flow("lobby");
    let count = 1500;
    for i in 0..count {
        flow.line(&format!("line {i}"));
    }
    assert!(flow.finish().success(), "{}", flow.said());
    assert_eq!(flow.acknowledgements().len(), count);
    let history = cluster.one_history("lobby");
    assert_eq!(history.len(), count);
}

#[test]
fn questions_to_one_server_wait_for_it_to_be_ready_and_fail_when_it_stays_away() {
    let cluster = TestCluster::up(3);
    cluster.person("ann").say("lobby", "hello");
    cluster.ok(&["kill", "s2"]);

    let bob = cluster.person("bob").on("s2");
    let waiting = std::thread::spawn({
        let bob = bob.clone();
        move || bob.run(&["history", "lobby", "--last", "1"])
    });
    cluster.ok(&["start", "s2"]);
    let answered = waiting.join().expect("it ends");
    assert!(answered.status.success(), "{answered:?}");
    assert_eq!(texts(&answered.objects), ["hello"]);

    cluster.ok(&["kill", "s2"]);
    let began = std::time::Instant::now();
    let reason = bob.refused(&["history", "lobby", "--last", "1"]);
    assert!(reason.contains("s2"), "{reason}");
    assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
}

#[test]
fn lines_that_no_server_takes_end_with_an_error() {
    let cluster = TestCluster::up(1);
    let mut flow = cluster.person("ann").flow("lobby");
    let line = flow.line("one");
    flow.acknowledged(line);
    cluster.ok(&["kill", "s1"]);
    flow.line("two");

    let status = flow.finish();
    assert!(!status.success());
    assert_eq!(flow.acknowledgements().into_keys().collect::<Vec<_>>(), ["one"]);
    assert!(!flow.said().is_empty(), "it says so");
}

#[test]
fn what_cannot_be_sent_is_refused_with_the_reason() {
    let cluster = TestCluster::up(3);
    let ann = cluster.person("ann");
    assert!(ann.refused(&["send", "lobby", ""]).contains("empty"));
    // A single argument of a command is limited by the kernel to 128 KiB.
    let long = "x".repeat(TEXT_BYTES_MAX + 1);
    let reason = ann.refused(&["send", "lobby", &long]);
    assert!(reason.contains(&TEXT_BYTES_MAX.to_string()), "{reason}");
    let longest = "y".repeat(TEXT_BYTES_MAX);
    ann.say("lobby", &longest);
    assert_eq!(texts(&cluster.one_history("lobby")), [longest.as_str()], "the longest fits");

    let reason = ann.refused(&["dm", "nobody", "hello"]);
    assert!(reason.contains("nobody"), "by name: {reason}");
    assert!(!ann.refused(&["send", "#lobby", "hello"]).is_empty());
    assert!(!cluster.person("a b").refused(&["send", "lobby", "hello"]).is_empty());
    let missing = cluster.person("ann").on("s9").refused(&["rooms"]);
    assert!(missing.contains("s9"), "{missing}");
}

#[test]
fn a_line_that_cannot_be_sent_fails_alone_and_the_others_go_through() {
    let cluster = TestCluster::up(3);
    let mut command = cluster.person("ann").command(&["send", "lobby", "--stdin", "--json"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("chatty runs");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(b"one\n\n\xff\xfe\nfour\n").expect("it reads");
    drop(input);
    let done = child.wait_with_output().expect("it ends");

    assert!(!done.status.success(), "two lines were not acknowledged");
    let out = String::from_utf8(done.stdout).expect("UTF-8");
    let of = |line: &str| {
        out.lines().any(|o| o.contains(&format!("\"line\":{line},")) && o.contains("\"level\""))
    };
    assert!(of("1") && of("4"), "{out}");
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(errors.contains("empty") || out.contains("empty"), "{out}{errors}");
    assert!(errors.contains("UTF-8") || out.contains("UTF-8"), "{out}{errors}");
    assert_eq!(texts(&cluster.one_history("lobby")), ["one", "four"]);
}

#[test]
fn a_url_without_the_hash_of_the_authority_is_refused_and_the_whole_one_works() {
    let cluster = TestCluster::up(3);
    let up = cluster.ok(&["up"]);
    let url = up.lines().find(|line| line.starts_with("chatty://")).expect("up prints it").trim();
    let stranger = cluster.folder().join("stranger");
    let with = |url: &str, arguments: &[&str]| {
        std::process::Command::new(chatty_tests::programs().join("chatty"))
            .args(arguments)
            .args(["--cluster", url])
            .env("XDG_STATE_HOME", &stranger)
            .stdin(Stdio::null())
            .output()
            .expect("chatty runs")
    };
    let sent = with(url, &["send", "lobby", "by url"]);
    assert!(sent.status.success(), "{sent:?}");
    assert_eq!(texts(&cluster.one_history("lobby")), ["by url"]);

    let (bare, hash) = url.split_once('#').expect("a hash");
    for wrong in [bare.to_owned(), format!("{bare}#"), format!("{bare}#{}", "0".repeat(hash.len()))]
    {
        let refused = with(&wrong, &["send", "lobby", "to whom?"]);
        assert!(!refused.status.success(), "{wrong}: {refused:?}");
        assert!(!refused.stderr.is_empty());
    }
    assert_eq!(cluster.one_history("lobby").len(), 1);
}

#[test]
fn options_of_the_client_stand_before_or_after_the_command() {
    let cluster = TestCluster::up(1);
    cluster.person("ann").say("lobby", "hello");
    let dir = cluster.dir();
    let dir = dir.to_str().expect("a readable path");
    let run = |arguments: &[&str]| {
        std::process::Command::new(chatty_tests::programs().join("chatty"))
            .args(arguments)
            .env("XDG_STATE_HOME", cluster.folder().join("state"))
            .stdin(Stdio::null())
            .output()
            .expect("chatty runs")
    };
    let before =
        run(&["--cluster", dir, "--server", "s1", "--json", "history", "lobby", "--last", "1"]);
    let after =
        run(&["history", "lobby", "--last", "1", "--json", "--server", "s1", "--cluster", dir]);
    assert!(before.status.success(), "{before:?}");
    assert_eq!(before.stdout, after.stdout);
}
