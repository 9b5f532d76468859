//! A chatty server: the process around one [`chatty_core`] replica.
//!
//! [`init`] makes a cluster's files, [`check`] tells whether a server would start, [`run`] runs it.
//! Inside a run, one task owns the replica (`driver`); `links` and `gateway` are the tasks around
//! it, [`store`] is its disk. [`control`] is the operator's door to it.
//!
//! In reading order:

pub mod cli;
pub mod init;
pub mod config;
pub mod credentials;
pub mod data_dir;
pub mod check;
pub mod run;
mod again;
pub mod watchdog;
mod driver;
mod links;
mod gateway;
pub mod control;
mod certificate;
pub mod backup;
mod close;
pub mod store;
pub mod files;
pub mod random;
mod logging;
