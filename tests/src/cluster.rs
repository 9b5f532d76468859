//! A cluster of real servers for one test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::client::{Person, parse_lines};
use crate::ports::Ports;
use crate::wait::{LONG, eventually};

/// The repository's folder.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// The folder with the programs `chatty` and `chatty-server`, built if they are older than their
/// sources.
pub fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let lib = repository().join("scripts/lib.sh");
        let done = Command::new("bash")
            .args(["-c", "set -eu; source \"$1\"; build_programs; echo \"$programs\"", "build"])
            .arg(lib)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .expect("bash runs");
        assert!(done.status.success(), "the programs are not built");
        PathBuf::from(String::from_utf8_lossy(&done.stdout).trim())
    })
}

/// Runs one of the repository's scripts.
///
/// # Panics
/// If it cannot be run at all.
pub fn run_script(script: &str, arguments: &[&str]) -> Output {
    Command::new(repository().join("scripts").join(script))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the script runs")
}

/// A server that a test runs itself; dropped, it is killed.
#[derive(Debug)]
pub struct ServerProcess(Child);

impl ServerProcess {
    /// Runs what [`TestCluster::server_command`] gave.
    ///
    /// # Panics
    /// If it cannot be run at all.
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().expect("chatty-server runs"))
    }

    /// Its number.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).expect("a process's number"))
    }

    /// How it ended, if it has.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("a child")
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        self.0.wait().expect("a child")
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A cluster with a folder and ports of its own; dropped, it leaves nothing running.
#[derive(Debug)]
pub struct TestCluster {
    folder: PathBuf,
    ports: Ports,
    servers: usize,
}

impl TestCluster {
    /// A cluster that is up and linked.
    ///
    /// # Panics
    /// If it does not come up.
    #[track_caller]
    pub fn up(servers: usize) -> Self {
        let cluster = Self::down(servers);
        cluster.start_all();
        cluster
    }

    /// A folder and ports for a cluster that nobody has made yet.
    pub fn down(servers: usize) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("chatty-test-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let folder = folder.canonicalize().expect("the folder is there");
        programs();
        Self { folder, ports: Ports::take(), servers }
    }

    /// `scripts/cluster up`.
    #[track_caller]
    pub fn start_all(&self) {
        let servers = self.servers.to_string();
        let base = self.base_port().to_string();
        self.ok(&["up", "--servers", &servers, "--port", &base]);
    }

    /// Where everything of this test lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What is given to `--dir`.
    pub fn dir(&self) -> PathBuf {
        self.folder.join("cluster")
    }

    /// The port of `s1`.
    pub fn base_port(&self) -> u16 {
        self.ports.base()
    }

    /// `s1`, `s2`, …
    pub fn names(&self) -> Vec<String> {
        (1..=self.servers).map(|i| format!("s{i}")).collect()
    }

    /// Runs `scripts/cluster` on this cluster, however it ends.
    pub fn script(&self, arguments: &[&str]) -> Output {
        let dir = self.dir();
        let mut all = arguments.to_vec();
        all.extend(["--dir", dir.to_str().expect("a readable path")]);
        run_script("cluster", &all)
    }

