//! `chatty`: talk in a terminal, or from scripts. See `docs/client.md`.

mod args;
mod bench;
mod commands;
mod lines;
mod objects;
mod out;
mod send;
mod status;
mod tail;
mod talk;
mod verify;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Args, Command};
use out::Out;

/// A fifth of a busy server's time went into allocating: see `docs/performance.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Why the program ends without success: a line for a person, or nothing if it was told already.
#[derive(Debug)]
enum Trouble {
    /// To be written to standard error.
    Say(String),
    /// The arguments make no sense: exit code 2.
    Usage(String),
    /// Told already, or nobody is left to be told.
    Silent,
}

impl<E: std::error::Error> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self::Say(error.to_string())
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(run(args));
            // A thread may still be waiting for standard input: nobody waits for it.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(Trouble::Say(error.to_string())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Trouble::Silent) => ExitCode::FAILURE,
        Err(Trouble::Say(text)) => {
            out::complain(&text);
            ExitCode::FAILURE
        }
        Err(Trouble::Usage(text)) => {
            out::complain(&text);
            ExitCode::from(2)
        }
    }
}

async fn run(args: Args) -> Result<(), Trouble> {
    args.outbox()?;
    let cluster = args.cluster()?;
    let out = Out::new(args.json);
    match &args.command {
        None => talk::run(&args, &cluster).await,
        Some(Command::Join { room, last }) => {
            commands::join(&args, &cluster, out, room, *last).await
        }
        Some(Command::Leave { room }) => commands::leave(&args, &cluster, out, room).await,
        Some(Command::Nick { new }) => commands::nick(&args, &cluster, out, new).await,
        Some(Command::Send { room, text, stdin: true, level }) => {
            debug_assert!(text.is_none());
            send::stdin(&args, &cluster, out, room, (*level).into()).await
        }
        Some(Command::Send { room, text, stdin: false, level }) => {
            let text = text.as_deref().unwrap_or_default();
            send::one(&args, &cluster, out, room, text, (*level).into()).await
        }
        Some(Command::Dm { whom, text }) => send::dm(&args, &cluster, out, whom, text).await,
        Some(Command::Tail { rooms, last, until_idle }) => {
            tail::run(&args, &cluster, out, rooms, *last, *until_idle).await
        }
        Some(Command::History { room, last }) => {
            commands::history(&args, &cluster, out, room, *last).await
        }
        Some(Command::Rooms) => commands::rooms(&args, &cluster, out).await,
        Some(Command::Who { room }) => commands::who(&args, &cluster, out, room).await,
        Some(Command::Kick { room, whom, reason }) => {
            commands::kick(&args, &cluster, out, room, whom, reason.as_deref()).await
        }
        Some(Command::Op { room, whom }) => {
            commands::role(&args, &cluster, out, room, whom, chatty_core::event::Rank::Op).await
        }
        Some(Command::Deop { room, whom }) => {
            commands::role(&args, &cluster, out, room, whom, chatty_core::event::Rank::Member).await
        }
        Some(Command::Topic { room, text }) => {
            commands::topic(&args, &cluster, out, room, text.as_deref()).await
        }
        Some(Command::Keep { room, days, messages, .. }) => {
            commands::keep(&args, &cluster, out, room, *days, *messages).await
        }
        Some(Command::Status) => status::run(&cluster, out).await,
        Some(Command::Verify) => verify::run(&cluster, out).await,
        Some(Command::Bench(plan)) => bench::run(&cluster, out, plan, args.server.as_deref()).await,
    }
}
