//! Rounds of real processes under faults, each held against the promises by the history checker.
//!
//! A round (`round`) has rooms of its own, clients on each server (`crowd`) that talk (`session`) and
//! do everything else (`square`), all of which is written down (`pen`, `recorder`), faults ([`Fault`]: one list of all there are, `faults` with how each is
//! made), and its end: everything replicated, all servers the same, every timeline read from every
//! server. `modes` repeats one fault, `torture` draws from all of them. The servers (`stage`) are on
//! the loopback, or each on a machine of its own (`machines`) where the fault needs a network. What
//! is needed to look into a round that broke a promise stays in a folder.

mod cases;
mod clock;
mod crowd;
mod fault;
mod faults;
mod keep;
mod machines;
mod modes;
mod pen;
mod place;
mod recorder;
mod relay;
mod round;
mod server;
mod session;
mod square;
mod stage;
mod system;
mod table;
mod timeline;
mod told;
mod torture;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chatty_simulations::history::{
    Figures, History, Rule, Session, Stall, Verdict as Found, Violation, figures, judge,
};

use crowd::THROUGHOUT;
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
    /// No promise was broken, but in so many rounds a rule had nothing to judge.
    Idle,
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
    /// How often each rule had something to judge.
    judged: BTreeMap<Rule, u64>,
    figures: Figures,
    /// What did not come to rest, in words.
    troubles: Vec<String>,
}

impl Judged {
    fn new(history: History, troubles: Vec<String>) -> Self {
        let (Found { broken, judged }, figures) = (judge(&history), figures(&history));
        Self { history, violations: broken, judged, figures, troubles }
    }

    fn is_kept(&self) -> bool {
        self.violations.is_empty() && self.troubles.is_empty()
    }

    fn broken(&self, rules: &[Rule]) -> usize {
        self.violations.iter().filter(|violation| rules.contains(&violation.rule)).count()
    }

    /// How long those waited who talk and listen throughout.
    fn stalls(&self) -> BTreeMap<Session, Stall> {
        let stays = |who: &Session| {
            let name = self.history.sessions.get(*who);
            name.is_some_and(|name| THROUGHOUT.iter().any(|begin| name.starts_with(begin)))
        };
        let stalls = self.figures.stalls.iter().filter(|(who, _)| stays(who));
        stalls.map(|(who, stall)| (*who, *stall)).collect()
    }

    /// Whose was the longest, and how long.
    fn longest_stall(&self) -> String {
        let stalls = self.stalls();
        let Some((who, stall)) = stalls.iter().max_by_key(|(_, stall)| stall.longest()) else {
            return "none".into();
        };
        let name = self.history.sessions.get(*who).map_or("?", String::as_str);
        format!("{} ms ({name})", stall.longest().as_millis())
    }

    /// The cells that every table has.
    fn cells(&self) -> Row {
        let Figures {
            sent,
            replicated,
            stored_only,
            replicated_lost,
            stored_lost,
            repaired,
            refused,
            unknown,
            ..
        } = &self.figures;
        let named = [Rule::Lost, Rule::Duplicated, Rule::Reordered];
        let others: Vec<_> = Rule::ALL.into_iter().filter(|rule| !named.contains(rule)).collect();
        vec![
            ("said", Cell::Count(*sent)),
            ("replicated", Cell::Count(*replicated)),
            ("lost", Cell::Count(*replicated_lost)),
            ("refused", Cell::Count(*refused)),
            ("not known", Cell::Count(*unknown)),
            ("stored only", Cell::Count(*stored_only)),
            ("of these lost", Cell::Count(*stored_lost)),
            ("saved by its sender", Cell::Count(*repaired)),
            ("doubled", Cell::Count(self.broken(&[Rule::Duplicated]))),
            ("out of order", Cell::Count(self.broken(&[Rule::Reordered]))),
            ("other faults", Cell::Count(self.broken(&others) + self.troubles.len())),
        ]
    }
}
