//! Where the files of a cluster lie.

use std::path::{Path, PathBuf};

use chatty_core::id::Slot;

/// A cluster's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// Of that folder.
    pub fn of(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// What is kept off the servers.
    pub fn authority_dir(&self) -> PathBuf {
        self.dir.join("authority")
    }

    /// The authority's certificate.
    pub fn authority_cert(&self) -> PathBuf {
        self.authority_dir().join("authority.pem")
    }

    /// The authority's key.
    pub fn authority_key(&self) -> PathBuf {
        self.authority_dir().join("authority.key")
    }

    /// What was issued.
    pub fn record(&self) -> PathBuf {
        self.authority_dir().join("cluster.toml")
    }

    /// The key of the session tokens.
    pub fn token_key(&self) -> PathBuf {
        self.dir.join("token.key")
    }

    /// What a client is given.
    pub fn client(&self) -> PathBuf {
        self.dir.join("client.toml")
    }

    /// Where the servers' folders are.
    pub fn servers(&self) -> PathBuf {
        self.dir.join("servers")
    }

    /// A server's folder.
    pub fn server(&self, name: &Slot) -> ServerLayout {
        ServerLayout { dir: self.servers().join(name.as_str()) }
    }
}

/// A server's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLayout {
    /// The folder.
    pub dir: PathBuf,
}

impl ServerLayout {
    /// The configuration.
    pub fn config(&self) -> PathBuf {
        self.dir.join("server.toml")
    }

    /// The certificate.
    pub fn cert(&self) -> PathBuf {
        self.dir.join("server.pem")
    }

    /// Its key.
    pub fn key(&self) -> PathBuf {
        self.dir.join("server.key")
    }

    /// A copy of the authority's certificate.
    pub fn authority(&self) -> PathBuf {
        self.dir.join("authority.pem")
    }

    /// A copy of the key of the session tokens.
    pub fn token_key(&self) -> PathBuf {
        self.dir.join("token.key")
    }

    /// The data.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }
}
