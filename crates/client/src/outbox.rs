//! The outbox in a file: what a client was told to say, until it is replicated.
//!
//! A header says what the file is and of which cluster. After it stand frames, each a batch of
//! notes ([`chatty_core::client::Note`]) with a checksum over its place and its bytes. A frame is
//! fsynced before the next one is written, so only the last one can be torn by a crash: it is
//! dropped, and nothing that it noted has left the process. A broken frame before a sound one is
//! damage, and the file is refused: an id lost from the middle would let a message be said twice.
//! Damage to the last frame looks like a torn one.
//!
//! One process at a time has the file (a lock on it, gone with the process). It is written anew,
//! beside, and renamed whenever it is opened and when it has grown.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use chatty_core::client::{Journal, Note};
use ring::digest::{SHA256, digest};

use crate::cluster::Cluster;

const MAGIC: &[u8; 16] = b"chatty outbox 1\n";
/// Magic, cluster, checksum.
const HEADER_BYTES: usize = 16 + 32 + SUM_BYTES;
const SUM_BYTES: usize = 8;
/// In front of each frame, to find sound ones behind a broken one.
const MARKER: &[u8; 4] = b"\xf0\x9fbx";
/// Marker, length, checksum.
const FRAME_HEAD_BYTES: usize = 4 + 4 + SUM_BYTES;
/// A file is written anew when it is four times as long as after the last time, and this long.
const REWRITE_BYTES_MIN: u64 = 64 * 1024;

/// Where what is said waits to be replicated.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum OutboxAt {
    /// In this process alone.
    #[default]
    Nowhere,
    /// In a file beside the account's, one for each cluster and nick. While another process has
    /// it, in this process alone.
    BesideIdentity,
    /// In this file.
    File(PathBuf),
}

/// Why a file cannot be the outbox. It was not changed.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The system refuses.
    #[error("the outbox {}: {source}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process has it.
    #[error("another chatty has the outbox {} open; end it, or use another file", file.display())]
    Busy {
        /// Which.
        file: PathBuf,
    },
    /// It is something else.
    #[error("{} is not an outbox of chatty; name another file", file.display())]
    Foreign {
        /// Which.
        file: PathBuf,
    },
    /// It is another cluster's.
    #[error("the outbox {} is of another cluster; name another file", file.display())]
    OtherCluster {
        /// Which.
        file: PathBuf,
    },
    /// It is another account's, and messages wait in it.
    #[error(
        "{count} messages in the outbox {} are of another account; come with that account's \
         identity, or name another file", file.display()
    )]
    OtherAccount {
        /// Which.
        file: PathBuf,
        /// How many messages.
        count: usize,
    },
    /// Its bytes have changed.
    #[error(
        "the outbox {} is damaged at byte {at}: sending from it could say things twice. Move it \
         away; {} can be read in it", file.display(), messages(*.count)
    )]
    Damaged {
        /// Which.
        file: PathBuf,
        /// Where.
        at: usize,
        /// Messages that waited before that place.
        count: usize,
    },
}

fn messages(count: usize) -> String {
    if count == 1 { "1 message".into() } else { format!("{count} messages") }
}

/// An outbox that this process has.
#[derive(Debug)]
pub struct OutboxFile {
    path: PathBuf,
    cluster: [u8; 32],
    /// The newest file of that name, locked.
    file: File,
    length: u64,
    /// Its length when it was written anew.
    base: u64,
    journal: Journal,
}

impl OutboxFile {
    /// Opens or makes the file, readable by its owner alone, and takes out what it holds.
    ///
    /// # Errors
    /// See [`OutboxError`].
    pub fn open(path: &Path, cluster: &Cluster) -> Result<Self, OutboxError> {
        let error = |source| OutboxError::File { file: path.to_owned(), source };
        let (path, mut file) = lock(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(error)?;
        let journal = parse(&path, cluster, &bytes)?;
        let cluster = id(cluster);
        let mut outbox = Self { path, cluster, file, length: 0, base: 0, journal };
        outbox
            .rewrite()
            .map_err(|source| OutboxError::File { file: outbox.path.clone(), source })?;
        Ok(outbox)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds.
    pub const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Writes notes down; they are on disk when this returns.
    ///
    /// # Errors
    /// What the system says. Then the file holds them or not: see [`Self::give_up`].
    pub fn append(&mut self, notes: Vec<Note>) -> io::Result<()> {
        let frame = frame(self.length, &notes)?;
        for note in notes {
            self.journal.apply(note);
        }
        if self.length + frame.len() as u64 > REWRITE_BYTES_MIN.max(self.base.saturating_mul(4)) {
            return self.rewrite();
        }
        self.file.write_all(&frame)?;
        self.length += frame.len() as u64;
        self.file.sync_data()
    }

    /// Empties the file after a failure: half of what was said is worse than nothing, since a
    /// message without its id would be said again.
    ///
    /// # Errors
    /// What the system says: then the file must not be used again.
    pub fn give_up(self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.sync_data()
    }

    /// Writes the fewest notes into a new file and puts it in place of this one.
    fn rewrite(&mut self) -> io::Result<()> {
        let mut bytes = header(&self.cluster);
        let notes = self.journal.notes();
        if !notes.is_empty() {
            let frame = frame(bytes.len() as u64, &notes)?;
            bytes.extend(frame);
        }
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        let draft = PathBuf::from(name);
        let written = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&draft)?;
            // Nobody else opens drafts of an outbox that is locked.
            file.try_lock()?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&draft, &self.path)?;
            Ok(file)
        };
        self.file = written().inspect_err(|_: &io::Error| {
            // What is left of the draft is of no use; that it cannot be removed changes nothing.
            let _ = std::fs::remove_file(&draft);
        })?;
        self.length = bytes.len() as u64;
        self.base = self.length;
        match self.path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }
}

