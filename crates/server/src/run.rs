//! One server, from its configuration to its end.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chatty_core::config::{Config as CoreConfig, Me, Timing};
use chatty_core::id::Origin;
use chatty_core::replica::Replica;
use chatty_core::rng::Rng;
use chatty_core::store::{Store, StoreError};
use chatty_net::{Accepted, Endpoint};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::check::{self, CheckError};
use crate::config::{self, Config};
use crate::credentials;
use crate::data_dir::{self, DataDir};
use crate::driver::inbox::{Doors, Event, inbox};
use crate::driver::{Clock, Driver};
use crate::gateway::quic::Gateway;
use crate::links::{Dialler, GreetError, Greeter, Links, PARALLEL};
use crate::logging;
use crate::random::{self, NoRandomness};
use crate::store::FjallStore;

/// Threads for connections and the replica. With two, encryption and the replica run beside each
/// other; more would spread a small server's work over more caches than it fills.
const THREADS: usize = 2;
/// At the end, the other sides have this long to hear that the server stops.
const GOODBYE: Duration = Duration::from_millis(300);

/// Why a server did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It would not start.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The database.
    #[error("{}: {source}", data.display())]
    Store {
        /// The data folder.
        data: std::path::PathBuf,
        /// What is wrong.
        source: StoreError,
    },
    /// The system gives no randomness.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// The system refuses threads or timers.
    #[error("the system refuses threads or timers: {0}")]
    System(#[from] io::Error),
    /// It could not go on.
    #[error("stopped: {0}")]
    Failed(String),
}

/// Runs the server of a configuration file until SIGTERM or SIGINT.
///
/// # Errors
/// See [`RunError`].
pub fn from_file(file: &Path) -> Result<(), RunError> {
    let config = config::load(file).map_err(CheckError::from)?;
    logging::start(&config.name, &config.log);
    run(config)
}

/// Runs a server until SIGTERM or SIGINT.
///
/// # Errors
/// See [`RunError`].
pub fn run(config: Config) -> Result<(), RunError> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
    runtime.block_on(async {
        let mut running = Running::start(config)?;
        running.spawn_signals()?;
        running.finish().await
    })
}

/// A server at work.
struct Running {
    endpoint: Endpoint,
    doors: Doors,
    driver: tokio::task::JoinHandle<Result<(), String>>,
    /// What brings work; ends first.
    sources: JoinSet<()>,
    // Held until the database is closed.
    _data: DataDir,
}

