//! People and programs that talk: the `chatty` program, run as a process.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::cluster::programs;
use crate::wait::{LONG, SHORT, eventually};

/// The text of a message.
pub fn text(message: &Value) -> &str {
    message["text"].as_str().unwrap_or_default()
}

/// The key of a message: sorts bytewise in timeline order.
pub fn key(message: &Value) -> &str {
    message["key"].as_str().unwrap_or_default()
}

/// The objects of `--json`, one a line.
///
/// # Panics
/// On anything else: nothing but objects goes to standard output.
#[track_caller]
pub(crate) fn parse_lines(out: &[u8]) -> Vec<Value> {
    let out = std::str::from_utf8(out).expect("standard output is UTF-8");
    out.lines().map(parse_line).collect()
}

#[track_caller]
fn parse_line(line: &str) -> Value {
    let value: Value = serde_json::from_str(line)
        .unwrap_or_else(|why| panic!("standard output has {line:?}, no JSON: {why}"));
    assert!(value.is_object(), "standard output has {line:?}, no object");
    value
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub status: ExitStatus,
    /// The objects it printed.
    pub objects: Vec<Value>,
    /// What it said on standard error.
    pub errors: String,
}

/// Somebody with a client: a nick, a cluster, and perhaps a server to start with.
#[derive(Debug, Clone)]
pub struct Person {
    folder: PathBuf,
    cluster: String,
    nick: String,
    server: Option<String>,
}

impl Person {
    pub(crate) fn new(folder: &Path, cluster: &str, nick: &str) -> Self {
        Self { folder: folder.into(), cluster: cluster.into(), nick: nick.into(), server: None }
    }

    /// The same person, starting with that server.
    #[must_use]
    pub fn on(&self, server: &str) -> Self {
        Self { server: Some(server.into()), ..self.clone() }
    }

    /// The name asked for.
    pub fn nick(&self) -> &str {
        &self.nick
    }

    /// The command, not yet run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(programs().join("chatty"));
        command
            .args(["--cluster", &self.cluster, "--nick", &self.nick])
            .args(self.server.iter().flat_map(|server| ["--server", server]))
            .args(arguments)
            .env("XDG_STATE_HOME", self.folder.join("state"))
            .env_remove("CHATTY_CLUSTER")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command with `--json`, however it ends.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Ran {
        let done = self.command(arguments).arg("--json").output().expect("chatty runs");
        Ran {
            status: done.status,
            objects: parse_lines(&done.stdout),
            errors: String::from_utf8_lossy(&done.stderr).into_owned(),
        }
    }

    /// Runs a command with `--json`; gives the objects it printed.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> Vec<Value> {
        let ran = self.run(arguments);
        assert!(ran.status.success(), "{} {arguments:?}: {ran:?}", self.nick);
        ran.objects
    }

    /// Runs a command that must be refused; gives the reason.
    ///
    /// # Panics
    /// If it does not fail, or says nothing.
    #[track_caller]
    pub fn refused(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert!(!ran.status.success(), "{} {arguments:?} was not refused: {ran:?}", self.nick);
        assert!(!ran.errors.trim().is_empty(), "{arguments:?} was refused without a reason");
        ran.errors
    }

    /// Says something and waits until it is on a majority of the disks; gives the receipt.
    #[track_caller]
    pub fn say(&self, room: &str, text: &str) -> Value {
        self.ok(&["send", room, text]).pop().expect("a receipt")
    }

    /// Shows a room; returns when others see this person in it.
    #[track_caller]
    pub fn tail(&self, room: &str) -> Tail {
        let tail = Tail::start(self.command(&["tail", room, "--json"]));
        self.wait_seen_in(room);
        tail
    }

    /// Shows a room, its last messages first, without waiting for anything.
    pub fn tail_with(&self, arguments: &[&str]) -> Tail {
        Tail::start(self.command(&[&["tail"], arguments, &["--json"]].concat()))
    }

    /// Waits until the server of this person (or any) shows him in the room.
    #[track_caller]
    pub fn wait_seen_in(&self, room: &str) {
        self.wait_sees(&self.nick, room);
    }

    /// Waits until the server of this person (or any) shows that nick in the room.
    #[track_caller]
    pub fn wait_sees(&self, nick: &str, room: &str) {
        eventually(&format!("{nick} is seen in {room}"), SHORT, || {
            let people = Self { nick: "watcher".into(), ..self.clone() }.run(&["who", room]);
            let here = people.objects.iter().any(|person| person["nick"] == nick);
            here.then_some(()).ok_or_else(|| format!("{people:?}"))
        });
    }

    /// Sends line after line with `send --stdin`.
    pub fn flow(&self, room: &str) -> Flow {
        self.flow_with(room, &[])
    }

    /// As [`Self::flow`], with more options.
    pub fn flow_with(&self, room: &str, options: &[&str]) -> Flow {
        Flow::start(self.command(&[&["send", room, "--stdin", "--json"], options].concat()))
    }
}

