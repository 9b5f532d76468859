//! Rounds in which processes are killed and disks wiped, on one machine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chatty_core::id::RoomId;
use chatty_core::rng::Rng;
use chatty_core::session::{Level, ServerState, Status};
use chatty_core::vector::Vector;
use chatty_simulations::history::{Did, History, Server, Session, Shown, Stall, What};

use super::crowd::{Crowd, guests_of};
use super::keep::keep;
use super::place::Place;
use super::recorder::Recorder;
use super::servers::{Servers, differences, kill_now, status, until};
use super::session::{Phase, timelines};
use super::table::{Cell, Row, Table};
use super::{Fault, Judged, Options, Verdict};
use crate::ports::Ports;

const SERVERS: usize = 3;
const ROOMS: usize = 2;
/// People go on talking for so long when all servers are up again.
const AFTERWARDS: Duration = Duration::from_millis(1200);
/// Servers that are all up show the same within this.
const CONVERGE_MAX: Duration = Duration::from_secs(45);

/// What lasts over all rounds.
struct Run<'a> {
    options: &'a Options,
    place: Place,
    servers: Servers,
    rng: Rng,
    /// The timelines of all rounds so far.
    earlier: Vec<(String, Vec<Shown>)>,
}

pub(super) fn run(fault: Fault, rounds: u32, options: &Options) -> Result<Verdict, String> {
    let folder = &options.folder;
    std::fs::create_dir_all(folder.join("accounts"))
        .map_err(|error| format!("{}: {error}", folder.display()))?;
    let ports = options.port.is_none().then(Ports::take);
    let port = options.port.or(ports.as_ref().map(Ports::base)).unwrap_or_default();
    let servers = Servers::up(folder.join("cluster"), SERVERS, port)?;
    let place = Place::here()?;
    let rng = Rng::new(options.seed);
    let mut run = Run { options, place, servers, rng, earlier: Vec::new() };
    let mut table = Table::default();
    let mut verdict = Verdict::Kept;
    for round in 1..=rounds {
        let began = Instant::now();
        let (judged, mut cells) = run.round(fault, round)?;
        let took = Cell::Longest(began.elapsed());
        cells.insert(0, ("round", Cell::Word(round.to_string())));
        cells.push(("took", took));
        table.add(cells);
        eprintln!("{}", table.last_row());
        if !judged.is_kept() {
            verdict = Verdict::Broken;
            keep(&folder.join(format!("round-{round}")), &judged, &run.logs())?;
        }
        if !judged.troubles.is_empty() {
            eprintln!("the servers did not come to rest: no more rounds");
            break;
        }
    }
    println!("{table}");
    for lost in run.reread()? {
        verdict = Verdict::Broken;
        eprintln!("{lost}");
    }
    Ok(verdict)
}

impl Fault {
    /// What stands in the table when the fault could not be made to its end.
    fn not_done(self) -> Row {
        let unknown = || Cell::Word("?".into());
        match self {
            Self::Kill => vec![("killed", unknown())],
            Self::All => vec![("killed within", unknown())],
            Self::Wipe => vec![("wiped", unknown()), ("catch-up", unknown())],
        }
    }
}

