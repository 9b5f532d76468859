//! How clients are attached. A gateway turns their words into requests and items into their words,
//! and decides nothing; QUIC is the first.

mod addresses;
pub(crate) mod quic;
