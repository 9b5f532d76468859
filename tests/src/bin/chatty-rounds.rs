//! `chatty-rounds`: rounds of a fault on real servers, each held against the promises.
//! `scripts/rounds` builds and runs it; `docs/verification.md` says what it checks.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chatty_tests::repository;
use chatty_tests::rounds::{self, Fault, Options, Verdict};
use clap::{Parser, Subcommand};

/// Set for the process that is inside namespaces of its own.
const INSIDE: &str = "CHATTY_ROUNDS_INSIDE";

/// Lets servers of this machine live through a fault again and again while clients on each of them
/// talk, and checks everything that any client was told against what chatty promises.
///
/// Exit code: 0 every promise was kept, 1 one was broken (or the run could not be made), 2 called
/// wrongly. What it takes to look into a broken promise stays in the folder; else nothing stays.
#[derive(Debug, Parser)]
#[command(name = "scripts/rounds")]
struct Arguments {
    #[command(subcommand)]
    mode: Mode,
    /// Draws moments and victims; printed at the beginning. Default: the time.
    #[arg(long, global = true)]
    seed: Option<u64>,
    /// For the cluster and what is kept; must not exist. Default: target/rounds/MODE-SEED.
    #[arg(long, global = true)]
    folder: Option<PathBuf>,
    /// UDP port of the first of three servers on 127.0.0.1. Default: free ones are looked for.
    #[arg(long, global = true)]
    port: Option<u16>,
    /// Messages a second, of all clients together.
    #[arg(long, global = true, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=2000))]
    rate: u32,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Mode {
    /// One of three servers is killed (SIGKILL) at a random moment and started again.
    Kill {
        /// How many rounds, of some 7 seconds.
        #[arg(long, default_value_t = 100)]
        rounds: u32,
    },
    /// All three servers are killed at the same moment and started again.
    All {
        /// How many rounds, of some 7 seconds.
        #[arg(long, default_value_t = 20)]
        rounds: u32,
    },
    /// One server's data is deleted, then another's, then the third's, each after the one before
    /// has caught up.
    Wipe {
        /// How many rounds, of some 10 seconds.
        #[arg(long, default_value_t = 20)]
        rounds: u32,
    },
    /// Two servers and one are cut off from each other, with clients on both sides. Needs root: it
    /// makes network namespaces, which end with it.
    Partition {
        /// How long.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
}

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Self::Kill { .. } => "kill",
            Self::All { .. } => "all",
            Self::Wipe { .. } => "wipe",
            Self::Partition { .. } => "partition",
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(Verdict::Kept) => ExitCode::SUCCESS,
        Ok(Verdict::Broken) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("chatty-rounds: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<Verdict, String> {
    let mode = arguments.mode;
    if matches!(mode, Mode::Partition { .. }) && std::env::var_os(INSIDE).is_none() {
        return Err(go_inside());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = arguments.seed.unwrap_or(now.as_secs());
    let folder = arguments.folder.clone().unwrap_or_else(|| {
        repository().join("target/rounds").join(format!("{}-{seed}", mode.name()))
    });
    if folder.exists() {
        return Err(format!("{} exists: remove it, or name another --folder", folder.display()));
    }
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let folder = folder.canonicalize().map_err(|error| error.to_string())?;
    eprintln!("{}, seed {seed}, {} messages a second", mode.name(), arguments.rate);
    let (port, rate) = (arguments.port, arguments.rate);
    let options = Options { seed, folder: folder.clone(), port, rate };
    let verdict = match mode {
        Mode::Kill { rounds } => rounds::strikes(Fault::Kill, rounds, &options),
        Mode::All { rounds } => rounds::strikes(Fault::All, rounds, &options),
        Mode::Wipe { rounds } => rounds::strikes(Fault::Wipe, rounds, &options),
        Mode::Partition { seconds } => rounds::partition(Duration::from_secs(seconds), &options),
    };
    match &verdict {
        Ok(Verdict::Kept) => {
            println!("every promise was kept (seed {seed})");
            std::fs::remove_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        Ok(Verdict::Broken) => {
            println!("A PROMISE WAS BROKEN (seed {seed}): see {}", folder.display());
        }
        Err(_) => eprintln!("what there is of the run: {}", folder.display()),
    }
    verdict
}

/// Runs this program again with a network, mounts and processes of its own, which all end with it.
/// Returns only if that cannot be done.
fn go_inside() -> String {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return error.to_string(),
    };
    let error = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["--propagation", "private"])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "yes")
        .exec();
    format!("unshare (util-linux) cannot be run: {error}")
}
