//! TLS 1.3 for both kinds of connection: who must show what, and how it is verified.
//!
//! One server configuration offers both protocols, and asks for a certificate without insisting: a
//! client has none, and one of a foreign authority is refused inside TLS. That a server *has* one is
//! checked after the handshake, by the endpoint.
//!
//! 0-RTT stays off: what it carries can be replayed.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use chatty_core::id::ClusterId;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    Resumption, WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor, verify_server_name,
};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, DistinguishedName, Error,
    InconsistentKeys, RootCertStore, ServerConfig, SignatureScheme, WantsVerifier,
};

use crate::pki::{
    Credentials, Fingerprint, Identity, PkiError, Validity, authority_cluster, dns_name,
};

/// Between servers; both show a certificate.
pub(crate) const ALPN_SERVER: &[u8] = b"chatty-s/1";
/// From a client to a server; the server shows a certificate.
pub(crate) const ALPN_CLIENT: &[u8] = b"chatty-c/1";

/// What a client sends as the name of the server. It knows a fingerprint and no name, so the name
/// says nothing; the certificate is verified against the name of the authority's own cluster.
pub(crate) const ANY_SERVER: &str = "server.chatty";

/// Why a server's certificate and key cannot be used. Nothing was changed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CredentialsError {
    /// A file is not what it should be.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The private key is not PEM, or of a kind that is not known.
    #[error("the private key cannot be read; pass the file as chatty wrote it")]
    UnreadableKey,
    /// The certificate is of one cluster, the authority of another.
    #[error(
        "the certificate is of cluster {certificate}, the authority of {authority}; \
         pass the authority of the same cluster"
    )]
    OtherCluster {
        /// Of the server's certificate.
        certificate: ClusterId,
        /// Of the authority.
        authority: ClusterId,
    },
    /// The authority did not sign the certificate.
    #[error("the certificate was not issued by this authority; issue a new one with it")]
    NotSigned,
    /// The certificate's time is over.
    #[error("the certificate has expired; issue a new one with the authority")]
    Expired {
        /// When it was good.
        validity: Validity,
    },
    /// The certificate's time has not begun.
    #[error("the certificate is not valid yet; is this machine's clock right?")]
    NotYetValid,
    /// The certificate is of one key, the key another.
    #[error("the key does not belong to the certificate; pass the two files made together")]
    KeyMismatch,
    /// The TLS library refuses them for another reason.
    #[error("TLS: {0}")]
    Tls(Error),
}

/// What a server endpoint needs from its files, verified.
pub(crate) struct ServerTls {
    pub(crate) cluster: ClusterId,
    pub(crate) identity: Identity,
    pub(crate) validity: Validity,
    pub(crate) accept: Arc<QuicServerConfig>,
    pub(crate) dial: Arc<QuicClientConfig>,
    /// What the servers of the cluster go by.
    pub(crate) name: String,
}

impl ServerTls {
    /// `authority_pem` may hold several authorities of the cluster, while one replaces another.
    pub(crate) fn new(
        credentials: &Credentials,
        authority_pem: &str,
    ) -> Result<Self, CredentialsError> {
        let leaf = CertificateDer::from_pem_slice(credentials.cert_pem.as_bytes())
            .map_err(|_| PkiError::NotACertificate)?;
        let (identity, validity) = Identity::from_certificate(&leaf)?;
        let (authorities, roots) = read_authorities(authority_pem, identity.cluster)?;
        let name = dns_name(identity.cluster);
        let server_name = ServerName::try_from(name.clone())
            .map_err(|_| PkiError::NotOfChatty { expected: "server" })?;
        // A server whose clock is wrong starts all the same, and takes no writes: see `in_time`.
        verify_leaf(&leaf, &roots, &server_name, unix(validity.ends())).map_err(leaf_error)?;
        let key = PrivateKeyDer::from_pem_slice(credentials.key_pem.as_bytes())
            .map_err(|_| CredentialsError::UnreadableKey)?;
        let chain = std::iter::once(leaf).chain(authorities).collect();
        let certified = Arc::new(certified_key(chain, key)?);
        let roots = Arc::new(roots);
        Ok(Self {
            cluster: identity.cluster,
            identity,
            validity,
            accept: accept_config(&certified, &roots)?,
            dial: dial_config(&certified, &roots)?,
            name,
        })
    }
}

/// Whether a certificate is good at `now`.
///
/// # Errors
/// [`CredentialsError::Expired`], [`CredentialsError::NotYetValid`].
pub fn in_time(validity: Validity, now: SystemTime) -> Result<(), CredentialsError> {
    let now = unix(now);
    if now < unix(validity.begins()) {
        Err(CredentialsError::NotYetValid)
    } else if now > unix(validity.ends()) {
        Err(CredentialsError::Expired { validity })
    } else {
        Ok(())
    }
}

