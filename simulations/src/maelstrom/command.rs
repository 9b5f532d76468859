//! `chatty-simulations maelstrom`: one run of the workload from the command line.

use std::num::NonZeroU8;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::drive::{self, Scenario};
use super::network::{Cut, Latency};
use super::node::{NODES_MAX, Options};
use super::processes;

/// What the command line says. The defaults are the published challenge.
#[derive(Args, Clone, Debug)]
pub struct Command {
    /// How many nodes.
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u64).range(1..=NODES_MAX as u64))]
    nodes: u64,
    /// Operations a second, half of them reads.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// How long a message between nodes takes on average, in milliseconds.
    #[arg(long, default_value_t = 100)]
    latency: u64,
    /// How that is distributed.
    #[arg(long, value_enum, default_value_t = Distribution::Constant)]
    latency_dist: Distribution,
    /// Of a million messages between nodes so many are lost.
    #[arg(long, default_value_t = 0)]
    loss_ppm: u64,
    /// Seconds of operations; 10 seconds of nothing and the final reads follow.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Cut the network: each time in one of these ways.
    #[arg(long, value_enum, value_delimiter = ',')]
    cut: Vec<Kind>,
    /// Seconds between a cut's begin and its end, and to the next one, on average.
    #[arg(long, default_value_t = 10)]
    interval: u64,
    /// How many nodes push each other node's values to a node.
    #[arg(long, default_value = "1")]
    feeds: NonZeroU8,
    /// What nodes take to be the usual time of a message, in milliseconds.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    hop_ms: u64,
    /// The seed of what is drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run processes of this program in real time, instead of nodes of this process in virtual time.
    #[arg(long)]
    bin: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Distribution {
    Constant,
    Uniform,
    Exponential,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    One,
    MinorityThird,
    Majority,
    MajoritiesRing,
    /// One of the others each time.
    Any,
}

impl Kind {
    fn cuts(self) -> Vec<Cut> {
        match self {
            Self::One => vec![Cut::One],
            Self::MinorityThird => vec![Cut::MinorityThird],
            Self::Majority => vec![Cut::Majority],
            Self::MajoritiesRing => vec![Cut::MajoritiesRing],
            Self::Any => Cut::ALL.to_vec(),
        }
    }
}

impl Command {
    fn scenario(&self) -> Scenario {
        let mean = Duration::from_millis(self.latency);
        Scenario {
            nodes: usize::try_from(self.nodes).unwrap_or(NODES_MAX),
            rate: self.rate,
            length: Duration::from_secs(self.seconds),
            latency: match self.latency_dist {
                Distribution::Constant => Latency::Constant(mean),
                Distribution::Uniform => Latency::Uniform(mean),
                Distribution::Exponential => Latency::Exponential(mean),
            },
            loss_ppm: self.loss_ppm,
            cuts: self.cut.iter().flat_map(|kind| kind.cuts()).collect(),
            interval: Duration::from_secs(self.interval),
            options: Options { feeds: self.feeds, hop: Duration::from_millis(self.hop_ms) },
            seed: self.seed,
        }
    }

    /// Runs it and prints what came of it. Fails if a value was lost or an answer was none.
    pub fn run(&self) -> ExitCode {
        let scenario = self.scenario();
        let report = match &self.bin {
            None => drive::run(&scenario),
            Some(program) => match processes::run(&scenario, program) {
                Ok(report) => report,
                Err(error) => {
                    eprintln!("{}: {error}", program.display());
                    return ExitCode::FAILURE;
                }
            },
        };
        println!("{report}");
        if report.is_right() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
