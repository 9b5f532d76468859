//! `chatty-simulations`: many seeds, one line when all is well.

use std::process::ExitCode;
use std::time::Duration;

use chatty_core::config::Feeds;
use chatty_simulations::model::{self, SCOPES, Scope, Size};
use chatty_simulations::world::Failure;
use chatty_simulations::{caught, losing, start};
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
        /// Without the reductions: what they leave out is explored too.
        #[arg(long)]
        full: bool,
        /// Both ways, and whether they lead to the same.
        #[arg(long)]
        compare: bool,
        /// Stop a scope after so many seconds.
        #[arg(long)]
        seconds: Option<u64>,
    },
    Page(chatty_simulations::command::PageCommand),
    Replay(chatty_simulations::command::ReplayCommand),
    Run(chatty_simulations::command::RunCommand),
    /// Measure what the broadcast costs with 3 to 1,000 servers, and what they hold in memory.
    Scale(chatty_simulations::scale::command::Command),
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
        Command::Model { scope, large, seconds, full, compare } => {
            std::panic::set_hook(Box::new(|_| {})); // a panic of the core is a broken rule, told below
            let wanted = wanted(scope.as_deref(), large);
            match compare {
                true => both_ways(&wanted),
                false => explore(&wanted, seconds, full),
            }
        }
        Command::Page(command) => command.run(),
        Command::Replay(command) => command.run(),
        Command::Run(command) => command.run(),
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

fn wanted(scope: Option<&str>, large: bool) -> Vec<&'static (Size, Scope)> {
    let wanted = SCOPES.iter().filter(|(size, this)| match scope {
        Some(name) => this.name == name,
        None => large || *size == Size::Small,
    });
    wanted.collect()
}

/// Explores scopes with and without the reductions.
fn both_ways(wanted: &[&(Size, Scope)]) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    println!("| scope | states | reduced | disks | ends | |");
    println!("|---|---|---|---|---|---|");
    for (_, scope) in wanted {
        let full = model::reach(&Scope { reduced: false, ..scope.clone() });
        let reduced = model::reach(scope);
        let same = reduced.is_same(&full);
        let (states, fewer) = (full.states, reduced.states);
        let (disks, ends) = (reduced.disks.len(), reduced.ends.len());
        let verdict = match (same, &reduced.broken) {
            (true, None) => "the same",
            (true, Some(_)) => "BROKEN",
            (false, _) => "DIFFER",
        };
        println!("| {} | {states} | {fewer} | {disks} | {ends} | {verdict} |", scope.name);
        if !same || full.broken.is_some() {
            eprintln!("{} disks and {} ends in all", full.disks.len(), full.ends.len());
            eprintln!("{:?}, reduced {:?}", full.broken, reduced.broken);
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn explore(wanted: &[&(Size, Scope)], seconds: Option<u64>, full: bool) -> ExitCode {
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
        let scope = &Scope { reduced: !full, ..scope.clone() };
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
