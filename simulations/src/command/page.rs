//! `page`: one run as a page.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::{draw, read, words, write};
use crate::world::World;

/// Draw a run as one HTML page that needs nothing else.
#[derive(Args)]
pub struct Command {
    /// A seed, or the file of a schedule.
    what: String,
    /// Where to write the page.
    #[arg(short, long, default_value = "run.html")]
    out: PathBuf,
}

impl Command {
    /// Does it.
    pub fn run(&self) -> ExitCode {
        std::panic::set_hook(Box::new(|_| {})); // a panic of the core is a broken rule, told below
        let (title, mut world) = match self.what.parse() {
            Ok(seed) => (format!("Seed {seed}"), World::new(seed)),
            Err(_) => match read(Path::new(&self.what)) {
                Ok(written) => (self.what.clone(), World::of(&written.schedule)),
                Err(error) => {
                    eprintln!("{error}");
                    return ExitCode::from(2);
                }
            },
        };
        let (page, failure) = draw(&title, &mut world);
        if let Err(error) = write(&self.out, &page) {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
        match failure {
            Some(failure) => println!("{title} fails {}", words(&failure)),
            None => println!("{title} keeps all rules"),
        }
        println!("{}", self.out.display());
        ExitCode::SUCCESS
    }
}
