//! Versions of the database's keyspaces that are not as they were written.
//!
//! Each keyspace has a file that says which tables are its own, and a file `current` that says which
//! of these is the newest, and its checksum. The database writes the checksum and does not look at
//! it: it takes memory for as many parts as the file announces, and gives up over some of the others
//! in a way that ends the process, at this start and at every other. So it is looked at here.
//!
//! ```text
//!   current: number u64 LE, checksum u128 LE, its kind u8 (0: XXH3)
//! ```

use std::fs;
use std::path::Path;

use chatty_core::store::StoreError;
use xxhash_rust::xxh3::xxh3_128;

const CURRENT: &str = "current";
const KEYSPACES: &str = "keyspaces";
const XXH3: u8 = 0;

/// Looks at the newest version of each keyspace in the database's folder.
///
/// # Errors
/// One is not as it was written.
pub(super) fn check(folder: &Path) -> Result<(), StoreError> {
    // What cannot be listed or read is the database's to complain of, in its own words.
    for keyspace in fs::read_dir(folder.join(KEYSPACES)).into_iter().flatten().flatten() {
        let Some((number, checksum)) = current(&keyspace.path()) else { continue };
        let path = keyspace.path().join(format!("v{number}"));
        if fs::read(&path).is_ok_and(|version| xxh3_128(&version) != checksum) {
            let why = format!("{} is not as it was written", path.display());
            return Err(StoreError::Corrupt(why));
        }
    }
    Ok(())
}

/// The number of a keyspace's newest version, and its checksum.
fn current(keyspace: &Path) -> Option<(u64, u128)> {
    let bytes = fs::read(keyspace.join(CURRENT)).ok()?;
    let (number, rest) = bytes.split_first_chunk()?;
    let (checksum, kind) = rest.split_first_chunk()?;
    (*kind == [XXH3]).then_some((u64::from_le_bytes(*number), u128::from_le_bytes(*checksum)))
}
