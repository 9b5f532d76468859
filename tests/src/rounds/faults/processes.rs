//! Processes that die, stand still, or are restarted.

use std::fs;
use std::time::{Duration, Instant};

use chatty_core::id::Origin;
use chatty_core::session::LinkState;
use chatty_simulations::history::{Server, What};
use nix::sys::signal::Signal;

use crate::rounds::fault::{Dice, Scene, Strike};
use crate::rounds::system::until;
use crate::rounds::table::{Cell, Row};

/// Links to a server that says nothing are given up within this.
const MISSED_MAX: Duration = Duration::from_secs(15);
/// A server that stands still for longer than this is missed while it does.
const MISSED_FROM: Duration = Duration::from_secs(6);

/// See [`Fault::Kill`](crate::rounds::fault::Fault::Kill).
pub struct Kill {
    victim: Server,
    lasts: Duration,
    name: Option<String>,
}

impl Kill {
    pub fn draw(dice: &mut Dice) -> Self {
        Self { victim: dice.victim(), lasts: dice.millis(200, 1200), name: None }
    }
}

impl Strike for Kill {
    fn says(&self) -> String {
        format!("s{} killed for {} ms", self.victim + 1, self.lasts.as_millis())
    }

    fn strike(&mut self, scene: &mut Scene<'_>) -> Result<(), String> {
        scene.recorder.note(What::Down(self.victim));
        let server = scene.stage.server(self.victim)?;
        server.signal(Signal::SIGKILL)?;
        server.is_killed()?;
        self.name = Some(server.name().to_owned());
        scene.note(format!("s{} is dead", self.victim + 1));
        Ok(())
    }

    fn shows(&mut self, scene: &mut Scene<'_>) -> Result<(), String> {
        match scene.stage.status(self.victim) {
            Ok(_) => Err(format!("s{} is dead and answers", self.victim + 1)),
            Err(_) => Ok(()),
        }
    }

    fn lasts(&self) -> Duration {
        self.lasts
    }

    fn heal(&mut self, scene: &mut Scene<'_>) -> Result<String, String> {
        scene.stage.start(self.victim)?;
        scene.recorder.note(What::Up(self.victim));
        Ok(format!("s{} ended by SIGKILL", self.victim + 1))
    }

    fn cells(&self) -> Row {
        let killed = self.name.clone().unwrap_or_else(|| "?".into());
        vec![("killed", Cell::Word(killed))]
    }
}

/// See [`Fault::KillAll`](crate::rounds::fault::Fault::KillAll).
pub struct KillAll {
    lasts: Duration,
    within: Option<Duration>,
}

impl KillAll {
    pub fn draw(dice: &mut Dice) -> Self {
        Self { lasts: dice.millis(0, 500), within: None }
    }

    fn killed_within(&self) -> String {
        self.within.map_or_else(|| "?".into(), |within| format!("{} µs", within.as_micros()))
    }
}

impl Strike for KillAll {
    fn says(&self) -> String {
        format!("all killed for {} ms", self.lasts.as_millis())
    }

    fn strike(&mut self, scene: &mut Scene<'_>) -> Result<(), String> {
        let all = 0..scene.stage.servers.len();
        all.for_each(|server| scene.recorder.note(What::Down(server)));
        let from = Instant::now();
        scene.stage.servers.iter().try_for_each(|server| server.signal(Signal::SIGKILL))?;
        self.within = Some(from.elapsed());
        scene.note("all are dead");
        scene.stage.servers.iter_mut().try_for_each(|server| server.is_killed())
    }

    fn shows(&mut self, _scene: &mut Scene<'_>) -> Result<(), String> {
        Ok(())
    }

    fn lasts(&self) -> Duration {
        self.lasts
    }

    fn heal(&mut self, scene: &mut Scene<'_>) -> Result<String, String> {
        scene.stage.servers.iter_mut().try_for_each(|server| server.begin(None))?;
        for server in 0..scene.stage.servers.len() {
            scene.stage.wait_answers(server)?;
            scene.recorder.note(What::Up(server));
        }
        Ok(format!("all ended by SIGKILL within {}", self.killed_within()))
    }

    fn leaves_majority(&self) -> bool {
        false
    }

    fn cells(&self) -> Row {
        vec![("killed within", Cell::Word(self.killed_within()))]
    }
}

/// See [`Fault::Stop`](crate::rounds::fault::Fault::Stop).
pub struct Stop {
    victim: Server,
    lasts: Duration,
    from: Option<Instant>,
    /// How much it had worked when it stood still.
    worked: u64,
    missed: bool,
}

/// What the kernel says of a process.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// The letter for what it does.
    state: char,
    /// How much it has worked, in ticks of the kernel's.
    worked: u64,
}

impl Stat {
    fn parse(line: &str) -> Option<Self> {
        // After the program's name in brackets; user and system time are fields 14 and 15.
        let mut fields = line.rsplit(") ").next()?.split(' ');
        let state = fields.next()?.chars().next()?;
        let mut times = fields.skip(10).map(str::parse::<u64>);
        Some(Self { state, worked: times.next()?.ok()? + times.next()?.ok()? })
    }
}

