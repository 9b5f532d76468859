//! The core's broadcast behind Maelstrom's protocol, and a driver that treats nodes as Maelstrom does.
//!
//! - `message.rs`: the lines
//! - `node.rs`: a node, between lines in and lines out
//! - `network.rs`: what Maelstrom's network does to lines, and what it counts
//! - `clients.rs`: what its clients ask, and what can be said of the answers
//! - `drive.rs`: nodes of this process in virtual time
//! - `processes.rs`: nodes that are processes, in real time
//! - `report.rs`: figures
//! - `command.rs`: all that from the command line
//!
//! How to run Maelstrom's own workload, and what was measured, is in `docs/maelstrom.md`.

pub mod clients;
pub mod command;
pub mod drive;
pub mod message;
pub mod network;
pub mod node;
pub mod processes;
pub mod report;
