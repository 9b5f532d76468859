//! The command line: what each command prints, and which exit code it ends with.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::init::{self, Cluster, InitError, Wanted};
use crate::{check, run};

/// A chatty server.
///
/// Exit codes: 0 done, 1 it failed (one line on standard error says why), 2 wrong usage.
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

fn named(text: &str) -> Result<(String, String), String> {
    let (name, addr) = text.split_once('=').ok_or("use NAME=HOST:PORT, as in s1=10.0.0.1:7400")?;
    Ok((name.to_owned(), addr.to_owned()))
}

/// Reads the arguments, does what they say, prints what came of it.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Init(args) => init(args),
        Command::Reissue { dir, name } => reissue(&dir, &name),
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

fn reissue(dir: &std::path::Path, name: &str) -> Done {
    let identity = init::reissue(dir, name)?;
    println!("{name} is {} now, certificate {}", identity.server, identity.generation);
    Ok(())
}

fn check(config: &std::path::Path) -> Done {
    let (config, proof) = check::check(config)?;
    let left = proof.ends.left(std::time::SystemTime::now()).as_secs() / 86_400;
    println!("{}: good; its certificate is valid for {left} more days", config.name);
    Ok(())
}
