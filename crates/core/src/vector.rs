//! How much of every log a server, a client or a message covers: one number a log.
//!
//! Every server holds a contiguous prefix of every log, so this is the whole state of
//! replication; there are no gap lists anywhere.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{EventId, Log};

/// Log → how many of its events are covered, from the first. Logs of which nothing is covered are
/// not named, whatever came from the wire.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(from = "BTreeMap<Log, u64>")]
pub struct Vector(BTreeMap<Log, u64>);

impl From<BTreeMap<Log, u64>> for Vector {
    fn from(mut entries: BTreeMap<Log, u64>) -> Self {
        entries.retain(|_, upto| *upto > 0);
        Self(entries)
    }
}

impl Vector {
    /// Covers nothing.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Events of `log` covered.
    pub fn upto(&self, log: Log) -> u64 {
        self.0.get(&log).copied().unwrap_or(0)
    }

    /// Whether that event is covered.
    pub fn covers(&self, event: EventId) -> bool {
        event.seq <= self.upto(event.log)
    }

    /// Whether everything in `other` is covered here too.
    pub fn covers_all(&self, other: &Self) -> bool {
        other.0.iter().all(|(log, upto)| *upto <= self.upto(*log))
    }

    /// Covers at least `upto` of `log` from now on. Tells whether that was news.
    pub fn raise(&mut self, log: Log, upto: u64) -> bool {
        if upto == 0 || upto <= self.upto(log) {
            return false;
        }
        self.0.insert(log, upto);
        true
    }

    /// Covers what either covers (the least upper bound).
    pub fn join(&mut self, other: &Self) {
        for (log, upto) in &other.0 {
            self.raise(*log, *upto);
        }
    }

    /// The logs and what is covered of each, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Log, u64)> + '_ {
        self.0.iter().map(|(log, upto)| (*log, *upto))
    }

    /// How many logs are named.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it covers nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Events that `self` covers and `other` does not.
    pub fn ahead_of(&self, other: &Self) -> u64 {
        let ahead = self.0.iter().map(|(log, upto)| upto.saturating_sub(other.upto(*log)));
        ahead.fold(0, u64::saturating_add)
    }
}

impl FromIterator<(Log, u64)> for Vector {
    fn from_iter<I: IntoIterator<Item = (Log, u64)>>(entries: I) -> Self {
        let mut vector = Self::new();
        for (log, upto) in entries {
            vector.raise(log, upto);
        }
        vector
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Origin;
    use proptest::prelude::*;

    fn vector() -> impl Strategy<Value = Vector> {
        prop::collection::vec((0u128..6, 0u64..9), 0..8).prop_map(|entries| {
            entries.into_iter().map(|(o, upto)| (Log::of(Origin::new(o)), upto)).collect()
        })
    }

    fn joined(mut a: Vector, b: &Vector) -> Vector {
        a.join(b);
        a
    }

    proptest! {
        #[test]
        fn join_is_the_least_upper_bound(a in vector(), b in vector(), c in vector()) {
            let ab = joined(a.clone(), &b);
            prop_assert!(ab.covers_all(&a) && ab.covers_all(&b));
            prop_assert_eq!(&ab, &joined(b.clone(), &a));
            prop_assert_eq!(joined(ab.clone(), &c), joined(a.clone(), &joined(b.clone(), &c)));
            prop_assert_eq!(&joined(ab.clone(), &ab), &ab);
            if c.covers_all(&a) && c.covers_all(&b) {
                prop_assert!(c.covers_all(&ab));
            }
        }

        #[test]
        fn ahead_of_is_zero_exactly_when_covered(a in vector(), b in vector()) {
            prop_assert_eq!(a.ahead_of(&b) == 0, b.covers_all(&a));
        }

        #[test]
        fn entries_that_cover_nothing_do_not_survive_the_wire(a in vector(), more in 0u128..9) {
            let mut padded = a.clone();
            padded.0.entry(Log::of(Origin::new(more))).or_insert(0);
            let bytes = postcard::to_allocvec(&padded).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Vector>(&bytes).unwrap(), a);
        }

        #[test]
        fn a_vector_names_what_it_covers_and_nothing_else(a in vector(), seq in 0u64..12) {
            prop_assert_eq!(a.len(), a.iter().count());
            prop_assert_eq!(a.is_empty(), a.iter().next().is_none());
            for (log, upto) in a.iter() {
                prop_assert!(upto > 0);
                prop_assert_eq!(a.covers(EventId { log, seq }), seq <= upto);
            }
        }

        #[test]
        fn a_vector_survives_the_wire(a in vector()) {
            let bytes = postcard::to_allocvec(&a).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Vector>(&bytes).unwrap(), a);
        }
    }
}
