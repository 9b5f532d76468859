//! One server, from its configuration to its end.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chatty_core::config::{Config as CoreConfig, Me, Mesh, Start, Timing};
use chatty_core::id::Origin;
use chatty_core::replica::Replica;
use chatty_core::rng::Rng;
use chatty_core::session::ServerAddr;
use chatty_core::store::{Store, StoreError};
use chatty_net::{Accepted, Endpoint, Identity};
use tokio::sync::{Mutex, Notify, Semaphore, watch};
use tokio::task::JoinSet;

use crate::again;
use crate::backup::Source;
use crate::certificate::Renewer;
use crate::check::{self, CheckError};
use crate::config::{self, Config};
use crate::control::{self, Door, Socket};
use crate::credentials;
use crate::data_dir::{self, DataDir};
use crate::driver::inbox::{Doors, Event, inbox};
use crate::driver::{Clock, Driver, Ended};
use crate::gateway::quic::Gateway;
use crate::links::{Dialler, Gate, GreetError, Greeter, Links, PARALLEL};
use crate::logging;
use crate::random::{self, NoRandomness};
use crate::store::{self, FjallStore};
use crate::watchdog::{self, Pulse, Watchdog};

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
    /// The operator's socket.
    #[error("{}: the socket for the operator's commands cannot be made: {source}", data.display())]
    Control {
        /// The data folder.
        data: std::path::PathBuf,
        /// What the system says.
        source: io::Error,
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
    /// The database is damaged, and that is noted: the next start cuts the damage out.
    #[error("the database is damaged ({0}); start the server again, it will mend it")]
    Damaged(String),
}

/// Runs the server of a configuration file until SIGTERM or SIGINT.
///
/// # Errors
/// See [`RunError`].
pub fn from_file(file: &Path) -> Result<(), RunError> {
    let config = config::load(file).map_err(CheckError::from)?;
    logging::start(&config.name, &config.log);
    match run(config) {
        Err(RunError::Damaged(why)) => Err(again::start(why)),
        done => done,
    }
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
    driver: tokio::task::JoinHandle<Result<(), Ended>>,
    /// What brings work; ends first.
    sources: JoinSet<()>,
    _watchdog: Watchdog,
    // Held until the database is closed.
    data: DataDir,
}

impl Running {
    /// Opens everything, begins a new run, and starts to work.
    fn start(config: Config) -> Result<Self, RunError> {
        let origin = Origin::at(Clock::start().now().wall_ms, random::bits128()?);
        Self::start_as(config, origin, |store| store)
    }

