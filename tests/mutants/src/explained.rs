//! Why some mutants may live: a line for each in a file, to be read by people.

use std::collections::BTreeSet;
use std::path::Path;

use crate::list::Mutant;

/// The mutants that have a reason to live, as `file: mutant`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Explained(BTreeSet<String>);

/// A mutant as the file names it.
pub fn name_of(mutant: &Mutant) -> String {
    format!("{}: {}", mutant.file.trim_start_matches("crates/core/src/"), mutant.name)
}

impl Explained {
    /// What is written there; of a file that is not there, nothing.
    pub fn load(path: &Path) -> Self {
        Self::parse(&std::fs::read_to_string(path).unwrap_or_default())
    }

    /// Lines of `file: mutant — reason`; those that begin with `#` are for the reader alone.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self(lines.filter_map(|line| line.split_once(" — ")).map(|(of, _)| of.into()).collect())
    }

    /// Whether a mutant has one.
    pub fn has(&self, mutant: &Mutant) -> bool {
        self.0.contains(&name_of(mutant))
    }

    /// What was missed without a reason, and what has a reason without being missed.
    pub fn compare(&self, missed: &BTreeSet<String>) -> (Vec<String>, Vec<String>) {
        let without = missed.difference(&self.0).cloned().collect();
        (without, self.0.difference(missed).cloned().collect())
    }
}
