//! Which servers a caller asks for, and whether a cluster that is there has them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use chatty_core::session::ServerAddr;

use super::InitError;
use crate::config::{self, RawServer};

/// How many servers, when nothing is said.
const COUNT: u16 = 3;
/// The port of the first server on this machine, when nothing is said.
const BASE_PORT: u16 = 7400;

/// What was asked for; what is left out fits any cluster that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// So many servers on this machine, on ports that follow each other.
    pub count: Option<u16>,
    /// The first of these ports.
    pub base_port: Option<u16>,
    /// Servers by name, `(name, host:port)`, instead.
    pub named: Vec<(String, String)>,
}

impl Wanted {
    /// The servers of a new cluster.
    pub(super) fn servers(&self) -> Result<Vec<ServerAddr>, InitError> {
        let raw = if self.named.is_empty() {
            let count = self.count.unwrap_or(COUNT);
            let base = self.base_port.unwrap_or(BASE_PORT);
            if base.checked_add(count.saturating_sub(1)).is_none() || base == 0 {
                let what =
                    format!("{count} ports from {base} on do not exist; choose another base");
                return Err(InitError::Wanted(what));
            }
            let addr = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string();
            let server = |n| RawServer { name: format!("s{}", n + 1), addr: addr(base + n) };
            (0..count).map(server).collect::<Vec<_>>()
        } else {
            let named = |(name, addr): &(String, String)| RawServer {
                name: name.clone(),
                addr: addr.clone(),
            };
            self.named.iter().map(named).collect()
        };
        config::servers(&raw).map_err(InitError::Wanted)
    }

    /// Whether a cluster that is there has what was asked for.
    pub(super) fn check_against(&self, dir: &Path, held: &[ServerAddr]) -> Result<(), InitError> {
        let differs = |asked: String| {
            Err(InitError::Differs {
                dir: dir.to_owned(),
                is: describe(held),
                asked,
                what: "a cluster cannot be changed yet; leave the options out, or take another --dir",
            })
        };
        if !self.named.is_empty() {
            let asked = self.servers()?;
            return if asked == held { Ok(()) } else { differs(describe(&asked)) };
        }
        if let Some(count) = self.count
            && usize::from(count) != held.len()
        {
            let servers = if count == 1 { "server" } else { "servers" };
            return differs(format!("{count} {servers}"));
        }
        let Some(base_port) = self.base_port else { return Ok(()) };
        let count = u16::try_from(held.len()).ok();
        let asked = Self { count, ..self.clone() }.servers()?;
        if asked == held { Ok(()) } else { differs(format!("servers from port {base_port} on")) }
    }
}

fn describe(servers: &[ServerAddr]) -> String {
    let named: Vec<_> = servers.iter().map(|s| format!("{} at {}", s.name, s.addr)).collect();
    match servers.len() {
        1 => format!("1 server ({})", named.join(", ")),
        count => format!("{count} servers ({})", named.join(", ")),
    }
}

/// Where a server listens that others find at `addr`: there, if that is an address and no name.
pub(super) fn listen(addr: &str) -> SocketAddr {
    addr.parse().unwrap_or_else(|_| {
        let port = addr.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, port.unwrap_or(BASE_PORT)))
    })
}
