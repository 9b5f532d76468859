//! The files in which a cluster is written down: `cluster.toml` for the authority, `client.toml`
//! for clients.

use chatty_core::id::{ClusterId, Generation, ServerId, Slot};
use chatty_core::session::ServerAddr;
use chatty_net::Fingerprint;
use serde::{Deserialize, Serialize};

use super::{InitError, Layout};
use crate::config::{self, ConfigError, RawServer};
use crate::files::{self, FileError, Readable};
use crate::random::NoRandomness;

/// Which certificates were issued.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) cluster: ClusterId,
    #[serde(rename = "servers")]
    pub(super) slots: Vec<SlotRecord>,
}

/// The newest certificate of a slot.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SlotRecord {
    pub(super) name: Slot,
    pub(super) addr: String,
    pub(super) generation: Generation,
    pub(super) server: ServerId,
}

impl Record {
    pub(super) fn new(cluster: ClusterId, servers: &[ServerAddr]) -> Result<Self, NoRandomness> {
        let first = |s: &ServerAddr| SlotRecord::first(s.name.clone(), s.addr.clone());
        Ok(Self { cluster, slots: servers.iter().map(first).collect::<Result<_, _>>()? })
    }

    /// The record of a cluster, if there is one.
    pub(super) fn load(layout: &Layout) -> Result<Option<Self>, InitError> {
        let file = layout.record();
        if !file.exists() {
            return Ok(None);
        }
        Ok(Some(config::from_toml(&file, &files::read(&file)?)?))
    }

    pub(super) fn save(&self, layout: &Layout) -> Result<(), FileError> {
        let head = "# What the authority of this cluster has issued: written by chatty-server.\n\n";
        // Text, numbers and a list of tables: TOML has a form for each.
        let text = toml::to_string(self).unwrap_or_default();
        files::write(&layout.record(), &format!("{head}{text}"), Readable::ByOwner)
    }

    /// Where in the list a server is.
    pub(super) fn position(&self, name: &str) -> Result<usize, InitError> {
        let found = self.slots.iter().position(|slot| slot.name.as_str() == name);
        found.ok_or_else(|| self.unknown(name))
    }

    pub(super) fn unknown(&self, name: &str) -> InitError {
        let known: Vec<&str> = self.slots.iter().map(|slot| slot.name.as_str()).collect();
        InitError::NoServer { name: name.to_owned(), known: known.join(", ") }
    }

    pub(super) fn servers(&self) -> Vec<ServerAddr> {
        let server = |s: &SlotRecord| ServerAddr { name: s.name.clone(), addr: s.addr.clone() };
        self.slots.iter().map(server).collect()
    }
}

/// What a client is told of a cluster.
pub(super) struct Client {
    pub(super) cluster: ClusterId,
    pub(super) authority: Fingerprint,
    pub(super) servers: Vec<ServerAddr>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClient {
    cluster: ClusterId,
    authority: String,
    servers: Vec<RawServer>,
}

impl Client {
    pub(super) fn load(layout: &Layout) -> Result<Option<Self>, InitError> {
        let file = layout.client();
        if !file.exists() {
            return Ok(None);
        }
        let raw: RawClient = config::from_toml(&file, &files::read(&file)?)?;
        let wrong = |key, what: String| ConfigError::Value { file: file.clone(), key, what };
        let servers = config::servers(&raw.servers).map_err(|what| wrong("servers", what))?;
        let authority =
            raw.authority.parse().map_err(|error| wrong("authority", format!("{error}")))?;
        Ok(Some(Self { cluster: raw.cluster, authority, servers }))
    }

    pub(super) fn to_toml(&self) -> String {
        let head = "# What a client needs to know of this cluster; nothing here is secret.\n\n";
        let server = |s: &ServerAddr| RawServer { name: s.name.to_string(), addr: s.addr.clone() };
        let raw = RawClient {
            cluster: self.cluster,
            authority: self.authority.to_string(),
            servers: self.servers.iter().map(server).collect(),
        };
        format!("{head}{}", toml::to_string(&raw).unwrap_or_default())
    }
}
