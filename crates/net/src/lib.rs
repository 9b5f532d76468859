//! Opaque frames over QUIC, and the certificates that say who is at the other end.

pub mod frame;
pub mod link;
pub mod pki;
