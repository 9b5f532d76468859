//! Disks that are lost, copied, put back, or full.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use chatty_core::id::{Origin, ServerId};
use chatty_core::io::Standing;
use chatty_core::session::ServerState;
use chatty_core::time::Time;
use chatty_core::vector::Vector;
use chatty_simulations::history::{History, Server, What};
use nix::sys::signal::Signal;

use super::taken_by;
use crate::rounds::fault::{Dice, Scene, Strike};
use crate::rounds::machines::{PORT, SPARE, spare_address};
use crate::rounds::server::Server as Process;
use crate::rounds::stage::{CONVERGE_MAX, Ground};
use crate::rounds::system::{at, copy_folder, succeed, until};
use crate::rounds::table::{Cell, Row};

/// Others have so many events of the run between a backup and its being put back.
const SAID_SINCE: u64 = 20;

/// What the others of a server hold between them.
fn held_by_others(scene: &Scene<'_>, server: Server) -> Result<Vector, String> {
    let mut held = Vector::default();
    let others = (0..scene.stage.servers.len()).filter(|other| *other != server);
    for other in others {
        held.join(&scene.stage.status(other)?.vector);
    }
    Ok(held)
}

/// Waits until a server has all that the others hold now.
fn wait_caught_up(scene: &mut Scene<'_>, server: Server) -> Result<(), String> {
    let held = until("the others answer", CONVERGE_MAX, || held_by_others(scene, server))?;
    scene.stage.wait_status(server, "has caught up", |status| {
        status.state == ServerState::Ready
            && status.standing == Standing::Sound
            && status.vector.covers_all(&held)
    })?;
    Ok(())
}

/// Empties a stopped server and starts it as a new one.
fn wipe_and_start(scene: &mut Scene<'_>, server: Server) -> Result<(), String> {
    // It says nothing any more of what was on that disk.
    scene.recorder.note(What::DiskLost(server));
    scene.stage.wipe(server)?;
    scene.stage.start(server)?;
    scene.recorder.note(What::Up(server));
    scene.note(format!("s{} is back, empty", server + 1));
    Ok(())
}

/// See [`Fault::Wipe`](crate::rounds::fault::Fault::Wipe).
pub struct Wipe {
    victim: Server,
    before: Option<ServerId>,
    up: Option<Instant>,
    catch_up: Option<Duration>,
}

impl Wipe {
    pub fn draw(dice: &mut Dice) -> Self {
        Self { victim: dice.victim(), before: None, up: None, catch_up: None }
    }
}

impl Strike for Wipe {
    fn says(&self) -> String {
        format!("s{} wiped", self.victim + 1)
    }

    fn strike(&mut self, scene: &mut Scene<'_>) -> Result<(), String> {
        self.before = Some(scene.stage.status(self.victim)?.disk);
        scene.recorder.note(What::Down(self.victim));
        scene.stage.server(self.victim)?.stop()?;
        wipe_and_start(scene, self.victim)?;
        self.up = Some(Instant::now());
        Ok(())
    }

    fn shows(&mut self, scene: &mut Scene<'_>) -> Result<(), String> {
        let before = self.before;
        scene.stage.wait_status(self.victim, "has another disk", |now| Some(now.disk) != before)?;
        Ok(())
    }

    fn lasts(&self) -> Duration {
        Duration::ZERO
    }

    fn ends_last(&self) -> bool {
        true
    }

    fn heal(&mut self, scene: &mut Scene<'_>) -> Result<String, String> {
        wait_caught_up(scene, self.victim)?;
        let took = self.up.map(|up| up.elapsed()).unwrap_or_default();
        self.catch_up = Some(took);
        Ok(format!(
            "s{} has a new disk, and all of it after {} ms",
            self.victim + 1,
            took.as_millis()
        ))
    }

    fn cells(&self) -> Row {
        let wiped = Cell::Word(format!("s{}", self.victim + 1));
        let catch_up = self.catch_up.map_or_else(|| Cell::Word("?".into()), Cell::Longest);
        vec![("wiped", wiped), ("catch-up", catch_up)]
    }
}

/// See [`Fault::Copy`](crate::rounds::fault::Fault::Copy).
pub struct Copy {
    victim: Server,
    lasts: Duration,
    copied: Option<Process>,
    /// What each server had logged before.
    before: Vec<usize>,
}

impl Copy {
    pub fn draw(dice: &mut Dice) -> Self {
        let (victim, lasts) = (dice.victim(), dice.millis(500, 2000));
        Self { victim, lasts, copied: None, before: Vec::new() }
    }

