//! Small files: whole or not there, secrets readable by their owner alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readable {
    /// Anybody: certificates, configuration.
    ByAll,
    /// The owner: keys.
    ByOwner,
}

/// What could not be done with which file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {doing} failed: {source}", path.display())]
pub struct FileError {
    /// The file or folder.
    pub path: PathBuf,
    /// What was tried.
    pub doing: &'static str,
    /// What the system says.
    pub source: io::Error,
}

impl FileError {
    /// `doing` something with `path` failed.
    pub fn new(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { path: path.to_owned(), doing, source }
    }
}

/// The text in a file.
///
/// # Errors
/// It is not there, or no text.
pub fn read(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path).map_err(FileError::new(path, "reading"))
}

/// Makes a folder and those above it.
///
/// # Errors
/// The system's.
pub fn make_folder(path: &Path, who: Readable) -> Result<(), FileError> {
    let mode = match who {
        Readable::ByAll => 0o755,
        Readable::ByOwner => 0o700,
    };
    let made = fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(FileError::new(path, "making the folder"))
}

/// Replaces a file: after a crash at any moment it is the old one or the new one, and once this
/// returns the new one, also after a power cut.
///
/// # Errors
/// The system's; the file is then as it was.
pub fn write(path: &Path, text: &str, who: Readable) -> Result<(), FileError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = folder.join(name);
    let mode = match who {
        Readable::ByAll => 0o644,
        Readable::ByOwner => 0o600,
    };
    let write = || {
        // What a crash left may have another mode.
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(FileError::new(path, "writing"))
}
