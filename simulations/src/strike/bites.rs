//! What becomes of strikes: a way that was cut while nothing went over it, or a slow disk that nobody
//! wrote to, has tested nothing, and does not count as a fault that happened.

use std::collections::BTreeMap;

use crate::faults::{Counts, Fault};
use crate::world::World;

/// What became of a strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// It never began: there was nobody to strike.
    Missed,
    /// It began, and has changed nothing.
    Idle,
    /// It changed something.
    Happened,
}

/// By which strike something is as it is; none in a scene that is made by hand.
pub(crate) type Cause = Option<usize>;

/// Where a fault is felt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// On the way from one server to another.
    Way(usize, usize),
    /// At a server.
    Server(usize),
    /// At a client.
    Client(usize),
}

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
            | Self::SlowClient
            | Self::Newer
            | Self::Clone
            | Self::Expired
            | Self::Rot => false,
        }
    }
}

impl World {
    /// Something is late, lost or refused there, as the last strike of that kind made it.
    pub(crate) fn bite(&mut self, fault: Fault, place: Place) {
        self.bite_by(self.causes.get(&(fault, place)).copied());
    }

    /// Something is otherwise than it would be, because of a strike.
    pub(crate) fn bite_by(&mut self, cause: Cause) {
        if let Some(plan) = cause.and_then(|nth| self.plan.get_mut(nth)) {
            plan.fate = Fate::Happened;
        }
    }

    /// A fault has begun at these.
    pub(super) fn begun(&mut self, nth: usize, servers: &[usize], client: Option<usize>) {
        let plan = &mut self.plan[nth];
        let fault = plan.strike.fault;
        plan.fate = plan.fate.max(if fault.bites_at_once() { Fate::Happened } else { Fate::Idle });
        let places: Vec<Place> = match (fault, servers) {
            (Fault::Loss | Fault::SlowLink | Fault::NarrowLink, &[a, b]) => {
                vec![Place::Way(a, b), Place::Way(b, a)]
            }
            _ => {
                let servers = servers.iter().map(|n| Place::Server(*n));
                servers.chain(client.map(Place::Client)).collect()
            }
        };
        self.causes.extend(places.into_iter().map(|place| ((fault, place), nth)));
    }

    /// How many strikes of each kind came to what.
    pub(crate) fn fates(&self) -> BTreeMap<Fate, Counts> {
        let mut fates: BTreeMap<Fate, Counts> = BTreeMap::new();
        for plan in &self.plan {
            *fates.entry(plan.fate).or_default().entry(plan.strike.fault).or_insert(0) += 1;
        }
        fates
    }
}
