//! A chatty server: the process around one [`chatty_core`] replica.
//!
//! In reading order:

pub mod store;
