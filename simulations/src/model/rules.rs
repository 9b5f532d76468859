//! What must hold in every state, and in every state in which nothing is left to happen.

use std::collections::BTreeSet;

use chatty_core::broadcast::{Broadcast, Timer};
use chatty_core::config::Start;
use chatty_core::event::Identity;
use chatty_core::frame::Frame;
use chatty_core::id::{LinkId, Log, RoomId};
use chatty_core::time::Hlc;

use super::cluster::{Action, Cable, Cluster, Server};
use super::scope::Scope;
use super::step::end;

/// From one state in so many it is tried whether all comes to rest when it is left alone.
const REST_FROM_ONE_IN: u64 = 64;

impl Cluster {
    /// What a server announces is on its disk; and nobody asks for anything, nor pushes but by the
    /// plan, unless something went wrong.
    pub(super) fn check_frame(&mut self, scope: &Scope, n: usize, own: Log, frame: &Frame) {
        match frame {
            Frame::Have(haves) | Frame::Vector(haves) => {
                for have in &haves.haves {
                    let held = self.servers[n].disk.upto(have.log);
                    if have.upto > held {
                        let (log, upto) = (have.log, have.upto);
                        self.breaks(format!(
                            "s{} announced {upto} events of {log}, its disk holds {held}",
                            n + 1
                        ));
                    }
                }
            }
            Frame::Want(_) | Frame::Range(_) | Frame::Lagging(_) if self.is_calm(scope) => {
                self.breaks(format!("s{} repairs what was not broken: {frame:?}", n + 1));
            }
            Frame::Events(events)
                if scope.is_tree() && self.is_calm(scope) && events.log != own =>
            {
                self.breaks(format!("s{} relays where everybody is fed by the origin", n + 1));
            }
            _ => {}
        }
    }

    /// Whether nothing has gone wrong so far.
    fn is_calm(&self, scope: &Scope) -> bool {
        let left = &self.left;
        let faults = (left.crashes, left.cuts, left.hasty, left.digests);
        faults == (scope.crashes, scope.cuts, scope.hasty, scope.digests) && !scope.is_narrow()
    }

    /// A stamp is above everything that its server could have shown, and that its client could be
    /// answering.
    pub(super) fn check_stamp(&mut self, n: usize, log: Log, seq: u64, stamp: Hlc) {
        let entries = self.servers[n].disk.logs().values().flatten();
        let others = entries.filter(|entry| (entry.log, entry.event.seq) != (log, seq));
        if others.map(|entry| entry.event.hlc).max().is_some_and(|newest| newest >= stamp) {
            self.breaks(format!("s{} stamps an event below what it has shown", n + 1));
        }
    }

    /// Agreement on prefixes: what two disks hold of a log is alike as far as both reach, and is
    /// what its server said, in its order.
    fn logs_agree(&self) -> bool {
        let prefix = |a: &Server, b: &Server| {
            a.disk.logs().iter().all(|(log, entries)| {
                let others = b.disk.logs().get(log).map_or(&[][..], Vec::as_slice);
                entries.iter().zip(others).all(|(a, b)| a == b)
            })
        };
        let said = |log: Log, seq: u64| {
            self.servers.iter().any(|server| server.said.contains(&(log, seq)))
        };
        let all = || self.servers.iter();
        all().all(|a| all().all(|b| prefix(a, b)))
            && all().all(|server| {
                let mut entries = server.disk.logs().values().flatten();
                entries.all(|entry| said(entry.log, entry.event.seq))
            })
    }

    /// No duplication: a timeline has a message once.
    fn messages_stand_once(&self) -> bool {
        self.servers.iter().all(|server| {
            let timeline = server.disk.timeline(RoomId::new(1));
            let identities: BTreeSet<Option<Identity>> =
                timeline.iter().map(|entry| entry.event.identity()).collect();
            identities.len() == timeline.len()
        })
    }

    /// What a server counts for a disk is there, and what it calls replicated it counts for a majority
    /// of disks.
    fn counts_are_covered(&self) -> bool {
        let all = self.servers.len();
        self.logs().into_iter().all(|log| {
            let disks: Vec<u64> = self.servers.iter().map(|s| s.disk.upto(log)).collect();
            self.servers.iter().filter_map(Server::broadcast).all(|broadcast| {
                let counted = self.servers.iter().map(|s| broadcast.on_disk_of(&s.slot, log));
                let upto = broadcast.replicated_upto(log);
                counted.clone().zip(&disks).all(|(counted, disk)| counted <= *disk)
                    && counted.filter(|counted| *counted >= upto).count() > all / 2
            })
        })
    }

