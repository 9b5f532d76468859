//! Hints that a server died: where nobody listens any more, the kernel of that machine answers a
//! datagram with ICMP "port unreachable", within a round trip instead of an idle timeout.
//!
//! A hint is a hint. Anybody who guesses two ports can forge one, a dead machine sends none, and a
//! server that was restarted may be back: check with the peer before acting on it.
//!
//! Asking the kernel for these errors has a price: the next call on the socket fails with an error
//! that is about another datagram. The socket here keeps such errors from QUIC, which would take the
//! first for the end of its socket, and its watcher empties the queue of errors as they come: they
//! wake nobody who waits to read.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, UdpPoller};
use tokio::sync::broadcast;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux::ErrorQueue;

/// Hints that one receiver has not read yet, at most; then it loses the oldest.
const HINTS_MAX: usize = 64;
/// Errors of the socket in a row that are not passed on.
const ERRORS_MAX: usize = 64;
/// One byte is not a QUIC packet: a receiver that lives drops it without an answer.
const CANARY: &[u8] = &[0];

/// Addresses where nobody listens, as they are found. Only addresses that we sent to.
#[derive(Debug)]
pub struct Hints(broadcast::Receiver<SocketAddr>);

impl Hints {
    /// The next address; `None` when the endpoint is gone. Cancelling loses nothing. Whoever reads
    /// too late misses the oldest.
    pub async fn next(&mut self) -> Option<SocketAddr> {
        loop {
            match self.0.recv().await {
                Ok(address) => return Some(address),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// The socket under a QUIC endpoint.
#[derive(Debug)]
pub(crate) struct HintSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    hints: broadcast::Sender<SocketAddr>,
    errors: ErrorQueue,
}

impl HintSocket {
    /// Takes over a bound socket.
    pub(crate) fn new(socket: UdpSocket) -> io::Result<Self> {
        let hints = broadcast::Sender::new(HINTS_MAX);
        let errors = ErrorQueue::watch(&socket, hints.clone())?;
        Ok(Self { inner: quinn::TokioRuntime.wrap_udp_socket(socket)?, hints, errors })
    }

    pub(crate) fn hints(&self) -> Hints {
        Hints(self.hints.subscribe())
    }

    /// What anybody can do who sends packets to this machine.
    #[cfg(test)]
    pub(crate) fn forge_hint(&self, address: SocketAddr) {
        let _ = self.hints.send(address);
    }

    /// Sends the smallest datagram there is to `to`: if nobody listens there, a hint comes back.
    pub(crate) fn canary(&self, to: SocketAddr) -> io::Result<()> {
        let destination = match (self.inner.local_addr()?, to) {
            (SocketAddr::V6(_), SocketAddr::V4(to)) => {
                SocketAddr::from((to.ip().to_ipv6_mapped(), to.port()))
            }
            _ => to,
        };
        let contents = CANARY;
        self.try_send(&Transmit {
            destination,
            ecn: None,
            contents,
            segment_size: None,
            src_ip: None,
        })
    }
}

impl AsyncUdpSocket for HintSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match self.inner.try_send(transmit) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                // Either it was about another datagram, or this one is lost like any other.
                tracing::debug!(%error, to = %transmit.destination, "a datagram was not sent");
                self.errors.drain(&self.hints);
                Ok(())
            }
            result => result,
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        for _ in 0..ERRORS_MAX {
            match self.inner.poll_recv(cx, bufs, meta) {
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "an error instead of a datagram");
                    self.errors.drain(&self.hints);
                }
                other => return other,
            }
        }
        // An error that stays is the runtime's own end; until then, let others run.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// Elsewhere the kernel is not asked, and no hints come.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
struct ErrorQueue;

#[cfg(not(target_os = "linux"))]
impl ErrorQueue {
    fn watch(_socket: &UdpSocket, _hints: broadcast::Sender<SocketAddr>) -> io::Result<Self> {
        Ok(Self)
    }

    fn drain(&self, _hints: &broadcast::Sender<SocketAddr>) {}
}
