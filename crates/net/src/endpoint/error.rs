//! What can go wrong, and whose turn it is.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use chatty_core::id::ServerId;
use quinn::{ConnectError, ConnectionError, TransportErrorCode, VarInt};

use crate::tls::CredentialsError;

/// Why an endpoint was not made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process has the port.
    #[error("{address} is in use; is the server running already? Stop it or choose another port")]
    AddressInUse {
        /// Where we tried.
        address: SocketAddr,
    },
    /// The certificate and key cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The system refuses the socket for another reason.
    #[error("cannot listen on {address}: {source}")]
    Socket {
        /// Where we tried.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// Why a certificate was not taken; the old one stays.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ReloadError {
    /// A client has none.
    #[error("a client has no certificate")]
    NotAServer,
    /// It names another server.
    #[error("the certificate is of server {certificate}, which is not this one")]
    OtherServer {
        /// Which.
        certificate: ServerId,
    },
    /// It cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// Connections that did not finish in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{connections} connections are still not done")]
pub struct StillOpen {
    /// How many.
    pub connections: usize,
}

/// Why a connection was closed, as a number for the other side; a text goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCode {
    /// The process stops: dial another server, or this one later.
    Stopping,
    /// A server must show a certificate of the cluster.
    NotAMember,
    /// What came first was not what this protocol begins with.
    Unintelligible,
}

impl From<CloseCode> for VarInt {
    fn from(code: CloseCode) -> Self {
        Self::from_u32(match code {
            CloseCode::Stopping => 1,
            CloseCode::NotAMember => 2,
            CloseCode::Unintelligible => 3,
        })
    }
}

/// Why a dial brought no connection. Nothing is left open.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DialError {
    /// Nobody listens there, or the address cannot be sent to.
    #[error("nobody listens on {address}; is the server running?")]
    Unreachable {
        /// Where.
        address: SocketAddr,
    },
    /// No answer.
    #[error("no answer from {address} in {limit:?}; is UDP let through?")]
    TimedOut {
        /// Where.
        address: SocketAddr,
        /// How long we waited.
        limit: Duration,
    },
    /// It showed no certificate that we trust.
    #[error(
        "{address} is not a server of this cluster ({reason}); compare the address, and the \
         fingerprint or certificate of the authority, with those of the cluster"
    )]
    WrongCluster {
        /// Where.
        address: SocketAddr,
        /// What TLS says.
        reason: String,
    },
    /// Its certificate has ended, by our clock.
    #[error(
        "by this machine's clock the certificate of {address} has ended ({reason}): mend the clock \
         if it is wrong, else renew the certificate there (chatty-server renew)"
    )]
    OutOfTime {
        /// Where.
        address: SocketAddr,
        /// What TLS says.
        reason: String,
    },
    /// It does not trust our certificate.
    #[error(
        "{address} does not take our certificate ({reason}); if it has expired, renew it \
         (chatty-server renew), else have one issued by the authority of its cluster"
    )]
    CertificateRefused {
        /// Where.
        address: SocketAddr,
        /// What it says.
        reason: String,
    },
    /// It has too much to do.
    #[error("{address} takes no more connections now; try again later")]
    Busy {
        /// Where.
        address: SocketAddr,
    },
    /// It closed the connection, with a code of the protocol (see [`CloseCode`]) and a text.
    #[error("{address} refused: {reason} (code {code})")]
    Refused {
        /// Where.
        address: SocketAddr,
        /// The number.
        code: u64,
        /// The text.
        reason: String,
    },
    /// It speaks something else.
    #[error("{address} does not speak this version of chatty; upgrade the older side")]
    Unintelligible {
        /// Where.
        address: SocketAddr,
    },
    /// A client has no certificate to show to a peer.
    #[error("a client cannot dial as a server")]
    NotAServer,
    /// Our own endpoint is closed.
    #[error("this endpoint is closed")]
    Stopped,
    /// QUIC failed in another way.
    #[error("connecting to {address}: {error}")]
    Transport {
        /// Where.
        address: SocketAddr,
        /// How.
        error: ConnectionError,
    },
}

/// TLS alerts (RFC 8446, section 6) that QUIC carries as 0x100 + alert: bad, unsupported, revoked,
/// expired, unknown certificate; unknown authority; access denied; a signature that does not fit
/// (another authority for the same cluster id); certificate required.
const CERTIFICATE_ALERTS: [u8; 9] = [42, 43, 44, 45, 46, 48, 49, 51, 116];
/// Of these, the one about time.
pub(super) const EXPIRED_ALERT: u8 = 45;
/// No protocol in common.
const ALPN_ALERT: u8 = 120;

/// Whether TLS ended a handshake because of a certificate.
pub(super) fn is_certificate(code: TransportErrorCode) -> bool {
    CERTIFICATE_ALERTS.iter().any(|&alert| code == TransportErrorCode::crypto(alert))
}

impl DialError {
    pub(super) fn from_connect(address: SocketAddr, error: ConnectError) -> Self {
        match error {
            ConnectError::EndpointStopping => Self::Stopped,
            _ => Self::Unreachable { address },
        }
    }

    pub(super) fn from_connection(address: SocketAddr, error: ConnectionError) -> Self {
        let no_protocol = TransportErrorCode::crypto(ALPN_ALERT);
        match error {
            ConnectionError::LocallyClosed => Self::Stopped,
            // Our own TLS ended it: about their certificate.
            ConnectionError::TransportError(error)
                if error.code == TransportErrorCode::crypto(EXPIRED_ALERT) =>
            {
                Self::OutOfTime { address, reason: error.reason }
            }
            ConnectionError::TransportError(error) if is_certificate(error.code) => {
                Self::WrongCluster { address, reason: error.reason }
            }
            // Their TLS ended it: about ours.
            ConnectionError::ConnectionClosed(close) if is_certificate(close.error_code) => {
                Self::CertificateRefused { address, reason: lossy(&close.reason) }
            }
            ConnectionError::ConnectionClosed(close) if close.error_code == no_protocol => {
                Self::Unintelligible { address }
            }
            ConnectionError::ConnectionClosed(close)
                if close.error_code == TransportErrorCode::CONNECTION_REFUSED =>
            {
                Self::Busy { address }
            }
            ConnectionError::ApplicationClosed(close) => Self::Refused {
                address,
                code: close.error_code.into_inner(),
                reason: lossy(&close.reason),
            },
            ConnectionError::VersionMismatch => Self::Unintelligible { address },
            error => Self::Transport { address, error },
        }
    }
}

/// A text from the other side, for people to read: control characters could rewrite their terminal.
fn lossy(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
