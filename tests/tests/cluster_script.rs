//! What `scripts/cluster` promises to those who drive it from scripts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use chatty_tests::{SHORT, TestCluster, eventually, programs, repository, run_script, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The processes whose command line names a file in that folder.
fn processes_of(folder: &Path) -> Vec<i32> {
    let folder = folder.to_str().expect("a readable path");
    let runs = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(folder)
    };
    let entries = fs::read_dir("/proc").expect("a proc file system").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(runs).collect()
}

#[test]
fn up_prints_each_server_its_address_and_state_the_url_and_what_to_type_next() {
    let cluster = TestCluster::down(3);
    let base = cluster.base_port();
    let out = cluster.ok(&["up", "--port", &base.to_string()]);

    for i in 0..3 {
        let line = out.lines().find(|line| line.starts_with(&format!("s{} ", i + 1)));
        let line = line.unwrap_or_else(|| panic!("three servers are the default: {out}"));
        assert!(line.contains(&format!("127.0.0.1:{}", base + i)), "{line}");
        assert!(line.contains("ready") && line.contains("2 of 2"), "{line}");
    }
    let url = format!("chatty://127.0.0.1:{base},127.0.0.1:{},127.0.0.1:{}/#", base + 1, base + 2);
    assert!(out.contains(&url), "{out}");
    let next = format!("scripts/chat --cluster {}", cluster.dir().display());
    assert!(out.contains(&next), "{out}");
    assert!(!out.contains('\u{1b}'), "colours only on a terminal");
}

#[test]
fn every_command_may_be_repeated() {
    let cluster = TestCluster::up(3);
    let before = cluster.pid("s1");
    cluster.start_all();
    cluster.ok(&["start", "s1"]);
    assert_eq!(cluster.pid("s1"), before, "up and start leave a running server alone");

    for command in ["pause", "pause", "resume", "resume", "kill", "kill", "stop", "stop"] {
        cluster.ok(&[command, "s1"]);
    }
    let dead = cluster.script(&["pid", "s1"]);
    assert_eq!(dead.status.code(), Some(1));
    assert!(errors(&dead).contains("s1 does not run"), "{}", errors(&dead));
    for command in ["wipe", "wipe", "start", "start", "wipe"] {
        cluster.ok(&[command, "s1"]);
    }
    cluster.start_all();
    for command in ["status", "down", "down"] {
        cluster.ok(&[command]);
    }
}

#[test]
fn options_stand_before_or_after_the_command() {
    let cluster = TestCluster::up(1);
    let dir = cluster.dir();
    let dir = dir.to_str().expect("a readable path");
    let port = cluster.base_port().to_string();

    let before = run_script("cluster", &["--dir", dir, "--port", &port, "pid", "s1"]);
    let after = run_script("cluster", &["pid", "s1", &format!("--dir={dir}"), "--port", &port]);

    assert!(before.status.success(), "{}", errors(&before));
    assert_eq!(before.stdout, after.stdout);
}

#[test]
fn the_pid_is_the_servers_own_process() {
    let cluster = TestCluster::up(1);
    let pid = cluster.pid("s1");
    let program = fs::read_link(format!("/proc/{pid}/exe")).expect("it runs");
    assert_eq!(program.file_name().and_then(|name| name.to_str()), Some("chatty-server"));
    assert_eq!(processes_of(&cluster.dir()), [pid.as_raw()], "and no wrapper stays around it");
}

