//! Maelstrom's network: every line between nodes takes its time, some are lost, some run into a cut;
//! nobody is told. Lines of and to clients take none and are never lost.
//!
//! As there (`src/maelstrom/net.clj`, `net/checker.clj` and Jepsen's `nemesis/combined.clj`): a message
//! is counted when it is sent, also if it is lost; whether a cut is in its way is decided when it
//! arrives; it is one between servers when neither end is a client.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chatty_core::rng::Rng;
use chatty_core::time::Time;

/// How long lines between nodes take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latency {
    /// Always so long.
    Constant(Duration),
    /// Between nothing and twice as long, evenly.
    Uniform(Duration),
    /// Exponentially distributed, so long on average.
    Exponential(Duration),
}

impl Latency {
    fn draw(self, rng: &mut Rng) -> Duration {
        match self {
            Self::Constant(mean) => mean,
            Self::Uniform(mean) => mean.mul_f64(2.0 * unit(rng)),
            Self::Exponential(mean) => mean.mul_f64(-(1.0 - unit(rng)).ln()),
        }
    }

    /// On average.
    pub const fn mean(self) -> Duration {
        match self {
            Self::Constant(mean) | Self::Uniform(mean) | Self::Exponential(mean) => mean,
        }
    }
}

/// A number from 0 to below 1.
fn unit(rng: &mut Rng) -> f64 {
    rng.below(1 << 53) as f64 / (1u64 << 53) as f64
}

/// Who hears whom during a cut (the names are Jepsen's).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cut {
    /// One node, and all others.
    One,
    /// Less than a third, and all others.
    MinorityThird,
    /// Two halves.
    Majority,
    /// Everybody hears a majority, and no two the same one.
    MajoritiesRing,
}

impl Cut {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::One, Self::MinorityThird, Self::Majority, Self::MajoritiesRing];

    /// Pairs of nodes (in both orders) that do not hear each other.
    pub fn pairs(self, nodes: usize, rng: &mut Rng) -> BTreeSet<(usize, usize)> {
        let mut order: Vec<usize> = (0..nodes).collect();
        for at in (1..nodes).rev() {
            order.swap(at, rng.below(at as u64 + 1) as usize);
        }
        let split = match self {
            Self::One => 1,
            Self::MinorityThird => nodes.saturating_sub(1) / 3,
            Self::Majority | Self::MajoritiesRing => nodes / 2,
        };
        let heard = |a: usize, b: usize| {
            if self != Self::MajoritiesRing {
                return (a < split) == (b < split);
            }
            let apart = a.abs_diff(b);
            apart.min(nodes - apart) <= (nodes / 2).div_ceil(2)
        };
        let all = (0..nodes).flat_map(|a| (0..nodes).map(move |b| (a, b)));
        all.filter(|(a, b)| !heard(*a, *b)).map(|(a, b)| (order[a], order[b])).collect()
    }
}

/// What a network has carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Carried {
    /// Messages sent between nodes, lost ones too.
    pub servers: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages sent by or to clients.
    pub clients: u64,
    /// Messages between nodes that did not arrive.
    pub lost: u64,
}

/// A line on its way to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The number of the node that said it; `None`: a client.
    pub from: Option<usize>,
    /// The number of the node that it is for.
    pub to: usize,
    /// The text.
    pub text: String,
}

/// The network.
pub struct Network {
    latency: Latency,
    /// Of a million lines between nodes so many are lost.
    loss_ppm: u64,
    cut: BTreeSet<(usize, usize)>,
    under_way: BTreeMap<(Time, u64), Line>,
    sent: u64,
    carried: Carried,
    rng: Rng,
}

impl Network {
    /// A whole network.
    pub const fn new(latency: Latency, loss_ppm: u64, rng: Rng) -> Self {
        Self {
            latency,
            loss_ppm,
            cut: BTreeSet::new(),
            under_way: BTreeMap::new(),
            sent: 0,
            carried: Carried { servers: 0, bytes: 0, clients: 0, lost: 0 },
            rng,
        }
    }

