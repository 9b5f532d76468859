//! `chatty-simulations scale` and `gates`: from the command line.

use std::num::NonZeroU8;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chatty_core::config::{Feeds, Start};
use clap::Args;

use super::gates::GATES;
use super::graph::MESH_MAX;
use super::kept::{self, Fingerprints, Kept};
use super::page::{self, Growth, Page};
use super::{Setting, measure};

/// Sizes, by default.
const SIZES: [u16; 6] = [3, 5, 25, 50, 200, 1000];
/// Feeds, by default; 0 is all.
const FEEDS: [u8; 3] = [0, 2, 1];
/// Events that pass while memory is measured, by default, and with how many servers.
const EVENTS: u64 = 1_000_000;
const MEMORY: [u16; 2] = [3, 50];
/// Sizes at which more and more is said, by default.
const BUSY: [u16; 3] = [25, 50, 200];

/// What the command line says.
#[derive(Args, Clone, Debug)]
pub struct Command {
    /// How many servers: each of these.
    #[arg(long, value_delimiter = ',', default_values_t = SIZES,
          value_parser = clap::value_parser!(u16).range(2..=1000))]
    servers: Vec<u16>,
    /// How many links push each log to a server: each of these; 0 is all.
    #[arg(long, value_delimiter = ',', default_values_t = FEEDS)]
    feeds: Vec<u8>,
    /// Leave out what is measured while servers die.
    #[arg(long)]
    calm: bool,
    /// Servers that say more and more: those of these that are measured at all.
    #[arg(long, value_delimiter = ',', default_values_t = BUSY)]
    busy: Vec<u16>,
    /// Events that pass while memory is measured; 0 leaves it out.
    #[arg(long, default_value_t = EVENTS)]
    events: u64,
    /// Servers whose memory is measured: each of these.
    #[arg(long, value_delimiter = ',', default_values_t = MEMORY,
          value_parser = clap::value_parser!(u16).range(2..=64))]
    memory: Vec<u16>,
    /// The seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep every result in this folder (`scale.jsonl`) as it comes, measure nothing again that is
    /// kept there and came of the same code, and write `scale.md` and its drawings of all that is kept.
    #[arg(long)]
    write: Option<PathBuf>,
    /// Forget what is kept.
    #[arg(long, requires = "write")]
    again: bool,
}

impl Command {
    /// Without any option.
    pub fn whole() -> Self {
        Self {
            servers: SIZES.into(),
            feeds: FEEDS.into(),
            calm: false,
            busy: BUSY.into(),
            events: EVENTS,
            memory: MEMORY.into(),
            seed: 1,
            write: None,
            again: false,
        }
    }

    /// Measures what is not kept, prints a line for each as it comes, and writes the page if it is
    /// asked to.
    pub fn run(&self) -> ExitCode {
        match self.measure() {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("{why}");
                ExitCode::FAILURE
            }
        }
    }

    fn measure(&self) -> Result<(), String> {
        let mut kept = self.begin()?;
        println!("{}", page::HEAD);
        for setting in self.settings() {
            let cost = match kept.cost(&setting) {
                Some(cost) => cost.clone(),
                None => {
                    let cost =
                        timed(|| measure(&setting)).map_err(|why| format!("{setting:?}: {why}"))?;
                    kept.add_cost(cost.clone());
                    self.keep(&kept)?;
                    cost
                }
            };
            println!("{}", page::row(&cost));
        }
        for (servers, events) in self.growths() {
            let growth = match kept.growth(servers, events) {
                Some(growth) => growth.clone(),
                None => {
                    let growth = timed(|| Growth::measure(servers, events))
                        .map_err(|why| format!("{servers} servers: {why}"))?;
                    kept.add_growth(growth.clone());
                    self.keep(&kept)?;
                    growth
                }
            };
            println!("{}", growth.line());
        }
        let Some(folder) = &self.write else { return Ok(()) };
        let page = Page::new(&kept);
        page.write(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        eprintln!("{} is written", folder.join("scale.md").display());
        Ok(())
    }

    /// What is kept of the same code.
    fn begin(&self) -> Result<Kept, String> {
        let Some(folder) = &self.write else { return Ok(Kept::default()) };
        let fingerprints = Fingerprints::measure()?;
        let file = folder.join(kept::FILE);
        if self.again || !file.exists() {
            return Ok(Kept::default().of(fingerprints));
        }
        let kept = Kept::read(folder).map_err(|error| format!("{}: {error}", file.display()))?;
        let before = (kept.costs().len(), kept.growths().len());
        let kept = kept.of(fingerprints);
        if before != (kept.costs().len(), kept.growths().len()) {
            eprintln!("{} is of other code: it is measured again", file.display());
        }
        Ok(kept)
    }

    fn keep(&self, kept: &Kept) -> Result<(), String> {
        let Some(folder) = &self.write else { return Ok(()) };
        kept.write(folder).map_err(|error| format!("{}: {error}", folder.display()))
    }

    /// Servers whose memory is to be measured, and after how many events.
    pub fn growths(&self) -> impl Iterator<Item = (usize, u64)> {
        let servers = self.memory.iter().filter(|_| self.events > 0);
        servers.map(|servers| (usize::from(*servers), self.events))
    }

    /// What is to be measured.
    pub fn settings(&self) -> Vec<Setting> {
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
                    settings.push(self.calm(servers, feeds, *start));
                    if !self.calm {
                        settings.push(Setting::churned(servers, feeds, *start, self.seed));
                    }
                }
            }
        }
        let busy = self.servers.iter().filter(|servers| self.busy.contains(servers));
        settings.extend(busy.flat_map(|servers| self.rates(usize::from(*servers))));
        settings
    }

    /// Without faults, for some hundred events; one costs 15,000 steps with 1,000 servers.
    fn calm(&self, servers: usize, feeds: Feeds, start: Start) -> Setting {
        let length = Duration::from_secs(if servers <= MESH_MAX { 30 } else { 10 });
        Setting { length, ..Setting::calm(servers, feeds, start, self.seed) }
    }

    /// Servers that begin as servers do and say 10 and 50 times as much.
    fn rates(&self, servers: usize) -> [Setting; 2] {
        let start = if servers <= MESH_MAX { Start::Pruned } else { Start::Flooded };
        let calm = Setting::calm(servers, Feeds::DEFAULT, start, self.seed);
        [100, 20].map(|millis| {
            let (gap, length) = (Duration::from_millis(millis), Duration::from_secs(5));
            Setting { gap, length, ..calm.clone() }
        })
    }
}

/// Says how long it took.
#[expect(clippy::disallowed_methods, reason = "measures the run itself, outside every world")]
fn timed<T>(what: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = what();
    eprintln!("  {:.1} s", began.elapsed().as_secs_f64());
    done
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
