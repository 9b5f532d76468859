//! Starting the same program again in this process: after damage was found, the database is mended
//! with nothing else of the old run about. The process keeps its id, so nobody who watches it sees
//! it end.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::run::RunError;

/// Counts the starts after damage, and when the last was: "2 1700000000".
const COUNT: &str = "CHATTY_MENDED";
/// So many within [`WINDOW`], and the disk itself is at fault.
const MOST: u32 = 3;
/// See [`MOST`].
const WINDOW: Duration = Duration::from_secs(600);

/// Starts the program again. Returns only if that is impossible or of no use.
pub(crate) fn start(damage: String) -> RunError {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let before = std::env::var(COUNT).unwrap_or_default();
    let count = next(&before, now);
    if count > MOST {
        return RunError::Failed(format!(
            "the database was damaged {count} times within {} minutes (now: {damage}); the disk is \
             failing: replace it, then let the others refill the server",
            WINDOW.as_secs() / 60
        ));
    }
    tracing::warn!("starting again, to cut the damage out");
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(_) => return RunError::Damaged(damage),
    };
    let error = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(COUNT, format!("{count} {now}"))
        .exec();
    tracing::error!("this program cannot be started again: {error}");
    RunError::Damaged(damage)
}

/// Which start after damage this is, given the note of the last one.
fn next(before: &str, now: u64) -> u32 {
    let parse = |note: &str| {
        let (count, at) = note.split_once(' ')?;
        Some((count.parse::<u32>().ok()?, at.parse::<u64>().ok()?))
    };
    match parse(before) {
        Some((count, at)) if now.saturating_sub(at) < WINDOW.as_secs() => count.saturating_add(1),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_starts_soon_after_each_other_are_counted_together() {
        assert_eq!(next("", 5000), 1);
        assert_eq!(next("1 4900", 5000), 2);
        assert_eq!(next("3 4900", 5000), 4);
        assert_eq!(next("3 4000", 5000), 1);
        assert_eq!(next("what 4900", 5000), 1);
    }
}
