//! The other end of the door: what the commands say to a running server.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Command, Otherwise, Reply, socket};
use crate::config::Config;
use crate::data_dir::{self, DataDirError};

/// Bytes of a line of the server, at most.
const REPLY_BYTES: u64 = 64 * 1024;
/// From its last word until its process has let go of the data folder.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Why a running server did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens at the data folder's socket.
    #[error("{}: no server uses this data folder ({source}); is it running, as a user you may speak to?", data.display())]
    NotRunning {
        /// The data folder.
        data: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It says why it did not.
    #[error("{0}")]
    Refused(String),
    /// The connection failed.
    #[error("the server's answer is cut off: {0}")]
    Cut(#[from] io::Error),
    /// It is done and yet there.
    #[error("{}: the server said that it stops, and still has its data folder after {END_LIMIT:?}", data.display())]
    DoesNotEnd {
        /// The data folder.
        data: PathBuf,
    },
}

/// A command that was given.
struct Asked(BufReader<UnixStream>);

impl Asked {
    fn begin(data: &Path, command: &Command) -> Result<Self, AskError> {
        let mut stream = socket::connect(data)
            .map_err(|source| AskError::NotRunning { data: data.to_owned(), source })?;
        let mut line = serde_json::to_vec(command).map_err(io::Error::from)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        Ok(Self(BufReader::new(stream)))
    }

    fn reply(&mut self) -> Result<Reply, AskError> {
        let mut line = String::new();
        (&mut self.0).take(REPLY_BYTES).read_line(&mut line)?;
        if line.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match serde_json::from_str(&line).map_err(io::Error::from)? {
            Reply::Error(why) => Err(AskError::Refused(why)),
            reply => Ok(reply),
        }
    }

    /// Waits for the last word; `tell` is given what comes before.
    fn finish(&mut self, mut tell: impl FnMut(&str)) -> Result<String, AskError> {
        loop {
            match self.reply()? {
                Reply::Progress(line) => tell(&line),
                Reply::Done(what) => return Ok(what),
                Reply::Bytes | Reply::Error(_) => {
                    return Err(AskError::Refused("it answers another question".into()));
                }
            }
        }
    }
}

/// Drains a running server and waits until its process has ended; gives its last word.
///
/// # Errors
/// See [`AskError`]. A server that could not be drained in time goes on as before.
pub fn drain(
    config: &Config,
    limit: Duration,
    otherwise: Otherwise,
    tell: impl FnMut(&str),
) -> Result<String, AskError> {
    let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    let command = Command::Drain { limit_ms, otherwise };
    let what = Asked::begin(&config.data, &command)?.finish(tell)?;
    let until = Instant::now() + END_LIMIT;
    // Its lock goes with the process.
    while let Err(DataDirError::InUse { .. }) = data_dir::check_free(&config.data) {
        if Instant::now() >= until {
            return Err(AskError::DoesNotEnd { data: config.data.clone() });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(what)
}

/// Has a running server take its certificate anew; tells what it took.
///
/// # Errors
/// See [`AskError`]; the server then goes on with the old one.
pub fn reload(config: &Config) -> Result<String, AskError> {
    Asked::begin(&config.data, &Command::Reload)?.finish(|_| {})
}

/// Asks a running server for a backup: its bytes, to be read to the end.
///
/// # Errors
/// See [`AskError`].
pub fn backup(config: &Config) -> Result<impl Read + use<>, AskError> {
    let mut asked = Asked::begin(&config.data, &Command::Backup)?;
    match asked.reply()? {
        Reply::Bytes => Ok(asked.0),
        _ => Err(AskError::Refused("it answers another question".into())),
    }
}
