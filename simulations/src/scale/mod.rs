//! What the broadcast costs with 3 to 1,000 servers, and what it holds in memory.
//!
//! The real core on a light virtual network; everything random comes from the seed, so a figure can be
//! had again. `docs/scale.md` is made of it by one command, and the gates of `scripts/test` hold some of
//! it to the formulas.
//!
//! - `graph.rs`: who is linked to whom
//! - `network.rs`: servers, links and disks, as light as can be
//! - `traffic.rs`, `spread.rs`: what travelled, and how events spread
//! - `memory.rs`: what whole servers hold while a million events pass
//! - `gates.rs`: what must not get worse
//! - `kept.rs`: results, kept as they come
//! - `page.rs`, `plot.rs`, `command.rs`: the page, its drawings, and the command that makes them

pub mod command;
pub mod gates;
pub mod graph;
pub mod kept;
pub mod memory;
mod network;
pub mod page;
mod plot;
mod spread;
pub mod traffic;

use std::time::Duration;

use chatty_core::config::{Feeds, Mesh, Start, Timing};
use chatty_core::rng::Rng;
use serde::{Deserialize, Serialize};

pub use network::TEXT_BYTES;
pub use spread::{Hops, Times};

use network::Network;
use spread::Spread;
use traffic::Traffic;

/// Servers of which each says something, at most: a tree costs the same whoever the others are.
pub const SPEAKERS_MAX: usize = 20;
/// How long a server that died stays away.
const AWAY: Duration = Duration::from_secs(5);
/// For so long nobody is told to stop pushing before it counts as settled.
const QUIET: Duration = Duration::from_secs(6);
/// How long that may take, in a mesh.
const SETTLE_MAX: Duration = Duration::from_secs(120);
/// The same over few links: there the last prunes wait for copies that seldom cross.
const SETTLE_FEW_LINKS_MAX: Duration = Duration::from_secs(30);
/// How long the last events may take to be everywhere.
const SPREAD_MAX: Duration = Duration::from_secs(60);

/// At least so many servers die while it is measured what that costs.
const DEATHS_MIN: u64 = 10;

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Servers.
    pub servers: usize,
    /// How many links push each log to a server.
    #[serde(with = "kept::feeds")]
    pub feeds: Feeds,
    /// Who pushes before anybody has asked for anything.
    #[serde(with = "kept::start")]
    pub start: Start,
    /// Servers that die in a minute, of a hundred; each comes back after 5 seconds.
    pub churn: u32,
    /// Time between two events of one speaker.
    #[serde(with = "kept::micros")]
    pub gap: Duration,
    /// How long is measured.
    #[serde(with = "kept::micros")]
    pub length: Duration,
    /// The seed.
    pub seed: u64,
}

impl Setting {
    /// Twenty speakers, each with an event a second, without faults.
    pub const fn calm(servers: usize, feeds: Feeds, start: Start, seed: u64) -> Self {
        let (gap, length) = (Duration::from_secs(1), Duration::from_secs(10));
        Self { servers, feeds, start, churn: 0, gap, length, seed }
    }

    /// The same while 10 % of the servers die every minute: long enough for `DEATHS_MIN` of them, and
    /// more of the large clusters.
    pub fn churned(servers: usize, feeds: Feeds, start: Start, seed: u64) -> Self {
        let length = Duration::from_secs((600 * DEATHS_MIN / servers as u64).max(30));
        Self { churn: 10, length, ..Self::calm(servers, feeds, start, seed) }
    }

    fn speakers(&self) -> usize {
        self.servers.min(SPEAKERS_MAX)
    }

    /// From one death to the next.
    fn deaths_apart(&self) -> Option<Duration> {
        let of_hundred_a_minute = self.servers as u64 * u64::from(self.churn);
        let apart = 60_000_000u64 * 100;
        apart.checked_div(of_hundred_a_minute).map(Duration::from_micros)
    }
}

/// What it cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// What was measured.
    pub setting: Setting,
    /// What travelled before it counted as settled, all of it.
    pub before: Traffic,
    /// What travelled while it was measured.
    pub traffic: Traffic,
    /// From being said to being on all disks.
    pub times: Times,
    /// Links that pushed events took to their first arrivals, on average and at most.
    pub hops: Hops,
    /// Servers that died meanwhile.
    pub died: u64,
    /// Events that died with their server.
    pub alone: u64,
    /// First copies that came because they were asked for, or were pushed on by who had asked.
    pub repaired: u64,
    /// Whether nobody told anybody to stop any more when the measuring began.
    pub settled: bool,
    /// Inputs of all cores together.
    pub steps: u64,
}

