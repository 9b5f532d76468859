//! Each reason not to start is one line that says what to do, and nothing is touched.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;

use chatty_core::id::Slot;
use tempfile::TempDir;

use super::*;
use crate::data_dir::DataDir;
use crate::init::{self, Layout, Wanted};

struct Made {
    dir: TempDir,
    port: u16,
}

impl Made {
    /// A cluster of one server on a port that is free now.
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let wanted = Wanted { count: Some(1), base_port: Some(port), named: Vec::new() };
        init::init(dir.path(), &wanted).unwrap();
        Self { dir, port }
    }

    fn server(&self) -> init::ServerLayout {
        Layout::of(self.dir.path()).server(&Slot::new("s1").unwrap())
    }

    /// The one line of what is wrong.
    fn error(&self) -> String {
        let error = check(&self.server().config()).unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
        error
    }

    fn identity(&self) -> chatty_net::Identity {
        check(&self.server().config()).unwrap().1.identity
    }
}

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
}

#[test]
fn a_new_server_is_good_and_stays_untouched() {
    let made = Made::new();
    let (config, proof) = check(&made.server().config()).unwrap();
    assert_eq!((config.name, proof.identity.generation), (Slot::new("s1").unwrap(), 0));
    assert_eq!(fs::read_dir(made.server().data()).unwrap().count(), 0);
}

#[test]
fn a_port_in_use_is_told() {
    let made = Made::new();
    let _taken = UdpSocket::bind(("127.0.0.1", made.port)).unwrap();
    let error = made.error();
    assert!(error.contains(&format!("127.0.0.1:{} is in use", made.port)), "{error}");
}

#[test]
fn a_key_of_another_certificate_is_told() {
    let (made, other) = (Made::new(), Made::new());
    copy(&other.server().key(), &made.server().key());
    let error = made.error();
    assert!(error.contains("server.pem: the key does not belong to the certificate"), "{error}");
}

#[test]
fn a_certificate_of_another_cluster_is_told() {
    let (made, other) = (Made::new(), Made::new());
    copy(&other.server().key(), &made.server().key());
    copy(&other.server().cert(), &made.server().cert());
    let error = made.error();
    assert!(error.contains("server.pem: the certificate is of cluster"), "{error}");
}

#[test]
fn a_token_key_of_another_cluster_is_told() {
    let (made, other) = (Made::new(), Made::new());
    copy(&other.server().token_key(), &made.server().token_key());
    let error = made.error();
    assert!(error.contains("token.key: the token key is of cluster"), "{error}");
    // One that an older version wrote says nothing of its cluster.
    let text = fs::read_to_string(other.server().token_key()).unwrap();
    fs::write(made.server().token_key(), text.lines().last().unwrap()).unwrap();
    made.identity();
}

#[test]
fn a_certificate_of_another_slot_is_told() {
    let made = Made::new();
    let config = made.server().config();
    let text = fs::read_to_string(&config).unwrap().replace("name = \"s1\"", "name = \"s2\"");
    fs::write(&config, text).unwrap();
    let error = made.error();
    assert!(error.contains("certificate is of server s1, the configuration of s2"), "{error}");
}

#[test]
fn rubbish_in_any_file_is_told_with_its_name() {
    for file in ["server.toml", "server.pem", "server.key", "authority.pem", "token.key"] {
        let made = Made::new();
        fs::write(made.server().dir.join(file), "rubbish").unwrap();
        let error = made.error();
        let named =
            if file.ends_with("token.key") || file.ends_with("toml") { file } else { "server.pem" };
        assert!(error.contains(named), "{file}: {error}");
        fs::remove_file(made.server().dir.join(file)).unwrap();
        let error = made.error();
        assert!(error.contains(file) && error.contains("reading failed"), "{error}");
    }
}

#[test]
fn a_data_folder_in_use_is_told() {
    let made = Made::new();
    let _used = DataDir::open(&made.server().data(), &made.identity()).unwrap();
    let error = made.error();
    assert!(error.contains("another process uses this data folder"), "{error}");
}

#[test]
fn data_of_another_disk_is_told() {
    let made = Made::new();
    drop(DataDir::open(&made.server().data(), &made.identity()).unwrap());
    made.identity();
    init::reissue(made.dir.path(), "s1").unwrap();
    let error = made.error();
    assert!(error.contains("the data is of server"), "{error}");
}
