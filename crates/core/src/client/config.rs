//! What a client is told at its beginning, and its times.

use std::time::Duration;

use crate::session::{Direct, ServerAddr};

use super::journal::Journal;

/// Which servers a client attaches to.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Roam {
    /// Any, in an order of its own: rendezvous hashing spreads accounts over servers.
    #[default]
    Anywhere,
    /// This address first, then any.
    First(String),
    /// This address alone: the answers must be that server's.
    Only(String),
}

/// What does not change while a client runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Servers to begin with; every `Welcome` brings the list anew.
    pub servers: Vec<ServerAddr>,
    /// Addresses to begin with whose servers' names are not known.
    pub seeds: Vec<String>,
    /// Which of them to attach to.
    pub roam: Roam,
    /// The token kept from last time; empty makes a new guest account.
    pub token: Vec<u8>,
    /// The name to go by; `None` keeps the account's.
    pub nick: Option<String>,
    /// Whether this program shows direct messages.
    pub direct: Direct,
    /// Lines of each room whose identity is remembered even when the cursor covers them, so that
    /// a message its sender repeated elsewhere is told once. 1024: at 200 messages a second five
    /// seconds, twice the longest fail-over of a sender.
    pub remembered: usize,
    /// What an earlier client left to be sent, perhaps nothing; with it everything that is said is
    /// written down. `None`: nothing is.
    pub journal: Option<Journal>,
    /// Times.
    pub timing: Timing,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            seeds: Vec::new(),
            roam: Roam::Anywhere,
            token: Vec::new(),
            nick: None,
            direct: Direct::Ignore,
            remembered: 1024,
            journal: None,
            timing: Timing::default(),
        }
    }
}

/// A client's times, all by the steady clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A dial must succeed within this. One second: a handshake is two round trips, and a silent
    /// server must not cost more than the three seconds that a fail-over may take.
    pub dial: Duration,
    /// An attach must be answered within this: a server may wait two seconds for events that the
    /// client has seen elsewhere.
    pub attach: Duration,
    /// After so much silence a ping.
    pub ping: Duration,
    /// After so much silence another server.
    pub silence: Duration,
    /// After a hint that the server's process is gone, a ping has this long (and at least two
    /// round trips) to be answered. 60 ms: with a canary every 120 ms a killed server is given up
    /// within 200 ms.
    pub probe: Duration,
    /// After such a hint a handshake has this long to complete, and an attach a ping to be
    /// answered. 250 ms: a round trip around the world, since none has been measured yet.
    pub hinted: Duration,
    /// A server that failed is dialled again after this, doubling, jittered…
    pub backoff_min: Duration,
    /// … up to this.
    pub backoff_max: Duration,
    /// An ask must be answered within this, fail-overs included.
    pub patience: Duration,
    /// A goodbye must be answered within this.
    pub detach_wait: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            dial: ms(1000),
            attach: ms(2500),
            ping: ms(500),
            silence: ms(2000),
            probe: ms(60),
            hinted: ms(250),
            backoff_min: ms(100),
            backoff_max: ms(5000),
            patience: ms(10_000),
            detach_wait: ms(500),
        }
    }
}
