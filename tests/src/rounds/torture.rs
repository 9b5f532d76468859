//! Rounds of drawn faults, alone and two at a time, on three and on five servers.
//!
//! A seed deals the faults like cards: each comes before any comes again. A few rounds are lived on the
//! same servers, then new ones are made; so are they after a round that broke something, which is kept
//! with everything that the servers had on their disks.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use chatty_core::rng::Rng;
use chatty_simulations::history::{History, Shown, Stall};

use super::cases::Cases;
use super::crowd::Mix;
use super::fault::{Dice, Fault, shuffle};
use super::keep::keep;
use super::machines;
use super::modes::{logs, reread};
use super::round::{Ends, Lived, Plan, live};
use super::stage::{Ground, Stage};
use super::system::at;
use super::table::{Cell, Row, Table};
use super::timeline::Timeline;
use super::{Judged, Verdict};

/// So many rounds are lived on the same servers.
const STRETCH: u32 = 10;
/// One round in so many has a second fault.
const TWO_AT_ONCE: u64 = 3;
const ROOMS: usize = 2;
/// In so many rounds, which have every fault, each rule has something to judge.
const JUDGES_ALL: usize = 2 * Fault::ALL.len();
const AFTERWARDS: Duration = Duration::from_millis(800);

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Torture {
    /// How many rounds.
    pub rounds: u32,
    /// Deals the faults, and draws victims and measures.
    pub seed: u64,
    /// No other fault than this.
    pub only: Option<Fault>,
    /// No other round than this one.
    pub round: Option<u32>,
    /// How many servers; else three and five in turn.
    pub servers: Option<usize>,
    /// No fault is drawn to last longer.
    pub longest: Duration,
    /// Messages a second, of all clients together.
    pub rate: u32,
}

/// One round as it was dealt.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Dealt {
    number: u32,
    servers: usize,
    faults: Vec<Fault>,
}

impl Dealt {
    fn names(&self) -> String {
        self.faults.iter().map(|fault| fault.name()).collect::<Vec<_>>().join(" + ")
    }
}

impl Torture {
    /// All rounds, in order.
    fn deal(&self) -> Vec<Dealt> {
        let mut rng = Rng::new(self.seed);
        let mut cards = Vec::new();
        let mut dealt = Vec::new();
        for number in 1..=self.rounds {
            if cards.is_empty() {
                cards = self.only.map_or_else(|| Fault::ALL.to_vec(), |only| vec![only]);
                shuffle(&mut cards, &mut rng);
            }
            let mut faults: Vec<_> = cards.pop().into_iter().collect();
            if self.only.is_none() && rng.one_in(TWO_AT_ONCE) {
                let goes = |fault: &Fault| faults.iter().all(|first| first.goes_with(*fault));
                let others: Vec<_> = Fault::ALL.into_iter().filter(goes).collect();
                let second = others.get(rng.below(others.len() as u64) as usize);
                faults.extend(second);
            }
            let turn = if ((number - 1) / STRETCH).is_multiple_of(2) { 3 } else { 5 };
            dealt.push(Dealt { number, servers: self.servers.unwrap_or(turn), faults });
        }
        dealt.retain(|dealt| self.round.is_none_or(|wanted| dealt.number == wanted));
        dealt
    }

    fn plan(&self, dealt: &Dealt) -> Plan {
        let seed = Rng::new(self.seed ^ (u64::from(dealt.number) << 32)).bits();
        let mut dice = Dice::new(seed, dealt.servers, self.longest);
        let mut strikes: Vec<_> =
            dealt.faults.iter().map(|fault| (fault.rank(), fault.draw(&mut dice))).collect();
        strikes.sort_by_key(|(rank, _)| *rank);
        let number = dealt.number;
        Plan {
            rooms: (1..=ROOMS).map(|n| format!("round-{number}-{n}")).collect(),
            square: format!("round-{number}"),
            founder: number as usize % dealt.servers,
            rate: self.rate,
            mix: Mix::Varied,
            lead: dice.millis(300, 1000),
            afterwards: AFTERWARDS,
            ends: Ends::InTalk,
            acts: vec![strikes.into_iter().map(|(_, strike)| strike).collect()],
        }
    }

    /// How to live a round again.
    fn again(&self, dealt: &Dealt) -> String {
        let Self { rounds, seed, rate, .. } = self;
        let mut command = format!("scripts/torture --rounds {rounds} --seed {seed} --rate {rate}");
        if let Some(only) = self.only {
            let _ = write!(command, " --only {}", only.name());
        }
        let _ = write!(command, " --servers {} --round {}", dealt.servers, dealt.number);
        let _ = write!(command, " --longest {}", self.longest.as_secs());
        command
    }

