//! Ends a process whose loop stands still: a server that answers nobody is worse than none, since
//! the others and the clients would wait for it.
//!
//! The loop tells its [`Pulse`] what it begins; a thread of its own looks at it. Only time in which
//! that thread ran counts: a process that was frozen (`SIGSTOP`, a suspended machine) did not stand
//! still by its own fault, and after it both go on together.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The loop may stand still for so long.
pub const LIMIT: Duration = Duration::from_secs(30);
/// The loop turns at least this often, also when nothing happens.
pub(crate) const TURN: Duration = Duration::from_secs(1);
/// How the process ends.
pub const EXIT_CODE: u8 = 3;
/// Looks within the limit.
const LOOKS: u32 = 30;
/// The last words may take this long: standard error may be what the loop waits for.
const WORDS_LIMIT: Duration = Duration::from_secs(1);
/// Threads that are told of, at most.
const THREADS: usize = 64;

macro_rules! stages {
    ($($name:ident $words:literal,)*) => {
        /// What the loop is doing.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Doing {
            $(#[doc = $words] $name,)*
        }

        const WORDS: &[&str] = &[$($words,)*];
    };
}

stages! {
    Waiting "waiting for an input",
    LinkUp "input: a link is up",
    LinkDown "input: a link is down",
    Frame "input: a frame of another server",
    Hint "input: a hint that a server died",
    Wrote "input: bytes left for a server",
    SessionUp "input: a client connected",
    Request "input: a request of a client",
    SessionDown "input: a client is gone",
    Drained "input: bytes left for a client",
    Persisted "input: a batch is on the disk",
    PersistFailed "input: the disk refused a batch",
    ReadDone "input: a read is done",
    Operator "input: the operator's command",
    Timeout "the replica's timers",
    Flush "the end of a tick: gathering what is to be sent and written",
    Send "output: a frame to other servers",
    Close "output: closing a connection",
    Persist "output: a batch to the disk's thread",
    Read "output: a question to the disk's threads",
    Deliver "output: an item to clients",
    Log "output: a line of the log",
}

/// Where the loop is. Clones are the same.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<State>);

#[derive(Debug)]
struct State {
    turns: AtomicU64,
    doing: AtomicU8,
}

impl Default for Pulse {
    fn default() -> Self {
        Self(Arc::new(State {
            turns: AtomicU64::new(0),
            doing: AtomicU8::new(Doing::Waiting as u8),
        }))
    }
}

impl Pulse {
    /// The loop begins another turn.
    pub fn turn(&self) {
        self.0.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// The loop begins with this.
    pub fn doing(&self, what: Doing) {
        self.0.doing.store(what as u8, Ordering::Relaxed);
    }

    fn turns(&self) -> u64 {
        self.0.turns.load(Ordering::Relaxed)
    }

    fn words(&self) -> &'static str {
        let doing = usize::from(self.0.doing.load(Ordering::Relaxed));
        WORDS.get(doing).copied().unwrap_or("something unknown")
    }
}

/// Counts how long the loop stands still.
#[derive(Debug)]
struct Count {
    limit: Duration,
    /// Time between two looks counts up to this: what is beyond, this thread stood still as well.
    gap_max: Duration,
    looked: Duration,
    turns: u64,
    still: Duration,
}

impl Count {
    fn new(limit: Duration, at: Duration, turns: u64) -> Self {
        Self { limit, gap_max: period(limit) * 2, looked: at, turns, still: Duration::ZERO }
    }

    /// A look at a moment; tells for how long the loop stood still if that is too long.
    fn look(&mut self, at: Duration, turns: u64) -> Option<Duration> {
        let gap = at.saturating_sub(self.looked);
        self.looked = at;
        if turns != self.turns {
            self.turns = turns;
            self.still = Duration::ZERO;
            return None;
        }
        // A longer gap is not this loop's: count what a look takes.
        self.still += if gap > self.gap_max { period(self.limit) } else { gap };
        (self.still >= self.limit).then_some(self.still)
    }
}

fn period(limit: Duration) -> Duration {
    limit / LOOKS
}

/// The thread that looks; ends when dropped.
#[derive(Debug)]
pub struct Watchdog {
    _alive: mpsc::Sender<()>,
}

