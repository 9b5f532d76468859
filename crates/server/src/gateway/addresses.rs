//! How many clients one address has here: whoever sends from few addresses leaves places to others.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use chatty_net::endpoint::network;

/// Who is here from where. Clones are the same.
#[derive(Clone)]
pub(super) struct Addresses {
    max: usize,
    /// No more entries than there are clients.
    here: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
}

/// A client's place at its address; free again when dropped.
pub(super) struct Here {
    addresses: Addresses,
    network: IpAddr,
}

impl Addresses {
    /// So many clients at one address.
    pub(super) fn new(max: usize) -> Self {
        Self { max, here: Arc::default() }
    }

    /// One more client at that address, if it may have one.
    pub(super) fn take(&self, address: IpAddr) -> Option<Here> {
        let network = network(address);
        let mut here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        let count = here.entry(network).or_insert(0);
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Here { addresses: self.clone(), network })
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let mut here = self.addresses.here.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = here.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                here.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_so_many_clients_and_others_have_theirs() {
        let addresses = Addresses::new(2);
        let take = |text: &str| addresses.take(text.parse().unwrap());
        let (first, second) = (take("10.0.0.1").unwrap(), take("::ffff:10.0.0.1").unwrap());
        assert!(take("10.0.0.1").is_none(), "the same in IPv6 is the same");
        let other = take("10.0.0.2").unwrap();
        let six = (take("2001:db8::1").unwrap(), take("2001:db8::ffff:2").unwrap());
        assert!(take("2001:db8::3").is_none(), "a network of 64 bits is one address");
        assert!(take("2001:db8:0:1::3").is_some());
        drop(first);
        let again = take("10.0.0.1").unwrap();
        drop((again, second, other, six));
        assert_eq!(addresses.here.lock().unwrap().len(), 0, "nothing is remembered");
    }
}
