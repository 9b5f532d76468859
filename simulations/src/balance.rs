//! Servers come and go, and their clients spread again: soon enough, once each, and without anybody
//! being without a server for long.

use std::time::Duration;

use chatty_core::client::{ClientEvent, LostWhy};
use chatty_core::io::Input;
use chatty_core::rng::Rng;
use chatty_core::session::ServerState;
use chatty_core::time::Time;

use crate::faults::Swarm;
use crate::luck::Stream;
use crate::world::{Action, Failure, World};

/// Servers of a run.
const SERVERS: usize = 3;

/// A client came to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    at: Time,
    /// How long it had none, and why: it was asked to go, or lost the one it had.
    after: Option<(Duration, Left)>,
}

/// Why a client left a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Asked,
    Lost,
}

/// Where a client was.
#[derive(Debug, Default)]
pub(crate) struct Journey {
    arrivals: Vec<Arrival>,
    lost: bool,
}

impl Journey {
    pub(crate) fn note(&mut self, now: Time, event: &ClientEvent) {
        match event {
            ClientEvent::Lost { why, .. } => self.lost = !matches!(why, LostWhy::Leaving),
            ClientEvent::Attached(attached) => {
                let left = if std::mem::take(&mut self.lost) { Left::Lost } else { Left::Asked };
                let after = attached.outage.map(|outage| (outage, left));
                self.arrivals.push(Arrival { at: now, after });
            }
            _ => {}
        }
    }
}

/// What became of the clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    /// How many each server has.
    pub clients: Vec<usize>,
    /// How many moves they made because a server asked them to.
    pub moves: usize,
    /// The longest that one was without a server by that.
    pub outage: Duration,
    /// The shortest time between coming to a server and being asked to go.
    pub stay: Duration,
}

/// All servers are restarted one after the other while people talk, and then nothing happens any
/// more. Returns what that left, and what became of it after so long.
///
/// # Errors
/// A rule that was broken on the way.
pub fn rolling_restart(
    seed: u64,
    clients: usize,
    calm: Duration,
) -> Result<(Spread, Spread), Failure> {
    let mut world = gathered(seed, clients)?;
    for n in 0..SERVERS {
        world.restart_in_order(n)?;
    }
    let restarted = world.time;
    let left = world.spread(Time::default());
    world.talk(clients * 20, calm)?;
    let after = world.spread(restarted);
    world.settle()?;
    Ok((left, after))
}

/// Nothing happens: people talk.
///
/// # Errors
/// A rule that was broken on the way.
pub fn calm(seed: u64, clients: usize, long: Duration) -> Result<Spread, Failure> {
    let mut world = gathered(seed, clients)?;
    let began = world.time;
    world.talk(clients * 10, long)?;
    let spread = world.spread(began);
    world.settle()?;
    Ok(spread)
}

/// Servers are killed and come back, one every so often. Returns what became of the clients while
/// that went on, and of calm after it.
///
/// # Errors
/// A rule that was broken on the way.
pub fn come_and_go(
    seed: u64,
    clients: usize,
    every: Duration,
    kills: usize,
    calm: Duration,
) -> Result<(Spread, Spread), Failure> {
    let mut world = gathered(seed, clients)?;
    let began = world.time;
    for _ in 0..kills {
        let n = world.luck.of(Stream::Strike).below(SERVERS as u64) as usize;
        world.kill(n);
        world.later(2_000_000, Action::Start { server: n });
        world.talk(clients, every.saturating_sub(Duration::from_secs(1)))?;
    }
    let going = world.spread(began);
    world.talk(clients * 10, calm)?;
    let last = world.time;
    world.talk(clients * 10, calm)?;
    let after = world.spread(last);
    world.settle()?;
    Ok((going, after))
}

fn gathered(seed: u64, clients: usize) -> Result<World, Failure> {
    let mut world = World::with(Swarm::calm(SERVERS, clients), Rng::new(seed));
    world.gather()?;
    Ok(world)
}

impl World {
    /// As an operator does it: drained, stopped, started, and waited for.
    fn restart_in_order(&mut self, n: usize) -> Result<(), Failure> {
        let limit = Duration::from_secs(60);
        self.give(n, Input::Drain);
        let drained = move |world: &Self| {
            let replica = world.servers[n].replica.as_ref();
            replica.is_some_and(|replica| {
                replica.state() == ServerState::Stopping && replica.drain().is_done()
            })
        };
        self.talk(30, Duration::from_secs(2))?;
        if !self.go_until(limit, drained)? {
            return Err(self.failure(format!("s{} is not drained", n + 1)));
        }
        self.kill(n);
        self.later(500_000, Action::Start { server: n });
        let all_ready = |world: &Self| {
            world.servers.iter().all(|server| {
                server.replica.as_ref().is_some_and(|replica| {
                    replica.state() == ServerState::Ready
                        && replica.broadcast().links_told() == SERVERS - 1
                })
            })
        };
        if self.go_until(limit, all_ready)? {
            return Ok(());
        }
        Err(self.failure("the servers are not linked again".into()))
    }

    /// Where the clients are, and what they went through since then.
    fn spread(&self, since: Time) -> Spread {
        let at = |n: usize| {
            let here = |person: &&crate::person::Person| {
                person.client.server() == Some(&self.servers[n].slot)
            };
            self.people.iter().filter(here).count()
        };
        let mut spread = Spread {
            clients: (0..SERVERS).map(at).collect(),
            moves: 0,
            outage: Duration::ZERO,
            stay: Duration::MAX,
        };
        for person in &self.people {
            let arrivals = &person.journey.arrivals;
            for two in arrivals.windows(2) {
                let Some((outage, Left::Asked)) = two[1].after else { continue };
                if two[1].at < since {
                    continue;
                }
                spread.moves += 1;
                spread.outage = spread.outage.max(outage);
                spread.stay = spread.stay.min(two[1].at.since(two[0].at));
            }
        }
        spread
    }
}
