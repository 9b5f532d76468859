//! `bench`: many clients in one process, what they measured, and whether every delivery is right.
//!
//! Every message carries its room, its sender, its number and when it was said. Every member of a
//! room checks that each message of each sender reaches it once; a loss or a repetition ends the
//! program with an error. In open loop the time a late sender should have sent at counts.

mod member;
mod report;
mod servers;
mod storm;
mod tally;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::{Duration, Instant};

use chatty_client::Cluster;
use chatty_client::driver::Sockets;
use chatty_net::{Endpoint, Trust};
use tokio::sync::watch;

use crate::Trouble;
use crate::args::{Safety, seconds};
use crate::out::{self, Out};
use member::{Member, MemberReport};
use servers::Usage;

/// Clients that dial with sockets of their own, at most; more share a few.
const OWN_SOCKETS_MAX: usize = 64;
/// Shared sockets of one thread.
const SOCKETS: usize = 2;
/// All clients must be attached, with their rooms open, within this.
const SETUP_MAX: Duration = Duration::from_secs(60);

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// Clients, spread over the servers.
    #[arg(long, value_name = "N", default_value_t = 30)]
    clients: usize,
    /// Rooms.
    #[arg(long, value_name = "R", default_value_t = 1)]
    rooms: usize,
    /// Clients in each room [default: all].
    #[arg(long, value_name = "M")]
    members: Option<usize>,
    /// Clients that send [default: all].
    #[arg(long, value_name = "N")]
    senders: Option<usize>,
    /// Open loop: so many messages a second from all senders together.
    #[arg(long, value_name = "R", default_value_t = 200.0, conflicts_with = "window")]
    rate: f64,
    /// Closed loop: so many messages of each sender unanswered at any time.
    #[arg(long, value_name = "W")]
    window: Option<usize>,
    /// Bytes of each message.
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    body: usize,
    /// Measure for so long.
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// Send for so long before.
    #[arg(long, value_name = "S", default_value = "2", value_parser = seconds)]
    warmup: Duration,
    /// What counts as answered.
    #[arg(long, value_enum, default_value_t = Safety::Replicated)]
    level: Safety,
    /// Threads that run the clients [default: one for each core]. Servers on the same machine leave
    /// a single one less than its share.
    #[arg(long, value_name = "T")]
    threads: Option<usize>,
    /// Instead: attach all clients to --server, wait until it ends, and tell how long they were
    /// without a server and where they went.
    #[arg(long)]
    storm: bool,
}

impl Plan {
    fn check(&self) -> Result<(), Trouble> {
        let usage = |text: &str| Err(Trouble::Usage(text.into()));
        let sends = self.rate.is_finite() && self.rate > 0.0 && self.window != Some(0);
        match () {
            () if self.clients == 0 || self.rooms == 0 || self.threads == Some(0) => {
                usage("clients, rooms and threads must be above 0")
            }
            () if !sends => usage("the rate or the window must be above 0"),
            () if self.members() == 0 || self.members() > self.clients => {
                usage("a room has from 1 member to as many as there are clients")
            }
            () if self.body > chatty_core::event::TEXT_BYTES_MAX => {
                usage("a message has at most 16384 bytes")
            }
            () => Ok(()),
        }
    }

    fn members(&self) -> usize {
        self.members.unwrap_or(self.clients)
    }

    fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.threads.unwrap_or_else(cores)
    }

    fn senders(&self) -> usize {
        self.senders.unwrap_or(self.clients).min(self.clients)
    }

    /// The rooms of a client: neighbours on a ring share them, so that all have as many.
    fn rooms_of(&self, client: usize) -> Vec<usize> {
        let (clients, members) = (self.clients, self.members());
        let first = |room: usize| room * members % clients;
        let inside = |room: &usize| (client + clients - first(*room)) % clients < members;
        (0..self.rooms).filter(inside).collect()
    }
}

/// What all clients share.
struct Shared {
    plan: Plan,
    /// Tells the runs apart: their messages are in the same rooms.
    run: u32,
    began: Instant,
    ready: AtomicUsize,
    /// When the sending begins.
    start: watch::Sender<Option<Instant>>,
    /// Senders that have said all they will.
    finished: AtomicUsize,
    /// Messages said in each room.
    said: Vec<AtomicU64>,
}

