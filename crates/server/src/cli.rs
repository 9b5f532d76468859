//! The command line: what each command prints, and which exit code it ends with.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use chatty_net::pki::SERVER_VALIDITY;
use clap::{Args, Parser, Subcommand};

use crate::backup::Summary;
use crate::control::Otherwise;
use crate::init::{self, Cluster, InitError, Wanted};
use crate::{backup, check, config, control, run};

/// A chatty server.
///
/// Exit codes: 0 done, 1 it failed (one line on standard error says why), 2 wrong usage, 3 the
/// watchdog ended it.
#[derive(Debug, Parser)]
#[command(name = "chatty-server", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a cluster: its authority, keys, certificates and every server's configuration.
    ///
    /// A second call repairs what is missing, renews certificates that end within 30 days, and
    /// changes nothing else.
    Init(Init),
    /// Give a server whose data is gone a new disk identity; the others fence the old one.
    Reissue {
        /// The cluster's folder.
        #[arg(long)]
        dir: PathBuf,
        /// Which server, as in s1.
        name: String,
    },
    /// Issue new certificates for the servers as they are; running servers take them by themselves.
    ///
    /// The keys stay: only DIR/servers/NAME/server.pem changes, and is to be copied to the server.
    Renew {
        /// The cluster's folder.
        #[arg(long)]
        dir: PathBuf,
        /// Valid for so long.
        #[command(flatten)]
        validity: Validity,
        /// Which servers, as in s1 [default: all].
        names: Vec<String>,
    },
    /// Have a running server take its certificate's files now, not within seconds.
    Reload {
        /// Its configuration.
        #[arg(long)]
        config: PathBuf,
    },
    /// Send a running server's clients to the others, wait until most voters and all linked servers
    /// have all of its data on disk, stop it. Ended early, or when the time is over, the server goes
    /// on as before.
    Drain {
        /// Its configuration.
        #[arg(long)]
        config: PathBuf,
        /// Wait for so many seconds at most.
        #[arg(long, default_value_t = 60, value_name = "SECONDS")]
        limit: u32,
        /// When the time is over, stop it all the same.
        #[arg(long)]
        force: bool,
    },
    /// Write all data of a server, running or not, to a file.
    Backup {
        /// Its configuration.
        #[arg(long)]
        config: PathBuf,
        /// The file; one that is there is replaced by a whole backup only.
        #[arg(long)]
        out: PathBuf,
    },
    /// Fill the empty data folder of a new server from a backup.
    Restore {
        /// The backup.
        #[arg(long)]
        from: PathBuf,
        /// The configuration of the server.
        #[arg(long)]
        config: PathBuf,
        /// The cluster's folder, if it is here: gives the server its new identity first, as
        /// `reissue` does.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Tell whether a server would start, and touch nothing.
    Check {
        /// Its configuration.
        #[arg(long)]
        config: PathBuf,
    },
    /// Run a server until SIGTERM or SIGINT.
    Run {
        /// Its configuration.
        #[arg(long)]
        config: PathBuf,
    },
    /// Print the URL that clients elsewhere reach the cluster with.
    Url {
        /// The cluster's folder.
        #[arg(long)]
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Init {
    /// The cluster's folder; it may exist and hold other files.
    #[arg(long)]
    dir: PathBuf,
    /// So many servers on this machine [default: 3].
    #[arg(long, value_name = "N", conflicts_with = "server")]
    servers: Option<u16>,
    /// UDP port of the first of them, on 127.0.0.1; the others follow [default: 7400].
    #[arg(long, value_name = "PORT", conflicts_with = "server")]
    base_port: Option<u16>,
    /// A server and where the others and the clients find it, once for each.
    #[arg(long, value_name = "NAME=HOST:PORT", value_parser = named)]
    server: Vec<(String, String)>,
}

/// For how long a certificate is issued.
#[derive(Debug, Args)]
struct Validity {
    /// Valid for so many days [default: 90].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3650))]
    valid_days: Option<u32>,
    /// Valid for so many seconds: for trying out what happens at the end.
    #[arg(long, value_name = "N", conflicts_with = "valid_days")]
    valid_seconds: Option<u32>,
}

impl Validity {
    fn span(&self) -> Duration {
        match (self.valid_days, self.valid_seconds) {
            (_, Some(seconds)) => Duration::from_secs(seconds.into()),
            (Some(days), None) => Duration::from_hours(24 * u64::from(days)),
            (None, None) => SERVER_VALIDITY,
        }
    }
}

fn named(text: &str) -> Result<(String, String), String> {
    let (name, addr) = text.split_once('=').ok_or("use NAME=HOST:PORT, as in s1=10.0.0.1:7400")?;
    Ok((name.to_owned(), addr.to_owned()))
}

/// Reads the arguments, does what they say, prints what came of it.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Init(args) => init(args),
        Command::Reissue { dir, name } => reissue(&dir, &name),
        Command::Renew { dir, validity, names } => renew(&dir, &names, validity.span()),
        Command::Reload { config } => reload(&config),
        Command::Drain { config, limit, force } => {
            let otherwise = if force { Otherwise::Stop } else { Otherwise::Resume };
            drain(&config, Duration::from_secs(limit.into()), otherwise)
        }
        Command::Backup { config, out } => backup(&config, &out),
        Command::Restore { from, config, dir } => restore(&config, &from, dir.as_deref()),
        Command::Check { config } => check(&config),
        Command::Run { config } => run::from_file(&config).map_err(Into::into),
        Command::Url { dir } => {
            init::open(&dir).map(|c| println!("{}", c.url())).map_err(Into::into)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chatty-server: {error}");
            ExitCode::FAILURE
        }
    }
}

