//! What stays of a run that broke a promise.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::Judged;

/// Violations printed of one round; the folder has all.
const PRINTED_MAX: usize = 10;

/// Says what a round broke, and keeps its history and the servers' logs.
///
/// # Errors
/// What the system says.
pub(super) fn keep(folder: &Path, judged: &Judged, logs: &[PathBuf]) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    fs::create_dir_all(folder).map_err(failed)?;
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
    fs::write(folder.join("violations.txt"), found).map_err(failed)?;
    fs::write(folder.join("history.txt"), judged.history.to_string()).map_err(failed)?;
    for log in logs {
        let server = log.parent().and_then(Path::file_name).unwrap_or_default();
        let name = format!("{}.log", server.to_string_lossy());
        // A server that never started has no log.
        if log.exists() {
            fs::copy(log, folder.join(name)).map_err(failed)?;
        }
    }
    Ok(())
}