impl Watchdog {
    /// Begins to look. `end` is given the last words; it should end the process.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(
        pulse: Pulse,
        limit: Duration,
        end: impl FnOnce(String) + Send + 'static,
    ) -> io::Result<Self> {
        let (alive, gone) = mpsc::channel();
        let began = Instant::now();
        let mut count = Count::new(limit, Duration::ZERO, pulse.turns());
        std::thread::Builder::new().name("watchdog".into()).spawn(move || {
            while gone.recv_timeout(period(limit)) == Err(mpsc::RecvTimeoutError::Timeout) {
                if let Some(still) = count.look(began.elapsed(), pulse.turns()) {
                    return end(last_words(still, pulse.words()));
                }
            }
        })?;
        Ok(Self { _alive: alive })
    }
}

/// Says the last words on standard error, and ends the process with [`EXIT_CODE`].
pub fn end_process(words: String) {
    let (said, heard) = mpsc::channel();
    let say = move || {
        // Not through the logger: the loop may stand there.
        let _ = io::stderr().write_all(words.as_bytes());
        let _ = said.send(());
    };
    if std::thread::Builder::new().spawn(say).is_ok() {
        let _ = heard.recv_timeout(WORDS_LIMIT);
    }
    std::process::exit(EXIT_CODE.into());
}

fn last_words(still: Duration, doing: &str) -> String {
    let mut words = format!(
        "chatty-server: the loop has not turned for {:.1} s; it stands at: {doing}. The watchdog \
         ends the process. Its threads (name, state, CPU ticks, where in the kernel):\n",
        still.as_secs_f64()
    );
    let tasks = std::fs::read_dir("/proc/self/task");
    for task in tasks.into_iter().flatten().flatten().take(THREADS) {
        let file = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let stat = file("stat");
        // After the name, which is in brackets and may hold blanks.
        let fields: Vec<&str> =
            stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
        let field = |n: usize| fields.get(n).copied().unwrap_or("?");
        let _ = writeln!(
            words,
            "  {:<16} {} {}+{} {}",
            file("comm").trim(),
            field(0),
            field(11),
            field(12),
            file("wchan").trim()
        );
        // For root only.
        for line in file("stack").lines() {
            let _ = writeln!(words, "    {line}");
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_loop_that_does_not_turn_is_noticed_at_the_limit() {
        let mut count = Count::new(s(30), s(0), 7);
        assert!((1..30).all(|at| count.look(s(at), 7).is_none()));
        assert_eq!(count.look(s(30), 7), Some(s(30)));
    }

    #[test]
    fn every_turn_begins_the_count_anew() {
        let mut count = Count::new(s(30), s(0), 0);
        for at in 1..200 {
            assert_eq!(count.look(s(at), at / 29), None, "at {at} s");
        }
    }

    #[test]
    fn time_in_which_the_whole_process_stood_still_does_not_count() {
        let mut count = Count::new(s(30), s(0), 0);
        assert!((1..=20).all(|at| count.look(s(at), 0).is_none()));
        // Frozen for an hour, then 9 more seconds: 20 + 1 + 8.
        assert!((3620..=3628).all(|at| count.look(s(at), 0).is_none()));
        assert_eq!(count.look(s(3629), 0), Some(s(30)));
    }

    #[test]
    fn a_stalled_loop_is_ended_with_the_place_where_it_stands() {
        let pulse = Pulse::default();
        pulse.turn();
        pulse.doing(Doing::Deliver);
        let (end, ended) = mpsc::channel();
        let limit = Duration::from_millis(60);
        let _watchdog =
            Watchdog::start(pulse, limit, move |words| end.send(words).unwrap()).unwrap();

        let words = ended.recv_timeout(s(20)).expect("it is noticed");

        assert!(words.contains("it stands at: output: an item to clients"), "{words}");
        assert!(words.contains("watchdog"), "the threads are named: {words}");
    }

    #[test]
    fn a_watchdog_that_is_let_go_ends_nothing() {
        let (end, ended) = mpsc::channel::<String>();
        let limit = Duration::from_secs(30);
        let watchdog =
            Watchdog::start(Pulse::default(), limit, move |words| drop(end.send(words))).unwrap();
        drop(watchdog);
        // The thread is gone, and `end` with it.
        assert_eq!(ended.recv_timeout(s(20)), Err(mpsc::RecvTimeoutError::Disconnected));
    }
}
