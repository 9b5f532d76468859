//! `docs/scale.md` and its drawings: what was measured, as tables, lines and a few words.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use chatty_core::config::{Feeds, Limits, Start};

use serde::{Deserialize, Serialize};

use super::command::Command;
use super::graph::MESH_MAX;
use super::kept::Kept;
use super::memory::Memory;
use super::plot::{Axis, Plot, Scale, Series};
use super::{Cost, Setting, Times};

/// How often it is looked how much servers hold.
const POINTS: u64 = 10;

/// At the usual rate every speaker says something each second.
const USUAL_GAP: Duration = Duration::from_secs(1);

/// The head of the table that is printed while it is measured.
pub const HEAD: &str = "\
| servers | feeds | begin | died | copies | `Have` frames | payload | `Have` | all bytes | hops | on all disks, ms | prunes | asked | at first |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|";

/// A line of it.
pub fn row(cost: &Cost) -> String {
    let traffic = &cost.traffic;
    format!(
        "| {} | {} | {:.2} | {:.1} | {:.0} | {:.0} | {:.0} | {:.2} / {} | {:.2} / {:.2} | {:.3} | {:.3} | {} |",
        setting(cost),
        cost.died,
        cost.per_event(traffic.copies),
        cost.per_event(traffic.have.frames),
        cost.per_event(traffic.events.bytes),
        cost.per_event(traffic.have.bytes),
        cost.per_event(traffic.all.bytes),
        cost.hops.mean(),
        cost.hops.most,
        ms(cost.times.median),
        ms(cost.times.most),
        cost.per_event(traffic.prunes.frames),
        cost.per_event(traffic.wants.frames),
        at_first(cost),
    )
}

fn setting(cost: &Cost) -> String {
    let begin = if cost.setting.start == Start::Pruned { "pruned" } else { "flooded" };
    format!("{} | {} | {begin}", cost.setting.servers, feeds_name(cost.setting.feeds))
}

/// Copies of an event while it settled, and prunes.
fn at_first(cost: &Cost) -> String {
    let copies = cost.before.copies as f64 / cost.before.said.max(1) as f64;
    let goes_on = if cost.settled { "" } else { ", more went on" };
    format!("{copies:.1}, {} prunes{goes_on}", cost.before.prunes.frames)
}

fn feeds_name(feeds: Feeds) -> String {
    match feeds {
        Feeds::All => "all".into(),
        Feeds::Some(n) => n.to_string(),
    }
}

/// How servers begin: by the plan, if there is one.
fn begins(servers: usize, feeds: Feeds) -> Start {
    if servers <= MESH_MAX && feeds != Feeds::All { Start::Pruned } else { Start::Flooded }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// What servers held while events passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    /// Servers.
    pub servers: usize,
    /// Events that were to pass.
    pub events: u64,
    /// Events so far, and bytes of the largest server then.
    pub points: Vec<(u64, usize)>,
}

impl Growth {
    /// Lets so many events pass.
    ///
    /// # Errors
    /// Something was refused or lost.
    pub fn measure(servers: usize, events: u64) -> Result<Self, String> {
        let mut memory = Memory::new(servers, Feeds::DEFAULT, Limits::default());
        let mut points = Vec::new();
        for nth in 0..=POINTS {
            memory.talk(events * nth / POINTS);
            memory.check()?;
            points.push((memory.said(), memory.sizes().into_iter().max().unwrap_or(0)));
        }
        Ok(Self { servers, events, points })
    }

    /// A line of it.
    pub fn line(&self) -> String {
        let megabytes =
            |(events, bytes): &(u64, usize)| format!("{events}: {:.2}", *bytes as f64 / 1e6);
        let points: Vec<String> = self.points.iter().map(megabytes).collect();
        format!("{} servers, MB a server after events: {}", self.servers, points.join(", "))
    }
}

/// The page, and everything that goes into it.
#[derive(Clone, Debug)]
pub struct Page<'a> {
    kept: &'a Kept,
    costs: &'a [Cost],
    growths: &'a [Growth],
}

