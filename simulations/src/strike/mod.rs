//! Making faults happen. Each kind is an arm of [`World::begin`]; what it does to servers, disks,
//! ways and clients is in the file of that name.

pub(crate) mod bites;
pub(crate) mod certificates;
mod clients;
pub(crate) mod clones;
mod disks;
pub(crate) mod newer;
pub(crate) mod scrubs;
mod servers;
mod ways;

use std::time::Duration;

use chatty_core::id::ServerId;
use chatty_core::rng::Rng;
use chatty_core::time::Time;

use bites::{Cause, Fate};

use crate::disk::Disk;
use crate::faults::Fault;
use crate::luck::Stream;
use crate::schedule::{Happened, Redraws, Strike};
use crate::world::{Action, World};

/// A strike that cannot happen is drawn again so often.
const TRIES_MAX: u8 = 20;

/// A strike of this run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    strike: Strike,
    /// When it was to strike last.
    at: Time,
    tries: u8,
    fate: Fate,
}

/// Whether a fault began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Struck {
    /// It did.
    Yes,
    /// It does when what it waits for comes.
    Waits,
    /// There was nobody to strike.
    No,
}

impl From<bool> for Struck {
    fn from(happened: bool) -> Self {
        if happened { Self::Yes } else { Self::No }
    }
}

/// The end of a fault, or its next turn.
#[derive(Clone, Debug)]
pub(crate) enum Relent {
    Unblock(usize, usize, Cause),
    /// A way that flaps is cut again by that strike, for so many microseconds.
    CutAgain(usize, usize, usize, u64),
    /// Nothing arrives anywhere by that strike, for so many microseconds.
    BlipAgain(usize, u64),
    Resume(usize),
    /// A server that was told to stop has.
    End(usize),
    MendClock(usize),
    FastDisk(usize),
    EmptyDisk(usize),
    Uncut(usize, Cause),
    /// The older state of a disk is put back, for that strike.
    RollBack(usize, ServerId, Box<Disk>, usize),
    /// The operator looks at a server.
    Readmit(usize),
    /// The copy of a disk is found and stopped.
    EndCopy(usize),
    /// A drain is given up.
    GiveUpDrain(usize),
    /// A client that died begins again.
    Return(usize),
    /// A server that was upgraded by that strike writes something new.
    WriteUnknown(usize, usize),
    /// It is the version again that it was before that strike.
    Downgrade(usize, usize),
    /// A server's certificate, which ended by that strike, is renewed.
    Renew(usize, usize),
    /// All servers are asked to verify their disks.
    Verify,
    /// One that was busy is asked again.
    VerifyAgain(u64),
    /// The run of a server that found damage is over.
    CutOut(usize, u64),
}

impl World {
    /// Something is to strike then.
    pub(crate) fn plan(&mut self, at: Time, strike: Strike) {
        self.plan.push(Plan { strike, at, tries: 0, fate: Fate::Missed });
        self.at(at, Action::Strike(self.plan.len() - 1));
    }

    /// A strike as the first edition drew it: when it happens.
    pub(crate) fn on_late_strike(&mut self, fault: Fault) {
        if !self.turmoil {
            return;
        }
        let (servers, people) = (self.servers.len() as u64, self.people.len() as u64);
        let rng = self.luck.of(Stream::Strike);
        let server = rng.below(servers) as usize;
        let other = (server + 1 + rng.below(servers - 1) as usize) % self.servers.len();
        let client = rng.below(people) as usize;
        let long = Duration::from_micros(100_000 + rng.below(6_000_000));
        let strike = Strike { fault, server, other, client, long, hard: 100, luck: 0 };
        let (at, fate) = (self.time, Fate::Missed);
        self.plan.push(Plan { strike, at, tries: TRIES_MAX, fate });
        self.try_strike(self.plan.len() - 1);
    }

