//! The socket's file: private from its first moment, of any path length, and never stale.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// In the data folder.
const NAME: &str = "control.sock";
/// A socket's address holds a path of 107 bytes; from this length on it is reached through the
/// folder's descriptor.
const PATH_BYTES_MAX: usize = 100;

/// A folder, and a path to it that is short enough for a socket's address.
struct Folder {
    path: PathBuf,
    // The path may lead through it.
    _open: Option<File>,
}

impl Folder {
    fn of(dir: &Path) -> io::Result<Self> {
        if dir.as_os_str().len() + "/".len() + NAME.len() + ".new".len() <= PATH_BYTES_MAX {
            return Ok(Self { path: dir.to_owned(), _open: None });
        }
        let open = File::open(dir)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        Ok(Self { path, _open: Some(open) })
    }
}

/// The socket of a running server; dropped, its file is gone.
pub(crate) struct Socket {
    listener: UnixListener,
    file: PathBuf,
}

impl Socket {
    /// Makes it. The caller holds the data folder's lock, so a socket that is there was left by a
    /// process that is gone. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn bind(dir: &Path) -> io::Result<Self> {
        let folder = Folder::of(dir)?;
        let new = folder.path.join(format!("{NAME}.new"));
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = StdListener::bind(&new)?;
        listener.set_nonblocking(true)?;
        // Under its name only when nobody else may connect; that replaces a stale one, too.
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
        fs::rename(&new, folder.path.join(NAME))?;
        Ok(Self { listener: UnixListener::from_std(listener)?, file: dir.join(NAME) })
    }

    pub(crate) fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Left behind, it is replaced by the next start.
        let _ = fs::remove_file(&self.file);
    }
}

/// Connects to the server that uses a data folder.
pub(super) fn connect(dir: &Path) -> io::Result<StdStream> {
    StdStream::connect(Folder::of(dir)?.path.join(NAME))
}
