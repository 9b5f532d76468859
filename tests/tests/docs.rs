//! What the documentation tells people to type works, and what it points to exists.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use chatty_tests::{Block, Ports, code_blocks, programs, repository};

fn read(file: &str) -> String {
    fs::read_to_string(repository().join(file)).unwrap_or_else(|why| panic!("{file}: {why}"))
}

/// A folder that looks like a fresh clone, built.
struct Clone(std::path::PathBuf);

impl Clone {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("chatty-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        for entry in fs::read_dir(repository()).expect("the repository").flatten() {
            let name = entry.file_name();
            if !matches!(name.to_str(), Some("target" | ".chatty" | ".git")) {
                symlink(entry.path(), folder.join(name)).expect("a new folder");
            }
        }
        Self(folder)
    }

    /// Types lines into a shell there. Where the kernel allows it, on a network of its own, so
    /// that nobody's cluster has the ports.
    fn types(&self, lines: &str) -> Output {
        let alone = ["unshare", "--user", "--map-root-user", "--net"];
        let lo_up = ["ip", "link", "set", "lo", "up"];
        let can = Command::new(alone[0]).args(&alone[1..]).args(lo_up).output();
        let mut shell = Vec::new();
        let mut text = String::from("set -euo pipefail\n");
        if can.is_ok_and(|can| can.status.success()) {
            shell.extend(alone);
            text.push_str(&lo_up.join(" "));
            text.push('\n');
        }
        shell.extend(["bash", "-c"]);
        text.push_str(lines);
        let target = programs().parent().expect("target/release");
        Command::new(shell[0])
            .args(&shell[1..])
            .arg(text)
            .current_dir(&self.0)
            .env("CARGO_TARGET_DIR", target)
            .env("XDG_STATE_HOME", self.0.join("state"))
            .env_remove("CHATTY_CLUSTER")
            .stdin(Stdio::null())
            .output()
            .expect("a shell runs")
    }
}

impl Drop for Clone {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_readme_can_be_typed_from_top_to_bottom() {
    let blocks = code_blocks(&read("README.md"));
    let (test, typed): (Vec<&Block>, Vec<&Block>) =
        blocks.iter().partition(|block| block.info == "sh test");
    // The one that runs this test.
    assert_eq!(
        test.iter().map(|block| block.code.as_str()).collect::<Vec<_>>(),
        ["scripts/test\n"]
    );
    assert!(typed.iter().all(|block| block.info == "sh"), "only shell: {typed:?}");
    assert!(typed.len() >= 4, "{typed:?}");

    let mut lines: String = typed.iter().map(|block| block.code.as_str()).collect();
    let down = "scripts/cluster down\n";
    lines.insert_str(0, "trap 'scripts/cluster down' EXIT\n");
    lines.push_str(down);
    let done = Clone::new("readme").types(&lines);

    let out = String::from_utf8_lossy(&done.stdout);
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{out}{errors}");
    assert!(out.contains("\"text\":\"hello from a script\""), "the history shows it: {out}");
}

#[test]
fn commands_that_the_readme_mentions_in_passing_exist() {
    let clone = Clone::new("mentions");
    for mention in ["scripts/cluster --help", "scripts/chat --help", "scripts/test --help"] {
        assert!(read("README.md").contains(mention.trim_end_matches(" --help")), "{mention}");
        let done = clone.types(mention);
        assert!(done.status.success() && !done.stdout.is_empty(), "{mention}: {done:?}");
    }
}

#[test]
fn ci_runs_what_the_readme_says() {
    assert!(read(".ci/run").lines().any(|line| line == "exec scripts/test"));
}

#[test]
fn links_between_the_documents_lead_somewhere() {
    let docs = fs::read_dir(repository().join("docs")).expect("docs").flatten();
    let pages = docs.map(|entry| entry.path()).filter(|path| path.is_file());
    for page in pages.chain([repository().join("README.md")]) {
        let text = fs::read_to_string(&page).expect("a page");
        let folder = page.parent().expect("a folder");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            assert!(folder.join(file).exists(), "{}: {link} leads nowhere", page.display());
        }
    }
}

#[test]
fn two_tests_never_share_ports() {
    let (one, two) = (Ports::take(), Ports::take());
    assert_ne!(one.base(), two.base());
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Every name of a test in the page is one of a test that there is.
#[test]
fn the_guarantees_name_tests_that_exist() {
    let page = read("docs/guarantees.md");
    let is_name = |text: &&str| {
        text.contains('_') && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let named: Vec<&str> = page.split('`').skip(1).step_by(2).filter(is_name).collect();
    assert!(named.len() >= 15, "{named:?}");
    let sources: String = ["crates", "tests", "simulations"]
        .iter()
        .flat_map(|folder| rust_files(&repository().join(folder)))
        .map(|file| fs::read_to_string(file).expect("it is there"))
        .collect();
    for name in named {
        assert!(sources.contains(&format!("fn {name}(")), "there is no test {name}");
    }
}

#[test]
fn the_protocols_tables_name_every_kind_that_the_code_has() {
    use chatty_core::event::Body;
    use chatty_core::frame::Frame;
    use chatty_core::session::{Item, Request};
    use chatty_core::wire::Wire;

    let doc = read("docs/protocol.md");
    let rows = |title: &str| -> Vec<(u16, String)> {
        let section = doc.split("\n## ").find(|part| part.starts_with(title));
        let section = section.unwrap_or_else(|| panic!("docs/protocol.md has no {title:?}"));
        section
            .lines()
            .filter_map(|line| {
                let mut cells = line.split('|').map(str::trim).skip(1);
                let number = cells.next()?.parse().ok()?;
                Some((number, cells.next()?.trim_matches('`').to_string()))
            })
            .collect()
    };
    let kinds = |kinds: &[(u8, &str)]| -> Vec<(u16, String)> {
        kinds.iter().map(|(number, name)| (u16::from(*number), name.to_string())).collect()
    };
    assert_eq!(rows("Frames between servers"), kinds(Frame::KINDS));
    assert_eq!(rows("Requests of a client"), kinds(Request::KINDS));
    assert_eq!(rows("Items to a client"), kinds(Item::KINDS));
    let events: Vec<_> = Body::KINDS.iter().map(|(n, name)| (*n, name.to_string())).collect();
    assert_eq!(rows("Events"), events);
}
