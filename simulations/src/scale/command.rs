//! `chatty-simulations scale` and `gates`: from the command line.

use std::num::NonZeroU8;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chatty_core::config::{Feeds, Start};
use clap::Args;

use super::gates::GATES;
use super::graph::MESH_MAX;
use super::page::{self, Growth, Page};
use super::{Setting, measure};

/// What the command line says.
#[derive(Args, Clone, Debug)]
pub struct Command {
    /// How many servers: each of these.
    #[arg(long, value_delimiter = ',', default_values_t = [3, 5, 25, 50, 200, 1000],
          value_parser = clap::value_parser!(u16).range(2..=1000))]
    servers: Vec<u16>,
    /// How many links push each log to a server: each of these; 0 is all.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 2, 1])]
    feeds: Vec<u8>,
    /// Leave out what is measured while servers die.
    #[arg(long)]
    calm: bool,
    /// Events that pass while memory is measured; 0 leaves it out.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Servers whose memory is measured: each of these.
    #[arg(long, value_delimiter = ',', default_values_t = [3, 50],
          value_parser = clap::value_parser!(u16).range(2..=64))]
    memory: Vec<u16>,
    /// The seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write `scale.md` and its drawings into this folder.
    #[arg(long)]
    write: Option<PathBuf>,
}

impl Command {
    /// Measures, prints a line for each as it comes, and writes the page if it is asked to.
    #[expect(clippy::disallowed_methods, reason = "measures the run itself, outside every world")]
    pub fn run(&self) -> ExitCode {
        let began = Instant::now();
        let mut page = Page::default();
        println!("{}", page::HEAD);
        for setting in self.settings() {
            let from = Instant::now();
            match measure(&setting) {
                Ok(cost) => {
                    println!("{}", page::row(&cost));
                    eprintln!("  {:.1} s, {} steps", from.elapsed().as_secs_f64(), cost.steps);
                    page.costs.push(cost);
                }
                Err(why) => {
                    eprintln!("{setting:?}: {why}");
                    return ExitCode::FAILURE;
                }
            }
        }
        for setting in self.busy() {
            match measure(&setting) {
                Ok(cost) => {
                    println!("{}", page::row(&cost));
                    page.busy.push(cost);
                }
                Err(why) => {
                    eprintln!("{setting:?}: {why}");
                    return ExitCode::FAILURE;
                }
            }
        }
        for servers in self.memory.iter().filter(|_| self.events > 0) {
            let from = Instant::now();
            match Growth::measure(usize::from(*servers), self.events) {
                Ok(growth) => {
                    println!("{}", growth.line());
                    eprintln!("  {:.1} s", from.elapsed().as_secs_f64());
                    page.growths.push(growth);
                }
                Err(why) => {
                    eprintln!("{servers} servers: {why}");
                    return ExitCode::FAILURE;
                }
            }
        }
        let Some(folder) = &self.write else { return ExitCode::SUCCESS };
        match page.write(folder) {
            Ok(()) => {
                eprintln!(
                    "{} is written, in {:.0} s",
                    folder.display(),
                    began.elapsed().as_secs_f64()
                );
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("{}: {error}", folder.display());
                ExitCode::FAILURE
            }
        }
    }

    /// A middle-sized mesh that says more and more.
    fn busy(&self) -> Vec<Setting> {
        let servers = self.servers.iter().copied().map(usize::from).find(|n| (20..=30).contains(n));
        let at = |millis: u64, servers: usize| Setting {
            gap: Duration::from_millis(millis),
            ..Setting::calm(servers, Feeds::DEFAULT, Start::Pruned, self.seed)
        };
        let rates = |servers| [1000, 100, 20].map(|millis| at(millis, servers));
        servers.map(rates).into_iter().flatten().collect()
    }

    fn settings(&self) -> Vec<Setting> {
        let mut settings = Vec::new();
        for servers in self.servers.iter().copied().map(usize::from) {
            for feeds in
                self.feeds.iter().map(|n| NonZeroU8::new(*n).map_or(Feeds::All, Feeds::Some))
            {
                // Where everybody is linked to everybody it makes a difference how they begin.
                let known = servers <= MESH_MAX && feeds != Feeds::All;
                let starts: &[Start] =
                    if known { &[Start::Flooded, Start::Pruned] } else { &[Start::Flooded] };
                for start in starts {
                    settings.push(Setting::calm(servers, feeds, *start, self.seed));
                    if !self.calm {
                        settings.push(Setting::churned(servers, feeds, *start, self.seed));
                    }
                }
            }
        }
        settings
    }
}

/// Runs every gate and prints what it found. Fails if one is broken.
pub fn gates() -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    println!("| gate | rule | found | |");
    println!("|---|---|---|---|");
    for gate in GATES {
        let (found, verdict) = match (gate.check)() {
            Ok(found) => (found, "kept"),
            Err(found) => {
                code = ExitCode::FAILURE;
                (found, "BROKEN")
            }
        };
        println!("| {} | {} | {found} | {verdict} |", gate.name, gate.rule);
    }
    code
}
