//! What is done to servers: they die, stop, stand still, are slow, drained or copied, and their
//! clocks are wrong.

use std::time::Duration;

use chatty_core::id::LinkId;
use chatty_core::io::Input;

use super::{Relent, Struck};
use crate::luck::{NAMES_MAX, Stream};
use crate::schedule::Strike;
use crate::server::Server;
use crate::world::{Action, World};

/// A clock that was mended is heard of after this by all servers that are linked: one that is silent
/// for so long is not.
const CLOCK_HEARD: Duration = Duration::from_secs(6);

impl World {
    pub(super) fn is_well(&self, n: usize) -> bool {
        self.servers[n].is_alive() && !self.servers[n].is_paused(self.time)
    }

    pub(super) fn crash(&mut self, n: usize, long: u64) -> bool {
        let alive = self.servers[n].is_alive();
        self.kill(n);
        self.later(long, Action::Start { server: n });
        alive
    }

    /// It dies in the middle of its next write.
    pub(super) fn arm_torn(&mut self, n: usize, nth: usize) -> Struck {
        if !self.is_well(n) || self.servers[n].tear.is_some() {
            return Struck::No;
        }
        self.servers[n].tear = Some(nth);
        Struck::Waits
    }

    /// A write is under way, and its server dies.
    pub(crate) fn on_tear(&mut self, n: usize, run: u64, nth: usize) {
        if !self.turmoil {
            return;
        }
        let same = self.servers[n].run == run && self.servers[n].is_alive();
        if !same || !self.servers[n].tear_write(self.luck.of(Stream::Disk(n))) {
            self.servers[n].tear = Some(nth); // another fault was faster; the next write
            return;
        }
        self.kill(n);
        self.struck(nth);
        let long = self.plan[nth].strike.micros();
        self.later(long, Action::Start { server: n });
    }

    pub(super) fn pause(&mut self, n: usize, long: Duration) -> bool {
        let well = self.is_well(n);
        if well {
            let until = self.time + long;
            self.servers[n].pause(until);
            self.at(until, Action::Relent(Relent::Resume(n)));
        }
        well
    }

    pub(super) fn stop(&mut self, n: usize, long: u64) -> bool {
        let well = self.is_well(n);
        if well {
            self.give(n, Input::Stop);
            self.later(300_000, Action::Relent(Relent::End(n)));
            self.later(300_000 + long, Action::Start { server: n });
        }
        well
    }

    /// Drained, and then either stopped or given its clients back.
    pub(super) fn drain(&mut self, n: usize, long: u64) -> bool {
        let well = self.is_well(n);
        if well {
            self.give(n, Input::Drain);
            if self.luck.of(Stream::Strike).one_in(2) {
                self.later(long, Action::Relent(Relent::GiveUpDrain(n)));
            } else {
                self.later(long, Action::Relent(Relent::End(n)));
                self.later(long + 200_000, Action::Start { server: n });
            }
        }
        well
    }

    pub(super) fn slow_server(&mut self, n: usize, strike: &Strike) -> bool {
        self.servers[n].sluggish = (u64::from(strike.hard) * 2000, self.time + strike.long);
        self.servers[n].is_alive()
    }

    pub(super) fn set_clock(&mut self, nth: usize, n: usize, strike: &Strike) -> bool {
        // A minority of clocks is off, also of those that others heard of last.
        let heard = self.clock_off_until.is_none_or(|off| off + CLOCK_HEARD <= self.time);
        if self.servers.iter().any(|server| server.skew_ms != 0) || self.is_many() && !heard {
            return false;
        }
        self.clock_off_until = Some(self.time + strike.long);
        let off = i64::try_from(self.luck.of(Stream::Strike).below(20_000_000)).unwrap_or(0);
        self.servers[n].skew_ms = (off - 10_000_000) * i64::from(strike.hard) / 100;
        self.servers[n].skewed_by = Some(nth);
        self.later(strike.micros(), Action::Relent(Relent::MendClock(n)));
        true
    }

