//! Whether a fault that began changed anything. A way that was cut while nothing went over it, or a slow
//! disk that nobody wrote to, has tested nothing, and does not count as a fault that happened.
//!
//! Of two faults of a kind that overlap at one place both are said to have bitten.

use std::time::Duration;

use crate::faults::{Counts, Fault};
use crate::schedule::{Entry, Happened, Planned};
use crate::world::World;

/// The last blip of a strike comes so long after its first one, at most.
const BLIPS: Duration = Duration::from_secs(4);

/// Where a fault was felt.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// On the way from one server to another.
    Way(usize, usize),
    /// At a server.
    Server(usize),
    /// At a client.
    Client(usize),
}

/// Faults that hold up what is under way between servers.
pub(crate) const CUTS: &[Fault] =
    &[Fault::Cut, Fault::OneWay, Fault::Isolate, Fault::Partition, Fault::Flap, Fault::Blip];

/// Faults that hold up what is under way between a client and its server.
pub(crate) const CLIENT_CUTS: &[Fault] = &[Fault::ClientCut, Fault::Blip];

/// Faults that make a wall clock wrong.
pub(crate) const CLOCKS: &[Fault] = &[Fault::Clock, Fault::Skew];

impl Fault {
    /// Whether its beginning is all there is of it: who was struck is dead, or its connection.
    const fn bites_at_once(self) -> bool {
        match self {
            Self::Crash
            | Self::CrashAll
            | Self::Wipe
            | Self::Reset
            | Self::ResetAll
            | Self::ClientReset
            | Self::Stop
            | Self::Torn
            | Self::Copy
            | Self::Drain
            | Self::FalseHint
            | Self::ClientCrash
            | Self::ClientForgets
            | Self::AnswerLost => true,
            Self::RollBack
            | Self::Damage
            | Self::Cut
            | Self::OneWay
            | Self::Isolate
            | Self::Pause
            | Self::Clock
            | Self::SlowDisk
            | Self::DiskFull
            | Self::ClientCut
            | Self::Partition
            | Self::Flap
            | Self::Blip
            | Self::Loss
            | Self::SlowLink
            | Self::NarrowLink
            | Self::Skew
            | Self::SlowServer
            | Self::SlowClient => false,
        }
    }
}

impl Happened {
    /// Whether what is felt there may be its doing.
    fn reaches(&self, place: Place) -> bool {
        let strike = &self.strike;
        let all_ways = strike.fault == Fault::Isolate || strike.fault == Fault::Flap;
        match place {
            Place::Way(a, b) if all_ways => [a, b].contains(&strike.server),
            Place::Way(a, b) => self.servers.contains(&a) && self.servers.contains(&b),
            Place::Server(n) => self.servers.contains(&n),
            Place::Client(p) => strike.fault == Fault::Blip || self.client == Some(p),
        }
    }
}

impl World {
    /// Something is late, lost or refused there, as faults of these kinds make it.
    pub(crate) fn bite(&mut self, faults: &[Fault], place: Place) {
        let now = self.time;
        for happened in self.happened.iter_mut().rev().filter(|happened| !happened.bit) {
            let blips = if happened.strike.fault == Fault::Blip { BLIPS } else { Duration::ZERO };
            happened.bit = faults.contains(&happened.strike.fault)
                && happened.until.max(happened.from + blips) >= now
                && happened.reaches(place);
        }
    }

    /// A fault has begun.
    pub(super) fn note_begun(&mut self, mut happened: Happened) {
        happened.bit = happened.strike.fault.bites_at_once();
        self.happened.push(happened);
    }

    /// How often each fault changed something; began, and changed nothing before it ended; never began.
    pub(crate) fn fault_counts(&self) -> [Counts; 3] {
        let mut counts = [Counts::new(), Counts::new(), Counts::new()];
        for Happened { strike, bit, .. } in &self.happened {
            *counts[usize::from(!*bit)].entry(strike.fault).or_insert(0) += 1;
        }
        for Entry { what, .. } in &self.entries {
            if let Planned::Strike(strike) = what {
                *counts[2].entry(strike.fault).or_insert(0) += 1;
            }
        }
        let began = self.happened.iter().map(|happened| happened.strike.fault);
        for fault in began {
            if let Some(drawn) = counts[2].get_mut(&fault) {
                *drawn -= 1;
            }
        }
        counts[2].retain(|_, count| *count > 0);
        counts
    }
}
