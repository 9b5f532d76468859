//! A short round of each fault, by the program that runs the long ones. `namespaces.rs` has the one
//! that needs root.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use chatty_tests::programs;

/// Runs the program in a folder of its own, which it removes when every promise was kept.
#[track_caller]
fn run(arguments: &[&str]) -> Output {
    // Built before the time of a round counts.
    programs();
    let name = format!("chatty-rounds-{}-{}", arguments[0], std::process::id());
    let folder: PathBuf = std::env::temp_dir().join(name);
    let done = Command::new(env!("CARGO_BIN_EXE_chatty-rounds"))
        .args(arguments)
        .arg("--folder")
        .arg(&folder)
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    let (out, errors) =
        (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    println!("{errors}{out}");
    assert!(done.status.success(), "see {}", folder.display());
    assert!(!folder.exists(), "nothing stays of a run that kept every promise");
    done
}

/// The total under a heading of the table. Headings stand right-aligned over their column.
#[track_caller]
fn total(done: &Output, heading: &str) -> String {
    let out = String::from_utf8_lossy(&done.stdout);
    let headings = out.lines().find(|line| line.contains(heading)).expect("a heading");
    let end = headings.find(heading).expect("it is there") + heading.len();
    let totals = out.lines().find(|line| line.trim_start().starts_with("all ")).expect("totals");
    let column = totals.get(..end).expect("as long as the headings");
    column.rsplit("  ").next().unwrap_or_default().trim().to_owned()
}

#[track_caller]
fn kept(done: &Output) {
    for heading in ["  lost", "of these lost", "saved by its sender", "doubled", "other faults"] {
        assert_eq!(total(done, heading), "0", "{heading}");
    }
    let count = |heading| total(done, heading).parse::<usize>().expect("a number");
    let (said, replicated) = (count("said"), count("replicated"));
    assert!(replicated > 100, "only {replicated} messages were replicated");
    let (refused, not_known) = (count("refused"), count("not known"));
    assert_eq!(said, replicated + refused + not_known, "all that was taken is replicated");
    // Only who is out of a room is refused, and only whose server dies then does not know.
    assert!(refused + not_known < said / 10, "{refused} refused, {not_known} not known");
    let out = String::from_utf8_lossy(&done.stdout);
    let idle = out.lines().find_map(|line| line.strip_prefix("rules that had nothing to judge: "));
    // A round is short, and nobody is cut off.
    let may = ["replicated in a minority", "called complete", "not marked late"];
    let idle: Vec<_> = idle.into_iter().flat_map(|idle| idle.split(", ")).collect();
    assert!(idle.iter().all(|rule| may.contains(rule)), "nothing is proven of {idle:?}");
    assert!(out.contains("of all rounds are as they were on every server"), "{out}");
}

#[test]
fn a_round_with_a_killed_server_breaks_no_promise() {
    let done = run(&["kill", "--rounds", "1", "--seed", "1"]);
    kept(&done);
    assert!(total(&done, "of the killed one's").ends_with(" ms"), "somebody was attached to it");
}

#[test]
fn a_round_with_all_servers_killed_breaks_no_promise() {
    kept(&run(&["all", "--rounds", "1", "--seed", "1"]));
}

#[test]
fn a_round_with_each_server_wiped_in_turn_breaks_no_promise() {
    kept(&run(&["wipe", "--rounds", "1", "--seed", "1"]));
}

#[test]
fn a_folder_that_exists_is_refused_and_left_alone() {
    let folder = std::env::temp_dir().join(format!("chatty-rounds-mine-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a new folder");
    let done = Command::new(env!("CARGO_BIN_EXE_chatty-rounds"))
        .args(["kill", "--folder"])
        .arg(&folder)
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    assert_eq!(done.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&done.stderr).contains("exists"), "{done:?}");
    std::fs::remove_dir(&folder).expect("it is there, and empty");
}
