//! What the fuzzer found interesting, tried without it.

use std::path::{Path, PathBuf};

use chatty_fuzz::TARGETS;

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
