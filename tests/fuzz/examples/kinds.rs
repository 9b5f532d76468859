//! Writes one input of each kind into the corpora: `kinds`, once a kind is new or has changed.

use std::fs;
use std::path::Path;

use chatty_fuzz::kinds;

fn main() {
    for target in kinds::TARGETS {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        for entry in fs::read_dir(&corpus).expect("a corpus").flatten() {
            if kinds::is_name(&entry.file_name().to_string_lossy()) {
                fs::remove_file(entry.path()).expect("removed");
            }
        }
        for kind in kinds::values(target) {
            fs::write(corpus.join(&kind.name), &kind.bytes).expect("written");
        }
    }
}
