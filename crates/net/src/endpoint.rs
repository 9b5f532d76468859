//! One UDP socket that accepts and dials, for servers and clients.
//!
//! What comes out of [`Endpoint::accept`] has proved what it claims: a peer showed a certificate of
//! this cluster, whatever else connected is a client. Handshakes run beside each other, each with a
//! time limit, and a bounded number of
//! them, of which some are kept for other servers (`slots`).
//!
//! After the handshake the accepting server tells a peer on a stream of its own that it was
//! admitted. TLS 1.3 ends for the dialling side before its certificate is looked at, and so a dial
//! would succeed and the link break a moment later, without a reason to show to an operator.

mod accept;
mod config;
mod error;
mod slots;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, VarInt};
use tokio::sync::{Mutex, mpsc};
use tokio::task::AbortHandle;

pub use accept::Accepted;
pub use error::{BindError, CloseCode, DialError, ReloadError, StillOpen};
pub use slots::network;

use crate::hint::{HintSocket, Hints};
use crate::pki::{Credentials, Identity, PkiError};
use crate::tls::{ANY_SERVER, ServerTls, Trust, in_time};
use accept::ADMITTED;
use slots::Slots;

/// A handshake that a hint speaks against has this long to complete: a round trip around the world.
const HINTED: Duration = Duration::from_millis(250);

/// What a server's endpoint is made of.
#[derive(Clone, Debug)]
pub struct ServerEndpointConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The server's certificate and key.
    pub credentials: Credentials,
    /// The authority's certificate, or two of them while one replaces the other.
    pub authority_pem: String,
    /// Random, kept on the server's disk. With it a restarted server can tell the peers of the old
    /// process that their connections are gone; without, they would wait out the idle time.
    pub reset_secret: [u8; 32],
}

/// A UDP socket speaking QUIC. Clones are the same endpoint.
#[derive(Clone)]
pub struct Endpoint(Arc<Inner>);

struct Inner {
    quinn: quinn::Endpoint,
    socket: Arc<HintSocket>,
    role: Role,
}

enum Role {
    Server(Box<Server>),
    Client,
}

struct Server {
    tls: Arc<RwLock<Arc<ServerTls>>>,
    accepted: Mutex<mpsc::Receiver<Accepted>>,
    acceptor: AbortHandle,
    slots: Slots,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It holds the endpoint, and with it the port.
        self.acceptor.abort();
    }
}

