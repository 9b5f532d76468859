//! A run of Maelstrom's broadcast workload: what happens when, and the loop that lets it happen to
//! nodes of this process in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chatty_core::rng::Rng;
use chatty_core::time::{Now, Time};

use super::clients::Clients;
use super::message::Message;
use super::network::{Cut, Latency, Line, Network};
use super::node::{Node, Options, Said};
use super::report::{Healed, Report};

/// The wall clock at the beginning, unix milliseconds.
const EPOCH_MS: u64 = 1_700_000_000_000;
/// How long Maelstrom waits between the last operation and the final reads.
const RECOVERY: Duration = Duration::from_secs(10);
/// How long the final reads may take.
const END_MAX: Duration = Duration::from_secs(6);

/// What is run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Nodes.
    pub nodes: usize,
    /// Operations a second.
    pub rate: u32,
    /// For so long.
    pub length: Duration,
    /// How long messages between nodes take.
    pub latency: Latency,
    /// Of a million of them so many are lost.
    pub loss_ppm: u64,
    /// The kinds of cuts that happen; none, none.
    pub cuts: Vec<Cut>,
    /// Time from the begin of a cut to its end, and to the next one, on average.
    pub interval: Duration,
    /// How the nodes are started.
    pub options: Options,
    /// The seed of everything drawn.
    pub seed: u64,
}

impl Default for Scenario {
    /// The published challenge: 25 nodes, 100 operations a second, 100 ms a hop.
    fn default() -> Self {
        Self {
            nodes: 25,
            rate: 100,
            length: Duration::from_secs(20),
            latency: Latency::Constant(Duration::from_millis(100)),
            loss_ppm: 0,
            cuts: Vec::new(),
            interval: Duration::from_secs(10),
            options: Options::default(),
            seed: 1,
        }
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nodes are told who they are.
    Begin,
    /// Operations and cuts.
    Busy,
    /// Everything is healed.
    Recovery,
    /// The final reads.
    End,
}

/// What happens when in a run, whatever the nodes are.
pub(super) struct Script {
    scenario: Scenario,
    names: Vec<String>,
    pub(super) network: Network,
    pub(super) clients: Clients,
    rng: Rng,
    phase: Phase,
    phase_ends: Time,
    next_operation: Time,
    next_cut: Time,
    cut: Option<(Cut, Time)>,
    pub(super) cuts: Vec<Healed>,
    complaints: Vec<String>,
}

impl Script {
    pub(super) fn new(scenario: &Scenario, now: Time) -> Self {
        let mut rng = Rng::new(scenario.seed);
        let names: Vec<String> = (0..scenario.nodes).map(|n| format!("n{n}")).collect();
        let network = Network::new(scenario.latency, scenario.loss_ppm, Rng::new(rng.bits()));
        let clients = Clients::new(names.clone(), scenario.rate, Rng::new(rng.bits()));
        let mut script = Self {
            scenario: scenario.clone(),
            names,
            network,
            clients,
            rng,
            phase: Phase::Begin,
            phase_ends: now + END_MAX,
            next_operation: now,
            next_cut: now,
            cut: None,
            cuts: Vec::new(),
            complaints: Vec::new(),
        };
        let questions = script.clients.begin(now);
        script.ask(now, questions);
        script
    }

    fn ask(&mut self, now: Time, questions: impl IntoIterator<Item = (usize, String)>) {
        for (to, text) in questions {
            self.network.send(now, Line { from: None, to, text });
        }
    }

    /// Whether it is over.
    pub(super) fn is_over(&self, now: Time) -> bool {
        self.phase == Phase::End && (self.clients.is_idle() || self.phase_ends <= now)
    }

    /// When something happens next, if no node says anything.
    pub(super) fn next(&self) -> Time {
        let mut next = self.phase_ends;
        if self.phase == Phase::Busy {
            next = next.min(self.next_operation);
            if !self.scenario.cuts.is_empty() {
                next = next.min(self.next_cut);
            }
        }
        self.network.next_arrival().map_or(next, |arrival| next.min(arrival))
    }

    /// What is due by now happens.
    pub(super) fn step(&mut self, now: Time) {
        self.clients.expire(now);
        match self.phase {
            Phase::Begin if self.clients.is_idle() => {
                self.phase = Phase::Busy;
                self.phase_ends = now + self.scenario.length;
                self.next_operation = now;
                self.next_cut = now + self.pause();
            }
            Phase::Busy if self.phase_ends <= now => {
                self.phase = Phase::Recovery;
                self.phase_ends = now + RECOVERY;
                self.heal(now);
            }
            Phase::Busy => self.busy(now),
            Phase::Recovery if self.phase_ends <= now => {
                self.phase = Phase::End;
                self.whole_until(now);
                self.phase_ends = now + END_MAX;
                let questions = self.clients.end(now);
                self.ask(now, questions);
            }
            Phase::Begin | Phase::Recovery | Phase::End => {}
        }
    }

