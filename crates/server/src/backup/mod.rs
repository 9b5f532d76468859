//! A server's data in one file: every log with its events, as they are on the disk, in an order and
//! form that do not depend on the database.
//!
//! ```text
//! "chatty backup 1\n"
//! records: u32 length (big-endian), postcard of a Record:
//!   Head, Piece of a log, …, End with the BLAKE3 of all bytes before it
//! ```
//!
//! What is derived from events (timelines, names, digests) is made anew by a restore. The logs are
//! cut at one moment: all that was durable when the backup began, nothing that came later.

mod file;
mod restore;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use chatty_core::event::{CHAIN_START, Event};
use chatty_core::id::{ClusterId, Generation, Log, ServerId, Slot};
use chatty_core::store::{Query, Reader, Rows, SlotHolder, Store, StoreError};
use chatty_core::vector::Vector;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::check::CheckError;
use crate::config::Config;
use crate::control::{self, AskError};
use crate::credentials;
use crate::data_dir::DataDir;
use crate::files::FileError;
use crate::init::InitError;
use crate::store::FjallStore;
use file::Sealed;

pub use file::{Summary, verify, verify_from};
pub use restore::restore;

/// The first bytes of a backup.
const MAGIC: &[u8] = b"chatty backup 1\n";
/// Bytes of events in a piece.
const PIECE_BYTES: usize = 256 * 1024;
/// Pieces read ahead of whoever takes them.
const AHEAD: usize = 4;

/// Whose data it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The cluster.
    pub cluster: ClusterId,
    /// The slot.
    pub slot: Slot,
    /// The disk.
    pub server: ServerId,
}

/// What a server has on disk at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// How far each log goes.
    pub(crate) vector: Arc<Vector>,
    /// Who holds each slot.
    pub(crate) holders: Vec<SlotHolder>,
}

#[derive(Serialize, Deserialize)]
enum Record {
    Head {
        source: Source,
        taken_ms: u64,
        holders: Vec<(Slot, ServerId, Generation)>,
    },
    /// Events `base..` of a log, and the chain at the last.
    Piece {
        log: Log,
        base: u64,
        events: Vec<Arc<Event>>,
        chain: u64,
    },
    /// It could not be finished.
    Failed(String),
    /// The hash is over everything before this record's length.
    End {
        events: u64,
        hash: [u8; 32],
    },
}

/// Why there is no backup, or no restore. Nothing was changed, unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is something else.
    #[error("{}: this is no backup of chatty", file.display())]
    NotABackup {
        /// Which file.
        file: PathBuf,
    },
    /// The end is missing.
    #[error("{}: the backup is cut off after {at} bytes; take another one", file.display())]
    CutOff {
        /// Which file.
        file: PathBuf,
        /// So much is there.
        at: u64,
    },
    /// It is not as it was written.
    #[error("{}: the backup is damaged before byte {at} ({what}); take another one", file.display())]
    Damaged {
        /// Which file.
        file: PathBuf,
        /// Where it was noticed.
        at: u64,
        /// What does not fit.
        what: &'static str,
    },
    /// The server could not finish it.
    #[error("the server could not read all of its data: {0}")]
    Unfinished(String),
    /// It is of another cluster.
    #[error("the backup is of cluster {backup}, the certificate of {certificate}")]
    OtherCluster {
        /// Of the backup.
        backup: ClusterId,
        /// Of the certificate.
        certificate: ClusterId,
    },
    /// The identity is not new.
    #[error(
        "the certificate is of server {server}, which the others know with other data; get a new \
         identity first: chatty-server reissue --dir DIR {slot} (or restore with --dir DIR)"
    )]
    NotNew {
        /// Which.
        server: ServerId,
        /// Its slot.
        slot: Slot,
    },
    /// The data folder is not empty.
    #[error("{}: the data folder holds data ({what}); a backup is restored into an empty one", data.display())]
    NotEmpty {
        /// Which folder.
        data: PathBuf,
        /// What is there.
        what: String,
    },
    /// The new certificate was written to where the server does not look for it.
    #[error("the new certificate is in {}; copy it and its key to {}, then restore without --dir", issued.display(), wanted.display())]
    Elsewhere {
        /// Where it is.
        issued: PathBuf,
        /// Where the server looks.
        wanted: PathBuf,
    },
    /// The authority issues nothing.
    #[error(transparent)]
    Init(#[from] InitError),
    /// Configuration, certificate or data folder cannot be used.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The running server refused.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The database.
    #[error("{}: {source}", data.display())]
    Store {
        /// The data folder.
        data: PathBuf,
        /// What is wrong.
        source: StoreError,
    },
}