impl Shared {
    fn room(room: usize) -> String {
        format!("bench-{room}")
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

pub async fn run(
    cluster: &Cluster,
    out: Out,
    plan: &Plan,
    server: Option<&str>,
) -> Result<(), Trouble> {
    plan.check()?;
    if plan.storm {
        return storm::run(cluster, out, plan, server).await;
    }
    let addrs: Vec<String> = cluster.servers.iter().map(|s| s.addr.clone()).collect();
    let addrs = if addrs.is_empty() { cluster.seeds.clone() } else { addrs };
    let shared = Arc::new(Shared {
        plan: plan.clone(),
        run: u32::try_from(chatty_client::chat::seed()? & 0xffff_ffff).unwrap_or(0),
        began: Instant::now(),
        ready: AtomicUsize::new(0),
        start: watch::Sender::new(None),
        finished: AtomicUsize::new(0),
        said: (0..plan.rooms).map(|_| AtomicU64::new(0)).collect(),
    });
    let threads: Vec<_> = (0..plan.threads())
        .map(|thread| {
            let (shared, cluster, addrs) = (shared.clone(), cluster.clone(), addrs.clone());
            std::thread::spawn(move || run_thread(thread, &shared, &cluster, &addrs))
        })
        .collect();
    wait_ready(&shared).await?;
    let start = Instant::now() + Duration::from_millis(50);
    shared.start.send_replace(Some(start));
    tokio::time::sleep_until((start + plan.warmup).into()).await;
    let before = Usage::of(cluster);
    tokio::time::sleep_until((start + plan.warmup + plan.seconds).into()).await;
    let used = Usage::of(cluster).since(&before);
    let mut reports: Vec<MemberReport> = Vec::new();
    for thread in threads {
        match thread.join() {
            Ok(part) => reports.extend(part?),
            Err(_) => return Err(Trouble::Say("a thread of the clients failed".into())),
        }
    }
    report::print(out, plan, &reports, &used)
}

async fn wait_ready(shared: &Shared) -> Result<(), Trouble> {
    let began = Instant::now();
    loop {
        let ready = shared.ready.load(std::sync::atomic::Ordering::Acquire);
        if ready >= shared.plan.clients {
            return Ok(());
        }
        if began.elapsed() > SETUP_MAX {
            let clients = shared.plan.clients;
            return Err(Trouble::Say(format!("only {ready} of {clients} clients are ready")));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs every `threads`-th client.
fn run_thread(
    thread: usize,
    shared: &Arc<Shared>,
    cluster: &Cluster,
    addrs: &[String],
) -> Result<Vec<MemberReport>, Trouble> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let trust = Trust::pinned(cluster.authority)?;
        let endpoints = (0..SOCKETS).map(|_| Endpoint::client()).collect::<Result<Vec<_>, _>>()?;
        let mut tasks = tokio::task::JoinSet::new();
        for n in (thread..shared.plan.clients).step_by(shared.plan.threads()) {
            let sockets = match endpoints.get(n % SOCKETS) {
                Some(endpoint) if shared.plan.clients > OWN_SOCKETS_MAX => {
                    Sockets::Shared(endpoint.clone())
                }
                _ => Sockets::Own,
            };
            let member = Member::new(n, shared.clone(), cluster, sockets, trust.clone(), addrs);
            tasks.spawn(member.await?.run());
        }
        let mut reports = Vec::new();
        while let Some(report) = tasks.join_next().await {
            reports.push(report?.map_err(|why| {
                out::complain(&why);
                Trouble::Silent
            })?);
        }
        Ok(reports)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_room_has_its_members_and_clients_share_the_rooms_evenly() {
        let plan = Plan {
            clients: 300,
            rooms: 100,
            members: Some(9),
            senders: None,
            rate: 1.0,
            window: None,
            body: 128,
            seconds: Duration::ZERO,
            warmup: Duration::ZERO,
            level: Safety::Replicated,
            threads: Some(1),
            storm: false,
        };
        let mut members = vec![0; 100];
        for client in 0..300 {
            let rooms = plan.rooms_of(client);
            assert_eq!(rooms.len(), 3, "client {client}: {rooms:?}");
            rooms.iter().for_each(|room| members[*room] += 1);
        }
        assert!(members.iter().all(|count| *count == 9), "{members:?}");
    }
}
