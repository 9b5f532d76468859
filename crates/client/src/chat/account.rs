//! The account of a session, and the file that keeps it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use chatty_core::client::Client;
use chatty_core::id::AccountId;
use chatty_core::session::check_nick;

use super::{ConnectError, Options};
use crate::cluster::Cluster;
use crate::identity::{
    Found, IdentityAt, IdentityError, IdentityFile, Kept, Minting, default_nick,
};

/// How often a newer token is kept.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// The account and its file.
pub(super) struct Account {
    file: Option<IdentityFile>,
    /// The cluster, to find the file of another nick; `None` if the user named the file.
    cluster: Option<Cluster>,
    pub(super) token: Vec<u8>,
    /// Whose it is; `None` before the first attach.
    pub(super) id: Option<AccountId>,
    /// The name to ask for.
    pub(super) wish: Option<String>,
    minting: Option<Minting>,
    saved_at: Instant,
}

impl Account {
    pub(super) async fn find(cluster: &Cluster, options: &Options) -> Result<Self, ConnectError> {
        let asked = options.nick.clone().or_else(|| {
            let given = std::env::var("CHATTY_NICK").ok()?;
            check_nick(&given).is_ok().then_some(given)
        });
        let name = asked.clone().unwrap_or_else(default_nick);
        let (file, cluster) = match &options.identity {
            IdentityAt::StateFolder => {
                (Some(IdentityFile::of(cluster, &name)?), Some(cluster.clone()))
            }
            IdentityAt::File(file) => (Some(IdentityFile::new(file.clone())), None),
            IdentityAt::Nowhere => (None, None),
        };
        let saved_at = Instant::now();
        let mut account = Self {
            file,
            cluster,
            token: Vec::new(),
            id: None,
            wish: Some(name),
            minting: None,
            saved_at,
        };
        match &account.file {
            // A passing guest claims no name that he did not ask for.
            None => account.wish = asked,
            Some(file) => match file.find(options.patience).await? {
                Found::None(minting) => account.minting = Some(minting),
                Found::Account(kept) => {
                    account.token = kept.token();
                    account.id = Some(kept.account);
                    // The account has a name of its own, perhaps another than the nick under
                    // which it was found: `nick` changes it. A file named by the user tells
                    // nothing of a name, so there a nick is a wish.
                    account.wish = asked.filter(|_| account.cluster.is_none());
                }
            },
        }
        Ok(account)
    }

    /// Where the outbox of this account is, if the account is kept in a file.
    pub(super) fn outbox_path(&self) -> Option<PathBuf> {
        self.file.as_ref().map(|file| file.path().with_extension("outbox"))
    }

    /// Keeps the newest token. A file that somebody deleted meanwhile stays deleted.
    pub(super) fn save(&mut self, client: &Client) -> Result<(), IdentityError> {
        self.saved_at = Instant::now();
        let (Some(file), Some(account)) = (&self.file, client.account()) else { return Ok(()) };
        if client.token() == self.token || (self.minting.is_none() && !file.exists()) {
            return Ok(());
        }
        file.save(&Kept::new(account, client.token()))?;
        self.token = client.token().to_vec();
        self.minting = None;
        Ok(())
    }

    /// Whether it is time to keep a newer token.
    pub(super) fn is_save_due(&self) -> bool {
        self.saved_at.elapsed() >= SAVE_EVERY
    }

    /// Keeps nothing from now on: the account lasts as long as this process.
    pub(super) fn give_up(&mut self) {
        self.file = None;
    }

    /// The account is found under its new name, too.
    pub(super) fn renamed(&self, nick: &str) {
        if let (Some(file), Some(cluster)) = (&self.file, &self.cluster)
            && let Ok(other) = IdentityFile::of(cluster, nick)
        {
            file.copy_to(&other);
        }
    }
}
