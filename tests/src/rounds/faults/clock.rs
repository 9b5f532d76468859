//! A server whose clock is wrong.

use std::time::Duration;

use chatty_core::id::{Log, Origin};
use chatty_core::session::{ServerState, Status};
use chatty_core::time::Time;
use chatty_simulations::history::{History, Server, What};

use super::taken_by;
use crate::rounds::clock::Clock;
use crate::rounds::fault::{Dice, Scene, Strike};
use crate::rounds::stage::CONVERGE_MAX;
use crate::rounds::system::until;

/// Whether a server takes no writes: while it lags behind it takes no clients at all.
fn takes_none(status: &Status) -> bool {
    matches!(status.state, ServerState::Fenced | ServerState::CatchingUp)
}

/// A run that has made so many events has clients: the first is its own.
const TAKEN: u64 = 5;
const OFFSETS: [i64; 4] = [10, 3600, 86_400, 365 * 86_400];

/// See [`Fault::Clock`](crate::rounds::fault::Fault::Clock).
pub struct Skew {
    victim: Server,
    seconds: i64,
    when: When,
    lasts: Duration,
    clock: Option<Clock>,
    /// How much its log had said before.
    logged: usize,
    fenced: Option<(Origin, Time)>,
    mended: Option<Time>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// It starts with the wrong clock.
    FromItsStart,
    /// It runs, with people talking to it.
    AsItRuns,
}

impl Skew {
    pub fn draw(dice: &mut Dice) -> Self {
        let seconds = OFFSETS[dice.number(0, OFFSETS.len() as u64) as usize];
        let seconds = if dice.one_in(2) { -seconds } else { seconds };
        let when = if dice.one_in(3) { When::FromItsStart } else { When::AsItRuns };
        let (victim, lasts) = (dice.victim(), dice.millis(1000, 3000));
        Self { victim, seconds, when, lasts, clock: None, logged: 0, fenced: None, mended: None }
    }

    /// The server, stopped for it, goes on with that clock, or with its machine's.
    fn restart(&self, scene: &mut Scene<'_>) -> Result<(), String> {
        scene.recorder.note(What::Down(self.victim));
        let server = scene.stage.server(self.victim)?;
        server.stop()?;
        server.begin(self.clock.as_ref())?;
        scene.stage.wait_linked(self.victim)?;
        scene.recorder.note(What::Up(self.victim));
        Ok(())
    }

    fn clock(&self) -> Result<&Clock, String> {
        self.clock.as_ref().ok_or_else(|| "it has the machine's clock".into())
    }
}

impl Strike for Skew {
    fn says(&self) -> String {
        let when = match self.when {
            When::FromItsStart => "from its start",
            When::AsItRuns => "as it runs",
        };
        let (victim, ms) = (self.victim + 1, self.lasts.as_millis());
        format!("the clock of s{victim} {:+} s, {when}, for {ms} ms", self.seconds)
    }

    fn strike(&mut self, scene: &mut Scene<'_>) -> Result<(), String> {
        self.logged = scene.stage.server(self.victim)?.log().len();
        let file = scene.stage.dir().join("clock");
        let first = if self.when == When::FromItsStart { self.seconds } else { 0 };
        self.clock = Some(Clock::new(file, first)?);
        self.restart(scene)?;
        if self.when == When::AsItRuns {
            // Its clients come back to it: it is set while they write.
            scene.stage.wait_status(self.victim, "takes messages", |now| {
                now.state == ServerState::Ready && now.vector.upto(Log::of(now.origin)) >= TAKEN
            })?;
        }
        self.clock()?.is_off_by(self.seconds)?;
        scene.note(format!("the clock of s{} is {:+} s off", self.victim + 1, self.seconds));
        Ok(())
    }

    fn shows(&mut self, scene: &mut Scene<'_>) -> Result<(), String> {
        let before = self.logged;
        until("the log says that the clock is off", CONVERGE_MAX, || {
            let log = scene.stage.server(self.victim)?.log();
            let new = log.get(before..).unwrap_or_default();
            if new.contains("clock is off") { Ok(()) } else { Err("it does not".into()) }
        })?;
        let status = scene.stage.wait_status(self.victim, "takes no writes", takes_none)?;
        self.fenced = Some((status.origin, scene.recorder.now()));
        scene.note("it takes no writes");
        Ok(())
    }

    fn lasts(&self) -> Duration {
        self.lasts
    }

    fn heal(&mut self, scene: &mut Scene<'_>) -> Result<String, String> {
        let status = scene.stage.status(self.victim)?;
        if !takes_none(&status) {
            return Err(format!("its clock is off, and it is {}", status.state));
        }
        self.mended = Some(scene.recorder.now());
        self.clock()?.is_off_by(0)?;
        scene.note("the clock is mended");
        let ready = ServerState::Ready;
        scene.stage.wait_status(self.victim, "takes writes again", |now| now.state == ready)?;
        self.clock = None;
        self.restart(scene)?;
        Ok(format!("s{} took no writes until its clock was mended", self.victim + 1))
    }

    fn judge(&self, history: &History) -> Vec<String> {
        let (Some((run, from)), Some(until)) = (self.fenced, self.mended) else {
            return Vec::new();
        };
        match taken_by(history, run, from, until) {
            0 => Vec::new(),
            taken => vec![format!("s{} took {taken} writes with a wrong clock", self.victim + 1)],
        }
    }
}
