//! `chatty-mutants`: which changes of the core would nobody notice?
//!
//! The mutants are those of `cargo mutants --list`; to run them in hours and not days they are
//! woven into one build. `scripts/mutants` calls this.

mod checks;
mod explained;
mod list;
mod results;
mod weave;
#[cfg(test)]
mod tests;
mod woven;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use checks::{Simulator, Tests};
use clap::{Parser, ValueEnum};
use explained::Explained;
use list::Mutant;
use results::{Outcome, Results, Verdict};
use woven::{Copy, Program, Refused};

/// Who has met a mutant that lives.
const BY_TESTS: &str = "tests";
const BY_ALL: &str = "tests and simulator";

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// The core's own tests.
    Tests,
    /// The simulator's seeds, for what the tests miss.
    Simulator,
}

/// Changes chatty's core on purpose and keeps who noticed.
#[derive(Parser)]
#[command(name = "chatty-mutants", version)]
struct Cli {
    /// Only files whose path has this in it (may be repeated).
    #[arg(long)]
    file: Vec<String>,
    /// Only the K-th of N equal parts: every N-th mutant.
    #[arg(long, value_name = "K/N")]
    shard: Option<String>,
    /// Try again what was missed, too; what is explained with the simulator alone.
    #[arg(long)]
    missed: bool,
    /// Try again all, whatever is kept.
    #[arg(long)]
    again: bool,
    /// Only these checks.
    #[arg(long)]
    stage: Option<Stage>,
    /// Hold every N-th that the tests catch against the simulator alone, and keep nothing.
    #[arg(long, value_name = "N")]
    compare: Option<usize>,
    /// Start no other mutant after so many minutes of trying.
    #[arg(long)]
    minutes: Option<u64>,
    /// So many at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Run nothing; print what is kept.
    #[arg(long)]
    totals: bool,
    /// The repository.
    #[arg(long, default_value = ".")]
    root: PathBuf,
}

impl Cli {
    /// Whether a mutant is to be tried, by what is kept of it.
    fn wants(&self, kept: Option<&Outcome>, is_explained: bool) -> bool {
        match (kept, self.stage) {
            // The simulator is for what the tests have met: its silence alone is no verdict.
            (None, stage) => stage != Some(Stage::Simulator),
            (Some(kept), Some(Stage::Simulator)) => match kept.verdict {
                Verdict::Missed => kept.by == BY_TESTS || self.missed || self.again,
                Verdict::Caught | Verdict::Timeout => self.again && kept.is_of_simulator(),
                Verdict::Unviable => false,
            },
            (Some(kept), stage) => {
                let is_missed = kept.verdict == Verdict::Missed;
                let is_done = stage == Some(Stage::Tests) && is_explained;
                self.again || self.missed && is_missed && !is_done
            }
        }
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chatty-mutants: {error}");
            ExitCode::FAILURE
        }
    }
}

fn shard(text: Option<&str>) -> Result<(u32, u32), String> {
    let Some(text) = text else { return Ok((0, 1)) };
    let parts = text.split_once('/').and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
    parts.filter(|(k, n)| k < n).ok_or_else(|| format!("{text:?} is no K/N with K below N"))
}

fn run(cli: &Cli) -> Result<(), String> {
    let root = cli.root.canonicalize().map_err(|error| error.to_string())?;
    let (mutants, sources) = list::list(&root)?;
    let folder = root.join("tests/mutants/results");
    let mut results = Results::load(&folder, sources.keys());
    let explained = Explained::load(&root.join("tests/mutants/explained.txt"));
    if !cli.totals {
        let (k, n) = shard(cli.shard.as_deref())?;
        let of_interest = mutants
            .iter()
            .filter(|m| cli.file.is_empty() || cli.file.iter().any(|f| m.file.contains(f)))
            .filter(|mutant| mutant.id % n == k);
        let wanted: Vec<&Mutant> = match cli.compare {
            Some(each) => {
                let caught = |m: &&Mutant| results.of(m).is_some_and(Outcome::is_of_tests);
                of_interest.filter(caught).step_by(each.max(1)).collect()
            }
            None => of_interest
                .filter(|mutant| cli.wants(results.of(mutant), explained.has(mutant)))
                .collect(),
        };
        results.tidy(&mutants)?;
        let mut session = Session {
            root: &root,
            mutants: &mutants,
            sources: &sources,
            results: &mut results,
            minutes: cli.minutes,
            until: None,
            jobs: cli.jobs,
        };
        if cli.compare.is_some() {
            return session.compare(&wanted);
        }
        session.run(&wanted, cli.stage)?;
    }
    print_totals(&mutants, &results);
    print_unexplained(&mutants, &results, &explained);
    Ok(())
}

