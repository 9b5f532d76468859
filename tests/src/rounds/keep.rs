//! What stays of a round that broke a promise.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::round::Lived;
use super::system::at;

/// Violations printed of one round; the folder has all.
const PRINTED_MAX: usize = 10;

/// Says what a round broke, and keeps what was done in it, its history and the servers' logs.
///
/// # Errors
/// What the system says.
pub(super) fn keep(folder: &Path, lived: &Lived, logs: &[PathBuf]) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(at(folder))?;
    let judged = &lived.judged;
    let mut found = String::new();
    for trouble in &judged.troubles {
        let _ = writeln!(found, "{trouble}");
    }
    for violation in &judged.violations {
        let _ = writeln!(found, "{violation}");
    }
    for line in found.lines().take(PRINTED_MAX) {
        eprintln!("  {line}");
    }
    let count = judged.troubles.len() + judged.violations.len();
    if count > PRINTED_MAX {
        eprintln!("  and {} more", count - PRINTED_MAX);
    }
    let write = |name: &str, text: String| {
        let file = folder.join(name);
        fs::write(&file, text).map_err(at(&file))
    };
    write("violations.txt", found)?;
    write("round.txt", lived.notes.join("\n") + "\n")?;
    write("history.txt", judged.history.to_string())?;
    for log in logs {
        let server = log.parent().and_then(Path::file_name).unwrap_or_default();
        let name = format!("{}.log", server.to_string_lossy());
        // A server that never started has no log.
        if log.exists() {
            fs::copy(log, folder.join(name)).map_err(at(log))?;
        }
    }
    Ok(())
}
