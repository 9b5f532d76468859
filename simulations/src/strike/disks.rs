//! What is done to disks: lost, put back, damaged. One at a time: the next loss counts once the
//! last replaced disk has caught up.

use std::time::Duration;

use chatty_core::id::ServerId;
use chatty_core::io::Standing;
use chatty_core::vector::Vector;

use super::{Relent, Struck};
use crate::disk::Disk;
use crate::luck::Stream;
use crate::world::{Action, World};

/// Within this a disk that was put back is accused, if it lacks what it announced.
const JUDGED: Duration = Duration::from_secs(1);

impl World {
    /// The servers of the configuration; copies of disks are not.
    pub(crate) fn originals(&self) -> impl Iterator<Item = &crate::server::Server> {
        self.servers.iter().take(self.swarm.servers)
    }

    pub(super) fn may_lose_a_disk(&self) -> bool {
        let well = self.originals().all(|server| server.is_alive());
        let sound = self.originals().all(|server| server.disk.standing() == Standing::Sound);
        let copied = self.servers[self.swarm.servers..].iter().any(|copy| !copy.is_over());
        let whole = self.originals().all(|server| server.disk.rot.is_none());
        let judged = !self.is_many() || self.judged_at <= self.time;
        well && sound
            && whole
            && judged
            && !copied
            && self.is_caught_up()
            && self.are_clones_judged()
    }

    fn is_caught_up(&self) -> bool {
        self.replaced.as_ref().is_none_or(|(server, owed)| {
            owed.iter().all(|(log, upto)| self.servers[*server].disk.upto(log) >= upto)
        })
    }

    /// Whether one disk may be lost: no other is being made good.
    pub(super) fn others_are_whole(&self, n: usize) -> bool {
        let whole = |(other, server): (usize, &crate::server::Server)| {
            let sound = server.disk.standing() == Standing::Sound && server.disk.rot.is_none();
            other == n || server.is_alive() && sound
        };
        self.originals().enumerate().all(whole)
            && (self.is_caught_up() || self.replaced.as_ref().is_some_and(|(of, _)| *of == n))
    }

    /// The new disk is empty, or holds what a backup of some server held: a backup is of this moment,
    /// and the others go on until it is restored.
    pub(super) fn wipe(&mut self, n: usize, long: u64) -> bool {
        if !self.may_lose_a_disk() {
            return false;
        }
        let backup = self.draw_backup();
        self.replace_disk(n, long);
        self.servers[n].disk = backup.unwrap_or_default();
        true
    }

    /// Half of the time, of any server. The first edition knew none, and drew nothing here.
    fn draw_backup(&mut self) -> Option<Disk> {
        if !self.is_many() {
            return None;
        }
        let servers = self.swarm.servers as u64;
        let of = self.luck.of(Stream::Strike).below(2 * servers) as usize;
        self.originals().nth(of).map(|server| server.disk.restored())
    }

    pub(super) fn replace_disk(&mut self, n: usize, long: u64) {
        self.kill(n);
        self.servers[n].lose_disk(self.luck.of(Stream::Server(n)));
        self.note_disk_lost(n);
        self.owe(n);
        self.later(long, Action::Start { server: n });
    }

    /// A disk lost something: it has caught up when it holds what there is now.
    pub(super) fn owe(&mut self, n: usize) {
        let mut owed = Vector::new();
        let forked = self.open_forks();
        for server in self.originals() {
            let logs = server.disk.logs().iter().filter(|(log, _)| !forked.contains(log));
            logs.for_each(|(log, entries)| {
                owed.raise(*log, entries.len() as u64);
            });
        }
        self.replaced = Some((n, owed));
    }

    /// Somebody copies a data folder, to put it back later. It counts when it is put back.
    pub(super) fn keep_disk(&mut self, n: usize, nth: usize) -> Struck {
        let kept = Box::new(self.servers[n].disk.clone());
        let id = self.servers[n].id;
        let later = 100_000 + self.luck.of(Stream::Strike).below(4_000_000);
        self.later(later, Action::Relent(Relent::RollBack(n, id, kept, nth)));
        Struck::Waits
    }

    pub(super) fn roll_back(&mut self, n: usize, id: ServerId, kept: Disk, nth: usize) {
        if !self.turmoil || self.servers[n].id != id {
            return;
        }
        if !self.may_lose_a_disk() {
            if self.is_many() {
                let again = Relent::RollBack(n, id, Box::new(kept), nth);
                self.later(100_000, Action::Relent(again));
            }
            return;
        }
        self.kill(n);
        self.owe(n);
        let older = kept.events() < self.servers[n].disk.events();
        self.servers[n].roll_back(kept);
        self.note_disk_lost(n);
        self.struck(nth);
        if older {
            self.bite_by(Some(nth));
        }
        let rng = self.luck.of(Stream::Strike);
        let down = rng.below(2_000_000);
        let until_noticed = down + 1_000_000 + rng.below(4_000_000);
        self.judged_at = self.time + Duration::from_micros(down) + JUDGED;
        self.later(down, Action::Start { server: n });
        if !self.is_many() {
            self.later(until_noticed, Action::Relent(Relent::Readmit(n)));
        }
    }

    /// The operator reads that a disk was rolled back, and wipes it.
    pub(super) fn readmit(&mut self, n: usize) {
        if self.servers[n].disk.standing() == Standing::RolledBack {
            self.replace_disk(n, 100_000);
        }
    }

    /// A server notices damage: it keeps of each log what comes before it, and starts again.
    pub(super) fn damage(&mut self, n: usize, nth: usize) -> bool {
        if !self.may_lose_a_disk() {
            return false;
        }
        self.kill(n);
        self.owe(n);
        let before = self.servers[n].disk.events();
        self.servers[n].cut_out_damage(self.luck.of(Stream::Strike));
        self.note_disk_lost(n);
        if self.servers[n].disk.events() < before {
            self.bite_by(Some(nth));
        }
        let down = self.luck.of(Stream::Strike).below(1_000_000);
        self.later(down, Action::Start { server: n });
        true
    }
}
