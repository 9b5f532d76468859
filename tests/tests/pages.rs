//! What a server says of its answers when it cannot know everything.

use chatty_tests::{Ran, TestCluster, text};
use nix::sys::signal::Signal;

const ROOM: &str = "lobby";

/// Three servers of which `s3` was away while something was said at `s1` that these people read
/// there; it is back alone.
fn behind_and_alone(people: &[&str]) -> TestCluster {
    let cluster = TestCluster::up(3);
    let said_by = cluster.person("zoe").on("s1");
    said_by.say(ROOM, "before");
    cluster.wait_converged();
    cluster.ok(&["stop", "s3"]);
    said_by.say(ROOM, "meanwhile");
    for nick in people {
        let seen = cluster.person(nick).on("s1").run(&["history", ROOM]);
        assert_eq!(texts(&seen), ["before", "meanwhile"]);
    }
    for server in ["s1", "s2"] {
        cluster.signal(server, Signal::SIGKILL);
    }
    cluster.ok(&["start", "s3"]);
    cluster
}

#[track_caller]
fn texts(ran: &Ran) -> Vec<&str> {
    assert!(ran.status.success(), "{ran:?}");
    ran.objects.iter().map(text).collect()
}

#[test]
fn a_server_that_lacks_what_was_seen_elsewhere_answers_and_says_so() {
    let cluster = behind_and_alone(&["ann", "bob", "cid"]);
    let ann = cluster.person("ann").on("s3");

    let history = ann.run(&["history", ROOM]);
    assert_eq!(texts(&history), ["before"]);
    assert!(history.errors.contains("s3 lacks"), "it is stale: {history:?}");
    assert!(history.errors.contains("unreachable: s1, s2"), "{history:?}");
    for (nick, command) in [("bob", &["rooms"][..]), ("cid", &["who", ROOM])] {
        let ran = cluster.person(nick).on("s3").run(command);
        assert!(ran.status.success(), "{ran:?}");
        assert!(ran.errors.contains("s3 lacks"), "it is stale: {ran:?}");
    }

    cluster.start_all();
    cluster.wait_converged();
    let history = ann.run(&["history", ROOM]);
    assert_eq!(texts(&history), ["before", "meanwhile"]);
    assert!(history.errors.is_empty(), "{history:?}");
}

#[test]
fn what_one_command_wrote_the_next_one_of_the_account_shows_or_misses_aloud_at_any_server() {
    let cluster = TestCluster::up(3);
    let ann = cluster.person("ann");
    for nth in 0..10 {
        let servers = ["s1", "s2", "s3"];
        let (here, there) = (servers[nth % 3], servers[(nth + 1) % 3]);
        let said = format!("message {nth}");
        ann.on(here).ok(&["send", ROOM, &said, "--level", "stored"]);
        let shown = ann.on(there).run(&["history", ROOM, "--last", "1"]);
        assert_eq!(texts(&shown), [said.as_str()], "{shown:?}");
    }

    // The one server that is there cannot have it: it knows what it lacks from the token alone.
    cluster.wait_converged();
    cluster.ok(&["stop", "s3"]);
    ann.on("s1").say(ROOM, "meanwhile");
    for server in ["s1", "s2"] {
        cluster.signal(server, Signal::SIGKILL);
    }
    cluster.ok(&["start", "s3"]);
    let history = ann.on("s3").run(&["history", ROOM, "--last", "1"]);
    assert_eq!(texts(&history), ["message 9"]);
    assert!(history.errors.contains("s3 lacks"), "it is stale: {history:?}");
}
