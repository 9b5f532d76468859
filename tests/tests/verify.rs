//! `chatty verify`: what it finds, and what it says when it finds nothing.

use std::process::{Child, Stdio};

use chatty_tests::TestCluster;

const ROOM: &str = "lobby";

#[test]
fn all_who_verify_at_once_get_their_answer() {
    let cluster = TestCluster::up(1);
    let ann = cluster.person("ann");
    let mut flow = ann.flow(ROOM);
    // So much that one is not done before the others begin.
    for nth in 0..1200 {
        flow.line(&format!("{nth} {}", "abcdefgh".repeat(2000)));
    }
    assert!(flow.finish().success(), "{}", flow.said());

    let start = |_| {
        let mut command = ann.command(&["verify"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("chatty runs")
    };
    let all: Vec<Child> = (0..4).map(start).collect();
    for one in all {
        let done = one.wait_with_output().expect("it is our child");
        assert!(done.status.success(), "{done:?}");
    }
}

#[test]
fn servers_that_do_not_answer_are_not_said_to_differ() {
    let cluster = TestCluster::up(3);
    let ann = cluster.person("ann");
    ann.say(ROOM, "hello");
    cluster.wait_converged();
    cluster.ok(&["kill", "s3"]);

    let ran = ann.run(&["verify"]);
    assert!(!ran.status.success(), "{ran:?}");
    assert!(ran.errors.contains("not verified: no answer of s3"), "{ran:?}");
    assert!(!ran.errors.contains("do not show the same"), "{ran:?}");
    let agreement = &ran.objects[0];
    assert_eq!((&agreement["equal"], &agreement["servers"]), (&false.into(), &2.into()));
    let reason = agreement["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("s3 does not answer"), "{reason}");
    let sound = |server: &str| {
        let disk = ran.objects.iter().find(|o| o["type"] == "disk" && o["server"] == server);
        disk.map(|disk| disk["sound"] == true)
    };
    assert_eq!((sound("s1"), sound("s2"), sound("s3")), (Some(true), Some(true), Some(false)));

    cluster.ok(&["kill", "s1", "s2"]);
    let refused = ann.refused(&["verify"]);
    assert!(refused.contains("no server of the cluster answers"), "{refused}");
    assert!(!refused.contains("do not show the same"), "{refused}");
}
