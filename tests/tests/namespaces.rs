//! Servers on machines of their own: three network namespaces on a bridge, each with its own file
//! system and firewall (`tests/machines.sh`; needs root). `scripts/test` runs these apart.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use chatty_tests::{code_blocks, programs, repository};

/// Three machines and a home computer; what home types is collected first.
struct Machines {
    folder: PathBuf,
    script: String,
}

impl Machines {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("chatty-machines-{}", std::process::id()));
        fs::create_dir_all(folder.join("home/target")).expect("a folder");
        fs::create_dir_all(folder.join("stubs")).expect("a folder");
        symlink(programs(), folder.join("home/target/release")).expect("a new folder");
        // What is built is what the documentation builds; it is there already.
        let lib = fs::read_to_string(repository().join("scripts/lib.sh")).expect("it is there");
        let build = lib.lines().find_map(|line| line.split_once("&& cargo build "));
        let arguments = build.and_then(|(_, rest)| rest.split(')').next()).expect("it builds");
        let cargo = format!("#!/usr/bin/env bash\n[[ $* == 'build {arguments}' ]]\n");
        let stub = folder.join("stubs/cargo");
        fs::write(&stub, cargo).expect("a new file");
        Self { folder, script: String::new() }
    }

    fn types(&mut self, lines: &str) {
        self.script.push_str(lines);
        self.script.push('\n');
    }

    /// Types what `docs/operate.md` says, heading by heading.
    fn types_operate(&mut self) {
        let text = fs::read_to_string(repository().join("docs/operate.md")).expect("it is there");
        for section in text.split("\n## ") {
            let heading = section.lines().next().unwrap_or_default();
            self.types(&format!("echo '=== {heading}'"));
            // A person looks before he goes on.
            let looks = ["4.", "Stopping", "Certificates", "When", "Restoring"]
                .iter()
                .any(|begin| heading.starts_with(begin));
            for block in code_blocks(section) {
                match (block.language(), block.attribute("file")) {
                    ("sh", _) => self.types(&block.code),
                    (_, Some(file)) => {
                        self.types(&format!(
                            "cat >{file} <<'END_OF_FILE'\n{}END_OF_FILE",
                            block.code
                        ));
                    }
                    _ => panic!("who types this? {block:?}"),
                }
                if looks {
                    self.types("all_linked");
                }
            }
        }
    }

    /// Runs it all; gives what was printed.
    #[track_caller]
    fn run(self) -> String {
        let helpers = r#"
status() { target/release/chatty --cluster cluster status --json; }
# Waits until all three are ready, linked, and have caught up.
all_linked() {
  local until=$((SECONDS + 60))
  while ((SECONDS < until)); do
    [[ $(status | grep -c '"state":"ready"') == 3 &&
       $(status | grep -o '"state":"up"' | wc -l) == 6 &&
       $(status | grep -c '"lag":0') == 3 ]] && return
    sleep 0.1
  done
  echo 'not all linked:' >&2
  status >&2
  return 1
}
"#;
        fs::write(self.folder.join("home.sh"), format!("{helpers}{}", self.script)).expect("ours");
        let done = Command::new(repository().join("tests/machines.sh"))
            .arg("run")
            .arg(&self.folder)
            .stdin(Stdio::null())
            .output()
            .expect("bash runs");
        let out = String::from_utf8_lossy(&done.stdout).into_owned();
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(
            done.status.success(),
            "needs root and network namespaces (scripts/test says what is missing)\n{out}{errors}"
        );
        out
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What was printed under a heading.
fn under<'a>(out: &'a str, heading: &str) -> &'a str {
    let from = out.find(&format!("=== {heading}")).unwrap_or_else(|| panic!("{heading}: {out}"));
    out[from + 4..].split("\n=== ").next().unwrap_or_default()
}

#[test]
fn three_machines_come_from_nothing_to_talking_as_operate_md_says() {
    let mut machines = Machines::new();
    machines.types_operate();
    machines.types(
        r#"
echo "=== after all"
for i in 1 2 3; do
  echo "s$i: $(target/release/chatty --cluster cluster --server s$i history lobby --last 10 --json | grep -c '"text"')"
done
ssh root@10.0.0.1 'ls -ld /var/lib/chatty /var/lib/chatty/server.key; ls -l /proc/$(</run/chatty.pid)/exe; find / -xdev -path /proc -prune -o -name "*authority*key*" -print'
"#,
    );
    let out = machines.run();

    let talk = under(&out, "5. Talk");
    assert_eq!(talk.matches("hello from home").count(), 2, "at home and by URL: {talk}");
    assert!(talk.contains("chatty://10.0.0.1:7400,10.0.0.2:7400,10.0.0.3:7400/#"), "{talk}");
    assert!(under(&out, "4. Start").contains("10.0.0.2:7400"), "{out}");
    let after = under(&out, "after all");
    for server in ["s1", "s2", "s3"] {
        assert!(after.contains(&format!("{server}: 2")), "each has both messages: {after}");
    }
    assert!(after.contains("drwx------"), "the folder is its user's alone: {after}");
    assert!(!after.contains("authority.key"), "no server has the authority's key: {after}");
}

