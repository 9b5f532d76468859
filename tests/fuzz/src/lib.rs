//! What chatty does with bytes that nobody promised anything about: from a socket, a disk, a file.
//!
//! Each [`Target`] takes arbitrary bytes, gives them to the real code and panics if a promise is
//! broken: no panic in there, no memory beyond a bound ([`memory`]), what was read is written the
//! same again, a replica's invariants hold. libFuzzer looks for such bytes (`scripts/fuzz`); what
//! it found interesting is kept in `corpus/` and tried by an ordinary test.

mod client;
mod database;
mod decode;
mod files;
mod input;
pub mod kinds;
pub mod memory;
mod replica;
mod rows;

use memory::MIB;

/// One thing to be tried with arbitrary bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// What it holds against what.
    pub what: &'static str,
    run: fn(&[u8]),
    /// Bytes of memory it may take beside the input, at most.
    bytes_max: usize,
}

macro_rules! targets {
    ($($name:literal $run:path, $mib:literal MiB: $what:literal;)*) => {
        /// All of them.
        pub const TARGETS: &[Target] = &[$(Target {
            name: $name,
            what: $what,
            run: $run,
            bytes_max: $mib * MIB,
        }),*];
    };
}

targets! {
    "frame" decode::frame, 8 MiB: "frames between servers, and the hello";
    "request" decode::request, 8 MiB: "requests of a client";
    "item" decode::item, 8 MiB: "items to a client";
    "event" decode::event, 8 MiB: "events, their bodies, chains and what is left of them";
    "token" decode::token, 8 MiB: "session tokens, with and without the cluster's hand";
    "text" decode::text, 8 MiB: "keys, ids, names, fingerprints, URLs";
    "framing" decode::framing, 8 MiB: "a stream that is cut into frames, in pieces of any length";
    "certificate" files::certificate, 16 MiB: "certificates and keys";
    "config" files::config, 32 MiB: "a server's configuration, and a replica with its bounds";
    "client_files" files::client_files, 16 MiB: "cluster files, accounts, outboxes";
    "backup" files::backup, 16 MiB: "backups";
    "rows" rows::run, 32 MiB: "rows of a database, and a replica that begins with what they say";
    "database" database::rows, 64 MiB: "a database with some arbitrary rows: begun, read, verified";
    "database_files" database::files, 64 MiB: "a database with some arbitrary bytes in its files";
    "client" client::run, 32 MiB: "a client whose servers say anything";
    "replica" replica::run, 64 MiB: "a replica among servers and clients that say anything";
}

impl Target {
    /// Gives it those bytes.
    ///
    /// # Panics
    /// If a promise is broken.
    pub fn run(&self, bytes: &[u8]) {
        memory::within(self.bytes_max, || (self.run)(bytes));
    }
}

/// Gives bytes to the target of that name.
///
/// # Panics
/// If a promise is broken, or there is no such target.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    target.unwrap_or_else(|| panic!("no target is called {name}")).run(bytes);
}
