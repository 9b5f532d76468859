//! What a room does not keep is gone on every server, and does not come back.

use std::fs;

use chatty_tests::{LONG, TestCluster, eventually, text};
use nix::sys::signal::Signal;
use serde_json::Value;

const ROOM: &str = "lobby";
const REPEATED: &str = "said once, and again when it is gone";

#[test]
fn what_a_room_does_not_keep_is_gone_everywhere_and_does_not_come_back() {
    let cluster = TestCluster::up(3);
    cluster.ok(&["down"]);
    for name in cluster.names() {
        let config = cluster.dir().join("servers").join(&name).join("server.toml");
        let content = fs::read_to_string(&config).expect("its configuration");
        let often = content.replace("# check_seconds = 3600", "check_seconds = 1");
        assert_ne!(often, content, "the key is explained in the file");
        fs::write(&config, often).expect("written");
    }
    cluster.start_all();
    let ann = cluster.person("ann").on("s1");
    ann.ok(&["join", ROOM]);
    let mut flow = ann.flow(ROOM);
    // Messages of one millisecond go together: ten at a time, and then the next.
    for nth in 0..100 {
        flow.line(&format!("message {nth}"));
        if nth % 10 == 9 {
            flow.replicated(nth + 1);
        }
    }
    // One is still in its sender's outbox when only one disk has it: a copy of that file repeats it.
    let outbox = cluster.folder().join("ann.outbox");
    let state = ["--state", outbox.to_str().expect("a readable path")];
    let mut sender = ann.flow_with(ROOM, &state);
    for other in ["s2", "s3"] {
        cluster.signal(other, Signal::SIGSTOP);
    }
    let line = sender.line(REPEATED);
    sender.acknowledged(line);
    let copy = fs::read(&outbox).expect("the outbox");
    for other in ["s2", "s3"] {
        cluster.signal(other, Signal::SIGCONT);
    }
    sender.replicated(line);
    assert!(sender.finish().success(), "{}", sender.said());
    cluster.wait_converged();
    for nth in 0..100 {
        flow.line(&format!("message {}", 100 + nth));
        if nth % 10 == 9 {
            flow.replicated(101 + nth);
        }
    }
    assert!(flow.finish().success(), "{}", flow.said());
    cluster.wait_converged();
    assert_eq!(cluster.history("s3", ROOM).len(), 201);
    cluster.ok(&["stop", "s3"]);

    // Whoever is no op decides nothing.
    let refused = cluster.person("bob").on("s2").refused(&["keep", ROOM, "--messages", "1"]);
    assert!(refused.contains("only the founder and ops"), "{refused}");
    let refused = ann.refused(&["keep", ROOM, "--messages", "18446744073709551615"]);
    assert!(refused.contains("a room keeps at most"), "{refused}");
    ann.ok(&["keep", ROOM, "--messages", "20"]);

    eventually("the newest are left on both servers, and they agree", LONG, || {
        let mut status = cluster.status();
        status.retain(|server| server["server"] != "s3");
        let count = |server: &Value| {
            let rooms = server["rooms"].as_array().cloned().unwrap_or_default();
            let room = rooms.into_iter().find(|room| room["room"] == ROOM);
            room.map_or(0, |room| room["messages"].as_u64().unwrap_or(0))
        };
        let few = status.iter().all(|server| (20..=30).contains(&count(server)));
        let same = status.windows(2).all(|two| two[0]["rooms"] == two[1]["rooms"]);
        (few && same).then_some(()).ok_or_else(|| format!("{status:?}"))
    });
    // The one that was away comes to the same, and brings nothing back.
    cluster.ok(&["start", "s3"]);
    let kept = cluster.one_history(ROOM);
    assert_eq!(kept.last().map(text), Some("message 199"));
    assert_eq!(text(&kept[0]), format!("message {}", 200 - kept.len()), "the newest, all of them");

    // Nor does whoever says it again, wherever he does.
    for server in cluster.names() {
        fs::write(&outbox, &copy).expect("the folder is ours");
        let ran = cluster
            .person("ann")
            .on(&server)
            .run(&[&["send", ROOM, "--stdin"][..], &state].concat());
        assert!(!ran.status.success(), "{ran:?}");
        let told: Vec<&Value> = ran.objects.iter().filter(|o| o["type"] == "refused").collect();
        assert_eq!(told.len(), 1, "{ran:?}");
        assert_eq!(text(told[0]), REPEATED);
        assert!(
            told[0]["reason"].to_string().contains("older than what this room keeps"),
            "{ran:?}"
        );
    }
    assert_eq!(cluster.one_history(ROOM), kept);

    // A server that starts with nothing, and all of them killed, come to the same.
    cluster.ok(&["wipe", "s3"]);
    assert_eq!(cluster.one_history(ROOM), kept);
    cluster.ok(&["kill", "s1", "s2", "s3"]);
    cluster.start_all();
    assert_eq!(cluster.one_history(ROOM), kept);
    cluster.person("ann").ok(&["verify"]);

    ann.ok(&["keep", ROOM, "--forever"]);
    let mut flow = ann.flow(ROOM);
    for nth in 0..60 {
        flow.line(&format!("later {nth}"));
    }
    assert!(flow.finish().success(), "{}", flow.said());
    assert_eq!(cluster.one_history(ROOM).len(), kept.len() + 60, "everything is kept again");
}

#[test]
fn servers_that_keep_rooms_for_other_times_link_and_both_say_so_once() {
    let cluster = TestCluster::up(2);
    cluster.ok(&["down"]);
    let config = cluster.server_dir("s2").join("server.toml");
    let right = fs::read_to_string(&config).expect("init wrote it");
    let other = right.replace("# days = 0", "days = 30").replace("# messages = 0", "messages = 7");
    fs::write(&config, other).expect("ours");
    cluster.start_all();

    let (usual, wrong) = ("(days = 0, messages = 0)", "(days = 30, messages = 7)");
    let told = |by: &str, of: &str, (there, here): (&str, &str)| {
        let words = format!(
            "{of} has another [retention] in its server.toml {there} than this server {here}: rooms \
             without a policy of their own keep what the server that sets their floor says"
        );
        let log = fs::read_to_string(cluster.server_dir(by).join("log")).unwrap_or_default();
        log.lines().filter(|line| line.contains("WARN") && line.contains(&words)).count()
    };
    let in_s1 = || told("s1", "s2", (wrong, usual));
    let in_s2 = || told("s2", "s1", (usual, wrong));
    assert_eq!((in_s1(), in_s2()), (1, 1), "and they are linked");

    // Another run says it again, and what did not change is no news to the other one.
    cluster.ok(&["stop", "s2"]);
    cluster.ok(&["start", "s2"]);
    cluster.wait_linked();
    assert_eq!((in_s1(), in_s2()), (1, 2));
    // Once it was right it is news.
    for text in [&right, &right.replace("# days = 0", "days = 30")] {
        cluster.ok(&["stop", "s2"]);
        fs::write(&config, text).expect("ours");
        cluster.ok(&["start", "s2"]);
        cluster.wait_linked();
    }
    assert_eq!(told("s1", "s2", ("(days = 30, messages = 0)", usual)), 1);
    assert_eq!((in_s1(), in_s2()), (1, 2));
}