impl<'a> Page<'a> {
    /// Of all that is kept.
    pub fn new(kept: &'a Kept) -> Self {
        Self { kept, costs: kept.costs(), growths: kept.growths() }
    }

    /// Writes the page and its drawings.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        for (name, content) in self.files() {
            fs::write(folder.join(name), content)?;
        }
        Ok(())
    }

    /// The files it is made of, and what is in them.
    pub fn files(&self) -> Vec<(String, String)> {
        let drawings = self.plots().into_iter();
        let mut files: Vec<(String, String)> =
            drawings.map(|(name, plot)| (format!("scale-{name}.svg"), plot.svg())).collect();
        files.push(("scale.md".into(), self.text()));
        files
    }

    fn text(&self) -> String {
        let mut text =
            format!("# Scale\n\nWhat the broadcast costs with {} servers. ", self.said_sizes());
        text.push_str(BEGIN);
        text.push_str(&self.missing());
        self.calm(&mut text);
        self.dying(&mut text);
        self.rates(&mut text);
        self.memory(&mut text);
        text
    }

    /// What the command without options would still measure.
    fn missing(&self) -> String {
        let whole = Command::whole();
        let mut runs: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        for setting in whole.settings() {
            let (missing, all) = runs.entry(setting.servers).or_default();
            *missing += usize::from(self.kept.cost(&setting).is_none());
            *all += 1;
        }
        let runs = runs.into_iter().filter(|(_, (missing, _))| *missing > 0);
        let runs =
            runs.map(|(n, (missing, all))| format!("{missing} of {all} runs of {n} servers"));
        let memory = whole.growths().filter(|(n, events)| self.kept.growth(*n, *events).is_none());
        let memory =
            memory.map(|(n, events)| format!("the memory of {n} servers at {events} events"));
        match runs.chain(memory).collect::<Vec<_>>() {
            missing if missing.is_empty() => String::new(),
            missing => {
                format!(
                    "**Not measured yet**: {}. The command goes on there.\n\n",
                    missing.join(", ")
                )
            }
        }
    }

    fn said_sizes(&self) -> String {
        let sizes: Vec<String> = self.sizes().marks.iter().map(f64::to_string).collect();
        match sizes.split_last() {
            Some((last, others)) if !others.is_empty() => {
                format!("{} and {last}", others.join(", "))
            }
            _ => sizes.concat(),
        }
    }

    /// Without faults, at the usual rate.
    fn at_rest(&self) -> impl Iterator<Item = &Cost> {
        self.costs.iter().filter(|cost| cost.setting.churn == 0 && cost.setting.gap == USUAL_GAP)
    }

    fn calm(&self, text: &mut String) {
        text.push_str(CALM);
        text.push_str(
            "| servers | feeds | begin | events | copies | `Have` frames | payload | `Have` | all bytes | hops, mean / most | on all disks after, median / most | at first: copies, prunes in all |\n\
             |---|---|---|---|---|---|---|---|---|---|---|---|\n",
        );
        for cost in self.at_rest() {
            let traffic = &cost.traffic;
            let _ = writeln!(
                text,
                "| {} | {} | {:.2} | {:.1} | {:.0} | {:.0} | {:.0} | {:.2} / {} | {:.2} / {:.2} ms | {} |",
                setting(cost),
                traffic.said,
                cost.per_event(traffic.copies),
                cost.per_event(traffic.have.frames),
                cost.per_event(traffic.events.bytes),
                cost.per_event(traffic.have.bytes),
                cost.per_event(traffic.all.bytes),
                cost.hops.mean(),
                cost.hops.most,
                ms(cost.times.median),
                ms(cost.times.most),
                at_first(cost),
            );
        }
        let asked: u64 =
            self.at_rest().map(|c| c.before.wants.frames + c.traffic.wants.frames).sum();
        let asked = if asked == 0 { "nothing".into() } else { format!("{asked} times something") };
        text.push_str(&AFTER_CALM.replace("ASKED", &asked));
    }

    fn dying(&self, text: &mut String) {
        text.push_str(DYING);
        text.push_str(
            "| servers | feeds | begin | died | events | copies | prunes | asked for | came of asking | all bytes | hops, mean / most | on all disks after, median / 99 % / most | died with their server |\n\
             |---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
        );
        for cost in self.costs.iter().filter(|cost| cost.setting.churn > 0) {
            let traffic = &cost.traffic;
            let _ = writeln!(
                text,
                "| {} | {} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} | {:.2} / {} | {:.2} / {:.1} / {:.0} ms | {} |",
                setting(cost),
                cost.died,
                traffic.said,
                cost.per_event(traffic.copies),
                cost.per_event(traffic.prunes.frames),
                cost.per_event(traffic.wants.frames),
                cost.per_event(cost.repaired),
                cost.per_event(traffic.all.bytes),
                cost.hops.mean(),
                cost.hops.most,
                ms(cost.times.median),
                ms(cost.times.ninety_nine),
                ms(cost.times.most),
                cost.alone,
            );
        }
        text.push_str(AFTER_DYING);
    }

    fn rates(&self, text: &mut String) {
        text.push_str(RATES);
        text.push_str(
            "| servers | events a second | events | copies | `Have` frames | payload | `Have` | part of `Have` in all bytes |\n\
             |---|---|---|---|---|---|---|---|\n",
        );
        let busy = |cost: &&Cost| cost.setting.gap != USUAL_GAP;
        let sizes: BTreeSet<usize> =
            self.costs.iter().filter(busy).map(|cost| cost.setting.servers).collect();
        let usual = |cost: &&Cost| {
            let Setting { servers, feeds, start, churn, .. } = cost.setting;
            let begins = begins(servers, Feeds::DEFAULT);
            sizes.contains(&servers) && (feeds, start, churn) == (Feeds::DEFAULT, begins, 0)
        };
        for cost in self.costs.iter().filter(usual) {
            let traffic = &cost.traffic;
            let _ = writeln!(
                text,
                "| {} | {:.0} | {} | {:.2} | {:.1} | {:.0} | {:.0} | {:.0} % |",
                cost.setting.servers,
                traffic.said as f64 / cost.setting.length.as_secs_f64(),
                traffic.said,
                cost.per_event(traffic.copies),
                cost.per_event(traffic.have.frames),
                cost.per_event(traffic.events.bytes),
                cost.per_event(traffic.have.bytes),
                100.0 * traffic.have.bytes as f64 / traffic.all.bytes.max(1) as f64,
            );
        }
        text.push_str(AFTER_RATES);
    }

    fn memory(&self, text: &mut String) {
        text.push_str(MEMORY);
        let names: Vec<String> =
            self.growths.iter().map(|growth| format!("{} servers", growth.servers)).collect();
        let _ = writeln!(text, "| after events | {} |", names.join(" | "));
        let _ = writeln!(text, "|---|{}", "---|".repeat(names.len()));
        let rows = self.growths.iter().map(|growth| growth.points.len()).max().unwrap_or(0);
        for nth in 0..rows {
            let points: Vec<_> = self.growths.iter().map(|growth| growth.points.get(nth)).collect();
            let events = points.iter().flatten().map(|point| point.0).max().unwrap_or(0);
            let held = |point: &Option<&(u64, usize)>| {
                point.map_or_else(String::new, |(_, bytes)| format!("{:.2}", *bytes as f64 / 1e6))
            };
            let held: Vec<String> = points.iter().map(held).collect();
            let _ = writeln!(text, "| {events} | {} |", held.join(" | "));
        }
        text.push_str(AFTER_MEMORY);
    }

    /// The drawings, by name.
    fn plots(&self) -> Vec<(&'static str, Plot)> {
        vec![
            ("copies", self.copies()),
            ("bytes", self.bytes()),
            ("time", self.time()),
            ("memory", self.held()),
        ]
    }

    /// A value of each size, of servers that begin as servers do.
    fn by_size(&self, feeds: &str, dying: bool, value: impl Fn(&Cost) -> f64) -> Vec<(f64, f64)> {
        let wanted = |cost: &&Cost| {
            let setting = &cost.setting;
            feeds_name(setting.feeds) == feeds
                && (setting.churn > 0) == dying
                && setting.gap == USUAL_GAP
                && setting.start == begins(setting.servers, setting.feeds)
        };
        let point = |cost: &Cost| (cost.setting.servers as f64, value(cost));
        self.costs.iter().filter(wanted).map(point).collect()
    }

    fn sizes(&self) -> Axis {
        let mut marks: Vec<f64> = self.costs.iter().map(|c| c.setting.servers as f64).collect();
        marks.sort_by(f64::total_cmp);
        marks.dedup();
        Axis { title: "servers".into(), scale: Scale::Logarithmic, marks }
    }

    fn copies(&self) -> Plot {
        let copies = |cost: &Cost| cost.per_event(cost.traffic.copies);
        let mut series: Vec<Series> = ["all", "2", "1"]
            .into_iter()
            .map(|feeds| line(&format!("feeds {feeds}"), self.by_size(feeds, false, copies)))
            .collect();
        let least = self.sizes().marks.into_iter().map(|n| (n, n - 1.0)).collect();
        series.push(Series { name: "N-1".into(), points: least, dashed: true });
        Plot {
            title: "Copies of an event".into(),
            x: self.sizes(),
            y: logarithmic("copies"),
            series,
        }
    }

    fn bytes(&self) -> Plot {
        let of =
            |value: fn(&Cost) -> u64| self.by_size("2", false, |cost| cost.per_event(value(cost)));
        Plot {
            title: "Bytes between servers for an event, feeds 2".into(),
            x: self.sizes(),
            y: logarithmic("bytes"),
            series: vec![
                line("all", of(|cost| cost.traffic.all.bytes)),
                line("payload", of(|cost| cost.traffic.events.bytes)),
                line("Have", of(|cost| cost.traffic.have.bytes)),
            ],
        }
    }

    fn time(&self) -> Plot {
        let at = |dying: bool, time: fn(&Times) -> Duration| {
            self.by_size("2", dying, |cost| ms(time(&cost.times)))
        };
        Plot {
            title: "From being said to being on all disks, feeds 2".into(),
            x: self.sizes(),
            y: logarithmic("milliseconds"),
            series: vec![
                line("calm, median", at(false, |times| times.median)),
                line("calm, most", at(false, |times| times.most)),
                line("dying, median", at(true, |times| times.median)),
                line("dying, 99 %", at(true, |times| times.ninety_nine)),
                line("dying, most", at(true, |times| times.most)),
            ],
        }
    }

    fn held(&self) -> Plot {
        let points = |growth: &Growth| {
            growth.points.iter().map(|(n, bytes)| (*n as f64, *bytes as f64 / 1e6)).collect()
        };
        let series =
            self.growths.iter().map(|g| line(&format!("{} servers", g.servers), points(g)));
        let axis =
            |title: &str| Axis { title: title.into(), scale: Scale::Linear, marks: Vec::new() };
        Plot {
            title: "What one server holds in memory".into(),
            x: axis("events"),
            y: axis("MB"),
            series: series.collect(),
        }
    }
}

