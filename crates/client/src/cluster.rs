//! Which cluster: its servers to begin with, and the authority that vouches for them.

use std::path::{Path, PathBuf};

use chatty_core::id::{ClusterId, Slot};
use chatty_core::session::ServerAddr;
use chatty_net::Fingerprint;
use serde::Deserialize;

/// What a client needs to know of a cluster. Nothing of it is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its id, if it was read from a folder.
    pub id: Option<ClusterId>,
    /// The authority's certificate.
    pub authority: Fingerprint,
    /// Servers whose names are known.
    pub servers: Vec<ServerAddr>,
    /// Addresses of servers whose names are not known yet.
    pub seeds: Vec<String>,
    /// The folder it was read from.
    pub folder: Option<PathBuf>,
}

/// Why a cluster is not known.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The folder has no cluster in it.
    #[error("{} is no cluster's folder: {source}; start one with `scripts/cluster up`, or name one with --cluster", file.display())]
    NoFolder {
        /// The file looked for.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file there is not as it should be.
    #[error("{}: {what}", file.display())]
    BadFile {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The URL is not as it should be.
    #[error("{url:?} is no cluster's URL: {what}")]
    BadUrl {
        /// As it was given.
        url: String,
        /// What is wrong and what to do.
        what: &'static str,
    },
    /// There is no server of that name.
    #[error("no server is called {name:?}; {known}")]
    NoServer {
        /// As it was given.
        name: String,
        /// Which there are.
        known: String,
    },
}

const SCHEME: &str = "chatty://";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCluster {
    cluster: ClusterId,
    authority: String,
    servers: Vec<RawServer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawServer {
    name: String,
    addr: String,
}

impl Cluster {
    /// From a folder or a URL, whichever it is.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn open(folder_or_url: &str) -> Result<Self, ClusterError> {
        if folder_or_url.starts_with(SCHEME) {
            Self::parse_url(folder_or_url)
        } else {
            Self::load(Path::new(folder_or_url))
        }
    }

    /// From `client.toml` in the folder of a cluster.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn load(folder: &Path) -> Result<Self, ClusterError> {
        let file = folder.join("client.toml");
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(source) => return Err(ClusterError::NoFolder { file, source }),
        };
        Self::parse_file(folder, &text)
    }

    /// From the text of `client.toml` in that folder.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn parse_file(folder: &Path, text: &str) -> Result<Self, ClusterError> {
        let file = folder.join("client.toml");
        let bad = |what: String| ClusterError::BadFile { file: file.clone(), what };
        let raw: RawCluster =
            toml::from_str(text).map_err(|error| bad(error.message().replace('\n', ", ")))?;
        let authority = raw.authority.parse().map_err(|e| bad(format!("authority: {e}")))?;
        let mut servers = Vec::new();
        for RawServer { name, addr } in raw.servers {
            let name = Slot::new(name).map_err(|n| bad(format!("{n:?} is no server's name")))?;
            if !is_address(&addr) {
                return Err(bad(format!("the addr {addr:?} of {name} is not host:port")));
            }
            servers.push(ServerAddr { name, addr });
        }
        if servers.is_empty() {
            return Err(bad("no servers are listed".into()));
        }
        let folder = Some(folder.to_owned());
        Ok(Self { id: Some(raw.cluster), authority, servers, seeds: Vec::new(), folder })
    }

    /// From `chatty://host:port,host:port/#<hash of the authority>`. Without the hash anybody on
    /// the way could pass for the cluster, so it is refused.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn parse_url(url: &str) -> Result<Self, ClusterError> {
        let bad = |what| ClusterError::BadUrl { url: url.to_owned(), what };
        let rest = url.strip_prefix(SCHEME).ok_or(bad("it does not begin with chatty://"))?;
        let Some((hosts, hash)) = rest.split_once('#') else {
            return Err(bad("the authority's hash is missing at its end (/#…), and without it \
                 anybody could pass for the cluster; copy the whole URL that `up` prints, in quotes"));
        };
        let authority =
            hash.parse().map_err(|_| bad("what stands after # is not 64 hexadecimal digits"))?;
        let hosts = hosts.strip_suffix('/').unwrap_or(hosts);
        let seeds: Vec<String> = hosts.split(',').map(str::to_owned).collect();
        if !seeds.iter().all(|seed| is_address(seed)) {
            return Err(bad("between chatty:// and /# goes host:port,host:port"));
        }
        Ok(Self { id: None, authority, servers: Vec::new(), seeds, folder: None })
    }

    /// The address of a server given by name or address.
    ///
    /// # Errors
    /// [`ClusterError::NoServer`], with those there are.
    pub fn address_of(&self, name_or_addr: &str) -> Result<String, ClusterError> {
        let named = self.servers.iter().find(|server| server.name.as_str() == name_or_addr);
        if let Some(server) = named {
            return Ok(server.addr.clone());
        }
        if is_address(name_or_addr) {
            return Ok(name_or_addr.to_owned());
        }
        let names: Vec<_> = self.servers.iter().map(|server| server.name.as_str()).collect();
        let known = if names.is_empty() {
            "a URL names no servers: give host:port".to_owned()
        } else {
            format!("there are {}, or give host:port", names.join(", "))
        };
        Err(ClusterError::NoServer { name: name_or_addr.to_owned(), known })
    }
}

