//! What a run cost and how fast values were everywhere.

use std::fmt;
use std::time::Duration;

use chatty_core::time::Time;

use super::clients::{Clients, stable_after};
use super::network::{Carried, Cut};

/// A cut: which, when it began, when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Healed {
    /// Who heard whom.
    pub cut: Cut,
    /// From when.
    pub began: Time,
    /// Until when.
    pub healed: Time,
    /// For how long the network was whole then.
    pub whole: Duration,
    /// How much later everything known before the heal was everywhere.
    pub stable: Duration,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Nodes.
    pub nodes: usize,
    /// Broadcasts begun.
    pub broadcasts: u64,
    /// Reads begun, the final ones too.
    pub reads: u64,
    /// What the network carried.
    pub carried: Carried,
    /// Values that were acknowledged, or read, and that some node does not show in the end.
    pub lost: Vec<u64>,
    /// Values that nobody ever knew of and that are nowhere in the end.
    pub unknown: usize,
    /// From the acknowledgement until every node shows it, for each value, ascending; empty where
    /// only reads can tell.
    pub everywhere: Vec<Duration>,
    /// The same by the reads of the workload, as Maelstrom tells it (`stable-latencies`).
    pub by_reads: Vec<Duration>,
    /// The cuts.
    pub cuts: Vec<Healed>,
    /// Operations without an answer.
    pub timed_out: u64,
    /// Answers that are none, and what nodes complained of.
    pub wrong: Vec<String>,
}

impl Report {
    /// What the clients saw.
    pub fn new(nodes: usize, clients: &Clients, carried: Carried, cuts: Vec<Healed>) -> Self {
        let (broadcasts, reads) = clients.operations();
        let fates = clients.fates();
        let known = |fate: &super::clients::Fate| fate.known.is_some();
        let lost = fates.iter().filter(|(_, f)| f.finals < nodes && (known(f) || f.finals > 0));
        let lost = lost.map(|(value, _)| *value).collect();
        let mut by_reads: Vec<Duration> = fates.values().filter_map(stable_after).collect();
        by_reads.sort_unstable();
        Self {
            nodes,
            broadcasts,
            reads,
            carried,
            lost,
            unknown: fates.values().filter(|f| !known(f) && f.finals == 0).count(),
            everywhere: Vec::new(),
            by_reads,
            cuts,
            timed_out: clients.timed_out(),
            wrong: clients.wrong().to_vec(),
        }
    }

    /// Messages between nodes for each operation of the clients.
    pub fn messages_per_op(&self) -> f64 {
        self.carried.servers as f64 / (self.broadcasts + self.reads).max(1) as f64
    }

    /// How long the slowest of the fastest `percent` took; zero if there is none.
    pub fn quantile(durations: &[Duration], percent: usize) -> Duration {
        let at = (durations.len() * percent).div_ceil(100).saturating_sub(1);
        durations.get(at).copied().unwrap_or_default()
    }

    /// The longest that it took after a heal, of those that were whole for so long.
    pub fn slowest_heal(&self, whole: Duration) -> Option<Duration> {
        self.cuts.iter().filter(|cut| cut.whole >= whole).map(|cut| cut.stable).max()
    }

    /// Whether nothing was lost and nobody was told nonsense.
    pub fn is_right(&self) -> bool {
        self.lost.is_empty() && self.wrong.is_empty() && self.timed_out == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
        writeln!(
            f,
            "{} nodes, {} operations ({} broadcasts, {} reads), {} unanswered",
            self.nodes,
            self.broadcasts + self.reads,
            self.broadcasts,
            self.reads,
            self.timed_out
        )?;
        writeln!(
            f,
            "{} messages between nodes ({} lost on the way), {:.2} an operation, {:.0} bytes each",
            self.carried.servers,
            self.carried.lost,
            self.messages_per_op(),
            self.carried.bytes as f64 / self.carried.servers.max(1) as f64
        )?;
        for (what, durations) in
            [("on every node", &self.everywhere), ("stable by the reads", &self.by_reads)]
        {
            if !durations.is_empty() {
                let [median, p95, p99, most] =
                    [50, 95, 99, 100].map(|percent| ms(Self::quantile(durations, percent)));
                writeln!(
                    f,
                    "{what} after {median:.0} ms (median), {p95:.0} (95 %), {p99:.0} (99 %), \
                     {most:.0} ms (most)"
                )?;
            }
        }
        for cut in &self.cuts {
            writeln!(
                f,
                "cut {:?} of {:.1} s, whole for {:.1} s: stable {:.0} ms after the heal",
                cut.cut,
                cut.healed.since(cut.began).as_secs_f64(),
                cut.whole.as_secs_f64(),
                ms(cut.stable)
            )?;
        }
        for wrong in &self.wrong {
            writeln!(f, "WRONG: {wrong}")?;
        }
        write!(f, "{} values lost, {} never acknowledged", self.lost.len(), self.unknown)?;
        if self.lost.is_empty() { Ok(()) } else { write!(f, ": {:?}", self.lost) }
    }
}
