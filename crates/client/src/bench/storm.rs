//! `bench --storm`: all clients attach to one server and wait for its end; then it is told how
//! long each was without a server, and where they went.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chatty_client::driver::{Driver, Sockets};
use chatty_client::{Cluster, Mode, Ticket};
use chatty_core::client::{Ask, ClientEvent, Command, Config, Roam, Timing};
use chatty_net::{Endpoint, Trust};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout_at;

use super::Plan;
use crate::Trouble;
use crate::out::Out;

/// Clients that share a socket: as few as a machine's limit of open files allows for thousands.
const CLIENTS_PER_SOCKET: usize = 100;
/// Clients of a thread that attach at the same time, at first.
const ATTACHING: usize = 16;
/// Clients in each room.
const PER_ROOM: usize = 20;
/// All must be attached within this, at first and again.
const SETTLED_MAX: Duration = Duration::from_secs(60);
/// The end of the server is waited for so long.
const END_MAX: Duration = Duration::from_secs(600);

/// A client has a server, after so long without.
struct Arrival {
    client: usize,
    server: String,
    outage: Option<Duration>,
}

#[derive(Serialize)]
struct Attached {
    #[serde(rename = "type")]
    kind: &'static str,
    clients: usize,
    server: String,
    seconds: f64,
}

