//! Bits flip on a disk, and somebody asks all servers to verify theirs, while everything goes on and
//! once more when all has healed: what flipped is found, cut out and fetched again, and a disk that is
//! as it was written is not said to be otherwise.

use std::collections::{BTreeMap, BTreeSet};

use chatty_core::id::{RequestId, SessionId};
use chatty_core::io::Input;
use chatty_core::session::{Code, Item, Plain, Request};

use super::Relent;
use crate::luck::Stream;
use crate::rot::Rot;
use crate::schedule::Strike;
use crate::world::{Action, World};

/// Who asks servers to verify, and what is known so far.
#[derive(Debug, Default)]
pub(crate) struct Scrubs {
    asked: BTreeMap<u64, Asked>,
    /// Whether anything ever flipped.
    begun: bool,
    /// Whose disks were found as they were written since all healed.
    sound: BTreeSet<usize>,
    /// How many verifications came to an end.
    pub(crate) done: u64,
}

/// A verification that is under way.
#[derive(Debug)]
struct Asked {
    server: usize,
    run: u64,
    /// What had flipped on the disk when it was asked for.
    rot: Rot,
}

impl World {
    pub(super) fn rot(&mut self, nth: usize, strike: &Strike) -> bool {
        let n = strike.server;
        if !self.may_lose_a_disk() || !self.servers[n].disk.flip(self.luck.of(Stream::Strike)) {
            return false;
        }
        self.servers[n].rotten_by = Some(nth);
        self.scrubs.begun = true;
        self.tape_server(n, "has bits that flipped");
        self.later(strike.micros(), Action::Relent(Relent::Verify));
        true
    }

    /// Everybody is asked, but who is asked already.
    pub(super) fn verify_all(&mut self) {
        (0..self.swarm.servers).for_each(|n| self.verify(n));
    }

    fn verify(&mut self, n: usize) {
        let run = self.servers[n].run;
        let is_it = |asked: &Asked| asked.server == n && asked.run == run;
        if !self.servers[n].is_alive() || self.scrubs.asked.values().any(is_it) {
            return;
        }
        let session = self.next_id();
        let rot = self.servers[n].disk.rot.clone();
        self.scrubs.asked.insert(session, Asked { server: n, run, rot });
        self.give(n, Input::SessionUp(SessionId(session)));
        self.ask_to_verify(session);
    }

    pub(super) fn ask_to_verify(&mut self, session: u64) {
        let Some(asked) = self.scrubs.asked.get_mut(&session) else { return };
        let n = asked.server;
        if self.servers[n].run == asked.run {
            asked.rot = self.servers[n].disk.rot.clone();
            let request = Request::Verify(Plain { request: RequestId(1) });
            self.give(n, Input::Request(SessionId(session), request));
        }
    }

    /// What a server answers to who asked it to verify.
    pub(crate) fn on_verified(&mut self, session: u64, item: &Item) -> Result<(), String> {
        let Some(asked) = self.scrubs.asked.get(&session) else { return Ok(()) };
        let n = asked.server;
        let server = &self.servers[n];
        match item {
            Item::Verified(verified) if verified.done => {
                let flipped = !asked.rot.is_none() && server.disk.rot.holds(&asked.rot);
                match &verified.damage {
                    None if flipped => {
                        return Err(format!(
                            "{} verified its disk, and found no bit that flipped",
                            server.slot
                        ));
                    }
                    Some(why) if server.disk.rot.is_none() => {
                        return Err(format!("{} calls a sound disk damaged: {why}", server.slot));
                    }
                    None if !self.turmoil && server.disk.rot.is_none() => {
                        self.scrubs.sound.insert(n);
                    }
                    _ => {}
                }
                self.scrubs.done += 1;
                self.scrubs.asked.remove(&session);
                self.give(n, Input::SessionDown(SessionId(session)));
            }
            Item::Refused(refused) if refused.code == Code::Busy => {
                let later = 1000 * u64::from(refused.retry_ms).max(1);
                self.later(later, Action::Relent(Relent::VerifyAgain(session)));
            }
            Item::Refused(_) => {
                self.scrubs.asked.remove(&session);
            }
            _ => {}
        }
        Ok(())
    }

    /// The disk of a server is not what was written, as it found out: its run ends in good order.
    pub(crate) fn on_damage(&mut self, n: usize, why: &str) -> Result<(), String> {
        let server = &mut self.servers[n];
        if server.disk.rot.is_none() {
            return Err(format!("a sound disk is called damaged: {why}"));
        }
        if !std::mem::replace(&mut server.damaged, true) {
            let (run, cause) = (server.run, server.rotten_by);
            self.bite_by(cause);
            self.tape_server(n, "finds damage");
            self.give(n, Input::Stop);
            self.later(30_000, Action::Relent(Relent::CutOut(n, run)));
        }
        Ok(())
    }

    /// What flipped is cut out of the logs, and the server starts with what comes before.
    pub(super) fn cut_out(&mut self, n: usize, run: u64) {
        if self.servers[n].run != run || !self.servers[n].is_alive() {
            return;
        }
        self.kill(n);
        self.owe(n);
        self.servers[n].cut_out_rot();
        self.note_disk_lost(n);
        self.later(50_000, Action::Start { server: n });
    }

    /// Once all has healed, everybody is asked until his disk is what was written.
    pub(crate) fn verify_healed(&mut self) {
        if self.scrubs.begun && !self.turmoil {
            for n in (0..self.swarm.servers)
                .filter(|n| !self.scrubs.sound.contains(n))
                .collect::<Vec<_>>()
            {
                self.verify(n);
            }
        }
    }

    /// Whose disk was not verified since all healed.
    pub(crate) fn unverified(&self) -> Option<usize> {
        let unverified = (0..self.swarm.servers).find(|n| !self.scrubs.sound.contains(n));
        unverified.filter(|_| self.scrubs.begun)
    }
}
