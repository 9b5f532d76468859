//! What each setting of `feeds` costs in a calm mesh: copies of an event pushed per broadcast,
//! before and after the receivers have pruned.

use std::num::NonZeroU8;
use std::time::Duration;

use chatty_core::broadcast::Counts;
use chatty_core::config::Feeds;
use chatty_core::rng::Rng;

use crate::faults::Swarm;
use crate::world::{Failure, World};

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Servers, all linked to each other.
    pub servers: usize,
    /// How many links push each log to a server.
    pub feeds: Feeds,
    /// Copies pushed per event while nothing is pruned yet.
    pub first: f64,
    /// Copies pushed per event once prunes have ceased.
    pub settled: f64,
    /// `Have` frames sent per event then.
    pub haves: f64,
    /// Copies sent because somebody asked, in all: without faults none.
    pub repairs: u64,
}

/// Measures one setting; a person at every server talks.
///
/// # Errors
/// A rule that was broken on the way.
pub fn cost(servers: usize, feeds: Feeds, seed: u64) -> Result<Cost, Failure> {
    let swarm = Swarm { feeds, ..Swarm::calm(servers, servers) };
    let mut world = World::with(swarm, Rng::new(seed));
    world.gather()?;
    let start = world.totals();
    world.talk(2 * servers, Duration::from_secs(2))?;
    let first = world.totals();
    // Prunes are at most one a second for each log and link.
    world.talk(20 * servers, Duration::from_secs(30))?;
    let warm = world.totals();
    let said = 10 * servers;
    world.talk(said, Duration::from_secs(10))?;
    let end = world.totals();
    let per = |from: Counts, to: Counts, pick: fn(&Counts) -> u64, events: u64| {
        (pick(&to) - pick(&from)) as f64 / events.max(1) as f64
    };
    Ok(Cost {
        servers,
        feeds,
        first: per(start.0, first.0, |c| c.payload_sends, first.1 - start.1),
        settled: per(warm.0, end.0, |c| c.payload_sends, end.1 - warm.1),
        haves: per(warm.0, end.0, |c| c.have_frames, end.1 - warm.1),
        repairs: end.0.range_sends - start.0.range_sends,
    })
}

/// The settings of the table.
pub fn settings() -> Vec<(usize, Feeds)> {
    let some = |n| NonZeroU8::new(n).map_or(Feeds::All, Feeds::Some);
    let mut settings = Vec::new();
    for servers in [3, 5, 25] {
        settings.extend([Feeds::All, some(2), some(1)].map(|feeds| (servers, feeds)));
    }
    settings
}