    /// It is time for a strike.
    pub(crate) fn on_strike(&mut self, nth: usize) {
        if !self.turmoil {
            return;
        }
        let plan = &mut self.plan[nth];
        plan.at = self.time;
        let luck = plan.strike.luck;
        self.luck.begin_strike(luck);
        if self.try_strike(nth) == Struck::No && self.redraws == Redraws::Again {
            self.draw_again(nth);
        }
    }

    /// A strike that could not happen is drawn again: another victim, a little later.
    fn draw_again(&mut self, nth: usize) {
        let plan = &mut self.plan[nth];
        if plan.tries >= TRIES_MAX {
            return;
        }
        plan.tries += 1;
        let mut rng = Rng::new(plan.strike.luck + u64::from(plan.tries));
        plan.strike.aim(&mut rng, &self.swarm);
        let wait = 20_000 + rng.below(400_000);
        self.later(wait, Action::Strike(nth));
    }

    fn try_strike(&mut self, nth: usize) -> Struck {
        let struck = self.begin(nth);
        if struck == Struck::Yes {
            self.struck(nth);
        }
        struck
    }

    /// A fault has begun.
    pub(crate) fn struck(&mut self, nth: usize) {
        let Plan { strike, at, .. } = self.plan[nth].clone();
        let (from, until) = (self.time, self.time + strike.long);
        let planned = at.since(self.began);
        let (servers, client) = self.victims(&strike);
        self.begun(nth, &servers, client);
        self.happened.push(Happened { strike, planned, from, until, servers, client });
    }

    fn victims(&self, strike: &Strike) -> (Vec<usize>, Option<usize>) {
        let Strike { server, other, client, .. } = *strike;
        match strike.fault {
            Fault::CrashAll | Fault::ResetAll | Fault::Blip | Fault::Partition => {
                ((0..self.swarm.servers).collect(), None)
            }
            Fault::Cut
            | Fault::OneWay
            | Fault::Reset
            | Fault::Flap
            | Fault::Loss
            | Fault::SlowLink
            | Fault::NarrowLink => (vec![server, other], None),
            Fault::ClientCut
            | Fault::ClientReset
            | Fault::ClientCrash
            | Fault::ClientForgets
            | Fault::SlowClient
            | Fault::AnswerLost => (Vec::new(), Some(client)),
            Fault::Crash
            | Fault::Wipe
            | Fault::RollBack
            | Fault::Isolate
            | Fault::Pause
            | Fault::Clock
            | Fault::SlowDisk
            | Fault::DiskFull
            | Fault::Damage
            | Fault::Stop
            | Fault::Torn
            | Fault::Skew
            | Fault::SlowServer
            | Fault::Copy
            | Fault::Drain
            | Fault::FalseHint
            | Fault::Newer
            | Fault::Clone
            | Fault::Expired
            | Fault::Rot => (vec![server], None),
        }
    }