impl Endpoint {
    /// Binds, and begins to accept. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn server(config: ServerEndpointConfig) -> Result<Self, BindError> {
        let ServerEndpointConfig { listen, credentials, authority_pem, reset_secret } = config;
        let tls = ServerTls::new(&credentials, &authority_pem)?;
        let socket = config::bind(listen)?;
        let (quinn, socket) = config::endpoint(
            socket,
            config::server_endpoint(&reset_secret),
            Some(config::accepting(&tls)),
        )
        .map_err(|source| BindError::Socket { address: listen, source })?;
        let tls = Arc::new(RwLock::new(Arc::new(tls)));
        let slots = Slots::default();
        let (acceptor, accepted) = accept::spawn(quinn.clone(), tls.clone(), slots.clone());
        let accepted = Mutex::new(accepted);
        let server = Server { tls, accepted, acceptor, slots };
        Ok(Self(Arc::new(Inner { quinn, socket, role: Role::Server(Box::new(server)) })))
    }

    /// An endpoint that only dials, on a free port. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn client() -> Result<Self, BindError> {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let any_v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        // Some machines have no IPv6.
        let socket = config::bind(any).or_else(|_| config::bind(any_v4))?;
        let (quinn, socket) = config::endpoint(socket, quinn::EndpointConfig::default(), None)
            .map_err(|source| BindError::Socket { address: any, source })?;
        Ok(Self(Arc::new(Inner { quinn, socket, role: Role::Client })))
    }

    /// Where it is bound.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.quinn.local_addr()
    }

    /// The next connection, after its handshake. `None` when the endpoint is closed, and always for
    /// a client. Cancelling loses nothing.
    pub async fn accept(&self) -> Option<Accepted> {
        match &self.0.role {
            Role::Server(server) => server.accepted.lock().await.recv().await,
            Role::Client => None,
        }
    }

    /// Dials another server of the cluster; returns once it has admitted us.
    ///
    /// # Errors
    /// See [`DialError`]; nothing is left open.
    pub async fn dial_peer(
        &self,
        address: SocketAddr,
        limit: Duration,
    ) -> Result<(Connection, Identity), DialError> {
        let Role::Server(server) = &self.0.role else { return Err(DialError::NotAServer) };
        let tls = read(&server.tls);
        let admitted = async {
            let connection = self.connect(address, tls.dial.clone(), &tls.name).await?;
            await_admission(address, &connection).await?;
            let identity = accept::identity(&connection, tls.cluster).map_err(|error| {
                connection.close(CloseCode::NotAMember.into(), error.to_string().as_bytes());
                DialError::WrongCluster { address, reason: error.to_string() }
            })?;
            Ok((connection, identity))
        };
        within(address, limit, admitted).await
    }

    /// Keeps places for that server's handshakes: it dials from where it listens. Call it with every
    /// address that its name turns out to have; the last one counts. Does nothing for a client.
    pub fn expect_peer(&self, name: &str, address: SocketAddr) {
        if let Role::Server(server) = &self.0.role {
            server.slots.expect(name, address);
        }
    }

    /// Dials a server as a client.
    ///
    /// # Errors
    /// See [`DialError`]; nothing is left open.
    pub async fn dial_server(
        &self,
        address: SocketAddr,
        trust: &Trust,
        limit: Duration,
    ) -> Result<Connection, DialError> {
        within(address, limit, self.connect(address, trust.dial.clone(), ANY_SERVER)).await
    }

    /// A handshake. Ends early if the kernel says that nobody listens there, but not at once:
    /// anybody can send that packet, and a handshake that completes disproves it.
    async fn connect(
        &self,
        address: SocketAddr,
        tls: Arc<QuicClientConfig>,
        name: &str,
    ) -> Result<Connection, DialError> {
        let mut hints = self.0.socket.hints();
        let connecting = self
            .0
            .quinn
            .connect_with(config::dialling(tls), address, name)
            .map_err(|error| DialError::from_connect(address, error))?;
        let refused = async {
            while let Some(hint) = hints.next().await {
                if hint == canonical(address) {
                    return tokio::time::sleep(HINTED).await;
                }
            }
            std::future::pending().await
        };
        tokio::select! { biased;
            connected = connecting => {
                connected.map_err(|error| DialError::from_connection(address, error))
            }
            () = refused => Err(DialError::Unreachable { address }),
        }
    }

    /// Shows another certificate and trusts another authority (or two) from now on, of the same
    /// cluster: towards those who connect, and those we dial. Connections that are open stay.
    ///
    /// # Errors
    /// See [`ReloadError`]; everything then stays as it was.
    pub fn reload(
        &self,
        credentials: &Credentials,
        authority_pem: &str,
    ) -> Result<(), ReloadError> {
        let Role::Server(server) = &self.0.role else { return Err(ReloadError::NotAServer) };
        let tls = ServerTls::new(credentials, authority_pem)?;
        let now = SystemTime::now();
        if let Err(error) = in_time(tls.validity, now)
            && in_time(read(&server.tls).validity, now).is_ok()
        {
            return Err(error.into());
        }
        if tls.identity.server != read(&server.tls).identity.server {
            return Err(ReloadError::OtherServer { certificate: tls.identity.server });
        }
        self.0.quinn.set_server_config(Some(config::accepting(&tls)));
        *server.tls.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tls);
        Ok(())
    }

    /// Who this server is by its own certificate; `None` for a client.
    pub fn identity(&self) -> Option<Identity> {
        match &self.0.role {
            Role::Server(server) => Some(read(&server.tls).identity.clone()),
            Role::Client => None,
        }
    }

    /// Addresses that we sent to and where nobody listens, from now on. See [`crate::hint`].
    pub fn hints(&self) -> Hints {
        self.0.socket.hints()
    }

    /// Sends one byte that means nothing: if nobody listens at `address`, a hint comes back.
    ///
    /// # Errors
    /// If the socket's buffer is full; try again later.
    pub fn canary(&self, address: SocketAddr) -> std::io::Result<()> {
        self.0.socket.canary(address)
    }

    /// Closes every connection, telling the other side why, and accepts and dials no more. A second
    /// call does nothing. The port is free once every clone
    /// and every connection is dropped.
    pub fn close(&self, reason: &str) {
        self.0.quinn.close(CloseCode::Stopping.into(), reason.as_bytes());
    }

    /// Waits until the other sides had a chance to read why, but no longer than `limit`.
    ///
    /// # Errors
    /// How many connections are still not done.
    pub async fn wait_idle(&self, limit: Duration) -> Result<(), StillOpen> {
        tokio::time::timeout(limit, self.0.quinn.wait_idle())
            .await
            .map_err(|_| StillOpen { connections: self.0.quinn.open_connections() })
    }
}

fn read(tls: &RwLock<Arc<ServerTls>>) -> Arc<ServerTls> {
    tls.read().unwrap_or_else(PoisonError::into_inner).clone()
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

async fn within<T>(
    address: SocketAddr,
    limit: Duration,
    dial: impl Future<Output = Result<T, DialError>>,
) -> Result<T, DialError> {
    let late = |_| Err(DialError::TimedOut { address, limit });
    tokio::time::timeout(limit, dial).await.unwrap_or_else(late)
}

async fn await_admission(address: SocketAddr, connection: &Connection) -> Result<(), DialError> {
    let lost = |error| DialError::from_connection(address, error);
    let mut stream = connection.accept_uni().await.map_err(lost)?;
    match stream.read_to_end(ADMITTED.len()).await {
        Ok(word) if word == ADMITTED => Ok(()),
        Err(quinn::ReadToEndError::Read(quinn::ReadError::ConnectionLost(error))) => {
            Err(lost(error))
        }
        _ => {
            connection.close(VarInt::from(CloseCode::Unintelligible), b"expected the admission");
            Err(DialError::Unintelligible { address })
        }
    }
}

/// Why somebody is not taken for a server of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAMember {
    #[error("a server must show a certificate of its cluster; this one showed none")]
    NoCertificate,
    #[error("the certificate names no server: {0}")]
    NoIdentity(PkiError),
    #[error("the certificate is of cluster {0}, this is another")]
    OtherCluster(chatty_core::id::ClusterId),
}

#[cfg(test)]
mod tests;
