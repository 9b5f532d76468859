//! A cluster as a state to be explored: the real broadcast on each server, its disk, and what is
//! under way between them.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use chatty_core::broadcast::{Broadcast, Timer};
use chatty_core::clock::Clock;
use chatty_core::config::Config;
use chatty_core::frame::{Class, Frame};
use chatty_core::id::{LinkId, Log, Origin, Slot};

use crate::disk::Disk;
use crate::server::slot_of;

/// Classes of frames that servers exchange here: order holds within a class.
pub(super) const CLASSES: [Class; 3] = [Class::Control, Class::Live, Class::CatchUp];

/// 64 bits that are equal for equal values, on every run.
pub(super) fn print(value: impl Hash) -> u64 {
    ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(value)
}

/// One thing that can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A client of this server says something.
    Say(usize),
    /// The next frame of a class arrives at one end of a cable.
    Deliver(Pair, usize, Class),
    /// The batch that a server writes is on its disk.
    Synced(usize),
    /// A timer of a server fires.
    Fire(usize, Timer),
    /// A server dies; the batch being written is on its disk.
    DieWritten(usize),
    /// A server dies; what is not on its disk is lost.
    Die(usize),
    /// A dead server starts as a new run.
    Start(usize),
    /// A cable breaks: what is sent from now on is lost.
    Cut(Pair),
    /// An end notices; what had not arrived is lost.
    Notice(Pair, usize),
    /// Two servers connect.
    Connect(Pair),
}

/// Two servers, the lesser first.
pub type Pair = (usize, usize);

/// What explores itself: two states with one print behave alike.
#[derive(Clone)]
pub struct Cluster {
    pub(super) servers: Vec<Server>,
    pub(super) cables: BTreeMap<Pair, Arc<Cable>>,
    /// What may still happen.
    pub(super) left: Left,
    /// The rule that the step to here broke.
    pub(super) broken: Option<Arc<str>>,
}

/// How much of what is bounded may still happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Left {
    /// Things to say, server by server.
    pub(super) says: Vec<u8>,
    pub(super) crashes: u8,
    /// Whose they are, if that is settled.
    pub(super) victim: Option<usize>,
    pub(super) cuts: u8,
    /// Timers that fire before what they wait for could have come.
    pub(super) hasty: u8,
    /// Comparisons of digests that no new link asks for.
    pub(super) digests: u8,
}

/// A server.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) run: Option<Arc<Run>>,
    pub(super) disk: Arc<Disk>,
    /// How many times it started.
    pub(super) starts: u8,
    /// What it said: log and number, in order.
    pub(super) said: Arc<Vec<(Log, u64)>>,
    pub(super) slot: Slot,
    print: u64,
    /// Whether the print is of what it was before.
    changed: bool,
}

/// A run of a server: what a crash ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Run {
    pub(super) broadcast: Broadcast,
    pub(super) clock: Clock,
    pub(super) config: Arc<Config>,
    /// How many links it has had.
    pub(super) links: u64,
}

impl Run {
    pub(super) fn origin(&self) -> Origin {
        self.config.me.origin
    }
}

impl Server {
    pub(super) fn new(n: usize) -> Self {
        Self {
            run: None,
            disk: Arc::new(Disk::default()),
            starts: 0,
            said: Arc::new(Vec::new()),
            slot: slot_of(n),
            print: 0,
            changed: true,
        }
    }

    /// Call it when the server has changed; its print follows by [`Self::seal`].
    pub(super) const fn change(&mut self) {
        self.changed = true;
    }

    /// Makes the print anew, if the server has changed.
    pub(super) fn seal(&mut self) {
        if std::mem::take(&mut self.changed) {
            let run = self.run.as_ref().map(|run| (&run.broadcast, &run.clock, run.links));
            self.print = print((run, &self.disk, self.starts, &self.said));
        }
    }

    pub(super) fn broadcast(&self) -> Option<&Broadcast> {
        self.run.as_ref().map(|run| &run.broadcast)
    }

    pub(super) fn origin(&self) -> Option<Origin> {
        self.run.as_ref().map(|run| run.origin())
    }
}

/// A connection between two servers.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Cable {
    /// What each end calls it: an order among its own links, and no more.
    pub(super) links: [LinkId; 2],
    /// Whether what is sent still gets through.
    pub(super) whole: bool,
    /// Which ends think it is up.
    pub(super) up: [bool; 2],
    /// What is under way to each end, class by class.
    pub(super) to: [[VecDeque<Letter>; 3]; 2],
}

impl Cable {
    pub(super) fn new(links: [LinkId; 2]) -> Self {
        Self { links, whole: true, up: [true, true], to: Default::default() }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.to.iter().flatten().all(VecDeque::is_empty)
    }

    /// Whether its ends are still finding out whether they hold the same.
    pub(super) fn compares(&self) -> bool {
        let mut letters = self.to.iter().flatten().flatten();
        letters.any(|letter| matches!(&*letter.frame, Frame::Digest(_)))
    }
}

/// A frame under way.
#[derive(Clone)]
pub(super) struct Letter {
    pub(super) frame: Arc<Frame>,
    pub(super) cost: usize,
    print: u64,
}

impl Letter {
    pub(super) fn new(frame: Arc<Frame>, cost: usize) -> Self {
        let print = print(&frame);
        Self { frame, cost, print }
    }
}

impl Hash for Letter {
    fn hash<H: Hasher>(&self, into: &mut H) {
        self.print.hash(into);
    }
}

impl PartialEq for Letter {
    fn eq(&self, other: &Self) -> bool {
        self.print == other.print
    }
}

impl Eq for Letter {}

impl Hash for Cluster {
    fn hash<H: Hasher>(&self, into: &mut H) {
        self.servers.iter().for_each(|server| server.print.hash(into));
        (&self.cables, &self.left, &self.broken).hash(into);
    }
}

impl Cluster {
    /// Equal for equal states.
    pub(super) fn print(&self) -> u64 {
        print(self)
    }
}

impl PartialEq for Cluster {
    fn eq(&self, other: &Self) -> bool {
        let prints = |cluster: &Self| cluster.servers.iter().map(|s| s.print).collect::<Vec<_>>();
        prints(self) == prints(other)
            && (&self.cables, &self.left, &self.broken)
                == (&other.cables, &other.left, &other.broken)
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, server) in self.servers.iter().enumerate() {
            write!(f, "s{}: ", n + 1)?;
            match server.broadcast() {
                Some(broadcast) => write!(f, "holds {:?}, ", broadcast.held())?,
                None => write!(f, "dead, ")?,
            }
            let disk: Vec<(Log, usize)> =
                server.disk.logs().iter().map(|(log, entries)| (*log, entries.len())).collect();
            writeln!(f, "on disk {disk:?}")?;
        }
        for ((a, b), cable) in &self.cables {
            writeln!(f, "s{}-s{}: up {:?}, whole {}", a + 1, b + 1, cable.up, cable.whole)?;
            for letter in cable.to.iter().flatten().flatten() {
                writeln!(f, "  {:?}", letter.frame)?;
            }
        }
        match &self.broken {
            Some(broken) => writeln!(f, "BROKEN: {broken}"),
            None => Ok(()),
        }
    }
}
