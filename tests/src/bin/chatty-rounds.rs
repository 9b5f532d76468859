//! `chatty-rounds`: rounds of faults on real servers, each held against the promises.
//! `scripts/rounds` and `scripts/torture` build and run it; `docs/verification.md` says what it checks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chatty_tests::repository;
use chatty_tests::rounds::{self, Fault, Mode, Options, Torture, Verdict};
use clap::{Args, Parser, Subcommand, ValueEnum, builder::PossibleValue};

/// Set for the process that is inside namespaces of its own.
const INSIDE: &str = "CHATTY_ROUNDS_INSIDE";

/// Lets servers of this machine live through faults again and again while clients on each of them
/// talk, and checks everything that any client was told against what chatty promises.
///
/// Exit code: 0 every promise was kept, 1 one was broken (or the run could not be made), 2 called
/// wrongly. What it takes to look into a broken promise stays in the folder; else nothing stays.
#[derive(Debug, Parser)]
#[command(name = "scripts/rounds")]
struct Arguments {
    #[command(subcommand)]
    command: Rounds,
    /// Draws faults, moments and victims; printed at the beginning. Default: the time.
    #[arg(long, global = true)]
    seed: Option<u64>,
    /// For the cluster and what is kept; must not exist, except for torture. Default:
    /// target/rounds/MODE-SEED, target/torture.
    #[arg(long, global = true)]
    folder: Option<PathBuf>,
    /// UDP port of the first of three servers on 127.0.0.1. Default: free ones are looked for.
    #[arg(long, global = true)]
    port: Option<u16>,
    /// Messages a second, of all clients together [default: 200; torture: 100].
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(1..=2000))]
    rate: Option<u32>,
}

#[derive(Debug, Subcommand)]
enum Rounds {
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
    /// Faults of every kind, drawn, alone and two at a time, on three and on five servers. Needs
    /// root: it makes network namespaces, which end with it.
    Torture(TortureArguments),
}

#[derive(Debug, Args)]
struct TortureArguments {
    /// How many rounds, of some 10 seconds.
    #[arg(long, default_value_t = 100)]
    rounds: u32,
    /// Only this fault, alone.
    #[arg(long, value_name = "FAULT")]
    only: Option<Wanted>,
    /// Only the round of this number.
    #[arg(long, value_name = "NUMBER")]
    round: Option<u32>,
    /// So many servers [default: ten rounds with three, ten with five, and so on].
    #[arg(long, value_parser = clap::value_parser!(u8).range(3..=7))]
    servers: Option<u8>,
    /// No fault is drawn to last longer.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    longest: u64,
}

/// A fault, by its name.
#[derive(Debug, Clone, Copy)]
struct Wanted(Fault);

impl ValueEnum for Wanted {
    fn value_variants<'a>() -> &'a [Self] {
        const { &wanted() }
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name()))
    }
}

const fn wanted() -> [Wanted; Fault::ALL.len()] {
    let mut all = [Wanted(Fault::Kill); Fault::ALL.len()];
    let mut n = 0;
    while n < all.len() {
        all[n] = Wanted(Fault::ALL[n]);
        n += 1;
    }
    all
}

impl Rounds {
    const fn name(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "kill",
            Self::All { .. } => "all",
            Self::Wipe { .. } => "wipe",
            Self::Partition { .. } => "partition",
            Self::Torture(_) => "torture",
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let inside = std::env::var_os(INSIDE).map(PathBuf::from);
    let verdict = match (&arguments.command, inside) {
        (Rounds::Torture(torture), None) => return torture_outside(&arguments, torture),
        (Rounds::Torture(torture), Some(work)) => torture_inside(&arguments, torture, &work),
        (Rounds::Partition { .. }, None) => return go_inside(Path::new("yes")),
        _ => run(&arguments),
    };
    match verdict {
        Ok(Verdict::Kept) => ExitCode::SUCCESS,
        Ok(Verdict::Idle | Verdict::Broken) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("chatty-rounds: {why}");
            ExitCode::FAILURE
        }
    }
}

impl Arguments {
    fn seed(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.seed.unwrap_or(now.as_secs())
    }
}

