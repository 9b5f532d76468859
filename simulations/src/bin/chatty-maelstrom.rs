//! `chatty-maelstrom`: a node for Jepsen's Maelstrom, on standard input and output.

use std::io::{BufRead, Read, Write};
use std::num::NonZeroU8;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use chatty_core::time::{Now, Time};
use chatty_simulations::maelstrom::message::LINE_BYTES_MAX;
use chatty_simulations::maelstrom::node::{Node, Options, Said};
use clap::Parser;

/// Lines that came and were not looked at yet; full: standard input waits.
const LINES_MAX: usize = 1024;

/// chatty's broadcast as a node for Jepsen's Maelstrom: `maelstrom test -w broadcast --bin
/// chatty-maelstrom`. Speaks Maelstrom's protocol on standard input and output, and says on standard
/// error what it could not use.
#[derive(Parser)]
#[command(name = "chatty-maelstrom", version)]
struct Cli {
    /// How many nodes push each other node's values to this one: 1 sends the fewest messages, 2 has a
    /// spare in case one falls silent.
    #[arg(long, default_value = "1")]
    feeds: NonZeroU8,
    /// How long a message between nodes usually takes, in milliseconds (1 to 10,000): what may
    /// be on its way is not asked for again.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    hop_ms: u64,
}

/// What came on standard input.
enum Came {
    Line(String),
    /// A line that is too long, or no text.
    Unusable(&'static str),
}

fn main() -> ExitCode {
    let Cli { feeds, hop_ms } = Cli::parse();
    let options = Options { feeds, hop: Duration::from_millis(hop_ms) };
    let (sender, lines) = sync_channel(LINES_MAX);
    std::thread::spawn(move || read_lines(&sender));
    match serve(options, &lines) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("standard output is closed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Lines of standard input, until its end.
fn read_lines(to: &SyncSender<Came>) {
    let mut input = std::io::stdin().lock();
    loop {
        let mut bytes = Vec::new();
        let read = input.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut bytes);
        let came = match read {
            Ok(0) | Err(_) => return,
            Ok(length) if length > LINE_BYTES_MAX => {
                if input.skip_until(b'\n').is_err() {
                    return;
                }
                Came::Unusable("a line over 8 MiB")
            }
            Ok(_) => match String::from_utf8(bytes) {
                Ok(line) => Came::Line(line),
                Err(_) => Came::Unusable("a line that is no UTF-8"),
            },
        };
        if to.send(came).is_err() {
            return;
        }
    }
}

/// Lives until standard input ends: what came by a moment is taken, then what is to be said is said.
#[expect(clippy::disallowed_methods, reason = "a process of its own, in real time")]
fn serve(options: Options, lines: &Receiver<Came>) -> std::io::Result<()> {
    let began = Instant::now();
    let clock = || Now {
        time: Time::from_micros(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)),
        wall_ms: SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
    };
    let mut node = Node::new(options, u64::from(std::process::id()));
    let mut out = std::io::stdout().lock();
    loop {
        let first = match node.next_deadline() {
            Some(at) => lines.recv_timeout(at.since(clock().time)),
            None => lines.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let first = match first {
            Ok(came) => Some(came),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        let now = clock();
        let ready = std::iter::from_fn(|| lines.try_recv().ok()).take(LINES_MAX);
        for came in first.into_iter().chain(ready) {
            match came {
                Came::Line(line) => node.line(now, &line),
                Came::Unusable(what) => eprintln!("ignored {what}"),
            }
        }
        node.flush(now);
        while let Some(said) = node.poll() {
            match said {
                Said::Line(line) => writeln!(out, "{line}")?,
                Said::Complaint(what) => eprintln!("{what}"),
            }
        }
        out.flush()?;
    }
}