    /// A fault begins, if there is somebody to strike.
    fn begin(&mut self, nth: usize) -> Struck {
        let strike = self.plan[nth].strike.clone();
        let (n, m, p) = (strike.server, strike.other, strike.client);
        let long = strike.micros();
        match strike.fault {
            Fault::Crash => self.crash(n, long).into(),
            Fault::CrashAll => {
                let all: Vec<bool> = (0..self.swarm.servers).map(|n| self.crash(n, long)).collect();
                all.contains(&true).into()
            }
            Fault::Wipe => self.wipe(n, long).into(),
            Fault::RollBack => self.keep_disk(n, nth),
            Fault::Cut => {
                self.cut_way(nth, n, m, long);
                self.cut_way(nth, m, n, long);
                Struck::Yes
            }
            Fault::OneWay => {
                self.cut_way(nth, n, m, long);
                Struck::Yes
            }
            Fault::Isolate => {
                self.isolate(nth, n, long);
                Struck::Yes
            }
            Fault::Reset => self.reset(|ends| ends.contains(&n) && ends.contains(&m)).into(),
            Fault::ResetAll => self.reset(|_| true).into(),
            Fault::Pause => self.pause(n, strike.long).into(),
            Fault::Clock => self.set_clock(nth, n, &strike).into(),
            Fault::SlowDisk => {
                self.servers[n].slow_micros = u64::from(strike.hard) * 5000;
                self.later(long, Action::Relent(Relent::FastDisk(n)));
                Struck::Yes
            }
            Fault::DiskFull => {
                self.servers[n].full = true;
                self.later(long, Action::Relent(Relent::EmptyDisk(n)));
                Struck::Yes
            }
            Fault::Damage => self.damage(n, nth).into(),
            Fault::ClientCut => {
                self.cut_client(p, Some(nth));
                self.later(long, Action::Relent(Relent::Uncut(p, Some(nth))));
                Struck::Yes
            }
            Fault::ClientReset => self.reset_client(p).into(),
            Fault::Stop => self.stop(n, long).into(),
            Fault::Torn => self.arm_torn(n, nth),
            Fault::Partition => self.partition(nth, long).into(),
            Fault::Flap => {
                self.flap(nth, &strike);
                Struck::Yes
            }
            Fault::Blip => {
                self.blips(nth, &strike);
                Struck::Yes
            }
            Fault::Loss => self.spoil(&strike, |way, until| way.loss = (strike.hard, until)),
            Fault::SlowLink => self.spoil(&strike, |way, until| way.slow = (strike.hard, until)),
            Fault::NarrowLink => {
                self.spoil(&strike, |way, until| way.narrow = (strike.hard, until))
            }
            Fault::Skew => self.skew(nth, n, &strike).into(),
            Fault::SlowServer => self.slow_server(n, &strike).into(),
            Fault::Copy => self.copy(nth, &strike).into(),
            Fault::Drain => self.drain(n, long).into(),
            Fault::FalseHint => self.false_hint(n).into(),
            Fault::ClientCrash => self.crash_client(p, long, crate::person::Loses::Memory).into(),
            Fault::ClientForgets => self.crash_client(p, long, crate::person::Loses::All).into(),
            Fault::SlowClient => self.slow_client(p, &strike).into(),
            Fault::AnswerLost => self.arm_answer(p, nth),
            Fault::Newer => self.upgrade(nth, &strike).into(),
            Fault::Clone => self.clone_machine(nth, &strike).into(),
            Fault::Expired => self.expire(nth, &strike).into(),
            Fault::Rot => self.rot(nth, &strike).into(),
        }
    }

    pub(crate) fn relent(&mut self, relent: Relent) -> Result<(), String> {
        match relent {
            Relent::Unblock(from, to, cause) => self.unblock(from, to, cause),
            Relent::CutAgain(nth, from, to, long) => self.cut_way(nth, from, to, long),
            Relent::BlipAgain(nth, long) => self.blip(nth, long),
            Relent::Resume(n) => self.servers[n].resume(),
            Relent::End(n) => self.kill(n),
            Relent::MendClock(n) => self.servers[n].skew_ms = 0,
            Relent::FastDisk(n) => self.servers[n].slow_micros = 0,
            Relent::EmptyDisk(n) => self.servers[n].full = false,
            Relent::Uncut(p, cause) => self.uncut_client(p, cause),
            Relent::RollBack(n, id, kept, nth) => self.roll_back(n, id, *kept, nth),
            Relent::Readmit(n) => self.readmit(n),
            Relent::EndCopy(n) => self.end_copy(n),
            Relent::GiveUpDrain(n) => self.give(n, chatty_core::io::Input::Resume),
            Relent::Return(p) => return self.person_returns(p),
            Relent::WriteUnknown(n, nth) => return self.write_unknown(n, nth),
            Relent::Downgrade(n, nth) => self.downgrade(n, nth),
            Relent::Renew(n, nth) => self.renew(n, nth),
            Relent::Verify => self.verify_all(),
            Relent::VerifyAgain(session) => self.ask_to_verify(session),
            Relent::CutOut(n, run) => self.cut_out(n, run),
        }
        Ok(())
    }
}
