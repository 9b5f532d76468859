//! What `chatty-simulations` does with worlds: many seeds, one schedule again, a page of one.

mod page;
mod replay;
mod run;

pub use page::Command as PageCommand;
pub use replay::Command as ReplayCommand;
pub use run::Command as RunCommand;

use std::path::Path;

use crate::schedule::text::Written;
use crate::world::{Failure, World};

/// Lives through a schedule with a tape and makes its page.
fn draw(title: &str, world: &mut World) -> (String, Option<Failure>) {
    world.tape();
    let failure = crate::live(world).err();
    (crate::page::page(title, world, failure.as_ref()), failure)
}

fn read(path: &Path) -> Result<Written, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Written::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

/// When something was wrong, and what.
fn words(failure: &Failure) -> String {
    format!("after {:.6} s of its world: {}", failure.at.as_micros() as f64 / 1e6, failure.what)
}