#[test]
fn one_udp_port_per_server_counted_from_the_base() {
    let cluster = TestCluster::up(3);
    let bound = fs::read_to_string("/proc/net/udp").expect("the kernel's list of sockets");
    for (i, name) in cluster.names().iter().enumerate() {
        let port = cluster.base_port() + u16::try_from(i).expect("few");
        assert!(bound.contains(&format!("0100007F:{port:04X} ")), "{name} listens on {port}");
        // Of all sockets of the process, this is the only one for packets.
        let sockets = fs::read_dir(format!("/proc/{}/fd", cluster.pid(name))).expect("it runs");
        let inodes: Vec<String> = sockets
            .flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok()?.to_str().map(str::to_owned))
            .filter_map(|to| Some(to.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
            .collect();
        let own = |line: &&str| inodes.iter().any(|i| line.split_whitespace().nth(9) == Some(i));
        assert_eq!(bound.lines().filter(own).count(), 1, "{name} has one UDP socket");
    }
}

#[test]
fn down_keeps_the_data_leaves_nothing_running_and_up_resumes() {
    let cluster = TestCluster::up(3);
    cluster.person("ann").say("lobby", "are you there tomorrow?");
    cluster.ok(&["pause", "s2"]);

    cluster.ok(&["down"]);
    assert_eq!(processes_of(&cluster.dir()), Vec::<i32>::new());

    cluster.start_all();
    let history = cluster.one_history("lobby");
    assert_eq!(history.iter().map(text).collect::<Vec<_>>(), ["are you there tomorrow?"]);
}

#[test]
fn up_starts_what_does_not_run_and_resumes_what_is_paused() {
    let cluster = TestCluster::up(3);
    let (s2, s3) = (cluster.pid("s2"), cluster.pid("s3"));
    cluster.ok(&["kill", "s1"]);
    cluster.ok(&["pause", "s2"]);

    cluster.ok(&["up"]);

    cluster.wait_linked();
    assert_eq!((cluster.pid("s2"), cluster.pid("s3")), (s2, s3), "these ran on");
}

#[test]
fn a_server_starts_right_after_a_death_by_any_means() {
    let cluster = TestCluster::up(3);
    for _ in 0..5 {
        let old = cluster.pid("s1");
        // By somebody else, and without waiting for the end.
        kill(old, Signal::SIGKILL).expect("it runs");
        cluster.ok(&["start", "s1"]);
        assert_ne!(cluster.pid("s1"), old);
    }
    cluster.wait_linked();
}

#[test]
fn up_says_at_once_which_server_finds_its_port_in_use() {
    let cluster = TestCluster::up(3);
    cluster.ok(&["down"]);
    let port = cluster.base_port() + 1;
    let taken = std::net::UdpSocket::bind(("127.0.0.1", port)).expect("the server is down");

    let up = cluster.script(&["up"]);
    drop(taken);

    assert_eq!(up.status.code(), Some(1));
    let reason = errors(&up);
    assert!(reason.contains("s2 did not start"), "{reason}");
    assert!(reason.contains(&format!("127.0.0.1:{port} is in use")), "{reason}");
    assert!(!reason.contains("linked"), "nobody waits for links that cannot be: {reason}");
    assert_eq!(reason.matches("is in use").count(), 1, "said once: {reason}");
    cluster.start_all();
}

#[test]
fn a_stale_pid_file_and_a_pid_of_another_program_mislead_nobody() {
    let cluster = TestCluster::up(1);
    let file = cluster.dir().join("servers/s1/pid");
    cluster.ok(&["kill", "s1"]);
    let mut other = Command::new("sleep").arg("600").spawn().expect("sleep runs");

    for stale in
        [other.id().to_string(), format!("{} 1", other.id()), "4194303 7".into(), "x".into()]
    {
        fs::write(&file, stale).expect("the folder is there");
        assert!(!cluster.script(&["pid", "s1"]).status.success());
        cluster.ok(&["kill", "s1"]);
        cluster.ok(&["down"]);
        cluster.ok(&["start", "s1"]);
        assert_ne!(cluster.pid("s1"), Pid::from_raw(other.id().cast_signed()));
        // And a running server is found without its pid file.
        fs::remove_file(&file).expect("start writes it");
        cluster.ok(&["start", "s1"]);
        cluster.ok(&["kill", "s1"]);
        assert_eq!(processes_of(&cluster.dir()), Vec::<i32>::new());
    }

    assert!(other.try_wait().expect("our child").is_none(), "the other program was left alone");
    other.kill().expect("our child");
    other.wait().expect("our child");
}

#[test]
fn start_uses_the_programs_that_are_there_and_says_that_they_are_old() {
    let cluster = TestCluster::up(1);
    cluster.ok(&["down"]);
    // Programs older than every source, where nothing could be built either.
    let target = cluster.folder().join("target");
    let release = target.join("release");
    fs::create_dir_all(&release).expect("a folder");
    for program in ["chatty", "chatty-server"] {
        fs::copy(programs().join(program), release.join(program)).expect("they are built");
    }
    let run = |arguments: &[&str]| {
        Command::new(repository().join("scripts/cluster"))
            .args(arguments)
            .arg("--dir")
            .arg(cluster.dir())
            .env("CARGO_TARGET_DIR", &target)
            .env("RUSTC", "/nonexistent")
            .stdin(Stdio::null())
            .output()
            .expect("the script runs")
    };

    for arguments in [["start", "s1"].as_slice(), &["status"], &["wipe", "s1"], &["stop", "s1"]] {
        let done = run(arguments);
        assert!(done.status.success(), "{arguments:?}: {}", errors(&done));
        let old = errors(&done).matches("the sources are newer").count();
        assert_eq!(old, usize::from(arguments[0] != "stop"), "{arguments:?}: {}", errors(&done));
    }
    assert!(!run(&["up"]).status.success(), "up builds");
}

/// Runs the script without root's right to pass over the permissions of files.
fn without_privilege(arguments: &[&str]) -> Output {
    let mut command = Command::new("setpriv");
    if nix::unistd::geteuid().is_root() {
        command.arg("--bounding-set=-dac_override,-dac_read_search");
    }
    command.arg(repository().join("scripts/cluster")).args(arguments);
    command.stdin(Stdio::null()).output().expect("setpriv runs")
}

#[test]
fn a_folder_that_this_user_may_not_use_is_one_clear_line() {
    let cluster = TestCluster::up(1);
    cluster.ok(&["down"]);
    let locked = cluster.folder().join("locked");
    fs::create_dir(&locked).expect("a folder");
    fs::write(cluster.folder().join("file"), "").expect("a file");
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("our own");
    };
    mode(&locked, 0o500);
    let servers = cluster.dir().join("servers");
    mode(&servers, 0o000);
    let (dir, new) = (cluster.dir(), locked.join("new"));
    let file = cluster.folder().join("file");
    let calls: [(&[&str], &Path, &str); 7] = [
        (&["up"], &locked, "nothing can be made in"),
        (&["up"], &new, "nothing can be made in"),
        (&["up"], &file, "is no folder"),
        (&["up"], &dir, "cannot use"),
        (&["status"], &dir, "cannot use"),
        (&["kill", "s1"], &dir, "cannot use"),
        (&["down"], &dir, "cannot use"),
    ];
    for (call, at, what) in calls {
        let mut arguments = call.to_vec();
        arguments.extend(["--dir", at.to_str().expect("a readable path")]);
        let done = without_privilege(&arguments);
        let said = errors(&done);
        assert_eq!(done.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.starts_with("cluster: ") && said.contains(what), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
    }
    mode(&servers, 0o700);
    mode(&locked, 0o700);
    assert!(fs::read_dir(&locked).expect("our own").next().is_none(), "nothing was made");
}

#[test]
fn two_clusters_live_side_by_side() {
    let (one, two) = (TestCluster::up(3), TestCluster::up(3));
    one.person("ann").say("lobby", "one");
    two.person("ann").say("lobby", "two");

    assert_eq!(one.one_history("lobby").iter().map(text).collect::<Vec<_>>(), ["one"]);
    one.ok(&["down"]);
    assert_eq!(two.one_history("lobby").iter().map(text).collect::<Vec<_>>(), ["two"]);
}

#[test]
fn a_cluster_keeps_its_number_of_servers_and_its_ports() {
    let cluster = TestCluster::up(3);
    let five = cluster.script(&["up", "--servers", "5"]);
    assert!(!five.status.success());
    let reason = errors(&five);
    assert!(reason.contains('3') && reason.contains('5'), "it says why: {reason}");
    assert_eq!(reason.lines().count(), 1, "{reason}");

    let moved = cluster.script(&["up", "--port", &(cluster.base_port() + 5).to_string()]);
    assert!(!moved.status.success());
    assert!(errors(&moved).contains(&cluster.base_port().to_string()), "{}", errors(&moved));

    assert_eq!(cluster.status().len(), 3, "nothing was changed");
    cluster.wait_linked();
}

#[test]
fn the_folder_may_hold_other_files() {
    let cluster = TestCluster::down(1);
    fs::create_dir_all(cluster.dir()).expect("a folder");
    fs::write(cluster.dir().join("notes.txt"), "mine").expect("a file");
    cluster.start_all();
    cluster.ok(&["wipe", "s1"]);
    cluster.ok(&["down"]);
    assert_eq!(fs::read_to_string(cluster.dir().join("notes.txt")).expect("kept"), "mine");
}

#[test]
fn a_wipe_that_was_interrupted_is_finished_before_the_server_starts() {
    let cluster = TestCluster::up(3);
    cluster.person("ann").say("lobby", "hello");
    cluster.wait_converged();
    let disk = cluster.status_of("s1")["disk"].clone();
    cluster.ok(&["stop", "s1"]);
    let home = cluster.dir().join("servers/s1");
    fs::rename(home.join("data"), home.join("data.wiped")).expect("as a wipe begins");

    cluster.ok(&["start", "s1"]);

    assert_ne!(cluster.status_of("s1")["disk"], disk, "an empty disk has another identity");
    assert_eq!(cluster.one_history("lobby").len(), 1);
}

#[test]
fn status_shows_what_is_down_and_what_is_paused() {
    let cluster = TestCluster::up(3);
    cluster.ok(&["kill", "s1"]);
    cluster.ok(&["pause", "s2"]);
    let table = cluster.ok(&["status"]);
    let state = |name: &str| {
        let line = table.lines().find(|line| line.starts_with(name)).expect("a line for each");
        line.split_whitespace().nth(2).map(str::to_owned)
    };
    assert_eq!(state("s1").as_deref(), Some("down"), "{table}");
    assert_eq!(state("s2").as_deref(), Some("paused"), "{table}");
    assert_eq!(state("s3").as_deref(), Some("ready"), "{table}");

    let objects = cluster.status();
    assert_eq!(objects.len(), 3, "one object per configured server, down or up");
    for (i, object) in objects.iter().enumerate() {
        assert_eq!(object["server"], format!("s{}", i + 1));
        let port = cluster.base_port() + u16::try_from(i).expect("few");
        assert_eq!(object["address"], format!("127.0.0.1:{port}"));
    }
    assert_eq!(objects[0]["state"], "down");
    assert_eq!(objects[2]["state"], "ready");

    cluster.ok(&["down"]);
    assert_eq!(cluster.script(&["status"]).status.code(), Some(1), "no server answers");
}

#[test]
fn each_command_has_help_and_wrong_calls_end_with_2() {
    let help = run_script("cluster", &["--help"]);
    assert!(help.status.success());
    let general = String::from_utf8_lossy(&help.stdout).into_owned();
    let commands =
        ["up", "down", "status", "start", "stop", "kill", "pause", "resume", "wipe", "logs", "pid"];
    for command in commands {
        assert!(general.contains(&format!("\n  {command} ")), "{command} is in the list");
        let own = run_script("cluster", &[command, "--help"]);
        assert!(own.status.success());
        let own = String::from_utf8_lossy(&own.stdout).into_owned();
        assert!(own.contains(&format!("scripts/cluster {command}")), "{command}: {own}");
    }

    let cluster = TestCluster::down(1);
    cluster.ok(&["down"]); // nothing there, nothing to stop
    let missing = cluster.script(&["kill", "s1"]);
    assert_eq!(missing.status.code(), Some(1), "there is no cluster: {}", errors(&missing));
    assert!(!cluster.dir().exists(), "nothing was made");
    cluster.start_all();
    let wrong: [&[&str]; 8] = [
        &["dance"],
        &["up", "--colour"],
        &["kill"],
        &["kill", "s9"],
        &["up", "--servers", "0"],
        &["up", "--port", "99999"],
        &["up", "s1"],
        &[],
    ];
    for arguments in wrong {
        let done = cluster.script(arguments);
        assert_eq!(done.status.code(), Some(2), "{arguments:?}: {}", errors(&done));
        assert!(!done.stderr.is_empty() || arguments.is_empty(), "{arguments:?} says nothing");
    }
}

#[test]
fn logs_name_the_server_and_its_start() {
    let cluster = TestCluster::up(1);
    let log = cluster.ok(&["logs", "s1"]);
    assert!(log.contains("s1"), "{log}");
    assert!(log.contains(&cluster.base_port().to_string()), "{log}");
}

#[test]
fn a_server_outlives_the_terminal_it_was_started_from() {
    let cluster = TestCluster::down(1);
    let script = repository().join("scripts/cluster");
    // A session of its own that ends, as a closed terminal does.
    let done = Command::new("setsid")
        .args(["--wait", "bash", "-c", "\"$@\"; kill -HUP 0", "terminal"])
        .arg(&script)
        .args(["up", "--servers", "1", "--port", &cluster.base_port().to_string(), "--dir"])
        .arg(cluster.dir())
        .stdin(Stdio::null())
        .output()
        .expect("setsid runs");
    assert!(!done.status.success(), "it was hung up: {}", errors(&done));

    let receipt = cluster.person("ann").say("lobby", "still here");
    assert_eq!(receipt["server"], "s1");
}

#[test]
fn the_standard_output_of_up_ends_with_it() {
    // A pipe that a server would inherit never ends for its reader.
    let cluster = TestCluster::down(1);
    let base = cluster.base_port().to_string();
    let done = cluster.ok(&["up", "--servers", "1", "--port", &base]);
    assert!(done.contains("chatty://"));
    eventually("and the server runs on", SHORT, || {
        let state = cluster.status_of("s1")["state"].clone();
        (state == "ready").then_some(()).ok_or_else(|| state.to_string())
    });
}
