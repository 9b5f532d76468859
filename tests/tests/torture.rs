//! A short round of each fault that `scripts/torture` draws, in network namespaces (needs root), and
//! what stays of a run that is ended in the middle: nothing. `scripts/test` runs these apart.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use chatty_tests::rounds::Fault;
use chatty_tests::{LONG, eventually, programs};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn folder(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("chatty-torture-{name}-{}", std::process::id()))
}

fn torture(folder: &Path, arguments: &[&str]) -> Command {
    // Built before the time of a round counts.
    programs();
    let mut command = Command::new(env!("CARGO_BIN_EXE_chatty-rounds"));
    command.arg("torture").args(arguments).arg("--folder").arg(folder).stdin(Stdio::null());
    command
}

/// Lives rounds that keep every promise; gives what was printed of each.
#[track_caller]
fn rounds(name: &str, arguments: &[&str]) -> Vec<String> {
    let folder = folder(name);
    let done = torture(&folder, arguments).output().expect("it runs");
    let (out, errors) =
        (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    println!("{errors}{out}");
    assert!(done.status.success(), "see {}", folder.display());
    assert!(out.contains("every promise was kept"), "{out}");
    assert!(!folder.exists(), "nothing stays of a run that kept every promise");
    let lines = errors.lines().filter(|line| line.contains(" replicated; at rest after "));
    let lines: Vec<_> = lines.map(str::to_owned).collect();
    for line in &lines {
        let said = line.split(" said, ").nth(1).and_then(|rest| rest.split(' ').next());
        let replicated: usize = said.and_then(|count| count.parse().ok()).expect("a count");
        assert!(replicated > 100, "only {replicated} messages were replicated: {line}");
    }
    lines
}

/// A round of one fault on three servers: what was done, and what proved that it happened.
#[track_caller]
fn round(fault: &str, proof: &str) {
    round_of(fault, "1", &[proof]);
}

/// With a seed that draws what is wanted.
#[track_caller]
fn round_of(fault: &str, seed: &str, proofs: &[&str]) {
    let arguments = ["--only", fault, "--rounds", "1", "--seed", seed];
    let lines = rounds(fault, &[&arguments[..], &["--servers", "3", "--longest", "2"]].concat());
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(proofs.iter().all(|proof| lines[0].contains(proof)), "{lines:?}");
}

#[test]
fn a_round_of_kill_breaks_no_promise() {
    round("kill", "ended by SIGKILL");
}

#[test]
fn a_round_of_kill_all_breaks_no_promise() {
    round("kill-all", "all ended by SIGKILL within");
}

#[test]
fn a_round_of_stop_breaks_no_promise() {
    round("stop", "stood still for");
}

#[test]
fn a_round_of_rolling_restart_breaks_no_promise() {
    round("rolling-restart", "3 servers run anew");
}

#[test]
fn a_round_of_cut_pair_breaks_no_promise() {
    round("cut-pair", "packets dropped");
}

#[test]
fn a_round_of_cut_one_way_breaks_no_promise() {
    round("cut-one-way", "packets dropped");
}

#[test]
fn a_round_of_isolate_breaks_no_promise() {
    round("isolate", "packets dropped");
}

#[test]
fn a_round_of_loss_breaks_no_promise() {
    round("loss", "packets dropped");
}

#[test]
fn a_round_of_narrow_breaks_no_promise() {
    round("narrow", "times a packet waited or was dropped");
}

#[test]
fn a_round_of_far_breaks_no_promise() {
    round_of("far", "1", &[" far from ", " packets took ", ", a round trip takes "]);
}

#[test]
fn a_round_of_reorder_breaks_no_promise() {
    round_of("reorder", "1", &[" were overtaken, ", " went twice"]);
}

/// The original needs longer for an answer than a second: a copy of it took its place once.
#[test]
fn a_copy_of_a_server_700_ms_away_is_refused_and_breaks_no_promise() {
    let drawn = ["--rounds", "100", "--seed", "31", "--servers", "3", "--round", "22"];
    let lines = rounds("far-copy", &[&drawn[..], &["--longest", "20"]].concat());
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert!(line.contains("copy + far") && line.contains("was refused by all 2 others"), "{line}");
}

#[test]
fn a_round_of_wipe_breaks_no_promise() {
    round("wipe", "has a new disk");
}

#[test]
fn a_round_of_copy_breaks_no_promise() {
    round("copy", "was refused by all 2 others");
}

#[test]
fn a_round_of_rollback_breaks_no_promise() {
    round("rollback", "was found out");
}

#[test]
fn a_round_of_full_disk_breaks_no_promise() {
    round("full-disk", "took no writes until there was room");
}

#[test]
fn a_round_of_clock_breaks_no_promise() {
    // Behind, while others write: what they write is followed, and the clock is off all the same.
    round_of("clock", "2", &[" -3600 s, as it runs", "took no writes until its clock was mended"]);
}

#[test]
fn every_fault_has_a_round_here() {
    let here = include_str!("torture.rs");
    for fault in Fault::ALL {
        let test = format!("(\"{}\", ", fault.name());
        assert_eq!(here.matches(&test).count(), 1, "{}", fault.name());
    }
}

#[test]
fn five_servers_under_two_faults_at_once_break_no_promise() {
    let lines = rounds("two", &["--servers", "5", "--seed", "5", "--round", "9", "--longest", "2"]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("5 servers, rollback + loss: "), "{lines:?}");
}

/// Processes whose command line names that folder, this one's children aside.
fn processes_of(folder: &Path) -> Vec<String> {
    let name = folder.to_string_lossy().into_owned();
    let all = fs::read_dir("/proc").expect("it is there").flatten();
    let lines = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&name)).collect()
}

fn is_under_way(folder: &Path) -> Result<(), String> {
    let processes = processes_of(folder);
    let servers = processes.iter().filter(|line| line.contains("chatty-server")).count();
    if servers >= 3 { Ok(()) } else { Err(format!("{processes:?}")) }
}

/// Sends the outermost process of a run that signal in the middle of it.
fn end_with(signal: Signal, folder: &Path) {
    let arguments = ["--only", "full-disk", "--rounds", "50", "--seed", "1"];
    let mut run: Child =
        torture(folder, &arguments).stderr(Stdio::null()).spawn().expect("it runs");
    eventually("its servers run", LONG, || is_under_way(folder));
    let id = i32::try_from(run.id()).expect("a process id");
    kill(Pid::from_raw(id), signal).expect("it runs");
    run.wait().expect("it is our child");
    eventually("nothing of it runs", LONG, || match processes_of(folder) {
        none if none.is_empty() => Ok(()),
        some => Err(format!("{some:?}")),
    });
    let mounts = fs::read_to_string("/proc/mounts").expect("it is there");
    assert!(!mounts.contains(&*folder.to_string_lossy()), "{mounts}");
    let links = Command::new("ip").args(["-o", "link"]).output().expect("ip runs");
    let links = String::from_utf8_lossy(&links.stdout).into_owned();
    assert!(!links.contains("to-s1"), "{links}");
}

#[test]
fn a_run_that_is_interrupted_or_killed_leaves_only_files_and_the_next_one_removes_them() {
    let folder = folder("ended");
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        end_with(signal, &folder);
        let left = fs::read_dir(&folder).expect("its folder").flatten().count();
        assert_eq!(left, 1, "the run of before is cleared away, and this one's files stay");
    }
    let done = torture(&folder, &["--only", "kill", "--rounds", "1"]).output().expect("it runs");
    assert!(done.status.success(), "{done:?}");
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(errors.contains("removing what a dead run left"), "{errors}");
    assert!(!folder.exists(), "nothing stays");
}