impl Running {
    /// Opens everything, begins a new run, and starts to work.
    fn start(config: Config) -> Result<Self, RunError> {
        let proof = credentials::load(&config).map_err(CheckError::from)?;
        data_dir::check(&config.data, &proof.identity).map_err(CheckError::from)?;
        let endpoint = check::bind(&config, &proof)?;
        let data = DataDir::open(&config.data, &proof.identity).map_err(CheckError::from)?;
        let broken = |source| RunError::Store { data: config.data.clone(), source };
        let mut store = FjallStore::open(&data.database()).map_err(broken)?;
        let clock = Clock::start();
        let origin = Origin::at(clock.now().wall_ms, random::bits128()?);
        let prev = store.begin_run(origin).map_err(broken)?;
        let loaded = store.load().map_err(broken)?;
        let seed = random::bits64()?;
        tracing::info!(
            run = %origin, disk = %proof.identity.server, generation = proof.identity.generation,
            seed, logs = loaded.logs.len(), "starting"
        );

        let identity = Arc::new(proof.identity);
        let standing = watch::Sender::new(loaded.standing);
        let greeter = Greeter {
            me: identity.clone(),
            origin,
            addr: config.address().into(),
            standing: standing.subscribe(),
            servers: config.servers.clone().into(),
        };
        let core = CoreConfig {
            me: Me {
                cluster: identity.cluster,
                slot: identity.slot.clone(),
                generation: identity.generation,
                server: identity.server,
                origin,
                prev,
                addr: config.address().to_owned(),
            },
            servers: config.servers.clone(),
            token_key: proof.token_key,
            feeds: config.feeds,
            timing: Timing::default(),
            limits: config.limits.clone(),
        };
        let (doors, inbox) = inbox();
        let links = Links::new(identity.server, &config.servers);
        let mut sources = JoinSet::new();
        let mut rng = Rng::new(seed);
        let parallel = Arc::new(Semaphore::new(PARALLEL));
        for to in config.servers.iter().filter(|server| server.name != identity.slot) {
            let Some(linked) = links.watch(&to.name) else { continue };
            let dialler = Dialler {
                endpoint: endpoint.clone(),
                to: to.clone(),
                greeter: greeter.clone(),
                doors: doors.clone(),
                linked,
                parallel: parallel.clone(),
                rng: Rng::new(rng.bits()),
            };
            sources.spawn(dialler.run());
        }
        let replica = Replica::new(core, &loaded, rng.bits(), clock.now());
        let gateway = Gateway::new(doors.clone(), config.limits.sessions);
        let driver =
            Driver::start(replica, clock, store, (links, standing), (doors.clone(), inbox))?;
        let driver = tokio::spawn(driver.run());
        sources.spawn(accept(endpoint.clone(), greeter, gateway, doors.clone()));
        sources.spawn(hints(endpoint.clone(), doors.clone()));

        // A closed standard output is no reason to stop.
        let _ = writeln!(io::stdout(), "{} listens on {}", config.name, config.listen);
        tracing::info!(listen = %config.listen, "listening");
        Ok(Self { endpoint, doors, driver, sources, _data: data })
    }

    /// SIGTERM and SIGINT stop the server.
    fn spawn_signals(&mut self) -> io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let doors = self.doors.clone();
        self.sources.spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            doors.tell(Event::Stop);
        });
        Ok(())
    }

    /// Waits until the work is over, and says goodbye.
    async fn finish(mut self) -> Result<(), RunError> {
        let ended = (&mut self.driver).await;
        self.sources.shutdown().await;
        self.endpoint.close("the server stops");
        // Whoever did not hear it in time finds out by itself.
        let _ = self.endpoint.wait_idle(GOODBYE).await;
        match ended {
            Ok(Ok(())) => {
                tracing::info!("stopped");
                Ok(())
            }
            Ok(Err(why)) => Err(RunError::Failed(why)),
            Err(panic) => Err(RunError::Failed(format!("a fault in the program: {panic}"))),
        }
    }
}

/// Takes connections until the endpoint is closed.
async fn accept(endpoint: Endpoint, greeter: Greeter, gateway: Gateway, doors: Doors) {
    while let Some(accepted) = endpoint.accept().await {
        match accepted {
            Accepted::Client { connection } => {
                drop(tokio::spawn(gateway.clone().serve(connection)))
            }
            Accepted::Peer { connection, identity } => {
                let (greeter, doors) = (greeter.clone(), doors.clone());
                tokio::spawn(async move {
                    let (slot, dialled_by) = (identity.slot.clone(), identity.server);
                    match greeter.greet(connection, identity, dialled_by).await {
                        Ok(ready) => doors.tell(Event::LinkReady(Box::new(ready))),
                        // It may be the one of two connections dialled at once that goes.
                        Err(why @ GreetError::Link(_)) => {
                            tracing::debug!(peer = %slot, "no link: {why}");
                        }
                        Err(why) => tracing::info!(peer = %slot, "no link: {why}"),
                    }
                });
            }
        }
    }
}

/// Passes on what the kernel says about dead servers.
async fn hints(endpoint: Endpoint, doors: Doors) {
    let mut hints = endpoint.hints();
    while let Some(address) = hints.next().await {
        doors.tell(Event::Hint(address));
    }
}

#[cfg(test)]
mod tests;
