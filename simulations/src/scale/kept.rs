//! Results that are kept: one line for each, written as soon as it is there, so that a command that is
//! killed goes on where it was, and the page can be written again without measuring anything.
//!
//! All of it is virtual and repeats exactly, so a result is as good later as when it was measured, as long
//! as the core and the network around it are the same. Whether they are is asked of themselves: small
//! [`Fingerprints`] are measured at each start, and what others left is not used.

use std::fs;
use std::io::{self, Write as _};
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chatty_core::config::{Feeds, Limits, Start};
use serde::{Deserialize, Serialize};

use super::memory::Memory;
use super::page::Growth;
use super::{Cost, Setting, measure};

/// The file, beside the page.
pub const FILE: &str = "scale.jsonl";

/// A line of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// Of what measured all that follows.
    Fingerprints(Fingerprints),
    Cost(Cost),
    Growth(Growth),
}

/// What a mesh, a graph of few links and whole servers do, in short: some deaths in each network, some
/// talk in the servers. Other code gives others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprints {
    /// Of what [`Cost`]s come of.
    network: String,
    /// Of what [`Growth`]s come of.
    servers: String,
}

/// Everything that was measured so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    fingerprints: Fingerprints,
    costs: Vec<Cost>,
    growths: Vec<Growth>,
}

impl Kept {
    /// Only what came of the same code as these.
    #[must_use]
    pub fn of(mut self, fingerprints: Fingerprints) -> Self {
        if self.fingerprints.network != fingerprints.network {
            self.costs.clear();
        }
        if self.fingerprints.servers != fingerprints.servers {
            self.growths.clear();
        }
        Self { fingerprints, ..self }
    }

    /// What that folder has.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(folder: &Path) -> io::Result<Self> {
        let mut kept = Self::default();
        for line in fs::read_to_string(folder.join(FILE))?.lines() {
            match serde_json::from_str(line)? {
                Line::Fingerprints(fingerprints) => kept.fingerprints = fingerprints,
                Line::Cost(cost) => kept.costs.push(cost),
                Line::Growth(growth) => kept.growths.push(growth),
            }
        }
        Ok(kept)
    }

    /// Puts it there, at once or not at all.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let costs = self.costs.iter().cloned().map(Line::Cost);
        let growths = self.growths.iter().cloned().map(Line::Growth);
        let mut text = Vec::new();
        let first = Line::Fingerprints(self.fingerprints.clone());
        for line in [first].into_iter().chain(costs).chain(growths) {
            serde_json::to_writer(&mut text, &line)?;
            text.push(b'\n');
        }
        let half: PathBuf = folder.join(format!("{FILE}.half"));
        let mut file = fs::File::create(&half)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(half, folder.join(FILE))
    }

    /// What was measured of that.
    pub fn cost(&self, setting: &Setting) -> Option<&Cost> {
        self.costs.iter().find(|cost| cost.setting == *setting)
    }

    /// How memory grew with so many servers and events.
    pub fn growth(&self, servers: usize, events: u64) -> Option<&Growth> {
        self.growths.iter().find(|growth| (growth.servers, growth.events) == (servers, events))
    }

    /// A result more; the order is that of the page.
    pub fn add_cost(&mut self, cost: Cost) {
        self.costs.retain(|other| other.setting != cost.setting);
        self.costs.push(cost);
        self.costs.sort_by_key(|cost| order(&cost.setting));
    }

    /// A result more.
    pub fn add_growth(&mut self, growth: Growth) {
        self.growths.retain(|other| other.servers != growth.servers);
        self.growths.push(growth);
        self.growths.sort_by_key(|growth| growth.servers);
    }

    /// All costs, as they stand on the page.
    pub fn costs(&self) -> &[Cost] {
        &self.costs
    }

    /// How memory grew.
    pub fn growths(&self) -> &[Growth] {
        &self.growths
    }
}

fn order(setting: &Setting) -> impl Ord + use<> {
    let feeds = std::cmp::Reverse(setting.feeds.max());
    let start = setting.start == Start::Pruned;
    (setting.servers, feeds, start, setting.churn, std::cmp::Reverse(setting.gap), setting.seed)
}

