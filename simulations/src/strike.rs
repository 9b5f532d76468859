//! Making faults happen, healing the world, and what must hold in a healed one.

use std::time::Duration;

use chatty_core::id::{LinkId, ServerId};
use chatty_core::io::{Input, Standing};
use chatty_core::vector::Vector;

use crate::disk::Disk;
use crate::faults::Fault;
use crate::world::{Action, Relent, World};

impl World {
    /// A fault begins, if there is somebody left to strike; only then it counts.
    pub(crate) fn strike(&mut self, fault: Fault) {
        if !self.turmoil {
            return;
        }
        let n = self.rng.below(self.servers.len() as u64) as usize;
        let m =
            (n + 1 + self.rng.below(self.servers.len() as u64 - 1) as usize) % self.servers.len();
        let p = self.rng.below(self.people.len() as u64) as usize;
        let long = 100_000 + self.rng.below(6_000_000);
        let happened = match fault {
            Fault::Crash => self.crash(n, long),
            Fault::CrashAll => {
                let all: Vec<bool> = (0..self.servers.len()).map(|n| self.crash(n, long)).collect();
                all.contains(&true)
            }
            Fault::Wipe => self.wipe(n, long),
            Fault::RollBack => self.keep_disk(n),
            Fault::Cut => {
                self.cut_way(n, m, long);
                self.cut_way(m, n, long);
                true
            }
            Fault::OneWay => {
                self.cut_way(n, m, long);
                true
            }
            Fault::Isolate => {
                for other in (0..self.servers.len()).filter(|other| *other != n) {
                    self.cut_way(n, other, long);
                    self.cut_way(other, n, long);
                }
                true
            }
            Fault::Reset => self.reset(|ends| ends.contains(&n) && ends.contains(&m)),
            Fault::Blip => self.reset(|_| true),
            Fault::Pause => {
                let until = self.time + Duration::from_micros(long);
                let alive = self.servers[n].is_alive() && !self.servers[n].is_paused(self.time);
                if alive {
                    self.servers[n].pause(until);
                    self.at(until, Action::Relent(Relent::Resume(n)));
                }
                alive
            }
            Fault::Clock => {
                if self.servers.iter().any(|server| server.skew_ms != 0) {
                    return; // a minority of clocks is off
                }
                let off = i64::try_from(self.rng.below(20_000_000)).unwrap_or(0) - 10_000_000;
                self.servers[n].skew_ms = off;
                self.later(long, Action::Relent(Relent::MendClock(n)));
                true
            }
            Fault::SlowDisk => {
                self.servers[n].slow = true;
                self.later(long, Action::Relent(Relent::FastDisk(n)));
                true
            }
            Fault::DiskFull => {
                self.servers[n].full = true;
                self.later(long, Action::Relent(Relent::EmptyDisk(n)));
                true
            }
            Fault::Damage => self.damage(n),
            Fault::ClientCut => {
                self.cut_client(p);
                self.later(long, Action::Relent(Relent::Uncut(p)));
                true
            }
            Fault::ClientReset => {
                let line = self.lines.iter().rev().find(|(_, l)| l.person == p && l.up_at_client);
                match line.map(|(id, line)| (*id, line.conn.0)) {
                    Some((id, conn)) => {
                        self.later(0, Action::Disconnected { person: p, conn });
                        self.later(0, Action::SessionDown { line: id });
                        true
                    }
                    None => false,
                }
            }
            Fault::Stop => {
                let alive = self.servers[n].is_alive() && !self.servers[n].is_paused(self.time);
                if alive {
                    self.give(n, Input::Stop);
                    self.later(300_000, Action::Relent(Relent::End(n)));
                    self.later(300_000 + long, Action::Start { server: n });
                }
                alive
            }
        };
        if happened {
            *self.counts.entry(fault).or_insert(0) += 1;
        }
    }

    fn crash(&mut self, n: usize, long: u64) -> bool {
        let alive = self.servers[n].is_alive();
        self.kill(n);
        self.later(long, Action::Start { server: n });
        alive
    }

    /// One disk at a time: the next loss counts once the last replaced disk has caught up.
    fn may_lose_a_disk(&self) -> bool {
        let well = self.servers.iter().all(|server| server.is_alive());
        let sound = self.servers.iter().all(|server| server.disk.standing() == Standing::Sound);
        well && sound
            && self.replaced.as_ref().is_none_or(|(server, owed)| {
                owed.iter().all(|(log, upto)| self.servers[*server].disk.upto(log) >= upto)
            })
    }

    fn wipe(&mut self, n: usize, long: u64) -> bool {
        if !self.may_lose_a_disk() {
            return false;
        }
        self.replace_disk(n, long);
        true
    }

