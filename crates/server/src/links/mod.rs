//! The links to the other servers: one to each, whoever dialled.
//!
//! Both sides dial, for ever. Of two connections made at the same moment the side with the smaller
//! [`ServerId`] takes one, and says hello on the other only if that one fails (`greet`): so none is
//! made only to be dropped. Should both be ready all the same, both sides keep the one that the
//! smaller dialled. Another connection of the run that is linked replaces the link at once, since
//! whoever dials has no link (it lost the connection before this side noticed) or a new certificate.
//! So does a newer disk of the slot; an older one is refused before it touches anything. Another run
//! of the same disk waits until the old one is known to be dead ([`contest`]).

mod common;
mod contest;
mod dial;
mod greet;
mod streams;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chatty_core::frame::Class;
use chatty_core::id::{LinkId, Origin, ServerId, Slot};
use chatty_core::io::Peer;
use chatty_core::session::ServerAddr;
use chatty_net::{Connection, Identity};
use tokio::sync::watch;

pub(crate) use contest::{Contests, duplicate};
pub(crate) use dial::{Dialler, PARALLEL};
pub(crate) use greet::{Gate, GreetError, Greeter, Ready};

use crate::close::{self, DUPLICATE};
use crate::driver::inbox::Doors;
use crate::driver::queue::{Frame, Queue};

/// Two connections within this time were dialled at the same moment.
const RACE: Duration = Duration::from_secs(2);

/// Whether a server is linked; diallers wait for it to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Linked {
    Yes(LinkId),
    No,
}

/// All links. Owned by the replica's task.
pub(crate) struct Links {
    me: ServerId,
    last: u64,
    live: BTreeMap<LinkId, Link>,
    linked: BTreeMap<Slot, watch::Sender<Linked>>,
}

struct Link {
    peer: Peer,
    dialled_by: ServerId,
    since: Instant,
    connection: Connection,
    queues: [Arc<Queue>; 4],
}

/// What becomes of a new connection.
pub(crate) enum Admission {
    /// It is this link now, instead of that one.
    Link(LinkId, Peer, Option<LinkId>),
    /// The link that is there stays.
    Refused,
}

impl Links {
    /// None yet.
    pub(crate) fn new(me: ServerId, servers: &[ServerAddr]) -> Self {
        let linked = servers.iter().map(|s| (s.name.clone(), watch::Sender::new(Linked::No)));
        Self { me, last: 0, live: BTreeMap::new(), linked: linked.collect() }
    }

    /// Tells a dialler whether the server is linked.
    pub(crate) fn watch(&self, slot: &Slot) -> Option<watch::Receiver<Linked>> {
        self.linked.get(slot).map(watch::Sender::subscribe)
    }

    /// The link to another run of the same disk.
    pub(crate) fn rival(&self, peer: &Peer) -> Option<(LinkId, &Peer)> {
        let rival = |link: &Link| {
            link.peer.slot == peer.slot
                && link.peer.server == peer.server
                && link.peer.origin != peer.origin
        };
        self.live.iter().find(|(_, link)| rival(link)).map(|(id, link)| (*id, &link.peer))
    }

    /// All of them.
    pub(crate) fn ids(&self) -> Vec<LinkId> {
        self.live.keys().copied().collect()
    }

    /// The run of a slot that is linked.
    pub(crate) fn run(&self, slot: &Slot) -> Option<Origin> {
        self.live.values().find(|link| link.peer.slot == *slot).map(|link| link.peer.origin)
    }

