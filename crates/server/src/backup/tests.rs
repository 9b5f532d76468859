use std::fs;

use chatty_core::event::{Body, Msg};
use chatty_core::id::{AccountId, Mid, Origin, RoomId};
use chatty_core::store::{Batch, Entry};
use chatty_core::time::Hlc;
use tempfile::TempDir;

use super::*;

fn source() -> Source {
    Source { cluster: ClusterId::new(1), slot: Slot::new("s1").unwrap(), server: ServerId::new(11) }
}

fn message(seq: u64) -> Event {
    let body = Body::from(Msg { nick: "ann".into(), text: format!("message {seq}") });
    Event {
        seq,
        hlc: Hlc::from_bits(seq << 16),
        wall_ms: seq,
        room: RoomId::new(7),
        actor: AccountId::new(8),
        mid: Mid::new(u128::from(seq)),
        kind: body.kind(),
        body: body.encode(),
    }
}

/// A store with so many events of two logs, and what it holds.
fn store(dir: &Path, count: u64) -> (FjallStore, Held) {
    let mut store = FjallStore::open(dir).unwrap();
    for origin in [1, 2] {
        let log = Log::of(Origin::new(origin));
        let mut chain = CHAIN_START;
        let entry = |seq| {
            let event = Arc::new(message(seq));
            chain = event.chain(chain);
            Entry { log, event, chain }
        };
        let entries = (1..=count).map(entry).collect();
        store.commit(&Batch { entries, ..Batch::default() }).unwrap();
    }
    let loaded = store.load().unwrap();
    let vector = Arc::new(loaded.logs.iter().map(|log| (log.log, log.upto)).collect());
    (store, Held { vector, holders: Vec::new() })
}

fn save(store: &FjallStore, held: &Held, out: &Path) -> Result<Summary, BackupError> {
    file::save(out, |to| {
        let mut done = Ok(());
        produce(&store.reader(), source(), held, |bytes| {
            done = to.write_all(&bytes);
            done.is_ok()
        });
        done
    })
}

#[test]
fn a_backup_is_what_was_held_at_its_beginning_and_nothing_later() {
    let dir = TempDir::new().unwrap();
    let (mut store, held) = store(&dir.path().join("db"), 50);
    let log = Log::of(Origin::new(1));
    let event = Arc::new(message(51));
    let before = store.load().unwrap().logs.iter().find(|l| l.log == log).unwrap().chain;
    let chain = event.chain(before);
    let entries = vec![Entry { log, event, chain }];
    store.commit(&Batch { entries, ..Batch::default() }).unwrap();

    let out = dir.path().join("backup");
    let summary = save(&store, &held, &out).unwrap();

    assert_eq!((summary.logs, summary.events), (2, 100));
    assert_eq!(summary.bytes, fs::metadata(&out).unwrap().len());
    assert_eq!(verify(&out).unwrap(), summary);
    let mut read = Vec::new();
    file::scan(&out, |entries| {
        read.extend(entries.into_iter().map(|entry| (entry.log, entry.event.seq)));
        Ok(())
    })
    .unwrap();
    let origin = |n| Log::of(Origin::new(n));
    let all = [1, 2].into_iter().flat_map(|n| (1..=50).map(move |seq| (origin(n), seq)));
    assert_eq!(read, all.collect::<Vec<_>>());
}

#[test]
fn a_flipped_bit_or_a_missing_end_anywhere_is_refused() {
    let dir = TempDir::new().unwrap();
    let (store, held) = store(&dir.path().join("db"), 20);
    let out = dir.path().join("backup");
    save(&store, &held, &out).unwrap();
    let whole = fs::read(&out).unwrap();
    let bad = dir.path().join("bad");

    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(&bad, &flipped).unwrap();
        let error = verify(&bad).expect_err(&format!("byte {at} flipped"));
        assert!(error.to_string().starts_with(bad.to_str().unwrap()), "{error}");

        fs::write(&bad, &whole[..at]).unwrap();
        let error = verify(&bad).expect_err(&format!("cut after {at} bytes"));
        let fits = matches!(error, BackupError::CutOff { .. } | BackupError::NotABackup { .. });
        assert!(fits, "{error}");
    }
    let mut longer = whole.clone();
    longer.push(0);
    fs::write(&bad, &longer).unwrap();
    assert!(verify(&bad).unwrap_err().to_string().contains("something follows its end"));
    fs::write(&bad, &whole).unwrap();
    verify(&bad).unwrap();
}

#[test]
fn what_cannot_be_read_whole_replaces_no_backup() {
    let dir = TempDir::new().unwrap();
    let (store, held) = store(&dir.path().join("db"), 5);
    let out = dir.path().join("backup");
    save(&store, &held, &out).unwrap();
    let good = fs::read(&out).unwrap();

    // More than is there.
    let log = Log::of(Origin::new(1));
    let more = Held { vector: Arc::new([(log, 6)].into_iter().collect()), ..held };
    let error = save(&store, &more, &out).unwrap_err();

    assert!(error.to_string().contains("event 6"), "{error}");
    assert_eq!(fs::read(&out).unwrap(), good);
    // The store, what stands beside it, and the backup.
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
}
