//! Disks that misbehave: bits flip, files are cut, the volume is full, an fsync takes long.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use chatty_tests::{LONG, TestCluster, eventually, text};
use nix::sys::signal::Signal;
use serde_json::Value;

const ROOM: &str = "lobby";

fn data(cluster: &TestCluster, server: &str) -> PathBuf {
    cluster.dir().join("servers").join(server).join("data")
}

fn log_of(cluster: &TestCluster, server: &str) -> String {
    fs::read_to_string(cluster.dir().join("servers").join(server).join("log")).unwrap_or_default()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()))
        } else {
            found.push(entry.path())
        }
    }
    found.sort();
    found
}

/// Flips a bit of a file where it is.
fn flip(file: &Path, at: u64) {
    let mut file = File::options().read(true).write(true).open(file).expect("the file is there");
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).expect("a place");
    file.read_exact(&mut byte).expect("a byte");
    file.seek(SeekFrom::Start(at)).expect("a place");
    file.write_all(&[byte[0] ^ 0x10]).expect("written");
}

/// So many bytes are said in the room, in messages of 16 KiB.
fn fill(cluster: &TestCluster, messages: usize) -> BTreeSet<String> {
    let mut flow = cluster.person("writer").on("s1").flow(ROOM);
    for nth in 0..messages {
        flow.line(&format!("{nth} {}", "abcdefgh".repeat(2000)));
    }
    assert!(flow.finish().success(), "{}", flow.said());
    flow.acknowledgements().into_keys().collect()
}

#[track_caller]
fn assert_all_there(cluster: &TestCluster, said: &BTreeSet<String>) {
    let there: Vec<Value> = cluster.one_history(ROOM);
    let texts: BTreeSet<String> = there.iter().map(|m| text(m).to_owned()).collect();
    assert_eq!(texts.len(), there.len(), "nothing is there twice");
    assert!(said.is_subset(&texts), "{} are lost", said.difference(&texts).count());
}

#[test]
fn a_bit_flipped_under_a_running_server_is_found_by_verify_cut_out_and_fetched_again() {
    let cluster = TestCluster::up(3);
    let said = fill(&cluster, 1200);
    cluster.ok(&["stop", "s2"]);
    cluster.ok(&["start", "s2"]);
    cluster.wait_converged();
    cluster.person("ann").ok(&["verify"]);

    // Every table of the logs, in its first half: data, not the index at the end.
    let tables: Vec<PathBuf> = files(&data(&cluster, "s2").join("db"))
        .into_iter()
        .filter(|file| file.to_string_lossy().contains("/tables/"))
        .filter(|file| fs::metadata(file).is_ok_and(|meta| meta.len() > 1_000_000))
        .collect();
    assert!(!tables.is_empty(), "what was said fills no table");
    for table in &tables {
        flip(table, fs::metadata(table).expect("it is there").len() / 3);
    }

    let pid = cluster.pid("s2");
    let ran = cluster.person("ann").run(&["verify"]);
    assert!(!ran.status.success(), "damage is a failure: {ran:?}");
    let found = ran.objects.iter().find(|o| o["server"] == "s2").expect("a line for s2");
    assert_eq!(found["sound"], false, "{ran:?}");

    eventually("s2 is whole again", LONG, || {
        let ran = cluster.person("ann").run(&["verify"]);
        ran.status.success().then_some(()).ok_or_else(|| format!("{ran:?}"))
    });
    assert_all_there(&cluster, &said);
    assert_eq!(cluster.pid("s2"), pid, "it is the same process");
    let log = log_of(&cluster, "s2");
    assert!(log.contains("DAMAGED") && log.contains("mended"), "{log}");
    for other in ["s1", "s3"] {
        let log = log_of(&cluster, other);
        assert!(!log.contains("DAMAGED") && !log.contains("ROLLED BACK"), "{other}: {log}");
    }
}

#[test]
fn files_cut_and_torn_while_a_server_is_down_are_made_good_from_the_others() {
    let cluster = TestCluster::up(3);
    let said = fill(&cluster, 200);
    for (nth, share) in [0.9, 0.5, 0.2].into_iter().enumerate() {
        cluster.wait_converged();
        cluster.signal("s3", Signal::SIGKILL);
        let journals: Vec<PathBuf> = files(&data(&cluster, "s3").join("db"))
            .into_iter()
            .filter(|file| file.extension().is_some_and(|e| e == "jnl"))
            .collect();
        let journal = journals.last().expect("a journal");
        let content = fs::read(journal).expect("it is there");
        let end = content.iter().rposition(|byte| *byte != 0).expect("it holds something");
        let at = (end as f64 * share) as u64;
        if nth == 1 {
            let mut file = File::options().write(true).open(journal).expect("it is there");
            file.seek(SeekFrom::Start(at)).expect("a place");
            file.write_all(&[0; 4096]).expect("torn");
        } else {
            File::options().write(true).open(journal).expect("there").set_len(at).expect("cut");
        }
        cluster.ok(&["start", "s3"]);
        assert_all_there(&cluster, &said);
        cluster.person("ann").ok(&["verify"]);
    }
    let status = cluster.status_of("s3");
    assert_eq!(status["state"], "ready", "{status}");
    for other in ["s1", "s2"] {
        assert!(!log_of(&cluster, other).contains("ROLLED BACK"), "damage is no rollback");
    }
}

