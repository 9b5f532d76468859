//! Journals of the database with an entry that announces more than a row can be.
//!
//! The database drops a journal from its first broken entry on (`high.rs` notices). But it takes
//! memory for a row before it reads it: one flipped bit in a length and it asks for up to 4 GiB, and
//! where there is less the process is ended by its allocator, at this start and at every other. So
//! a journal is cut before such an entry, as the database would.
//!
//! ```text
//!   1 rows u32 LE, number u64                                     a batch begins
//!   2 kind u8, compression u8, keyspace u64, length of the key u16 LE, of the value u32 LE,
//!     of the value as it stands here u32 LE, key, value           a row of it
//!   3 checksum u64, "FJL" version u8                              it ends
//!   4 keyspace u64                                                a keyspace is cleared
//! ```

use std::fs::{self, File};
use std::io::{self, BufReader, Read as _};
use std::path::Path;

/// Far more than any row takes: an event fits a frame of 1 MiB.
const ROW_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// Of a row before its key, with its tag.
const ROW_HEAD_BYTES: u32 = 21;
/// A value that is packed; 0: as it is.
const COMPRESSED: u8 = 1;

/// Cuts the journals in the database's folder.
///
/// # Errors
/// One could not be cut.
pub(super) fn cut(folder: &Path) -> io::Result<()> {
    // What cannot be listed or read is the database's to complain of, in its own words.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "jnl")
            && let Some(at) = too_long_at(&path)
        {
            tracing::error!("{}: damaged at byte {at}, cut off there", path.display());
            let file = File::options().write(true).open(&path)?;
            file.set_len(at)?;
            file.sync_all()?;
        }
    }
    Ok(())
}

/// Where the first entry begins that announces too much.
fn too_long_at(path: &Path) -> Option<u64> {
    let mut from = BufReader::new(File::open(path).ok()?);
    let mut at = 0;
    // The end, or something that is no entry: the database stops there too.
    while let Ok(Some(next)) = entry(&mut from) {
        match next {
            Entry::Bytes(bytes) => at += bytes,
            Entry::TooLong => return Some(at),
        }
    }
    None
}

enum Entry {
    /// It takes so many bytes.
    Bytes(u64),
    /// It announces too much.
    TooLong,
}

/// The next entry; `None` if it is none.
fn entry(from: &mut BufReader<File>) -> io::Result<Option<Entry>> {
    let [tag] = read(from)?;
    let rest: u32 = match tag {
        1 | 3 => 12,
        2 => return row(from).map(Some),
        4 => 8,
        _ => return Ok(None),
    };
    from.seek_relative(rest.into())?;
    Ok(Some(Entry::Bytes(1 + u64::from(rest))))
}

fn row(from: &mut BufReader<File>) -> io::Result<Entry> {
    let [_, compression] = read(from)?;
    let _keyspace: [u8; 8] = read(from)?;
    let key = u16::from_le_bytes(read(from)?);
    let value = u32::from_le_bytes(read(from)?);
    let here = u32::from_le_bytes(read(from)?);
    // The length of a value that stands here as it is is not asked for.
    let unpacked = if compression == COMPRESSED { value } else { 0 };
    if here.max(unpacked) > ROW_BYTES_MAX {
        return Ok(Entry::TooLong);
    }
    let rest = u32::from(key) + here;
    from.seek_relative(rest.into())?;
    Ok(Entry::Bytes(u64::from(ROW_HEAD_BYTES) + u64::from(rest)))
}

fn read<const N: usize>(from: &mut BufReader<File>) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}
