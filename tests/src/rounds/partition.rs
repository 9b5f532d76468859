//! A partition 2 | 1 with people talking on both sides.
//!
//! Servers and clients are in network namespaces on two bridges with one cable between them; to
//! pull it drops every packet between the sides, and nobody is told. All of it is inside
//! namespaces of its own (see `unshare` in the program), so that nothing stays behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chatty_client::Cluster;
use chatty_core::session::{Level, Status};
use chatty_core::time::Time;
use chatty_simulations::history::{Did, History, Quantiles, Rule, What};

use super::crowd::{Crowd, guests_of};
use super::keep::keep;
use super::place::Place;
use super::recorder::Recorder;
use super::servers::{Confined, differences, status, until};
use super::session::{Phase, timelines};
use super::table::{Cell, Table};
use super::{Judged, Options, Verdict};
use crate::cluster::programs;

/// The servers of each side, and where their clients are.
const SIDES: [(&str, &[&str]); 2] = [("majority", &["s1", "s2"]), ("minority", &["s3"])];
const NAMES: [&str; 3] = ["s1", "s2", "s3"];
const PORT: u16 = 7400;
/// A server looks for a lost one at least every 5 seconds.
const CONVERGE_MAX: Duration = Duration::from_secs(60);

/// Everything that a partition is made of.
struct Stage {
    dir: PathBuf,
    accounts: PathBuf,
    cluster: Cluster,
    /// One place for the clients of each side.
    places: Vec<Place>,
    _servers: Vec<Confined>,
}

pub(super) fn run(cut: Duration, options: &Options) -> Result<Verdict, String> {
    let stage = Stage::build(&options.folder)?;
    let rooms = ["partition-1".to_owned(), "partition-2".to_owned()];
    let recorder = Arc::new(Recorder::new(NAMES.map(str::to_owned).into(), &rooms));
    let says_every = Duration::from_secs(1) * 3 / options.rate.max(1);
    let guests = SIDES.iter().zip(&stage.places).flat_map(|((_, servers), place)| {
        let of = |name: &&str| guests_of(place, name, &rooms, says_every, &stage.accounts);
        servers.iter().flat_map(of).collect::<Vec<_>>()
    });
    let crowd = Crowd::gather(&stage.cluster, recorder.clone(), guests.collect())?;
    let mut troubles = Vec::new();

    eprintln!("all talk");
    crowd.now(Phase::Talking);
    std::thread::sleep(Duration::from_secs(2));
    cable(Cable::Out)?;
    let sides = SIDES.iter().map(|(_, servers)| servers.iter().map(|name| number(name)).collect());
    recorder.note(What::Cut(sides.collect()));
    eprintln!("cut for {} s: s1 s2 | s3, talk on both sides", cut.as_secs_f64());
    std::thread::sleep(cut);
    crowd.now(Phase::Quiet);
    let apart = until("the sides have different timelines", Duration::from_secs(5), || {
        differences(&stage.all_status()?).ok_or_else(|| "they are the same".into())
    });
    troubles.extend(apart.err());

    recorder.note(What::Healed);
    let healed = Instant::now();
    cable(Cable::In)?;
    let same = until("all servers show the same", CONVERGE_MAX, || {
        differences(&stage.all_status()?).map_or(Ok(()), Err)
    });
    let took = healed.elapsed();
    eprintln!("healed; all servers show the same after {:.2} s", took.as_secs_f64());
    troubles.extend(same.err());

    troubles.extend(recorder.all_ended());
    troubles.extend(crowd.settle().err());
    for (server, name) in NAMES.iter().enumerate() {
        let (cluster, identity) = (stage.cluster.clone(), stage.accounts.join("reader.id"));
        let wanted = rooms.to_vec();
        let read = async move { timelines(&cluster, name, identity, wanted).await };
        let read = stage.place_of(name)?.run(read)??;
        if server == 0 {
            crowd.wait_shown(&read);
        }
        for (room, lines) in read {
            recorder.note(What::Final(server, room, lines));
        }
    }
    crowd.end(&stage.places[0])?;
    let judged = Judged::new(recorder.history(), troubles);
    println!("{}", told(&judged.history));
    let mut cells = vec![("partition", Cell::Word(format!("{} s", cut.as_secs_f64())))];
    cells.extend(judged.cells());
    let in_minority = Cell::Count(judged.broken(&[Rule::MinorityReplicated]));
    cells.push(("replicated in the minority", in_minority));
    cells.push(("heal to equal digests", Cell::Longest(took)));
    let mut table = Table::default();
    table.add(cells);
    println!("{table}");
    if judged.is_kept() {
        return Ok(Verdict::Kept);
    }
    let logs: Vec<_> = NAMES.iter().map(|name| stage.log(name)).collect();
    keep(&options.folder.join("round-1"), &judged, &logs)?;
    Ok(Verdict::Broken)
}

fn number(name: &str) -> usize {
    NAMES.iter().position(|other| *other == name).unwrap_or(usize::MAX)
}

impl Stage {
    fn build(folder: &Path) -> Result<Self, String> {
        let (dir, accounts) = (folder.join("cluster"), folder.join("accounts"));
        fs::create_dir_all(&accounts).map_err(|e| format!("{}: {e}", accounts.display()))?;
        lay_cables()?;
        let mut init = Command::new(programs().join("chatty-server"));
        init.arg("init").arg("--dir").arg(&dir);
        for (n, name) in NAMES.iter().enumerate() {
            init.args(["--server", &format!("{name}={}:{PORT}", address(n))]);
        }
        succeed(&mut init)?;
        let cluster = Cluster::load(&dir).map_err(|error| error.to_string())?;
        let servers = NAMES.iter().map(|name| Confined::start(name, &dir, name));
        let servers = servers.collect::<Result<_, _>>()?;
        let places = SIDES.iter().map(|(side, _)| Place::in_namespace(side));
        let places = places.collect::<Result<_, _>>()?;
        let stage = Self { dir, accounts, cluster, places, _servers: servers };
        until("all servers are linked", CONVERGE_MAX, || {
            differences(&stage.all_status()?).map_or(Ok(()), Err)
        })?;
        Ok(stage)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.join("servers").join(name).join("log")
    }