    /// Runs `scripts/cluster` on this cluster; gives its standard output.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let done = self.script(arguments);
        assert!(
            done.status.success(),
            "scripts/cluster {arguments:?}: {}\n{}{}",
            done.status,
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr),
        );
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// A cluster whose servers all have these keys of `server.toml`, each given as the file that
    /// `init` writes explains it and as it is to be.
    ///
    /// # Panics
    /// If a key is not there.
    #[track_caller]
    pub fn up_with(servers: usize, keys: &[(&str, &str)]) -> Self {
        let cluster = Self::up(servers);
        cluster.ok(&["down"]);
        for name in cluster.names() {
            let file = cluster.server_dir(&name).join("server.toml");
            let mut text = std::fs::read_to_string(&file).expect("init wrote it");
            for (usual, wanted) in keys {
                assert!(text.contains(usual), "{usual:?} is explained in the file");
                text = text.replace(usual, wanted);
            }
            std::fs::write(&file, text).expect("the folder is ours");
        }
        cluster.start_all();
        cluster
    }

    /// What runs a server alone, with its log where the script has it: for processes that are to be
    /// waited for, or to live otherwise than usual.
    pub fn server_command(&self, server: &str) -> Command {
        let home = self.server_dir(server);
        let log = std::fs::OpenOptions::new().append(true).create(true).open(home.join("log"));
        let mut command = Command::new(programs().join("chatty-server"));
        command.args(["run", "--config"]).arg(home.join("server.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.expect("a log"));
        command
    }

    /// Where a server's own files are.
    pub fn server_dir(&self, server: &str) -> PathBuf {
        self.dir().join("servers").join(server)
    }

    /// Runs `chatty-server`, however it ends.
    pub fn operate(&self, arguments: &[&str]) -> Output {
        Command::new(programs().join("chatty-server"))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("chatty-server runs")
    }

    /// Runs a command of `chatty-server` on a server's configuration; gives its standard output, or
    /// what it said on standard error if it failed.
    ///
    /// # Errors
    /// It ended with another code than 0.
    pub fn operate_on(
        &self,
        server: &str,
        command: &str,
        arguments: &[&str],
    ) -> Result<String, String> {
        let config = self.server_dir(server).join("server.toml");
        let config = config.to_str().expect("a readable path");
        let done = self.operate(&[&[command, "--config", config], arguments].concat());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
    }

    /// Waits until a line of a server's log fits.
    #[track_caller]
    pub fn logs(&self, server: &str, what: &str, fits: impl Fn(&str) -> bool) {
        let file = self.server_dir(server).join("log");
        eventually(&format!("{server} logs {what}"), LONG, || {
            let log = std::fs::read_to_string(&file).unwrap_or_default();
            log.lines().any(&fits).then_some(()).ok_or(log)
        });
    }

    /// The server's process id.
    #[track_caller]
    pub fn pid(&self, server: &str) -> Pid {
        Pid::from_raw(self.ok(&["pid", server]).trim().parse().expect("a number"))
    }

    /// Sends the server's process a signal, at this very moment.
    #[track_caller]
    pub fn signal(&self, server: &str, signal: Signal) {
        kill(self.pid(server), signal).expect("the server's process is there");
    }

    /// Somebody with a client of this cluster.
    pub fn person(&self, nick: &str) -> Person {
        Person::new(&self.folder, &self.dir().to_string_lossy(), nick)
    }

    /// `chatty status --json`, an object for each server.
    pub fn status(&self) -> Vec<Value> {
        let done = Command::new(programs().join("chatty"))
            .args(["status", "--json", "--cluster"])
            .arg(self.dir())
            .env("XDG_STATE_HOME", self.folder.join("state"))
            .stdin(Stdio::null())
            .output()
            .expect("chatty runs");
        parse_lines(&done.stdout)
    }

    /// What `status` says of one server.
    pub fn status_of(&self, server: &str) -> Value {
        self.status().into_iter().find(|s| s["server"] == server).unwrap_or(Value::Null)
    }

    /// Waits until every server is ready and linked to all others.
    #[track_caller]
    pub fn wait_linked(&self) {
        eventually("every server is linked to all others", LONG, || {
            let status = self.status();
            let whole = status.len() == self.servers && status.iter().all(|s| self.is_linked(s));
            whole.then_some(()).ok_or_else(|| format!("{status:?}"))
        });
    }

    fn is_linked(&self, status: &Value) -> bool {
        let up = |link: &&Value| link["state"] == "up";
        let links = status["links"].as_array().map_or(0, |links| links.iter().filter(up).count());
        status["state"] == "ready" && links == self.servers - 1
    }

    /// Waits until every server is linked and all show the same timelines.
    #[track_caller]
    pub fn wait_converged(&self) {
        eventually("all servers show the same", LONG, || {
            let status = self.status();
            let linked = status.len() == self.servers && status.iter().all(|s| self.is_linked(s));
            let same = status.windows(2).all(|two| two[0]["rooms"] == two[1]["rooms"]);
            let caught_up = status.iter().all(|s| s["lag"] == 0);
            (linked && same && caught_up).then_some(()).ok_or_else(|| format!("{status:?}"))
        });
    }

    /// The texts of a room's whole history as one server has it.
    #[track_caller]
    pub fn history(&self, server: &str, room: &str) -> Vec<Value> {
        self.person("reader").on(server).ok(&["history", room, "--last", "1000000"])
    }

    /// Waits until all show the same, then gives the one history of a room that every server has.
    ///
    /// # Panics
    /// If two servers have it differently.
    #[track_caller]
    pub fn one_history(&self, room: &str) -> Vec<Value> {
        self.wait_converged();
        let histories: Vec<_> = self.names().iter().map(|s| self.history(s, room)).collect();
        for (server, history) in self.names().iter().zip(&histories) {
            assert_eq!(history, &histories[0], "the history on {server} and on s1");
        }
        histories.into_iter().next().unwrap_or_default()
    }

    fn print_logs(&self) {
        for name in self.names() {
            let log = std::fs::read_to_string(self.dir().join("servers").join(&name).join("log"));
            let log = log.unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("── the end of {name}'s log");
            for line in &lines[lines.len().saturating_sub(30)..] {
                eprintln!("{line}");
            }
        }
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        }
        let _ = self.script(&["down"]);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
