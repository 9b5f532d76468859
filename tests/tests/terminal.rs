//! A person at a terminal: `chatty` without a command, in a pseudo-terminal made by script(1).

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use chatty_tests::{LONG, Person, SHORT, TestCluster, eventually, text};

/// An interactive session; what it draws is collected.
struct Session {
    child: Child,
    keys: ChildStdin,
    drawn: Arc<Mutex<String>>,
}

impl Session {
    /// Starts one. The state of the terminal is printed before and after.
    fn start(person: &Person) -> Self {
        let client = person.command(&[]);
        let words = std::iter::once(client.get_program()).chain(client.get_args());
        let words: Vec<_> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
        let state = "echo \"terminal $(stty -g)\"";
        let line = format!(
            "stty cols 80 rows 24; {state}; {}; code=$?; {state}; exit $code",
            words.join(" ")
        );
        let mut command = Command::new("script");
        command.args(["-qefc", &line, "/dev/null"]).env("TERM", "xterm").env("SHELL", "/bin/sh");
        for (name, value) in client.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script(1) is there");
        let keys = child.stdin.take().expect("a pipe");
        let mut out = child.stdout.take().expect("a pipe");
        let drawn = Arc::new(Mutex::new(String::new()));
        std::thread::spawn({
            let drawn = Arc::clone(&drawn);
            move || {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = out.read(&mut bytes) {
                    let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
                    drawn.lock().expect("nobody panicked").push_str(&text);
                }
            }
        });
        Self { child, keys, drawn }
    }

    fn drawn(&self) -> String {
        self.drawn.lock().expect("nobody panicked").clone()
    }

    #[track_caller]
    fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the session reads");
        self.keys.flush().expect("the session reads");
    }

    #[track_caller]
    fn shows(&self, wanted: &str) {
        self.draws(0, wanted);
    }

    /// Waits until something is drawn after so much else; gives what was drawn after that, up to
    /// its end, and where that is.
    #[track_caller]
    fn draws(&self, from: usize, wanted: &str) -> (String, usize) {
        eventually(&format!("{wanted:?} is drawn"), LONG, || {
            let drawn = self.drawn();
            let found = drawn[from..].find(wanted).map(|at| from + at + wanted.len());
            found.map(|end| (drawn[from..end].to_owned(), end)).ok_or(drawn)
        })
    }

    /// Waits for the end; the terminal must be as it was.
    #[track_caller]
    fn ends_cleanly(mut self) {
        let status = eventually("the session ends", SHORT, || {
            self.child.try_wait().expect("our child").ok_or_else(|| self.drawn())
        });
        assert!(status.success(), "{status}: {}", self.drawn());
        let drawn = self.drawn();
        let states: Vec<_> =
            drawn.lines().filter_map(|line| line.split_once("terminal ")).collect();
        assert_eq!(states.len(), 2, "{drawn}");
        assert_eq!(states[0].1, states[1].1, "the terminal is as it was");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_person_joins_talks_fails_over_and_leaves_in_a_terminal() {
    let cluster = TestCluster::up(3);
    let bob = cluster.person("bob").on("s3");
    let tail = bob.tail("lobby");
    let ann = cluster.person("ann").on("s1");
    let mut session = Session::start(&ann);

    session.shows("s1");
    session.types("/join lobby\r");
    bob.wait_sees("ann", "lobby");
    session.types("hello from a terminal\r");
    tail.shows("hello from a terminal");
    bob.say("lobby", "hello, terminal");
    session.shows("hello, terminal");

    cluster.ok(&["kill", "s1"]);
    session.types("is anybody left?\r");
    tail.shows("is anybody left?");
    session.types("/quit\r");
    session.ends_cleanly();

    let history = cluster.history("s2", "lobby");
    let texts: Vec<_> = history.iter().map(text).collect();
    assert_eq!(texts, ["hello from a terminal", "hello, terminal", "is anybody left?"]);
}

#[test]
fn a_person_sees_in_place_on_how_many_disks_a_message_is() {
    // As they stand in front of a message.
    const STORED: &str = "✓  ";
    const REPLICATED: &str = "✓✓ ";
    let cluster = TestCluster::up(3);
    let ann = cluster.person("ann").on("s1");
    let mut session = Session::start(&ann);
    session.shows("s1");
    session.types("/join lobby\r");
    session.shows("you are in lobby");

    let from = session.drawn().len();
    session.types("on two disks\r");
    session.draws(from, REPLICATED);

    cluster.ok(&["kill", "s2", "s3"]);
    let from = session.drawn().len();
    session.types("on one disk\r");
    let (before, from) = session.draws(from, STORED);
    assert!(!before.contains(REPLICATED), "nobody else has it: {before:?}");
    cluster.start_all();
    let (after, _) = session.draws(from, REPLICATED);
    assert!(!after.contains("on one disk"), "the mark alone is drawn anew: {after:?}");
    session.types("/quit\r");
    session.ends_cleanly();
}

#[test]
fn ctrl_d_and_ctrl_c_leave_cleanly() {
    let cluster = TestCluster::up(1);
    for keys in ["\u{4}", "\u{3}"] {
        let mut session = Session::start(&cluster.person("ann").on("s1"));
        session.shows("s1");
        session.types(keys);
        session.ends_cleanly();
    }
}
