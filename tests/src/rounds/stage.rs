//! Where rounds take place: the servers of a cluster, their clients' machines, and whoever watches.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use chatty_client::Cluster;
use chatty_core::session::{LinkState, ServerState, Status};
use chatty_simulations::history::{Shown, State};

use super::machines;
use super::place::Place;
use super::server::Server;
use super::system::{at, output, succeed, until};
use super::timeline::{self, Timeline};
use crate::cluster::programs;

/// A server has this long to answer what it is.
const STATUS_WITHIN: Duration = Duration::from_millis(2500);
/// A server answers so soon after its start, on a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Servers that can reach each other are linked and show the same within this: they look for a lost
/// one at least every 5 seconds.
pub const CONVERGE_MAX: Duration = Duration::from_secs(45);

/// What the servers stand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// The network of this process, with the first server's UDP port.
    Loopback(u16),
    /// A machine each, see [`machines`], which are there.
    Machines,
}

/// A cluster that runs, with what is needed to talk to it.
#[derive(Debug)]
pub struct Stage {
    dir: PathBuf,
    accounts: PathBuf,
    cluster: Cluster,
    ground: Ground,
    /// Out of reach of every fault: who asks and judges.
    watcher: Place,
    /// For the clients of each server; none on the loopback, where they are with the watcher.
    places: Vec<Place>,
    /// By number.
    pub servers: Vec<Server>,
}

impl Stage {
    /// Makes so many servers in a new folder, starts them, and waits until all are linked.
    ///
    /// # Errors
    /// Why not.
    pub fn build(folder: &Path, count: usize, ground: Ground) -> Result<Self, String> {
        let (dir, accounts) = (folder.join("cluster"), folder.join("accounts"));
        fs::create_dir_all(&accounts).map_err(at(&accounts))?;
        let names: Vec<_> = (0..count).map(machines::server_machine).collect();
        let mut init = Command::new(programs().join("chatty-server"));
        init.arg("init").arg("--dir").arg(&dir);
        match ground {
            Ground::Loopback(port) => {
                init.args(["--servers", &count.to_string(), "--base-port", &port.to_string()]);
            }
            Ground::Machines => {
                for (server, name) in names.iter().enumerate() {
                    let address = machines::server_address(server);
                    init.args(["--server", &format!("{name}={address}:{}", machines::PORT)]);
                }
            }
        }
        succeed(&mut init)?;
        let cluster = Cluster::load(&dir).map_err(|error| error.to_string())?;
        let on_machines = ground == Ground::Machines;
        let server = |name: &String| {
            Server::new(name, dir.join("servers").join(name), on_machines.then(|| name.clone()))
        };
        let servers = names.iter().map(server).collect();
        let places = (0..if on_machines { count } else { 0 })
            .map(|server| Place::in_namespace(&machines::client_machine(server)));
        let places = places.collect::<Result<_, _>>()?;
        let watcher = Place::here()?;
        let mut stage = Self { dir, accounts, cluster, ground, watcher, places, servers };
        for server in &mut stage.servers {
            server.begin(None)?;
        }
        stage.converge()?;
        Ok(stage)
    }

    /// The folder of the cluster.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the clients' accounts are.
    pub fn accounts(&self) -> &Path {
        &self.accounts
    }

    /// How clients find the servers.
    pub const fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// What the servers stand on.
    pub const fn ground(&self) -> Ground {
        self.ground
    }

    /// The servers' names.
    pub fn names(&self) -> Vec<String> {
        self.servers.iter().map(|server| server.name().to_owned()).collect()
    }

    /// A server's name.
    pub fn name(&self, server: usize) -> &str {
        self.servers.get(server).map_or("?", Server::name)
    }

    /// A server.
    ///
    /// # Errors
    /// That there are not so many.
    pub fn server(&mut self, server: usize) -> Result<&mut Server, String> {
        self.servers.get_mut(server).ok_or_else(|| format!("there is no server {server}"))
    }

    /// Where whoever watches is.
    pub const fn watcher(&self) -> &Place {
        &self.watcher
    }

    /// Where the clients of a server are.
    pub fn place_of(&self, server: usize) -> &Place {
        self.places.get(server).unwrap_or(&self.watcher)
    }

    /// What a server says of itself.
    ///
    /// # Errors
    /// Why it does not answer.
    pub fn status(&self, server: usize) -> Result<Status, String> {
        let name = self.name(server);
        let addr = self.cluster.address_of(name).map_err(|error| error.to_string())?;
        let cluster = self.cluster.clone();
        let asked = async move { chatty_client::ask::status(&cluster, &addr, STATUS_WITHIN).await };
        self.watcher.run(asked)?.map_err(|why| format!("{name}: {why}"))
    }

    /// What all servers say of themselves.
    ///
    /// # Errors
    /// Which does not answer, and why.
    pub fn all_status(&self) -> Result<Vec<Status>, String> {
        (0..self.servers.len()).map(|server| self.status(server)).collect()
    }

