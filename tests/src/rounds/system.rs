//! Commands of the system, and waiting for what they bring about.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often a fact that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Runs a command; gives its standard output.
///
/// # Errors
/// That it failed, with what it said.
pub fn output(command: &mut Command) -> Result<String, String> {
    let done = command.stdin(Stdio::null()).output();
    let done = done.map_err(|error| format!("{command:?}: {error}"))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&done.stderr).trim()))
}

/// Runs a command whose output is of no interest.
///
/// # Errors
/// That it failed, with what it said.
pub fn succeed(command: &mut Command) -> Result<(), String> {
    output(command).map(drop)
}

/// Runs a command of words without spaces in them.
///
/// # Errors
/// That it failed, with what it said.
pub fn run(words: &str) -> Result<(), String> {
    let mut words = words.split(' ').map(OsStr::new);
    succeed(Command::new(words.next().unwrap_or_default()).args(words))
}

/// Copies a folder with everything in it.
///
/// # Errors
/// What `cp` said.
pub fn copy_folder(from: &Path, to: &Path) -> Result<(), String> {
    succeed(Command::new("cp").arg("-a").args([from, to]))
}

/// An error of a file, with its name.
pub fn at<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> String {
    let path = path.display().to_string();
    move |error| format!("{path}: {error}")
}

/// Looks again and again whether something holds (`Ok`), or why not.
///
/// # Errors
/// After `within`: the last reason why not.
pub fn until<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let end = Instant::now() + within;
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(why) if Instant::now() >= end => {
                return Err(format!("not in {} s: {what} ({why})", within.as_secs()));
            }
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}
