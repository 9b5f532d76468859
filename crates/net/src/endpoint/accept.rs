//! Accepting: handshakes in tasks of their own, and who may pass.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use chatty_core::id::ClusterId;
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, Incoming};
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::error::CloseCode;
use super::slots::{Place, Slots, Verdict};
use super::{NotAMember, config, read};
use crate::pki::Identity;
use crate::tls::{ALPN_SERVER, ServerTls};

/// A handshake may take this long: several round trips around the world, with losses.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
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
        while let Some(incoming) = endpoint.accept().await {
            while handshakes.try_join_next().is_some() {}
            if let Some((incoming, place)) = admit(incoming, &slots) {
                let handshake = handshake(incoming, read(&tls).cluster, done.clone());
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

async fn handshake(incoming: Incoming, cluster: ClusterId, done: mpsc::Sender<Accepted>) {
    let from = incoming.remote_address();
    match tokio::time::timeout(HANDSHAKE_LIMIT, complete(incoming, cluster)).await {
        // Whoever took the receiver away closes the endpoint, and with it the connection.
        Ok(Ok(accepted)) => drop(done.send(accepted).await),
        Ok(Err(reason)) => tracing::info!(%from, %reason, "a connection was not accepted"),
        Err(_) => tracing::info!(%from, "a handshake took too long"),
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
