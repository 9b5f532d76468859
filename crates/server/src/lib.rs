//! A chatty server: the process around one [`chatty_core`] replica.
//!
//! In reading order:

pub mod files;
pub mod random;
pub mod config;
pub mod credentials;
pub mod data_dir;
pub mod init;
pub mod store;
pub mod check;
