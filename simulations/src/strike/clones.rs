//! A machine that is cloned with its memory: one run of one log goes on twice, on two disks.
//!
//! The world knows which of the two made what, and so what nobody may have: a log with events of
//! both. The operator does what `docs/operate.md` says of `FORK`: stops the clone, starts the original
//! again, wipes those who hold the clone's copy, one at a time, and starts again whoever said it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chatty_core::event::Event;
use chatty_core::frame::Frame;
use chatty_core::id::{LinkId, Log, Mid, RoomId, SessionId};
use chatty_core::io::{Input, Output};
use chatty_core::session::ServerState;
use chatty_core::store::Entry;
use chatty_core::time::Time;

use super::Relent;
use crate::luck::{NAMES_MAX, Stream};
use crate::schedule::Strike;
use crate::server::Server;
use crate::world::{Action, World};

/// Between two things that the operator does.
const OPERATOR: Duration = Duration::from_secs(1);

/// The two machines of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Run {
    Original,
    Clone,
}

/// A log of which there are two.
#[derive(Debug)]
pub(crate) struct Fork {
    log: Log,
    place: usize,
    clone: usize,
    /// So many events both remember.
    common: u64,
    /// What each made after them.
    made: BTreeMap<(Run, u64), Arc<Event>>,
    strike: usize,
    /// Whether somebody said so: the operator reads it.
    said: bool,
    /// When the clone was stopped.
    ended: Option<Time>,
    /// When the operator did something about it last.
    done: Time,
    /// Since when all others have heard what the original's disk holds, which the clone may have
    /// announced more of.
    judged: Option<Time>,
}

impl Fork {
    /// Whether that event is one of that run's; one that was erased keeps its place in the chain.
    fn is_of(&self, run: Run, event: &Event) -> bool {
        self.made.get(&(run, event.seq)).is_some_and(|made| made.chain(0) == event.chain(0))
    }

    /// Whose events a log has beyond what both remember. An event that both made alike is of both.
    fn runs_of(&self, entries: &[Entry]) -> BTreeSet<Run> {
        let common = usize::try_from(self.common).unwrap_or(usize::MAX);
        let apart = entries.get(common..).unwrap_or(&[]);
        let of = |run: &Run| apart.iter().all(|entry| self.is_of(*run, &entry.event));
        [Run::Original, Run::Clone].into_iter().filter(of).collect()
    }
}

impl World {
    /// The machine goes on twice. The clone's connections are not there any more; hard strikes let
    /// some servers hear only one of the two.
    pub(super) fn clone_machine(&mut self, nth: usize, strike: &Strike) -> bool {
        let (n, clone) = (strike.server, self.servers.len());
        if !self.is_well(n) || !self.may_lose_a_disk() || clone + 1 >= NAMES_MAX {
            return false;
        }
        let Some(twin) = Server::clone_of(&self.servers[n]) else { return false };
        let (log, run) = (Log::of(twin.origin), twin.run);
        let common = twin.replica.as_ref().map_or(0, |r| r.broadcast().next_seq() - 1);
        self.servers.push(twin);
        self.repeat_for(n, clone);
        let links = self.cables.iter().filter(|(_, cable)| {
            let side = cable.ends.iter().position(|end| *end == n);
            side.is_some_and(|side| cable.up[side] && cable.runs[side] == run)
        });
        let links: Vec<Input> = links.map(|(id, _)| Input::LinkDown(LinkId(*id))).collect();
        let lines = self.lines.iter().filter(|(_, line)| line.server == n && line.run == run);
        let lines: Vec<Input> = lines.map(|(id, _)| Input::SessionDown(SessionId(*id))).collect();
        links.into_iter().chain(lines).for_each(|input| self.give(clone, input));
        self.forks.push(Fork {
            log,
            place: n,
            clone,
            common,
            made: BTreeMap::new(),
            strike: nth,
            said: false,
            ended: None,
            done: self.time,
            judged: None,
        });
        self.owe(n);
        self.tape_server(clone, "is cloned, with its memory");
        self.note_ways();
        if strike.hard > 50 {
            for other in (0..self.swarm.servers).filter(|other| *other != n) {
                let deaf_to = match self.luck.of(Stream::Strike).below(3) {
                    0 => n,
                    1 => clone,
                    _ => continue,
                };
                self.cut_way(nth, deaf_to, other, strike.micros());
                self.cut_way(nth, other, deaf_to, strike.micros());
            }
        }
        self.later(strike.micros(), Action::Relent(Relent::EndCopy(clone)));
        true
    }