    /// Takes a connection as the link to its server, or closes it.
    pub(crate) fn admit(&mut self, ready: Ready, doors: &Doors) -> Admission {
        // The other side chose another one while this waited for its turn: that one is greeted next.
        if ready.connection.close_reason().is_some() {
            return Admission::Refused;
        }
        let old = self.live.iter().find(|(_, link)| link.peer.slot == ready.peer.slot);
        let old = old.map(|(id, link)| (*id, link));
        if let Some((_, link)) = old
            && self.stays(link, &ready)
        {
            close::close(&ready.connection, DUPLICATE, "another connection is the link");
            return Admission::Refused;
        }
        let old = old.map(|(id, _)| id);
        if let Some(old) = old {
            self.close(old, DUPLICATE, "a newer connection is the link");
        }
        self.last += 1;
        let id = LinkId(self.last);
        let Ready { peer, dialled_by, connection, ours, theirs } = ready;
        let queues = streams::start(id, &connection, ours, theirs, doors);
        let link =
            Link { peer: peer.clone(), dialled_by, since: Instant::now(), connection, queues };
        self.tell(&peer.slot, Linked::Yes(id));
        self.live.insert(id, link);
        Admission::Link(id, peer, old)
    }

    fn stays(&self, link: &Link, new: &Ready) -> bool {
        let same_runs = link.peer.origin == new.peer.origin;
        let race = link.since.elapsed() < RACE && link.dialled_by != new.dialled_by;
        same_runs && race && link.dialled_by == self.me.min(link.peer.server)
    }

    /// Who is at the other end and for how long, if the link is there.
    pub(crate) fn peer(&self, link: LinkId) -> Option<(&Peer, Duration)> {
        self.live.get(&link).map(|link| (&link.peer, link.since.elapsed()))
    }

    /// Queues a frame.
    pub(crate) fn send(&self, link: LinkId, class: Class, frame: Frame) {
        if let Some(link) = self.live.get(&link) {
            streams::queue(&link.queues, class).push(frame);
        }
    }

    /// Drops what waits for the network.
    pub(crate) fn drop_queue(&self, link: LinkId, class: Class) {
        if let Some(link) = self.live.get(&link) {
            streams::queue(&link.queues, class).clear();
        }
    }

    /// Closes a link and forgets it. Does nothing if it is not there.
    pub(crate) fn close(&mut self, link: LinkId, code: u32, why: &str) {
        if let Some(link) = self.live.remove(&link) {
            close::close(&link.connection, code, why);
            self.tell(&link.peer.slot, Linked::No);
        }
    }

    /// The link to that address.
    pub(crate) fn at(&self, address: SocketAddr) -> Option<LinkId> {
        let canonical = |a: SocketAddr| (a.ip().to_canonical(), a.port());
        let at = |link: &Link| canonical(link.connection.remote_address()) == canonical(address);
        self.live.iter().find(|(_, link)| at(link)).map(|(id, _)| *id)
    }

    fn tell(&self, slot: &Slot, state: Linked) {
        if let Some(linked) = self.linked.get(slot) {
            linked.send_replace(state);
        }
    }
}

/// Whether a server may link with this one by its certificate; the core looks at generations.
pub(crate) fn may_link(
    servers: &[ServerAddr],
    me: &Identity,
    other: &Identity,
) -> Result<(), String> {
    if other.server == me.server || other.slot == me.slot {
        return Err(format!("{} is this server itself, or an older disk of it", other.slot));
    }
    if !servers.iter().any(|server| server.name == other.slot) {
        return Err(format!("{} is not in the configuration of {}", other.slot, me.slot));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use chatty_core::id::ClusterId;

    #[test]
    fn only_other_servers_of_the_configuration_may_link() {
        let slot = |name: &str| Slot::new(name).unwrap();
        let identity = |name: &str, server| Identity {
            cluster: ClusterId::new(1),
            slot: slot(name),
            generation: 0,
            server: ServerId::new(server),
        };
        let servers: Vec<_> = ["s1", "s2"]
            .map(|name| ServerAddr { name: slot(name), addr: format!("{name}:1") })
            .into();
        let may = |name, server| may_link(&servers, &identity("s1", 1), &identity(name, server));
        assert_eq!(may("s2", 2), Ok(()));
        assert!(may("s1", 3).unwrap_err().contains("this server itself"));
        assert!(may("s2", 1).unwrap_err().contains("this server itself"));
        assert!(may("s3", 3).unwrap_err().contains("not in the configuration of s1"));
    }
}
