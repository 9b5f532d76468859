//! The same with nodes that are processes, in real time, over pipes.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use chatty_core::time::Time;

use super::drive::{Scenario, Script};
use super::node::Said;
use super::report::Report;

/// Lines of nodes that wait to be looked at; full: the nodes wait.
const LINES_MAX: usize = 65_536;

/// Nodes that are processes; they end with this.
struct Processes {
    children: Vec<(Child, ChildStdin)>,
    said: Receiver<(usize, Said)>,
}

impl Processes {
    fn start(scenario: &Scenario, program: &Path) -> std::io::Result<Self> {
        let (sender, said) = sync_channel(LINES_MAX);
        let mut processes = Self { children: Vec::new(), said };
        for n in 0..scenario.nodes {
            let mut child = Command::new(program)
                .arg("--feeds")
                .arg(scenario.options.feeds.to_string())
                .arg("--hop-ms")
                .arg(scenario.options.hop.as_millis().to_string())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            let missing = || std::io::Error::other("a pipe that was asked for is missing");
            let stdin = child.stdin.take().ok_or_else(missing)?;
            let stdout = child.stdout.take().ok_or_else(missing)?;
            let stderr = child.stderr.take().ok_or_else(missing)?;
            processes.children.push((child, stdin));
            listen(n, stdout, Said::Line, sender.clone());
            listen(n, stderr, Said::Complaint, sender.clone());
        }
        Ok(processes)
    }

    fn tell(&mut self, node: usize, line: &str) -> std::io::Result<()> {
        let (_, stdin) = &mut self.children[node];
        stdin.write_all(line.as_bytes())?;
        stdin.write_all(b"\n")
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for (child, _) in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn listen(
    node: usize,
    pipe: impl std::io::Read + Send + 'static,
    said: fn(String) -> Said,
    to: SyncSender<(usize, Said)>,
) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            let Ok(line) = line else { return };
            if to.send((node, said(line))).is_err() {
                return;
            }
        }
    });
}

/// Runs nodes that are processes of that program.
///
/// # Errors
/// One could not be started, or ended before its time.
#[expect(clippy::disallowed_methods, reason = "processes live in real time")]
pub fn run(scenario: &Scenario, program: &Path) -> std::io::Result<Report> {
    let began = Instant::now();
    let clock =
        || Time::from_micros(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
    let mut processes = Processes::start(scenario, program)?;
    let mut script = Script::new(scenario, clock());
    loop {
        let now = clock();
        script.step(now);
        while let Some(line) = script.network.arrive(now) {
            processes.tell(line.to, &line.text)?;
        }
        if script.is_over(now) {
            return Ok(script.report());
        }
        let wait = script.next().since(clock()).min(Duration::from_millis(100));
        match processes.said.recv_timeout(wait) {
            Ok((node, said)) => {
                script.said(clock(), node, said);
                while let Ok((node, said)) = processes.said.try_recv() {
                    script.said(clock(), node, said);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(std::io::Error::other("every node ended before its time"));
            }
        }
    }
}
