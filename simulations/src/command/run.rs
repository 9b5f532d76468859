//! `run`: many seeds, one line when all is well; a seed that is not is made short, written down and
//! drawn.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;

use super::{draw, words, write};
use crate::faults::{Counts, Fault};
use crate::history::Rule;
use crate::schedule::Schedule;
use crate::schedule::shrink::shrink;
use crate::schedule::text::Written;
use crate::world::{Failure, Report, World};

/// Of the seeds that fail, so many are made short and written down.
const WRITTEN_MAX: usize = 3;

/// So many seeds give every rule of the history something to judge.
const JUDGES_ALL_SEEDS: u64 = 500;

/// Run seeds; each that breaks a rule is named with the command that repeats it, and the first ones
/// are made short, written down and drawn.
#[derive(Args)]
pub struct Command {
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Fail unless every kind of fault happened so often.
    #[arg(long, default_value_t = 0)]
    each_fault: u64,
    /// Threads; by default one for each core.
    #[arg(long)]
    threads: Option<NonZeroU64>,
    /// Runs spent to make the schedule of a failing seed short; 0: none, and nothing is written.
    #[arg(long, default_value_t = 600)]
    shrink: usize,
    /// Where schedules and pages of failing seeds are written.
    #[arg(long, default_value = "target/simulations")]
    out: PathBuf,
    /// Print every step of the first seed.
    #[arg(long)]
    narrate: bool,
}

/// What all seeds did together.
#[derive(Default)]
struct Total {
    seeds: u64,
    failed: Vec<u64>,
    steps: u64,
    messages: u64,
    operations: u64,
    faults: Counts,
    idle: Counts,
    missed: Counts,
    judged: BTreeMap<Rule, u64>,
    settled_ms: Vec<u128>,
}

impl Command {
    /// Does it.
    pub fn run(&self) -> ExitCode {
        std::panic::set_hook(Box::new(|_| {})); // a failed seed prints its own line
        if self.narrate { self.narrate() } else { self.sweep() }
    }