    /// Waits until a server's status is as wanted.
    ///
    /// # Errors
    /// What it is instead.
    pub fn wait_status(
        &mut self,
        server: usize,
        what: &str,
        wanted: impl Fn(&Status) -> bool,
    ) -> Result<Status, String> {
        let what = format!("{} {what}", self.name(server));
        until(&what, CONVERGE_MAX, || {
            self.lives(server)?;
            let status = self.status(server)?;
            if wanted(&status) { Ok(status) } else { Err(brief(&status)) }
        })
    }

    /// Waits until a server is linked to all others.
    ///
    /// # Errors
    /// What is missing.
    pub fn wait_linked(&mut self, server: usize) -> Result<Status, String> {
        let others = self.servers.len() - 1;
        self.wait_status(server, "is linked to all others", |status| links_up(status) == others)
    }

    /// Waits until a server answers.
    ///
    /// # Errors
    /// That it does not, or ended.
    pub fn wait_answers(&mut self, server: usize) -> Result<Status, String> {
        until(&format!("{} answers", self.name(server)), ANSWER_MAX, || {
            self.lives(server)?;
            self.status(server)
        })
    }

    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// Why it does not.
    pub fn start(&mut self, server: usize) -> Result<(), String> {
        self.server(server)?.begin(None)?;
        self.wait_answers(server).map(drop)
    }

    /// Deletes a stopped server's data and gives it a new identity.
    ///
    /// # Errors
    /// What the system or `chatty-server` says.
    pub fn wipe(&mut self, server: usize) -> Result<(), String> {
        let data = self.server(server)?.data();
        fs::remove_dir_all(&data).map_err(at(&data))?;
        let name = self.name(server).to_owned();
        let mut reissue = Command::new(programs().join("chatty-server"));
        succeed(reissue.arg("reissue").arg("--dir").arg(&self.dir).arg(name))
    }

    /// Has a server hand its clients over and stop.
    ///
    /// # Errors
    /// What it waits for in vain.
    pub fn drain(&mut self, server: usize) -> Result<(), String> {
        let server = self.server(server)?;
        let mut drain = Command::new(programs().join("chatty-server"));
        output(drain.args(["drain", "--limit", "30", "--config"]).arg(server.config()))?;
        server.has_stopped()
    }

    /// Waits until all servers are linked and show the same.
    ///
    /// # Errors
    /// Which do not.
    pub fn converge(&mut self) -> Result<(), String> {
        until("all servers show the same", CONVERGE_MAX, || {
            (0..self.servers.len()).try_for_each(|server| self.lives(server))?;
            differences(&self.all_status()?).map_or(Ok(()), Err)
        })
    }

    /// Reads whole timelines from one server.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn read(&self, server: usize, timelines: &[Timeline]) -> Result<Vec<Vec<Shown>>, String> {
        let (cluster, timelines) = (self.cluster.clone(), timelines.to_vec());
        let name = self.name(server).to_owned();
        let read = async move { timeline::read(&cluster, &name, &timelines).await };
        self.watcher.run(read)?
    }

    /// Reads the topic and the members of a room from one server.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn read_state(&self, server: usize, room: &str) -> Result<State, String> {
        let of = Timeline::public(room, &self.accounts);
        let (cluster, name) = (self.cluster.clone(), self.name(server).to_owned());
        let read = async move { timeline::state(&cluster, &name, &of.name, &of.reader).await };
        self.watcher.run(read)?
    }

    /// Nobody stopped this server, so it runs.
    fn lives(&mut self, server: usize) -> Result<(), String> {
        let server = self.server(server)?;
        match server.exit()? {
            None => Ok(()),
            Some(how) => {
                Err(format!("{} ended by itself, {how}: {}", server.name(), server.last_word()))
            }
        }
    }
}

/// How many others a server is linked to.
pub fn links_up(status: &Status) -> usize {
    status.links.iter().filter(|link| link.state == LinkState::Up).count()
}

fn brief(status: &Status) -> String {
    let Status { state, standing, lag, .. } = status;
    format!("it is {state}, {standing}, linked to {}, {lag} events behind", links_up(status))
}

/// Why the servers do not all show the same, if they do not.
pub fn differences(all: &[Status]) -> Option<String> {
    for status in all {
        let is_whole = status.state == ServerState::Ready && status.lag == 0;
        if !is_whole || links_up(status) + 1 != all.len() || status.standing != Default::default() {
            return Some(format!("{}: {}", status.server, brief(status)));
        }
    }
    let digests = |status: &Status| {
        let digest = |room: &chatty_core::session::RoomDigest| {
            (room.room.clone(), room.messages, room.digest)
        };
        let mut all: Vec<_> = status.rooms.iter().map(digest).collect();
        all.sort();
        all
    };
    let two = all.windows(2).find(|two| digests(&two[0]) != digests(&two[1]))?;
    Some(format!("{} and {} have different timelines", two[0].server, two[1].server))
}
