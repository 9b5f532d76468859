//! What a run begins with: the database opened, mended first if it is damaged.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use chatty_core::id::Origin;
use chatty_core::store::{Loaded, Store as _, StoreError};

use super::FjallStore;
use super::mend::{Mended, mend, needs_mending, note_damage};

/// An open database, and what a run must know of it.
pub struct Begun {
    /// The database.
    pub store: FjallStore,
    /// The newest run before this one that wrote events, and how many.
    pub prev: Option<(Origin, u64)>,
    /// What it holds.
    pub loaded: Loaded,
}

/// Opens the database in `folder` and notes there that a run begins.
///
/// # Errors
/// The disk failed, or the database must not be used; the run must not begin.
pub fn begin(folder: &Path, run: Origin) -> Result<Begun, StoreError> {
    if let Some(why) = needs_mending(folder) {
        mend_and_tell(folder, &why)?;
    }
    match open(folder, run) {
        Err(StoreError::Corrupt(why)) => {
            note_damage(folder, &why).map_err(|error| {
                StoreError::Unusable(format!("damaged ({why}), and it cannot be noted: {error}"))
            })?;
            mend_and_tell(folder, &why)?;
            open(folder, run)
        }
        begun => begun,
    }
}

fn open(folder: &Path, run: Origin) -> Result<Begun, StoreError> {
    // The database is not made for damaged files: it may give up in the middle.
    catch_unwind(AssertUnwindSafe(|| {
        let mut store = FjallStore::open(folder)?;
        let prev = store.begin_run(run)?;
        let loaded = store.load()?;
        Ok(Begun { store, prev, loaded })
    }))
    .unwrap_or_else(|_| Err(StoreError::Corrupt("the database gave up opening it".into())))
}

fn mend_and_tell(folder: &Path, why: &str) -> Result<(), StoreError> {
    tracing::error!(
        "DAMAGED: {}: {why}; what can be proved is copied, the rest is fetched from the others",
        folder.display()
    );
    let Mended { kept, opened } = mend(folder)?;
    let aside = folder.with_extension("damaged");
    let how = if opened { "" } else { " (it could not be opened)" };
    tracing::warn!(
        "mended: {kept} events were proved and kept{how}; the damaged database is in {}, remove it \
         when you have seen it",
        aside.display()
    );
    Ok(())
}