    /// The clone was stopped for good: the original is started again, if it is still that run.
    pub(super) fn end_clone(&mut self, clone: usize) {
        let time = self.time;
        let Some(fork) = self.forks.iter_mut().find(|fork| fork.clone == clone) else { return };
        (fork.ended, fork.done) = (Some(time), time);
        let (place, log) = (fork.place, fork.log);
        if self.servers[place].is_alive() && Log::of(self.servers[place].origin) == log {
            self.crash(place, 100_000);
        }
    }

    /// Whether a log was ever one of two.
    pub(crate) fn is_forked(&self, log: Log) -> bool {
        self.forks.iter().any(|fork| fork.log == log)
    }

    /// Whether somebody holds what only the other run made.
    fn differs(&self, fork: &Fork) -> Vec<BTreeSet<Run>> {
        let none = Vec::new();
        let entries = |server: &Server| {
            let held = server.disk.logs().get(&fork.log).unwrap_or(&none);
            fork.runs_of(held)
        };
        self.originals().map(entries).collect()
    }

    /// Whether all is as if a log had never been two: the clone is gone, all hold one of the two, and
    /// nobody refuses it any more.
    fn is_mended(&self, fork: &Fork) -> bool {
        let refuses = |server: &Server| {
            let replica = server.replica.as_ref();
            replica.is_none_or(|replica| replica.broadcast().is_forked(fork.log))
        };
        let held = self.differs(fork);
        let one = |run: Run| held.iter().all(|of| of.contains(&run));
        fork.ended.is_some()
            && (one(Run::Original) || one(Run::Clone))
            && !self.originals().any(refuses)
    }

    /// Whether all that a clone leaves behind is known: an original that is accused says so.
    pub(super) fn are_clones_judged(&self) -> bool {
        let known = |fork: &Fork| fork.judged.is_some_and(|at| at + OPERATOR <= self.time);
        self.forks.iter().all(known) && self.open_forks().is_empty()
    }

    /// Whether all others have heard all that the disk of a server holds.
    fn is_heard(&self, n: usize) -> bool {
        let hears = |other: usize| {
            let replica = self.servers[other].replica.as_ref();
            let links = self.cables.iter().filter(|(_, cable)| {
                let [a, b] = cable.ends;
                [[n, other], [other, n]].contains(&[a, b])
                    && cable.runs == [self.servers[a].run, self.servers[b].run]
            });
            let mut links = links.map(|(id, _)| LinkId(*id));
            replica.is_some_and(|replica| links.any(|id| replica.broadcast().has_told(id)))
        };
        (0..self.swarm.servers).filter(|other| *other != n).all(hears)
    }

    /// Logs of which there are two, still.
    pub(crate) fn open_forks(&self) -> BTreeSet<Log> {
        self.forks.iter().filter(|fork| !self.is_mended(fork)).map(|fork| fork.log).collect()
    }

    /// The operator reads `FORK`: he wipes the servers that hold the clone's copy, then starts those
    /// again that refuse the log.
    pub(crate) fn end_forks(&mut self) {
        for nth in 0..self.forks.len() {
            let Fork { place, ended, judged, .. } = self.forks[nth];
            if ended.is_some() && judged.is_none() && self.is_heard(place) {
                self.forks[nth].judged = Some(self.time);
            }
            let fork = &self.forks[nth];
            let waits = self.time.since(fork.done) < OPERATOR;
            if fork.ended.is_none() || !fork.said || waits || self.is_mended(fork) {
                continue;
            }
            let (log, held) = (fork.log, self.differs(fork));
            let originals_there = held.iter().any(|of| !of.contains(&Run::Clone));
            let of_clone = held.iter().position(|of| !of.contains(&Run::Original));
            let refuses = |server: &Server| {
                let replica = server.replica.as_ref();
                replica.is_some_and(|replica| replica.broadcast().is_forked(log))
            };
            let refusing = self.originals().position(refuses);
            match (of_clone.filter(|_| originals_there), refusing) {
                (Some(n), _) if self.others_are_whole(n) => self.replace_disk(n, 100_000),
                (None, Some(n)) => {
                    self.crash(n, 100_000);
                }
                _ => continue,
            }
            self.forks[nth].done = self.time;
        }
    }

