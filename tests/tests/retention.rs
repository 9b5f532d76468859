//! What a room does not keep is gone on every server, and does not come back.

use std::fs;

use chatty_tests::{LONG, TestCluster, eventually, text};
use serde_json::Value;

const ROOM: &str = "lobby";

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
    assert!(flow.finish().success(), "{}", flow.said());

    // Whoever is no op decides nothing.
    let refused = cluster.person("bob").on("s2").refused(&["keep", ROOM, "--messages", "1"]);
    assert!(refused.contains("only the founder and ops"), "{refused}");
    let refused = ann.refused(&["keep", ROOM, "--messages", "18446744073709551615"]);
    assert!(refused.contains("a room keeps at most"), "{refused}");
    ann.ok(&["keep", ROOM, "--messages", "20"]);

    eventually("the newest are left on every server, and they agree", LONG, || {
        let status = cluster.status();
        let count = |server: &Value| {
            let rooms = server["rooms"].as_array().cloned().unwrap_or_default();
            let room = rooms.into_iter().find(|room| room["room"] == ROOM);
            room.map_or(0, |room| room["messages"].as_u64().unwrap_or(0))
        };
        let few = status.iter().all(|server| (20..=30).contains(&count(server)));
        let same = status.windows(2).all(|two| two[0]["rooms"] == two[1]["rooms"]);
        (few && same).then_some(()).ok_or_else(|| format!("{status:?}"))
    });
    let kept = cluster.one_history(ROOM);
    assert_eq!(kept.last().map(text), Some("message 99"));
    assert_eq!(text(&kept[0]), format!("message {}", 100 - kept.len()), "the newest, all of them");

    // A server that starts with nothing, and one that was away, come to the same.
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