    /// Takes a line.
    pub fn send(&mut self, now: Time, line: Line) {
        let between_nodes = line.from.is_some();
        if between_nodes {
            self.carried.servers += 1;
            self.carried.bytes += line.text.len() as u64 + 1;
        } else {
            self.carried.clients += 1;
        }
        if between_nodes && self.rng.below(1_000_000) < self.loss_ppm {
            self.carried.lost += 1;
            return;
        }
        let delay = if between_nodes { self.latency.draw(&mut self.rng) } else { Duration::ZERO };
        self.sent += 1;
        self.under_way.insert((now + delay, self.sent), line);
    }

    /// A node answered a client.
    pub const fn answered(&mut self) {
        self.carried.clients += 1;
    }

    /// The next line that arrives by now.
    pub fn arrive(&mut self, now: Time) -> Option<Line> {
        while let Some(first) = self.under_way.first_entry() {
            if first.key().0 > now {
                return None;
            }
            let line = first.remove();
            if line.from.is_none_or(|from| !self.cut.contains(&(from, line.to))) {
                return Some(line);
            }
            self.carried.lost += 1;
        }
        None
    }

    /// When the next line arrives.
    pub fn next_arrival(&self) -> Option<Time> {
        self.under_way.first_key_value().map(|((at, _), _)| *at)
    }

    /// These do not hear each other any more, and all others do.
    pub fn cut(&mut self, pairs: BTreeSet<(usize, usize)>) {
        self.cut = pairs;
    }

    /// What it has carried.
    pub const fn carried(&self) -> Carried {
        self.carried
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(from: Option<usize>, to: usize) -> Line {
        Line { from, to, text: "x".into() }
    }

    fn network(loss_ppm: u64) -> Network {
        Network::new(Latency::Constant(Duration::from_millis(100)), loss_ppm, Rng::new(1))
    }

    #[test]
    fn lines_between_nodes_take_their_time_and_those_of_clients_none() {
        let mut network = network(0);
        let start = Time::from_micros(0);
        network.send(start, line(Some(1), 0));
        network.send(start, line(None, 0));
        assert_eq!(network.arrive(start), Some(line(None, 0)));
        assert_eq!(network.arrive(start + Duration::from_millis(99)), None);
        let due = start + Duration::from_millis(100);
        assert_eq!(network.next_arrival(), Some(due));
        assert_eq!(network.arrive(due), Some(line(Some(1), 0)));
        let carried = network.carried();
        assert_eq!((carried.servers, carried.clients, carried.lost), (1, 1, 0));
    }

    #[test]
    fn what_is_lost_is_counted_as_sent() {
        let mut network = network(1_000_000);
        network.send(Time::from_micros(0), line(Some(1), 0));
        assert_eq!(network.next_arrival(), None);
        assert_eq!((network.carried().servers, network.carried().lost), (1, 1));
    }

    #[test]
    fn a_cut_is_in_the_way_of_what_arrives_while_it_lasts() {
        let mut network = network(0);
        let start = Time::from_micros(0);
        let due = start + Duration::from_millis(100);
        network.send(start, line(Some(1), 0));
        network.cut(BTreeSet::from([(1, 0), (0, 1)]));
        network.send(start, line(None, 0));
        network.send(start, line(Some(2), 0));
        assert_eq!(network.arrive(due), Some(line(None, 0)));
        assert_eq!(network.arrive(due), Some(line(Some(2), 0)));
        assert_eq!(network.arrive(due), None);
        assert_eq!(network.carried().lost, 1);
    }

    #[test]
    fn cuts_go_both_ways_and_leave_whom_they_should() {
        for seed in 0..20 {
            for (cut, most_cut) in [
                (Cut::One, 24),
                (Cut::MinorityThird, 17),
                (Cut::Majority, 13),
                (Cut::MajoritiesRing, 12),
            ] {
                let pairs = cut.pairs(25, &mut Rng::new(seed));
                assert!(pairs.iter().all(|(a, b)| a != b && pairs.contains(&(*b, *a))), "{cut:?}");
                let most = (0..25).map(|n| pairs.iter().filter(|(a, _)| *a == n).count()).max();
                assert_eq!(most, Some(most_cut), "{cut:?}");
            }
        }
    }
}
