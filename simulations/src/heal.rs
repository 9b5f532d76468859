//! A healed world: what must become alike, and what must hold once it is.

use chatty_core::io::Standing;

use crate::faults::Fault;
use crate::server::Server;
use crate::world::World;

impl World {
    /// What is not alike yet in a healed world, in words.
    pub(crate) fn differences(&self) -> Option<String> {
        if let Some(server) = self.originals().find(|server| !server.is_alive()) {
            return Some(format!("{} is down", server.slot));
        }
        let behind = || self.is_behind().then(|| "a client has not heard all".to_string());
        self.disks_differ().or_else(|| self.people_differ()).or_else(behind)
    }

    fn disks_differ(&self) -> Option<String> {
        if let Some(copy) = self.servers[self.swarm.servers..].iter().find(|copy| !copy.is_over()) {
            return Some(format!("a copy of {} still runs", copy.slot));
        }
        if let Some(log) = self.open_forks().first() {
            return Some(format!("there are two of log {log}"));
        }
        if let Some(n) = self.unverified() {
            return Some(format!("the disk of {} is not verified", self.servers[n].slot));
        }
        let first = self.servers[0].replica.as_ref()?;
        for server in self.originals() {
            let Some(replica) = &server.replica else { continue };
            if replica.durable() != first.durable() {
                return Some(format!(
                    "{} and {} hold different vectors: {:?} and {:?}",
                    self.servers[0].slot,
                    server.slot,
                    first.durable(),
                    replica.durable()
                ));
            }
            match replica.broadcast().standing() {
                Standing::Sound => {}
                Standing::Lossy => {
                    return Some(format!("{} has not made good what it lost", server.slot));
                }
                // The first edition's operator looks once.
                Standing::RolledBack if !self.is_many() => {}
                Standing::RolledBack => {
                    return Some(format!("{} has to be wiped", server.slot));
                }
            }
            if server.disk.is_unerased() || server.disk.sums() != self.servers[0].disk.sums() {
                return Some(format!("{} has erased more or less than others", server.slot));
            }
            if !replica.broadcast().is_saved() {
                return Some(format!("{} is still writing", server.slot));
            }
        }
        None
    }

    /// Everything that must hold once all agree.
    pub(crate) fn final_checks(&self) -> Result<(), String> {
        let first = &self.servers[0];
        let put_back = self
            .happened
            .iter()
            .any(|h| [Fault::RollBack, Fault::Copy, Fault::Clone].contains(&h.strike.fault));
        self.check_unknown()?;
        for server in self.originals() {
            if server.disk.standing() == Standing::RolledBack && !put_back {
                return Err(format!("{} was accused, and no older disk was put back", server.slot));
            }
            if server.disk.chains() != first.disk.chains() {
                return Err(format!("{} and {} hold different logs", first.slot, server.slot));
            }
            if server.disk.sums() != first.disk.sums() {
                return Err(format!("{} and {} have different sums", first.slot, server.slot));
            }
            for room in first.disk.rooms() {
                if server.disk.timeline(room) != first.disk.timeline(room) {
                    return Err(format!(
                        "{} and {} show room {room} differently",
                        first.slot, server.slot
                    ));
                }
            }
            let rooms = |server: &Server| {
                server.replica.as_ref().map(|replica| replica.rooms().without_empty_conversations())
            };
            if rooms(server) != rooms(first) {
                return Err(format!("{} and {} have other registers", first.slot, server.slot));
            }
        }
        self.check_people()
    }
}
