//! A schedule as a file: TOML, a line for each thing that happens, times in seconds since all
//! clients were in their rooms.

use std::fmt::Write as _;
use std::num::NonZeroU8;
use std::time::Duration;

use chatty_core::config::{Feeds, Limits, Mesh, Start};
use chatty_core::event::Retention;
use chatty_core::session::Level;
use serde::Deserialize;

use super::{Act, Does, Entry, Planned, Plant, Redraws, Schedule, Strike};
use crate::faults::{BOUNDS, Fault, Swarm};

/// The format written; others are refused.
const FORMAT: u32 = 1;

/// A schedule with what is to come of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// What happens.
    pub schedule: Schedule,
    /// What is or once was wrong, for a person.
    pub why: String,
    /// The kind of failure it must end in; `None`: it must keep all rules.
    pub fails: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    why: String,
    fails: Option<String>,
    luck: u64,
    plant: Option<String>,
    world: World,
    #[serde(default)]
    bounds: std::collections::BTreeMap<String, usize>,
    #[serde(default)]
    happens: Vec<Line>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct World {
    servers: usize,
    clients: usize,
    rooms: usize,
    turmoil: f64,
    delay: [u64; 2],
    unlike: u8,
    clocks_ms: u64,
    fsync: [u64; 2],
    feeds: u8,
    start: String,
    keep_ms: u64,
    keep_messages: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    at: f64,
    fault: Option<String>,
    server: Option<usize>,
    other: Option<usize>,
    client: Option<usize>,
    long: Option<f64>,
    hard: Option<u8>,
    luck: Option<u64>,
    does: Option<String>,
    room: Option<usize>,
    to: Option<usize>,
    number: Option<u64>,
    level: Option<String>,
}

impl Written {
    /// As a file.
    pub fn write(&self) -> String {
        let Schedule { swarm, luck, entries, plant, .. } = &self.schedule;
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write_head(&mut out, swarm, *luck, *plant);
        for entry in entries {
            let _ = write_entry(&mut out, entry);
        }
        out.push_str("]\n");
        out
    }

    fn write_head(
        &self,
        out: &mut String,
        swarm: &Swarm,
        luck: u64,
        plant: Option<Plant>,
    ) -> std::fmt::Result {
        writeln!(out, "# A run of the simulator. Replay it: chatty-simulations replay FILE")?;
        writeln!(out, "# Times are seconds since all clients were in their rooms.")?;
        writeln!(out, "format = {FORMAT}")?;
        writeln!(out, "why = {}", toml::Value::from(self.why.as_str()))?;
        if let Some(fails) = &self.fails {
            writeln!(out, "fails = {}", toml::Value::from(fails.as_str()))?;
        }
        writeln!(out, "luck = {luck}")?;
        match plant {
            Some(Plant::LyingDisk) => writeln!(out, "plant = \"lying-disk\"")?,
            None => {}
        }

        writeln!(out)?;
        let feeds = match swarm.feeds {
            Feeds::All => 0,
            Feeds::Some(n) => n.get(),
        };
        let start = match swarm.mesh.start {
            Start::Flooded => "flooded",
            Start::Pruned => "pruned",
        };
        writeln!(out, "world.servers = {}", swarm.servers)?;
        writeln!(out, "world.clients = {}", swarm.clients)?;
        writeln!(out, "world.rooms = {}", swarm.rooms)?;
        writeln!(out, "world.turmoil = {:.6}", swarm.turmoil.as_secs_f64())?;
        let (least, jitter) = swarm.delay_micros;
        writeln!(out, "world.delay = [{least}, {jitter}] # microseconds: at least, and jitter")?;
        writeln!(out, "world.unlike = {} # ways take up to so many times longer", swarm.unlike)?;
        writeln!(out, "world.clocks_ms = {}", swarm.clocks_ms)?;
        writeln!(out, "world.fsync = [{}, {}]", swarm.fsync_micros.0, swarm.fsync_micros.1)?;
        writeln!(out, "world.feeds = {feeds} # 0: all")?;
        writeln!(out, "world.start = \"{start}\"")?;
        writeln!(out, "world.keep_ms = {}", swarm.retention.age_ms)?;
        writeln!(out, "world.keep_messages = {}", swarm.retention.messages)?;
        let (mut drawn, mut usual) = (swarm.limits.clone(), Limits::default());
        for (name, of) in BOUNDS {
            if of(&mut drawn) != of(&mut usual) {
                writeln!(out, "bounds.{name} = {}", of(&mut drawn))?;
            }
        }
        writeln!(out, "\nhappens = [")
    }

