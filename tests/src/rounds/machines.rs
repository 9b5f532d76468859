//! Machines without hardware: a network namespace for each server and for its clients, all on one
//! bridge. What they do not hear of each other, and how narrow their cable is, can be changed while
//! they run; every change counts what it did, so that it can be told from one that did nothing. Packets
//! can be led by a machine of the relay, which changes when and in which order they come.
//!
//! All of it is inside namespaces of the process (see `unshare` in the program), so that nothing
//! stays behind, however it ends.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::system::{output, run, succeed};

/// Where whoever watches the run is: on the bridge itself, out of reach of every fault.
const WATCHER: &str = "10.0.0.254";
/// The machine for what a cluster does not know of.
pub const SPARE: &str = "spare";
/// The machine of the relay (see `relay`), which takes packets of every address.
pub const RELAY: &str = "relay";
const RELAY_ADDRESS: &str = "10.0.0.80";
/// The UDP port of every server.
pub const PORT: u16 = 7400;

/// The machine of a server, which is called like it.
pub fn server_machine(server: usize) -> String {
    format!("s{}", server + 1)
}

/// The machine of the clients that begin at that server.
pub fn client_machine(server: usize) -> String {
    format!("c{}", server + 1)
}

/// The address of a server's machine.
pub fn server_address(server: usize) -> String {
    format!("10.0.0.{}", server + 1)
}

/// The address of the machine of its clients.
pub fn client_address(server: usize) -> String {
    format!("10.0.0.{}", server + 101)
}

/// The address of the spare machine.
pub fn spare_address() -> String {
    "10.0.0.90".into()
}

/// Makes the machines for so many servers, their clients, and a spare one.
///
/// # Errors
/// What the system says.
pub fn lay(servers: usize) -> Result<(), String> {
    run("mkdir -p /run/netns")?;
    run("mount -t tmpfs none /run/netns")?;
    run("ip link set lo up")?;
    run("ip link add net type bridge")?;
    run("ip link set net up")?;
    run(&format!("ip address add {WATCHER}/24 dev net"))?;
    for server in 0..servers {
        plug(&server_machine(server), &server_address(server))?;
        plug(&client_machine(server), &client_address(server))?;
    }
    plug(SPARE, &spare_address())?;
    lay_relay()
}

/// What the bridge brings to the relay's machine is for itself, to whatever address it goes; but it
/// answers only for its own when it is asked which address is where (ARP).
fn lay_relay() -> Result<(), String> {
    plug(RELAY, RELAY_ADDRESS)?;
    let ignore = "echo 1 > /proc/sys/net/ipv4/conf/eth0/arp_ignore";
    succeed(on(RELAY, "sh").args(["-c", ignore]))?;
    run(&format!("ip -n {RELAY} rule add iif eth0 lookup 100"))?;
    run(&format!("ip -n {RELAY} route add local 10.0.0.0/24 dev lo table 100"))
}

/// A machine on the bridge.
fn plug(name: &str, address: &str) -> Result<(), String> {
    run(&format!("ip netns add {name}"))?;
    run(&format!("ip link add to-{name} type veth peer name eth0 netns {name}"))?;
    run(&format!("ip link set to-{name} master net up"))?;
    run(&format!("ip -n {name} address add {address}/24 dev eth0"))?;
    run(&format!("ip -n {name} link set eth0 up"))?;
    run(&format!("ip -n {name} link set lo up"))
}

/// A program on one of the machines.
pub fn on(machine: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", machine, program]);
    command
}

/// How much gets lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Every packet.
    All,
    /// So many of a hundred, drawn by the kernel.
    Percent(u64),
}

/// A machine that does not hear packets of some senders; nobody is told. Dropped, it hears again.
#[derive(Debug)]
pub struct Deaf {
    machine: String,
    /// Its rules, apart from those of other faults.
    chain: String,
}

