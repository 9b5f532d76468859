//! A server starts, and the one that alone holds what it is to fetch dies: the starting one and the
//! third are a majority, and must take clients.

use std::time::Duration;

use chatty_core::rng::Rng;
use chatty_core::session::ServerState;

use crate::faults::Swarm;
use crate::world::{Action, Failure, World};

/// Lives through it; returns how many events the dead server alone held, as the starting one heard.
///
/// # Errors
/// The server was not ready in time, or a rule was broken on the way.
pub fn the_only_holder_dies(seed: u64) -> Result<u64, Failure> {
    // A way so long that a server hears what another holds well before it gets it.
    let swarm = Swarm { delay_micros: (150_000, 1), ..Swarm::calm(3, 6) };
    let mut world = World::with(swarm, Rng::new(seed));
    world.gather()?;
    world.kill(0);
    world.block(1, 2, None);
    world.block(2, 1, None);
    world.talk(12, Duration::from_secs(2))?;
    world.later(0, Action::Start { server: 0 });
    let heard = |world: &World| {
        let replica = world.servers[0].replica.as_ref();
        replica.map_or(0, |replica| match replica.broadcast().links_told() {
            2 => replica.broadcast().claimed().ahead_of(replica.durable()),
            _ => 0,
        })
    };
    if !world.go_until(Duration::from_secs(10), |world| heard(world) > 0)? {
        return Err(world.failure("the starting server heard of nothing to fetch".into()));
    }
    let alone = heard(&world);
    world.kill(1);
    let ready = |world: &World| {
        let replica = world.servers[0].replica.as_ref();
        replica.is_some_and(|replica| replica.state() == ServerState::Ready)
    };
    if !world.go_until(Duration::from_secs(20), ready)? {
        return Err(world.failure("two of three servers live, and one takes no clients".into()));
    }
    Ok(alone)
}
