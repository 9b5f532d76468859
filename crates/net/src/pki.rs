//! The cluster's certificate authority and the certificates it issues.
//!
//! A cluster is made with one authority (10 years, kept offline). Each server has a certificate of
//! it (90 days) that names the server twice: a DNS name shared by all servers of the cluster, which
//! TLS verifies, and a URI `chatty://<cluster>/<slot>/<generation>/<server>`, which says which one
//! it is. The authority's own certificate carries `chatty://<cluster>`.
//!
//! Clients know a cluster by the [`Fingerprint`] of its authority and nothing else.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use chatty_core::id::{ClusterId, Generation, ServerId, Slot};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long a server's certificate is good for, unless the operator says otherwise.
pub const SERVER_VALIDITY: Duration = Duration::from_hours(90 * 24);
/// How long an authority is good for.
const AUTHORITY_VALIDITY: Duration = Duration::from_hours(3650 * 24);
/// Certificates begin this long before they are made: the clocks of a cluster may differ.
const BACKDATE: Duration = Duration::from_hours(1);

/// Why a certificate or key was not made or not understood. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PkiError {
    /// No certificate in the text.
    #[error("this is not a certificate in PEM form; pass the file as chatty wrote it")]
    NotACertificate,
    /// No `chatty://` name, or one of another form.
    #[error("the certificate is not one of a chatty {expected}; was another file passed?")]
    NotOfChatty {
        /// What it should have been: `authority` or `server`.
        expected: &'static str,
    },
    /// The certificate is of one key, the key another.
    #[error("the key does not belong to the certificate; pass the two files made together")]
    KeyMismatch,
    /// The identity names another cluster than the authority's.
    #[error("the authority is of cluster {authority} and cannot vouch for cluster {asked}")]
    OtherCluster {
        /// Of the authority.
        authority: ClusterId,
        /// Of the identity.
        asked: ClusterId,
    },
    /// The key or certificate could not be made or read.
    #[error("certificate library: {0}")]
    Library(#[from] rcgen::Error),
}

/// SHA-256 of a certificate: what a client is told to trust.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a certificate in DER form.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// The text was not a fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is 64 hexadecimal digits")]
pub struct NotAFingerprint;

impl FromStr for Fingerprint {
    type Err = NotAFingerprint;
    fn from_str(text: &str) -> Result<Self, NotAFingerprint> {
        let mut bytes = [0; 32];
        // `from_str_radix` takes a sign too, so the digits are checked first.
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(NotAFingerprint);
        }
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            let digits = text.get(at..at + 2).ok_or(NotAFingerprint)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| NotAFingerprint)?;
        }
        Ok(Self(bytes))
    }
}

/// Who a server's certificate says it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its place in the configuration.
    pub slot: Slot,
    /// How many certificates of that slot came before; the highest is the slot.
    pub generation: Generation,
    /// The disk.
    pub server: ServerId,
}

/// From when until when a certificate is good, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    begins: SystemTime,
    ends: SystemTime,
}

impl Validity {
    /// Of a certificate in DER form; not verified.
    ///
    /// # Errors
    /// If it is none.
    pub fn of(der: &CertificateDer<'_>) -> Result<Self, PkiError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| PkiError::NotACertificate)?;
        Ok(Self::in_certificate(&certificate))
    }

    #[cfg(test)]
    pub(crate) const fn new(begins: SystemTime, ends: SystemTime) -> Self {
        Self { begins, ends }
    }

    fn in_certificate(certificate: &X509Certificate<'_>) -> Self {
        // A date before 1970 is taken for 1970.
        let at = |seconds: i64| {
            SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
        };
        let validity = certificate.validity();
        Self {
            begins: at(validity.not_before.timestamp()),
            ends: at(validity.not_after.timestamp()),
        }
    }

    /// The first second it is good.
    pub const fn begins(self) -> SystemTime {
        self.begins
    }

    /// The last second it is good.
    pub const fn ends(self) -> SystemTime {
        self.ends
    }

    /// How long it is still good at `now`: zero once it is over.
    pub fn left(self, now: SystemTime) -> Duration {
        self.ends.duration_since(now).unwrap_or_default()
    }
}

impl Identity {
    /// Reads the certificate of a server. This does not verify it: TLS does.
    ///
    /// # Errors
    /// If it is not a certificate, or not one of a chatty server.
    pub fn from_certificate(der: &CertificateDer<'_>) -> Result<(Self, Validity), PkiError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| PkiError::NotACertificate)?;
        let not_of_chatty = PkiError::NotOfChatty { expected: "server" };
        let path = chatty_name(&certificate).ok_or(not_of_chatty.clone())?;
        let identity = Self::from_path(path).ok_or(not_of_chatty)?;
        Ok((identity, Validity::in_certificate(&certificate)))
    }

    fn uri(&self) -> String {
        let Self { cluster, slot, generation, server } = self;
        format!("{SCHEME}{cluster}/{slot}/{generation}/{server}")
    }