    /// The same as a run of that name, on what is made of the disk.
    fn start_as<S: Store + Send + 'static>(
        config: Config,
        origin: Origin,
        disk: impl FnOnce(FjallStore) -> S,
    ) -> Result<Self, RunError> {
        let proof = credentials::load(&config).map_err(CheckError::from)?;
        data_dir::check(&config.data, &proof.identity).map_err(CheckError::from)?;
        let endpoint = check::bind(&config, &proof)?;
        let data = DataDir::open(&config.data, &proof.identity).map_err(CheckError::from)?;
        let broken = |source| RunError::Store { data: config.data.clone(), source };
        let clock = Clock::start();
        let begun = store::begin(&data.database(), origin).map_err(broken)?;
        let store::Begun { store, prev, loaded } = begun;
        let store = store.with_reserve(config.disk_reserve);
        let seed = random::bits64()?;
        tracing::info!(
            run = %origin, disk = %proof.identity.server, generation = proof.identity.generation,
            seed, logs = loaded.logs.len(), "starting"
        );

        let socket = Socket::bind(&config.data)
            .map_err(|source| RunError::Control { data: config.data.clone(), source })?;
        let identity = Arc::new(proof.identity.clone());
        let standing = watch::Sender::new(loaded.standing);
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
            token_key: proof.token_key.clone(),
            feeds: config.feeds,
            // All servers of the configuration link to each other.
            mesh: Mesh { start: Start::Pruned, ..Mesh::default() },
            timing: Timing {
                floor_period: config.floor_period,
                settled: config.settled,
                ..Timing::default()
            },
            limits: config.limits.clone(),
            retention: config.retention,
        };
        let (doors, inbox) = inbox();
        let links = Links::new(identity.server, &config.servers);
        let others: Vec<_> =
            config.servers.iter().filter(|server| server.name != identity.slot).collect();
        let gate = |server: &&ServerAddr| {
            let linked = links.watch(&server.name)?;
            Some((server.name.clone(), Gate { linked, turn: Arc::new(Mutex::new(())) }))
        };
        let greeter = Greeter {
            me: identity.clone(),
            origin,
            addr: config.address().into(),
            standing: standing.subscribe(),
            common: core.common().into(),
            differs: Arc::default(),
            servers: config.servers.clone().into(),
            gates: Arc::new(others.iter().filter_map(gate).collect()),
            doors: doors.clone(),
        };
        let mut sources = JoinSet::new();
        let mut rng = Rng::new(seed);
        let parallel = Arc::new(Semaphore::new(PARALLEL));
        let mut bells = Vec::new();
        for to in others {
            let Some(linked) = links.watch(&to.name) else { continue };
            let bell = Arc::new(Notify::new());
            bells.push((to.name.clone(), bell.clone()));
            let dialler = Dialler {
                endpoint: endpoint.clone(),
                to: to.clone(),
                greeter: greeter.clone(),
                linked,
                bell,
                parallel: parallel.clone(),
                rng: Rng::new(rng.bits()),
            };
            sources.spawn(dialler.run());
        }
        let replica = Replica::new(core, &loaded, rng.bits(), clock.now());
        let gateway = Gateway::new(doors.clone(), config.limits.sessions, config.address_sessions);
        let reader = store.reader();
        let pulse = Pulse::default();
        let watchdog = Watchdog::start(pulse.clone(), config.watchdog, watchdog::end_process)?;
        let links = (links, standing);
        let store = disk(store);
        let driver = Driver::start(replica, clock, store, links, (doors.clone(), inbox), pulse)?;
        let driver = tokio::spawn(driver.run());
        let (name, listen) = (config.name.clone(), config.listen);
        let renewer = Renewer::new(config, endpoint.clone(), doors.clone(), &proof, bells);
        let Identity { cluster, slot, server, .. } = proof.identity;
        let source = Source { cluster, slot, server };
        let door = Door { doors: doors.clone(), renewer: renewer.clone(), reader, source };
        sources.spawn(renewer.run());
        sources.spawn(control::serve(socket, door));
        sources.spawn(accept(endpoint.clone(), greeter, gateway));
        sources.spawn(hints(endpoint.clone(), doors.clone()));

        // A closed standard output is no reason to stop.
        let _ = writeln!(io::stdout(), "{name} listens on {listen}");
        tracing::info!(%listen, "listening");
        Ok(Self { endpoint, doors, driver, sources, _watchdog: watchdog, data })
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
            Ok(Err(Ended::Failed(why))) => Err(RunError::Failed(why)),
            Ok(Err(Ended::Damaged(why))) => {
                store::note_damage(&self.data.database(), &why)?;
                Err(RunError::Damaged(why))
            }
            Ok(Err(Ended::DamagedAtEnd(why))) => {
                store::note_damage(&self.data.database(), &why)?;
                tracing::warn!("stopped; the damage is cut out at the next start");
                Ok(())
            }
            Err(panic) => Err(RunError::Failed(format!("a fault in the program: {panic}"))),
        }
    }
}

/// Takes connections until the endpoint is closed.
async fn accept(endpoint: Endpoint, greeter: Greeter, gateway: Gateway) {
    while let Some(accepted) = endpoint.accept().await {
        match accepted {
            Accepted::Client { connection } => {
                drop(tokio::spawn(gateway.clone().serve(connection)))
            }
            Accepted::Peer { connection, identity } => {
                let greeter = greeter.clone();
                tokio::spawn(async move {
                    let (slot, dialled_by) = (identity.slot.clone(), identity.server);
                    match greeter.introduce(connection, identity, dialled_by).await {
                        Ok(()) => {}
                        // It may be the one of two connections dialled at once that goes; or it was told.
                        Err(
                            why @ (GreetError::Link(_)
                            | GreetError::Duplicate
                            | GreetError::Configured(_)),
                        ) => {
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