fn unix(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// At what time another's certificate is verified, by a clock that reads `now`; `own` is the
/// certificate of a server, a client has none.
///
/// The authority dates none ahead: whoever is shown a certificate knows that its time has begun,
/// whatever his clock says. Whether it has ended only a clock can say, and a server whose own
/// certificate has ended, as it seems, cannot trust his: it takes one that was good at some time
/// together with its own. If its clock is right it gains nothing, since the others refuse it.
/// (docs/decisions/0010)
fn judged_at(now: UnixTime, own: Option<Validity>, other: Validity) -> UnixTime {
    let (begins, ends) = (unix(other.begins()), unix(other.ends()));
    let at = now.max(begins);
    match own {
        Some(own) if now > unix(own.ends()) && ends >= unix(own.begins()) => at.min(ends),
        _ => at,
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    rustls::crypto::ring::default_provider().signature_verification_algorithms
}

fn read_authorities(
    pem: &str,
    certificate: ClusterId,
) -> Result<(Vec<CertificateDer<'static>>, RootCertStore), CredentialsError> {
    let authorities: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| PkiError::NotACertificate)?;
    if authorities.is_empty() {
        return Err(PkiError::NotACertificate.into());
    }
    let mut roots = RootCertStore::empty();
    for der in &authorities {
        let authority = authority_cluster(der)?;
        if authority != certificate {
            return Err(CredentialsError::OtherCluster { certificate, authority });
        }
        roots.add(der.clone()).map_err(CredentialsError::Tls)?;
    }
    Ok((authorities, roots))
}

fn leaf_error(error: Error) -> CredentialsError {
    use CertificateError as Bad;
    match error {
        Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            CredentialsError::NotSigned
        }
        other => CredentialsError::Tls(other),
    }
}

fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, CredentialsError> {
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => CredentialsError::KeyMismatch,
        Error::General(_) => CredentialsError::UnreadableKey,
        other => CredentialsError::Tls(other),
    })
}

fn accept_config(
    certified: &Arc<CertifiedKey>,
    roots: &Arc<RootCertStore>,
) -> Result<Arc<QuicServerConfig>, CredentialsError> {
    let inner = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| CredentialsError::Tls(Error::General(error.to_string())))?;
    let verifier = Arc::new(Peers { inner, own: own_validity(certified)? });
    let mut tls = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(CredentialsError::Tls)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified.clone())));
    tls.alpn_protocols = vec![ALPN_SERVER.to_vec(), ALPN_CLIENT.to_vec()];
    QuicServerConfig::try_from(tls).map(Arc::new).map_err(no_initial_suite)
}

fn dial_config(
    certified: &Arc<CertifiedKey>,
    roots: &Arc<RootCertStore>,
) -> Result<Arc<QuicClientConfig>, CredentialsError> {
    let inner = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider())
        .build()
        .map_err(|error| CredentialsError::Tls(Error::General(error.to_string())))?;
    let verifier = Arc::new(Peers { inner, own: own_validity(certified)? });
    let mut tls = client_builder()
        .map_err(CredentialsError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified.clone())));
    tls.alpn_protocols = vec![ALPN_SERVER.to_vec()];
    // A resumed handshake shows no certificate: each link between servers proves itself anew.
    tls.resumption = Resumption::disabled();
    QuicClientConfig::try_from(tls).map(Arc::new).map_err(no_initial_suite)
}

fn own_validity(certified: &CertifiedKey) -> Result<Validity, CredentialsError> {
    let leaf = certified.cert.first().ok_or(PkiError::NotACertificate)?;
    Ok(Validity::of(leaf)?)
}

/// The usual verification, at the time of [`judged_at`].
#[derive(Debug)]
struct Peers<V: ?Sized> {
    inner: Arc<V>,
    own: Validity,
}

impl<V: ?Sized> Peers<V> {
    fn at(&self, now: UnixTime, shown: &CertificateDer<'_>) -> UnixTime {
        // What is no certificate is refused by the verification.
        Validity::of(shown).map_or(now, |other| judged_at(now, Some(self.own), other))
    }
}

impl ClientCertVerifier for Peers<dyn ClientCertVerifier> {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.inner.verify_client_cert(end_entity, intermediates, self.at(now, end_entity))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

impl ServerCertVerifier for Peers<WebPkiServerVerifier> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let now = self.at(now, end_entity);
        self.inner.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn client_builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, Error> {
    ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13])
}

fn no_initial_suite(error: quinn::crypto::rustls::NoInitialCipherSuite) -> CredentialsError {
    CredentialsError::Tls(Error::General(error.to_string()))
}