    /// What a server counts for the disks of others.
    pub(super) fn counted(&self, n: usize) -> Vec<(usize, Log, u64)> {
        let Some(broadcast) = self.servers[n].broadcast() else { return Vec::new() };
        let mut logs = self.logs();
        logs.extend(broadcast.held().iter().map(|(log, _)| log));
        let others = self.servers.iter().enumerate().filter(|(m, _)| *m != n);
        let each = others.flat_map(|(m, server)| {
            logs.iter().map(move |log| (m, *log, broadcast.on_disk_of(&server.slot, *log)))
        });
        each.collect()
    }

    /// A server counts for another's disk what a frame of that one told, which is held against the disk
    /// when it leaves, and nothing else: whatever is on that disk by then. An equal digest tells what
    /// is on the own disk.
    pub(super) fn check_counts(
        &mut self,
        n: usize,
        from: usize,
        frame: &Frame,
        before: &[(usize, Log, u64)],
    ) {
        let told = |log: Log| match frame {
            Frame::Have(haves) | Frame::Vector(haves) => {
                let mut haves = haves.haves.iter().filter(|have| have.log == log);
                haves.next().map_or(0, |have| have.upto)
            }
            Frame::Digest(_) => self.servers[n].disk.upto(log),
            _ => 0,
        };
        let covered = |(m, log, upto): &(usize, Log, u64)| {
            let known = before.iter().find(|known| (known.0, known.1) == (*m, *log));
            let known = known.map_or(0, |known| known.2);
            *upto <= known || (*m == from && *upto <= told(*log))
        };
        if !self.counted(n).iter().all(covered) {
            self.breaks(format!("s{} counts for another's disk what nobody told it", n + 1));
        }
    }

    pub(super) fn logs(&self) -> BTreeSet<Log> {
        self.servers.iter().flat_map(|server| server.disk.logs().keys().copied()).collect()
    }

    /// The first rule for every state that does not hold in this one.
    pub(super) fn broken_rule(&self, scope: &Scope) -> Option<&'static str> {
        let rules = [
            (self.logs_agree(), "two disks differ in a log, or hold what nobody said"),
            (self.messages_stand_once(), "a message stands twice in a timeline"),
            (self.counts_are_covered(), "a server counts what is not on the disk"),
            (self.is_fed(scope), "a server is pushed a log by fewer links than it wants"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map(|(_, rule)| rule)
    }

    /// The first rule that does not hold in this state.
    pub(super) fn wrong(&self, scope: &Scope) -> Option<String> {
        if let Some(broken) = &self.broken {
            return Some(broken.to_string());
        }
        if let Some(rule) = self.broken_rule(scope) {
            return Some(rule.into());
        }
        if self.is_at_rest() {
            return self.differs_at_rest().map(|what| format!("at rest, {what}"));
        }
        if !self.print().is_multiple_of(REST_FROM_ONE_IN) {
            return None;
        }
        let mut rested = self.clone();
        rested.rest(scope);
        rested
            .broken
            .as_deref()
            .or(rested.differs_at_rest())
            .map(|what| format!("left alone, {what}"))
    }

    /// Whether nothing is left to happen by itself.
    pub(super) fn is_at_rest(&self) -> bool {
        let mut progress: Vec<Action> = Vec::new();
        self.progress(&mut progress);
        progress.is_empty()
    }

    /// Convergence, once at rest: all disks hold the same, everybody knows it, nobody waits, and
    /// no server starves of pushes that it did not decline.
    pub(super) fn differs_at_rest(&self) -> Option<&'static str> {
        let first = self.servers.first()?;
        for (n, server) in self.servers.iter().enumerate() {
            let Some(broadcast) = server.broadcast() else { return Some("a server is down") };
            if server.disk.logs() != first.disk.logs() {
                return Some("two disks hold different logs");
            }
            let room = RoomId::new(1);
            if server.disk.timeline(room) != first.disk.timeline(room)
                || server.disk.sums() != first.disk.sums()
            {
                return Some("two disks show a room differently");
            }
            if server.disk.registers() != first.disk.registers() {
                return Some("two disks hold different registers");
            }
            if broadcast.held() != **broadcast.durable() || broadcast.lag() > 0 {
                return Some("a server waits for something that nobody brings");
            }
            for (log, upto) in broadcast.durable().iter() {
                let known = self.servers.iter();
                let known = known.map(|other| broadcast.on_disk_of(&other.slot, log));
                let known = known.into_iter().all(|counted| counted == upto);
                if !known {
                    return Some("a server does not know what the others hold");
                }
            }
            if broadcast.timers().iter().any(|timer| matches!(timer, Timer::Repair(_))) {
                return Some("a timer is left");
            }
            if self.starves(n) {
                return Some("a server is not pushed a log that it did not decline");
            }
        }
        None
    }

