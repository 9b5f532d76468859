//! Files of the database that announce more than they hold.
//!
//! Each of its files but the journals ends with a table of contents, and the database takes memory
//! for as many entries as that announces before it checks anything. One flipped bit there and the
//! process is ended by its allocator ("memory allocation of 135226378560 bytes failed"), at this
//! start and at every other. So the numbers are looked at first; all else the database checks itself.
//!
//! ```text
//!   … │ "TOC!" count u32 LE, entries │ "SFA!" version u8, kind u8, checksum 16, TOC's place u64 LE, length u64
//! ```

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use chatty_core::store::StoreError;

const TRAILER_BYTES: usize = 38;
const TRAILER_MAGIC: &[u8] = b"SFA!";
/// Where in the trailer the place of the table of contents is.
const PLACE: std::ops::Range<usize> = 22..30;
const MAGIC: &[u8] = b"TOC!";
/// Of an entry: its place and length, and at least that of its name.
const ENTRY_BYTES_MIN: u64 = 16;

/// Looks at every file in the database's folder.
///
/// # Errors
/// One announces more than it holds.
pub(super) fn check(folder: &Path) -> Result<(), StoreError> {
    // What cannot be listed or read is the database's to complain of, in its own words.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            check(&path)?;
        } else if let Ok(Some((announced, held))) = announced(&path)
            && announced > held
        {
            let why = format!("{} announces {announced} parts, and ends", path.display());
            return Err(StoreError::Corrupt(why));
        }
    }
    Ok(())
}

/// How many entries a file's table of contents announces, and how many it has room for.
fn announced(path: &Path) -> io::Result<Option<(u64, u64)>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let Some(trailer_at) = length.checked_sub(TRAILER_BYTES as u64) else { return Ok(None) };
    let mut trailer = [0; TRAILER_BYTES];
    file.seek(SeekFrom::Start(trailer_at))?;
    file.read_exact(&mut trailer)?;
    let place = trailer.get(PLACE).and_then(|bytes| bytes.first_chunk());
    let Some(place) = place.filter(|_| trailer.starts_with(TRAILER_MAGIC)) else { return Ok(None) };
    let place = u64::from_le_bytes(*place);
    let mut head = [0; 8];
    file.seek(SeekFrom::Start(place.min(length)))?;
    file.read_exact(&mut head)?;
    let count = head.last_chunk().filter(|_| head.starts_with(MAGIC));
    let Some(count) = count.map(|bytes| u32::from_le_bytes(*bytes)) else { return Ok(None) };
    let room = length.saturating_sub(place) / ENTRY_BYTES_MIN;
    Ok(Some((count.into(), room)))
}
