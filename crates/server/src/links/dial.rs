//! Dialling the other servers, for ever: a task for each, which rests while its server is linked
//! and our certificate is the one it saw.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chatty_core::rng::Rng;
use chatty_core::session::ServerAddr;
use chatty_net::{Connection, ConnectionError, Endpoint};
use tokio::sync::{Notify, Semaphore, watch};

use super::{Greeter, Linked};
use crate::close;

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

/// Why a server is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    NotLinked,
    /// It is linked, and shall see our new certificate.
    NewCertificate,
}

enum Next {
    Dial(Why),
    /// Our connection ended.
    Closed(ConnectionError),
    Stop,
}

/// Dials one server.
pub(crate) struct Dialler {
    pub(crate) endpoint: Endpoint,
    pub(crate) to: ServerAddr,
    pub(crate) greeter: Greeter,
    pub(crate) linked: watch::Receiver<Linked>,
    /// Rung when the server shall be dialled although it is linked.
    pub(crate) bell: Arc<Notify>,
    pub(crate) parallel: Arc<Semaphore>,
    pub(crate) rng: Rng,
}

impl Dialler {
    /// Runs until the server stops.
    pub(crate) async fn run(mut self) {
        let mut wait = BACKOFF_MIN;
        let mut told = String::new();
        // Our connection, while it is the link.
        let mut open: Option<Connection> = None;
        let mut began = Instant::now();
        // The first dial is at once.
        loop {
            let next = tokio::select! { biased;
                why = closed(open.as_ref()) => Next::Closed(why),
                linked = self.linked.wait_for(|l| *l == Linked::No), if open.is_none() => {
                    linked.map_or(Next::Stop, |_| Next::Dial(Why::NotLinked))
                }
                () = self.bell.notified() => Next::Dial(Why::NewCertificate),
            };
            let why = match next {
                Next::Dial(why) => why,
                Next::Stop => return,
                Next::Closed(why) => {
                    open = None;
                    if began.elapsed() > GOOD {
                        wait = BACKOFF_MIN;
                        told.clear();
                    } else if let ConnectionError::ApplicationClosed(_) = why {
                        self.tell(&mut told, close::reason(&why));
                    }
                    self.rest(&mut wait, &mut told).await;
                    continue;
                }
            };
            began = Instant::now();
            match (self.dial(why).await, why) {
                (Ok(connection), _) => open = Some(connection),
                (Err(error), Why::NotLinked) => {
                    self.tell(&mut told, error);
                    self.rest(&mut wait, &mut told).await;
                }
                (Err(error), Why::NewCertificate) => tracing::warn!(
                    peer = %self.to.name,
                    "the link was not made anew with the new certificate, the old one goes on: {error}"
                ),
            }
        }
    }

    async fn rest(&mut self, wait: &mut Duration, told: &mut String) {
        tokio::time::sleep(self.jittered(*wait)).await;
        *wait = (*wait * 2).min(BACKOFF_MAX);
        if self.is_linked() {
            *wait = BACKOFF_MIN;
            told.clear();
        }
    }

    fn is_linked(&self) -> bool {
        *self.linked.borrow() != Linked::No
    }

    /// A reason is told once, not with every dial.
    fn tell(&self, told: &mut String, why: String) {
        if *told != why && !self.is_linked() {
            tracing::info!(peer = %self.to.name, addr = self.to.addr, "not linked: {why}");
            *told = why;
        }
    }

    async fn dial(&self, why: Why) -> Result<Connection, String> {
        let _turn = self.parallel.acquire().await.map_err(|_| "stopping")?;
        let needless = || why == Why::NotLinked && self.is_linked();
        if needless() {
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
        if needless() {
            close::close(&connection, close::DUPLICATE, "another connection is the link");
            return Err("linked meanwhile".into());
        }
        let me = self.greeter.me.server;
        let introduced = self.greeter.introduce(connection.clone(), identity, me).await;
        introduced.map_err(|error| error.to_string())?;
        Ok(connection)
    }

    fn jittered(&mut self, wait: Duration) -> Duration {
        let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(micros / 2 + self.rng.below(micros / 2 + 1))
    }
}

async fn closed(connection: Option<&Connection>) -> ConnectionError {
    match connection {
        Some(connection) => connection.closed().await,
        None => std::future::pending().await,
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