fn line(name: &str, points: Vec<(f64, f64)>) -> Series {
    Series { name: name.into(), points, dashed: false }
}

fn logarithmic(title: &str) -> Axis {
    Axis { title: title.into(), scale: Scale::Logarithmic, marks: Vec::new() }
}

const BEGIN: &str = "\
`scripts/scale` measures all of it and writes this page
and its drawings; `cargo run --release -p chatty-simulations -- scale --help` says how to measure a part.

The real core of every server (`crates/core/src/broadcast`) runs on a light virtual network
(`simulations/src/scale`): a link takes 0.2 to 1 ms and up to 0.3 ms of jitter, an fsync 0.1 to 0.3 ms, bytes
are those of the encoded frames. Time is virtual, so all figures repeat exactly. Up to 64 servers are
linked each to each; larger clusters are random graphs of 8 links a server, which exist in the simulator
only. Twenty servers (all, if there are fewer) say a message of 128 bytes each second. Left out are QUIC's
own overhead, clients, and pings: a ping and its answer, 19 bytes each, every 500 ms from both ends of
each link, whatever is said.

";

const CALM: &str = "\
## What an event costs without faults

Everything is for one event, on all links together. *Payload* are the bytes of pushed events, `Have` those of
announcements. *At first* is the time until no server has told another to stop pushing for 6 seconds.
*Pruned* begins by a plan that both ends of a link know (servers do so), *flooded* with everybody pushing
everything to everybody.

