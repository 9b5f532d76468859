//! Drives chatty as its users do: `scripts/cluster` for servers, the `chatty` program for
//! clients, each a process of its own.
//!
//! [`TestCluster`] has a folder and ports of its own, and leaves nothing running. [`Person`] is
//! somebody at a terminal: commands, a [`Tail`] that shows a room, a [`Flow`] that sends line
//! after line. Nothing here waits for time to pass: [`eventually`] waits for a fact, with a bound
//! that only a failure reaches.

mod client;
mod cluster;
mod docs;
mod ports;
pub mod rounds;
mod wait;

pub use client::{Flow, Person, Ran, Tail, key, text};
pub use cluster::{ServerProcess, TestCluster, programs, repository, run_script};
pub use docs::{Block, code_blocks};
pub use ports::Ports;
pub use wait::{LONG, SHORT, eventually};