#[test]
fn a_client_whose_servers_packets_are_dropped_talks_again_within_3_seconds() {
    let mut machines = Machines::new();
    machines.types_operate();
    machines.types(
        r#"
echo "=== silence"
mkfifo lines
target/release/chatty --cluster cluster --server s1 --nick ann send lobby --stdin --json <lines >receipts &
client=$!
exec 3>lines
acknowledged() { grep "\"line\":$1," receipts | grep -q '"level"'; }
echo before >&3
until acknowledged 1; do sleep 0.01; done
server=$(grep '"line":1,' receipts | head -n 1 | grep -o '"server":"s[123]"' | grep -o '[123]')
cable out 10.0.0.$server
from=${EPOCHREALTIME/./}
echo after >&3
until acknowledged 2; do sleep 0.01; done
echo "took $(((${EPOCHREALTIME/./} - from) / 1000)) ms"
cable in 10.0.0.$server
exec 3>&-
wait $client
all_linked
for i in 1 2 3; do
  echo "s$i: $(target/release/chatty --cluster cluster --server s$i history lobby --last 10 --json | grep -c '"text"')"
done
"#,
    );
    let out = machines.run();

    let silence = under(&out, "silence");
    let took = silence.split("took ").nth(1).and_then(|rest| rest.split(' ').next());
    let took: u32 = took.and_then(|ms| ms.parse().ok()).expect("a time");
    println!("dropped packets, a client that sends: {took} ms");
    assert!(took <= 3000, "{took} ms");
    for server in ["s1", "s2", "s3"] {
        assert!(silence.contains(&format!("{server}: 4")), "each has all: {silence}");
    }
}

#[test]
fn a_cut_off_machine_takes_messages_for_itself_and_all_merge_when_it_is_back() {
    let mut machines = Machines::new();
    machines.types_operate();
    machines.types(
        r#"
echo "=== cut"
cable out 10.0.0.3
target/release/chatty --cluster cluster --server s1 --nick ann send lobby "on this side" --json
# On the other side, somebody at the machine itself.
cp -rL target/release/chatty cluster/client.toml "$work/10.0.0.3/tmp/"
mkdir -p "$work/10.0.0.3/tmp/cluster" && mv "$work/10.0.0.3/tmp/client.toml" "$work/10.0.0.3/tmp/cluster/"
ssh root@10.0.0.3 '/tmp/chatty --cluster /tmp/cluster --server s3 --nick bob send lobby "on that side" --json'
read_there() { ssh root@10.0.0.3 '/tmp/chatty --cluster /tmp/cluster --server s3 --nick bob history lobby' 2>&1; }
until read_there | grep 'unreachable: s1, s2'; do sleep 0.1; done
cable in 10.0.0.3
all_linked
echo "healed: $(target/release/chatty --cluster cluster --server s3 --nick ann history lobby 2>&1 >/dev/null)"
for i in 1 2 3; do
  echo "s$i: $(target/release/chatty --cluster cluster --server s$i history lobby --last 10 --json | sha256sum)"
done
"#,
    );
    let out = machines.run();

    let cut = under(&out, "cut");
    let receipt = |text: &str| cut.lines().filter(|line| line.contains(text)).count();
    assert_eq!(receipt("\"level\":\"replicated\""), 1, "two of three are a majority: {cut}");
    assert!(receipt("\"level\":\"stored\"") >= 1, "one of three is not: {cut}");
    assert!(cut.contains("unreachable: s1, s2; there may be more"), "the page says so: {cut}");
    assert!(cut.lines().any(|line| line == "healed: "), "it is complete again: {cut}");
    let hashes: Vec<_> = cut.lines().filter_map(|line| line.split_once(": ")).collect();
    let of = |server: &str| hashes.iter().find(|(name, _)| *name == server).map(|(_, hash)| *hash);
    assert!(of("s1").is_some(), "{cut}");
    assert_eq!((of("s1"), of("s1")), (of("s2"), of("s3")), "{cut}");
}

#[test]
fn a_partition_with_people_on_both_sides_breaks_no_promise() {
    programs();
    let name = format!("chatty-rounds-partition-{}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    let done = Command::new(env!("CARGO_BIN_EXE_chatty-rounds"))
        .args(["partition", "--seconds", "4", "--seed", "1", "--folder"])
        .arg(&folder)
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    let out = String::from_utf8_lossy(&done.stdout);
    println!("{}{out}", String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "see {}", folder.display());
    assert!(!folder.exists(), "nothing stays of a run that kept every promise");
    let side = |name: &str| -> Vec<usize> {
        let row = out.lines().find(|line| line.trim_start().starts_with(name)).expect("its row");
        let counts = row.split(") ").nth(1).unwrap_or_default().split_whitespace();
        counts.map_while(|count| count.parse().ok()).collect()
    };
    // Said, told replicated, told stored, refused, not told before the heal.
    let (majority, minority) = (side("majority (s1 s2)"), side("minority (s3)"));
    assert!(majority[0] > 300 && majority[1] > 300, "the majority talks on: {out}");
    assert!(minority[0] > 150 && minority[2] > 50, "the minority takes messages: {out}");
    assert_eq!((minority[1], minority[3]), (0, 0), "replicated and refused in a minority");
}
