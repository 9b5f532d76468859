//! How much was durable, written down beside the database.
//!
//! The database drops what follows a broken record of its journal without a word, and cannot know
//! that it was durable once. This file says how many events there were after the newest commit. It
//! is written after the commit and not synced: after a power cut it may be behind, never ahead. A
//! database that holds less than it says was damaged.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use chatty_core::store::StoreError;

/// The extension of its name; the rest is the database's.
const EXTENSION: &str = "high";
/// The count and a check of it.
const BYTES: usize = 16;

/// The file.
pub(super) struct High {
    file: File,
}

impl High {
    /// Opens the file beside the database in `folder`, and tells what it said; nothing if it is new
    /// or not to be believed.
    pub(super) fn open(folder: &Path) -> Result<(Self, Option<u64>), StoreError> {
        let path = folder.with_extension(EXTENSION);
        let failed = |error: io::Error| StoreError::Io(format!("{}: {error}", path.display()));
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let file = file.map_err(failed)?;
        let mut bytes = [0; BYTES];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => Ok((Self { file }, read(bytes))),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok((Self { file }, None)),
            Err(error) => Err(failed(error)),
        }
    }

    /// So many events are durable now. Failing costs a warning at most: it is only a second witness.
    pub(super) fn raise(&mut self, events: u64) {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&events.to_be_bytes());
        bytes[8..].copy_from_slice(&check(events).to_be_bytes());
        let _ = self.file.write_all_at(&bytes, 0);
    }
}

fn read(bytes: [u8; BYTES]) -> Option<u64> {
    let (count, sum) = bytes.split_first_chunk()?;
    let events = u64::from_be_bytes(*count);
    (*sum == check(events).to_be_bytes()).then_some(events)
}

/// Eight bytes that a torn or flipped count does not match.
fn check(events: u64) -> u64 {
    let hash = blake3::hash(&events.to_be_bytes());
    hash.as_bytes().iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}