";

const AFTER_CALM: &str = "
![Copies of an event](scale-copies.svg)

![Bytes of an event](scale-bytes.svg)

Without a fault ASKED was asked for in these runs. One feed costs the N-1 copies that are the least
possible, two at most twice that, all at most (N-1)² in a mesh. `scripts/test` holds the meshes of 3, 5
and 25 to it (`chatty-simulations gates`).

Over few links a flood is N(d-1)+1 copies with d links a server, and hops grow with the logarithm of N. Two
feeds take long to settle there: a copy too many is one that crosses another on a link, and that is
seldom.

Announcements cost more bytes than the payload in meshes where each log says little: each of N servers tells
each of its links of each event, in 30 bytes. That is N(N-1) prefixes an event in a mesh, and with 50
servers several times the payload; over 8 links it is 8 N, about as much as the payload of a tree. They are
the acknowledgements, the repair and the proof of what every disk holds, so they are not left out. When more
is said, one announcement covers more of it (see below).

";

const DYING: &str = "\
## While servers die

Each minute 10 % of the servers die, noticed by the others within half a second, and come back after 5
seconds as new runs with their disks. Small clusters run until ten have died. *On all disks* counts the
servers that were there when it was said and stayed; an event that its server took with it before it
reached another one is counted in the last column.

