//! Dialling the other servers, for ever: a task for each, which rests while its server is linked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chatty_core::rng::Rng;
use chatty_core::session::ServerAddr;
use chatty_net::{Connection, ConnectionError, Endpoint};
use tokio::sync::{Semaphore, watch};

use super::{Greeter, Linked};
use crate::close;
use crate::driver::inbox::{Doors, Event};

/// Between dials: doubling from this…
const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// … to this, less a random half, so that servers that lost each other do not meet in step.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A link that lived so long was a good one.
const GOOD: Duration = Duration::from_secs(10);
/// A handshake may take this long.
const LIMIT: Duration = Duration::from_secs(4);
/// Dials at once.
pub(crate) const PARALLEL: usize = 8;

/// Dials one server.
pub(crate) struct Dialler {
    pub(crate) endpoint: Endpoint,
    pub(crate) to: ServerAddr,
    pub(crate) greeter: Greeter,
    pub(crate) doors: Doors,
    pub(crate) linked: watch::Receiver<Linked>,
    pub(crate) parallel: Arc<Semaphore>,
    pub(crate) rng: Rng,
}

impl Dialler {
    /// Runs until the server stops.
    pub(crate) async fn run(mut self) {
        let mut wait = BACKOFF_MIN;
        let mut told = String::new();
        // The first dial is at once.
        while self.linked.wait_for(|linked| *linked == Linked::No).await.is_ok() {
            let began = Instant::now();
            match self.dial().await {
                Ok(connection) => {
                    let why = connection.closed().await;
                    if began.elapsed() > GOOD {
                        wait = BACKOFF_MIN;
                        told.clear();
                    } else if let ConnectionError::ApplicationClosed(_) = why {
                        self.tell(&mut told, close::reason(&why));
                    }
                }
                Err(why) => self.tell(&mut told, why),
            }
            tokio::time::sleep(self.jittered(wait)).await;
            wait = (wait * 2).min(BACKOFF_MAX);
            if *self.linked.borrow() == Linked::Yes {
                wait = BACKOFF_MIN;
                told.clear();
            }
        }
    }

    /// A reason is told once, not with every dial.
    fn tell(&self, told: &mut String, why: String) {
        if *told != why && *self.linked.borrow() == Linked::No {
            tracing::info!(peer = %self.to.name, addr = self.to.addr, "not linked: {why}");
            *told = why;
        }
    }

    async fn dial(&self) -> Result<Connection, String> {
        let _turn = self.parallel.acquire().await.map_err(|_| "stopping")?;
        if *self.linked.borrow() == Linked::Yes {
            return Err("linked meanwhile".into());
        }
        let address = resolve(&self.to.addr, self.endpoint.local_addr().ok()).await?;
        self.endpoint.expect_peer(self.to.name.as_str(), address);
        let dialled = self.endpoint.dial_peer(address, LIMIT).await;
        let (connection, identity) = dialled.map_err(|error| error.to_string())?;
        if identity.slot != self.to.name {
            let why = format!("{} answers there; compare the lists of servers", identity.slot);
            close::close(&connection, close::REFUSED, &why);
            return Err(why);
        }
        let me = self.greeter.me.server;
        let greeted = self.greeter.greet(connection.clone(), identity, me).await;
        let ready = greeted.map_err(|error| error.to_string())?;
        self.doors.tell(Event::LinkReady(Box::new(ready)));
        Ok(connection)
    }

    fn jittered(&mut self, wait: Duration) -> Duration {
        let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(micros / 2 + self.rng.below(micros / 2 + 1))
    }
}

/// The first address of a name that our socket can send to.
async fn resolve(addr: &str, local: Option<SocketAddr>) -> Result<SocketAddr, String> {
    let found = tokio::net::lookup_host(addr).await;
    let found = found.map_err(|error| format!("{addr} cannot be looked up: {error}"))?;
    let found: Vec<SocketAddr> = found.collect();
    let suits = |a: &&SocketAddr| local.is_none_or(|local| local.is_ipv4() == a.is_ipv4());
    let first = found.iter().find(suits).or(found.first());
    first.copied().ok_or_else(|| format!("{addr} has no address"))
}