impl Fingerprints {
    /// Of this code.
    ///
    /// # Errors
    /// It does not even do so little.
    pub fn measure() -> Result<Self, String> {
        let one = Feeds::Some(NonZeroU8::MIN);
        let (seconds, gap) = (Duration::from_secs, Duration::from_secs(10));
        let mesh = Setting::calm(5, Feeds::DEFAULT, Start::Pruned, 1);
        let mesh = Setting { churn: 800, length: seconds(8), ..mesh };
        let graph = Setting::calm(66, one, Start::Flooded, 1);
        let graph = Setting { churn: 60, length: seconds(8), gap, ..graph };
        let mut memory = Memory::new(3, Feeds::DEFAULT, Limits::default());
        memory.talk(500);
        Ok(Self {
            network: hash(&format!("{:?} {:?}", measure(&mesh)?, measure(&graph)?)),
            servers: hash(&format!("{:?}", memory.sizes())),
        })
    }
}

/// FNV-1a: nobody forges it.
fn hash(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// Feeds as a number; 0 is all.
pub(super) mod feeds {
    use super::{Feeds, NonZeroU8};
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it so")]
    pub fn serialize<S: Serializer>(feeds: &Feeds, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u8(match feeds {
            Feeds::All => 0,
            Feeds::Some(n) => n.get(),
        })
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Feeds, D::Error> {
        Ok(NonZeroU8::new(u8::deserialize(from)?).map_or(Feeds::All, Feeds::Some))
    }
}

/// How they begin, in a word.
pub(super) mod start {
    use super::Start;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it so")]
    pub fn serialize<S: Serializer>(start: &Start, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(match start {
            Start::Flooded => "flooded",
            Start::Pruned => "pruned",
        })
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Start, D::Error> {
        match String::deserialize(from)?.as_str() {
            "flooded" => Ok(Start::Flooded),
            "pruned" => Ok(Start::Pruned),
            other => Err(D::Error::custom(format!("nothing begins {other}"))),
        }
    }
}

/// A time as microseconds.
pub(super) mod micros {
    use super::Duration;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(super::super::micros(*time))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(servers: usize, feeds: Feeds, churn: u32) -> Cost {
        let calm = Setting::calm(servers, feeds, Start::Flooded, 1);
        let length = Duration::from_secs(1);
        measure(&Setting { churn, length, ..calm }).unwrap()
    }

    fn prints(network: &str, servers: &str) -> Fingerprints {
        Fingerprints { network: network.into(), servers: servers.into() }
    }

    fn folder(name: &str) -> PathBuf {
        let folder =
            std::env::temp_dir().join(format!("chatty-kept-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let folder = folder("again");
        let mut kept = Kept::default().of(prints("abc", "def"));
        kept.add_cost(cost(3, Feeds::DEFAULT, 0));
        kept.add_cost(cost(3, Feeds::All, 3000));
        kept.add_growth(Growth { servers: 3, events: 10, points: vec![(0, 1), (10, 2)] });
        kept.write(&folder).unwrap();
        let read = Kept::read(&folder).unwrap();
        assert_eq!(read, kept);
        assert_eq!(read.cost(&kept.costs()[1].setting), Some(&kept.costs()[1]));
        assert!(read.growth(3, 10).is_some() && read.growth(3, 11).is_none());
        fs::remove_dir_all(folder).unwrap();
        // Of other code nothing is taken.
        let other = |network, servers| {
            let kept = kept.clone().of(prints(network, servers));
            (kept.costs().len(), kept.growths().len())
        };
        assert_eq!(other("abc", "def"), (2, 1));
        assert_eq!(other("abx", "def"), (0, 1));
        assert_eq!(other("abc", "dex"), (2, 0));
    }

    #[test]
    fn results_stand_by_size_and_feeds_whenever_they_came_and_the_newest_counts() {
        let mut kept = Kept::default();
        let one = Feeds::Some(NonZeroU8::MIN);
        for (servers, feeds) in [(4, one), (3, one), (4, Feeds::All), (3, Feeds::All), (4, one)] {
            kept.add_cost(cost(servers, feeds, 0));
        }
        let stand: Vec<_> =
            kept.costs().iter().map(|c| (c.setting.servers, c.setting.feeds)).collect();
        assert_eq!(stand, [(3, Feeds::All), (3, one), (4, Feeds::All), (4, one)]);
    }

    #[test]
    fn fingerprints_are_the_same_each_time() {
        let prints = Fingerprints::measure().unwrap();
        assert_eq!(prints, Fingerprints::measure().unwrap());
        assert_ne!(prints.network, prints.servers);
    }
}
