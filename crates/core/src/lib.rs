//! chatty's protocol and chat state as pure state machines.
//!
//! Inputs in, outputs out, time and randomness as arguments. This crate never reads a clock, opens
//! a socket or a file, starts a thread or asks the system for randomness; the same inputs give the
//! same outputs on every run. [`replica::Replica`] is a server, [`client::Client`] is its client;
//! `server`, `client` and `simulations` drive them.
//!
//! In reading order:

pub mod bugs;
pub mod id;
pub mod time;
pub mod vector;
pub mod rng;
pub mod event;
pub mod wire;
pub mod frame;
pub mod session;
pub mod token;
pub mod register;
pub mod store;
pub mod scrub;
pub mod config;
pub mod io;
pub mod broadcast;
pub mod clock;
pub mod health;
mod catch_up;
pub mod rooms;
pub mod presence;
mod sessions;
mod retention;
mod balance;
mod visible;
pub mod replica;
pub mod client;
