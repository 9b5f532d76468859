//! A backup becomes the data of a new server: new to the others, who count only what it has from
//! now on. Under its old identity they would count on what its old disk held beyond the backup.

use std::fs;
use std::io;
use std::path::Path;

use chatty_core::store::{Batch, SlotHolder, Store};

use super::BackupError;
use super::file::{Summary, scan, verify};
use crate::check::CheckError;
use crate::config::Config;
use crate::credentials;
use crate::data_dir::{self, DataDir};
use crate::files::FileError;
use crate::init;
use crate::store::FjallStore;

/// The database while it is being written.
const UNFINISHED: &str = "db.new";
/// The data folder's own file.
const IDENTITY: &str = "identity.toml";
/// What stands beside the database.
const HIGH: &str = "db.high";

/// Restores a backup into the empty data folder of a server that is new: its certificate was
/// issued for it, or is issued here by the authority in the cluster's folder. The backup is checked
/// from beginning to end before anything is touched.
///
/// # Errors
/// See [`BackupError`]. After a failure while writing another restore begins anew.
pub fn restore(
    config: &Config,
    from: &Path,
    cluster_dir: Option<&Path>,
) -> Result<Summary, BackupError> {
    let summary = verify(from)?;
    data_dir::check_free(&config.data).map_err(CheckError::from)?;
    check_empty(&config.data)?;
    clear(&config.data)?;
    if let Some(dir) = cluster_dir {
        check_cluster(&summary, init::cluster_id(dir)?)?;
        let issued = init::reissue(dir, config.name.as_str())?;
        let held = credentials::load(config).map_err(CheckError::from)?;
        if held.identity != issued {
            let issued = init::Layout::of(dir).server(&config.name).cert();
            return Err(BackupError::Elsewhere { issued, wanted: config.certificate.clone() });
        }
    }
    let identity = credentials::load(config).map_err(CheckError::from)?.identity;
    check_cluster(&summary, identity.cluster)?;
    if summary.servers.contains(&identity.server) {
        return Err(BackupError::NotNew { server: identity.server, slot: identity.slot });
    }

    let data = DataDir::open(&config.data, &identity).map_err(CheckError::from)?;
    let broken = |source| BackupError::Store { data: config.data.clone(), source };
    // Whole, or not there.
    let new = config.data.join(UNFINISHED);
    let mut store = FjallStore::open(&new).map_err(broken)?;
    let slots = summary.holders.iter().map(|(slot, server, generation)| SlotHolder {
        slot: slot.clone(),
        server: *server,
        generation: *generation,
    });
    let holders = Batch { slots: slots.collect(), ..Batch::default() };
    store.commit(&holders).map_err(broken)?;
    let again = scan(from, |entries| {
        store.commit(&Batch { entries, ..Batch::default() }).map(drop).map_err(broken)
    })?;
    drop(store);
    fs::rename(&new, data.database()).map_err(FileError::new(&new, "renaming"))?;
    let synced = fs::File::open(&config.data).and_then(|folder| folder.sync_all());
    synced.map_err(FileError::new(&config.data, "writing"))?;
    Ok(again)
}

fn check_cluster(
    summary: &Summary,
    certificate: chatty_core::id::ClusterId,
) -> Result<(), BackupError> {
    let backup = summary.source.cluster;
    if backup == certificate {
        Ok(())
    } else {
        Err(BackupError::OtherCluster { backup, certificate })
    }
}

/// What an interrupted restore leaves, and a server that never ran, is nothing.
fn check_empty(data: &Path) -> Result<(), BackupError> {
    let entries = match fs::read_dir(data) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(FileError::new(data, "reading")(error).into()),
    };
    let unfinished = data.join(UNFINISHED).exists();
    for entry in entries {
        let name = entry.map_err(FileError::new(data, "reading"))?.file_name();
        let name = name.to_string_lossy();
        let harmless = ["lock", "control.sock", "control.sock.new", UNFINISHED];
        let begun = (name == IDENTITY || name == HIGH) && unfinished;
        if !begun && !harmless.contains(&name.as_ref()) {
            return Err(BackupError::NotEmpty { data: data.to_owned(), what: name.into_owned() });
        }
    }
    Ok(())
}

/// Removes what an interrupted restore left; the folder was looked at.
fn clear(data: &Path) -> Result<(), BackupError> {
    let gone = |done: io::Result<()>, file: &Path| match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError::new(file, "removing")(error))
        }
        _ => Ok(()),
    };
    // Without the folder, the identity would be taken for a server's.
    let (identity, unfinished) = (data.join(IDENTITY), data.join(UNFINISHED));
    let high = data.join(HIGH);
    gone(fs::remove_file(&identity), &identity)?;
    gone(fs::remove_file(&high), &high)?;
    gone(fs::remove_dir_all(&unfinished), &unfinished)?;
    Ok(())
}