    /// The copy has an address of its own.
    fn move_to_spare(copied: &Process) -> Result<(), String> {
        let file = copied.config();
        let config = fs::read_to_string(&file).map_err(at(&file))?;
        let listen = |line: &str| match line.starts_with("listen = ") {
            true => format!("listen = \"{}:{PORT}\"", spare_address()),
            false => line.to_owned(),
        };
        let config: Vec<String> = config.lines().map(listen).collect();
        fs::write(&file, config.join("\n")).map_err(at(&file))
    }

    /// How much each server has logged.
    fn logged(scene: &Scene<'_>) -> Vec<usize> {
        scene.stage.servers.iter().map(|server| server.log().len()).collect()
    }

    /// Waits until every other server has linked this run of the original: over a long way one end of
    /// a link is up before the other, and who has not linked it takes its copy for it.
    fn is_linked_by_all(&self, scene: &mut Scene<'_>, before: &[usize]) -> Result<(), String> {
        let run = scene.stage.wait_linked(self.victim)?.origin.to_string();
        let peer = format!("linked peer={} ", scene.stage.name(self.victim));
        for (other, server) in scene.stage.servers.iter().enumerate() {
            if other == self.victim {
                continue;
            }
            until(&format!("{} has linked the original", server.name()), CONVERGE_MAX, || {
                let log = server.log();
                let mut new = log.get(before[other]..).unwrap_or_default().lines();
                if new.any(|line| line.contains(&peer) && line.contains(&run)) {
                    return Ok(());
                }
                Err("it does not say so".into())
            })?;
        }
        Ok(())
    }
}

impl Strike for Copy {
    fn says(&self) -> String {
        format!("a copy of s{} beside it for {} ms", self.victim + 1, self.lasts.as_millis())
    }

    fn strike(&mut self, scene: &mut Scene<'_>) -> Result<(), String> {
        if scene.stage.ground() != Ground::Machines {
            return Err("a copy needs a machine of its own".into());
        }
        let folder = scene.stage.dir().join("copy");
        let original = scene.stage.server(self.victim)?;
        let (name, home) = (original.name().to_owned(), original.home().to_owned());
        let before = Self::logged(scene);
        scene.recorder.note(What::Down(self.victim));
        let original = scene.stage.server(self.victim)?;
        original.signal(Signal::SIGKILL)?;
        original.is_killed()?;
        copy_folder(&home, &folder)?;
        scene.stage.start(self.victim)?;
        scene.recorder.note(What::Up(self.victim));
        self.is_linked_by_all(scene, &before)?;
        self.before = Self::logged(scene);
        let mut copied = Process::new(&name, folder, Some(SPARE.into()));
        Self::move_to_spare(&copied)?;
        // Its log is that of the original so far.
        fs::remove_file(copied.log_file()).map_err(at(&copied.log_file()))?;
        copied.begin(None)?;
        self.copied = Some(copied);
        scene.note(format!("a copy of {name} runs"));
        Ok(())
    }

    fn shows(&mut self, scene: &mut Scene<'_>) -> Result<(), String> {
        let copied = self.copied.as_ref().ok_or("no copy was started")?;
        let others = (0..scene.stage.servers.len()).filter(|other| *other != self.victim);
        for other in others {
            let name = format!("s{}", other + 1);
            until(&format!("{name} refuses the copy"), CONVERGE_MAX, || {
                let log = scene.stage.servers[other].log();
                let new = log.get(self.before[other]..).unwrap_or_default();
                let by_other = new.lines().any(|line| line.contains("DUPLICATE"));
                let refused = format!("{name} refused");
                let told = copied.log();
                let told = told.lines().any(|l| l.contains("DUPLICATE") && l.contains(&refused));
                match (by_other, told) {
                    (true, true) => Ok(()),
                    (by_other, told) => Err(format!("it says so: {by_other}; is told: {told}")),
                }
            })?;
        }
        scene.note("all others refuse it");
        Ok(())
    }

    fn lasts(&self) -> Duration {
        self.lasts
    }

    fn heal(&mut self, scene: &mut Scene<'_>) -> Result<String, String> {
        let mut copied = self.copied.take().ok_or("no copy was started")?;
        if let Some(how) = copied.exit()? {
            return Err(format!("the copy ended by itself, {how}: {}", copied.last_word()));
        }
        copied.stop()?;
        let home = copied.home().to_owned();
        fs::remove_dir_all(&home).map_err(at(&home))?;
        let others = scene.stage.servers.len() - 1;
        Ok(format!("the copy of s{} was refused by all {others} others", self.victim + 1))
    }
}

