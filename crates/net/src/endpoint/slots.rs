//! Who may be in a handshake at the same time.
//!
//! A handshake costs nothing to begin and can be drawn out for seconds, so places are what an
//! attacker takes. Whoever has not shown that it receives at the address it sends from shares
//! places with all others of that kind, and when those are gone it must show it. Then an address
//! counts: no one has more than [`ADDRESS_MAX`] places, and those of the other servers are kept for
//! them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use super::canonical;

/// Handshakes at once of whoever has not shown its address.
const UNPROVED_MAX: usize = 256;
/// Of those who have, other servers apart.
const PROVED_MAX: usize = 256;
/// Of those at one address; of IPv6, in one network of 64 bits.
const ADDRESS_MAX: usize = 64;
/// At the address of another server: it dials one at a time, and may have been restarted.
const PEER_MAX: usize = 4;

/// The places.
#[derive(Clone, Default)]
pub(super) struct Slots(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    unproved: usize,
    proved: usize,
    /// Of those who have shown it; as many as there are proved places at most.
    addresses: BTreeMap<IpAddr, usize>,
    /// Where the other servers are, by name, and how many handshakes they are in.
    peers: BTreeMap<String, (SocketAddr, usize)>,
}

/// A place; free again when dropped.
pub(super) struct Place {
    slots: Slots,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Unproved,
    Proved(IpAddr),
    Peer(String),
}

/// What becomes of whoever wants a place.
pub(super) enum Verdict {
    /// It has one.
    Take(Place),
    /// It must show that it receives where it sends from.
    Prove,
    /// There is none for it.
    Refuse,
}

impl Slots {
    /// Another server is dialled there, and so it dials from there.
    pub(super) fn expect(&self, name: &str, at: SocketAddr) {
        let at = canonical(at);
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.peers.entry(name.to_owned()).or_insert((at, 0)).0 = at;
    }

    /// Asks for a place. `proved`: it receives where it sends from.
    pub(super) fn ask(&self, from: SocketAddr, proved: bool) -> Verdict {
        let from = canonical(from);
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = taken.ask(from, proved);
        drop(taken);
        match verdict {
            Ok(kind) => Verdict::Take(Place { slots: self.clone(), kind }),
            Err(No::NotProved) => Verdict::Prove,
            Err(No::Full) => Verdict::Refuse,
        }
    }
}

enum No {
    NotProved,
    Full,
}

impl Taken {
    fn ask(&mut self, from: SocketAddr, proved: bool) -> Result<Kind, No> {
        if !proved {
            return if self.unproved < UNPROVED_MAX {
                self.unproved += 1;
                Ok(Kind::Unproved)
            } else {
                Err(No::NotProved)
            };
        }
        let peer = self.peers.iter_mut().find(|(_, (at, count))| *at == from && *count < PEER_MAX);
        if let Some((name, (_, count))) = peer {
            *count += 1;
            return Ok(Kind::Peer(name.clone()));
        }
        let network = network(from.ip());
        let here = self.addresses.get(&network).copied().unwrap_or(0);
        if self.proved >= PROVED_MAX || here >= ADDRESS_MAX {
            return Err(No::Full);
        }
        self.proved += 1;
        self.addresses.insert(network, here + 1);
        Ok(Kind::Proved(network))
    }

    fn free(&mut self, kind: &Kind) {
        match kind {
            Kind::Unproved => self.unproved -= 1,
            Kind::Proved(network) => {
                self.proved -= 1;
                if let Some(count) = self.addresses.get_mut(network) {
                    *count -= 1;
                }
                self.addresses.retain(|_, count| *count > 0);
            }
            Kind::Peer(name) => {
                if let Some((_, count)) = self.peers.get_mut(name) {
                    *count -= 1;
                }
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.slots.0.lock().unwrap_or_else(PoisonError::into_inner).free(&self.kind);
    }
}

/// What counts as one address: an IPv4 address, also where it is written as IPv6, or 2^64 of IPv6,
/// since who holds one of those mostly holds all around it.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: u8, port: u16) -> SocketAddr {
        ([10, 0, 0, host], port).into()
    }

    /// Takes places until there are none for it.
    fn flood(slots: &Slots, from: impl Fn(u16) -> SocketAddr, proved: bool) -> Vec<Place> {
        let place = |n| match slots.ask(from(n), proved) {
            Verdict::Take(place) => Some(place),
            Verdict::Prove | Verdict::Refuse => None,
        };
        (0..10_000).map_while(place).collect()
    }

    fn is_taken(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Take(_))
    }

    #[test]
    fn senders_that_hide_take_no_place_of_those_who_show_themselves() {
        let slots = Slots::default();
        let hidden = flood(&slots, |n| at(1, n), false);
        assert_eq!(hidden.len(), UNPROVED_MAX);
        assert!(matches!(slots.ask(at(2, 1), false), Verdict::Prove));
        assert!(is_taken(&slots.ask(at(2, 1), true)));
        drop(hidden);
        assert!(is_taken(&slots.ask(at(2, 1), false)), "places come free again");
    }

    #[test]
    fn one_address_leaves_places_to_the_others() {
        let slots = Slots::default();
        let one = flood(&slots, |n| at(1, n), true);
        assert_eq!(one.len(), ADDRESS_MAX);
        assert!(is_taken(&slots.ask(at(2, 1), true)));
        let v6 = |n: u16| SocketAddr::from(([0x2001, 0xdb8, 0, 1, 0, 0, 0, n], 9));
        let six = flood(&slots, v6, true);
        assert_eq!(six.len(), ADDRESS_MAX, "a network of 64 bits is one address");
        drop((one, six));
        let taken = slots.0.lock().unwrap();
        assert_eq!((taken.proved, taken.addresses.len()), (0, 0), "nothing is remembered");
    }

    #[test]
    fn many_addresses_leave_places_to_the_other_servers() {
        let slots = Slots::default();
        slots.expect("s2", at(2, 7400));
        let all: Vec<_> = (10..30).flat_map(|h| flood(&slots, |n| at(h, n), true)).collect();
        assert_eq!(all.len(), PROVED_MAX);
        assert!(!is_taken(&slots.ask(at(3, 1), true)));
        assert!(!is_taken(&slots.ask(at(2, 1), true)), "a client on the server's machine");
        assert_eq!(flood(&slots, |_| at(2, 7400), true).len(), PEER_MAX);
        slots.expect("s2", at(4, 7400));
        assert!(is_taken(&slots.ask(at(4, 7400), true)), "it moved");
    }
}
