//! What Maelstrom's clients do in its broadcast workload, and what their answers show.
//!
//! One client for each node; each operation is a `broadcast` of the next number or a `read`, evenly; the
//! time between two is drawn evenly up to twice the mean. As in Jepsen's `set-full` checker, a value is
//! *known* from its acknowledgement, or the end of the first read that has it, on; it is *lost* if the
//! final reads lack it; and it is *stable* when no read that began later lacks it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chatty_core::rng::Rng;
use chatty_core::time::Time;
use serde_json::json;

use super::message::Message;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a client asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Init,
    Topology,
    Broadcast(u64),
    Read,
    FinalRead,
}

/// A value that was sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fate {
    /// When a client first knew that it is there.
    pub known: Option<Time>,
    /// When the last read without it began.
    pub absent: Option<Time>,
    /// In how many of the final reads it is.
    pub finals: usize,
}

/// All clients.
pub struct Clients {
    nodes: Vec<String>,
    rng: Rng,
    /// Time between two operations, on average.
    every: Duration,
    last_id: u64,
    next_value: u64,
    /// Questions without an answer: by number, of which node, since when.
    open: BTreeMap<u64, (Asked, usize, Time)>,
    fates: BTreeMap<u64, Fate>,
    broadcasts: u64,
    reads: u64,
    timed_out: u64,
    /// Everything an answer should not be.
    wrong: Vec<String>,
}

impl Clients {
    /// Clients of these nodes, `rate` operations a second in all.
    pub fn new(nodes: Vec<String>, rate: u32, rng: Rng) -> Self {
        Self {
            nodes,
            rng,
            every: Duration::from_secs(1) / rate.max(1),
            last_id: 0,
            next_value: 0,
            open: BTreeMap::new(),
            fates: BTreeMap::new(),
            broadcasts: 0,
            reads: 0,
            timed_out: 0,
            wrong: Vec::new(),
        }
    }

    fn ask(&mut self, now: Time, to: usize, asked: Asked) -> (usize, String) {
        self.last_id += 1;
        let mut body = match asked {
            Asked::Init => json!({
                "type": "init", "node_id": self.nodes[to], "node_ids": self.nodes,
            }),
            // A grid is what Maelstrom offers; a line is as good for a node that does not use it.
            Asked::Topology => json!({"type": "topology", "topology": {
                &self.nodes[to]: [self.nodes[(to + 1) % self.nodes.len()]],
            }}),
            Asked::Broadcast(value) => json!({"type": "broadcast", "message": value}),
            Asked::Read | Asked::FinalRead => json!({"type": "read"}),
        };
        body["msg_id"] = self.last_id.into();
        let body = body.as_object().cloned().unwrap_or_default();
        let (src, dest) = (format!("c{to}"), self.nodes[to].clone());
        self.open.insert(self.last_id, (asked, to, now));
        (to, Message { src, dest, body }.line())
    }

    /// Tells every node who it is, and whom it might talk to.
    pub fn begin(&mut self, now: Time) -> Vec<(usize, String)> {
        let all = 0..self.nodes.len();
        let inits: Vec<_> = all.clone().map(|n| self.ask(now, n, Asked::Init)).collect();
        inits.into_iter().chain(all.map(|n| self.ask(now, n, Asked::Topology))).collect()
    }

    /// The next operation, and how long until the one after it. None if every client waits.
    pub fn operate(&mut self, now: Time) -> (Option<(usize, String)>, Duration) {
        let micros = u64::try_from(self.every.as_micros()).unwrap_or(u64::MAX);
        let pause = Duration::from_micros(self.rng.below(2 * micros + 1));
        let busy: BTreeSet<usize> = self.open.values().map(|(_, node, _)| *node).collect();
        let free: Vec<usize> = (0..self.nodes.len()).filter(|n| !busy.contains(n)).collect();
        let Some(to) = free.get(self.rng.below(free.len() as u64) as usize).copied() else {
            return (None, pause);
        };
        let asked = if self.rng.one_in(2) {
            self.reads += 1;
            Asked::Read
        } else {
            let value = self.next_value;
            self.next_value += 1;
            self.broadcasts += 1;
            self.fates.insert(value, Fate::default());
            Asked::Broadcast(value)
        };
        (Some(self.ask(now, to, asked)), pause)
    }

    /// The reads that decide.
    pub fn end(&mut self, now: Time) -> Vec<(usize, String)> {
        self.reads += self.nodes.len() as u64;
        (0..self.nodes.len()).map(|n| self.ask(now, n, Asked::FinalRead)).collect()
    }

    /// An answer came.
    pub fn answer(&mut self, now: Time, message: &Message) {
        let open = message.answers().and_then(|id| self.open.remove(&id));
        let Some((asked, node, since)) = open else {
            self.wrong.push(format!("an answer to nothing: {}", message.line()));
            return;
        };
        let expected = match asked {
            Asked::Init => "init_ok",
            Asked::Topology => "topology_ok",
            Asked::Broadcast(_) => "broadcast_ok",
            Asked::Read | Asked::FinalRead => "read_ok",
        };
        if message.kind() != expected || message.src != self.nodes[node] {
            self.wrong.push(format!("no answer to {asked:?}: {}", message.line()));
            return;
        }
        match asked {
            Asked::Init | Asked::Topology => {}
            Asked::Broadcast(value) => {
                self.fates.entry(value).or_default().known.get_or_insert(now);
            }
            Asked::Read | Asked::FinalRead => {
                let values = message.body.get("messages").and_then(|m| m.as_array());
                let values: Option<BTreeSet<u64>> =
                    values.and_then(|all| all.iter().map(|value| value.as_u64()).collect());
                match values {
                    Some(values) => self.read(now, since, &values, asked == Asked::FinalRead),
                    None => self.wrong.push(format!("no list of numbers: {}", message.line())),
                }
            }
        }
    }

    fn read(&mut self, now: Time, since: Time, values: &BTreeSet<u64>, last: bool) {
        for (value, fate) in &mut self.fates {
            if values.contains(value) {
                fate.known.get_or_insert(now);
                fate.finals += usize::from(last);
            } else {
                fate.absent = fate.absent.max(Some(since));
            }
        }
        for value in values.iter().filter(|value| !self.fates.contains_key(value)) {
            self.wrong.push(format!("{value} was read and never sent"));
        }
    }

    /// Gives up on what has been asked for too long.
    pub fn expire(&mut self, now: Time) {
        let before = self.open.len();
        self.open.retain(|_, (_, _, since)| now.since(*since) < PATIENCE);
        self.timed_out += (before - self.open.len()) as u64;
    }

    /// Whether nothing is asked.
    pub fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    /// Operations begun: (broadcasts, reads, final ones too).
    pub const fn operations(&self) -> (u64, u64) {
        (self.broadcasts, self.reads)
    }

    /// What became of every value.
    pub const fn fates(&self) -> &BTreeMap<u64, Fate> {
        &self.fates
    }

    /// Operations that nobody answered in time.
    pub const fn timed_out(&self) -> u64 {
        self.timed_out
    }

    /// Answers that are none.
    pub fn wrong(&self) -> &[String] {
        &self.wrong
    }
}

/// How long after it was known a value was stable, by the reads.
pub fn stable_after(fate: &Fate) -> Option<Duration> {
    let known = fate.known?;
    Some(fate.absent.map_or(Duration::ZERO, |absent| absent.since(known)))
}