/// See [`Fault::Rollback`](crate::rounds::fault::Fault::Rollback).
pub struct Rollback {
    victim: Server,
    lasts: Duration,
}

impl Rollback {
    pub fn draw(dice: &mut Dice) -> Self {
        Self { victim: dice.victim(), lasts: dice.millis(500, 2000) }
    }
}

impl Strike for Rollback {
    fn says(&self) -> String {
        format!("an older disk of s{} put back for {} ms", self.victim + 1, self.lasts.as_millis())
    }

    fn strike(&mut self, scene: &mut Scene<'_>) -> Result<(), String> {
        let backup = scene.stage.dir().join("backup");
        scene.recorder.note(What::Down(self.victim));
        let server = scene.stage.server(self.victim)?;
        let data = server.data();
        server.stop()?;
        copy_folder(&data, &backup)?;
        scene.stage.start(self.victim)?;
        scene.recorder.note(What::Up(self.victim));
        scene.note("backed up");
        // What makes the backup old: somebody has heard more from that disk.
        let disk = scene.stage.status(self.victim)?;
        let told = until("others have heard more from that disk", CONVERGE_MAX, || {
            let held = held_by_others(scene, self.victim)?;
            let log = chatty_core::id::Log::of(disk.origin);
            let upto = held.upto(log);
            if upto >= SAID_SINCE { Ok(()) } else { Err(format!("{upto} events")) }
        });
        told?;
        scene.recorder.note(What::Down(self.victim));
        let server = scene.stage.server(self.victim)?;
        server.signal(Signal::SIGKILL)?;
        server.is_killed()?;
        scene.recorder.note(What::DiskLost(self.victim));
        fs::remove_dir_all(&data).map_err(at(&data))?;
        fs::rename(&backup, &data).map_err(at(&backup))?;
        scene.stage.start(self.victim)?;
        scene.recorder.note(What::Up(self.victim));
        scene.note("put back");
        Ok(())
    }

    fn shows(&mut self, scene: &mut Scene<'_>) -> Result<(), String> {
        let rolled_back = Standing::RolledBack;
        scene.stage.wait_status(self.victim, "is found out", |now| now.standing == rolled_back)?;
        let log = scene.stage.server(self.victim)?.log();
        if !log.contains("ROLLED BACK") {
            return Err("it is rolled back, and its log does not say so".into());
        }
        scene.note("found out");
        Ok(())
    }

    fn lasts(&self) -> Duration {
        self.lasts
    }

    fn ends_last(&self) -> bool {
        true
    }

    fn heal(&mut self, scene: &mut Scene<'_>) -> Result<String, String> {
        scene.recorder.note(What::Down(self.victim));
        scene.stage.server(self.victim)?.stop()?;
        wipe_and_start(scene, self.victim)?;
        wait_caught_up(scene, self.victim)?;
        Ok(format!("s{} was found out, and came back as a new one", self.victim + 1))
    }
}

/// A small volume where a server's data goes; dropped, it is unmounted.
struct Volume(PathBuf);

impl Volume {
    fn mount(at: &Path, mib: u32) -> Result<Self, String> {
        let size = format!("size={mib}m");
        let mut mount = Command::new("mount");
        succeed(mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at))?;
        Ok(Self(at.into()))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: whoever still has a file there keeps it, and the mount is gone.
        if let Err(why) = succeed(Command::new("umount").arg("-l").arg(&self.0)) {
            eprintln!("{why}");
        }
    }
}

/// Takes all room that is left.
fn fill(file: &Path) -> Result<u64, String> {
    let mut filler = File::create(file).map_err(at(file))?;
    let zeros = vec![0; 1 << 20];
    let mut written = 0;
    loop {
        match filler.write(&zeros) {
            Ok(count) => written += count as u64,
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(written),
            Err(error) => return Err(at(file)(error)),
        }
    }
}

/// The volume's size beyond what the server has already, and what it keeps in reserve.
const ROOM_MIB: u32 = 160;
const RESERVE_MIB: u32 = 32;

/// See [`Fault::FullDisk`](crate::rounds::fault::Fault::FullDisk).
pub struct FullDisk {
    victim: Server,
    lasts: Duration,
    volume: Option<Volume>,
    /// How much its log had said before.
    logged: usize,
    full: Option<(Origin, Time)>,
    ended: Option<Time>,
}

