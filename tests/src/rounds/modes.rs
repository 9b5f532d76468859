//! Rounds of one fault each, again and again on the same servers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use chatty_core::session::Level;
use chatty_simulations::history::{Did, History, Rule, Server, Session, Shown, Stall, What};

use super::cases::Cases;
use super::crowd::Mix;
use super::fault::{Dice, Fault, Strike};
use super::faults::links::Isolate;
use super::keep::keep;
use super::machines;
use super::round::{Ends, Lived, Plan, live};
use super::stage::{Ground, Stage};
use super::table::{Cell, Row, Table, merged};
use super::timeline::Timeline;
use super::told::told;
use super::{Judged, Mode, Options, Verdict};
use crate::ports::Ports;

const SERVERS: usize = 3;
const ROOMS: usize = 2;
/// People go on talking for so long when all servers are up again.
const AFTERWARDS: Duration = Duration::from_millis(1200);
/// No fault here is drawn to last longer.
const LONGEST: Duration = Duration::from_secs(10);

impl Mode {
    fn plan(self, round: u32, options: &Options) -> Plan {
        let mut dice = Dice::new(options.seed ^ (u64::from(round) << 32), SERVERS, LONGEST);
        let mut one = |fault: Fault| -> Vec<Box<dyn Strike>> { vec![fault.draw(&mut dice)] };
        let (acts, from, to) = match self {
            Self::Kill => (vec![one(Fault::Kill)], 300, 3300),
            Self::All => (vec![one(Fault::KillAll)], 1000, 3000),
            Self::Wipe => ((0..SERVERS).map(|_| one(Fault::Wipe)).collect(), 500, 1000),
        };
        Plan {
            rooms: rooms(&format!("round-{round}")),
            square: format!("round-{round}"),
            founder: round as usize % SERVERS,
            rate: options.rate,
            mix: Mix::Plain,
            lead: dice.millis(from, to),
            afterwards: AFTERWARDS,
            ends: Ends::InTalk,
            acts,
        }
    }

    /// What a table of such rounds tells besides.
    fn cells(self, judged: &Judged) -> Row {
        let longest = |of: &mut dyn Iterator<Item = &Stall>| {
            Cell::Longest(of.map(Stall::longest).max().unwrap_or_default())
        };
        let stalls = judged.stalls();
        match self {
            Self::Kill => {
                let victim = victim_of(&judged.history).unwrap_or_default();
                let clients = clients_of(&judged.history, victim);
                let stall = |killed: bool| {
                    let of = stalls.iter().filter(|(who, _)| clients.contains(who) == killed);
                    longest(&mut of.map(|(_, stall)| stall))
                };
                vec![("stall of survivors", stall(false)), ("of the killed one's", stall(true))]
            }
            Self::All => {
                let only_stored = Cell::Count(only_stored_when_killed(&judged.history));
                let stall = longest(&mut stalls.values());
                vec![("only stored at the kill", only_stored), ("stall", stall)]
            }
            Self::Wipe => vec![("stall", longest(&mut stalls.values()))],
        }
    }
}

fn rooms(name: &str) -> Vec<String> {
    (1..=ROOMS).map(|n| format!("{name}-{n}")).collect()
}

pub(super) fn run(mode: Mode, rounds: u32, options: &Options) -> Result<Verdict, String> {
    let folder = &options.folder;
    let ports = options.port.is_none().then(Ports::take);
    let port = options.port.or(ports.as_ref().map(Ports::base)).unwrap_or_default();
    let mut stage = Stage::build(folder, SERVERS, Ground::Loopback(port))?;
    let mut earlier = Vec::new();
    let mut table = Table::default();
    let mut cases = Cases::default();
    let mut verdict = Verdict::Kept;
    for round in 1..=rounds {
        let began = Instant::now();
        let lived = live(&mut stage, mode.plan(round, options))?;
        let mut cells = vec![("round", Cell::Word(round.to_string()))];
        cells.extend(merged(lived.cells.clone()));
        cells.extend(lived.judged.cells());
        cells.extend(mode.cells(&lived.judged));
        cells.push(("took", Cell::Longest(began.elapsed())));
        table.add(cells);
        cases.add(&lived.judged.judged);
        eprintln!("{}", table.last_row());
        if !lived.judged.is_kept() {
            verdict = Verdict::Broken;
            keep(&folder.join(format!("round-{round}")), &lived, &logs(&stage))?;
        }
        if !lived.judged.troubles.is_empty() {
            eprintln!("the servers did not come to rest: no more rounds");
            break;
        }
        earlier.extend(lived.timelines);
    }
    println!("{table}\n{cases}");
    let lost = reread(&stage, &earlier)?;
    let messages: usize = earlier.iter().map(|(_, lines)| lines.len()).sum();
    println!(
        "after the last round, the {messages} messages of all rounds are {} on every server",
        if lost.is_empty() { "as they were" } else { "not as they were" }
    );
    for lost in lost {
        verdict = Verdict::Broken;
        eprintln!("{lost}");
    }
    Ok(verdict)
}

