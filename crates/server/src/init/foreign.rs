//! What lies in a folder before a cluster is made there: other people's files are left alone, but
//! parts of another cluster would be taken for the new one's.

use super::{InitError, Layout};

/// Nothing in the folder is in the way of a new cluster. An interrupted call leaves nothing of
/// this without the record.
///
/// # Errors
/// [`InitError::Foreign`]; nothing was touched.
pub(super) fn check(layout: &Layout) -> Result<(), InitError> {
    let files = [layout.client(), layout.token_key(), layout.servers()];
    match files.into_iter().find(|file| file.symlink_metadata().is_ok()) {
        Some(file) => Err(InitError::Foreign { file, record: layout.record() }),
        None => Ok(()),
    }
}
