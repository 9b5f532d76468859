//! chatty's core against a virtual network, disk and clock: one seed, one history.
//!
//! A run draws its faults and bounds ([`faults::Swarm`]), lives through them with every invariant
//! checked after every step, is healed, and must converge. The machines under test are the real
//! ones: [`chatty_core::replica::Replica`] and [`chatty_core::client::Client`].

pub mod disk;
pub mod faults;
pub mod feeds;
pub mod floods;
pub mod history;
mod liveness;
pub mod losing;
pub mod maelstrom;
pub mod model;
mod network;
mod person;
pub mod scale;
mod server;
pub mod start;
mod strike;
pub mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use world::{Failure, Report, World};

/// Runs the world of a seed. A broken invariant of the core is a failure like any other.
///
/// # Errors
/// What was wrong, and when.
pub fn run(seed: u64) -> Result<Report, Failure> {
    caught(|| World::new(seed).run())
}

/// Lives through something; a panic of the core is a failure like any other.
///
/// # Errors
/// What was wrong, and when.
pub fn caught<T>(live: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(live)) {
        Ok(result) => result,
        Err(panic) => {
            let what = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
                .unwrap_or_else(|| "a panic without words".into());
            Err(Failure { what, at: chatty_core::time::Time::from_micros(0) })
        }
    }
}
