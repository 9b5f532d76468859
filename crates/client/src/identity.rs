//! The account, kept in a file from one run to the next.
//!
//! Several processes may share the file: it is replaced as a whole, and while an account is made
//! for the first time a lock beside it lets one process at a time try, so that two that find none
//! end up with the same one.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chatty_core::id::AccountId;
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;

/// Where the account is kept.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum IdentityAt {
    /// In the user's state folder, one file for each cluster and nick.
    #[default]
    StateFolder,
    /// In this file.
    File(PathBuf),
    /// Nowhere: a new guest account each time.
    Nowhere,
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Whose.
    pub account: AccountId,
    /// The token, in hexadecimal digits.
    token: String,
}

impl Kept {
    /// What is to be kept.
    pub fn new(account: AccountId, token: &[u8]) -> Self {
        Self { account, token: hex(token) }
    }

    /// From the text of an account's file; `None` if it says something else.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|kept: &Self| unhex(&kept.token).is_some())
    }

    /// The token.
    pub fn token(&self) -> Vec<u8> {
        unhex(&self.token).unwrap_or_default()
    }
}

/// Why an account could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be used.
    #[error("the account's file {}: {source}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file says something else.
    #[error("{} does not hold an account; delete it to begin with a new one", file.display())]
    Broken {
        /// Which.
        file: PathBuf,
    },
    /// Another process holds the lock.
    #[error("another chatty is making the account {} and has reached no server yet", file.display())]
    Busy {
        /// Which.
        file: PathBuf,
    },
    /// There is no place for it.
    #[error(
        "there is no folder to keep the account in: set HOME or XDG_STATE_HOME, or give --identity FILE"
    )]
    NoHome,
}

/// A file that holds an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFile(PathBuf);

/// What was found.
#[derive(Debug)]
pub enum Found {
    /// The account of last time.
    Account(Kept),
    /// None, and it is this process's turn to make one: hold this until it is saved.
    None(Minting),
}

/// The right to make the account.
#[derive(Debug)]
pub struct Minting {
    _lock: File,
}

impl IdentityFile {
    /// This file.
    pub const fn new(file: PathBuf) -> Self {
        Self(file)
    }

    /// The file of a nick in a cluster, in the user's state folder.
    ///
    /// # Errors
    /// [`IdentityError::NoHome`].
    pub fn of(cluster: &Cluster, nick: &str) -> Result<Self, IdentityError> {
        let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let state = folder("XDG_STATE_HOME")
            .or_else(|| folder("HOME").map(|home| home.join(".local/state")))
            .ok_or(IdentityError::NoHome)?;
        let authority = cluster.authority.to_string();
        let cluster = authority.get(..32).unwrap_or(&authority);
        Ok(Self(find_in(&state.join("chatty").join(cluster), nick)))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn error(&self, source: io::Error) -> IdentityError {
        IdentityError::File { file: self.0.clone(), source }
    }

    /// The account, if there is one.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn load(&self) -> Result<Option<Kept>, IdentityError> {
        let text = match std::fs::read_to_string(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.error(error)),
        };
        let broken = || IdentityError::Broken { file: self.0.clone() };
        Kept::parse(&text).map(Some).ok_or_else(broken)
    }

    /// The account, or the turn to make one; waits for another process that is making it.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub async fn find(&self, patience: Duration) -> Result<Found, IdentityError> {
        let began = Instant::now();
        loop {
            if let Some(kept) = self.load()? {
                return Ok(Found::Account(kept));
            }
            if let Some(lock) = self.try_lock()? {
                // It may have been made between the look and the lock.
                return Ok(match self.load()? {
                    Some(kept) => Found::Account(kept),
                    None => Found::None(Minting { _lock: lock }),
                });
            }
            if began.elapsed() >= patience {
                return Err(IdentityError::Busy { file: self.0.clone() });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn try_lock(&self) -> Result<Option<File>, IdentityError> {
        let locked = || {
            if let Some(folder) = self.0.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            }
            let lock = self.beside("lock");
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(lock)?;
            match file.try_lock() {
                Ok(()) => Ok(Some(file)),
                Err(TryLockError::WouldBlock) => Ok(None),
                Err(TryLockError::Error(error)) => Err(error),
            }
        };
        locked().map_err(|error| self.error(error))
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.0.clone().into_os_string();
        name.push(".");
        name.push(suffix);
        name.into()
    }

    /// Keeps an account: the whole file or, if this fails, the one before.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn save(&self, kept: &Kept) -> Result<(), IdentityError> {
        // Plain strings: JSON has a form for them.
        let text = serde_json::to_string(kept).unwrap_or_default();
        let draft = self.beside(&format!("{}.tmp", std::process::id()));
        let written = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&draft)?;
            writeln!(file, "{text}")?;
            file.sync_all()?;
            std::fs::rename(&draft, &self.0)
        };
        written().map_err(|error| {
            // What is left of the draft is of no use; that it cannot be removed changes nothing.
            let _ = std::fs::remove_file(&draft);
            self.error(error)
        })
    }

    /// The same account under another nick too, unless there is one already.
    pub fn copy_to(&self, other: &Self) {
        if let (Ok(Some(kept)), false) = (self.load(), other.0.exists()) {
            // Without it the new nick begins as a new guest: a pity, not an error.
            let _ = other.save(&kept);
        }
    }

    /// Whether somebody keeps the account still: it may have been deleted meanwhile.
    pub fn exists(&self) -> bool {
        self.0.exists()
    }
}