#[derive(Serialize)]
struct Moved {
    #[serde(rename = "type")]
    kind: &'static str,
    clients: usize,
    servers: BTreeMap<String, usize>,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

pub async fn run(
    cluster: &Cluster,
    out: Out,
    plan: &Plan,
    server: Option<&str>,
) -> Result<(), Trouble> {
    let Some(server) = server else {
        return Err(Trouble::Usage("--storm needs --server: whose end to wait for".into()));
    };
    let addr = cluster.address_of(server)?;
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let began = Instant::now();
    for thread in 0..plan.threads() {
        let (plan, cluster) = (plan.clone(), cluster.clone());
        let (addr, arrived) = (addr.clone(), arrived.clone());
        std::thread::spawn(move || run_thread(thread, &plan, &cluster, &addr, &arrived));
    }
    drop(arrived);
    let mut here: BTreeMap<usize, String> = BTreeMap::new();
    let until = (Instant::now() + SETTLED_MAX).into();
    while here.len() < plan.clients {
        match timeout_at(until, arrivals.recv()).await {
            Ok(Some(Ok(Arrival { client, server, .. }))) => here.insert(client, server),
            Ok(Some(Err(why))) => return Err(Trouble::Say(why)),
            Ok(None) | Err(_) => return Err(incomplete(here.len(), plan.clients)),
        };
    }
    // The others' sessions would not be moved by that server's end.
    let first = here.values().next().cloned().unwrap_or_default();
    let settled = here.values().filter(|server| **server == first).count();
    if settled < plan.clients {
        return Err(incomplete(settled, plan.clients));
    }
    let seconds = began.elapsed().as_secs_f64();
    let attached = Attached { kind: "attached", clients: settled, server: first.clone(), seconds };
    out.put(&attached, |_| {
        format!("{settled} clients are attached to {first} after {seconds:.1} s; end it now")
    })?;

    let mut outages: BTreeMap<usize, (String, Duration)> = BTreeMap::new();
    let mut until = (Instant::now() + END_MAX).into();
    while outages.len() < plan.clients {
        match timeout_at(until, arrivals.recv()).await {
            Ok(Some(Ok(Arrival { client, server, outage }))) => {
                if outages.is_empty() {
                    until = (Instant::now() + SETTLED_MAX).into();
                }
                // One that moves on is counted where it is, with all it waited.
                let before = outages.remove(&client).map_or(Duration::ZERO, |(_, outage)| outage);
                outages.insert(client, (server, before + outage.unwrap_or_default()));
            }
            Ok(Some(Err(why))) => return Err(Trouble::Say(why)),
            Ok(None) | Err(_) => return Err(incomplete(outages.len(), plan.clients)),
        }
    }
    put(out, &outages)
}

fn incomplete(count: usize, of: usize) -> Trouble {
    Trouble::Say(format!("only {count} of {of} clients are attached as they should be"))
}

fn put(out: Out, outages: &BTreeMap<usize, (String, Duration)>) -> Result<(), Trouble> {
    let mut servers: BTreeMap<String, usize> = BTreeMap::new();
    let mut times: Vec<f64> = Vec::new();
    for (server, outage) in outages.values() {
        *servers.entry(server.clone()).or_default() += 1;
        times.push(outage.as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let permille = |of: usize| times.get(times.len() * of / 1000).copied().unwrap_or_default();
    let moved = Moved {
        kind: "moved",
        clients: times.len(),
        servers,
        p50_ms: permille(500),
        p99_ms: permille(990),
        max_ms: times.last().copied().unwrap_or_default(),
    };
    out.put(&moved, |_| {
        let Moved { clients, p50_ms, p99_ms, max_ms, .. } = &moved;
        let places: Vec<_> = moved.servers.iter().map(|(s, n)| format!("{n} on {s}")).collect();
        format!(
            "{clients} clients have a server again: {}; without one p50 {p50_ms:.0} ms, \
             p99 {p99_ms:.0} ms, max {max_ms:.0} ms",
            places.join(", ")
        )
    })
}

/// Runs every `threads`-th client, until nobody listens any more.
fn run_thread(
    thread: usize,
    plan: &Plan,
    cluster: &Cluster,
    addr: &str,
    arrived: &mpsc::UnboundedSender<Result<Arrival, String>>,
) {
    let clients = async {
        let trust = Trust::pinned(cluster.authority).map_err(|error| error.to_string())?;
        let mine: Vec<usize> = (thread..plan.clients).step_by(plan.threads()).collect();
        // At first they come one after the other: the storm is what follows.
        let turns = Arc::new(Semaphore::new(ATTACHING));
        for together in mine.chunks(CLIENTS_PER_SOCKET) {
            let endpoint = Endpoint::client().map_err(|error| error.to_string())?;
            for client in together {
                let config = Config {
                    servers: cluster.servers.clone(),
                    seeds: cluster.seeds.clone(),
                    roam: Roam::First(addr.to_owned()),
                    timing: Timing { patience: SETTLED_MAX, ..Timing::default() },
                    ..Config::default()
                };
                let seed = chatty_client::chat::seed().map_err(|error| error.to_string())?;
                let sockets = Sockets::Shared(endpoint.clone());
                let driver = Driver::new(sockets, trust.clone(), config, seed);
                let turn = turns.clone().acquire_owned().await.map_err(|e| e.to_string())?;
                tokio::spawn(run_client(*client, driver, arrived.clone(), turn));
            }
        }
        arrived.closed().await;
        Ok(())
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(clients),
        Err(error) => Err(error.to_string()),
    };
    if let Err(why) = result {
        // Nobody listens any more: it is over.
        let _ = arrived.send(Err(why));
    }
}

async fn run_client(
    client: usize,
    mut driver: Driver,
    arrived: mpsc::UnboundedSender<Result<Arrival, String>>,
    turn: OwnedSemaphorePermit,
) {
    let mut turn = Some(turn);
    let room = format!("storm-{}", client / PER_ROOM);
    let ask = Ask::Open { room, last: 0, mode: Mode::Watch };
    driver.command(Command::Ask { ticket: Ticket(1), ask });
    let mut opened = false;
    let mut place = String::new();
    loop {
        let arrival = match driver.next().await {
            ClientEvent::Attached(attached) => {
                place = attached.server.to_string();
                let arrival = Arrival { client, server: place.clone(), outage: attached.outage };
                // At first it has arrived once its room is open.
                if !opened {
                    continue;
                }
                Ok(arrival)
            }
            ClientEvent::Answered { .. } => {
                opened = true;
                turn.take();
                Ok(Arrival { client, server: place.clone(), outage: None })
            }
            ClientEvent::Failed { failure, .. } => Err(failure.to_string()),
            ClientEvent::Ended(why) => Err(why.map_or_else(String::new, |why| why.to_string())),
            _ => continue,
        };
        if arrived.send(arrival).is_err() {
            return;
        }
    }
}