struct Session<'a> {
    root: &'a Path,
    mutants: &'a [Mutant],
    /// What the mutants were listed for.
    sources: &'a BTreeMap<String, String>,
    results: &'a mut Results,
    minutes: Option<u64>,
    /// Set when the first program is built.
    until: Option<Instant>,
    jobs: usize,
}

impl Session<'_> {
    fn keep(&mut self, mutant: &Mutant, verdict: Verdict, by: &str) -> Result<(), String> {
        let by = by.split_whitespace().collect::<Vec<_>>().join(" ");
        self.results.set(mutant, Outcome { verdict, by });
        self.results.save(&mutant.file, self.mutants)
    }

    /// The first mutant is about to be tried.
    fn begin(&mut self) {
        let span = self.minutes.map(|minutes| Duration::from_secs(minutes * 60));
        self.until = self.until.or_else(|| span.map(|span| Instant::now() + span));
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    fn run(&mut self, wanted: &[&Mutant], stage: Option<Stage>) -> Result<(), String> {
        let left = match stage {
            Some(Stage::Simulator) => wanted.to_vec(),
            Some(Stage::Tests) | None => self.test(wanted)?,
        };
        if stage != Some(Stage::Tests) && !left.is_empty() && !self.is_over() {
            self.simulate(&left)?;
        }
        Ok(())
    }

    /// Tries mutants with the core's tests; what is woven and lives is left.
    fn test<'m>(&mut self, wanted: &[&'m Mutant]) -> Result<Vec<&'m Mutant>, String> {
        let (copy, program, refused) = self.weave(Program::Tests)?;
        for (id, why) in &refused {
            let Some(mutant) = self.mutants.iter().find(|mutant| mutant.id == *id) else {
                continue;
            };
            if is_final(mutant, why) {
                self.keep(mutant, Verdict::Unviable, &format!("{} {}", why.code, why.message))?;
            }
        }
        let tests = Tests::new(program, &self.scratch())?;
        println!("{} tests, {} mutants to try", tests.len(), wanted.len());
        let woven = copy.woven();
        let viable = |m: &&&Mutant| {
            self.results.of(m).is_none_or(|outcome| outcome.verdict != Verdict::Unviable)
        };
        let wanted: Vec<&Mutant> = wanted.iter().filter(viable).copied().collect();
        let (inside, alone): (Vec<&Mutant>, Vec<&Mutant>) =
            wanted.into_iter().partition(|mutant| woven.contains(&mutant.id));
        self.begin();
        let left = self.try_all(&inside, BY_TESTS, |id| tests.check(id))?;
        self.alone(&copy, &tests, &alone)?;
        Ok(left)
    }

    /// Tries mutants with seeds of the simulator.
    fn simulate(&mut self, wanted: &[&Mutant]) -> Result<(), String> {
        let (simulator, inside) = self.simulator(wanted)?;
        self.try_all(&inside, BY_ALL, |id| simulator.check(id))?;
        Ok(())
    }

    /// What the simulator alone says of mutants that the tests catch.
    fn compare(&mut self, wanted: &[&Mutant]) -> Result<(), String> {
        let (simulator, inside) = self.simulator(wanted)?;
        let (mut tried, mut met, mut caught) = (0, 0, 0);
        let check = |id| simulator.check(id);
        each(self.jobs, self.until, &inside, check, |mutant, said| {
            tried += 1;
            met += u32::from(simulator.meets(mutant.id));
            caught += u32::from(said.is_some());
            tell(
                mutant,
                &said.unwrap_or(Outcome { verdict: Verdict::Missed, by: "simulator".into() }),
            );
            Ok(())
        })?;
        println!("of {tried} that the tests catch the simulator meets {met} and catches {caught}");
        Ok(())
    }

    /// The simulator with all mutants in it, and those of these that are.
    fn simulator<'m>(
        &mut self,
        wanted: &[&'m Mutant],
    ) -> Result<(Simulator, Vec<&'m Mutant>), String> {
        let (copy, program, _) = self.weave(Program::Simulator)?;
        let simulator = Simulator::new(program, &self.scratch())?;
        let woven = copy.woven();
        let inside: Vec<&Mutant> =
            wanted.iter().filter(|mutant| woven.contains(&mutant.id)).copied().collect();
        println!(
            "{} mutants to try, and {} that are in no build of the simulator",
            inside.len(),
            wanted.len() - inside.len()
        );
        self.begin();
        Ok((simulator, inside))
    }

    fn scratch(&self) -> PathBuf {
        self.root.join("target/mutants")
    }

    /// Holds a check against mutants; what it does not catch is left.
    fn try_all<'m>(
        &mut self,
        mutants: &[&'m Mutant],
        by: &str,
        check: impl Fn(u32) -> Result<Option<Outcome>, String> + Sync,
    ) -> Result<Vec<&'m Mutant>, String> {
        let mut left = Vec::new();
        each(self.jobs, self.until, mutants, check, |mutant, said| {
            if !self.judge(mutant, said, by)? {
                left.push(mutant);
            }
            Ok(())
        })?;
        Ok(left)
    }

    /// Keeps and tells what checks said; whether the mutant is done with.
    fn judge(&mut self, m: &Mutant, said: Option<Outcome>, by: &str) -> Result<bool, String> {
        let is_done = said.is_some();
        let outcome = said.unwrap_or(Outcome { verdict: Verdict::Missed, by: by.into() });
        tell(m, &outcome);
        self.keep(m, outcome.verdict, &outcome.by)?;
        Ok(is_done)
    }

    /// Weaves all that compile, and builds a program.
    fn weave(&self, program: Program) -> Result<(Copy, PathBuf, BTreeMap<u32, Refused>), String> {
        for (file, text) in self.sources {
            let now = std::fs::read_to_string(self.root.join(file)).map_err(|e| e.to_string())?;
            if now != *text {
                return Err(format!("{file} changed meanwhile; run it again for the rest"));
            }
        }
        let mut refused: BTreeMap<u32, Refused> = BTreeMap::new();
        let kept = self.root.join("target/mutants/refused.txt");
        let known: BTreeSet<String> = std::fs::read_to_string(&kept)
            .unwrap_or_default()
            .lines()
            .map(str::to_string)
            .collect();
        let key = |m: &Mutant| format!("{} {} {}", m.file, m.fingerprint, m.name);
        let mut left_out: BTreeSet<u32> = self
            .mutants
            .iter()
            .filter(|mutant| {
                known.contains(&key(mutant))
                    || self.results.of(mutant).is_some_and(|o| o.verdict == Verdict::Unviable)
            })
            .map(|mutant| mutant.id)
            .collect();
        loop {
            let woven: Vec<&Mutant> =
                self.mutants.iter().filter(|mutant| !left_out.contains(&mutant.id)).collect();
            let copy = Copy::new(self.root, &woven)?;
            println!("building {program:?} with {} mutants", copy.woven().len());
            match copy.build(program)? {
                Ok(program) => {
                    let mut lines = known;
                    let more = self.mutants.iter().filter(|m| refused.contains_key(&m.id));
                    lines.extend(more.map(key));
                    let text: Vec<String> = lines.into_iter().collect();
                    std::fs::write(&kept, text.join("\n")).map_err(|e| e.to_string())?;
                    return Ok((copy, program, refused));
                }
                Err(more) => {
                    println!("the compiler refuses {}", more.len());
                    left_out.extend(more.keys());
                    refused.extend(more);
                }
            }
        }
    }

    /// Those that cannot be woven, with a build for each.
    fn alone(&mut self, copy: &Copy, tests: &Tests, mutants: &[&Mutant]) -> Result<(), String> {
        println!("{} mutants need a build of their own", mutants.len());
        for mutant in mutants {
            if self.is_over() {
                break;
            }
            copy.single(mutant)?;
            match copy.build(Program::Tests) {
                Ok(Ok(program)) => {
                    let said = tests.check_single(&program)?;
                    self.judge(mutant, said, BY_TESTS)?;
                }
                Ok(Err(_)) | Err(_) => {
                    let said = Outcome { verdict: Verdict::Unviable, by: "compiler".into() };
                    self.judge(mutant, Some(said), "")?;
                }
            }
            copy.restore(&mutant.file)?;
        }
        Ok(())
    }
}