/// A volume of so many MiB, mounted where a server's data goes; gone with the value.
struct Volume(PathBuf);

impl Volume {
    fn mount(at: PathBuf, mib: u32) -> Self {
        fs::create_dir_all(&at).expect("a folder");
        let size = format!("size={mib}m");
        let done =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at).status();
        assert!(
            done.is_ok_and(|status| status.success()),
            "no tmpfs can be mounted: run the tests as root (or in `unshare -rm`)"
        );
        Self(at)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_recovers_by_itself() {
    let cluster = TestCluster::up(3);
    cluster.ok(&["down"]);
    let folder = data(&cluster, "s3");
    let kept = folder.with_extension("kept");
    fs::rename(&folder, &kept).expect("moved");
    let volume = Volume::mount(folder.clone(), 160);
    let copied = Command::new("cp").arg("-a").arg(kept.join(".")).arg(&folder).status();
    assert!(copied.is_ok_and(|status| status.success()), "the data is moved to the small volume");
    let config = cluster.dir().join("servers/s3/server.toml");
    let text_of = fs::read_to_string(&config).expect("its configuration");
    let text_of = text_of.replace("# disk_reserve_mib = 256", "disk_reserve_mib = 32");
    fs::write(&config, text_of).expect("written");
    cluster.start_all();
    let mut said = fill(&cluster, 20);
    cluster.wait_converged();

    // Somebody else fills the volume, up to the last byte.
    let filler = folder.join("filler");
    let _ = Command::new("dd")
        .arg("if=/dev/zero")
        .arg(format!("of={}", filler.display()))
        .args(["bs=1M"])
        .output();
    let first = cluster.person("ann").on("s3").say(ROOM, "while it is full");
    said.insert("while it is full".into());
    assert_eq!(first["level"], "replicated", "another server took it: {first}");
    assert_ne!(first["server"], "s3", "{first}");
    eventually("s3 says that it takes no writes", LONG, || {
        let status = cluster.status_of("s3");
        (status["state"] == "read only").then_some(()).ok_or_else(|| status.to_string())
    });
    assert!(log_of(&cluster, "s3").contains("the disk is full"), "the log gives the reason");
    // By somebody who is known there: a new account would be a write.
    let read = cluster.person("writer").on("s3").run(&["history", ROOM, "--last", "1000"]);
    assert!(read.status.success() && read.objects.len() >= 20, "what it has is read: {read:?}");
    assert!(read.errors.contains("not complete"), "it says that it lacks something: {read:?}");

    // A server that does not answer hides no difference between the others.
    cluster.signal("s2", Signal::SIGSTOP);
    let verified = cluster.person("ann").run(&["verify"]);
    cluster.signal("s2", Signal::SIGCONT);
    assert!(!verified.status.success(), "{verified:?}");
    let agreement = verified.objects.iter().find(|o| o["type"] == "agreement").expect("told");
    assert_eq!((&agreement["equal"], &agreement["servers"]), (&false.into(), &2.into()));
    let reason = agreement["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("room lobby differs: s1 has "), "{reason}");
    assert!(reason.contains("s2 does not answer"), "{reason}");
    assert!(verified.errors.contains("the servers do not show the same"), "{verified:?}");
    assert!(verified.errors.contains("no answer of s2"), "{verified:?}");

    // A restart while it is full harms nothing.
    cluster.signal("s3", Signal::SIGKILL);
    let started = cluster.script(&["start", "s3"]);
    drop(started); // it may say that there is no room at all
    said.insert("after the restart".into());
    cluster.person("ann").on("s1").say(ROOM, "after the restart");

    fs::remove_file(&filler).expect("room again");
    cluster.ok(&["start", "s3"]);
    assert_all_there(&cluster, &said);
    let receipt = cluster.person("bob").on("s3").say(ROOM, "there is room");
    assert_eq!(receipt["server"], "s3", "{receipt}");
    cluster.person("ann").ok(&["verify"]);
    cluster.ok(&["down"]);
    drop(volume);
}
