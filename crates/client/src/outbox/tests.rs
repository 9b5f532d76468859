use std::os::unix::fs::PermissionsExt as _;

use chatty_core::id::{AccountId, Mid};
use chatty_core::session::{Level, Target};

use super::*;

fn cluster(letter: char) -> Cluster {
    let hash = letter.to_string().repeat(64);
    Cluster::open(&format!("chatty://localhost:1/#{hash}")).unwrap()
}

/// A folder of its own, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("chatty-outbox-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("ann.outbox")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn said(nth: u64) -> Note {
    let (to, text) = (Target::Room("lobby".into()), format!("text {nth}"));
    Note::Said { nth, to, text, level: Level::Replicated }
}

fn named(nth: u64) -> Note {
    Note::Named { nth, mid: Mid::new(u128::from(nth) << 80) }
}

/// Batches as a client writes them.
fn batches() -> Vec<Vec<Note>> {
    vec![
        vec![Note::Account(AccountId::new(7)), said(1), named(1)],
        vec![said(2), said(3)],
        vec![named(2), named(3), Note::Done { nth: 1 }],
        vec![said(4), named(4)],
        vec![Note::Done { nth: 3 }],
    ]
}

/// A file that holds these batches, each in a frame, and what it says after each.
fn written(path: &Path) -> (Vec<u8>, Vec<Journal>) {
    let mut outbox = OutboxFile::open(path, &cluster('a')).unwrap();
    let mut states = vec![outbox.journal().clone()];
    for batch in batches() {
        outbox.append(batch).unwrap();
        states.push(outbox.journal().clone());
    }
    (std::fs::read(path).unwrap(), states)
}

#[test]
fn what_was_written_is_read_again_and_nobody_else_may_read_it() {
    let folder = Folder::new("again");
    let (_, states) = written(&folder.file());
    let outbox = OutboxFile::open(&folder.file(), &cluster('a')).unwrap();
    assert_eq!(outbox.journal(), states.last().unwrap());
    let texts: Vec<_> = outbox.journal().messages().values().map(|m| m.text.as_str()).collect();
    assert_eq!(texts, ["text 2", "text 4"], "1 and 3 are done");
    let mode = std::fs::metadata(folder.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_file_cut_anywhere_says_what_was_written_before_that_place() {
    let folder = Folder::new("cut");
    let (bytes, states) = written(&folder.file());
    for length in 0..bytes.len() {
        std::fs::write(folder.file(), &bytes[..length]).unwrap();
        match OutboxFile::open(&folder.file(), &cluster('a')) {
            Ok(outbox) => {
                let at = states.iter().position(|state| state == outbox.journal());
                assert!(at.is_some(), "cut at {length}: {:?}", outbox.journal());
            }
            // A header is never torn: the file gets its name when all of it is on disk.
            Err(OutboxError::Foreign { .. }) => assert!(0 < length && length < HEADER_BYTES),
            Err(error) => panic!("cut at {length}: {error}"),
        }
    }
}

#[test]
fn a_bit_flipped_anywhere_is_found_or_lay_in_the_last_batch() {
    let folder = Folder::new("flip");
    let (bytes, states) = written(&folder.file());
    let last = bytes.len() - frame(0, &batches().pop().unwrap()).unwrap().len();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            std::fs::write(folder.file(), &flipped).unwrap();
            match OutboxFile::open(&folder.file(), &cluster('a')) {
                Ok(outbox) => {
                    assert!(at >= last, "byte {at}, bit {bit}: not found");
                    assert_eq!(outbox.journal(), &states[states.len() - 2]);
                }
                Err(OutboxError::Foreign { .. }) => assert!(at < MAGIC.len()),
                Err(OutboxError::Damaged { at: found, .. }) => assert!(found <= at),
                Err(error) => panic!("byte {at}: {error}"),
            }
            if at < last {
                assert_eq!(std::fs::read(folder.file()).unwrap(), flipped, "it is left alone");
            }
        }
    }
}

#[test]
fn a_second_process_is_refused_also_after_the_file_was_written_anew() {
    let folder = Folder::new("lock");
    let mut outbox = OutboxFile::open(&folder.file(), &cluster('a')).unwrap();
    outbox.append(vec![said(1)]).unwrap();
    let second = OutboxFile::open(&folder.file(), &cluster('a')).unwrap_err();
    assert!(matches!(second, OutboxError::Busy { .. }), "{second}");
    outbox.rewrite().unwrap();
    let second = OutboxFile::open(&folder.file(), &cluster('a')).unwrap_err();
    assert!(matches!(second, OutboxError::Busy { .. }), "{second}");
    drop(outbox);
    assert_eq!(
        OutboxFile::open(&folder.file(), &cluster('a')).unwrap().journal().messages().len(),
        1
    );
}

#[test]
fn what_is_no_outbox_of_this_cluster_is_refused_and_left_alone() {
    let folder = Folder::new("foreign");
    let text = "a diary, longer than the header of an outbox would be: dear diary, today I …";
    std::fs::write(folder.file(), text).unwrap();
    let error = OutboxFile::open(&folder.file(), &cluster('a')).unwrap_err();
    assert!(matches!(error, OutboxError::Foreign { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(folder.file()).unwrap(), text);

    let error = OutboxFile::open(&folder.0, &cluster('a')).unwrap_err();
    assert!(matches!(error, OutboxError::Foreign { .. }), "{error}");

    std::fs::remove_file(folder.file()).unwrap();
    drop(OutboxFile::open(&folder.file(), &cluster('a')).unwrap());
    let error = OutboxFile::open(&folder.file(), &cluster('b')).unwrap_err();
    assert!(matches!(error, OutboxError::OtherCluster { .. }), "{error}");
}

#[test]
fn a_file_does_not_grow_with_what_is_done() {
    let folder = Folder::new("grow");
    let mut outbox = OutboxFile::open(&folder.file(), &cluster('a')).unwrap();
    let text = "x".repeat(1000);
    for nth in 0..500 {
        let (to, text) = (Target::Room("lobby".into()), text.clone());
        let said = Note::Said { nth, to, text, level: Level::Stored };
        outbox.append(vec![said, named(nth)]).unwrap();
        if nth >= 3 {
            outbox.append(vec![Note::Done { nth: nth - 3 }]).unwrap();
        }
        let length = std::fs::metadata(folder.file()).unwrap().len();
        assert!(length <= REWRITE_BYTES_MIN, "{length} bytes after {nth}");
    }
    let held = outbox.journal().clone();
    drop(outbox);
    let outbox = OutboxFile::open(&folder.file(), &cluster('a')).unwrap();
    assert_eq!((outbox.journal(), held.messages().len()), (&held, 3));
}
