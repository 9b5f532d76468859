//! Load that is too much: refused with a time, bounded, and nothing lost or shown twice.

use chatty_simulations::floods::{Felt, Flood, QUEUE_BYTES, run};

const SEEDS: u64 = 12;

/// Each seed's flood, and what it met; every message said was taken in the end.
fn flooded(flood: Flood) -> Vec<Felt> {
    let felt = |seed| match run(flood, seed) {
        Ok(felt) => felt,
        Err(failure) => panic!("{flood:?} {seed}: {} at {:?}", failure.what, failure.at),
    };
    let all: Vec<Felt> = (1..=SEEDS).map(felt).collect();
    assert!(all.iter().all(|felt| felt.messages == 300), "{all:?}");
    all
}

#[test]
fn a_client_that_floods_is_refused_with_a_time_and_all_it_said_is_there_once() {
    let all = flooded(Flood::Client);
    assert!(all.iter().all(|felt| felt.refusals >= 10), "{all:?}");
}

#[test]
fn a_room_that_is_flooded_refuses_with_a_time_and_all_is_there_once() {
    let all = flooded(Flood::Room);
    assert!(all.iter().all(|felt| felt.refusals >= 10), "{all:?}");
}

#[test]
fn a_server_whose_disk_is_flooded_takes_no_more_than_its_bound_and_pulls_the_rest() {
    let all = flooded(Flood::Server);
    assert!(all.iter().all(|felt| felt.full > 0), "{all:?}");
    let refused = all.iter().filter(|felt| felt.refusals > 0).count();
    assert!(refused > all.len() / 2, "{all:?}");
    // What was there before a frame came, and the frame.
    assert!(all.iter().all(|felt| felt.unsaved <= 2 * QUEUE_BYTES), "{all:?}");
}

#[test]
fn a_client_that_takes_nothing_is_told_of_a_gap_and_reads_all_of_it_again() {
    let all = flooded(Flood::SlowClient);
    assert!(all.iter().all(|felt| felt.gaps > 0), "{all:?}");
}

#[test]
fn a_server_that_takes_nothing_loses_its_queue_and_pulls_all_of_it() {
    let all = flooded(Flood::SlowPeer);
    assert!(all.iter().all(|felt| felt.overflows > 0), "{all:?}");
}
