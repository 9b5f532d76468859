//! `replay`: schedules from files, once more.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::{read, words};
use crate::world::World;

/// Live through schedules again.
///
/// A file that says how it fails must fail that way; one that does not must keep all rules.
#[derive(Args)]
pub struct Command {
    /// Files of schedules.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Print every step.
    #[arg(long)]
    narrate: bool,
    /// Print what clients did and heard.
    #[arg(long)]
    history: bool,
}

impl Command {
    /// Does it.
    pub fn run(&self) -> ExitCode {
        std::panic::set_hook(Box::new(|_| {})); // a panic of the core is a broken rule, told below
        let mut code = ExitCode::SUCCESS;
        for file in &self.files {
            match replay(file, self.narrate, self.history) {
                Ok(what) => println!("{}: {what}", file.display()),
                Err(what) => {
                    println!("{}: {what}", file.display());
                    code = ExitCode::FAILURE;
                }
            }
        }
        code
    }
}

/// Replays a file; what it did, as it should or not.
///
/// # Errors
/// It cannot be read, or did something else than it says.
fn replay(file: &Path, narrate: bool, history: bool) -> Result<String, String> {
    let written = read(file)?;
    let mut world = World::of(&written.schedule);
    if narrate {
        world.narrate();
    }
    let result = crate::live(&mut world);
    if history {
        print!("{}", world.history());
    }
    match (result, written.fails) {
        (Ok(_), None) => Ok(format!("keeps all rules ({})", written.why)),
        (Ok(_), Some(kind)) => Err(format!("keeps all rules, and was to fail: {kind}")),
        (Err(failure), Some(kind)) if failure.kind() == kind => {
            Ok(format!("fails as it says, {}", words(&failure)))
        }
        (Err(failure), Some(kind)) => {
            Err(format!("was to fail: {kind}; it fails {}", words(&failure)))
        }
        (Err(failure), None) => Err(format!("FAILS {}", words(&failure))),
    }
}