impl Stop {
    /// Mostly shorter than what makes it missed, at times much longer.
    pub fn draw(dice: &mut Dice) -> Self {
        let most = if dice.one_in(3) { 20_000 } else { 5000 };
        let (victim, lasts) = (dice.victim(), dice.millis(1000, most));
        Self { victim, lasts, from: None, worked: 0, missed: false }
    }

    fn stat(&self, scene: &mut Scene<'_>) -> Result<Stat, String> {
        let pid = scene.stage.server(self.victim)?.pid()?;
        let file = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
        Stat::parse(&stat).ok_or_else(|| format!("{file}: {stat}"))
    }
}

impl Strike for Stop {
    fn says(&self) -> String {
        format!("s{} stands still for {} ms", self.victim + 1, self.lasts.as_millis())
    }

    fn strike(&mut self, scene: &mut Scene<'_>) -> Result<(), String> {
        scene.stage.server(self.victim)?.signal(Signal::SIGSTOP)?;
        self.from = Some(Instant::now());
        scene.note(format!("s{} stands still", self.victim + 1));
        Ok(())
    }

    fn shows(&mut self, scene: &mut Scene<'_>) -> Result<(), String> {
        let stat = until("the process stands still", MISSED_MAX, || match self.stat(scene)? {
            stat if stat.state == 'T' => Ok(stat),
            other => Err(format!("its state is {other:?}")),
        })?;
        self.worked = stat.worked;
        Ok(())
    }

    fn lasts(&self) -> Duration {
        self.lasts
    }

    fn heal(&mut self, scene: &mut Scene<'_>) -> Result<String, String> {
        if self.lasts > MISSED_FROM {
            let name = scene.stage.name(self.victim).to_owned();
            let is_missed = |server| {
                let status = scene.stage.status(server)?;
                let mut links = status.links.into_iter();
                let link = links.find(|link| link.server.as_str() == name);
                Ok::<_, String>(link.is_some_and(|link| link.state != LinkState::Up))
            };
            // Those that another fault has taken do not answer.
            let others = (0..scene.stage.servers.len()).filter(|server| *server != self.victim);
            self.missed = others.filter_map(|server| is_missed(server).ok()).any(|missed| missed);
            if !self.missed {
                return Err(format!("{name} stands still and nobody misses it"));
            }
        }
        let before = Stat { state: 'T', worked: self.worked };
        let stood = match self.stat(scene)? {
            stat if stat == before => self.from.map(|from| from.elapsed()).unwrap_or_default(),
            other => return Err(format!("{other:?}, not {before:?}: something let it go on")),
        };
        scene.stage.server(self.victim)?.signal(Signal::SIGCONT)?;
        scene.stage.wait_answers(self.victim)?;
        let missed = if self.missed { ", missed by others" } else { "" };
        Ok(format!("s{} stood still for {} ms{missed}", self.victim + 1, stood.as_millis()))
    }
}

/// See [`Fault::RollingRestart`](crate::rounds::fault::Fault::RollingRestart).
#[derive(Default)]
pub struct RollingRestart {
    runs: Vec<(Origin, Origin)>,
}

impl Strike for RollingRestart {
    fn says(&self) -> String {
        "all drained and started, one after the other".into()
    }

    fn strike(&mut self, scene: &mut Scene<'_>) -> Result<(), String> {
        for server in 0..scene.stage.servers.len() {
            for every in 0..scene.stage.servers.len() {
                scene.stage.wait_linked(every)?;
            }
            let before = scene.stage.status(server)?.origin;
            scene.stage.drain(server)?;
            scene.recorder.note(What::Down(server));
            scene.stage.start(server)?;
            scene.recorder.note(What::Up(server));
            scene.note(format!("s{} is restarted", server + 1));
            self.runs.push((before, scene.stage.status(server)?.origin));
        }
        Ok(())
    }

    fn shows(&mut self, _scene: &mut Scene<'_>) -> Result<(), String> {
        if self.runs.iter().any(|(before, after)| before == after) {
            return Err("a server goes on with the run that it had before its restart".into());
        }
        Ok(())
    }

    fn lasts(&self) -> Duration {
        Duration::ZERO
    }

    fn heal(&mut self, _scene: &mut Scene<'_>) -> Result<String, String> {
        Ok(format!("{} servers run anew", self.runs.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_of_a_process_is_read_after_its_name() {
        let line = "4711 (a (b) c) T 1 4711 4711 0 -1 4194560 312 0 0 0 17 5 0 0 20 0 4 0 99";
        assert_eq!(Stat::parse(line), Some(Stat { state: 'T', worked: 22 }));
        assert_eq!(Stat::parse("4711 (short) T 1 4711"), None);
        let own = fs::read_to_string("/proc/self/stat").expect("it is there");
        assert!(Stat::parse(&own).is_some(), "{own}");
    }
}