impl Cost {
    /// Of something, so much for each event said.
    pub fn per_event(&self, what: u64) -> f64 {
        what as f64 / self.traffic.said.max(1) as f64
    }
}

/// A run, between its steps.
struct Run<'a> {
    setting: &'a Setting,
    network: Network,
    rng: Rng,
    /// When each speaker says something next.
    next: Vec<chatty_core::time::Time>,
}

/// Measures a setting.
///
/// # Errors
/// An event did not get everywhere.
pub fn measure(setting: &Setting) -> Result<Cost, String> {
    measure_with(setting, Timing::default())
}

/// The same with other times.
///
/// # Errors
/// An event did not get everywhere.
pub fn measure_with(setting: &Setting, timing: Timing) -> Result<Cost, String> {
    let mut rng = Rng::new(setting.seed);
    let graph = graph::links(setting.servers, &mut rng);
    let mesh = Mesh { start: setting.start, ..Mesh::default() };
    let network = Network::new(graph, setting.feeds, mesh, timing, Rng::new(rng.bits()));
    let begin = network.now() + Duration::from_secs(1);
    let gap = micros(setting.gap);
    let next =
        (0..setting.speakers()).map(|_| begin + Duration::from_micros(rng.below(gap))).collect();
    let mut run = Run { setting, network, rng, next };
    let settled = run.settle();
    let before = std::mem::take(&mut run.network.traffic);
    let died = run.measured();
    let traffic = run.network.traffic;
    run.spread_out()?;
    let Spread { times, hops, repaired, alone, .. } = std::mem::take(&mut run.network.spread);
    Ok(Cost {
        setting: setting.clone(),
        before,
        traffic,
        times: Times::of(times),
        hops,
        died,
        alone,
        repaired,
        settled,
        steps: run.network.steps(),
    })
}

impl Run<'_> {
    /// Lets speakers speak until nobody is told to stop pushing any more; whether that came about.
    fn settle(&mut self) -> bool {
        let mesh = self.setting.servers <= graph::MESH_MAX;
        let end = self.network.now() + if mesh { SETTLE_MAX } else { SETTLE_FEW_LINKS_MAX };
        let mut quiet = Duration::ZERO;
        while quiet < QUIET && self.network.now() < end {
            let prunes = self.network.traffic.prunes.frames;
            let second = Duration::from_secs(1);
            self.talk(self.network.now() + second, false);
            let more = self.network.traffic.prunes.frames > prunes;
            quiet = if more { Duration::ZERO } else { quiet + second };
        }
        quiet >= QUIET
    }

    /// What is measured: speakers speak and servers die. How many died.
    fn measured(&mut self) -> u64 {
        let end = self.network.now() + self.setting.length;
        let apart = self.setting.deaths_apart();
        let mut death = apart.map(|apart| self.network.now() + apart / 2);
        let mut away: Vec<(chatty_core::time::Time, usize)> = Vec::new();
        let mut died = 0;
        loop {
            let back = away.first().map(|(at, _)| *at);
            let until = [Some(end), death, back].into_iter().flatten().min().unwrap_or(end);
            self.talk(until, true);
            if until == end {
                break;
            }
            if back == Some(until) {
                let (_, server) = away.remove(0);
                self.network.start(server);
                continue;
            }
            death = apart.map(|apart| until + apart);
            let up: Vec<usize> =
                (0..self.setting.servers).filter(|n| self.network.is_up(*n)).collect();
            if let Some(victim) = up.get(self.rng.below(up.len() as u64) as usize) {
                self.network.crash(*victim);
                away.push((until + AWAY, *victim));
                died += 1;
            }
        }
        for (_, server) in away {
            self.network.start(server);
        }
        died
    }

    fn talk(&mut self, until: chatty_core::time::Time, followed: bool) {
        loop {
            let next = self.next.iter().enumerate().min_by_key(|(_, at)| **at);
            let Some((speaker, at)) = next.map(|(n, at)| (n, *at)).filter(|(_, at)| *at < until)
            else {
                break;
            };
            self.network.run_until(at);
            self.network.say(speaker, followed);
            self.next[speaker] = at + self.setting.gap;
        }
        self.network.run_until(until);
    }

    /// Nobody says anything more; what was said gets everywhere.
    fn spread_out(&mut self) -> Result<(), String> {
        let end = self.network.now() + SPREAD_MAX;
        while self.network.spread.missing().is_some() && self.network.now() < end {
            self.network.run_until(self.network.now() + Duration::from_millis(100));
        }
        self.network.spread.missing().map_or(Ok(()), Err)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
