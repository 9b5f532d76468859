//! Makes a schedule that fails short: what can be taken out of it so that it still fails for the
//! same reason is taken out (delta debugging: Zeller and Hildebrandt, 2002).
//!
//! What is left to chance has a stream for each server, way and client, so most of what is left
//! goes on as it did; where it does not, a few other streams are tried.

use std::time::Duration;

use super::{Entry, Planned, Schedule};
use crate::faults::{BOUNDS, Swarm};
use crate::world::{Failure, World};

/// Other streams of chance that are tried for a shorter schedule.
const LUCKS: u64 = 2;

/// What shrinking came to.
pub struct Shrunk {
    /// A short schedule that fails.
    pub schedule: Schedule,
    /// How.
    pub failure: Failure,
    /// Runs that it took.
    pub runs: usize,
}

/// Makes it short, within so many runs. `None` if it does not fail at all.
pub fn shrink(schedule: &Schedule, runs_max: usize) -> Option<Shrunk> {
    let failure = fails(schedule)?;
    let kind = failure.kind();
    let best = Shrunk { schedule: schedule.clone(), failure, runs: 1 };
    let mut shrinker = Shrinker { kind, best, runs_max };
    loop {
        let before = shrinker.best.schedule.clone();
        shrinker.entries();
        shrinker.world();
        shrinker.strikes();
        if shrinker.best.schedule == before || shrinker.is_spent() {
            break;
        }
    }
    Some(shrinker.best)
}

fn fails(schedule: &Schedule) -> Option<Failure> {
    crate::live(&mut World::of(schedule)).err()
}

struct Shrinker {
    kind: String,
    best: Shrunk,
    runs_max: usize,
}

impl Shrinker {
    const fn is_spent(&self) -> bool {
        self.best.runs >= self.runs_max
    }

    /// Takes a schedule if it fails for the same reason, perhaps with other luck.
    fn accepts(&mut self, candidate: Schedule) -> bool {
        if candidate == self.best.schedule {
            return false;
        }
        for more in 0..=LUCKS {
            if self.is_spent() {
                return false;
            }
            let luck = candidate.luck.wrapping_add(more);
            let schedule = Schedule { luck, ..candidate.clone() };
            self.best.runs += 1;
            if let Some(failure) = fails(&schedule).filter(|failure| failure.kind() == self.kind) {
                (self.best.schedule, self.best.failure) = (schedule, failure);
                return true;
            }
        }
        false
    }

    fn try_entries(&mut self, entries: Vec<Entry>) -> bool {
        let candidate = Schedule { entries, ..self.best.schedule.clone() };
        self.accepts(candidate)
    }

    /// Takes out what happens: all of one client, then runs of entries, halving them.
    fn entries(&mut self) {
        for client in 0..self.best.schedule.swarm.clients {
            let of =
                |entry: &Entry| matches!(&entry.what, Planned::Act(act) if act.client == client);
            let rest = self.best.schedule.entries.iter().filter(|e| !of(e)).cloned().collect();
            self.try_entries(rest);
        }
        let mut size = self.best.schedule.entries.len().div_ceil(2).max(1);
        loop {
            let mut from = 0;
            while from < self.best.schedule.entries.len() && !self.is_spent() {
                let mut rest = self.best.schedule.entries.clone();
                rest.drain(from..rest.len().min(from + size));
                if !self.try_entries(rest) {
                    from += size;
                }
            }
            if size == 1 || self.is_spent() {
                return;
            }
            size = size.div_ceil(2);
        }
    }

    /// Makes the world smaller: fewer servers and clients, plain bounds, a shorter turmoil.
    fn world(&mut self) {
        let plain = Swarm::calm(3, 1);
        let best = |shrinker: &Self| shrinker.best.schedule.clone();
        let mut candidate = best(self);
        let last = candidate.entries.last().map_or(Duration::ZERO, |entry| entry.at);
        candidate.swarm.turmoil = last + Duration::from_millis(100);
        self.accepts(candidate);
        for fewer in 1..best(self).swarm.clients {
            let mut candidate = best(self);
            candidate.swarm.clients = fewer;
            if candidate.is_possible() && self.accepts(candidate) {
                break;
            }
        }
        let mut candidate = best(self);
        candidate.swarm.servers = 3;
        if candidate.is_possible() {
            self.accepts(candidate);
        }
        let simpler: [fn(&mut Swarm, &Swarm); 6] = [
            |swarm, plain| swarm.limits = plain.limits.clone(),
            |swarm, plain| swarm.retention = plain.retention,
            |swarm, plain| swarm.mesh = plain.mesh,
            |swarm, plain| swarm.feeds = plain.feeds,
            |swarm, _| (swarm.unlike, swarm.clocks_ms) = (1, 0),
            |swarm, _| swarm.rooms = 1,
        ];
        for simpler in simpler {
            let mut candidate = best(self);
            simpler(&mut candidate.swarm, &plain);
            if candidate.is_possible() {
                self.accepts(candidate);
            }
        }
        for (_, of) in BOUNDS {
            let (mut candidate, mut usual) = (best(self), plain.limits.clone());
            *of(&mut candidate.swarm.limits) = *of(&mut usual);
            self.accepts(candidate);
        }
    }

    /// Makes strikes shorter and softer.
    fn strikes(&mut self) {
        for nth in 0..self.best.schedule.entries.len() {
            for part in [8_u8, 2] {
                let mut candidate = self.best.schedule.clone();
                if let Some(Entry { what: Planned::Strike(strike), .. }) =
                    candidate.entries.get_mut(nth)
                {
                    // Whole microseconds: a file has no more.
                    strike.long = Duration::from_micros(strike.micros() / u64::from(part));
                    strike.hard = (strike.hard / part).max(1);
                    self.accepts(candidate);
                }
            }
        }
    }
}

impl Schedule {
    /// Whether nobody in it is missing from its world.
    fn is_possible(&self) -> bool {
        let (servers, clients, rooms) = (self.swarm.servers, self.swarm.clients, self.swarm.rooms);
        self.entries.iter().all(|entry| match &entry.what {
            Planned::Strike(s) => s.server < servers && s.other < servers && s.client < clients,
            Planned::Act(act) => {
                act.client < clients
                    && match act.does {
                        super::Does::Says { room, .. } | super::Does::Reads { room, .. } => {
                            room < rooms
                        }
                        super::Does::Tells { client, .. } | super::Does::Kicks(client) => {
                            client < clients
                        }
                        super::Does::Renames(_)
                        | super::Does::Topic(_)
                        | super::Does::Enters
                        | super::Does::Calls { .. }
                        | super::Does::Looks(_) => true,
                    }
            }
        })
    }
}
