//! What is explored: how many servers, what they say, which faults.

use std::num::NonZeroU8;
use std::time::Duration;

#[cfg(chatty_bugs)]
use chatty_core::bugs::{Bug, is_on};
use chatty_core::config::{Config, Feeds, Limits, Me, Mesh, Start, Timing};
use chatty_core::id::{ClusterId, Log, Origin, ServerId};
use chatty_core::session::ServerAddr;
use chatty_core::token::TokenKey;

use crate::disk::Disk;
use crate::server::{addr_of, slot_of};

/// The wall clock, unix milliseconds; each server's is a little further than the one before it.
pub(super) const WALL_MS: u64 = 1_700_000_000_000;

/// A small world that is explored as a whole.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Its name.
    pub name: &'static str,
    /// What it is for, in a line.
    pub what: &'static str,
    /// How many things each server says; there are as many servers.
    pub says: &'static [u8],
    /// How many things the first server has said before, and all is at rest: a receiver prunes at
    /// its second duplicate, and to explore the first would take most of the time.
    pub before: u8,
    /// How many links push each log to a server.
    pub feeds: Feeds,
    /// Who pushes what before anybody has asked for anything.
    pub start: Start,
    /// Server crashes, at any moment and any server; what a dying one was writing is there or not.
    pub crashes: u8,
    /// Cuts of a cable.
    pub cuts: u8,
    /// Repair timers that fire while an answer may still be under way. Without a limit there would
    /// be no end of requests.
    pub hasty: u8,
    /// Digests that are compared besides those of new links.
    pub digests: u8,
    /// Whether an fsync takes time; if not, it is done at once.
    pub fsync: Pace,
    /// Whether `Have`s wait for their time; if not, they leave at once.
    pub have: Pace,
    /// Whether all servers say the same message, of one id.
    pub mids: Mids,
    /// Bytes of pushed frames that may wait for a link.
    pub live_queue_bytes: usize,
    /// Whether states that differ in nothing that matters are taken for one, and steps that clash with
    /// no other are taken at once (`reduce.rs`).
    pub reduced: bool,
}

/// Whether something takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// It is done within the step.
    AtOnce,
    /// It is a step of its own.
    Slow,
}

/// What ids messages have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mids {
    /// Each its own.
    Own,
    /// All the same: a client repeats one message at every server.
    Same,
}

/// How large a scope is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Explored in `scripts/test`.
    Small,
    /// Explored by a command of its own.
    Large,
}

impl Scope {
    /// The configuration of a server's `run`-th run.
    pub(super) fn config(&self, n: usize, run: u8, disk: &Disk) -> Config {
        let prev = run.checked_sub(1).filter(|run| *run > 0).map(|run| {
            let origin = origin_of(n, run);
            (origin, disk.upto(Log::of(origin)))
        });
        Config {
            me: Me {
                cluster: ClusterId::new(1),
                slot: slot_of(n),
                generation: 1,
                server: server_of(n),
                origin: origin_of(n, run),
                prev,
                addr: addr_of(n),
            },
            servers: (0..self.says.len())
                .map(|n| ServerAddr { name: slot_of(n), addr: addr_of(n) })
                .collect(),
            token_key: TokenKey::new([1; 32]),
            feeds: self.feeds,
            mesh: Mesh { start: self.start, ..Mesh::default() },
            timing: Timing {
                have_tick: match self.have {
                    Pace::AtOnce => Duration::ZERO,
                    Pace::Slow => Timing::default().have_tick,
                },
                ..Timing::default()
            },
            limits: Limits { live_queue_bytes: self.live_queue_bytes, ..Limits::default() },
            retention: Default::default(),
        }
    }

    /// Whether receivers have more links than they want to be pushed a log by, and see it twice.
    pub(super) fn prunes(&self) -> bool {
        let twice = self.before > 0 || self.says.iter().any(|says| *says > 1);
        self.start == Start::Flooded && self.feeds.max() < self.says.len() - 1 && twice
    }

    /// Whether the plan has every log's own server feed everybody, and nobody else.
    pub(super) fn is_tree(&self) -> bool {
        self.start == Start::Pruned && self.feeds.max() == 1
    }

    /// Whether queues are so small that they overflow without any fault.
    pub(super) const fn is_narrow(&self) -> bool {
        self.live_queue_bytes < QUEUE
    }
}

pub(super) fn origin_of(n: usize, run: u8) -> Origin {
    #[cfg(chatty_bugs)]
    let run = if is_on(Bug::OneOrigin) { 1 } else { run };
    Origin::new(((n as u128 + 1) << 8) | u128::from(run))
}

pub(super) fn server_of(n: usize) -> ServerId {
    ServerId::new(n as u128 + 1)
}

const ONE: Feeds = Feeds::Some(NonZeroU8::MIN);
const QUEUE: usize = 8 * 1024 * 1024;

