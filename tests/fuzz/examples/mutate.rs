//! Mutates what is in the corpora at random, without looking at what that reaches: for where there
//! is no nightly toolchain. `mutate SECONDS [TARGET…]`; all targets without one.
//!
//! What breaks a promise is written to a file, which is named. Exit code: 0 nothing was found.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chatty_core::rng::Rng;
use chatty_fuzz::{TARGETS, Target};

const BYTES_MAX: usize = 4096;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let seconds = args.next().and_then(|seconds| seconds.parse().ok());
    let seconds = Duration::from_secs(seconds.expect("how many seconds"));
    let names: Vec<String> = args.collect();
    let wanted = |target: &&Target| names.is_empty() || names.iter().any(|n| n == target.name);
    let mut broken = false;
    for target in TARGETS.iter().filter(wanted) {
        broken |= !holds(target, seconds);
    }
    if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn holds(target: &Target, seconds: Duration) -> bool {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let files = std::fs::read_dir(&corpus).expect("a corpus").flatten();
    let seeds: Vec<Vec<u8>> =
        files.map(|file| std::fs::read(file.path()).expect("a seed")).collect();
    let seed = u64::from(std::process::id());
    let (mut rng, began) = (Rng::new(seed), Instant::now());
    let mut executions = 0u64;
    while began.elapsed() < seconds {
        let bytes = mutated(&seeds, &mut rng);
        executions += 1;
        if std::panic::catch_unwind(|| target.run(&bytes)).is_err() {
            let file = std::env::temp_dir().join(format!("chatty-{}-{executions}", target.name));
            std::fs::write(&file, &bytes).expect("written");
            println!("{:16} BROKEN by {}", target.name, file.display());
            return false;
        }
    }
    println!("{:16} {executions:>9} in {:.0?}", target.name, began.elapsed());
    true
}

/// One of the seeds, changed in some places.
fn mutated(seeds: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let below = |rng: &mut Rng, n: usize| rng.below(n as u64) as usize;
    let mut bytes = seeds[below(rng, seeds.len())].clone();
    for _ in 0..=below(rng, 4) {
        let at = below(rng, bytes.len() + 1);
        let here = bytes.get_mut(at);
        match (below(rng, 7), here) {
            (0, Some(here)) => *here = below(rng, 256) as u8,
            (1, Some(here)) => *here ^= 1 << below(rng, 8),
            (2, Some(here)) => *here = [0, 1, 0x7f, 0x80, 0xff][below(rng, 5)],
            (3, Some(_)) => drop(bytes.remove(at)),
            (4, Some(_)) => bytes[at..].iter_mut().take(8).for_each(|byte| *byte = 0xff),
            (5, _) => {
                let other = &seeds[below(rng, seeds.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[below(rng, other.len() + 1)..]);
            }
            _ => bytes.insert(at, below(rng, 256) as u8),
        }
    }
    bytes.truncate(BYTES_MAX);
    bytes
}
