//! Seeds and schedules as tests: determinism, and every history that once broke a rule.

use std::path::PathBuf;
use std::time::Duration;

use chatty_core::config::Feeds;
use chatty_simulations::faults::{Counts, Fault};
use chatty_simulations::schedule::text::Written;
use chatty_simulations::schedule::{Entry, Planned, Redraws, Schedule, Strike};
use chatty_simulations::world::World;
use chatty_simulations::{feeds, live, run};

/// Each of these broke a rule once; what was wrong then is beside it. They are seeds of the first
/// edition: see `Swarm::draw_first`. What is found since is in `simulations/schedules`.
const ONCE_BROKEN: &[(u64, &str)] = &[
    (1266, "equal digests did not count what a disk holds: never replicated"),
    (1167, "the same, after a blip of all links"),
    (2118, "a late line dropped in a gap sorts below lines that were shown"),
    (1176, "a cursor rose above a line that was dropped in another room"),
    (2201, "the same, with late lines after a partition"),
    (114, "an answer overtook lines that waited for a slow disk"),
    (1537, "the same, with five servers"),
    (863, "a message id from a clock ahead was refused for good"),
    (1140, "ids made after one from a clock ahead stayed ahead"),
    (101_352, "ids made from a stale idea of the server's clock, again and again"),
    (401_312, "ids that followed one just beyond what the servers allow"),
    (2515, "the same, in another mesh"),
    (1465, "a disk was accused of being rolled back by a digest of before it said more"),
    (1987, "the same, by the echo of a digest"),
];

#[test]
fn histories_that_once_broke_a_rule_keep_all_of_them() {
    for (seed, why) in ONCE_BROKEN {
        if let Err(failure) = live(&mut World::first_edition(*seed)) {
            panic!("seed {seed} ({why}): {} at {:?}", failure.what, failure.at);
        }
    }
}

/// What a schedule says of itself is so: the kept ones broke a rule once, and do not any more.
#[test]
fn schedules_that_once_broke_a_rule_keep_all_of_them() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schedules");
    let files = std::fs::read_dir(folder).expect("the folder of schedules");
    let mut replayed = 0;
    for file in files {
        let path = file.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a schedule");
        let written = Written::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(written.fails, None, "{}: a kept schedule is mended", path.display());
        if let Err(failure) = live(&mut World::of(&written.schedule)) {
            panic!("{} ({}): {} at {:?}", path.display(), written.why, failure.what, failure.at);
        }
        replayed += 1;
    }
    assert!(replayed > 0, "there are schedules");
}

#[test]
fn one_seed_has_one_trace() {
    for seed in 1..=25 {
        let traces = [run(seed), run(seed)].map(|result| result.map(|report| report.trace));
        let [Ok(first), Ok(second)] = traces else { panic!("seed {seed} fails: {traces:?}") };
        assert_eq!(first, second, "seed {seed} went two ways");
    }
}

#[test]
fn two_seeds_have_two_traces() {
    let trace = |seed| run(seed).map(|report| report.trace).ok();
    assert_ne!(trace(1), trace(2));
}

/// What happened in a run is a schedule without chance, which makes it happen again.
#[test]
fn what_was_lived_is_lived_again_by_its_schedule() {
    let mut redrawn = 0;
    for seed in 1..=20 {
        let mut world = World::new(seed);
        let report = live(&mut world).expect("a good seed");
        let lived = world.lived();
        assert_eq!(lived.redraws, Redraws::Never);
        let written = Written { schedule: lived, why: String::new(), fails: None };
        let read = Written::parse(&written.write()).expect("a file of our own").schedule;
        let again = live(&mut World::of(&read)).expect("the same run");
        assert_eq!(again.faults, report.faults, "seed {seed}");
        assert_eq!(again.messages, report.messages, "seed {seed}");
        redrawn += usize::from(read.entries != Schedule::draw(seed).entries);
    }
    assert!(redrawn > 0, "some strike was drawn again");
}

/// Everything that was drawn happened, or is counted as what could not.
#[test]
fn every_strike_happened_or_is_counted() {
    for seed in 1..=40 {
        let drawn = Schedule::draw(seed).strikes() as u64;
        let report = run(seed).expect("a good seed");
        let happened: u64 = report.faults.values().sum();
        let [idle, missed] = [report.idle, report.missed].map(|c| c.values().sum::<u64>());
        assert_eq!(happened + idle + missed, drawn, "seed {seed}");
        assert!(happened > 0, "seed {seed} struck nobody");
    }
}

