//! What the fuzzer found interesting, tried without it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use chatty_fuzz::{TARGETS, kinds};

/// Bytes of all corpora together, at most: they are tried in every run of the tests.
const CORPORA_BYTES_MAX: u64 = 300 * 1024;

fn inputs(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// Tries everything kept for a target, and nothing at all.
fn holds(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    target.run(&[]);
    let inputs = inputs(name);
    assert!(!inputs.is_empty(), "{name} has no corpus");
    for input in inputs {
        let bytes = std::fs::read(&input).unwrap();
        // The name of a broken one stands above its panic.
        let tried = std::panic::catch_unwind(|| target.run(&bytes));
        assert!(tried.is_ok(), "{} breaks a promise", input.display());
    }
}

macro_rules! corpora {
    ($($test:ident $target:literal;)*) => {
        $(#[test]
        fn $test() {
            holds($target);
        })*

        const TRIED: &[&str] = &[$($target),*];
    };
}

corpora! {
    the_corpus_of_frames_holds "frame";
    the_corpus_of_requests_holds "request";
    the_corpus_of_items_holds "item";
    the_corpus_of_events_holds "event";
    the_corpus_of_tokens_holds "token";
    the_corpus_of_texts_holds "text";
    the_corpus_of_framings_holds "framing";
    the_corpus_of_certificates_holds "certificate";
    the_corpus_of_configurations_holds "config";
    the_corpus_of_client_files_holds "client_files";
    the_corpus_of_backups_holds "backup";
    the_corpus_of_rows_holds "rows";
    the_corpus_of_databases_holds "database";
    the_corpus_of_database_files_holds "database_files";
    the_corpus_of_clients_holds "client";
    the_corpus_of_replicas_holds "replica";
}

#[test]
fn every_target_has_a_corpus_and_all_together_are_small() {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, TRIED);
    let bytes = |file: PathBuf| file.metadata().unwrap().len();
    let all: u64 = names.iter().flat_map(|name| inputs(name)).map(bytes).sum();
    assert!(all <= CORPORA_BYTES_MAX, "{all} bytes");
}

/// The inputs of kinds that a target's corpus holds, by the names of their files.
fn kept_kinds(target: &str) -> Vec<(String, Vec<u8>)> {
    let name = |file: &PathBuf| file.file_name().unwrap().to_string_lossy().into_owned();
    let all = inputs(target).into_iter().map(|file| (name(&file), std::fs::read(&file).unwrap()));
    all.filter(|(name, _)| kinds::is_name(name)).collect()
}

#[test]
fn the_corpora_hold_every_kind_of_value_that_there_is() {
    for target in kinds::TARGETS {
        let kept = kept_kinds(target);
        let present: BTreeSet<String> =
            kept.iter().flat_map(|(_, bytes)| kinds::of(target, bytes)).collect();
        assert_eq!(present, kinds::known(target), "kinds in the corpus of {target}");
    }
}

#[test]
fn the_kinds_in_the_corpora_are_as_the_project_writes_them() {
    for target in kinds::TARGETS {
        let mut written: Vec<(String, Vec<u8>)> =
            kinds::values(target).into_iter().map(|kind| (kind.name, kind.bytes)).collect();
        written.sort();
        let names = |kinds: &[(String, Vec<u8>)]| -> Vec<String> {
            kinds.iter().map(|(name, _)| name.clone()).collect()
        };
        let kept = kept_kinds(target);
        let again = "cargo run -p chatty-fuzz --example kinds writes them";
        assert_eq!(names(&kept), names(&written), "{target}: {again}");
        for (kept, written) in kept.iter().zip(&written) {
            assert!(!kinds::of(target, &kept.1).is_empty(), "{target}/{} is nothing", kept.0);
            assert_eq!(kept, written, "{target}: {again}");
        }
    }
}
