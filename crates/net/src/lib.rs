//! Opaque frames over QUIC, and the certificates that say who is at the other end.
//!
//! - [`pki`]: the authority of a cluster, the certificates of its servers, their fingerprints.
//! - [`endpoint`]: one UDP socket that accepts and dials; nobody without a certificate of the
//!   cluster passes for a server.
//! - [`hint`]: the kernel of a machine answers for a process that died; what it says is passed on.
//! - [`frame`]: length, kind, body: frames in and out of a stream, many to a read or write.
//! - [`link`]: the streams between two servers, one for each class and direction.
//!
//! This crate knows nothing of the protocol: what a kind means, and what to do about a bad body, is
//! for `chatty-core` and the caller.

pub mod pki;
mod tls;

pub mod hint;

pub mod endpoint;

pub mod frame;

pub mod link;

pub use endpoint::{Accepted, DialError, Endpoint, ServerEndpointConfig};
pub use frame::{FrameReader, FrameWriter, RawFrame};
pub use pki::{Authority, Credentials, Fingerprint, Identity};
pub use quinn::{Connection, ConnectionError, RecvStream, SendStream};
pub use tls::{CredentialsError, Trust, in_time};