/// The file of a nick in that folder. Nicks that differ in the case of letters are one nick and
/// have one file, named in lower case; one that was made under another spelling is found still.
fn find_in(folder: &Path, nick: &str) -> PathBuf {
    let name = file_name(&nick.to_lowercase());
    let (file, as_spelt) = (folder.join(&name), folder.join(file_name(nick)));
    if as_spelt.exists() || file.exists() {
        return if as_spelt.exists() { as_spelt } else { file };
    }
    let found = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let same = |other: &String| other.to_lowercase() == name.to_lowercase();
    let mut spelt = found.filter_map(|entry| entry.file_name().into_string().ok()).filter(same);
    spelt.next().map_or(file, |spelt| folder.join(spelt))
}

/// A file name of its own for each name: whatever would leave the folder, and the mark that says
/// so, stand as their numbers.
fn file_name(name: &str) -> String {
    let mut file = String::with_capacity(name.len() + 3);
    for (at, c) in name.chars().enumerate() {
        match c {
            '/' | '\0' | '%' => file.push_str(&format!("%{:02X}", u32::from(c))),
            '.' if at == 0 => file.push_str("%2E"),
            c => file.push(c),
        }
    }
    file + ".id"
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    let byte = |pair: &[u32]| pair.iter().fold(0, |sum, digit| (sum << 4) | digit);
    digits.chunks(2).map(|pair| u8::try_from(byte(pair)).ok()).collect()
}

/// The nick of a user who gave none: `$CHATTY_NICK`, else the login name, made to fit.
pub fn default_nick() -> String {
    let names = ["CHATTY_NICK", "USER", "LOGNAME"];
    let given = names.iter().filter_map(|name| std::env::var(name).ok());
    given.map(|name| fit_nick(&name)).find(|name| !name.is_empty()).unwrap_or("guest".into())
}

/// The nearest nick that is allowed; empty if nothing of it is.
fn fit_nick(name: &str) -> String {
    let replaced = name.trim().chars().map(|c| match c {
        '~' => '-',
        c if c.is_whitespace() || c.is_control() => '_',
        c => c,
    });
    let name: String = replaced.take(chatty_core::session::NICK_CHARS_MAX).collect();
    let name = name.trim_start_matches(['#', '@', '/', '-']);
    chatty_core::session::check_nick(name).map_or(String::new(), |()| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn file(name: &str) -> IdentityFile {
        let folder = std::env::temp_dir().join(format!("chatty-id-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        IdentityFile::new(folder.join("ann.id"))
    }

    #[tokio::test]
    async fn an_account_is_found_again_and_nobody_else_reads_it() {
        let file = file("again");
        let patience = Duration::from_secs(1);
        let Found::None(minting) = file.find(patience).await.unwrap() else { panic!() };
        let kept = Kept::new(AccountId::new(5), &[0, 1, 254, 255]);
        file.save(&kept).unwrap();
        drop(minting);
        let Found::Account(found) = file.find(patience).await.unwrap() else { panic!() };
        assert_eq!((&found, found.token()), (&kept, vec![0, 1, 254, 255]));
        assert_eq!(file.path().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn the_second_to_find_none_waits_and_gets_the_account_of_the_first() {
        let file = file("second");
        let Found::None(minting) = file.find(Duration::ZERO).await.unwrap() else { panic!() };
        let busy = file.find(Duration::from_millis(30)).await;
        assert!(matches!(busy, Err(IdentityError::Busy { .. })), "{busy:?}");
        let waiting = tokio::spawn({
            let file = file.clone();
            async move { file.find(Duration::from_secs(5)).await }
        });
        tokio::task::yield_now().await;
        file.save(&Kept::new(AccountId::new(5), b"first")).unwrap();
        drop(minting);
        let Ok(Found::Account(kept)) = waiting.await.unwrap() else { panic!() };
        assert_eq!(kept.account, AccountId::new(5));
    }

    #[test]
    fn a_broken_file_is_named() {
        let file = file("broken");
        std::fs::create_dir_all(file.path().parent().unwrap()).unwrap();
        std::fs::write(file.path(), "{}").unwrap();
        assert!(matches!(file.load(), Err(IdentityError::Broken { .. })));
    }

    #[test]
    fn each_nick_has_a_file_of_its_own_inside_the_folder() {
        let nicks = ["a_b", "a/b", "a%2Fb", "a%b", ".a", "..a", "a", "%2Ea", "..", ".", "_"];
        let folder = Path::new("/nonexistent");
        let files: std::collections::BTreeSet<_> =
            nicks.iter().map(|nick| find_in(folder, nick)).collect();
        assert_eq!(files.len(), nicks.len(), "{files:?}");
        for file in files {
            assert_eq!(file.parent(), Some(folder), "{file:?}");
            assert!(!file.file_name().unwrap().to_str().unwrap().starts_with('.'), "{file:?}");
        }
    }

    #[test]
    fn one_nick_in_two_cases_is_one_account_and_old_files_are_found() {
        let old = file("cases");
        let folder = old.path().parent().unwrap().to_owned();
        assert_eq!(find_in(&folder, "Ann"), folder.join("ann.id"), "none yet");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("Zoë.id"), "").unwrap();
        for nick in ["Zoë", "zoë", "ZOË"] {
            assert_eq!(find_in(&folder, nick), folder.join("Zoë.id"), "{nick}");
        }
        std::fs::write(folder.join("zoë.id"), "").unwrap();
        assert_eq!(find_in(&folder, "Zoë"), folder.join("Zoë.id"), "as it was found before");
        assert_eq!(find_in(&folder, "ZOË"), folder.join("zoë.id"));
    }

    #[test]
    fn login_names_are_made_to_fit() {
        assert_eq!(fit_nick("ann lee"), "ann_lee");
        assert_eq!(fit_nick("-x~y"), "x-y");
        assert_eq!(fit_nick("#@"), "");
        assert_eq!(fit_nick(&"x".repeat(80)).len(), 32);
    }
}