pub(super) fn partition(cut: Duration, options: &Options) -> Result<Verdict, String> {
    machines::lay(SERVERS)?;
    let mut stage = Stage::build(&options.folder, SERVERS, Ground::Machines)?;
    let isolate = Isolate::of(vec![2], vec![0, 1], cut);
    eprintln!("all talk; {}", isolate.says());
    let plan = Plan {
        rooms: rooms("partition"),
        square: "partition".into(),
        founder: 0,
        rate: options.rate,
        mix: Mix::Plain,
        lead: Duration::from_secs(2),
        afterwards: Duration::ZERO,
        ends: Ends::InQuiet,
        acts: vec![vec![Box::new(isolate)]],
    };
    let lived = live(&mut stage, plan)?;
    let Lived { judged, rest, .. } = &lived;
    println!("{}", told(&judged.history));
    let mut cells = vec![("partition", Cell::Word(format!("{} s", cut.as_secs_f64())))];
    cells.extend(judged.cells());
    let in_minority = Cell::Count(judged.broken(&[Rule::MinorityReplicated]));
    cells.push(("replicated in the minority", in_minority));
    cells.push(("heal to equal digests", Cell::Longest(*rest)));
    let mut table = Table::default();
    table.add(cells);
    let mut cases = Cases::default();
    cases.add(&judged.judged);
    println!("{table}\n{cases}");
    if judged.is_kept() {
        return Ok(Verdict::Kept);
    }
    keep(&options.folder.join("round-1"), &lived, &logs(&stage))?;
    Ok(Verdict::Broken)
}

/// Where the servers of a stage write their logs.
pub(super) fn logs(stage: &Stage) -> Vec<PathBuf> {
    stage.servers.iter().map(super::server::Server::log_file).collect()
}

/// The timelines of all rounds, as they are on every server after the last: what is not as it was.
pub(super) fn reread(
    stage: &Stage,
    earlier: &[(Timeline, Vec<Shown>)],
) -> Result<Vec<String>, String> {
    let mut lost = Vec::new();
    let timelines: Vec<_> = earlier.iter().map(|(timeline, _)| timeline.clone()).collect();
    for server in 0..stage.servers.len() {
        let read = stage.read(server, &timelines)?;
        for ((timeline, before), now) in earlier.iter().zip(read) {
            if *before != now {
                let (room, name) = (&timeline.name, stage.name(server));
                let (before, now) = (before.len(), now.len());
                lost.push(format!("{room} on {name}: {before} messages then, {now} now"));
            }
        }
    }
    Ok(lost)
}

fn victim_of(history: &History) -> Option<Server> {
    history.ops.iter().find_map(|op| match op.what {
        What::Down(server) => Some(server),
        _ => None,
    })
}

/// How many messages had been acknowledged as stored and not yet as replicated when the servers were
/// killed.
fn only_stored_when_killed(history: &History) -> usize {
    let mut levels = BTreeMap::new();
    for op in &history.ops {
        match &op.what {
            What::Client(session, Did::Answered { ticket, level, .. }) => {
                levels.insert((*session, *ticket), *level);
            }
            What::Down(_) => break,
            _ => {}
        }
    }
    levels.values().filter(|level| **level == Level::Stored).count()
}

/// The sessions that were attached to that server when it went down.
fn clients_of(history: &History, victim: Server) -> Vec<Session> {
    let mut at = BTreeMap::new();
    for op in &history.ops {
        match &op.what {
            What::Client(session, Did::Attached { server, .. }) => {
                at.insert(*session, *server);
            }
            What::Down(server) if *server == victim => break,
            _ => {}
        }
    }
    at.into_iter().filter(|(_, server)| *server == victim).map(|(session, _)| session).collect()
}