";

const AFTER_DYING: &str = "
![From being said to being on all disks](scale-time.svg)

Nothing that another server had was lost in any of these runs. The last events come late because they wait
for an announcement and its time-out (100 and 50 ms, and a round trip), or for a death to be noticed.

A new run is a new log. Where it begins flooded, its first two events go over every link, and each receiver
tells all links but its feeds to stop; and whoever comes back is pushed every log by everybody and pushes
every log to everybody until it is told. That makes most prunes. In a mesh that begins by the plan both
ends know beforehand who pushes what, and what is left are the feeds that took the place of the dead.
In the larger graphs there is no plan: who comes back costs some two prunes for each of its links and each
log in which something is said. Here 20 servers speak; a thousand would make that 16,000 prunes of 30
bytes, each for one log, which is the first thing to mend before graphs of this size leave the simulator.

";

const RATES: &str = "\
## When more is said

Feeds 2; meshes begin pruned. On each link, one announcement tells of all that half a tenth of a second or
more brought, so from some 20 events a second in each log on `Have` costs the less the more is said.

";

const AFTER_RATES: &str = "
A link carries at most 20 announcements a second, beside one for each event to its own server, so all
announcements of a mesh have a ceiling, however much is said: 20 N(N-1) times the logs in which something is
said, 30 bytes each. With 50 servers that all speak it is 74 MB a second, 1.5 MB for each server, and it
grows with the cube of N.

";

const MEMORY: &str = "\
## Memory

Whole servers this time (`chatty_core::replica`: broadcast, rooms, sessions), linked each to each, with a
person at each who is in one room; all of them talk. What a server holds is the number of bytes that the
`Hash` of its state goes through: it is derived for all of it, so no map or queue can be forgotten, and what
two servers share in this process counts in both. What an allocator adds is not in it, nor is a disk.

";

const AFTER_MEMORY: &str = "
![What one server holds in memory](scale-memory.svg)

Once the bounds are full (4,096 events of each log, the newest 16,384 lines, 262,144 message ids) nothing
grows any more: memory goes with the bounds and with how many servers there are, not with what was said.
`scripts/test` holds clusters of 3 and 12 to that.
";