impl Run<'_> {
    fn logs(&self) -> Vec<PathBuf> {
        self.servers.names().iter().map(|name| self.servers.log(name)).collect()
    }

    fn accounts(&self) -> PathBuf {
        self.options.folder.join("accounts")
    }

    fn name(&self, server: Server) -> &str {
        self.servers.names().get(server).map_or("", String::as_str)
    }

    fn between(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.rng.below(to - from))
    }

    fn round(&mut self, fault: Fault, round: u32) -> Result<(Judged, Row), String> {
        let rooms: Vec<_> = (1..=ROOMS).map(|n| format!("round-{round}-{n}")).collect();
        let recorder = Arc::new(Recorder::new(self.servers.names().to_vec(), &rooms));
        // Each server has one client that talks.
        let says_every = Duration::from_secs(1) * SERVERS as u32 / self.options.rate.max(1);
        let accounts = self.accounts();
        let guests = |name: &String| guests_of(&self.place, name, &rooms, says_every, &accounts);
        let guests = self.servers.names().iter().flat_map(guests).collect();
        let crowd = Crowd::gather(self.servers.cluster(), recorder.clone(), guests)?;
        crowd.now(Phase::Talking);
        let struck = match fault {
            Fault::Kill => self.kill_one(&recorder),
            Fault::All => self.kill_all(&recorder),
            Fault::Wipe => self.wipe_each(&recorder),
        };
        crowd.now(Phase::Quiet);
        // A server that does not come back is a finding like any other: the record is kept.
        let mut troubles: Vec<_> = struck.as_ref().err().cloned().into_iter().collect();
        troubles.extend(self.finish(&recorder, crowd, &rooms));
        let judged = Judged::new(recorder.history(), troubles);
        let mut cells = struck.unwrap_or_else(|_| fault.not_done());
        let mut all = judged.cells();
        match fault {
            Fault::Kill => {
                let victim = victim_of(&judged.history).unwrap_or_default();
                let clients = clients_of(&judged.history, victim);
                let stall = |killed: bool| {
                    let of = judged.figures.stalls.iter();
                    let of = of.filter(|(session, _)| clients.contains(session) == killed);
                    Cell::Longest(of.map(|(_, stall)| stall.longest()).max().unwrap_or_default())
                };
                all.push(("stall of survivors", stall(false)));
                all.push(("of the killed one's", stall(true)));
            }
            Fault::All | Fault::Wipe => {
                if fault == Fault::All {
                    let only_stored = only_stored_when_killed(&judged.history);
                    all.push(("only stored at the kill", Cell::Count(only_stored)));
                }
                let longest = judged.figures.stalls.values().map(Stall::longest).max();
                all.push(("stall", Cell::Longest(longest.unwrap_or_default())));
            }
        }
        cells.extend(all);
        Ok((judged, cells))
    }

    /// Waits until all is at rest and reads all timelines; says what did not come to rest.
    fn finish(&mut self, recorder: &Arc<Recorder>, crowd: Crowd, rooms: &[String]) -> Vec<String> {
        let mut troubles = recorder.all_ended();
        troubles.extend(crowd.settle().err());
        let same = until("all servers show the same", CONVERGE_MAX, || {
            differences(&self.all_status()?).map_or(Ok(()), Err)
        });
        troubles.extend(same.err());
        for (server, name) in self.servers.names().iter().enumerate() {
            match self.read(name, rooms.to_vec()) {
                Ok(read) => {
                    if server == 0 {
                        crowd.wait_shown(&read);
                    }
                    for (room, lines) in read {
                        recorder.note(What::Final(server, room, lines));
                    }
                }
                Err(why) => troubles.push(why),
            }
        }
        troubles.extend(crowd.end(&self.place).err());
        for room in rooms {
            let lines = last_final(&recorder.history(), RoomId::public(room));
            self.earlier.push((room.clone(), lines));
        }
        troubles
    }

    fn all_status(&self) -> Result<Vec<Status>, String> {
        let cluster = self.servers.cluster();
        self.servers.names().iter().map(|name| status(&self.place, cluster, name)).collect()
    }

    fn read(&self, name: &str, rooms: Vec<String>) -> Result<Vec<(RoomId, Vec<Shown>)>, String> {
        let (cluster, identity) =
            (self.servers.cluster().clone(), self.accounts().join("reader.id"));
        let name = name.to_owned();
        let read = async move { timelines(&cluster, &name, identity, rooms).await };
        self.place.run(read)?
    }

    /// The timelines of all rounds, as they are on every server after the last: what is not as it
    /// was.
    fn reread(&self) -> Result<Vec<String>, String> {
        let mut lost = Vec::new();
        let rooms: Vec<_> = self.earlier.iter().map(|(room, _)| room.clone()).collect();
        for name in self.servers.names() {
            let read = self.read(name, rooms.clone())?;
            for ((room, before), (_, now)) in self.earlier.iter().zip(read) {
                if *before != now {
                    let (before, now) = (before.len(), now.len());
                    lost.push(format!("{room} on {name}: {before} messages then, {now} now"));
                }
            }
        }
        let messages: usize = self.earlier.iter().map(|(_, lines)| lines.len()).sum();
        println!(
            "after the last round, the {messages} messages of all rounds are {} on every server",
            if lost.is_empty() { "as they were" } else { "not as they were" }
        );
        Ok(lost)
    }

    fn kill_one(&mut self, recorder: &Recorder) -> Result<Row, String> {
        let victim = self.rng.below(SERVERS as u64) as usize;
        let name = self.name(victim).to_owned();
        let pid = self.servers.pid(&name)?;
        // The moment is the fault: it is drawn, not waited for.
        std::thread::sleep(self.between(300, 3300));
        recorder.note(What::Down(victim));
        kill_now(pid)?;
        std::thread::sleep(self.between(200, 1200));
        self.servers.script(&["start", &name])?;
        recorder.note(What::Up(victim));
        std::thread::sleep(AFTERWARDS);
        Ok(vec![("killed", Cell::Word(name))])
    }

    fn kill_all(&mut self, recorder: &Recorder) -> Result<Row, String> {
        let names = self.servers.names().to_vec();
        let pids = names.iter().map(|name| self.servers.pid(name));
        let pids: Vec<_> = pids.collect::<Result<_, _>>()?;
        std::thread::sleep(self.between(1000, 3000));
        (0..SERVERS).for_each(|server| recorder.note(What::Down(server)));
        let from = Instant::now();
        pids.into_iter().try_for_each(kill_now)?;
        let apart = from.elapsed();
        std::thread::sleep(self.between(0, 500));
        self.servers.script(&["up"])?;
        (0..SERVERS).for_each(|server| recorder.note(What::Up(server)));
        std::thread::sleep(AFTERWARDS);
        Ok(vec![("killed within", Cell::Word(format!("{} µs", apart.as_micros())))])
    }

    fn wipe_each(&mut self, recorder: &Recorder) -> Result<Row, String> {
        let mut order: Vec<Server> = (0..SERVERS).collect();
        for n in (1..SERVERS).rev() {
            order.swap(n, self.rng.below(n as u64 + 1) as usize);
        }
        let mut longest = Duration::ZERO;
        let mut words = Vec::new();
        for server in order {
            let name = self.name(server).to_owned();
            std::thread::sleep(self.between(500, 1000));
            recorder.note(What::Down(server));
            self.servers.script(&["stop", &name])?;
            // It says nothing any more of what was on that disk.
            recorder.note(What::DiskLost(server));
            self.servers.script(&["wipe", &name])?;
            self.servers.script(&["start", &name])?;
            recorder.note(What::Up(server));
            let up = Instant::now();
            // All that the others hold now, and then some.
            let mut held = Vector::default();
            for other in self.servers.names().iter().filter(|other| **other != name) {
                held.join(&status(&self.place, self.servers.cluster(), other)?.vector);
            }
            until(&format!("{name} has caught up"), CONVERGE_MAX, || {
                let all = self.all_status()?;
                let whole = all.iter().find(|status| status.server.as_str() == name);
                let whole = whole.ok_or("it does not answer")?;
                let is_whole = whole.state == ServerState::Ready && whole.vector.covers_all(&held);
                if !is_whole {
                    return Err(format!(
                        "it is {} and lacks {}",
                        whole.state,
                        held.ahead_of(&whole.vector)
                    ));
                }
                Ok(())
            })?;
            longest = longest.max(up.elapsed());
            words.push(name);
        }
        let wiped = ("wiped", Cell::Word(words.join(" ")));
        Ok(vec![wiped, ("catch-up", Cell::Longest(longest))])
    }
}