    /// Writes down what the two runs make.
    ///
    /// # Errors
    /// One of them gave one number two contents.
    pub(crate) fn note_made(&mut self, n: usize, output: &Output) -> Result<(), String> {
        let own = Log::of(self.servers[n].origin);
        for fork in self.forks.iter_mut().filter(|fork| fork.log == own) {
            let run = if n == fork.clone { Run::Clone } else { Run::Original };
            let events: Vec<&Arc<Event>> = match output {
                Output::Persist(_, batch) => {
                    batch.entries.iter().filter(|e| e.log == own).map(|e| &e.event).collect()
                }
                Output::Send { frame, .. } => match &**frame {
                    Frame::Events(events) if events.log == own => events.events.iter().collect(),
                    Frame::Range(range) if range.log == own => range.events.iter().collect(),
                    _ => continue,
                },
                _ => continue,
            };
            for event in events.into_iter().filter(|event| event.seq > fork.common) {
                let made = fork.made.entry((run, event.seq)).or_insert_with(|| event.clone());
                if made.chain(0) != event.chain(0) {
                    return Err(format!("a run of {own} gave event {} two contents", event.seq));
                }
            }
        }
        Ok(())
    }

    /// A batch is on a disk: no server mixes two runs of a log.
    pub(crate) fn check_unmixed(&self, n: usize) -> Result<(), String> {
        for fork in &self.forks {
            let Some(entries) = self.servers[n].disk.logs().get(&fork.log) else { continue };
            if fork.runs_of(entries).is_empty() {
                let slot = &self.servers[n].slot;
                return Err(format!("{slot} mixes the two runs of {}", fork.log));
            }
        }
        Ok(())
    }

    /// A server says that there are two of a log.
    pub(crate) fn on_fork_said(&mut self, n: usize, what: &str) -> Result<(), String> {
        let named = |fork: &&mut Fork| what.contains(&fork.log.to_string());
        let Some(fork) = self.forks.iter_mut().find(named) else {
            return Err(format!("{} was never cloned: {what}", self.servers[n].slot));
        };
        fork.said = true;
        let nth = fork.strike;
        self.bite_by(Some(nth));
        self.tape_server(n, "says FORK");
        Ok(())
    }

    /// A run that found another of its name makes nothing any more until it is started again.
    pub(crate) fn check_twin(&mut self, n: usize) -> Result<(), String> {
        let server = &mut self.servers[n];
        let own = Log::of(server.origin);
        let Some(replica) = server.replica.as_ref().filter(|r| r.broadcast().is_forked(own)) else {
            return Ok(());
        };
        let next = replica.broadcast().next_seq();
        let slot = &server.slot;
        if *server.twice_from.get_or_insert(next) != next {
            return Err(format!("{slot} runs twice, and took a write"));
        }
        if replica.state() == ServerState::Ready {
            return Err(format!("{slot} runs twice, and calls itself ready"));
        }
        Ok(())
    }

    /// Messages that the runs of cloned machines took while they ran twice, and whether they are gone:
    /// they were in the copy that was wiped.
    pub(crate) fn of_twins(&self) -> BTreeMap<(RoomId, Mid), Kept> {
        let mut all = BTreeMap::new();
        for fork in &self.forks {
            let held = self.servers[0].disk.logs().get(&fork.log).map_or(&[][..], Vec::as_slice);
            for event in fork.made.values() {
                let Some(identity) = event.identity() else { continue };
                let at = usize::try_from(event.seq - 1).unwrap_or(usize::MAX);
                let is_there = held.get(at).is_some_and(|e| e.event.chain(0) == event.chain(0));
                let kept = if is_there { Kept::There } else { Kept::Wiped };
                let of = all.entry((identity.room, identity.mid)).or_insert(kept);
                *of = (*of).max(kept);
            }
        }
        all
    }
}

/// What became of an event that was made while a run went on twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kept {
    /// Its copy of the log was kept.
    There,
    /// Its copy was wiped, as the operator is told to.
    Wiped,
}
