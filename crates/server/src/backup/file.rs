//! The file: writing it whole, reading it with suspicion.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use chatty_core::event::{Body, CHAIN_START};
use chatty_core::id::{Generation, Log, ServerId, Slot};
use chatty_core::store::Entry;

use super::{BackupError, MAGIC, Record, Source};
use crate::files::FileError;

/// Bytes of a record, at most: a piece and one event more, with room for what they are wrapped in.
const RECORD_BYTES_MAX: u32 = 1024 * 1024;

/// Bytes on their way out, and the hash over them.
pub(super) struct Sealed<T> {
    take: T,
    hasher: blake3::Hasher,
    begun: Begun,
}

#[derive(PartialEq, Eq)]
enum Begun {
    No,
    Yes,
}

impl<T: FnMut(Vec<u8>) -> bool> Sealed<T> {
    pub(super) fn new(take: T) -> Self {
        Self { take, hasher: blake3::Hasher::new(), begun: Begun::No }
    }

    /// Adds a record; whether more is wanted.
    pub(super) fn put(&mut self, record: &Record) -> bool {
        let mut bytes = match std::mem::replace(&mut self.begun, Begun::Yes) {
            Begun::No => MAGIC.to_vec(),
            Begun::Yes => Vec::new(),
        };
        // Plain data into a vector: postcard has nothing to fail on.
        let body = postcard::to_allocvec(record).unwrap_or_default();
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&body);
        self.hasher.update(&bytes);
        (self.take)(bytes)
    }

    /// Adds the last record.
    pub(super) fn end(&mut self, events: u64) {
        let hash = *self.hasher.finalize().as_bytes();
        self.put(&Record::End { events, hash });
    }
}

