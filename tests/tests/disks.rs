//! Disks that misbehave: bits flip, files are cut, the volume is full, an fsync takes long.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use chatty_core::rng::Rng;
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

/// What becomes of a file while nobody has it open.
#[derive(Clone, Copy, Debug)]
enum Harm {
    /// It ends there.
    Cut,
    /// A page of it is empty.
    Torn,
    /// One bit is another one.
    Flipped,
}

impl Harm {
    fn happen(self, file: &Path, at: u64) {
        let open = || File::options().write(true).open(file).expect("the file is there");
        match self {
            Self::Cut => open().set_len(at).expect("cut"),
            Self::Torn => {
                let mut file = open();
                file.seek(SeekFrom::Start(at)).expect("a place");
                file.write_all(&[0; 4096]).expect("torn");
            }
            Self::Flipped => flip(file, at),
        }
    }
}

#[test]
fn files_cut_torn_and_flipped_at_many_places_while_a_server_is_down_are_made_good() {
    const SEED: u64 = 1;
    let cluster = TestCluster::up(3);
    let said = fill(&cluster, 300);
    // What was said before is in tables, what is said now in a journal.
    cluster.ok(&["stop", "s3"]);
    cluster.ok(&["start", "s3"]);
    cluster.wait_converged();
    let mut rng = Rng::new(SEED);
    for round in 0..20 {
        cluster.person("ann").on("s1").say(ROOM, &format!("before {round}"));
        cluster.wait_converged();
        cluster.signal("s3", Signal::SIGKILL);
        let mut there = files(&data(&cluster, "s3").join("db"));
        there.retain(|file| fs::metadata(file).is_ok_and(|meta| meta.len() > 0));
        // Journals, tables, what says which of them count: each in each way, at least twice.
        let kind = |file: &PathBuf| match file {
            file if file.extension().is_some_and(|e| e == "jnl") => 0,
            file if file.to_string_lossy().contains("/tables/") => 1,
            _ => 2,
        };
        there.retain(|file| kind(file) == round % 3);
        let harm = [Harm::Cut, Harm::Torn, Harm::Flipped][round / 3 % 3];
        let file = &there[rng.below(there.len() as u64) as usize];
        // A journal is made longer than what is written to it.
        let content = fs::read(file).expect("it is there");
        let end = content.iter().rposition(|byte| *byte != 0).map_or(1, |last| last as u64 + 1);
        let at = rng.below(end);
        println!("round {round}: {harm:?} at {at} of {end} in {}", file.display());
        harm.happen(file, at);
        cluster.ok(&["start", "s3"]);
        // Damage that was not read yet is found now; then all is well.
        eventually("s3 is whole again", LONG, || {
            let ran = cluster.person("ann").run(&["verify"]);
            ran.status.success().then_some(()).ok_or_else(|| format!("{ran:?}"))
        });
        let status = cluster.status_of("s3");
        assert_eq!(status["state"], "ready", "{status}");
    }
    assert_all_there(&cluster, &said);
    for other in ["s1", "s2"] {
        let log = log_of(&cluster, other);
        assert!(!log.contains("DAMAGED") && !log.contains("ROLLED BACK"), "{other}: {log}");
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

/// The reserve of a server on a small volume.
const RESERVE_MIB: u64 = 32;

/// Moves the data of servers that are down to small volumes, each with a small reserve.
fn on_small_volumes<const N: usize>(cluster: &TestCluster, servers: [&str; N]) -> [Volume; N] {
    servers.map(|server| {
        let folder = data(cluster, server);
        let kept = folder.with_extension("kept");
        fs::rename(&folder, &kept).expect("moved");
        let volume = Volume::mount(folder.clone(), 160);
        let copied = Command::new("cp").arg("-a").arg(kept.join(".")).arg(&folder).status();
        assert!(copied.is_ok_and(|status| status.success()), "its data is there now");
        let config = folder.with_file_name("server.toml");
        let text = fs::read_to_string(&config).expect("its configuration");
        let reserve = format!("disk_reserve_mib = {RESERVE_MIB}");
        fs::write(&config, text.replace("# disk_reserve_mib = 256", &reserve)).expect("written");
        volume
    })
}

impl Volume {
    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Somebody else fills the volume, until so many MiB are left.
    fn fill(&self, left_mib: u64) {
        let df = Command::new("df").args(["--output=avail", "-B1"]).arg(&self.0).output();
        let free = String::from_utf8(df.expect("df runs").stdout).expect("a table");
        let free: u64 = free.split_whitespace().last().and_then(|n| n.parse().ok()).expect(&free);
        let bytes = free.saturating_sub(left_mib << 20);
        let mut file = File::create(self.filler()).expect("a file");
        // A full volume may end it earlier.
        let _ = std::io::copy(&mut std::io::repeat(0).take(bytes), &mut file);
    }

    fn empty(&self) {
        fs::remove_file(self.filler()).expect("it was filled");
    }
}

#[track_caller]
fn wait_state(cluster: &TestCluster, server: &str, state: &str) {
    eventually(&format!("{server} is {state}"), LONG, || {
        let status = cluster.status_of(server);
        (status["state"] == state).then_some(()).ok_or_else(|| status.to_string())
    });
}

/// What a server has is read from it, while no other one answers.
#[track_caller]
fn assert_reads_alone(cluster: &TestCluster, server: &str, others: [&str; 2], least: usize) {
    for other in others {
        cluster.signal(other, Signal::SIGSTOP);
    }
    // By somebody who is known there: a new account would be a write.
    let read = cluster.person("writer").on(server).ok(&["history", ROOM, "--last", "1000"]);
    for other in others {
        cluster.signal(other, Signal::SIGCONT);
    }
    assert!(read.len() >= least, "{} lines are read from {server}", read.len());
}

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_recovers_by_itself() {
    let cluster = TestCluster::up(3);
    cluster.ok(&["down"]);
    let [volume] = on_small_volumes(&cluster, ["s3"]);
    cluster.start_all();
    let mut said = fill(&cluster, 20);
    cluster.wait_converged();
    let pid = cluster.pid("s3");

    // Up to the last byte.
    volume.fill(0);
    let first = cluster.person("ann").on("s3").say(ROOM, "while it is full");
    said.insert("while it is full".into());
    assert_eq!(first["level"], "replicated", "another server took it: {first}");
    assert_ne!(first["server"], "s3", "{first}");
    wait_state(&cluster, "s3", "read only");
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
    assert_reads_alone(&cluster, "s3", ["s1", "s2"], 20);

    // There is room again, and nobody does anything.
    volume.empty();
    wait_state(&cluster, "s3", "ready");
    assert_eq!(cluster.pid("s3"), pid, "it is the same process");
    assert_all_there(&cluster, &said);
    let receipt = cluster.person("bob").on("s3").say(ROOM, "there is room");
    assert_eq!(receipt["server"], "s3", "{receipt}");
    said.insert("there is room".into());
    cluster.wait_converged();

    // A restart while it is full harms nothing. It says so before anybody writes.
    volume.fill(RESERVE_MIB / 8);
    cluster.signal("s3", Signal::SIGKILL);
    let before = log_of(&cluster, "s3").len();
    cluster.ok(&["start", "s3"]);
    wait_state(&cluster, "s3", "read only");
    assert!(log_of(&cluster, "s3")[before..].contains("the disk is full"), "and gives the reason");
    assert_reads_alone(&cluster, "s3", ["s1", "s2"], 22);
    cluster.person("ann").on("s1").say(ROOM, "after the restart");
    said.insert("after the restart".into());

    volume.empty();
    wait_state(&cluster, "s3", "ready");
    assert_all_there(&cluster, &said);
    cluster.person("ann").ok(&["verify"]);
    cluster.ok(&["down"]);
}

#[test]
fn servers_in_their_reserve_take_no_writes_and_go_on_replicating() {
    let cluster = TestCluster::up(3);
    cluster.ok(&["down"]);
    let volumes = on_small_volumes(&cluster, ["s2", "s3"]);
    cluster.start_all();
    cluster.person("ann").say(ROOM, "before");
    cluster.wait_converged();
    for volume in &volumes {
        volume.fill(RESERVE_MIB / 2);
    }
    for server in ["s2", "s3"] {
        wait_state(&cluster, server, "read only");
    }

    let ann = cluster.person("ann").on("s1");
    for nth in 0..10 {
        let receipt = ann.say(ROOM, &format!("message {nth}"));
        assert_eq!((&receipt["level"], &receipt["server"]), (&"replicated".into(), &"s1".into()));
    }
    for server in ["s2", "s3"] {
        assert_eq!(cluster.status_of(server)["state"], "read only");
        let receipt = cluster.person("ann").on(server).say(ROOM, &format!("through {server}"));
        assert_eq!(receipt["server"], "s1", "the only one that takes it: {receipt}");
    }
    volumes.iter().for_each(Volume::empty);
    cluster.wait_converged();
    assert_eq!(cluster.one_history(ROOM).len(), 13);
    cluster.ok(&["down"]);
}
