//! Rounds of real processes under one fault each, held against the promises by the history checker.
//!
//! A round has rooms of its own, clients on each server (`crowd`) whose every word is written
//! down (`recorder`), one fault, and its end: everything replicated, all servers the same, every
//! timeline read from every server. [`strikes`] has the faults that processes on one machine can
//! have, [`partition`] the one that needs networks of their own. What is needed to look into a
//! round that broke a promise stays in a folder.

mod crowd;
mod keep;
mod partition;
mod place;
mod recorder;
mod servers;
mod session;
mod strikes;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use chatty_simulations::history::{Figures, History, Rule, Violation, check, figures};

use table::{Cell, Row};

/// What is done to the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
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
/// Why it cannot be run, or a fault not be made.
pub fn strikes(fault: Fault, rounds: u32, options: &Options) -> Result<Verdict, String> {
    strikes::run(fault, rounds, options)
}

/// Runs a partition 2 | 1 of that length.
///
/// # Errors
/// Why it cannot be run.
pub fn partition(cut: Duration, options: &Options) -> Result<Verdict, String> {
    partition::run(cut, options)
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
