//! The faults that a round may have: one list. Each says which others it goes with, draws its
//! victims and measures, and becomes a [`Strike`]: how it is made, how it shows, how it ends, and
//! what proves that it happened.

use std::time::Duration;

use chatty_core::rng::Rng;
use chatty_simulations::history::{History, Server};

use super::faults::{clock, disks, links, processes, relayed};
use super::recorder::Recorder;
use super::stage::Stage;
use super::table::Row;

/// What may be done to the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A server is killed and started again.
    Kill,
    /// All servers are killed at once and started again.
    KillAll,
    /// A server's process stands still for a while.
    Stop,
    /// All servers are drained and started, one after the other.
    RollingRestart,
    /// Two servers do not hear each other.
    CutPair,
    /// A server does not hear another, which hears it.
    CutOneWay,
    /// A minority of the servers, with their clients, and the rest do not hear each other.
    Isolate,
    /// Packets get lost between some servers, and between a server and clients.
    Loss,
    /// A server's cable is narrow.
    Narrow,
    /// A server is far from all others, or from another one.
    Far,
    /// Packets overtake each other, and some come twice.
    Reorder,
    /// A server's data is deleted; it comes back as a new one.
    Wipe,
    /// A copy of a server's data folder is started beside the original.
    Copy,
    /// A server's data folder is put back as it was; then it is wiped.
    Rollback,
    /// A server's disk is full.
    FullDisk,
    /// A server's clock is wrong.
    Clock,
}

/// What a fault takes away, for which goes with which.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// Packets, now and then, or their time.
    Packets,
    /// Ways between servers.
    Ways,
    /// A process.
    Process,
    /// All processes.
    Processes,
    /// A disk.
    Disk,
    /// Room on a disk.
    Room,
    /// Nothing that all others being there would not make good.
    NothingAmongAll,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Kill,
        Self::KillAll,
        Self::Stop,
        Self::RollingRestart,
        Self::CutPair,
        Self::CutOneWay,
        Self::Isolate,
        Self::Loss,
        Self::Narrow,
        Self::Far,
        Self::Reorder,
        Self::Wipe,
        Self::Copy,
        Self::Rollback,
        Self::FullDisk,
        Self::Clock,
    ];

    /// Its name, as on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::KillAll => "kill-all",
            Self::Stop => "stop",
            Self::RollingRestart => "rolling-restart",
            Self::CutPair => "cut-pair",
            Self::CutOneWay => "cut-one-way",
            Self::Isolate => "isolate",
            Self::Loss => "loss",
            Self::Narrow => "narrow",
            Self::Far => "far",
            Self::Reorder => "reorder",
            Self::Wipe => "wipe",
            Self::Copy => "copy",
            Self::Rollback => "rollback",
            Self::FullDisk => "full-disk",
            Self::Clock => "clock",
        }
    }

    const fn takes(self) -> Takes {
        match self {
            Self::Kill | Self::Stop => Takes::Process,
            Self::KillAll => Takes::Processes,
            Self::CutPair | Self::CutOneWay | Self::Isolate => Takes::Ways,
            Self::Loss | Self::Narrow | Self::Far | Self::Reorder => Takes::Packets,
            Self::Wipe | Self::Rollback => Takes::Disk,
            Self::FullDisk => Takes::Room,
            // A wrong clock and a copy are told by the others, a drain waits for them.
            Self::RollingRestart | Self::Copy | Self::Clock => Takes::NothingAmongAll,
        }
    }

    /// Whether chatty's promises hold under both at once, so that both show: one disk is lost at a
    /// time (`docs/guarantees.md`), and what the others are to find out needs others.
    pub fn goes_with(self, other: Self) -> bool {
        if self == other {
            return false;
        }
        let (first, second) = (self.min(other), self.max(other));
        match (first.takes(), second.takes()) {
            // A narrow cable may carry less than is said: a drain, which waits for every disk, does not
            // end, and who cannot hear the original takes its copy for the original started again. There
            // is one relay.
            _ if matches!(
                (first, second),
                (Self::RollingRestart, Self::Narrow)
                    | (Self::Narrow, Self::Copy)
                    | (Self::Far, Self::Reorder)
            ) =>
            {
                false
            }
            (Takes::Packets, _) | (_, Takes::Packets) => true,
            (Takes::NothingAmongAll, _) | (_, Takes::NothingAmongAll) => false,
            // Cut off or dead, nobody tells an old disk that it is old.
            (Takes::Ways | Takes::Processes, Takes::Disk) => second != Self::Rollback,
            // A server that was killed may find no room to start.
            (Takes::Processes, Takes::Room) => false,
            (Takes::Process, Takes::Processes) | (Takes::Processes, Takes::Process) => false,
            (Takes::Disk, Takes::Disk) => false,
            (Takes::Disk, Takes::Room) => first == Self::Wipe,
            _ => true,
        }
    }

    /// In which order faults of one round are made: processes die under lossy links, not before.
    pub fn rank(self) -> usize {
        match self.takes() {
            Takes::Packets => 0,
            Takes::Ways => 1,
            Takes::Disk | Takes::Room | Takes::NothingAmongAll => 2,
            Takes::Process | Takes::Processes => 3,
        }
    }

    /// Draws whom it strikes and how hard.
    pub fn draw(self, dice: &mut Dice) -> Box<dyn Strike> {
        match self {
            Self::Kill => Box::new(processes::Kill::draw(dice)),
            Self::KillAll => Box::new(processes::KillAll::draw(dice)),
            Self::Stop => Box::new(processes::Stop::draw(dice)),
            Self::RollingRestart => Box::new(processes::RollingRestart::default()),
            Self::CutPair => Box::new(links::Cut::draw_pair(dice)),
            Self::CutOneWay => Box::new(links::Cut::draw_one_way(dice)),
            Self::Isolate => Box::new(links::Isolate::draw(dice)),
            Self::Loss => Box::new(links::Loss::draw(dice)),
            Self::Narrow => Box::new(links::Narrowed::draw(dice)),
            Self::Far => Box::new(relayed::Far::draw(dice)),
            Self::Reorder => Box::new(relayed::Reorder::draw(dice)),
            Self::Wipe => Box::new(disks::Wipe::draw(dice)),
            Self::Copy => Box::new(disks::Copy::draw(dice)),
            Self::Rollback => Box::new(disks::Rollback::draw(dice)),
            Self::FullDisk => Box::new(disks::FullDisk::draw(dice)),
            Self::Clock => Box::new(clock::Skew::draw(dice)),
        }
    }
}

