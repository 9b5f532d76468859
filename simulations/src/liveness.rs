//! What must happen *soon*, looked at ten times a second of the world: that everything converges in
//! the end is a weak witness, since repair by `Have` and `Want` hides a broken way for good.
//!
//! - *Fed*: whoever can be pushed a living log is pushed it by as many links as it wants feeds.
//! - *Spread*: while nothing is wrong, what one disk holds all disks hold soon after.

use std::collections::BTreeMap;
use std::time::Duration;

use chatty_core::id::{LinkId, Log};
use chatty_core::time::Time;
use chatty_core::vector::Vector;

use crate::network::Way;
use crate::world::World;

/// How long a log may have too few feeds while the links to choose from stay what they are: a feed
/// that fell silent is noticed after 2 s (or by the next pong, half a second), and one link a second is
/// asked to take its place.
const STARVED_MAX: Duration = Duration::from_millis(3500);
/// One more for each feed after the first.
const NEXT_FEED: Duration = Duration::from_secs(1);
/// How long an event may be on one disk and not on another while nothing is wrong: well below the 5 s
/// after which a digest finds what everything else forgot.
const SPREAD_MAX: Duration = Duration::from_secs(4);

/// What waited behind a bad way has come so long after it is good again.
const CALM_AGAIN: Duration = Duration::from_secs(10);
/// In larger worlds it would take longer to look than to live.
const WATCHED_SERVERS_MAX: usize = 8;

/// What has been amiss since when.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Logs that a server is pushed by too few links, and the links it has.
    starved: BTreeMap<(usize, Log), (Time, Vec<u64>)>,
    /// What some disk held then; nothing was wrong since.
    owed: Option<(Time, Vector)>,
}

impl World {
    /// Looks.
    ///
    /// # Errors
    /// What took too long.
    pub(crate) fn watch_liveness(&mut self) -> Result<(), String> {
        if !self.is_watched() {
            return Ok(());
        }
        if self.is_troubled() {
            self.watch = Watch::default();
            return Ok(());
        }
        self.check_fed()?;
        self.check_spread()
    }

    /// Whether something makes everything late that looks well otherwise, or did a little while ago:
    /// bad ways, slow servers, disks that run twice.
    fn is_troubled(&self) -> bool {
        let ways = self.ways.values().map(Way::bad_until);
        let servers = self.servers.iter().map(|server| server.sluggish.1);
        let until = ways.chain(servers).max().unwrap_or_default();
        let copied = self.servers[self.swarm.servers..].iter().any(|copy| !copy.is_over());
        copied
            || !self.open_forks().is_empty()
            || until > Time::default() && self.time < until + CALM_AGAIN
    }

    /// Whether it is small enough to be looked at all the time.
    pub(crate) fn is_watched(&self) -> bool {
        self.servers.len() <= WATCHED_SERVERS_MAX
    }

    fn is_awake(&self, n: usize) -> bool {
        self.servers[n].is_alive() && !self.servers[n].is_paused(self.time)
    }

    /// The connections of a server that work, with who is at their other end.
    fn working(&self, n: usize) -> impl Iterator<Item = (u64, usize)> + '_ {
        self.cables.iter().filter_map(move |(id, cable)| {
            let [a, b] = cable.ends;
            let other = if a == n { b } else { a };
            let works = (a == n || b == n)
                && cable.up == [true, true]
                && cable.runs == [self.servers[a].run, self.servers[b].run]
                && self.is_awake(other)
                && !self.is_blocked(a, b)
                && !self.is_blocked(b, a);
            works.then_some((*id, other))
        })
    }

    fn check_fed(&mut self) -> Result<(), String> {
        let mut before = std::mem::take(&mut self.watch.starved);
        let awake: Vec<usize> = (0..self.servers.len()).filter(|n| self.is_awake(*n)).collect();
        for n in awake.iter().copied() {
            let working: Vec<(u64, usize)> = self.working(n).collect();
            for m in awake.iter().copied().filter(|m| *m != n) {
                let log = Log::of(self.servers[m].origin);
                // A run that was cut off before anybody heard of it is pushed by nobody.
                let knows = |(_, other): &&(u64, usize)| {
                    let replica = self.servers[*other].replica.as_ref();
                    replica.is_some_and(|replica| replica.broadcast().knows(log))
                };
                let links: Vec<(u64, usize)> = working.iter().filter(knows).copied().collect();
                let wanted = self.swarm.feeds.max().min(links.len());
                let pushes = |(id, other): &&(u64, usize)| {
                    let replica = self.servers[*other].replica.as_ref();
                    replica.is_some_and(|replica| replica.broadcast().pushes(LinkId(*id), log))
                };
                let feeds = links.iter().filter(pushes).count();
                if feeds >= wanted {
                    continue;
                }
                let ids: Vec<u64> = links.iter().map(|(id, _)| *id).collect();
                let since = match before.remove(&(n, log)) {
                    Some((since, same)) if same == ids => since,
                    _ => self.time,
                };
                let patience = STARVED_MAX + NEXT_FEED * (wanted.max(1) - 1) as u32;
                if self.time.since(since) > patience {
                    return Err(format!(
                        "{} is pushed log {log} by {feeds} of {} links for {patience:?}, and wants \
                         {wanted}",
                        self.servers[n].slot,
                        links.len()
                    ));
                }
                self.watch.starved.insert((n, log), (since, ids));
            }
        }
        Ok(())
    }

    fn check_spread(&mut self) -> Result<(), String> {
        let all = self.swarm.servers;
        let well = (0..all).all(|n| {
            let server = &self.servers[n];
            self.is_awake(n)
                && server.slow_micros == 0
                && !server.full
                && self.working(n).count() == all - 1
        });
        if !well {
            self.watch.owed = None;
            return Ok(());
        }
        let Some((since, owed)) = self.watch.owed.take() else {
            let mut owed = Vector::new();
            for replica in self.servers.iter().filter_map(|server| server.replica.as_ref()) {
                owed.join(replica.durable());
            }
            self.watch.owed = Some((self.time, owed));
            return Ok(());
        };
        if self.time.since(since) <= SPREAD_MAX {
            self.watch.owed = Some((since, owed));
            return Ok(());
        }
        for server in self.originals() {
            let Some(replica) = &server.replica else { continue };
            if let Some((log, upto)) =
                owed.iter().find(|(log, upto)| replica.durable().upto(*log) < *upto)
            {
                return Err(format!(
                    "nothing is wrong for {SPREAD_MAX:?}, and {} holds {} of {upto} events of {log}",
                    server.slot,
                    replica.durable().upto(log)
                ));
            }
        }
        Ok(())
    }
}