    /// The clients' place on the side of that server.
    fn place_of(&self, name: &str) -> Result<&Place, String> {
        let side = SIDES.iter().position(|(_, servers)| servers.contains(&name));
        side.and_then(|side| self.places.get(side)).ok_or_else(|| format!("no side has {name}"))
    }

    fn all_status(&self) -> Result<Vec<Status>, String> {
        NAMES.iter().map(|name| status(self.place_of(name)?, &self.cluster, name)).collect()
    }
}

fn address(n: usize) -> String {
    format!("10.0.0.{}", n + 1)
}

/// Two bridges, the machines of each side on its own, and a cable between them.
fn lay_cables() -> Result<(), String> {
    succeed(Command::new("mkdir").args(["-p", "/run/netns"]))?;
    succeed(Command::new("mount").args(["-t", "tmpfs", "none", "/run/netns"]))?;
    for (n, (side, servers)) in SIDES.iter().enumerate() {
        let bridge = format!("bridge{n}");
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("link set {bridge} up"))?;
        plug(side, &format!("10.0.0.{}", 101 + n), &bridge)?;
        for name in *servers {
            plug(name, &address(number(name)), &bridge)?;
        }
    }
    ip("link add cable0 type veth peer name cable1")?;
    for n in 0..SIDES.len() {
        ip(&format!("link set cable{n} master bridge{n}"))?;
        ip(&format!("link set cable{n} up"))?;
    }
    Ok(())
}

/// A machine on a bridge.
fn plug(name: &str, address: &str, bridge: &str) -> Result<(), String> {
    ip(&format!("netns add {name}"))?;
    ip(&format!("link add to-{name} type veth peer name eth0 netns {name}"))?;
    ip(&format!("link set to-{name} master {bridge}"))?;
    ip(&format!("link set to-{name} up"))?;
    ip(&format!("-n {name} address add {address}/24 dev eth0"))?;
    ip(&format!("-n {name} link set eth0 up"))?;
    ip(&format!("-n {name} link set lo up"))
}

enum Cable {
    In,
    Out,
}

fn cable(cable: Cable) -> Result<(), String> {
    match cable {
        Cable::Out => ip("link set cable0 nomaster"),
        Cable::In => ip("link set cable0 master bridge0"),
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    succeed(Command::new("ip").args(arguments.split(' ')))
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let done = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&done.stderr).trim()))
}

/// What the clients of one side said during the cut and were told before the heal.
#[derive(Default)]
struct Told {
    said: usize,
    replicated: usize,
    stored: usize,
    refused: usize,
    waits: Vec<Duration>,
}

/// What each side's clients were told during the cut.
fn told(history: &History) -> Table {
    let at = |wanted: fn(&What) -> bool| {
        let found = history.ops.iter().find(|op| wanted(&op.what));
        found.map(|op| op.at).unwrap_or_default()
    };
    let cut = at(|what| matches!(what, What::Cut(_)));
    let healed = at(|what| matches!(what, What::Healed));
    let mut table = Table::default();
    for (side, servers) in SIDES {
        let of_side: BTreeSet<_> =
            servers.iter().map(|server| format!("talker-{server}")).collect();
        let mut all = Told::default();
        for (session, name) in history.sessions.iter().enumerate() {
            if of_side.contains(name) {
                all.count(history, session, cut, healed);
            }
        }
        let waits = Quantiles::of(all.waits.clone());
        table.add(vec![
            ("side", Cell::Word(format!("{side} ({})", servers.join(" ")))),
            ("said in the cut", Cell::Count(all.said)),
            ("told replicated", Cell::Count(all.replicated)),
            ("told stored", Cell::Count(all.stored)),
            ("refused", Cell::Count(all.refused)),
            ("not told before the heal", Cell::Count(all.said - all.waits.len() - all.refused)),
            ("median wait", Cell::Longest(waits.p50)),
            ("longest wait", Cell::Longest(waits.max)),
        ]);
    }
    table
}

impl Told {
    fn count(&mut self, history: &History, session: usize, cut: Time, healed: Time) {
        let mut open = std::collections::BTreeMap::new();
        let mut best = std::collections::BTreeMap::new();
        for op in history.ops.iter().filter(|op| cut <= op.at && op.at < healed) {
            let What::Client(who, did) = &op.what else { continue };
            match did {
                _ if *who != session => {}
                Did::Sent { ticket, .. } => {
                    open.insert(*ticket, op.at);
                    self.said += 1;
                }
                Did::Answered { ticket, level, .. } => {
                    let Some(at) = open.get(ticket) else { continue };
                    if best.insert(*ticket, *level).is_none() {
                        self.waits.push(op.at.since(*at));
                    }
                }
                Did::Refused { ticket, .. } => {
                    self.refused += usize::from(open.contains_key(ticket));
                }
                _ => {}
            }
        }
        self.replicated += best.values().filter(|level| **level == Level::Replicated).count();
        self.stored += best.values().filter(|level| **level == Level::Stored).count();
    }
}
