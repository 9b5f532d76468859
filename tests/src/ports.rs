//! UDP ports for one test, while others look for theirs.

use std::fs::{File, OpenOptions};
use std::net::UdpSocket;
use std::path::PathBuf;

/// Ports in a row for one cluster.
const IN_A_ROW: u16 = 10;
/// Below the range that kernels give to sockets that ask for any port (32768 on).
const FIRST: u16 = 20_000;
const ROWS: u16 = 1_200;

/// Ten free UDP ports on 127.0.0.1, held against other tests by a locked file. The lock goes with
/// the process, however it ends.
#[derive(Debug)]
pub struct Ports {
    base: u16,
    _lock: File,
}

impl Ports {
    /// Takes ports that no other test holds and no socket is bound to.
    ///
    /// # Panics
    /// If there are none.
    pub fn take() -> Self {
        let folder = lock_folder();
        let start = u16::try_from(std::process::id() % u32::from(ROWS)).unwrap_or(0);
        for row in 0..ROWS {
            let base = FIRST + (start + row) % ROWS * IN_A_ROW;
            let path = folder.join(base.to_string());
            let Ok(lock) = OpenOptions::new().create(true).append(true).open(path) else {
                continue;
            };
            let free = |port| UdpSocket::bind(("127.0.0.1", port)).is_ok();
            if lock.try_lock().is_ok() && (base..base + IN_A_ROW).all(free) {
                return Self { base, _lock: lock };
            }
        }
        panic!("no {IN_A_ROW} free UDP ports in a row");
    }

    /// The first of them.
    pub fn base(&self) -> u16 {
        self.base
    }
}

fn lock_folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("chatty-test-ports-{}", nix::unistd::getuid()));
    std::fs::create_dir_all(&folder).expect("a folder for locks");
    folder
}
