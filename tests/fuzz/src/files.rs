//! Bytes of files: certificates, configurations, accounts, outboxes, backups.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use chatty_client::identity::Kept;
use chatty_client::{Cluster, outbox};
use chatty_core::client::{Journal, Note};
use chatty_core::config::Timing;
use chatty_net::pki::Validity;
use chatty_net::{Authority, Fingerprint, Identity, in_time};
use chatty_server::{backup, config as server_config, credentials};
use rustls::pki_types::CertificateDer;

use crate::input::Input;
use crate::replica::World;

pub(crate) fn certificate(bytes: &[u8]) {
    let der = CertificateDer::from(bytes);
    let read = Identity::from_certificate(&der);
    if let Ok(validity) = Validity::of(&der) {
        let any = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let _ = (validity.left(any), validity.begins() <= validity.ends());
        let _ = in_time(validity, any);
        if let Ok((_, of)) = read {
            assert_eq!(of, validity);
        }
    }
    let _ = Fingerprint::of(&der);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (cert, key) = text.split_once('\0').unwrap_or((text, text));
    let _ = Authority::load(cert, key);
    if let Some((_, key)) = credentials::parse_token_key(text) {
        assert!(text.trim().len() >= 64, "{key:?} out of too little");
    }
}

pub(crate) fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let file = Path::new("/nowhere/server.toml");
    let config = match server_config::parse(file, text) {
        Ok(config) => config,
        Err(error) => {
            assert!(error.to_string().starts_with("/nowhere/server.toml"), "{error}");
            return;
        }
    };
    assert!(!config.address().is_empty(), "a server is in its own list");
    let timing = Timing { floor_period: config.floor_period, ..Timing::default() };
    let mut world = World::new(config.servers.clone(), config.name.clone(), |core| {
        core.feeds = config.feeds;
        core.limits = config.limits.clone();
        core.retention = config.retention;
        core.timing = timing;
    });
    world.talk();
}

pub(crate) fn client_files(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Some(kept) = Kept::parse(text) {
            let token = kept.token();
            assert_eq!(Kept::new(kept.account, &token).token(), token);
        }
        if let Ok(cluster) = Cluster::parse_file(Path::new("/nowhere"), text) {
            for server in &cluster.servers {
                assert_eq!(
                    cluster.address_of(server.name.as_str()).ok().as_ref(),
                    Some(&server.addr)
                );
            }
        }
    }
    if let Some(notes) = Note::decode(bytes) {
        assert_eq!(Note::decode(&Note::encode(&notes)).as_ref(), Some(&notes));
        let journal: Journal = notes.into_iter().collect();
        let again: Journal = journal.notes().into_iter().collect();
        assert_eq!(again, journal, "the fewest notes say the same");
    }
    let url = format!("chatty://127.0.0.1:7/#{}", "00".repeat(32));
    let cluster = Cluster::parse_url(&url).expect("a cluster");
    let mut input = Input::new(bytes);
    // As it is, or behind a sound beginning: a fuzzer finds no checksum.
    let mut file =
        if input.byte().is_multiple_of(2) { outbox::empty(&cluster) } else { Vec::new() };
    while file.len() < 1 << 16 && !input.is_empty() {
        match input.byte() % 3 {
            0 => {
                let frame = outbox::frame_of(file.len() as u64, input.piece());
                file.extend(frame.expect("a short frame"));
            }
            1 => file.extend_from_slice(input.piece()),
            _ => file.truncate(file.len().saturating_sub(input.byte().into())),
        }
    }
    let _ = outbox::parse(Path::new("/nowhere/outbox"), &cluster, &file);
}

pub(crate) fn backup(bytes: &[u8]) {
    let file = Path::new("/nowhere/backup");
    if let Ok(summary) = backup::verify_from(file, bytes) {
        assert_eq!(summary.bytes, bytes.len() as u64, "all of it was read");
    }
    // Behind a sound beginning: the lengths of records are made right.
    let mut input = Input::new(bytes);
    let mut whole = b"chatty backup 1\n".to_vec();
    while !input.is_empty() {
        let record = input.piece();
        whole.extend_from_slice(&(record.len() as u32).to_be_bytes());
        whole.extend_from_slice(record);
    }
    if let Ok(summary) = backup::verify_from(file, &whole[..]) {
        assert_eq!(summary.bytes, whole.len() as u64, "all of it was read");
    }
}