    /// Lives all rounds. The cluster lies in `work`, which nobody needs afterwards; broken rounds are
    /// kept in `broken`.
    ///
    /// # Errors
    /// Why no round can be lived.
    pub(super) fn run(&self, work: &Path, broken: &Path) -> Result<Verdict, String> {
        let all = self.deal();
        let most = all.iter().map(|dealt| dealt.servers).max().ok_or("no round is to be lived")?;
        machines::lay(most)?;
        let mut run = Run { torture: self, work, broken, stage: None, summary: Summary::default() };
        for dealt in &all {
            run.round(dealt)?;
        }
        run.end_stretch()?;
        let Summary { cases, broken, .. } = &run.summary;
        println!("{}\n{cases}", run.summary.table());
        let judges_all = self.only.is_none() && all.len() >= JUDGES_ALL;
        Ok(match (broken, cases.idle().is_empty()) {
            (0, false) if judges_all => Verdict::Idle,
            (0, _) => Verdict::Kept,
            _ => Verdict::Broken,
        })
    }
}

/// Servers with what was said on them so far.
struct Stretch {
    stage: Stage,
    first: u32,
    servers: usize,
    earlier: Vec<(Timeline, Vec<Shown>)>,
}

struct Run<'a> {
    torture: &'a Torture,
    work: &'a Path,
    broken: &'a Path,
    stage: Option<Stretch>,
    summary: Summary,
}

impl Run<'_> {
    fn round(&mut self, dealt: &Dealt) -> Result<(), String> {
        let began = Instant::now();
        let over = |stretch: &Stretch| {
            stretch.servers != dealt.servers || dealt.number >= stretch.first + STRETCH
        };
        if self.stage.as_ref().is_some_and(over) {
            self.end_stretch()?;
        }
        let stretch = match &mut self.stage {
            Some(stretch) => stretch,
            none => none.insert(self.torture.begin_stretch(self.work, dealt)?),
        };
        let plan = self.torture.plan(dealt);
        let drawn: Vec<_> = plan.acts.iter().flatten().map(|strike| strike.says()).collect();
        // Clients that cannot even come are a finding like any other.
        let lived = live(&mut stretch.stage, plan).unwrap_or_else(Lived::failed);
        let took = began.elapsed();
        let Lived { judged, proofs, rest, .. } = &lived;
        let verdict = if judged.is_kept() { "kept" } else { "BROKEN" };
        eprintln!(
            "{:>3}/{} {} servers, {}: {}; {}; {} said, {} replicated; at rest after {} ms; longest stall {}; {verdict}, {:.1} s",
            dealt.number,
            self.torture.rounds,
            dealt.servers,
            dealt.names(),
            drawn.join("; "),
            proofs.join("; "),
            judged.figures.sent,
            judged.figures.replicated,
            rest.as_millis(),
            judged.longest_stall(),
            took.as_secs_f64(),
        );
        self.summary.add(dealt, &lived, took);
        if judged.is_kept() {
            stretch.earlier.extend(lived.timelines);
            return Ok(());
        }
        self.keep(dealt, &lived)
    }

    /// Keeps a broken round, with the servers' disks, and takes new servers for the next.
    fn keep(&mut self, dealt: &Dealt, lived: &Lived) -> Result<(), String> {
        let Some(Stretch { stage, .. }) = self.stage.take() else { return Ok(()) };
        let name = format!("seed-{}-round-{}", self.torture.seed, dealt.number);
        let folder = self.broken.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(at(&folder))?;
        }
        keep(&folder, lived, &logs(&stage))?;
        let again = folder.join("again.txt");
        fs::write(&again, self.torture.again(dealt) + "\n").map_err(at(&again))?;
        let dir = stage.dir().to_owned();
        drop(stage);
        fs::rename(&dir, folder.join("cluster")).map_err(at(&dir))?;
        eprintln!("  kept in {}; again: {}", folder.display(), self.torture.again(dealt));
        Ok(())
    }

    /// What was said in all rounds of a stretch is as it was.
    fn end_stretch(&mut self) -> Result<(), String> {
        let Some(stretch) = &self.stage else { return Ok(()) };
        let lost = reread(&stretch.stage, &stretch.earlier).unwrap_or_else(|why| vec![why]);
        let messages: usize = stretch.earlier.iter().map(|(_, lines)| lines.len()).sum();
        self.summary.read_again += messages;
        if lost.is_empty() {
            self.stage = None;
            return Ok(());
        }
        self.summary.broken += 1;
        let lived = Lived::failed(lost.join("\n"));
        let dealt = Dealt { number: stretch.first, servers: stretch.servers, faults: Vec::new() };
        eprintln!("what was said in the rounds from {} on is not as it was", stretch.first);
        self.keep(&dealt, &lived)
    }
}