/// Holds a check against mutants, some at once, until there is no time left; what it says is taken
/// as it comes.
fn each<'m>(
    jobs: usize,
    until: Option<Instant>,
    mutants: &[&'m Mutant],
    check: impl Fn(u32) -> Result<Option<Outcome>, String> + Sync,
    mut take: impl FnMut(&'m Mutant, Option<Outcome>) -> Result<(), String>,
) -> Result<(), String> {
    let next = AtomicUsize::new(0);
    let (send, verdicts) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (send, next, check) = (send.clone(), &next, &check);
            scope.spawn(move || {
                while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let is_over = until.is_some_and(|until| Instant::now() >= until);
                    if is_over || send.send((*mutant, check(mutant.id))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        verdicts.into_iter().try_for_each(|(mutant, said)| take(mutant, said?))
    })
}

fn tell(mutant: &Mutant, outcome: &Outcome) {
    println!("{:<8} {} ({})", outcome.verdict, explained::name_of(mutant), outcome.by);
}

/// Whether what the compiler says of the woven text holds for the mutant alone, too: a type that
/// has no such value or operator. Of moves, and of some `impl Trait`, it may not.
fn is_final(mutant: &Mutant, why: &Refused) -> bool {
    let is_same = !mutant.returns.contains("impl") || weave::is_iterator(&mutant.returns);
    let codes = ["E0271", "E0277", "E0308", "E0369", "E0368", "E0599", "E0600"];
    is_same && codes.contains(&why.code.as_str())
}

fn print_totals(mutants: &[Mutant], results: &Results) {
    let mut files: BTreeMap<&str, [usize; 6]> = BTreeMap::new();
    let mut all = [0; 6];
    for mutant in mutants {
        let column = match results.of(mutant) {
            Some(outcome @ Outcome { verdict: Verdict::Caught, .. }) => {
                usize::from(outcome.is_of_simulator())
            }
            Some(Outcome { verdict: Verdict::Timeout, .. }) => 2,
            Some(Outcome { verdict: Verdict::Unviable, .. }) => 3,
            Some(Outcome { verdict: Verdict::Missed, .. }) => 4,
            None => 5,
        };
        files.entry(&mutant.file).or_default()[column] += 1;
        all[column] += 1;
    }
    println!(
        "| file | caught by a test | by the simulator | does not end | no program | missed | not run |"
    );
    println!("|---|---|---|---|---|---|---|");
    let named = files.iter().map(|(file, counts)| (*file, counts));
    for (file, c) in named.chain([("all", &all)]) {
        let file = file.trim_start_matches("crates/core/src/");
        println!("| {file} | {} | {} | {} | {} | {} | {} |", c[0], c[1], c[2], c[3], c[4], c[5]);
    }
    let caught = all[0] + all[1] + all[2];
    println!(
        "{} mutants: {} run, {caught} of {} that compile caught ({:.1} %), {} missed",
        mutants.len(),
        mutants.len() - all[5],
        caught + all[4],
        100.0 * caught as f64 / (caught + all[4]).max(1) as f64,
        all[4]
    );
}

/// What was missed without a reason, and what need not be explained any more.
fn print_unexplained(mutants: &[Mutant], results: &Results, explained: &Explained) {
    let missed: BTreeSet<String> = mutants
        .iter()
        .filter(|mutant| results.of(mutant).is_some_and(|o| o.verdict == Verdict::Missed))
        .map(explained::name_of)
        .collect();
    let (without, needless) = explained.compare(&missed);
    println!(
        "{} of those missed are explained, {} are not",
        missed.len() - without.len(),
        without.len()
    );
    for name in without {
        println!("not explained: {name}");
    }
    for name in needless {
        println!("explained, and not missed: {name}");
    }
}
