//! What became of each mutant, in one small text file for each source file.
//!
//! A line is a verdict, the fingerprint of the function it holds for, who gave it, and the mutant.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};

use crate::list::Mutant;

/// What became of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// A check failed.
    Caught,
    /// A check did not end.
    Timeout,
    /// It does not compile.
    Unviable,
    /// All checks passed.
    Missed,
}

impl Verdict {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Caught, "caught"),
        (Self::Timeout, "timeout"),
        (Self::Unviable, "unviable"),
        (Self::Missed, "missed"),
    ];
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let word = Self::ALL.iter().find(|(verdict, _)| verdict == self);
        f.pad(word.map_or("", |(_, word)| word))
    }
}

/// A verdict and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What became of the mutant.
    pub verdict: Verdict,
    /// The test, the seeds or the compiler's code that said so.
    pub by: String,
}

impl Outcome {
    /// Whether a test has caught it.
    pub fn is_of_tests(&self) -> bool {
        self.verdict == Verdict::Caught && !self.is_of_simulator()
    }

    /// Whether the simulator has said so, where the tests had said nothing.
    pub fn is_of_simulator(&self) -> bool {
        self.by.starts_with("simulator")
    }
}

/// All that is kept, by file and mutant, with the fingerprint it holds for.
#[derive(Debug)]
pub struct Results {
    folder: PathBuf,
    kept: BTreeMap<String, BTreeMap<String, (String, Outcome)>>,
}

fn file_of(folder: &Path, source: &str) -> PathBuf {
    let short = source.trim_start_matches("crates/core/src/").trim_end_matches(".rs");
    folder.join(format!("{}.txt", short.replace('/', "-")))
}

fn parse(line: &str) -> Option<(String, (String, Outcome))> {
    let mut parts = line.splitn(4, '\t');
    let (word, print, by, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let (verdict, _) = Verdict::ALL.iter().find(|(_, known)| *known == word.trim())?;
    let outcome = Outcome { verdict: *verdict, by: by.to_string() };
    Some((name.to_string(), (print.to_string(), outcome)))
}

impl Results {
    /// What is kept about these sources.
    pub fn load<'a>(folder: &Path, sources: impl Iterator<Item = &'a String>) -> Self {
        let mut kept = BTreeMap::new();
        for source in sources {
            let text = std::fs::read_to_string(file_of(folder, source)).unwrap_or_default();
            kept.insert(source.clone(), text.lines().filter_map(parse).collect());
        }
        Self { folder: folder.to_path_buf(), kept }
    }

    /// What is known of a mutant, if its function is the same as then.
    pub fn of(&self, mutant: &Mutant) -> Option<&Outcome> {
        let (print, outcome) = self.kept.get(&mutant.file)?.get(&mutant.name)?;
        (*print == mutant.fingerprint).then_some(outcome)
    }

    /// Keeps a verdict.
    pub fn set(&mut self, mutant: &Mutant, outcome: Outcome) {
        let entry = (mutant.fingerprint.clone(), outcome);
        self.kept.entry(mutant.file.clone()).or_default().insert(mutant.name.clone(), entry);
    }

    /// Leaves out what is kept of mutants, functions and sources that are no more.
    ///
    /// # Errors
    /// A file cannot be written or removed.
    pub fn tidy(&self, mutants: &[Mutant]) -> Result<(), String> {
        for source in self.kept.keys() {
            self.save(source, mutants)?;
        }
        let known: BTreeSet<PathBuf> =
            self.kept.keys().map(|source| file_of(&self.folder, source)).collect();
        for entry in std::fs::read_dir(&self.folder).map_err(|error| error.to_string())? {
            let path = entry.map_err(|error| error.to_string())?.path();
            if !known.contains(&path) {
                std::fs::remove_file(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Writes what is known of the mutants of one source, in their order.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, source: &str, mutants: &[Mutant]) -> Result<(), String> {
        let mut text = String::new();
        for mutant in mutants.iter().filter(|mutant| mutant.file == source) {
            if let Some(outcome) = self.of(mutant) {
                text += &format!(
                    "{:<8}\t{}\t{}\t{}\n",
                    outcome.verdict, mutant.fingerprint, outcome.by, mutant.name
                );
            }
        }
        let path = file_of(&self.folder, source);
        std::fs::create_dir_all(&self.folder)
            .and_then(|()| std::fs::write(&path, text))
            .map_err(|error| format!("{}: {error}", path.display()))
    }
}