fn last_final(history: &History, room: RoomId) -> Vec<Shown> {
    let of = history.ops.iter().rev().find_map(|op| match &op.what {
        What::Final(_, other, lines) if *other == room => Some(lines.clone()),
        _ => None,
    });
    of.unwrap_or_default()
}

fn victim_of(history: &History) -> Option<Server> {
    history.ops.iter().find_map(|op| match op.what {
        What::Down(server) => Some(server),
        _ => None,
    })
}

/// How many messages had been acknowledged as stored and not yet as replicated when the servers were
/// killed.
fn only_stored_when_killed(history: &History) -> usize {
    let mut levels = BTreeMap::new();
    for op in &history.ops {
        match &op.what {
            What::Client(session, Did::Answered { ticket, level, .. }) => {
                levels.insert((*session, *ticket), *level);
            }
            What::Down(_) => break,
            _ => {}
        }
    }
    levels.values().filter(|level| **level == Level::Stored).count()
}

/// The sessions that were attached to that server when it went down.
fn clients_of(history: &History, victim: Server) -> Vec<Session> {
    let mut at = BTreeMap::new();
    for op in &history.ops {
        match &op.what {
            What::Client(session, Did::Attached { server, .. }) => {
                at.insert(*session, *server);
            }
            What::Down(server) if *server == victim => break,
            _ => {}
        }
    }
    at.into_iter().filter(|(_, server)| *server == victim).map(|(session, _)| session).collect()
}
