//! A server's data folder: one process at a time, one disk identity for good.
//!
//! `lock` is held while a server runs, `identity.toml` says whose data this is and in which
//! layout, `db` is the database. All are made at the first start.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use chatty_core::id::{ClusterId, ServerId};
use chatty_net::Identity;
use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, from_toml};
use crate::files::{self, FileError, Readable};

/// The layout of the folder that this version makes and reads.
const FORMAT: u32 = 1;

/// Why a data folder cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process uses it.
    #[error("{}: another process uses this data folder; is the server running already?", dir.display())]
    InUse {
        /// Which folder.
        dir: PathBuf,
    },
    /// It holds the data of another disk.
    #[error(
        "{}: the data is of server {held}, the certificate of {certificate}; \
         bring the certificate back, or empty the folder and let the others refill it", dir.display()
    )]
    OtherServer {
        /// Which folder.
        dir: PathBuf,
        /// Whose data it is.
        held: ServerId,
        /// Who the certificate says the server is.
        certificate: ServerId,
    },
    /// It holds the data of another cluster.
    #[error("{}: the data is of cluster {held}, the certificate of {certificate}", dir.display())]
    OtherCluster {
        /// Which folder.
        dir: PathBuf,
        /// Whose data it is.
        held: ClusterId,
        /// Who the certificate says the server is.
        certificate: ClusterId,
    },
    /// A database without the file that says whose it is.
    #[error("{}: there is data but no identity.toml; restore it from the backup", dir.display())]
    NoIdentity {
        /// Which folder.
        dir: PathBuf,
    },
    /// Another version wrote it.
    #[error("{}: the data has format {held}, this version reads format {FORMAT}; upgrade chatty-server", dir.display())]
    Format {
        /// Which folder.
        dir: PathBuf,
        /// What is written there.
        held: u32,
    },
    /// A file in it cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// `identity.toml` does not parse.
    #[error(transparent)]
    Content(#[from] ConfigError),
}

#[derive(Serialize, Deserialize)]
struct Held {
    format: u32,
    cluster: ClusterId,
    server: ServerId,
}

/// A data folder in use by this process, until dropped.
#[derive(Debug)]
pub struct DataDir {
    dir: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Takes the folder for this process; makes it if it is not there.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn open(dir: &Path, identity: &Identity) -> Result<Self, DataDirError> {
        check_identity(dir, identity)?;
        files::make_folder(dir, Readable::ByOwner)?;
        let path = dir.join("lock");
        let opened = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = opened.map_err(FileError::new(&path, "opening"))?;
        try_lock(dir, &lock)?;
        // Nobody else writes here now; what was read before may have changed.
        if check_identity(dir, identity)? == Contents::Nothing {
            let held = Held { format: FORMAT, cluster: identity.cluster, server: identity.server };
            let text = toml::to_string(&held).unwrap_or_default();
            files::write(&dir.join("identity.toml"), &text, Readable::ByAll)?;
        }
        Ok(Self { dir: dir.to_owned(), _lock: lock })
    }

    /// Where the database is.
    pub fn database(&self) -> PathBuf {
        self.dir.join("db")
    }
}

/// Whether a server of that identity could take the folder now. Changes nothing.
///
/// # Errors
/// See [`DataDirError`].
pub fn check(dir: &Path, identity: &Identity) -> Result<(), DataDirError> {
    check_free(dir)?;
    check_identity(dir, identity).map(|_| ())
}

/// Whether no process uses the folder now. Changes nothing.
///
/// # Errors
/// [`DataDirError::InUse`], or the system's.
pub fn check_free(dir: &Path) -> Result<(), DataDirError> {
    let path = dir.join("lock");
    match File::options().write(true).open(&path) {
        Ok(lock) => try_lock(dir, &lock)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(FileError::new(&path, "opening")(error).into()),
    }
    Ok(())
}

#[derive(PartialEq, Eq)]
enum Contents {
    Nothing,
    Ours,
}

fn check_identity(dir: &Path, identity: &Identity) -> Result<Contents, DataDirError> {
    let file = dir.join("identity.toml");
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let empty = !dir.join("db").exists();
            let dir = dir.to_owned();
            return if empty {
                Ok(Contents::Nothing)
            } else {
                Err(DataDirError::NoIdentity { dir })
            };
        }
        Err(error) => return Err(FileError::new(&file, "reading")(error).into()),
    };
    let held: Held = from_toml(&file, &text)?;
    let dir = dir.to_owned();
    if held.format != FORMAT {
        return Err(DataDirError::Format { dir, held: held.format });
    }
    if held.cluster != identity.cluster {
        let certificate = identity.cluster;
        return Err(DataDirError::OtherCluster { dir, held: held.cluster, certificate });
    }
    if held.server != identity.server {
        let certificate = identity.server;
        return Err(DataDirError::OtherServer { dir, held: held.server, certificate });
    }
    Ok(Contents::Ours)
}

fn try_lock(dir: &Path, lock: &File) -> Result<(), DataDirError> {
    lock.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => DataDirError::InUse { dir: dir.to_owned() },
        TryLockError::Error(error) => FileError::new(&dir.join("lock"), "locking")(error).into(),
    })
}