    /// From a file.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        if file.format != FORMAT {
            return Err(format!("format {} is not known here; {FORMAT} is", file.format));
        }
        let plant = match file.plant.as_deref() {
            None => None,
            Some("lying-disk") => Some(Plant::LyingDisk),
            Some(other) => return Err(format!("there is no plant {other:?}")),
        };
        let mut swarm = file.world.swarm()?;
        for (name, bound) in &file.bounds {
            let Some((_, of)) = BOUNDS.iter().find(|(known, _)| known == name) else {
                return Err(format!("there is no bound {name:?}"));
            };
            *of(&mut swarm.limits) = *bound;
        }
        let entries: Vec<Entry> =
            file.happens.iter().map(|line| line.entry(&swarm)).collect::<Result<_, _>>()?;
        let acts = |entry: &&Entry| matches!(entry.what, Planned::Act(_));
        swarm.messages = entries.iter().filter(acts).count();
        swarm.strikes = entries.len() - swarm.messages;
        for entry in &entries {
            if let Planned::Strike(strike) = &entry.what
                && !swarm.faults.iter().any(|(fault, _)| *fault == strike.fault)
            {
                swarm.faults.push((strike.fault, strike.hard));
            }
        }
        let redraws = Redraws::Never;
        let schedule = Schedule { swarm, luck: file.luck, entries, redraws, plant };
        Ok(Self { schedule, why: file.why, fails: file.fails })
    }
}

impl World {
    fn swarm(&self) -> Result<Swarm, String> {
        let (servers, clients) = (self.servers, self.clients);
        if !(2..=7).contains(&servers) || !(1..=16).contains(&clients) || self.rooms == 0 {
            return Err("2 to 7 servers, 1 to 16 clients and a room at least".into());
        }
        let start = match self.start.as_str() {
            "flooded" => Start::Flooded,
            "pruned" => Start::Pruned,
            other => return Err(format!("there is no start {other:?}")),
        };
        Ok(Swarm {
            rooms: self.rooms,
            turmoil: seconds(self.turmoil)?,
            delay_micros: (self.delay[0], self.delay[1]),
            unlike: self.unlike.max(1),
            clocks_ms: self.clocks_ms,
            fsync_micros: (self.fsync[0], self.fsync[1]),
            feeds: NonZeroU8::new(self.feeds).map_or(Feeds::All, Feeds::Some),
            mesh: Mesh { start, ..Mesh::default() },
            retention: Retention { age_ms: self.keep_ms, messages: self.keep_messages },
            ..Swarm::calm(servers, clients)
        })
    }
}

fn seconds(value: f64) -> Result<Duration, String> {
    // To the microsecond: what was written is read again as it was.
    let whole = Duration::try_from_secs_f64(value).map_err(|error| format!("{value}: {error}"))?;
    let micros = (whole.as_nanos() + 500) / 1000;
    Ok(Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)))
}

const fn level(level: Level) -> &'static str {
    match level {
        Level::Stored => "stored",
        Level::Replicated => "replicated",
    }
}

fn write_entry(out: &mut String, entry: &Entry) -> std::fmt::Result {
    write!(out, "  {{ at = {:.6}, ", entry.at.as_secs_f64())?;
    match &entry.what {
        Planned::Strike(strike) => {
            let Strike { fault, server, other, client, long, hard, luck } = strike;
            write!(
                out,
                "fault = \"{}\", server = {server}, other = {other}, client = {client}, \
                 long = {:.6}, hard = {hard}, luck = {luck}",
                fault.name(),
                long.as_secs_f64()
            )?;
        }
        Planned::Act(Act { client, does }) => {
            write!(out, "client = {client}, ")?;
            match does {
                Does::Says { room, level: at, length } => write!(
                    out,
                    "does = \"says\", room = {room}, number = {length}, level = \"{}\"",
                    level(*at)
                ),
                Does::Tells { client, level: at, length } => write!(
                    out,
                    "does = \"tells\", to = {client}, number = {length}, level = \"{}\"",
                    level(*at)
                ),
                Does::Reads { room, lines } => {
                    write!(out, "does = \"reads\", room = {room}, number = {lines}")
                }
                Does::Renames(name) => write!(out, "does = \"renames\", number = {name}"),
                Does::Topic(topic) => write!(out, "does = \"topic\", number = {topic}"),
                Does::Kicks(client) => write!(out, "does = \"kicks\", to = {client}"),
                Does::Enters => write!(out, "does = \"enters\""),
                Does::Calls { level: at, length } => {
                    write!(out, "does = \"calls\", number = {length}, level = \"{}\"", level(*at))
                }
                Does::Looks(lines) => write!(out, "does = \"looks\", number = {lines}"),
            }?;
        }
    }
    writeln!(out, " }},")
}

