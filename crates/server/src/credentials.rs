//! The files that say who a server is, read and held against its configuration.

use std::path::PathBuf;

use chatty_core::id::{ClusterId, Slot};
use chatty_core::token::TokenKey;
use chatty_net::pki::{PkiError, Validity};
use chatty_net::{Credentials, CredentialsError, Identity};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::config::Config;
use crate::files::{self, FileError};

/// What a server proves itself with.
#[derive(Debug)]
pub struct Proof {
    /// Who the certificate says it is.
    pub identity: Identity,
    /// When that is good.
    pub validity: Validity,
    /// The certificate and its key.
    pub credentials: Credentials,
    /// The authority's certificate.
    pub authority_pem: String,
    /// The key of the session tokens.
    pub token_key: TokenKey,
    /// Whose that key is; `None` if an older version wrote the file.
    pub token_key_of: Option<ClusterId>,
}

/// Why the files cannot be used. Nothing was touched.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// One is missing or cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The certificate cannot be read.
    #[error("{}: {source}", file.display())]
    Certificate {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        source: CredentialsError,
    },
    /// The certificate is of another slot.
    #[error("{}: the certificate is of server {of}, the configuration of {name}", file.display())]
    OtherSlot {
        /// Which file.
        file: PathBuf,
        /// Whose it is.
        of: Slot,
        /// Who the server is.
        name: Slot,
    },
    /// The token key is no key.
    #[error("{}: a token key is 64 hexadecimal digits; copy it from another server", file.display())]
    TokenKey {
        /// Which file.
        file: PathBuf,
    },
    /// The token key is of another cluster.
    #[error(
        "{}: the token key is of cluster {of}, the certificate of {cluster}; copy it from another \
         server of this cluster",
        file.display()
    )]
    OtherTokenKey {
        /// Which file.
        file: PathBuf,
        /// Whose it is.
        of: ClusterId,
        /// Whose the certificate is.
        cluster: ClusterId,
    },
}

/// Reads the files of a server. Whether the authority signed the certificate and whether the key
/// belongs to it is checked by [`chatty_net::Endpoint::server`].
///
/// # Errors
/// See [`ProofError`].
pub fn load(config: &Config) -> Result<Proof, ProofError> {
    let cert_pem = files::read(&config.certificate)?;
    let key_pem = files::read(&config.key)?;
    let authority_pem = files::read(&config.authority)?;
    let (identity, validity) = identity_of(&cert_pem)
        .map_err(|source| ProofError::Certificate { file: config.certificate.clone(), source })?;
    if identity.slot != config.name {
        let (of, name) = (identity.slot, config.name.clone());
        return Err(ProofError::OtherSlot { file: config.certificate.clone(), of, name });
    }
    let (token_key_of, token_key) = parse_token_key(&files::read(&config.token_key)?)
        .ok_or_else(|| ProofError::TokenKey { file: config.token_key.clone() })?;
    let credentials = Credentials { cert_pem, key_pem };
    Ok(Proof { identity, validity, credentials, authority_pem, token_key, token_key_of })
}

impl Proof {
    /// Whether the token key is of the certificate's cluster, as far as its file says. To be asked
    /// once the authority has vouched for the certificate: else that is what is wrong.
    ///
    /// # Errors
    /// [`ProofError::OtherTokenKey`].
    pub(crate) fn check_token_key(&self, config: &Config) -> Result<(), ProofError> {
        let cluster = self.identity.cluster;
        match self.token_key_of.filter(|of| *of != cluster) {
            Some(of) => {
                let file = config.token_key.clone();
                Err(ProofError::OtherTokenKey { file, of, cluster })
            }
            None => Ok(()),
        }
    }
}

/// Who a certificate says it is of; not verified.
pub(crate) fn identity_of(pem: &str) -> Result<(Identity, Validity), CredentialsError> {
    let leaf =
        CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| PkiError::NotACertificate)?;
    Ok(Identity::from_certificate(&leaf)?)
}

/// What a cluster's token key is kept as: whose it is, and the key. The first line came later: a
/// file without it may be of any cluster.
pub(crate) fn token_key_text(cluster: ClusterId, hex_key: &str) -> String {
    format!("{TOKEN_KEY_OF}{cluster}\n{hex_key}\n")
}

const TOKEN_KEY_OF: &str = "cluster ";

/// What the text of a token key's file says: whose it is, and the key.
pub fn parse_token_key(text: &str) -> Option<(Option<ClusterId>, TokenKey)> {
    let text = text.trim();
    let (cluster, text) = match text.strip_prefix(TOKEN_KEY_OF) {
        Some(rest) => {
            let (cluster, key) = rest.split_once('\n')?;
            (Some(cluster.trim().parse().ok()?), key.trim())
        }
        None => (None, text),
    };
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = [0; 32];
    let (high, low) = text.split_at(32);
    for (half, digits) in key.chunks_exact_mut(16).zip([high, low]) {
        half.copy_from_slice(&u128::from_str_radix(digits, 16).ok()?.to_be_bytes());
    }
    Some((cluster, TokenKey::new(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_key_is_64_hexadecimal_digits_and_nothing_else() {
        let key = parse_token_key(&format!("{}ff\n", "01".repeat(31)));
        let mut bytes = [1; 32];
        bytes[31] = 255;
        assert_eq!(key, Some((None, TokenKey::new(bytes))), "as older versions wrote it");
        for bad in [String::new(), "0".repeat(63), "g".repeat(64), format!("+{}", "0".repeat(63))] {
            assert_eq!(parse_token_key(&bad), None);
            assert_eq!(parse_token_key(&token_key_text(ClusterId::new(1), &bad)), None);
        }
        assert_eq!(parse_token_key(&format!("cluster me\n{}", "0".repeat(64))), None);
    }

    #[test]
    fn a_token_key_says_whose_it_is() {
        let text = token_key_text(ClusterId::new(9), &"00".repeat(32));
        let key = TokenKey::new([0; 32]);
        assert_eq!(parse_token_key(&text), Some((Some(ClusterId::new(9)), key)));
    }
}
