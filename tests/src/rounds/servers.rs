//! The servers of a run, and what they say of themselves.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use chatty_client::Cluster;
use chatty_core::session::{LinkState, ServerState, Status};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::place::Place;
use crate::cluster::{programs, run_script};

/// A server has this long to answer what it is.
const STATUS_WITHIN: Duration = Duration::from_millis(2500);
/// How often a fact that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Servers made and run by `scripts/cluster` on this machine.
#[derive(Debug)]
pub struct Servers {
    dir: PathBuf,
    names: Vec<String>,
    cluster: Cluster,
}

impl Servers {
    /// Makes and starts them.
    ///
    /// # Errors
    /// What `scripts/cluster` said.
    pub fn up(dir: PathBuf, count: usize, port: u16) -> Result<Self, String> {
        let names = (1..=count).map(|n| format!("s{n}")).collect();
        let (count, port) = (count.to_string(), port.to_string());
        script(&dir, &["up", "--servers", &count, "--port", &port])?;
        let cluster = Cluster::load(&dir).map_err(|error| error.to_string())?;
        Ok(Self { dir, names, cluster })
    }

    /// Their names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How clients find them.
    pub const fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Runs `scripts/cluster`.
    ///
    /// # Errors
    /// What it said.
    pub fn script(&self, arguments: &[&str]) -> Result<(), String> {
        script(&self.dir, arguments)
    }

    /// The process of a server.
    ///
    /// # Errors
    /// That it does not run.
    pub fn pid(&self, name: &str) -> Result<Pid, String> {
        let out = output(&self.dir, &["pid", name])?;
        out.trim().parse().map(Pid::from_raw).map_err(|_| format!("{out:?} is no process id"))
    }

    /// Where a server writes its log.
    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.join("servers").join(name).join("log")
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // Whoever looks into the folder finds the servers stopped.
        let _ = self.script(&["down"]);
    }
}

/// Kills a process at this very moment.
///
/// # Errors
/// That it is not there.
pub fn kill_now(pid: Pid) -> Result<(), String> {
    kill(pid, Signal::SIGKILL).map_err(|error| format!("killing process {pid}: {error}"))
}

fn script(dir: &Path, arguments: &[&str]) -> Result<(), String> {
    output(dir, arguments).map(drop)
}

fn output(dir: &Path, arguments: &[&str]) -> Result<String, String> {
    let dir = dir.to_str().ok_or("the folder's name is not UTF-8")?;
    let mut all = arguments.to_vec();
    all.extend(["--dir", dir]);
    let done = run_script("cluster", &all);
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(format!("scripts/cluster {}: {}", arguments.join(" "), said.trim()))
}

/// What a server says of itself.
///
/// # Errors
/// Why it does not answer.
pub fn status(place: &Place, cluster: &Cluster, name: &str) -> Result<Status, String> {
    let addr = cluster.address_of(name).map_err(|error| error.to_string())?;
    let cluster = cluster.clone();
    let asked = async move { chatty_client::ask::status(&cluster, &addr, STATUS_WITHIN).await };
    place.run(asked)?.map_err(|why| format!("{name}: {why}"))
}

/// Why the servers do not all show the same, if they do not.
pub fn differences(all: &[Status]) -> Option<String> {
    for status in all {
        let up = status.links.iter().filter(|link| link.state == LinkState::Up).count();
        if status.state != ServerState::Ready || up + 1 != all.len() || status.lag > 0 {
            let Status { server, state, lag, .. } = status;
            return Some(format!("{server} is {state}, linked to {up}, {lag} events behind"));
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

/// Looks again and again whether something holds (`Ok`), or why not.
///
/// # Errors
/// After `within`: the last reason why not.
pub fn until<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let end = Instant::now() + within;
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(why) if Instant::now() >= end => {
                return Err(format!("not in {} s: {what} ({why})", within.as_secs()));
            }
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// A server that runs in a network namespace; it is killed with this.
#[derive(Debug)]
pub struct Confined(Child);

impl Confined {
    /// Starts one.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(namespace: &str, dir: &Path, name: &str) -> Result<Self, String> {
        let home = dir.join("servers").join(name);
        let log = std::fs::File::create(home.join("log")).map_err(|error| error.to_string())?;
        let both = log.try_clone().map_err(|error| error.to_string())?;
        let server = Command::new("ip")
            .args(["netns", "exec", namespace])
            .arg(programs().join("chatty-server"))
            .args(["run", "--config"])
            .arg(home.join("server.toml"))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(both)
            .spawn();
        server.map(Self).map_err(|error| format!("starting {name}: {error}"))
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        // One that has ended already is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