    fn busy(&mut self, now: Time) {
        while self.next_operation <= now {
            let (question, pause) = self.clients.operate(now);
            self.ask(now, question);
            self.next_operation = self.next_operation + pause.max(Duration::from_micros(1));
        }
        if self.scenario.cuts.is_empty() || self.next_cut > now {
            return;
        }
        if self.cut.is_some() {
            self.heal(now);
        } else {
            let kinds = &self.scenario.cuts;
            let cut = kinds[self.rng.below(kinds.len() as u64) as usize];
            self.network.cut(cut.pairs(self.scenario.nodes, &mut self.rng));
            self.cut = Some((cut, now));
            self.whole_until(now);
        }
        self.next_cut = now + self.pause();
    }

    /// Up to twice the mean, like Jepsen's `stagger`.
    fn pause(&mut self) -> Duration {
        let micros = u64::try_from(self.scenario.interval.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.rng.below(micros.saturating_mul(2).saturating_add(1)))
    }

    fn heal(&mut self, now: Time) {
        self.network.cut(BTreeSet::new());
        if let Some((cut, began)) = self.cut.take() {
            let (whole, stable) = (Duration::ZERO, Duration::ZERO);
            self.cuts.push(Healed { cut, began, healed: now, whole, stable });
        }
    }

    fn whole_until(&mut self, now: Time) {
        if let Some(last) = self.cuts.last_mut() {
            last.whole = now.since(last.healed);
        }
    }

    /// A node said something.
    pub(super) fn said(&mut self, now: Time, node: usize, said: Said) {
        let text = match said {
            Said::Line(text) => text,
            Said::Complaint(what) => {
                self.complaints.push(format!("{} complains: {what}", self.names[node]));
                return;
            }
        };
        let message = match Message::parse(&text) {
            Ok(message) => message,
            Err(error) => {
                self.complaints.push(format!("{} said {error}", self.names[node]));
                return;
            }
        };
        if message.dest.starts_with('c') {
            self.network.answered();
            self.clients.answer(now, &message);
        } else if let Some(to) = self.names.iter().position(|name| *name == message.dest) {
            self.network.send(now, Line { from: Some(node), to, text });
        } else {
            self.complaints.push(format!("{} said to nobody: {text}", self.names[node]));
        }
    }

    /// What came of it, as far as the clients saw.
    pub(super) fn report(&self) -> Report {
        let mut cuts = self.cuts.clone();
        for cut in &mut cuts {
            let late = self.clients.fates().values().filter_map(|fate| {
                fate.known.filter(|known| *known <= cut.healed)?;
                Some(fate.absent?.since(cut.healed))
            });
            cut.stable = late.max().unwrap_or_default();
        }
        let mut report =
            Report::new(self.scenario.nodes, &self.clients, self.network.carried(), cuts);
        report.wrong.extend(self.complaints.iter().cloned());
        report
    }
}

/// Runs nodes of this process in virtual time: the same scenario goes the same way every time.
pub fn run(scenario: &Scenario) -> Report {
    let at = |time: Time| Now { time, wall_ms: EPOCH_MS + time.as_micros() / 1000 };
    let mut now = Time::default();
    let mut script = Script::new(scenario, now);
    let mut nodes: Vec<Node> = (0..scenario.nodes)
        .map(|n| Node::new(scenario.options, scenario.seed.wrapping_add(n as u64)))
        .collect();
    let mut shown = vec![0; nodes.len()];
    let mut on: BTreeMap<u64, (usize, Time)> = BTreeMap::new();
    while !script.is_over(now) {
        let timer = nodes.iter().filter_map(Node::next_deadline).min();
        now = now.max(timer.map_or(script.next(), |timer| timer.min(script.next())));
        script.step(now);
        let mut woken: BTreeSet<usize> = (0..nodes.len())
            .filter(|n| nodes[*n].next_deadline().is_some_and(|deadline| deadline <= now))
            .collect();
        while let Some(line) = script.network.arrive(now) {
            nodes[line.to].line(at(now), &line.text);
            woken.insert(line.to);
        }
        for n in woken {
            nodes[n].flush(at(now));
            while let Some(said) = nodes[n].poll() {
                script.said(now, n, said);
            }
            nodes[n].assert_invariants();
            for value in nodes[n].values()[shown[n]..].iter().filter_map(|value| value.as_u64()) {
                let (nodes, last) = on.entry(value).or_insert((0, now));
                (*nodes, *last) = (*nodes + 1, now);
            }
            shown[n] = nodes[n].values().len();
        }
    }
    let mut report = script.report();
    let everywhere = |value: &u64| {
        on.get(value).filter(|(nodes, _)| *nodes == scenario.nodes).map(|(_, last)| *last)
    };
    for (value, fate) in script.clients.fates() {
        let (Some(known), Some(last)) = (fate.known, everywhere(value)) else { continue };
        report.everywhere.push(last.since(known));
        for cut in report.cuts.iter_mut().filter(|cut| known <= cut.healed) {
            cut.stable = cut.stable.max(last.since(cut.healed));
        }
    }
    report.everywhere.sort_unstable();
    report
}
