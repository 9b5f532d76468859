//! chatty's core against a virtual network, disk and clock: one seed, one history.
//!
//! A run draws its faults and bounds ([`faults::Swarm`]), lives through them with every invariant
//! checked after every step, is healed, and must converge. The machines under test are the real
//! ones: [`chatty_core::replica::Replica`] and [`chatty_core::client::Client`].

pub mod balance;
pub mod command;
pub mod disk;
pub mod faults;
pub mod feeds;
pub mod floods;
pub mod history;
mod liveness;
pub mod losing;
pub mod maelstrom;
pub mod model;
mod heal;
mod luck;
mod network;
pub mod page;
mod person;
mod record;
mod rot;
pub mod scale;
pub mod schedule;
mod server;
pub mod start;
mod strike;
pub mod tape;
pub mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use world::{Failure, Report, World};

/// Runs the world of a seed. A broken invariant of the core is a failure like any other.
///
/// # Errors
/// What was wrong, and when.
pub fn run(seed: u64) -> Result<Report, Failure> {
    live(&mut World::new(seed))
}

/// Lives through a world. A broken invariant of the core is a failure like any other.
///
/// # Errors
/// What was wrong, and when.
pub fn live(world: &mut World) -> Result<Report, Failure> {
    match catch_unwind(AssertUnwindSafe(|| world.run())) {
        Ok(result) => result,
        Err(panic) => Err(world.failure(words(&*panic))),
    }
}

/// Lives through something; a panic of the core is a failure like any other.
///
/// # Errors
/// What was wrong, and when.
pub fn caught<T>(live: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(live)) {
        Ok(result) => result,
        Err(panic) => {
            Err(Failure { what: words(&*panic), at: chatty_core::time::Time::from_micros(0) })
        }
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let what = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_else(|| "without words".into());
    format!("panic: {what}")
}
