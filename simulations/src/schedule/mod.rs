//! A run as data: what the world is made of, and what happens to it when.
//!
//! A seed draws a schedule; living through it is determined by it alone. A run tells which strikes
//! happened, and so gives a schedule without chance in it, from which things can be taken out
//! ([`shrink`]) and which can be written down and replayed ([`text`]).

pub mod shrink;
pub mod text;

use std::time::Duration;

use chatty_core::rng::Rng;
use chatty_core::session::Level;
use chatty_core::time::Time;

use crate::faults::{Fault, Swarm};

/// Of what is said and read, one in so many is in the busy room.
const BUSY_ONE_IN: u64 = 4;

/// Of the seeds, one in so many draws one of the kinds of fault that came later: about as many as
/// draw one of the others.
const LATER_ONE_IN: u64 = 8;
/// How hard each of these is at least drawn to be, at most.
const LATER_HARDEST: u64 = 60;

/// A run as data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// What the world is made of.
    pub swarm: Swarm,
    /// Everything that is left to chance comes from this.
    pub luck: u64,
    /// What happens, in order of time.
    pub entries: Vec<Entry>,
    /// Whether strikes that cannot happen are drawn again.
    pub redraws: Redraws,
    /// A fault of the world itself, to see whether the checks find it.
    pub plant: Option<Plant>,
}

/// What becomes of a strike that cannot happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redraws {
    /// It strikes another one, or later.
    Again,
    /// Nothing.
    Never,
}

/// A fault of the world itself. No run of a seed has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Disks call things synced that a crash takes away.
    LyingDisk,
}

/// What happens at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When, since all clients were in their rooms.
    pub at: Duration,
    /// What.
    pub what: Planned,
}

/// What may be planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Planned {
    /// A fault.
    Strike(Strike),
    /// A person does something.
    Act(Act),
}

/// A fault that begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strike {
    /// Which.
    pub fault: Fault,
    /// Whom it strikes, if it strikes a server.
    pub server: usize,
    /// The other end, if it strikes a way.
    pub other: usize,
    /// Whom it strikes, if it strikes a client.
    pub client: usize,
    /// For how long.
    pub long: Duration,
    /// How hard: 1 to 100.
    pub hard: u8,
    /// What is left to chance in it comes from this.
    pub luck: u64,
}

/// A person does something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// Who.
    pub client: usize,
    /// What.
    pub does: Does,
}

/// What a person may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Does {
    /// Says something in a room.
    Says {
        /// Which.
        room: usize,
        /// How safe it must be.
        level: Level,
        /// How long it is, beside its name.
        length: usize,
    },
    /// Says something to somebody.
    Tells {
        /// To whom.
        client: usize,
        /// How safe it must be.
        level: Level,
        /// How long it is, beside its name.
        length: usize,
    },
    /// Reads the newest lines of a room.
    Reads {
        /// Which.
        room: usize,
        /// How many.
        lines: u32,
    },
    /// Goes by another name.
    Renames(u64),
    /// Sets the topic of the busy room.
    Topic(u64),
    /// Puts somebody out of the busy room.
    Kicks(usize),
    /// Comes into the busy room.
    Enters,
    /// Says something in the busy room.
    Calls {
        /// How safe it must be.
        level: Level,
        /// How long it is, beside its name.
        length: usize,
    },
    /// Reads so many of the newest lines of the busy room.
    Looks(u32),
}

impl Schedule {
    /// The schedule of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut swarm = Swarm::draw(&mut rng);
        let luck = rng.bits();
        let span = u64::try_from(swarm.turmoil.as_micros()).unwrap_or(u64::MAX);
        let mut entries = Vec::new();
        for _ in 0..swarm.strikes {
            let (fault, hard) = swarm.faults[rng.below(swarm.faults.len() as u64) as usize];
            // Late enough to be hit by it, early enough to be hit again.
            let at = Duration::from_micros(rng.below(span - span / 8));
            let strike = Strike::draw(&mut rng, &swarm, fault, hard);
            entries.push(Entry { at, what: Planned::Strike(strike) });
        }
        for _ in 0..swarm.messages {
            let at = Duration::from_micros(rng.below(span));
            entries.push(Entry { at, what: Planned::Act(Act::draw(&mut rng, &swarm)) });
        }
        go_busy(seed, &mut entries);
        strike_more(seed, &mut swarm, &mut entries);
        entries.sort_by_key(|entry| entry.at);
        Self { swarm, luck, entries, redraws: Redraws::Again, plant: None }
    }

    /// How many strikes are in it.
    pub fn strikes(&self) -> usize {
        self.entries.iter().filter(|entry| matches!(entry.what, Planned::Strike(_))).count()
    }
}