/// Writes a file beside `out`, checks it, and puts it in `out`'s place.
pub(super) fn save(
    out: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<Summary, BackupError> {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = out.with_file_name(name);
    let made = save_part(&part, write).and_then(|()| verify(&part)).and_then(|summary| {
        fs::rename(&part, out).map_err(FileError::new(out, "renaming"))?;
        Ok(summary)
    });
    if made.is_err() {
        // Nobody needs a part.
        let _ = fs::remove_file(&part);
    }
    made
}

fn save_part(
    part: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), BackupError> {
    let failed = |source| FileError::new(part, "writing")(source);
    // It holds everybody's messages.
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(part);
    let mut file = BufWriter::new(file.map_err(failed)?);
    write(&mut file).map_err(failed)?;
    let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    Ok(())
}

/// What a whole backup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Whose data it was.
    pub source: Source,
    /// When it was taken, unix milliseconds.
    pub taken_ms: u64,
    /// Who held the slots.
    pub holders: Vec<(Slot, ServerId, Generation)>,
    /// Every disk that its events tell of.
    pub servers: BTreeSet<ServerId>,
    /// Logs.
    pub logs: usize,
    /// Events.
    pub events: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Reads a whole backup and checks all of it: lengths, order, chains and the hash.
///
/// # Errors
/// What is wrong, and where.
pub fn verify(file: &Path) -> Result<Summary, BackupError> {
    scan(file, |_| Ok(()))
}

/// The same of bytes from anywhere; `file` is for the errors.
///
/// # Errors
/// What is wrong, and where.
pub fn verify_from(file: &Path, from: impl Read) -> Result<Summary, BackupError> {
    scan_records(Records::new(file, from)?, |_| Ok(()))
}

/// Reads a backup; `take` is given each piece once its chain is checked.
pub(super) fn scan(
    file: &Path,
    take: impl FnMut(Vec<Entry>) -> Result<(), BackupError>,
) -> Result<Summary, BackupError> {
    let opened = File::open(file).map_err(FileError::new(file, "opening"))?;
    scan_records(Records::new(file, BufReader::new(opened))?, take)
}

fn scan_records<R: Read>(
    mut from: Records<R>,
    mut take: impl FnMut(Vec<Entry>) -> Result<(), BackupError>,
) -> Result<Summary, BackupError> {
    let (source, taken_ms, holders) = match from.next()? {
        Some(Record::Head { source, taken_ms, holders }) => (source, taken_ms, holders),
        Some(_) => return Err(from.damaged("it does not begin with its head")),
        None => return Err(from.cut_off()),
    };
    let mut servers: BTreeSet<ServerId> = holders.iter().map(|(_, server, _)| *server).collect();
    servers.insert(source.server);
    let mut heads: BTreeMap<Log, (u64, u64)> = BTreeMap::new();
    let mut count: u64 = 0;
    loop {
        let before = *from.hasher.finalize().as_bytes();
        match from.next()? {
            Some(Record::Piece { log, base, events, chain }) => {
                let (upto, at) = heads.entry(log).or_insert((0, CHAIN_START));
                let mut entries = Vec::with_capacity(events.len());
                if events.is_empty() || base != *upto + 1 {
                    return Err(from.damaged("a piece of a log is missing"));
                }
                for event in events {
                    if event.seq != *upto + 1 {
                        return Err(from.damaged("an event is missing"));
                    }
                    *upto = event.seq;
                    *at = event.chain(*at);
                    if let Some(Body::Boot(boot)) = event.body() {
                        servers.insert(boot.server);
                    }
                    entries.push(Entry { log, event, chain: *at });
                }
                if *at != chain {
                    return Err(from.damaged("events do not fit their chain"));
                }
                count += entries.len() as u64;
                take(entries)?;
            }
            Some(Record::End { events, hash }) => {
                if hash != before || events != count {
                    return Err(from.damaged("it does not fit its hash"));
                }
                if !from.is_at_end()? {
                    return Err(from.damaged("something follows its end"));
                }
                let (logs, bytes) = (heads.len(), from.at);
                return Ok(Summary { source, taken_ms, holders, servers, logs, events, bytes });
            }
            Some(Record::Failed(why)) => return Err(BackupError::Unfinished(why)),
            Some(Record::Head { .. }) => return Err(from.damaged("it has two heads")),
            None => return Err(from.cut_off()),
        }
    }
}

/// The records of a file, one after the other.
struct Records<R> {
    file: PathBuf,
    from: R,
    hasher: blake3::Hasher,
    at: u64,
}

impl<R: Read> Records<R> {
    fn new(file: &Path, from: R) -> Result<Self, BackupError> {
        let mut records =
            Self { file: file.to_owned(), from, hasher: blake3::Hasher::new(), at: 0 };
        let mut magic = [0; MAGIC.len()];
        if records.fill(&mut magic)? != magic.len() || magic != MAGIC {
            return Err(BackupError::NotABackup { file: file.to_owned() });
        }
        Ok(records)
    }

    /// The next record; `None` at the end of the file.
    fn next(&mut self) -> Result<Option<Record>, BackupError> {
        let mut length = [0; 4];
        match self.fill(&mut length)? {
            0 => return Ok(None),
            4 => {}
            _ => return Err(self.cut_off()),
        }
        let length = u32::from_be_bytes(length);
        if length > RECORD_BYTES_MAX {
            return Err(self.damaged("a record is too long"));
        }
        let mut body = vec![0; length as usize];
        if self.fill(&mut body)? != body.len() {
            return Err(self.cut_off());
        }
        match postcard::take_from_bytes(&body) {
            Ok((record, [])) => Ok(Some(record)),
            _ => Err(self.damaged("a record does not parse")),
        }
    }

    fn fill(&mut self, to: &mut [u8]) -> Result<usize, BackupError> {
        let mut filled = 0;
        while let Some(rest) = to.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.from.read(rest) {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(FileError::new(&self.file, "reading")(error).into()),
            }
        }
        self.hasher.update(to.get(..filled).unwrap_or_default());
        self.at += filled as u64;
        Ok(filled)
    }

    fn is_at_end(&mut self) -> Result<bool, BackupError> {
        Ok(self.fill(&mut [0])? == 0)
    }

    fn damaged(&self, what: &'static str) -> BackupError {
        BackupError::Damaged { file: self.file.clone(), at: self.at, what }
    }

    fn cut_off(&self) -> BackupError {
        BackupError::CutOff { file: self.file.clone(), at: self.at }
    }
}