/// A fault during which nothing happened that it could have changed has tested nothing.
#[test]
fn a_fault_that_changed_nothing_before_it_ended_is_counted_apart() {
    let faults = [
        Fault::Cut,
        Fault::OneWay,
        Fault::Isolate,
        Fault::Partition,
        Fault::Loss,
        Fault::SlowLink,
        Fault::NarrowLink,
        Fault::Pause,
        Fault::SlowServer,
        Fault::SlowDisk,
        Fault::DiskFull,
        Fault::Skew,
        Fault::ClientCut,
        Fault::SlowClient,
        Fault::Expired,
    ];
    let counts = |fault, long| {
        let mut schedule = Schedule::draw(1);
        schedule.redraws = Redraws::Never;
        schedule.swarm.turmoil = Duration::from_secs(4);
        schedule.entries.retain(|entry| matches!(entry.what, Planned::Act(_)));
        let (server, other, client, hard, luck) = (0, 1, 0, 100, 1);
        let strike = Strike { fault, server, other, client, long, hard, luck };
        let at = Duration::from_millis(500);
        schedule.entries.push(Entry { at, what: Planned::Strike(strike) });
        let report = live(&mut World::of(&schedule)).expect("a run that keeps all rules");
        [report.faults, report.idle, report.missed]
    };
    let once = |fault| Counts::from([(fault, 1)]);
    let none = Counts::new;
    for fault in faults {
        assert_eq!(counts(fault, Duration::ZERO), [none(), once(fault), none()], "{fault:?}");
        assert_eq!(
            counts(fault, Duration::from_secs(3)),
            [once(fault), none(), none()],
            "{fault:?}"
        );
    }
}

/// Kinds that came after the others leave the rest of a seed as it was, and happen where they are drawn.
#[test]
fn kinds_of_fault_that_came_later_happen_and_change_no_other_draw() {
    let later = |entry: &Entry| match &entry.what {
        Planned::Strike(strike) => Fault::ALL[Fault::SECOND..].contains(&strike.fault),
        Planned::Act(_) => false,
    };
    let draws = |seed: &u64| Schedule::draw(*seed).entries.iter().any(later);
    let with = (1..=100).filter(draws).count();
    assert!((20..60).contains(&with), "{with} of 100 seeds draw one");
    for fault in Fault::ALL[Fault::SECOND..].iter().copied() {
        let mut schedule = Schedule::draw(1);
        schedule.redraws = Redraws::Never;
        schedule.swarm.turmoil = Duration::from_secs(4);
        schedule.entries.retain(|entry| matches!(entry.what, Planned::Act(_)));
        let (server, other, client, hard, luck) = (0, 1, 0, 60, 1);
        let long = Duration::from_secs(3);
        let strike = Strike { fault, server, other, client, long, hard, luck };
        let at = Duration::from_millis(500);
        schedule.entries.push(Entry { at, what: Planned::Strike(strike) });
        let written = Written { schedule, why: String::new(), fails: None };
        let read = Written::parse(&written.write()).expect("a file of our own").schedule;
        let report = live(&mut World::of(&read)).expect("a run that keeps all rules");
        assert_eq!(report.faults, Counts::from([(fault, 1)]), "{fault:?}");
    }
}

/// The formulas of the broadcast: (N-1)² copies at most when nothing is pruned, `feeds`·(N-1) at
/// most and N-1 at least once prunes have ceased, and no repair without a fault.
fn holds_the_formulas(mesh: impl Fn(usize, Feeds) -> bool) {
    for (servers, setting) in feeds::settings().into_iter().filter(|(n, feeds)| mesh(*n, *feeds)) {
        let cost = feeds::cost(servers, setting, 1)
            .unwrap_or_else(|failure| panic!("{servers} {setting:?}: {}", failure.what));
        let others = (servers - 1) as f64;
        let most = others * others.min(setting.max() as f64);
        assert!(cost.first <= others * others, "{cost:?} floods at first at most");
        assert!(cost.settled <= most, "{cost:?} sends at most {most} copies");
        assert!(cost.settled >= others, "{cost:?} reaches everybody");
        assert_eq!(cost.repairs, 0, "{cost:?} repairs nothing");
    }
}

#[test]
fn a_small_calm_mesh_sends_as_many_copies_as_its_feeds_allow_and_repairs_nothing() {
    holds_the_formulas(|servers, _| servers < 25);
}

#[test]
fn a_calm_mesh_of_25_that_prunes_sends_as_many_copies_as_its_feeds_allow_and_repairs_nothing() {
    holds_the_formulas(|servers, feeds| servers == 25 && feeds != Feeds::All);
}

#[test]
fn a_calm_mesh_of_25_that_never_prunes_floods_and_repairs_nothing() {
    holds_the_formulas(|servers, feeds| servers == 25 && feeds == Feeds::All);
}