    fn starves(&self, n: usize) -> bool {
        let Some(broadcast) = self.servers[n].broadcast() else { return false };
        let run = self.servers[n].run.as_ref();
        let planned = run.filter(|run| run.config.mesh.start == Start::Pruned);
        let own = planned.map(|run| Log::of(run.origin()));
        self.cables.iter().filter(|(pair, _)| pair.0 == n || pair.1 == n).any(|(pair, cable)| {
            let side = usize::from(pair.1 == n);
            let (other, link, back) =
                (end(*pair, 1 - side), cable.links[side], cable.links[1 - side]);
            self.servers[other].broadcast().is_some_and(|other| {
                let mut logs = broadcast.durable().iter().map(|(log, _)| log);
                logs.any(|log| {
                    // Nobody is planned to push a log to its own server, and that one says so to nobody.
                    Some(log) != own && !other.pushes(back, log) && !broadcast.declines(link, log)
                })
            })
        })
    }

    /// While nothing is under way and no cable is cut, whoever can be pushed the log of a living
    /// server is pushed it by as many links as it wants: also where a cable is gone that was one.
    fn is_fed(&self, scope: &Scope) -> bool {
        let both = |cable: &Cable| cable.whole && cable.up == [true, true];
        if scope.is_narrow() || !self.is_idle() || !self.cables.values().all(|cable| both(cable)) {
            return true;
        }
        let runs: Vec<(usize, &Broadcast, Log)> = self
            .servers
            .iter()
            .enumerate()
            .filter_map(|(n, server)| Some((n, server.broadcast()?, Log::of(server.origin()?))))
            .collect();
        let links = |n: usize| {
            runs.iter().filter_map(move |(other, broadcast, _)| {
                let cable = self.cables.get(&(n.min(*other), n.max(*other)))?;
                Some((cable.links[usize::from(*other > n)], *broadcast))
            })
        };
        runs.iter().all(|(n, broadcast, own)| {
            let mut logs = runs.iter().map(|(.., log)| *log);
            logs.all(|log| {
                let able = links(*n).filter(|(_, other)| other.knows(log)).count();
                let feeds = links(*n).filter(|(link, other)| other.pushes(*link, log)).count();
                log == *own || !broadcast.knows(log) || feeds >= able.min(scope.feeds.max())
            })
        })
    }

    /// Whether a server told a link to stop pushing a log.
    pub(super) fn has_pruned(&self) -> bool {
        self.any_link(|broadcast, link, log| broadcast.is_pruned(link, log))
    }

    /// Whether a link is taken not to push a log, without having been told.
    pub(super) fn has_planned(&self) -> bool {
        self.any_link(|broadcast, link, log| {
            broadcast.declines(link, log) && !broadcast.is_pruned(link, log)
        })
    }

    fn any_link(&self, is: impl Fn(&Broadcast, LinkId, Log) -> bool) -> bool {
        let logs = self.logs();
        let mut ends = self
            .cables
            .iter()
            .flat_map(|(pair, cable)| [0, 1].map(|side| (end(*pair, side), cable.links[side])));
        ends.any(|(n, link)| {
            let broadcast = self.servers[n].broadcast();
            broadcast.is_some_and(|broadcast| logs.iter().any(|log| is(broadcast, link, *log)))
        })
    }

    /// Whether every server knows of every event that it is on all disks.
    pub(super) fn all_is_replicated(&self) -> bool {
        let said = self.servers.iter().flat_map(|server| server.said.iter());
        let mut said = said.copied();
        let all = self.left.says.iter().all(|left| *left == 0);
        all && said.all(|(log, seq)| {
            self.servers
                .iter()
                .all(|server| server.broadcast().is_some_and(|b| b.replicated_upto(log) >= seq))
        })
    }

    /// Whether an event was said, is on no disk and can be on none any more: its server died.
    pub(super) fn has_lost_a_tail(&self) -> bool {
        self.is_at_rest()
            && self
                .servers
                .iter()
                .any(|server| server.said.iter().any(|(log, seq)| server.disk.upto(*log) < *seq))
    }
}