/// The file that has that name now, locked; and where it really is.
fn lock(path: &Path) -> Result<(PathBuf, File), OutboxError> {
    let error = |source| OutboxError::File { file: path.to_owned(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(error)?;
    }
    loop {
        // A pipe or a device is not opened: that alone could block, or do something.
        if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return Err(OutboxError::Foreign { file: path.to_owned() });
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(error)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OutboxError::Busy { file: path.to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(error(source)),
        }
        let path = path.canonicalize().map_err(error)?;
        // Another process may have put a new file in its place between the opening and the lock.
        let (mine, named) = (file.metadata().map_err(error)?, path.metadata().map_err(error)?);
        if (mine.dev(), mine.ino()) == (named.dev(), named.ino()) {
            return Ok((path, file));
        }
    }
}

/// The cluster in 32 bytes: a hash of its authority's name.
fn id(cluster: &Cluster) -> [u8; 32] {
    let whole = digest(&SHA256, cluster.authority.to_string().as_bytes());
    first(whole.as_ref())
}

/// The first bytes of a hash, which has at least as many.
fn first<const N: usize>(hash: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.iter_mut().zip(hash).for_each(|(to, from)| *to = *from);
    bytes
}

fn header(cluster: &[u8; 32]) -> Vec<u8> {
    let mut bytes = [&MAGIC[..], cluster].concat();
    bytes.extend(sum(&[&bytes]));
    bytes
}

fn frame(at: u64, notes: &Vec<Note>) -> io::Result<Vec<u8>> {
    frame_of(at, &Note::encode(notes))
}

/// A frame around encoded notes, to stand at that place of a file.
///
/// # Errors
/// They are too long.
#[doc(hidden)]
pub fn frame_of(at: u64, body: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(body.len()).map_err(|_| io::ErrorKind::FileTooLarge)?.to_le_bytes();
    let sum = sum(&[&at.to_le_bytes(), &length, body]);
    Ok([&MARKER[..], &length, &sum, body].concat())
}

/// An outbox of that cluster with nothing in it.
#[doc(hidden)]
pub fn empty(cluster: &Cluster) -> Vec<u8> {
    header(&id(cluster))
}

fn sum(parts: &[&[u8]]) -> [u8; SUM_BYTES] {
    first(digest(&SHA256, &parts.concat()).as_ref())
}

/// What the bytes of an outbox of that cluster say; `path` is for the errors.
///
/// # Errors
/// See [`OutboxError`].
pub fn parse(path: &Path, cluster: &Cluster, bytes: &[u8]) -> Result<Journal, OutboxError> {
    read(path, &id(cluster), bytes)
}

fn read(path: &Path, cluster: &[u8; 32], bytes: &[u8]) -> Result<Journal, OutboxError> {
    if bytes.is_empty() {
        return Ok(Journal::default());
    }
    let file = || path.to_owned();
    let Some((head, _)) = bytes.split_at_checked(HEADER_BYTES) else {
        return Err(OutboxError::Foreign { file: file() });
    };
    if !head.starts_with(MAGIC) {
        return Err(OutboxError::Foreign { file: file() });
    }
    if head != header(cluster) {
        let (said, told) = head.split_at(HEADER_BYTES - SUM_BYTES);
        if sum(&[said]) == told {
            return Err(OutboxError::OtherCluster { file: file() });
        }
        return Err(OutboxError::Damaged { file: file(), at: 0, count: 0 });
    }
    let mut journal = Journal::default();
    let mut at = HEADER_BYTES;
    while at < bytes.len() {
        let Some((notes, next)) = frame_at(bytes, at) else {
            let sound_one_follows = (at + 1..bytes.len()).any(|at| frame_at(bytes, at).is_some());
            if sound_one_follows {
                let count = journal.messages().len();
                return Err(OutboxError::Damaged { file: file(), at, count });
            }
            break;
        };
        for note in notes {
            journal.apply(note);
        }
        at = next;
    }
    Ok(journal)
}

/// The frame at a place and where the next one begins; `None` if there is no sound one.
fn frame_at(bytes: &[u8], at: usize) -> Option<(Vec<Note>, usize)> {
    let rest = bytes.get(at..)?.strip_prefix(MARKER)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (told, rest) = rest.split_first_chunk::<SUM_BYTES>()?;
    let body = rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    if sum(&[&(at as u64).to_le_bytes(), length, body]) != *told {
        return None;
    }
    Some((Note::decode(body)?, at + FRAME_HEAD_BYTES + body.len()))
}

#[cfg(test)]
mod tests;
