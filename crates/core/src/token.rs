//! Session tokens: who a client is, and how far it has seen, in the cluster's own hand.
//!
//! A token is a bearer's credential: any server of the cluster knows it again by its MAC (BLAKE3
//! keyed with the cluster's token key), so an account needs no look-up and works in a partition.

use serde::{Deserialize, Serialize};

use crate::id::{AccountId, ClusterId};
use crate::time::Hlc;
use crate::vector::Vector;

/// The cluster's secret for tokens; the same on all servers.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TokenKey([u8; 32]);

impl TokenKey {
    /// From 32 secret bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey(secret)")
    }
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Token {
    /// Of which cluster.
    pub cluster: ClusterId,
    /// Whose.
    pub account: AccountId,
    /// What was durable where it was given, and covered by what was sent before.
    pub vector: Vector,
    /// The server's hybrid clock then: what the bearer sends next is stamped above it.
    pub hlc: Hlc,
}

/// Bytes of a token, at most.
pub const TOKEN_BYTES_MAX: usize = 256 * 1024;
const MAC_BYTES: usize = 32;

impl Token {
    /// The token as bytes, with its MAC.
    pub fn seal(&self, key: &TokenKey) -> Vec<u8> {
        let mut bytes = postcard::to_allocvec(self).unwrap_or_default();
        let mac = blake3::keyed_hash(&key.0, &bytes);
        bytes.extend_from_slice(mac.as_bytes());
        bytes
    }

    /// Reads a token; `None` if this cluster did not write it.
    pub fn open(bytes: &[u8], key: &TokenKey, cluster: ClusterId) -> Option<Self> {
        if bytes.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (body, mac) = bytes.split_at_checked(bytes.len().checked_sub(MAC_BYTES)?)?;
        let mac: [u8; MAC_BYTES] = mac.try_into().ok()?;
        // `blake3::Hash` compares in constant time.
        if blake3::keyed_hash(&key.0, body) != blake3::Hash::from_bytes(mac) {
            return None;
        }
        let token: Self = postcard::from_bytes(body).ok()?;
        (token.cluster == cluster).then_some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: TokenKey = TokenKey::new([7; 32]);
    const CLUSTER: ClusterId = ClusterId::new(9);

    fn token() -> Token {
        let account = AccountId::new(3);
        Token { cluster: CLUSTER, account, vector: Vector::new(), hlc: Hlc::at_ms(5) }
    }

    #[test]
    fn a_token_opens_with_its_key_and_cluster_alone() {
        let sealed = token().seal(&KEY);
        assert_eq!(Token::open(&sealed, &KEY, CLUSTER), Some(token()));
        assert_eq!(Token::open(&sealed, &TokenKey::new([8; 32]), CLUSTER), None);
        assert_eq!(Token::open(&sealed, &KEY, ClusterId::new(1)), None);
    }

    proptest! {
        #[test]
        fn a_changed_token_does_not_open(at in 0usize..1000, bit in 0u8..8) {
            let mut sealed = token().seal(&KEY);
            let at = at % sealed.len();
            sealed[at] ^= 1 << bit;
            prop_assert_eq!(Token::open(&sealed, &KEY, CLUSTER), None);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Token::open(&bytes, &KEY, CLUSTER), None);
        }
    }

    #[test]
    fn a_token_may_be_as_long_as_its_bound() {
        let sealed = |logs: u128| {
            let vector = (1..=logs).map(|n| (crate::id::Log::of(crate::id::Origin::new(n)), 1));
            Token { vector: vector.collect(), ..token() }.seal(&KEY)
        };
        let each = sealed(2).len() - sealed(1).len();
        let most = u128::try_from((TOKEN_BYTES_MAX - sealed(0).len()) / each).unwrap();
        // Lengths grow by a byte or two at powers of two: walk to the last that fits.
        let last = (0..200).map(|less| most - less).find(|n| sealed(*n).len() <= TOKEN_BYTES_MAX);
        let last = last.unwrap();
        // A number above 127 takes a byte more: fill it up to the last one.
        let filled = |bytes: usize| {
            let upto = |n: u128| if n <= bytes as u128 { 200 } else { 1 };
            let vector =
                (1..=last).map(|n| (crate::id::Log::of(crate::id::Origin::new(n)), upto(n)));
            Token { vector: vector.collect(), ..token() }.seal(&KEY)
        };
        let missing = TOKEN_BYTES_MAX - sealed(last).len();
        assert_eq!(filled(missing).len(), TOKEN_BYTES_MAX);
        assert!(Token::open(&filled(missing), &KEY, CLUSTER).is_some());
        assert!(Token::open(&filled(missing + 1), &KEY, CLUSTER).is_none());
        assert_eq!(TOKEN_BYTES_MAX, 262_144);
    }
}
