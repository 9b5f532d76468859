//! Clients spread again by themselves.

use std::time::Duration;

use chatty_simulations::balance::{Spread, calm, come_and_go, rolling_restart};
use chatty_simulations::world::Failure;

const CLIENTS: usize = 60;
/// What is no more above the mean is left as it is.
const BEYOND: usize = 8;
/// Clients that have just come stay for two minutes, unevenness is looked at for ten seconds, and
/// five a second go.
const SPREAD_WITHIN: Duration = Duration::from_secs(150);
const MINUTE: Duration = Duration::from_secs(60);

fn lived<T>(seed: u64, run: impl FnOnce(u64) -> Result<T, Failure>) -> T {
    run(seed).unwrap_or_else(|failure| panic!("{seed}: {} at {:?}", failure.what, failure.at))
}

fn most(spread: &Spread) -> usize {
    spread.clients.iter().copied().max().unwrap_or_default()
}

#[test]
fn after_a_rolling_restart_the_clients_spread_and_each_moves_at_most_once() {
    for seed in 1..=3 {
        let run = |seed| rolling_restart(seed, CLIENTS, SPREAD_WITHIN);
        let (left, after) = lived(seed, run);
        assert_eq!(left.clients.last(), Some(&0), "{left:?}");
        assert!(most(&after) <= CLIENTS / 3 + BEYOND, "{left:?} became {after:?}");
        assert!(after.clients[2] >= CLIENTS / 3 - BEYOND, "{left:?} became {after:?}");
        assert!(after.moves <= CLIENTS / 3, "what the last one lacked: {after:?}");
        assert!(after.outage < Duration::from_millis(100), "{after:?}");
        assert!(after.stay >= 2 * MINUTE, "{after:?}");
    }
}

#[test]
fn nobody_moves_where_clients_are_even() {
    for seed in 1..=3 {
        let spread = lived(seed, |seed| calm(seed, CLIENTS, 10 * MINUTE));
        // The dialler spreads them by the hash of their accounts, which is even enough.
        assert!(most(&spread) <= CLIENTS / 3 + BEYOND, "{spread:?}");
        assert_eq!(spread.moves, 0, "{spread:?}");
    }
}

#[test]
fn while_servers_come_and_go_nobody_is_asked_to_move_twice_in_two_minutes_and_it_ends() {
    let run = |seed| come_and_go(seed, CLIENTS, Duration::from_secs(45), 20, 4 * MINUTE);
    let (going, after) = lived(1, run);
    assert!(going.stay >= 2 * MINUTE, "{going:?}");
    assert!(going.moves > 0 && going.moves <= 3 * CLIENTS, "{going:?}");
    assert_eq!(after.moves, 0, "{after:?}");
    assert!(most(&after) <= CLIENTS / 3 + BEYOND, "{after:?}");
}
