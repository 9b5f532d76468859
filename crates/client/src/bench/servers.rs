//! What the servers' processes used, from `/proc`; only of a cluster on this machine.

use std::path::Path;

use chatty_client::Cluster;
use serde::Serialize;

/// Clock ticks in a second: what Linux tells programs, whatever the kernel's own clock.
const TICKS: f64 = 100.0;

/// What one process used.
#[derive(Clone, Debug, Serialize)]
pub struct Process {
    pub server: String,
    pub cpu_s: f64,
    pub rss_mib: f64,
}

/// What all servers used, and this process.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    pub servers: Vec<Process>,
    pub own_cpu_s: f64,
}

impl Usage {
    pub fn of(cluster: &Cluster) -> Self {
        let mut usage = Self { own_cpu_s: cpu("self").unwrap_or(0.0), ..Self::default() };
        let Some(folder) = &cluster.folder else { return usage };
        for server in &cluster.servers {
            let name = server.name.to_string();
            let pid = pid_of(&folder.join("servers").join(&name));
            if let Some((cpu_s, rss_mib)) = pid.and_then(|pid| Some((cpu(&pid)?, rss(&pid)?))) {
                usage.servers.push(Process { server: name, cpu_s, rss_mib });
            }
        }
        usage
    }

    /// What was used since then; memory as it is now. A server that was restarted counts anew.
    pub fn since(mut self, before: &Self) -> Self {
        self.own_cpu_s -= before.own_cpu_s;
        for process in &mut self.servers {
            let then = before.servers.iter().find(|then| then.server == process.server);
            let then = then.map_or(0.0, |then| then.cpu_s);
            if then <= process.cpu_s {
                process.cpu_s -= then;
            }
        }
        self
    }
}

/// The process in a server's pid file, if it is a server still.
fn pid_of(folder: &Path) -> Option<String> {
    let file = std::fs::read_to_string(folder.join("pid")).ok()?;
    let pid = file.split_whitespace().next()?;
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    command.contains("chatty-server").then(|| pid.to_owned())
}

/// Seconds of processor time.
fn cpu(pid: &str) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name, in brackets, may hold blanks: fields are counted after it.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS)
}

/// MiB of resident memory.
fn rss(pid: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory() {
        assert!(rss("self").unwrap() > 0.5);
        assert!(cpu("self").unwrap() >= 0.0);
    }
}