    fn from_path(path: &str) -> Option<Self> {
        let mut parts = path.split('/');
        let identity = Self {
            cluster: parts.next()?.parse().ok()?,
            slot: Slot::new(parts.next()?).ok()?,
            generation: parts.next()?.parse().ok()?,
            server: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(identity)
    }
}

const SCHEME: &str = "chatty://";

/// The DNS name that every server of a cluster goes by in TLS.
pub(crate) fn dns_name(cluster: ClusterId) -> String {
    format!("{:032x}.chatty", cluster.bits())
}

/// What follows `chatty://` in the only such name of a certificate.
fn chatty_name<'a>(certificate: &X509Certificate<'a>) -> Option<&'a str> {
    let names = &certificate.subject_alternative_name().ok()??.value.general_names;
    let mut ours = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(SCHEME),
        _ => None,
    });
    let name = ours.next()?;
    ours.next().is_none().then_some(name)
}

/// The cluster of an authority's certificate.
pub(crate) fn authority_cluster(der: &CertificateDer<'_>) -> Result<ClusterId, PkiError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| PkiError::NotACertificate)?;
    chatty_name(&certificate)
        .filter(|_| certificate.is_ca())
        .and_then(|name| name.parse().ok())
        .ok_or(PkiError::NotOfChatty { expected: "authority" })
}

/// A server's certificate and its private key, as written to its files.
#[derive(Clone)]
pub struct Credentials {
    /// The certificate.
    pub cert_pem: String,
    /// The private key (PKCS #8): whoever has it is this server.
    pub key_pem: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// The certificate authority of a cluster, with its private key.
pub struct Authority {
    cluster: ClusterId,
    cert: CertificateDer<'static>,
    cert_pem: String,
    key: KeyPair,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new authority, for a new cluster.
    ///
    /// # Errors
    /// [`PkiError::Library`] if the system has no randomness.
    pub fn generate(cluster: ClusterId) -> Result<Self, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = params(&format!("chatty cluster {cluster}"), AUTHORITY_VALIDITY);
        params.subject_alt_names = vec![uri(&format!("{SCHEME}{cluster}"))?];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key)?;
        Ok(Self { cluster, cert_pem: cert.pem(), cert: cert.der().clone(), key })
    }

    /// An authority from its two files.
    ///
    /// # Errors
    /// If either is not what it should be, or they do not belong together.
    pub fn load(cert_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let cert = CertificateDer::from_pem_slice(cert_pem.as_bytes())
            .map_err(|_| PkiError::NotACertificate)?;
        let cluster = authority_cluster(&cert)?;
        let key = KeyPair::from_pem(key_pem)?;
        let (_, parsed) =
            X509Certificate::from_der(&cert).map_err(|_| PkiError::NotACertificate)?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(PkiError::KeyMismatch);
        }
        Ok(Self { cluster, cert_pem: cert_pem.to_owned(), cert, key })
    }

    /// The cluster it vouches for.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The certificate: public, every server has it.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The private key: whoever has it can make servers of this cluster.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// What clients pin.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.cert)
    }

    /// A new key and certificate for a server, good from an hour ago until `validity` from now
    /// (see [`SERVER_VALIDITY`]).
    ///
    /// # Errors
    /// [`PkiError::OtherCluster`] if the identity is not of this cluster.
    pub fn issue_server(
        &self,
        identity: &Identity,
        validity: Duration,
    ) -> Result<Credentials, PkiError> {
        let key = KeyPair::generate()?;
        let cert_pem = self.certify(identity, &key, validity)?;
        Ok(Credentials { cert_pem, key_pem: key.serialize_pem() })
    }

    /// A new certificate for the key of an older one, good from an hour ago until `validity` from
    /// now. The private key is not needed, and stays where it is.
    ///
    /// # Errors
    /// [`PkiError::OtherCluster`] if the identity is not of this cluster, [`PkiError::NotACertificate`]
    /// if `old_pem` is none.
    pub fn renew_server(
        &self,
        identity: &Identity,
        old_pem: &str,
        validity: Duration,
    ) -> Result<String, PkiError> {
        let old = CertificateDer::from_pem_slice(old_pem.as_bytes())
            .map_err(|_| PkiError::NotACertificate)?;
        let (_, old) = X509Certificate::from_der(&old).map_err(|_| PkiError::NotACertificate)?;
        let key = SubjectPublicKeyInfo::from_der(old.public_key().raw)?;
        self.certify(identity, &key, validity)
    }

    fn certify(
        &self,
        identity: &Identity,
        key: &impl PublicKeyData,
        validity: Duration,
    ) -> Result<String, PkiError> {
        if identity.cluster != self.cluster {
            let (authority, asked) = (self.cluster, identity.cluster);
            return Err(PkiError::OtherCluster { authority, asked });
        }
        let mut params = params(&format!("chatty server {}", identity.slot), validity);
        params.subject_alt_names =
            vec![SanType::DnsName(dns_name(identity.cluster).try_into()?), uri(&identity.uri())?];
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // A server dials other servers, and is then the client of TLS.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(key, &Issuer::from_ca_cert_der(&self.cert, &self.key)?)?;
        Ok(cert.pem())
    }
}

fn params(name: &str, validity: Duration) -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + validity).into();
    params
}

fn uri(text: &str) -> Result<SanType, PkiError> {
    Ok(SanType::URI(text.try_into()?))
}

#[cfg(test)]
mod tests;
