//! Making a cluster: its authority, its token key, and a folder for each server that holds all the
//! server needs, to be used in place or copied to another machine.
//!
//! ```text
//! DIR/authority/authority.pem, authority.key, cluster.toml   keep these off the servers
//! DIR/token.key                                              the original of every server's copy
//! DIR/servers/s1/server.toml, server.pem, server.key, authority.pem, token.key, data/
//! DIR/client.toml                                            what a client needs to know
//! ```
//!
//! A second call repairs what is missing and changes nothing else, after an interruption too.
//! `cluster.toml` is the record of what was issued, so it is written before the certificates.

mod foreign;
mod layout;
mod plan;
mod record;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use chatty_core::id::{ClusterId, Generation, ServerId, Slot};
use chatty_core::session::ServerAddr;
use chatty_net::CredentialsError;
use chatty_net::pki::{Authority, Fingerprint, Identity, PkiError, SERVER_VALIDITY};

use crate::config::{self, ConfigError};
use crate::credentials::{identity_of, token_key_text};
use crate::files::{self, FileError, Readable};
use crate::random::{self, NoRandomness};

pub use layout::{Layout, ServerLayout};
pub use plan::Wanted;
use record::{Record, SlotRecord};

/// A certificate with less time left is renewed by `init`.
const RENEW_BELOW: Duration = Duration::from_hours(30 * 24);

