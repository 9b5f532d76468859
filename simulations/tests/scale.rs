//! The page on scale is made of what is kept beside it, and of nothing else.

use std::fs;
use std::path::Path;

use chatty_simulations::scale::kept::Kept;
use chatty_simulations::scale::page::Page;

#[test]
fn the_page_says_what_was_measured() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let kept = Kept::read(&docs).expect("docs/scale.jsonl: what scripts/scale kept");
    assert!(!kept.costs().is_empty() && !kept.growths().is_empty(), "nothing is kept");
    for (name, content) in Page::new(&kept).files() {
        let there = fs::read_to_string(docs.join(&name)).expect("a file of the page");
        assert_eq!(there, content, "docs/{name} is not what scripts/scale writes of it");
    }
}