    fn replace_disk(&mut self, n: usize, long: u64) {
        self.kill(n);
        let mut rng = self.rng.clone();
        self.servers[n].lose_disk(&mut rng);
        self.rng = rng;
        self.owe(n);
        self.later(long, Action::Start { server: n });
    }

    /// A disk lost something: it has caught up when it holds what there is now.
    fn owe(&mut self, n: usize) {
        let mut owed = Vector::new();
        for server in &self.servers {
            server.disk.logs().iter().for_each(|(log, entries)| {
                owed.raise(*log, entries.len() as u64);
            });
        }
        self.replaced = Some((n, owed));
    }

    /// Somebody copies a data folder, to put it back later.
    fn keep_disk(&mut self, n: usize) -> bool {
        let kept = Box::new(self.servers[n].disk.clone());
        let id = self.servers[n].id;
        let later = 100_000 + self.rng.below(4_000_000);
        self.later(later, Action::Relent(Relent::RollBack(n, id, kept)));
        false // it counts when it is put back
    }

    fn roll_back(&mut self, n: usize, id: ServerId, kept: Disk) {
        if !self.turmoil || !self.may_lose_a_disk() || self.servers[n].id != id {
            return;
        }
        self.kill(n);
        self.owe(n);
        self.servers[n].roll_back(kept);
        *self.counts.entry(Fault::RollBack).or_insert(0) += 1;
        let down = self.rng.below(2_000_000);
        self.later(down, Action::Start { server: n });
        let until_noticed = down + 1_000_000 + self.rng.below(4_000_000);
        self.later(until_noticed, Action::Relent(Relent::Readmit(n)));
    }

    /// The operator reads that a disk was rolled back, and wipes it.
    fn readmit(&mut self, n: usize) {
        if self.servers[n].disk.standing() == Standing::RolledBack {
            self.replace_disk(n, 100_000);
        }
    }

    /// A server notices damage: it keeps of each log what comes before it, and starts again.
    fn damage(&mut self, n: usize) -> bool {
        if !self.may_lose_a_disk() {
            return false;
        }
        self.kill(n);
        self.owe(n);
        let mut rng = self.rng.clone();
        self.servers[n].cut_out_damage(&mut rng);
        self.rng = rng;
        let down = self.rng.below(1_000_000);
        self.later(down, Action::Start { server: n });
        true
    }

    fn cut_way(&mut self, from: usize, to: usize, long: u64) {
        self.block(from, to);
        self.later(long, Action::Relent(Relent::Unblock(from, to)));
    }

    fn reset(&mut self, which: impl Fn(&[usize; 2]) -> bool) -> bool {
        let cables: Vec<(u64, [usize; 2])> = self
            .cables
            .iter()
            .filter(|(_, cable)| cable.up != [false, false] && which(&cable.ends))
            .map(|(id, cable)| (*id, cable.ends))
            .collect();
        for (id, ends) in &cables {
            for end in ends {
                self.tell_link(*id, *end, Input::LinkDown(LinkId(*id)));
            }
        }
        !cables.is_empty()
    }

    pub(crate) fn relent(&mut self, relent: Relent) {
        match relent {
            Relent::Unblock(from, to) => self.unblock(from, to),
            Relent::Resume(n) => self.servers[n].resume(),
            Relent::End(n) => self.kill(n),
            Relent::MendClock(n) => self.servers[n].skew_ms = 0,
            Relent::FastDisk(n) => self.servers[n].slow = false,
            Relent::EmptyDisk(n) => self.servers[n].full = false,
            Relent::Uncut(p) => self.uncut_client(p),
            Relent::RollBack(n, id, kept) => self.roll_back(n, id, *kept),
            Relent::Readmit(n) => self.readmit(n),
        }
    }

    /// No fault begins any more; those under way end by themselves within seconds.
    pub(crate) fn heal(&mut self) {
        self.turmoil = false;
    }

    /// What is not alike yet in a healed world, in words.
    pub(crate) fn differences(&self) -> Option<String> {
        if let Some(server) = self.servers.iter().find(|server| !server.is_alive()) {
            return Some(format!("{} is down", server.slot));
        }
        self.disks_differ().or_else(|| self.people_differ())
    }

    fn disks_differ(&self) -> Option<String> {
        let first = self.servers[0].replica.as_ref()?;
        for server in &self.servers {
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
            if replica.broadcast().standing() == Standing::Lossy {
                return Some(format!("{} has not made good what it lost", server.slot));
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
        let put_back = self.counts.contains_key(&Fault::RollBack);
        for server in &self.servers {
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
            let rooms = |server: &crate::server::Server| {
                server.replica.as_ref().map(|replica| replica.rooms().without_empty_conversations())
            };
            if rooms(server) != rooms(first) {
                return Err(format!("{} and {} have other registers", first.slot, server.slot));
            }
        }
        self.check_people()
    }
}