impl Line {
    fn entry(&self, swarm: &Swarm) -> Result<Entry, String> {
        let what = match (&self.fault, &self.does) {
            (Some(fault), None) => Planned::Strike(self.strike(fault, swarm)?),
            (None, Some(does)) => Planned::Act(self.act(does, swarm)?),
            _ => return Err(format!("at {}: either a fault, or something that is done", self.at)),
        };
        Ok(Entry { at: seconds(self.at)?, what })
    }

    fn named(&self, what: Option<usize>, name: &str, all: usize) -> Result<usize, String> {
        match what {
            Some(n) if n < all => Ok(n),
            Some(n) => Err(format!("at {}: there is no {name} {n}", self.at)),
            None => Err(format!("at {}: which {name}?", self.at)),
        }
    }

    fn strike(&self, fault: &str, swarm: &Swarm) -> Result<Strike, String> {
        let known = Fault::by_name(fault);
        let fault = known.ok_or_else(|| format!("at {}: there is no fault {fault:?}", self.at))?;
        let server = self.named(self.server, "server", swarm.servers)?;
        let other = self.named(self.other, "server", swarm.servers)?;
        if server == other {
            return Err(format!("at {}: a server and itself", self.at));
        }
        Ok(Strike {
            fault,
            server,
            other,
            client: self.named(self.client, "client", swarm.clients)?,
            long: seconds(self.long.unwrap_or(1.0))?,
            hard: self.hard.unwrap_or(50).clamp(1, 100),
            luck: self.luck.unwrap_or(0),
        })
    }

    fn act(&self, does: &str, swarm: &Swarm) -> Result<Act, String> {
        let number = self.number.unwrap_or(0);
        let length = usize::try_from(number).unwrap_or(usize::MAX).min(1000);
        let room = || self.named(self.room, "room", swarm.rooms);
        let to = || self.named(self.to, "client", swarm.clients);
        let level = match self.level.as_deref() {
            None | Some("replicated") => Level::Replicated,
            Some("stored") => Level::Stored,
            Some(other) => return Err(format!("at {}: there is no level {other:?}", self.at)),
        };
        let does = match does {
            "says" => Does::Says { room: room()?, level, length },
            "tells" => Does::Tells { client: to()?, level, length },
            "reads" => {
                Does::Reads { room: room()?, lines: u32::try_from(number).unwrap_or(u32::MAX) }
            }
            "renames" => Does::Renames(number),
            "topic" => Does::Topic(number),
            "kicks" => Does::Kicks(to()?),
            "enters" => Does::Enters,
            "calls" => Does::Calls { level, length },
            "looks" => Does::Looks(u32::try_from(number).unwrap_or(u32::MAX)),
            other => return Err(format!("at {}: nobody can do {other:?}", self.at)),
        };
        Ok(Act { client: self.named(self.client, "client", swarm.clients)?, does })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for seed in 1..200 {
            let mut schedule = Schedule::draw(seed);
            schedule.redraws = Redraws::Never;
            let why = "a \"quoted\" reason,\nof two lines".to_string();
            let written = Written { schedule, why, fails: Some("a # kind".into()) };
            let mut read = Written::parse(&written.write()).expect("a file of our own");
            // How often each kind was to strike is not written: the strikes are.
            let (drawn, again) = (&written.schedule.swarm, &mut read.schedule.swarm);
            assert_eq!((again.messages, again.strikes), (drawn.messages, drawn.strikes));
            again.faults.clone_from(&drawn.faults);
            assert_eq!(read, written, "seed {seed}");
        }
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        let good = Written { schedule: Schedule::draw(1), why: String::new(), fails: None }.write();
        for (from, to, says) in [
            ("format = 1", "format = 2", "format 2"),
            ("does = \"says\"", "does = \"sings\"", "sings"),
            ("fault = \"", "fault = \"no-", "there is no fault"),
            ("world.servers = ", "world.servers = 9", "servers"),
            ("luck = ", "luk = ", "luk"),
        ] {
            assert!(good.contains(from), "{from} is in the file");
            let error = Written::parse(&good.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(says), "{error} names {says}");
        }
    }
}