/// Draws victims and measures for the faults of one round.
#[derive(Debug)]
pub struct Dice {
    rng: Rng,
    /// Servers that no fault of the round has to itself yet, in a drawn order.
    victims: Vec<Server>,
    servers: usize,
    longest: Duration,
}

impl Dice {
    /// For so many servers, and faults that last no longer than that.
    pub fn new(seed: u64, servers: usize, longest: Duration) -> Self {
        let mut dice = Self { rng: Rng::new(seed), victims: Vec::new(), servers, longest };
        dice.victims = dice.shuffled();
        dice
    }

    /// How many servers there are.
    pub const fn servers(&self) -> usize {
        self.servers
    }

    /// A server that no other fault of the round has drawn for itself, while there is one.
    pub fn victim(&mut self) -> Server {
        self.victims.pop().unwrap_or_default()
    }

    /// All servers in a drawn order.
    pub fn shuffled(&mut self) -> Vec<Server> {
        let mut order: Vec<_> = (0..self.servers).collect();
        shuffle(&mut order, &mut self.rng);
        order
    }

    /// A number from the first up to and without the second.
    pub fn number(&mut self, from: u64, to: u64) -> u64 {
        from + self.rng.below(to.saturating_sub(from))
    }

    /// True once in so many times.
    pub const fn one_in(&mut self, n: u64) -> bool {
        self.rng.one_in(n)
    }

    /// So many milliseconds at least and at most, and no more than faults may last here.
    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.number(from, to)).min(self.longest)
    }
}

/// Puts things in a drawn order.
pub fn shuffle<T>(all: &mut [T], rng: &mut Rng) {
    for n in (1..all.len()).rev() {
        all.swap(n, rng.below(n as u64 + 1) as usize);
    }
}

/// The round that a strike is part of.
pub struct Scene<'a> {
    /// The servers.
    pub stage: &'a mut Stage,
    /// What the history is to know.
    pub recorder: &'a Recorder,
    /// What was done and seen, with the time, for a person.
    pub notes: Vec<String>,
}

impl Scene<'_> {
    /// Writes down what was done or seen.
    pub fn note(&mut self, what: impl std::fmt::Display) {
        let micros = self.recorder.now().as_micros();
        self.notes.push(format!("{}.{:03} s {what}", micros / 1_000_000, micros / 1000 % 1000));
    }
}

/// A fault with its victims and measures drawn. A round makes it, waits until it shows, lets it last,
/// and ends it; an error of any step is a finding, as a broken promise is.
pub trait Strike {
    /// What it does to whom, in words.
    fn says(&self) -> String;

    /// Makes it.
    ///
    /// # Errors
    /// What did not go as it must.
    fn strike(&mut self, scene: &mut Scene<'_>) -> Result<(), String>;

    /// Waits until it shows, and for what must follow from it while it lasts.
    ///
    /// # Errors
    /// What does not show.
    fn shows(&mut self, scene: &mut Scene<'_>) -> Result<(), String>;

    /// How long it lasts once it shows.
    fn lasts(&self) -> Duration;

    /// Ends it, and says what proves that it happened.
    ///
    /// # Errors
    /// What did not heal, or that nothing proves it.
    fn heal(&mut self, scene: &mut Scene<'_>) -> Result<String, String>;

    /// Whether it can end only when the others are well.
    fn ends_last(&self) -> bool {
        false
    }

    /// Whether it leaves a majority of the servers linked and writing, so that people are told
    /// `replicated` while it lasts.
    fn leaves_majority(&self) -> bool {
        true
    }

    /// What clients were told that they must not have been told under this fault.
    fn judge(&self, _history: &History) -> Vec<String> {
        Vec::new()
    }

    /// What stands in a table of rounds with only this fault.
    fn cells(&self) -> Row {
        Row::new()
    }
}
