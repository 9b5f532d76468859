//! Accepting: handshakes in tasks of their own, and who may pass.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use chatty_core::id::ClusterId;
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, ConnectionError, Incoming, TransportErrorCode};
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::error::{CloseCode, EXPIRED_ALERT, is_certificate};
use super::slots::{Place, Slots, Verdict};
use super::{NotAMember, config, read};
use crate::pki::Identity;
use crate::tls::{ALPN_SERVER, ServerTls};

/// A handshake may take this long: several round trips around the world, with losses.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// The same refusal is logged once in this time…
const SAME_LINE: Duration = Duration::from_secs(60);
/// … and so many different ones.
const LINES: usize = 64;
/// What a server says first to a peer that it admits.
pub(super) const ADMITTED: &[u8] = b"admitted";

/// A connection after its handshake.
#[derive(Debug)]
pub enum Accepted {
    /// Another server of the cluster.
    Peer {
        /// The connection.
        connection: Connection,
        /// Who it is, by its certificate.
        identity: Identity,
    },
    /// A client, of which nothing is known.
    Client {
        /// The connection.
        connection: Connection,
    },
}

/// Accepts until the endpoint is closed or the task aborted.
pub(super) fn spawn(
    endpoint: quinn::Endpoint,
    tls: Arc<RwLock<Arc<ServerTls>>>,
    slots: Slots,
) -> (AbortHandle, mpsc::Receiver<Accepted>) {
    let (done, accepted) = mpsc::channel(1);
    let task = tokio::spawn(async move {
        // Dropped with this task, and all handshakes with it.
        let mut handshakes = JoinSet::new();
        let told = Arc::new(Mutex::new(Told::default()));
        while let Some(incoming) = endpoint.accept().await {
            while handshakes.try_join_next().is_some() {}
            if let Some((incoming, place)) = admit(incoming, &slots) {
                let handshake = handshake(incoming, read(&tls).cluster, done.clone(), told.clone());
                handshakes.spawn(async move {
                    // Also while nobody takes its connection from [`super::Endpoint::accept`].
                    let _place = place;
                    handshake.await;
                });
            }
        }
    });
    (task.abort_handle(), accepted)
}

/// Whether there is a place for one more; if not, it is told so.
fn admit(incoming: Incoming, slots: &Slots) -> Option<(Incoming, Place)> {
    match slots.ask(incoming.remote_address(), incoming.remote_address_validated()) {
        Verdict::Take(place) => Some((incoming, place)),
        Verdict::Prove if incoming.may_retry() => {
            // It cannot fail: it may retry.
            let _ = incoming.retry();
            None
        }
        Verdict::Prove | Verdict::Refuse => {
            incoming.refuse();
            None
        }
    }
}

async fn handshake(
    incoming: Incoming,
    cluster: ClusterId,
    done: mpsc::Sender<Accepted>,
    told: Arc<Mutex<Told>>,
) {
    let from = incoming.remote_address();
    let result = tokio::time::timeout(HANDSHAKE_LIMIT, complete(incoming, cluster)).await;
    let refused = match result {
        // Whoever took the receiver away closes the endpoint, and with it the connection.
        Ok(Ok(accepted)) => return drop(done.send(accepted).await),
        Ok(Err(refused)) => refused,
        Err(_) => Refused::Late,
    };
    let advice = refused.advice();
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    if !told.is_news(Instant::now(), (from, advice)) {
        return;
    }
    match advice {
        Some(advice) => tracing::warn!(%from, "a connection was refused: {refused}; {advice}"),
        None => tracing::info!(%from, "a connection was not accepted: {refused}"),
    }
}

/// What was logged of late: whoever is refused tries again and again.
#[derive(Debug, Default)]
struct Told(BTreeMap<Line, Instant>);

type Line = (SocketAddr, Option<&'static str>);

impl Told {
    /// Whether a line is worth logging. With too many different ones, no more are.
    fn is_news(&mut self, now: Instant, line: Line) -> bool {
        self.0.retain(|_, at| now.saturating_duration_since(*at) < SAME_LINE);
        if self.0.len() >= LINES || self.0.contains_key(&line) {
            return false;
        }
        self.0.insert(line, now);
        true
    }
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Handshake(#[from] quinn::ConnectionError),
    #[error(transparent)]
    NotAMember(#[from] NotAMember),
    #[error("it left before it was told that it is admitted: {0}")]
    Left(#[from] quinn::WriteError),
    #[error("the handshake took longer than {HANDSHAKE_LIMIT:?}")]
    Late,
}

impl Refused {
    /// What to do about a certificate that was not taken, by us or by them.
    fn advice(&self) -> Option<&'static str> {
        let expired = TransportErrorCode::crypto(EXPIRED_ALERT);
        match self {
            Self::Handshake(ConnectionError::TransportError(error)) => {
                if error.code == expired {
                    Some(
                        "its certificate is out of time: renew it (chatty-server renew), unless a \
                         clock is wrong",
                    )
                } else {
                    is_certificate(error.code).then_some(
                        "its certificate is not of this cluster's authority: if it is a server of \
                         this cluster, give it one (chatty-server reissue)",
                    )
                }
            }
            Self::Handshake(ConnectionError::ConnectionClosed(close)) => {
                if close.error_code == expired {
                    Some(
                        "it says that our certificate is out of time: renew it (chatty-server \
                         renew), unless a clock is wrong",
                    )
                } else {
                    is_certificate(close.error_code).then_some(
                        "it trusts another authority than the one of our certificate: is it of \
                         another cluster?",
                    )
                }
            }
            Self::NotAMember(_) => Some("servers of this cluster show a certificate of it"),
            Self::Handshake(_) | Self::Left(_) | Self::Late => None,
        }
    }
}

async fn complete(incoming: Incoming, cluster: ClusterId) -> Result<Accepted, Refused> {
    let connection = incoming.accept()?.await?;
    if !speaks_server(&connection) {
        return Ok(Accepted::Client { connection });
    }
    let identity = identity(&connection, cluster).inspect_err(|reason| {
        connection.close(CloseCode::NotAMember.into(), reason.to_string().as_bytes());
    })?;
    config::admit_server(&connection);
    let mut word = connection.open_uni().await?;
    word.write_all(ADMITTED).await?;
    // It is not closed: it was opened a line ago.
    let _ = word.finish();
    Ok(Accepted::Peer { connection, identity })
}

fn speaks_server(connection: &Connection) -> bool {
    connection
        .handshake_data()
        .and_then(|data| data.downcast::<HandshakeData>().ok())
        .and_then(|data| data.protocol)
        .is_some_and(|protocol| protocol == ALPN_SERVER)
}

/// Who is at the other end. TLS has verified the certificate, if there is one.
pub(super) fn identity(
    connection: &Connection,
    cluster: ClusterId,
) -> Result<Identity, NotAMember> {
    let chain = connection
        .peer_identity()
        .and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok())
        .unwrap_or_default();
    let leaf = chain.first().ok_or(NotAMember::NoCertificate)?;
    let (identity, _) = Identity::from_certificate(leaf).map_err(NotAMember::NoIdentity)?;
    if identity.cluster == cluster {
        Ok(identity)
    } else {
        Err(NotAMember::OtherCluster(identity.cluster))
    }
}