impl Torture {
    fn begin_stretch(&self, work: &Path, dealt: &Dealt) -> Result<Stretch, String> {
        let folder = work.join(format!("from-{}", dealt.number));
        let stage = Stage::build(&folder, dealt.servers, Ground::Machines)?;
        let (first, servers) = (dealt.number, dealt.servers);
        Ok(Stretch { stage, first, servers, earlier: Vec::new() })
    }
}

impl Lived {
    /// A round that could not be lived.
    fn failed(why: String) -> Self {
        Self {
            judged: Judged::new(History::default(), vec![why.clone()]),
            notes: vec![why],
            proofs: Vec::new(),
            timelines: Vec::new(),
            rest: Duration::ZERO,
            cells: Row::new(),
        }
    }
}

/// All rounds, by their first fault.
#[derive(Default)]
struct Summary {
    rounds: Vec<(Fault, bool, Row)>,
    cases: Cases,
    broken: usize,
    read_again: usize,
}

impl Summary {
    fn add(&mut self, dealt: &Dealt, lived: &Lived, took: Duration) {
        let judged = &lived.judged;
        let is_broken = usize::from(!judged.is_kept());
        self.broken += is_broken;
        self.cases.add(&judged.judged);
        let stalls = judged.stalls();
        let stall = stalls.values().map(Stall::longest).max().unwrap_or_default();
        let mut row = vec![("broken", Cell::Count(is_broken))];
        row.extend(judged.cells());
        row.push(("longest stall", Cell::Longest(stall)));
        row.push(("to rest", Cell::Longest(lived.rest)));
        row.push(("longest round", Cell::Longest(took)));
        for (nth, fault) in dealt.faults.iter().enumerate() {
            // A round's figures count once.
            let row = if nth == 0 { row.clone() } else { Row::new() };
            self.rounds.push((*fault, nth == 0, row));
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::default();
        for fault in Fault::ALL {
            let of = || self.rounds.iter().filter(|(other, ..)| *other == fault);
            let first = of().filter(|(_, first, _)| *first).count();
            if first == 0 {
                continue;
            }
            let mut row = vec![
                ("fault", Cell::Word(fault.name().into())),
                ("rounds", Cell::Count(first)),
                ("as a second", Cell::Count(of().count() - first)),
            ];
            row.extend(super::table::merged(of().flat_map(|(_, _, row)| row.clone()).collect()));
            table.add(row);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn torture(rounds: u32, seed: u64) -> Torture {
        let (only, round, servers) = (None, None, None);
        Torture { rounds, seed, only, round, servers, longest: Duration::from_secs(20), rate: 100 }
    }

    #[test]
    fn a_hundred_rounds_have_each_fault_at_least_five_times_and_three_and_five_servers() {
        for seed in 0..20 {
            let dealt = torture(100, seed).deal();
            let mut times: BTreeMap<Fault, usize> = BTreeMap::new();
            for round in &dealt {
                *times.entry(round.faults[0]).or_default() += 1;
            }
            assert!(Fault::ALL.iter().all(|fault| times[fault] >= 5), "{times:?}");
            let two = dealt.iter().filter(|round| round.faults.len() == 2).count();
            assert!((15..=55).contains(&two), "{two} rounds have two faults");
            let five = dealt.iter().filter(|round| round.servers == 5).count();
            assert_eq!(five, 50);
        }
    }

    #[test]
    fn a_round_is_the_same_alone_as_among_the_others() {
        let all = torture(30, 7);
        let one = Torture { round: Some(23), ..all.clone() };
        let among = &all.deal()[22];
        assert_eq!(one.deal(), std::slice::from_ref(among));
        let says = |torture: &Torture| {
            let plan = torture.plan(among);
            plan.acts.iter().flatten().map(|strike| strike.says()).collect::<Vec<_>>()
        };
        assert_eq!(says(&one), says(&all));
    }

    #[test]
    fn one_disk_is_lost_at_a_time_and_no_fault_goes_with_itself() {
        for (one, other) in Fault::ALL.iter().flat_map(|one| Fault::ALL.map(|other| (*one, other)))
        {
            assert_eq!(one.goes_with(other), other.goes_with(one), "{one:?} {other:?}");
            assert!(one != other || !one.goes_with(other), "{one:?}");
        }
        assert!(!Fault::Wipe.goes_with(Fault::Rollback));
        assert!(Fault::Wipe.goes_with(Fault::Loss) && Fault::Isolate.goes_with(Fault::Kill));
    }
}