    /// Nobody tells a server that starts and reaches no majority that its clock is off, and nothing is
    /// promised of what it takes.
    pub(crate) fn mend_clock_alone(&mut self, n: usize) {
        if !self.is_many() || self.servers[n].skew_ms == 0 {
            return;
        }
        let reaches = |other: &usize| {
            *other != n
                && self.is_well(*other)
                && !self.is_blocked(n, *other)
                && !self.is_blocked(*other, n)
        };
        let others = (0..self.swarm.servers).filter(reaches).count();
        if (others + 1) * 2 <= self.swarm.servers {
            self.servers[n].skew_ms = 0;
        }
    }

    /// Off by at most 0.9 s: a server a second off takes no writes.
    pub(super) fn skew(&mut self, nth: usize, n: usize, strike: &Strike) -> bool {
        if self.servers[n].skew_ms != 0 {
            return false;
        }
        let most = i64::from(strike.hard) * 9;
        let rng = self.luck.of(Stream::Strike);
        self.servers[n].skew_ms = if rng.one_in(2) { most } else { -most };
        self.servers[n].skewed_by = Some(nth);
        self.later(strike.micros(), Action::Relent(Relent::MendClock(n)));
        true
    }

    /// The kernel's word that the other side is gone, about all connections of a server; forged.
    pub(super) fn false_hint(&mut self, n: usize) -> bool {
        if !self.is_well(n) {
            return false;
        }
        let links: Vec<u64> = self
            .cables
            .iter()
            .filter(|(_, cable)| cable.ends.contains(&n) && cable.up == [true, true])
            .map(|(id, _)| *id)
            .collect();
        let lines: Vec<(usize, u64)> = self
            .lines
            .values()
            .filter(|line| line.server == n && line.up_at_server && line.up_at_client)
            .map(|line| (line.person, line.conn.0))
            .collect();
        for cable in &links {
            self.tell_link(*cable, n, Input::Hint(LinkId(*cable)));
        }
        for (person, conn) in &lines {
            self.later(0, Action::ClientHint { person: *person, conn: *conn });
        }
        !links.is_empty() || !lines.is_empty()
    }

    /// The same folder started twice. Hard strikes cut the original off from half of the others,
    /// so that these hear of the copy alone.
    pub(super) fn copy(&mut self, nth: usize, strike: &Strike) -> bool {
        let n = strike.server;
        if !self.may_lose_a_disk() || self.servers.len() + 1 >= NAMES_MAX {
            return false;
        }
        let copy = Server::copy_of(&self.servers[n]);
        self.servers.push(copy);
        let ghost = self.servers.len() - 1;
        self.owe(n);
        self.note_ways();
        self.later(0, Action::Start { server: ghost });
        if strike.hard > 50 {
            for other in (0..self.swarm.servers).filter(|other| *other != n) {
                if self.luck.of(Stream::Strike).one_in(2) {
                    self.cut_way(nth, n, other, strike.micros());
                    self.cut_way(nth, other, n, strike.micros());
                }
            }
        }
        self.later(strike.micros(), Action::Relent(Relent::EndCopy(ghost)));
        true
    }

    /// The operator stops a copy. What it alone held is gone.
    pub(super) fn end_copy(&mut self, ghost: usize) {
        if self.servers[ghost].is_over() {
            return;
        }
        self.kill(ghost);
        let disk = self.servers[ghost].end();
        let place = self.servers[ghost].place;
        self.servers[place].had(disk);
        self.note_ways();
        self.note_disk_lost(place);
        self.owe(place);
        self.end_clone(ghost);
    }

    /// The operator reads that disks were rolled back, or copied, and wipes them one by one.
    pub(crate) fn operate(&mut self) {
        self.end_forks();
        self.verify_healed();
        use chatty_core::io::Standing;
        for n in 0..self.servers.len() {
            let accused = self.servers[n].disk.standing() == Standing::RolledBack;
            if !accused || self.servers[n].is_over() {
                self.servers[n].accused_at = None;
                continue;
            }
            let since = *self.servers[n].accused_at.get_or_insert(self.time);
            if self.time.since(since) < Duration::from_secs(1) {
                continue;
            }
            if n >= self.swarm.servers {
                self.end_copy(n);
            } else if self.servers[n].is_alive() && self.others_are_whole(n) {
                self.servers[n].accused_at = None;
                self.replace_disk(n, 100_000);
            }
        }
    }
}
