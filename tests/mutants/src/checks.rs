//! The checks that a mutant has to get past: the core's tests that reach it, then the simulator.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use crate::results::{Outcome, Verdict};

/// Seconds of processor time after which a check that takes a few does not end.
const TEST_SECONDS: u64 = 30;
const SIMULATOR_SECONDS: u64 = 120;
/// A mutant may want all memory there is.
const MEMORY_KIB: u64 = 3 << 20;
const SIGXCPU: i32 = 24;

/// The seeds that a mutant meets in the simulator, in steps: most fall at the first.
pub const SEEDS: &[(u32, u32)] = &[(1, 2), (3, 8), (11, 30), (41, 60)];

/// The core's tests.
pub struct Tests {
    program: PathBuf,
    /// What each test reaches.
    reach: BTreeMap<String, BTreeSet<u32>>,
}

/// The simulator.
pub struct Simulator {
    program: PathBuf,
    reach: BTreeSet<u32>,
}

fn limited(program: &Path, seconds: u64) -> Command {
    let mut command = Command::new("sh");
    let limits = format!("ulimit -t {seconds}; ulimit -v {MEMORY_KIB}; exec \"$0\" \"$@\"");
    command.arg("-c").arg(limits).arg(program);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    // The same cases each time, and no care for the smallest.
    command.env("PROPTEST_RNG_SEED", "1").env("PROPTEST_MAX_SHRINK_ITERS", "0");
    command.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
    command
}

fn judged(status: ExitStatus, by: String) -> Option<Outcome> {
    if status.success() {
        return None;
    }
    let timed_out = status.signal() == Some(SIGXCPU) || status.code() == Some(128 + SIGXCPU);
    let verdict = if timed_out { Verdict::Timeout } else { Verdict::Caught };
    Some(Outcome { verdict, by })
}

/// Runs a program once and learns which mutants it reaches.
fn reach(mut command: Command, list: &Path) -> Result<BTreeSet<u32>, String> {
    let _ = std::fs::remove_file(list);
    let status = command
        .env("CHATTY_REACHED", list)
        .stdout(Stdio::null())
        .status()
        .map_err(|error| error.to_string())?;
    if !status.success() {
        return Err(format!("a check fails without any mutant: {command:?}"));
    }
    let text = std::fs::read_to_string(list).unwrap_or_default();
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

impl Tests {
    /// Runs each test once, with every mutant asleep.
    ///
    /// # Errors
    /// A test fails.
    pub fn new(program: PathBuf, scratch: &Path) -> Result<Self, String> {
        let out = Command::new(&program).args(["--list", "--format", "terse"]).output();
        let out = out.map_err(|error| error.to_string())?;
        let mut reached = BTreeMap::new();
        for line in String::from_utf8_lossy(&out.stdout).lines() {
            let Some(name) = line.strip_suffix(": test") else { continue };
            let mut command = limited(&program, TEST_SECONDS);
            command.args(["--exact", "--test-threads", "1", name]);
            reached.insert(name.to_string(), reach(command, &scratch.join("reached"))?);
        }
        Ok(Self { program, reach: reached })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.reach.len()
    }

    /// What the tests that reach a mutant say; `None` if all pass.
    ///
    /// # Errors
    /// They cannot be started.
    pub fn check(&self, id: u32) -> Result<Option<Outcome>, String> {
        let mut all: Vec<(&String, &BTreeSet<u32>)> =
            self.reach.iter().filter(|(_, reached)| reached.contains(&id)).collect();
        all.sort_by_key(|(_, reached)| reached.len());
        let names: Vec<&String> = all.into_iter().map(|(name, _)| name).collect();
        // The tests of little come first: they are quick, and about what the mutant changes.
        let (near, far) = names.split_at(names.len().min(12));
        for names in [near, far] {
            if names.is_empty() {
                continue;
            }
            if let Some(outcome) = self.run(names, Some(id))? {
                return Ok(Some(outcome));
            }
        }
        Ok(None)
    }

    /// What all tests say of a build with one mutant in it.
    ///
    /// # Errors
    /// They cannot be started.
    pub fn check_single(&self, program: &Path) -> Result<Option<Outcome>, String> {
        let names: Vec<&String> = self.reach.keys().collect();
        let single = Self { program: program.to_path_buf(), reach: BTreeMap::new() };
        single.run(&names, None)
    }

    fn run(&self, names: &[&String], id: Option<u32>) -> Result<Option<Outcome>, String> {
        let mut command = limited(&self.program, TEST_SECONDS);
        command.args(["--exact", "--test-threads", "1"]).args(names).stdout(Stdio::piped());
        if let Some(id) = id {
            command.env("CHATTY_MUTANT", id.to_string());
        }
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let Some(out) = child.stdout.take() else { return Err("no output".into()) };
        let mut running = String::new();
        let mut failed = None;
        for line in BufReader::new(out).split(b'\n') {
            let line = String::from_utf8_lossy(&line.map_err(|e| e.to_string())?).into_owned();
            let Some(rest) = line.strip_prefix("test ") else { continue };
            let Some((name, said)) = rest.split_once(" ... ") else { continue };
            running = name.trim_end_matches(" - should panic").to_string();
            if said == "FAILED" {
                failed = Some(running.clone());
                let _ = child.kill();
                break;
            }
        }
        let status = child.wait().map_err(|error| error.to_string())?;
        if let Some(name) = failed {
            return Ok(Some(Outcome { verdict: Verdict::Caught, by: name }));
        }
        Ok(judged(status, running))
    }
}

impl Simulator {
    /// Runs the first seeds once, with every mutant asleep.
    ///
    /// # Errors
    /// A seed fails.
    pub fn new(program: PathBuf, scratch: &Path) -> Result<Self, String> {
        let mut reached = BTreeSet::new();
        for (first, seeds) in SEEDS {
            let command = Self::seeds(&program, *first, *seeds);
            reached.extend(reach(command, &scratch.join("reached"))?);
        }
        if reached.is_empty() {
            return Err("the simulator meets no mutant: it is built of another core".into());
        }
        Ok(Self { program, reach: reached })
    }

    fn seeds(program: &Path, first: u32, seeds: u32) -> Command {
        let mut command = limited(program, SIMULATOR_SECONDS);
        command.args(["run", "--seeds", &seeds.to_string(), "--first", &first.to_string()]);
        // Others run beside it, and nobody reads the schedule of a seed that fails here.
        command.args(["--threads", "1", "--shrink", "0"]);
        command.stdout(Stdio::null());
        command
    }

    /// Whether any seed reaches it.
    pub fn meets(&self, id: u32) -> bool {
        self.reach.contains(&id)
    }

    /// What the seeds say of a mutant; `None` if all pass.
    ///
    /// # Errors
    /// They cannot be started.
    pub fn check(&self, id: u32) -> Result<Option<Outcome>, String> {
        if !self.meets(id) {
            return Ok(None);
        }
        for (first, seeds) in SEEDS {
            let status = Self::seeds(&self.program, *first, *seeds)
                .env("CHATTY_MUTANT", id.to_string())
                .status()
                .map_err(|error| error.to_string())?;
            let by = format!("simulator, seeds {first} to {}", first + seeds - 1);
            if let Some(outcome) = judged(status, by) {
                return Ok(Some(outcome));
            }
        }
        Ok(None)
    }
}