/// Why a cluster was not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The cluster is there and is not the one that was asked for.
    #[error("{} holds {is}, not {asked}: {what}", dir.display())]
    Differs {
        /// Which folder.
        dir: PathBuf,
        /// What is there.
        is: String,
        /// What was asked for.
        asked: String,
        /// What to do.
        what: &'static str,
    },
    /// The servers asked for cannot be.
    #[error("{0}")]
    Wanted(String),
    /// The folder holds a part of another cluster.
    #[error(
        "{} is of a cluster whose authority is not here: bring back {} or take another folder",
        file.display(), record.display()
    )]
    Foreign {
        /// What is there.
        file: PathBuf,
        /// What is not.
        record: PathBuf,
    },
    /// There is no cluster in the folder.
    #[error("{}: no cluster is here; make one with: chatty-server init --dir DIR", dir.display())]
    NoCluster {
        /// Which folder.
        dir: PathBuf,
    },
    /// The cluster has no such server.
    #[error("the cluster has no server {name}; it has {known}")]
    NoServer {
        /// Which.
        name: String,
        /// Those it has.
        known: String,
    },
    /// The authority's key is gone, and with it the power to issue certificates.
    #[error("{}: only the original of this file can issue certificates; restore it", file.display())]
    NoAuthority {
        /// Which file.
        file: PathBuf,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file of the cluster says what cannot be.
    #[error(transparent)]
    Content(#[from] ConfigError),
    /// A certificate or key cannot be made or read.
    #[error("{}: {source}", file.display())]
    Pki {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        source: PkiError,
    },
    /// A server's certificate cannot be read.
    #[error("{}: {source}", file.display())]
    Certificate {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        source: CredentialsError,
    },
    /// The certificate is not of the slot's newest identity.
    #[error("{}: this is not the newest certificate of its server; bring that back, or: chatty-server reissue", file.display())]
    NotNewest {
        /// Which file.
        file: PathBuf,
    },
    /// The system gave no random numbers.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

/// A cluster on disk.
#[derive(Debug)]
pub struct Cluster {
    /// Its files.
    pub layout: Layout,
    /// Its servers.
    pub servers: Vec<ServerAddr>,
    /// Its authority's fingerprint.
    pub authority: Fingerprint,
}

impl Cluster {
    /// What a client on another machine is told.
    pub fn url(&self) -> String {
        let addresses: Vec<&str> = self.servers.iter().map(|server| server.addr.as_str()).collect();
        format!("chatty://{}/#{}", addresses.join(","), self.authority)
    }
}

/// Makes a cluster, or what is missing of it.
///
/// # Errors
/// See [`InitError`]. An interrupted call is finished by the next one.
pub fn init(dir: &Path, wanted: &Wanted) -> Result<Cluster, InitError> {
    let layout = Layout::of(dir);
    let (authority, record) = match Record::load(&layout)? {
        Some(record) => {
            wanted.check_against(dir, &record.servers())?;
            (load_authority(&layout)?, record)
        }
        None => {
            let servers = wanted.servers()?;
            foreign::check(&layout)?;
            files::make_folder(&layout.authority_dir(), Readable::ByOwner)?;
            let authority = make_authority(&layout)?;
            let record = Record::new(authority.cluster(), &servers)?;
            record.save(&layout)?;
            (authority, record)
        }
    };
    if !layout.token_key().exists() {
        let key = random::hex_key()?;
        let text = token_key_text(record.cluster, &key);
        files::write(&layout.token_key(), &text, Readable::ByOwner)?;
    }
    for slot in &record.slots {
        make_server(&layout, &authority, &record, slot)?;
    }
    write_client(&layout, &authority, &record)?;
    open(dir)
}

/// What is in a cluster's folder, for clients.
///
/// # Errors
/// See [`InitError`].
pub fn open(dir: &Path) -> Result<Cluster, InitError> {
    let layout = Layout::of(dir);
    let client = record::Client::load(&layout)?
        .ok_or_else(|| InitError::NoCluster { dir: dir.to_owned() })?;
    Ok(Cluster { layout, servers: client.servers, authority: client.authority })
}

/// Gives a slot a new [`ServerId`] with a certificate of the next generation: the others then
/// fence the old one for good. The slot's data folder is not touched; it must be empty before the
/// server starts again.
///
/// # Errors
/// See [`InitError`].
pub fn reissue(dir: &Path, name: &str) -> Result<Identity, InitError> {
    let layout = Layout::of(dir);
    let mut record = load_record(dir)?;
    let authority = load_authority(&layout)?;
    let at = record.position(name)?;
    let Some(slot) = record.slots.get_mut(at) else { return Err(record.unknown(name)) };
    slot.generation += 1;
    slot.server = ServerId::new(random::bits128()?);
    let slot = slot.clone();
    // First the record: a generation is never issued twice.
    record.save(&layout)?;
    let identity = identity(&record, &slot);
    issue(&layout, &authority, &identity)?;
    Ok(identity)
}

/// Issues new certificates for servers as they are (all, if none is named): the same identity and
/// the same key, valid for `validity` from now.
///
/// # Errors
/// See [`InitError`]. With an unknown name nothing is issued.
pub fn renew(dir: &Path, names: &[String], validity: Duration) -> Result<Vec<Identity>, InitError> {
    let layout = Layout::of(dir);
    let record = load_record(dir)?;
    let authority = load_authority(&layout)?;
    for name in names {
        record.position(name)?;
    }
    let wanted = |slot: &&SlotRecord| names.is_empty() || names.contains(&slot.name.to_string());
    let mut renewed = Vec::new();
    for slot in record.slots.iter().filter(wanted) {
        let (identity, server) = (identity(&record, slot), layout.server(&slot.name));
        let old = files::read(&server.cert())?;
        let file = server.cert();
        let (held, _) = identity_of(&old)
            .map_err(|source| InitError::Certificate { file: file.clone(), source })?;
        if held != identity {
            return Err(InitError::NotNewest { file });
        }
        let new = authority
            .renew_server(&identity, &old, validity)
            .map_err(|source| InitError::Pki { file, source })?;
        files::write(&server.cert(), &new, Readable::ByAll)?;
        renewed.push(identity);
    }
    Ok(renewed)
}

/// The cluster whose authority is in that folder.
///
/// # Errors
/// See [`InitError`].
pub fn cluster_id(dir: &Path) -> Result<ClusterId, InitError> {
    Ok(load_record(dir)?.cluster)
}

fn load_record(dir: &Path) -> Result<Record, InitError> {
    let record = Record::load(&Layout::of(dir))?;
    record.ok_or_else(|| InitError::NoCluster { dir: dir.to_owned() })
}

fn make_authority(layout: &Layout) -> Result<Authority, InitError> {
    if layout.authority_cert().exists() {
        return load_authority(layout);
    }
    let file = layout.authority_cert();
    let made = Authority::generate(ClusterId::new(random::uuid_v4()?));
    let authority = made.map_err(|source| InitError::Pki { file: file.clone(), source })?;
    files::write(&layout.authority_key(), &authority.key_pem(), Readable::ByOwner)?;
    files::write(&file, authority.cert_pem(), Readable::ByAll)?;
    Ok(authority)
}

fn load_authority(layout: &Layout) -> Result<Authority, InitError> {
    for file in [layout.authority_cert(), layout.authority_key()] {
        if !file.exists() {
            return Err(InitError::NoAuthority { file });
        }
    }
    let cert = files::read(&layout.authority_cert())?;
    let key = files::read(&layout.authority_key())?;
    let file = layout.authority_key();
    Authority::load(&cert, &key).map_err(|source| InitError::Pki { file, source })
}

fn make_server(
    layout: &Layout,
    authority: &Authority,
    record: &Record,
    slot: &SlotRecord,
) -> Result<(), InitError> {
    let server = layout.server(&slot.name);
    files::make_folder(&server.dir, Readable::ByOwner)?;
    files::make_folder(&server.data(), Readable::ByOwner)?;
    if !server.config().exists() {
        let text = config::template(&slot.name, plan::listen(&slot.addr), &record.servers());
        files::write(&server.config(), &text, Readable::ByAll)?;
    }
    if !server.authority().exists() {
        files::write(&server.authority(), authority.cert_pem(), Readable::ByAll)?;
    }
    if !server.token_key().exists() {
        let key = files::read(&layout.token_key())?;
        files::write(&server.token_key(), &key, Readable::ByOwner)?;
    }
    let good = server.cert().exists() && server.key().exists() && {
        let pem = files::read(&server.cert())?;
        let file = server.cert();
        let (held, ends) =
            identity_of(&pem).map_err(|source| InitError::Certificate { file, source })?;
        held == identity(record, slot) && ends.left(SystemTime::now()) > RENEW_BELOW
    };
    if good { Ok(()) } else { issue(layout, authority, &identity(record, slot)) }
}

/// Key first: a certificate without its key is noticed and issued again.
fn issue(layout: &Layout, authority: &Authority, identity: &Identity) -> Result<(), InitError> {
    let server = layout.server(&identity.slot);
    let file = server.cert();
    let issued = authority.issue_server(identity, SERVER_VALIDITY);
    let credentials = issued.map_err(|source| InitError::Pki { file, source })?;
    files::make_folder(&server.dir, Readable::ByOwner)?;
    files::write(&server.key(), &credentials.key_pem, Readable::ByOwner)?;
    files::write(&server.cert(), &credentials.cert_pem, Readable::ByAll)?;
    Ok(())
}

fn identity(record: &Record, slot: &SlotRecord) -> Identity {
    Identity {
        cluster: record.cluster,
        slot: slot.name.clone(),
        generation: slot.generation,
        server: slot.server,
    }
}

fn write_client(layout: &Layout, authority: &Authority, record: &Record) -> Result<(), InitError> {
    if layout.client().exists() {
        return Ok(());
    }
    let client = record::Client {
        cluster: record.cluster,
        authority: authority.fingerprint(),
        servers: record.servers(),
    };
    Ok(files::write(&layout.client(), &client.to_toml(), Readable::ByAll)?)
}

/// The first certificate of a slot.
const FIRST: Generation = 0;

impl SlotRecord {
    fn first(name: Slot, addr: String) -> Result<Self, NoRandomness> {
        Ok(Self { name, addr, generation: FIRST, server: ServerId::new(random::bits128()?) })
    }
}

#[cfg(test)]
mod tests;
