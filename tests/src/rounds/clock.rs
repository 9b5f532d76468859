//! The clock of one process alone, moved with libfaketime.

use std::fs;
use std::path::{Path, PathBuf};

use super::system::at;

/// A clock that can be moved while whoever lives by it runs. Time that only passes (timers, waits)
/// stays right, as on a machine whose clock somebody sets.
#[derive(Debug)]
pub struct Clock {
    file: PathBuf,
    library: PathBuf,
}

impl Clock {
    /// A clock that is off by so many seconds.
    ///
    /// # Errors
    /// That libfaketime is not there, or what the system says.
    pub fn new(file: PathBuf, seconds: i64) -> Result<Self, String> {
        let clock = Self { file, library: library()? };
        clock.is_off_by(seconds)?;
        Ok(clock)
    }

    /// Moves it by so many seconds from the right time.
    ///
    /// # Errors
    /// What the system says.
    pub fn is_off_by(&self, seconds: i64) -> Result<(), String> {
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n")).map_err(at(&new))?;
        fs::rename(&new, &self.file).map_err(at(&self.file))
    }

    /// What a process needs in its environment to live by it.
    pub fn rules(&self) -> [(&'static str, String); 4] {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }
}

fn library() -> Result<PathBuf, String> {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let found = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1"));
    found
        .chain([PathBuf::from("/usr/local/lib/faketime/libfaketime.so.1")])
        .find(|path| Path::exists(path))
        .ok_or_else(|| "libfaketime is missing; on Debian: apt-get install faketime".into())
}
