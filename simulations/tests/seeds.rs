//! Seeds as tests: determinism, and every history that once broke a rule.

use chatty_simulations::{feeds, run};

/// Each of these broke a rule once; what was wrong then is beside it.
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
        if let Err(failure) = run(*seed) {
            panic!("seed {seed} ({why}): {} at {:?}", failure.what, failure.at);
        }
    }
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

/// The formulas of the broadcast: (N-1)² copies at most when nothing is pruned, `feeds`·(N-1) at
/// most and N-1 at least once prunes have ceased, and no repair without a fault.
#[test]
fn a_calm_mesh_sends_as_many_copies_as_its_feeds_allow_and_repairs_nothing() {
    for (servers, setting) in feeds::settings() {
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