/// A calm world of three servers in which everything takes its time, to be bent.
const CALM: Scope = Scope {
    name: "calm",
    what: "nothing goes wrong: nothing is repaired, nobody is asked",
    says: &[1, 0, 0],
    before: 0,
    feeds: Feeds::DEFAULT,
    start: Start::Flooded,
    crashes: 0,
    cuts: 0,
    hasty: 0,
    digests: 0,
    fsync: Pace::Slow,
    have: Pace::Slow,
    mids: Mids::Own,
    live_queue_bytes: QUEUE,
    reduced: true,
};

/// The same with fast disks and no delay before a `Have`.
const FAST: Scope = Scope { fsync: Pace::AtOnce, have: Pace::AtOnce, ..CALM };

macro_rules! scope {
    ($size:ident, $name:literal, $what:literal, $($field:ident: $value:expr),+; ..$base:expr) => {
        (Size::$size, Scope { name: $name, what: $what, $($field: $value,)+ ..$base })
    };
}

/// All scopes.
pub const SCOPES: &[(Size, Scope)] = &[
    (Size::Small, CALM),
    scope!(Small, "talk", "two servers say three things", says: &[2, 1]; ..CALM),
    scope!(Small, "cut", "a cable is cut, noticed by each end in its time, and mended",
        says: &[1, 0, 0], cuts: 1; ..FAST),
    scope!(Small, "digest", "holdings are compared in the middle of it",
        says: &[1, 0, 0], digests: 1; ..FAST),
    scope!(Small, "overflow", "links so slow that every queue is dropped",
        says: &[2, 1], live_queue_bytes: 1; ..CALM),
    scope!(Small, "alias", "a client repeats one message at the other server",
        says: &[1, 1], mids: Mids::Same; ..CALM),
    scope!(Small, "crash", "one of two servers dies in the middle of everything, and starts again",
        says: &[1, 0], crashes: 1; ..CALM),
    scope!(Small, "prune-1", "receivers prune to one feed at their second duplicate",
        says: &[1, 0, 0], before: 1, feeds: ONE; ..FAST),
    scope!(Small, "plan", "servers begin pruned, as real ones do, and repair nothing",
        says: &[1, 0, 0], feeds: ONE, start: Start::Pruned; ..FAST),
    scope!(Small, "plan-cut", "servers begin pruned, and a cable of the plan is cut",
        says: &[1, 0, 0], feeds: ONE, start: Start::Pruned, cuts: 1; ..FAST),
    scope!(Small, "plan-2", "servers begin pruned, and two of three say something at once",
        says: &[1, 1, 0], feeds: ONE, start: Start::Pruned; ..FAST),
    scope!(Small, "two-says", "two of three servers say something at once",
        says: &[1, 1, 0]; ..FAST),
    scope!(Small, "cut-hasty", "the same as cut, and a timer fires too soon",
        says: &[1, 0, 0], cuts: 1, hasty: 1; ..FAST),
    scope!(Small, "cuts", "two cuts", says: &[1, 0, 0], cuts: 2; ..FAST),
    scope!(Small, "prune", "receivers prune to one feed",
        says: &[3, 0, 0], feeds: ONE; ..FAST),
    scope!(Small, "crash-fast", "one of three servers dies; disks and announcements take no time",
        says: &[1, 0, 0], crashes: 1; ..FAST),
    scope!(Small, "crash-3", "one of three servers dies",
        says: &[1, 0, 0], crashes: 1; ..CALM),
    scope!(Large, "prune-1-cut", "receivers prune at their second duplicate, and a cable is cut",
        says: &[1, 0, 0], before: 1, feeds: ONE, cuts: 1; ..FAST),
    scope!(Large, "prune-cut", "receivers prune to one feed, and a cable is cut",
        says: &[2, 0, 0], feeds: ONE, cuts: 1; ..FAST),
    scope!(Large, "alias-cut", "one message at two servers, and a cut",
        says: &[1, 1, 0], mids: Mids::Same, cuts: 1; ..FAST),
    scope!(Large, "crash-2", "three events and a crash of one of two servers",
        says: &[2, 1], crashes: 1; ..CALM),
    scope!(Large, "cut-slow", "a cable is cut while disks and announcements take their time",
        says: &[1, 0, 0], cuts: 1; ..CALM),
    scope!(Large, "cut-2-slow", "the same, and two servers say something",
        says: &[1, 1, 0], cuts: 1; ..CALM),
    scope!(Large, "crash-3-2", "three servers, two of them say something, and one dies",
        says: &[1, 1, 0], crashes: 1; ..CALM),
    scope!(Large, "crash-3-2-one", "three servers, one of them says two things, and one dies",
        says: &[2, 0, 0], crashes: 1; ..CALM),
    scope!(Large, "crash-fast-2", "crash-3-2 with disks and announcements that take no time",
        says: &[1, 1, 0], crashes: 1; ..FAST),
    scope!(Large, "crash-cut", "one of three servers dies, and a cable is cut",
        says: &[1, 0, 0], crashes: 1, cuts: 1; ..CALM),
    scope!(Large, "crash-twice", "of three servers two die, or one dies twice",
        says: &[1, 0, 0], crashes: 2; ..CALM),
];