impl Deaf {
    /// From now on that share of the packets of these addresses is dropped when it arrives.
    ///
    /// # Errors
    /// What `iptables` said.
    pub fn begin(machine: &str, senders: &[String], share: Share) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let chain = format!("fault-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let matching = match share {
            Share::All => String::new(),
            Share::Percent(n) => {
                format!(" -m statistic --mode random --probability {}.{:02}", n / 100, n % 100)
            }
        };
        let senders = senders.join(",");
        let rules = format!(":{chain} - [0:0]\n-A {chain} -s {senders}{matching} -j DROP\n");
        restore(machine, &format!("{rules}-I INPUT -j {chain}\n"))?;
        Ok(Self { machine: machine.into(), chain })
    }

    /// Which machine.
    pub const fn machine(&self) -> &String {
        &self.machine
    }

    /// How many packets were dropped.
    ///
    /// # Errors
    /// What `iptables` said.
    pub fn dropped(&self) -> Result<u64, String> {
        let mut list = on(&self.machine, "iptables");
        let listed = output(list.args(["-w", "-nvxL", &self.chain]))?;
        let counts = listed.lines().filter(|line| line.contains("DROP"));
        let counts = counts.filter_map(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Ok(counts.sum())
    }
}

impl Drop for Deaf {
    fn drop(&mut self) {
        let chain = &self.chain;
        let rules = format!("-D INPUT -j {chain}\n-F {chain}\n-X {chain}\n");
        if let Err(why) = restore(&self.machine, &rules) {
            eprintln!("{} stays deaf: {why}", self.machine);
        }
    }
}

fn restore(machine: &str, rules: &str) -> Result<(), String> {
    use std::io::Write as _;
    let mut command = on(machine, "iptables-restore");
    command.args(["-w", "--noflush"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let failed = |error: std::io::Error| format!("iptables-restore: {error}");
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(format!("*filter\n{rules}COMMIT\n").as_bytes()).map_err(failed)?;
    }
    let done = child.wait_with_output().map_err(failed)?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!("iptables-restore: {}", String::from_utf8_lossy(&done.stderr).trim()))
}

/// A machine with a narrow cable, in both directions. Dropped, it is wide again.
#[derive(Debug)]
pub struct Narrow {
    machine: String,
}

impl Narrow {
    /// From now on so many kbit a second pass; what waits longer than 200 ms is dropped.
    ///
    /// # Errors
    /// What `tc` said.
    pub fn begin(machine: &str, kbit: u64) -> Result<Self, String> {
        let narrow = Self { machine: machine.into() };
        let filter = format!("root tbf rate {kbit}kbit burst 4kb latency 200ms");
        run(&format!("tc -n {machine} qdisc add dev eth0 {filter}"))?;
        run(&format!("tc qdisc add dev to-{machine} {filter}"))?;
        Ok(narrow)
    }

    /// How many packets had to wait for others, or were dropped.
    ///
    /// # Errors
    /// What `tc` said.
    pub fn held_up(&self) -> Result<u64, String> {
        let there = output(Command::new("tc").args(["-n", &self.machine, "-s", "qdisc"]))?;
        let counted = |text: &str, word: &str| -> u64 {
            let after = text.split(word).skip(1);
            let numbers = after.map(|rest| {
                rest.trim_start().chars().take_while(char::is_ascii_digit).collect::<String>()
            });
            numbers.filter_map(|number| number.parse::<u64>().ok()).sum()
        };
        Ok(counted(&there, "dropped") + counted(&there, "overlimits"))
    }
}

impl Drop for Narrow {
    fn drop(&mut self) {
        let machine = &self.machine;
        for device in
            [format!("-n {machine} qdisc del dev eth0"), format!("qdisc del dev to-{machine}")]
        {
            if let Err(why) = succeed(Command::new("tc").args(format!("{device} root").split(' ')))
            {
                eprintln!("{machine} stays narrow: {why}");
            }
        }
    }
}

/// A machine whose packets to an address go by the relay's machine. Dropped, they go straight.
#[derive(Debug)]
pub struct Detour {
    machine: String,
    to: Ipv4Addr,
}

impl Detour {
    /// From now on they do.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn begin(machine: &str, to: Ipv4Addr) -> Result<Self, String> {
        run(&format!("ip -n {machine} route add {to}/32 via {RELAY_ADDRESS}"))?;
        Ok(Self { machine: machine.into(), to })
    }
}

impl Drop for Detour {
    fn drop(&mut self) {
        let Self { machine, to } = self;
        if let Err(why) = run(&format!("ip -n {machine} route del {to}/32 via {RELAY_ADDRESS}")) {
            eprintln!("packets of {machine} to {to} still go by the relay: {why}");
        }
    }
}
