//! `chatty-simulations`: many seeds, one line when all is well.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chatty_core::config::Feeds;
use chatty_simulations::faults::{Counts, Fault};
use chatty_simulations::model::{self, SCOPES, Scope, Size};
use chatty_simulations::world::{Failure, World};
use chatty_simulations::{caught, losing, run, start};
use clap::{Parser, Subcommand};

/// chatty's core against a virtual network, disk and clock.
#[derive(Parser)]
#[command(name = "chatty-simulations", version)]
struct Cli {
    /// Run with this bug on (`scripts/bugs` tries them all).
    #[cfg(chatty_bugs)]
    #[arg(long)]
    bug: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run what chance seldom draws: each of a few schedules, made by hand, with many seeds.
    Directed {
        /// How many seeds.
        #[arg(long, default_value_t = 100)]
        seeds: u64,
    },
    /// Print what each setting of `feeds` costs in a calm mesh.
    Feeds {
        /// The seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Hold the broadcast's cost to its formulas; fails if it costs more.
    Gates,
    /// Run Maelstrom's broadcast workload against nodes that speak its protocol.
    Maelstrom(chatty_simulations::maelstrom::command::Command),
    /// Explore every order of events in small clusters.
    Model {
        /// Only this one (`list` names all).
        #[arg(long)]
        scope: Option<String>,
        /// The large scopes too.
        #[arg(long)]
        large: bool,
        /// Stop a scope after so many seconds.
        #[arg(long)]
        seconds: Option<u64>,
    },
    /// Measure what the broadcast costs with 3 to 1,000 servers, and what they hold in memory.
    Scale(chatty_simulations::scale::command::Command),
    /// Run seeds; the first that breaks a rule is named with the command that repeats it.
    Run {
        /// How many seeds.
        #[arg(long, default_value_t = 1000)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        first: u64,
        /// Fail unless every kind of fault happened so often.
        #[arg(long, default_value_t = 0)]
        each_fault: u64,
        /// Print every step (best with one seed).
        #[arg(long)]
        narrate: bool,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    #[cfg(chatty_bugs)]
    if let Some(name) = &cli.bug {
        use chatty_core::bugs::{Bug, choose};
        let Some((_, bug)) = Bug::ALL.iter().find(|(known, _)| known == name) else {
            eprintln!("there is no bug {name:?}; there are:");
            Bug::ALL.iter().for_each(|(known, _)| eprintln!("  {known}"));
            return ExitCode::from(2);
        };
        choose(*bug);
    }
    match cli.command {
        Command::Directed { seeds } => directed(seeds),
        Command::Feeds { seed } => feeds(seed),
        Command::Gates => chatty_simulations::scale::command::gates(),
        Command::Scale(command) => command.run(),
        Command::Maelstrom(command) => command.run(),
        Command::Model { scope, large, seconds } => explore(scope.as_deref(), large, seconds),
        Command::Run { first, narrate: true, .. } => narrate(first),
        Command::Run { seeds, first, each_fault, narrate: false } => {
            sweep(first, seeds, each_fault)
        }
    }
}

fn directed(seeds: u64) -> ExitCode {
    std::panic::set_hook(Box::new(|_| {})); // a failed seed prints its own line
    for seed in 1..=seeds {
        let lived = [
            ("a winner is lost", caught(|| losing::the_only_winner_is_lost(seed).map(drop))),
            ("a holder dies", caught(|| start::the_only_holder_dies(seed).map(drop))),
        ];
        for (name, result) in lived {
            if let Err(Failure { what, at }) = result {
                eprintln!("seed {seed} FAILED, {name}, at {at:?}: {what}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{seeds} seeds of each passed");
    ExitCode::SUCCESS
}

fn feeds(seed: u64) -> ExitCode {
    println!("| servers | feeds | copies at first | copies settled | `Have` frames | repaired |");
    println!("|---|---|---|---|---|---|");
    for (servers, setting) in chatty_simulations::feeds::settings() {
        match chatty_simulations::feeds::cost(servers, setting, seed) {
            Ok(cost) => println!(
                "| {servers} | {} | {:.2} | {:.2} | {:.1} | {} |",
                match setting {
                    Feeds::All => "all".to_string(),
                    Feeds::Some(n) => n.to_string(),
                },
                cost.first,
                cost.settled,
                cost.haves,
                cost.repairs
            ),
            Err(failure) => {
                eprintln!("failed at {:?}: {}", failure.at, failure.what);
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn explore(scope: Option<&str>, large: bool, seconds: Option<u64>) -> ExitCode {
    std::panic::set_hook(Box::new(|_| {})); // a panic of the core is a broken rule, told below
    let wanted: Vec<&(Size, Scope)> = SCOPES
        .iter()
        .filter(|(size, this)| match scope {
            Some(name) => this.name == name,
            None => large || *size == Size::Small,
        })
        .collect();
    if wanted.is_empty() {
        for (size, scope) in SCOPES {
            println!("{:<12} {size:?}: {}", scope.name, scope.what);
        }
        return ExitCode::from(2);
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut code = ExitCode::SUCCESS;
    println!("| scope | states | steps | longest way | seconds | |");
    println!("|---|---|---|---|---|---|");
    for (size, scope) in wanted {
        let report = model::check(*size, scope, threads, seconds.map(Duration::from_secs));
        println!(
            "| {} | {} | {} | {} | {:.1} | {} |",
            scope.name,
            report.states,
            report.steps,
            report.depth,
            report.took.as_secs_f64(),
            match (&report.broken, report.whole) {
                (Some(_), _) => "BROKEN",
                (None, true) => "all states",
                (None, false) => "time is over",
            }
        );
        if let Some(broken) = report.broken {
            eprintln!("{}: {broken}", scope.name);
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn narrate(first: u64) -> ExitCode {
    let mut world = World::new(first);
    world.narrate();
    match world.run() {
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("seed {first} failed at {:?}: {}", failure.at, failure.what);
            ExitCode::FAILURE
        }
    }
}

/// What all seeds did together.
#[derive(Default)]
struct Total {
    seeds: u64,
    failed: Vec<u64>,
    steps: u64,
    messages: u64,
    faults: Counts,
    settled_ms: Vec<u128>,
}

#[expect(clippy::disallowed_methods, reason = "measures the sweep itself, outside every world")]
fn sweep(first: u64, seeds: u64, each_fault: u64) -> ExitCode {
    std::panic::set_hook(Box::new(|_| {})); // a failed seed prints its own line
    let began = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let (send, results) = std::sync::mpsc::channel();
    let mut total = Total::default();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let send = send.clone();
            scope.spawn(move || {
                let mut nth = thread;
                while nth < seeds {
                    let seed = first.wrapping_add(nth);
                    if send.send((seed, run(seed))).is_err() {
                        return;
                    }
                    nth += threads;
                }
            });
        }
        drop(send);
        let bar = std::io::stderr().is_terminal();
        for (seed, result) in results {
            total.seeds += 1;
            match result {
                Ok(report) => {
                    total.steps += report.steps;
                    total.messages += report.messages;
                    total.settled_ms.push(report.settled.as_millis());
                    for (fault, count) in report.faults {
                        *total.faults.entry(fault).or_insert(0) += count;
                    }
                }
                Err(failure) => {
                    if bar {
                        eprint!("\r\x1b[K");
                    }
                    eprintln!(
                        "seed {seed} FAILED after {:.6} s of its world: {}\n  repeat it: cargo run \
                         --release -p chatty-simulations -- run --seeds 1 --first {seed}",
                        failure.at.as_micros() as f64 / 1e6,
                        failure.what
                    );
                    eprintln!("  {}", World::new(seed).swarm());
                    total.failed.push(seed);
                }
            }
            if bar && total.seeds.is_multiple_of(10) {
                eprint!("\r{}", progress(total.seeds, seeds));
                let _ = std::io::stderr().flush();
            }
        }
        if bar {
            eprint!("\r\x1b[K");
        }
    });
    summary(&mut total, began.elapsed().as_secs_f64(), each_fault)
}

fn progress(done: u64, all: u64) -> String {
    let filled = (done * 40 / all.max(1)) as usize;
    format!("[{}{}] {done}/{all}", "#".repeat(filled), ".".repeat(40 - filled.min(40)))
}

fn summary(total: &mut Total, seconds: f64, each_fault: u64) -> ExitCode {
    let counts: BTreeMap<Fault, u64> =
        Fault::ALL.iter().map(|f| (*f, total.faults.get(f).copied().unwrap_or(0))).collect();
    let faults: Vec<String> = counts.iter().map(|(f, n)| format!("{f:?} {n}")).collect();
    total.settled_ms.sort_unstable();
    let quantile = |q: usize| {
        let at = (total.settled_ms.len().saturating_sub(1)) * q / 100;
        total.settled_ms.get(at).copied().unwrap_or(0)
    };
    println!("faults: {}", faults.join(", "));
    println!(
        "{} messages, {} steps ({:.0} a second), {:.0} seeds a minute; healed worlds agreed after \
         {} ms (median), {} ms (most)",
        total.messages,
        total.steps,
        total.steps as f64 / seconds,
        total.seeds as f64 * 60.0 / seconds,
        quantile(50),
        quantile(100)
    );
    println!(
        "{} seeds passed, {} failed",
        total.seeds - total.failed.len() as u64,
        total.failed.len()
    );
    let rare: Vec<&Fault> =
        counts.iter().filter(|(_, n)| **n < each_fault).map(|(fault, _)| fault).collect();
    if !rare.is_empty() {
        println!("too rare (under {each_fault}): {rare:?}");
    }
    if total.failed.is_empty() && rare.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
