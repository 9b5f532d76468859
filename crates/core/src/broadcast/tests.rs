//! One server's broadcast: what it says when it is told something, all of it.

mod acks;
mod feeds;
mod lossy;
mod push;
mod repair;
mod serve;
mod standing;
mod untimed;
mod world;
