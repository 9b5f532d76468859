//! A server whose loop stands still ends itself, and one that stood still as a whole does not. Threads
//! of servers are held with ptrace, as a debugger does.

use std::fs;
use std::time::Duration;

use chatty_tests::{SHORT, ServerProcess, TestCluster, eventually};
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

const ROOM: &str = "lobby";
/// How long a loop may stand still here.
const LIMIT: Duration = Duration::from_secs(1);
/// How a process ends whose loop stood still: `docs/operate.md` says so.
const EXIT_CODE: i32 = 3;

/// The threads on which the loop, the links and the clients of a server run.
fn workers(server: Pid) -> Vec<Pid> {
    let tasks = fs::read_dir(format!("/proc/{server}/task")).expect("it runs");
    let workers = tasks.flatten().filter(|task| {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        name.trim() == "tokio-rt-worker"
    });
    let id = |task: fs::DirEntry| task.file_name().to_string_lossy().parse();
    workers.map(|task| Pid::from_raw(id(task).expect("a thread's number"))).collect()
}

/// The thread of the watchdog.
fn watchdog(server: Pid) -> Pid {
    let tasks = fs::read_dir(format!("/proc/{server}/task")).expect("it runs");
    let named = |task: &fs::DirEntry| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "watchdog")
    };
    let task = tasks.flatten().find(named).expect("there is a watchdog");
    Pid::from_raw(task.file_name().to_string_lossy().parse().expect("a thread's number"))
}

/// How often a thread gave its turn away, once for each time that it began to wait; `None` when it is
/// gone.
fn pauses(thread: Pid) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    count.trim().parse().ok()
}

/// Holds threads of a process until it ends, or they are let go.
fn hold(threads: &[Pid]) {
    for thread in threads {
        ptrace::seize(*thread, ptrace::Options::empty())
            .expect("this process may trace its children");
        ptrace::interrupt(*thread).expect("it is traced");
        let held = waitpid(*thread, Some(WaitPidFlag::__WALL)).expect("it is traced");
        assert!(matches!(held, WaitStatus::PtraceEvent(..)), "{held:?}");
    }
}

/// Lets held threads go on.
fn let_go(threads: &[Pid]) {
    for thread in threads {
        ptrace::detach(*thread, None).expect("it is held");
    }
}

/// Takes leave of held threads that were ended with their process: before, it is not gone.
fn wait_gone(threads: &[Pid]) {
    for thread in threads {
        loop {
            match waitpid(*thread, Some(WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(Errno::ECHILD) => break,
                Ok(_) => {}
                Err(errno) => panic!("thread {thread}: {errno}"),
            }
        }
    }
}

/// A cluster whose watchdogs wait that long.
fn watched(servers: usize) -> TestCluster {
    let seconds = format!("watchdog_seconds = {}", LIMIT.as_secs());
    TestCluster::up_with(servers, &[("# watchdog_seconds = 30", &seconds)])
}

#[test]
fn a_server_that_was_frozen_longer_than_its_watchdog_waits_lives_on() {
    let cluster = watched(1);
    cluster.ok(&["stop", "s1"]);
    let mut server = ServerProcess::start(&mut cluster.server_command("s1"));
    cluster.wait_linked();
    let (pid, watchdog) = (server.pid(), watchdog(server.pid()));

    // The loop does not turn before the watchdog has looked again: else that turn would excuse all.
    let threads = workers(pid);
    hold(&threads);
    kill(pid, Signal::SIGSTOP).expect("it runs");
    // Time is what this is about.
    std::thread::sleep(3 * LIMIT);
    let before = pauses(watchdog).expect("it is there");
    kill(pid, Signal::SIGCONT).expect("it is there");
    // Waking from the stop is one; a look lies between two others.
    let lives =
        eventually("the watchdog has looked, or is gone", SHORT, || match pauses(watchdog) {
            None => Ok(false),
            Some(after) if after >= before + 3 => Ok(true),
            Some(after) => Err(format!("it paused {after} times, {before} before")),
        });
    if lives {
        let_go(&threads)
    } else {
        wait_gone(&threads)
    }
    assert!(lives, "it ended itself: {}", server.wait());

    cluster.person("ann").say(ROOM, "after");
    assert_eq!(server.has_ended(), None, "it lives on");
}

#[test]
fn a_server_whose_loop_stands_still_ends_itself_and_its_clients_go_on_elsewhere() {
    let cluster = watched(3);
    cluster.ok(&["stop", "s1"]);
    let mut server = ServerProcess::start(&mut cluster.server_command("s1"));
    cluster.wait_linked();
    let ann = cluster.person("ann").on("s1");
    assert_eq!(ann.say(ROOM, "hello")["server"], "s1");

    let mut flow = ann.flow(ROOM);
    let line = flow.line("before the loop stands still");
    flow.replicated(line);
    let threads = workers(server.pid());
    assert!(!threads.is_empty(), "the loop runs on some thread");
    hold(&threads);
    let line = flow.line("while the loop stands still");
    let (_, receipt) = flow.replicated(line);
    assert_ne!(receipt["server"], "s1", "another one takes it: {receipt}");
    wait_gone(&threads);
    let status = server.wait();
    assert_eq!(status.code(), Some(EXIT_CODE), "{status}");
    cluster.logs("s1", "where it stood", |line| line.contains("it stands at: "));
    cluster.logs("s1", "who ended it", |line| line.contains("The watchdog ends the process"));
    cluster.logs("s1", "its threads", |line| line.contains("tokio-rt-worker  t "));

    assert!(flow.finish().success(), "{}", flow.said());
    cluster.ok(&["start", "s1"]);
    assert_eq!(cluster.one_history(ROOM).len(), 3, "nothing is lost, nothing is there twice");
}