impl FullDisk {
    pub fn draw(dice: &mut Dice) -> Self {
        let (victim, lasts) = (dice.victim(), dice.millis(1000, 4000));
        Self { victim, lasts, volume: None, logged: 0, full: None, ended: None }
    }

    fn filler(&self, scene: &mut Scene<'_>) -> Result<PathBuf, String> {
        Ok(scene.stage.server(self.victim)?.data().join("filler"))
    }

    /// Has the server, stopped for it, run with that reserve and with its data where `place` puts it.
    fn moved(
        &mut self,
        scene: &mut Scene<'_>,
        reserve: [&str; 2],
        place: impl FnOnce(&mut Self, &Path, &Path) -> Result<(), String>,
    ) -> Result<(), String> {
        scene.recorder.note(What::Down(self.victim));
        let server = scene.stage.server(self.victim)?;
        let (data, kept) = (server.data(), server.data().with_extension("kept"));
        server.stop()?;
        let file = server.config();
        let config = fs::read_to_string(&file).map_err(at(&file))?;
        let changed = config.replace(reserve[0], reserve[1]);
        if changed == config {
            return Err(format!("{}: no line is {:?}", file.display(), reserve[0]));
        }
        fs::write(&file, changed).map_err(at(&file))?;
        place(self, &data, &kept)?;
        scene.stage.start(self.victim)?;
        scene.recorder.note(What::Up(self.victim));
        Ok(())
    }
}

impl Strike for FullDisk {
    fn says(&self) -> String {
        format!("the disk of s{} full for {} ms", self.victim + 1, self.lasts.as_millis())
    }

    fn strike(&mut self, scene: &mut Scene<'_>) -> Result<(), String> {
        let as_it_was = "# disk_reserve_mib = 256".to_owned();
        let small = format!("disk_reserve_mib = {RESERVE_MIB}");
        self.moved(scene, [&as_it_was, &small], |fault, data, kept| {
            fs::rename(data, kept).map_err(at(data))?;
            fs::create_dir(data).map_err(at(data))?;
            fault.volume = Some(Volume::mount(data, ROOM_MIB)?);
            copy_folder(&kept.join("."), data)
        })?;
        scene.note("its data is on a small volume");
        self.logged = scene.stage.server(self.victim)?.log().len();
        let filler = self.filler(scene)?;
        let filled = fill(&filler)?;
        scene.note(format!("full, {filled} bytes of it by others"));
        Ok(())
    }

    fn shows(&mut self, scene: &mut Scene<'_>) -> Result<(), String> {
        let before = self.logged;
        until("the log says that the disk is full", CONVERGE_MAX, || {
            let log = scene.stage.server(self.victim)?.log();
            let new = log.get(before..).unwrap_or_default();
            if new.contains("the disk is full") { Ok(()) } else { Err("it does not".into()) }
        })?;
        // One that lacks what it has no room for takes no clients at all.
        let status = scene.stage.wait_status(self.victim, "takes no writes", |now| {
            matches!(now.state, ServerState::ReadOnly | ServerState::CatchingUp)
        })?;
        self.full = Some((status.origin, scene.recorder.now()));
        scene.note("it takes no writes");
        Ok(())
    }

    fn lasts(&self) -> Duration {
        self.lasts
    }

    fn ends_last(&self) -> bool {
        true
    }

    fn heal(&mut self, scene: &mut Scene<'_>) -> Result<String, String> {
        self.ended = Some(scene.recorder.now());
        let filler = self.filler(scene)?;
        fs::remove_file(&filler).map_err(at(&filler))?;
        scene.note("there is room");
        scene.stage.wait_status(self.victim, "takes writes again", |status| {
            matches!(status.state, ServerState::Ready | ServerState::CatchingUp)
        })?;
        let as_it_was = "# disk_reserve_mib = 256".to_owned();
        let small = format!("disk_reserve_mib = {RESERVE_MIB}");
        self.moved(scene, [&small, &as_it_was], |fault, data, kept| {
            fs::remove_dir_all(kept).map_err(at(kept))?;
            copy_folder(data, kept)?;
            fault.volume = None;
            fs::remove_dir(data).map_err(at(data))?;
            fs::rename(kept, data).map_err(at(kept))
        })?;
        Ok(format!("s{} took no writes until there was room", self.victim + 1))
    }

    fn judge(&self, history: &History) -> Vec<String> {
        let (Some((run, from)), Some(until)) = (self.full, self.ended) else { return Vec::new() };
        match taken_by(history, run, from, until) {
            0 => Vec::new(),
            taken => vec![format!("s{} took {taken} writes with a full disk", self.victim + 1)],
        }
    }
}
