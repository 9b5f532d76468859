//! The socket's error queue: `IP_RECVERR` in ip(7).

use std::collections::BTreeSet;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::libc::{ECONNREFUSED, SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6, sock_extended_err};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::broadcast;
use tokio::task::AbortHandle;

/// Errors read in one go, at most; the kernel's own limit is the socket's receive buffer.
const DRAIN_MAX: usize = 1024;

/// The error queue, and the task that waits on it.
#[derive(Debug)]
pub(super) struct ErrorQueue {
    /// A second descriptor of the socket: the runtime watches one descriptor once.
    socket: Arc<OwnedFd>,
    watcher: AbortHandle,
}

impl ErrorQueue {
    pub(super) fn watch(
        socket: &UdpSocket,
        hints: broadcast::Sender<SocketAddr>,
    ) -> io::Result<Self> {
        setsockopt(socket, sockopt::Ipv4RecvErr, &true)?;
        if socket.local_addr()?.is_ipv6() {
            setsockopt(socket, sockopt::Ipv6RecvErr, &true)?;
        }
        let socket = Arc::new(OwnedFd::from(socket.try_clone()?));
        #[expect(
            deprecated,
            reason = "the successor is unsafe, for descriptors that close while registered; the \
                      `OwnedFd` in the `Arc` is open for as long as `errors` lives"
        )]
        let errors = AsyncFd::with_interest(socket.clone(), Interest::ERROR)?;
        let watcher = tokio::spawn(async move {
            while let Ok(mut ready) = errors.ready(Interest::ERROR).await {
                drain(errors.get_ref(), &hints);
                ready.clear_ready();
            }
        });
        Ok(Self { socket, watcher: watcher.abort_handle() })
    }

    pub(super) fn drain(&self, hints: &broadcast::Sender<SocketAddr>) {
        drain(&self.socket, hints);
    }
}

impl Drop for ErrorQueue {
    fn drop(&mut self) {
        // The task holds the descriptor, and with it the port.
        self.watcher.abort();
    }
}

/// Empties the queue; one hint for each address found. Reading the last error also clears the one
/// that the next send or receive would have failed with.
fn drain(socket: &OwnedFd, hints: &broadcast::Sender<SocketAddr>) {
    let refused: BTreeSet<_> =
        std::iter::from_fn(|| read_error(socket)).take(DRAIN_MAX).flatten().collect();
    for address in refused {
        // Nobody listening is no error.
        let _ = hints.send(address);
    }
}

/// Takes one error off the queue: where the datagram went, if it was refused there. `None` if the
/// queue is empty.
fn read_error(socket: &OwnedFd) -> Option<Option<SocketAddr>> {
    let mut datagram = [0; 1];
    let mut parts = [IoSliceMut::new(&mut datagram)];
    let mut control = nix::cmsg_space!([u8; 256]);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)
            .ok()?;
    let refused = message.cmsgs().is_ok_and(|mut all| {
        all.any(|one| match one {
            ControlMessageOwned::Ipv4RecvErr(error, _)
            | ControlMessageOwned::Ipv6RecvErr(error, _) => is_refused(&error),
            _ => false,
        })
    });
    Some(message.address.filter(|_| refused).and_then(|address| to_std(&address)))
}

fn is_refused(error: &sock_extended_err) -> bool {
    let from_the_network = matches!(error.ee_origin, SO_EE_ORIGIN_ICMP | SO_EE_ORIGIN_ICMP6);
    from_the_network && i32::try_from(error.ee_errno) == Ok(ECONNREFUSED)
}

/// IPv4 over a socket of both kinds comes out as IPv4, as it was dialled.
fn to_std(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::from((v4.ip(), v4.port())));
    }
    let v6 = address.as_sockaddr_in6()?;
    match IpAddr::V6(v6.ip()).to_canonical() {
        ip @ IpAddr::V4(_) => Some(SocketAddr::new(ip, v6.port())),
        IpAddr::V6(_) => Some(SocketAddr::from((v6.ip(), v6.port()))),
    }
}
