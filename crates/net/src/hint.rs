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

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
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
/// The kernel reports an error about an earlier datagram instead of sending this one; with the errors
/// read, this one goes out at the second attempt. A third is for one that came in between.
const SENDS_MAX: usize = 3;
/// The system's number for a datagram that is longer than the path carries (`EMSGSIZE`).
#[cfg(target_os = "linux")]
const TOO_LONG: i32 = nix::libc::EMSGSIZE;
#[cfg(not(target_os = "linux"))]
const TOO_LONG: i32 = 40;
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
    /// Receives, and waits for room to send.
    inner: Arc<dyn AsyncUdpSocket>,
    /// The same socket, to send on: `inner` drops a datagram that the kernel did not take, and says
    /// nothing.
    sender: UdpSocket,
    sending: UdpSocketState,
    hints: broadcast::Sender<SocketAddr>,
    errors: ErrorQueue,
}

impl HintSocket {
    /// Takes over a bound socket.
    pub(crate) fn new(socket: UdpSocket) -> io::Result<Self> {
        let hints = broadcast::Sender::new(HINTS_MAX);
        let errors = ErrorQueue::watch(&socket, hints.clone())?;
        let sender = socket.try_clone()?;
        let sending = UdpSocketState::new((&sender).into())?;
        Ok(Self {
            inner: quinn::TokioRuntime.wrap_udp_socket(socket)?,
            sender,
            sending,
            hints,
            errors,
        })
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
        for _ in 0..SENDS_MAX {
            match self.sending.try_send((&self.sender).into(), transmit) {
                Ok(()) => return Ok(()),
                // This tells the runtime to wait for room.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.inner.try_send(transmit);
                }
                // A probe of what the path carries.
                Err(error) if error.raw_os_error() == Some(TOO_LONG) => return Ok(()),
                Err(error) => {
                    tracing::debug!(%error, to = %transmit.destination, "an error instead of sending");
                    self.errors.drain(&self.hints);
                }
            }
        }
        // It is about this datagram, then, and it is lost like any other.
        Ok(())
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
        self.sending.max_gso_segments()
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    // One thread, and nothing awaited: the watcher has no turn to read the errors first.
    #[tokio::test]
    async fn a_datagram_is_sent_although_an_earlier_one_was_refused() {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let living = bind();
        living.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let to = living.local_addr().unwrap();
        let dead = bind().local_addr().unwrap();
        let socket = HintSocket::new(bind()).unwrap();
        let mut hints = socket.hints();

        for _ in 0..20 {
            // The kernel answers at once, and the error waits for the next call.
            socket.canary(dead).unwrap();
            socket.canary(to).unwrap();

            assert_eq!(living.recv(&mut [0; 8]).unwrap(), CANARY.len());
            assert_eq!(hints.0.try_recv(), Ok(dead), "the error was there, and is read");
        }
    }
}
