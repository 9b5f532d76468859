//! Rounds of real processes under faults, each held against the promises by the history checker.
//!
//! A round (`round`) has rooms of its own, clients on each server (`crowd`) whose every word is
//! written down (`recorder`), faults ([`Fault`]: one list of all there are, `faults` with how each is
//! made), and its end: everything replicated, all servers the same, every timeline read from every
//! server. `modes` repeats one fault, `torture` draws from all of them. The servers (`stage`) are on
//! the loopback, or each on a machine of its own (`machines`) where the fault needs a network. What
//! is needed to look into a round that broke a promise stays in a folder.

mod clock;
mod crowd;
mod fault;
mod faults;
mod keep;
mod machines;
mod modes;
mod place;
mod recorder;
mod round;
mod server;
mod session;
mod stage;
mod system;
mod table;
mod told;
mod torture;

use std::path::{Path, PathBuf};
use std::time::Duration;

use chatty_simulations::history::{Figures, History, Rule, Violation, check, figures};

use table::{Cell, Row};

pub use fault::Fault;
pub use torture::Torture;

/// Rounds of which fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One server is killed at a random moment and started again.
    Kill,
    /// All servers are killed at the same moment and started again.
    All,
    /// One server's data is deleted, then another's, then the third's.
    Wipe,
}

/// What a run is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Draws the moments and the victims.
    pub seed: u64,
    /// Where the cluster and what is kept lies; it is made, and must not exist.
    pub folder: PathBuf,
    /// The UDP port of the first server; `None` looks for free ones.
    pub port: Option<u16>,
    /// Messages a second, of all clients together.
    pub rate: u32,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No promise was broken; nothing is left of the run.
    Kept,
    /// A promise was broken, or a round did not come to rest: what it takes to look into it is in
    /// the folder.
    Broken,
}

/// Runs so many rounds of a fault.
///
/// # Errors
/// Why it cannot be run.
pub fn repeat(mode: Mode, rounds: u32, options: &Options) -> Result<Verdict, String> {
    modes::run(mode, rounds, options)
}

/// Runs a partition 2 | 1 of that length. Makes machines: the process has namespaces of its own.
///
/// # Errors
/// Why it cannot be run.
pub fn partition(cut: Duration, options: &Options) -> Result<Verdict, String> {
    modes::partition(cut, options)
}

/// Runs rounds of drawn faults. Makes machines: the process has namespaces of its own. The clusters
/// lie in `work`, which nobody needs afterwards; broken rounds are kept in `broken`.
///
/// # Errors
/// Why it cannot be run.
pub fn torture(torture: &Torture, work: &Path, broken: &Path) -> Result<Verdict, String> {
    torture.run(work, broken)
}

/// A round that was lived, judged.
struct Judged {
    history: History,
    violations: Vec<Violation>,
    figures: Figures,
    /// What did not come to rest, in words.
    troubles: Vec<String>,
}

impl Judged {
    fn new(history: History, troubles: Vec<String>) -> Self {
        let (violations, figures) = (check(&history), figures(&history));
        Self { history, violations, figures, troubles }
    }

    fn is_kept(&self) -> bool {
        self.violations.is_empty() && self.troubles.is_empty()
    }

    fn broken(&self, rules: &[Rule]) -> usize {
        self.violations.iter().filter(|violation| rules.contains(&violation.rule)).count()
    }

    /// The cells that every table has.
    fn cells(&self) -> Row {
        let Figures {
            sent, replicated, stored_only, replicated_lost, stored_lost, repaired, ..
        } = &self.figures;
        let named = [Rule::Lost, Rule::Duplicated, Rule::Reordered];
        let others: Vec<_> = Rule::ALL.into_iter().filter(|rule| !named.contains(rule)).collect();
        vec![
            ("said", Cell::Count(*sent)),
            ("replicated", Cell::Count(*replicated)),
            ("lost", Cell::Count(*replicated_lost)),
            ("stored only", Cell::Count(*stored_only)),
            ("of these lost", Cell::Count(*stored_lost)),
            ("saved by its sender", Cell::Count(*repaired)),
            ("doubled", Cell::Count(self.broken(&[Rule::Duplicated]))),
            ("out of order", Cell::Count(self.broken(&[Rule::Reordered]))),
            ("other faults", Cell::Count(self.broken(&others) + self.troubles.len())),
        ]
    }
}