/// Reads everything in a thread of its own; the bytes of the backup come piece by piece. Dropping
/// the receiver ends it.
pub(crate) fn read(
    reader: impl Reader + 'static,
    source: Source,
    held: Held,
) -> mpsc::Receiver<Vec<u8>> {
    let (to, pieces) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        produce(&reader, source, &held, |bytes| to.blocking_send(bytes).is_ok());
    });
    pieces
}

/// Makes a backup; `take` is given its bytes and says whether it wants more.
fn produce(reader: &impl Reader, source: Source, held: &Held, take: impl FnMut(Vec<u8>) -> bool) {
    let mut to = Sealed::new(take);
    if let Err(why) = pieces(reader, source, held, &mut to) {
        tracing::error!("a backup is not finished: {why}");
        to.put(&Record::Failed(why));
    }
}

fn pieces<T: FnMut(Vec<u8>) -> bool>(
    reader: &impl Reader,
    source: Source,
    held: &Held,
    to: &mut Sealed<T>,
) -> Result<(), String> {
    let taken = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let holders = held.holders.iter().map(|h| (h.slot.clone(), h.server, h.generation)).collect();
    let taken_ms = u64::try_from(taken.as_millis()).unwrap_or(u64::MAX);
    to.put(&Record::Head { source, taken_ms, holders });
    let mut count = 0;
    for (log, upto) in held.vector.iter() {
        let (mut base, mut chain) = (1, CHAIN_START);
        while base <= upto {
            let query = Query::Events { log, from: base, to: upto, bytes_max: PIECE_BYTES };
            let entries = match reader.read(&query).map_err(|error| error.to_string())? {
                Rows::Events(entries) if !entries.is_empty() => entries,
                Rows::Failed(why) => return Err(why),
                _ => return Err(format!("event {base} of log {log} is missing")),
            };
            for entry in &entries {
                chain = entry.event.chain(chain);
                if chain != entry.chain {
                    let seq = entry.event.seq;
                    return Err(format!("event {seq} of log {log} does not fit its chain"));
                }
            }
            let events: Vec<_> = entries.into_iter().map(|entry| entry.event).collect();
            let length = u64::try_from(events.len()).unwrap_or(u64::MAX);
            if !to.put(&Record::Piece { log, base, events, chain }) {
                return Ok(());
            }
            base += length;
            count += length;
        }
    }
    to.end(count);
    Ok(())
}

/// Writes a backup of a server, running or not, to a file; replaces a file that is there only by a
/// whole backup.
///
/// # Errors
/// See [`BackupError`].
pub fn backup(config: &Config, out: &Path) -> Result<Summary, BackupError> {
    match control::backup(config) {
        Ok(mut bytes) => file::save(out, |to| io::copy(&mut bytes.by_ref(), to).map(drop)),
        Err(AskError::NotRunning { .. }) => backup_stopped(config, out),
        Err(error) => Err(error.into()),
    }
}

fn backup_stopped(config: &Config, out: &Path) -> Result<Summary, BackupError> {
    let proof = credentials::load(config).map_err(CheckError::from)?;
    let data = DataDir::open(&config.data, &proof.identity).map_err(CheckError::from)?;
    let broken = |source| BackupError::Store { data: config.data.clone(), source };
    let mut store = FjallStore::open(&data.database()).map_err(broken)?;
    let loaded = store.load().map_err(broken)?;
    let held = Held {
        vector: Arc::new(loaded.logs.iter().map(|log| (log.log, log.upto)).collect()),
        holders: loaded.slots,
    };
    let source = Source {
        cluster: proof.identity.cluster,
        slot: proof.identity.slot,
        server: proof.identity.server,
    };
    file::save(out, |to| {
        let mut failed = Ok(());
        produce(&store.reader(), source, &held, |bytes| {
            failed = to.write_all(&bytes);
            failed.is_ok()
        });
        failed
    })
}

#[cfg(test)]
mod tests;