/// What a running client printed so far.
#[derive(Debug, Default)]
struct Printed {
    lines: Mutex<Vec<(Instant, Value)>>,
    more: Condvar,
}

impl Printed {
    fn push(&self, value: Value) {
        self.lines.lock().expect("no reader panicked").push((Instant::now(), value));
        self.more.notify_all();
    }

    fn all(&self) -> Vec<Value> {
        let lines = self.lines.lock().expect("no reader panicked");
        lines.iter().map(|(_, value)| value.clone()).collect()
    }

    /// Waits for the first object that `wanted` accepts.
    fn find(&self, within: Duration, wanted: impl Fn(&Value) -> bool) -> Option<(Instant, Value)> {
        let until = Instant::now() + within;
        let mut lines = self.lines.lock().expect("no reader panicked");
        let mut looked = 0;
        loop {
            if let Some(found) = lines[looked..].iter().find(|(_, value)| wanted(value)) {
                return Some(found.clone());
            }
            looked = lines.len();
            let left = until.checked_duration_since(Instant::now())?;
            lines = self.more.wait_timeout(lines, left).expect("no reader panicked").0;
        }
    }
}

/// A client process whose output is read as it comes; dropped, it is killed.
#[derive(Debug)]
struct Running {
    child: Child,
    printed: Arc<Printed>,
    said: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("chatty runs");
        let printed = Arc::new(Printed::default());
        let said = Arc::new(Mutex::new(String::new()));
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        let errors = BufReader::new(child.stderr.take().expect("a pipe"));
        let readers = vec![
            std::thread::spawn({
                let printed = Arc::clone(&printed);
                move || out.lines().map_while(Result::ok).for_each(|l| printed.push(parse_line(&l)))
            }),
            std::thread::spawn({
                let said = Arc::clone(&said);
                move || {
                    for line in errors.lines().map_while(Result::ok) {
                        let mut said = said.lock().expect("no reader panicked");
                        said.push_str(&line);
                        said.push('\n');
                    }
                }
            }),
        ];
        Self { child, printed, said, readers }
    }

    fn said(&self) -> String {
        self.said.lock().expect("no reader panicked").clone()
    }

    #[track_caller]
    fn find(
        &self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> (Instant, Value) {
        self.printed.find(within, wanted).unwrap_or_else(|| {
            let seen = self.printed.all();
            let last = &seen[seen.len().saturating_sub(10)..];
            panic!(
                "not after {within:?}: {what}\n  {} objects, the last: {last:?}\n  it said: {}",
                seen.len(),
                self.said()
            )
        })
    }

    /// Waits until the process ends by itself.
    #[track_caller]
    fn wait_end(&mut self, within: Duration) -> ExitStatus {
        let status = eventually("the client ends", within, || {
            self.child.try_wait().expect("it is our child").ok_or_else(|| "it runs".into())
        });
        for reader in self.readers.drain(..) {
            reader.join().expect("all it printed is JSON");
        }
        status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `chatty tail`, running.
#[derive(Debug)]
pub struct Tail(Running);

impl Tail {
    fn start(command: Command) -> Self {
        Self(Running::start(command))
    }

    /// Sends the client's process a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.child.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("the client's process is there");
    }

    /// The messages shown so far, in the order they were shown.
    pub fn messages(&self) -> Vec<Value> {
        self.0.printed.all().into_iter().filter(|object| object.get("type").is_none()).collect()
    }

    /// When each message was shown, in the order they were shown.
    pub fn times(&self) -> Vec<(Instant, Value)> {
        let lines = self.0.printed.lines.lock().expect("no reader panicked");
        lines.iter().filter(|(_, object)| object.get("type").is_none()).cloned().collect()
    }

    /// The messages shown so far, sorted into timeline order.
    pub fn sorted(&self) -> Vec<Value> {
        let mut messages = self.messages();
        messages.sort_by(|a, b| key(a).cmp(key(b)));
        messages
    }

    /// Waits until a message with that text is shown; says when it was.
    #[track_caller]
    pub fn shows(&self, wanted: &str) -> (Instant, Value) {
        self.0.find(&format!("{wanted:?} is shown"), LONG, |object| text(object) == wanted)
    }

    /// Waits until so many messages are shown.
    #[track_caller]
    pub fn shows_at_least(&self, count: usize) {
        eventually(&format!("{count} messages are shown"), LONG, || {
            let shown = self.messages().len();
            (shown >= count).then_some(()).ok_or_else(|| format!("{shown}; {}", self.0.said()))
        });
    }

    /// Waits for an object, message or not.
    #[track_caller]
    pub fn finds(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.0.find(what, LONG, wanted).1
    }

    /// Everything printed so far.
    pub fn objects(&self) -> Vec<Value> {
        self.0.printed.all()
    }

    /// What it said on standard error.
    pub fn said(&self) -> String {
        self.0.said()
    }

    /// Waits until it ends by itself (`--until-idle`).
    #[track_caller]
    pub fn wait_end(&mut self) -> ExitStatus {
        self.0.wait_end(LONG)
    }
}

/// `chatty send --stdin`, running.
#[derive(Debug)]
pub struct Flow {
    running: Running,
    input: Option<ChildStdin>,
    texts: Vec<String>,
    sent: Vec<Instant>,
}

impl Flow {
    fn start(mut command: Command) -> Self {
        let mut running = Running::start({
            command.stdin(Stdio::piped());
            command
        });
        let input = running.child.stdin.take();
        Self { running, input, texts: Vec::new(), sent: Vec::new() }
    }

    /// Sends a line; gives its number, which receipts carry.
    ///
    /// # Panics
    /// If the client ended.
    #[track_caller]
    pub fn line(&mut self, text: &str) -> usize {
        let input = self.input.as_mut().expect("the input is open");
        writeln!(input, "{text}").expect("the client reads");
        self.texts.push(text.into());
        self.sent.push(Instant::now());
        self.texts.len()
    }

    /// Waits until that line is acknowledged; says when it was.
    #[track_caller]
    pub fn acknowledged(&self, line: usize) -> (Instant, Value) {
        self.running.find(&format!("line {line} is acknowledged"), LONG, |receipt| {
            receipt["line"] == line && is_acknowledgement(receipt)
        })
    }

    /// Waits until that line is on a majority of disks.
    #[track_caller]
    pub fn replicated(&self, line: usize) -> (Instant, Value) {
        self.running.find(&format!("line {line} is replicated"), LONG, |receipt| {
            receipt["line"] == line && receipt["level"] == "replicated"
        })
    }

    /// When each text was sent.
    pub fn sent(&self) -> impl Iterator<Item = (&str, Instant)> {
        self.texts.iter().map(String::as_str).zip(self.sent.iter().copied())
    }

    /// How long each line that is acknowledged waited for its first receipt.
    pub fn waits(&self) -> Vec<Duration> {
        let lines = self.running.printed.lines.lock().expect("no reader panicked");
        let mut first = BTreeMap::new();
        for (at, receipt) in lines.iter().filter(|(_, receipt)| is_acknowledgement(receipt)) {
            let line = receipt["line"].as_u64().expect("a receipt names its line");
            first.entry(line).or_insert(*at);
        }
        let sent = (1..).zip(&self.sent);
        sent.filter_map(|(line, sent)| Some(first.get(&line)?.duration_since(*sent))).collect()
    }

    /// Waits until that line is in the outbox's file (`--state`).
    #[track_caller]
    pub fn kept(&self, line: usize) {
        self.running.find(&format!("line {line} is kept"), LONG, |object| {
            object["type"] == "kept"
                && object["upto"].as_u64().is_some_and(|upto| upto >= line as u64)
        });
    }

    /// Everything printed so far.
    pub fn objects(&self) -> Vec<Value> {
        self.running.printed.all()
    }

    /// Kills the client (SIGKILL).
    pub fn kill(&mut self) {
        let _ = self.running.child.kill();
        self.input = None;
        let _ = self.running.wait_end(LONG);
    }

    /// The texts acknowledged so far, each with the best level it reached.
    pub fn acknowledgements(&self) -> BTreeMap<String, String> {
        let mut best = BTreeMap::new();
        let printed = self.running.printed.all();
        for receipt in printed.iter().filter(|r| is_acknowledgement(r) && r["line"].is_u64()) {
            let line = receipt["line"].as_u64().and_then(|line| usize::try_from(line).ok());
            let line = line.expect("a receipt names its line");
            let level = receipt["level"].as_str().unwrap_or_default();
            let known: &mut String = best.entry(self.texts[line - 1].clone()).or_default();
            if known != "replicated" {
                *known = level.into();
            }
        }
        best
    }

    /// The texts acknowledged as replicated so far.
    pub fn replicated_texts(&self) -> Vec<String> {
        let all = self.acknowledgements().into_iter();
        all.filter(|(_, level)| level == "replicated").map(|(text, _)| text).collect()
    }

    /// Ends the input, waits until the client ends.
    #[track_caller]
    pub fn finish(&mut self) -> ExitStatus {
        self.input = None;
        self.running.wait_end(LONG)
    }

    /// What it said on standard error.
    pub fn said(&self) -> String {
        self.running.said()
    }
}

fn is_acknowledgement(receipt: &Value) -> bool {
    receipt["level"] == "stored" || receipt["level"] == "replicated"
}