/// Signed by one of `roots`, in time, and of that name.
fn verify_leaf(
    leaf: &CertificateDer<'_>,
    roots: &RootCertStore,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), Error> {
    let leaf = ParsedCertificate::try_from(leaf)?;
    // The authority signs servers itself: there is nothing in between.
    verify_server_cert_signed_by_trust_anchor(&leaf, roots, &[], now, algorithms().all)?;
    verify_server_name(&leaf, name)
}

/// Whom a client takes for a server of its cluster: whoever shows the authority with this
/// fingerprint and a certificate issued by it. Keep it between dials: it remembers the sessions that
/// make the next handshake cheaper.
#[derive(Clone)]
pub struct Trust {
    fingerprint: Fingerprint,
    pub(crate) dial: Arc<QuicClientConfig>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trust({})", self.fingerprint)
    }
}

impl Trust {
    /// Trust the authority with this fingerprint and nobody else.
    ///
    /// # Errors
    /// [`CredentialsError::Tls`] if the TLS library was built without TLS 1.3.
    pub fn pinned(fingerprint: Fingerprint) -> Result<Self, CredentialsError> {
        let mut tls = client_builder()
            .map_err(CredentialsError::Tls)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned { fingerprint }))
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN_CLIENT.to_vec()];
        let dial = QuicClientConfig::try_from(tls).map(Arc::new).map_err(no_initial_suite)?;
        Ok(Self { fingerprint, dial })
    }

    /// What is pinned.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

/// Finds the pinned authority among the certificates shown and verifies the server's against it
/// alone.
#[derive(Debug)]
struct Pinned {
    fingerprint: Fingerprint,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = intermediates
            .iter()
            .find(|shown| Fingerprint::of(shown) == self.fingerprint)
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let cluster = authority_cluster(authority)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let name = ServerName::try_from(dns_name(cluster))
            .map_err(|_| Error::InvalidCertificate(CertificateError::NotValidForName))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let validity = Validity::of(end_entity)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        verify_leaf(end_entity, &roots, &name, judged_at(now, None, validity))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    //! Ends of a handshake that this crate does not make: what others could send us.

    use super::*;

    pub(crate) fn leaf(credentials: &Credentials) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(credentials.cert_pem.as_bytes()).unwrap()
    }

    fn showing(credentials: &Credentials, authority_pem: &str) -> Arc<CertifiedKey> {
        let authority = CertificateDer::from_pem_slice(authority_pem.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(credentials.key_pem.as_bytes()).unwrap();
        Arc::new(certified_key(vec![leaf(credentials), authority], key).unwrap())
    }

    fn roots(authority_pem: &str) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority_pem.as_bytes()).unwrap()).unwrap();
        Arc::new(roots)
    }

    fn good(begins: u64, ends: u64) -> Validity {
        let at = |seconds| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        Validity::new(at(begins), at(ends))
    }

    #[test]
    fn an_expired_certificate_is_taken_only_by_a_server_whose_own_has_ended_too() {
        let at = |now: u64, own: Option<Validity>, other: Validity| {
            let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now));
            let at = judged_at(now, own, other);
            at >= unix(other.begins()) && at <= unix(other.ends())
        };
        let own = Some(good(100, 200));
        assert!(at(150, own, good(100, 160)));
        assert!(!at(170, own, good(100, 160)), "the clock is right: it has ended");
        assert!(at(900, own, good(150, 250)), "the clock is ahead of both");
        assert!(!at(900, own, good(10, 99)), "they were never good together");
        assert!(at(5, own, good(100, 160)) && at(150, own, good(160, 260)), "a clock is behind");
        assert!(at(5, None, good(100, 160)));
        assert!(!at(900, None, good(100, 160)), "a client has nothing to doubt its clock by");
    }

    /// A server that shows its own certificate beside an authority that did not sign it.
    pub(crate) fn accept_showing(
        credentials: &Credentials,
        authority_pem: &str,
    ) -> quinn::ServerConfig {
        let certified = showing(credentials, authority_pem);
        quinn::ServerConfig::with_crypto(accept_config(&certified, &roots(authority_pem)).unwrap())
    }

    /// A server that shows a certificate of another authority than the one it trusts.
    pub(crate) fn dial_as(credentials: &Credentials, trusted_pem: &str) -> Arc<QuicClientConfig> {
        dial_config(&showing(credentials, trusted_pem), &roots(trusted_pem)).unwrap()
    }

    /// Speaks the protocol of servers, and shows nothing.
    pub(crate) fn peer_without_certificate(fingerprint: Fingerprint) -> Arc<QuicClientConfig> {
        let mut tls = client_builder()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned { fingerprint }))
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN_SERVER.to_vec()];
        Arc::new(QuicClientConfig::try_from(tls).unwrap())
    }
}