    fn narrate(&self) -> ExitCode {
        let mut world = World::new(self.first);
        world.narrate();
        match crate::live(&mut world) {
            Ok(_) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("seed {} failed {}", self.first, words(&failure));
                ExitCode::FAILURE
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "measures the sweep itself, outside every world")]
    fn sweep(&self) -> ExitCode {
        let began = Instant::now();
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let threads = self.threads.map_or(cores, NonZeroU64::get);
        let (send, results) = std::sync::mpsc::channel();
        let mut total = Total::default();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let send = send.clone();
                scope.spawn(move || {
                    let mut nth = thread;
                    while nth < self.seeds {
                        let seed = self.first.wrapping_add(nth);
                        if send.send((seed, crate::run(seed))).is_err() {
                            return;
                        }
                        nth += threads;
                    }
                });
            }
            drop(send);
            let bar = std::io::stderr().is_terminal();
            for (seed, result) in results {
                total.take(seed, result, bar);
                if bar && total.seeds.is_multiple_of(10) {
                    eprint!("\r{}", progress(total.seeds, self.seeds));
                    let _ = std::io::stderr().flush();
                }
            }
            if bar {
                eprint!("\r\x1b[K");
            }
        });
        total.settled_ms.sort_unstable();
        total.failed.sort_unstable();
        let seconds = began.elapsed().as_secs_f64();
        self.write_failed(&total);
        self.summary(&total, seconds)
    }

    fn write_failed(&self, total: &Total) {
        if self.shrink == 0 {
            return;
        }
        for seed in total.failed.iter().take(WRITTEN_MAX) {
            eprintln!("making seed {seed} short…");
            match self.write_seed(*seed) {
                Ok(what) => eprintln!("{what}"),
                Err(error) => eprintln!("seed {seed} is not written down: {error}"),
            }
        }
    }

    /// Makes the schedule of a failing seed short, writes it down and draws it.
    fn write_seed(&self, seed: u64) -> Result<String, String> {
        let mut world = World::new(seed);
        let Err(first) = crate::live(&mut world) else { return Err("it does not fail".into()) };
        // What happened, without chance in it; if that fails otherwise, what was drawn.
        let lived = shrink(&world.lived(), self.shrink)
            .filter(|shrunk| shrunk.failure.kind() == first.kind());
        let shrunk = match lived {
            Some(shrunk) => shrunk,
            None => shrink(&Schedule::draw(seed), self.shrink).ok_or("it does not fail twice")?,
        };
        let (strikes, entries) = (shrunk.schedule.strikes(), shrunk.schedule.entries.len());
        let why = format!("seed {seed}: {}", shrunk.failure.what);
        let fails = Some(shrunk.failure.kind());
        let written = Written { schedule: shrunk.schedule, why, fails };
        let file = self.out.join(format!("seed-{seed}.toml"));
        let page = self.out.join(format!("seed-{seed}.html"));
        write(&file, &written.write())?;
        let title = format!("Seed {seed}, made short");
        write(&page, &draw(&title, &mut World::of(&written.schedule)).0)?;
        Ok(format!(
            "  {} faults and {} things done are left after {} runs; it fails {}\n  replay it: \
             chatty-simulations replay {}\n  look at it: {}",
            strikes,
            entries - strikes,
            shrunk.runs,
            words(&shrunk.failure),
            file.display(),
            page.display()
        ))
    }

    fn summary(&self, total: &Total, seconds: f64) -> ExitCode {
        let counts: BTreeMap<Fault, u64> =
            Fault::ALL.iter().map(|f| (*f, total.faults.get(f).copied().unwrap_or(0))).collect();
        println!("{} kinds of fault: {}", counts.len(), list(&counts));
        let [happened, idle, missed] =
            [&total.faults, &total.idle, &total.missed].map(|counts| counts.values().sum::<u64>());
        println!(
            "{} faults were drawn, {happened} happened, {idle} began and changed nothing before \
             they ended{}, {missed} found nobody to strike before the end{}",
            happened + idle + missed,
            listed(&total.idle),
            listed(&total.missed)
        );
        let quantile = |q: usize| {
            let at = (total.settled_ms.len().saturating_sub(1)) * q / 100;
            total.settled_ms.get(at).copied().unwrap_or(0)
        };
        println!(
            "{} messages, {} operations of clients checked, {} events simulated ({:.0} a second), \
             {:.0} seeds a minute; healed worlds agreed after {} ms (median), {} ms (most)",
            total.messages,
            total.operations,
            total.steps,
            total.steps as f64 / seconds,
            total.seeds as f64 * 60.0 / seconds,
            quantile(50),
            quantile(100)
        );
        let judged: Vec<String> =
            total.judged.iter().map(|(rule, count)| format!("{rule} {count}")).collect();
        println!("cases in which a rule had something to judge: {}", judged.join(", "));
        let failed = total.failed.len() as u64;
        println!("{} seeds passed, {failed} failed", total.seeds - failed);
        let rare: Vec<&str> =
            counts.iter().filter(|(_, n)| **n < self.each_fault).map(|(f, _)| f.name()).collect();
        if !rare.is_empty() {
            println!("too rare (under {}): {}", self.each_fault, rare.join(", "));
        }
        let idle = total.idle_rules();
        if !idle.is_empty() && total.seeds >= JUDGES_ALL_SEEDS {
            println!("rules that had nothing to judge: {}", idle.join(", "));
            return ExitCode::FAILURE;
        }
        if failed == 0 && rare.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

impl Total {
    /// Rules of the history that never had anything to judge: they have proven nothing. Messages to
    /// one person and what is set are not in these histories: the world itself looks at them.
    fn idle_rules(&self) -> Vec<String> {
        let elsewhere = [Rule::Overheard, Rule::Shared];
        let idle = Rule::ALL
            .iter()
            .filter(|rule| !elsewhere.contains(rule) && !self.judged.contains_key(rule));
        idle.map(ToString::to_string).collect()
    }

    fn take(&mut self, seed: u64, result: Result<Report, Failure>, bar: bool) {
        self.seeds += 1;
        match result {
            Ok(report) => {
                self.steps += report.steps;
                self.messages += report.messages;
                self.operations += report.operations;
                self.settled_ms.push(report.settled.as_millis());
                for (all, counts) in [
                    (&mut self.faults, report.faults),
                    (&mut self.idle, report.idle),
                    (&mut self.missed, report.missed),
                ] {
                    for (fault, count) in counts {
                        *all.entry(fault).or_insert(0) += count;
                    }
                }
                for (rule, count) in report.judged {
                    *self.judged.entry(rule).or_insert(0) += count;
                }
            }
            Err(failure) => {
                if bar {
                    eprint!("\r\x1b[K");
                }
                eprintln!(
                    "seed {seed} FAILED {}\n  repeat it: cargo run --release -p \
                     chatty-simulations -- run --seeds 1 --first {seed}\n  {}",
                    words(&failure),
                    World::new(seed).swarm()
                );
                self.failed.push(seed);
            }
        }
    }
}

/// The list in brackets, if there is anything in it.
fn listed(counts: &Counts) -> String {
    if counts.is_empty() { String::new() } else { format!(" ({})", list(counts)) }
}

fn list(counts: &Counts) -> String {
    let words: Vec<String> =
        counts.iter().map(|(fault, count)| format!("{} {count}", fault.name())).collect();
    words.join(", ")
}

fn progress(done: u64, all: u64) -> String {
    let filled = (done * 40 / all.max(1)) as usize;
    format!("[{}{}] {done}/{all}", "#".repeat(filled), ".".repeat(40 - filled.min(40)))
}