/// Whether it is host:port; whether the host exists is found out when it is dialled.
fn is_address(addr: &str) -> bool {
    addr.parse::<std::net::SocketAddr>().is_ok_and(|addr| addr.port() != 0)
        || addr.rsplit_once(':').is_some_and(|(host, port)| {
            let is_host = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
            // A number may have a sign, a port may not.
            port.bytes().all(|c| c.is_ascii_digit())
                && port.parse::<u16>().is_ok_and(|port| port != 0)
                && !host.is_empty()
                && host.chars().all(is_host)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn a_url_names_addresses_and_the_authority() {
        let url = format!("chatty://127.0.0.1:7001,[::1]:7002,chat.example:7003/#{HASH}");
        let cluster = Cluster::parse_url(&url).unwrap();
        assert_eq!(cluster.seeds, ["127.0.0.1:7001", "[::1]:7002", "chat.example:7003"]);
        assert_eq!(cluster.authority.to_string(), HASH);
    }

    #[test]
    fn a_url_without_the_hash_is_refused_with_the_reason() {
        let error = Cluster::parse_url("chatty://127.0.0.1:7001/").unwrap_err().to_string();
        assert!(error.contains("hash is missing"), "{error}");
        for bad in ["chatty://127.0.0.1:7001/#12", "chatty:///#", "http://x:1/#"] {
            assert!(Cluster::parse_url(bad).is_err(), "{bad}");
        }
        assert!(Cluster::parse_url(&format!("chatty://127.0.0.1/#{HASH}")).is_err(), "no port");
        assert!(Cluster::parse_url(&format!("chatty://chat:+7/#{HASH}")).is_err(), "a sign");
    }

    #[test]
    fn a_folder_is_read_and_its_servers_are_found_by_name() {
        let folder = std::env::temp_dir().join(format!("chatty-cluster-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let text = format!(
            "cluster = \"0198c0de-0000-7000-8000-000000000001\"\nauthority = \"{HASH}\"\n\
             [[servers]]\nname = \"s1\"\naddr = \"127.0.0.1:7001\"\n"
        );
        std::fs::write(folder.join("client.toml"), text).unwrap();
        let cluster = Cluster::load(&folder).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(cluster.address_of("s1").unwrap(), "127.0.0.1:7001");
        assert_eq!(cluster.address_of("10.0.0.1:9").unwrap(), "10.0.0.1:9");
        let error = cluster.address_of("s9").unwrap_err().to_string();
        assert!(error.contains("there are s1"), "{error}");
    }

    #[test]
    fn a_folder_without_a_cluster_says_what_to_do() {
        let error = Cluster::load(Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(error.contains("scripts/cluster up"), "{error}");
    }
}
