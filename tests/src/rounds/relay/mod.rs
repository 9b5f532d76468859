//! A machine in the middle of the network that takes UDP packets of others and passes them on: later,
//! in another order, some of them twice (`queue` decides). Needs nothing of the kernel but routes.
//!
//! A machine whose packets to an address are to go this way gets a route to that address by the relay's
//! machine ([`Detour`]). There every address of the network counts as its own, so that a socket can be
//! bound to each end of a way: it takes what is sent to that end, and what others sent it passes on
//! from theirs. So addresses and ports stay as they are: firewalls, certificates and QUIC see nothing.
//! Notices of the kernel that a port is closed (ICMP) are not passed on.

mod queue;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket as StdSocket};
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chatty_core::time::Time;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt,
};
use tokio::net::UdpSocket;
use tokio::sync::Notify;

pub use queue::{Counts, Ends, Way};

use self::queue::{Packet, Queue};
use super::machines::{Detour, PORT, RELAY};
use super::place::Place;
use super::system::until;

/// What a burst may leave in a socket: a relay that lost packets would be a fault of its own.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// What waits at the end has left within this.
const EMPTY_MAX: Duration = Duration::from_secs(10);

/// The relay with the ways that go by it. Dropped, all ways are straight again, and what still waits
/// is lost.
pub struct Relay {
    detours: Vec<Detour>,
    hub: Arc<Hub>,
    place: Place,
}

impl Relay {
    /// Begins, without any way.
    ///
    /// # Errors
    /// What the system says.
    pub fn begin(seed: u64) -> Result<Self, String> {
        let place = Place::in_namespace(RELAY)?;
        let hub = Arc::new(Hub {
            began: Instant::now(),
            queue: Mutex::new(Queue::new(seed)),
            sockets: Mutex::default(),
            news: Notify::new(),
        });
        place.spawn(hub.clone().send_all());
        Ok(Self { detours: Vec::new(), hub, place })
    }

    /// From now on packets from a machine with the first address to the second go that way. One of the
    /// two is a server. The packets of clients open the way back to their ports: theirs is led first.
    ///
    /// # Errors
    /// What the system says.
    pub fn lead(&mut self, machine: &str, ends: Ends, way: Way) -> Result<(), String> {
        self.hub.queue().open(ends, way);
        let (hub, to) = (self.hub.clone(), SocketAddrV4::new(ends.1, PORT));
        self.place.run(async move { hub.socket(to).map(drop) })??;
        self.detours.push(Detour::begin(machine, ends.1)?);
        Ok(())
    }

    /// What was done on each way.
    pub fn counts(&self) -> Vec<(Ends, Counts)> {
        self.hub.queue().counts().collect()
    }

    /// All ways are straight again, and what waits leaves in its time.
    ///
    /// # Errors
    /// That it does not.
    pub fn end(&mut self) -> Result<(), String> {
        self.detours.clear();
        until("no packet waits in the relay", EMPTY_MAX, || match self.hub.queue().len() {
            0 => Ok(()),
            left => Err(format!("{left} do")),
        })
    }
}

/// What the tasks of a relay share.
struct Hub {
    began: Instant,
    queue: Mutex<Queue>,
    /// One for each end.
    sockets: Mutex<BTreeMap<SocketAddrV4, Arc<UdpSocket>>>,
    /// Rung when a packet came.
    news: Notify,
}

impl Hub {
    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Time {
        Time::from_micros(u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn pop(&self) -> Option<Packet> {
        self.queue().pop(self.now())
    }

    /// The socket of an end, which takes what is sent to it.
    fn socket(self: &Arc<Self>, end: SocketAddrV4) -> Result<Arc<UdpSocket>, String> {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = sockets.get(&end) {
            return Ok(socket.clone());
        }
        let bound = foreign(end).and_then(UdpSocket::from_std);
        let socket = Arc::new(bound.map_err(|error| format!("the relay's socket {end}: {error}"))?);
        sockets.insert(end, socket.clone());
        tokio::spawn(self.clone().take_all(end, socket.clone()));
        Ok(socket)
    }

    async fn take_all(self: Arc<Self>, end: SocketAddrV4, socket: Arc<UdpSocket>) {
        let mut buffer = vec![0; 1 << 16];
        loop {
            match socket.recv_from(&mut buffer).await {
                Ok((length, SocketAddr::V4(from))) => {
                    // What comes back to a client's port before this packet left finds it open.
                    if let Err(why) = self.socket(from) {
                        eprintln!("{why}");
                    }
                    self.queue().push(self.now(), from, end, &buffer[..length]);
                    self.news.notify_one();
                }
                Ok(_) => {}
                Err(error) => return eprintln!("the relay takes nothing for {end}: {error}"),
            }
        }
    }

    async fn send_all(self: Arc<Self>) {
        loop {
            let next = self.queue().next_at();
            let due = async {
                match next {
                    Some(at) => {
                        let at = self.began + at.since(Time::default());
                        tokio::time::sleep_until(at.into()).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.news.notified() => {}
            }
            while let Some(packet) = self.pop() {
                if let Err(why) = self.send(&packet).await {
                    eprintln!("the relay lost a packet: {why}");
                }
            }
        }
    }

    async fn send(self: &Arc<Self>, packet: &Packet) -> Result<(), String> {
        let socket = self.socket(packet.from)?;
        let sent = socket.send_to(&packet.bytes, SocketAddr::V4(packet.to)).await;
        sent.map(drop).map_err(|error| format!("{} to {}: {error}", packet.from, packet.to))
    }
}

/// A socket bound to an address of another machine.
fn foreign(end: SocketAddrV4) -> std::io::Result<StdSocket> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let made = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    setsockopt(&made, sockopt::IpTransparent, &true)?;
    setsockopt(&made, sockopt::RcvBufForce, &SOCKET_BUFFER_BYTES)?;
    setsockopt(&made, sockopt::SndBuf, &SOCKET_BUFFER_BYTES)?;
    bind(made.as_raw_fd(), &SockaddrIn::from(end))?;
    Ok(made.into())
}

/// An address as the system reads it.
///
/// # Errors
/// That it is none.
pub fn address(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|error| format!("{text}: {error}"))
}