type Done = Result<(), Box<dyn std::error::Error>>;

fn init(args: Init) -> Done {
    let Init { dir, servers, base_port, server } = args;
    let cluster: Result<Cluster, InitError> =
        init::init(&dir, &Wanted { count: servers, base_port, named: server });
    let cluster = cluster?;
    for server in &cluster.servers {
        let config = cluster.layout.server(&server.name).config();
        println!("{} at {}: {}", server.name, server.addr, config.display());
    }
    println!("{}", cluster.url());
    Ok(())
}

fn reissue(dir: &Path, name: &str) -> Done {
    let identity = init::reissue(dir, name)?;
    println!("{name} is {} now, certificate {}", identity.server, identity.generation);
    Ok(())
}

fn check(config: &Path) -> Done {
    let (config, proof) = check::check(config)?;
    let left = proof.validity.left(std::time::SystemTime::now()).as_secs() / 86_400;
    println!("{}: good; its certificate is valid for {left} more days", config.name);
    Ok(())
}

fn renew(dir: &Path, names: &[String], validity: Duration) -> Done {
    for identity in init::renew(dir, names, validity)? {
        let file = init::Layout::of(dir).server(&identity.slot).cert();
        println!("{}: a new certificate is in {}", identity.slot, file.display());
    }
    Ok(())
}

fn reload(config: &Path) -> Done {
    let config = config::load(config)?;
    println!("{}: {}", config.name, control::reload(&config)?);
    Ok(())
}

fn drain(config: &Path, limit: Duration, otherwise: Otherwise) -> Done {
    let config = config::load(config)?;
    let done =
        control::drain(&config, limit, otherwise, |line| println!("{}: {line}", config.name))?;
    println!("{}: stopped: {done}", config.name);
    Ok(())
}

fn backup(config: &Path, out: &Path) -> Done {
    let config = config::load(config)?;
    let Summary { events, logs, bytes, .. } = backup::backup(&config, out)?;
    println!("{}: {events} events of {logs} logs, {bytes} bytes", out.display());
    Ok(())
}

fn restore(config: &Path, from: &Path, dir: Option<&Path>) -> Done {
    let config = config::load(config)?;
    let Summary { source, events, logs, .. } = backup::restore(&config, from, dir)?;
    println!(
        "{}: restored {events} events of {logs} logs from a backup of {}; start it: it fetches the \
         rest from the others",
        config.name, source.slot
    );
    Ok(())
}