fn run(arguments: &Arguments) -> Result<Verdict, String> {
    let command = &arguments.command;
    let (seed, rate) = (arguments.seed(), arguments.rate.unwrap_or(200));
    let folder = arguments.folder.clone().unwrap_or_else(|| {
        repository().join("target/rounds").join(format!("{}-{seed}", command.name()))
    });
    if folder.exists() {
        return Err(format!("{} exists: remove it, or name another --folder", folder.display()));
    }
    let folder = make(&folder)?;
    eprintln!("{}, seed {seed}, {rate} messages a second", command.name());
    let options = Options { seed, folder: folder.clone(), port: arguments.port, rate };
    let verdict = match command {
        Rounds::Kill { rounds } => rounds::repeat(Mode::Kill, *rounds, &options),
        Rounds::All { rounds } => rounds::repeat(Mode::All, *rounds, &options),
        Rounds::Wipe { rounds } => rounds::repeat(Mode::Wipe, *rounds, &options),
        Rounds::Partition { seconds } => rounds::partition(Duration::from_secs(*seconds), &options),
        Rounds::Torture(_) => Err("torture has a folder of its own".into()),
    };
    match &verdict {
        Ok(Verdict::Kept) => {
            println!("every promise was kept (seed {seed})");
            fs::remove_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        Ok(Verdict::Idle) => println!("some rules had nothing to judge (seed {seed})"),
        Ok(Verdict::Broken) => {
            println!("A PROMISE WAS BROKEN (seed {seed}): see {}", folder.display());
        }
        Err(_) => eprintln!("what there is of the run: {}", folder.display()),
    }
    verdict
}

fn make(folder: &Path) -> Result<PathBuf, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    fs::create_dir_all(folder).map_err(failed)?;
    folder.canonicalize().map_err(failed)
}

/// Makes the folder of this run, clears those that dead runs left, and runs inside namespaces.
fn torture_outside(arguments: &Arguments, torture: &TortureArguments) -> ExitCode {
    let base = arguments.folder.clone().unwrap_or_else(|| repository().join("target/torture"));
    let seed = arguments.seed();
    eprintln!("torture, seed {seed}, {} rounds", torture.rounds);
    let made = make(&base).and_then(|base| {
        clear_dead_runs(&base)?;
        make(&base.join(format!("{RUN}{}", std::process::id())))
    });
    let work = match made {
        Ok(work) => work,
        Err(why) => {
            eprintln!("chatty-rounds: {why}");
            return ExitCode::FAILURE;
        }
    };
    // The seed is drawn once.
    let drawn = match arguments.seed {
        Some(_) => Vec::new(),
        None => vec!["--seed".to_owned(), seed.to_string()],
    };
    let code = inside(&work, &drawn);
    if let Err(why) = fs::remove_dir_all(&work) {
        eprintln!("{}: {why}", work.display());
    }
    // Nothing stays of a run that kept every promise: this removes only what is empty.
    let _ = fs::remove_dir(&base);
    code
}

/// How the folder of a run begins; its process follows.
const RUN: &str = "run-";

/// Removes the folders of runs whose process is gone: all else of them went with it.
fn clear_dead_runs(base: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", base.display());
    for entry in fs::read_dir(base).map_err(failed)?.flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(RUN)?.parse::<u32>().ok());
        if process.is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists()) {
            eprintln!("removing what a dead run left: {}", entry.path().display());
            fs::remove_dir_all(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

fn torture_inside(
    arguments: &Arguments,
    torture: &TortureArguments,
    work: &Path,
) -> Result<Verdict, String> {
    let base = work.parent().ok_or("the folder of the run has no parent")?;
    let seed = arguments.seed();
    let what = Torture {
        rounds: torture.rounds.max(torture.round.unwrap_or_default()),
        seed,
        only: torture.only.map(|wanted| wanted.0),
        round: torture.round,
        servers: torture.servers.map(usize::from),
        longest: Duration::from_secs(torture.longest),
        rate: arguments.rate.unwrap_or(100),
    };
    let verdict = rounds::torture(&what, work, base)?;
    match verdict {
        Verdict::Kept => println!("every promise was kept (seed {seed})"),
        Verdict::Idle => {
            println!("some rules had nothing to judge: nothing is proven (seed {seed})")
        }
        Verdict::Broken => println!("A PROMISE WAS BROKEN (seed {seed}): see {}", base.display()),
    }
    Ok(verdict)
}

/// Runs this program again with a network, mounts and processes of its own.
fn go_inside(told: &Path) -> ExitCode {
    inside(told, &[])
}

/// Runs this program again with a network, mounts and processes of its own, which all end with it;
/// and it ends with this process, however that ends.
fn inside(told: &Path, more: &[String]) -> ExitCode {
    let ran = std::env::current_exe().and_then(|program| {
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare"])
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["--propagation", "private"])
            .arg(program)
            .args(std::env::args_os().skip(1))
            .args(more)
            .env(INSIDE, told)
            .status()
    });
    match ran {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chatty-rounds: setpriv and unshare (util-linux) cannot be run: {error}");
            ExitCode::FAILURE
        }
    }
}