/// Has people say and read some of it in the busy room, where others are put out. From luck of its
/// own, so that everything else of a seed is as it was before they did.
fn go_busy(seed: u64, entries: &mut [Entry]) {
    let mut rng = Rng::new(!seed);
    for entry in entries {
        let Planned::Act(act) = &mut entry.what else { continue };
        if rng.one_in(BUSY_ONE_IN) {
            act.does = match act.does {
                Does::Says { level, length, .. } => Does::Calls { level, length },
                Does::Reads { lines, .. } => Does::Looks(lines),
                _ => continue,
            };
        }
    }
}

/// Draws kinds of fault that came after the others. From luck of its own, so that everything else of
/// a seed is as it was before there were any; most seeds draw none.
fn strike_more(seed: u64, swarm: &mut Swarm, entries: &mut Vec<Entry>) {
    let mut rng = Rng::new(!seed.rotate_left(32));
    let span = u64::try_from(swarm.turmoil.as_micros()).unwrap_or(u64::MAX);
    for fault in &Fault::ALL[Fault::SECOND..] {
        if !rng.one_in(LATER_ONE_IN) {
            continue;
        }
        let hardest = (LATER_HARDEST + rng.below(101 - LATER_HARDEST)) as u8;
        swarm.faults.push((*fault, hardest));
        for _ in 0..1 + rng.below(3) {
            swarm.strikes += 1;
            let at = Duration::from_micros(rng.below(span - span / 8));
            let strike = Strike::draw(&mut rng, swarm, *fault, hardest);
            entries.push(Entry { at, what: Planned::Strike(strike) });
        }
    }
}

impl Strike {
    fn draw(rng: &mut Rng, swarm: &Swarm, fault: Fault, hardest: u8) -> Self {
        let hard = 1 + rng.below(u64::from(hardest)) as u8;
        let long = 20_000 + rng.below(60_000 * u64::from(hard));
        let mut strike = Self {
            fault,
            server: 0,
            other: 0,
            client: 0,
            long: Duration::from_micros(long),
            hard,
            // Small enough for a number in a file.
            luck: rng.below(1 << 32),
        };
        strike.aim(rng, swarm);
        strike
    }

    /// Draws whom it strikes.
    pub(crate) fn aim(&mut self, rng: &mut Rng, swarm: &Swarm) {
        let servers = swarm.servers as u64;
        self.server = rng.below(servers) as usize;
        self.other = (self.server + 1 + rng.below(servers - 1) as usize) % swarm.servers;
        self.client = rng.below(swarm.clients as u64) as usize;
    }

    /// How long, in microseconds.
    pub(crate) fn micros(&self) -> u64 {
        u64::try_from(self.long.as_micros()).unwrap_or(u64::MAX)
    }
}

impl Act {
    fn draw(rng: &mut Rng, swarm: &Swarm) -> Self {
        let client = rng.below(swarm.clients as u64) as usize;
        let (rooms, clients) = (swarm.rooms as u64, swarm.clients as u64);
        let level = if rng.one_in(2) { Level::Stored } else { Level::Replicated };
        let length = rng.below(60) as usize;
        let does = match rng.below(20) {
            0 => Does::Renames(rng.below(4)),
            1 => Does::Topic(rng.below(1000)),
            2 => Does::Kicks(rng.below(clients) as usize),
            3 => Does::Enters,
            4 | 5 => Does::Tells { client: rng.below(clients) as usize, level, length },
            6..8 => {
                Does::Reads { room: rng.below(rooms) as usize, lines: 1 + rng.below(40) as u32 }
            }
            _ => Does::Says { room: rng.below(rooms) as usize, level, length },
        };
        Self { client, does }
    }
}

/// A fault that happened.
#[derive(Clone, Debug)]
pub struct Happened {
    /// What was drawn, aimed as it struck.
    pub strike: Strike,
    /// When it was to strike, since all clients were in their rooms.
    pub planned: Duration,
    /// When it began.
    pub from: Time,
    /// When it ended, as far as it has a length.
    pub until: Time,
    /// Which servers it struck.
    pub servers: Vec<usize>,
    /// Which client it struck.
    pub client: Option<usize>,
}
